//! What anchors know of the chains.

use super::chain::Entry;
use super::{FindingKind, Report};
use crate::anchor::Anchor;
use keyfold::ChainId;
use std::collections::BTreeMap;

/// Holds chains against anchors, those of files before number `lowest` aside. The lines of a chain are sorted by number. A chain that is missing is
/// said to be so at `place`.
pub(super) fn check(
    anchors: &[Anchor],
    chains: &BTreeMap<ChainId, Vec<Entry<'_>>>,
    lowest: u64,
    place: &str,
    report: &mut Report,
) {
    let mut latest: BTreeMap<ChainId, &Anchor> = BTreeMap::new();
    for anchor in anchors.iter().filter(|anchor| anchor.file >= lowest) {
        if let Some(entries) = chains.get(&anchor.chain) {
            let line = entries.binary_search_by_key(&anchor.seq, |entry| entry.line.seq).ok().map(|at| &entries[at]);
            if let Some(entry) =
                line.filter(|entry| entry.line.mac != anchor.mac && !report.has(entry.name(), entry.number()))
            {
                let detail = "the anchors know another line, or another one before it".to_owned();
                report.add(entry.name(), Some(entry.number()), FindingKind::Edited, detail);
            }
        }
        let known = latest.entry(anchor.chain).or_insert(anchor);
        if known.seq < anchor.seq {
            *known = anchor;
        }
    }
    for (id, anchor) in &latest {
        let Some(last) = chains.get(id).and_then(|entries| entries.last()) else {
            let detail = format!("chain {id} is missing, which had {} lines or more", anchor.seq.saturating_add(1));
            report.add(place, None, FindingKind::MissingChain, detail);
            continue;
        };
        if last.line.seq < anchor.seq {
            let (from, to) = (last.line.seq + 1, anchor.seq);
            let lines = if from == to {
                format!("line {from} is missing")
            } else {
                format!("lines {from} to {to} are missing")
            };
            let detail = format!("{lines} at the end of chain {id}");
            report.add(last.name(), Some(last.number()), FindingKind::MissingTail, detail);
        }
    }
    for chain in &mut report.chains {
        // Lines and anchors may claim any number.
        let lines = |last: u64| last.saturating_add(1);
        let anchored = latest.get(&chain.id).map_or(0, |anchor| lines(anchor.seq));
        chain.after_anchor = Some(lines(chain.head.0).saturating_sub(anchored));
    }
}
