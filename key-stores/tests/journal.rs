//! The journal: what it promises of a store, what a crash leaves of it, damage, several processes, and disks that fail.
//!
//! A little over 500 lines: all of it is asked of the same journal beside the same stores.

use keyfold::testing::{SampleRecord, block_on, sample_records, store_conformance};
use keyfold::{
    CopyStatus, Error, ErrorKind, KeyState, KeyStore, Lineage, Record, RecordCopy, Remainder, Result, SlotId,
};
use keyfold_store::{BackupWriter, Journal, JournaledStore, MemoryStore, SqliteStore, read_records};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use tempfile::TempDir;

const OURS: Lineage = Lineage::from_bytes([1; 16]);
const FILE: &str = "KEYFOLD_TEST_FILE";
const NUMBER: &str = "KEYFOLD_TEST_NUMBER";

fn new_journal() -> (TempDir, Journal) {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::new(folder.path().join("keys.journal")).expect("a folder");
    make(&journal, Vec::new());
    (folder, journal)
}

fn make(journal: &Journal, records: Vec<Record>) {
    block_on(journal.create(async { Ok(records) })).expect("made");
}

fn sample(generation: u32) -> SampleRecord {
    SampleRecord::new(OURS, generation).slot(SlotId::from_bytes([generation as u8; 16])).wraps(1)
}

fn statuses(copies: &[RecordCopy]) -> Vec<(u32, u64, CopyStatus)> {
    copies.iter().map(|copy| (copy.record.key_id().generation(), copy.record.sequence(), copy.status)).collect()
}

fn read(journal: &Journal) -> Vec<(u32, u64, CopyStatus)> {
    statuses(&journal.read().expect("read").copies)
}

#[test]
fn a_journaled_store_conforms() {
    let mut folders = Vec::new();
    store_conformance(|| {
        let (folder, journal) = new_journal();
        let store: Arc<dyn KeyStore> = Arc::new(MemoryStore::new());
        folders.push(folder);
        [JournaledStore::new(store.clone(), vec![journal.clone()]), JournaledStore::new(store, vec![journal])]
    });
}

#[test]
fn a_journaled_file_conforms() {
    let mut folders = Vec::new();
    store_conformance(|| {
        let (folder, journal) = new_journal();
        let path = folder.path().join("keys.db");
        let stores: [Arc<dyn KeyStore>; 2] =
            [Arc::new(SqliteStore::create(&path).expect("made")), Arc::new(SqliteStore::open(&path).expect("opened"))];
        folders.push(folder);
        stores.map(|store| JournaledStore::new(store, vec![journal.clone()]))
    });
}

#[test]
fn what_the_store_answered_is_noted() {
    let (_folder, journal) = new_journal();
    let store = JournaledStore::new(Arc::new(MemoryStore::new()), vec![journal.clone()]);
    let first = sample(1).build();
    block_on(store.insert(&first, None)).expect("inserted");
    let refused = block_on(store.insert(&sample(1).key(9).build(), None)).expect_err("another head");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    block_on(store.update(&sample(1).sequence(2).state(KeyState::Deactivated).build(), 1)).expect("updated");
    use CopyStatus::{Refused, Stored};
    assert_eq!(read(&journal), [(1, 1, Stored), (1, 1, Refused), (1, 2, Stored)]);
    // Everybody who has the key, and nobody else: the journal has mode 0600 and no key in clear.
    assert_eq!(fs::metadata(journal.path()).expect("a file").mode() & 0o777, 0o600);
}

/// A store that has the journal's record of a change only after the journal does; checked when it is asked.
struct Watches {
    inner: MemoryStore,
    journal: Journal,
    answer: fn() -> Result<()>,
}

