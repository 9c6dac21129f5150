//! Shredding and legal hold (DESIGN K15): states, waiting, races, failures at every call, and how soon others notice.

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::{AuditAction, AuditEvent, AuditSink, ErrorKind, KeyState, Keyring, Result, Shredded, Value};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SCOPE: &str = "clinic";
const DAY: u64 = 24 * 3600;

/// A scope with values under two keys.
struct Clinic {
    lab: Lab,
    ring: Keyring,
    sealed: [Vec<u8>; 2],
}

impl Clinic {
    fn new() -> Self {
        Self::in_lab(Lab::new())
    }

    fn in_lab(lab: Lab) -> Self {
        let ring = lab.process();
        let old = seal(&ring, Some(SCOPE), "old").unwrap();
        block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
        let new = seal(&ring, Some(SCOPE), "new").unwrap();
        Self { lab, ring, sealed: [old, new] }
    }

    fn states(&self) -> Vec<KeyState> {
        let slot = self.lab.store.find(key_id_of(&self.sealed[0])).slot();
        self.lab.store.of_slot(slot).iter().map(keyfold::Record::state).collect()
    }

    /// Nothing in the scope is sealed or opened, by this process or another.
    #[track_caller]
    fn assert_closed(&self) {
        for ring in [&self.ring, &self.lab.process(), &self.lab.elsewhere()] {
            let error = seal(ring, Some(SCOPE), "x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::KeyState);
            let waits = self.states().contains(&KeyState::DestroyPending);
            assert!(!waits || !error.to_string().contains("rotating it"), "that is refused: {error}");
            for sealed in &self.sealed {
                assert_eq!(refused(reveal(ring, Some(SCOPE), sealed), "opening"), ErrorKind::KeyState);
            }
        }
    }

    #[track_caller]
    fn assert_open(&self) {
        for ring in [&self.ring, &self.lab.process()] {
            for (sealed, text) in self.sealed.iter().zip(["old", "new"]) {
                assert_eq!(reveal(ring, Some(SCOPE), sealed).unwrap().0, text);
            }
            let fresh = seal(ring, Some(SCOPE), "fresh").unwrap();
            assert_eq!(reveal(ring, Some(SCOPE), &fresh).unwrap(), ("fresh".to_owned(), true));
        }
    }
}

#[test]
fn a_scope_is_closed_taken_back_and_ended() {
    let clinic = Clinic::new();
    let (ring, lab) = (&clinic.ring, &clinic.lab);
    let other = seal(ring, Some("ward"), "kept").unwrap();
    assert_eq!(refused(block_on(ring.finish_shred(SCOPE, None)), "never scheduled"), ErrorKind::KeyState);
    clinic.assert_open();
    let scheduled = block_on(ring.shred_scope(SCOPE, None)).unwrap();
    assert_eq!(scheduled.keys.len(), 2);
    assert!(clinic.states().iter().all(|state| *state == KeyState::DestroyPending));
    clinic.assert_closed();
    assert_eq!(refused(block_on(ring.rotate_data_key(Some(SCOPE))), "rotated"), ErrorKind::KeyState);
    assert_eq!(block_on(ring.shred_scope(SCOPE, None)).unwrap().not_before, scheduled.not_before, "twice is once");

    let seals = block_on(ring.cancel_shred(SCOPE, None)).unwrap();
    assert_eq!((seals.state(), clinic.states().len()), (KeyState::Active, 3));
    assert_eq!(refused(block_on(ring.cancel_shred(SCOPE, None)), "nothing is scheduled"), ErrorKind::KeyState);
    assert_eq!(refused(block_on(ring.release_scope(SCOPE, None)), "nothing is held"), ErrorKind::KeyState);
    assert_eq!(block_on(ring.keys_of_slot(seals.slot_id())).unwrap().len(), 3);
    clinic.assert_open();

    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    let Shredded { keys, isolated, remainders, .. } = block_on(ring.finish_shred(SCOPE, None)).unwrap();
    assert_eq!((keys.len(), isolated, remainders.len()), (3, false, 1));
    assert_eq!(clinic.states(), [KeyState::Destroyed; 3]);
    clinic.assert_closed();
    for record in keys {
        assert_eq!(lab.store.find(record.key_id()), record);
        assert_eq!(record.kek_aliases().count(), 0);
    }
    assert_eq!(block_on(ring.finish_shred(SCOPE, None)).unwrap().keys.len(), 3, "it can be asked again");
    for result in
        [block_on(ring.shred_scope(SCOPE, None)).map(drop), block_on(ring.cancel_shred(SCOPE, None)).map(drop)]
    {
        assert_eq!(refused(result, "for ever"), ErrorKind::KeyState);
    }
    assert_eq!(reveal(ring, Some("ward"), &other).unwrap().0, "kept");
    assert_eq!(refused(block_on(ring.shred_scope("no such", None)), "no scope"), ErrorKind::NoMatchingKey);
    // Somebody who wants the scope back says so; what was sealed before stays closed.
    block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
    assert!(seal(ring, Some(SCOPE), "x").is_ok());
    assert_eq!(refused(reveal(ring, Some(SCOPE), &clinic.sealed[1]), "for ever"), ErrorKind::KeyState);
}

/// Covers F-7.5-3.
#[test]
fn a_compromised_key_comes_back_compromised() {
    let clinic = Clinic::new();
    let ring = &clinic.ring;
    block_on(ring.change_state(key_id_of(&clinic.sealed[0]), KeyState::Compromised)).unwrap();
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    let by_hand = block_on(ring.change_state(key_id_of(&clinic.sealed[0]), KeyState::Deactivated));
    assert_eq!(refused(by_hand, "made a good key again"), ErrorKind::KeyState);
    block_on(ring.cancel_shred(SCOPE, None)).unwrap();
    assert_eq!(clinic.lab.store.find(key_id_of(&clinic.sealed[0])).state(), KeyState::Compromised);
    assert_eq!(reveal(ring, Some(SCOPE), &clinic.sealed[1]).unwrap().0, "new");
    assert_eq!(refused(reveal(ring, Some(SCOPE), &clinic.sealed[0]), "compromised"), ErrorKind::KeyState);
}

// Failure N14
#[test]
fn nothing_is_destroyed_before_its_time() {
    let mut lab = Lab::new();
    lab.config.shred.waiting = Duration::from_secs(7 * DAY);
    let clinic = Clinic::in_lab(lab);
    let (ring, store) = (&clinic.ring, &clinic.lab.store);
    let not_before = block_on(ring.shred_scope(SCOPE, None)).unwrap().not_before;
    assert_eq!(not_before, TIME + 7 * DAY);
    // A clock that goes back makes it later, never sooner.
    for now in [TIME, TIME + 7 * DAY - 1, TIME - DAY] {
        store.state().now = Some(now);
        let error = block_on(ring.finish_shred(SCOPE, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PolicyRefused, "{error}");
        let by_hand = block_on(ring.change_state(key_id_of(&clinic.sealed[0]), KeyState::Destroyed));
        assert_eq!(refused(by_hand, "by hand"), ErrorKind::PolicyRefused);
        assert!(clinic.states().iter().all(|state| *state == KeyState::DestroyPending));
    }
    store.state().now = Some(TIME + 7 * DAY);
    block_on(ring.finish_shred(SCOPE, None)).unwrap();
    clinic.assert_closed();
}

/// Covers F-7.5-2.
#[test]
fn a_legal_hold_keeps_every_key_until_it_is_lifted() {
    let clinic = Clinic::new();
    let (ring, lab) = (&clinic.ring, &clinic.lab);
    let old = key_id_of(&clinic.sealed[0]);
    assert_eq!(block_on(ring.hold_scope(SCOPE, Some("case 7"))).unwrap().keys.len(), 2);
    clinic.assert_open();
    // It stays with the keys, whatever becomes of them, and holds what is made later.
    let later = block_on(ring.rotate_data_key(Some(SCOPE))).unwrap().new;
    assert_eq!(later.held_since(), None);
    block_on(ring.rotate_root()).unwrap();
    let mut walk = block_on(ring.reparent()).unwrap();
    while !block_on(walk.step(100)).unwrap().done {}
    assert_eq!(lab.store.find(old).held_since(), Some(TIME));
    for ring in [ring, &lab.elsewhere()] {
        assert_eq!(refused(block_on(ring.shred_scope(SCOPE, None)), "scheduled"), ErrorKind::PolicyRefused);
        for key_id in [old, later.key_id()] {
            let by_hand = block_on(ring.change_state(key_id, KeyState::DestroyPending));
            assert_eq!(refused(by_hand, "by hand"), ErrorKind::PolicyRefused);
        }
    }
    clinic.assert_open();
    block_on(ring.release_scope(SCOPE, None)).unwrap();
    assert_eq!(lab.store.find(old).held_since(), None);
    // It also stops what was scheduled before.
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    block_on(ring.hold_scope(SCOPE, None)).unwrap();
    assert_eq!(refused(block_on(ring.finish_shred(SCOPE, None)), "finished"), ErrorKind::PolicyRefused);
    let by_hand = block_on(ring.change_state(old, KeyState::Destroyed));
    assert_eq!(refused(by_hand, "by hand"), ErrorKind::PolicyRefused);
    assert!(clinic.states().iter().all(|state| *state == KeyState::DestroyPending));
    block_on(ring.release_scope(SCOPE, None)).unwrap();
    block_on(ring.finish_shred(SCOPE, None)).unwrap();
    assert_eq!(refused(block_on(ring.hold_scope(SCOPE, None)), "too late"), ErrorKind::KeyState);
}

#[test]
fn whoever_makes_a_key_while_the_scope_ends_takes_it_back() {
    let lab = Lab::new();
    let active = lab.add_scope(SCOPE, 40);
    let retired = in_state(active.clone(), KeyState::Deactivated);
    let ending = record(&in_state(retired.clone(), KeyState::DestroyPending));
    // Between his look at the newest key and the end of his own insert, its end was scheduled.
    let ring = lab.process();
    lab.store.state().after_insert = Some(ending.clone());
    assert_eq!(refused(block_on(ring.rotate_data_key(Some(SCOPE))), "made a key"), ErrorKind::KeyState);
    let states: Vec<_> = lab.store.of_slot(ending.slot()).iter().map(keyfold::Record::state).collect();
    assert_eq!(states, [KeyState::DestroyPending; 2], "the new key went the same way");
    assert_eq!(refused(seal(&ring, Some(SCOPE), "x"), "sealing"), ErrorKind::KeyState);
    block_on(ring.finish_shred(SCOPE, None)).unwrap();

    // The other way: the key was there before he looked, so whoever ends the scope finds it.
    let lab = Lab::new();
    lab.add_scope(SCOPE, 40);
    let made = record(&lab.add_scope(SCOPE, 41));
    lab.store.state().records.remove(&made.key_id());
    lab.store.state().after_update = Some(made.clone());
    let ring = lab.process();
    assert_eq!(block_on(ring.shred_scope(SCOPE, None)).unwrap().keys.len(), 2);
    assert_eq!(lab.store.find(made.key_id()).state(), KeyState::DestroyPending);
    // And one that appears while the keys are destroyed is no part of what was done.
    lab.store.state().after_update = Some(record(&lab.add_scope(SCOPE, 42)));
    lab.store.state().records.retain(|key_id, _| key_id.generation() != 42);
    assert_eq!(refused(block_on(ring.finish_shred(SCOPE, None)), "said all is gone"), ErrorKind::Conflict);
}

#[test]
fn whoever_changes_a_key_while_the_scope_ends_does_not_stop_that() {
    let lab = Lab::new();
    let old = lab.add_scope(SCOPE, 40);
    lab.add_scope(SCOPE, 41);
    let compromised = record(&in_state(old, KeyState::Compromised));
    // Between the change of the newer key and that of the older one.
    lab.store.state().after_update = Some(compromised.clone());
    let ring = lab.process();
    let scheduled = block_on(ring.shred_scope(SCOPE, None)).unwrap();
    assert_eq!(scheduled.keys.len(), 2);
    let state = || lab.store.find(compromised.key_id()).state();
    assert_eq!(state(), KeyState::DestroyPending);
    block_on(ring.cancel_shred(SCOPE, None)).unwrap();
    assert_eq!(state(), KeyState::Compromised, "what somebody else did counts");
}

#[test]
fn a_failure_at_every_call_loses_nothing_and_repeating_finishes() {
    type Step = fn(&Keyring) -> Result<()>;
    let schedule: Step = |ring| block_on(ring.shred_scope(SCOPE, None)).map(drop);
    let cancel: Step = |ring| block_on(ring.cancel_shred(SCOPE, None)).map(drop);
    let finish: Step = |ring| block_on(ring.finish_shred(SCOPE, None)).map(drop);
    let hold: Step = |ring| block_on(ring.hold_scope(SCOPE, None)).map(drop);
    let release: Step = |ring| block_on(ring.release_scope(SCOPE, None)).map(drop);
    let steps: [(&str, &[Step], Step); 5] = [
        ("scheduling", &[], schedule),
        ("taking back", &[schedule], cancel),
        ("finishing", &[schedule], finish),
        ("holding", &[], hold),
        ("releasing", &[hold], release),
    ];
    let mut failures = 0;
    for (what, before, step) in steps {
        for after in [false, true] {
            for n in 1.. {
                let clinic = Clinic::new();
                before.iter().for_each(|step| step(&clinic.ring).unwrap());
                // Somebody who has nothing in memory, so that every call is made.
                let ring = clinic.lab.process();
                clinic.lab.faults.fail_nth(n, after);
                let first = step(&ring);
                let calls = clinic.lab.faults.calls();
                clinic.lab.faults.off();
                if first.is_ok() && calls < n {
                    break;
                }
                failures += usize::from(first.is_err());
                // The same process or another one goes on.
                let ring = if n % 2 == 0 { ring } else { clinic.lab.process() };
                match step(&ring) {
                    Ok(()) => {}
                    // It was done already, and only the answer was lost.
                    Err(error)
                        if error.kind() == ErrorKind::KeyState && matches!(what, "taking back" | "releasing") => {}
                    Err(error) => panic!("{what}, call {n}, after {after}: {error}"),
                }
                clinic.ring.invalidate();
                match what {
                    "scheduling" | "finishing" => clinic.assert_closed(),
                    "taking back" | "releasing" => clinic.assert_open(),
                    _ => {
                        clinic.assert_open();
                        assert_eq!(refused(schedule(&ring), "held"), ErrorKind::PolicyRefused);
                    }
                }
            }
        }
    }
    assert!(failures > 100, "only {failures} failures");
}

// Failure N17
#[test]
fn other_processes_forget_the_keys_within_the_stated_time() {
    for away in [false, true] {
        let clinic = Clinic::new();
        let lab = &clinic.lab;
        let process = Process::quick(lab, lab.config.clone());
        let decryptor = decryptor(&process.ring, "plain", Some(SCOPE)).unwrap();
        let load = || block_on(decryptor.load_keys(&[&clinic.sealed[1][..]][..]));
        let opens = || decryptor.decrypt(&clinic.sealed[1], None).is_ok();
        load().unwrap();
        assert!(opens());
        block_on(clinic.ring.shred_scope(SCOPE, None)).unwrap();
        block_on(clinic.ring.finish_shred(SCOPE, None)).unwrap();
        // From now on nobody answers that process, or everybody does.
        lab.faults.fail_store(away);
        let stated = lab.config.cache.max_age + if away { lab.config.cache.grace } else { Duration::ZERO };
        process.clock.advance(stated - Duration::from_secs(1));
        let _ = load();
        if away {
            assert!(opens(), "the grace is there for outages");
        }
        process.clock.advance(Duration::from_secs(1));
        let _ = load();
        assert!(!opens(), "opened after the stated time, away: {away}");
        lab.faults.fail_store(false);
    }
}

#[test]
fn the_end_of_a_scope_costs_no_other_key_a_call() {
    let clinic = Clinic::new();
    let (ring, lab) = (&clinic.ring, &clinic.lab);
    let encryptor = encryptor(ring, "plain", Some("ward")).unwrap();
    let decryptor = decryptor(ring, "plain", Some("ward")).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    let used = || {
        lab.faults.reset();
        block_on(encryptor.ready()).unwrap();
        block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
        assert!(seal(ring, Some("ward"), "y").is_ok() && reveal(ring, Some("ward"), &sealed).is_ok());
        lab.faults.log()
    };
    used();
    let step = |what: &str, result: Result<()>| {
        result.unwrap();
        assert_eq!(used(), [""; 0], "{what}");
    };
    let shred = || block_on(ring.shred_scope(SCOPE, None)).map(drop);
    let finish = || block_on(ring.finish_shred(SCOPE, None)).map(drop);
    step("scheduled", shred());
    step("scheduled again", shred());
    step("taken back", block_on(ring.cancel_shred(SCOPE, None)).map(drop));
    step("scheduled once more", shred());
    step("ended", finish());
    step("ended again", finish());
    clinic.assert_closed();
}

#[derive(Default)]
struct Events(Mutex<Vec<AuditEvent>>);

impl AuditSink for Events {
    fn record(&self, event: AuditEvent) -> Result<()> {
        self.0.lock().unwrap().push(event);
        Ok(())
    }
}

#[test]
fn every_step_is_an_event_that_names_the_slot_and_not_the_scope() {
    let clinic = Clinic::new();
    let ring = clinic.lab.process();
    let events = Arc::new(Events::default());
    ring.set_audit(events.clone()).unwrap();
    block_on(ring.hold_scope(SCOPE, Some("case 7"))).unwrap();
    assert!(block_on(ring.shred_scope(SCOPE, None)).is_err());
    block_on(ring.release_scope(SCOPE, None)).unwrap();
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    block_on(ring.cancel_shred(SCOPE, None)).unwrap();
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    block_on(ring.finish_shred(SCOPE, Some("erased on request"))).unwrap();
    use AuditAction::{HoldLifted, HoldPlaced, ShredCancelled, ShredScheduled, Shredded};
    let ours = [HoldPlaced, HoldLifted, ShredCancelled, ShredScheduled, Shredded];
    let events = events.0.lock().unwrap();
    let events: Vec<_> = events.iter().filter(|event| ours.contains(&event.action)).collect();
    let told: Vec<_> = events.iter().map(|event| (event.action, event.error)).collect();
    let refused = Some(ErrorKind::PolicyRefused);
    let expected = [
        (HoldPlaced, None),
        (ShredScheduled, refused),
        (HoldLifted, None),
        (ShredScheduled, None),
        (ShredCancelled, None),
        (ShredScheduled, None),
        (Shredded, None),
    ];
    assert_eq!(told, expected);
    assert_eq!(events[0].reason.as_deref(), Some("case 7"));
    assert_eq!(events[6].reason.as_deref(), Some("erased on request"));
    let slot = clinic.lab.store.find(key_id_of(&clinic.sealed[0])).slot_id().to_string();
    for event in events {
        let text = format!("{event:?}");
        assert!(text.contains(&slot) && !text.contains(SCOPE), "{text}");
    }
}

/// Whoever asks for the end of a scope stops using its keys at once, in every handle and whoever scheduled it first.
#[test]
fn no_handle_goes_on_with_a_key_of_a_scope_that_ends() {
    for by_other in [false, true] {
        for root_rotated in [false, true] {
            let clinic = Clinic::new();
            let held = decryptor(&clinic.ring, "plain", Some(SCOPE)).unwrap();
            clinic.sealed.iter().for_each(|sealed| drop(open(&held, sealed, None).unwrap()));
            if root_rotated {
                // The keys are opened anew, and the handle keeps those that it has.
                block_on(clinic.ring.rotate_root()).unwrap();
                let mut walk = block_on(clinic.ring.reparent()).unwrap();
                while !block_on(walk.step(9)).unwrap().done {}
                clinic.assert_open();
            }
            if by_other {
                block_on(clinic.lab.process().shred_scope(SCOPE, None)).unwrap();
                assert!(held.decrypt(&clinic.sealed[1], None).is_ok(), "it has not noticed yet");
            }
            block_on(clinic.ring.shred_scope(SCOPE, None)).unwrap();
            clinic.lab.faults.fail_store(true);
            for sealed in &clinic.sealed {
                let what = format!("by other: {by_other}, root rotated: {root_rotated}");
                assert_eq!(refused(held.decrypt(sealed, None), &what), ErrorKind::KeyState);
                assert_eq!(refused(open(&held, sealed, None), &what), ErrorKind::Store);
            }
        }
    }
}

/// A scope that ends costs no call for each value that somebody would seal or open in it.
#[test]
fn the_refusal_of_a_scope_that_ends_is_remembered_until_it_is_taken_back() {
    for by_other in [false, true] {
        let mut lab = Lab::new();
        lab.config.cache.negative = Duration::from_secs(1);
        let clinic = Clinic::in_lab(lab);
        let (lab, sealed) = (&clinic.lab, &clinic.sealed[1]);
        let process = Process::quick(lab, lab.config.clone());
        let writer = encryptor(&process.ring, "plain", Some(SCOPE)).unwrap();
        let reader = decryptor(&process.ring, "plain", Some(SCOPE)).unwrap();
        open(&reader, sealed, None).unwrap();
        let both = |what: &str| {
            [refused(block_on(writer.ready()).map(drop), what), refused(open(&reader, sealed, None).map(drop), what)]
        };
        let ending = if by_other { &clinic.ring } else { &process.ring };
        block_on(ending.shred_scope(SCOPE, None)).unwrap();
        process.ring.invalidate();
        assert_eq!(both("asked"), [ErrorKind::KeyState; 2]);
        lab.faults.reset();
        (0..100).for_each(|_| assert_eq!(both("remembered"), [ErrorKind::KeyState; 2]));
        assert_eq!(lab.faults.log(), [""; 0], "by other: {by_other}");
        process.clock.advance(Duration::from_secs(1));
        assert_eq!(both("a second later"), [ErrorKind::KeyState; 2]);
        assert!(lab.faults.log().contains(&"newest") && lab.faults.log().contains(&"get"), "{:?}", lab.faults.log());
        // In the same second.
        block_on(process.ring.cancel_shred(SCOPE, None)).unwrap();
        block_on(writer.ready()).unwrap();
        open(&reader, sealed, None).unwrap();
    }
}

/// A change took effect and its answer was lost, or nobody waited for it.
#[test]
fn an_end_whose_answer_was_lost_is_heard_by_every_handle() {
    let mut lost = 0;
    for n in 1.. {
        let clinic = Clinic::new();
        let held = decryptor(&clinic.ring, "plain", Some(SCOPE)).unwrap();
        clinic.sealed.iter().for_each(|sealed| drop(open(&held, sealed, None).unwrap()));
        clinic.lab.faults.fail_nth(n, true);
        let result = block_on(clinic.ring.shred_scope(SCOPE, None));
        let reached = clinic.lab.faults.calls() >= n;
        clinic.lab.faults.off();
        clinic.lab.faults.fail_store(true);
        for sealed in &clinic.sealed {
            let ends = clinic.lab.store.find(key_id_of(sealed)).state() == KeyState::DestroyPending;
            if ends {
                let what = format!("call {n}, {:?}", clinic.lab.faults.log());
                let kind = refused(held.decrypt(sealed, None).map(drop), &what);
                assert!(matches!(kind, ErrorKind::KeyState | ErrorKind::DeadlineExceeded), "{what}: {kind:?}");
                lost += usize::from(result.is_err());
            }
        }
        if !reached {
            break;
        }
    }
    assert!(lost >= 4, "{lost}");
}

/// One handle has the key as it was before the root was rotated; another one hears that it is gone.
#[test]
fn what_one_handle_hears_ends_what_another_one_holds() {
    let clinic = Clinic::new();
    let held = decryptor(&clinic.ring, "plain", Some(SCOPE)).unwrap();
    clinic.sealed.iter().for_each(|sealed| drop(open(&held, sealed, None).unwrap()));
    block_on(clinic.ring.rotate_root()).unwrap();
    let mut walk = block_on(clinic.ring.reparent()).unwrap();
    while !block_on(walk.step(9)).unwrap().done {}
    clinic.assert_open();
    block_on(clinic.lab.process().shred_scope(SCOPE, None)).unwrap();
    clinic.ring.invalidate();
    for sealed in &clinic.sealed {
        assert!(held.decrypt(sealed, None).is_ok(), "nobody has heard of it yet");
        assert_eq!(refused(reveal(&clinic.ring, Some(SCOPE), sealed), "asked"), ErrorKind::KeyState);
        assert_eq!(refused(held.decrypt(sealed, None), "heard"), ErrorKind::KeyState);
    }
}
