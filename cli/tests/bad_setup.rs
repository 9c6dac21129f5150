//! Configurations, policies, key files and stores that are refused, and that nothing is changed by the attempt.

use crate::common::{KEY, KMS, POLICY, STORAGE, USAGE, World, argument, skip, snapshot};
use rusqlite::Connection;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

const PROTECT: [&str; 4] = ["protect", "in.csv", "--output", "out.csv"];
const REVEAL: [&str; 4] = ["reveal", "sealed.csv", "--output", "out.csv"];

impl World {
    #[track_caller]
    fn refuses_policy(&self, text: &str, code: i32, says: &[&str]) {
        self.write("bad.toml", text);
        for verb in ["protect", "reveal"] {
            self.refuses(&[verb, "in.csv", "--output", "out.csv", "--policy", "bad.toml"], code, says);
        }
    }

    /// Both directions are refused, and what is in the folder of the keys stays as it is.
    #[track_caller]
    fn refuses_keys(&self, code: i32, says: &[&str]) {
        let before = snapshot(&self.keys());
        self.refuses(&PROTECT, code, says);
        self.refuses(&REVEAL, code, says);
        let after = snapshot(&self.keys());
        // SQLite's own companions and the lock may come; nothing may go or change.
        for (path, content) in &before {
            assert!(after.get(path) == Some(content), "{} has changed", path.display());
        }
    }

    /// The database of the keys, written directly.
    fn database(&self) -> Connection {
        Connection::open(self.keys().join("keys.db")).expect("a database")
    }

    #[track_caller]
    fn edit(&self, sql: &str) {
        let changed = self.database().execute(sql, []).expect("the edit works");
        assert!(changed > 0, "{sql} changed nothing");
    }

    #[track_caller]
    fn rotate(&self) {
        self.succeeds(&["keys", "rotate"]);
    }
}

#[test]
fn policies_that_cannot_be_read() {
    let world = World::new();
    let arguments = |policy: &'static str| ["protect", "in.csv", "--output", "out.csv", "--policy", policy];
    world.refuses(&arguments("missing.toml"), STORAGE, &["missing.toml", "No such file"]);
    world.refuses(&arguments("."), POLICY, &["a configuration is a regular file"]);
    world.refuses(&arguments("/dev/zero"), POLICY, &["a configuration is a regular file"]);
    world.write("latin1.toml", b"# \xe1\nversion = 1\n");
    world.refuses(&arguments("latin1.toml"), POLICY, &["latin1.toml", "not UTF-8"]);
    fs::write(world.path("huge.toml"), " ".repeat(5 << 20)).expect("written");
    world.refuses(&arguments("huge.toml"), POLICY, &["huge.toml", "4 MiB"]);
    let config = ["protect", "in.csv", "--output", "out.csv", "--config", "missing/keyfold.toml"];
    world.refuses(&config, STORAGE, &["missing/keyfold.toml", "No such file"]);
}

#[test]
fn an_unreadable_policy() {
    let world = World::new();
    fs::set_permissions(world.path("policy.toml"), Permissions::from_mode(0o000)).expect("permissions");
    if fs::read(world.path("policy.toml")).is_ok() {
        skip("permissions do not bind this user (root)");
        return;
    }
    let run = world.run(&PROTECT).expect(STORAGE, &["policy.toml", "Permission denied"]);
    assert!(run.stdout.is_empty() && !world.path("out.csv").exists());
}

