//! Journal, backup and restore by the command, as docs/BACKUP.md describes them: what is lost, and what is not.

use crate::common::{self, CANARY, KEY, PATIENTS, POLICY, STORAGE, USAGE, World, argument, contains};
use keyfold::{KeyClass, Record};
use rusqlite::Connection;
use std::fs;
use std::path::PathBuf;

/// A keyring with a journal on another disk.
fn world() -> World {
    let world = World::new();
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let config = config.replace("[store]\n", "[store]\njournal = \"file:../data/keys.journal\"\n");
    fs::write(world.config(), config).expect("written");
    world
}

fn store(world: &World) -> PathBuf {
    world.keys().join("keys.db")
}

/// What an administrator does who copies the store with every process stopped.
fn copy_store(world: &World) -> Vec<u8> {
    assert!(!world.keys().join("keys.db-wal").exists(), "a process has it open");
    fs::read(store(world)).expect("a store")
}

fn key_ids(sealed: &str) -> String {
    let cells = sealed.split([',', '\n']).filter(|cell| cell.starts_with("kf1."));
    let mut lines = String::new();
    for cell in cells {
        let shown = common::run(common::keyfold().args(["inspect", "--json", cell]), b"").expect(0, &[]);
        lines.push_str(shown.json_lines()[0]["key_id"].as_str().expect("a key ID"));
        lines.push_str("\t1\n");
    }
    lines
}

#[test]
fn a_day_old_store_and_the_journal_lose_nothing() {
    let world = world();
    world.refuses(&["keys", "rotate"], STORAGE, &["the journal is missing", "keys journal"]);
    let made = world.succeeds(&["keys", "journal", "--json"]).json_lines();
    assert_eq!(made[0]["made"], true);
    assert_eq!(world.succeeds(&["keys", "journal", "--json"]).json_lines()[0]["made"], false);
    let day_old = copy_store(&world);
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    world.succeeds(&["protect", "in.csv", "--output", "newer.csv", "--scope", "clinic-7"]);
    world.succeeds(&["keys", "verify", "--journal"]);
    let before = world.succeeds(&["keys", "list", "--json"]).json_lines();
    let generation = before.iter().filter_map(|key| key["generation"].as_u64()).max();

    // The disk is lost, and yesterday's copy put back: it is noticed, and restored from the journal.
    fs::write(store(&world), &day_old).expect("written");
    world.write("ids", key_ids(&(world.text("sealed.csv") + &world.text("newer.csv"))));
    let found = world.run(&["keys", "verify", "--key-ids", "ids", "--json"]).expect(KEY, &[]);
    assert_eq!(found.json_lines()[0]["data"]["missing"].as_array().map(Vec::len), Some(2));
    let behind = world.run(&["keys", "verify", "--journal"]).expect(KEY, &[]);
    assert!(behind.stdout_text().contains("THE STORE IS BEHIND: it lacks "), "{}", behind.stdout_text());
    let dry = world.succeeds(&["keys", "restore", "--dry-run", "--json", "--key-ids", "ids"]).json_lines();
    assert_eq!((&dry[0]["restored"], dry[0]["lost"].as_array().map(Vec::len)), (&false.into(), Some(0)));
    assert_eq!(copy_store(&world), day_old, "a dry run changed the store");
    let restored = world.succeeds(&["keys", "restore", "--json", "--key-ids", "ids"]).json_lines();
    assert_eq!((&restored[0]["restored"], &restored[0]["old_high_water"]), (&true.into(), &serde_json::Value::Null));
    for file in ["sealed.csv", "newer.csv"] {
        world.succeeds(&["reveal", file, "--output", "out.csv", "--scope", "clinic-7", "--force"]);
        assert_eq!(world.text("out.csv"), PATIENTS);
    }
    assert_eq!(world.succeeds(&["keys", "list", "--json"]).json_lines(), before);
    world.succeeds(&["keys", "verify", "--journal", "--key-ids", "ids"]);
    let next = world.succeeds(&["keys", "rotate", "--json"]).json_lines()[0]["generation"].as_u64();
    assert!(next > generation, "a generation was used again");
    assert_eq!(world.succeeds(&["keys", "restore", "--json"]).json_lines()[0]["records"], 0, "once more is nothing");
}

