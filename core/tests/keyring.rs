//! What a keyring opens and for whom: swaps, key services, policies, states (DESIGN F11 to F13, K5 to K9).
//!
//! Longer than other files: one place for what a keyring promises, with the places and keyrings that the tests share.

use crate::common::lab::*;
use crate::common::{FaultyMarks, block_on, open, refused};
use keyfold::testing::FakeKms;
use keyfold::wire::{DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, Suite};
use keyfold::{
    Context, Decryptor, Encryptor, ErrorKind, FieldPolicy, KekAlias, KeyClass, KeyState, Keyring, KeyringConfig, Kms,
    KmsErrorKind, LookupKeys, Padding, Policy, Record, Result, SlotId, Value, ValueType,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

// Swaps

/// Everything that a value is bound to.
#[derive(Clone, Copy, Debug)]
struct Place {
    lab: usize,
    field: &'static str,
    scope: Option<&'static str>,
    context: &'static [(&'static str, &'static str)],
    row: Option<&'static str>,
}

const HOME: Place =
    Place { lab: 0, field: "bound", scope: Some("clinic-a"), context: &[("tenant", "a")], row: Some("1") };

/// Places of randomised values, each different from the first in one thing.
const PLACES: [Place; 13] = [
    HOME,
    Place { field: "bound2", ..HOME },
    Place { row: Some("2"), ..HOME },
    Place { row: Some("11"), ..HOME },
    Place { field: "plain", row: None, ..HOME },
    Place { scope: Some("clinic-b"), ..HOME },
    Place { scope: None, ..HOME },
    Place { context: &[("tenant", "b")], ..HOME },
    Place { context: &[], ..HOME },
    Place { context: &[("tenant", "a"), ("table", "t")], ..HOME },
    Place { context: &[("tenan", "ta")], ..HOME },
    // Another keyring under the same KEK, and one in another environment.
    Place { lab: 1, ..HOME },
    Place { lab: 2, ..HOME },
];

/// Places of deterministic values. The scope is ignored: the partition takes its place.
const LOOKUP_HOME: Place = Place { lab: 0, field: "mrn", scope: None, context: &[("tenant", "a")], row: None };
const LOOKUP_PLACES: [Place; 10] = [
    LOOKUP_HOME,
    Place { field: "device", ..LOOKUP_HOME },
    Place { field: "alone", ..LOOKUP_HOME },
    // Called like the join group of the first.
    Place { field: "patient", ..LOOKUP_HOME },
    Place { field: "study", ..LOOKUP_HOME },
    Place { context: &[("tenant", "b")], ..LOOKUP_HOME },
    Place { context: &[], ..LOOKUP_HOME },
    Place { context: &[("tenan", "ta")], ..LOOKUP_HOME },
    Place { lab: 1, ..LOOKUP_HOME },
    Place { lab: 2, ..LOOKUP_HOME },
];

fn context(pairs: &[(&str, &str)]) -> Context {
    pairs.iter().fold(Context::new(), |context, (key, value)| context.with(key, value).unwrap())
}

impl Place {
    fn bind(&self, rings: &[Keyring]) -> keyfold::Field {
        let field = rings[self.lab].field(self.field).unwrap().context(context(self.context));
        match self.scope {
            Some(scope) => field.scope(scope),
            None => field,
        }
    }

    fn encryptor(&self, rings: &[Keyring]) -> Encryptor {
        block_on(self.bind(rings).encryptor()).unwrap()
    }

    fn decryptor(&self, rings: &[Keyring]) -> Decryptor {
        block_on(self.bind(rings).decryptor()).unwrap()
    }

    fn row(&self) -> Option<&'static [u8]> {
        self.row.map(str::as_bytes)
    }
}

/// A keyring, another one under the same KEK, and one in another environment under the same KEK.
fn three_rings() -> Vec<Keyring> {
    let lab = Lab::new();
    let with_field = |mut config: KeyringConfig| {
        config.policy.add(bound("bound2")).unwrap();
        config
    };
    let create = |environment: &str| {
        let store = Arc::new(crate::common::store::LabStore::default());
        let created = block_on(Keyring::create("second", environment, store.clone(), lab.keks(), marks())).unwrap();
        let mut config = KeyringConfig { policy: policy(), ..created.config };
        let partition = config.lookup["default"].clone();
        config.lookup.insert("other".to_owned(), partition);
        Keyring::open(with_field(config), store, lab.keks(), marks()).unwrap()
    };
    vec![lab.process_with(with_field(lab.config.clone())), create(ENVIRONMENT), create("prod")]
}

