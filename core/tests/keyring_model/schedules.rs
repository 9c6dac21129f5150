//! Two or three processes at once on one store, under thousands of schedules that shuttle chooses: whoever calls the store lets the others go
//! first. Locks within a process are model-checked in `cache_model.rs`; here are the races between processes.

use crate::common::cache::Slow;
use crate::common::lab::{Lab, decryptor, key_id_of, slot};
use crate::common::open;
use crate::{Seconds, TEXT};
use keyfold::{ErrorKind, KeyClass, KeyState, KeyStore, Keyring, Record, Result, SlotId, Value};
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

const SCHEDULES: usize = 1000;

/// Each process in a thread of shuttle's.
struct World {
    lab: Lab,
}

impl World {
    fn process(&self) -> Keyring {
        let (clock, marks) = (Seconds(Arc::new(AtomicU64::new(1_000_000))), Arc::new(self.lab.marks.clone()));
        let store: Slow<dyn KeyStore> = Slow::new(Arc::new(self.lab.store.clone()));
        let ring =
            Keyring::open_with_clock(self.lab.config.clone(), Arc::new(store), self.lab.keks(), marks, Arc::new(clock));
        ring.expect("it opens")
    }

    fn records(&self) -> Vec<Record> {
        self.lab.store.of_slot(slot(KeyClass::Data, SlotId::NONE))
    }

    /// Seals a value; its key must be in the store by then, and have been made to seal.
    async fn seal(&self, ring: &Keyring) -> Result<Vec<u8>> {
        let encryptor = ring.field("plain")?.encryptor().await?;
        let sealed = encryptor.encrypt(Value::Text(TEXT), None)?;
        assert!(self.lab.store.find(key_id_of(&sealed)).activated_at() != 0, "it was never active");
        Ok(sealed)
    }

    /// What holds of the keyring's own data keys, whatever raced.
    fn check(&self, seals: usize) {
        let records = self.records();
        let active = |record: &&Record| record.state() == KeyState::Active;
        assert_eq!(records.iter().filter(active).count(), seals, "keys that seal: {records:?}");
        let numbers: HashSet<_> = records.iter().map(|record| record.key_id().generation()).collect();
        assert_eq!(numbers.len(), records.len(), "a generation twice");
        assert!(records.iter().position(|record| active(&record)).is_none_or(|at| at == 0), "not the newest");
    }

    fn opens(&self, sealed: &[u8]) -> bool {
        let ring = self.lab.process();
        decryptor(&ring, "plain", None).and_then(|handle| open(&handle, sealed, None)).is_ok()
    }
}

/// What a process does, and what it has sealed.
type Work = fn(&World, &Keyring) -> Option<Vec<u8>>;

/// Runs `processes` at once, in many ways; then `after` is told what each sealed.
fn explore(processes: &'static [Work], after: fn(&World, &[Vec<u8>])) {
    let test = move || {
        let world = Arc::new(World { lab: Lab::new() });
        let threads: Vec<_> = processes
            .iter()
            .map(|work| {
                let world = world.clone();
                thread::spawn(move || work(&world, &world.process()))
            })
            .collect();
        let sealed: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
        after(&world, &sealed);
    };
    let mut config = Config::new();
    // A whole keyring needs more than the 32 KiB that there are by default.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(SCHEDULES), config.clone()).run(test);
    Runner::new(PctScheduler::new(3, SCHEDULES), config).run(test);
}

fn rotates(_: &World, ring: &Keyring) -> Option<Vec<u8>> {
    block_on(ring.rotate_data_key(None)).unwrap();
    None
}

fn seals(world: &World, ring: &Keyring) -> Option<Vec<u8>> {
    Some(block_on(world.seal(ring)).unwrap())
}

/// Seals, looks again, and seals: never under an older key than before.
fn seals_on(world: &World, ring: &Keyring) -> Option<Vec<u8>> {
    let first = block_on(world.seal(ring)).unwrap();
    ring.invalidate();
    let second = block_on(world.seal(ring)).unwrap();
    assert!(key_id_of(&second) >= key_id_of(&first), "a newer key, then an older one");
    Some(second)
}

/// Finds the key of before compromised.
fn compromises(world: &World, ring: &Keyring) -> Option<Vec<u8>> {
    let oldest = Lab::new().store.of_slot(slot(KeyClass::Data, SlotId::NONE))[0].key_id();
    match block_on(ring.change_state(oldest, KeyState::Compromised)) {
        Ok(_) => {}
        // Somebody rotated at that moment.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Conflict);
            block_on(ring.change_state(oldest, KeyState::Compromised)).unwrap();
        }
    }
    let sealed = block_on(world.seal(ring)).unwrap();
    assert_ne!(key_id_of(&sealed), oldest, "sealed under a key that this process marked compromised");
    Some(sealed)
}

#[test]
fn of_racing_rotations_one_key_seals_and_everything_opens() {
    explore(&[rotates, rotates, seals], |world, sealed| {
        world.check(1);
        assert!((3..=4).contains(&world.records().len()), "two before, and one or two new");
        assert!(sealed.iter().all(|sealed| world.opens(sealed)));
    });
}

#[test]
fn whoever_seals_while_others_rotate_never_goes_back() {
    explore(&[rotates, seals_on, seals_on], |world, sealed| {
        world.check(1);
        assert!(sealed.iter().all(|sealed| world.opens(sealed)));
    });
}

#[test]
fn a_key_marked_compromised_while_others_rotate_has_a_successor() {
    explore(&[rotates, compromises, seals], |world, _| {
        world.check(1);
        let states: Vec<_> = world.records().iter().map(Record::state).collect();
        assert!(states.contains(&KeyState::Compromised) && states[0] == KeyState::Active, "{states:?}");
    });
}
