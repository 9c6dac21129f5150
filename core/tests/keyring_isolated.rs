//! Isolated scopes (DESIGN K1): wrapped by KEKs of their own, vouched for by the root.

use crate::common::lab::*;
use crate::common::{FaultyMarks, block_on, refused};
use keyfold::testing::FakeKms;
use keyfold::{ErrorKind, KekAlias, KeyClass, KeyState, Keyring, KeyringConfig, Kms, KmsErrorKind, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const TENANT: &str = "tenant-a";
const SCOPE: &str = "clinic of tenant a";

/// A lab with a second key service, which is a tenant's own.
struct Tenancy {
    lab: Lab,
    tenant: FakeKms,
}

impl Tenancy {
    fn new() -> Self {
        let mut lab = Lab::new();
        lab.config.scope_keks = BTreeSet::from([alias(TENANT)]);
        lab.config.isolated = BTreeMap::from([(SCOPE.to_owned(), vec![alias(TENANT)])]);
        Self { lab, tenant: FakeKms::new() }
    }

    fn keks(&self) -> BTreeMap<KekAlias, Arc<dyn Kms>> {
        let mut keks = self.lab.keks();
        keks.insert(alias(TENANT), Arc::new(self.tenant.clone()));
        keks
    }

    fn ring(&self) -> Keyring {
        self.ring_with(self.lab.config.clone()).unwrap()
    }

    fn ring_with(&self, config: KeyringConfig) -> keyfold::Result<Keyring> {
        Keyring::open(config, Arc::new(self.lab.store.clone()), self.keks(), Arc::new(self.lab.marks.clone()))
    }

    fn record(&self, sealed: &[u8]) -> Record {
        self.lab.store.find(key_id_of(sealed))
    }
}

fn aliases(record: &Record) -> Vec<&str> {
    record.kek_aliases().map(KekAlias::as_str).collect()
}

#[test]
fn opening_takes_two_calls_and_only_the_tenants_service_unwraps() {
    let tenancy = Tenancy::new();
    let sealed = seal(&tenancy.ring(), Some(SCOPE), "x").unwrap();
    let record = tenancy.record(&sealed);
    assert!(record.is_isolated());
    assert_eq!(aliases(&record), [TENANT]);
    assert_eq!(record.authenticator(), root().key_id());
    let (roots, tenants) = (tenancy.lab.kms.unwrap_count(), tenancy.tenant.unwrap_count());
    let ring = tenancy.ring();
    for _ in 0..10 {
        assert_eq!(reveal(&ring, Some(SCOPE), &sealed).unwrap(), ("x".to_owned(), true));
    }
    assert_eq!((tenancy.lab.kms.unwrap_count() - roots, tenancy.tenant.unwrap_count() - tenants), (1, 1));
    // Other scopes are under the root, and the tenant's service has nothing to do with them or with roots.
    let other = seal(&ring, Some("another"), "x").unwrap();
    assert!(!tenancy.record(&other).is_isolated());
    let new = block_on(ring.rotate_root()).unwrap().new;
    assert_eq!(aliases(&new), [ALIAS]);
    assert_eq!(tenancy.tenant.unwrap_count() - tenants, 1);
}

#[test]
fn an_isolated_scope_is_missing_until_it_is_made() {
    let tenancy = Tenancy::new();
    let missing = || block_on(tenancy.ring().missing_isolated_scopes()).unwrap();
    assert_eq!(missing(), [SCOPE]);
    seal(&tenancy.ring(), Some(SCOPE), "x").unwrap();
    assert!(missing().is_empty());
}

#[test]
fn the_tenants_service_revokes_the_scope_and_nothing_else() {
    let tenancy = Tenancy::new();
    let ring = tenancy.ring();
    let sealed = seal(&ring, Some(SCOPE), "x").unwrap();
    let other = seal(&ring, Some("another"), "x").unwrap();
    tenancy.tenant.set_failure(Some(KmsErrorKind::KeyDisabled));
    ring.invalidate();
    let disabled = ErrorKind::Kms(KmsErrorKind::KeyDisabled);
    assert_eq!(refused(reveal(&ring, Some(SCOPE), &sealed), "disabled"), disabled);
    assert_eq!(refused(seal(&ring, Some(SCOPE), "x"), "disabled"), disabled);
    assert_eq!(refused(reveal(&tenancy.ring(), Some(SCOPE), &sealed), "disabled"), disabled);
    assert!(reveal(&ring, Some("another"), &other).is_ok());
    tenancy.tenant.set_failure(None);
    assert!(reveal(&tenancy.ring(), Some(SCOPE), &sealed).is_ok());
}

#[test]
fn rotation_keeps_the_scope_isolated_and_reparenting_keeps_its_wraps() {
    let tenancy = Tenancy::new();
    let ring = tenancy.ring();
    let first = seal(&ring, Some(SCOPE), "first").unwrap();
    let rotated = block_on(ring.rotate_data_key(Some(SCOPE))).unwrap().new;
    assert_eq!(aliases(&rotated), [TENANT]);
    let second = seal(&ring, Some(SCOPE), "second").unwrap();
    let new = block_on(ring.rotate_root()).unwrap().new;
    let unwraps = tenancy.tenant.unwrap_count();
    let mut walk = block_on(ring.reparent()).unwrap();
    while !block_on(walk.step(100)).unwrap().done {}
    assert_eq!(tenancy.tenant.unwrap_count(), unwraps, "no key is unwrapped to be vouched for by another root");
    assert_eq!(aliases(&tenancy.record(&first)), [TENANT]);
    let config = KeyringConfig { root_pins: vec![*new.commitment()], ..tenancy.lab.config.clone() };
    let ring = tenancy.ring_with(config).unwrap();
    assert_eq!(reveal(&ring, Some(SCOPE), &first).unwrap().0, "first");
    assert_eq!(reveal(&ring, Some(SCOPE), &second).unwrap().0, "second");
}

#[test]
fn a_scope_that_becomes_isolated_gets_a_key_of_its_own_by_itself() {
    let mut tenancy = Tenancy::new();
    let isolated = std::mem::take(&mut tenancy.lab.config.isolated);
    let before = seal(&tenancy.ring(), Some(SCOPE), "before").unwrap();
    assert!(!tenancy.record(&before).is_isolated());
    tenancy.lab.config.isolated = isolated;
    let ring = tenancy.ring();
    let after = seal(&ring, Some(SCOPE), "after").unwrap();
    assert!(tenancy.record(&after).is_isolated());
    assert_eq!(tenancy.record(&before).state(), KeyState::Deactivated);
    assert_eq!(reveal(&ring, Some(SCOPE), &before).unwrap(), ("before".to_owned(), false));
    // Once isolated, it stays so where the configuration has forgotten about it.
    let forgotten = KeyringConfig { isolated: BTreeMap::new(), ..tenancy.lab.config.clone() };
    let ring = tenancy.ring_with(forgotten).unwrap();
    assert_eq!(aliases(&block_on(ring.rotate_data_key(Some(SCOPE))).unwrap().new), [TENANT]);
}

#[test]
fn isolation_survives_a_tombstone() {
    let tenancy = Tenancy::new();
    seal(&tenancy.ring(), Some(SCOPE), "x").unwrap();
    // A service that relies on what the keys of the scope say.
    let forgotten = KeyringConfig { isolated: BTreeMap::new(), ..tenancy.lab.config.clone() };
    let ring = tenancy.ring_with(forgotten.clone()).unwrap();
    let kill = |record: &Record| {
        for state in [KeyState::Compromised, KeyState::DestroyPending, KeyState::Destroyed] {
            block_on(ring.change_state(record.key_id(), state)).unwrap();
        }
    };
    let newest = || tenancy.lab.store.all().into_iter().rev().find(|record| record.scope_tag().is_some()).unwrap();
    block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
    // Marking it makes a successor; all but the first two keys are destroyed.
    kill(&newest());
    kill(&newest());
    let rotated = block_on(ring.rotate_data_key(Some(SCOPE))).unwrap().new;
    assert_eq!(aliases(&rotated), [TENANT]);
    // With nothing but tombstones, somebody has to say.
    for record in tenancy.lab.store.all().iter().filter(|record| record.scope_tag().is_some()) {
        if record.state() == KeyState::Active {
            block_on(ring.change_state(record.key_id(), KeyState::Deactivated)).unwrap();
        }
        for state in [KeyState::DestroyPending, KeyState::Destroyed] {
            let _ = block_on(ring.change_state(record.key_id(), state));
        }
    }
    assert!(newest().is_isolated() && newest().state() == KeyState::Destroyed);
    assert_eq!(refused(block_on(ring.rotate_data_key(Some(SCOPE))), "whose KEKs?"), ErrorKind::Configuration);
    assert_eq!(aliases(&block_on(tenancy.ring().rotate_data_key(Some(SCOPE))).unwrap().new), [TENANT]);
}

#[test]
fn a_process_that_knows_fewer_keks_does_not_narrow_the_roots() {
    let tenancy = Tenancy::new();
    // Here the second service wraps roots, too.
    let both = KeyringConfig { scope_keks: BTreeSet::new(), isolated: BTreeMap::new(), ..tenancy.lab.config.clone() };
    let ring = tenancy.ring_with(both).unwrap();
    assert_eq!(aliases(&block_on(ring.rotate_root()).unwrap().new), [ALIAS, TENANT]);
    let few = tenancy.lab.process_with(KeyringConfig {
        scope_keks: BTreeSet::new(),
        isolated: BTreeMap::new(),
        ..tenancy.lab.config.clone()
    });
    let error = block_on(few.rotate_root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PolicyRefused);
    assert!(error.to_string().contains(TENANT), "{error}");
    // By age as well: the present root stays.
    let roots = tenancy.lab.store.all().iter().filter(|record| record.class() == KeyClass::Root).count();
    tenancy.lab.store.state().now = Some(TIME + 400 * 24 * 60 * 60);
    assert!(seal(&few, Some("a new scope"), "x").is_ok());
    assert_eq!(tenancy.lab.store.all().iter().filter(|record| record.class() == KeyClass::Root).count(), roots);
    // Unless somebody says that it was replaced or has leaked.
    let new = block_on(few.rotate_root_without(&[alias(TENANT)])).unwrap().new;
    assert_eq!(aliases(&new), [ALIAS]);
}

#[test]
fn a_wrap_of_another_key_is_refused_and_foreign_records_cause_no_call() {
    let tenancy = Tenancy::new();
    let ring = tenancy.ring();
    let sealed = seal(&ring, Some(SCOPE), "x").unwrap();
    let record = tenancy.record(&sealed);
    // Whoever writes the store cannot put another wrap in, nor have a service called for a record of his own.
    let unwraps = tenancy.tenant.unwrap_count();
    for at in 0..record.as_bytes().len() {
        let mut bytes = record.as_bytes().to_vec();
        bytes[at] ^= 1;
        if let Ok(edited) = Record::parse(&bytes) {
            tenancy.lab.store.plant_as(record.key_id(), &edited);
            let marks = Arc::new(FaultyMarks::default());
            let store = Arc::new(tenancy.lab.store.clone());
            let ring = Keyring::open(tenancy.lab.config.clone(), store, tenancy.keks(), marks).unwrap();
            assert!(reveal(&ring, Some(SCOPE), &sealed).is_err(), "byte {at}");
        }
    }
    assert_eq!(tenancy.tenant.unwrap_count(), unwraps);
    // A service that answers with something else.
    tenancy.lab.store.plant_as(record.key_id(), &record);
    tenancy.tenant.set_wrong_payload(true);
    let kind = refused(reveal(&tenancy.ring(), Some(SCOPE), &sealed), "another key");
    assert_eq!(kind, ErrorKind::RecordRejected);
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let tenancy = Tenancy::new();
    let refuse = |change: &dyn Fn(&mut KeyringConfig), says: &str| {
        let mut config = tenancy.lab.config.clone();
        change(&mut config);
        let error = tenancy.ring_with(config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains(SCOPE), "the name of a scope is in an error");
    };
    refuse(&|config| drop(config.isolated.insert(SCOPE.to_owned(), vec![alias("unknown")])), "not configured");
    refuse(&|config| drop(config.isolated.insert(SCOPE.to_owned(), vec![])), "at least one KEK");
    refuse(&|config| config.scope_keks.extend([alias(ALIAS)]), "none wraps the root");
    refuse(&|config| config.scope_keks.extend([alias("unknown")]), "not configured");
}