impl KeyStore for Watches {
    fn get(&self, l: Lineage, k: keyfold::wire::KeyId) -> keyfold::BoxFuture<'_, Result<Option<Record>>> {
        self.inner.get(l, k)
    }
    fn newest(&self, slot: keyfold::Slot, limit: usize) -> keyfold::BoxFuture<'_, Result<Vec<Record>>> {
        self.inner.newest(slot, limit)
    }
    fn scope_by_tag(&self, l: Lineage, tag: [u8; 32]) -> keyfold::BoxFuture<'_, Result<Option<SlotId>>> {
        self.inner.scope_by_tag(l, tag)
    }
    fn list(
        &self,
        l: Lineage,
        after: Option<keyfold::wire::KeyId>,
        limit: usize,
    ) -> keyfold::BoxFuture<'_, Result<Vec<Record>>> {
        self.inner.list(l, after, limit)
    }
    fn allocate_generation(&self, l: Lineage, above: u32) -> keyfold::BoxFuture<'_, Result<u32>> {
        self.inner.allocate_generation(l, above)
    }
    fn insert<'a>(
        &'a self,
        record: &'a Record,
        head: Option<keyfold::wire::KeyId>,
    ) -> keyfold::BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let intended = journal_has(&self.journal, record);
            assert!(intended, "the store was asked before the journal had the record");
            (self.answer)()?;
            self.inner.insert(record, head).await
        })
    }
    fn update<'a>(&'a self, record: &'a Record, sequence: u64) -> keyfold::BoxFuture<'a, Result<()>> {
        assert!(journal_has(&self.journal, record), "the store was asked before the journal had the record");
        self.inner.update(record, sequence)
    }
    fn update_many<'a>(
        &'a self,
        changes: &'a [keyfold::RecordChange],
    ) -> keyfold::BoxFuture<'a, Result<Vec<keyfold::wire::KeyId>>> {
        assert!(changes.iter().all(|change| journal_has(&self.journal, &change.record)));
        self.inner.update_many(changes)
    }
    fn now(&self) -> keyfold::BoxFuture<'_, Result<u64>> {
        self.inner.now()
    }
}

fn journal_has(journal: &Journal, record: &Record) -> bool {
    let copies = journal.read().expect("read").copies;
    copies.iter().any(|copy| copy.record == *record && copy.status == CopyStatus::Intended)
}

#[test]
fn the_journal_has_a_record_before_the_store_is_asked() {
    let (_folder, journal) = new_journal();
    let watches = |answer| Watches { inner: MemoryStore::new(), journal: journal.clone(), answer };
    let store = JournaledStore::new(Arc::new(watches(|| Ok(()))), vec![journal.clone()]);
    block_on(store.insert(&sample(1).build(), None)).expect("inserted");
    block_on(store.update(&sample(1).sequence(2).build(), 1)).expect("updated");
    let change = keyfold::RecordChange { record: sample(1).sequence(3).build(), expected_sequence: 2 };
    assert_eq!(block_on(store.update_many(&[change])).expect("updated"), []);
    // A store of which nobody knows what it did leaves the record as one that may be there.
    let lost = watches(|| Err(Error::new(ErrorKind::Store, "the answer was lost")));
    let store = JournaledStore::new(Arc::new(lost), vec![journal.clone()]);
    assert!(block_on(store.insert(&sample(2).build(), None)).is_err());
    assert_eq!(read(&journal).last(), Some(&(2, 1, CopyStatus::Intended)));
}