fn marks() -> Arc<FaultyMarks> {
    Arc::new(FaultyMarks::default())
}

/// Seals at every place and opens at every place: only the diagonal opens.
fn matrix(places: &[Place], expected: impl Fn(&Place, &Place) -> ErrorKind) {
    let rings = three_rings();
    let value = Value::Text("the same value everywhere");
    let sealed: Vec<_> =
        places.iter().map(|place| place.encryptor(&rings).encrypt(value, place.row()).unwrap()).collect();
    for (i, from) in places.iter().enumerate() {
        for (j, to) in places.iter().enumerate() {
            let result = open(&to.decryptor(&rings), &sealed[i], to.row());
            if i == j {
                assert!(result.unwrap().value() == value, "{from:?}");
                continue;
            }
            let kind = refused(result, &format!("{from:?} opened at {to:?}"));
            assert_eq!(kind, expected(from, to), "{from:?} opened at {to:?}");
        }
    }
}

// Failures C4, C5
#[test]
fn randomised_values_open_at_their_place_alone() {
    matrix(&PLACES, |from, to| {
        if from.lab != to.lab {
            ErrorKind::NoMatchingKey
        } else if from.scope != to.scope {
            ErrorKind::WrongScope
        } else {
            ErrorKind::DecryptionFailed
        }
    });
}

// Failure C4
#[test]
fn deterministic_values_open_at_their_place_alone() {
    matrix(&LOOKUP_PLACES, |from, to| {
        if from.lab != to.lab {
            ErrorKind::NoMatchingKey
        } else if (from.field == "study") != (to.field == "study") {
            ErrorKind::WrongScope
        } else {
            ErrorKind::DecryptionFailed
        }
    });
}

// Failure B1
#[test]
fn suites_and_classes_are_not_swapped() {
    let rings = three_rings();
    let field = encryptor(&rings[0], "plain", None).unwrap().encrypt(Value::Text("x"), None).unwrap();
    let lookup = encryptor(&rings[0], "alone", None).unwrap().encrypt(Value::Text("x"), None).unwrap();
    let (plain, alone) = (decryptor(&rings[0], "plain", None).unwrap(), decryptor(&rings[0], "alone", None).unwrap());
    assert_eq!(refused(open(&plain, &lookup, None), "02 in a randomised field"), ErrorKind::PolicyRefused);
    assert_eq!(refused(open(&alone, &field, None), "01 in a deterministic field"), ErrorKind::PolicyRefused);
    // The suite rewritten: the key is of a class that the suite does not use.
    let relabelled = |sealed: &[u8], suite: Suite| {
        let mut bytes = sealed.to_vec();
        bytes[1] = suite.id();
        bytes.resize(bytes.len() + 40, 0);
        bytes
    };
    let as_field = relabelled(&lookup, Suite::Field);
    assert_eq!(refused(open(&plain, &as_field, None), "a lookup key in suite 01"), ErrorKind::WrongScope);
    let as_lookup = relabelled(&field, Suite::Deterministic);
    assert_eq!(refused(open(&alone, &as_lookup, None), "a data key in suite 02"), ErrorKind::WrongScope);
    // A root's ID, and the key of scope names, as a value's key.
    let ring = Lab::new();
    for (key, kind) in
        [(root(), ErrorKind::WrongScope), (ours(KeyClass::Lookup, SlotId::NONE, SCOPE_NAMES), ErrorKind::WrongScope)]
    {
        let mut bytes = field.clone();
        bytes[2..26].copy_from_slice(key.key_id().as_bytes());
        assert_eq!(refused(reveal(&ring.process(), None, &bytes), "another class"), kind);
    }
}

#[test]
fn a_value_whose_key_was_never_loaded_is_not_opened() {
    let lab = Lab::new();
    let sealed = seal(&lab.process(), None, "x").unwrap();
    let decryptor = decryptor(&lab.process(), "plain", None).unwrap();
    assert_eq!(refused(decryptor.decrypt(&sealed, None), "not loaded"), ErrorKind::NoMatchingKey);
    let mut unknown = sealed.clone();
    unknown[10] ^= 1;
    assert_eq!(refused(open(&decryptor, &unknown, None), "unknown key"), ErrorKind::NoMatchingKey);
    assert!(open(&decryptor, &sealed, None).is_ok());
}

// Deterministic values