#[test]
fn policies_that_are_wrong_name_line_and_key() {
    let world = World::new();
    let cases: [(&str, &[&str]); 12] = [
        ("version = 1\n[fields.a\n", &["bad.toml:2"]),
        ("version = 2\n", &["bad.toml:1, version", "version 1"]),
        ("[fields.a]\n", &["bad.toml", "version"]),
        ("version = 1\n\n[fields.a]\ncolums = [\"name\"]\n", &["bad.toml:4, colums", "unknown field"]),
        ("version = 1\n[keks.local]\nuri = \"x\"\n", &["bad.toml:2", "unknown field"]),
        ("version = 1\n[fields.a]\ncolumns = \"name\"\n", &["bad.toml:3, columns"]),
        ("version = 1\n[fields.a]\ncolumns = [\"name\"]\n[fields.a]\n", &["bad.toml:4", "duplicate"]),
        ("version = 1\n[fields.a]\nidentifier = \"G\"\ncolumns = [\"name\"]\n", &["bad.toml:2", "bound to its row"]),
        ("version = 1\n[fields.a]\nidentifier = \"Z\"\nrow_binding = \"none\"\n", &["bad.toml:2", "A to R"]),
        ("version = 1\n[fields.a]\ntype = \"varchar\"\n", &["bad.toml:2", "type is one of"]),
        (
            "version = 1\n[fields.a]\nmode = \"deterministic\"\nrow_binding = \"name\"\n",
            &["bad.toml:2", "deterministic"],
        ),
        ("version = 1\n[fields.a]\nmode = \"rot13\"\n", &["bad.toml:3, mode", "rot13"]),
    ];
    for (text, says) in cases {
        world.refuses_policy(text, POLICY, &[says, &["111 Configuration"]].concat());
    }
    world.refuses_policy("version = 1\n", POLICY, &["names a CSV column"]);
    let taken = "version = 1\n[fields.a]\ncolumns = [\"name\"]\n[fields.b]\ncolumns = [\"name\"]\n";
    world.refuses_policy(taken, POLICY, &["two fields name the column \"name\""]);
    let loose =
        "version = 1\n[fields.a]\ncolumns = [\"name\"]\n[fields.b]\nrow_binding = \"name\"\ncolumns = [\"ssn\"]\n";
    world.refuses_policy(loose, POLICY, &["field b", "\"name\"", "must be deterministic"]);
    let context = "version = 1\n[fields.a]\ncolumns = [\"name\"]\nrequired_context = [\"tenant\"]\n";
    world.refuses_policy(context, POLICY, &["PolicyRefused", "tenant"]);
    world.write("bad.toml", "version = 1\n[fields.a]\npaths = [\"$.a[\"]\n");
    world.write("in.ndjson", "{}\n");
    let arguments = ["protect", "in.ndjson", "--output", "out", "--policy", "bad.toml"];
    world.refuses(&arguments, POLICY, &["path of \"a\""]);
}

#[test]
fn contexts_and_scopes_that_are_wrong() {
    let world = World::new();
    for pair in ["tenant", "=a", ""] {
        world.refuses(&[&PROTECT[..], &["--context", pair]].concat(), USAGE, &["KEY=VALUE"]);
    }
    world.refuses(
        &[&PROTECT[..], &["--context", "a=1", "--context", "a=2"]].concat(),
        USAGE,
        &["--context: ", "InvalidInput"],
    );
    world.refuses(&[&PROTECT[..], &["--context", "kf:row=1"]].concat(), USAGE, &["--context: ", "kf:"]);
    world.refuses(&[&PROTECT[..], &["--scope", ""]].concat(), USAGE, &["scope"]);
    let long = "x".repeat(1025);
    world.refuses(&[&PROTECT[..], &["--scope", &long]].concat(), USAGE, &["1024 bytes"]);
}

// Failure K6
#[test]
fn key_files_that_are_refused() {
    let world = World::new();
    world.protect(&[]);
    let kek = world.keys().join("local.kek");
    let good = fs::read_to_string(&kek).expect("the key file");
    let put = |text: &str| {
        let _ = fs::remove_file(&kek);
        fs::write(&kek, text).expect("written");
        fs::set_permissions(&kek, Permissions::from_mode(0o600)).expect("permissions");
    };
    for mode in [0o644, 0o640, 0o604, 0o660, 0o601] {
        fs::set_permissions(&kek, Permissions::from_mode(mode)).expect("permissions");
        world.refuses_keys(POLICY, &["local.kek", &format!("mode 0{mode:o}"), "chmod 600"]);
    }
    put(&good[..good.len() - 9]);
    world.refuses_keys(STORAGE, &["local.kek", "cut off"]);
    let swapped: String = good
        .chars()
        .map(|c| {
            if c == 'a' {
                'b'
            } else if c == 'b' {
                'a'
            } else {
                c
            }
        })
        .collect();
    put(&swapped.replace("keyfold-locbl", "keyfold-local"));
    world.refuses_keys(STORAGE, &["local.kek", "checksum does not fit"]);
    put("not a key\n");
    world.refuses_keys(POLICY, &["local.kek", "not a file that keyfold made"]);
    put(&good.replacen("kek-1", "kek-2", 1));
    world.refuses_keys(STORAGE, &["newer keyfold"]);
    fs::remove_file(&kek).expect("removed");
    world.refuses_keys(STORAGE, &["local.kek", "No such file"]);
    let elsewhere = world.path("elsewhere.kek");
    fs::write(&elsewhere, &good).expect("written");
    fs::set_permissions(&elsewhere, Permissions::from_mode(0o600)).expect("permissions");
    symlink(&elsewhere, &kek).expect("a link");
    world.refuses_keys(POLICY, &["local.kek", "symbolic link"]);
    fs::remove_file(&kek).expect("removed");
    let other = World::new();
    put(&fs::read_to_string(other.keys().join("local.kek")).expect("another key"));
    world.refuses_keys(KMS, &["410 WrongKey", "KEK local"]);
    put(&good);
    world.succeeds(&REVEAL);
}

