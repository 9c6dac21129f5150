//! Several processes with one store, and processes that are killed. Each is this test program started again.

use keyfold::testing::{SampleRecord, block_on};
use keyfold::wire::KeyId;
use keyfold::{ErrorKind, KeyState, KeyStore, Lineage, Record};
use keyfold_store::SqliteStore;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const OURS: Lineage = Lineage::from_bytes([1; 16]);
const STORE: &str = "KEYFOLD_TEST_STORE";
const NUMBER: &str = "KEYFOLD_TEST_NUMBER";

/// Starts the test `name` of this file as a process of its own.
fn start(name: &str, store: &Path, number: usize) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(STORE, store)
        .env(NUMBER, number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// The store and the number that [`start`] passed on.
fn given() -> (SqliteStore, u64) {
    let path = std::env::var_os(STORE).expect("only started by another test");
    let number = std::env::var(NUMBER).ok().and_then(|number| number.parse().ok()).expect("a number");
    (SqliteStore::open(path).expect("opened"), number)
}

fn head(store: &SqliteStore) -> Option<Record> {
    block_on(store.newest(SampleRecord::new(OURS, 1).build().slot(), 1)).expect("read").pop()
}

#[test]
#[ignore = "started by sixteen_processes_rotate_and_one_wins as a process of its own"]
fn rotate_once() {
    let (store, number) = given();
    let go = store.path().with_extension("go");
    let before = head(&store).map(|record| record.key_id());
    // The test harness leaves its own line open.
    println!("\nready");
    let waiting = Instant::now();
    while !go.exists() {
        assert!(waiting.elapsed() < Duration::from_secs(60), "never told to go");
        std::thread::sleep(Duration::from_millis(1));
    }
    let generation = block_on(store.allocate_generation(OURS, 0)).expect("allocated");
    println!("generation {generation}");
    let record = SampleRecord::new(OURS, generation).key(number).build();
    match block_on(store.insert(&record, before)) {
        Ok(()) => println!("won {}", record.key_id()),
        Err(error) if error.kind() == ErrorKind::Conflict => println!("lost"),
        Err(error) => panic!("{error:?}"),
    }
}

// Failures N13, K5
#[test]
fn sixteen_processes_rotate_and_one_wins() {
    const PROCESS_COUNT: usize = 16;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    let store = SqliteStore::create(&path).expect("created");
    let go = path.with_extension("go");
    let mut generations = HashSet::new();
    for round in 1..=3 {
        let mut children: Vec<_> = (0..PROCESS_COUNT).map(|number| start("rotate_once", &path, number)).collect();
        let mut outputs: Vec<_> =
            children.iter_mut().map(|child| BufReader::new(child.stdout.take().expect("a pipe")).lines()).collect();
        for output in &mut outputs {
            assert!(output.any(|line| line.expect("text") == "ready"), "a process did not start");
        }
        std::fs::write(&go, b"").expect("written");
        let lines: Vec<String> = outputs.into_iter().flatten().map(|line| line.expect("text")).collect();
        for child in &mut children {
            assert!(child.wait().expect("ended").success());
        }
        std::fs::remove_file(&go).expect("removed");

        let won: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("won ")).collect();
        assert_eq!(won.len(), 1, "round {round}: {lines:?}");
        assert_eq!(lines.iter().filter(|line| *line == "lost").count(), PROCESS_COUNT - 1);
        assert_eq!(head(&store).expect("a head").key_id().to_string(), won[0]);
        assert_eq!(block_on(store.list(OURS, None, 100)).expect("read").len(), round);
        generations.extend(lines.iter().filter_map(|line| line.strip_prefix("generation ").map(str::to_owned)));
        assert_eq!(generations.len(), round * PROCESS_COUNT, "a generation was given twice");
    }
}

#[test]
#[ignore = "started by a_killed_writer_loses_nothing_that_it_reported as a process of its own"]
fn write_until_killed() {
    let (store, number) = given();
    let mut out = std::io::stdout().lock();
    writeln!(out).expect("written");
    loop {
        let before = head(&store).map(|record| record.key_id());
        let generation = block_on(store.allocate_generation(OURS, 0)).expect("allocated");
        let sample = SampleRecord::new(OURS, generation).key(number).wraps(8);
        block_on(store.insert(&sample.build(), before)).expect("inserted");
        writeln!(out, "done {} 1", sample.build().key_id()).expect("written");
        block_on(store.update(&sample.clone().sequence(2).state(KeyState::Deactivated).build(), 1)).expect("updated");
        writeln!(out, "done {} 2", sample.build().key_id()).expect("written");
        out.flush().expect("written");
    }
}

// Failure K2
#[test]
fn a_killed_writer_loses_nothing_that_it_reported() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.db");
    drop(SqliteStore::create(&path).expect("created"));
    let mut reported: Vec<(KeyId, u64)> = Vec::new();
    for kill in 0..20_u64 {
        let mut child = start("write_until_killed", &path, usize::try_from(kill).expect("small"));
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        // From the first change on, kill after a time that differs.
        while !line.starts_with("done") {
            line.clear();
            assert_ne!(output.read_line(&mut line).expect("text"), 0, "the writer ended");
        }
        std::thread::sleep(Duration::from_micros(700 * kill * kill));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let rest = std::io::read_to_string(output).expect("text");
        // The last line may be cut off.
        let complete = rest.rfind('\n').map_or("", |end| &rest[..end]);
        for line in std::iter::once(line.trim_end()).chain(complete.lines()) {
            let parts: Vec<&str> = line.split(' ').collect();
            reported.push((parts[1].parse().expect("a key ID"), parts[2].parse().expect("a sequence")));
        }

        let opened = Instant::now();
        let store = SqliteStore::open(&path).expect("opened after the kill");
        for (key_id, sequence) in &reported {
            let record = block_on(store.get(OURS, *key_id)).expect("read").expect("lost a record");
            assert!(record.sequence() >= *sequence, "lost an update");
        }
        let all = block_on(store.list(OURS, None, usize::MAX)).expect("read");
        let unreported = all.len() - reported.iter().map(|(key_id, _)| key_id).collect::<HashSet<_>>().len();
        assert!(unreported <= usize::try_from(kill).expect("small") + 1, "more than one change per kill was in flight");
        let generation = block_on(store.allocate_generation(OURS, 0)).expect("allocated");
        assert!(all.iter().all(|record| record.key_id().generation() < generation));
        assert!(opened.elapsed() < Duration::from_secs(10), "a dead process still holds a lock");
        drop(store);
        let check: String = rusqlite::Connection::open(&path)
            .and_then(|c| c.pragma_query_value(None, "integrity_check", |row| row.get(0)))
            .expect("checked");
        assert_eq!(check, "ok");
    }
    assert!(reported.len() > 100, "only {} changes", reported.len());
}
