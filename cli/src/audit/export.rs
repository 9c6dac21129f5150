//! `keyfold audit export`

use super::files;
use crate::args::{AuditExport, EventFormat};
use crate::failure::Failure;
use crate::print_failed;
use keyfold_audit::Ecs;
use std::io::Write;

/// Prints every event of the files. Verifies nothing.
pub(crate) fn export(args: &AuditExport, out: &mut impl Write) -> Result<(), Failure> {
    let EventFormat::Ecs = args.format;
    let mut ecs = Ecs::default();
    files(&args.files)?.each_line(|line| match ecs.event(line.trim_ascii_end()) {
        Some(event) => writeln!(out, "{event}").map_err(print_failed),
        None => Ok(()),
    })
}
