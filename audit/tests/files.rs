//! Several files: they are put aside when they are full, follow each other, and are missed.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::*;
use keyfold::config::OnAuditFailure;
use keyfold::testing::FakeKms;
use keyfold::{AuditAction, AuditEvent, AuditSink, ErrorKind, KmsErrorKind};
use keyfold_audit::{AuditFiles, AuditText, Ecs, Expected, FindingKind, files_of, sign_statement, verify_statement};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::Duration;

/// A trail of several files, by two writers of which one begins late, and one that is idle for a while.
fn rotated() -> Trail {
    let mut trail = Trail::new("");
    trail.config.audit.as_mut().unwrap().max_size = 4000;
    let (one, idle) = (trail.sink(), trail.sink());
    record(&idle, 0..1);
    record(&one, 1..20);
    let late = trail.sink();
    record(&late, 20..40);
    record(&idle, 40..41);
    record(&one, 41..50);
    drop((one, idle, late));
    trail
}

/// Covers F-15.3-1.
#[test]
fn full_files_are_put_aside_and_the_chains_go_on() {
    let trail = rotated();
    let texts = trail.texts();
    assert!(texts.len() > 4 && texts[0].name == "audit.jsonl.000001", "{}", texts.len());
    assert!(texts.iter().all(|text| text.bytes.len() < 4000 + 3000));
    let report = trail.verify();
    assert!(report.is_clean() && report.is_authenticated() && report.chains.len() == 3, "{report:?}");
    assert_eq!(recorded(&texts), (0..50).map(|n| (n, 1)).collect());
    // In any order.
    let reversed: Vec<_> = texts.iter().rev().cloned().collect();
    assert_eq!(verify(&reversed, &trail.expected()), report);
}

/// Covers F-15.2-2.
#[test]
fn the_latest_files_are_verified_without_the_older_ones() {
    let trail = rotated();
    let texts = trail.texts();
    for from in 1..texts.len() {
        let report = verify(&texts[from..], &trail.expected());
        assert!(report.is_clean() && report.is_authenticated(), "from {from}: {report:?}");
        assert!(report.notes.iter().any(|note| note.contains(&format!("begin with number {}", from + 1))));
    }
}

#[test]
fn a_file_that_is_missing_is_missed() {
    let trail = rotated();
    let texts = trail.texts();
    // All but the first: it may have been kept elsewhere. The last one is missed because the one before says that it follows.
    for missing in 1..texts.len() {
        let rest: Vec<_> = texts.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, t)| t.clone()).collect();
        let report = verify(&rest, &trail.expected());
        assert!(report.findings.iter().any(|f| f.kind == FindingKind::MissingFile), "{missing}: {report:?}");
    }
    // Nor can one stand in the place of another.
    let mut twice = texts.clone();
    twice[1] = AuditText { name: twice[1].name.clone(), bytes: twice[2].bytes.clone() };
    assert!(!verify(&twice, &trail.expected()).is_clean());
}

#[test]
fn lines_cannot_change_files() {
    let trail = rotated();
    let texts = trail.texts();
    for (from, to) in [(0, 1), (1, 2), (2, 1)] {
        for index in 0..3 {
            let mut moved = texts.clone();
            let line = lines(&texts[from].bytes)[index].to_vec();
            let rest: Vec<_> =
                lines(&texts[from].bytes).iter().enumerate().filter(|(at, _)| *at != index).map(|(_, l)| *l).collect();
            moved[from].bytes = rest.concat();
            moved[to].bytes.extend_from_slice(&line);
            assert!(!verify(&moved, &trail.expected()).is_clean(), "line {index} of {from} to {to}");
        }
    }
}

