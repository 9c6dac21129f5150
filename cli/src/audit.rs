//! `keyfold audit`: what the audit files say, and whether they still say it.

mod export;
mod verify;

pub(crate) use export::export;
pub(crate) use verify::{verify, verify_trail};

use crate::args::AuditFiles;
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold_audit::AuditText;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Prints the heads of all chains, as lines of an anchor file.
pub(crate) fn anchor(args: &AuditFiles, out: &mut impl Write) -> Result<(), Failure> {
    let texts = files(args)?.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    for head in keyfold_audit::heads(&texts) {
        writeln!(out, "{}", head.to_line()?).map_err(print_failed)?;
    }
    Ok(())
}

/// The files that are named, or those of the configuration.
fn files(args: &AuditFiles) -> Result<Vec<PathBuf>, Failure> {
    if !args.files.is_empty() {
        return Ok(args.files.clone());
    }
    let trail = keyfold_open::audit_trail(&args.source.config).map_err(Failure::of_opening)?;
    if trail.files.is_empty() {
        return Err(Failure::new(Exit::Storage, "there is no audit file yet"));
    }
    Ok(trail.files)
}

/// Longest line: a statement may list every key of a keyring.
const MAX_LINE_LEN: u64 = 64 * 1024 * 1024;

/// Hands each line of a file to `each`, without its line feed, and holds one at a time.
pub(crate) fn each_line(path: &Path, mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut input = BufReader::new(File::open(path).map_err(|error| cannot_read(path, &error))?);
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

fn read(path: &Path) -> Result<AuditText, Failure> {
    let bytes = std::fs::read(path).map_err(|error| cannot_read(path, &error))?;
    Ok(AuditText { name: path.display().to_string(), bytes })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
