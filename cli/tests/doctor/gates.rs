//! What must not pass `keyfold doctor` or `keyfold keys verify`: a store that went back, records that nobody vouches for, files that are gone.

use crate::common::{self, KEY, World};
use crate::shared_streams::unprivileged;
use crate::{configure, doctor, found, new_kek};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A keyring with a journal on another disk, and a data key that seals.
fn world() -> World {
    let world = World::new();
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config = config.replace("[store]\n", "[store]\njournal = \"file:../data/keys.journal\"\n");
    fs::write(world.config(), config).expect("written");
    world.succeeds(&["keys", "journal"]);
    world.protect(&[]);
    world
}

fn audited() -> World {
    let world = World::new();
    new_kek(&world, "audit.kek");
    configure(
        &world,
        "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\nanchors = \"anchors.jsonl\"",
    );
    world
}

fn store(world: &World) -> PathBuf {
    world.keys().join("keys.db")
}

/// The ID of the key of `class` that seals.
fn active(world: &World, class: &str) -> String {
    let keys = world.succeeds(&["keys", "list", "--json"]).json_lines();
    let mut active = keys.iter().filter(|key| key["class"] == class && key["state"] == "active");
    active.next_back().expect("a key")["key_id"].as_str().expect("a key ID").to_owned()
}

/// What `keys verify` says of the place whose name ends so.
fn place<'a>(said: &'a Value, name: &str) -> &'a Value {
    let places = said["checked"].as_array().expect("places");
    places.iter().find(|one| one["place"].as_str().is_some_and(|place| place.ends_with(name))).expect(name)
}

#[test]
fn a_store_that_went_back_is_a_problem_and_its_keys_are_named() {
    let world = world();
    world.succeeds(&["keys", "rotate", "--root"]);
    let before = fs::read(store(&world)).expect("a store");
    let key = active(&world, "data");
    let journal = ["keys", "verify", "--journal", "--json"];
    for name in ["keys.journal", "keys.high-water"] {
        let good = &world.succeeds(&journal).json_lines()[0];
        assert_eq!(
            (&place(good, name)["good"], &place(good, name)["ahead"]),
            (&true.into(), &Value::Array(Vec::new()))
        );
    }
    world.succeeds(&["keys", "state", &key, "compromised"]);
    let (newer, replacement) = (fs::read(store(&world)).expect("a store"), active(&world, "data"));
    fs::write(store(&world), &before).expect("written");

    let found = doctor(&world, &[]);
    found.ends(1).says("store", "high-water", "problem", &["rolled back", &key, "saw key", "keys restore"]).says(
        "store",
        "high-water",
        "problem",
        &["compromised (sequence ", "active (sequence 1)"],
    );
    // That it lacks a key, too, is not certain without the journal, and each cause is one problem.
    found.says("store", "high-water", "note", &["generation", "keys verify --journal"]);
    assert!(found.about("keyring", "keys").iter().all(|[severity, ..]| severity == "note"), "{}", found.output);

    let run = world.run(&["keys", "verify"]).expect(KEY, &[]);
    let text = run.stdout_text();
    assert!(text.contains("keys.high-water: marks of") && text.contains("THE STORE IS BEHIND"), "{text}");
    assert!(text.contains(&format!("{key}: compromised here (sequence ")) && text.contains("keys restore"), "{text}");
    let said = &world.run(&journal).expect(KEY, &[]).json_lines()[0];
    assert_eq!(place(said, "keys.high-water")["ahead"], serde_json::json!([key]));
    let of_journal = place(said, "keys.journal");
    assert_eq!(of_journal["ahead"], serde_json::json!([key, replacement]), "{of_journal}");
    assert_eq!((&of_journal["good"], &of_journal["behind"]), (&false.into(), &Value::Array(Vec::new())));
    assert_eq!(
        (&place(said, "store")["good"], &place(said, "store")["ahead"]),
        (&true.into(), &Value::Array(Vec::new()))
    );

    // A backup that is newer tells it as well, without marks.
    fs::write(store(&world), newer).expect("written");
    world.succeeds(&["keys", "backup", "tuesday"]);
    fs::write(store(&world), before).expect("written");
    fs::remove_file(world.keys().join("keys.high-water")).expect("removed");
    let said = &world.run(&["keys", "verify", "--backup", "tuesday", "--json"]).expect(KEY, &[]).json_lines()[0];
    assert_eq!(place(said, "tuesday")["ahead"], serde_json::json!([key, replacement]));
    world.succeeds(&["keys", "restore"]);
    world.succeeds(&["keys", "verify", "--journal", "--backup", "tuesday"]);
    doctor(&world, &[]).ends(0);
}

