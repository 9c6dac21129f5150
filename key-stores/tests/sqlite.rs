//! The SQLite store: conformance, what it refuses, and that damage is an error and never a panic.

use keyfold::testing::{SampleRecord, block_on, sample_records, store_conformance};
use keyfold::{ErrorKind, KeyState, KeyStore, Lineage, Record, Result, SlotId};
use keyfold_store::SqliteStore;
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OURS: Lineage = Lineage::from_bytes([1; 16]);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    (folder, path)
}

/// A closed store with the sample records.
fn filled(path: &Path) -> Vec<Record> {
    let store = SqliteStore::create(path).expect("created");
    let records = sample_records(OURS);
    for record in &records {
        let head = block_on(store.newest(record.slot(), 1)).expect("read").first().map(Record::key_id);
        block_on(store.insert(record, head)).expect("inserted");
    }
    records
}

fn edit(path: &Path, sql: &str) {
    let connection = Connection::open(path).expect("opened");
    connection.execute_batch("PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF").expect("set up");
    connection.execute_batch(sql).expect("edited");
}

fn refusal<T>(result: Result<T>) -> String {
    let Err(error) = result else { panic!("accepted") };
    assert_eq!(error.kind(), ErrorKind::Store, "{error}");
    error.to_string()
}

#[test]
fn conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    store_conformance(|| {
        number += 1;
        let path = folder.path().join(format!("keys-{number}.db"));
        [SqliteStore::create(&path).expect("created"), SqliteStore::open(&path).expect("opened")]
    });
}

#[test]
fn records_survive_closing() {
    let (_folder, path) = folder();
    let mut records = filled(&path);
    records.sort_by_key(Record::key_id);
    let store = SqliteStore::open(&path).expect("opened");
    assert_eq!(block_on(store.list(OURS, None, 100)).expect("read"), records);
    assert_eq!(block_on(store.allocate_generation(OURS, 0)).expect("allocated"), 25, "24 records are there");
}

#[test]
fn create_refuses_what_exists_and_open_what_is_missing() {
    let (folder, path) = folder();
    assert!(refusal(SqliteStore::open(&path)).contains("keys.db"));
    assert!(!path.exists(), "open made the file");
    filled(&path);
    let before = fs::read(&path).expect("read");
    assert!(refusal(SqliteStore::create(&path)).contains("exists"));
    assert_eq!(fs::read(&path).expect("read"), before, "create changed the file that exists");

    let other = folder.path().join("other.db");
    for suffix in ["-wal", "-shm", "-journal"] {
        let left = folder.path().join(format!("other.db{suffix}"));
        fs::write(&left, b"left").expect("written");
        assert!(refusal(SqliteStore::create(&other)).contains("earlier"), "{suffix}");
        fs::remove_file(&left).expect("removed");
    }
    assert!(refusal(SqliteStore::create(folder.path().join("missing/keys.db"))).contains("missing"));
    assert!(refusal(SqliteStore::create(folder.path().join(".."))).contains("folder"));
    let names: Vec<_> = fs::read_dir(&folder).expect("read").map(|e| e.expect("an entry").file_name()).collect();
    assert_eq!(names, ["keys.db"], "something is left");
}

#[test]
fn one_of_many_creators_wins() {
    let (folder, path) = folder();
    let won: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| usize::from(SqliteStore::create(&path).is_ok()))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(won, 1);
    assert!(SqliteStore::open(&path).is_ok());
    assert_eq!(fs::read_dir(&folder).expect("read").count(), 1, "a temporary file is left");
}

// Failure K8
#[test]
fn only_the_owner_reads_any_of_the_files() {
    let (folder, path) = folder();
    let store = SqliteStore::create(&path).expect("created");
    block_on(store.insert(&SampleRecord::new(OURS, 1).build(), None)).expect("inserted");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).expect("read") {
        let entry = entry.expect("an entry");
        names.push(entry.file_name().into_string().expect("a text"));
        assert_eq!(entry.metadata().expect("metadata").permissions().mode() & 0o777, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["keys.db", "keys.db-shm", "keys.db-wal"]);
}

