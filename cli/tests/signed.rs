//! Statements that are signed under the audit KEK, from the command that makes them to those that believe them; and that
//! every action on keys is in the audit file.

use crate::audited::Audited;
use crate::common::{CANARY, DATA, KEY, KMS, POLICY, World, argument, contains, keyfold, run, snapshot};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

const SHRED: [&str; 4] = ["keys", "shred", "--scope", CANARY];
const FINISH: [&str; 6] = ["--policy", "policy.toml", "--finish", "--yes", "--certificate", "certificate.json"];
const CONFIRM: [&str; 6] = ["keys", "shred", "--confirm", "certificate.json", "--certificate", "next.json"];

fn configure(world: &World, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), change(text)).expect("written");
}

/// A keyring that has shredded a scope, and `certificate.json`.
fn shredded() -> Audited {
    let audited = Audited::new();
    let world = &audited.0;
    configure(world, |text| text + "\n[shred]\nwaiting = \"none\"\nbackups = [\"nightly\"]\n");
    world.protect(&["--scope", CANARY]);
    world.succeeds(&SHRED);
    world.succeeds(&[&SHRED[..], &FINISH].concat());
    audited
}

/// The object of the statement in a file.
fn body(world: &World, file: &str) -> Json {
    let text = world.text(file);
    let line: Json = serde_json::from_str(text.lines().nth(1).expect("two lines")).expect("JSON");
    line["body"].clone()
}

/// `file` changed in one byte, at places all over it, is refused by both; nothing is written.
#[track_caller]
fn assert_edits_are_found(audited: &Audited, file: &str, believes: Option<&[&str]>) {
    let world = &audited.0;
    let good = world.read(file);
    for at in (0..9).map(|part| part * (good.len() - 1) / 8) {
        let mut edited = good.clone();
        edited[at] ^= 1;
        world.write(file, &edited);
        let before = snapshot(&world.data());
        let code = audited.audit(&["audit", "verify", file]).code.expect("it ends");
        assert!([DATA, KEY].contains(&code), "byte {at}: {code}");
        if let Some(believes) = believes {
            let run = world.run(believes);
            assert!(run.stdout.is_empty() && run.code != Some(0), "byte {at}: {}", run.stderr);
        }
        assert_eq!(snapshot(&world.data()), before, "byte {at}");
    }
    world.write(file, good);
}

#[test]
fn a_certificate_of_shredding() {
    let audited = shredded();
    let world = &audited.0;
    assert!(!contains(&world.read("certificate.json"), b"unsigned"));
    let verified = audited.audit(&["audit", "verify", "certificate.json"]).expect(0, &[]);
    assert!(verified.stdout_text().contains("statement: shred-certificate"), "{}", verified.stdout_text());
    assert!(!contains(&world.read("certificate.json"), "ry7391".as_bytes()), "the name of the scope");
    // A digit in it, which JSON alone would not notice.
    let good = world.text("certificate.json");
    let number = format!("\"destroyed_at\":{}", body(world, "certificate.json")["destroyed_at"]);
    assert!(good.contains(&number));
    let last = if number.ends_with('0') { "1" } else { "0" };
    world.write("certificate.json", good.replace(&number, &format!("{}{last}", &number[..number.len() - 1])));
    let found = audited.audit(&["audit", "verify", "certificate.json"]).expect(DATA, &[]);
    assert!(found.stdout_text().contains("certificate.json:2: edited"), "{}", found.stdout_text());
    world.refuses(&CONFIRM, KEY, &["was changed after it was signed"]);
    world.write("certificate.json", &good);
    assert_edits_are_found(&audited, "certificate.json", Some(&CONFIRM));
    // One that nobody signed does not become a signed one.
    let unsigned = json!({ "unsigned": true, "certificate": body(world, "certificate.json") });
    world.write("certificate.json", unsigned.to_string());
    world.refuses(&CONFIRM, POLICY, &["not signed"]);
    world.write("certificate.json", &good);
    world.succeeds(&[&CONFIRM[..], &["--backup", "nightly"]].concat());
    audited.audit(&["audit", "verify", "next.json"]).expect(0, &[]);
    let places = body(world, "next.json")["places"].as_array().expect("a list").clone();
    assert!(places.iter().any(|place| place["place"] == "backup nightly" && place["state"] == "confirmed"));
}

