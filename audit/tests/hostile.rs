//! Whoever writes the folder of a trail, and what he puts there while it is written, or read.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{FILE, Trail, event, kinds, record, verify};
use keyfold::{AuditSink, ErrorKind, KekAlias};
use keyfold_audit::{AuditFiles, AuditText, Ecs, Event, Expected, FindingKind, files_of, sign_statement};
use pollster::block_on;
use rustix::fs::{CWD, Mode, mkfifoat};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

/// A trail, what is in it, and the same with one event edited, which is as long.
fn edited() -> (Trail, Vec<u8>, Vec<u8>) {
    let trail = Trail::new("");
    record(&trail.sink(), 0..5);
    let good = trail.bytes();
    let edited =
        String::from_utf8(good.clone()).unwrap().replacen("\"sealed\":\"3\"", "\"sealed\":\"7\"", 1).into_bytes();
    assert!(edited.len() == good.len() && edited != good);
    (trail, good, edited)
}

fn read(files: &AuditFiles<'_>) -> keyfold::Result<Vec<u8>> {
    let mut read = Vec::new();
    files.each_line(|line| {
        read.extend_from_slice(line);
        read.push(b'\n');
    })?;
    Ok(read)
}

#[test]
fn what_is_read_after_verification_is_what_was_verified() {
    let (trail, good, edited) = edited();
    let files = AuditFiles::open(&files_of(&trail.path()).unwrap()).unwrap();
    let report = block_on(files.verify(&trail.expected()));
    assert!(report.is_clean() && report.is_authenticated(), "{report:?}");
    // Another file under the name.
    let other = trail.folder.path().join("other");
    std::fs::write(&other, &edited).unwrap();
    std::fs::rename(&other, trail.path()).unwrap();
    assert_eq!(read(&files).unwrap(), good);

    // What is added, and what is changed in place.
    std::fs::write(trail.path(), &good).unwrap();
    let files = AuditFiles::open(&files_of(&trail.path()).unwrap()).unwrap();
    assert!(block_on(files.verify(&trail.expected())).is_clean());
    std::fs::write(trail.path(), [&good[..], &edited].concat()).unwrap();
    assert_eq!(read(&files).unwrap(), good);
    std::fs::write(trail.path(), &edited).unwrap();
    let error = read(&files).unwrap_err();
    let place = format!("{}:5: it was changed", trail.path().display());
    assert!(error.kind() == ErrorKind::Io && error.detail().starts_with(&place), "{error}");
    std::fs::write(trail.path(), &good[..40]).unwrap();
    assert!(read(&files).unwrap_err().detail().contains(":1: it was changed"));
}