#[test]
fn deterministic_values_join_within_their_group_and_nowhere_else() {
    let lab = Lab::new();
    let ring = lab.process();
    let value = Value::Text("MRN-0012345");
    let of = |field: &str, scope: Option<&str>, pairs: &[(&str, &str)]| {
        let bound = ring.field(field).unwrap().context(context(pairs));
        let bound = scope.map_or(bound.clone(), |scope| bound.scope(scope));
        block_on(bound.encryptor()).unwrap().encrypt(value, None).unwrap()
    };
    let mrn = of("mrn", None, &[("tenant", "a")]);
    assert_eq!(mrn.len(), 11 + DETERMINISTIC_OVERHEAD);
    assert_eq!(mrn, of("mrn", None, &[("tenant", "a")]), "again");
    assert_eq!(mrn, of("ref", None, &[("tenant", "a")]), "another field of the group");
    assert_eq!(mrn, of("ref", Some("clinic-a"), &[("tenant", "a")]), "another scope");
    // Another process.
    let again = encryptor(&lab.process(), "mrn", None).unwrap();
    assert_eq!(again.encrypt(value, None).unwrap(), of("mrn", None, &[]), "another process");
    let different = [
        mrn.clone(),
        of("mrn", None, &[]),
        of("mrn", None, &[("tenant", "b")]),
        of("device", None, &[("tenant", "a")]),
        of("alone", None, &[("tenant", "a")]),
        of("patient", None, &[("tenant", "a")]),
        of("study", None, &[("tenant", "a")]),
    ];
    let bodies: HashSet<_> = different.iter().map(|sealed| &sealed[26..]).collect();
    assert_eq!(bodies.len(), different.len());
    // Inside its group a value can be swapped: documented, and the reason why it leaks equality.
    let reference = ring.field("ref").unwrap().context(context(&[("tenant", "a")]));
    let decryptor = block_on(reference.decryptor()).unwrap();
    assert!(open(&decryptor, &mrn, None).unwrap().value() == value);
    // The type is part of the value.
    let encryptor = encryptor(&ring, "mrn", None).unwrap();
    assert_ne!(
        encryptor.encrypt(Value::Text("1"), None).unwrap(),
        encryptor.encrypt(Value::Bytes(b"1"), None).unwrap()
    );
    assert_eq!(refused(encryptor.encrypt(value, Some(b"row")), "row"), ErrorKind::InvalidInput);
    let decryptor = block_on(ring.field("mrn").unwrap().decryptor()).unwrap();
    let sealed = encryptor.encrypt(value, None).unwrap();
    block_on(decryptor.load_keys(&[&sealed][..])).unwrap();
    assert_eq!(refused(decryptor.decrypt(&sealed, Some(b"row")), "row"), ErrorKind::InvalidInput);
}

// Failure C17
#[test]
fn overhead_is_67_and_43_bytes() {
    let ring = Lab::new().process();
    assert_eq!((FIELD_OVERHEAD, DETERMINISTIC_OVERHEAD), (67, 43));
    for len in [0, 1, 15, 16, 17, 4096] {
        let text = "x".repeat(len);
        let (plain, alone) = (encryptor(&ring, "plain", None).unwrap(), encryptor(&ring, "alone", None).unwrap());
        assert_eq!(plain.encrypt(Value::Text(&text), None).unwrap().len(), len + 67);
        assert_eq!(alone.encrypt(Value::Text(&text), None).unwrap().len(), len + 43);
    }
}

// Key services

fn two_keks() -> (Lab, FakeKms, FakeKms) {
    let (mut lab, second) = (Lab::new(), FakeKms::new());
    let mut parts = root_parts(&lab.kms, root());
    parts.wraps.push(wrap_by_kek(&second, &root(), ENVIRONMENT, "second"));
    lab.store.plant(&record(&parts));
    lab.config.name = "two KEKs".to_owned();
    let first = lab.kms.clone();
    (lab, first, second)
}

fn ring_with(lab: &Lab, keks: &[(&str, &FakeKms)]) -> Keyring {
    let boxed = |kms: &FakeKms| -> Arc<dyn Kms> { Arc::new(kms.clone()) };
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = keks.iter().map(|(name, kms)| (alias(name), boxed(kms))).collect();
    Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), keks, marks()).unwrap()
}

