//! A call of store, key service or marks fails, the n-th for n = 1, 2, … until a run makes fewer, in each operation of a keyring's life,
//! in memory and on files: before the call had its effect, after it (only the answer is lost), or from that call on nobody answers.
//! After each: what was sealed opens in another process, every scope has one key that seals, the error says who failed, and
//! repeating finishes. core/tests does the same with a store that it can look into, and journal_failures.rs with a journal.
//!
//! Over 500 lines: each operation is held against the same faults and the same questions afterwards.

use keyfold::testing::{FakeKms, block_on};
use keyfold::wire::{Generation, KeyId, Sealed};
use keyfold::{
    BoxFuture, CachePolicy, CreatedKeyring, Error, ErrorKind, FieldPolicy, HighWater, HighWaterMark, KekAlias,
    KeyClass, KeyState, KeyStore, Keyring, KeyringConfig, Kms, KmsErrorKind, Lineage, MemoryHighWater, Record,
    RecordChange, RecordCopy, Remainder, Result, RewrapOptions, Secret, SeenElsewhere, Slot, SlotId, UnwrapRequest,
    Value, WrapRequest, WrappedKey,
};
use keyfold_store::{BackupWriter, FileHighWater, MemoryStore, SqliteStore, parse_records};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

const WARD: &str = "ward";
const NEW_WARD: &str = "new ward";
const GONE: &str = "gone";

#[derive(Clone, Copy, Debug)]
enum Fault {
    Before,
    After,
    Outage,
}

/// Counts the calls, and fails the one that it is told to.
#[derive(Default)]
struct Faults {
    calls: AtomicUsize,
    next: Mutex<Option<(usize, Fault)>>,
}

impl Faults {
    fn begin(&self, n: usize, fault: Fault) {
        self.calls.store(0, Ordering::SeqCst);
        *self.next.lock().expect("no panic") = Some((n, fault));
    }

    /// Says whether the call was made.
    fn end(&self) -> bool {
        let next = self.next.lock().expect("no panic").take();
        next.is_some_and(|(n, _)| self.calls.load(Ordering::SeqCst) >= n)
    }

    async fn around<T>(&self, kind: ErrorKind, call: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let next = *self.next.lock().expect("no panic");
        let fault = next.filter(|(n, fault)| number == *n || (number > *n && matches!(fault, Fault::Outage)));
        let failed = || Err(Error::new(kind, "injected"));
        match fault {
            Some((_, Fault::After)) => call.await.and_then(|_| failed()),
            Some(_) => failed(),
            None => call.await,
        }
    }
}

struct Faulty<T: ?Sized>(Arc<T>, Arc<Faults>);

impl Faulty<dyn KeyStore> {
    fn call<'a, T: 'a>(&'a self, call: BoxFuture<'a, Result<T>>) -> BoxFuture<'a, Result<T>> {
        Box::pin(self.1.around(ErrorKind::Store, call))
    }
}

/// `restore` is the one that makes a call per record, each of which may fail.
impl KeyStore for Faulty<dyn KeyStore> {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.call(self.0.get(lineage, key_id))
    }
    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.call(self.0.newest(slot, limit))
    }
    fn scope_by_tag(&self, lineage: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.call(self.0.scope_by_tag(lineage, tag))
    }
    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.call(self.0.list(lineage, after, limit))
    }
    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        self.call(self.0.allocate_generation(lineage, above))
    }
    fn insert<'a>(&'a self, record: &'a Record, head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        self.call(self.0.insert(record, head))
    }
    fn update<'a>(&'a self, record: &'a Record, sequence: u64) -> BoxFuture<'a, Result<()>> {
        self.call(self.0.update(record, sequence))
    }
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        self.call(self.0.update_many(changes))
    }
    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        self.call(self.0.purge(pending))
    }
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.call(self.0.now())
    }
}

const AWAY: ErrorKind = ErrorKind::Kms(KmsErrorKind::Unavailable);

