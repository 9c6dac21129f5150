//! Sixteen processes rotate one keyring at the same moment, each having read the same newest key. Each is this test
//! program started again; it stops when it is about to store its new key, and goes on when all of them are.

mod common;

use common::{init, open, policy, postgres, reveal, seal};
use data_encoding::HEXLOWER;
use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, KeyClass, KeyStore, Keyring, Lineage, Record, RecordChange, Result, Slot, SlotId};
use keyfold_kms::local::LocalKek;
use keyfold_store::{FileHighWater, PostgresStore, SqliteStore};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FOLDER: &str = "KEYFOLD_TEST_AT_ONCE";
const PROCESS_COUNT: usize = 16;

/// A store that waits for a line on standard input before it adds its first record: whoever rotates has then read the
/// newest key, and has not replaced it yet.
struct Stopped<S> {
    store: S,
    has_waited: AtomicBool,
}

impl<S: KeyStore> KeyStore for Stopped<S> {
    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        if !self.has_waited.swap(true, Ordering::Relaxed) {
            println!("ready");
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).expect("told");
            assert_eq!(line, "go\n");
        }
        self.store.insert(record, expected_head)
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        self.store.allocate_generation(lineage, above)
    }

    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.store.get(lineage, key_id)
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.store.newest(slot, limit)
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.store.scope_by_tag(lineage, scope_tag)
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.store.list(lineage, after, limit)
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        self.store.update(record, expected_sequence)
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        self.store.update_many(changes)
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.store.now()
    }
}

fn stopped(store: impl KeyStore + 'static) -> Arc<dyn KeyStore> {
    Arc::new(Stopped { store, has_waited: AtomicBool::new(false) })
}

/// The keyring of `folder`, whose store stops before it adds a record.
fn open_stopped(folder: &Path) -> Keyring {
    let config = keyfold_open::read_config(&folder.join("keyfold.toml"), &[policy(folder)]).expect("read");
    let store = match config.store.strip_prefix("sqlite:") {
        Some(file) => stopped(SqliteStore::open(folder.join(file)).expect("opened")),
        None => stopped(PostgresStore::open(&config.store, folder).expect("opened")),
    };
    let (alias, uri) = config.keks.into_iter().next().expect("a KEK");
    let kek = LocalKek::open(folder.join(uri.strip_prefix("local:").expect("a file"))).expect("opened");
    let high_water = FileHighWater::open(folder.join(config.high_water.expect("a file"))).expect("opened");
    let keks = [(alias, Arc::new(kek) as _)].into();
    Keyring::open(config.keyring, store, keks, Arc::new(high_water)).expect("opened")
}

#[test]
#[ignore = "started by the other tests as a process of its own"]
fn rotate() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("only started by another test"));
    let ring = open_stopped(&folder);
    // The test harness leaves its own line open.
    println!("\nsealed {}", HEXLOWER.encode(&seal(&ring, "before")));
    let rotated = pollster::block_on(ring.rotate_data_key(None)).expect("rotated");
    println!("{} {}", if rotated.by_other { "by_other" } else { "won" }, rotated.new.key_id());
    println!("sealed {}", HEXLOWER.encode(&seal(&ring, "after")));
}

struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    lines: Vec<String>,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["rotate", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, said, lines: Vec::new() }
    }

    fn read_until_ready(&mut self) {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).expect("text"), 0, "ended early: {:?}", self.lines);
            if line == "ready\n" {
                return;
            }
            self.lines.push(line.trim_end().to_owned());
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.lines.extend(self.said.lines().map(|line| line.expect("text")));
        assert!(self.child.wait().expect("ended").success(), "{:?}", self.lines);
        self.lines
    }
}

fn check(store: Option<&str>) {
    let folder = tempfile::tempdir().expect("a folder");
    init(folder.path(), "production", store);
    let data_keys = || {
        let all = pollster::block_on(open(folder.path()).list(None, 100)).expect("listed");
        assert!(all.iter().all(|info| info.verified.is_ok()));
        let ids = all.iter().filter(|info| info.record.class() == KeyClass::Data).map(|info| info.record.key_id());
        ids.collect::<HashSet<_>>()
    };
    let mut values = Vec::new();
    for round in 1..=2 {
        let before = data_keys();
        assert_eq!(before.len(), round);
        let mut processes: Vec<_> = (0..PROCESS_COUNT).map(|_| Process::start(folder.path())).collect();
        processes.iter_mut().for_each(Process::read_until_ready);
        for process in &mut processes {
            process.child.stdin.take().expect("a pipe").write_all(b"go\n").expect("told");
        }
        let lines: Vec<String> = processes.into_iter().flat_map(Process::finish).collect();
        let with = |prefix: &str| lines.iter().filter_map(|line| line.strip_prefix(prefix)).collect::<Vec<_>>();
        let (won, by_other) = (with("won "), with("by_other "));
        assert_eq!((won.len(), by_other.len()), (1, PROCESS_COUNT - 1), "round {round}: {lines:?}");
        assert!(by_other.iter().all(|key_id| *key_id == won[0]), "they do not agree on the new key");
        let new: Vec<KeyId> = data_keys().difference(&before).copied().collect();
        assert_eq!(new.iter().map(KeyId::to_string).collect::<Vec<_>>(), won, "one new generation");

        let sealed = with("sealed ");
        assert_eq!(sealed.len(), 2 * PROCESS_COUNT);
        values.extend(sealed.iter().map(|hex| HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal")));
        let ring = open(folder.path());
        for value in &values {
            assert!(matches!(reveal(&ring, value).expect("a value is lost").as_str(), "before" | "after"));
        }
    }
}

// Failure N13
#[test]
fn sixteen_processes_make_one_generation_in_a_file() {
    check(None);
}

// Failure N13
#[test]
fn sixteen_processes_make_one_generation_in_a_database() {
    if let Some(uri) = postgres("rotate_at_once") {
        check(Some(&uri));
    }
}
