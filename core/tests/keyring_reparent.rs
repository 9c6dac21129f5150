//! Reparenting: every key under the current root, whatever happens on the way (DESIGN K3, K14).

use crate::common::lab::*;
use crate::common::{FaultyMarks, Shuffle, block_on, open, refused};
use keyfold::{Drill, ErrorKind, KeyClass, KeyState, Keyring, Record, ReparentProgress, Result, SlotId, Value};
use std::sync::Arc;

/// Values under keys of every kind, and what they say.
fn values(ring: &Keyring) -> Vec<(Option<&'static str>, Vec<u8>)> {
    [None, Some("clinic"), Some("device")]
        .into_iter()
        .flat_map(|scope| {
            let before = seal(ring, scope, "kept").unwrap();
            block_on(ring.rotate_data_key(scope)).unwrap();
            [(scope, before), (scope, seal(ring, scope, "kept").unwrap())]
        })
        .collect()
}

fn assert_all_open(ring: &Keyring, values: &[(Option<&str>, Vec<u8>)]) {
    for (scope, sealed) in values {
        assert_eq!(reveal(ring, *scope, sealed).unwrap().0, "kept", "{scope:?}");
    }
}

fn reparent(ring: &Keyring) -> Result<ReparentProgress> {
    block_on(async {
        let mut walk = ring.reparent().await?;
        loop {
            let progress = walk.step(3).await?;
            if progress.done {
                return Ok(progress);
            }
        }
    })
}

fn under_other_roots(lab: &Lab, current: &Record) -> Vec<Record> {
    let all = lab.store.all().into_iter();
    all.filter(|record| record.class() != KeyClass::Root && record.authenticator() != current.key_id()).collect()
}

#[test]
fn afterwards_the_new_pin_alone_opens_everything_and_the_old_root_can_go() {
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    let joined = encryptor(&ring, "mrn", None).unwrap().encrypt(Value::Text("mrn"), None).unwrap();
    let new = block_on(ring.rotate_root()).unwrap().new;
    let only_new = lab.pinning(&[*new.commitment()]);
    assert!(reveal(&lab.process_with(only_new.clone()), None, &values[0].1).is_err());
    let unwraps = lab.kms.unwrap_count();
    let progress = reparent(&lab.process()).unwrap();
    assert_eq!(lab.kms.unwrap_count() - unwraps, 2, "one request per root, however many keys");
    // Three lookup keys with the scope names, two data keys of before, and five that were made since.
    assert_eq!(progress.moved, 10, "{progress:?}");
    assert_eq!(progress.seen, 2 * lab.store.all().len() as u64, "the second walk moved nothing: {progress:?}");
    assert!(under_other_roots(&lab, &new).is_empty());
    assert_eq!(reparent(&ring).unwrap().moved, 0, "nothing is left to do");
    for ring in [&ring, &lab.process(), &lab.process_with(only_new.clone()), &lab.elsewhere()] {
        assert_all_open(ring, &values);
        let decryptor = decryptor(ring, "mrn", None).unwrap();
        assert!(open(&decryptor, &joined, None).is_ok());
        assert_eq!(encryptor(ring, "mrn", None).unwrap().encrypt(Value::Text("mrn"), None).unwrap(), joined);
    }
    // Sequences go up, states and tags stay.
    for record in lab.store.all().iter().filter(|record| record.class() != KeyClass::Root) {
        assert!(record.sequence() >= 2, "{record:?}");
    }
    // While the trust in the new root comes from the old one, that stays; then it can be destroyed.
    let old = root().key_id();
    assert_eq!(refused(block_on(ring.change_state(old, KeyState::DestroyPending)), "needed"), ErrorKind::PolicyRefused);
    let both = lab.pinning(&[root().commitment(), *new.commitment()]);
    let ring = lab.process_with(both.clone());
    block_on(ring.change_state(old, KeyState::DestroyPending)).unwrap();
    let verified = |ring: &Keyring| block_on(ring.list(None, 1000)).unwrap().iter().all(|info| info.verified.is_ok());
    assert!(verified(&lab.process_with(both.clone())));
    block_on(ring.change_state(old, KeyState::Deactivated)).unwrap();
    block_on(ring.change_state(old, KeyState::DestroyPending)).unwrap();
    let drilled = |ring: &Keyring| block_on(ring.drill(&Drill::EachAlone)).unwrap()[0].roots;
    assert_eq!(drilled(&ring), 2, "it may be taken back");
    block_on(lab.process_with(both.clone()).change_state(old, KeyState::Destroyed)).unwrap();
    assert_eq!(drilled(&ring), 1);
    assert!(verified(&lab.process_with(both)) && verified(&lab.process_with(only_new.clone())));
    assert_all_open(&lab.process_with(only_new), &values);
}

