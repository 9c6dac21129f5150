//! A keyring made from known keys, and what an attacker makes from his own.

use super::store::LabStore;
use super::{Faults, FaultyKms, FaultyMarks, block_on, open};
use keyfold::testing::FakeKms;
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    CachePolicy, Context, Decryptor, Encryptor, FieldPolicy, KekAlias, KeyClass, KeyState, Keyring, KeyringConfig, Kms,
    KmsContext, Lineage, LookupKeys, Policy, Record, Result, RotationPolicy, RowBinding, Secret, Slot, SlotId, Value,
    WrapRequest,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const TIME: u64 = 1_800_000_000;
pub const ENVIRONMENT: &str = "test";
pub const ALIAS: &str = "local";
pub const LINEAGE: Lineage = Lineage::from_bytes([0x11; 16]);
pub const DEFAULT_PARTITION: SlotId = SlotId::from_bytes([0x21; 16]);
pub const OTHER_PARTITION: SlotId = SlotId::from_bytes([0x22; 16]);

pub const ROOT: Generation = 1;
pub const SCOPE_NAMES: Generation = 2;
pub const LOOKUP: Generation = 3;
pub const OTHER_LOOKUP: Generation = 4;
pub const OLD_DATA: Generation = 5;
pub const DATA: Generation = 6;

/// One honest keyring: root, scope names, two partitions, an old and a current data key.
pub struct Lab {
    pub store: LabStore,
    pub kms: FakeKms,
    pub marks: FaultyMarks,
    pub faults: Faults,
    /// The keys that services were asked to unwrap.
    pub asked: Arc<Mutex<Vec<String>>>,
    pub config: KeyringConfig,
}

/// The key with this identity; its bytes follow from it and start with `seed`.
pub fn key_from(seed: u8, class: KeyClass, slot: SlotId, generation: Generation) -> Key {
    let mut bytes = [seed; 32];
    bytes[1] = class.id();
    bytes[2..6].copy_from_slice(&generation.to_be_bytes());
    bytes[6..22].copy_from_slice(slot.as_bytes());
    Key { bytes, lineage: LINEAGE, class, slot, generation }
}

/// A key of the honest keyring.
pub fn ours(class: KeyClass, slot: SlotId, generation: Generation) -> Key {
    key_from(0xA0, class, slot, generation)
}

/// A key that an attacker made.
pub fn theirs(class: KeyClass, slot: SlotId, generation: Generation) -> Key {
    key_from(0xEE, class, slot, generation)
}

pub fn root() -> Key {
    ours(KeyClass::Root, SlotId::NONE, ROOT)
}

pub fn data(generation: Generation) -> Key {
    ours(KeyClass::Data, SlotId::NONE, generation)
}

pub fn scope_id(name: &str) -> SlotId {
    let mut id = [0x51; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    SlotId::from_bytes(id)
}

pub fn scope_tag(name: &str) -> [u8; 32] {
    ours(KeyClass::Lookup, SlotId::NONE, SCOPE_NAMES).scope_tag(name)
}

pub fn slot(class: KeyClass, id: SlotId) -> Slot {
    Slot { lineage: LINEAGE, class, id }
}

/// What anyone who may encrypt under the KEK can make of a key.
pub fn wrap_by_kek(kms: &dyn Kms, key: &Key, environment: &str, alias: &str) -> WrapParts {
    let payload = Secret::with(|payload: &mut [u8; 64]| *payload = key.kek_payload(environment));
    let context = KmsContext::new(environment, key.lineage, key.key_id());
    let wrapped = block_on(kms.wrap(WrapRequest::new(&payload, &context))).expect("the service wraps");
    WrapParts { kind: 2, alias: alias.to_owned(), version: wrapped.kek_version, bytes: wrapped.bytes }
}

pub fn wrap_by_root(key: &Key, root: &Key) -> WrapParts {
    let bytes = key.wrap(root, &[key.generation as u8; 24]).expect("32 bytes wrap").to_vec();
    WrapParts { kind: 1, alias: String::new(), version: String::new(), bytes }
}

/// The parts of an active root wrapped by `kms`.
pub fn root_parts(kms: &dyn Kms, key: Key) -> RecordParts<'static> {
    RecordParts {
        key,
        root: key,
        state: KeyState::Active,
        scope_tag: None,
        sequence: 1,
        times: [TIME; 3],
        environment: ENVIRONMENT,
        wraps: vec![wrap_by_kek(kms, &key, ENVIRONMENT, ALIAS)],
        endorser: None,
        extensions: Vec::new(),
    }
}

