//! Walks a folder of test vectors.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::report::{FileOutcome, FileReport, VectorReport, printable};
use super::{cavp, wycheproof};

/// Longest file that is read. The longest of Wycheproof and NIST have a few MiB.
const MAX_FILE_LEN: u64 = 64 * 1024 * 1024;
/// Deepest folder that is entered.
const MAX_DEPTH: usize = 32;

/// Runs every file under `folder`, in the order of their paths.
///
/// # Errors
///
/// `folder` itself is not a folder or cannot be read. Everything below it is reported file by file.
pub(super) fn run(folder: &Path) -> io::Result<VectorReport> {
    let mut report = VectorReport { folder: printable(&folder.to_string_lossy()), files: Vec::new() };
    // A stack instead of recursion; in it, the next path is the last.
    let mut waiting = entries(folder)?;
    while let Some(path) = waiting.pop() {
        let relative = path.strip_prefix(folder).unwrap_or(&path);
        let mut add = |algorithm, outcome| {
            report.files.push(FileReport { file: printable(&relative.to_string_lossy()), algorithm, outcome });
        };
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                if relative.components().count() >= MAX_DEPTH {
                    add(None, FileOutcome::unreadable("nested too deeply"));
                    continue;
                }
                match entries(&path) {
                    Ok(mut below) => waiting.append(&mut below),
                    Err(error) => add(None, FileOutcome::unreadable(error.to_string())),
                }
            }
            Ok(_) => {
                let (algorithm, outcome) = run_file(&path);
                add(algorithm, outcome);
            }
            Err(error) => add(None, FileOutcome::unreadable(error.to_string())),
        }
    }
    Ok(report)
}

/// The paths in `folder`, last first.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

fn run_file(path: &Path) -> (Option<String>, FileOutcome) {
    let skipped = |reason| (None, FileOutcome::not_applicable(reason, 0));
    let metadata = fs::metadata(path);
    // Only symbolic links get here as folders. Not entering them leaves no way to walk in a circle.
    if metadata.as_ref().is_ok_and(fs::Metadata::is_dir) {
        return skipped("a symbolic link to a folder, not followed");
    }
    let is = |extension: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(OsStr::new(extension)));
    if !is("json") && !is("rsp") {
        return skipped("not a vector file");
    }
    // Opening a named pipe would wait for whoever writes to it.
    if metadata.is_ok_and(|metadata| !metadata.is_file()) {
        return skipped("not a regular file");
    }
    match read(path) {
        Ok(text) if is("rsp") => (None, cavp::run(&text)),
        Ok(text) => wycheproof::run(&text),
        Err(error) => (None, FileOutcome::unreadable(error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(io::Error::other("longer than 64 MiB"));
    }
    Ok(bytes)
}
