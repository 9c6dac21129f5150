//! `keyfold audit export`

use super::{cannot_read, files};
use crate::args::{AuditExport, EventFormat};
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold_audit::Ecs;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

/// Longest line: a statement may list every key of a keyring.
const MAX_LINE_LEN: u64 = 64 * 1024 * 1024;

/// Prints every event of the files. Verifies nothing.
pub(crate) fn export(args: &AuditExport, out: &mut impl Write) -> Result<(), Failure> {
    let EventFormat::Ecs = args.format;
    let mut ecs = Ecs::default();
    for path in files(&args.files)? {
        let mut input = BufReader::new(File::open(&path).map_err(|error| cannot_read(&path, &error))?);
        let mut line = Vec::new();
        loop {
            line.clear();
            let len = input.by_ref().take(MAX_LINE_LEN).read_until(b'\n', &mut line);
            if len.map_err(|error| cannot_read(&path, &error))? == 0 {
                break;
            }
            if len_is_too_long(&line) {
                return Err(Failure::new(Exit::Data, format!("{}: a line is longer than 64 MiB", path.display())));
            }
            if let Some(event) = ecs.event(line.trim_ascii_end()) {
                writeln!(out, "{event}").map_err(print_failed)?;
            }
        }
    }
    Ok(())
}

fn len_is_too_long(line: &[u8]) -> bool {
    line.len() as u64 == MAX_LINE_LEN && !line.ends_with(b"\n")
}
