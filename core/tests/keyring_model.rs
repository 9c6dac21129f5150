//! The life of keys against a naive model of it (`keyring_model/model.rs`): random sequences of what people and processes do, on a store
//! in memory and with a clock that only the test moves. After each step the answer must be one that the model allows, and every record
//! must be what the model says. In the end a new process opens what the records let it open, and nothing else.
//!
//! That it finds faults can be repeated by planting one; each of these makes `keys_live_as_the_model_says` fail:
//!
//! - keyring/shred.rs, `stop_using_because`: `remove` instead of `end`, so that keys of a shredded scope open on.
//! - keyring/rotate.rs, `advance`: the key of before instead of `next`.
//! - keyring.rs, `check_opens`: without asking for `open_compromised`.
//! - cache/mod.rs, `is_absence`: also for `AccessDenied`, so that a key is used on though its KEK refuses it.
//! - cache/former.rs, `add`: nothing is added, so that handles keep what the cache has replaced.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, reason = "a test")]

mod common;
#[path = "keyring_model/model.rs"]
mod model;
#[cfg(not(target_arch = "arm"))]
#[path = "keyring_model/schedules.rs"]
mod schedules;

use common::lab::{Lab, TIME, alias, decryptor, encryptor, key_id_of, scope_tag};
use common::{block_on, open};
use keyfold::testing::FakeKms;
use keyfold::{
    CachePolicy, Clock, Decryptor, KekAlias, KeyClass, KeyState, Keyring, KeyringConfig, Kms, KmsErrorKind, Record,
    Result, RewrapOptions, RotationPolicy, ShredPolicy, SlotId, Value,
};
use model::{Class, Key, Model, Op, Outcome, SCOPES, Service};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NAMES: [Option<&str>; SCOPES] = [None, Some("clinic"), Some("ward")];
/// By number, as the model has them.
const KEKS: [&str; model::KEKS] = ["local", "far"];
const TEXT: &str = "a value";

/// Seconds. Renewals are not spread.
#[derive(Clone)]
struct Seconds(Arc<AtomicU64>);

impl Clock for Seconds {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn jitter(&self) -> u64 {
        0
    }
}

struct World {
    lab: Lab,
    far: FakeKms,
    clock: Seconds,
    rings: [Keyring; model::PROCESSES],
    /// By process and scope.
    handles: BTreeMap<(usize, usize), Decryptor>,
    sealed: Vec<Vec<u8>>,
    model: Model,
    /// Key and scope of each value.
    values: Vec<(usize, usize)>,
}

impl World {
    fn new(lead: u64) -> Self {
        let seconds = Duration::from_secs;
        let mut lab = Lab::new();
        lab.config = KeyringConfig {
            cache: CachePolicy {
                max_age: seconds(model::MAX_AGE),
                grace: seconds(model::GRACE),
                check_every: seconds(model::CHECK_EVERY),
                max_idle: CachePolicy::MAX_AGE,
                ..lab.config.cache
            },
            rotation: RotationPolicy {
                data_age: Some(seconds(model::DATA_AGE)),
                root_age: None,
                data_messages: Some(model::LIMIT),
                lead: seconds(lead),
            },
            shred: ShredPolicy { waiting: seconds(model::WAITING) },
            ..lab.config
        };
        let (far, clock) = (FakeKms::new(), Seconds(Arc::new(AtomicU64::new(TIME))));
        lab.store.state().now = Some(TIME);
        let rings = [(); model::PROCESSES].map(|()| process(&lab, &far, &clock));
        let mut world = Self {
            lab,
            far,
            clock,
            rings,
            handles: BTreeMap::new(),
            sealed: Vec::new(),
            model: Model::new(Vec::new(), TIME, lead),
            values: Vec::new(),
        };
        world.model = Model::new(world.keys(), TIME, lead);
        world
    }

    /// What the store has, in the words of the model.
    fn keys(&self) -> Vec<Key> {
        let records = self.lab.store.all();
        let number = |id| records.iter().position(|record| record.key_id() == id).expect("it is in the store");
        let scopes = NAMES.map(|name| name.map(scope_tag));
        let key = |record: &Record| Key {
            class: match record.class() {
                KeyClass::Root => Class::Root,
                KeyClass::Data if record.slot_id() == SlotId::NONE => Class::Data(0),
                KeyClass::Data => {
                    Class::Data(scopes.iter().position(|tag| *tag == record.scope_tag()).expect("a scope of ours"))
                }
                _ => Class::Lookup,
            },
            state: record.state(),
            under: number(record.authenticator()),
            keks: record.kek_aliases().filter_map(|kek| KEKS.iter().position(|name| *name == kek.as_str())).collect(),
            sequence: record.sequence(),
            times: [record.created_at(), record.activated_at(), record.changed_at()],
            held: record.held_since().is_some(),
        };
        records.iter().map(key).collect()
    }