/// Covers F-7.6-4, KC-26.
#[test]
fn a_refusal_that_may_be_a_revocation_stops_and_every_other_falls_to_the_next_kek() {
    let stops = [KmsErrorKind::AccessDenied, KmsErrorKind::KeyDisabled, KmsErrorKind::KeyNotFound];
    for &kind in KmsErrorKind::ALL {
        let (lab, first, second) = two_keks();
        let both = [(ALIAS, &first), ("second", &second)];
        first.set_failure(Some(kind));
        let result = seal(&ring_with(&lab, &both), None, "x");
        let calls = (first.unwrap_count(), second.unwrap_count());
        if stops.contains(&kind) {
            assert_eq!(refused(result, kind.name()), ErrorKind::Kms(kind));
            assert_eq!(calls, (1, 0), "{kind:?}");
        } else {
            assert!(result.is_ok(), "{kind:?}: {result:?}");
            assert_eq!(calls, (1, 1), "{kind:?}");
        }
        // Alone, or with all failing, its class is what the caller sees, with the KEK's alias.
        second.set_failure(Some(kind));
        let Err(error) = seal(&ring_with(&lab, &both), None, "x") else { panic!("{kind:?}: accepted") };
        assert_eq!(error.kind(), ErrorKind::Kms(kind));
        assert!(error.to_string().contains("KEK "), "{error}");
        // A failure is not remembered.
        let ring = ring_with(&lab, &both);
        assert!(seal(&ring, None, "x").is_err());
        first.set_failure(None);
        second.set_failure(None);
        assert!(seal(&ring, None, "x").is_ok());
    }
}

/// Covers F-7.3-3.
// Failure A15
#[test]
fn a_wrong_payload_is_noticed() {
    let (lab, first, second) = two_keks();
    first.set_wrong_payload(true);
    let kind = refused(seal(&ring_with(&lab, &[(ALIAS, &first)]), None, "x"), "wrong payload");
    // The binding in the payload is right here and the key is not.
    assert!(matches!(kind, ErrorKind::RecordRejected | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext)), "{kind:?}");
    assert!(seal(&ring_with(&lab, &[("second", &second)]), None, "x").is_ok());
    // A service that ignores its context and answers with the payload of another key: the binding tells.
    struct Careless(FakeKms, keyfold::KmsContext);
    impl Kms for Careless {
        fn wrap<'a>(
            &'a self,
            request: keyfold::WrapRequest<'a>,
        ) -> keyfold::BoxFuture<'a, Result<keyfold::WrappedKey>> {
            self.0.wrap(keyfold::WrapRequest::new(request.payload, &self.1))
        }
        fn unwrap<'a>(
            &'a self,
            request: keyfold::UnwrapRequest<'a>,
        ) -> keyfold::BoxFuture<'a, Result<keyfold::Secret<64>>> {
            self.0.unwrap(keyfold::UnwrapRequest::new(request.wrapped, &self.1))
        }
    }
    let lab = Lab::new();
    let no_context = keyfold::KmsContext::new("", LINEAGE, root().key_id());
    let careless: Arc<dyn Kms> = Arc::new(Careless(lab.kms.clone(), no_context));
    let other_root = ours(KeyClass::Root, SlotId::NONE, 77);
    let mut parts = root_parts(&lab.kms, root());
    parts.wraps = vec![wrap_by_kek(&*careless, &root(), ENVIRONMENT, ALIAS)];
    lab.store.plant(&record(&parts));
    let keks = BTreeMap::from([(alias(ALIAS), careless.clone())]);
    let ring = || Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), keks.clone(), marks()).unwrap();
    assert!(seal(&ring(), None, "x").is_ok());
    for (key, environment) in [(other_root, ENVIRONMENT), (root(), "prod")] {
        parts.wraps = vec![wrap_by_kek(&*careless, &key, environment, ALIAS)];
        lab.store.plant(&record(&parts));
        let kind = refused(seal(&ring(), None, "x"), "the payload of another key");
        assert_eq!(kind, ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
    }
}

/// Covers F-7.2-7.
// Failure C10
#[test]
fn only_configured_keks_are_called() {
    let (lab, first, second) = two_keks();
    let stranger = FakeKms::new();
    let Err(error) = seal(&ring_with(&lab, &[("third", &stranger)]), None, "x") else { panic!("accepted") };
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains(ALIAS) && error.to_string().contains("second"), "{error}");
    assert_eq!((first.unwrap_count(), second.unwrap_count(), stranger.unwrap_count()), (0, 0, 0));
    // One that is configured but did not wrap is not asked.
    assert!(seal(&ring_with(&lab, &[("second", &second), ("third", &stranger)]), None, "x").is_ok());
    assert_eq!((first.unwrap_count(), second.unwrap_count(), stranger.unwrap_count()), (0, 1, 0));
}

