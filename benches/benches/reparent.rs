//! How many key records a second one core puts under another root, outside of the store: what the store takes is measured
//! by a wrapper and subtracted. CPU time of one thread.
//!
//! `--test` runs a small keyring and asserts nothing. `--assert` fails below the target.

use keyfold::testing::{FakeKms, block_on};
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    BoxFuture, FieldPolicy, KekAlias, KeyStore, Keyring, KeyringConfig, Kms, Lineage, MemoryHighWater, Policy, Record,
    RecordChange, Result, Slot, SlotId,
};
use keyfold_benches::cpu_time;
use keyfold_store::MemoryStore;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Records per second and core (issue 3).
const TARGET: f64 = 100_000.0;
const STEP: usize = 1000;

/// A store that knows how much CPU time its calls took.
struct Timed {
    inner: MemoryStore,
    nanoseconds: AtomicU64,
}

impl Timed {
    /// The stores in memory are ready at once, so the call is the time.
    fn timed<T>(&self, call: BoxFuture<'_, Result<T>>) -> BoxFuture<'_, Result<T>>
    where
        T: Send + 'static,
    {
        let began = cpu_time();
        let result = block_on(call);
        let took = (cpu_time() - began).as_nanos() as u64;
        self.nanoseconds.fetch_add(took, Ordering::Relaxed);
        Box::pin(async move { result })
    }
}

impl KeyStore for Timed {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.timed(self.inner.get(lineage, key_id))
    }
    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.timed(self.inner.newest(slot, limit))
    }
    fn scope_by_tag(&self, lineage: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.timed(self.inner.scope_by_tag(lineage, tag))
    }
    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.timed(self.inner.list(lineage, after, limit))
    }
    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        self.timed(self.inner.allocate_generation(lineage, above))
    }
    fn insert<'a>(&'a self, record: &'a Record, head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        self.timed(self.inner.insert(record, head))
    }
    fn update<'a>(&'a self, record: &'a Record, sequence: u64) -> BoxFuture<'a, Result<()>> {
        self.timed(self.inner.update(record, sequence))
    }
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        self.timed(self.inner.update_many(changes))
    }
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.timed(self.inner.now())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let (scopes, rounds) = if given("--test") { (200, 1) } else { (50_000, 5) };
    let store = Arc::new(Timed { inner: MemoryStore::new(), nanoseconds: AtomicU64::new(0) });
    let kek: Arc<dyn Kms> = Arc::new(FakeKms::new());
    let keks = || BTreeMap::from([(KekAlias::new("kek").expect("a good alias"), kek.clone())]);
    let marks = Arc::new(MemoryHighWater::default());
    let created = block_on(Keyring::create("bench", "bench", store.clone(), keks(), marks.clone())).expect("created");
    let mut policy = Policy::new();
    policy.add(FieldPolicy::randomized("field")).expect("a good field");
    let mut config = KeyringConfig { policy, ..created.config };
    let ring = Keyring::open(config.clone(), store.clone(), keks(), marks.clone()).expect("it opens");
    for scope in 0..scopes {
        let field = ring.field("field").expect("a field").scope(&format!("device-{scope}"));
        block_on(field.encryptor()).expect("a scope");
    }
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let ring = Keyring::open(config.clone(), store.clone(), keks(), marks.clone()).expect("it opens");
        let new = block_on(ring.rotate_root()).expect("a root").new;
        config.root_pins.push(*new.commitment());
        let mut walk = block_on(ring.reparent()).expect("a walk");
        let (in_store, began) = (store.nanoseconds.load(Ordering::Relaxed), cpu_time());
        // Without the last walk, which finds nothing to do.
        while walk.progress().moved < scopes {
            block_on(walk.step(STEP)).expect("a step");
        }
        let took = (cpu_time() - began).as_nanos() as u64;
        let in_store = store.nanoseconds.load(Ordering::Relaxed) - in_store;
        rates.push(walk.progress().moved as f64 * 1e9 / (took - in_store) as f64);
    }
    rates.sort_by(f64::total_cmp);
    let (low, median, high) = (rates[0], rates[rates.len() / 2], rates[rates.len() - 1]);
    let met = median >= TARGET;
    let mark = if met { "" } else { "  BELOW THE TARGET" };
    println!(
        "reparenting {scopes} scopes, records per second outside of the store: {median:.0} ({low:.0} to {high:.0}){mark}"
    );
    if given("--assert") && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