impl Kms for Faulty<FakeKms> {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(self.1.around(AWAY, self.0.wrap(request)))
    }
    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(self.1.around(AWAY, self.0.unwrap(request)))
    }
}

impl HighWater for Faulty<dyn HighWater> {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        block_on(self.1.around(ErrorKind::Io, async { self.0.generation(lineage) }))
    }
    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        block_on(self.1.around(ErrorKind::Io, async { self.0.mark(lineage, key_id) }))
    }
    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        block_on(self.1.around(ErrorKind::Io, async { self.0.raise(lineage, generation, key) }))
    }
}

/// What outlives the processes of a machine: key records and marks.
enum Disk {
    Memory(MemoryStore, Arc<MemoryHighWater>),
    Files(TempDir),
}

impl Disk {
    fn memory() -> Self {
        Self::Memory(MemoryStore::new(), Arc::default())
    }

    fn files() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        drop(SqliteStore::create(folder.path().join("keys.db")).expect("made"));
        Self::Files(folder)
    }

    fn store(&self) -> Arc<dyn KeyStore> {
        match self {
            Self::Memory(store, _) => Arc::new(store.clone()),
            Self::Files(folder) => Arc::new(SqliteStore::open(folder.path().join("keys.db")).expect("it opens")),
        }
    }

    fn marks(&self) -> Arc<dyn HighWater> {
        match self {
            Self::Memory(_, marks) => marks.clone(),
            Self::Files(folder) => Arc::new(FileHighWater::open(folder.path().join("high-water")).expect("it opens")),
        }
    }
}

fn alias(name: &str) -> KekAlias {
    KekAlias::new(name).expect("an alias")
}

/// A keyring, and what was sealed under it.
struct Clinic {
    disk: Disk,
    faults: Arc<Faults>,
    keks: BTreeMap<KekAlias, Arc<FakeKms>>,
    config: KeyringConfig,
    sealed: Vec<(&'static str, Vec<u8>)>,
    backup: Vec<RecordCopy>,
    /// The store was lost, and is not restored yet.
    lost: bool,
}

type Parts = (Arc<dyn KeyStore>, BTreeMap<KekAlias, Arc<dyn Kms>>, Arc<dyn HighWater>);

fn parts(disk: &Disk, keks: &BTreeMap<KekAlias, Arc<FakeKms>>, faults: &Arc<Faults>) -> Parts {
    let kek = |(name, kms): (&KekAlias, &Arc<FakeKms>)| {
        (name.clone(), Arc::new(Faulty(kms.clone(), faults.clone())) as Arc<dyn Kms>)
    };
    let store = Arc::new(Faulty(disk.store(), faults.clone()));
    (store, keks.iter().map(kek).collect(), Arc::new(Faulty(disk.marks(), faults.clone())))
}

impl Clinic {
    fn of(disk: Disk, faults: Arc<Faults>, keks: BTreeMap<KekAlias, Arc<FakeKms>>, created: CreatedKeyring) -> Self {
        let mut config = created.config;
        config.policy.add(FieldPolicy::randomized("note")).expect("a field");
        config.shred.waiting = Duration::ZERO;
        // The next attempt counts.
        config.cache = CachePolicy { negative: Duration::ZERO, ..CachePolicy::default() };
        Self { disk, faults, keks, config, sealed: Vec::new(), backup: Vec::new(), lost: false }
    }

    /// With values under an old and a new key of one scope, and in a scope that is to be shredded.
    fn new(disk: Disk) -> Self {
        let (faults, keks) = (Arc::default(), BTreeMap::from([(alias("first"), Arc::default())]));
        let created = create(&disk, &keks, &faults).expect("created");
        let mut clinic = Self::of(disk, faults, keks, created);
        for scope in [WARD, GONE] {
            clinic.seal(scope).expect("sealed");
        }
        rotate(&mut clinic).expect("rotated");
        clinic
    }

