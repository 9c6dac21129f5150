//! What is wrong with audit files, by file and line.

mod anchored;
mod chain;
mod order;
mod report;

pub use report::{ChainEnd, ChainReport, Finding, FindingKind, Report};

use crate::anchor::Anchor;
use crate::line::ReadLine;
use chain::{Entry, check_chain};
use keyfold::{ChainId, KekAlias, Kms, Lineage};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file to be verified.
#[derive(Clone, Debug)]
pub struct AuditText {
    /// How the report names it.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What the files are held against.
#[derive(Clone, Default)]
pub struct Expected {
    /// The audit KEKs, by alias. Without any, only the structure is checked: whoever edits a file can make that fit.
    pub keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
    /// The keyring whose events they should be; `None`: any.
    pub lineage: Option<Lineage>,
    /// The content of anchor files, with their names.
    pub anchors: Vec<(String, String)>,
}

/// A file that was taken apart.
struct Parsed<'a> {
    name: &'a str,
    /// What its first line says.
    number: Option<u64>,
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    /// Where it begins, in bytes.
    offset: u64,
    bytes: &'a [u8],
    /// Whether a line feed ends it.
    whole: bool,
    parsed: Option<ReadLine<'a>>,
}

/// Verifies audit files, in any order: those of one name, all of them or the latest ones.
///
/// One request to a key service per chain, which needs the right to decrypt.
pub async fn verify(files: &[AuditText], expected: &Expected) -> Report {
    let mut parsed: Vec<_> = files.iter().map(Parsed::new).collect();
    parsed.sort_by_key(|file| file.number);
    let mut report = Report::new(parsed.iter().map(|file| (file.name, file.lines.len())));
    order::check(&parsed, &mut report);
    let mut chains: BTreeMap<ChainId, Vec<Entry<'_>>> = BTreeMap::new();
    for (file, parsed) in parsed.iter().enumerate() {
        for (index, line) in parsed.lines.iter().enumerate() {
            if let Some(read) = &line.parsed {
                let entry = Entry { line: read, bytes: line.bytes, file, name: parsed.name, number: index as u64 + 1 };
                chains.entry(read.chain).or_default().push(entry);
            }
        }
    }
    order::check_fragments(&parsed, &chains, &mut report);
    let lowest = parsed.iter().find_map(|file| file.number).unwrap_or(1);
    for entries in chains.values_mut() {
        check_chain(entries, lowest, expected, &mut report).await;
    }
    let anchors = read_anchors(&expected.anchors, &mut report);
    if let Some(anchors) = anchors {
        anchored::check(&anchors, &chains, lowest, &mut report);
    }
    report.finish();
    report
}

/// The anchors of all files; `None`: there is no such file.
fn read_anchors(files: &[(String, String)], report: &mut Report) -> Option<Vec<Anchor>> {
    if files.is_empty() {
        return None;
    }
    let mut anchors = Vec::new();
    for (name, text) in files {
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            match Anchor::parse(line) {
                Some(anchor) => anchors.push(anchor),
                // A crash may have cut it off. Whoever can edit anchors can remove them as well.
                None => report.notes.push(format!("{name}:{}: it is not an anchor, and passed over", index + 1)),
            }
        }
    }
    Some(anchors)
}

/// The heads of all chains in `files` that have not ended: what [`Anchor::to_line`] of each writes down by hand. Nothing is verified.
#[must_use]
pub fn heads(files: &[AuditText]) -> Vec<Anchor> {
    let mut heads = BTreeMap::new();
    for file in files {
        let parsed = Parsed::new(file);
        for line in parsed.lines.iter().filter_map(|line| line.parsed.as_ref()) {
            let head = Anchor { file: parsed.number.unwrap_or(1), chain: line.chain, seq: line.seq, mac: line.mac };
            let known = heads.entry(line.chain).or_insert_with(|| head.clone());
            if known.seq < head.seq {
                *known = head;
            }
        }
    }
    heads.into_values().collect()
}

impl<'a> Parsed<'a> {
    fn new(file: &'a AuditText) -> Self {
        let mut lines: Vec<Line<'_>> = Vec::new();
        let mut offset = 0;
        for bytes in file.bytes.split_inclusive(|&byte| byte == b'\n') {
            let (content, whole) = bytes.strip_suffix(b"\n").map_or((bytes, false), |content| (content, true));
            let parsed = if whole { ReadLine::parse(content) } else { None };
            lines.push(Line { offset, bytes: content, whole, parsed });
            offset += bytes.len() as u64;
        }
        let number = lines.iter().find_map(|line| line.parsed.as_ref().filter(|line| line.is_header())?.number("file"));
        Self { name: &file.name, number, lines }
    }
}
