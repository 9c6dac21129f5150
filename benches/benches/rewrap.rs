//! What a change of KEK costs a keyring with 10³ to 10⁶ scopes: requests to key services, and time. Each scope is one more
//! record to look at, and no request.
//!
//! `--test` runs small keyrings and asserts nothing. `--assert` fails where the requests grow.

use keyfold::testing::{FakeKms, block_on};
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::{
    KekAlias, KeyClass, KeyState, KeyStore, Keyring, KeyringConfig, Kms, MemoryHighWater, Record, RewrapOptions,
    RewrapProgress, SlotId,
};
use keyfold_store::MemoryStore;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

const STEP: usize = 1000;

/// What one change of KEK took.
struct Cost {
    scopes: u64,
    requests: u64,
    took: Duration,
    progress: RewrapProgress,
}

fn alias(text: &str) -> KekAlias {
    KekAlias::new(text).expect("a good alias")
}

/// A keyring with `scopes` scopes, under `old`.
fn keyring(scopes: u64, old: &FakeKms) -> (Arc<MemoryStore>, KeyringConfig) {
    let store = Arc::new(MemoryStore::new());
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([(alias("old"), Arc::new(old.clone()) as _)]);
    let marks = Arc::new(MemoryHighWater::default());
    let config = block_on(Keyring::create("bench", "bench", store.clone(), keks, marks)).expect("created").config;
    // Records that look like those of scopes: a walk over them verifies none, since it changes none.
    let made_by =
        |generation, slot| Key { bytes: [7; 32], lineage: config.lineage, class: KeyClass::Data, slot, generation };
    let root = Key { class: KeyClass::Root, ..made_by(1, SlotId::NONE) };
    for scope in 0..scopes {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(scope + 1).to_be_bytes());
        let generation = u32::try_from(scope + 100).expect("a generation");
        let key = made_by(generation, SlotId::from_bytes(id));
        let mut tag = [0; 32];
        tag[..16].copy_from_slice(&id);
        let wrap = WrapParts { kind: 1, alias: String::new(), version: String::new(), bytes: vec![1; 72] };
        let parts = RecordParts {
            key,
            root,
            state: KeyState::Active,
            scope_tag: Some(tag),
            sequence: 1,
            times: [1; 3],
            environment: "bench",
            wraps: vec![wrap],
            endorser: None,
            extensions: Vec::new(),
        };
        let record = Record::parse(&parts.to_bytes()).expect("a record");
        block_on(store.insert(&record, None)).expect("inserted");
    }
    (store, config)
}

fn change(scopes: u64) -> Cost {
    let (old, new) = (FakeKms::new(), FakeKms::new());
    let (store, config) = keyring(scopes, &old);
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> =
        BTreeMap::from([(alias("old"), Arc::new(old.clone()) as _), (alias("new"), Arc::new(new.clone()) as _)]);
    let ring = Keyring::open(config, store, keks, Arc::new(MemoryHighWater::default())).expect("it opens");
    let calls = || [&old, &new].map(|kms| kms.wrap_count() + kms.unwrap_count()).iter().sum::<u64>();
    let (before, began) = (calls(), Instant::now());
    let options = RewrapOptions { drop: BTreeSet::from([alias("old")]), ..RewrapOptions::default() };
    let mut walk = block_on(ring.rewrap(options)).expect("a walk");
    while !block_on(walk.step(STEP)).expect("a step").done {}
    Cost { scopes, requests: calls() - before, took: began.elapsed(), progress: walk.progress() }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let sizes: &[u64] = if given("--test") { &[10, 100] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let costs: Vec<Cost> = sizes.iter().map(|&scopes| change(scopes)).collect();
    for cost in &costs {
        assert_eq!((cost.progress.changed, cost.progress.dropped), (1, 1), "the root, and no other record");
        println!(
            "a change of KEK with {:>9} scopes: {} requests, {:>8.1} ms for {} records",
            cost.scopes,
            cost.requests,
            cost.took.as_secs_f64() * 1e3,
            cost.progress.seen
        );
    }
    let constant = costs.iter().all(|cost| cost.requests == costs[0].requests);
    if !constant {
        println!("REQUESTS GROW WITH THE NUMBER OF SCOPES");
    }
    if given("--assert") && !constant { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
