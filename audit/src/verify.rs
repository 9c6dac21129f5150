//! What is wrong with audit files, by file and line.

mod anchored;
mod budget;
mod chain;
mod keys;
mod order;
mod parsed;
mod report;

pub use report::{ChainEnd, ChainReport, Finding, FindingKind, Report};

use crate::anchor::Anchor;
use budget::Budget;
use chain::{Entry, Extent, check_chain};
use keyfold::{ChainId, Error, ErrorKind, KekAlias, Kms, Lineage, Result};
use keyfold_store::files::io_error;
use keys::Keys;
use parsed::Parsed;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
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

/// Verifies audit files, in any order: those of one name, all of them or the latest ones. Statements among them are verified each by
/// itself, without anchors.
///
/// One request to a key service per chain, which needs the right to decrypt. After 1,000 headers that gave no key it asks no more, and says so.
///
/// # Panics
///
/// Never: what is in memory can be read.
pub async fn verify(files: &[AuditText], expected: &Expected) -> Report {
    let parsed = files.iter().map(Parsed::of_text).collect::<io::Result<_>>().expect("memory can be read");
    verify_parsed(parsed, expected, Budget::default()).await.expect("memory can be read")
}

/// As [`verify`], of files that are not read into memory: some 130 bytes are kept of each line, and the line is read again when its MAC is checked.
///
/// # Errors
///
/// - [`Io`](keyfold::ErrorKind::Io): a file cannot be read, or has a line of more than 64 MiB.
pub async fn verify_files(files: &[PathBuf], expected: &Expected) -> Result<Report> {
    let of_file =
        |path: &PathBuf| Parsed::of_file(path).map_err(|error| io_error("cannot read the audit file", path, error));
    let parsed = files.iter().map(of_file).collect::<Result<_>>()?;
    let again = |error: io::Error| {
        Error::new(ErrorKind::Io, "cannot read a line of an audit file again").with_detail(error.to_string())
    };
    verify_parsed(parsed, expected, Budget::default()).await.map_err(again)
}

async fn verify_parsed(files: Vec<Parsed<'_>>, expected: &Expected, mut budget: Budget) -> io::Result<Report> {
    let (statements, mut trail): (Vec<_>, Vec<_>) = files.into_iter().partition(Parsed::is_statement);
    trail.sort_by_key(|file| file.number);
    let mut report = Report::new(trail.iter().chain(&statements).map(|file| (file.name.as_str(), file.lines.len())));
    let anchors = read_anchors(&expected.anchors, &mut report);
    if !trail.is_empty() || anchors.is_some() {
        let first_anchored = || anchors.iter().flatten().map(|anchor| anchor.file).min();
        order::check_first(&trail, expected.from_file.or_else(first_anchored), &mut report);
        check_files(&trail, expected, anchors.as_deref(), &mut budget, &mut report).await?;
    }
    for statement in &statements {
        check_files(std::slice::from_ref(statement), expected, None, &mut budget, &mut report).await?;
    }
    report.finish();
    Ok(report)
}

/// Whether the file is a signed statement, and no file of a trail.
#[must_use]
pub fn is_statement(file: &AuditText) -> bool {
    Parsed::of_text(file).is_ok_and(|file| file.is_statement())
}

/// Checks files that belong together, in the order of their numbers.
async fn check_files(
    parsed: &[Parsed<'_>],
    expected: &Expected,
    anchors: Option<&[Anchor]>,
    budget: &mut Budget,
    report: &mut Report,
) -> io::Result<()> {
    order::check(parsed, report);
    let mut chains: BTreeMap<ChainId, Vec<Entry<'_>>> = BTreeMap::new();
    for (order, file) in parsed.iter().enumerate() {
        for (index, line) in file.lines.iter().enumerate() {
            if let Some(brief) = &line.brief {
                let entry = Entry { line: brief, file, order: order as u32, index: index as u32 };
                chains.entry(brief.chain).or_default().push(entry);
            }
        }
    }
    order::check_fragments(parsed, &chains, report)?;
    let extent = Extent {
        lowest: parsed.iter().find_map(|file| file.number).or(expected.from_file).unwrap_or(1),
        lines: parsed.iter().map(|file| file.lines.len() as u64).sum(),
    };
    let mut keys = Keys::new(expected);
    for entries in chains.values_mut() {
        check_chain(entries, extent, &mut keys, budget, report).await?;
    }
    keys.report(report);
    // Of something else in the place of the trail that is said; that it lacks every chain is no news.
    let is_trail = parsed.is_empty() || !parsed.iter().all(Parsed::is_something_else);
    if let Some(anchors) = anchors.filter(|_| is_trail) {
        // Where nothing is left of the trail, the anchors are the place that says so.
        let name = parsed.last().map(|file| &file.name).or_else(|| expected.anchors.first().map(|(name, _)| name));
        let place = name.cloned().unwrap_or_default();
        anchored::check(anchors, &chains, extent.lowest, &place, report);
    }
    Ok(())
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
    for parsed in files.iter().filter_map(|file| Parsed::of_text(file).ok()) {
        for line in parsed.lines.iter().filter_map(|line| line.brief.as_ref()) {
            let head = Anchor { file: parsed.number.unwrap_or(1), chain: line.chain, seq: line.seq, mac: line.mac };
            let known = heads.entry(line.chain).or_insert_with(|| head.clone());
            if known.seq < head.seq {
                *known = head;
            }
        }
    }
    heads.into_values().collect()
}
