//! Counting in files: CSV by column, NDJSON by path, HL7 by segment and field.

use super::{Seen, Tally, folder, name_of};
use crate::args::Format;
use crate::failure::{Exit, Failure};
use crate::files::csv::{CsvOptions, CsvSource, DEFAULT_MAX_FIELD_LEN, MAX_ROW_LEN};
use crate::files::hl7::{MAX_MESSAGE_LEN, Message, MessageSource, SegmentPath, SegmentRules};
use crate::files::interrupt::Interrupt;
use crate::files::json::{Document, LineSource, MAX_LINE_LEN};
use crate::transform::{Input, format_of};
use keyfold::wire::{StreamHeader, Suite};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::path::Path;

/// Sealed values are a third longer than what they seal.
const SEALED_GROWTH: usize = 2;
const MAX_LEN: usize = MAX_LINE_LEN * SEALED_GROWTH;

/// What a stream is counted as, which is no column.
pub(super) const STREAM: &str = "(stream)";

/// Counts the values of a file, or the streams of a folder. Without `wanted` names, columns and paths in which nothing looks sealed are left out: in a file
/// without a header their names are somebody's data.
pub(crate) fn count_file(
    input: &OsStr,
    format: Option<Format>,
    delimiter: u8,
    wanted: &[String],
    interrupt: &Interrupt,
    with_ids: bool,
) -> Result<Tally, Failure> {
    let place = name_of(input);
    let at = |failure: Failure| failure.at(&place);
    if format.is_none() && fs::metadata(input).is_ok_and(|metadata| metadata.is_dir()) {
        refuse_columns(wanted).map_err(at)?;
        return folder::count(Path::new(input), Tally::new(&place, &[STREAM.to_owned()], with_ids), interrupt);
    }
    let opened = Input::open_watched(input, interrupt)?;
    if format.is_none()
        && let Some(header) = opened.get_ref().stream_header()
    {
        return one_stream(&header, wanted, Tally::new(&place, wanted, with_ids)).map_err(at);
    }
    let format = format.map_or_else(|| format_of(input), Ok).map_err(at)?;
    count_records(opened, format, delimiter, wanted, Tally::new(&place, wanted, with_ids)).map_err(at)
}

/// Counts the values of records, as [`count_file`] does.
pub(crate) fn count_records(
    input: impl Read,
    format: Format,
    delimiter: u8,
    wanted: &[String],
    tally: Tally,
) -> Result<Tally, Failure> {
    match format {
        Format::Csv => count_csv(input, delimiter, wanted, tally),
        Format::Json => count_json(LineSource::whole(input, MAX_LEN), wanted, tally),
        Format::Ndjson => count_json(LineSource::new(input, MAX_LEN), wanted, tally),
        Format::Hl7 => count_hl7(input, wanted, tally),
    }
}

/// A file that is a stream is one value.
fn one_stream(header: &StreamHeader, wanted: &[String], mut tally: Tally) -> Result<Tally, Failure> {
    refuse_columns(wanted)?;
    let place = tally.push(STREAM.to_owned())?;
    tally.rows = 1;
    tally.add(place, Seen::Sealed(Suite::Stream, header.key_id()))?;
    Ok(tally)
}

fn refuse_columns(wanted: &[String]) -> Result<(), Failure> {
    if wanted.is_empty() { Ok(()) } else { Err(Failure::new(Exit::Data, "a stream has no columns")) }
}

fn count_csv(input: impl Read, delimiter: u8, wanted: &[String], mut tally: Tally) -> Result<Tally, Failure> {
    let options = CsvOptions {
        delimiter,
        columns: wanted.to_vec(),
        max_field_len: DEFAULT_MAX_FIELD_LEN * SEALED_GROWTH,
        max_row_len: MAX_ROW_LEN * SEALED_GROWTH,
    };
    let mut source = CsvSource::new(input, options)?;
    let mut places = Vec::new();
    if wanted.is_empty() {
        for (at, name) in source.header().iter().enumerate() {
            places.push((at, tally.push(name.clone())?));
        }
    }
    for (column, name) in wanted.iter().enumerate() {
        let missing = || Failure::new(Exit::Data, format!("there is no column {name:?}"));
        places.push((source.positions()[column].ok_or_else(missing)?, column));
    }
    while let Some(batch) = source.next_batch()? {
        tally.rows += batch.rows() as u64;
        for row in 0..batch.rows() {
            for &(at, place) in &places {
                tally.add(place, Seen::bytes(batch.cell(row, at)))?;
            }
        }
    }
    Ok(tally)
}