    fn kms(&self, kek: usize) -> &FakeKms {
        [&self.lab.kms, &self.far][kek]
    }

    /// Does `op` in the process `p`, for real.
    fn perform(&mut self, p: usize, op: &Op) -> Result<Outcome> {
        let ring = self.rings[p].clone();
        let name = |scope: &usize| NAMES[*scope].expect("the keyring itself has no name");
        match op {
            Op::Seal(scope) => {
                let sealed = encryptor(&ring, "plain", NAMES[*scope])?.encrypt(Value::Text(TEXT), None)?;
                let key = self.lab.store.all().iter().position(|record| record.key_id() == key_id_of(&sealed));
                let key = key.expect("nobody seals under a key that is not in the store");
                self.sealed.push(sealed);
                self.values.push((key, *scope));
                return Ok(Outcome::Sealed(key));
            }
            Op::Open { value, scope, late } => {
                let (sealed, scope) = (&self.sealed[*value], scope.unwrap_or(self.values[*value].1));
                let current = match self.handles.get(&(p, scope)).filter(|_| *late) {
                    Some(handle) => opened(handle, sealed)?,
                    None => {
                        let handle = decryptor(&ring, "plain", NAMES[scope])?;
                        let current = opened(&handle, sealed);
                        self.handles.insert((p, scope), handle);
                        current?
                    }
                };
                return Ok(Outcome::Opened { current });
            }
            Op::Rotate(scope) => drop(block_on(ring.rotate_data_key(NAMES[*scope]))?),
            Op::Activate(scope) => drop(block_on(ring.activate_data_key(NAMES[*scope]))?),
            Op::RotateRoot => drop(block_on(ring.rotate_root())?),
            Op::ActivateRoot => drop(block_on(ring.activate_root())?),
            Op::ChangeState(key, state) => {
                let key_id = self.lab.store.all()[*key].key_id();
                drop(block_on(ring.change_state(key_id, *state))?);
            }
            Op::Shred(scope) => drop(block_on(ring.shred_scope(name(scope), None))?),
            Op::CancelShred(scope) => drop(block_on(ring.cancel_shred(name(scope), None))?),
            Op::FinishShred(scope) => drop(block_on(ring.finish_shred(name(scope), None))?),
            Op::Hold(scope) => drop(block_on(ring.hold_scope(name(scope), None))?),
            Op::Release(scope) => drop(block_on(ring.release_scope(name(scope), None))?),
            Op::Reparent => {
                let mut walk = block_on(ring.reparent())?;
                while !block_on(walk.step(5))?.done {}
            }
            Op::Rewrap => {
                let options = RewrapOptions { renew: BTreeSet::new(), drop: BTreeSet::new() };
                let mut walk = block_on(ring.rewrap(options))?;
                while !block_on(walk.step(5))?.done {}
            }
            Op::Restart => {
                let roots = self.lab.store.all().into_iter().filter(|record| record.class() == KeyClass::Root);
                self.lab.config.root_pins = roots.map(|record| *record.commitment()).collect();
                self.rings[p] = process(&self.lab, &self.far, &self.clock);
                self.handles.retain(|(process, _), _| *process != p);
            }
            Op::Wait(seconds) => drop(self.clock.0.fetch_add(*seconds, Ordering::SeqCst)),
            Op::StoreClockJumps(_) => {}
            Op::Kek(kek, service) => self.kms(*kek).set_failure(match service {
                Service::Answers => None,
                Service::Away => Some(KmsErrorKind::Unavailable),
                Service::Denies => Some(KmsErrorKind::AccessDenied),
            }),
            Op::Store(service) => self.lab.faults.fail_store(*service != Service::Answers),
        }
        Ok(Outcome::Done)
    }

    /// Does `op`, and goes on with the answer of the model that came about.
    fn step(&mut self, p: usize, op: &Op) -> std::result::Result<(), TestCaseError> {
        let answers = self.model.step(p, op, &self.values);
        let result = self.perform(p, op);
        let outcome = match &result {
            Ok(outcome) => *outcome,
            Err(error) => Outcome::Refused(error.kind()),
        };
        let keys = self.keys();
        let found = answers.iter().position(|(expected, next)| *expected == outcome && next.keys == keys);
        let Some(found) = found else {
            let allowed: Vec<_> = answers.iter().map(|(outcome, next)| (outcome, next.keys == keys)).collect();
            let changed = |next: &Model| {
                let pairs = next.keys.iter().map(Some).chain([None; 3]).zip(keys.iter().map(Some).chain([None; 3]));
                pairs.enumerate().filter(|(_, (a, b))| a != b).map(|pair| format!("{pair:?}")).collect::<Vec<_>>()
            };
            let differs: Vec<_> = answers.iter().map(|(_, next)| changed(next)).collect();
            return Err(TestCaseError::fail(format!(
                "process {p}, {op:?}: {result:?}; allowed, and whether the records are so: {allowed:?}; records of the model and \
                 of the store: {differs:#?}"
            )));
        };
        self.model = answers.into_iter().nth(found).expect("it was found").1;
        self.lab.store.state().now = Some(self.model.store_time());
        Ok(())
    }