#[test]
fn a_lost_machine_comes_back_from_backup_and_journal_in_a_new_store() {
    let world = world();
    world.succeeds(&["keys", "journal"]);
    world.protect(&["--scope", "clinic-7"]);
    let told = world.succeeds(&["keys", "backup", "monday"]).stderr;
    assert!(told.contains("5 key records"), "{told}");
    world.refuses(&["keys", "backup", "monday"], USAGE, &["already exists"]);
    world.refuses(&["keys", "backup", argument(&store(&world)), "--force"], USAGE, &["file of the keyring"]);
    world.refuses(&["keys", "backup", "policy.toml", "--force"], USAGE, &["is not a backup"]);
    world.succeeds(&["keys", "backup", "monday", "--force"]);
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    world.succeeds(&["protect", "in.csv", "--output", "newer.csv", "--scope", "clinic-7"]);
    let report = world.succeeds(&["keys", "verify", "--backup", "monday", "--json"]).json_lines();
    assert_eq!(report[0]["checked"][1]["behind"].as_array().map(Vec::len), Some(2), "one is new, one was retired");

    // A new machine has the configuration, the KEK, and these two files.
    for file in ["keys.db", "keys.high-water", "keys.high-water.lock"] {
        fs::remove_file(world.keys().join(file)).expect("removed");
    }
    world.run(&["keys", "restore", "--from", "monday"]).expect(STORAGE, &["the key store is missing", "--make-store"]);
    for arguments in [&["--dry-run"][..], &["--make-store", "--dry-run"]] {
        let dry =
            world.succeeds(&[&["keys", "restore", "--json", "--from", "monday"], arguments].concat()).json_lines();
        assert_eq!((&dry[0]["store_missing"], &dry[0]["keys"]), (&true.into(), &6.into()));
    }
    world.write("ids", format!("{:048x}\n", 1));
    let lossy = ["keys", "restore", "--from", "monday", "--make-store", "--key-ids", "ids"];
    world.run(&lossy).expect(KEY, &["--accept-loss"]);
    assert!(!store(&world).exists(), "a restore that was refused left a store");
    world.succeeds(&["keys", "restore", "--from", "monday", "--make-store"]);
    for file in ["sealed.csv", "newer.csv"] {
        world.succeeds(&["reveal", file, "--output", "out.csv", "--scope", "clinic-7", "--force"]);
    }
    world.succeeds(&["keys", "verify", "--journal", "--backup", "monday"]);
    // docs/BACKUP.md, A damaged record: nothing of that store counts.
    let damage = "UPDATE records SET record = zeroblob(length(record)) WHERE class = 2";
    Connection::open(store(&world)).and_then(|store| store.execute(damage, [])).expect("damaged");
    let restore = ["keys", "restore", "--from", "monday", "--make-store"];
    world.refuses(&restore, STORAGE, &["damaged", "docs/BACKUP.md"]);
    fs::create_dir(world.path("aside")).expect("a folder");
    for file in ["keys.db", "keys.db-wal", "keys.db-shm"] {
        let file = world.keys().join(file);
        if file.exists() {
            fs::rename(&file, world.path("aside").join(file.file_name().expect("a name"))).expect("put aside");
        }
    }
    world.succeeds(&restore);
    for file in ["sealed.csv", "newer.csv"] {
        world.succeeds(&["reveal", file, "--output", "out.csv", "--scope", "clinic-7", "--force"]);
    }
    // A backup that was cut off restores nothing.
    let whole = world.read("monday");
    world.write("monday", &whole[..whole.len() - 40]);
    world.refuses(&["keys", "restore", "--from", "monday"], STORAGE, &["cut off", "line 7"]);
}