#[test]
fn what_was_destroyed_is_not_missed() {
    let world = world();
    configure(&world, "[shred]\nwaiting = \"none\"");
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "backup", "monday"]);
    let journal = fs::read(world.path("keys.journal")).expect("a journal");
    world.succeeds(&["keys", "shred", "--scope", "clinic-7"]);
    let finish = ["--policy", "policy.toml", "--finish", "--yes", "--certificate", "c.json"];
    world.succeeds(&[&["keys", "shred", "--scope", "clinic-7"], &finish[..]].concat());
    world.succeeds(&["keys", "verify", "--journal", "--backup", "monday"]);
    doctor(&world, &[]).ends(0);
    // A journal that was itself put back has live records of them, and is behind the store; the store is not.
    world.write("keys.journal", journal);
    let said = &world.run(&["keys", "verify", "--journal", "--json"]).expect(KEY, &[]).json_lines()[0];
    assert_eq!(place(said, "keys.journal")["ahead"], Value::Array(Vec::new()));
}

/// What was to be stored and perhaps never was is no sign that the store went back.
#[test]
fn what_a_journal_only_intends_is_not_missed() {
    let world = world();
    let before = fs::read(store(&world)).expect("a store");
    let marks = fs::read(world.keys().join("keys.high-water")).expect("marks");
    let old = fs::read(world.path("keys.journal")).expect("a journal");
    world.succeeds(&["keys", "rotate"]);
    let copies = keyfold_store::read_records(&world.path("keys.journal")).expect("a journal").copies;
    let newest = copies.iter().map(|copy| &copy.record).max_by_key(|record| record.key_id()).expect("a record");
    // A process that was killed before the store answered leaves this.
    for (file, content) in
        [(store(&world), before), (world.keys().join("keys.high-water"), marks), (world.path("keys.journal"), old)]
    {
        fs::write(file, content).expect("written");
    }
    keyfold_store::Journal::new(world.path("keys.journal")).expect("a folder").intend([newest]).expect("written");
    world.succeeds(&["keys", "verify", "--journal"]);
}

#[test]
fn a_missing_file_stays_a_problem_until_another_command_makes_it() {
    let world = audited();
    let (marks, trail, anchors) =
        (world.keys().join("keys.high-water"), world.keys().join("audit.jsonl"), world.keys().join("anchors.jsonl"));
    // Nothing was recorded yet: somebody says so by the command that the advice names.
    for _ in 0..2 {
        let found = doctor(&world, &[]);
        found.ends(1).says("files", "audit", "problem", &["audit.jsonl", "so are its anchors", "keys list begins it"]);
        found.says("keyring", "keyring", "note", &["not opened"]).says("store", "store", "note", &["opens"]);
        assert!(!trail.exists() && !anchors.exists(), "doctor made a file");
    }
    world.succeeds(&["keys", "list"]);
    doctor(&world, &[]).ends(0).says("keyring", "keys", "note", &["verified under a trusted root"]);
    for (file, subject, name, texts) in [
        (&marks, "store", "high-water", ["is missing", "keys verify --journal", "keys list makes it"]),
        (&anchors, "files", "anchors", ["anchors.jsonl", "audit verify --anchors FILE", "keys list begins others"]),
        (
            &trail,
            "files",
            "audit",
            ["audit.jsonl is missing, though its anchors are there", "put it back", "keys list"],
        ),
    ] {
        let kept = fs::read(file).expect("a file");
        fs::remove_file(file).expect("removed");
        for _ in 0..2 {
            doctor(&world, &[]).ends(1).says(subject, name, "problem", &texts);
            assert!(!file.exists(), "doctor made {}", file.display());
        }
        world.succeeds(&["keys", "list"]);
        assert!(file.exists(), "keys list did not make {}", file.display());
        doctor(&world, &[]).ends(0);
        fs::write(file, kept).expect("written");
    }
    fs::remove_file(world.keys().join("keys.high-water")).expect("removed");
    let text = world.run(&["doctor", "--config", common::argument(&world.config())]).expect(1, &[]);
    assert!(text.stdout_text().contains("store: SOMETHING MUST BE DONE"), "{}", text.stdout_text());
}

