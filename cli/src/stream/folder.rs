//! All files below a folder, each to one below another folder.

use super::{Compared, Job, OwnFiles, Refused, counted, fill, is_sealed};
use crate::args::{Transform, Whole};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::{Interrupt, Interruptible};
use crate::files::output::{self, Output, OutputError, Target};
use crate::outputs::resolved;
use crate::transform::Direction;
use keyfold::RowBinding;
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the name of a stream ends in, behind that of its file.
const SUFFIX: &str = ".kfs";

/// What a walk comes to, outer folders before what is in them.
enum Found {
    /// Where a folder goes, and the mode that it has.
    Folder(PathBuf, u32),
    File(Pair),
    /// What cannot be taken, whatever is done with the others.
    None(Failure),
}

/// A file and where it goes.
struct Pair {
    from: PathBuf,
    to: PathBuf,
    /// The name of the file in clear, below its folder: what it is bound to where the policy binds the field.
    name: PathBuf,
    len: u64,
    /// Device and inode.
    place: (u64, u64),
}

/// Refuses what would end the run in its middle, before anything is written: whoever reveals half of a folder must not find out there. Returns how many bytes
/// the files have. The folder is walked twice, rather than once into a list of its files that has no bound.
pub(super) fn check(
    args: &Transform,
    whole: &Whole,
    direction: Direction,
    interrupt: &Interrupt,
    has_row: bool,
) -> Result<u64, Failure> {
    let (from, to) = (Path::new(&args.input), Path::new(&args.output));
    if args.output.is_empty() {
        return Err(OutputError::NoName { target: Target::Path(to.to_owned()) }.into());
    }
    if args.output == "-" {
        return Err(Failure::new(Exit::Usage, "the files of a folder go to a folder: --output names it"));
    }
    if has_row {
        return Err(Failure::new(
            Exit::Usage,
            "the files of a folder are bound to their names, and --row-file is for one file",
        ));
    }
    let (source, target) = (resolved(from), resolved(to));
    if target.starts_with(&source) || source.starts_with(&target) {
        return Err(Failure::new(Exit::Usage, "the folders of input and output must not contain each other"));
    }
    let (own, mut len) = (OwnFiles::of(args)?, 0);
    let longest_name = longest_name(&target)?;
    let checked = walk(direction, from, to, Path::new(""), &mut |found| {
        interrupt.check()?;
        let checked = match found {
            Found::Folder(folder, _) => refuse_no_folder(&folder, folder == to).map_err(Refused::from),
            Found::File(pair) => {
                // Whatever else is wrong with it: the run does not ask again.
                if matches!(direction, Direction::Protect { .. }) {
                    own.refuse_input(&pair.from, pair.place)?;
                }
                check_file(direction, longest_name, &pair)
                    .and_then(|()| check_output(args.force || whole.resume, &own, &pair.to))
                    .inspect(|()| len += pair.len)
            }
            Found::None(failure) => Err(Refused::File(failure)),
        };
        match checked {
            // The run names it.
            Err(Refused::File(_)) if whole.keep_going => Ok(()),
            checked => checked,
        }
    });
    checked.map_err(|refused| match refused {
        Refused::File(failure) => failure.add("nothing was written; --keep-going leaves it out"),
        Refused::Run(failure) => failure.add("nothing was written"),
    })?;
    Ok(len)
}

pub(super) fn run(job: &mut Job<'_>) -> Result<(), Failure> {
    let (from, to) = (Path::new(&job.args.input), Path::new(&job.args.output));
    let longest_name = longest_name(&resolved(to))?;
    let done = walk(job.direction, from, to, Path::new(""), &mut |found| {
        job.interrupt.check()?;
        let done = match found {
            Found::Folder(folder, mode) => {
                refuse_no_folder(&folder, folder == to)?;
                // No more open than the folder that it comes from; but it is written to, which that need not be.
                let made = DirBuilder::new().recursive(true).mode(mode & 0o777 | 0o700).create(&folder);
                let cannot = |error| Failure::new(Exit::Storage, format!("cannot make {}: {error}", folder.display()));
                made.map_err(cannot).map_err(Refused::from)
            }
            Found::File(pair) => check_file(job.direction, longest_name, &pair)
                .and_then(|()| one(job, &pair).map_err(|refused| refused.at(pair.from.display()))),
            Found::None(failure) => Err(Refused::File(failure)),
        };
        match done {
            Err(Refused::File(failure)) if job.whole.keep_going => {
                job.leave_out(failure);
                Ok(())
            }
            done => done,
        }
    });
    let done = done.and_then(|()| if job.whole.resume { Ok(find_left(job, from, to)?) } else { Ok(()) });
    done.map_err(|refused| {
        let (is_of_file, failure) = (matches!(refused, Refused::File(_)), refused.into_failure());
        let mut done = match job.counts.files {
            0 => "no file was written".to_owned(),
            files => format!("{} written, whole", counted(files, "file")),
        };
        if job.counts.failed > 0 {
            done.push_str(&format!(", {} left out", counted(job.counts.failed, "file")));
        }
        if is_of_file {
            done.push_str("; --resume stops at this file again until it is replaced or moved away, and --keep-going goes on behind it");
        } else if job.counts.files > 0 {
            done.push_str("; --resume goes on behind them");
        }
        failure.add(&done)
    })
}

