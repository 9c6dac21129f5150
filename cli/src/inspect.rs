//! `keyfold inspect`: what a sealed value says about itself. Needs no key and no configuration.

use crate::args::Inspect;
use crate::failure::{Exit, Failure, Printable};
use crate::print_failed;
use keyfold::wire::{
    BODY_TEXT_PREFIX, DocumentHeader, FIELD_OVERHEAD, Frame, HEADER_LEN, MAGIC, MAX_ENCODED_LEN, MAX_FRAME_RECORDS_LEN,
    Sealed, StreamHeader, Suite, TEXT_PREFIX, from_text, opened_stream_len,
};
use keyfold::{Error, ErrorKind, Record, Result};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// Longest line on standard input: the text form of the longest value is shorter.
const MAX_LINE_LEN: u64 = 2 * 1024 * 1024;
/// How every stream begins.
const STREAM_START: [u8; 2] = [MAGIC, Suite::Stream.id()];
/// Nothing that is sealed in one piece is longer.
const MAX_FILE_LEN: usize = HEADER_LEN + 4 + MAX_FRAME_RECORDS_LEN + FIELD_OVERHEAD + MAX_ENCODED_LEN;

pub(crate) fn run(args: &Inspect, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let mut printer = Printer { json: args.json, all_good: true, out };
    for (index, value) in args.values.iter().enumerate() {
        if value == "-" {
            let mut input = io::stdin().lock();
            for number in 1.. {
                let mut line = String::new();
                let read = input.by_ref().take(MAX_LINE_LEN).read_line(&mut line);
                let len =
                    read.map_err(|error| Failure::new(Exit::Storage, format!("cannot read standard input: {error}")))?;
                if len == 0 {
                    break;
                }
                printer.print_text(&format!("line {number}"), line.trim_end_matches(['\r', '\n']), "")?;
            }
        } else {
            let hint = if Path::new(value).is_file() {
                "a file has this name: --file goes before each of several"
            } else {
                ""
            };
            printer.print_text(&format!("value {}", index + 1), value, hint)?;
        }
    }
    for path in &args.file {
        let (bytes, len) = read(path)
            .map_err(|error| Failure::new(Exit::Storage, format!("cannot read {}: {error}", path.display())))?;
        let about = StreamHeader::parse(&bytes).and_then(|header| About::stream(&header, len));
        let about = if bytes.starts_with(&STREAM_START) { about } else { About::bytes(&bytes) };
        printer.print(&path.display().to_string(), about, "")?;
    }
    Ok(if printer.all_good { ExitCode::SUCCESS } else { ExitCode::from(Exit::Data as u8) })
}

/// As much of a file as a value can have, and how many bytes the file has, or the pipe if it is short.
fn read(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let (mut bytes, mut file) = (Vec::new(), File::open(path)?);
    let metadata = file.metadata()?;
    Read::by_ref(&mut file).take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes)?;
    let len = if metadata.is_file() { metadata.len() } else { bytes.len() as u64 };
    Ok((bytes, len))
}

/// What can be said of a value, for people and for scripts.
struct About {
    text: String,
    json: Json,
}

