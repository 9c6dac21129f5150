//! What one tenant, field, thread or process has in memory is nothing to another one (DESIGN K13, K17, K18).

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::wire::Suite;
use keyfold::{ErrorKind, FieldPolicy, RotationPolicy, Value};
use std::thread;

// Failure B1
#[test]
fn a_key_in_memory_opens_nothing_for_a_field_that_does_not_accept_its_suite() {
    let mut lab = Lab::new();
    let strict = FieldPolicy::deterministic("strict", "default", None);
    lab.config.policy.add(FieldPolicy { accepted_suites: vec![Suite::Field], ..strict }).unwrap();
    let process = Process::quick(&lab, lab.config.clone());
    let ring = &process.ring;
    let sealed = encryptor(ring, "alone", None).unwrap().encrypt(Value::Text("x"), None).unwrap();
    assert!(open(&decryptor(ring, "alone", None).unwrap(), &sealed, None).is_ok(), "its key is in memory");
    let strict = decryptor(ring, "strict", None).unwrap();
    lab.faults.reset();
    assert_eq!(refused(open(&strict, &sealed, None), "another suite"), ErrorKind::PolicyRefused);
    assert_eq!(refused(strict.decrypt(&sealed, None), "another suite"), ErrorKind::PolicyRefused);
    assert_eq!(lab.faults.calls(), 0, "nobody was asked");
}

/// Whoever tries a value of another tenant learns from what is asked, and so from the time, nothing of what that one uses.
// Failure B13
#[test]
fn what_another_tenant_has_in_memory_does_not_show() {
    let lab = Lab::new();
    let [mine, other] = [("mine", 60), ("other", 61)].map(|(name, generation)| lab.add_scope(name, generation));
    let sealed = sealed_under(&other.key, &[1; 24], "x");
    // That a machine has never seen so high a generation shows once, whoever asks.
    assert!(reveal(&lab.process(), Some("other"), &sealed).is_ok());
    let answer = |other_is_warm: bool| {
        let process = Process::quick(&lab, lab.config.clone());
        let ring = &process.ring;
        assert!(reveal(ring, Some("mine"), &sealed_under(&mine.key, &[2; 24], "x")).is_ok());
        if other_is_warm {
            assert!(reveal(ring, Some("other"), &sealed).is_ok());
        }
        lab.faults.reset();
        let error = reveal(ring, Some("mine"), &sealed).unwrap_err();
        (error.kind(), error.to_string(), lab.faults.log())
    };
    let cold = answer(false);
    assert_eq!((cold.0, cold.2.is_empty()), (ErrorKind::WrongScope, false));
    assert_eq!(answer(true), cold);
}

/// Of a hundred processes that were started at once each asks once before its key's age is over, at a moment of its own.
// Failure A10
#[test]
fn processes_that_started_together_renew_apart() {
    const STEPS: u32 = 100;
    let lab = Lab::new();
    let step = lab.config.cache.max_age / STEPS;
    let moments = (0..100).map(|_| {
        let process = Process::quick(&lab, lab.config.clone());
        let handle = encryptor(&process.ring, "plain", None).unwrap();
        let before = lab.kms.unwrap_count();
        let mut asked = Vec::new();
        for at in 1..STEPS {
            process.clock.advance(step);
            block_on(handle.ready()).unwrap();
            handle.encrypt(Value::Null, None).unwrap();
            if lab.kms.unwrap_count() - before > asked.len() as u64 {
                asked.push(at);
            }
        }
        assert_eq!(asked.len(), 1, "asked after {asked:?} hundredths of the age");
        asked[0]
    });
    let moments: Vec<_> = moments.collect();
    let (first, last) = (moments.iter().min().unwrap(), moments.iter().max().unwrap());
    assert!(last - first >= STEPS / 10, "between {first} and {last} hundredths of the age");
}

// Failure A10
#[test]
fn threads_that_find_a_key_due_ask_once() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let handle = encryptor(&process.ring, "plain", None).unwrap();
    for round in 0..20 {
        process.clock.advance(lab.config.cache.max_age * 96 / 100);
        let before = lab.kms.unwrap_count();
        thread::scope(|threads| {
            for _ in 0..64 {
                threads.spawn(|| {
                    block_on(handle.ready()).unwrap();
                    handle.encrypt(Value::Null, None).unwrap();
                });
            }
        });
        assert_eq!(lab.kms.unwrap_count() - before, 1, "round {round}");
    }
}

/// A limit is of one process, which cannot see what others seal: whoever has several sets it lower.
// Failure B6
#[test]
fn a_limit_on_messages_is_of_one_process() {
    const LIMIT: u64 = 100;
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { data_messages: Some(LIMIT), ..lab.config.rotation };
    for _ in 0..2 {
        let process = Process::quick(&lab, lab.config.clone());
        let handle = encryptor(&process.ring, "plain", None).unwrap();
        assert_eq!(handle.key_id(), data(DATA).key_id());
        assert!(handle.encrypt_column(&[Value::Null; 60][..], None::<&[&[u8]]>).is_ok());
        let error = handle.encrypt_column(&[Value::Null; 60][..], None::<&[&[u8]]>).unwrap_err().error;
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    }
}