/// The parts of an active key under `root`.
pub fn child_parts(key: Key, root: Key) -> RecordParts<'static> {
    RecordParts {
        key,
        root,
        state: KeyState::Active,
        scope_tag: None,
        sequence: 1,
        times: [TIME; 3],
        environment: ENVIRONMENT,
        wraps: vec![wrap_by_root(&key, &root)],
        endorser: None,
        extensions: Vec::new(),
    }
}

pub fn record(parts: &RecordParts<'_>) -> Record {
    Record::parse(&parts.to_bytes()).expect("a record that parses")
}

/// The parts in another state, one sequence further.
pub fn in_state(parts: RecordParts<'_>, state: KeyState) -> RecordParts<'_> {
    let wraps = if state == KeyState::Destroyed { Vec::new() } else { parts.wraps.clone() };
    RecordParts { state, wraps, sequence: parts.sequence + 1, ..parts }
}

pub fn bound(name: &str) -> FieldPolicy {
    let row_binding = RowBinding::Bound { column: Some("id".to_owned()), path: None, segment: None };
    FieldPolicy { row_binding, ..FieldPolicy::randomized(name) }
}

/// Randomised: plain, other, bound. Deterministic: mrn and ref joined, alone, study (other partition, same group).
pub fn policy() -> Policy {
    let mut policy = Policy::new();
    for field in [
        FieldPolicy::randomized("plain"),
        FieldPolicy::randomized("other"),
        bound("bound"),
        FieldPolicy::deterministic("mrn", "default", Some("patient")),
        FieldPolicy::deterministic("ref", "default", Some("patient")),
        FieldPolicy::deterministic("device", "default", Some("device")),
        FieldPolicy::deterministic("alone", "default", None),
        // A field whose own name is the name of a join group.
        FieldPolicy::deterministic("patient", "default", None),
        FieldPolicy::deterministic("study", "other", Some("patient")),
    ] {
        policy.add(field).expect("a good field");
    }
    policy
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    pub fn new() -> Self {
        let kms = FakeKms::new();
        let faults = Faults::default();
        let store = LabStore::with(faults.clone());
        let lookup = [(LOOKUP, DEFAULT_PARTITION), (OTHER_LOOKUP, OTHER_PARTITION)]
            .map(|(generation, id)| ours(KeyClass::Lookup, id, generation));
        let names = ours(KeyClass::Lookup, SlotId::NONE, SCOPE_NAMES);
        store.plant(&record(&root_parts(&kms, root())));
        for key in [names, lookup[0], lookup[1], data(DATA)] {
            store.plant(&record(&child_parts(key, root())));
        }
        store.plant(&record(&in_state(child_parts(data(OLD_DATA), root()), KeyState::Deactivated)));
        let keys = |i: usize| LookupKeys { partition: lookup[i].slot, seals: lookup[i].key_id(), opens: Vec::new() };
        let config = KeyringConfig {
            name: "lab".to_owned(),
            environment: ENVIRONMENT.to_owned(),
            lineage: LINEAGE,
            root_pins: vec![root().commitment()],
            scope_names: names.key_id(),
            lookup: BTreeMap::from([("default".to_owned(), keys(0)), ("other".to_owned(), keys(1))]),
            policy: policy(),
            // Failures are injected one at a time here, and the next attempt counts.
            cache: CachePolicy { negative: Duration::ZERO, ..CachePolicy::default() },
            rotation: RotationPolicy::default(),
            isolated: BTreeMap::new(),
            scope_keks: BTreeSet::new(),
            open_compromised: false,
            keks: keyfold::KekPolicy::default(),
            shred: keyfold::ShredPolicy { waiting: Duration::ZERO },
            fips: keyfold::fips::Rule::default(),
            memory: keyfold::MemoryLock::default(),
        };
        let marks = FaultyMarks { faults: faults.clone(), ..FaultyMarks::default() };
        Self { store, kms, marks, faults, asked: Arc::default(), config }
    }

    pub fn kek(&self) -> Arc<dyn Kms> {
        Arc::new(FaultyKms { inner: self.kms.clone(), faults: self.faults.clone(), asked: self.asked.clone() })
    }

    pub fn keks(&self) -> BTreeMap<KekAlias, Arc<dyn Kms>> {
        BTreeMap::from([(alias(ALIAS), self.kek())])
    }

    /// A new process on the same machine: nothing in memory, but the same marks.
    pub fn process(&self) -> Keyring {
        self.process_with(self.config.clone())
    }

    pub fn process_with(&self, config: KeyringConfig) -> Keyring {
        self.process_on(config, Arc::new(self.marks.clone()))
    }

    /// A new process on a machine that has seen nothing.
    pub fn elsewhere(&self) -> Keyring {
        self.process_on(self.config.clone(), Arc::new(FaultyMarks::default()))
    }

    fn process_on(&self, config: KeyringConfig, marks: Arc<FaultyMarks>) -> Keyring {
        Keyring::open(config, Arc::new(self.store.clone()), self.keks(), marks).expect("it opens")
    }

    /// Fails if a service was asked for another key than the honest root.
    #[track_caller]
    pub fn assert_only_asked_for(&self, honest: &[Key], what: &str) {
        let honest: Vec<_> = honest.iter().map(|key| key.key_id().to_string()).collect();
        let asked = self.asked.lock().unwrap();
        assert!(asked.iter().all(|id| honest.contains(id)), "{what}: a key service was asked for {asked:?}");
    }

    pub fn pinning(&self, commitments: &[[u8; 32]]) -> KeyringConfig {
        KeyringConfig { root_pins: commitments.to_vec(), ..self.config.clone() }
    }

    /// Plants the scope `name` with a known key of `generation`.
    pub fn add_scope(&self, name: &str, generation: Generation) -> RecordParts<'static> {
        let key = ours(KeyClass::Data, scope_id(name), generation);
        let parts = RecordParts { scope_tag: Some(scope_tag(name)), ..child_parts(key, root()) };
        self.store.plant(&record(&parts));
        parts
    }
}

