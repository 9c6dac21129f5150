//! `keyfold inspect`: what a sealed value says about itself. Needs no key and no configuration.

use crate::args::Inspect;
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold::ErrorKind;
use keyfold::wire::{Sealed, Suite, TEXT_PREFIX, from_text};
use serde_json::json;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

/// Longest line on standard input: the text form of the longest value is shorter.
const MAX_LINE_LEN: u64 = 2 * 1024 * 1024;

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
                printer.print(&format!("line {number}"), line.trim_end_matches(['\r', '\n']))?;
            }
        } else {
            printer.print(&format!("value {}", index + 1), value)?;
        }
    }
    Ok(if printer.all_good { ExitCode::SUCCESS } else { ExitCode::from(Exit::Data as u8) })
}

struct Printer<'a, W> {
    json: bool,
    all_good: bool,
    out: &'a mut W,
}

impl<W: Write> Printer<'_, W> {
    /// Prints one value. One that is not sealed may be plaintext, so it is never printed itself.
    fn print(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let start = text.find(TEXT_PREFIX).unwrap_or(0);
        let mut bytes = Vec::new();
        let parsed = from_text(&text.as_bytes()[start..], &mut bytes).and_then(|()| Sealed::parse(&bytes));
        let line = match parsed {
            Ok(sealed) => {
                let kind = match sealed.suite() {
                    Suite::Field => "field, XAES-256-GCM",
                    Suite::Deterministic => "deterministic field, AES-256-SIV",
                    _ => "unknown",
                };
                let (suite, key_id, len) = (sealed.suite().to_string(), sealed.key_id(), sealed.encoded_len());
                if self.json {
                    json!({
                        "suite": suite, "kind": kind, "generation": key_id.generation(), "key_id": key_id.to_string(),
                        "encoded_len": len,
                    })
                    .to_string()
                } else {
                    let prefix = if start > 0 { ", behind a prefix in clear" } else { "" };
                    format!(
                        "{name}: suite {suite} ({kind}), generation {}, key ID {key_id}, {len} bytes of format byte, value and padding{prefix}",
                        key_id.generation()
                    )
                }
            }
            Err(error) => {
                self.all_good = false;
                let why = match error.kind() {
                    ErrorKind::Malformed => "not a sealed value in text form".to_owned(),
                    _ => error.to_string(),
                };
                if self.json {
                    json!({ "error": error.kind().name(), "code": error.kind().code() }).to_string()
                } else {
                    format!("{name}: {why}")
                }
            }
        };
        writeln!(self.out, "{line}").map_err(print_failed)
    }
}