#[test]
fn a_certificate_of_another_keyring() {
    let (ours, theirs) = (shredded(), Audited::new());
    for same_kek in [false, true] {
        if same_kek {
            fs::copy(theirs.0.keys().join("audit.kek"), theirs.0.keys().join("kept.kek")).expect("copied");
            fs::copy(ours.0.keys().join("audit.kek"), theirs.0.keys().join("audit.kek")).expect("copied");
        }
        theirs.0.write("certificate.json", ours.0.read("certificate.json"));
        let before = snapshot(&theirs.0.data());
        let found = theirs.audit(&["audit", "verify", "certificate.json"]);
        // Under another KEK nobody can tell; under the same one it is of another keyring.
        assert_eq!(found.code, Some(KEY), "{}{}", found.stdout_text(), found.stderr);
        let run = theirs.0.run(&CONFIRM);
        let (code, says) = if same_kek { (KEY, "another keyring") } else { (KMS, "WrongKey") };
        assert!(run.expect(code, &[says]).stdout.is_empty());
        assert_eq!(snapshot(&theirs.0.data()), before);
    }
}

#[test]
fn a_statement_of_reencryption() {
    let audited = shredded();
    let world = &audited.0;
    world.protect(&[]);
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["reencrypt", "sealed.csv", "--output", "out.csv", "--statement", "statement"]);
    let verified = audited.audit(&["audit", "verify", "statement"]).expect(0, &[]);
    assert!(verified.stdout_text().contains("statement: reencrypted"), "{}", verified.stdout_text());
    assert_eq!((&body(world, "statement")["rows"], &body(world, "statement")["unsigned"]), (&json!(3), &Json::Null));
    assert_edits_are_found(&audited, "statement", None);
    // One that is not signed proves nothing, and is no forgery either.
    world.write("unsigned", "{\"version\":1,\"unsigned\":true}\n");
    let run = audited.audit(&["audit", "verify", "unsigned"]).expect(KEY, &[]);
    let says = ["unsigned: not signed: nothing vouches for it", "NOT SIGNED"];
    assert!(
        says.iter().all(|text| run.stdout_text().contains(text)) && !run.stdout_text().contains("NOT WHAT WAS WRITTEN"),
        "{}",
        run.stdout_text()
    );
    let run = audited.audit(&["audit", "verify", "--json", "unsigned"]).expect(KEY, &[]);
    assert_eq!(run.json_lines()[0]["unsigned"], json!(["unsigned"]));
    // Beside others, which are verified as ever.
    audited.audit(&["audit", "verify", "unsigned", "statement"]).expect(KEY, &[]);
    world.write("edited", world.text("statement").replace("\"rows\":3", "\"rows\":4"));
    audited.audit(&["audit", "verify", "unsigned", "edited"]).expect(DATA, &[]);
    world.write("none", "{\"version\":1,\"unsigned\":false}\n");
    audited.audit(&["audit", "verify", "none"]).expect(DATA, &[]);
    // What is signed is still not a certificate.
    world.write("certificate.json", world.read("statement"));
    world.refuses(&CONFIRM, DATA, &["another kind"]);
}

/// A keyring with four KEKs, of which one is for recovery and one behind glass.
fn with_keks() -> Audited {
    let audited = Audited::new();
    let world = &audited.0;
    for (alias, kek_use) in [("second", "normal"), ("offline", "recovery"), ("glass", "break-glass")] {
        run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join(alias)), b"").expect(0, &[]);
        let kek_use = if kek_use == "normal" { String::new() } else { format!("use = \"{kek_use}\"\n") };
        configure(world, |text| text + &format!("\n[keks.{alias}]\nuri = \"local:{alias}\"\n{kek_use}"));
    }
    configure(world, |text| {
        text.replace("[store]\n", "[store]\njournal = \"file:keys.journal\"\n") + "\n[shred]\nwaiting = \"none\"\n"
    });
    audited
}

