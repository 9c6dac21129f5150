//! Key records that nobody should believe: planted, edited, swapped, replayed, hidden (DESIGN K2 to K4).
//!
//! The attacker may encrypt under the KEK and write the store, but not decrypt.
//!
//! Longer than other files: one attacker, whose forgeries share the records, keys and stores that they are made of.

use crate::common::lab::*;
use crate::common::{open, refused};
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::{ErrorKind, KeyClass, KeyState, Keyring, KeyringConfig, KmsErrorKind, Lineage, Record, Result, SlotId};

const MAC_LEN: usize = 32;
/// Where the parts of a record start (FORMAT.md §7.1).
const CLASS: usize = 4;
const STATE: usize = 5;
const KEY_ID: usize = 6;
const AUTHENTICATOR: usize = 62;
const LINEAGE_AT: usize = 86;
const SLOT: usize = 102;
const SCOPE_TAG: usize = 118;
const SEQUENCE: usize = 150;
const ENVIRONMENT_AT: usize = 183;

fn their_root() -> Key {
    theirs(KeyClass::Root, SlotId::NONE, 90)
}

fn their_data() -> Key {
    theirs(KeyClass::Data, SlotId::NONE, 91)
}

/// `record` with some bytes replaced; its MAC stays, so it is wrong.
fn edited(record: &Record, at: usize, bytes: &[u8]) -> Record {
    let mut edited = record.as_bytes().to_vec();
    edited[at..at + bytes.len()].copy_from_slice(bytes);
    Record::parse(&edited).expect("the edit parses")
}

/// `record` with bytes replaced and a new MAC under `root`, which need not be the root that it names.
fn edited_and_signed(record: &Record, at: usize, bytes: &[u8], root: &Key) -> Record {
    let mut edited = record.as_bytes().to_vec();
    edited[at..at + bytes.len()].copy_from_slice(bytes);
    let end = edited.len() - MAC_LEN;
    let mac = root.record_mac(&edited[..end]);
    edited[end..].copy_from_slice(&mac);
    Record::parse(&edited).expect("the edit parses")
}

/// A data record of the attacker that names the honest root as its authenticator.
fn claims_true_root(parts: &RecordParts<'_>) -> Record {
    edited_and_signed(&record(parts), AUTHENTICATOR, root().key_id().as_bytes(), &their_root())
}

fn pinned_only(lab: &Lab, what: &str) {
    lab.assert_only_asked_for(&[root()], what);
}

/// Honest values open and new ones seal.
#[track_caller]
fn assert_healthy(ring: &Keyring) {
    let sealed = seal(ring, None, "healthy").unwrap();
    assert_eq!(reveal(ring, None, &sealed).unwrap(), ("healthy".to_owned(), true));
}

#[test]
fn the_lab_is_an_honest_keyring() {
    let lab = Lab::new();
    let ring = lab.process();
    assert_healthy(&ring);
    let old = sealed_under(&data(OLD_DATA), &[1; 24], "old");
    assert_eq!(reveal(&ring, None, &old).unwrap(), ("old".to_owned(), false));
    assert!(block_on_list(&ring).iter().all(|(_, verified)| verified.is_ok()));
}

fn block_on_list(ring: &Keyring) -> Vec<(Record, Result<()>)> {
    let infos = crate::common::block_on(ring.list(None, 1000)).unwrap();
    infos.into_iter().map(|info| (info.record, info.verified)).collect()
}

// Planted records

