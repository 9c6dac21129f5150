//! What becomes of a change whose mark or event cannot be written when the store has it, and who makes up for a mark that is missing
//! (DESIGN K4).

use crate::common::lab::*;
use crate::common::regions::{Regions, Sink, wrapped_by};
use crate::common::{block_on, refused};
use keyfold::{
    AuditAction, AuditEvent, AuditSink, Error, ErrorKind, HighWater, HighWaterMark, KeyState, Keyring, Record, Result,
    RewrapOptions,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SCOPE: &str = "clinic";

type Command = (&'static str, fn(&Keyring) -> Result<()>);

/// What changes keys, in a keyring in which the end of a scope is scheduled and another one may be ended.
const COMMANDS: [Command; 9] = [
    ("deactivate", |ring| change(ring, KeyState::Deactivated)),
    ("compromise", |ring| change(ring, KeyState::Compromised)),
    ("rotate a data key", |ring| block_on(ring.rotate_data_key(None)).map(drop)),
    ("rotate the root", |ring| block_on(ring.rotate_root()).map(drop)),
    ("make a partition", |ring| block_on(ring.create_partition("another")).map(drop)),
    ("schedule the end of a scope", |ring| block_on(ring.shred_scope("open", None)).map(drop)),
    ("take the end of a scope back", |ring| block_on(ring.cancel_shred(SCOPE, None)).map(drop)),
    ("end a scope", |ring| block_on(ring.finish_shred(SCOPE, None)).map(drop)),
    ("hold a scope", |ring| block_on(ring.hold_scope("open", None)).map(drop)),
];

fn change(ring: &Keyring, state: KeyState) -> Result<()> {
    block_on(ring.change_state(data(DATA).key_id(), state)).map(drop)
}

/// The laboratory in which the commands run.
fn lab() -> Lab {
    let lab = Lab::new();
    let ring = lab.process();
    for scope in [SCOPE, "open"] {
        seal(&ring, Some(scope), "x").unwrap();
        block_on(ring.rotate_data_key(Some(scope))).unwrap();
    }
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    lab
}

/// The records by key and sequence.
fn stored(lab: &Lab) -> BTreeMap<String, Record> {
    lab.store.all().into_iter().map(|record| (format!("{} {}", record.key_id(), record.sequence()), record)).collect()
}

/// Of which key and sequence an event says that it was stored.
fn is_of(event: &AuditEvent, name: &str) -> bool {
    let sequence = event.details.iter().find(|(name, _)| *name == "sequence").map(|(_, sequence)| sequence);
    let is_stored = [AuditAction::KeyMade, AuditAction::StateChanged].contains(&event.action) && event.error.is_none();
    is_stored && event.key_id.zip(sequence).is_some_and(|(id, sequence)| format!("{id} {sequence}") == name)
}

/// Every command, with each write of a mark failing in turn.
#[test]
fn a_change_whose_mark_fails_is_recorded_and_told() {
    for (what, command) in COMMANDS {
        let mut met = 0;
        for n in 1.. {
            let lab = lab();
            let ring = lab.process();
            let sink = Sink::of(&ring);
            let before = stored(&lab);
            lab.faults.fail_nth(n, false);
            let result = command(&ring);
            let log = lab.faults.log();
            lab.faults.off();
            let Some(failed) = usize::try_from(n).ok().and_then(|n| log.get(n - 1)) else { break };
            if *failed != "marks.raise" {
                continue;
            }
            let after = stored(&lab);
            let events = sink.events.lock().unwrap();
            for name in after.keys().filter(|name| !before.contains_key(*name)) {
                assert!(
                    events.iter().any(|event| is_of(event, name)),
                    "{what}, call {n}: no event of {name}: {events:?}"
                );
            }
            let is_of_a_change = usize::try_from(n).is_ok_and(|n| n > 1 && ["insert", "update"].contains(&log[n - 2]));
            if is_of_a_change {
                met += 1;
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Io, "{what}: {error}");
                let told = after.iter().filter(|(name, _)| !before.contains_key(*name)).any(|(_, record)| {
                    let (id, state) = (record.key_id(), record.state().name());
                    let says = |is: &str| error.to_string().ends_with(&format!("; {id} {is} all the same"));
                    says("was made") || says(&format!("is {state}"))
                });
                assert!(told, "{what}: {error}");
            }
        }
        // Nothing is older than the first record of a key, so that has no mark.
        assert!((met > 0) == (what != "make a partition"), "{what}: {met}");
    }
}

#[test]
fn an_exchange_of_wraps_whose_mark_fails_is_recorded_and_told() {
    let mut met = 0;
    for n in 1.. {
        let mut regions = Regions::new(&["a", "b"]);
        regions.add("c");
        let ring = regions.process();
        let sink = Sink::of(&ring);
        regions.lab.faults.fail_nth(n, false);
        let options = RewrapOptions::default();
        let result = block_on(ring.rewrap(options)).and_then(|mut walk| block_on(walk.step(100)));
        let log = regions.lab.faults.log();
        regions.lab.faults.off();
        let Some(failed) = usize::try_from(n).ok().and_then(|n| log.get(n - 1)) else { break };
        if *failed == "marks.raise" && n > 1 && log[usize::try_from(n).unwrap() - 2] == "update" {
            met += 1;
            assert_eq!(wrapped_by(&regions.root_record()), ["a", "b", "c"]);
            assert_eq!(sink.take(AuditAction::Rewrap).len(), 1);
            let error = result.unwrap_err().to_string();
            assert!(error.contains("was rewrapped all the same"), "{error}");
        }
    }
    assert_eq!(met, 1);
}

/// The mark is written all the same where the event is not.
#[test]
fn a_change_whose_event_fails_is_marked_and_told() {
    /// Fails only when something was done.
    struct Late(AtomicBool);

    impl AuditSink for Late {
        fn record(&self, _: AuditEvent) -> Result<()> {
            if self.0.load(Ordering::SeqCst) { Err(Error::new(ErrorKind::Io, "full")) } else { Ok(()) }
        }
    }

    let lab = lab();
    let ring = lab.process();
    let sink = Arc::new(Late(AtomicBool::new(false)));
    ring.set_audit(sink.clone()).unwrap();
    seal(&ring, None, "x").unwrap();
    sink.0.store(true, Ordering::SeqCst);
    let error = change(&ring, KeyState::Deactivated).unwrap_err();
    let id = data(DATA).key_id();
    assert_eq!(error.to_string(), format!("full: {id} is deactivated all the same"));
    assert_eq!(mark(&lab, &lab.store.find(id)), Some(HighWaterMark::of(&lab.store.find(id))));
}

fn mark(lab: &Lab, record: &Record) -> Option<HighWaterMark> {
    lab.marks.inner.mark(record.lineage(), record.key_id()).unwrap()
}

/// Another machine changes the state of a key; this one, which never did, meets the key once.
#[test]
fn whoever_meets_a_key_out_of_service_marks_it_and_notices_an_older_store() {
    for state in [KeyState::Deactivated, KeyState::Compromised, KeyState::DestroyPending] {
        let lab = Lab::new();
        let sealed = seal(&lab.process(), None, "x").unwrap();
        let old = lab.store.find(key_id_of(&sealed));
        let other = lab.elsewhere();
        block_on(other.rotate_data_key(None)).unwrap();
        if state != KeyState::Deactivated {
            block_on(other.change_state(old.key_id(), state)).unwrap();
        }
        // Showing keys costs no write.
        assert!(block_on(lab.process().list(None, 100)).unwrap().iter().all(|info| info.verified.is_ok()));
        assert_eq!(mark(&lab, &old), None);
        let opened = reveal(&lab.process(), None, &sealed);
        assert_eq!(opened.is_ok(), state == KeyState::Deactivated, "{state:?}: {opened:?}");
        assert_eq!(mark(&lab, &old).map(|mark| mark.state), Some(state));
        // Once, and not for keys that seal.
        let seals = lab.store.find(key_id_of(&seal(&lab.process(), None, "x").unwrap()));
        assert_eq!(mark(&lab, &seals), None);
        lab.faults.reset();
        let _ = reveal(&lab.process(), None, &sealed);
        assert!(!lab.faults.log().contains(&"marks.raise"), "{:?}", lab.faults.log());
        lab.store.plant(&old);
        assert_eq!(refused(reveal(&lab.process(), None, &sealed), "put back"), ErrorKind::RecordRejected, "{state:?}");
    }
}

/// Of a key that nobody here knows it may be said that it is another keyring's; of one that was seen here it may not.
#[test]
fn a_key_that_the_store_has_lost_is_told_from_one_that_nobody_knows() {
    let lab = Lab::new();
    let sealed = seal(&lab.process(), None, "x").unwrap();
    block_on(lab.process().rotate_data_key(None)).unwrap();
    let key_id = key_id_of(&sealed);
    assert!(lab.store.state().records.remove(&key_id).is_some());
    let told = |ring: Keyring| {
        let error = reveal(&ring, None, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoMatchingKey);
        error.detail().to_owned()
    };
    let lost = ": this machine has seen the key, so that the store lost it or is an older copy";
    assert_eq!(told(lab.process()), format!("{key_id}{lost}"));
    assert_eq!(told(lab.elsewhere()), key_id.to_string());
    // What a neighbour's store says, which nobody vouches for, does not hide it.
    let old = lab.store.snapshot();
    let neighbour = Lab::new();
    let sealed_there = seal(&neighbour.process(), None, "x").unwrap();
    neighbour.store.plant_as(key_id, &neighbour.store.find(key_id_of(&sealed_there)));
    lab.store.restore(&old);
    let beside = |ring: Keyring| {
        ring.add_neighbour(neighbour.process());
        told(ring)
    };
    assert_eq!(beside(lab.process()), format!("{key_id}{lost}"));
    assert!(beside(lab.elsewhere()).contains("is in keyring"));
}

/// Repeating a change that was made cannot make it; what was missing is there afterwards.
#[test]
fn a_repeated_command_makes_up_for_the_mark() {
    for n in 1.. {
        let lab = Lab::new();
        let (ring, old) = (lab.process(), lab.store.find(data(DATA).key_id()));
        lab.faults.fail_nth(n, false);
        let first = change(&ring, KeyState::Deactivated);
        lab.faults.off();
        assert!(first.is_err() || lab.faults.calls() >= n, "no mark was met");
        if first.is_ok() || lab.store.find(old.key_id()).state() == KeyState::Active {
            continue;
        }
        assert_eq!(mark(&lab, &old), None);
        assert_eq!(refused(change(&lab.process(), KeyState::Deactivated), "again"), ErrorKind::KeyState);
        assert_eq!(mark(&lab, &old).map(|mark| mark.state), Some(KeyState::Deactivated));
        lab.store.plant(&old);
        assert_eq!(refused(seal(&lab.process(), None, "x"), "put back"), ErrorKind::RecordRejected);
        return;
    }
}