/// Also in a handle that holds a key as it was under that root, and asks nobody.
#[test]
fn a_root_that_this_process_takes_out_of_service_stops_at_once() {
    let lab = Lab::new();
    let ring = lab.process();
    let held = encryptor(&ring, "plain", None).unwrap();
    let new = block_on(ring.rotate_root()).unwrap().new;
    reparent(&ring).unwrap();
    ring.reload(lab.pinning(&[root().commitment(), *new.commitment()]), lab.keks()).unwrap();
    held.encrypt(Value::Text("x"), None).unwrap();
    block_on(ring.change_state(root().key_id(), KeyState::Compromised)).unwrap();
    assert_eq!(refused(held.encrypt(Value::Text("x"), None), "under the old root"), ErrorKind::KeyState);
    let unwraps = lab.kms.unwrap_count();
    block_on(held.ready()).unwrap();
    held.encrypt(Value::Text("x"), None).unwrap();
    assert_eq!(lab.kms.unwrap_count(), unwraps, "its key is under the new root, which nobody doubts");
    // Whoever has the old root and can write to the store makes no key that counts.
    let planted = ours(KeyClass::Data, scope_id("planted"), 60);
    lab.store.plant(&record(&child_parts(planted, root())));
    let handle = decryptor(&ring, "plain", None).unwrap();
    assert_eq!(refused(open(&handle, &sealed_under(&planted, &[1; 24], "x"), None), "planted"), ErrorKind::KeyState);
}

// Failure N14
#[test]
fn a_root_that_keys_depend_on_cannot_be_taken_out_of_service() {
    for state in [KeyState::Compromised, KeyState::DestroyPending] {
        let lab = Lab::new();
        let ring = lab.process();
        let values = values(&ring);
        let new = block_on(ring.rotate_root()).unwrap().new;
        let newer = block_on(ring.rotate_root()).unwrap().new;
        let pins_newer = lab.process_with(lab.pinning(&[root().commitment(), *newer.commitment()]));
        for key_id in [root().key_id(), newer.key_id()] {
            assert_eq!(refused(block_on(pins_newer.change_state(key_id, state)), "needed"), ErrorKind::PolicyRefused);
        }
        // The one between vouches for nothing but the newest root, which others may trust through it alone.
        let ring = lab.process();
        assert_eq!(refused(block_on(ring.change_state(new.key_id(), state)), "needed"), ErrorKind::PolicyRefused);
        block_on(pins_newer.change_state(new.key_id(), state)).unwrap();
        assert_all_open(&pins_newer, &values);
    }
}

/// Covers F-7.2-4, F-7.5-4, F-7.5-6.
#[test]
fn tombstones_and_unknown_wraps_move_along() {
    use keyfold::vectors::WrapParts;
    let lab = Lab::new();
    let mut parts = child_parts(data(40), root());
    parts.wraps.push(WrapParts { kind: 9, alias: "pq".to_owned(), version: String::new(), bytes: vec![5; 300] });
    parts.extensions = b"\x00\x07\x00\x02ab".to_vec();
    lab.store.plant(&record(&in_state(parts.clone(), KeyState::Deactivated)));
    let gone = child_parts(data(41), root());
    let gone = in_state(in_state(in_state(gone, KeyState::Deactivated), KeyState::DestroyPending), KeyState::Destroyed);
    lab.store.plant(&record(&gone));
    let sealed = sealed_under(&data(40), &[3; 24], "kept");
    let new = block_on(lab.process().rotate_root()).unwrap().new;
    reparent(&lab.process()).unwrap();
    assert!(under_other_roots(&lab, &new).is_empty());
    let moved = lab.store.find(data(40).key_id());
    let contains = |needle: &[u8]| moved.as_bytes().windows(needle.len()).any(|window| window == needle);
    assert!(contains(&[5; 300]) && contains(b"\x00\x07\x00\x02ab"));
    let ring = lab.process_with(lab.pinning(&[*new.commitment()]));
    assert_eq!(reveal(&ring, None, &sealed).unwrap().0, "kept");
    let error = reveal(&ring, None, &sealed_under(&data(41), &[3; 24], "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyState);
}

#[test]
fn a_record_that_no_root_vouches_for_stops_it_and_nothing_of_the_step_is_changed() {
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    block_on(ring.rotate_root()).unwrap();
    let forged = record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 4), root()));
    let mut bytes = forged.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let forged = Record::parse(&bytes).unwrap();
    lab.store.plant(&forged);
    let before = lab.store.all();
    let error = block_on(async { lab.process().reparent().await?.step(1000).await }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordRejected);
    assert!(error.to_string().contains(&forged.key_id().to_string()), "{error}");
    assert!(lab.store.all() == before);
    assert_all_open(&lab.process(), &values);
}

