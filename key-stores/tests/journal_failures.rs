//! The journal is lost at every store call in turn, while a keyring is at work: what was sealed opens, every key is in the
//! journal before anyone seals under it, repeating finishes, and a store from the journal alone shows the same.

use keyfold::testing::{FakeKms, block_on};
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    BoxFuture, CachePolicy, CopyStatus, Error, ErrorKind, FieldPolicy, KekAlias, KeyState, KeyStore, Keyring,
    KeyringConfig, Kms, Lineage, MemoryHighWater, Record, RecordChange, RecordCopy, Remainder, Result, RewrapOptions,
    SeenElsewhere, Slot, SlotId, Value,
};
use keyfold_store::{BackupWriter, Journal, JournaledStore, MemoryStore, read_records};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const WARD: &str = "ward";
const NEW_WARD: &str = "new ward";
const GONE: &str = "gone";

/// A store under which the journal's file is renamed at one of its calls.
struct Thief {
    store: MemoryStore,
    journal: PathBuf,
    calls_left: AtomicUsize,
}

impl Thief {
    const NEVER: usize = usize::MAX;

    fn aside(&self) -> PathBuf {
        self.journal.with_extension("aside")
    }

    /// Takes the journal at the `n`-th call from now on; at once for 0.
    fn take_at(&self, n: usize) {
        self.calls_left.store(n, Ordering::SeqCst);
        if n == 0 {
            self.take();
        }
    }

    fn take(&self) {
        fs::rename(&self.journal, self.aside()).expect("taken");
        self.calls_left.store(Self::NEVER, Ordering::SeqCst);
    }

    /// Says whether it had been taken.
    fn give_back(&self) -> bool {
        self.calls_left.store(Self::NEVER, Ordering::SeqCst);
        let taken = self.aside().exists();
        if taken {
            fs::rename(self.aside(), &self.journal).expect("given back");
        }
        taken
    }

    fn called(&self) -> &MemoryStore {
        match self.calls_left.load(Ordering::SeqCst) {
            Self::NEVER => {}
            1 => self.take(),
            left => self.calls_left.store(left - 1, Ordering::SeqCst),
        }
        &self.store
    }
}

/// `restore` is the one that makes a call per record.
impl KeyStore for Thief {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.called().get(lineage, key_id)
    }
    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.called().newest(slot, limit)
    }
    fn scope_by_tag(&self, lineage: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.called().scope_by_tag(lineage, tag)
    }
    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.called().list(lineage, after, limit)
    }
    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        self.called().allocate_generation(lineage, above)
    }
    fn insert<'a>(&'a self, record: &'a Record, head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        self.called().insert(record, head)
    }
    fn update<'a>(&'a self, record: &'a Record, sequence: u64) -> BoxFuture<'a, Result<()>> {
        self.called().update(record, sequence)
    }
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        self.called().update_many(changes)
    }
    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        self.called().purge(pending)
    }
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.called().now()
    }
}

fn alias(name: &str) -> KekAlias {
    KekAlias::new(name).expect("an alias")
}

/// A keyring with its journal, one process, and what it has sealed.
struct Clinic {
    folder: TempDir,
    thief: Arc<Thief>,
    journal: Journal,
    keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
    config: KeyringConfig,
    ring: Keyring,
    sealed: Vec<(&'static str, Vec<u8>)>,
    /// Store and journal were lost with their disks, and are not restored yet.
    lost: bool,
}

impl Clinic {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::new(folder.path().join("keys.journal")).expect("a folder");
        block_on(journal.create(async { Ok(Vec::new()) })).expect("made");
        let (path, calls_left) = (journal.path().to_owned(), AtomicUsize::new(Thief::NEVER));
        let thief = Arc::new(Thief { store: MemoryStore::new(), journal: path, calls_left });
        let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([(alias("first"), Arc::new(FakeKms::new()) as _)]);
        let store = || Arc::new(JournaledStore::new(thief.clone(), vec![journal.clone()]));
        let marks = Arc::new(MemoryHighWater::default());
        let created = Keyring::create("test", "test", store(), keks.clone(), marks.clone());
        let mut config = block_on(created).expect("created").config;
        config.policy.add(FieldPolicy::randomized("note")).expect("a field");
        config.shred.waiting = Duration::ZERO;
        // The next attempt counts.
        config.cache = CachePolicy { negative: Duration::ZERO, ..CachePolicy::default() };
        let ring = Keyring::open(config.clone(), store(), keks.clone(), marks).expect("it opens");
        let mut clinic = Self { folder, thief, journal, keks, config, ring, sealed: Vec::new(), lost: false };
        for scope in [WARD, GONE] {
            clinic.seal(scope).expect("sealed");
        }
        clinic
    }

    fn seal(&mut self, scope: &'static str) -> Result<()> {
        let sealed = block_on(self.ring.field("note")?.scope(scope).encryptor())?.encrypt(Value::Text(scope), None)?;
        self.sealed.push((scope, sealed));
        Ok(())
    }