#[test]
fn without_the_journal_the_missing_keys_are_named_and_the_loss_must_be_accepted() {
    let world = World::new();
    world.protect(&["--scope", "clinic-7"]);
    let day_old = copy_store(&world);
    let kept = key_ids(&world.text("sealed.csv"));
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    world.succeeds(&["protect", "in.csv", "--output", "newer.csv", "--scope", "clinic-7"]);
    let lost: Vec<_> =
        key_ids(&world.text("newer.csv")).lines().filter(|id| !kept.contains(id)).map(String::from).collect();
    let lost = lost[0].split('\t').next().expect("a key ID").to_owned();
    world.write("ids", kept + &format!("{lost}\t3\n"));
    fs::write(store(&world), &day_old).expect("written");
    // The key that was retired since is one that this machine saw, so sealing is refused.
    world.run(&["protect", "in.csv", "--output", "x.csv", "--scope", "clinic-7"]).expect(KEY, &["rolled back"]);

    let before = fs::read(world.keys().join("keys.high-water")).expect("a file");
    let arguments = ["keys", "restore", "--key-ids", "ids", "--json"];
    let refused = world.run(&arguments).expect(KEY, &["--accept-loss"]).json_lines();
    let told = refused[0]["lost"].as_array().expect("a list");
    let missing: Vec<_> = told.iter().filter(|lost| lost["in_data"] == true).collect();
    assert_eq!((missing.len(), missing[0]["key_id"].as_str()), (1, Some(&*lost)), "exactly the missing key");
    assert!(
        told.iter()
            .any(|lost| lost["first_generation"] == lost["last_generation"] && !lost["first_generation"].is_null())
    );
    assert!(told.iter().any(|lost| lost["state"] == "deactivated" && lost["restored_state"] == "active"), "{told:?}");
    assert_eq!(copy_store(&world), day_old, "it was refused, and changed something");
    assert_eq!(fs::read(world.keys().join("keys.high-water")).expect("a file"), before);

    // Where nobody gets the result, the message has what is nowhere else any more.
    let accepted = [&arguments[..], &["--accept-loss"]].concat();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux");
    let output = world.command(&accepted).env("KEYFOLD_LOG", "error").stdout(full).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(STORAGE), "{said}");
    for says in [
        "the records were restored",
        "keys.high-water.1; LOST: ",
        &format!("; LOST: {lost}, under which there is data"),
        "this machine saw it deactivated",
    ] {
        assert!(said.contains(says), "{says:?}: {said}");
    }
    fs::write(store(&world), &day_old).expect("written");
    fs::rename(world.keys().join("keys.high-water.1"), world.keys().join("keys.high-water")).expect("as before");

    let done = world.succeeds(&accepted).json_lines();
    let old = done[0]["old_high_water"].as_str().expect("a path");
    assert!(old.ends_with("keys.high-water.1"), "{old}");
    assert!(fs::read(old).expect("kept").starts_with(&before));
    world.protect(&["--scope", "clinic-7"]);
    let lost_generation = u64::from_str_radix(&lost[..8], 16).expect("a generation");
    let next =
        world.succeeds(&["keys", "rotate", "--scope", "clinic-7", "--json"]).json_lines()[0]["generation"].as_u64();
    assert!(next > Some(lost_generation), "a generation was used again");
    world.run(&["reveal", "newer.csv", "--output", "x.csv", "--scope", "clinic-7"]).expect(KEY, &["300"]);
    world.succeeds(&["reveal", "sealed.csv", "--output", "x.csv", "--scope", "clinic-7"]);
}

#[test]
fn a_destruction_that_failed_and_was_taken_back_is_not_made_up_for() {
    let world = world();
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config + "\n[shred]\nwaiting = \"none\"\n").expect("written");
    world.succeeds(&["keys", "journal"]);
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "shred", "--scope", "clinic-7"]);
    let files = [store(&world), world.path("keys.journal"), world.keys().join("keys.high-water")];
    let before = files.clone().map(|file| fs::read(file).expect("read"));
    let finish = [
        "keys",
        "shred",
        "--scope",
        "clinic-7",
        "--policy",
        "policy.toml",
        "--finish",
        "--yes",
        "--certificate",
        "c.json",
    ];
    world.succeeds(&finish);
    let stored = keyfold_store::read_records(&files[1]).expect("a journal").copies;
    let tombstones =
        stored.iter().map(|copy| &copy.record).filter(|record| record.state() == keyfold::KeyState::Destroyed);
    // The same, had the store failed: the journal has the tombstones, and nothing says what became of them.
    files.iter().zip(before).for_each(|(file, content)| fs::write(file, content).expect("written"));
    keyfold_store::Journal::new(&files[1]).expect("a folder").intend(tombstones).expect("written");
    let refused = world.run(&["keys", "restore", "--json"]).expect(KEY, &["--accept-destruction"]).json_lines();
    assert_eq!(refused[0]["destroyed"][0]["evidence"], "intent", "{refused:?}");

    world.succeeds(&["keys", "shred", "--scope", "clinic-7", "--cancel"]);
    world.succeeds(&["keys", "hold", "--scope", "clinic-7", "--reason", "case 7"]);
    world.succeeds(&["keys", "journal"]);
    let restored = world.succeeds(&["keys", "restore", "--json"]).json_lines();
    assert_eq!((&restored[0]["records"], &restored[0]["tombstones"]), (&0.into(), &0.into()));
    world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--scope", "clinic-7"]);
}