/// Counts the outputs below `to` whose input is not below `from` any more. What no run makes there is none.
fn find_left(job: &mut Job<'_>, from: &Path, to: &Path) -> Result<(), Failure> {
    job.interrupt.check()?;
    for entry in fs::read_dir(to).map_err(|error| cannot_read(to, &error))? {
        let entry = entry.map_err(|error| cannot_read(to, &error))?;
        let (path, file_name) = (entry.path(), entry.file_name());
        let file_type = entry.file_type().map_err(|error| cannot_read(&path, &error))?;
        if file_type.is_dir() {
            find_left(job, &from.join(&file_name), &path)?;
            continue;
        }
        let input = match job.direction {
            Direction::Reveal => Some(with_suffix(&file_name)),
            _ => without_suffix(&file_name).map(OsStr::to_owned),
        };
        let Some(input) = input.filter(|_| file_type.is_file()) else { continue };
        match fs::symlink_metadata(from.join(&input)) {
            Ok(_) => {}
            // The second where a file has the name that its folder had.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                job.counts.left += 1;
                if job.left.as_ref().is_none_or(|first| path < *first) {
                    job.left = Some(path);
                }
            }
            Err(error) => return Err(cannot_read(&from.join(input), &error)),
        }
    }
    Ok(())
}

/// Refuses a file that cannot be taken, whatever becomes of the others.
fn check_file(direction: Direction, longest_name: u64, pair: &Pair) -> Result<(), Refused> {
    let refuse = |why| Err(Refused::File(Failure::new(Exit::Data, why)));
    let name_len = pair.to.file_name().map_or(0, OsStr::len);
    if name_len as u64 > longest_name {
        return refuse(format!(
            "{} would become a file whose name has {name_len} bytes, of which {longest_name} are possible: rename it",
            pair.from.display()
        ));
    }
    let mut head = [0; STREAM_HEADER_LEN];
    let read = File::open(&pair.from).and_then(|mut file| fill(&mut file, &mut head));
    let n = read.map_err(|error| Refused::File(cannot_read(&pair.from, &error)))?;
    if let (Direction::Protect { seal_sealed: false }, Ok(_)) = (direction, StreamHeader::parse(&head[..n])) {
        return Err(Refused::File(is_sealed().at(pair.from.display())));
    }
    let neighbour = pair.from.with_file_name(pair.to.file_name().unwrap_or_default());
    if fs::symlink_metadata(&neighbour).is_ok_and(|metadata| metadata.is_dir()) {
        return refuse(format!(
            "{} and the folder {} would both become {}: rename one of them",
            pair.from.display(),
            neighbour.display(),
            pair.to.display()
        ));
    }
    Ok(())
}

/// Refuses an output that is a file of the keyring, or that is there: the command line has the wrong folder, or lacks an option.
fn check_output(may_exist: bool, own: &OwnFiles, to: &Path) -> Result<(), Refused> {
    own.refuse_target(&Target::Path(to.to_owned()))?;
    let checked = output::refuse_existing(to, may_exist).map_err(|error| match error {
        OutputError::Exists { .. } => Failure::from(error).add("--resume keeps it if it has the same content"),
        _ => error.into(),
    });
    Ok(checked?)
}

/// Most bytes of the name of a file at `path`, which is yet to be made: what the file system says of the folder that is there.
fn longest_name(path: &Path) -> Result<u64, Failure> {
    let folder = path.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(folder).map(|system| system.f_namemax).map_err(|error| cannot_read(folder, &error.into()))
}

