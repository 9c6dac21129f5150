//! The row that `--row-file` says.

use crate::census::name_of;
use crate::failure::{Exit, Failure};
use crate::files::BYTE_ORDER_MARK;
use crate::files::interrupt::Interrupt;
use crate::transform::Input;
use std::io::Read;
use std::path::Path;

/// Longest row binding with its line end.
const MAX_LEN: u64 = 4096;

/// The row binding: the one line of a file, or of standard input.
pub(super) fn read(file: &Path, interrupt: &Interrupt) -> Result<Vec<u8>, Failure> {
    let mut row = Vec::new();
    let opened = Input::open_watched(file.as_os_str(), interrupt).map_err(|failure| failure.at("--row-file"))?;
    let read = opened.take(MAX_LEN + 1).read_to_end(&mut row);
    interrupt.check().map_err(|interrupted| Failure::from(interrupted).add("nothing was written"))?;
    let name = name_of(file.as_os_str());
    let refused = |exit, why: &str| Failure::new(exit, format!("--row-file: {why}"));
    read.map_err(|error| refused(Exit::Storage, &format!("cannot read {name}: {error}")))?;
    let is_too_long = row.len() as u64 > MAX_LEN;
    if let Some(line) = row.strip_suffix(b"\n") {
        row.truncate(line.len());
    }
    let wrong = match &*row {
        _ if is_too_long => "too much",
        [] => "an empty line, or none",
        row if row.contains(&b'\n') => "several lines",
        // What an editor adds cannot be seen, and whoever names the row without it opens nothing.
        row if row.ends_with(b"\r") || row.starts_with(BYTE_ORDER_MARK) => {
            let why = format!("{name} has a byte order mark or a carriage return: write the row binding without");
            return Err(refused(Exit::Data, &why));
        }
        _ => return Ok(row),
    };
    Err(refused(Exit::Data, &format!("{name} has {wrong}: the row binding is one line of at most 4,095 bytes")))
}