#[test]
fn without_a_journal_nothing_is_stored() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 5] = [
        ("missing", |path| fs::remove_file(path).expect("removed")),
        ("a link", |path| {
            fs::rename(path, path.with_extension("other")).expect("moved");
            std::os::unix::fs::symlink(path.with_extension("other"), path).expect("a link");
        }),
        ("for others to write", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
        }),
        ("another file", |path| fs::write(path, "keyfold-high-water 2\n".repeat(9)).expect("written")),
        ("damaged at its end", |path| {
            let mut text = fs::read(path).expect("read");
            let at = text.len() - 30;
            text[at] ^= 1;
            fs::write(path, text).expect("written");
        }),
    ];
    for (what, spoil) in spoils {
        let (_folder, journal) = new_journal();
        let inner = Arc::new(MemoryStore::new());
        let store = JournaledStore::new(inner.clone(), vec![journal.clone()]);
        block_on(store.insert(&sample(1).build(), None)).expect("inserted");
        spoil(journal.path());
        let error = block_on(store.insert(&sample(2).build(), None)).expect_err(what);
        assert!(
            matches!(error.kind(), ErrorKind::Io | ErrorKind::Malformed | ErrorKind::Configuration),
            "{what}: {error}"
        );
        assert!(block_on(store.update(&sample(1).sequence(2).build(), 1)).is_err(), "{what}");
        assert_eq!(block_on(inner.list(OURS, None, 9)).expect("listed"), [sample(1).build()], "{what}: stored");
        assert!(block_on(store.get(OURS, sample(1).build().key_id())).expect("read").is_some(), "reading needs none");
    }
}

/// Covers F-D-3.
#[test]
fn every_truncation_loses_the_last_line_alone_and_the_next_change_cuts_it_off() {
    let (_folder, journal) = new_journal();
    journal.intend([&sample(1).build()]).expect("written");
    journal.settle([(&sample(1).build(), true)]);
    journal.intend([&sample(2).build()]).expect("written");
    let whole = fs::read(journal.path()).expect("read");
    let line_ends: Vec<_> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    for len in 0..whole.len() {
        fs::write(journal.path(), &whole[..len]).expect("written");
        let lines = line_ends.iter().filter(|end| **end <= len).count();
        let result = journal.read();
        if lines == 0 {
            assert_eq!(result.expect_err("no first line").kind(), ErrorKind::Malformed, "{len}");
            assert!(journal.intend([&sample(3).build()]).is_err());
            continue;
        }
        assert_eq!(result.expect("read").copies.len(), [0, 0, 1, 1, 2][lines], "{len} bytes");
        // A change is synced, which takes its time.
        if len % 9 != 0 && !line_ends.iter().any(|end| len.abs_diff(*end) < 20) {
            continue;
        }
        journal.intend([&sample(3).build()]).unwrap_or_else(|error| panic!("{len}: {error}"));
        let after = journal.read().expect("read again");
        assert_eq!(after.copies.len(), [0, 0, 1, 1, 2][lines] + 1, "{len} bytes, and one more line");
    }
}

/// Covers F-D-1.
// Failure K4
#[test]
fn every_flipped_byte_is_found_with_its_line() {
    let (_folder, journal) = new_journal();
    for generation in 1..=3 {
        journal.intend([&sample(generation).build()]).expect("written");
        journal.settle([(&sample(generation).build(), generation != 2)]);
    }
    let whole = fs::read(journal.path()).expect("read");
    let mut line = 1;
    for at in 0..whole.len() {
        let mut text = whole.clone();
        text[at] ^= 1 << (at % 7);
        fs::write(journal.path(), &text).expect("written");
        let error = journal.read().expect_err("accepted");
        assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported), "byte {at}: {error}");
        if line > 1 {
            // A line feed that is gone joins two lines; what it becomes may end one early.
            let told = error.to_string();
            assert!(told.contains(&format!("line {line}")), "byte {at} of line {line}: {told}");
        }
        line += usize::from(whole[at] == b'\n');
    }
    // Lines that are exchanged, repeated or missing in the middle are found, too.
    let lines: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 1..lines.len() - 1 {
        let (mut swapped, mut missing, mut twice) = (lines.clone(), lines.clone(), lines.clone());
        swapped.swap(at, at + 1);
        missing.remove(at);
        twice.insert(at, lines[at]);
        for (what, lines) in [("swapped", swapped), ("missing", missing), ("twice", twice)] {
            fs::write(journal.path(), lines.concat()).expect("written");
            assert_eq!(journal.read().expect_err(what).kind(), ErrorKind::Malformed, "{what} at {at}");
        }
    }
}

