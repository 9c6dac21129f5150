//! What is wrong with audit files, by file and line.

mod anchored;
mod budget;
mod chain;
mod files;
mod keys;
mod order;
mod parsed;
mod report;

pub use files::AuditFiles;
pub use report::{ChainEnd, ChainReport, Finding, FindingKind, Report};

use crate::anchor::Anchor;
use budget::Budget;
use chain::{Entry, Extent, check_chain};
use keyfold::{ChainId, KekAlias, Kms, Lineage};
use keys::Keys;
use order::MAX_NOTES;
use parsed::{MAX_OTHERS, Parsed};
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

/// Verifies audit files that are in memory: see [`AuditFiles`], which holds files open instead.
pub async fn verify(files: &[AuditText], expected: &Expected) -> Report {
    AuditFiles::in_memory(files).verify(expected).await
}

async fn verify_parsed(
    trail: &[Parsed<'_>],
    statements: &[Parsed<'_>],
    expected: &Expected,
    mut budget: Budget,
) -> Report {
    let mut report = Report::new(trail.iter().chain(statements).map(|file| (file.name.as_str(), file.count)));
    let anchors = read_anchors(&expected.anchors, &mut report);
    if !trail.is_empty() || anchors.is_some() {
        let first_anchored = || anchors.iter().flatten().map(|anchor| anchor.file).min();
        order::check_first(trail, expected.from_file.or_else(first_anchored), &mut report);
        check_files(trail, expected, anchors.as_deref(), &mut budget, &mut report).await;
    }
    for statement in statements {
        check_files(std::slice::from_ref(statement), expected, None, &mut budget, &mut report).await;
    }
    report.finish();
    report
}

/// Checks files that belong together, in the order of their numbers.
async fn check_files(
    parsed: &[Parsed<'_>],
    expected: &Expected,
    anchors: Option<&[Anchor]>,
    budget: &mut Budget,
    report: &mut Report,
) {
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
    order::check_fragments(parsed, &chains, report);
    let extent = Extent {
        lowest: parsed.iter().find_map(|file| file.number).or(expected.from_file).unwrap_or(1),
        lines: parsed.iter().map(|file| file.lines.len() as u64).sum(),
    };
    let mut keys = Keys::new(expected);
    for entries in chains.values_mut() {
        check_chain(entries, extent, &mut keys, budget, report).await;
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
}

/// The anchors of all files; `None`: there is no such file.
fn read_anchors(files: &[(String, String)], report: &mut Report) -> Option<Vec<Anchor>> {
    if files.is_empty() {
        return None;
    }
    let mut anchors = Vec::new();
    for (name, text) in files {
        let known = anchors.len();
        let (mut none, mut cut_off) = (0_u64, 0_u64);
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
            let number = index as u64 + 1;
            match Anchor::parse(line) {
                Some(anchor) => anchors.push(anchor),
                None if Anchor::is_cut_off(line) => {
                    cut_off += 1;
                    if cut_off <= MAX_NOTES {
                        report.notes.push(format!("{name}:{number}: the anchor is cut off: its writer crashed"));
                    }
                }
                None => {
                    none += 1;
                    if none <= MAX_OTHERS {
                        report.add(name, Some(number), FindingKind::NoAnchor, "it is not an anchor".to_owned());
                    }
                }
            }
        }
        if cut_off > MAX_NOTES {
            report.notes.push(format!("{name}: further anchors that are cut off: {}", cut_off - MAX_NOTES));
        }
        if none > MAX_OTHERS {
            let detail = format!("further lines that are no anchors: {}", none - MAX_OTHERS);
            report.add(name, None, FindingKind::NoAnchor, detail);
        }
        if anchors.len() == known {
            report.add(name, None, FindingKind::NoAnchor, "there is no anchor in the file".to_owned());
        }
    }
    Some(anchors)
}
