//! What the example service refuses at its start, before it has made a key or asked a database.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::{copy_policy, service};
use std::fs;
use tempfile::TempDir;

/// No database is reached: nobody listens there.
const NOWHERE: &str = "postgres://nobody@127.0.0.1:1/nothing";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(keyfold_open::init(&folder.path().join("ring"), "patients", "test")).unwrap();
    copy_policy(folder.path());
    folder
}

/// The log of a start that failed.
#[track_caller]
fn refused(folder: &TempDir, tenants: &str) -> String {
    let output = service(folder.path(), NOWHERE, tenants).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

fn keys(folder: &TempDir) -> usize {
    let ring = keyfold_open::open(&folder.path().join("ring/keyfold.toml"), &[]).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(ring.list(None, 100)).unwrap().len()
}

#[test]
fn a_policy_that_does_not_protect_what_the_service_says_is_refused_by_the_name_of_the_field() {
    let folder = folder();
    let path = folder.path().join("policy.toml");
    let good = fs::read_to_string(&path).unwrap();
    let before = keys(&folder);
    let section = |name: &str, body: &str| {
        let mut sections: Vec<String> = good.split("\n[").map(str::to_owned).collect();
        let found = sections.iter_mut().find(|section| section.starts_with(&format!("fields.\"{name}\"]"))).unwrap();
        *found = format!("fields.\"{name}\"]\nidentifier = \"H\"\n{body}\n");
        sections.join("\n[")
    };
    for name in ["patient.mrn", "patient.ssn", "patient.name", "patient.birth_date"] {
        for (body, why) in [
            ("row_binding = \"none\"", "row_binding"),
            ("row_binding = \"none\"\nmode = \"deterministic\"", "row_binding"),
            ("row_binding = \"id\"\ntype = \"integer\"", "texts"),
            ("row_binding = \"id\"\nrequired_context = [\"tenant\", \"table\"]", "context"),
        ] {
            fs::write(&path, section(name, body)).unwrap();
            let log = refused(&folder, "clinic-a");
            assert!(log.contains("\"code\":110") && log.contains(&format!("field {name}")), "{log}");
            assert!(log.contains(why), "{log}");
        }
    }
    fs::write(&path, section("patient.mrn_lookup", "row_binding = \"id\"")).unwrap();
    let log = refused(&folder, "clinic-a");
    assert!(log.contains("field patient.mrn_lookup") && log.contains("deterministic"), "{log}");
    fs::write(&path, good.replace("\"patient.name\"", "\"patient.nom\"")).unwrap();
    assert!(refused(&folder, "clinic-a").contains("field patient.name"));
    assert_eq!(keys(&folder), before, "a key was made");
    // The policy as it is gets as far as the database.
    fs::write(&path, &good).unwrap();
    let log = refused(&folder, "clinic-a");
    assert!(log.contains("the database cannot be used"), "{log}");
    assert!(keys(&folder) > before);
}

#[test]
fn the_names_of_tenants_are_checked_as_a_whole_before_a_key_is_made() {
    let folder = folder();
    let before = keys(&folder);
    let long = format!("clinic-a,{}", "x".repeat(256));
    for (tenants, which) in [
        ("", "1 of 1"),
        ("clinic-a,", "2 of 2"),
        ("clinic-a,,clinic-b", "2 of 3"),
        ("clinic-a, clinic-b", "2 of 2"),
        ("clinic-a,clínic", "2 of 2"),
        ("clinic-a,clinic-b,clinic-a", "3 of 3"),
        (&long, "2 of 2"),
    ] {
        let log = refused(&folder, tenants);
        assert!(log.contains(&format!("PATIENTS_TENANTS: name {which}")), "{log}");
        assert_eq!(keys(&folder), before, "a key was made for {tenants}");
    }
}