// Failure K1
#[test]
fn links_folders_and_pipes_are_refused() {
    let (folder, path) = folder();
    filled(&path);
    let link = folder.path().join("link.db");
    symlink(&path, &link).expect("linked");
    assert!(refusal(SqliteStore::open(&link)).contains("symbolic link"));
    assert!(refusal(SqliteStore::create(&link)).contains("exists"));
    let dangling = folder.path().join("dangling.db");
    symlink(folder.path().join("nothing"), &dangling).expect("linked");
    assert!(refusal(SqliteStore::create(&dangling)).contains("exists"));
    assert!(!folder.path().join("nothing").exists(), "create followed a link");
    assert!(refusal(SqliteStore::open(folder.path())).contains("regular file"));
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    assert!(refusal(SqliteStore::open(&pipe)).contains("regular file"));
}

#[test]
fn a_name_is_never_taken_for_a_uri() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("file:keys.db?mode=memory");
    SqliteStore::create(&path).expect("created");
    assert!(path.is_file());
}

// Failures C24, K6
#[test]
fn a_store_of_a_newer_version_is_refused_and_not_changed() {
    let (_folder, path) = folder();
    filled(&path);
    edit(&path, "PRAGMA user_version = 3; CREATE TABLE later (x)");
    let before = fs::read(&path).expect("read");
    let text = refusal(SqliteStore::open(&path));
    assert!(text.contains("newer keyfold") && text.contains("schema 3, this build knows 1"), "{text}");
    assert_eq!(fs::read(&path).expect("read"), before);
}

#[test]
fn other_files_are_refused_and_not_changed() {
    let (folder, path) = folder();
    let database = folder.path().join("other.db");
    edit(&database, "CREATE TABLE patients (name)");
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("not a key store", b"mrn,name\n1,Ann\n".repeat(1000)),
        ("not a key store", vec![0; 8192]),
        ("not a key store", b"SQLite format 3\0".repeat(512)),
        ("not a key store", fs::read(&database).expect("read")),
    ];
    for (expected, content) in cases {
        fs::write(&path, &content).expect("written");
        let text = refusal(SqliteStore::open(&path));
        assert!(text.contains(expected) || text.contains("damaged"), "{expected}: {text}");
        assert_eq!(fs::read(&path).expect("read"), content, "{expected}: changed");
    }
    filled(&folder.path().join("good.db"));
    edit(&folder.path().join("good.db"), "PRAGMA user_version = 0");
    assert!(refusal(SqliteStore::open(folder.path().join("good.db"))).contains("schema version"));
}

/// Reads everything; an error must be of kind `Store`.
fn read_all(path: &Path) -> bool {
    let read = SqliteStore::open(path).and_then(|store| {
        for record in block_on(store.list(OURS, None, usize::MAX))? {
            block_on(store.get(OURS, record.key_id()))?;
            block_on(store.newest(record.slot(), usize::MAX))?;
            block_on(store.scope_by_tag(OURS, record.scope_tag().unwrap_or_default()))?;
        }
        block_on(store.allocate_generation(OURS, 0)).map(drop)
    });
    if let Err(error) = &read {
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
    }
    read.is_ok()
}

// Failure K4
#[test]
fn every_truncation_is_an_error() {
    let (_folder, path) = folder();
    filled(&path);
    let good = fs::read(&path).expect("read");
    for len in (1..good.len()).step_by(509) {
        fs::write(&path, &good[..len]).expect("written");
        assert!(!read_all(&path), "{len} of {} bytes were accepted", good.len());
    }
}

// Failure K4
#[test]
fn damage_anywhere_is_an_error_or_a_record_and_never_a_panic() {
    let (_folder, path) = folder();
    filled(&path);
    let good = fs::read(&path).expect("read");
    let mut noticed = 0;
    for at in (0..good.len()).step_by(251) {
        let mut bad = good.clone();
        bad[at] ^= 0x5A;
        fs::write(&path, &bad).expect("written");
        noticed += usize::from(!read_all(&path));
    }
    // The rest is in unused space, or in the part of a record that its MAC alone covers.
    assert!(noticed > 20, "only {noticed} noticed");
}