/// What an attacker plants, the value that it is meant to open, and in which way nobody believes it.
#[test]
fn planted_records_open_nothing() {
    let wrapped_root = |lab: &Lab| root_parts(&lab.kms, their_root());
    type Plant = fn(&Lab) -> Vec<Record>;
    let cases: [(&str, Plant, ErrorKind); 8] = [
        ("no root in the store", |_| vec![record(&child_parts(their_data(), their_root()))], ErrorKind::RecordRejected),
        (
            "a self-MACed root that the KEK would unwrap",
            |lab| vec![record(&root_parts(&lab.kms, their_root())), record(&child_parts(their_data(), their_root()))],
            ErrorKind::RecordRejected,
        ),
        (
            "a root with an endorsement that the attacker made up",
            |lab| {
                let parts = RecordParts { endorser: Some(their_root()), ..root_parts(&lab.kms, their_root()) };
                vec![record(&parts), record(&child_parts(their_data(), their_root()))]
            },
            ErrorKind::RecordRejected,
        ),
        (
            "a root with an endorsement that names the honest root",
            |lab| {
                let parts = RecordParts { endorser: Some(their_root()), ..root_parts(&lab.kms, their_root()) };
                let signed = record(&parts);
                let at = find(signed.as_bytes(), their_root().key_id().as_bytes(), 200);
                let named = edited_and_signed(&signed, at, root().key_id().as_bytes(), &their_root());
                vec![named, record(&child_parts(their_data(), their_root()))]
            },
            ErrorKind::RecordRejected,
        ),
        (
            "two roots that endorse each other",
            |lab| {
                let second = theirs(KeyClass::Root, SlotId::NONE, 89);
                let first = RecordParts { endorser: Some(second), ..root_parts(&lab.kms, their_root()) };
                let second = RecordParts { endorser: Some(their_root()), ..root_parts(&lab.kms, second) };
                vec![record(&first), record(&second), record(&child_parts(their_data(), their_root()))]
            },
            ErrorKind::RecordRejected,
        ),
        (
            "a child that claims the true root",
            |_| vec![claims_true_root(&child_parts(their_data(), their_root()))],
            ErrorKind::RecordRejected,
        ),
        (
            "a child whose authenticator is itself",
            |_| {
                let signed = record(&child_parts(their_data(), their_root()));
                vec![edited_and_signed(&signed, AUTHENTICATOR, their_data().key_id().as_bytes(), &their_data())]
            },
            ErrorKind::RecordRejected,
        ),
        (
            "a child whose authenticator is a data key of the attacker",
            |_| {
                let other = theirs(KeyClass::Data, SlotId::NONE, 92);
                vec![record(&child_parts(other, other)), record(&child_parts(their_data(), other))]
            },
            ErrorKind::RecordRejected,
        ),
    ];
    let sealed = sealed_under(&their_data(), &[7; 24], "planted");
    for (what, plant, expected) in cases {
        let lab = Lab::new();
        plant(&lab).iter().for_each(|record| lab.store.plant(record));
        // The newest record of the slot stays an honest one, so that only the value's own key is in question.
        let planted = lab.store.all().into_iter().map(|record| record.key_id()).filter(|id| id.generation() > 80);
        lab.store.state().hidden.extend(planted);
        let ring = lab.process();
        assert_eq!(refused(reveal(&ring, None, &sealed), what), expected, "{what}");
        pinned_only(&lab, what);
        assert_healthy(&ring);
        for (record, verified) in block_on_list(&ring) {
            let honest = record.key_id().generation() < 80;
            assert_eq!(verified.is_ok(), honest, "{what}: {record:?}");
        }
        pinned_only(&lab, what);
    }
    // The KEK would have unwrapped it.
    let lab = Lab::new();
    let trusting = KeyringConfig { root_pins: vec![their_root().commitment()], ..lab.config.clone() };
    lab.store.plant(&record(&wrapped_root(&lab)));
    lab.store.plant(&record(&child_parts(their_data(), their_root())));
    assert!(reveal(&lab.process_with(trusting), None, &sealed).is_ok());
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> usize {
    from + haystack[from..].windows(needle.len()).position(|w| w == needle).expect("it is there")
}

/// The attacker's record stands first in the slot. Nothing is sealed under it, and no service is asked for it.
#[test]
fn planted_records_do_not_take_over_sealing() {
    let under_their_root = |lab: &Lab| {
        lab.store.plant(&record(&root_parts(&lab.kms, their_root())));
        lab.store.plant(&record(&child_parts(their_data(), their_root())));
    };
    let claiming = |lab: &Lab| lab.store.plant(&claims_true_root(&child_parts(their_data(), their_root())));
    let claiming_inactive = |lab: &Lab| {
        let parts = in_state(child_parts(their_data(), their_root()), KeyState::Deactivated);
        lab.store.plant(&claims_true_root(&parts));
    };
    let only_root = |lab: &Lab| lab.store.plant(&record(&root_parts(&lab.kms, their_root())));
    type Plant<'a> = (&'a str, &'a dyn Fn(&Lab));
    let plants: [Plant<'_>; 4] = [
        ("under a root of the attacker", &under_their_root),
        ("claiming the true root", &claiming),
        ("claiming the true root, deactivated", &claiming_inactive),
        ("a root alone", &only_root),
    ];
    for (what, plant) in plants {
        let lab = Lab::new();
        let warm = lab.process();
        let honest = seal(&warm, None, "before").unwrap();
        plant(&lab);
        for ring in [&warm, &lab.process()] {
            ring.invalidate();
            if what == "a root alone" {
                assert_eq!(refused(seal(ring, Some("new scope"), "x"), what), ErrorKind::RecordRejected);
                assert_eq!(refused(crate::common::block_on(ring.rotate_root()), what), ErrorKind::RecordRejected);
            } else {
                assert_eq!(refused(seal(ring, None, "x"), what), ErrorKind::RecordRejected, "{what}");
            }
            assert_eq!(
                refused(crate::common::block_on(ring.rotate_data_key(None)), what),
                ErrorKind::RecordRejected,
                "{what}"
            );
        }
        pinned_only(&lab, what);
        // Once the store is cleaned, the same process works again: what it was shown has left no mark.
        lab.store.state().records.retain(|id, _| id.generation() < 80);
        assert_eq!(reveal(&warm, None, &honest).unwrap().0, "before", "{what}");
        assert_healthy(&warm);
    }
}

/// The record of the pinned root with a wrap of another key that carries the right binding: the KEK unwraps it, the
/// commitment does not fit.
#[test]
fn a_pinned_root_with_another_key_inside_is_refused() {
    let lab = Lab::new();
    let mut parts = root_parts(&lab.kms, root());
    let payload = keyfold::Secret::with(|payload: &mut [u8; 64]| {
        *payload = root().kek_payload(ENVIRONMENT);
        payload[..32].copy_from_slice(&their_root().bytes);
    });
    let context = keyfold::KmsContext::new(ENVIRONMENT, LINEAGE, root().key_id());
    let kms: &dyn keyfold::Kms = &lab.kms;
    parts.wraps[0].bytes =
        crate::common::block_on(kms.wrap(keyfold::WrapRequest::new(&payload, &context))).unwrap().bytes;
    // The MAC under the attacker's key with the identity of the true root.
    let impostor = Key { bytes: their_root().bytes, ..root() };
    let signed = record(&parts);
    lab.store.plant(&edited_and_signed(&signed, CLASS, &signed.as_bytes()[CLASS..=CLASS], &impostor));
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "impostor"), ErrorKind::RecordRejected);
}

