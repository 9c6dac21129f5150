//! All files below a folder, each to one below another folder.

use super::{Job, Progress};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interruptible;
use crate::files::output::{Output, Target};
use crate::outputs::resolved;
use crate::transform::Direction;
use keyfold::RowBinding;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the name of a stream ends in, behind that of its file.
const SUFFIX: &str = ".kfs";

/// A file and where it goes.
struct Pair {
    from: PathBuf,
    to: PathBuf,
    /// The name of the file in clear, below its folder: what it is bound to where the policy binds the field.
    name: PathBuf,
    len: u64,
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
    let mut pairs = Vec::new();
    collect(job.direction, from, Path::new(""), to, &mut pairs)?;
    // Before anything is written: whoever reveals half of a folder must not find out in its middle.
    if !job.args.force && !job.whole.resume {
        for pair in &pairs {
            refuse_existing(&pair.to)?;
        }
    }
    for file in keyfold_open::own_files(&job.args.source.config, &job.args.policies.policy)? {
        pairs.iter().try_for_each(|pair| Target::Path(pair.to.clone()).refuse_own(&file))?;
    }
    job.progress = Progress::new(job.direction, Some(pairs.iter().map(|pair| pair.len).sum()));
    pairs.iter().try_for_each(|pair| {
        job.interrupt.check()?;
        one(job, pair).map_err(|failure| failure.at(pair.from.display()))
    })
}

fn one(job: &mut Job<'_>, pair: &Pair) -> Result<(), Failure> {
    let is_bound = match &job.handles {
        super::Handles::Seal(sealer, _) => sealer.policy().row_binding != RowBinding::None,
        super::Handles::Open(opener) => opener.policy().row_binding != RowBinding::None,
    };
    let row = is_bound.then(|| pair.name.as_os_str().as_bytes());
    let open = |path: &Path| File::open(path).map_err(|error| cannot_read(path, &error));
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
    if let Some(folder) = pair.to.parent() {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::new(Exit::Storage, format!("cannot make {}: {error}", folder.display())))?;
    }
    let mut output = Output::create(Target::Path(pair.to.clone()), job.args.force)?;
    job.transform(Interruptible::new(input, job.interrupt.clone()), row, &mut output)?;
    job.interrupt.check()?;
    // Counted only now that it is there.
    output.commit().inspect_err(|_| job.counts.files -= 1)?;
    Ok(())
}

/// The files below `folder`, in the order of their names.
fn collect(direction: Direction, root: &Path, below: &Path, to: &Path, pairs: &mut Vec<Pair>) -> Result<(), Failure> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries = entries.map_err(|error| cannot_read(&folder, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        // Of a link nobody can tell whether it was meant to be followed.
        let metadata = fs::symlink_metadata(&path).map_err(|error| cannot_read(&path, &error))?;
        if metadata.is_dir() {
            collect(direction, root, &name, to, pairs)?;
            continue;
        }
        if !metadata.is_file() {
            let why = format!("{} is no regular file, and would be left out", path.display());
            return Err(Failure::new(Exit::Data, why));
        }
        let (clear, out) = match direction {
            Direction::Reveal => {
                let Some(clear) = without_suffix(&name) else {
                    let why = format!("{} does not end in {SUFFIX}, so it is no stream of this folder", path.display());
                    return Err(Failure::new(Exit::Data, why));
                };
                (clear.clone(), clear)
            }
            _ => (name.clone(), with_suffix(&name)),
        };
        pairs.push(Pair { from: path, to: to.join(out), name: clear, len: metadata.len() });
    }
    Ok(())
}

fn with_suffix(name: &Path) -> PathBuf {
    let mut name = OsString::from(name);
    name.push(SUFFIX);
    name.into()
}

fn without_suffix(name: &Path) -> Option<PathBuf> {
    let bytes = name.as_os_str().as_bytes().strip_suffix(SUFFIX.as_bytes())?;
    let clear = Path::new(OsStr::from_bytes(bytes));
    // A file that is called like the suffix has no name in clear.
    (!bytes.is_empty() && !bytes.ends_with(b"/")).then(|| clear.to_owned())
}

fn refuse_existing(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(cannot_read(path, &error)),
        Ok(_) => {
            let why = format!(
                "{} already exists; --resume keeps it if it has the same content, --force replaces it",
                path.display()
            );
            Err(Failure::new(Exit::Usage, why))
        }
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