#[test]
fn a_keyring_costs_one_request_however_many_scopes_it_has() {
    let lab = Lab::new();
    let writer = lab.process();
    let sealed: Vec<_> = (0..100).map(|i| seal(&writer, Some(&format!("scope {i}")), "x").unwrap()).collect();
    assert_eq!(
        (lab.kms.wrap_count(), lab.kms.unwrap_count()),
        (1, 1),
        "the lab wrapped its root; making scopes is local"
    );
    let reader = lab.process();
    for (i, sealed) in sealed.iter().enumerate() {
        assert!(reveal(&reader, Some(&format!("scope {i}")), sealed).is_ok());
        assert!(encryptor(&reader, "mrn", None).is_ok());
    }
    let listed = block_on(reader.list(None, usize::MAX)).unwrap();
    assert_eq!(listed.len(), 106);
    assert!(listed.iter().all(|info| info.verified.is_ok()));
    block_on(reader.rotate_data_key(Some("scope 7"))).unwrap();
    assert_eq!((lab.kms.wrap_count(), lab.kms.unwrap_count()), (1, 2));
    // Listing alone costs one as well, although the root's own record comes first.
    let lister = lab.process();
    block_on(lister.list(None, usize::MAX)).unwrap();
    assert_eq!(lab.kms.unwrap_count(), 3);
    // Two scopes were made by one process, so both have IDs of their own.
    let scopes: HashSet<_> = lab.store.all().iter().map(Record::slot_id).collect();
    assert_eq!(scopes.len(), 100 + 3);
}

#[test]
fn creating_costs_one_wrap_and_one_check_per_kek() {
    let services = [FakeKms::new(), FakeKms::new(), FakeKms::new()];
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = ["a", "b", "c"]
        .iter()
        .zip(&services)
        .map(|(name, kms)| (alias(name), Arc::new(kms.clone()) as Arc<dyn Kms>))
        .collect();
    let store = crate::common::store::LabStore::default();
    let created = block_on(Keyring::create("new", "test", Arc::new(store.clone()), keks.clone(), marks())).unwrap();
    for kms in &services {
        assert_eq!((kms.wrap_count(), kms.unwrap_count()), (1, 1));
    }
    assert_eq!(store.all().len(), 4);
    let mut config = created.config;
    config.policy = policy();
    config.lookup.insert("other".to_owned(), config.lookup["default"].clone());
    let ring = Keyring::open(config, Arc::new(store), keks, marks()).unwrap();
    let sealed = seal(&ring, None, "x").unwrap();
    assert!(reveal(&ring, None, &sealed).is_ok());
    assert_eq!(services.iter().map(FakeKms::unwrap_count).sum::<u64>(), 4, "one of them was asked once more");
}

// Failures A15, A23
#[test]
fn creating_refuses_a_kek_that_does_not_unwrap_what_it_wraps() {
    for break_it in [|kms: &FakeKms| kms.set_wrong_payload(true), |kms: &FakeKms| kms.set_encrypt_only(true)] {
        let (good, bad) = (FakeKms::new(), FakeKms::new());
        break_it(&bad);
        let keks: BTreeMap<KekAlias, Arc<dyn Kms>> =
            BTreeMap::from([(alias("a"), Arc::new(good) as Arc<dyn Kms>), (alias("b"), Arc::new(bad) as Arc<dyn Kms>)]);
        let store = crate::common::store::LabStore::default();
        let result = block_on(Keyring::create("new", "test", Arc::new(store.clone()), keks, marks()));
        let Err(error) = result else { panic!("accepted") };
        assert!(matches!(error.kind(), ErrorKind::Kms(_) | ErrorKind::RecordRejected), "{error:?}");
        assert!(error.to_string().contains("KEK b"), "{error}");
        assert!(store.all().is_empty(), "nothing was stored");
    }
    let store = Arc::new(crate::common::store::LabStore::default());
    let none = block_on(Keyring::create("new", "test", store.clone(), BTreeMap::new(), marks()));
    assert_eq!(refused(none, "no KEK"), ErrorKind::Configuration);
    for environment in ["", "Prod", "a b", "a/b", &"x".repeat(65)] {
        let keks = Lab::new().keks();
        let result = block_on(Keyring::create("new", environment, store.clone(), keks, marks()));
        assert_eq!(refused(result, environment), ErrorKind::InvalidInput);
    }
}

// Policies

fn ring_of(lab: &Lab, field: FieldPolicy) -> Keyring {
    let mut policy = Policy::new();
    policy.add(field).unwrap();
    lab.process_with(KeyringConfig { policy, ..lab.config.clone() })
}

