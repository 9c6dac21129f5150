//! All files below a folder, each to one below another folder.

use super::refused::is_of_all;
use super::{Compared, Counts, Job, OwnFiles, Refused, counted, fill, is_sealed};
use crate::args::{Transform, Whole};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::{Interrupt, Interrupted, Interruptible};
use crate::files::output::{self, Output, OutputError, Target, resolved};
use crate::files::standard::stderr;
use crate::transform::Direction;
use keyfold::RowBinding;
use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
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
    None(Refused),
    /// Likewise a folder with all that is in it, or all that comes in it from here on.
    NoFolder(Refused),
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
            Found::File(pair) => own.refuse(direction, &pair).and_then(|()| {
                check_file(direction, longest_name, &pair)?;
                len += pair.len;
                check_output(args.force || whole.resume, &pair.to)
            }),
            Found::None(refused) | Found::NoFolder(refused) => Err(refused),
        };
        match checked {
            // The run names it.
            Err(Refused::Input(_) | Refused::Item(_)) if whole.keep_going => Ok(()),
            checked => checked,
        }
    });
    checked.map_err(|refused| match refused {
        Refused::Input(failure) | Refused::Item(failure) => {
            failure.add("nothing was written; --keep-going leaves it out")
        }
        Refused::Run(failure) => failure.add("nothing was written"),
    })?;
    Ok(len)
}

pub(super) fn run(job: &mut Job<'_>) -> Result<(), Failure> {
    let (from, to) = (Path::new(&job.args.input), Path::new(&job.args.output));
    let (own, longest_name) = (OwnFiles::of(job.args)?, longest_name(&resolved(to))?);
    let done = walk(job.direction, from, to, Path::new(""), &mut |found| {
        job.interrupt.check()?;
        let is_folder = matches!(found, Found::NoFolder(_));
        let done = match found {
            Found::Folder(folder, mode) => {
                refuse_no_folder(&folder, folder == to)?;
                // No more open than the folder that it comes from; but it is written to, which that need not be.
                let made = DirBuilder::new().recursive(true).mode(mode & 0o777 | 0o700).create(&folder);
                let cannot = |error| Failure::new(Exit::Storage, format!("cannot make {}: {error}", folder.display()));
                made.map_err(cannot).map_err(Refused::from)
            }
            // The check may have seen another file, or none.
            Found::File(pair) => own.refuse(job.direction, &pair).and_then(|()| {
                check_file(job.direction, longest_name, &pair)?;
                one(job, &pair)
            }),
            Found::None(refused) | Found::NoFolder(refused) => Err(refused),
        };
        match done {
            Err(Refused::Input(failure) | Refused::Item(failure)) if job.whole.keep_going => {
                *if is_folder { &mut job.counts.failed_folders } else { &mut job.counts.failed } += 1;
                job.leave_out(failure);
                Ok(())
            }
            done => done,
        }
    });
    let done = done.and_then(|()| if job.whole.resume { Ok(find_left(job, from, to)?) } else { Ok(()) });
    let Counts { files, kept, failed, failed_folders, .. } = job.counts;
    if done.is_ok() && [files, kept, failed, failed_folders] == [0; 4] {
        let failure = Failure::new(Exit::Data, format!("there is no file in {}", from.display()));
        job.progress.aside(|| drop(writeln!(stderr(), "keyfold: {failure}")));
    }
    done.map_err(|refused| {
        let mut done = match files {
            0 => "no file was written".to_owned(),
            files => format!("{} written, whole", counted(files, "file")),
        };
        for (count, thing) in [(failed, "file"), (failed_folders, "folder")] {
            if count > 0 {
                done.push_str(&format!(", {} left out", counted(count, thing)));
            }
        }
        done.push_str(match &refused {
            Refused::Input(_) => {
                "; --resume stops at this file again until it is replaced or moved away, and --keep-going goes on behind it"
            }
            Refused::Item(_) => "; --keep-going goes on behind it",
            // It would stop there again for as long.
            Refused::Run(failure) if files > 0 && failure.code == Exit::Kms as u8 => {
                "; --resume goes on behind them when the key service answers"
            }
            Refused::Run(_) if files > 0 => "; --resume goes on behind them",
            Refused::Run(_) => "",
        });
        refused.into_failure().add(&done)
    })
}

/// Counts the outputs below `to` whose input is not below `from` any more. What no run makes there is none. Everything is done by then, so what cannot be
/// looked at is told and does not end the run.
fn find_left(job: &mut Job<'_>, from: &Path, to: &Path) -> Result<(), Interrupted> {
    job.interrupt.check()?;
    let entries = match fs::read_dir(to) {
        Ok(entries) => entries,
        // Where nothing could be taken, no folder was made.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            not_looked_at(job, to, &error);
            return Ok(());
        }
    };
    for entry in entries {
        let entry = entry.and_then(|entry| Ok((entry.path(), entry.file_name(), entry.file_type()?)));
        let (path, file_name, file_type) = match entry {
            Ok(entry) => entry,
            Err(error) => {
                not_looked_at(job, to, &error);
                continue;
            }
        };
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
            // A file has the name that its folder had, or the name would be too long for any file.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename
                ) =>
            {
                job.counts.left += 1;
                if job.counts.first_left.as_ref().is_none_or(|first| path < *first) {
                    job.counts.first_left = Some(path);
                }
            }
            // Below a folder that was left out, and is named already.
            Err(error) if job.whole.keep_going && error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => not_looked_at(job, &from.join(&input), &error),
        }
    }
    Ok(())
}

