//! Whether the files follow each other, and whether each line is where it was written. Needs no key.

use super::chain::Entry;
use super::parsed::{Line, Parsed};
use super::{FindingKind, Report};
use crate::line::{FILE_ENDED, ReadLine};
use keyfold::ChainId;
use std::collections::BTreeMap;

/// The fewest bytes of a MAC with what stands before it: a line that was cut off by a crash does not have so many.
const MAC_MEMBER: &[u8] = b",\"mac\":\"";
const DIGITS: usize = 64;
/// Lines or anchors of a file that are cut off and named one by one.
pub(super) const MAX_NOTES: u64 = 10;

pub(super) fn check(files: &[Parsed<'_>], report: &mut Report) {
    for file in files {
        check_places(file, report);
    }
    for pair in files.windows(2) {
        if let (Some(before), Some(after)) = (pair[0].number, pair[1].number) {
            let name = &pair[1].name;
            if before == after {
                let detail = format!("it says that it is file {after}, as {} does", pair[0].name);
                report.add(name, None, FindingKind::Duplicated, detail);
            } else if before + 1 < after {
                let missing = if before + 2 == after {
                    format!("{}", before + 1)
                } else {
                    format!("{} to {}", before + 1, after - 1)
                };
                report.add(name, None, FindingKind::MissingFile, format!("before it, file {missing} is missing"));
            }
        }
    }
    if let Some(last) = files.last() {
        let mut lines = last.lines.iter().filter_map(|line| line.brief.as_ref());
        let next = lines.find(|line| line.action() == Some(FILE_ENDED));
        if let Some(next) = next.and_then(|line| line.number("next")) {
            report.add(&last.name, None, FindingKind::MissingFile, format!("file {next} follows it and is missing"));
        }
    }
    if let Some(first) = files.iter().find_map(|file| file.number).filter(|&first| first > 1) {
        report.notes.push(format!("the files begin with number {first}: what came before is not looked at"));
    }
}

/// Misses the files from number `first` to the first one that is there.
pub(super) fn check_first(files: &[Parsed<'_>], first: Option<u64>, report: &mut Report) {
    let lowest = files.iter().find_map(|file| Some((&file.name, file.number?)));
    let Some((first, (name, lowest))) = first.zip(lowest).filter(|(first, (_, lowest))| first < lowest) else { return };
    let files = if first + 1 == lowest {
        format!("file {first} is missing")
    } else {
        format!("files {first} to {} are missing", lowest - 1)
    };
    let detail = format!("before it, {files}; if they are kept elsewhere, --from-file {lowest} says so");
    report.add(name, None, FindingKind::MissingFile, detail);
}

/// Holds the place of each line against the one that the line says.
fn check_places(file: &Parsed<'_>, report: &mut Report) {
    let placed: Vec<_> = file
        .lines
        .iter()
        .filter_map(|line| Some((line.number, i128::from(line.offset) - i128::from(line.brief.as_ref()?.at))))
        .collect();
    let mut shift = 0;
    for (index, &(number, own)) in placed.iter().enumerate() {
        if own == shift {
            continue;
        }
        // A single line that does not fit in was moved here; from where something was put in or taken out, none fits.
        if placed.get(index + 1).is_some_and(|&(_, next)| next == shift) {
            report.add(&file.name, Some(number), FindingKind::Reordered, "it was written at another place".to_owned());
            continue;
        }
        let (bytes, what) = ((own - shift).unsigned_abs(), if own > shift { "put in" } else { "taken out" });
        report.add(&file.name, Some(number), FindingKind::Shifted, format!("{bytes} bytes were {what} before it"));
        shift = own;
    }
}

/// Lines that are none: the remains of a write that a crash cut off, or damage.
pub(super) fn check_fragments(files: &[Parsed<'_>], chains: &BTreeMap<ChainId, Vec<Entry<'_>>>, report: &mut Report) {
    let last = |entries: &Vec<Entry<'_>>| entries.iter().map(|entry| entry.line.seq).max();
    let ends: BTreeMap<ChainId, u64> = chains.iter().filter_map(|(id, entries)| Some((*id, last(entries)?))).collect();
    for file in files {
        if file.is_something_else() {
            let detail = format!("this is no audit file: of its {} no line is one", lines(file.count));
            report.add(&file.name, None, FindingKind::NoLine, detail);
            continue;
        }
        let mut cut_off = 0;
        for line in file.lines.iter().filter(|line| line.brief.is_none()) {
            let number = line.number;
            match file.bytes(line) {
                Ok(bytes) if is_cut_off(line, &bytes, &ends) => {
                    cut_off += 1;
                    if cut_off <= MAX_NOTES {
                        report.notes.push(format!(
                            "{}:{number}: the line is cut off: its writer crashed, or is writing; its chain ends before it",
                            file.name
                        ));
                    }
                }
                read => {
                    let detail = read.err().unwrap_or_else(|| "it is not a line of an audit file".to_owned());
                    report.add(&file.name, Some(number), FindingKind::NoLine, detail);
                }
            }
        }
        if cut_off > MAX_NOTES {
            let (more, are) = (cut_off - MAX_NOTES, if cut_off - MAX_NOTES == 1 { "line is" } else { "lines are" });
            report.notes.push(format!("{}: {more} more {are} cut off", file.name));
        }
        let unkept = [
            (&file.blank, "it is empty, which no crash leaves behind"),
            (&file.others, "it is left unread, behind 1,000 that are no lines of an audit file"),
        ];
        for (unkept, what) in unkept.into_iter().filter(|(unkept, _)| unkept.count > 0) {
            let detail = match unkept.count - 1 {
                0 => what.to_owned(),
                1 => format!("{what}; so is 1 more line"),
                more => format!("{what}; so are {more} more lines"),
            };
            report.add(&file.name, Some(unkept.first), FindingKind::NoLine, detail);
        }
    }
}

fn lines(count: u64) -> String {
    format!("{count} line{}", if count == 1 { "" } else { "s" })
}

/// Whether a line is the beginning of one, which its chain does not go on behind. `ends`: the highest number in each chain.
fn is_cut_off(line: &Line, bytes: &[u8], ends: &BTreeMap<ChainId, u64>) -> bool {
    let mac_at = bytes.windows(MAC_MEMBER.len()).position(|window| window == MAC_MEMBER);
    let has_mac = mac_at.is_some_and(|at| bytes.len() - at - MAC_MEMBER.len() >= DIGITS);
    // With all of its MAC, only the end can be missing.
    let completes = |end: &&[u8]| ReadLine::parse(&[bytes, end].concat()).is_some();
    if has_mac && ![&b""[..], b"}", b"\"}"].iter().any(completes) || !has_mac && bytes.ends_with(b"\"}") && line.whole {
        return false;
    }
    let Some(rest) = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix("{\"chain\":\"")) else {
        // Less than the beginning.
        return b"{\"chain\":\"".starts_with(bytes);
    };
    let Some((chain, rest)) = rest.split_once("\",\"seq\":") else { return true };
    let seq = rest.split_once(',').and_then(|(seq, _)| seq.parse::<u64>().ok());
    let (Ok(chain), Some(seq)) = (chain.parse(), seq) else { return true };
    ends.get(&chain).is_none_or(|end| *end < seq)
}