#[test]
fn stores_that_are_not_stores() {
    let world = World::new();
    world.protect(&[]);
    let store = world.keys().join("keys.db");
    let good = fs::read(&store).expect("the store");
    for (version, says) in [(99, "newer keyfold"), (0, "no valid schema version"), (-1, "no valid schema version")] {
        world.database().pragma_update(None, "user_version", version).expect("edited");
        world.refuses_keys(STORAGE, &[says, "600 Store"]);
        fs::write(&store, &good).expect("put back");
    }
    fs::write(&store, "name,ssn\nCanáry7391,1\n".repeat(400)).expect("written");
    world.refuses_keys(STORAGE, &["not a key store"]);
    fs::write(&store, b"").expect("written");
    world.refuses_keys(STORAGE, &["600 Store"]);
    fs::write(&store, &good[..good.len() / 2]).expect("written");
    world.refuses_keys(STORAGE, &["600 Store"]);
    fs::remove_file(&store).expect("removed");
    world.refuses_keys(STORAGE, &["keys.db"]);
    assert!(!store.exists(), "an empty store was made");
    Connection::open(&store).and_then(|other| other.execute_batch("CREATE TABLE t (a)")).expect("a database");
    world.refuses_keys(STORAGE, &["not a key store"]);
    fs::remove_file(&store).expect("removed");
    fs::write(world.path("store.db"), &good).expect("written");
    symlink(world.path("store.db"), &store).expect("a link");
    world.refuses_keys(STORAGE, &["keys.db"]);
    fs::remove_file(&store).expect("removed");
    fs::write(&store, &good).expect("put back");
    world.succeeds(&REVEAL);
}

#[test]
fn records_that_were_edited() {
    // Class 2 is that of data keys; byte 5 of a record is its state: 2 active, 3 deactivated.
    let cases: [(&str, i32, &str); 6] = [
        ("UPDATE records SET state = 4 WHERE class = 2", STORAGE, "disagree"),
        ("UPDATE records SET generation = 9 WHERE class = 2", STORAGE, "disagree"),
        ("UPDATE records SET record = CAST(substr(record, 1, 100) AS BLOB)", STORAGE, "damaged"),
        ("UPDATE records SET record = zeroblob(length(record))", STORAGE, "damaged"),
        ("DELETE FROM records WHERE class = 1", KEY, "root"),
        ("DELETE FROM records WHERE class = 3", KEY, ""),
    ];
    let world = World::new();
    world.protect(&[]);
    let good = fs::read(world.keys().join("keys.db")).expect("the store");
    for (sql, code, says) in cases {
        world.edit(sql);
        world.refuses(&PROTECT, code, &[says]);
        world.refuses(&REVEAL, code, &[says]);
        fs::write(world.keys().join("keys.db"), &good).expect("put back");
    }
    world.succeeds(&REVEAL);
    fs::remove_file(world.path("out.csv")).expect("removed");
    // A key that was changed on this machine, and is gone.
    world.succeeds(&["keys", "rotate"]);
    let replaced = fs::read(world.keys().join("keys.db")).expect("the store");
    world.edit("DELETE FROM records WHERE class = 2 AND state = 3");
    world.refuses(&REVEAL, KEY, &["NoMatchingKey", "this machine has seen the key", "keys restore brings it back"]);
    fs::remove_file(world.keys().join("keys.high-water")).expect("removed");
    world.refuses(&REVEAL, KEY, &["NoMatchingKey", "it may be of another keyring (--config names", "or lost"]);
    fs::write(world.keys().join("keys.db"), &replaced).expect("put back");
    world.succeeds(&REVEAL);
    // What a census has counted by then may have taken hours.
    world.edit("UPDATE records SET record = zeroblob(length(record)) WHERE class = 2");
    let config = world.config();
    let census = ["census", "sealed.csv", "--config", argument(&config), "--key-ids", "ids"];
    let run =
        world.run(&census).expect(STORAGE, &["damaged", "the states of keys are not told; what was counted counts"]);
    assert!(run.stdout_text().starts_with("sealed.csv: "), "{}", run.stdout_text());
    assert!(!world.text("ids").is_empty());
}