#[test]
fn whatever_call_fails_values_open_and_the_next_walk_finishes() {
    for after in [false, true] {
        let mut n = 0;
        loop {
            n += 1;
            let lab = Lab::new();
            let values = values(&lab.process());
            lab.faults.fail_nth(n, after);
            let outcome = block_on(lab.process().rotate_root()).and_then(|_| reparent(&lab.process()));
            let failed = lab.faults.calls() >= n;
            lab.faults.off();
            assert_all_open(&lab.process(), &values);
            assert_all_open(&lab.elsewhere(), &values);
            // Resuming finishes, whether or not the root was rotated.
            let ring = lab.process();
            reparent(&ring).unwrap();
            let roots = lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE));
            assert!(under_other_roots(&lab, &roots[0]).is_empty(), "call {n}, after {after}");
            assert_all_open(&ring, &values);
            if !failed {
                assert!(outcome.is_ok());
                break;
            }
        }
        assert!(n > 40, "{n} calls");
    }
}

#[test]
fn rotation_and_new_scopes_go_on_meanwhile() {
    let lab = Lab::new();
    let ring = lab.process();
    let mut kept = values(&ring);
    let mut shuffle = Shuffle(3);
    for round in 0..10 {
        // So that the pins do not run out.
        let mut pins = vec![root().commitment()];
        pins.extend(lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE)).iter().map(|root| *root.commitment()));
        let config = lab.pinning(&pins);
        let ring = lab.process_with(config.clone());
        let new = block_on(ring.rotate_root()).unwrap().new;
        let mut walk = block_on(ring.reparent()).unwrap();
        while !block_on(walk.step(2)).unwrap().done {
            let other = lab.process_with(config.clone());
            match shuffle.below(3) {
                0 => drop(block_on(other.rotate_data_key(Some("clinic"))).unwrap()),
                1 if lab.store.all().len() < 150 => {
                    kept.push((Some("device"), seal(&other, Some("device"), "kept").unwrap()));
                    block_on(other.rotate_data_key(None)).unwrap();
                }
                _ => kept.push((Some("clinic"), seal(&other, Some("clinic"), "kept").unwrap())),
            }
        }
        assert!(under_other_roots(&lab, &new).is_empty(), "round {round}");
        assert_all_open(&lab.process_with(lab.pinning(&[*new.commitment()])), &kept);
    }
}

#[test]
fn two_walks_at_once_do_each_key_once() {
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    let before: u64 = lab.store.all().iter().map(Record::sequence).sum();
    block_on(ring.rotate_root()).unwrap();
    let rotated: u64 = lab.store.all().iter().map(Record::sequence).sum();
    let moved: u64 = std::thread::scope(|scope| {
        let walks: Vec<_> = (0..8).map(|_| scope.spawn(|| reparent(&lab.process()).unwrap().moved)).collect();
        walks.into_iter().map(|walk| walk.join().unwrap()).sum()
    });
    assert_eq!(moved, 10, "each key was moved by one of them");
    let after: u64 = lab.store.all().iter().map(Record::sequence).sum();
    assert_eq!(after - rotated, 10);
    assert!(rotated > before);
    assert_all_open(&lab.process(), &values);
}

#[test]
fn a_record_from_before_is_refused_by_a_process_that_saw_it_move() {
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    let before = lab.store.snapshot();
    block_on(ring.rotate_root()).unwrap();
    reparent(&ring).unwrap();
    lab.store.restore(&before);
    ring.invalidate();
    assert!(reveal(&ring, None, &values[0].1).is_err());
    // A machine that never saw it cannot know; what is under a pinned root opens there.
    let marks = Arc::new(FaultyMarks::default());
    let fresh = Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), lab.keks(), marks).unwrap();
    assert_all_open(&fresh, &values);
}

