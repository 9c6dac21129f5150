//! `[audit]`: opening and reloading are recorded, and statements are signed under its KEK.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold::ErrorKind;
use keyfold_kms::LocalKek;
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A keyring in a folder.
fn keyring() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    pollster::block_on(keyfold_open::init(folder.path(), "clinic", "test")).unwrap();
    let config = folder.path().join("keyfold.toml");
    (folder, config)
}

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
    let error = keyfold_open::sign_statement(&config, "shredded", &body).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("wraps = \"audit\"") && error.to_string().contains("[audit]"), "{error}");
    add_audit(folder.path(), &config);
    let text = keyfold_open::sign_statement(&config, "shredded", &body).unwrap();
    assert!(!folder.path().join("audit.jsonl").exists(), "a statement is a file of its own");
    let kek = LocalKek::open(folder.path().join("audit.kek")).unwrap();
    let statement = pollster::block_on(keyfold_audit::verify_statement(&text, &kek)).unwrap();
    assert_eq!((&statement["kind"], &statement["body"]), (&json!("shredded"), &body));
    let trail = keyfold_open::audit_trail(&config).unwrap();
    assert!(trail.files.is_empty() && trail.forgeable.len() == 1 && trail.keks.len() == 1);
}