impl About {
    fn bytes(bytes: &[u8]) -> Result<Self> {
        if bytes.starts_with(b"KFDB") {
            return Err(Error::new(ErrorKind::Malformed, "a bundle for a device: `keyfold device inspect` shows it"));
        }
        if let Ok(header) = DocumentHeader::parse(bytes) {
            return Ok(Self::document(&header));
        }
        // Whatever is no frame, with or without a value's look, is for the parser of values to refuse.
        match Frame::parse(bytes) {
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Self::value(&Sealed::parse(bytes)?)),
            frame => Ok(Self::frame(&frame?)),
        }
    }

    fn document(header: &DocumentHeader) -> Self {
        let key_id = header.key_id();
        Self {
            text: format!("suite 05 (document), generation {}, key ID {key_id}: the header", key_id.generation()),
            json: json!({
                "suite": "05", "kind": "document", "generation": key_id.generation(), "key_id": key_id.to_string(),
            }),
        }
    }

    /// What the length says is true if nobody has cut the stream: that shows when it is opened.
    fn stream(header: &StreamHeader, len: u64) -> Result<Self> {
        let (key_id, len) = (header.key_id(), opened_stream_len(len)?);
        Ok(Self {
            text: format!(
                "suite 04 (stream, AES-256-GCM in chunks of 16 KiB), generation {}, key ID {key_id}, {len} bytes in clear if it is whole",
                key_id.generation()
            ),
            json: json!({
                "suite": "04", "kind": "stream", "generation": key_id.generation(), "key_id": key_id.to_string(), "len": len,
            }),
        })
    }

    fn value(sealed: &Sealed<'_>) -> Self {
        let kind = match sealed.suite() {
            Suite::Field => "field, XAES-256-GCM",
            Suite::Deterministic => "deterministic field, AES-256-SIV",
            _ => "unknown",
        };
        let (suite, key_id, len) = (sealed.suite().to_string(), sealed.key_id(), sealed.encoded_len());
        Self {
            text: format!(
                "suite {suite} ({kind}), generation {}, key ID {key_id}, {len} bytes of format byte, value and padding",
                key_id.generation()
            ),
            json: json!({
                "suite": suite, "kind": kind, "generation": key_id.generation(), "key_id": key_id.to_string(),
                "encoded_len": len,
            }),
        }
    }

    fn frame(frame: &Frame<'_>) -> Self {
        let (value, key_id) = (Self::value(&frame.sealed()), frame.key_id());
        let (texts, records): (Vec<_>, Vec<_>) =
            [frame.record(), frame.root_record()].map(Self::record).into_iter().unzip();
        Self {
            text: format!(
                "suite 03 (frame), generation {}, key ID {key_id}, {} bytes of key records for which nobody has vouched here: {}; around: {}",
                key_id.generation(),
                frame.records_len(),
                texts.join(", "),
                value.text
            ),
            json: json!({
                "suite": "03", "kind": "frame", "generation": key_id.generation(), "key_id": key_id.to_string(),
                "records_len": frame.records_len(), "records": records, "value": value.json,
            }),
        }
    }

    fn record(bytes: &[u8]) -> (String, Json) {
        let Ok(record) = Record::parse(bytes) else { return ("not a key record".to_owned(), Json::Null) };
        let (class, state, sequence) = (record.class().name(), record.state().name(), record.sequence());
        let keks: Vec<_> = record.kek_aliases().map(ToString::to_string).collect();
        let text = format!("{class} {} {state}, sequence {sequence}", record.key_id());
        let json = json!({
            "class": class, "state": state, "key_id": record.key_id().to_string(), "sequence": sequence, "keks": keks,
        });
        (text, json)
    }
}

struct Printer<'a, W> {
    json: bool,
    all_good: bool,
    out: &'a mut W,
}

impl<W: Write> Printer<'_, W> {
    /// `hint` is for what is no sealed value.
    fn print_text(&mut self, name: &str, text: &str, hint: &str) -> Result<(), Failure> {
        if let Ok(header) = DocumentHeader::from_text(text) {
            return self.print(name, Ok(About::document(&header)), "");
        }
        if text.starts_with(BODY_TEXT_PREFIX) {
            let why = "a value of a document: the header of the document says its key";
            return self.print(name, Err(Error::new(ErrorKind::Unsupported, why)), "");
        }
        let start = text.find(TEXT_PREFIX).unwrap_or(0);
        let mut bytes = Vec::new();
        let about = from_text(&text.as_bytes()[start..], &mut bytes).and_then(|()| Sealed::parse(&bytes));
        let behind = if start > 0 { ", behind a prefix in clear" } else { "" };
        let not_text = |error: Error| {
            match error.kind() {
            ErrorKind::Malformed => Error::new(
                ErrorKind::Malformed,
                "not a sealed value in text form; a random token, or a value that keeps its format and that nothing authenticates, looks like any other text",
            )
            .with_detail(hint),
            _ => error,
        }
        };
        self.print(name, about.map(|sealed| About::value(&sealed)).map_err(not_text), behind)
    }

    /// Prints what is known of one value. One that is not sealed may be plaintext, so it is never printed itself.
    fn print(&mut self, name: &str, about: Result<About>, behind: &str) -> Result<(), Failure> {
        let line = match about {
            Ok(about) if self.json => about.json.to_string(),
            Ok(about) => format!("{}: {}{behind}", Printable(name), about.text),
            Err(error) => {
                self.all_good = false;
                if self.json {
                    json!({ "error": error.kind().name(), "code": error.kind().code() }).to_string()
                } else {
                    format!("{}: {error}", Printable(name))
                }
            }
        };
        writeln!(self.out, "{line}").map_err(print_failed)
    }
}