#[test]
fn a_mark_alone_destroys_nothing_without_consent() {
    let world = world();
    world.succeeds(&["keys", "journal"]);
    world.protect(&["--scope", "clinic-7"]);
    let key_id: keyfold::wire::KeyId =
        key_ids(&world.text("sealed.csv")).split('\t').next().expect("a key ID").parse().expect("a key ID");
    let lineage = keyfold_open::Records::open(&world.config(), &[], &keyfold_open::Options::default());
    let lineage = lineage.expect("it opens").config.keyring.lineage;
    let file = keyfold_store::FileHighWater::open(world.keys().join("keys.high-water")).expect("opened");
    let mark = keyfold::HighWaterMark { sequence: 9, state: keyfold::KeyState::Destroyed };
    keyfold::HighWater::raise(&file, lineage, 1, Some((key_id, mark))).expect("written");
    let before = copy_store(&world);
    let told = world.run(&["keys", "restore"]).expect(KEY, &["--accept-destruction"]);
    let told = told.stdout_text();
    assert!(told.contains("destroys") && told.contains(&key_id.to_string()), "{told}");
    assert_eq!(copy_store(&world), before, "it was refused, and changed something");
    let done = world.succeeds(&["keys", "restore", "--accept-destruction", "--json"]).json_lines();
    assert_eq!((&done[0]["destroyed"][0]["evidence"], &done[0]["restored"]), (&"high-water".into(), &true.into()));
}

#[test]
fn records_of_another_keyring_are_counted_and_are_no_restore() {
    let (ours, theirs) = (world(), World::new());
    ours.succeeds(&["keys", "journal"]);
    for world in [&ours, &theirs] {
        world.succeeds(&["keys", "backup", "monday"]);
    }
    let other = theirs.path("monday");
    ours.refuses(&["keys", "restore", "--from", argument(&other)], KEY, &["no record of this keyring", "monday"]);
    let all = |world: &World| keyfold_store::read_records(&world.path("monday")).expect("a backup").copies;
    let mut both = keyfold_store::BackupWriter::new(Vec::new()).expect("memory");
    for copy in all(&ours).iter().chain(&all(&theirs)) {
        both.add(&copy.record).expect("memory");
    }
    ours.write("both", both.finish().expect("memory").0);
    let told = ours.succeeds(&["keys", "restore", "--from", "both", "--json"]).json_lines();
    assert_eq!(told[0]["other_keyrings"][0]["records"], all(&theirs).len());
    assert!(told[0]["other_keyrings"][0]["file"].as_str().is_some_and(|file| file.ends_with("both")));
}

