//! `keyfold audit`: what the audit files say, and whether they still say it.

mod export;
mod verify;

pub(crate) use export::export;
pub(crate) use verify::{verify, verify_trail};

use crate::args::AuditFiles as Args;
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold_audit::AuditFiles;
use keyfold_store::files::open_regular;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Prints the heads of all chains, as lines of an anchor file.
pub(crate) fn anchor(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    let files = match files(args)? {
        Files::Named(paths) => AuditFiles::open_named(&paths)?,
        Files::OfTrail(paths) => AuditFiles::open(&paths)?,
    };
    let heads = files.heads()?;
    if heads.is_empty() {
        return Err(Failure::new(Exit::Data, "there is no head: no line of these files is one of an audit file"));
    }
    for head in heads {
        writeln!(out, "{}", head.to_line()?).map_err(print_failed)?;
    }
    Ok(())
}

enum Files {
    /// Somebody named them, so that they may be links or pipes.
    Named(Vec<PathBuf>),
    /// They are what lies in the folder of the trail: whoever writes that may put anything there.
    OfTrail(Vec<PathBuf>),
}

impl Files {
    /// Hands each line of each file to `each`, without its line feed, and holds one at a time.
    fn each_line(&self, mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        let (paths, open): (_, fn(&Path) -> _) = match self {
            Self::Named(paths) => (paths, |path| File::open(path)),
            Self::OfTrail(paths) => (paths, open_regular),
        };
        paths.iter().try_for_each(|path| each_line(path, open(path), &mut each))
    }
}

/// The files that are named, or those of the configuration.
fn files(args: &Args) -> Result<Files, Failure> {
    if !args.files.is_empty() {
        return Ok(Files::Named(args.files.clone()));
    }
    let trail = keyfold_open::audit_trail(&args.source.config).map_err(Failure::of_opening)?;
    if trail.files.is_empty() {
        return Err(Failure::new(Exit::Storage, "there is no audit file yet"));
    }
    Ok(Files::OfTrail(trail.files))
}

/// Longest line: a statement may list every key of a keyring.
const MAX_LINE_LEN: u64 = 64 * 1024 * 1024;

/// Hands each line of the file `path` to `each`, without its line feed, and holds one at a time.
fn each_line(
    path: &Path,
    file: std::io::Result<File>,
    mut each: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut input = BufReader::new(file.map_err(|error| cannot_read(path, &error))?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = input.by_ref().take(MAX_LINE_LEN).read_until(b'\n', &mut line);
        if len.map_err(|error| cannot_read(path, &error))? == 0 {
            return Ok(());
        }
        let content = line.strip_suffix(b"\n");
        if content.is_none() && line.len() as u64 == MAX_LINE_LEN {
            return Err(Failure::new(Exit::Data, format!("{}: a line is longer than 64 MiB", path.display())));
        }
        each(content.unwrap_or(&line))?;
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