/// The MAC is checked at a second reading: what is put back for it hides nothing.
#[test]
fn what_is_put_back_for_the_check_is_found() {
    let (trail, good, edited) = edited();
    let at = good.iter().zip(&edited).position(|(good, edited)| good != edited).unwrap() as u64;
    std::fs::write(trail.path(), &edited).unwrap();
    let files = AuditFiles::open(&files_of(&trail.path()).unwrap()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(trail.path()).unwrap();
    file.write_at(b"3", at).unwrap();
    assert!(trail.verify().is_clean(), "what lies there now is what was written");
    let report = block_on(files.verify(&trail.expected()));
    assert_eq!(kinds(&report), [(Some(5), FindingKind::Edited)]);
    assert!(report.findings[0].detail.contains("changed while"), "{report:?}");
    // Of a statement, whose digest is looked up, too.
    let statement = block_on(sign_statement(
        &*trail.kek,
        &KekAlias::new("audit").unwrap(),
        trail.config.keyring.lineage,
        "test",
        "test",
        &serde_json::json!({ "is": true }),
    ));
    let (statement, path) = (statement.unwrap(), trail.folder.path().join("statement"));
    std::fs::write(&path, &statement).unwrap();
    let files = AuditFiles::open_named(std::slice::from_ref(&path)).unwrap();
    assert!(!files.has_trail());
    assert_eq!(files.statements().unwrap()[0].bytes, statement.as_bytes());
    std::fs::write(&path, statement.replace("true", "null")).unwrap();
    assert_eq!(files.statements().unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn a_pipe_or_a_link_in_the_folder_is_refused_and_nobody_waits() {
    let (trail, ..) = edited();
    let elsewhere = trail.folder.path().join("elsewhere");
    let aside = trail.folder.path().join("audit.jsonl.000007");
    let refused = || {
        let files = files_of(&trail.path()).unwrap();
        assert_eq!(files.len(), 2);
        let error = AuditFiles::open(&files).err().unwrap();
        assert!(error.kind() == ErrorKind::Io && error.detail().contains("000007"), "{error}");
        files
    };
    mkfifoat(CWD, &aside, Mode::from_raw_mode(0o600)).unwrap();
    refused();
    let error = keyfold_audit::read_anchors(&aside).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.detail().contains("not a regular file"), "{error}");
    std::fs::remove_file(&aside).unwrap();
    symlink("/dev/zero", &aside).unwrap();
    refused();
    std::fs::remove_file(&aside).unwrap();
    std::fs::rename(trail.path(), &elsewhere).unwrap();
    std::fs::copy(&elsewhere, trail.path()).unwrap();
    symlink(&elsewhere, &aside).unwrap();
    let files = refused();
    // Whoever names it means it.
    assert!(AuditFiles::open_named(&files[..1]).unwrap().has_trail());
}

#[test]
fn a_file_with_the_last_number_ends_in_an_error_that_names_it() {
    let trail = Trail::new("");
    let last = trail.folder.path().join("audit.jsonl.18446744073709551615");
    std::fs::write(&last, "").unwrap();
    let error = trail.sink().record(event(0)).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.detail().contains("audit.jsonl.18446744073709551615"), "{error}");
    std::fs::remove_file(&last).unwrap();
    std::fs::remove_file(trail.path()).unwrap();
    record(&trail.sink(), 0..1);
    assert!(trail.verify().is_clean());
}

#[test]
fn a_file_that_says_that_it_is_the_last_one_is_not_put_aside() {
    let mut trail = Trail::new("");
    record(&trail.sink(), 0..10);
    trail.config.audit.as_mut().unwrap().max_size = 1000;
    let full = String::from_utf8(trail.bytes()).unwrap();
    assert!(full.len() > 1000);
    std::fs::write(trail.path(), full.replacen("\"file\":1,", "\"file\":18446744073709551615,", 1)).unwrap();
    std::fs::set_permissions(trail.path(), PermissionsExt::from_mode(0o600)).unwrap();
    let error = trail.sink().record(event(0)).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.detail().contains(FILE), "{error}");
    assert!(error.detail().contains("file 18446744073709551615"), "{error}");
    assert_eq!(files_of(&trail.path()).unwrap(), [trail.path()], "nothing was put aside");
}

#[test]
fn a_line_without_an_end_is_a_finding_and_what_follows_is_verified() {
    let (trail, good, _) = edited();
    let middle = good.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let long = [&vec![b' '; (64 << 20) + 1][..], b"\n"].concat();
    std::fs::write(trail.path(), [&good[..middle], &long, &good[middle..]].concat()).unwrap();
    let paths = files_of(&trail.path()).unwrap();
    let files = AuditFiles::open(&paths).unwrap();
    let report = block_on(files.verify(&trail.expected()));
    assert_eq!(kinds(&report), [(Some(2), FindingKind::NoLine), (Some(3), FindingKind::Shifted)]);
    assert!(report.is_authenticated() && report.chains[0].events == 5, "{report:?}");
    let lines = files.heads().unwrap_err();
    assert!(lines.kind() == ErrorKind::Malformed && lines.detail().ends_with("audit.jsonl:2"), "{lines}");
    assert_eq!(read(&files).unwrap(), [&good[..middle], b"\n", &good[middle..]].concat());
    // In memory alike.
    let text = AuditText { name: paths[0].display().to_string(), bytes: std::fs::read(&paths[0]).unwrap() };
    assert_eq!(verify(&[text], &trail.expected()), report);
    // One of 64 MiB is read, and is none either.
    let longest = [&good[..], &long[1..]].concat();
    assert_eq!(kinds(&trail.verify_bytes(&longest)), [(Some(8), FindingKind::NoLine)]);
}

