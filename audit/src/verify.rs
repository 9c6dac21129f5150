//! What is wrong with audit files, by file and line.

mod anchored;
mod chain;
mod keys;
mod order;
mod report;

pub use report::{ChainEnd, ChainReport, Finding, FindingKind, Report};

use crate::anchor::Anchor;
use crate::line::{ReadLine, STATEMENT};
use chain::{Entry, Extent, check_chain};
use keyfold::{ChainId, KekAlias, Kms, Lineage};
use keys::Keys;
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
    /// The number of the first file that is to be there; `None`: the first one that an anchor names. Earlier ones are kept elsewhere, and
    /// are not missed.
    pub from_file: Option<u64>,
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

/// Verifies audit files, in any order: those of one name, all of them or the latest ones. Statements among them are verified each by
/// itself, without anchors.
///
/// One request to a key service per chain, which needs the right to decrypt.
pub async fn verify(files: &[AuditText], expected: &Expected) -> Report {
    let parsed = files.iter().map(Parsed::new);
    let (statements, mut trail): (Vec<_>, Vec<_>) = parsed.partition(Parsed::is_statement);
    trail.sort_by_key(|file| file.number);
    let mut report = Report::new(trail.iter().chain(&statements).map(|file| (file.name, file.lines.len())));
    let anchors = read_anchors(&expected.anchors, &mut report);
    if !trail.is_empty() || anchors.is_some() {
        let first_anchored = || anchors.iter().flatten().map(|anchor| anchor.file).min();
        order::check_first(&trail, expected.from_file.or_else(first_anchored), &mut report);
        check_files(&trail, expected, anchors.as_deref(), &mut report).await;
    }
    for statement in &statements {
        check_files(std::slice::from_ref(statement), expected, None, &mut report).await;
    }
    report.finish();
    report
}

/// Whether the file is a signed statement, and no file of a trail.
#[must_use]
pub fn is_statement(file: &AuditText) -> bool {
    Parsed::new(file).is_statement()
}

/// Checks files that belong together, in the order of their numbers.
async fn check_files(parsed: &[Parsed<'_>], expected: &Expected, anchors: Option<&[Anchor]>, report: &mut Report) {
    order::check(parsed, report);
    let mut chains: BTreeMap<ChainId, Vec<Entry<'_>>> = BTreeMap::new();
    for (file, parsed) in parsed.iter().enumerate() {
        for (index, line) in parsed.lines.iter().enumerate() {
            if let Some(read) = &line.parsed {
                let entry = Entry { line: read, bytes: line.bytes, file, name: parsed.name, number: index as u64 + 1 };
                chains.entry(read.chain).or_default().push(entry);
            }
        }
    }
    order::check_fragments(parsed, &chains, report);
    let extent = Extent {
        lowest: parsed.iter().find_map(|file| file.number).or(expected.from_file).unwrap_or(1),
        lines: parsed.iter().map(|file| file.lines.len() as u64).sum(),
    };
    let mut keys = Keys::new(expected);
    for entries in chains.values_mut() {
        check_chain(entries, extent, &mut keys, report).await;
    }
    keys.report(report);
    if let Some(anchors) = anchors {
        anchored::check(anchors, &chains, extent.lowest, report);
    }
}

/// The anchors of all files; `None`: there is no such file.
fn read_anchors(files: &[(String, String)], report: &mut Report) -> Option<Vec<Anchor>> {
    if files.is_empty() {
        return None;
    }
    let mut anchors = Vec::new();
    for (name, text) in files {
        let known = anchors.len();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let number = index as u64 + 1;
            match Anchor::parse(line) {
                Some(anchor) => anchors.push(anchor),
                None if Anchor::is_cut_off(line) => {
                    report.notes.push(format!("{name}:{number}: the anchor is cut off: its writer crashed"));
                }
                None => report.add(name, Some(number), FindingKind::NoAnchor, "it is not an anchor".to_owned()),
            }
        }
        if anchors.len() == known {
            report.add(name, None, FindingKind::NoAnchor, "there is no anchor in the file".to_owned());
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

    /// The two lines of a statement. A file that has more is checked as a part of a trail.
    fn is_statement(&self) -> bool {
        matches!(&self.lines[..], [_, line] if line.parsed.as_ref().is_some_and(|line| line.action == STATEMENT))
    }
}
