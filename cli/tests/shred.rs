//! Shredding by the command: what is left of the keys in every file, what the certificate says, and legal hold.

use crate::common::{self, DATA, KEY, POLICY, STORAGE, USAGE, World, contains, keyfold, run, skip};
use keyfold::KeyClass;
use serde_json::Value as Json;
use std::fs;
use std::path::Path;

/// Part of every record of a key: its wrap, as the store had it.
fn wraps(config: &Path) -> Vec<Vec<u8>> {
    let ring = keyfold_open::open(config, &[]).expect("it opens");
    let infos = pollster::block_on(ring.list(None, usize::MAX)).expect("listed");
    let in_scope =
        infos.iter().filter(|info| info.record.class() == KeyClass::Data && info.record.scope_tag().is_some());
    // The wrap of 72 bytes ends before the endorsement, the extensions and the MAC.
    in_scope
        .map(|info| {
            let bytes = info.record.as_bytes();
            let end = bytes.len() - 32 - 2 - 1;
            bytes[end - 48..end].to_vec()
        })
        .collect()
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

/// Whether a file of `folder` holds one of `wraps`, as bytes or in hexadecimal.
fn found_in(folder: &Path, wraps: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, content) in common::snapshot(folder) {
        if wraps.iter().any(|wrap| contains(&content, wrap) || contains(&content, &hex(wrap))) {
            found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    found
}

fn configure(config: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(config).expect("a configuration");
    fs::write(config, change(text)).expect("written");
}

fn certificate(world: &World, file: &str) -> Json {
    let text: Json = serde_json::from_str(&world.text(file)).expect("JSON");
    assert_eq!(text["unsigned"], true, "there is no [audit] section");
    text["certificate"].clone()
}

fn state<'a>(certificate: &'a Json, place: &str) -> &'a str {
    let places = certificate["places"].as_array().expect("a list");
    let place = places.iter().find(|known| known["place"].as_str().is_some_and(|name| name.starts_with(place)));
    place.unwrap_or_else(|| panic!("the place is missing in {certificate:#}"))["state"].as_str().expect("a state")
}

/// A keyring with a journal, whose keys do not wait.
fn world(waiting: &str) -> World {
    let world = World::new();
    configure(&world.config(), |text| {
        text.replace("[store]\n", "[store]\njournal = \"file:keys.journal\"\n")
            + &format!("\n[shred]\nwaiting = \"{waiting}\"\nbackups = [\"nightly\"]\narchives = [\"tapes\"]\n")
    });
    world.succeeds(&["keys", "journal"]);
    world
}

const SHRED: [&str; 4] = ["keys", "shred", "--scope", "clinic-7"];

fn finish(world: &World, file: &str) -> common::Run {
    let policy = ["--policy", "policy.toml", "--finish", "--yes", "--certificate", file];
    world.run(&[&SHRED[..], &policy].concat())
}