    /// Another one like it, with files of its own: to prepare each takes longer than to copy it.
    fn copy(&self) -> Option<Self> {
        let Disk::Files(from) = &self.disk else { return None };
        let to = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(from.path()).expect("read") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), to.path().join(entry.file_name())).expect("copied");
        }
        let (keks, config, sealed) = (self.keks.clone(), self.config.clone(), self.sealed.clone());
        let (disk, faults, backup) = (Disk::Files(to), Arc::default(), self.backup.clone());
        Some(Self { disk, faults, keks, config, sealed, backup, lost: self.lost })
    }

    /// A process that has nothing in memory.
    fn process(&self) -> Keyring {
        let (store, keks, marks) = parts(&self.disk, &self.keks, &self.faults);
        Keyring::open(self.config.clone(), store, keks, marks).expect("it opens")
    }

    fn seal(&mut self, scope: &'static str) -> Result<()> {
        let sealed = seal(&self.process(), scope)?;
        self.sealed.push((scope, sealed));
        Ok(())
    }

    fn stored(&self) -> Vec<Record> {
        block_on(self.disk.store().list(self.config.lineage, None, usize::MAX)).expect("listed")
    }

    /// Everything opens, but for what was shredded or waits for a restore; and one key seals in each scope.
    #[track_caller]
    fn assert_whole(&self, what: &str) {
        let state = |sealed: &[u8]| {
            let key_id = Sealed::parse(sealed).expect("a value").key_id();
            self.stored().iter().find(|record| record.key_id() == key_id).map(Record::state)
        };
        let ring = self.process();
        for (scope, sealed) in &self.sealed {
            match (open(&ring, scope, sealed), state(sealed)) {
                (Ok(_), Some(state)) => assert!(state != KeyState::Destroyed, "{what}: a shredded value opened"),
                (Err(error), Some(KeyState::Destroyed | KeyState::DestroyPending)) => {
                    assert_eq!((*scope, error.kind()), (GONE, ErrorKind::KeyState), "{what}: {error}");
                }
                (Err(_), _) if self.lost => {}
                (result, state) => panic!("{what}: a value of {scope}, key {state:?}: {result:?}"),
            }
        }
        if self.lost {
            return;
        }
        let sealed = seal(&ring, WARD).unwrap_or_else(|error| panic!("{what}: sealing: {error}"));
        assert!(open(&self.process(), WARD, &sealed).expect("it opens"), "{what}: sealed under an old key");
        let listed = block_on(ring.list(None, usize::MAX)).expect("listed");
        assert!(listed.iter().all(|info| info.verified.is_ok()), "{what}: a record that nobody vouches for");
        let slot = listed.iter().find(|info| info.record.key_id() == Sealed::parse(&sealed).expect("a value").key_id());
        let slot = slot.expect("its key is stored").record.slot();
        let of_slot = listed.iter().map(|info| &info.record).filter(|record| record.slot() == slot);
        let seal = of_slot.filter(|record| matches!(record.state(), KeyState::Active | KeyState::PreActive));
        assert_eq!(seal.count(), 1, "{what}: keys that seal in one scope");
    }
}

fn create(disk: &Disk, keks: &BTreeMap<KekAlias, Arc<FakeKms>>, faults: &Arc<Faults>) -> Result<CreatedKeyring> {
    let (store, keks, marks) = parts(disk, keks, faults);
    block_on(Keyring::create("test", "test", store, keks, marks))
}

fn seal(ring: &Keyring, scope: &str) -> Result<Vec<u8>> {
    block_on(ring.field("note")?.scope(scope).encryptor())?.encrypt(Value::Text(scope), None)
}

/// Says whether the key is the one that seals.
fn open(ring: &Keyring, scope: &str, sealed: &[u8]) -> Result<bool> {
    block_on(async {
        let decryptor = ring.field("note")?.scope(scope).decryptor().await?;
        decryptor.load_keys(&[sealed][..]).await?;
        let opened = decryptor.decrypt(sealed, None)?;
        assert!(opened.value() == Value::Text(scope));
        Ok(opened.is_current())
    })
}

#[track_caller]
fn assert_injected(what: &str, error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Store | ErrorKind::Io | AWAY), "{what}: {error:?}");
}