/// A child that the true root signed and that unwraps, to another key than the one that it commits to.
// Failures A15, C16
#[test]
fn a_key_that_does_not_fit_its_commitment_is_not_used() {
    let lab = Lab::new();
    let key = data(DATA);
    let keys = root().purpose_keys();
    let (_, child_wrap) = keys.iter().find(|(label, _)| label.ends_with("child-wrap")).unwrap();
    let (nonce, mut body) = ([3; 24], their_data().bytes);
    let aad = [&key.identity_bytes()[..], &key.commitment()].concat();
    let child_wrap = child_wrap.as_slice().try_into().unwrap();
    let backend = keyfold::aead::Backend::default();
    let tag = keyfold::aead::hazmat::xaes256gcm_seal(backend, child_wrap, &nonce, &aad, &mut body).unwrap();
    let mut parts = child_parts(key, root());
    parts.wraps[0].bytes = [&nonce[..], &body, &tag].concat();
    lab.store.plant(&record(&parts));
    let sealed = sealed_under(&key, &[1; 24], "x");
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "another key inside"), ErrorKind::RecordRejected);
    assert_eq!(refused(seal(&lab.process(), None, "x"), "another key inside"), ErrorKind::RecordRejected);
}

// Edited records

#[test]
fn no_flipped_bit_of_a_data_record_is_believed() {
    let lab = Lab::new();
    let original = lab.store.find(data(DATA).key_id());
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    let (mut presented, bits) = (0, original.as_bytes().len() * 8);
    for bit in 0..bits {
        let mut bytes = original.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(flipped) = Record::parse(&bytes) else { continue };
        presented += 1;
        lab.store.plant_as(original.key_id(), &flipped);
        lab.store.state().generation = 50;
        let ring = lab.elsewhere();
        let what = format!("byte {}, bit {}", bit / 8, bit % 8);
        assert_eq!(refused(reveal(&ring, None, &sealed), &what), ErrorKind::RecordRejected, "{what}");
        assert!(block_on_list(&ring).iter().any(|(_, verified)| verified.is_err()), "{what}");
        lab.store.plant_as(original.key_id(), &original);
    }
    assert!(presented > bits / 2, "most edits parse: {presented} of {bits}");
    assert_healthy(&lab.elsewhere());
}

#[test]
fn no_flipped_bit_of_a_root_record_is_believed() {
    let lab = Lab::new();
    let original = lab.store.find(root().key_id());
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    let wrap_start = ENVIRONMENT_AT + ENVIRONMENT.len() + 1;
    for bit in 0..original.as_bytes().len() * 8 {
        let mut bytes = original.as_bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(flipped) = Record::parse(&bytes) else { continue };
        lab.store.plant_as(original.key_id(), &flipped);
        let (byte, what) = (bit / 8, format!("byte {}, bit {}", bit / 8, bit % 8));
        let kind = refused(reveal(&lab.elsewhere(), None, &sealed), &what);
        let allowed = match byte {
            // A state that does not open is refused before the MAC can be checked: that needs the key.
            STATE => matches!(kind, ErrorKind::KeyState | ErrorKind::RecordRejected),
            // Another alias is not configured, another wrap does not unwrap.
            _ if byte >= wrap_start => matches!(
                kind,
                ErrorKind::Configuration | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext) | ErrorKind::RecordRejected
            ),
            // Whoever edits the identity edits what the KEK and the payload are bound to.
            _ => matches!(kind, ErrorKind::RecordRejected | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext)),
        };
        assert!(allowed, "{what}: {kind:?}");
        lab.store.plant_as(original.key_id(), &original);
    }
    assert_healthy(&lab.elsewhere());
}