// Failure N17
#[test]
fn no_wrap_of_the_scope_is_left_in_store_log_journal_and_later_backups() {
    let world = world("none");
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    world.protect(&["--scope", "clinic-7"]);
    let shredded = wraps(&world.config());
    assert_eq!(shredded.len(), 2);
    world.succeeds(&["protect", "in.csv", "--output", "kept.csv", "--scope", "clinic-8"]);
    let all = wraps(&world.config());
    let kept: Vec<_> = all.into_iter().filter(|wrap| !shredded.contains(wrap)).collect();
    world.succeeds(&["keys", "backup", "before"]);
    assert_eq!(found_in(&world.keys(), &shredded), ["keys.db", "keys.journal"], "the test sees them");
    assert_eq!(found_in(&world.data(), &shredded), ["before"]);

    // A process that has the store open, as a service would.
    let service = keyfold_open::open(&world.config(), &[]).expect("it opens");
    pollster::block_on(service.list(None, 1)).expect("listed");
    world.succeeds(&SHRED);
    world.run(&["reveal", "sealed.csv", "--output", "x.csv", "--scope", "clinic-7"]).expect(KEY, &["destroy-pending"]);
    world.run(&["protect", "in.csv", "--output", "x.csv", "--scope", "clinic-7"]).expect(KEY, &[]);
    let told = finish(&world, "certificate.json").expect(0, &["not signed"]);
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0], "wraps are left");
    assert_eq!(found_in(&world.keys(), &kept), ["keys.db", "keys.journal"], "those of other scopes are there");
    world.succeeds(&["keys", "backup", "later"]);
    assert_eq!(found_in(&world.data(), &shredded), ["before"]);
    drop(service);
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0], "closing brought them back");

    let first = certificate(&world, "certificate.json");
    for place in ["store", "write-ahead log", "journal"] {
        assert_eq!(state(&first, place), "confirmed", "{first:#}");
    }
    for place in ["backup nightly", "archive tapes", "caches"] {
        assert_eq!(state(&first, place), "pending", "{first:#}");
    }
    assert_eq!((&first["complete"], first["keys"].as_array().map(Vec::len)), (&false.into(), Some(2)));
    let caches = &first["caches"];
    let stated =
        caches["max_age_seconds"].as_u64().zip(caches["grace_seconds"].as_u64()).map(|(age, grace)| age + grace);
    assert_eq!(caches["gone_by"].as_u64(), first["destroyed_at"].as_u64().zip(stated).map(|(at, stated)| at + stated));
    // Look-up values are named, and the scope is not.
    assert_eq!(first["look_up_fields"][0]["field"], "patient.id");
    assert_eq!(first["frames"]["fields"], serde_json::json!([]));
    assert!(!world.text("certificate.json").contains("clinic-7") && !told.stdout_text().contains("clinic-7"));
    world.run(&["reveal", "sealed.csv", "--output", "x.csv", "--scope", "clinic-7"]).expect(KEY, &["destroyed"]);
    world.succeeds(&["reveal", "kept.csv", "--output", "x.csv", "--scope", "clinic-8"]);

    // On the operator's word, the next certificate.
    let confirm = ["keys", "shred", "--confirm", "certificate.json", "--certificate", "next.json"];
    world.refuses(&[&confirm[..], &["--backup", "weekly"]].concat(), USAGE, &["names no \"backup weekly\""]);
    world.succeeds(&[&confirm[..], &["--backup", "nightly"]].concat());
    let next = certificate(&world, "next.json");
    assert_eq!((state(&next, "backup nightly"), state(&next, "archive tapes")), ("confirmed", "pending"));
    // The older backup does not bring it back: the tombstone wins.
    world.succeeds(&["keys", "restore", "--from", "before"]);
    world.run(&["reveal", "sealed.csv", "--output", "y.csv", "--scope", "clinic-7"]).expect(KEY, &["destroyed"]);
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0], "restoring brought them back");
}

#[test]
fn the_journal_of_another_machine_takes_the_tombstones_over() {
    let world = world("none");
    let text = fs::read_to_string(world.config()).expect("a configuration");
    let other = world.keys().join("other.toml");
    fs::write(&other, text.replace("file:keys.journal", "file:other.journal")).expect("written");
    let there = ["--config", common::argument(&other)];
    world.succeeds(&[&["keys", "journal"], &there[..]].concat());
    world.succeeds(&[&["protect", "in.csv", "--output", "sealed.csv", "--scope", "clinic-7"], &there[..]].concat());
    let shredded = wraps(&world.config());
    world.succeeds(&SHRED);
    finish(&world, "certificate.json").expect(0, &[]);
    assert_eq!(found_in(&world.keys(), &shredded), ["other.journal"]);
    world.succeeds(&[&["keys", "journal"], &there[..]].concat());
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0]);
    for config in [&[][..], &there] {
        world.succeeds(&["keys", "journal"]);
        world.succeeds(&[&["keys", "verify", "--journal"], config].concat());
    }
}

#[test]
fn a_journal_is_clean_once_it_has_the_tombstones_of_the_store() {
    let world = world("none");
    world.protect(&["--scope", "clinic-7"]);
    let shredded = wraps(&world.config());
    // A machine without this journal ends the scope: its certificate does not ask for the journal.
    let text = fs::read_to_string(world.config()).expect("a configuration");
    let other = world.keys().join("other.toml");
    fs::write(&other, text.replace("journal = \"file:keys.journal\"\n", "")).expect("written");
    let there = ["--config", common::argument(&other)];
    world.succeeds(&[&SHRED[..], &there].concat());
    world.succeeds(&[&SHRED[..], &["--finish", "--yes", "--certificate", "first.json"], &there].concat());
    assert_eq!(found_in(&world.keys(), &shredded), ["keys.journal"]);
    // A place that only this configuration knows is looked at too.
    world.succeeds(&["keys", "shred", "--confirm", "first.json", "--certificate", "next.json"]);
    assert_eq!(state(&certificate(&world, "next.json"), "journal"), "confirmed");
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0], "confirmed, and left");
}