#[test]
fn compacting_keeps_each_of_two_records_of_one_rank() {
    let (_folder, journal) = new_journal();
    let good = sample(1).build();
    let mut bytes = good.as_bytes().to_vec();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    let bad = Record::parse(&bytes).expect("it parses");
    for record in [&sample(2).build(), &bad, &good, &bad] {
        journal.intend([record]).expect("written");
        journal.settle([(record, true)]);
    }
    journal.compact().expect("compacted");
    let kept: Vec<_> = journal.read().expect("read").copies.into_iter().map(|copy| copy.record).collect();
    assert_eq!(kept, [bad, good, sample(2).build()]);
}

#[test]
fn compacting_keeps_what_counts_and_no_wraps_of_destroyed_keys() {
    let (_folder, journal) = new_journal();
    let store = JournaledStore::new(Arc::new(MemoryStore::new()), vec![journal.clone()]);
    let line = |record: &Record| data_encoding::HEXLOWER.encode(record.as_bytes());
    let (shredded, kept) = (sample(1).build(), sample(2).sequence(2).state(KeyState::Deactivated).build());
    for record in [&shredded, &sample(2).build()] {
        block_on(store.insert(record, None)).expect("inserted");
    }
    block_on(store.update(&kept, 1)).expect("updated");
    block_on(store.update(&sample(1).sequence(2).state(KeyState::Destroyed).build(), 1)).expect("updated");
    // Whoever crashed before it was noted leaves a tombstone that may have been stored. The store says that it was.
    let text = fs::read_to_string(journal.path()).expect("read");
    let without_answer = text.trim_end().rsplit_once('\n').expect("lines").0.to_owned() + "\n";
    fs::write(journal.path(), without_answer).expect("written");
    assert!(fs::read_to_string(journal.path()).expect("read").contains(&line(&shredded)));
    journal.intend([&sample(3).build()]).expect("written");
    journal.intend([&sample(9).build()]).expect("written");
    journal.settle([(&sample(9).build(), false)]);

    let remainders = block_on(store.purge(&[])).expect("purged");
    assert!(remainders.iter().all(|remainder| remainder.gone), "{remainders:?}");
    let text = fs::read_to_string(journal.path()).expect("read");
    assert!(!text.contains(&line(&shredded)) && text.contains(&line(&kept)));
    use CopyStatus::{Intended, Stored};
    assert_eq!(read(&journal), [(1, 2, Stored), (2, 2, Stored), (3, 1, Intended)]);
    assert_eq!(journal.read().expect("read").generations[&OURS], 9, "a number that was used stays used");
    // It goes on from there.
    block_on(store.insert(&sample(4).build(), None)).expect("inserted");
    assert_eq!(read(&journal).last(), Some(&(4, 1, Stored)));
    // A journal that cannot be written again is said to be pending, and found when it is asked again.
    fs::remove_file(journal.path()).expect("removed");
    let pending = block_on(store.purge(&[])).expect("asked");
    assert!(!pending[0].gone && pending[0].place.contains("keys.journal"), "{pending:?}");
    make(&journal, vec![kept]);
    let again: Vec<Remainder> = block_on(store.purge(&pending)).expect("asked");
    assert!(again.len() == 1 && again[0].gone, "{again:?}");
}

#[test]
fn an_intent_that_failed_or_is_disproved_does_not_stay() {
    let (_folder, first) = new_journal();
    let (_other, second) = new_journal();
    let (stored, tombstone) = (sample(1).build(), sample(1).sequence(2).state(KeyState::Destroyed).build());
    let store = JournaledStore::new(Arc::new(MemoryStore::new()), vec![first.clone(), second.clone()]);
    block_on(store.insert(&stored, None)).expect("inserted");
    // The second journal is away for a moment, so the store is not asked.
    let aside = second.path().with_extension("aside");
    fs::rename(second.path(), &aside).expect("moved");
    assert_eq!(block_on(store.update(&tombstone, 1)).expect_err("no journal").kind(), ErrorKind::Io);
    fs::rename(&aside, second.path()).expect("moved");
    use CopyStatus::{Intended, Refused, Stored};
    assert_eq!(read(&first), [(1, 1, Stored), (1, 2, Refused)]);
    // A tombstone of which nothing is known stays until something else was stored in its place.
    first.intend([&tombstone]).expect("written");
    first.compact().expect("compacted");
    assert_eq!(read(&first), [(1, 1, Stored), (1, 2, Intended)]);
    block_on(store.update(&sample(1).sequence(2).state(KeyState::Deactivated).build(), 1)).expect("updated");
    first.compact().expect("compacted");
    assert_eq!(read(&first), [(1, 2, Stored)]);
}