fn not_looked_at(job: &mut Job<'_>, path: &Path, error: &io::Error) {
    let failure = cannot_read(path, error);
    job.tell(failure.add("outputs there may be without an input, which are not counted"));
}

/// Refuses a file that cannot be taken, whatever becomes of the others.
fn check_file(direction: Direction, longest_name: u64, pair: &Pair) -> Result<(), Refused> {
    let refuse = |why| Err(Refused::Input(Failure::new(Exit::Data, why)));
    let name_len = pair.to.file_name().map_or(0, OsStr::len);
    if name_len as u64 > longest_name {
        return refuse(format!(
            "{} would become a file whose name has {name_len} bytes, of which {longest_name} are possible: rename it",
            pair.from.display()
        ));
    }
    let mut head = [0; STREAM_HEADER_LEN];
    let read = File::open(&pair.from).and_then(|mut file| fill(&mut file, &mut head));
    let n = read.map_err(|error| Refused::cannot_read(&pair.from, &error))?;
    if let (Direction::Protect { seal_sealed: false }, Ok(_)) = (direction, StreamHeader::parse(&head[..n])) {
        return Err(Refused::Input(is_sealed().at(pair.from.display())));
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

impl OwnFiles {
    /// Refuses a file that is one of them, or would become one: the command line has the wrong folder.
    fn refuse(&self, direction: Direction, pair: &Pair) -> Result<(), Refused> {
        if matches!(direction, Direction::Protect { .. }) {
            self.refuse_input(&pair.from, pair.place)?;
        }
        Ok(self.refuse_target(&Target::Path(pair.to.clone()))?)
    }
}

/// Refuses an output that is there: the command line has the wrong folder, or lacks an option.
fn check_output(may_exist: bool, to: &Path) -> Result<(), Refused> {
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
    let open = || File::open(&pair.from).map_err(|error| Refused::cannot_read(&pair.from, &error));
    let of_input = |refused: Refused| refused.at(pair.from.display());
    job.progress.of(&pair.name);
    let input = open()?;
    if job.whole.resume && pair.to.exists() {
        let found = match File::open(&pair.to) {
            Ok(there) => {
                let [mut sealed, mut clear] = match job.direction {
                    Direction::Reveal => [open()?, there],
                    _ => [there, open()?],
                };
                job.compare(&mut sealed, &mut clear, row).map_err(of_input)?
            }
            Err(error) => Compared::Unread(error),
        };
        match &found {
            Compared::Same => {
                job.counts.kept += 1;
                return Ok(());
            }
            // The next one would be no better.
            Compared::Unread(error) if is_of_all(error) => return Err(cannot_read(&pair.to, error).into()),
            _ => {}
        }
        if !job.args.force {
            return Err(not_kept(found, job.direction, pair));
        }
    }
    let mut output = Output::create(Target::Path(pair.to.clone()), job.args.force).map_err(appeared)?;
    job.transform(Interruptible::new(input, job.interrupt.clone()), row, &mut output).map_err(of_input)?;
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

/// Of an output that is there and not the same. It alone is at fault, unless a stream is that was to be revealed.
fn not_kept(found: Compared, direction: Direction, pair: &Pair) -> Refused {
    let (to, is_reveal) = (pair.to.display(), matches!(direction, Direction::Reveal));
    let of = "of this field and context, and of its name where that is bound";
    let input = |why| {
        Refused::Input(Failure::new(Exit::Key, format!("{}: {why}; {to} was left as it is", pair.from.display())))
    };
    let output = |why| Refused::Item(Failure::new(Exit::Usage, format!("{to} is there, {why}; --force replaces it")));
    match found {
        Compared::NoStream if is_reveal => input(format!("is no stream {of}")),
        Compared::Damaged if is_reveal => input("was changed, or cut".to_owned()),
        Compared::NoStream => output(format!("and is no stream {of}: check --stream, --context and --scope")),
        Compared::Damaged => output("and was changed, or cut".to_owned()),
        Compared::Unopened(failure) => {
            // What only its KEK keeps away may be whole.
            let is_of_kek = [Exit::Kms, Exit::Policy].iter().any(|exit| failure.code == *exit as u8);
            let what = if is_of_kek {
                "run this again when its KEK is to be had; only if it never is, --force makes it anew"
            } else {
                "--force makes it anew"
            };
            Refused::Item(failure.at(format!("{to} is there, and does not open")).add(what))
        }
        Compared::Unread(error) => {
            Refused::Item(cannot_read(&pair.to, &error).add("it is there, and --force makes it anew"))
        }
        Compared::Other | Compared::Same => output("with another content".to_owned()),
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
        Err(error) => return visit(Found::NoFolder(Refused::cannot_read(from, &error))),
    };
    visit(Found::Folder(to.to_owned(), mode))?;
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // Nothing comes behind it.
            Err(error) => return visit(Found::NoFolder(Refused::cannot_read_rest(from, &error))),
        };
        let (path, file_name) = (entry.path(), entry.file_name());
        // Of a link nobody can tell whether it was meant to be followed.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) => {
                visit(Found::None(Refused::cannot_read(&path, &error)))?;
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
            visit(Found::None(Refused::Input(Failure::new(Exit::Data, why))))?;
            continue;
        }
        let (clear, out) = match direction {
            Direction::Reveal => {
                let Some(clear) = without_suffix(&file_name) else {
                    let why = format!(
                        "{} does not end in {SUFFIX} behind a name, so it is no stream of this folder: move it away",
                        path.display()
                    );
                    visit(Found::None(Refused::Input(Failure::new(Exit::Data, why))))?;
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
