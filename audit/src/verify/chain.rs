//! One chain: its lines in the order of their numbers, each under its key.

use super::{ChainEnd, ChainReport, Expected, FindingKind, Report};
use crate::line::{BEGUN, ENDED, ReadLine, STATEMENT};
use data_encoding::HEXLOWER;
use keyfold::{ErrorKind, KmsErrorKind, Ratchet};

/// No chain has a line with this number or a higher one.
const MAX_LINES: u64 = 1 << 24;

/// A line in its place.
pub(super) struct Entry<'a> {
    pub(super) line: &'a ReadLine<'a>,
    pub(super) bytes: &'a [u8],
    /// Which of the files.
    pub(super) file: usize,
    pub(super) name: &'a str,
    /// From 1.
    pub(super) number: u64,
}

impl Entry<'_> {
    fn add(&self, report: &mut Report, kind: FindingKind, detail: impl Into<String>) {
        report.add(self.name, Some(self.number), kind, detail.into());
    }

    fn place(&self) -> (usize, u64) {
        (self.file, self.number)
    }
}

/// Checks the lines of one chain and reports on it. `lowest` is the number of the first file. Sorts the lines by number.
pub(super) async fn check_chain(entries: &mut [Entry<'_>], lowest: u64, expected: &Expected, report: &mut Report) {
    // Stable: of two lines with one number the one that was met first stays first.
    entries.sort_by_key(|entry| entry.line.seq);
    let entries = &*entries;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return };
    let key = ratchet(entries, expected, report).await;
    let authenticated = matches!(key, Key::Known(_));
    let mut walk = Walk { previous: None, sound: true, key };
    walk.begin(first, lowest, report);
    for (index, entry) in entries.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| &entries[before]);
        walk.line(entry, before, report);
    }
    let numbers = |entry: &&Entry<'_>| entry.line.number("lost");
    report.chains.push(ChainReport {
        id: first.line.chain,
        lines: entries.len() as u64,
        events: entries.iter().filter(|entry| entry.line.is_event()).count() as u64,
        lost: entries.iter().filter_map(|entry| numbers(&entry)).sum(),
        authenticated,
        end: if matches!(last.line.action.as_str(), ENDED | STATEMENT) { ChainEnd::Closed } else { ChainEnd::Open },
        head: (last.line.seq, last.line.mac),
        after_anchor: None,
        statement: last.line.text("kind").filter(|_| last.line.action == STATEMENT).map(str::to_owned),
    });
}

/// The key of a chain.
enum Key {
    Known(Ratchet),
    /// Nobody may know it here.
    Unknown,
}

/// The key of the chain's first line.
async fn ratchet(entries: &[Entry<'_>], expected: &Expected, report: &mut Report) -> Key {
    let headers: Vec<_> = entries.iter().filter_map(|entry| Some((entry, entry.line.start()?))).collect();
    if let (true, Some(first)) = (headers.is_empty(), entries.first()) {
        let detail = format!("no line says what its chain is, of which there are {} lines", entries.len());
        first.add(report, FindingKind::UnknownChain, detail);
    }
    for (entry, (start, alias)) in &headers {
        if expected.lineage.is_some_and(|lineage| lineage != start.lineage) {
            entry.add(report, FindingKind::UnknownChain, "the chain is of another keyring");
        }
        if expected.keks.is_empty() {
            continue;
        }
        let Some(kek) = expected.keks.get(alias) else {
            entry.add(report, FindingKind::UnknownChain, format!("there is no audit KEK {alias}"));
            continue;
        };
        match start.open(&**kek).await {
            Ok(ratchet) => return Key::Known(ratchet),
            Err(error) => match error.kind() {
                ErrorKind::RecordRejected
                | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext | KmsErrorKind::WrongKey) => {
                    entry.add(report, FindingKind::Edited, format!("the key of its chain does not unwrap: {error}"));
                }
                _ => report
                    .notes
                    .push(format!("{}:{}: the chain was not checked under its key: {error}", entry.name, entry.number)),
            },
        }
    }
    Key::Unknown
}