/// Covers F-B-1.
#[test]
fn a_row_that_disagrees_with_its_record_is_an_error() {
    let swap = "CREATE TEMP TABLE two AS SELECT rowid AS id, record FROM records WHERE class = 2 LIMIT 2;
                UPDATE records SET record = (SELECT record FROM two WHERE id <> records.rowid)
                WHERE rowid IN (SELECT id FROM two)";
    let edits = [
        ("two records swapped", swap),
        (
            "another lineage",
            "UPDATE records SET record = CAST(substr(record, 1, 87) || x'FF' || substr(record, 89) AS BLOB)",
        ),
        ("another state", "UPDATE records SET state = 2 WHERE state = 3"),
        ("another sequence", "UPDATE records SET sequence = sequence + 1"),
        ("another class", "UPDATE records SET class = 4 WHERE class = 3"),
        ("another slot", "UPDATE records SET slot = zeroblob(16)"),
        ("another generation", "UPDATE records SET generation = generation + 1"),
        ("another scope tag", "UPDATE records SET scope_tag = zeroblob(32)"),
        ("another key ID", "UPDATE records SET key_id = CAST(substr(key_id, 1, 4) || randomblob(20) AS BLOB)"),
        ("a cut record", "UPDATE records SET record = substr(record, 1, length(record) - 1)"),
        ("a longer record", "UPDATE records SET record = CAST(record || x'00' AS BLOB)"),
        ("no record", "UPDATE records SET record = x''"),
        ("a huge record", "UPDATE records SET record = zeroblob(20000000)"),
        ("a generation out of range", "UPDATE records SET generation = -1"),
        ("a short key ID", "UPDATE records SET key_id = substr(key_id, 1, 20)"),
        ("a record of a newer layout", "UPDATE records SET record = CAST(x'4B465202' || substr(record, 5) AS BLOB)"),
    ];
    for (what, sql) in edits {
        let (_folder, path) = folder();
        filled(&path);
        assert!(read_all(&path));
        edit(&path, sql);
        let store = SqliteStore::open(&path).expect("opened");
        refusal(block_on(store.list(OURS, None, usize::MAX)));
        drop(store);
        assert!(!read_all(&path), "{what}");
    }
}

#[test]
fn planted_triggers_do_not_run() {
    let (_folder, path) = folder();
    SqliteStore::create(&path).expect("created");
    edit(&path, "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END");
    let store = SqliteStore::open(&path).expect("opened");
    let record = SampleRecord::new(OURS, 1).build();
    block_on(store.insert(&record, None)).expect("inserted");
    assert_eq!(block_on(store.get(OURS, record.key_id())).expect("read"), Some(record));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (_folder, path) = folder();
    let store = SqliteStore::create(&path).expect("created");
    let sample = SampleRecord::new(OURS, 1).scope(SlotId::from_bytes([1; 16]), [2; 32]).sequence(u64::MAX);
    refusal(block_on(store.insert(&sample.build(), None)));
    let greatest = sample.sequence(i64::MAX as u64);
    block_on(store.insert(&greatest.build(), None)).expect("inserted");
    refusal(block_on(store.update(&greatest.sequence(1 << 63).state(KeyState::Compromised).build(), i64::MAX as u64)));
}

#[test]
fn a_file_that_is_replaced_while_it_is_open_takes_no_more_changes() {
    let (folder, path) = folder();
    let records = filled(&path);
    let store = SqliteStore::open(&path).expect("opened");
    assert!(block_on(store.get(OURS, records[0].key_id())).expect("read").is_some());
    // A backup is put back under a running service.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).expect("copied");
    fs::rename(&copy, &path).expect("replaced");
    let text = refusal(block_on(store.allocate_generation(OURS, 0)));
    assert!(text.contains("stop every process before restoring one"), "{text}");
    refusal(block_on(store.get(OURS, records[0].key_id())));
    fs::remove_file(&path).expect("removed");
    refusal(block_on(store.allocate_generation(OURS, 0)));
}
