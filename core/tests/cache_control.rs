//! `invalidate`, `refresh`, `reload` and `close`, also while others are at work (DESIGN K17).

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{Shuffle, block_on, open, refused};
use keyfold::{
    BoxFuture, CachePolicy, ErrorKind, FieldPolicy, IndexKind, IndexPolicy, KeyState, Keyring, KeyringConfig, Kms,
    KmsErrorKind, LookupKeys, Value,
};
use std::sync::{Arc, Barrier, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Pins nothing that this keyring has.
fn foreign(lab: &Lab) -> KeyringConfig {
    lab.pinning(&[[7; 32]])
}

#[test]
fn after_invalidating_every_handle_asks_again() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    let load = || block_on(decryptor.load_keys(&[&sealed[..]][..])).map_err(|error| error.error);
    load().unwrap();
    lab.faults.reset();
    load().unwrap();
    block_on(encryptor.ready()).unwrap();
    assert_eq!(lab.faults.log(), [""; 0], "warm handles ask nobody");

    lab.kms.set_failure(Some(KmsErrorKind::KeyDisabled));
    process.ring.invalidate();
    assert!(encryptor.encrypt(Value::Text("x"), None).is_ok(), "who is not awaited goes on");
    assert_eq!(refused(block_on(encryptor.ready()), "disabled"), ErrorKind::Kms(KmsErrorKind::KeyDisabled));
    assert_eq!(refused(load(), "disabled"), ErrorKind::Kms(KmsErrorKind::KeyDisabled));
    assert!(decryptor.decrypt(&sealed, None).is_err());
    lab.kms.set_failure(None);
    load().unwrap();
    block_on(encryptor.ready()).unwrap();
}

#[test]
fn what_only_works_when_ready_never_asks_and_does_nothing_when_it_should() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    let mut out = [0; 80];
    let len = encryptor.encrypt_if_ready(Value::Text("x"), None, &mut out).unwrap().expect("ready");
    let sealed = out[..len].to_vec();
    assert!(decryptor.decrypt_if_ready(&sealed, None).unwrap().is_none(), "its key is not loaded");
    block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
    lab.faults.reset();
    let opened = decryptor.decrypt_if_ready(&sealed, None).unwrap().expect("ready");
    assert_eq!((opened.value(), opened.is_current()), (Value::Text("x"), true));

    process.ring.invalidate();
    out.fill(0);
    assert_eq!(encryptor.encrypt_if_ready(Value::Text("x"), None, &mut out).unwrap(), None);
    assert_eq!(out, [0; 80], "something was sealed");
    assert!(decryptor.decrypt_if_ready(&sealed, None).unwrap().is_none(), "its key is to be confirmed");
    assert_eq!(lab.faults.calls(), 0, "somebody was asked");

    block_on(encryptor.ready()).unwrap();
    block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
    assert!(encryptor.encrypt_if_ready(Value::Text("x"), None, &mut out).unwrap().is_some());
    assert!(decryptor.decrypt_if_ready(&sealed, None).unwrap().is_some());
    assert_eq!(refused(decryptor.decrypt_if_ready(&sealed, Some(b"row")), "a row"), ErrorKind::InvalidInput);
    assert_eq!(refused(decryptor.decrypt_if_ready(&sealed[1..], None), "cut"), ErrorKind::Malformed);
    process.ring.close();
    assert_eq!(refused(decryptor.decrypt_if_ready(&sealed, None), "closed"), ErrorKind::Closed);
}

