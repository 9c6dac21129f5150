//! All files below a folder, each to one below another folder.

use super::{Job, OwnFiles, Progress, counted};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interruptible;
use crate::files::output::{self, Output, OutputError, Target};
use crate::outputs::resolved;
use crate::transform::Direction;
use keyfold::RowBinding;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the name of a stream ends in, behind that of its file.
const SUFFIX: &str = ".kfs";

/// What a walk comes to, outer folders before what is in them.
enum Found {
    /// Where a folder goes.
    Folder(PathBuf),
    File(Pair),
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

pub(super) fn run(job: &mut Job<'_>, has_row: bool) -> Result<(), Failure> {
    let (from, to) = (Path::new(&job.args.input), Path::new(&job.args.output));
    if job.args.output == "-" {
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
    // Before anything is written: whoever reveals half of a folder must not find out in its middle. The folder is walked twice, rather than once into a list
    // of its files that has no bound.
    let (own, direction, mut len) = (OwnFiles::of(job.args)?, job.direction, 0);
    let longest_name = longest_name(&target)?;
    let checked = walk(direction, from, to, Path::new(""), &mut |found| {
        job.interrupt.check()?;
        match found {
            Found::Folder(folder) => refuse_no_folder(&folder, folder == to),
            Found::File(pair) => {
                len += pair.len;
                check(job, &own, longest_name, &pair)
            }
        }
    });
    checked.map_err(|failure| failure.add("nothing was written"))?;
    job.progress = Progress::of_files(direction, len);
    let done = walk(direction, from, to, Path::new(""), &mut |found| {
        job.interrupt.check()?;
        match found {
            Found::Folder(folder) => {
                refuse_no_folder(&folder, folder == to)?;
                fs::create_dir_all(&folder)
                    .map_err(|error| Failure::new(Exit::Storage, format!("cannot make {}: {error}", folder.display())))
            }
            Found::File(pair) => one(job, &pair).map_err(|failure| match failure.is_interruption() {
                true => failure,
                false => failure.at(pair.from.display()),
            }),
        }
    });
    done.map_err(|failure| match (failure.is_interruption(), job.counts.files) {
        (false, _) => failure,
        (true, 0) => failure.add("no file was written"),
        (true, files) => {
            failure.add(&format!("{} written, whole; --resume goes on behind them", counted(files, "file")))
        }
    })
}

/// Refuses what would end the run in its middle.
fn check(job: &Job<'_>, own: &OwnFiles, longest_name: u64, pair: &Pair) -> Result<(), Failure> {
    let name_len = pair.to.file_name().map_or(0, OsStr::len);
    if name_len as u64 > longest_name {
        let why = format!(
            "{} would become a file whose name has {name_len} bytes, of which {longest_name} are possible: rename it",
            pair.from.display()
        );
        return Err(Failure::new(Exit::Data, why));
    }
    if matches!(job.direction, Direction::Protect { .. }) {
        own.refuse_input(&pair.from, pair.place)?;
    }
    let neighbour = pair.from.with_file_name(pair.to.file_name().unwrap_or_default());
    if fs::symlink_metadata(&neighbour).is_ok_and(|metadata| metadata.is_dir()) {
        let why = format!(
            "{} and the folder {} would both become {}: rename one of them",
            pair.from.display(),
            neighbour.display(),
            pair.to.display()
        );
        return Err(Failure::new(Exit::Data, why));
    }
    own.refuse_target(&Target::Path(pair.to.clone()))?;
    output::refuse_existing(&pair.to, job.args.force || job.whole.resume).map_err(|error| match error {
        OutputError::Exists { .. } => Failure::from(error).add("--resume keeps it if it has the same content"),
        _ => error.into(),
    })
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

fn one(job: &mut Job<'_>, pair: &Pair) -> Result<(), Failure> {
    let is_bound = match &job.handles {
        super::Handles::Seal(sealer, _) => sealer.policy().row_binding != RowBinding::None,
        super::Handles::Open(opener) => opener.policy().row_binding != RowBinding::None,
    };
    let row = is_bound.then(|| pair.name.as_os_str().as_bytes());
    let open = |path: &Path| File::open(path).map_err(|error| cannot_read(path, &error));
    job.progress.of(&pair.name);
    let input = open(&pair.from)?;
    if job.whole.resume && pair.to.exists() {
        let [mut sealed, mut clear] = match job.direction {
            Direction::Reveal => [open(&pair.from)?, open(&pair.to)?],
            _ => [open(&pair.to)?, open(&pair.from)?],
        };
        if job.is_same(&mut sealed, &mut clear, row)? {
            job.counts.kept += 1;
            return Ok(());
        }
        if !job.args.force {
            let why = format!("{} is there, with another content; --force replaces it", pair.to.display());
            return Err(Failure::new(Exit::Usage, why));
        }
    }
    let mut output = Output::create(Target::Path(pair.to.clone()), job.args.force)?;
    job.transform(Interruptible::new(input, job.interrupt.clone()), row, &mut output)?;
    output.commit()?;
    job.counts.files += 1;
    Ok(())
}

/// Visits the folder `from`, which is called `below` in the whole and goes to `to`, and all that is in it, in no order. Keeps nothing but the folders that it is in.
fn walk(
    direction: Direction,
    from: &Path,
    to: &Path,
    below: &Path,
    visit: &mut dyn FnMut(Found) -> Result<(), Failure>,
) -> Result<(), Failure> {
    visit(Found::Folder(to.to_owned()))?;
    for entry in fs::read_dir(from).map_err(|error| cannot_read(from, &error))? {
        let entry = entry.map_err(|error| cannot_read(from, &error))?;
        let (path, file_name) = (entry.path(), entry.file_name());
        // Of a link nobody can tell whether it was meant to be followed.
        let metadata = entry.metadata().map_err(|error| cannot_read(&path, &error))?;
        if metadata.is_dir() {
            walk(direction, &path, &to.join(&file_name), &below.join(&file_name), visit)?;
            continue;
        }
        if !metadata.is_file() {
            let why = format!(
                "{} is {}, and of a folder every file is taken or none: move it away, or put a file in its place",
                path.display(),
                output::kind_of(metadata.file_type())
            );
            return Err(Failure::new(Exit::Data, why));
        }
        let (clear, out) = match direction {
            Direction::Reveal => {
                let Some(clear) = without_suffix(&file_name) else {
                    let why = format!(
                        "{} does not end in {SUFFIX} behind a name, so it is no stream of this folder, of which every file is revealed or none: move it away",
                        path.display()
                    );
                    return Err(Failure::new(Exit::Data, why));
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