    /// Another process, or another machine, with these records.
    fn elsewhere(&self, store: Arc<dyn KeyStore>) -> Keyring {
        let marks = Arc::new(MemoryHighWater::default());
        Keyring::open(self.config.clone(), store, self.keks.clone(), marks).expect("it opens")
    }

    fn stored(&self) -> Vec<Record> {
        block_on(self.thief.store.list(self.config.lineage, None, usize::MAX)).expect("listed")
    }

    fn copies(&self) -> Vec<RecordCopy> {
        self.journal.read().expect("the journal is whole").copies
    }

    /// Puts a store together from the journal alone.
    fn rebuilt_from_journal(&self) -> Keyring {
        let ring = self.elsewhere(Arc::new(MemoryStore::new()));
        restore(&ring, self.copies()).expect("restored");
        ring
    }

    #[track_caller]
    fn assert_journal_has_everything(&self) {
        let copies = self.copies();
        for record in self.stored() {
            let found = copies.iter().any(|copy| copy.record == record && copy.status != CopyStatus::Refused);
            assert!(found, "a key is stored that the journal lacks: {record:?}");
        }
    }

    /// Everything opens, except in the shredded scope what has no key in the store.
    #[track_caller]
    fn assert_open(&self, ring: &Keyring) {
        let stored: BTreeMap<KeyId, KeyState> =
            self.stored().iter().map(|record| (record.key_id(), record.state())).collect();
        for (scope, sealed) in &self.sealed {
            let key_id = keyfold::wire::Sealed::parse(sealed).expect("a value").key_id();
            let state = stored.get(&key_id).copied();
            match (open(ring, scope, sealed), state) {
                (Ok(()), Some(state)) => assert!(state != KeyState::Destroyed, "a shredded value opened"),
                (Err(_), Some(KeyState::Destroyed | KeyState::DestroyPending)) => assert_eq!(*scope, GONE),
                (Err(_), None) if self.lost => {}
                (Err(error), state) => panic!("a value of {scope}, key {state:?}: {error}"),
                (Ok(()), None) => panic!("it sealed under a key that is not stored"),
            }
        }
    }

    fn is_gone(&self, ring: &Keyring) -> bool {
        let mut values = self.sealed.iter().filter(|(scope, _)| *scope == GONE);
        values.all(|(_, sealed)| open(ring, GONE, sealed).is_err_and(|error| error.kind() == ErrorKind::KeyState))
    }
}

fn open(ring: &Keyring, scope: &str, sealed: &[u8]) -> Result<()> {
    block_on(async {
        let decryptor = ring.field("note")?.scope(scope).decryptor().await?;
        decryptor.load_keys(&[sealed][..]).await?;
        assert!(decryptor.decrypt(sealed, None)?.value() == Value::Text(scope));
        Ok(())
    })
}

fn restore(ring: &Keyring, copies: Vec<RecordCopy>) -> Result<()> {
    let plan = block_on(ring.plan_restore(copies, &SeenElsewhere::default()))?;
    assert!(plan.lost.is_empty() && plan.refused.is_empty(), "{plan:?}");
    block_on(ring.restore(&plan))
}

/// Loses the journal at every call of `operation`, on a clinic of its own each time; `finished` looks at the end.
#[track_caller]
fn at_every_call(
    prepare: impl Fn(&mut Clinic),
    operation: impl Fn(&mut Clinic) -> Result<()>,
    finished: impl Fn(&Clinic, &Keyring),
) {
    let mut failed = 0;
    for n in 0.. {
        let mut clinic = Clinic::new();
        prepare(&mut clinic);
        clinic.thief.take_at(n);
        let result = operation(&mut clinic);
        if result.is_err() {
            // Without the journal a value is sealed under a key that it has, or not at all.
            let _ = [WARD, NEW_WARD].map(|scope| clinic.seal(scope));
            clinic.assert_open(&clinic.ring);
        }
        let taken = clinic.thief.give_back();
        clinic.assert_journal_has_everything();
        clinic.assert_open(&clinic.elsewhere(Arc::new(clinic.thief.store.clone())));
        if !clinic.lost {
            clinic.assert_open(&clinic.rebuilt_from_journal());
        }
        if let Err(error) = &result {
            assert!(taken && error.kind() == ErrorKind::Io, "call {n}: {error}");
            failed += 1;
        }
        operation(&mut clinic).unwrap_or_else(|error| panic!("repeated after call {n}: {error}"));
        clinic.lost = false;
        clinic.seal(WARD).expect("sealed");
        clinic.assert_journal_has_everything();
        for ring in [clinic.elsewhere(Arc::new(clinic.thief.store.clone())), clinic.rebuilt_from_journal()] {
            clinic.assert_open(&ring);
            finished(&clinic, &ring);
        }
        if !taken {
            println!("{n} calls, of which {failed} left it unfinished");
            assert!(failed > 0, "it needs no journal");
            return;
        }
    }
}