/// A refusal that is remembered for a moment is forgotten when everything is to be renewed.
#[test]
fn after_invalidating_or_reloading_no_refusal_answers_from_memory() {
    let mut lab = Lab::new();
    lab.config.cache.negative = CachePolicy::MAX_NEGATIVE;
    let process = Process::quick(&lab, lab.config.clone());
    let (ring, other) = (&process.ring, lab.process());
    let sealed = seal(ring, None, "x").unwrap();
    let reader = decryptor(ring, "plain", None).unwrap();
    open(&reader, &sealed, None).unwrap();
    let change = |state| drop(block_on(other.change_state(key_id_of(&sealed), state)).unwrap());
    block_on(other.rotate_data_key(None)).unwrap();
    change(KeyState::DestroyPending);
    ring.invalidate();
    assert_eq!(refused(open(&reader, &sealed, None).map(drop), "waits for its end"), ErrorKind::KeyState);
    change(KeyState::Deactivated);
    assert_eq!(refused(open(&reader, &sealed, None).map(drop), "remembered"), ErrorKind::KeyState);
    ring.invalidate();
    open(&reader, &sealed, None).unwrap();

    change(KeyState::Compromised);
    ring.invalidate();
    assert_eq!(refused(open(&reader, &sealed, None).map(drop), "compromised"), ErrorKind::KeyState);
    ring.reload(KeyringConfig { open_compromised: true, ..lab.config.clone() }, lab.keks()).unwrap();
    open(&decryptor(ring, "plain", None).unwrap(), &sealed, None).unwrap();

    // Of whoever seals, the same.
    let encryptor = encryptor(ring, "plain", None).unwrap();
    block_on(other.change_state(encryptor.key_id(), KeyState::Deactivated)).unwrap();
    ring.invalidate();
    assert_eq!(refused(block_on(encryptor.ready()), "nothing seals"), ErrorKind::KeyState);
    block_on(other.rotate_data_key(None)).unwrap();
    assert_eq!(refused(block_on(encryptor.ready()), "remembered"), ErrorKind::KeyState);
    ring.invalidate();
    block_on(encryptor.ready()).unwrap();
}

// Failure B9
#[test]
fn a_handle_whose_key_has_left_the_cache_is_invalidated_too() {
    let mut lab = Lab::new();
    lab.config.cache.max_keys = 0;
    lab.config.cache.max_bytes = 0;
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    assert_eq!(process.ring.occupancy().0, 1, "the root alone");
    lab.faults.reset();
    block_on(encryptor.ready()).unwrap();
    assert_eq!(lab.faults.calls(), 0);
    process.ring.invalidate();
    block_on(encryptor.ready()).unwrap();
    assert!(lab.faults.log().contains(&"unwrap"), "{:?}", lab.faults.log());
}

/// With a lead the new key is activated by hand.
#[test]
fn a_handle_whose_key_has_left_the_cache_hears_what_this_process_does_to_keys() {
    for lead in [Duration::ZERO, Duration::from_secs(600)] {
        let mut lab = Lab::new();
        lab.config.rotation.lead = lead;
        (lab.config.cache.max_keys, lab.config.cache.max_bytes) = (0, 0);
        let process = Process::quick(&lab, lab.config.clone());
        let ring = &process.ring;
        let encryptor = encryptor(ring, "plain", None).unwrap();
        let reader = decryptor(ring, "plain", None).unwrap();
        let new = block_on(ring.rotate_data_key(None)).unwrap().new.key_id();
        assert_eq!(block_on(encryptor.ready()).unwrap().key_id() == new, lead.is_zero());
        block_on(ring.activate_data_key(None)).unwrap();
        assert_eq!(block_on(encryptor.ready()).unwrap().key_id(), new, "activated, {lead:?}");
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        block_on(reader.load_keys(&[&sealed[..]][..])).unwrap();
        assert!(reader.is_current(&sealed).unwrap());

        block_on(ring.change_state(new, KeyState::Deactivated)).unwrap();
        assert_eq!(refused(block_on(encryptor.ready()), "deactivated"), ErrorKind::KeyState);
        lab.faults.fail_store(true);
        assert_eq!(refused(block_on(encryptor.ready()), "deactivated, and the store is away"), ErrorKind::Store);
    }
}

/// A reader may hear first that something happened, and a moment ago the store was away.
#[test]
fn a_key_taken_out_of_service_seals_no_more_however_lately_another_one_was_asked_for() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let ring = &process.ring;
    let encryptor = encryptor(ring, "plain", None).unwrap();
    let reader = decryptor(ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    ring.invalidate();
    lab.faults.fail_store(true);
    block_on(encryptor.ready()).unwrap();
    lab.faults.fail_store(false);
    block_on(ring.change_state(encryptor.key_id(), KeyState::Deactivated)).unwrap();
    block_on(reader.load_keys(&[&sealed[..]][..])).unwrap();
    assert_eq!(refused(block_on(encryptor.ready()), "deactivated"), ErrorKind::KeyState);
}

/// A reader may find it first, and a moment ago the store was away.
#[test]
fn a_newer_key_that_a_reader_finds_seals_at_once_however_lately_another_one_was_asked_for() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let ring = &process.ring;
    let encryptor = encryptor(ring, "plain", None).unwrap();
    let reader = decryptor(ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    ring.invalidate();
    lab.faults.fail_store(true);
    block_on(encryptor.ready()).unwrap();
    lab.faults.fail_store(false);
    let new = block_on(ring.rotate_data_key(None)).unwrap().new.key_id();
    block_on(reader.load_keys(&[&sealed[..]][..])).unwrap();
    assert_eq!(block_on(encryptor.ready()).unwrap().key_id(), new);
}