#[test]
fn edited_parts_are_refused() {
    let scope_parts = |lab: &Lab| record(&lab.add_scope("clinic-a", 20));
    let lab = Lab::new();
    let clinic = scope_parts(&lab);
    let other_scope = record(&lab.add_scope("clinic-b", 21));
    let wrong: Vec<(&str, Record)> = vec![
        ("state", edited(&clinic, STATE, &[KeyState::Deactivated.id()])),
        ("scope tag", edited(&clinic, SCOPE_TAG, &scope_tag("clinic-b"))),
        ("scope ID", edited(&clinic, SLOT, scope_id("clinic-b").as_bytes())),
        ("lineage", edited(&clinic, LINEAGE_AT, &[9; 16])),
        ("sequence", edited(&clinic, SEQUENCE, &99_u64.to_be_bytes())),
        ("environment", edited(&clinic, ENVIRONMENT_AT, b"prod")),
        ("class", edited(&clinic, CLASS, &[KeyClass::Lookup.id()])),
        ("the whole record of another scope", other_scope.clone()),
        ("wraps of another record", {
            let parts = RecordParts { wraps: lab.add_scope("clinic-b", 21).wraps, ..lab.add_scope("clinic-a", 20) };
            edited(
                &record(&parts),
                parts.to_bytes().len() - MAC_LEN,
                &clinic.as_bytes()[clinic.as_bytes().len() - MAC_LEN..],
            )
        }),
        // Signed by the true root, which an attacker cannot do; each check must hold on its own.
        ("wraps of another record, signed", {
            record(&RecordParts { wraps: lab.add_scope("clinic-b", 21).wraps, ..lab.add_scope("clinic-a", 20) })
        }),
        ("no wrap of a known kind, signed", {
            let unknown = WrapParts { kind: 9, ..wrap_by_kek(&lab.kms, &root(), ENVIRONMENT, ALIAS) };
            record(&RecordParts { wraps: vec![unknown], ..lab.add_scope("clinic-a", 20) })
        }),
        ("another environment, signed", record(&RecordParts { environment: "prod", ..lab.add_scope("clinic-a", 20) })),
        ("another lineage, signed", {
            let parts = lab.add_scope("clinic-a", 20);
            edited_and_signed(&record(&parts), LINEAGE_AT, &[9; 16], &root())
        }),
        ("another commitment, signed", {
            let mut other = *data(DATA).key_id().as_bytes();
            other[..4].copy_from_slice(&20_u32.to_be_bytes());
            let bytes = [&other[..], &data(DATA).commitment()].concat();
            edited_and_signed(&clinic, KEY_ID, &bytes, &root())
        }),
    ];
    lab.store.plant(&clinic);
    lab.store.plant(&other_scope);
    let sealed = seal(&lab.process(), Some("clinic-a"), "a value").unwrap();
    assert_eq!(key_id_of(&sealed), clinic.key_id());
    for (what, record) in wrong {
        lab.store.plant_as(clinic.key_id(), &record);
        let kind = refused(reveal(&lab.elsewhere(), Some("clinic-a"), &sealed), what);
        // A record that is not of the slot is not found in it: the scope that the tag names has no key.
        let moved = matches!(what, "scope ID" | "class" | "lineage" | "another lineage, signed")
            || what.starts_with("the whole");
        assert!(kind == ErrorKind::RecordRejected || moved && kind == ErrorKind::Store, "{what}: {kind:?}");
        let kind = refused(seal(&lab.elsewhere(), Some("clinic-a"), "x"), what);
        let renamed = what == "another commitment, signed" && kind == ErrorKind::NoMatchingKey;
        assert!(
            kind == ErrorKind::RecordRejected || renamed || moved && kind == ErrorKind::Store,
            "sealing, {what}: {kind:?}"
        );
        lab.store.plant_as(clinic.key_id(), &clinic);
        pinned_only(&lab, what);
    }
    assert!(reveal(&lab.process(), Some("clinic-a"), &sealed).is_ok());
}

#[test]
fn a_retired_key_is_not_made_to_seal_again() {
    let lab = Lab::new();
    let old = lab.store.find(data(OLD_DATA).key_id());
    let current = lab.store.find(data(DATA).key_id());
    let reactivated = edited(&old, STATE, &[KeyState::Active.id()]);
    // The edit alone, and with the key that seals out of the way in each possible manner.
    lab.store.plant(&reactivated);
    lab.store.state().hidden.insert(current.key_id());
    assert_eq!(refused(seal(&lab.elsewhere(), None, "x"), "reactivated"), ErrorKind::RecordRejected);
    lab.store.plant(&old);
    lab.store.state().hidden.clear();
    // The key that seals, edited into one that does not: the honest older one must not step in, nor a new one.
    for state in [KeyState::PreActive, KeyState::Deactivated, KeyState::Compromised, KeyState::DestroyPending] {
        lab.store.plant(&edited(&current, STATE, &[state.id()]));
        let generation = lab.store.state().generation;
        assert_eq!(
            refused(seal(&lab.elsewhere(), None, "x"), state.name()),
            ErrorKind::RecordRejected,
            "{}",
            state.name()
        );
        assert_eq!(lab.store.state().generation, generation, "no key was made");
    }
}

