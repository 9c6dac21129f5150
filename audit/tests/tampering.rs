//! Whatever is done to an audit file is found, with its line.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::*;
use keyfold::{
    AuditSink, BoxFuture, ChainStart, KekAlias, Kms, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use keyfold_audit::{Anchor, AuditText, ChainEnd, Expected, FindingKind};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Three chains whose lines lie between each other: two keyrings' writers, and one that has ended in between.
fn trail() -> &'static Trail {
    static TRAIL: OnceLock<Trail> = OnceLock::new();
    TRAIL.get_or_init(|| {
        let trail = Trail::new("");
        let (one, two) = (trail.sink(), trail.sink());
        record(&one, 0..2);
        record(&two, 2..3);
        record(&trail.sink(), 3..4);
        record(&one, 4..5);
        record(&two, 5..7);
        drop((two, one));
        trail
    })
}

#[test]
fn an_untouched_file_is_clean_and_says_what_is_in_it() {
    let report = trail().verify();
    assert!(report.is_clean() && report.is_authenticated(), "{report:?}");
    assert_eq!(report.chains.len(), 3);
    assert_eq!(report.chains.iter().map(|chain| chain.events).sum::<u64>(), 7);
    assert!(report.chains.iter().all(|chain| chain.end == ChainEnd::Closed));
    assert_eq!(recorded(&trail().texts()).len(), 7);
}

/// Covers F-15.1-1, F-15.2-1.
// Failure K15
#[test]
fn every_bit_of_every_byte_is_found_with_its_line() {
    let bytes = trail().bytes();
    let mut line = 1;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut edited = bytes.clone();
            edited[at] ^= 1 << bit;
            let report = trail().verify_bytes(&edited);
            assert!(
                report.findings.iter().any(|f| f.line == Some(line)),
                "byte {at}, bit {bit}, line {line}: {report:?}"
            );
            // And, up to what a changed length shifts, nothing far from it.
            assert!(report.findings.len() <= 12, "byte {at}, bit {bit}: {report:?}");
        }
        line += u64::from(bytes[at] == b'\n');
    }
}

#[test]
fn an_edit_names_one_line_only() {
    let bytes = trail().bytes();
    let all = lines(&bytes);
    for index in 0..all.len() {
        let text = String::from_utf8(all[index].to_vec()).unwrap();
        let edited = text.replacen("\"action\":\"", "\"action\":\"x", 1);
        // The same length, so that no line is shifted.
        let edited = edited.replacen("\"time\":\"2", "\"time\":\"", 1);
        assert_eq!(edited.len(), text.len());
        let changed = [all[..index].concat(), edited.into_bytes(), all[index + 1..].concat()].concat();
        let report = trail().verify_bytes(&changed);
        let line = index as u64 + 1;
        let elsewhere = report.findings.iter().filter(|finding| finding.line != Some(line)).count();
        // Without its header nobody knows a chain, and it is said where it goes on.
        let is_header = text.contains("chain-begun");
        assert!(report.has_line(line) && (elsewhere == 0 || is_header), "{report:?}");
    }
}

trait HasLine {
    fn has_line(&self, line: u64) -> bool;
}

impl HasLine for keyfold_audit::Report {
    fn has_line(&self, line: u64) -> bool {
        self.findings.iter().any(|finding| finding.line == Some(line))
    }
}

// Failure K15
#[test]
fn every_line_that_is_deleted_is_missed() {
    let bytes = trail().bytes();
    let all = lines(&bytes);
    // The last line closes the last chain: without it, the chain is not closed, which an anchor would tell.
    for index in 0..all.len() - 1 {
        let report = trail().verify_bytes(&[all[..index].concat(), all[index + 1..].concat()].concat());
        assert!(report.has_line(index as u64 + 1), "line {}: {report:?}", index + 1);
    }
    let report = trail().verify_bytes(&all[..all.len() - 1].concat());
    assert_eq!(report.chains.iter().filter(|chain| chain.end == ChainEnd::Open).count(), 1);
}

#[test]
fn a_whole_chain_cannot_be_taken_out() {
    let bytes = trail().bytes();
    for chain in trail().verify().chains {
        let id = chain.id.to_string();
        let of_chain = |line: &&&[u8]| String::from_utf8_lossy(line).contains(&id);
        let rest: Vec<_> = lines(&bytes).iter().filter(|line| !of_chain(line)).copied().collect();
        let report = trail().verify_bytes(&rest.concat());
        assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Shifted), "{report:?}");
    }
}

