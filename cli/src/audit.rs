//! `keyfold audit`: what the audit files say, and whether they still say it.

mod export;
mod verify;

pub(crate) use export::export;
pub(crate) use verify::{verify, verify_trail};

use crate::args::AuditFiles;
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold_audit::AuditText;
use std::io::Write;
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

fn read(path: &Path) -> Result<AuditText, Failure> {
    let bytes = std::fs::read(path).map_err(|error| cannot_read(path, &error))?;
    Ok(AuditText { name: path.display().to_string(), bytes })
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display()))
}