#[test]
fn a_retired_root_is_not_made_to_wrap_again() {
    let lab = Lab::new();
    let ring = lab.process();
    crate::common::block_on(ring.rotate_root()).unwrap();
    let new_root = lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE))[0].clone();
    let old = lab.store.find(root().key_id());
    assert_eq!(old.state(), KeyState::Deactivated);
    // The old root looks active in lists, though not when it is fetched; the new root is not shown.
    let lie = vec![edited(&old, STATE, &[KeyState::Active.id()])];
    lab.store.state().newest.insert(slot(KeyClass::Root, SlotId::NONE), lie);
    for ring in [ring, lab.process(), lab.elsewhere()] {
        let before = lab.store.all().len();
        assert_eq!(refused(seal(&ring, Some("fresh"), "x"), "retired root"), ErrorKind::RecordRejected);
        assert_eq!(lab.store.all().len(), before, "no key was made under the retired root");
    }
    lab.store.state().newest.clear();
    let made = lab.process();
    seal(&made, Some("fresh"), "x").unwrap();
    let newest = lab.store.all().into_iter().max_by_key(Record::key_id).unwrap();
    assert_eq!(newest.authenticator(), new_root.key_id());
}

// Failure C9
#[test]
fn a_record_under_the_id_of_another_is_refused() {
    let lab = Lab::new();
    let (a, b) = (lab.store.find(data(DATA).key_id()), lab.store.find(data(OLD_DATA).key_id()));
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    lab.store.plant_as(a.key_id(), &b);
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "B under A's ID"), ErrorKind::RecordRejected);
    // Where the store shows it under that ID only when it is fetched.
    lab.store.state().hidden.insert(a.key_id());
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "B fetched for A"), ErrorKind::RecordRejected);
    // A root served for another root.
    let lab = Lab::new();
    lab.store.plant_as(root().key_id(), &record(&root_parts(&lab.kms, their_root())));
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "another root"), ErrorKind::RecordRejected);
    pinned_only(&lab, "another root");
}

#[test]
fn the_word_of_the_store_for_a_scope_does_not_count() {
    let lab = Lab::new();
    let b = lab.add_scope("clinic-b", 21);
    lab.add_scope("clinic-a", 20);
    let sealed = seal(&lab.process(), Some("clinic-b"), "of b").unwrap();
    let name_a = scope_tag("clinic-a");
    lab.store.state().scopes.insert(name_a, b.key.slot);
    let ring = lab.process();
    assert_eq!(refused(reveal(&ring, Some("clinic-a"), &sealed), "a is b"), ErrorKind::RecordRejected);
    assert_eq!(refused(seal(&ring, Some("clinic-a"), "x"), "a is b"), ErrorKind::RecordRejected);
    // Nor that a scope is the keyring itself, or one that is empty.
    let keyrings_own = sealed_under(&data(DATA), &[1; 24], "x");
    lab.store.state().scopes.insert(name_a, SlotId::NONE);
    assert_eq!(refused(reveal(&ring, Some("clinic-a"), &keyrings_own), "no scope"), ErrorKind::RecordRejected);
    lab.store.state().scopes.insert(name_a, SlotId::from_bytes([9; 16]));
    assert_eq!(refused(reveal(&ring, Some("clinic-a"), &sealed), "empty scope"), ErrorKind::Store);
    lab.store.state().scopes.insert(name_a, scope_id("clinic-a"));
    assert_eq!(refused(reveal(&ring, Some("clinic-a"), &sealed), "value of b"), ErrorKind::WrongScope);
}

#[test]
fn records_of_another_slot_or_out_of_order_are_refused() {
    let lab = Lab::new();
    let own = slot(KeyClass::Data, SlotId::NONE);
    let clinic = record(&lab.add_scope("clinic-a", 20));
    lab.store.state().newest.insert(own, vec![clinic]);
    assert_eq!(refused(seal(&lab.process(), None, "x"), "foreign slot"), ErrorKind::RecordRejected);
    let (old, new) = (lab.store.find(data(OLD_DATA).key_id()), lab.store.find(data(DATA).key_id()));
    for lie in [vec![old, new.clone()], vec![new.clone(), new]] {
        lab.store.state().newest.insert(own, lie);
        assert_eq!(refused(seal(&lab.process(), None, "x"), "order"), ErrorKind::RecordRejected);
    }
}

// Replayed and hidden records

/// Covers F-7.6-9.
// Failure N16
#[test]
fn a_store_put_back_to_before_a_rotation_is_noticed() {
    let lab = Lab::new();
    let ring = lab.process();
    let sealed = seal(&ring, None, "before").unwrap();
    let before = lab.store.snapshot();
    let rotated = crate::common::block_on(ring.rotate_data_key(None)).unwrap();
    let newer = seal(&ring, None, "after").unwrap();
    assert_eq!(key_id_of(&newer), rotated.new.key_id());
    let after = lab.store.snapshot();
    lab.store.restore(&before);
    // The same process, and another one on the same machine.
    for ring in [&ring, &lab.process()] {
        ring.invalidate();
        assert_eq!(refused(seal(ring, None, "x"), "replay"), ErrorKind::RecordRejected);
        assert_eq!(refused(crate::common::block_on(ring.rotate_data_key(None)), "replay"), ErrorKind::RecordRejected);
    }
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "replay"), ErrorKind::RecordRejected);
    lab.store.restore(&after);
    assert_eq!(reveal(&ring, None, &sealed).unwrap(), ("before".to_owned(), false));
    assert_eq!(reveal(&lab.process(), None, &newer).unwrap(), ("after".to_owned(), true));
}