/// Whoever can write a backup can have it hold any number of records: none counts, ten are named, and all in JSON.
#[test]
fn forged_records_of_a_backup_count_for_nothing_and_are_not_all_printed() {
    let world = World::new();
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "backup", "monday"]);
    let found = keyfold_store::read_records(&world.path("monday")).expect("records");
    let genuine = || found.copies.iter().map(|copy| &copy.record);
    let of = |class| genuine().find(|record| record.class() == class).expect("a key");
    let mut forged = keyfold_store::BackupWriter::new(Vec::new()).expect("memory");
    for record in genuine() {
        forged.add(record).expect("memory");
    }
    // Data keys that nobody has made, and roots that are retired and that nobody needs.
    for (record, count, state) in [(of(KeyClass::Data), 25, 2), (of(KeyClass::Root), 13, 3)] {
        for generation in 1000..1000 + count {
            let mut bytes = record.as_bytes().to_vec();
            bytes[5] = state;
            bytes[6..10].copy_from_slice(&u32::to_be_bytes(generation));
            if record.class() == KeyClass::Root {
                // It is its own authenticator.
                bytes.copy_within(6..30, 62);
            }
            forged.add(&Record::parse(&bytes).expect("a record")).expect("memory");
        }
    }
    world.write("forged", forged.finish().expect("memory").0);
    let verify = ["keys", "verify", "--backup", "forged"];
    let run = world.run(&verify).expect(KEY, &[]);
    let text = run.stdout_text();
    assert!(text.contains("and 25 records that no trusted root vouches for"), "{text}");
    for (what, more) in
        [("NOT VOUCHED FOR", "and 15 more, which --json names"), ("a retired root", "and 3 more, which")]
    {
        assert_eq!(text.matches(what).count(), 10, "{text}");
        assert_eq!(text.matches(more).count(), 1, "{text}");
    }
    assert!(!text.contains("THE STORE IS BEHIND"), "{text}");
    let json = world.run(&[&verify[..], &["--json"]].concat()).expect(KEY, &[]).json_lines();
    let place = &json[0]["checked"][1];
    let counts = ["refused", "retired", "ahead"].map(|name| place[name].as_array().map(Vec::len));
    assert_eq!(counts, [Some(25), Some(13), Some(0)]);
    let run = world.succeeds(&["keys", "restore", "--from", "forged", "--dry-run"]);
    let told = run.stdout_text();
    assert_eq!(told.matches("left out: ").count(), 10, "{told}");
    assert_eq!(told.matches("and 28 more, which --json names").count(), 1, "{told}");
}

/// Turns a bit over in the MAC of a record of the store.
fn damage(world: &World, key_id: &str) {
    let database = Connection::open(store(world)).expect("a store");
    let id = data_encoding::HEXLOWER.decode(key_id.as_bytes()).expect("a key ID");
    let select = "SELECT record FROM records WHERE key_id = ?1";
    let mut record: Vec<u8> = database.query_row(select, [&id], |row| row.get(0)).expect("a record");
    let at = record.len() - 5;
    record[at] ^= 1;
    database.execute("UPDATE records SET record = ?1 WHERE key_id = ?2", (&record, &id)).expect("changed");
}

#[test]
fn a_damaged_record_is_replaced_by_a_good_copy_and_named() {
    for journal in [false, true] {
        let world = if journal { world() } else { World::new() };
        if journal {
            world.succeeds(&["keys", "journal"]);
        }
        world.protect(&["--scope", "clinic-7"]);
        world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
        world.succeeds(&["keys", "backup", "monday"]);
        let from: &[&str] = if journal { &[] } else { &["--from", "monday"] };
        let keys = world.succeeds(&["keys", "list", "--json"]).json_lines();
        let classes: std::collections::BTreeSet<_> = keys.iter().map(|key| key["class"].as_str()).collect();
        assert_eq!(classes.len(), 3, "{classes:?}");
        for key in &keys {
            let id = key["key_id"].as_str().expect("a key ID");
            damage(&world, id);
            world.run(&["keys", "verify"]).expect(KEY, &[]);
            let told = world.succeeds(&[&["keys", "restore", "--json"], from].concat()).json_lines();
            assert_eq!((&told[0]["restored"], &told[0]["records"]), (&true.into(), &1.into()), "{key}: {told:?}");
            assert_eq!((&told[0]["refused"][0]["key_id"], &told[0]["displaced"][0]), (&id.into(), &id.into()));
            world.succeeds(if journal { &["keys", "verify", "--journal"] } else { &["keys", "verify"] });
        }
        assert_eq!(world.succeeds(&["keys", "list", "--json"]).json_lines(), keys);
        damage(&world, keys[0]["key_id"].as_str().expect("a key ID"));
        let run = world.succeeds(&[&["keys", "restore"], from].concat());
        let told = run.stdout_text();
        assert!(told.contains("left out: ") && told.contains("for which nobody vouches, by a good copy"), "{told}");
        world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv", "--scope", "clinic-7"]);
    }
}