/// Handles on indexes hold the keys of their partition by themselves, whether or not the cache has them.
#[test]
fn a_handle_of_look_up_keys_hears_that_its_key_was_deactivated() {
    for max_keys in [0, CachePolicy::default().max_keys] {
        let mut lab = Lab::new();
        lab.config.cache.max_keys = max_keys;
        let dates = IndexPolicy::new("i", IndexKind::Date, 8);
        lab.config.policy.add(FieldPolicy { indexes: vec![dates], ..FieldPolicy::randomized("indexed") }).unwrap();
        let process = Process::quick(&lab, lab.config.clone());
        let ring = &process.ring;
        let indexer = block_on(ring.field("indexed").unwrap().indexer("i")).unwrap();
        let tokens = || block_on(indexer.ready()).and_then(|indexer| indexer.tokens(Value::Text("1999-12-31")));
        let keys = block_on(ring.rotate_lookup_key("default")).unwrap();
        let mut config = lab.config.clone();
        let next = LookupKeys { seals: keys.opens[0], opens: Vec::new(), ..keys };
        config.lookup.insert("default".to_owned(), next);
        ring.reload(config, process.keks.clone()).unwrap();
        assert_eq!(tokens().unwrap().len(), 1, "it is still active");
        block_on(ring.change_state(indexer.key_ids()[0], KeyState::Deactivated)).unwrap();
        assert_eq!(refused(tokens(), "deactivated"), ErrorKind::KeyState);
    }
}

#[test]
fn a_handle_from_before_a_reload_hears_that_its_look_up_key_was_deactivated() {
    for max_bytes in [0, CachePolicy::default().max_bytes] {
        let mut lab = Lab::new();
        lab.config.cache.max_bytes = max_bytes;
        let process = Process::quick(&lab, lab.config.clone());
        let ring = &process.ring;
        let old = encryptor(ring, "mrn", None).unwrap();
        let keys = block_on(ring.rotate_lookup_key("default")).unwrap();
        let mut config = lab.config.clone();
        let next = LookupKeys { seals: keys.opens[0], opens: Vec::new(), ..keys };
        config.lookup.insert("default".to_owned(), next);
        ring.reload(config, process.keks.clone()).unwrap();
        assert!(block_on(old.ready()).is_ok(), "it is still active");
        block_on(ring.change_state(old.key_id(), KeyState::Deactivated)).unwrap();
        assert_eq!(refused(block_on(old.ready()), "deactivated"), ErrorKind::KeyState);
    }
}

#[test]
fn refreshing_renews_what_is_in_use_and_forgets_the_rest() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let CachePolicy { max_age, max_idle, .. } = lab.config.cache;
    let clinic = lab.add_scope("clinic", 50);
    let held = encryptor(&process.ring, "plain", None).unwrap();
    let sealed = sealed_under(&clinic.key, &[1; 24], "x");
    assert!(reveal(&process.ring, Some("clinic"), &sealed).is_ok());
    let before = process.ring.occupancy().0;
    // A day with a refresh every five seconds, and a handle that is used and never awaited.
    let step = Duration::from_secs(5);
    let mut passed = Duration::ZERO;
    while passed < 4 * max_idle {
        process.clock.advance(step);
        passed += step;
        block_on(process.ring.refresh()).unwrap();
        held.encrypt(Value::Text("x"), None).expect("it is kept usable");
    }
    assert!(process.ring.occupancy().0 < before, "what nobody uses is forgotten");
    // Renewed once per age for its only user, not once per call.
    let requests = lab.kms.unwrap_count();
    let ages = (4 * max_idle).as_secs() / max_age.as_secs();
    assert!((ages..=2 * ages).contains(&requests), "{requests} requests in {ages} ages");
    drop(held);
    process.clock.advance(max_idle + step);
    block_on(process.ring.refresh()).unwrap();
    process.clock.advance(max_idle + step);
    block_on(process.ring.refresh()).unwrap();
    assert_eq!(process.ring.occupancy().0, 0, "nobody uses anything");
    let requests = lab.kms.unwrap_count();
    block_on(process.ring.refresh()).unwrap();
    assert_eq!(lab.kms.unwrap_count(), requests);
}

