//! `keyfold selftest`: does every primitive compute what its standard says, on this machine, in this build?
//!
//! - `known`: published facts, built in.
//! - `folder`: the files of a folder, each read by `wycheproof` (JSON) or `cavp` (`.rsp`).
//! - `primitive`: what a case is run against; the only module that touches `keyfold::aead::hazmat`.
//! - `report`: counts, as text or JSON.

mod cavp;
mod folder;
mod known;
mod primitive;
mod report;
#[cfg(test)]
mod tests;
mod wycheproof;

use crate::failure::Failure;
use crate::print_failed;
use std::io::Write;
use std::path::Path;

use data_encoding::HEXLOWER_PERMISSIVE;
use keyfold::{Error, ErrorKind};

/// Runs the known answers, and the test vectors in the folder `vectors` if there is one, and writes a report to `out`.
///
/// Returns whether everything passed: `false` too when a vector file is malformed or `vectors` holds no case that can
/// be run. One line of JSON with `json`, otherwise tables whose last line is `N passed, N failed, N skipped`.
///
/// # Errors
///
/// - [`Storage`](crate::failure::Exit::Storage): `vectors` is not a folder or cannot be read, and nothing was written; or `out` failed.
pub(crate) fn run(vectors: Option<&Path>, json: bool, out: &mut dyn Write) -> Result<bool, Failure> {
    let vectors = match vectors {
        None => None,
        Some(path) => Some(folder::run(path).map_err(|error| {
            let detail = format!("{}: {error}", path.display());
            Error::new(ErrorKind::Io, "cannot read the vector folder").with_source(error).with_detail(detail)
        })?),
    };
    let report = report::Report::new(known::run(), vectors);
    let written = if json { report.write_json(out) } else { report.write_text(out) };
    written.and_then(|()| out.flush()).map_err(print_failed)?;
    Ok(report.ok)
}

/// Bytes from hexadecimal of either case.
fn hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}