#[test]
fn an_older_copy_of_a_damaged_record_is_a_loss_to_accept() {
    let world = World::new();
    world.protect(&["--scope", "clinic-7"]);
    world.succeeds(&["keys", "backup", "monday"]);
    world.succeeds(&["keys", "rotate", "--scope", "clinic-7"]);
    let keys = world.succeeds(&["keys", "list", "--json"]).json_lines();
    let old = keys.iter().find(|key| key["state"] == "deactivated").expect("a key that was rotated");
    let old = old["key_id"].as_str().expect("a key ID").to_owned();
    damage(&world, &old);
    let before = copy_store(&world);
    let restore = ["keys", "restore", "--json", "--from", "monday"];
    let told = world.run(&restore).expect(KEY, &["--accept-loss"]).json_lines();
    let lost = told[0]["lost"].as_array().expect("a list");
    let lost = lost.iter().find(|lost| !lost["unvouched_state"].is_null()).expect("named");
    assert_eq!((&lost["key_id"], &lost["restored_sequence"]), (&old.clone().into(), &1.into()));
    assert_eq!((&lost["unvouched_state"], &lost["unvouched_sequence"]), (&"deactivated".into(), &2.into()));
    assert_eq!(copy_store(&world), before, "it was refused, and changed something");
    let text = world.run(&restore[..2].iter().chain(&restore[3..]).copied().collect::<Vec<_>>()).expect(KEY, &[]);
    assert!(text.stdout_text().contains("for which nobody vouches, as it is damaged"), "{}", text.stdout_text());
    world.succeeds(&[&restore[..], &["--accept-loss"]].concat());
    world.succeeds(&["keys", "verify"]);
}