#[test]
fn what_nobody_signed_is_held_to_the_store_and_never_signed() {
    let world = world("none");
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    world.succeeds(&SHRED);
    world.succeeds(&[&SHRED[..], &["--finish", "--yes", "--certificate", "first.json"]].concat());
    let first: Json = serde_json::from_str(&world.text("first.json")).expect("JSON");
    // Without a policy nobody knows of fields.
    assert_eq!((&first["certificate"]["look_up_fields"], &first["certificate"]["frames"]), (&Json::Null, &Json::Null));
    let confirm = ["keys", "shred", "--confirm", "edited.json", "--force", "--certificate", "next.json"];
    let edited = |change: &dyn Fn(&mut Json)| {
        let mut json = first.clone();
        change(&mut json["certificate"]);
        world.write("edited.json", json.to_string());
    };
    edited(&|json| json["keys"] = serde_json::json!([]));
    world.refuses(&confirm, DATA, &["names no key"]);
    edited(&|json| drop(json["keys"].as_array_mut().expect("keys").pop()));
    world.refuses(&confirm, DATA, &["does not name this key"]);
    edited(&|json| json["keys"][0]["key_id"] = "kf1_0000".into());
    world.refuses(&confirm, KEY, &["does not show the key"]);
    edited(&|json| json["slot"] = "ab".repeat(16).into());
    world.refuses(&confirm, KEY, &[]);
    edited(&|json| json["version"] = 2.into());
    world.refuses(&confirm, DATA, &["written by a newer keyfold"]);
    // Places that are missing are pending, and time counts from the store.
    edited(&|json| {
        json["places"] = serde_json::json!([]);
        json["caches"]["gone_by"] = 0.into();
        json["caches"]["max_age_seconds"] = 0.into();
        json["complete"] = true.into();
    });
    world.succeeds(&[&confirm[..], &["--policy", "policy.toml"]].concat());
    let next = certificate(&world, "next.json");
    for (place, expected) in
        [("store", "confirmed"), ("write-ahead log", "confirmed"), ("journal", "confirmed"), ("caches", "pending")]
    {
        assert_eq!(state(&next, place), expected, "{next:#}");
    }
    assert_eq!((state(&next, "backup nightly"), state(&next, "archive tapes")), ("pending", "pending"));
    assert_eq!((&next["complete"], &next["caches"]), (&false.into(), &first["certificate"]["caches"]));
    assert_eq!(next["look_up_fields"][0]["field"], "patient.id");

    // With [audit] it counts for nothing, and what is confirmed is an event.
    run(keyfold().args(["keys", "new-kek"]).arg(world.keys().join("audit.kek")), b"").expect(0, &[]);
    configure(&world.config(), |text| {
        text + "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\n"
    });
    world.write("edited.json", first.to_string());
    world.refuses(&confirm, POLICY, &["not signed"]);
    world.succeeds(&[&SHRED[..], &["--finish", "--yes", "--force", "--certificate", "signed.json"]].concat());
    let word = ["--backup", "nightly", "--reason", "ticket 12"];
    let confirm = ["keys", "shred", "--confirm", "signed.json", "--force", "--certificate", "next.json"];
    world.succeeds(&[&confirm[..], &word].concat());
    let log = fs::read_to_string(world.keys().join("audit.jsonl")).expect("the audit file");
    let event = log.lines().find(|line| line.contains("\"shred-confirmed\"")).expect("the event");
    assert!(event.contains("backup nightly") && event.contains("ticket 12"), "{event}");
}

#[test]
fn a_reader_keeps_the_certificate_pending_until_it_is_gone() {
    let world = world("none");
    world.protect(&["--scope", "clinic-7"]);
    let shredded = wraps(&world.config());
    world.succeeds(&SHRED);
    // A snapshot in which the keys are still there.
    let reader = rusqlite::Connection::open(world.keys().join("keys.db")).expect("opened");
    reader.execute_batch("BEGIN; SELECT count(*) FROM records").expect("a snapshot");
    finish(&world, "first.json").expect(0, &[]);
    let first = certificate(&world, "first.json");
    assert_eq!((state(&first, "store"), state(&first, "write-ahead log")), ("pending", "pending"));
    reader.execute_batch("COMMIT").expect("ended");
    drop(reader);
    let confirm = ["keys", "shred", "--confirm", "first.json", "--certificate", "next.json", "--backup", "nightly"];
    world.succeeds(&confirm);
    let next = certificate(&world, "next.json");
    assert_eq!((state(&next, "store"), state(&next, "write-ahead log")), ("confirmed", "confirmed"));
    assert_eq!(found_in(&world.keys(), &shredded), [""; 0]);
}