/// Covers F-15.3-3.
#[test]
fn a_line_that_a_crash_cut_off_is_noted_and_a_new_chain_follows() {
    let trail = Trail::new("");
    let sink = trail.sink();
    record(&sink, 0..3);
    std::mem::forget(sink);
    let bytes = trail.bytes();
    for lost in [1, 2, 40, 200] {
        std::fs::write(trail.path(), &bytes[..bytes.len() - lost]).unwrap();
        record(&trail.sink(), 3..5);
        let report = trail.verify();
        assert!(report.is_clean() && report.chains.len() == 2, "{lost}: {report:?}");
        // Only the line feed was missing: then the line is there.
        assert_eq!(recorded(&trail.texts()).len(), if lost == 1 { 5 } else { 4 });
        assert_eq!(report.notes.iter().any(|note| note.contains(":4: the line is cut off")), lost > 1, "{report:?}");
    }
}

#[test]
fn what_others_could_write_or_what_is_a_link_is_refused() {
    let trail = Trail::new("");
    record(&trail.sink(), 0..1);
    std::fs::set_permissions(trail.path(), PermissionsExt::from_mode(0o620)).unwrap();
    assert_eq!(trail.sink().record(event(1)).unwrap_err().kind(), ErrorKind::Configuration);
    std::fs::set_permissions(trail.path(), PermissionsExt::from_mode(0o600)).unwrap();
    let elsewhere = trail.folder.path().join("elsewhere");
    std::fs::rename(trail.path(), &elsewhere).unwrap();
    symlink(&elsewhere, trail.path()).unwrap();
    assert_eq!(trail.sink().record(event(1)).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(std::fs::metadata(&elsewhere).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_is_something_else_is_not_added_to() {
    let trail = Trail::new("anchors = \"anchors.jsonl\"");
    for (name, content) in [(FILE, "keyfold-local-kek-1\n00\n"), (FILE, "\n"), (ANCHORS, "SQLite format 3\0")] {
        let path = trail.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let sink = trail.sink();
        let refused = (0..2).find_map(|_| sink.record_all((0..1000).map(event).collect()).err()).unwrap();
        assert_eq!(refused.kind(), ErrorKind::Configuration);
        assert!(refused.detail().contains(name), "{refused}");
        drop(sink);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        std::fs::remove_file(&path).unwrap();
    }
    // What a crash left of a first line is one.
    std::fs::write(trail.path(), "{\"cha").unwrap();
    std::fs::set_permissions(trail.path(), PermissionsExt::from_mode(0o600)).unwrap();
    record(&trail.sink(), 0..1);
    record(&trail.sink(), 1..2);
    assert!(trail.verify().is_clean());
}

#[test]
fn without_the_audit_kek_events_are_refused_or_counted_by_policy() {
    let mut trail = Trail::new("");
    let kms = FakeKms::new();
    trail.kek = Arc::new(kms.clone());
    kms.set_failure(Some(KmsErrorKind::Unavailable));
    let sink = trail.sink();
    let refused = sink.record(event(0)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Kms(KmsErrorKind::Unavailable));
    assert!(refused.detail().contains("audit KEK audit"), "{refused}");
    assert!(sink.check().is_err() && !trail.path().exists());
    // It is not asked again at once, even if it is back.
    kms.set_failure(None);
    assert!(sink.record(event(0)).is_err());
    trail.clock.advance(Duration::from_secs(1));
    sink.record(event(1)).unwrap();
    assert_eq!(kms.wrap_count(), 2, "the one that failed and the one that did not");
    drop(sink);

    kms.set_failure(Some(KmsErrorKind::AccessDenied));
    trail.config.audit.as_mut().unwrap().on_failure = OnAuditFailure::Count;
    let sink = trail.sink();
    record(&sink, 2..5);
    sink.check().unwrap();
    kms.set_failure(None);
    trail.clock.advance(Duration::from_secs(1));
    record(&sink, 5..7);
    drop(sink);
    let report = trail.verify();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.chains.iter().map(|chain| chain.lost).sum::<u64>(), 3);
    assert_eq!(recorded(&trail.texts()).into_keys().collect::<Vec<_>>(), [1, 5, 6]);
}

#[test]
fn to_record_the_right_to_encrypt_is_enough() {
    let mut trail = Trail::new("");
    let kms = FakeKms::new();
    kms.set_encrypt_only(true);
    trail.kek = Arc::new(kms.clone());
    record(&trail.sink(), 0..2);
    let report = trail.verify();
    assert!(report.is_clean() && !report.is_authenticated());
    assert!(report.notes.iter().any(|note| note.contains("was not checked under its key")), "{report:?}");
    kms.set_encrypt_only(false);
    assert!(trail.verify().is_authenticated());
}

#[test]
fn anchors_are_written_in_time_and_their_loss_is_a_matter_of_policy() {
    let trail = Trail::new("anchors = \"anchors.jsonl\"\nanchor_every = 1000\nanchor_interval = \"10m\"");
    let count = |trail: &Trail| std::fs::read_to_string(trail.folder.path().join(ANCHORS)).unwrap().lines().count();
    let sink = trail.sink();
    record(&sink, 0..5);
    assert_eq!(count(&trail), 1, "that there is a chain");
    trail.clock.advance(Duration::from_secs(600));
    record(&sink, 5..7);
    assert_eq!(count(&trail), 2);
    drop(sink);
    assert_eq!(count(&trail), 3);
    assert_eq!(verify(&trail.texts(), &trail.anchored()).gap(), Some(0));
    // What is printed by hand is an anchor file, too.
    let by_hand: String = AuditFiles::in_memory(&trail.texts())
        .heads()
        .unwrap()
        .iter()
        .map(|head| head.to_line().unwrap() + "\n")
        .collect();
    let expected = Expected { anchors: vec![("by hand".to_owned(), by_hand)], ..trail.expected() };
    assert_eq!(verify(&trail.texts(), &expected).gap(), Some(0));

    for (policy, goes_on) in [(OnAuditFailure::Refuse, 4), (OnAuditFailure::Count, 10)] {
        let mut trail = Trail::new("anchors = \"anchors.jsonl\"\nanchor_every = 4");
        trail.config.audit.as_mut().unwrap().on_failure = policy;
        let sink = trail.sink();
        record(&sink, 0..1);
        let anchors = trail.folder.path().join(ANCHORS);
        std::fs::remove_file(&anchors).unwrap();
        std::fs::create_dir(&anchors).unwrap();
        let written = (1..11).take_while(|n| sink.record(event(*n)).is_ok()).count();
        assert_eq!(written, goes_on, "{policy:?}: the gap has its bound");
        assert_eq!(recorded(&trail.texts()).len(), 1 + goes_on);
        std::fs::remove_dir(&anchors).unwrap();
        sink.record(event(50)).unwrap();
        drop(sink);
        assert_eq!(verify(&trail.texts(), &trail.anchored()).gap(), Some(0));
    }
}

/// Covers F-15.5-1.
#[test]
fn statements_are_verified_and_every_change_is_found() {
    let trail = Trail::new("");
    let alias = keyfold::KekAlias::new("audit").unwrap();
    let body = serde_json::json!({ "scope": "5f", "keys": ["a", "b"], "text": "a \"quoted\" line\nand ünïcode" });
    let signed = sign_statement(&*trail.kek, &alias, trail.config.keyring.lineage, "test", "shredded", &body);
    let text = pollster::block_on(signed).unwrap();
    let verified = pollster::block_on(verify_statement(&text, &*trail.kek)).unwrap();
    assert_eq!(
        (&verified["kind"], &verified["body"], &verified["environment"]),
        (&"shredded".into(), &body, &"test".into())
    );
    for at in 0..text.len() {
        let mut edited = text.clone().into_bytes();
        edited[at] ^= 1;
        let Ok(edited) = String::from_utf8(edited) else { continue };
        assert!(pollster::block_on(verify_statement(&edited, &*trail.kek)).is_err(), "byte {at}");
        // Where its key does not unwrap, nobody can tell an edit from another KEK.
        let report = trail.verify_bytes(edited.as_bytes());
        assert!(!report.is_clean() || !report.is_authenticated(), "byte {at}");
    }
    for len in 0..text.len() {
        if text.is_char_boundary(len) {
            assert!(pollster::block_on(verify_statement(&text[..len], &*trail.kek)).is_err(), "{len} bytes");
        }
    }
    assert!(pollster::block_on(verify_statement(&(text.clone() + &text), &*trail.kek)).is_err());
    assert!(pollster::block_on(verify_statement(&text, &*Trail::new("").kek)).is_err());
    let report = trail.verify_bytes(text.as_bytes());
    assert!(report.is_clean() && report.is_authenticated() && report.notes.is_empty(), "{report:?}");
    assert_eq!(report.chains[0].statement.as_deref(), Some("shredded"));
}

#[test]
fn events_for_a_siem_have_what_the_schema_requires() {
    let trail = Trail::new("");
    let sink = trail.sink();
    let mut failed = AuditEvent::new(AuditAction::Unwrap).kek(&keyfold::KekAlias::new("local").unwrap());
    failed.error = Some(ErrorKind::Kms(KmsErrorKind::AccessDenied));
    failed.latency = Some(Duration::from_micros(1500));
    failed.reason = Some("disaster \"drill\"\nof May".to_owned());
    sink.record_all(vec![event(1), failed]).unwrap();
    drop(sink);
    let mut ecs = Ecs::default();
    let bytes = trail.bytes();
    let events: Vec<_> = bytes.split(|&byte| byte == b'\n').filter_map(|line| ecs.event(line)).collect();
    assert_eq!(events.len(), 2, "what holds the file together is no event");
    for event in &events {
        for pointer in [
            "/@timestamp",
            "/ecs/version",
            "/event/kind",
            "/event/action",
            "/event/category/0",
            "/event/type/0",
            "/event/outcome",
            "/event/id",
            "/service/name",
            "/service/environment",
            "/host/name",
            "/process/pid",
            "/user/id",
            "/keyfold/keyring",
            "/keyfold/chain",
        ] {
            assert!(event.pointer(pointer).is_some_and(|value| !value.is_null()), "{pointer} of {event}");
        }
    }
    let failed = &events[1];
    assert_eq!(failed["event"]["outcome"], "failure");
    assert_eq!(failed["event"]["duration"], 1_500_000);
    assert_eq!(failed["error"], serde_json::json!({ "code": "401", "type": "AccessDenied" }));
    assert_eq!(failed["event"]["reason"], "disaster \"drill\"\nof May");
    assert_eq!(files_of(&trail.path()).unwrap().len(), 1);
}

#[test]
fn files_are_verified_where_they_are_as_in_memory() {
    let trail = rotated();
    let paths = files_of(&trail.path()).unwrap();
    assert!(paths.len() > 1, "{paths:?}");
    let on_disk = || pollster::block_on(AuditFiles::open(&paths).unwrap().verify(&trail.expected()));
    let texts = || -> Vec<_> {
        let text = |path: &std::path::PathBuf| AuditText { name: path.display().to_string(), ..text(path) };
        paths.iter().map(text).collect()
    };
    assert!(on_disk().is_clean() && on_disk().is_authenticated());
    assert_eq!(on_disk(), verify(&texts(), &trail.expected()));
    // Damage of each kind is told alike.
    let good = std::fs::read(&paths[0]).unwrap();
    let all = lines(&good);
    let edited = String::from_utf8(good.clone()).unwrap().replacen("\"sealed\":\"", "\"sealed\":\"9", 1).into_bytes();
    for bytes in [
        edited,
        [&all[..5], &all[6..]].concat().concat(),
        [&all[..5], &all[4..]].concat().concat(),
        good[..good.len() - 9].to_vec(),
    ] {
        std::fs::write(&paths[0], bytes).unwrap();
        assert!(!on_disk().is_clean() || on_disk().notes.len() > 1);
        assert_eq!(on_disk(), verify(&texts(), &trail.expected()));
    }
    std::fs::remove_file(&paths[0]).unwrap();
    assert_eq!(AuditFiles::open(&paths).err().unwrap().kind(), ErrorKind::Io);
}