/// A process that is killed at the wrong moment leaves the same as somebody who takes the file away.
#[test]
fn an_audit_file_is_missing_though_others_were_put_aside() {
    let world = audited();
    world.succeeds(&["keys", "list"]);
    let trail = world.keys().join("audit.jsonl");
    fs::rename(&trail, trail.with_extension("jsonl.000001")).expect("renamed");
    for _ in 0..2 {
        let texts = [
            "audit.jsonl is missing, though files that were put aside are there",
            "a process ended",
            "put it back",
            "keys list begins the next file",
        ];
        let found = doctor(&world, &[]);
        found.ends(1).says("files", "audit", "problem", &texts).says("keyring", "keyring", "note", &["not opened"]);
        assert!(!trail.exists(), "doctor made a file");
    }
    world.succeeds(&["keys", "list"]);
    doctor(&world, &[]).ends(0);
}

#[test]
fn what_cannot_be_looked_at_is_not_called_missing() {
    let world = world();
    let locked = world.keys().join("locked");
    fs::create_dir(&locked).expect("a folder");
    fs::rename(world.path("keys.journal"), locked.join("keys.journal")).expect("renamed");
    fs::rename(world.keys().join("keys.high-water"), locked.join("keys.high-water")).expect("renamed");
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config =
        config.replace("file:../data/", "file:locked/").replace("\"keys.high-water", "\"locked/keys.high-water");
    fs::write(world.config(), config).expect("written");
    doctor(&world, &[]).ends(0);
    let mode = |mode| fs::set_permissions(&locked, fs::Permissions::from_mode(mode)).expect("permissions");
    mode(0);
    let run = unprivileged(&world, &["doctor", "--json", "--config", common::argument(&world.config())]);
    mode(0o700);
    let Some(run) = run else { return };
    let found = found(run);
    found
        .ends(1)
        .says("files", "missing-files", "problem", &["locked/keys.high-water", "Permission denied", "run doctor as"])
        .says("store", "journal", "problem", &["locked/keys.journal", "Permission denied", "run doctor as"])
        .says("keyring", "keyring", "problem", &["does not open", "locked/keys.high-water"]);
    assert!(
        !found.output.contains("keys list makes it") && !found.output.contains("makes it anew"),
        "{}",
        found.output
    );
}

#[test]
fn a_missing_journal_is_a_problem() {
    let world = world();
    doctor(&world, &[]).ends(0);
    fs::remove_file(world.path("keys.journal")).expect("removed");
    doctor(&world, &[]).ends(1).says("store", "journal", "problem", &["no key is made", "keys journal"]);
    assert!(!world.path("keys.journal").exists());
}

#[test]
fn a_damaged_journal_is_a_problem() {
    let world = world();
    let whole = world.read("keys.journal");
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
    let mut flipped = whole.clone();
    flipped[ends[1] + 30] ^= 1;
    fs::remove_file(world.path("keys.journal.lock")).expect("removed");
    world.write("keys.journal", flipped);
    doctor(&world, &[]).ends(1).says("store", "journal", "problem", &["is damaged", "line 3", "keys journal"]);
    assert!(!world.path("keys.journal.lock").exists(), "a check-up made a file");
    // What a crash cuts off is none.
    world.write("keys.journal", &whole[..whole.len() - 20]);
    doctor(&world, &[]).ends(0);
}