/// Goes through a chain from line to line.
struct Walk {
    key: Key,
    /// The MAC that the next line is chained to, if it is known.
    previous: Option<[u8; 32]>,
    /// Whether the line before was what was written.
    sound: bool,
}

impl Walk {
    /// What is known before the first line that is there.
    fn begin(&mut self, first: &Entry<'_>, lowest: u64, report: &mut Report) {
        if first.line.seq == 0 {
            self.previous = Some([0; 32]);
            if first.line.action != BEGUN {
                first.add(report, FindingKind::Edited, "the first line of a chain says what the chain is");
            }
            return;
        }
        // What came before is in an earlier file, unless the earlier file is here.
        let stated = first.line.text("previous").and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
        self.previous = stated.and_then(|bytes| bytes.try_into().ok());
        let is_earlier =
            self.previous.is_some() && first.line.number("previous_file").is_some_and(|file| file < lowest);
        if !is_earlier {
            first.add(report, FindingKind::Deleted, missing(0, first.line.seq));
        }
    }

    fn line(&mut self, entry: &Entry<'_>, before: Option<&Entry<'_>>, report: &mut Report) {
        let line = entry.line;
        if let Some(before) = before {
            if before.line.seq == line.seq {
                return self.again(entry, before, report);
            }
            if before.line.seq + 1 < line.seq {
                entry.add(report, FindingKind::Deleted, missing(before.line.seq + 1, line.seq));
                // A header says what it follows, so what comes after it can be checked.
                let stated = line.text("previous").and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
                self.previous = stated.and_then(|bytes| bytes.try_into().ok());
            }
            if entry.place() < before.place()
                && !report.has(entry.name, entry.number)
                && !report.has(before.name, before.number)
            {
                entry.add(report, FindingKind::Reordered, "an earlier line of its chain stands behind it");
            }
            if before.line.action == ENDED {
                entry.add(report, FindingKind::Edited, "its chain had ended");
            }
        }
        match (self.verifies(line), self.sound) {
            (Some(true), _) => self.sound = true,
            (Some(false), true) => {
                entry.add(report, FindingKind::Edited, "it is not what was written");
                self.sound = false;
            }
            // The line before says a MAC that may be the one that was edited; the next one is chained to this line's.
            (Some(false), false) => {
                entry.add(
                    report,
                    FindingKind::Unchecked,
                    "it cannot be checked, since the line before it in its chain was edited",
                );
                self.sound = true;
            }
            (None, _) if matches!(self.key, Key::Known(_)) => {
                entry.add(
                    report,
                    FindingKind::Unchecked,
                    "it cannot be checked, since the line before it in its chain is missing",
                );
                self.sound = true;
            }
            (None, _) => {}
        }
        self.previous = Some(line.mac);
    }

    /// A second line with one number: the same again, or one that somebody made up.
    fn again(&mut self, entry: &Entry<'_>, before: &Entry<'_>, report: &mut Report) {
        if entry.bytes == before.bytes {
            entry.add(
                report,
                FindingKind::Duplicated,
                format!("it stands at {}:{} already", before.name, before.number),
            );
        } else {
            let detail = format!("{}:{} has the same number in the chain", before.name, before.number);
            entry.add(report, FindingKind::Edited, detail);
        }
    }

    /// Whether the line is what was written; `None`: that cannot be told.
    fn verifies(&mut self, line: &ReadLine<'_>) -> Option<bool> {
        let Key::Known(ratchet) = &mut self.key else { return None };
        if line.seq >= MAX_LINES {
            return Some(false);
        }
        while ratchet.seq() < line.seq {
            ratchet.step();
        }
        Some(ratchet.verifies(&self.previous?, line.covered, &line.mac))
    }
}

fn missing(from: u64, to: u64) -> String {
    if from + 1 == to {
        format!("line {from} of its chain is missing before it")
    } else {
        format!("lines {from} to {} of its chain are missing before it", to - 1)
    }
}