/// Refuses a path at which something else is than a folder. Only the output itself may be a link to one: others could lead anywhere.
fn refuse_no_folder(path: &Path, is_output: bool) -> Result<(), Failure> {
    match if is_output { fs::metadata(path) } else { fs::symlink_metadata(path) } {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(metadata) => {
            let kind = output::kind_of(metadata.file_type());
            Err(Failure::new(Exit::Usage, format!("{} is {kind}, where a folder is to be", path.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_read(path, &error)),
    }
}

fn one(job: &mut Job<'_>, pair: &Pair) -> Result<(), Refused> {
    let is_bound = match &job.handles {
        super::Handles::Seal(sealer, _) => sealer.policy().row_binding != RowBinding::None,
        super::Handles::Open(opener) => opener.policy().row_binding != RowBinding::None,
    };
    let row = is_bound.then(|| pair.name.as_os_str().as_bytes());
    let open = |path: &Path| File::open(path).map_err(|error| Refused::File(cannot_read(path, &error)));
    job.progress.of(&pair.name);
    let input = open(&pair.from)?;
    if job.whole.resume && pair.to.exists() {
        let [mut sealed, mut clear] = match job.direction {
            Direction::Reveal => [open(&pair.from)?, open(&pair.to)?],
            _ => [open(&pair.to)?, open(&pair.from)?],
        };
        let found = job.compare(&mut sealed, &mut clear, row)?;
        if let Compared::Same = found {
            job.counts.kept += 1;
            return Ok(());
        }
        if !job.args.force {
            return Err(Refused::File(not_kept(&found, job.direction, &pair.to)));
        }
    }
    let mut output = Output::create(Target::Path(pair.to.clone()), job.args.force).map_err(appeared)?;
    job.transform(Interruptible::new(input, job.interrupt.clone()), row, &mut output)?;
    output.commit().map_err(appeared)?;
    job.counts.files += 1;
    Ok(())
}

/// Of an output that is there, and was not a moment ago.
fn appeared(error: OutputError) -> Refused {
    let OutputError::Exists { target } = error else { return error.into() };
    let why = format!(
        "{target} appeared meanwhile, and was left as it is: another run may be at work there; when that has ended, run this again with --resume"
    );
    Refused::Run(Failure::new(Exit::Usage, why))
}

/// Of an output that is there and not the same.
fn not_kept(found: &Compared, direction: Direction, to: &Path) -> Failure {
    let (to, is_reveal) = (to.display(), matches!(direction, Direction::Reveal));
    let of = "of this field and context, and of its name where that is bound";
    match found {
        Compared::NoStream if is_reveal => {
            Failure::new(Exit::Key, format!("is no stream {of}; {to} was left as it is"))
        }
        Compared::Damaged if is_reveal => {
            Failure::new(Exit::Key, format!("was changed, or cut; {to} was left as it is"))
        }
        Compared::NoStream => Failure::new(
            Exit::Usage,
            format!("{to} is there, and is no stream {of}: check --stream, --context and --scope; --force replaces it"),
        ),
        Compared::Damaged => {
            Failure::new(Exit::Usage, format!("{to} is there, and was changed, or cut; --force replaces it"))
        }
        Compared::Other | Compared::Same => {
            Failure::new(Exit::Usage, format!("{to} is there, with another content; --force replaces it"))
        }
    }
}

/// Visits the folder `from`, which is called `below` in the whole and goes to `to`, and all that is in it, in no order. Keeps nothing but the folders that it is in.
fn walk(
    direction: Direction,
    from: &Path,
    to: &Path,
    below: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let opened = fs::read_dir(from).and_then(|entries| Ok((fs::metadata(from)?.mode(), entries)));
    let (mode, entries) = match opened {
        Ok(opened) => opened,
        Err(error) => return visit(Found::None(cannot_read(from, &error))),
    };
    visit(Found::Folder(to.to_owned(), mode))?;
    for entry in entries {
        let entry = entry.map_err(|error| cannot_read(from, &error))?;
        let (path, file_name) = (entry.path(), entry.file_name());
        // Of a link nobody can tell whether it was meant to be followed.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                visit(Found::None(cannot_read(&path, &error)))?;
                continue;
            }
        };
        if metadata.is_dir() {
            walk(direction, &path, &to.join(&file_name), &below.join(&file_name), visit)?;
            continue;
        }
        if !metadata.is_file() {
            let why = format!(
                "{} is {}, which is not taken: move it away, or put a file in its place",
                path.display(),
                output::kind_of(metadata.file_type())
            );
            visit(Found::None(Failure::new(Exit::Data, why)))?;
            continue;
        }
        let (clear, out) = match direction {
            Direction::Reveal => {
                let Some(clear) = without_suffix(&file_name) else {
                    let why = format!(
                        "{} does not end in {SUFFIX} behind a name, so it is no stream of this folder: move it away",
                        path.display()
                    );
                    visit(Found::None(Failure::new(Exit::Data, why)))?;
                    continue;
                };
                (clear.to_owned(), clear.to_owned())
            }
            _ => (file_name.clone(), with_suffix(&file_name)),
        };
        let (len, place) = (metadata.len(), (metadata.dev(), metadata.ino()));
        visit(Found::File(Pair { from: path, to: to.join(out), name: below.join(clear), len, place }))?;
    }
    Ok(())
}

fn with_suffix(name: &OsStr) -> OsString {
    let mut name = name.to_owned();
    name.push(SUFFIX);
    name
}

fn without_suffix(name: &OsStr) -> Option<&OsStr> {
    let clear = name.as_bytes().strip_suffix(SUFFIX.as_bytes())?;
    // No file is called so.
    (!matches!(clear, b"" | b"." | b"..")).then(|| OsStr::from_bytes(clear))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