/// Every way in which a call can fail on every disk.
fn everywhere(mut loops: impl FnMut(fn() -> Disk, Fault)) {
    for disk in [Disk::memory as fn() -> Disk, Disk::files] {
        for fault in [Fault::Before, Fault::After, Fault::Outage] {
            loops(disk, fault);
        }
    }
}

/// Fails every call of `operation`, on a clinic of its own each time; `finished` looks at what it came to.
#[track_caller]
fn at_every_call(
    prepare: impl Fn(&mut Clinic),
    operation: impl Fn(&mut Clinic) -> Result<()>,
    finished: impl Fn(&Clinic),
) {
    let (mut calls, mut failures) = (0, 0);
    everywhere(|disk, fault| {
        let prepared = || {
            let mut clinic = Clinic::new(disk());
            prepare(&mut clinic);
            clinic
        };
        let first = prepared();
        for n in 1.. {
            let what = format!("call {n}, {fault:?}");
            let mut clinic = first.copy().unwrap_or_else(prepared);
            clinic.faults.begin(n, fault);
            let result = operation(&mut clinic);
            let reached = clinic.faults.end();
            clinic.assert_whole(&what);
            match &result {
                Ok(()) => clinic.lost = false,
                Err(error) => {
                    assert!(reached, "{what}: {error}");
                    assert_injected(&what, error);
                    failures += 1;
                }
            }
            operation(&mut clinic).unwrap_or_else(|error| panic!("{what}: repeated: {error}"));
            clinic.lost = false;
            clinic.assert_whole(&what);
            finished(&clinic);
            if !reached {
                return;
            }
            calls += 1;
        }
    });
    println!("{calls} calls failed, {failures} operations with them");
    assert!(failures > 0, "nothing failed");
}

#[test]
fn creating() {
    everywhere(|disk, fault| {
        for n in 1.. {
            let what = format!("call {n}, {fault:?}");
            let (disk, faults) = (disk(), Arc::<Faults>::default());
            let keks = BTreeMap::from([(alias("first"), Arc::default())]);
            faults.begin(n, fault);
            let first = create(&disk, &keks, &faults);
            let reached = faults.end();
            if let Err(error) = &first {
                assert_injected(&what, error);
            }
            let created = first.or_else(|_| create(&disk, &keks, &faults)).expect("repeated");
            let mut clinic = Clinic::of(disk, faults, keks, created);
            clinic.seal(WARD).expect("sealed");
            clinic.assert_whole(&what);
            if !reached {
                assert!(n > 10, "{n} calls");
                return;
            }
        }
    });
}

#[test]
fn sealing_under_a_key_that_is_there() {
    at_every_call(|_| (), |clinic| clinic.seal(WARD), |_| ());
}

#[test]
fn the_first_value_of_a_scope() {
    at_every_call(|_| (), |clinic| clinic.seal(NEW_WARD), |_| ());
}

#[test]
fn opening() {
    let open_all = |clinic: &mut Clinic| {
        let ring = clinic.process();
        clinic.sealed.iter().try_for_each(|(scope, sealed)| open(&ring, scope, sealed).map(drop))
    };
    at_every_call(|_| (), open_all, |_| ());
}

fn rotate(clinic: &mut Clinic) -> Result<()> {
    block_on(clinic.process().rotate_data_key(Some(WARD)))?;
    clinic.seal(WARD)
}

// Failure N11
#[test]
fn rotation() {
    at_every_call(|_| (), rotate, |_| ());
}

// Failure N11
#[test]
fn another_root_and_its_children() {
    let reparent = |clinic: &mut Clinic| {
        let ring = clinic.process();
        block_on(ring.rotate_root())?;
        let mut walk = block_on(ring.reparent())?;
        while !block_on(walk.step(2))?.done {}
        Ok(())
    };
    at_every_call(
        |_| (),
        reparent,
        |clinic| {
            let records = clinic.stored();
            let mut roots = records.iter().filter(|record| record.class() == KeyClass::Root);
            let newest = roots.next_back().expect("a root").key_id();
            let children = records.iter().filter(|record| record.class() != KeyClass::Root);
            assert!(children.clone().all(|record| record.authenticator() == newest) && children.count() > 0);
        },
    );
}

