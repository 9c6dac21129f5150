//! One chain: its lines in the order of their numbers, each under its key.

use super::budget::{Budget, MAX_LINES};
use super::keys::Keys;
use super::parsed::Parsed;
use super::report::sum;
use super::{ChainEnd, ChainReport, FindingKind, Report};
use crate::line::{BEGUN, Brief, ENDED, STATEMENT, covered};
use data_encoding::HEXLOWER;
use keyfold::Ratchet;
use std::borrow::Cow;

/// A line in its place.
pub(super) struct Entry<'a> {
    pub(super) line: &'a Brief,
    pub(super) file: &'a Parsed<'a>,
    /// Which of the files, and which of its lines; from 0.
    pub(super) order: u32,
    pub(super) index: u32,
}

impl<'a> Entry<'a> {
    pub(super) fn name(&self) -> &'a str {
        &self.file.name
    }

    /// The number of the line, from 1.
    pub(super) fn number(&self) -> u64 {
        self.file.lines[self.index as usize].number
    }

    pub(super) fn add(&self, report: &mut Report, kind: FindingKind, detail: impl Into<String>) {
        report.add(self.name(), Some(self.number()), kind, detail.into());
    }

    fn bytes(&self) -> Result<Cow<'a, [u8]>, String> {
        self.file.bytes(&self.file.lines[self.index as usize])
    }

    fn place(&self) -> (u32, u32) {
        (self.order, self.index)
    }

    fn is_named(&self, report: &Report) -> bool {
        report.has(self.name(), self.number())
    }
}

/// What there is of the files.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// The number of the first one.
    pub(super) lowest: u64,
    /// The lines of all of them.
    pub(super) lines: u64,
}

/// Checks the lines of one chain and reports on it. Sorts the lines by number.
pub(super) async fn check_chain(
    entries: &mut [Entry<'_>],
    extent: Extent,
    keys: &mut Keys<'_>,
    budget: &mut Budget,
    report: &mut Report,
) {
    // Stable: of two lines with one number the one that was met first stays first.
    entries.sort_by_key(|entry| entry.line.seq);
    let entries = &*entries;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
    let key = keys.of_chain(entries, budget, report).await;
    let authenticated = key.is_some();
    let mut walk = Walk { previous: None, sound: true, key, reach: extent.lines, own: entries.len() as u64, budget };
    walk.begin(first, extent.lowest, report);
    for (index, entry) in entries.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &entries[before]);
        walk.line(entry, before, report);
    }
    report.chains.push(ChainReport {
        id: first.line.chain,
        lines: entries.len() as u64,
        events: entries.iter().filter(|entry| entry.line.is_event()).count() as u64,
        lost: sum(entries.iter().map(|entry| entry.line.lost)),
        authenticated,
        end: if matches!(last.line.action(), Some(ENDED | STATEMENT)) { ChainEnd::Closed } else { ChainEnd::Open },
        head: (last.line.seq, last.line.mac),
        after_anchor: None,
        statement: last.line.text("kind").filter(|_| last.line.action() == Some(STATEMENT)).map(str::to_owned),
    });
}

/// Goes through a chain from line to line.
struct Walk<'a> {
    /// The key of a line; `None`: nobody may know it here.
    key: Option<Ratchet>,
    /// How many lines that are missing are stepped over: each costs time, and a line may claim any number.
    reach: u64,
    /// Steps that its own lines are good for, so that a chain of which none is missing is checked whatever others claim.
    own: u64,
    /// For those that are missing.
    budget: &'a mut Budget,
    /// The MAC that the next line is chained to, if it is known.
    previous: Option<[u8; 32]>,
    /// Whether the line before was what was written.
    sound: bool,
}