    /// Brings an operation that proptest has drawn to what there is; `None`: there is nothing of the kind.
    fn fit(&self, op: Op) -> Option<Op> {
        let op = match op {
            Op::Open { value, scope, late } if !self.values.is_empty() => {
                Op::Open { value: value % self.values.len(), scope, late }
            }
            Op::Open { .. } => return None,
            Op::ChangeState(key, state) => Op::ChangeState(key % self.model.keys.len(), state),
            op => op,
        };
        (!self.model.leaves_out(&op)).then_some(op)
    }

    fn run(&mut self, p: usize, op: Op) -> std::result::Result<(), TestCaseError> {
        let Some(op) = self.fit(op) else { return Ok(()) };
        // Before a root is taken out of service, its successor's pin goes everywhere.
        if matches!(op, Op::ChangeState(key, _) if self.model.is_root(key)) {
            (0..model::PROCESSES).try_for_each(|p| self.step(p, &Op::Restart))?;
        }
        self.step(p, &op)
    }
}

fn process(lab: &Lab, far: &FakeKms, clock: &Seconds) -> Keyring {
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> =
        BTreeMap::from([(alias(KEKS[0]), lab.kek()), (alias(KEKS[1]), Arc::new(far.clone()) as Arc<dyn Kms>)]);
    let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(lab.marks.clone()));
    Keyring::open_with_clock(lab.config.clone(), store, keks, marks, Arc::new(clock.clone())).expect("it opens")
}

fn opened(handle: &Decryptor, sealed: &[u8]) -> Result<bool> {
    let opened = open(handle, sealed, None)?;
    assert_eq!(opened.value(), Value::Text(TEXT));
    Ok(opened.is_current())
}

fn operations() -> impl Strategy<Value = Op> {
    let scope = 0..SCOPES;
    let named = 1..SCOPES;
    let state = prop::sample::select(vec![
        KeyState::Active,
        KeyState::Deactivated,
        KeyState::Compromised,
        KeyState::DestroyPending,
        KeyState::Destroyed,
    ]);
    let service = || prop::sample::select(vec![Service::Answers, Service::Answers, Service::Away, Service::Denies]);
    let seconds = prop::sample::select(vec![2, 30, 61, 101, 400, 501, 601, 2001, 3500, 4300]);
    let value = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 16));
    let elsewhere = prop::option::weighted(0.1, scope.clone());
    prop_oneof![
        20 => scope.clone().prop_map(Op::Seal),
        25 => (value.clone(), elsewhere, any::<bool>()).prop_map(|(value, scope, late)| Op::Open { value, scope, late }),
        4 => scope.clone().prop_map(Op::Rotate),
        2 => scope.prop_map(Op::Activate),
        2 => Just(Op::RotateRoot),
        1 => Just(Op::ActivateRoot),
        8 => (value, state).prop_map(|(key, state)| Op::ChangeState(key, state)),
        2 => named.clone().prop_map(Op::Shred),
        2 => named.clone().prop_map(Op::CancelShred),
        2 => named.clone().prop_map(Op::FinishShred),
        1 => named.clone().prop_map(Op::Hold),
        1 => named.prop_map(Op::Release),
        2 => Just(Op::Reparent),
        1 => Just(Op::Rewrap),
        1 => Just(Op::Restart),
        12 => seconds.prop_map(Op::Wait),
        1 => prop::sample::select(vec![-3000, -50, 50, 3000]).prop_map(Op::StoreClockJumps),
        3 => (0..model::KEKS, service()).prop_map(|(kek, service)| Op::Kek(kek, service)),
        2 => prop::sample::select(vec![Service::Answers, Service::Away]).prop_map(Op::Store),
    ]
}

/// The same sequences in each run, so that it fails for the code alone. `KEYFOLD_MODEL_SEED` has others.
fn sequences() -> ProptestConfig {
    let seed = std::env::var("KEYFOLD_MODEL_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn keys_live_as_the_model_says(
        lead in prop::sample::select(vec![0, 100]),
        operations in prop::collection::vec((0..model::PROCESSES, operations()), 1..60),
    ) {
        let mut world = World::new(lead);
        for (p, op) in operations {
            world.run(p, op)?;
        }
        for op in [Op::Store(Service::Answers), Op::Kek(0, Service::Answers), Op::Kek(1, Service::Answers), Op::Wait(2), Op::Restart] {
            world.step(0, &op)?;
        }
        for value in 0..world.values.len() {
            world.step(0, &Op::Open { value, scope: None, late: false })?;
        }
    }
}
