//! Devices with a key of their own: what a bundle holds, what rotation, revocation and shredding do to it, and who is told.

use crate::common::lab::*;
use crate::common::{FaultyMarks, block_on, refused};
use keyfold::aead::Backend;
use keyfold::device::{Binding, Bundle, DeviceKey, PassphraseCost, Protection};
use keyfold::testing::FakeKms;
use keyfold::{
    AuditAction, AuditEvent, AuditSink, Error, ErrorKind, KeyState, Keyring, KeyringConfig, Provisioned, Record,
    Result, RotationPolicy, Secret, SlotId, Value,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SCOPE: &str = "device-88";
const BINDING: Binding<'_> = Binding { field: "plain", pairs: &[] };
const DAY: u64 = 24 * 3600;

fn transport_key() -> Secret<32> {
    Secret::with(|key: &mut [u8; 32]| key.fill(0x7C))
}

fn provision(ring: &Keyring, scope: &str) -> Result<Provisioned> {
    block_on(ring.provision_device(scope, &transport_key(), Protection::TransportKey))
}

fn rotate(ring: &Keyring, scope: &str) -> Result<Provisioned> {
    block_on(ring.rotate_device(scope, &transport_key(), Protection::TransportKey))
}

fn device(provisioned: &Provisioned) -> DeviceKey {
    let key = Bundle::parse(&provisioned.bundle).unwrap().open(Backend::RustCrypto, &transport_key()).unwrap();
    assert_eq!(key.key_id(), provisioned.key.key_id());
    key
}

fn seal_on(device: &DeviceKey, text: &str) -> Vec<u8> {
    let mut out = [0; 256];
    let random = |nonce: &mut [u8; 24]| {
        getrandom::fill(nonce).unwrap();
        Ok(())
    };
    device.seal(Value::Text(text), BINDING, &mut out, random).unwrap().to_vec()
}

fn open_on(device: &DeviceKey, sealed: &[u8]) -> Result<String> {
    let mut scratch = [0; 256];
    match device.open(sealed, BINDING, &mut scratch)? {
        Value::Text(text) => Ok(text.to_owned()),
        _ => panic!("another type came back"),
    }
}

fn states(lab: &Lab, slot: SlotId) -> Vec<KeyState> {
    lab.store.of_slot(slot_of(slot)).iter().map(Record::state).collect()
}

fn slot_of(id: SlotId) -> keyfold::Slot {
    slot(keyfold::KeyClass::Data, id)
}

#[test]
fn device_and_backend_open_what_the_other_seals() {
    let lab = Lab::new();
    let ring = lab.process();
    let provisioned = provision(&ring, SCOPE).unwrap();
    let device = device(&provisioned);
    let sealed = seal_on(&device, "from the device");
    assert_eq!(reveal(&lab.process(), Some(SCOPE), &sealed).unwrap(), ("from the device".to_owned(), true));
    assert_eq!(refused(reveal(&ring, None, &sealed), "the keyring's own"), ErrorKind::WrongScope);
    assert_eq!(refused(reveal(&ring, Some("device-89"), &sealed), "another's"), ErrorKind::NoMatchingKey);
    assert_eq!(open_on(&device, &seal(&ring, Some(SCOPE), "settings").unwrap()).unwrap(), "settings");
    // Nothing else of the keyring opens on it.
    for sealed in [seal(&ring, None, "x").unwrap(), seal(&ring, Some("device-89"), "x").unwrap()] {
        assert_eq!(open_on(&device, &sealed).unwrap_err().kind(), ErrorKind::NoMatchingKey);
    }
}

#[test]
fn a_bundle_says_what_it_holds_and_another_one_has_another_device_id() {
    let lab = Lab::new();
    let ring = lab.process();
    let passphrase = Protection::Passphrase(PassphraseCost { salt: [9; 16], memory: 65_536, passes: 3, lanes: 4 });
    let first = provision(&ring, SCOPE).unwrap();
    let second = block_on(ring.provision_device(SCOPE, &transport_key(), passphrase)).unwrap();
    assert_eq!(first.key, second.key, "it makes no new generation");
    let [first, second] = [&first.bundle, &second.bundle].map(|bundle| Bundle::parse(bundle).unwrap());
    assert_eq!((first.protection(), second.protection()), (Protection::TransportKey, passphrase));
    assert_ne!(first.device_id(), second.device_id());
    assert_eq!((first.lineage(), first.issued() / 1_000_000), (LINEAGE, TIME));
    let record = lab.store.find(first.key_id());
    assert_eq!((record.slot_id(), record.scope_tag()), (first.scope(), Some(scope_tag(SCOPE))));
    let free = Protection::Passphrase(PassphraseCost { salt: [9; 16], memory: 8, passes: 1, lanes: 1 });
    let cheap = block_on(ring.provision_device(SCOPE, &transport_key(), free));
    assert_eq!(refused(cheap, "costs nothing to guess"), ErrorKind::LimitExceeded);
    for name in ["", &"n".repeat(1025)] {
        assert_eq!(refused(provision(&ring, name), "the default scope, or no name"), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_device_that_was_offline_for_a_year_is_still_decoded() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy {
        data_age: Some(Duration::from_secs(90 * DAY)),
        lead: Duration::from_secs(DAY),
        ..RotationPolicy::default()
    };
    let offline = device(&provision(&lab.process(), SCOPE).unwrap());
    let mut sealed = vec![seal_on(&offline, "day 0")];
    for day in 1..=365 {
        lab.store.state().now = Some(TIME + day * DAY);
        // The backend goes on, and rotates.
        seal(&lab.process(), Some(SCOPE), "settings").unwrap();
        sealed.push(seal_on(&offline, &format!("day {day}")));
    }
    let slot = lab.store.find(offline.key_id()).slot_id();
    assert_eq!(states(&lab, slot).len(), 5, "a new generation every 90 days, and one day to publish it");
    let ring = lab.process();
    for (day, sealed) in sealed.iter().enumerate() {
        assert_eq!(reveal(&ring, Some(SCOPE), sealed).unwrap(), (format!("day {day}"), false));
    }
    let before = key_id_of(&seal(&ring, Some(SCOPE), "settings").unwrap());
    let renewed = device(&rotate(&ring, SCOPE).unwrap());
    assert!(renewed.key_id().generation() > before.generation());
    assert!(reveal(&ring, Some(SCOPE), &seal_on(&renewed, "x")).unwrap().1, "it is the current key, whatever the lead");
    assert_eq!(reveal(&ring, Some(SCOPE), &sealed[0]).unwrap().0, "day 0");
    assert_eq!(open_on(&renewed, &sealed[0]).unwrap_err().kind(), ErrorKind::NoMatchingKey);
}

#[test]
fn rotation_needs_a_scope_and_makes_one_new_generation() {
    let lab = Lab::new();
    let ring = lab.process();
    assert_eq!(refused(rotate(&ring, SCOPE), "there is none"), ErrorKind::NoMatchingKey);
    let first = provision(&ring, SCOPE).unwrap();
    let second = rotate(&ring, SCOPE).unwrap();
    assert_eq!(states(&lab, first.key.slot_id()), [KeyState::Active, KeyState::Deactivated]);
    assert_ne!(first.key.key_id(), second.key.key_id());
    assert_eq!(provision(&ring, SCOPE).unwrap().key.key_id(), second.key.key_id());
}

#[test]
fn what_an_isolated_scope_seals_with_is_exported_by_its_own_kek() {
    let mut lab = Lab::new();
    let tenant = FakeKms::new();
    lab.config.scope_keks = BTreeSet::from([alias("tenant")]);
    lab.config.isolated = BTreeMap::from([(SCOPE.to_owned(), vec![alias("tenant")])]);
    let mut keks = lab.keks();
    keks.insert(alias("tenant"), Arc::new(tenant.clone()));
    let marks = Arc::new(FaultyMarks::default());
    let ring = Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), keks, marks).unwrap();
    let provisioned = provision(&ring, SCOPE).unwrap();
    assert!(provisioned.key.is_isolated());
    let asked = tenant.unwrap_count();
    let sealed = seal_on(&device(&provision(&ring, SCOPE).unwrap()), "x");
    assert_eq!(tenant.unwrap_count(), asked + 1, "each export shows in the provider's log");
    assert_eq!(reveal(&ring, Some(SCOPE), &sealed).unwrap().0, "x");
}

#[test]
fn what_a_revoked_device_seals_opens_no_more_and_the_backend_goes_on() {
    let lab = Lab::new();
    let ring = lab.process();
    let old = device(&provision(&ring, SCOPE).unwrap());
    let stolen = device(&rotate(&ring, SCOPE).unwrap());
    let sealed = [seal_on(&old, "old"), seal_on(&stolen, "new")];
    let other = seal(&ring, Some("device-89"), "kept").unwrap();
    let revoked = block_on(ring.revoke_device(SCOPE, None)).unwrap();
    assert_eq!(revoked.keys, [stolen.key_id(), old.key_id()]);
    assert_eq!(states(&lab, revoked.slot), [KeyState::Active, KeyState::Compromised, KeyState::Compromised]);
    for ring in [&ring, &lab.process(), &lab.elsewhere()] {
        for sealed in &sealed {
            assert_eq!(refused(reveal(ring, Some(SCOPE), sealed), "revoked"), ErrorKind::KeyState);
        }
        let fresh = seal(ring, Some(SCOPE), "fresh").unwrap();
        assert_eq!(Some(key_id_of(&fresh)), revoked.seals);
        assert_eq!(open_on(&stolen, &fresh).unwrap_err().kind(), ErrorKind::NoMatchingKey);
        assert_eq!(reveal(ring, Some("device-89"), &other).unwrap().0, "kept");
    }
    // To seal again what was sealed before.
    let rescue = lab.process_with(KeyringConfig { open_compromised: true, ..lab.config.clone() });
    assert_eq!(reveal(&rescue, Some(SCOPE), &sealed[1]).unwrap().0, "new");
    // Another device takes its place, and is revoked in turn.
    let replacement = device(&provision(&ring, SCOPE).unwrap());
    assert_eq!(Some(replacement.key_id()), revoked.seals);
    let again = block_on(ring.revoke_device(SCOPE, None)).unwrap();
    assert_eq!(
        (again.keys.len(), again.already),
        (3, revoked.keys),
        "those of before, and the one that took their place"
    );
    assert_eq!(refused(reveal(&ring, Some(SCOPE), &seal_on(&replacement, "x")), "revoked"), ErrorKind::KeyState);
    assert_eq!(refused(block_on(ring.revoke_device("no such", None)), "no scope"), ErrorKind::NoMatchingKey);
}

#[test]
fn a_key_that_waits_to_seal_is_revoked_with_the_others() {
    let mut lab = Lab::new();
    lab.config.rotation = RotationPolicy { lead: Duration::from_secs(DAY), ..RotationPolicy::default() };
    let ring = lab.process();
    let slot = provision(&ring, SCOPE).unwrap().key.slot_id();
    block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
    assert_eq!(states(&lab, slot), [KeyState::PreActive, KeyState::Active]);
    let revoked = block_on(ring.revoke_device(SCOPE, None)).unwrap();
    assert_eq!(states(&lab, slot), [KeyState::Active, KeyState::Compromised, KeyState::Compromised]);
    assert_eq!(provision(&ring, SCOPE).unwrap().key.key_id(), revoked.seals.unwrap());
}

/// Covers F-16-1.
#[test]
fn no_key_leaves_a_scope_that_ends_or_does_not_seal() {
    let lab = Lab::new();
    let ring = lab.process();
    let key = provision(&ring, SCOPE).unwrap().key;
    // The keyring's own key has no name by which it could be asked for.
    assert_eq!(refused(provision(&ring, ""), "no scope"), ErrorKind::InvalidInput);
    block_on(ring.change_state(key.key_id(), KeyState::Deactivated)).unwrap();
    let error = provision(&ring, SCOPE).unwrap_err();
    assert!(error.kind() == ErrorKind::KeyState && error.to_string().contains("keys rotate"), "{error}");
    rotate(&ring, SCOPE).unwrap();
    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    for error in [provision(&ring, SCOPE).unwrap_err(), rotate(&ring, SCOPE).unwrap_err()] {
        assert!(error.kind() == ErrorKind::KeyState && error.to_string().contains("--cancel"), "{error}");
    }
    assert_eq!(refused(block_on(ring.revoke_device(SCOPE, None)), "it ends"), ErrorKind::KeyState);
    block_on(ring.finish_shred(SCOPE, None)).unwrap();
    assert_eq!(refused(provision(&ring, SCOPE), "shredded"), ErrorKind::KeyState);
    assert_eq!(refused(block_on(ring.revoke_device(SCOPE, None)), "shredded"), ErrorKind::KeyState);
    assert_eq!(refused(provision(&lab.elsewhere(), SCOPE), "shredded"), ErrorKind::KeyState);
}

/// Keeps events, and fails at those of one action.
#[derive(Default)]
struct Sink {
    events: Mutex<Vec<AuditEvent>>,
    fails_at: Mutex<Option<AuditAction>>,
}

impl AuditSink for Sink {
    fn record(&self, event: AuditEvent) -> Result<()> {
        if *self.fails_at.lock().unwrap() == Some(event.action) {
            return Err(Error::new(ErrorKind::Io, "full"));
        }
        self.events.lock().unwrap().push(event);
        Ok(())
    }
}

/// Covers F-16-2.
#[test]
fn each_export_and_each_refusal_is_recorded_and_without_that_no_bundle_leaves() {
    let lab = Lab::new();
    let ring = lab.process();
    let sink = Arc::new(Sink::default());
    ring.set_audit(sink.clone()).unwrap();
    let of = |action| -> Vec<AuditEvent> {
        sink.events.lock().unwrap().iter().filter(|event| event.action == action).cloned().collect()
    };
    let made = provision(&ring, SCOPE).unwrap();
    let [event] = &of(AuditAction::Provision)[..] else { panic!("not one event") };
    let (slot, device) = (made.key.slot_id().to_string(), Bundle::parse(&made.bundle).unwrap().device_id());
    let device = data_encoding::HEXLOWER.encode(&device);
    assert_eq!((event.key_id, event.error), (Some(made.key.key_id()), None));
    assert_eq!(event.details, [("slot", slot.clone()), ("device", device)]);

    let revoked = block_on(ring.revoke_device(SCOPE, Some("stolen"))).unwrap();
    let [event] = &of(AuditAction::Revoke)[..] else { panic!("not one event") };
    assert_eq!((event.reason.as_deref(), event.error), (Some("stolen"), None));
    assert_eq!(event.details, [("slot", slot), ("keys", revoked.keys.len().to_string())]);

    block_on(ring.shred_scope(SCOPE, None)).unwrap();
    assert!(provision(&ring, SCOPE).is_err() && block_on(ring.revoke_device(SCOPE, None)).is_err());
    for action in [AuditAction::Provision, AuditAction::Revoke] {
        let last = of(action).pop().unwrap();
        assert_eq!((last.error, last.key_id), (Some(ErrorKind::KeyState), None));
    }
    block_on(ring.cancel_shred(SCOPE, None)).unwrap();
    *sink.fails_at.lock().unwrap() = Some(AuditAction::Provision);
    assert_eq!(refused(provision(&ring, SCOPE), "not recorded"), ErrorKind::Io);
    assert_eq!(refused(rotate(&ring, SCOPE), "not recorded"), ErrorKind::Io);
}

#[test]
fn after_a_failure_at_any_call_it_can_be_repeated() {
    for after in [false, true] {
        for n in 1.. {
            let lab = Lab::new();
            let ring = lab.process();
            lab.faults.fail_nth(n, after);
            let whole = provision(&ring, SCOPE).and_then(|_| rotate(&ring, SCOPE)).and_then(|stolen| {
                block_on(ring.revoke_device(SCOPE, None)).map(|revoked| (device(&stolen), revoked.seals))
            });
            let calls = lab.faults.calls();
            lab.faults.off();
            let ring = lab.process();
            let made = provision(&ring, SCOPE).unwrap();
            let revoked = block_on(ring.revoke_device(SCOPE, None)).unwrap();
            assert!(revoked.keys.contains(&made.key.key_id()), "call {n}");
            let (new, old) = states(&lab, revoked.slot).split_first().map(|(n, old)| (*n, old.to_vec())).unwrap();
            assert_eq!(new, KeyState::Active, "call {n}");
            assert!(old.iter().all(|state| *state == KeyState::Compromised), "call {n}: {old:?}");
            if let Ok((stolen, seals)) = &whole {
                assert_ne!(Some(stolen.key_id()), *seals, "call {n}");
            }
            if n > calls {
                assert!(whole.is_ok() && n > 20, "{n} calls");
                break;
            }
        }
    }
}
