//! Lines of audit files as somebody writes them who has no key: they have the form of lines, and say what he likes.

use arbitrary::{Arbitrary, Unstructured};
use serde_json::{Value as Json, json};

/// A line, or what stands in the place of one.
#[derive(Arbitrary, Debug)]
pub enum Entry {
    Line(Line),
    Raw(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
pub struct Line {
    chain: u8,
    seq: Number,
    at: Number,
    time: Time,
    action: u8,
    members: Vec<Member>,
    details: Vec<(u8, Number)>,
}

#[derive(Arbitrary, Debug)]
pub enum Number {
    Small(u8),
    Any(u64),
}

#[derive(Arbitrary, Debug)]
enum Time {
    /// An hour of the months before the report.
    Hour(u16),
    Text(Name),
}

#[derive(Arbitrary, Debug)]
enum Name {
    Common(u8),
    Text(String),
}

#[derive(Arbitrary, Debug)]
enum Member {
    Text(u8, Name),
    Number(u8, Number),
    State(u8),
    Other(String, Name),
}

/// When the report is made: 26 November 2026, 12:00.
pub const AT: u64 = 1_795_694_400;

/// Most lines of a file.
const MOST: usize = 64;
const ACTIONS: [&str; 34] = [
    "use",
    "use",
    "use",
    "wrap",
    "unwrap",
    "recovery",
    "break-glass",
    "drill",
    "probe",
    "key-made",
    "state-changed",
    "reparent",
    "rewrap",
    "backup",
    "restore",
    "shred-scheduled",
    "shred-cancelled",
    "shredded",
    "shred-confirmed",
    "hold-placed",
    "hold-lifted",
    "provision",
    "revoke",
    "reencrypt",
    "reconfigured",
    "statement-signed",
    "statement",
    "opened",
    "chain-begun",
    "chain-continued",
    "chain-ended",
    "file-ended",
    "else",
    "<b>|`",
];
/// Names that a page must not take for more than names.
const NAMES: [&str; 16] = [
    "api",
    "export",
    "patient.ssn",
    "ok",
    "DecryptionFailed",
    "local",
    "<script>alert(1)</script>",
    "\" onload=\"x",
    "a|b",
    "[x](y) `z`",
    "\u{202e}kot",
    "x\ny\r\n| a | b |",
    "audit",
    "vectors",
    "</svg>&amp;",
    "compromised",
];
const TEXTS: [&str; 14] = [
    "actor",
    "field",
    "kek",
    "outcome",
    "key_id",
    "reason",
    "keyring",
    "environment",
    "lineage",
    "host",
    "program",
    "kek_version",
    "wrapped",
    "previous",
];
const NUMBERS: [&str; 10] =
    ["lost", "latency_us", "code", "format", "file", "next", "previous_file", "process", "user", "commitment"];
const DETAILS: [&str; 9] =
    ["opened", "sealed", "searched", "clear", "requests", "DecryptionFailed", "Malformed", "PolicyRefused", "rows"];

impl Entry {
    /// The line, without a line feed.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Line(line) => line.text().into_bytes(),
            Self::Raw(bytes) => bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec(),
        }
    }
}

/// Lines for as long as there are bytes.
pub fn entries(data: &mut Unstructured<'_>) -> Vec<Entry> {
    let mut found = Vec::new();
    while !data.is_empty() && found.len() < MOST {
        let Ok(entry) = Entry::arbitrary(data) else { break };
        found.push(entry);
    }
    found
}

/// A chain of somebody's.
pub fn chain(number: u8) -> String {
    format!("{:032x}", number % 3)
}

impl Number {
    pub fn value(&self) -> u64 {
        match self {
            Self::Small(number) => (*number).into(),
            Self::Any(number) => *number,
        }
    }
}

impl Name {
    fn text(&self) -> &str {
        match self {
            Self::Common(number) => NAMES[usize::from(*number) % NAMES.len()],
            Self::Text(text) => text,
        }
    }
}

impl Line {
    /// As `Chain::add_line` of the crate that writes them, with a MAC that fits nothing.
    fn text(&self) -> String {
        let time = match &self.time {
            Time::Hour(hours) => time_of(AT.saturating_sub(3600 * (u64::from(*hours) % 1000)).saturating_add(3600)),
            Time::Text(name) => name.text().to_owned(),
        };
        let at = |names: &[&'static str], number: &u8| names[usize::from(*number) % names.len()];
        let mut members = serde_json::Map::new();
        for member in &self.members {
            let (name, value): (&str, Json) = match member {
                Member::Text(name, text) => (at(&TEXTS, name), text.text().into()),
                Member::Number(name, number) => (at(&NUMBERS, name), number.value().into()),
                Member::State(name) => ("details", json!({ "state": at(&NAMES, name) })),
                Member::Other(name, text) => (name, text.text().into()),
            };
            members.insert(name.to_owned(), value);
        }
        if !self.details.is_empty() {
            let details = self
                .details
                .iter()
                .map(|(name, number)| (at(&DETAILS, name).to_owned(), number.value().to_string().into()));
            members.insert("details".to_owned(), Json::Object(details.collect()));
        }
        // What every line has stands before the rest, once.
        ["chain", "seq", "at", "time", "action", "mac"].iter().for_each(|name| drop(members.remove(*name)));
        let members: String = members.iter().map(|(name, value)| format!(",{}:{value}", json!(name))).collect();
        format!(
            "{{\"chain\":\"{}\",\"seq\":{},\"at\":{},\"time\":{},\"action\":{}{members},\"mac\":\"{:064x}\"}}",
            chain(self.chain),
            self.seq.value(),
            self.at.value(),
            json!(time),
            json!(at(&ACTIONS, &self.action)),
            self.at.value()
        )
    }
}

/// RFC 3339.
fn time_of(seconds: u64) -> String {
    let time = keyfold::Value::Timestamp { seconds: seconds.cast_signed(), nanoseconds: 0 };
    time.to_text().expect("a time of this century").into_owned()
}
