//! What a process knows after the store or the audit sink has refused to change the state of a key, and after an activation
//! whose answer was lost.

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, open};
use keyfold::{AuditEvent, AuditSink, Decryptor, Error, ErrorKind, KeyState, Keyring, Result, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A handle that holds a key which was rotated away, with a value under it.
fn retired(ring: &Keyring) -> (Decryptor, Vec<u8>) {
    let sealed = seal(ring, None, "x").unwrap();
    let decryptor = decryptor(ring, "plain", None).unwrap();
    open(&decryptor, &sealed, None).unwrap();
    block_on(ring.rotate_data_key(None)).unwrap();
    (decryptor, sealed)
}

/// Another process changes the key back and forth between the two looks of this one.
#[test]
fn a_conflict_ends_no_handle() {
    for polls in 1.. {
        let lab = Lab::new();
        let process = Process::slow(&lab, lab.config.clone());
        let other = lab.process();
        let (decryptor, sealed) = retired(&process.ring);
        let id = key_id_of(&sealed);
        let mut change = Box::pin(process.ring.change_state(id, KeyState::Compromised));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..polls {
            let Poll::Pending = change.as_mut().poll(&mut context) else { panic!("no call met the conflict") };
        }
        for state in [KeyState::DestroyPending, KeyState::Deactivated] {
            block_on(other.change_state(id, state)).unwrap();
        }
        let Err(error) = block_on(change) else { continue };
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        decryptor.decrypt(&sealed, None).unwrap();
        lab.faults.reset();
        open(&decryptor, &sealed, None).unwrap();
        assert!(lab.faults.log().contains(&"get"), "whoever is awaited asks: {:?}", lab.faults.log());
        return;
    }
}

/// Records until it is full.
#[derive(Default)]
struct Sink {
    full: AtomicBool,
}

impl AuditSink for Sink {
    fn record(&self, _: AuditEvent) -> Result<()> {
        self.check()
    }

    fn check(&self) -> Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(Error::new(ErrorKind::Io, "full")) } else { Ok(()) }
    }
}

#[test]
fn a_change_that_could_not_be_recorded_and_was_not_made_ends_no_handle() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let sink = Arc::new(Sink::default());
    process.ring.set_audit(sink.clone()).unwrap();
    let (decryptor, sealed) = retired(&process.ring);
    sink.full.store(true, Ordering::SeqCst);
    lab.faults.reset();
    let changed = block_on(process.ring.change_state(key_id_of(&sealed), KeyState::Compromised));
    assert_eq!(changed.unwrap_err().kind(), ErrorKind::Io);
    assert!(!lab.faults.log().contains(&"update"));
    decryptor.decrypt(&sealed, None).unwrap();
}

/// Whoever seals goes on, also while the store is away.
#[test]
fn a_change_that_could_not_be_recorded_and_was_not_made_costs_no_grace() {
    for state in [KeyState::Deactivated, KeyState::Compromised] {
        let lab = Lab::new();
        let process = Process::quick(&lab, lab.config.clone());
        let sink = Arc::new(Sink::default());
        process.ring.set_audit(sink.clone()).unwrap();
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        sink.full.store(true, Ordering::SeqCst);
        let changed = block_on(process.ring.change_state(encryptor.key_id(), state));
        assert_eq!(changed.unwrap_err().kind(), ErrorKind::Io);
        encryptor.encrypt(Value::Text("x"), None).unwrap();
        sink.full.store(false, Ordering::SeqCst);
        lab.faults.fail_store(true);
        process.clock.advance(lab.config.cache.max_age);
        block_on(encryptor.ready()).unwrap_or_else(|error| panic!("{state:?}: {error}"));
        encryptor.encrypt(Value::Text("x"), None).unwrap();
    }
}

/// The audit sink fails when the store has the change.
#[test]
fn a_change_that_was_made_and_could_not_be_recorded_is_known() {
    struct Late(AtomicBool);

    impl AuditSink for Late {
        fn record(&self, _: AuditEvent) -> Result<()> {
            if self.0.load(Ordering::SeqCst) { Err(Error::new(ErrorKind::Io, "full")) } else { Ok(()) }
        }
    }

    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let sink = Arc::new(Late(AtomicBool::new(false)));
    process.ring.set_audit(sink.clone()).unwrap();
    let (decryptor, sealed) = retired(&process.ring);
    sink.0.store(true, Ordering::SeqCst);
    let changed = block_on(process.ring.change_state(key_id_of(&sealed), KeyState::Compromised));
    assert_eq!(changed.unwrap_err().kind(), ErrorKind::Io);
    let opened = decryptor.decrypt(&sealed, None).map(drop);
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::KeyState, "not that it is unknown");
}

/// A published key that is let seal by its state, as `keys state KEY active` does it.
#[test]
fn an_activation_by_state_whose_answer_was_lost_is_heard() {
    let mut unheard = 0;
    for n in 1.. {
        let mut lab = Lab::new();
        lab.config.rotation.lead = Duration::from_secs(600);
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let new = block_on(process.ring.rotate_data_key(None)).unwrap().new.key_id();
        block_on(encryptor.ready()).unwrap();
        assert_ne!(encryptor.key_id(), new);
        lab.faults.fail_nth(n, true);
        let changed = block_on(process.ring.change_state(new, KeyState::Active));
        let log = lab.faults.log();
        lab.faults.off();
        if log.len() < usize::try_from(n).unwrap() {
            break;
        }
        if lab.store.find(new).state() == KeyState::Active {
            unheard += usize::from(changed.is_err());
            assert_eq!(block_on(encryptor.ready()).unwrap().key_id(), new, "call {n}: {log:?}");
            encryptor.encrypt(Value::Text("x"), None).unwrap();
        }
    }
    assert!(unheard > 0);
}