/// Covers F-8.1-2.
#[test]
fn a_missing_context_key_is_refused_before_anything_is_asked() {
    let lab = Lab::new();
    for base in [FieldPolicy::randomized("f"), FieldPolicy::deterministic("f", "default", None)] {
        let required_context = ["tenant".to_owned(), "table".to_owned()].into();
        let ring = ring_of(&lab, FieldPolicy { required_context, ..base });
        lab.faults.reset();
        for pairs in [&[][..], &[("tenant", "a")], &[("table", "t"), ("tenants", "a")]] {
            let field = || ring.field("f").unwrap().scope("clinic").context(context(pairs));
            assert_eq!(refused(block_on(field().encryptor()), "encryptor"), ErrorKind::PolicyRefused);
            assert_eq!(refused(block_on(field().decryptor()), "decryptor"), ErrorKind::PolicyRefused);
        }
        assert_eq!(refused(ring.field("unknown"), "unknown field"), ErrorKind::PolicyRefused);
        assert_eq!(lab.faults.calls(), 0, "no store, service or mark was asked: {:?}", lab.faults.log());
        let complete = context(&[("tenant", "a"), ("table", "t"), ("more", "is fine")]);
        assert!(block_on(ring.field("f").unwrap().context(complete).encryptor()).is_ok());
    }
}

/// Covers F-3.1-1, F-3.1-2, F-8.1-6, F-8.1-8.
// Failure C7
#[test]
fn suites_outside_the_accept_list_are_refused_before_their_key_is_asked_for() {
    let lab = Lab::new();
    let value = Value::Text("x");
    let of = |accepted: &[Suite], base: FieldPolicy| FieldPolicy { accepted_suites: accepted.to_vec(), ..base };
    let both = of(&[Suite::Field, Suite::Deterministic], FieldPolicy::deterministic("f", "default", None));
    let only_01 = of(&[Suite::Field], FieldPolicy::deterministic("f", "default", None));
    let random = FieldPolicy::randomized("f");
    let encrypt = |field: FieldPolicy| {
        block_on(ring_of(&lab, field).field("f").unwrap().encryptor()).unwrap().encrypt(value, None).unwrap()
    };
    let (field, lookup) = (encrypt(random.clone()), encrypt(both.clone()));
    let opens = |policy: &FieldPolicy, sealed: &[u8]| {
        let decryptor = block_on(ring_of(&lab, policy.clone()).field("f").unwrap().decryptor()).unwrap();
        lab.faults.reset();
        let result = open(&decryptor, sealed, None).map(|opened| opened.is_current());
        (result.map_err(|error| error.kind()), lab.faults.calls())
    };
    assert_eq!(opens(&both, &lookup).0, Ok(true));
    assert_eq!(opens(&both, &field).0, Ok(false), "what a field held before it became deterministic");
    assert_eq!(opens(&random, &field).0, Ok(true));
    assert_eq!(opens(&only_01, &field).0, Ok(false));
    for (policy, sealed) in [(&random, &lookup), (&only_01, &lookup)] {
        assert_eq!(opens(policy, sealed), (Err(ErrorKind::PolicyRefused), 0));
    }
    let deterministic = FieldPolicy::deterministic("f", "default", None);
    assert_eq!(opens(&deterministic, &field), (Err(ErrorKind::PolicyRefused), 0));
    for suite in [0, 3, 4, 5, 6, 7, 8, 0x80, 0xFF] {
        let mut reserved = field.clone();
        reserved[1] = suite;
        let kind = if suite == 3 { ErrorKind::PolicyRefused } else { ErrorKind::Unsupported };
        assert_eq!(opens(&both, &reserved), (Err(kind), 0));
    }
    let mut not_magic = field.clone();
    not_magic[0] = b'{';
    assert_eq!(opens(&both, &not_magic), (Err(ErrorKind::Malformed), 0));
}

/// Covers F-7.4-2, F-7.4-4.
// Failure C11
#[test]
fn scopes_are_made_by_sealing_and_never_by_opening() {
    let lab = Lab::new();
    let ring = lab.process();
    let records = lab.store.all().len();
    assert_eq!(refused(decryptor(&ring, "plain", Some("nowhere")), "no scope"), ErrorKind::NoMatchingKey);
    assert_eq!(refused(block_on(ring.rotate_data_key(Some("nowhere"))), "no scope"), ErrorKind::NoMatchingKey);
    assert_eq!(lab.store.all().len(), records);
    for name in ["", &"x".repeat(1025)] {
        assert_eq!(refused(encryptor(&ring, "plain", Some(name)), "name"), ErrorKind::InvalidInput);
        assert_eq!(refused(decryptor(&ring, "plain", Some(name)), "name"), ErrorKind::InvalidInput);
    }
    assert!(encryptor(&ring, "plain", Some(&"x".repeat(1024))).is_ok());
    assert!(encryptor(&ring, "plain", Some("nowhere")).is_ok());
    assert!(decryptor(&ring, "plain", Some("nowhere")).is_ok());
    // Names are bytes: no case folding, no normalisation, no trimming.
    let names = ["Ä", "A\u{308}", "ä", "Ä ", "nowhere ", "Nowhere", "nowhere\0"];
    for name in names {
        assert!(encryptor(&ring, "plain", Some(name)).is_ok());
    }
    assert_eq!(lab.store.all().len(), records + 2 + names.len());
    // A name is stored as a keyed tag alone.
    for record in lab.store.all() {
        let bytes = record.as_bytes();
        assert!(!bytes.windows(7).any(|window| window == b"nowhere"));
    }
}