// Failure N11
#[test]
fn another_kek() {
    let add_second = |clinic: &mut Clinic| {
        clinic.keks.insert(alias("second"), Arc::default());
        clinic.config.keks.retired.insert(alias("first"));
    };
    let rewrap = |clinic: &mut Clinic| {
        let options = RewrapOptions { drop: [alias("first")].into(), ..RewrapOptions::default() };
        let mut walk = block_on(clinic.process().rewrap(options))?;
        while !block_on(walk.step(2))?.done {}
        // What one KEK could not do is reported, so that the walk goes on with the others.
        walk.failures().values().next().map_or(Ok(()), |error| Err(error.clone()))
    };
    at_every_call(add_second, rewrap, |clinic| {
        let records = clinic.stored();
        let mut wraps = records.iter().flat_map(Record::kek_aliases);
        assert!(wraps.all(|kek| kek.as_str() == "second"));
    });
}

#[test]
fn shredding() {
    let shred = |clinic: &mut Clinic| {
        let ring = clinic.process();
        match block_on(ring.shred_scope(GONE, None)) {
            // Another run has scheduled it, or ended it.
            Err(error) if error.kind() == ErrorKind::KeyState => {}
            scheduled => drop(scheduled?),
        }
        let shredded = block_on(ring.finish_shred(GONE, None))?;
        let pending = shredded.remainders.iter().any(|remainder| !remainder.gone);
        if pending { Err(ErrorKind::Store.into()) } else { Ok(()) }
    };
    at_every_call(
        |_| (),
        shred,
        |clinic| {
            let ring = clinic.process();
            let mut gone = clinic.sealed.iter().filter(|(scope, _)| *scope == GONE);
            assert!(gone.all(|(_, sealed)| open(&ring, GONE, sealed).is_err()));
        },
    );
}

#[test]
fn restoring() {
    let lose_the_store = |clinic: &mut Clinic| {
        let mut bytes = Vec::new();
        let mut backup = BackupWriter::new(&mut bytes).expect("begun");
        clinic.stored().iter().for_each(|record| backup.add(record).expect("written"));
        backup.finish().expect("ended");
        clinic.backup = parse_records(&bytes).expect("read").copies;
        clinic.disk = match clinic.disk {
            Disk::Memory(..) => Disk::memory(),
            Disk::Files(_) => Disk::files(),
        };
        clinic.lost = true;
    };
    let restore = |clinic: &mut Clinic| {
        let ring = clinic.process();
        let plan = block_on(ring.plan_restore(clinic.backup.clone(), &SeenElsewhere::default()))?;
        assert!(plan.lost.is_empty() && plan.refused.is_empty(), "{plan:?}");
        block_on(ring.restore(&plan))
    };
    at_every_call(lose_the_store, restore, |clinic| {
        let mut copies = clinic.backup.iter().map(|copy| copy.record.key_id());
        let stored = clinic.stored();
        assert!(copies.all(|key_id| stored.iter().any(|record| record.key_id() == key_id)));
    });
}

/// A value is replaced when the new one was opened, one after the other.
// Failure N12
#[test]
fn reencryption() {
    let rotate = |clinic: &mut Clinic| rotate(clinic).expect("rotated");
    let reencrypt = |clinic: &mut Clinic| {
        let ring = clinic.process();
        for (scope, sealed) in &mut clinic.sealed {
            if !open(&ring, scope, sealed)? {
                let new = seal(&ring, scope)?;
                open(&ring, scope, &new)?;
                *sealed = new;
            }
        }
        Ok(())
    };
    at_every_call(rotate, reencrypt, |clinic| {
        let ring = clinic.process();
        assert!(clinic.sealed.iter().all(|(scope, sealed)| open(&ring, scope, sealed).expect("it opens")));
    });
}