impl Walk<'_> {
    /// What is known before the first line that is there.
    fn begin(&mut self, first: &Entry<'_>, lowest: u64, report: &mut Report) {
        if first.line.seq == 0 {
            self.previous = Some([0; 32]);
            if first.line.action() != Some(BEGUN) {
                first.add(report, FindingKind::Edited, "the first line of a chain says what the chain is");
            }
            return;
        }
        // What came before is in an earlier file, unless the earlier file is here.
        let stated = first.line.text("previous").and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
        self.previous = stated.and_then(|bytes| bytes.try_into().ok());
        let is_earlier =
            self.previous.is_some() && first.line.number("previous_file").is_some_and(|file| file < lowest);
        if is_earlier {
            self.reach = MAX_LINES;
        } else {
            first.add(report, FindingKind::Deleted, missing(0, first.line.seq));
        }
    }

    fn line(&mut self, entry: &Entry<'_>, before: Option<&Entry<'_>>, report: &mut Report) {
        let line = entry.line;
        if let Some(before) = before {
            if before.line.seq == line.seq {
                return again(entry, before, report);
            }
            if before.line.seq + 1 < line.seq {
                entry.add(report, FindingKind::Deleted, missing(before.line.seq + 1, line.seq));
                // A header says what it follows, so what comes after it can be checked.
                let stated = line.text("previous").and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
                self.previous = stated.and_then(|bytes| bytes.try_into().ok());
            }
            if entry.place() < before.place() && !entry.is_named(report) && !before.is_named(report) {
                entry.add(report, FindingKind::Reordered, "an earlier line of its chain stands behind it");
            }
            if before.line.action() == Some(ENDED) {
                entry.add(report, FindingKind::Edited, "its chain had ended");
            }
        }
        if let Some(why) = self.out_of_reach(line.seq) {
            // Nor can what follows.
            self.key = None;
            let detail = format!("it and what follows in its chain cannot be checked, since {why}");
            entry.add(report, FindingKind::Unchecked, detail);
        }
        match (self.verifies(entry), self.sound) {
            (Ok(Some(true)), _) => self.sound = true,
            (Err(why), _) => {
                entry.add(report, FindingKind::Edited, why);
                // The next one is chained to the MAC that was read first.
                self.sound = true;
            }
            (Ok(Some(false)), true) => {
                entry.add(report, FindingKind::Edited, "it is not what was written");
                self.sound = false;
            }
            // The line before says a MAC that may be the one that was edited; the next one is chained to this line's.
            (Ok(Some(false)), false) => {
                entry.add(
                    report,
                    FindingKind::Unchecked,
                    "it cannot be checked, since the line before it in its chain was edited",
                );
                self.sound = true;
            }
            (Ok(None), _) if self.key.is_some() => {
                entry.add(
                    report,
                    FindingKind::Unchecked,
                    "it cannot be checked, since the line before it in its chain is missing",
                );
                self.sound = true;
            }
            (Ok(None), _) => {}
        }
        self.previous = Some(line.mac);
    }

    /// Why the key does not get to line `seq`, if it does not.
    fn out_of_reach(&mut self, seq: u64) -> Option<&'static str> {
        let steps = seq.saturating_sub(self.key.as_ref()?.seq());
        if steps > self.reach {
            return Some("more lines than the files have are missing before it");
        }
        // No line has such a number, which takes no step to say.
        let is_none = seq >= MAX_LINES;
        let is_within = is_none || self.budget.step(&mut self.own, steps);
        (!is_within).then_some(
            "more lines are missing before it, and before others, than one run goes over (16,777,216): verify these files together with those before them",
        )
    }

    /// Whether the line is what was written; `None`: that cannot be told.
    ///
    /// # Errors
    ///
    /// It is no longer what was read first, or cannot be read again.
    fn verifies(&mut self, entry: &Entry<'_>) -> Result<Option<bool>, String> {
        let line = entry.line;
        let Some(ratchet) = &mut self.key else { return Ok(None) };
        if line.seq >= MAX_LINES {
            return Ok(Some(false));
        }
        while ratchet.seq() < line.seq {
            ratchet.step();
        }
        let Some(previous) = &self.previous else { return Ok(None) };
        Ok(Some(ratchet.verifies(previous, covered(&entry.bytes()?), &line.mac)))
    }
}

/// A second line with one number: the same again, or one that somebody made up.
fn again(entry: &Entry<'_>, before: &Entry<'_>, report: &mut Report) {
    let (name, number) = (before.name(), before.number());
    if entry.line.is_same(before.line) {
        entry.add(report, FindingKind::Duplicated, format!("it stands at {name}:{number} already"));
    } else {
        entry.add(report, FindingKind::Edited, format!("{name}:{number} has the same number in the chain"));
    }
}

fn missing(from: u64, to: u64) -> String {
    if from + 1 == to {
        format!("line {from} of its chain is missing before it")
    } else {
        format!("lines {from} to {} of its chain are missing before it", to - 1)
    }
}