#[test]
fn every_line_that_is_doubled_is_found_wherever_it_is_put() {
    let bytes = trail().bytes();
    let all = lines(&bytes);
    for index in 0..all.len() {
        for at in 0..=all.len() {
            let doubled = [all[..at].concat(), all[index].to_vec(), all[at..].concat()].concat();
            let report = trail().verify_bytes(&doubled);
            let found = report.findings.iter().any(|f| f.kind == FindingKind::Duplicated);
            assert!(found, "line {} at {at}: {report:?}", index + 1);
        }
    }
}

/// Covers F-15.2-3.
// Failure K15
#[test]
fn any_two_lines_that_are_swapped_are_found_and_any_that_is_moved() {
    let bytes = trail().bytes();
    let all = lines(&bytes);
    for one in 0..all.len() {
        for other in one + 1..all.len() {
            let mut swapped = all.clone();
            swapped.swap(one, other);
            let report = trail().verify_bytes(&swapped.concat());
            assert!(report.has_line(one as u64 + 1), "lines {} and {}: {report:?}", one + 1, other + 1);
            let mut moved = all.clone();
            let line = moved.remove(one);
            moved.insert(other, line);
            let report = trail().verify_bytes(&moved.concat());
            assert!(!report.is_clean(), "line {} to {}", one + 1, other + 1);
        }
    }
}

/// Covers F-15.4-1.
// Failure K15
#[test]
fn a_cut_before_an_anchored_line_is_found_and_the_rest_is_a_stated_gap() {
    let trail = Trail::new("anchors = \"anchors.jsonl\"\nanchor_every = 4");
    let sink = trail.sink();
    record(&sink, 0..11);
    // As if the process was killed.
    std::mem::forget(sink);
    let (bytes, anchored) = (trail.bytes(), trail.anchored());
    let all = lines(&bytes);
    let last_anchored =
        anchored.anchors[0].1.lines().map(|line| Anchor::parse(line).unwrap().seq).max().unwrap() as usize;
    assert!((all.len() - 4..all.len()).contains(&(last_anchored + 1)), "{last_anchored} of {}", all.len());
    for kept in 0..=all.len() {
        let files = [AuditText { name: FILE.to_owned(), bytes: all[..kept].concat() }];
        let report = verify(&files, &anchored);
        assert_eq!(report.is_clean(), kept > last_anchored, "{kept} lines: {report:?}");
        if report.is_clean() {
            assert_eq!(report.gap(), Some((kept - last_anchored - 1) as u64));
        } else if kept > 0 {
            assert_eq!(kinds(&report), [(Some(kept as u64), FindingKind::MissingTail)]);
        } else {
            assert_eq!(kinds(&report), [(None, FindingKind::MissingChain)]);
        }
    }
    // Cut within a line: what is left of it is no line.
    for len in 0..bytes.len() {
        let whole = lines(&bytes[..len]).iter().filter(|line| line.ends_with(b"\n")).count();
        let report = verify(&[AuditText { name: FILE.to_owned(), bytes: bytes[..len].to_vec() }], &anchored);
        assert_eq!(report.is_clean(), whole > last_anchored, "{len} bytes: {report:?}");
    }
}

#[test]
fn who_may_decrypt_can_forge_a_chain_but_not_what_anchors_know() {
    let trail = Trail::new("anchors = \"anchors.jsonl\"");
    let sink = trail.sink();
    record(&sink, 0..3);
    drop(sink);
    // The holder of the KEK writes the chain anew, with another event in it.
    let text = String::from_utf8(trail.bytes()).unwrap();
    let header: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let bytes = |name: &str| data_encoding::HEXLOWER.decode(header[name].as_str().unwrap().as_bytes()).unwrap();
    let start = ChainStart {
        id: header["chain"].as_str().unwrap().parse().unwrap(),
        lineage: trail.config.keyring.lineage,
        environment: "test".to_owned(),
        commitment: bytes("commitment").try_into().unwrap(),
        wrapped: keyfold::WrappedKey {
            kek_version: header["kek_version"].as_str().unwrap().to_owned(),
            bytes: bytes("wrapped"),
        },
    };
    let mut ratchet = pollster::block_on(start.open(&*trail.kek)).unwrap();
    let (mut forged, mut previous) = (String::new(), [0; 32]);
    for line in text.lines() {
        let line = line.replace("\"sealed\":\"1\"", "\"sealed\":\"9\"");
        let covered = &line[..line.rfind(",\"mac\":\"").unwrap()];
        previous = ratchet.mac(&previous, covered.as_bytes());
        ratchet.step();
        forged.push_str(&format!("{covered},\"mac\":\"{}\"}}\n", data_encoding::HEXLOWER.encode(&previous)));
    }
    let files = [AuditText { name: FILE.to_owned(), bytes: forged.into_bytes() }];
    assert!(verify(&files, &trail.expected()).is_clean(), "only anchors protect");
    let report = verify(&files, &trail.anchored());
    assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Edited) && !report.is_clean());
}