#[test]
fn keys_wait_and_a_hold_is_in_the_way() {
    let world = world("7d");
    world.protect(&["--scope", "clinic-7"]);
    let hold = ["keys", "hold", "--scope", "clinic-7"];
    let held = world.succeeds(&[&hold[..], &["--reason", "case 7"]].concat());
    assert!(held.stdout_text().contains("its 1 key cannot be destroyed"), "{}", held.stdout_text());
    world.refuses(&SHRED, POLICY, &["legal hold", "--release"]);
    assert!(world.succeeds(&["keys", "list"]).stdout_text().contains("seals and opens; legal hold"));
    world.succeeds(&[&hold[..], &["--release", "--reason", "settled"]].concat());
    world.succeeds(&SHRED);
    let refused = finish(&world, "certificate.json").expect(POLICY, &["waiting period", "s remain"]);
    assert!(refused.stdout.is_empty() && !world.path("certificate.json").exists());
    world.succeeds(&[&hold[..], &["--reason", "case 8"]].concat());
    finish(&world, "certificate.json").expect(POLICY, &["legal hold"]);
    world.succeeds(&[&hold[..], &["--release", "--reason", "settled"]].concat());
    world.succeeds(&[&SHRED[..], &["--cancel"]].concat());
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--scope", "clinic-7"]);
    world.protect(&["--scope", "clinic-7"]);
    finish(&world, "certificate.json").expect(KEY, &["active"]);
    for (waiting, says) in [("1d", "7d to 30d"), ("0s", "7d to 30d"), ("x", "duration")] {
        configure(&world.config(), |text| text.replace("\"7d\"", &format!("\"{waiting}\"")));
        world.refuses(&SHRED, POLICY, &[says, "waiting"]);
        configure(&world.config(), |text| text.replace(&format!("waiting = \"{waiting}\""), "waiting = \"7d\""));
    }
}

#[test]
fn frames_are_named_and_what_cannot_be_written_destroys_nothing() {
    let world = world("none");
    world.write("framed.toml", "version = 1\n[fields.note]\nrow_binding = \"none\"\naccept = [\"01\", \"03\"]\n");
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&SHRED);
    world.write("taken.json", "something");
    let finish = |file| [&SHRED[..], &["--policy", "framed.toml", "--finish", "--yes", "--certificate", file]].concat();
    world.refuses(&finish("taken.json"), USAGE, &["already exists"]);
    world.refuses(&finish("no/folder.json"), STORAGE, &[]);
    let config = world.config();
    world.refuses(&finish(common::argument(&config)), USAGE, &["file of the keyring"]);
    world.succeeds(&[&SHRED[..], &["--cancel"]].concat());
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--scope", "clinic-7"]);
    world.succeeds(&SHRED);
    let told = world.succeeds(&finish("certificate.json"));
    assert_eq!(certificate(&world, "certificate.json")["frames"]["fields"][0], "note");
    assert!(told.stdout_text().contains("frame"));
    world.refuses(&["keys", "shred", "--confirm", "taken.json", "--certificate", "x.json"], POLICY, &["[audit]"]);
    let unasked = [&SHRED[..], &["--finish", "--certificate", "x.json"]].concat();
    let usage: [&[&str]; 4] = [
        &["keys", "shred"],
        &[&SHRED[..], &["--finish", "--yes"]].concat(),
        &unasked,
        &["keys", "hold", "--scope", "clinic-7"],
    ];
    for arguments in usage {
        world.refuses(arguments, USAGE, &[]);
    }
}

#[test]
fn in_a_database_the_table_is_written_anew_and_the_log_stays_pending_until_it_is_gone() {
    let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
        skip("KEYFOLD_TEST_POSTGRES names no PostgreSQL server");
        return;
    };
    let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
    let uri = format!("{uri}?sslrootcert={ca}&schema=shred_{}", std::process::id());
    run(keyfold().args(["migrate", "--store", &uri]), b"").expect(0, &[]);
    let world = World::new();
    run(keyfold().arg("init").arg(world.path("ring")).args(["--store", &uri]), b"").expect(0, &[]);
    configure(&world.path("ring/keyfold.toml"), |text| text + "\n[shred]\nwaiting = \"none\"\n");
    let on = ["--config", "ring/keyfold.toml"];
    let with = |arguments: &[&str]| world.succeeds(&[arguments, &on].concat());
    with(&["protect", "in.csv", "--output", "sealed.csv", "--scope", "clinic-7"]);
    with(&SHRED);
    with(&[&SHRED[..], &["--finish", "--yes", "--certificate", "certificate.json"]].concat());
    let first = certificate(&world, "certificate.json");
    assert_eq!((state(&first, "store"), state(&first, "write-ahead log")), ("confirmed", "pending"), "{first:#}");
    assert_eq!(state(&first, "statistics"), "confirmed", "{first:#}");
    with(&["keys", "shred", "--confirm", "certificate.json", "--certificate", "second.json"]);
    let second = certificate(&world, "second.json");
    assert_eq!(state(&second, "write-ahead log"), "pending", "nothing has happened to the log yet: {second:#}");
    with(&["keys", "shred", "--confirm", "second.json", "--certificate", "third.json", "--place", "write-ahead log"]);
    assert_eq!(state(&certificate(&world, "third.json"), "write-ahead log"), "confirmed");
    world
        .run(&[&["reveal", "sealed.csv", "--output", "x.csv", "--scope", "clinic-7"], &on[..]].concat())
        .expect(KEY, &[]);
}