/// As above, for a process that has not sealed since the rotation and whose key is in memory.
#[test]
fn a_process_that_rotated_but_never_sealed_notices_too() {
    for warm in [false, true] {
        let lab = Lab::new();
        let ring = lab.process();
        if warm {
            seal(&ring, None, "in memory").unwrap();
        }
        let before = lab.store.snapshot();
        crate::common::block_on(ring.rotate_data_key(None)).unwrap();
        lab.store.restore(&before);
        assert_eq!(refused(seal(&ring, None, "x"), "replay"), ErrorKind::RecordRejected, "warm: {warm}");
    }
}

/// A process has seen a key retired. The store then shows the older record in lists, the newer one when it is fetched.
#[test]
fn a_key_that_was_seen_retired_does_not_seal_again() {
    let lab = Lab::new();
    let own = slot(KeyClass::Data, SlotId::NONE);
    let active = lab.store.find(data(DATA).key_id());
    let retired = record(&in_state(child_parts(data(DATA), root()), KeyState::Deactivated));
    let newer = record(&child_parts(data(30), root()));
    lab.store.plant(&retired);
    lab.store.plant(&newer);
    let ring = lab.elsewhere();
    // Sees the retired record, by opening a value under it in another field than the one that will be sealed.
    assert!(reveal(&ring, None, &sealed_under(&data(DATA), &[1; 24], "x")).is_ok());
    lab.store.state().newest.insert(own, vec![active]);
    assert_eq!(refused(seal(&ring, None, "x"), "older record in lists"), ErrorKind::RecordRejected);
    // One that has only listed the keys has seen it too.
    lab.store.state().newest.clear();
    let lister = lab.elsewhere();
    block_on_list(&lister);
    lab.store.state().newest.insert(own, vec![lab_record_active()]);
    assert_eq!(refused(seal(&lister, None, "x"), "after a list"), ErrorKind::RecordRejected);
}

fn lab_record_active() -> Record {
    record(&child_parts(data(DATA), root()))
}

#[test]
fn a_store_that_hides_the_newest_generation_is_noticed() {
    let lab = Lab::new();
    let ring = lab.process();
    let new = crate::common::block_on(ring.rotate_data_key(None)).unwrap().new;
    seal(&ring, None, "x").unwrap();
    lab.store.state().hidden.insert(new.key_id());
    ring.invalidate();
    assert_eq!(refused(seal(&ring, None, "x"), "hidden"), ErrorKind::RecordRejected);
    // Another process cannot know, but finds no key that seals; none is made behind the hidden one.
    let kind = refused(seal(&lab.process(), None, "x"), "hidden");
    assert_eq!(kind, ErrorKind::KeyState);
    lab.store.state().hidden.clear();
    seal(&ring, None, "x").unwrap();
}

/// Covers F-7.6-9.
#[test]
fn a_destroyed_key_does_not_come_back_on_a_machine_that_knows() {
    let lab = Lab::new();
    let pending = in_state(child_parts(data(OLD_DATA), root()), KeyState::DestroyPending);
    let tombstone = in_state(pending.clone(), KeyState::Destroyed);
    let sealed = sealed_under(&data(OLD_DATA), &[1; 24], "shredded");
    let alive = lab.store.find(data(OLD_DATA).key_id());
    lab.store.plant(&record(&tombstone));
    let ring = lab.process();
    assert_eq!(refused(reveal(&ring, None, &sealed), "destroyed"), ErrorKind::KeyState);
    lab.store.plant(&alive);
    assert_eq!(refused(reveal(&ring, None, &sealed), "come back"), ErrorKind::RecordRejected);
    // Nor with a higher sequence, should somebody get a root to sign that.
    let risen = RecordParts { sequence: 99, ..child_parts(data(OLD_DATA), root()) };
    lab.store.plant(&record(&risen));
    assert_eq!(refused(reveal(&ring, None, &sealed), "risen"), ErrorKind::RecordRejected);
    // Stated residual risk: a machine that has seen nothing cannot tell (DESIGN K4).
    lab.store.plant(&alive);
    assert!(reveal(&lab.elsewhere(), None, &sealed).is_ok());
}

/// As above, for a store that shows the older record only where the key is fetched by its ID.
/// Covers F-7.6-9.
#[test]
fn an_older_record_is_noticed_where_it_is_fetched() {
    let lab = Lab::new();
    let alive = lab.store.find(data(OLD_DATA).key_id());
    let pending = in_state(child_parts(data(OLD_DATA), root()), KeyState::DestroyPending);
    let sealed = sealed_under(&data(OLD_DATA), &[1; 24], "x");
    lab.store.state().hidden.insert(data(OLD_DATA).key_id());
    lab.store.plant(&record(&in_state(pending, KeyState::Destroyed)));
    let ring = lab.process();
    assert_eq!(refused(reveal(&ring, None, &sealed), "destroyed"), ErrorKind::KeyState);
    lab.store.plant(&alive);
    assert_eq!(refused(reveal(&ring, None, &sealed), "come back"), ErrorKind::RecordRejected);
}