fn count_json(mut source: LineSource<impl Read>, wanted: &[String], mut tally: Tally) -> Result<Tally, Failure> {
    let mut paths: HashMap<String, usize> = wanted.iter().cloned().zip(0..).collect();
    while let Some(batch) = source.next_batch()? {
        for index in (0..batch.len()).filter(|&index| !batch.is_blank(index)) {
            let document = Document::parse(batch.line(index), batch.number(index))?;
            tally.rows += 1;
            let mut path = String::from("$");
            walk(document.value(), &mut path, &mut |path, seen| {
                let column = match paths.get(path) {
                    Some(&column) => column,
                    None if !wanted.is_empty() => return Ok(()),
                    None => {
                        let column = tally.push(path.to_owned())?;
                        paths.insert(path.to_owned(), column);
                        column
                    }
                };
                tally.add(column, seen)
            })
            .map_err(|failure| failure.at(format!("line {}", batch.number(index))))?;
        }
    }
    Ok(tally)
}

fn count_hl7(input: impl Read, wanted: &[String], mut tally: Tally) -> Result<Tally, Failure> {
    let wanted: Vec<_> = wanted.iter().map(|path| SegmentPath::parse(path)).collect::<Result<_, _>>()?;
    let rules = SegmentRules::new(wanted)?;
    let mut source = MessageSource::new(input, MAX_MESSAGE_LEN * SEALED_GROWTH);
    let mut columns: HashMap<SegmentPath, usize> = HashMap::new();
    while let Some(batch) = source.next_batch()? {
        for (raw, number) in batch.messages() {
            let Some(message) = Message::parse(raw, number)? else { continue };
            tally.rows += 1;
            if !rules.paths().is_empty() {
                for located in message.locate(&rules)? {
                    tally.add(located.rule, seen(&raw[located.span]))?;
                }
                continue;
            }
            message.walk(|path, value| {
                let column = match columns.get(&path) {
                    Some(&column) => column,
                    None => {
                        let column = tally.push(path.to_string())?;
                        columns.insert(path, column);
                        column
                    }
                };
                tally.add(column, seen(value))
            })?;
        }
    }
    Ok(tally)
}

/// A value of an HL7 message, where two quotes say that there is none.
fn seen(value: &[u8]) -> Seen {
    if value == b"\"\"" { Seen::Null } else { Seen::bytes(value) }
}

/// Every value that is no object and no array, by its path; items of arrays share one.
fn walk(
    value: &Json,
    path: &mut String,
    found: &mut impl FnMut(&str, Seen) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let len = path.len();
    match value {
        Json::Null => found(path, Seen::Null),
        Json::Bool(_) | Json::Number(_) => found(path, Seen::Clear),
        Json::String(text) => found(path, Seen::text(text)),
        Json::Array(items) => {
            path.push_str("[*]");
            items.iter().try_for_each(|item| walk(item, path, found))?;
            path.truncate(len);
            Ok(())
        }
        Json::Object(members) => members.iter().try_for_each(|(name, value)| {
            push_member(path, name);
            let walked = walk(value, path, found);
            path.truncate(len);
            walked
        }),
    }
}

/// As RFC 9535 writes it: a plain name behind a dot, any other in brackets.
fn push_member(path: &mut String, name: &str) {
    let plain = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if plain {
        path.push('.');
        path.push_str(name);
    } else {
        path.push_str("['");
        path.push_str(&name.replace('\\', "\\\\").replace('\'', "\\'"));
        path.push_str("']");
    }
}