#[test]
fn a_foreign_chain_is_found_wherever_it_is_put() {
    // Of another file of the same keyring, and of another keyring.
    let other = Trail::new("");
    record(&other.sink(), 0..2);
    let bytes = trail().bytes();
    let all = lines(&bytes);
    let under_same_kek = {
        let copy = Trail { kek: trail().kek.clone(), ..Trail::new("") };
        record(&copy.sink(), 0..2);
        copy.bytes()
    };
    for foreign in [other.bytes(), under_same_kek] {
        for at in 0..=all.len() {
            let spliced = [all[..at].concat(), foreign.clone(), all[at..].concat()].concat();
            let report = trail().verify_bytes(&spliced);
            // In front, the foreign lines are where they were written, and ours are not.
            let line = if at == 0 { lines(&foreign).len() } else { at };
            assert!(report.has_line(line as u64 + 1), "at {at}: {report:?}");
        }
    }
    let mut expected = trail().expected();
    expected.lineage = Some(keyfold::Lineage::from_bytes([7; 16]));
    let report = verify(&trail().texts(), &expected);
    assert!(report.is_clean() && !report.is_authenticated(), "another configuration, and no forgery: {report:?}");
    assert!(report.notes.iter().any(|note| note.starts_with("3 chains") && note.contains("another keyring")));
}

#[test]
fn without_the_kek_only_the_structure_is_checked_and_it_says_so() {
    let report = verify(&trail().texts(), &Expected::default());
    assert!(report.is_clean() && !report.is_authenticated());
    // What changes no structure is not seen then.
    let edited = String::from_utf8(trail().bytes()).unwrap().replace("patient-api", "patient-apo").into_bytes();
    let files = [AuditText { name: FILE.to_owned(), bytes: edited }];
    assert!(verify(&files, &Expected::default()).is_clean());
    assert!(!verify(&files, &trail().expected()).is_clean());
    // Another KEK under the alias is not the one: that is no edit, and said once.
    let other = Trail::new("");
    let report = verify(&trail().texts(), &other.expected());
    assert!(report.is_clean() && !report.is_authenticated(), "{report:?}");
    let says = |report: &keyfold_audit::Report, what: &str| report.notes.iter().filter(|n| n.contains(what)).count();
    assert_eq!(says(&report, "3 chains were not checked under their keys: the key of the chain does not unwrap"), 1);
    // Nor is one that is not configured.
    let mut expected = trail().expected();
    let kek = expected.keks.remove(&KekAlias::new("audit").unwrap()).unwrap();
    expected.keks.insert(KekAlias::new("other").unwrap(), kek);
    let report = verify(&trail().texts(), &expected);
    assert!(report.is_clean() && !report.is_authenticated(), "{report:?}");
    assert_eq!(says(&report, "there is no audit KEK audit"), 1);
}

#[test]
fn a_line_that_claims_a_number_far_away_costs_nothing() {
    let bytes = trail().bytes();
    let all = lines(&bytes);
    let far = String::from_utf8(all[1].to_vec()).unwrap().replacen("\"seq\":1,", "\"seq\":16777214,", 1);
    let crafted = [&bytes[..], far.as_bytes()].concat();
    let begun = std::time::Instant::now();
    let report = trail().verify_bytes(&crafted);
    assert!(begun.elapsed() < std::time::Duration::from_millis(500), "{:?}", begun.elapsed());
    let line = Some(all.len() as u64 + 1);
    let found = kinds(&report);
    assert!(
        found.contains(&(line, FindingKind::Deleted)) && found.contains(&(line, FindingKind::Unchecked)),
        "{found:?}"
    );
}

/// A key service that counts what it is asked.
struct Counting(Arc<dyn Kms>, AtomicU64);

impl Kms for Counting {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        self.0.wrap(request)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.unwrap(request)
    }
}