#[test]
fn a_state_that_was_edited_under_an_old_mac() {
    let world = World::new();
    world.protect(&[]);
    world.rotate();
    // The old key would seal again, if the store's word counted.
    let sql = "UPDATE records SET state = 2, record = CAST(substr(record, 1, 5) || x'02' || substr(record, 7) AS BLOB) \
               WHERE class = 2 AND state = 3";
    world.edit(sql);
    world.refuses(&REVEAL, KEY, &["304 RecordRejected"]);
    let listed = world.run(&["keys", "list"]).expect(KEY, &[]);
    assert!(listed.stdout_text().contains("NOT TRUSTED"));
    // Every bit of every record is under a MAC, or part of what is looked up.
    let world = World::new();
    world.protect(&[]);
    let good = fs::read(world.keys().join("keys.db")).expect("the store");
    let len: i64 = world
        .database()
        .query_row("SELECT length(record) FROM records WHERE class = 2", [], |row| row.get(0))
        .expect("a record");
    let len = usize::try_from(len).expect("a length");
    for at in (1..=len).step_by(len / 24) {
        let connection = world.database();
        let mut bytes: Vec<u8> =
            connection.query_row("SELECT record FROM records WHERE class = 2", [], |row| row.get(0)).expect("a record");
        bytes[at - 1] ^= 1;
        connection.execute("UPDATE records SET record = ?1 WHERE class = 2", [bytes]).expect("edited");
        drop(connection);
        let before = snapshot(&world.data());
        let run = world.run(&REVEAL);
        assert!(matches!(run.code, Some(KEY | STORAGE)), "byte {at}: {}", run.stderr);
        assert_eq!(snapshot(&world.data()), before);
        fs::write(world.keys().join("keys.db"), &good).expect("put back");
    }
    world.succeeds(&REVEAL);
}

// Failure N16
#[test]
fn an_older_copy_of_the_store_is_noticed() {
    let world = World::new();
    world.protect(&[]);
    let store = world.keys().join("keys.db");
    let old = fs::read(&store).expect("the store");
    world.rotate();
    let new = fs::read(&store).expect("the store");
    fs::write(&store, &old).expect("put back");
    world.refuses(&PROTECT, KEY, &["304 RecordRejected", "rolled back"]);
    world.refuses(&REVEAL, KEY, &["304 RecordRejected", "rolled back"]);
    world.refuses(&["keys", "rotate"], KEY, &["304 RecordRejected"]);
    fs::write(&store, &new).expect("put back");
    world.succeeds(&REVEAL).expect(0, &["12 values in 3 records; 9 values are under an old generation"]);
}

#[test]
fn a_high_water_file_that_is_wrong() {
    let world = World::new();
    let marks = world.keys().join("keys.high-water");
    let good = fs::read_to_string(&marks).expect("the marks");
    world.protect(&[]);
    fs::write(&marks, good.replacen("generation", "generatiom", 1)).expect("written");
    world.refuses_keys(STORAGE, &["keys.high-water"]);
    fs::write(&marks, &good).expect("written");
    fs::set_permissions(&marks, Permissions::from_mode(0o666)).expect("permissions");
    world.refuses_keys(POLICY, &["keys.high-water"]);
}

#[test]
fn configurations_that_trust_nobody() {
    let world = World::new();
    world.protect(&[]);
    let good = fs::read_to_string(world.config()).expect("the configuration");
    let pin = good.lines().find(|line| line.starts_with("root_pins")).expect("a pin");
    let cases = [
        (good.replace(pin, "root_pins = []"), POLICY, "root_pins is empty"),
        (good.replace(pin, &format!("root_pins = [\"{}\"]", "00".repeat(32))), KEY, "304 RecordRejected"),
        (good.replace(pin, "root_pins = [\"abc\"]"), POLICY, "64 lower-case"),
        (good.replace("local:local.kek", "vault:local.kek"), POLICY, "keyfold.toml"),
        (good.replace("sqlite:keys.db", "mysql:keys.db"), POLICY, "sqlite:FILE"),
        (good.replace("seals = \"", "seals = \"ff"), POLICY, "seals"),
    ];
    for (text, code, says) in cases {
        assert!(text != good);
        fs::write(world.config(), text).expect("written");
        let says = if says == "keyfold.toml" { "KEK local" } else { says };
        world.refuses_keys(code, &[says]);
    }
    fs::write(world.config(), good).expect("written");
    let config = world.config();
    world.refuses(
        &[&PROTECT[..], &["--config", argument(&config), "--policy", argument(&config)]].concat(),
        POLICY,
        &["unknown field"],
    );
}

#[test]
fn a_configuration_that_anyone_can_write() {
    for file in [World::config as fn(&World) -> std::path::PathBuf, |world| world.path("policy.toml")] {
        let world = World::new();
        let writable = Permissions::from_mode(0o666);
        fs::set_permissions(file(&world), writable).expect("permissions");
        world.refuses(&["protect", "in.csv", "--output", "out"], POLICY, &["chmod o-w"]);
    }
}

/// What SQLite calls a disk I/O error is a full disk or a limit, as a rule.
#[test]
fn a_key_store_at_a_limit_says_what_to_look_at() {
    let world = World::new();
    let inner = world.command(&["keys", "rotate"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    let says = ["the key store failed (is the disk full, or a limit such as `ulimit -f` reached?)", "disk I/O error"];
    crate::common::run(command.current_dir(world.data()), b"").expect(STORAGE, &says);
}