#[test]
fn a_walk_to_a_root_that_was_replaced_stops_and_moves_nothing_back() {
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    let second = block_on(ring.rotate_root()).unwrap().new;
    // One machine begins, and is suspended.
    let mut slow = block_on(lab.process().reparent()).unwrap();
    block_on(slow.step(2)).unwrap();
    // Another one goes through the whole procedure.
    let third = block_on(ring.rotate_root()).unwrap().new;
    let pins = lab.pinning(&[root().commitment(), *second.commitment(), *third.commitment()]);
    let other = lab.process_with(pins);
    reparent(&other).unwrap();
    for old in [root().key_id(), second.key_id()] {
        block_on(other.change_state(old, KeyState::DestroyPending)).unwrap();
        block_on(other.change_state(old, KeyState::Destroyed)).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(refused(block_on(slow.step(100)), "replaced"), ErrorKind::Conflict);
    }
    assert!(under_other_roots(&lab, &third).is_empty());
    assert_all_open(&lab.process_with(lab.pinning(&[*third.commitment()])), &values);
}

#[test]
fn two_walks_to_different_roots_end() {
    let lab = Lab::new();
    let ring = lab.process();
    values(&ring);
    block_on(ring.rotate_root()).unwrap();
    let mut one = block_on(lab.process().reparent()).unwrap();
    block_on(one.step(2)).unwrap();
    let newest = block_on(ring.rotate_root()).unwrap().new;
    let mut two = block_on(lab.process().reparent()).unwrap();
    let ended = (0..50).any(|_| {
        assert_eq!(refused(block_on(one.step(2)), "replaced"), ErrorKind::Conflict);
        block_on(two.step(2)).unwrap().done
    });
    assert!(ended && under_other_roots(&lab, &newest).is_empty());
}

#[test]
fn a_key_that_is_made_while_its_root_goes_out_of_service_is_never_sealed_under() {
    // Whoever makes the key has the root in hand already; the other one looks for keys before and after.
    let lab = Lab::new();
    let ring = lab.process();
    let values = values(&ring);
    let new = block_on(ring.rotate_root()).unwrap().new;
    let pins = lab.pinning(&[root().commitment(), *new.commitment()]);
    let other = lab.process_with(pins);
    reparent(&other).unwrap();
    // Stored after the first look: found by the second, which takes the state back.
    let late = record(&child_parts(data(77), root()));
    lab.store.state().after_update = Some(late.clone());
    let error = block_on(other.change_state(root().key_id(), KeyState::DestroyPending)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PolicyRefused);
    assert!(error.to_string().contains(&late.key_id().to_string()), "{error}");
    assert_eq!(lab.store.find(root().key_id()).state(), KeyState::Deactivated);
    assert_eq!(reparent(&other).unwrap().moved, 1);
    block_on(other.change_state(root().key_id(), KeyState::DestroyPending)).unwrap();
    assert_all_open(&other, &values);
    // Stored after the second look: whoever made it looks at its root's state and gives the key up.
    let lab = Lab::new();
    let ring = lab.process();
    lab.store.state().after_insert = Some(record(&in_state(root_parts(&lab.kms, root()), KeyState::DestroyPending)));
    assert_eq!(refused(seal(&ring, Some("a new scope"), "x"), "its root is gone"), ErrorKind::KeyState);
}

/// By age a root rotates without anybody who reads its pin.
#[test]
fn roots_whose_pins_are_missing_are_named() {
    let lab = Lab::new();
    let unpinned = |ring: Keyring| -> Vec<_> {
        block_on(ring.unpinned_roots()).unwrap().iter().map(|root| *root.commitment()).collect()
    };
    assert_eq!(unpinned(lab.process()), [[0; 32]; 0]);
    let new = block_on(lab.process().rotate_root()).unwrap().new;
    assert_eq!(unpinned(lab.process()), [*new.commitment()]);
    reparent(&lab.process()).unwrap();
    assert_eq!(unpinned(lab.process()), [*new.commitment()]);
    assert_eq!(unpinned(lab.process_with(lab.pinning(&[*new.commitment()]))), [[0; 32]; 0]);
    // One that waits to seal as well.
    let mut config = lab.pinning(&[*new.commitment()]);
    config.rotation.lead = std::time::Duration::from_secs(3600);
    let waits = block_on(lab.process_with(config.clone()).rotate_root()).unwrap().new;
    assert_eq!(waits.state(), KeyState::PreActive);
    assert_eq!(unpinned(lab.process_with(config)), [*waits.commitment()]);
    // Nobody is told to pin what no pinned root vouches for.
    let ring = lab.process_with(lab.pinning(&[[7; 32]]));
    assert_eq!(refused(block_on(ring.unpinned_roots()), "nothing is trusted"), ErrorKind::RecordRejected);
}
