//! Every state of key and root in the cache against every state of them in the store: what comes of it, and exactly
//! what store and key service are asked (Asherah's matrix, for keys that are leased).
//!
//! A root never leaves the cache before the keys under it, which hold it; so of nine states in the cache seven exist.

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, open};
use keyfold::{ErrorKind, KeyClass, KeyState, Value};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cached {
    Absent,
    Fresh,
    /// To be renewed, usable until then.
    Due,
}

use Cached::{Absent, Due, Fresh};

/// Key and root, in the cache.
const CACHED: [(Cached, Cached); 7] =
    [(Absent, Absent), (Absent, Fresh), (Absent, Due), (Fresh, Fresh), (Fresh, Due), (Due, Fresh), (Due, Due)];

/// What the store says. `None`: nothing.
const STORED: [Option<KeyState>; 4] =
    [Some(KeyState::Active), Some(KeyState::Deactivated), Some(KeyState::Destroyed), None];

#[derive(Debug, Eq, PartialEq)]
struct Outcome {
    result: Result<(), ErrorKind>,
    /// Records that were asked for.
    gets: usize,
    unwraps: u64,
}

/// The rules of docs/CACHE.md, written down once more.
fn expected(cached: (Cached, Cached), key: Option<KeyState>, root: Option<KeyState>) -> Outcome {
    let outcome = |result, gets, unwraps| Outcome { result, gets, unwraps };
    if cached == (Fresh, Fresh) {
        return outcome(Ok(()), 0, 0);
    }
    // A record that is gone takes nothing away: that is what tombstones are for.
    let Some(key) = key else {
        return outcome(if cached.0 == Absent { Err(ErrorKind::NoMatchingKey) } else { Ok(()) }, 1, 0);
    };
    let (gets, unwraps) = match (cached.1, root) {
        (Fresh, _) => (1, 0),
        (Absent, None) => return outcome(Err(ErrorKind::RecordRejected), 2, 0),
        (Due, None) => (2, 0),
        (_, Some(KeyState::Destroyed)) => return outcome(Err(ErrorKind::KeyState), 2, 0),
        (_, Some(_)) => (2, 1),
    };
    outcome(if key == KeyState::Destroyed { Err(ErrorKind::KeyState) } else { Ok(()) }, gets, unwraps)
}

fn lookup_key() -> keyfold::vectors::Key {
    ours(KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP)
}

/// A process whose cache is in the state `cached` for the root and the key of the field `mrn`; with a value of it.
fn process_in(lab: &Lab, cached: (Cached, Cached)) -> (Process, keyfold::Decryptor, Vec<u8>) {
    let sealed = |field| encryptor(&lab.process(), field, None).unwrap().encrypt(Value::Text("x"), None).unwrap();
    let (mrn, study) = (sealed("mrn"), sealed("study"));
    let process = Process::quick(lab, lab.config.clone());
    let reader = decryptor(&process.ring, "mrn", None).unwrap();
    let other = decryptor(&process.ring, "study", None).unwrap();
    let age = lab.config.cache.max_age;
    // Renewal is due somewhere between 75 and 95 percent of the age.
    let (early, late) = (age * 7 / 10, age * 96 / 100);
    let touch_key = || drop(open(&reader, &mrn, None).unwrap());
    let touch_root = || drop(open(&other, &study, None).unwrap());
    match cached {
        (Absent, Absent) => {}
        (Absent, Fresh) => touch_root(),
        (Absent, Due) => {
            touch_root();
            process.clock.advance(late);
        }
        (Fresh, Fresh) => touch_key(),
        (Fresh, Due) => {
            touch_root();
            process.clock.advance(early);
            touch_key();
            process.clock.advance(late - early);
        }
        (Due, Fresh) => {
            touch_key();
            process.clock.advance(late);
            touch_root();
        }
        (Due, Due) => {
            touch_key();
            process.clock.advance(late);
        }
        (Fresh | Due, Absent) => unreachable!("a key holds its root"),
    }
    (process, reader, mrn)
}

// Failure N18
#[test]
fn every_state_of_the_cache_meets_every_state_of_the_store() {
    let mut cases = 0;
    for cached in CACHED {
        for key in STORED {
            for root_state in STORED {
                let lab = Lab::new();
                let (process, reader, sealed) = process_in(&lab, cached);
                let stored = [(child_parts(lookup_key(), root()), key), (root_parts(&lab.kms, root()), root_state)];
                for (parts, state) in stored {
                    match state {
                        Some(KeyState::Active) => {}
                        Some(state) => lab.store.plant(&record(&in_state(parts, state))),
                        None => drop(lab.store.state().records.remove(&parts.key.key_id())),
                    }
                }
                lab.faults.reset();
                let before = lab.kms.unwrap_count();
                let result = open(&reader, &sealed, None).map(drop).map_err(|error| error.kind());
                let gets = lab.faults.log().iter().filter(|call| **call == "get").count();
                let found = Outcome { result, gets, unwraps: lab.kms.unwrap_count() - before };
                let what = format!("cached {cached:?}, stored {key:?} {root_state:?}");
                assert_eq!(found, expected(cached, key, root_state), "{what}");
                if let Err(kind) = found.result {
                    // Whoever holds the key without asking is told the same, once somebody has asked.
                    let held = reader.decrypt(&sealed, None).map(drop).map_err(|error| error.kind());
                    let not_held = cached.0 == Absent && held == Err(ErrorKind::NoMatchingKey);
                    assert!(held == Err(kind) || not_held, "{what}: {held:?}");
                }
                drop(process);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 112);
}

/// A key that may not seal any more stops sealing at its renewal, whatever else is cached.
// Failure N18
#[test]
fn sealing_meets_the_same_states() {
    for state in STORED {
        for due in [false, true] {
            let lab = Lab::new();
            let process = Process::quick(&lab, lab.config.clone());
            let handle = encryptor(&process.ring, "mrn", None).unwrap();
            if due {
                process.clock.advance(lab.config.cache.max_age * 96 / 100);
            }
            match state {
                Some(KeyState::Active) => {}
                Some(state) => lab.store.plant(&record(&in_state(child_parts(lookup_key(), root()), state))),
                None => drop(lab.store.state().records.remove(&lookup_key().key_id())),
            }
            let result = block_on(handle.ready()).map(drop).map_err(|error| error.kind());
            let stops = due && matches!(state, Some(KeyState::Deactivated | KeyState::Destroyed));
            assert_eq!(result, if stops { Err(ErrorKind::KeyState) } else { Ok(()) }, "{state:?}, due: {due}");
        }
    }
}