#[test]
fn two_processes_that_make_one_scope_agree() {
    let lab = Lab::new();
    for round in 0..50 {
        let name = format!("scope {round}");
        let rings = [lab.process(), lab.process(), lab.process(), lab.process()];
        let barrier = std::sync::Barrier::new(rings.len());
        let sealed: Vec<_> = std::thread::scope(|threads| {
            let handles: Vec<_> = rings
                .iter()
                .map(|ring| {
                    threads.spawn(|| {
                        barrier.wait();
                        seal(ring, Some(&name), "x").unwrap()
                    })
                })
                .collect();
            handles.into_iter().map(|handle| handle.join().unwrap()).collect()
        });
        let keys: HashSet<_> = sealed.iter().map(|sealed| key_id_of(sealed)).collect();
        assert_eq!(keys.len(), 1, "one scope has one key");
        for ring in &rings {
            assert!(sealed.iter().all(|sealed| reveal(ring, Some(&name), sealed).is_ok()));
        }
    }
}

/// Covers F-5.2-2.
#[test]
fn fields_that_join_share_one_type_and_no_padding() {
    let joined = |name: &str, value_type| FieldPolicy {
        value_type: Some(value_type),
        ..FieldPolicy::deterministic(name, "default", Some("patient"))
    };
    let mut policy = Policy::new();
    policy.add(joined("a", ValueType::Text)).unwrap();
    assert_eq!(refused(policy.add(joined("b", ValueType::Integer)), "another type"), ErrorKind::Configuration);
    let padded = FieldPolicy { padding: Padding::Padme, ..joined("b", ValueType::Text) };
    assert_eq!(refused(policy.add(padded), "padding"), ErrorKind::Configuration);
    policy.add(joined("b", ValueType::Text)).unwrap();
}

#[test]
fn an_unknown_partition_is_a_configuration_error() {
    let lab = Lab::new();
    let ring = ring_of(&lab, FieldPolicy::deterministic("f", "missing", None));
    assert_eq!(refused(encryptor(&ring, "f", None), "partition"), ErrorKind::Configuration);
    assert_eq!(refused(decryptor(&ring, "f", None), "partition"), ErrorKind::Configuration);
    // A configuration that gives a partition the key of another, a data key or a key that is not there.
    let keys = [
        (ours(KeyClass::Lookup, OTHER_PARTITION, OTHER_LOOKUP).key_id(), ErrorKind::WrongScope),
        (data(DATA).key_id(), ErrorKind::WrongScope),
        (root().key_id(), ErrorKind::WrongScope),
        (theirs(KeyClass::Lookup, DEFAULT_PARTITION, 9).key_id(), ErrorKind::NoMatchingKey),
    ];
    for (seals, kind) in keys {
        let mut config = lab.config.clone();
        let wrong = LookupKeys { partition: DEFAULT_PARTITION, seals, opens: Vec::new() };
        config.lookup.insert("default".to_owned(), wrong);
        let ring = lab.process_with(config);
        assert_eq!(refused(encryptor(&ring, "mrn", None), "partition"), kind);
    }
}

// States

