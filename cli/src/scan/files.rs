//! Looking through files: CSV by column, JSON by path, HL7 by segment.

use super::hints::Hints;
use super::{Found, csv, hl7, json};
use crate::args::{Format, Scan};
use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupt;
use crate::files::json::{LineSource, MAX_LINE_LEN};
use crate::transform::{Input, format_of};
use keyfold::Policy;
use std::ffi::OsStr;

/// Sealed values are a third longer than what they seal.
pub(super) const SEALED_GROWTH: usize = 2;
/// Longest line, and longest file of one document.
const MAX_LEN: usize = MAX_LINE_LEN * SEALED_GROWTH;

pub(super) fn scan(
    args: &Scan,
    input: &OsStr,
    policy: &Policy,
    hints: Option<&Hints>,
    interrupt: &Interrupt,
    found: &mut Found,
) -> Result<(), Failure> {
    let source = found.source.clone();
    let opened = Input::open_watched(input, interrupt)?;
    if args.format.is_none() && opened.get_ref().stream_header().is_some() {
        let why = "it is a stream, at which scan does not look: inspect and census read its header, reveal --stream all of it";
        return Err(Failure::new(Exit::Usage, why).at(source));
    }
    let format = args.format.map_or_else(|| format_of(input), Ok).map_err(|failure| failure.at(&source))?;
    let scanned = match format {
        Format::Csv => csv::scan(args, opened, policy, hints, found),
        Format::Ndjson => json::scan(args, LineSource::new(opened, MAX_LEN), true, policy, hints, found),
        Format::Json => json::scan(args, LineSource::whole(opened, MAX_LEN), false, policy, hints, found),
        Format::Hl7 => hl7::scan(args, opened, policy, hints, found),
    };
    scanned.map_err(|failure| failure.at(source))
}