#[test]
fn lines_that_are_none_are_counted_and_not_listed_without_end() {
    let (trail, good, _) = edited();
    let last = good.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let blank = |count: usize| trail.verify_bytes(&[&good[..], &vec![b'\n'; count]].concat());
    for (count, says) in [(1, "it is empty"), (2, "so is 1 more line"), (1 << 20, "so are 1048575 more lines")] {
        let report = blank(count);
        assert_eq!(kinds(&report), [(Some(last + 1), FindingKind::NoLine)], "{count}");
        assert!(report.findings[0].detail.contains(says), "{report:?}");
        assert_eq!(report.files[0].1, last + count as u64);
    }
    // Lines behind them keep their numbers.
    let report = trail.verify_bytes(&[&b"\n"[..], &good].concat());
    assert_eq!(kinds(&report), [(Some(1), FindingKind::NoLine), (Some(2), FindingKind::Shifted)]);

    let report = trail.verify_bytes(&[&good[..], &b"x\n".repeat(5000)].concat());
    assert_eq!(report.findings.len(), 1001);
    assert_eq!(report.findings[1000].line, Some(last + 1001));
    assert!(report.findings[1000].detail.contains("so are 3999 more lines"), "{:?}", report.findings[1000]);
    // What a crash leaves is noted, and behind some the others are counted.
    let report = trail.verify_bytes(&[&good[..], &b"{\"chain\n".repeat(200)].concat());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.notes.iter().filter(|note| note.contains("the line is cut off")).count(), 10);
    assert!(report.notes.iter().any(|note| note.ends_with("190 more lines are cut off")), "{report:?}");
}

#[test]
fn a_line_is_no_longer_than_what_is_read() {
    let trail = Trail::new("");
    let sink = trail.sink();
    let refused = sink.record(event(0).detail("keks", "k".repeat(256 << 10))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitExceeded);
    sink.record(event(1).detail("keks", "k".repeat(255 << 10))).unwrap();
    drop(sink);
    let report = trail.verify();
    assert!(report.is_clean() && report.chains[0].events == 1, "{report:?}");
    // A statement may be longer, and an event with its name is none.
    let body = "b".repeat(300 << 10);
    let alias = KekAlias::new("audit").unwrap();
    let sign = |body: &str| {
        let body = serde_json::json!(body);
        block_on(sign_statement(&*trail.kek, &alias, trail.config.keyring.lineage, "test", "test", &body))
    };
    let statement = sign(&body).unwrap();
    let report = trail.verify_bytes(statement.as_bytes());
    assert!(report.is_clean() && report.is_authenticated(), "{report:?}");
    assert_eq!(block_on(keyfold_audit::verify_statement(&statement, &*trail.kek)).unwrap()["body"], body);
    assert_eq!(sign(&"b".repeat(64 << 20)).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// A line is one for verification, reports and export alike.
#[test]
fn what_is_no_json_in_any_member_is_no_line() {
    let trail = Trail::new("");
    record(&trail.sink(), 0..1);
    let good = String::from_utf8(trail.bytes()).unwrap();
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for value in ["\"\\ud800\"", "1e999", "{\"a\":}", "[1,]", &deep] {
        let with = good.replacen("\"outcome\":", &format!("\"more\":{value},\"outcome\":"), 1);
        let number = with.lines().position(|line| line.contains("\"more\"")).unwrap();
        let line = with.lines().nth(number).unwrap().as_bytes();
        let text = AuditText { name: FILE.to_owned(), bytes: with.clone().into_bytes() };
        let report = verify(&[text], &Expected::default());
        assert!(kinds(&report).contains(&(Some(number as u64 + 1), FindingKind::NoLine)), "{value}: {report:?}");
        assert!(Event::read(line).is_err() && Ecs::default().event(line).is_none(), "{value}");
    }
}

#[test]
fn lines_that_are_no_anchors_are_counted_likewise() {
    let trail = Trail::new("anchors = \"anchors.jsonl\"");
    record(&trail.sink(), 0..3);
    let with = |more: &str| {
        let (name, text) = trail.anchors().remove(0);
        verify(&trail.texts(), &Expected { anchors: vec![(name, text + more)], ..trail.expected() })
    };
    let report = with(&"x\n".repeat(5000));
    assert_eq!(report.findings.len(), 1001);
    assert!(report.findings.iter().any(|finding| finding.detail.ends_with("no anchors: 4000")), "{report:?}");
    let report = with(&"{\"file\":\n".repeat(200));
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.notes.iter().filter(|note| note.contains("the anchor is cut off")).count(), 10);
    assert!(report.notes.iter().any(|note| note.ends_with("cut off: 190")), "{report:?}");
}