/// Headers that somebody made up do not each cost a request, and what is not asked for any more is a finding.
#[test]
fn made_up_headers_are_asked_for_up_to_a_number() {
    let bytes = trail().bytes();
    let header = String::from_utf8(lines(&bytes)[0].to_vec()).unwrap();
    let id = header.strip_prefix("{\"chain\":\"").unwrap().split('"').next().unwrap();
    let verify_with = |made_up: u64, first: &str| {
        let headers = (0..made_up).map(|n| header.replace(id, &format!("{}{n:012x}", first.repeat(10))));
        let text = [&bytes[..], headers.collect::<String>().as_bytes()].concat();
        let kms = Arc::new(Counting(trail().kek.clone(), AtomicU64::new(0)));
        let keks = BTreeMap::from([(KekAlias::new("audit").unwrap(), kms.clone() as Arc<dyn Kms>)]);
        let files = [AuditText { name: FILE.to_owned(), bytes: text }];
        let report = verify(&files, &Expected { keks, ..trail().expected() });
        let unasked = report.findings.iter().filter(|finding| finding.detail.contains("headers had given none before"));
        let unasked: Vec<_> = unasked.map(|finding| (finding.kind, finding.detail.clone())).collect();
        (kms.1.load(Ordering::Relaxed), unasked, report.chains.iter().filter(|chain| chain.authenticated).count())
    };
    assert_eq!(verify_with(1000, "ff"), (1003, vec![], 3));
    let says = |chains: &str| {
        vec![(
            FindingKind::Unchecked,
            format!("{chains} not asked for, since 1000 headers had given none before: verify them apart from those"),
        )]
    };
    assert_eq!(verify_with(1001, "ff"), (1003, says("the key of its chain was"), 3));
    // In front of the genuine chains, which the finding is about as well.
    assert_eq!(verify_with(1500, "00"), (1000, says("the keys of its chain and 502 more were"), 0));
}

/// Whoever edits the files has them say what he likes, and must not keep the report from being made.
#[test]
fn the_largest_numbers_of_lines_and_anchors_are_reported_on() {
    let (most, mac) = (u64::MAX, "00".repeat(32));
    let made_up = |chain: &str, seq: u64, members: &str| {
        format!(
            "{{\"chain\":\"{chain}\",\"seq\":{seq},\"at\":{most},\"time\":\"\",\"action\":\"use\"{members},\"mac\":\"{mac}\"}}\n"
        )
    };
    let anchor = |chain: &str| {
        format!("{{\"file\":{most},\"chain\":\"{chain}\",\"seq\":{most},\"mac\":\"{mac}\",\"time\":\"\"}}\n")
    };
    let (one, two, none) = ("11".repeat(16), "22".repeat(16), "33".repeat(16));
    let lost = format!(",\"lost\":{most}");
    let crafted =
        [made_up(&one, 0, &lost), made_up(&one, most, &lost), made_up(&two, 7, ""), made_up(&none, most, "")].concat();
    let bytes = [&trail().bytes()[..], crafted.as_bytes()].concat();
    let anchors = [anchor(&one), anchor(&two), anchor(&"44".repeat(16))].concat();
    let expected = Expected { anchors: vec![("anchors.jsonl".to_owned(), anchors)], ..trail().expected() };
    let report = verify(&[AuditText { name: FILE.to_owned(), bytes }], &expected);
    assert!(!report.is_clean());
    assert!(report.chains.iter().any(|chain| chain.lost == most), "{report:?}");
    assert!(kinds(&report).iter().any(|(_, kind)| *kind == FindingKind::MissingTail), "{report:?}");
    assert!(kinds(&report).iter().any(|(_, kind)| *kind == FindingKind::MissingChain), "{report:?}");
    assert_eq!(report.gap(), Some(most));
}

/// Each line is looked at a few times, however many others are out of place or cut off.
#[test]
fn a_long_file_in_a_wrong_order_takes_no_time_for_each_pair_of_lines() {
    let count = 60_000_u64;
    let chain = "11".repeat(16);
    let line = |seq: u64| {
        format!(
            "{{\"chain\":\"{chain}\",\"seq\":{seq},\"at\":0,\"time\":\"\",\"action\":\"use\",\"mac\":\"{:064}\"}}\n",
            0
        )
    };
    let cut_off = format!("{{\"chain\":\"{chain}\",\"seq\":{count},\"at\n");
    let took = |order: &mut dyn Iterator<Item = u64>| {
        let bytes: String = order.flat_map(|seq| [line(seq), cut_off.clone()]).collect();
        let begun = std::time::Instant::now();
        let report = verify(&[AuditText { name: FILE.to_owned(), bytes: bytes.into_bytes() }], &Expected::default());
        assert_eq!(report.chains[0].lines, count);
        begun.elapsed()
    };
    let (in_order, reversed) = (took(&mut (0..count)), took(&mut (0..count).rev()));
    // A second on one core. What looks at every other line for each takes half a minute.
    assert!((in_order + reversed).as_secs() < 12, "{in_order:?}, {reversed:?}");
}

#[test]
fn a_closed_sink_begins_another_chain_if_there_is_more_to_say() {
    let trail = Trail::new("");
    let sink = trail.sink();
    record(&sink, 0..2);
    sink.close();
    sink.close();
    record(&sink, 2..3);
    drop(sink);
    drop(trail.sink());
    let report = trail.verify();
    assert!(report.is_clean() && report.chains.len() == 2, "{report:?}");
    assert!(report.chains.iter().all(|chain| chain.end == ChainEnd::Closed));
}