#[test]
fn an_edited_record_with_the_same_sequence_is_refused() {
    let lab = Lab::new();
    let ring = lab.elsewhere();
    block_on_list(&ring);
    // Signed by the true root: two records of one sequence are a contradiction, whoever signed them.
    let parts = RecordParts { state: KeyState::Deactivated, ..child_parts(data(DATA), root()) };
    lab.store.plant(&record(&parts));
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    assert_eq!(refused(reveal(&ring, None, &sealed), "same sequence"), ErrorKind::RecordRejected);
}

// Generations

/// Covers F-2.1-2.
// Failure C9
#[test]
fn no_generation_is_given_twice() {
    let lab = Lab::new();
    let ring = lab.process();
    let before = lab.store.snapshot();
    let first = crate::common::block_on(ring.rotate_data_key(None)).unwrap().new.key_id().generation();
    // The store is put back: its counter forgets the number, the marks of this machine do not.
    lab.store.restore(&before);
    for ring in [&ring, &lab.process()] {
        let _ = seal(ring, Some("another scope"), "x");
        let newest = lab.store.all().iter().map(|record| record.key_id().generation()).max().unwrap();
        assert!(newest > first || newest == before.generation, "generation {newest} after {first}");
    }
    // A store that does not care about the numbers that were seen is refused.
    lab.store.restore(&before);
    lab.store.state().ignores_above = true;
    let kind = refused(seal(&lab.process(), Some("yet another"), "x"), "a number that was used");
    assert_eq!(kind, ErrorKind::Store);
    assert_eq!(lab.store.all().len(), before.records.len(), "no key was made");
}

/// A process that has only seen a generation does not let it be used again, whatever the machine remembers.
#[test]
fn a_generation_that_was_seen_is_not_given_again() {
    let lab = Lab::new();
    lab.store.plant(&record(&child_parts(data(40), root())));
    let ring = lab.elsewhere();
    assert!(reveal(&ring, None, &sealed_under(&data(40), &[1; 24], "x")).is_ok());
    lab.store.state().records.remove(&data(40).key_id());
    lab.store.state().generation = 10;
    seal(&ring, Some("a new scope"), "x").unwrap();
    let newest = lab.store.all().iter().map(|record| record.key_id().generation()).max().unwrap();
    assert!(newest > 40, "generation {newest} was given although 40 was seen");
}

// Trust

/// Covers F-8.1-1.
#[test]
fn without_a_pin_or_a_kek_nothing_opens() {
    let lab = Lab::new();
    let unpinned = lab.pinning(&[]);
    let marks = std::sync::Arc::new(lab.marks.clone());
    let store = std::sync::Arc::new(lab.store.clone());
    let result = Keyring::open(unpinned, store.clone(), lab.keks(), marks.clone());
    assert_eq!(refused(result, "no pin"), ErrorKind::Configuration);
    let result = Keyring::open(lab.config.clone(), store, Default::default(), marks);
    assert_eq!(refused(result, "no KEK"), ErrorKind::Configuration);
    let ring = lab.process_with(lab.pinning(&[[7; 32]]));
    assert_eq!(refused(seal(&ring, None, "x"), "another pin"), ErrorKind::RecordRejected);
    // A pin is compared in full, not by the 20 bytes that a key ID shows.
    let mut almost = root().commitment();
    almost[31] ^= 1;
    let ring = lab.process_with(lab.pinning(&[almost]));
    assert_eq!(refused(seal(&ring, None, "x"), "almost the pin"), ErrorKind::RecordRejected);
    assert_eq!(lab.kms.unwrap_count(), 0);
}

#[test]
fn a_keyring_of_another_lineage_or_environment_opens_nothing() {
    let lab = Lab::new();
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    for config in [
        KeyringConfig { lineage: Lineage::from_bytes([9; 16]), ..lab.config.clone() },
        KeyringConfig { environment: "prod".to_owned(), ..lab.config.clone() },
    ] {
        let ring = lab.process_with(config);
        assert_eq!(refused(reveal(&ring, None, &sealed), "foreign"), ErrorKind::RecordRejected);
        assert_eq!(refused(seal(&ring, Some("s"), "x"), "foreign"), ErrorKind::RecordRejected);
        assert!(block_on_list(&ring).iter().all(|(_, verified)| verified.is_err()));
    }
    assert_eq!(lab.kms.unwrap_count(), 0);
}

/// A pin on something that is not a root does not make it one.
#[test]
fn a_pinned_data_key_vouches_for_nothing() {
    let lab = Lab::new();
    let (pinned, child) = (data(71), data(72));
    let wraps = vec![wrap_by_kek(&lab.kms, &pinned, ENVIRONMENT, ALIAS)];
    lab.store.plant(&record(&RecordParts { wraps, ..child_parts(pinned, pinned) }));
    lab.store.plant(&record(&child_parts(child, pinned)));
    lab.store.state().hidden.extend([pinned.key_id(), child.key_id()]);
    let ring = lab.process_with(lab.pinning(&[root().commitment(), pinned.commitment()]));
    let sealed = sealed_under(&child, &[1; 24], "x");
    assert_eq!(refused(reveal(&ring, None, &sealed), "pinned data key"), ErrorKind::RecordRejected);
    pinned_only(&lab, "pinned data key");
}