pub fn alias(text: &str) -> KekAlias {
    KekAlias::new(text).expect("a good alias")
}

pub fn encryptor(ring: &Keyring, field: &str, scope: Option<&str>) -> Result<Encryptor> {
    let field = ring.field(field)?;
    block_on(match scope {
        Some(scope) => field.scope(scope).encryptor(),
        None => field.encryptor(),
    })
}

pub fn decryptor(ring: &Keyring, field: &str, scope: Option<&str>) -> Result<Decryptor> {
    let field = ring.field(field)?;
    block_on(match scope {
        Some(scope) => field.scope(scope).decryptor(),
        None => field.decryptor(),
    })
}

/// Seals a text in the field `plain`; returns the bytes.
pub fn seal(ring: &Keyring, scope: Option<&str>, text: &str) -> Result<Vec<u8>> {
    encryptor(ring, "plain", scope)?.encrypt(Value::Text(text), None)
}

/// Opens a text of the field `plain`; returns it, and whether its key is current.
pub fn reveal(ring: &Keyring, scope: Option<&str>, sealed: &[u8]) -> Result<(String, bool)> {
    let opened = open(&decryptor(ring, "plain", scope)?, sealed, None)?;
    let Value::Text(text) = opened.value() else { panic!("another type came back") };
    Ok((text.to_owned(), opened.is_current()))
}

/// A value of the field `plain` under a known key, made without a keyring.
pub fn sealed_under(key: &Key, nonce: &[u8; 24], text: &str) -> Vec<u8> {
    use keyfold::vectors::{aad, encode};
    let header = key.header(keyfold::wire::Suite::Field);
    let aad = aad(&header, "plain", &Context::new(), None).expect("a short AAD");
    let encoded = encode(Value::Text(text), keyfold::Padding::None).expect("a short text");
    key.seal_field(keyfold::aead::Backend::default(), nonce, &aad, &encoded).expect("it seals")
}

pub fn key_id_of(sealed: &[u8]) -> KeyId {
    keyfold::wire::Sealed::parse(sealed).expect("a sealed value").key_id()
}