#[test]
fn a_journal_that_grows_is_compacted_and_stays_whole() {
    let (_folder, journal) = new_journal();
    let record = |sequence| sample(1).sequence(sequence).wraps(8).build();
    let mut longest = 0;
    let mut shrunk = 0;
    for sequence in 1..=800 {
        journal.intend([&record(sequence)]).expect("written");
        journal.settle([(&record(sequence), true)]);
        let len = fs::metadata(journal.path()).expect("a file").len();
        shrunk += usize::from(len < longest);
        longest = if len < longest { len } else { longest.max(len) };
    }
    assert!(shrunk > 2, "compacted {shrunk} times");
    let copies = journal.read().expect("read").copies;
    assert_eq!(copies.iter().map(|copy| copy.record.sequence()).max(), Some(800));
}

/// Covers F-D-2, F-D-4.
#[test]
fn a_backup_is_closed_by_its_number_of_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("backup");
    let records = sample_records(OURS);
    let mut backup = BackupWriter::new(Vec::new()).expect("begun");
    records.iter().for_each(|record| backup.add(record).expect("written"));
    let (whole, count) = backup.finish().expect("closed");
    assert_eq!(count, records.len() as u64);
    fs::write(&path, &whole).expect("written");
    let found = read_records(&path).expect("read");
    assert_eq!(found.copies.iter().map(|copy| copy.record.clone()).collect::<Vec<_>>(), records);
    for len in (0..whole.len()).step_by(11).chain(whole.len() - 200..whole.len()) {
        fs::write(&path, &whole[..len]).expect("written");
        assert_eq!(read_records(&path).expect_err("cut off").kind(), ErrorKind::Malformed, "{len}");
    }
    fs::write(&path, [&whole[..], b"x\n"].concat()).expect("written");
    assert_eq!(read_records(&path).expect_err("something follows").kind(), ErrorKind::Malformed);
    // Nobody takes a backup for a journal, or writes into it.
    fs::write(&path, &whole).expect("written");
    let journal = Journal::new(&path).expect("a folder");
    assert!(journal.read().is_err() && journal.intend([&records[0]]).is_err() && journal.compact().is_err());
    assert_eq!(fs::read(&path).expect("read"), whole);
    let newer = String::from_utf8(whole).expect("text").replacen("records 1", "records 2", 1);
    fs::write(&path, newer).expect("written");
    assert_eq!(read_records(&path).expect_err("newer").kind(), ErrorKind::Unsupported);
}

/// Starts the test `name` of this file as a process of its own.
fn start(name: &str, journal: &Path, number: usize) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FILE, journal)
        .env(NUMBER, number.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("started")
}

fn given() -> (Journal, u32) {
    let path = PathBuf::from(std::env::var_os(FILE).expect("only started by another test"));
    let number = std::env::var(NUMBER).ok().and_then(|number| number.parse().ok()).expect("a number");
    (Journal::new(path).expect("a folder"), number)
}

#[test]
#[ignore = "started by another test as a process of its own"]
fn writes_forty_records() {
    let (journal, number) = given();
    for n in 0..40 {
        let record = sample(number * 1000 + n + 1).build();
        journal.intend([&record]).expect("written");
        journal.settle([(&record, true)]);
    }
}

#[test]
#[ignore = "started by another test as a process of its own"]
fn writes_until_it_is_killed() {
    let (journal, number) = given();
    for n in 1.. {
        journal.intend([&sample(number * 100_000 + n).build()]).expect("written");
    }
}