/// Everything agrees but the environment of the root itself, which the true root has signed.
/// Covers F-7.6-1, F-7.6-3.
#[test]
fn a_root_of_another_environment_is_not_asked_for() {
    let lab = Lab::new();
    let wraps = vec![wrap_by_kek(&lab.kms, &root(), "prod", ALIAS)];
    lab.store.plant(&record(&RecordParts { environment: "prod", wraps, ..root_parts(&lab.kms, root()) }));
    let sealed = sealed_under(&data(DATA), &[1; 24], "x");
    assert_eq!(refused(reveal(&lab.process(), None, &sealed), "root of prod"), ErrorKind::RecordRejected);
    assert_eq!(lab.kms.unwrap_count(), 0);
}

/// Chains of endorsements: `length` roots, each endorsed by the one before, the first one pinned.
fn chain(lab: &Lab, length: u32) -> Vec<Key> {
    let mut roots = vec![root()];
    for generation in 100..100 + length {
        let next = ours(KeyClass::Root, SlotId::NONE, generation);
        let parts = RecordParts { endorser: roots.last().copied(), ..root_parts(&lab.kms, next) };
        lab.store.plant(&record(&parts));
        roots.push(next);
    }
    roots
}

/// Covers F-7.6-2.
#[test]
fn roots_are_trusted_along_a_chain_of_bounded_length() {
    for (length, trusted) in [(1, true), (3, true), (16, true), (17, false), (40, false)] {
        let lab = Lab::new();
        let roots = chain(&lab, length);
        let last = *roots.last().unwrap();
        let key = data(70);
        lab.store.plant(&record(&child_parts(key, last)));
        // Opened by its ID alone, so that nothing else is in memory.
        lab.store.state().hidden.insert(key.key_id());
        let ring = lab.elsewhere();
        let result = block_on_list_one(&ring, key.key_id());
        assert_eq!(result.is_ok(), trusted, "{length} endorsements: {result:?}");
        if trusted {
            assert_eq!(lab.kms.unwrap_count(), u64::from(length) + 1, "one call per step");
        } else {
            assert_eq!(lab.kms.unwrap_count(), 0, "no call for a chain that does not end in a pin");
        }
    }
}

fn block_on_list_one(ring: &Keyring, key_id: keyfold::wire::KeyId) -> Result<()> {
    let mut after = *key_id.as_bytes();
    after[23] = after[23].wrapping_sub(1);
    let after = keyfold::wire::KeyId::from_bytes(after);
    crate::common::block_on(ring.list(Some(after), 1)).unwrap().remove(0).verified
}

#[test]
fn a_pin_in_the_middle_of_a_chain_is_where_trust_starts() {
    let lab = Lab::new();
    let roots = chain(&lab, 3);
    lab.store.plant(&record(&child_parts(data(70), roots[3])));
    let middle = lab.process_with(lab.pinning(&[roots[2].commitment()]));
    assert!(reveal(&middle, None, &sealed_under(&data(70), &[1; 24], "x")).is_ok());
    assert_eq!(lab.kms.unwrap_count(), 2, "the pinned root and the one that it endorsed");
    // Trust does not flow backwards.
    let old = sealed_under(&data(OLD_DATA), &[1; 24], "x");
    assert_eq!(refused(reveal(&middle, None, &old), "under an earlier root"), ErrorKind::RecordRejected);
    let all = lab.process_with(lab.pinning(&[roots[0].commitment(), roots[3].commitment()]));
    assert!(reveal(&all, None, &old).is_ok());
    lab.assert_only_asked_for(&roots, "chain");
}

#[test]
fn an_endorsement_is_for_one_root() {
    let lab = Lab::new();
    let roots = chain(&lab, 1);
    let genuine = record(&RecordParts { endorser: Some(root()), ..root_parts(&lab.kms, roots[1]) });
    // The attacker copies the endorsement of an honest root onto his own record.
    let endorsement = {
        let bytes = genuine.as_bytes();
        let at = find(bytes, root().key_id().as_bytes(), 200);
        bytes[at..at + 24 + 32].to_vec()
    };
    let parts = RecordParts { endorser: Some(their_root()), ..root_parts(&lab.kms, their_root()) };
    let signed = record(&parts);
    let at = find(signed.as_bytes(), their_root().key_id().as_bytes(), 200);
    lab.store.plant(&edited_and_signed(&signed, at, &endorsement, &their_root()));
    lab.store.plant(&record(&child_parts(their_data(), their_root())));
    lab.store.state().hidden.extend([their_root().key_id(), their_data().key_id()]);
    let sealed = sealed_under(&their_data(), &[7; 24], "planted");
    let decryptor = decryptor(&lab.process(), "plain", None).unwrap();
    assert_eq!(refused(open(&decryptor, &sealed, None), "copied endorsement"), ErrorKind::RecordRejected);
    lab.assert_only_asked_for(&[root()], "copied endorsement");
}