/// Covers F-8.2-5, F-8.2-9.
#[test]
fn states_decide_what_opens_and_what_seals() {
    use KeyState::{Active, Compromised, Deactivated, DestroyPending, Destroyed, PreActive};
    let expected = [
        // Nothing else seals there, so that it is activated without waiting.
        (PreActive, true, true),
        (Active, true, true),
        (Deactivated, true, false),
        (Compromised, false, false),
        (DestroyPending, false, false),
        (Destroyed, false, false),
    ];
    for (state, opens, seals) in expected {
        // A data key: the only one of its scope.
        let lab = Lab::new();
        let parts = lab.add_scope("clinic", 20);
        let key = parts.key;
        lab.store.plant(&record(&in_state(parts, state)));
        let sealed = sealed_under(&key, &[1; 24], "x");
        let result = reveal(&lab.process(), Some("clinic"), &sealed).map(|(_, current)| current);
        let kind = |opens: bool| if opens { None } else { Some(ErrorKind::KeyState) };
        assert_eq!(result.as_ref().err().map(|error| error.kind()), kind(opens), "{state:?}");
        if opens {
            assert_eq!(result.unwrap(), state == Active, "{state:?}");
        }
        let before = lab.store.snapshot();
        let result = seal(&lab.process(), Some("clinic"), "x");
        assert_eq!(result.err().map(|error| error.kind()), kind(seals), "sealing, {state:?}");
        assert_eq!(lab.store.all().len(), before.records.len(), "{state:?}: no key was made behind it");
        assert_eq!(lab.store.state().generation, before.generation, "{state:?}: no number was used up");
        // Rotation gives the scope a key that seals, whatever became of the last one; while that waits for its end, nobody makes one.
        let rotated = block_on(lab.process().rotate_data_key(Some("clinic")));
        assert_eq!(rotated.err().map(|error| error.kind()), kind(state != DestroyPending), "rotating, {state:?}");
        assert_eq!(seal(&lab.process(), Some("clinic"), "x").is_ok(), state != DestroyPending, "{state:?}");

        // A lookup key that the configuration names as the one that seals.
        let lab = Lab::new();
        let lookup = ours(KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP);
        let sealed = encryptor(&lab.process(), "mrn", None).unwrap().encrypt(Value::Text("x"), None).unwrap();
        lab.store.plant(&record(&in_state(child_parts(lookup, root()), state)));
        let result = decryptor(&lab.process(), "mrn", None).and_then(|decryptor| open(&decryptor, &sealed, None));
        assert_eq!(result.err().map(|error| error.kind()), kind(opens), "lookup, {state:?}");
        let result = encryptor(&lab.process(), "mrn", None);
        // The configuration names it, and nothing activates it.
        let seals_by_name = state == Active;
        assert_eq!(result.err().map(|error| error.kind()), kind(seals_by_name), "lookup sealing, {state:?}");
        // Also for a process in which the key is open already.
        let lab = Lab::new();
        let ring = lab.process();
        encryptor(&ring, "mrn", None).unwrap();
        lab.store.plant(&record(&in_state(child_parts(lookup, root()), state)));
        ring.invalidate();
        let result = encryptor(&ring, "mrn", None);
        assert_eq!(
            result.err().map(|error| error.kind()),
            kind(seals_by_name),
            "lookup sealing with an open key, {state:?}"
        );

        // The root.
        let lab = Lab::new();
        lab.store.plant(&record(&in_state(root_parts(&lab.kms, root()), state)));
        let sealed = sealed_under(&data(DATA), &[1; 24], "x");
        let result = reveal(&lab.process(), None, &sealed);
        assert_eq!(result.err().map(|error| error.kind()), kind(opens), "root, {state:?}");
        let result = seal(&lab.process(), Some("a new scope"), "x");
        assert_eq!(result.is_ok(), seals, "a new key under a root, {state:?}: {result:?}");
    }
}

#[test]
fn tombstones_are_believed_under_a_root_and_name_the_state() {
    let lab = Lab::new();
    let pending = in_state(child_parts(data(OLD_DATA), root()), KeyState::DestroyPending);
    let sealed = sealed_under(&data(OLD_DATA), &[1; 24], "x");
    for state in [KeyState::DestroyPending, KeyState::Destroyed, KeyState::Compromised] {
        lab.store.plant(&record(&in_state(pending.clone(), state)));
        let Err(error) = reveal(&lab.elsewhere(), None, &sealed) else { panic!("opened") };
        assert_eq!(error.kind(), ErrorKind::KeyState);
        assert!(error.to_string().contains(state.name()), "{error}");
        assert!(error.to_string().contains(&data(OLD_DATA).key_id().to_string()), "{error}");
    }
}

// Threads

#[test]
fn handles_are_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Keyring>();
    shared::<Encryptor>();
    shared::<Decryptor>();
    shared::<keyfold::Field>();
    shared::<keyfold::Opened>();
    shared::<keyfold::OpenedColumn>();
    shared::<keyfold::SealedColumn>();
    shared::<Record>();
    shared::<Context>();
    shared::<keyfold::Error>();
    shared::<Arc<dyn Kms>>();
    shared::<Arc<dyn keyfold::KeyStore>>();
    fn sent<T: Send>(_: &T) {}
    let ring = Lab::new().process();
    sent(&ring.field("plain").unwrap().encryptor());
    sent(&ring.field("plain").unwrap().decryptor());
    sent(&ring.rotate_root());
    sent(&ring.list(None, 1));
}