#[test]
fn every_action_is_in_the_audit_file_and_no_name_is() {
    let audited = with_keks();
    let world = &audited.0;
    let context = format!("tenant={CANARY}");
    let scope = ["--scope", CANARY];
    world.succeeds(&["keys", "journal"]);
    world.succeeds(&["keys", "rewrap"]);
    world.succeeds(&["keys", "drill", "--only", "second"]);
    world.protect(&[&scope[..], &["--context", &context]].concat());
    world.succeeds(&["keys", "rotate", "--root"]);
    world.succeeds(&["keys", "reparent"]);
    world.succeeds(&["keys", "backup", "backup"]);
    world.succeeds(&["keys", "restore", "--from", "backup"]);
    world.succeeds(&["keys", "hold", "--scope", CANARY, "--reason", "case 7"]);
    world.succeeds(&["keys", "hold", "--scope", CANARY, "--release", "--reason", "case 7 closed"]);
    world.succeeds(&SHRED);
    world.succeeds(&[&SHRED[..], &["--cancel"]].concat());
    world.succeeds(&SHRED);
    world.succeeds(&[&SHRED[..], &FINISH].concat());
    world.protect(&[]);
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["reencrypt", "sealed.csv", "--output", "out.csv"]);
    let database = rusqlite::Connection::open(world.path("data.db")).expect("opened");
    let table = format!(
        "CREATE TABLE t (id INTEGER NOT NULL PRIMARY KEY, ssn TEXT, ssn_sealed BLOB); INSERT INTO t VALUES (1, '{CANARY}', NULL)"
    );
    database.execute_batch(&table).expect("made");
    drop(database);
    world.write(
        "migration.toml",
        "version = 1\n[fields.ssn]\nrow_binding = \"id\"\nmigration = { until = \"2999-12-31\", phase = \"dual-write\" }\n",
    );
    let backfill = ["backfill", "--sql", "sqlite:data.db", "--table", "t", "--key", "id", "--field", "ssn"];
    let columns = ["--from", "ssn", "--to", "ssn_sealed", "--policy", "migration.toml"];
    world.succeeds(&[&backfill[..], &columns].concat());
    // Disaster after disaster.
    let reveal = ["reveal", "out.csv", "--output", "clear.csv", "--force"];
    for alias in ["local.kek", "second"] {
        fs::remove_file(world.keys().join(alias)).expect("removed");
    }
    world.succeeds(&[&reveal[..], &["--recovery"]].concat());
    fs::remove_file(world.keys().join("offline")).expect("removed");
    world.succeeds(&[&reveal[..], &["--recovery=ticket 7"]].concat());

    let actions: BTreeSet<String> = audited.actions().into_iter().collect();
    for action in [
        "opened",
        "wrap",
        "unwrap",
        "key-made",
        "state-changed",
        "use",
        "rewrap",
        "drill",
        "reparent",
        "backup",
        "restore",
        "hold-placed",
        "hold-lifted",
        "shred-scheduled",
        "shred-cancelled",
        "shredded",
        "reencrypt",
        "backfill",
        "recovery",
        "break-glass",
    ] {
        assert!(actions.contains(action), "{action} is missing: {actions:?}");
    }
    let text = fs::read_to_string(audited.file()).expect("the audit file");
    for (action, reason) in [("hold-placed", "case 7"), ("break-glass", "ticket 7")] {
        let mut lines = text.lines().filter(|line| line.contains(&format!("\"action\":\"{action}\"")));
        assert!(lines.all(|line| line.contains(reason)), "{action} without its reason");
    }
    for file in ["audit.jsonl", "anchors.jsonl"] {
        // Scope, context and plaintext are all the canary.
        assert!(!contains(&fs::read(world.keys().join(file)).expect("a file"), b"ry7391"), "{file}");
    }
    let report = audited.audit(&["audit", "verify"]).expect(0, &[]);
    assert!(report.stdout_text().ends_with("nothing is wrong\n"), "{}", report.stdout_text());
}

#[test]
fn a_key_that_was_removed_is_found_by_what_the_data_needs() {
    let world = World::new();
    world.protect(&["--scope", CANARY]);
    let piped = || {
        let keyfold = env!("CARGO_BIN_EXE_keyfold");
        let script = format!(
            "'{keyfold}' census sealed.csv --key-ids - | '{keyfold}' keys verify --key-ids - --config \"$1\" --json"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh", argument(&world.config())]).current_dir(world.data());
        run(&mut command, b"")
    };
    let whole = piped().expect(0, &[]).json_lines();
    assert_eq!(whole[0]["data"]["missing"], json!([]), "{whole:?}");
    let database = rusqlite::Connection::open(world.keys().join("keys.db")).expect("opened");
    let newest = "SELECT lower(hex(key_id)) FROM records WHERE scope_tag IS NOT NULL";
    let key_id: String = database.query_row(newest, (), |row| row.get(0)).expect("a key");
    assert_eq!(database.execute("DELETE FROM records WHERE scope_tag IS NOT NULL", ()).expect("deleted"), 1);
    drop(database);
    let found = piped().expect(KEY, &[]).json_lines();
    assert_eq!(found[0]["data"]["missing"], json!([key_id]));
}
