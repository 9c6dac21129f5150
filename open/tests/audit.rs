//! `[audit]`: opening and reloading are recorded, and statements are signed under its KEK.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::keyring;
use keyfold::ErrorKind;
use keyfold_kms::LocalKek;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::Path;

fn add_audit(folder: &Path, config: &Path) {
    LocalKek::create(folder.join("audit.kek")).unwrap();
    let text = fs::read_to_string(config).unwrap();
    let section = "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\n";
    fs::write(config, text + section).unwrap();
}

fn lines(folder: &Path) -> Vec<Json> {
    let text = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn opening_and_reloading_say_which_configuration_is_in_force() {
    let (folder, config) = keyring();
    add_audit(folder.path(), &config);
    let policy = folder.path().join("policy.toml");
    fs::write(&policy, "version = 1\n[fields.a]\n").unwrap();
    let ring = keyfold_open::open(&config, std::slice::from_ref(&policy)).unwrap();
    keyfold_open::reload(&ring, &config, std::slice::from_ref(&policy)).unwrap();
    fs::write(&policy, "version = 1\n[fields.b]\n").unwrap();
    keyfold_open::reload(&ring, &config, &[policy]).unwrap();
    ring.close();
    let lines = lines(folder.path());
    let actions: Vec<_> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["chain-begun", "opened", "reconfigured", "reconfigured", "chain-ended"]);
    let digest = |at: usize| lines[at]["details"]["configuration_sha256"].as_str().unwrap();
    assert!(digest(1).len() == 64 && digest(1) == digest(2) && digest(2) != digest(3));
}

#[test]
fn a_statement_is_signed_where_there_is_an_audit_kek_and_says_what_is_missing_elsewhere() {
    let (folder, config) = keyring();
    let body = json!({ "scope": "5f", "keys": 3 });
    let ring = keyfold_open::open(&config, &[]).unwrap();
    assert_eq!(keyfold_open::sign_statement(&ring, &config, "shredded", &body).unwrap(), None);
    let error = keyfold_open::verify_statement(&config, "shredded", "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("wraps = \"audit\"") && error.to_string().contains("[audit]"), "{error}");
    add_audit(folder.path(), &config);
    let ring = keyfold_open::open(&config, &[]).unwrap();
    let text = keyfold_open::sign_statement(&ring, &config, "shredded", &body).unwrap().expect("signed");
    ring.close();
    // A statement is a file of its own, and the trail knows its digest.
    let lines = lines(folder.path());
    let event = lines.iter().find(|line| line["action"] == "statement-signed").expect("an event");
    let digest = keyfold_open::statement_digest(text.as_bytes());
    assert_eq!(event["details"], json!({ "kind": "shredded", "sha256": digest }));
    let read = fs::read(folder.path().join("audit.jsonl")).unwrap();
    assert_eq!(read.split(|&b| b == b'\n').filter_map(keyfold_audit::signed_digest).collect::<Vec<_>>(), [digest]);
    drop(ring);
    let kek = LocalKek::open(folder.path().join("audit.kek")).unwrap();
    let statement = pollster::block_on(keyfold_audit::verify_statement(&text, &kek)).unwrap();
    assert_eq!((&statement["kind"], &statement["body"]), (&json!("shredded"), &body));
    assert_eq!(keyfold_open::verify_statement(&config, "shredded", &text).unwrap(), body);
    let wrong = |kind: &str, text: &str| keyfold_open::verify_statement(&config, kind, text).unwrap_err().kind();
    assert_eq!(wrong("another", &text), ErrorKind::Malformed);
    assert_eq!(wrong("shredded", &text.replace("\"keys\":3", "\"keys\":4")), ErrorKind::DecryptionFailed);
    let trail = keyfold_open::audit_trail(&config).unwrap();
    assert!(trail.files.len() == 1 && trail.forgeable.len() == 1 && trail.keks.len() == 1);
}

#[test]
fn an_audit_file_in_the_place_of_another_file_of_the_keyring_is_refused_and_nothing_is_written() {
    let (folder, config) = keyring();
    add_audit(folder.path(), &config);
    let text = fs::read_to_string(&config).unwrap();
    fs::hard_link(folder.path().join("local.kek"), folder.path().join("linked")).unwrap();
    fs::create_dir(folder.path().join("sub")).unwrap();
    let content = || {
        let files = ["keyfold.toml", "local.kek", "audit.kek", "keys.db", "keys.high-water"];
        files.map(|name| fs::read(folder.path().join(name)).unwrap())
    };
    let keys = ["local.kek", "audit.kek", "keys.db", "keys.db-wal", "keys.high-water", "linked", "sub/../local.kek"];
    let files = keys.map(|name| format!("file = \"{name}\""));
    let anchors = keys.iter().chain(&["audit.jsonl", "./audit.jsonl", "audit.jsonl.lock", "keyfold.toml"]);
    let anchors = anchors.map(|name| format!("file = \"audit.jsonl\"\nanchors = \"{name}\""));
    for wrong in files.into_iter().chain(anchors).chain(["file = \"keyfold.toml\"".to_owned()]) {
        let _ = fs::remove_file(folder.path().join("audit.jsonl"));
        fs::write(&config, text.replace("file = \"audit.jsonl\"", &wrong)).unwrap();
        let before = content();
        // What exists and is no such file is refused when it is written to, before the next operation at the latest.
        let result = keyfold_open::open(&config, &[]).and_then(|ring| ring.check_audit());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Configuration, "{wrong}");
        assert_eq!(content(), before, "{wrong}");
    }
}
