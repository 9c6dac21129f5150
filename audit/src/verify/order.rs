//! Whether the files follow each other, and whether each line is where it was written. Needs no key.

use super::chain::Entry;
use super::{FindingKind, Line, Parsed, Report};
use crate::line::{FILE_ENDED, ReadLine};
use keyfold::ChainId;
use std::collections::BTreeMap;

/// The fewest bytes of a MAC with what stands before it: a line that was cut off by a crash does not have so many.
const MAC_MEMBER: &[u8] = b",\"mac\":\"";
const DIGITS: usize = 64;

pub(super) fn check(files: &[Parsed<'_>], report: &mut Report) {
    for file in files {
        check_places(file, report);
    }
    for pair in files.windows(2) {
        if let (Some(before), Some(after)) = (pair[0].number, pair[1].number) {
            let name = pair[1].name;
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
        let next = last.lines.iter().filter_map(|line| line.parsed.as_ref()).find(|line| line.action == FILE_ENDED);
        if let Some(next) = next.and_then(|line| line.number("next")) {
            report.add(last.name, None, FindingKind::MissingFile, format!("file {next} follows it and is missing"));
        }
    }
    if let Some(first) = files.iter().find_map(|file| file.number).filter(|&first| first > 1) {
        report.notes.push(format!("the files begin with number {first}: what came before is not looked at"));
    }
}

/// Holds the place of each line against the one that the line says.
fn check_places(file: &Parsed<'_>, report: &mut Report) {
    let placed: Vec<_> = file
        .lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| {
            Some((index as u64 + 1, i128::from(line.offset) - i128::from(line.parsed.as_ref()?.at)))
        })
        .collect();
    let mut shift = 0;
    for (index, &(number, own)) in placed.iter().enumerate() {
        if own == shift {
            continue;
        }
        // A single line that does not fit in was moved here; from where something was put in or taken out, none fits.
        if placed.get(index + 1).is_some_and(|&(_, next)| next == shift) {
            report.add(file.name, Some(number), FindingKind::Reordered, "it was written at another place".to_owned());
            continue;
        }
        let (bytes, what) = ((own - shift).unsigned_abs(), if own > shift { "put in" } else { "taken out" });
        report.add(file.name, Some(number), FindingKind::Shifted, format!("{bytes} bytes were {what} before it"));
        shift = own;
    }
}

/// Lines that are none: the remains of a write that a crash cut off, or damage.
pub(super) fn check_fragments(files: &[Parsed<'_>], chains: &BTreeMap<ChainId, Vec<Entry<'_>>>, report: &mut Report) {
    for file in files {
        for (index, line) in file.lines.iter().enumerate().filter(|(_, line)| line.parsed.is_none()) {
            let number = index as u64 + 1;
            if is_cut_off(line, chains) {
                report.notes.push(format!(
                    "{}:{number}: the line is cut off: its writer crashed, or is writing; its chain ends before it",
                    file.name
                ));
            } else {
                report.add(
                    file.name,
                    Some(number),
                    FindingKind::NoLine,
                    "it is not a line of an audit file".to_owned(),
                );
            }
        }
    }
}

/// Whether a line is the beginning of one, which its chain does not go on behind.
fn is_cut_off(line: &Line<'_>, chains: &BTreeMap<ChainId, Vec<Entry<'_>>>) -> bool {
    let mac_at = line.bytes.windows(MAC_MEMBER.len()).position(|window| window == MAC_MEMBER);
    let has_mac = mac_at.is_some_and(|at| line.bytes.len() - at - MAC_MEMBER.len() >= DIGITS);
    // With all of its MAC, only the end can be missing.
    let completes = |end: &&[u8]| ReadLine::parse(&[line.bytes, end].concat()).is_some();
    if has_mac && ![&b""[..], b"}", b"\"}"].iter().any(completes)
        || !has_mac && line.bytes.ends_with(b"\"}") && line.whole
    {
        return false;
    }
    let Some(rest) = std::str::from_utf8(line.bytes).ok().and_then(|text| text.strip_prefix("{\"chain\":\"")) else {
        // Less than the beginning.
        return b"{\"chain\":\"".starts_with(line.bytes);
    };
    let Some((chain, rest)) = rest.split_once("\",\"seq\":") else { return true };
    let seq = rest.split_once(',').and_then(|(seq, _)| seq.parse::<u64>().ok());
    let (Ok(chain), Some(seq)) = (chain.parse(), seq) else { return true };
    let goes_on = |entries: &Vec<Entry<'_>>| entries.iter().any(|entry| entry.line.seq >= seq);
    !chains.get(&chain).is_some_and(goes_on)
}