#[test]
fn a_root_that_was_replaced_is_not_lost_and_its_backups_are_told_apart() {
    let world = world();
    world.succeeds(&["keys", "journal"]);
    world.protect(&[]);
    world.succeeds(&["keys", "backup", "old"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    let pins = config.lines().find(|line| line.starts_with("root_pins")).expect("pins").to_owned();
    let rotated = world.succeeds(&["keys", "rotate", "--root", "--json"]).json_lines();
    let pin = rotated[0]["root_pin"].as_str().expect("a pin");
    let both = pins.replace(']', &format!(", \"{pin}\"]"));
    let set = |pins: &str| {
        let now = fs::read_to_string(world.config()).expect("a configuration");
        let line = now.lines().find(|line| line.starts_with("root_pins")).expect("pins").to_owned();
        fs::write(world.config(), now.replace(&line, pins)).expect("written");
    };
    set(&both);
    world.succeeds(&["keys", "reparent"]);
    world.succeeds(&["keys", "backup", "new"]);
    set(&format!("root_pins = [\"{pin}\"]"));
    for arguments in [&["--dry-run"][..], &[], &["--from", "old"]] {
        let told = world.succeeds(&[&["keys", "restore", "--json"], arguments].concat()).json_lines();
        assert_eq!((told[0]["lost"].as_array().map(Vec::len), &told[0]["records"]), (Some(0), &0.into()), "{told:?}");
        assert!(told[0]["retired"][0]["key_id"].as_str().is_some_and(|id| id.starts_with("00000001")), "{told:?}");
        assert_eq!(told[0]["refused"].as_array().map(Vec::len), Some(0), "{told:?}");
    }
    let run = world.succeeds(&["keys", "restore", "--dry-run"]);
    let told = run.stdout_text();
    assert!(told.contains("a retired root, for which nothing need be done: 00000001"), "{told}");
    assert!(!told.contains("LOST") && !told.contains("left out"), "{told}");

    // A backup from before is one finding, with its name; the other places are told of.
    let verify = ["keys", "verify", "--backup", "old", "--backup", "new", "--journal"];
    let run = world.run(&verify).expect(KEY, &["old: no root that the configuration trusts", "older root"]);
    let text = run.stdout_text();
    assert!(text.contains("old: CANNOT BE CHECKED: ") && text.contains("new: "), "{text}");
    assert!(text.contains("keys.journal: "), "{text}");
    let said = world.run(&[&verify[..], &["--json"]].concat()).expect(KEY, &[]).json_lines();
    let places = said[0]["checked"].as_array().expect("places");
    let good: Vec<_> = places.iter().map(|place| (place["good"] == true, place["error"].is_null())).collect();
    assert_eq!(good, [(true, true), (false, false), (true, true), (true, true), (true, true)], "{said:?}");
    // As docs/BACKUP.md says.
    set(&both);
    world.succeeds(&verify);
}

// docs/BACKUP.md, A damaged journal
#[test]
fn a_damaged_journal_takes_no_key_and_its_good_lines_are_a_journal() {
    let world = world();
    world.succeeds(&["keys", "journal"]);
    world.protect(&[]);
    world.succeeds(&["keys", "rotate"]);
    let whole = world.read("keys.journal");
    let ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    let flipped = |at: usize| {
        let mut journal = whole.clone();
        journal[at] ^= 1;
        world.write("keys.journal", journal);
    };
    // In line 1, in the middle, and at the end of the line before the last.
    for at in [3, ends[4] + 20, ends[ends.len() - 2] - 3] {
        flipped(at);
        for command in [&["keys", "rotate"][..], &["protect", "in.csv", "--output", "x.csv", "--scope", "new"]] {
            world.refuses(command, STORAGE, &["the journal is damaged", "docs/BACKUP.md", "A damaged journal"]);
        }
    }
    flipped(ends[4] + 20);
    world.refuses(&["keys", "restore"], STORAGE, &["A damaged journal", "line 6"]);
    world.refuses(&["keys", "journal"], STORAGE, &["A damaged journal", "line 6"]);
    // Its first lines, up to the one that is damaged, with the store; and without it they make one.
    world.write("keys.journal", &whole[..ends[4]]);
    world.succeeds(&["keys", "restore", "--dry-run"]);
    world.succeeds(&["keys", "journal"]);
    world.succeeds(&["keys", "verify", "--journal"]);
    fs::remove_file(world.path("keys.journal")).expect("put aside");
    world.succeeds(&["keys", "journal"]);
    world.succeeds(&["keys", "verify", "--journal"]);
    // What a crash cuts off is no damage.
    world.write("keys.journal", &whole[..whole.len() - 20]);
    let told = world.succeeds(&["keys", "rotate"]).stderr;
    assert!(told.contains("the last line of the journal was cut off"), "{told}");
    world.succeeds(&["keys", "journal"]);
    world.succeeds(&["keys", "verify", "--journal"]);
}

#[test]
fn what_is_wrong_with_arguments_and_files_changes_nothing() {
    let world = world();
    world.succeeds(&["keys", "journal"]);
    world.write("ids", "0123\n");
    world.refuses(&["keys", "verify", "--key-ids", "ids"], common::DATA, &["ids, line 1"]);
    world.refuses(&["keys", "restore", "--from", "absent"], STORAGE, &["missing"]);
    world.write("other", PATIENTS);
    world.refuses(&["keys", "restore", "--from", "other"], STORAGE, &["does not start like one"]);
    let journal = world.read("keys.journal");
    world.write("keys.journal", [&journal[..200], b"x", &journal[201..]].concat());
    world.refuses(&["keys", "restore"], STORAGE, &["line 2"]);
    // Of the store it is told all the same.
    let run = world.run(&["keys", "verify", "--journal"]).expect(STORAGE, &["line 2"]);
    let said = run.stdout_text();
    assert!(said.contains("store: 4 keys") && said.contains("keys.journal: CANNOT BE CHECKED"), "{said}");
    world.write("keys.journal", journal);
    // The journal is a file of the keyring.
    world.refuses(&["protect", "in.csv", "--output", "keys.journal", "--force"], USAGE, &["file of the keyring"]);
    let config = fs::read_to_string(world.config()).expect("a configuration");
    fs::write(world.config(), config.replace("file:../data/keys.journal", "keys.journal")).expect("written");
    world.refuses(&["keys", "rotate"], POLICY, &["file:FILE"]);
    assert!(!contains(&world.read("keys.journal"), CANARY.as_bytes()), "plaintext in the journal");
}