// Failure A10
#[test]
fn nobody_waits_for_a_renewal_while_the_key_is_usable() {
    let lab = Lab::new();
    let process = Process::slow(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    process.clock.advance(lab.config.cache.max_age * 19 / 20);
    // A request that never ends.
    process.kms.before(|| Box::pin(std::future::pending()));
    let mut renewing = Box::pin(encryptor.ready());
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        assert!(renewing.as_mut().poll(&mut context).is_pending());
    }
    for _ in 0..100 {
        let mut other = Box::pin(encryptor.ready());
        assert!(matches!(other.as_mut().poll(&mut context), Poll::Ready(Ok(_))), "others go on");
    }
    assert!(encryptor.encrypt(Value::Text("x"), None).is_ok());
}

#[test]
fn a_reload_that_does_not_trust_the_root_stops_its_use() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let sealed = seal(&process.ring, None, "x").unwrap();
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
    process.ring.reload(foreign(&lab), process.keks.clone()).unwrap();
    assert_eq!(
        refused(block_on(decryptor.load_keys(&[&sealed[..]][..])).map_err(|e| e.error), "unpinned"),
        ErrorKind::RecordRejected
    );
    assert_eq!(refused(decryptor.decrypt(&sealed, None), "unpinned"), ErrorKind::RecordRejected);
    assert_eq!(refused(encryptor.encrypt(Value::Text("x"), None), "unpinned"), ErrorKind::RecordRejected);
    assert_eq!(refused(block_on(encryptor.ready()), "unpinned"), ErrorKind::RecordRejected);
    assert_eq!(refused(seal(&process.ring, None, "x"), "unpinned"), ErrorKind::RecordRejected);
    process.ring.reload(lab.config.clone(), process.keks.clone()).unwrap();
    assert!(block_on(encryptor.ready()).is_ok() && reveal(&process.ring, None, &sealed).is_ok());
}

// Failure B14
#[test]
fn a_reload_is_refused_whole_or_done_whole() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let with = |change: fn(&mut KeyringConfig)| {
        let mut config = lab.config.clone();
        change(&mut config);
        process.ring.reload(config, process.keks.clone())
    };
    for (what, change) in [
        ("no pin", (|config| config.root_pins.clear()) as fn(&mut KeyringConfig)),
        ("another environment", |config| config.environment = "other".to_owned()),
        ("another lineage", |config| config.lineage = keyfold::Lineage::from_bytes([9; 16])),
        ("a bad cache", |config| config.cache.max_age = Duration::ZERO),
    ] {
        assert_eq!(refused(with(change), what), ErrorKind::Configuration, "{what}");
        assert!(seal(&process.ring, None, "x").is_ok(), "{what}: the present configuration stays");
    }
    assert!(process.ring.reload(lab.config.clone(), Default::default()).is_err(), "no KEK");
    with(|config| config.cache.max_keys = 1).unwrap();
    assert!(seal(&process.ring, None, "x").is_ok());
}

// Failure B14
#[test]
fn a_closed_keyring_does_nothing_and_holds_nothing() {
    let lab = Lab::new();
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    process.ring.close();
    assert_eq!(process.ring.occupancy(), (0, 0));
    lab.faults.reset();
    for (what, kind) in [
        ("encrypt", refused(encryptor.encrypt(Value::Text("x"), None), "closed")),
        ("ready", refused(block_on(encryptor.ready()), "closed")),
        ("load", refused(block_on(decryptor.load_keys(&[&sealed[..]][..])).map_err(|e| e.error), "closed")),
        ("decrypt", refused(decryptor.decrypt(&sealed, None), "closed")),
        ("new handle", refused(seal(&process.ring, None, "x"), "closed")),
        ("scope", refused(seal(&process.ring, Some("clinic"), "x"), "closed")),
        ("rotate", refused(block_on(process.ring.rotate_data_key(None)), "closed")),
        ("refresh", refused(block_on(process.ring.refresh()), "closed")),
        ("reload", refused(process.ring.reload(lab.config.clone(), process.keks.clone()), "closed")),
    ] {
        assert_eq!(kind, ErrorKind::Closed, "{what}");
    }
    assert!(!lab.faults.log().contains(&"unwrap"));
}