// Failure K5
#[test]
fn processes_and_threads_write_one_journal() {
    let (_folder, journal) = new_journal();
    let children: Vec<_> = (1..=4).map(|number| start("writes_forty_records", journal.path(), number)).collect();
    std::thread::scope(|scope| {
        for number in 5..=8_u32 {
            let journal = journal.clone();
            scope.spawn(move || {
                for n in 0..40 {
                    journal.intend([&sample(number * 1000 + n + 1).build()]).expect("written");
                    journal.settle([(&sample(number * 1000 + n + 1).build(), true)]);
                }
                journal.compact().expect("compacted");
            });
        }
    });
    for mut child in children {
        assert!(child.wait().expect("ended").success());
    }
    let copies = journal.read().expect("whole").copies;
    let keys: BTreeSet<_> = copies.iter().map(|copy| copy.record.key_id()).collect();
    assert_eq!((keys.len(), copies.iter().filter(|copy| copy.status == CopyStatus::Stored).count()), (320, 320));
}

// Failure K2
#[test]
fn a_journal_is_whole_after_kill_9() {
    let (_folder, journal) = new_journal();
    let mut written = 0;
    for number in 1..=20 {
        let mut child = start("writes_until_it_is_killed", journal.path(), number);
        std::thread::sleep(std::time::Duration::from_millis(20 + 7 * number as u64));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let copies = journal.read().expect("whole").copies.len();
        assert!(copies >= written, "records were lost");
        written = copies;
    }
    assert!(written > 0);
    journal.intend([&sample(7).build()]).expect("it goes on");
}

/// Forks for real, in a process of its own.
#[test]
fn a_forked_child_may_write_too() {
    let (_folder, journal) = new_journal();
    let mut parent = start("forks_and_writes", journal.path(), 0);
    assert!(parent.wait().expect("ended").success());
    let numbers: BTreeSet<_> = read(&journal).into_iter().map(|(generation, ..)| generation).collect();
    assert_eq!(numbers.len(), 1 + 2 * 40);
}

#[test]
#[ignore = "started by another test as a process of its own"]
fn forks_and_writes() {
    let (journal, _) = given();
    let write = |first: u32, count| {
        (first..first + count).for_each(|number| journal.intend([&sample(number).build()]).expect("written"));
    };
    write(1, 1);
    // SAFETY: the child touches nothing that another thread could hold, and ends with `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let written = std::panic::catch_unwind(|| write(100, 40));
        // SAFETY: ends this process without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(written.is_err())) };
    }
    write(200, 40);
    let mut status = 0;
    // SAFETY: waits for the child that was just made; `status` lives on this stack.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
}

// Failure K3
#[test]
fn a_full_disk_stores_nothing_and_leaves_the_journal_whole() {
    let (_folder, journal) = new_journal();
    journal.intend([&sample(1).build()]).expect("written");
    let before = fs::read(journal.path()).expect("read");
    let mut child = Command::new("bash")
        .args([
            "-c",
            "ulimit -f 1; trap '' XFSZ; exec \"$0\" fails_to_write --exact --ignored --test-threads=1 >/dev/null",
        ])
        .arg(std::env::current_exe().expect("this program"))
        .env(FILE, journal.path())
        .env(NUMBER, "1")
        .spawn()
        .expect("started");
    assert!(child.wait().expect("ended").success());
    assert_eq!(fs::read(journal.path()).expect("read"), before, "a part of a line is left");
}

#[test]
#[ignore = "started by another test as a process of its own"]
fn fails_to_write() {
    let (journal, _) = given();
    let inner = Arc::new(MemoryStore::new());
    let store = JournaledStore::new(inner.clone(), vec![journal]);
    let record = SampleRecord::new(OURS, 5).wraps(8).build();
    let error = block_on(store.insert(&record, None)).expect_err("no room");
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(block_on(inner.list(OURS, None, 9)).expect("listed"), []);
}