#[test]
fn every_key_record_is_looked_at() {
    let world = World::new();
    world.protect(&["--scope", "clinic-7"]);
    let keys = world.succeeds(&["keys", "list", "--json"]).json_lines().len();
    let all = format!("{keys} key records were verified");
    doctor(&world, &[]).ends(0).says("keyring", "keys", "note", &[&all]);
    let key = active(&world, "data");
    let database = rusqlite::Connection::open(store(&world)).expect("a store");
    let id = data_encoding::HEXLOWER.decode(key.as_bytes()).expect("a key ID");
    let select = "SELECT record FROM records WHERE key_id = ?1";
    let mut record: Vec<u8> = database.query_row(select, [&id], |row| row.get(0)).expect("a record");
    *record.last_mut().expect("a MAC") ^= 1;
    database.execute("UPDATE records SET record = ?1 WHERE key_id = ?2", (&record, &id)).expect("changed");
    drop(database);
    doctor(&world, &[]).ends(1).says(
        "keyring",
        "keys",
        "problem",
        &[&key, "1 key record is not vouched for", "tampering"],
    );
    let run = world.run(&["keys", "verify"]).expect(KEY, &[]);
    let text = run.stdout_text();
    assert!(text.contains(&format!("NOT VOUCHED FOR: {key}")) && text.contains("1 record that no trusted"), "{text}");
}

/// Whoever has a root that leaked has it vouch for one of his own, in a copy, and plants that.
#[test]
fn a_root_that_a_replaced_one_vouches_for_is_not_to_be_pinned() {
    let world = World::new();
    world.protect(&[]);
    let kept = ["keys.db", "keys.high-water"].map(|file| (world.keys().join(file), world.path(file)));
    let copy = |from: &PathBuf, to: &PathBuf| {
        fs::copy(from, to).expect("copied");
    };
    kept.iter().for_each(|(file, aside)| copy(file, aside));
    world.succeeds(&["keys", "rotate"]);
    world.succeeds(&["keys", "rotate"]);
    let planted = world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
    copy(&store(&world), &world.path("evil.db"));
    kept.iter().for_each(|(file, aside)| copy(aside, file));
    let rotated = world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
    doctor(&world, &[]).ends(0).says("keyring", "root-pins", "warning", &["if it was rotated on purpose"]);
    let pin = rotated[0]["root_pin"].as_str().expect("a pin");
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config = config.replace("root_pins = [", &format!("root_pins = [\"{pin}\", "));
    fs::write(world.config(), config).expect("written");
    assert!(doctor(&world, &[]).ends(0).about("keyring", "root-pins").is_empty());
    let database = rusqlite::Connection::open(store(&world)).expect("a store");
    database.execute("ATTACH ?1 AS evil", [world.path("evil.db").to_str()]).expect("attached");
    let plant = "INSERT INTO records SELECT * FROM evil.records WHERE class = 1 ORDER BY generation DESC LIMIT 1";
    assert_eq!(database.execute(plant, []).expect("planted"), 1);
    drop(database);
    let planted = planted[0]["new"].as_str().expect("a key ID");
    let says = [planted, "which another one had replaced", "do not pin it", "kek-compromised.md"];
    doctor(&world, &[]).ends(1).says("keyring", "root-pins", "problem", &says);
}