/// A keyring that is there still, and handles of it, keep no KEK, whoever comes first: who closes it or who reloads it.
// Failure T4
#[test]
fn a_closed_keyring_holds_no_kek() {
    let lab = Lab::new();
    let (mut early, mut late) = (0, 0);
    for _ in 0..500 {
        let (first, second) = (lab.keks(), lab.keks());
        let keks: Vec<Weak<dyn Kms>> = first.values().chain(second.values()).map(Arc::downgrade).collect();
        let ring = Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), first, Arc::new(lab.marks.clone()));
        let ring = ring.unwrap();
        let encryptor = encryptor(&ring, "plain", None).unwrap();
        let start = Barrier::new(2);
        let reloaded = std::thread::scope(|scope| {
            let reload = scope.spawn(|| {
                start.wait();
                ring.reload(lab.config.clone(), second)
            });
            start.wait();
            ring.close();
            reload.join().unwrap()
        });
        match reloaded {
            Ok(()) => early += 1,
            Err(error) if error.kind() == ErrorKind::Closed => late += 1,
            Err(error) => panic!("{error}"),
        }
        assert!(keks.iter().all(|kek| kek.upgrade().is_none()), "{early} reloads before, {late} after");
        assert!(encryptor.encrypt(Value::Text("x"), None).is_err() && ring.is_closed());
    }
    println!("{early} reloads before, {late} after");
}

type Operation = BoxFuture<'static, keyfold::Result<()>>;

fn operation(process: &Arc<Process>, sealed: &Arc<Vec<u8>>, which: usize) -> Operation {
    let (process, sealed) = (process.clone(), sealed.clone());
    Box::pin(async move {
        let ring = &process.ring;
        match which {
            0 => ring.field("plain")?.encryptor().await?.encrypt(Value::Text("x"), None).map(drop),
            1 => {
                let decryptor = ring.field("plain")?.decryptor().await?;
                decryptor.load_keys(&[&sealed[..]][..]).await?;
                decryptor.decrypt(&sealed, None).map(drop)
            }
            2 => ring.field("plain")?.scope("clinic").encryptor().await?.encrypt(Value::Text("x"), None).map(drop),
            3 => ring.refresh().await,
            _ => ring.field("mrn")?.encryptor().await?.encrypt(Value::Text("x"), None).map(drop),
        }
    })
}

/// Operations are polled in random order, and somewhere in between something is done to the keyring.
// Failures B11, B14
#[test]
fn whatever_is_done_while_others_are_at_work_they_finish_or_say_why() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    assert!(seal(&lab.process(), Some("clinic"), "x").is_ok());
    let mut random = Shuffle(1);
    let (mut finished, mut closed) = (0_u32, 0_u32);
    for round in 0..10_000 {
        let process = Arc::new(Process::slow(&lab, lab.config.clone()));
        let mut running: Vec<Operation> = (0..4).map(|_| operation(&process, &sealed, random.below(5))).collect();
        let (action, at) = (random.below(5), random.below(80));
        let mut context = Context::from_waker(Waker::noop());
        let mut polls = 0;
        while !running.is_empty() {
            if polls == at {
                match action {
                    0 => process.ring.invalidate(),
                    1 => process.ring.close(),
                    2 => process.ring.reload(foreign(&lab), process.keks.clone()).unwrap(),
                    3 => drop(running.swap_remove(random.below(running.len()))),
                    _ => process.clock.advance(lab.config.cache.max_age),
                }
            }
            polls += 1;
            assert!(polls < 10_000, "round {round}, action {action} after {at} polls: somebody waits for ever");
            if running.is_empty() {
                break;
            }
            let next = random.below(running.len());
            let Poll::Ready(result) = running[next].as_mut().poll(&mut context) else { continue };
            drop(running.swap_remove(next));
            match (action, result.map_err(|error| error.kind())) {
                (_, Ok(())) => finished += 1,
                (1, Err(ErrorKind::Closed)) => closed += 1,
                (2, Err(ErrorKind::RecordRejected)) | (4, Err(ErrorKind::DeadlineExceeded)) => {}
                (_, other) => panic!("round {round}, action {action} after {at} polls: {other:?}"),
            }
        }
        match action {
            // What was on its way is not kept, and not trusted by its old pins.
            1 if polls > at => assert_eq!(process.ring.occupancy(), (0, 0), "round {round}"),
            2 if polls > at => {
                assert_eq!(refused(seal(&process.ring, None, "x"), "unpinned"), ErrorKind::RecordRejected)
            }
            _ => {}
        }
    }
    assert!(finished > 20_000 && closed > 1_000, "{finished} finished, {closed} closed");
}
