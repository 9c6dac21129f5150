//! What is missing as a whole: files, all files, anchors; and what stands alone.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::*;
use keyfold::KekAlias;
use keyfold_audit::{AuditText, Expected, FindingKind, sign_statement};

/// An anchored trail of several files.
fn anchored() -> Trail {
    let mut trail = Trail::new("anchors = \"anchors.jsonl\"\nanchor_every = 4");
    trail.config.audit.as_mut().unwrap().max_size = 3000;
    record(&trail.sink(), 0..8);
    record(&trail.sink(), 8..20);
    trail
}

fn statement(trail: &Trail, n: u64) -> AuditText {
    let alias = KekAlias::new("audit").unwrap();
    let (lineage, body) = (trail.config.keyring.lineage, serde_json::json!({ "number": n }));
    let signed = pollster::block_on(sign_statement(&*trail.kek, &alias, lineage, "test", "shredded", &body));
    AuditText { name: format!("c{n}.json"), bytes: signed.unwrap().into_bytes() }
}

#[test]
fn files_that_anchors_name_are_missed_from_the_front_unless_they_are_said_to_be_elsewhere() {
    let trail = anchored();
    let texts = trail.texts();
    assert!(texts.len() > 3, "{}", texts.len());
    let expected = trail.anchored();
    assert!(verify(&texts, &expected).is_clean());
    for from in 1..texts.len() {
        let report = verify(&texts[from..], &expected);
        assert_eq!(kinds(&report), [(None, FindingKind::MissingFile)], "{from}: {report:?}");
        let number = from as u64 + 1;
        let elsewhere = Expected { from_file: Some(number), ..expected.clone() };
        assert!(verify(&texts[from..], &elsewhere).is_clean(), "{from}");
        let earlier = Expected { from_file: Some(number - 1), ..expected.clone() };
        assert!(!verify(&texts[from..], &earlier).is_clean(), "{from}");
    }
    // Nothing is left, or another trail is in its place that numbers its files so that nothing seems to be missing.
    for left in [Vec::new(), Trail::new("").texts()] {
        let found = verify(&left, &expected).findings;
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|finding| finding.kind == FindingKind::MissingChain));
        // Where no file is left, the anchors are the place that tells it.
        let place = left.last().map_or(ANCHORS, |file| &file.name);
        assert!(found.iter().all(|finding| finding.file == place), "{found:?}");
    }
}

#[test]
fn what_is_no_audit_file_is_one_finding() {
    let trail = anchored();
    let other = AuditText { name: "report.json".to_owned(), bytes: b"{\n\n}\n".repeat(600) };
    for expected in [trail.expected(), trail.anchored()] {
        let found = verify(std::slice::from_ref(&other), &expected).findings;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0].file[..], found[0].line, found[0].kind), ("report.json", None, FindingKind::NoLine));
    }
    // Beside a trail, which is verified all the same.
    let cut = |mut texts: Vec<AuditText>| {
        let last = texts.last_mut().unwrap();
        let end = lines(&last.bytes).last().unwrap().len();
        last.bytes.truncate(last.bytes.len() - end);
        texts
    };
    let texts: Vec<_> = cut(trail.texts()).into_iter().chain([other]).collect();
    let found = kinds(&verify(&texts, &trail.anchored()));
    assert!(found.contains(&(None, FindingKind::NoLine)), "{found:?}");
    assert!(found.iter().any(|(_, kind)| *kind == FindingKind::MissingTail), "{found:?}");
}

#[test]
fn what_is_no_anchor_does_not_count_as_one() {
    let trail = anchored();
    let good = trail.anchors()[0].1.clone();
    let first = good.lines().next().unwrap();
    let edited = first.replacen("\"seq\":", "\"sec\":", 1);
    let count = good.lines().count() as u64;
    let found = |text: String| {
        let expected = Expected { anchors: vec![(ANCHORS.to_owned(), text)], ..trail.expected() };
        kinds(&verify(&trail.texts(), &expected))
    };
    let is_none = |line| (line, FindingKind::NoAnchor);
    assert_eq!(found(String::new()), [is_none(None)]);
    assert_eq!(found("\n".to_owned()), [is_none(None)]);
    assert_eq!(found("certificate\n".to_owned()), [is_none(None), is_none(Some(1))]);
    assert_eq!(found(format!("{good}{edited}\n")), [is_none(Some(count + 1))]);
    // The audit file itself.
    assert!(!found(String::from_utf8(trail.bytes()).unwrap()).is_empty());
    // A crash left a part.
    assert_eq!(found(format!("{}\n{good}", &first[..40])), []);
    assert_eq!(found(first[..40].to_owned()), [is_none(None)]);
}

#[test]
fn statements_are_verified_each_by_itself() {
    let trail = anchored();
    let (one, two) = (statement(&trail, 1), statement(&trail, 2));
    for expected in [trail.expected(), Expected { from_file: Some(3), ..trail.expected() }] {
        let report = verify(&[one.clone(), two.clone()], &expected);
        assert!(report.is_clean() && report.is_authenticated() && report.notes.is_empty(), "{report:?}");
        assert_eq!(report.chains.len(), 2);
    }
    // Beside a trail, whose anchors do not know them.
    let all: Vec<_> = [one.clone()].into_iter().chain(trail.texts()).chain([two.clone()]).collect();
    let report = verify(&all, &trail.anchored());
    assert!(report.is_clean() && report.gap() == Some(0), "{report:?}");
    // One that was edited is the one that is named, and one in the place of a trail is not the trail.
    let text = String::from_utf8(two.bytes.clone()).unwrap().replace("\"number\":2", "\"number\":3");
    let report = verify(&[one.clone(), AuditText { name: two.name, bytes: text.into_bytes() }], &trail.expected());
    assert_eq!(report.findings.iter().map(|f| (&f.file[..], f.line)).collect::<Vec<_>>(), [("c2.json", Some(2))]);
    assert!(!verify(&[one], &trail.anchored()).is_clean());
}