/// Roots that were replaced are told from records that somebody has touched.
#[test]
fn a_retired_root_needs_nothing_and_says_so() {
    let world = World::new();
    world.protect(&[]);
    let old = active(&world, "root");
    let rotated = world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
    let pin = rotated[0]["root_pin"].as_str().expect("a pin");
    world.succeeds(&["keys", "reparent"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let line = config.lines().find(|line| line.starts_with("root_pins")).expect("pins").to_owned();
    let change = |pins: String| fs::write(world.config(), config.replace(&line, &pins)).expect("written");
    change(format!("root_pins = [\"{pin}\"]"));
    let run = world.succeeds(&["keys", "verify"]);
    let text = run.stdout_text();
    assert!(text.contains("a trusted root vouches for each\n"), "{text}");
    assert!(text.contains(&format!("a retired root, for which nothing need be done: {old}")), "{text}");
    assert!(!text.contains("NOT VOUCHED FOR"), "{text}");
    let said = &world.succeeds(&["keys", "verify", "--json"]).json_lines()[0];
    let of_store = place(said, "store");
    assert_eq!((&of_store["good"], &of_store["refused"]), (&true.into(), &Value::Array(Vec::new())));
    assert_eq!(of_store["retired"][0]["key_id"], *old);
    doctor(&world, &[]).ends(0).says("keyring", "keys", "note", &["1 retired root", "no key needs it"]);
    // Neither pin: the new root and what is under it are another matter.
    change(format!("root_pins = [\"{:064}\"]", 0));
    doctor(&world, &[]).ends(1).says("keyring", "keys", "problem", &["not vouched for"]);
}

#[test]
fn in_production_a_set_up_that_the_report_finds_fault_with_is_a_warning() {
    const FOUND: [(&str, &str); 4] =
        [("files", "separation"), ("files", "audit"), ("store", "root-keks"), ("store", "journal")];
    let world = World::new();
    let found = doctor(&world, &["--strict"]);
    found.ends(0);
    for (subject, name) in FOUND {
        found.says(subject, name, "note", &[]);
    }
    fs::remove_dir_all(world.keys()).expect("removed");
    let made = common::keyfold().arg("init").arg(world.keys()).args(["--environment", "production"]).output();
    assert!(made.expect("it starts").status.success());
    let found = doctor(&world, &[]);
    found
        .ends(0)
        .says("files", "separation", "warning", &["KEK local", "in the folder of the key records"])
        .says("files", "audit", "warning", &["no [audit] section", "docs/AUDIT.md"])
        .says("store", "root-keks", "warning", &["KEK local alone", "docs/RECOVERY.md"])
        .says("store", "journal", "warning", &["no journal", "docs/BACKUP.md"]);
    doctor(&world, &["--strict"]).ends(1);
    // With what they advise they go, or say what is left: here the audit KEK is a file, and the anchors are missing.
    new_kek(&world, "audit.kek");
    configure(
        &world,
        "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\non_failure = \"count\"",
    );
    world.succeeds(&["keys", "list"]);
    doctor(&world, &[])
        .ends(0)
        .says("files", "audit", "warning", &["audit KEK audit is a file"])
        .says("files", "audit", "warning", &["on_failure is \"count\""])
        .says("files", "anchors", "warning", &["no anchors"]);
    // Nor does it speak of what anchors miss where there are none.
    for aside in [false, true] {
        let trail = world.keys().join("audit.jsonl");
        match aside {
            false => fs::remove_file(&trail).expect("removed"),
            true => fs::rename(&trail, trail.with_extension("jsonl.000001")).expect("renamed"),
        }
        let found = doctor(&world, &[]);
        found.ends(1).says("files", "audit", "problem", &["is missing", "put it back"]);
        let of_trail = found.about("files", "audit");
        assert!(!of_trail.iter().flatten().any(|text| text.contains("anchors")), "{of_trail:#?}");
        world.succeeds(&["keys", "list"]);
    }
}

/// Who cannot use the audit KEK needs somebody else to verify; who gets no answer repeats it.
#[cfg(feature = "vault")]
#[test]
fn an_outage_of_the_audit_kek_is_not_what_nobody_could_check() {
    use crate::common::{DATA, KMS};
    use crate::fake::{Behaviour, TOKEN, Transit};
    let world = audited();
    let server = Transit::start(Behaviour::default());
    crate::secret_file(&world, "token", TOKEN);
    let config = fs::read_to_string(world.config()).expect("the configuration");
    fs::write(world.config(), config.replace("local:audit.kek", &server.uri())).expect("written");
    world.protect(&[]);
    let config = world.config();
    let verify = ["audit", "verify", "--config", common::argument(&config)];
    world.run(&verify).expect(0, &[]);
    server.go_away();
    let said = world.run(&verify).expect(KMS, &[]);
    assert!(said.stdout_text().contains("since the audit KEK did not answer"), "{}", said.stdout_text());
    let json = world.run(&[&verify[..], &["--json"]].concat()).expect(KMS, &[]).json_lines();
    assert_eq!((&json[0]["unanswered"], &json[0]["authenticated"]), (&true.into(), &false.into()));
    // What is wrong with the files is so whether or not it answers.
    let trail = world.keys().join("audit.jsonl");
    let text = fs::read_to_string(&trail).expect("the trail");
    let cut = text.trim_end().rfind('\n').expect("lines") + 1;
    fs::write(&trail, &text[..cut]).expect("written");
    world.run(&verify).expect(DATA, &[]);
    // Whose KEK file is not here is not told to wait.
    fs::write(&trail, text).expect("written");
    let moved = fs::read_to_string(world.config()).expect("the configuration").replace(&server.uri(), "local:gone.kek");
    fs::write(world.config(), moved).expect("written");
    world.run(&verify).expect(KEY, &[]);
}