#[test]
fn the_first_key_of_a_scope() {
    at_every_call(|_| (), |clinic| clinic.seal(NEW_WARD), |_, _| ());
}

// Failure N11
#[test]
fn rotation() {
    let rotate = |clinic: &mut Clinic| {
        block_on(clinic.ring.rotate_data_key(Some(WARD)))?;
        clinic.seal(WARD)
    };
    at_every_call(|_| (), rotate, |_, _| ());
}

#[test]
fn another_root_and_its_children() {
    let rotate = |clinic: &mut Clinic| {
        block_on(clinic.ring.rotate_root())?;
        let mut walk = block_on(clinic.ring.reparent())?;
        while !block_on(walk.step(2))?.done {}
        Ok(())
    };
    at_every_call(
        |_| (),
        rotate,
        |clinic, _| {
            let children: Vec<_> =
                clinic.stored().into_iter().filter(|record| record.class() != keyfold::KeyClass::Root).collect();
            let roots: BTreeSet<_> = children.iter().map(Record::authenticator).collect();
            assert_eq!(roots.len(), 1, "all under one root");
        },
    );
}

/// Finished when no place is pending.
fn shred(clinic: &mut Clinic) -> Result<()> {
    match block_on(clinic.ring.shred_scope(GONE, None)) {
        Err(error) if error.kind() == ErrorKind::KeyState => {}
        scheduled => drop(scheduled?),
    }
    let shredded = block_on(clinic.ring.finish_shred(GONE, None))?;
    // That everything is gone is said only where it is so.
    let gone = shredded.remainders.iter().all(|remainder| remainder.gone);
    assert!(!gone || clinic.journal.exists(), "{:?}", shredded.remainders);
    if gone { Ok(()) } else { Err(Error::new(ErrorKind::Io, "the journal is pending")) }
}

#[test]
fn shredding() {
    let more_keys = |clinic: &mut Clinic| {
        block_on(clinic.ring.rotate_data_key(Some(GONE))).expect("rotated");
        clinic.seal(GONE).expect("sealed");
    };
    at_every_call(more_keys, shred, |clinic, ring| {
        assert!(clinic.is_gone(ring) && clinic.is_gone(&clinic.ring));
        let tombstones: BTreeSet<_> =
            clinic.stored().iter().filter(|record| record.state() == KeyState::Destroyed).map(Record::key_id).collect();
        let copies = clinic.copies();
        let mut of_scope = copies.iter().filter(|copy| tombstones.contains(&copy.record.key_id()));
        assert!(of_scope.all(|copy| copy.record.state() == KeyState::Destroyed), "the journal still has its wraps");
        assert_eq!(tombstones.len(), 2);
    });
}

#[test]
fn restoring_from_a_backup_with_a_journal_that_is_new() {
    let lose_the_disks = |clinic: &mut Clinic| {
        shred(clinic).expect("shredded");
        let path = clinic.folder.path().join("backup");
        let mut backup = BackupWriter::new(File::create(&path).expect("made")).expect("begun");
        clinic.stored().iter().for_each(|record| backup.add(record).expect("written"));
        backup.finish().expect("ended");
        fs::remove_file(clinic.journal.path()).expect("removed");
        block_on(clinic.journal.create(async { Ok(Vec::new()) })).expect("made");
        let (journal, calls_left) = (clinic.journal.path().to_owned(), AtomicUsize::new(Thief::NEVER));
        clinic.thief = Arc::new(Thief { store: MemoryStore::new(), journal, calls_left });
        let store = JournaledStore::new(clinic.thief.clone(), vec![clinic.journal.clone()]);
        clinic.ring = clinic.elsewhere(Arc::new(store));
        clinic.lost = true;
    };
    let restore = |clinic: &mut Clinic| {
        restore(&clinic.ring, read_records(&clinic.folder.path().join("backup")).expect("read").copies)
    };
    at_every_call(lose_the_disks, restore, |clinic, ring| assert!(clinic.is_gone(ring)));
}

#[test]
fn another_kek() {
    let add_second = |clinic: &mut Clinic| {
        clinic.keks.insert(alias("second"), Arc::new(FakeKms::new()));
        clinic.config.keks.retired.insert(alias("first"));
        let store = JournaledStore::new(clinic.thief.clone(), vec![clinic.journal.clone()]);
        clinic.ring = clinic.elsewhere(Arc::new(store));
    };
    let rewrap = |clinic: &mut Clinic| {
        let options = RewrapOptions { drop: [alias("first")].into(), ..RewrapOptions::default() };
        let mut walk = block_on(clinic.ring.rewrap(options))?;
        while !block_on(walk.step(2))?.done {}
        Ok(())
    };
    at_every_call(add_second, rewrap, |clinic, _| {
        let mut wraps = clinic
            .stored()
            .into_iter()
            .flat_map(|record| record.kek_aliases().map(|alias| alias.as_str().to_owned()).collect::<Vec<_>>());
        assert!(wraps.all(|alias| alias == "second"));
    });
}
