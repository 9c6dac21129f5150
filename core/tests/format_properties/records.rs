//! Key records and frames (FORMAT.md §7, §14): core writes them as the reference does, refuses what the reference refuses, and opens values by records
//! that the reference has made.

use super::draw::{cases, edited, edits};
use super::kind;
use super::reference::record::{self, DESTROYED, Record, UNDER_KEK, Wrap, wrap_by_root};
use super::reference::{self, DATA, Key, LOOKUP, ROOT};
use super::sealed::known;
use crate::common::lab::{self, Lab, alias, decryptor, seal};
use crate::common::{block_on, open};
use keyfold::testing::FakeKms;
use keyfold::vectors::{self, RecordParts, WrapParts};
use keyfold::wire::{Frame, KeyId, Suite};
use keyfold::{
    FieldPolicy, KekAlias, KeyClass, KeyState, KeyringConfig, Kms, KmsContext, Lineage, Policy, Secret, SlotId,
    WrapRequest,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

fn key(class: u8) -> impl Strategy<Value = Key> {
    let slot = if class == ROOT { Just([0; 16]).boxed() } else { any::<[u8; 16]>().boxed() };
    (any::<[u8; 32]>(), any::<[u8; 16]>(), slot, prop_oneof![15 => 1_u32.., 1 => Just(0)])
        .prop_map(move |(bytes, lineage, slot, generation)| Key { bytes, lineage, class, slot, generation })
}

fn wrap() -> impl Strategy<Value = Wrap> {
    let bytes = || vec(any::<u8>(), 0..100);
    let made = |kind: u8, alias: &str, version: &str, bytes: Vec<u8>| Wrap {
        kind,
        alias: alias.to_owned(),
        version: version.to_owned(),
        bytes,
    };
    prop_oneof![
        vec(any::<u8>(), 72).prop_map(move |bytes| made(1, "", "", bytes)),
        ("[a-z0-9_-]{1,64}", r"\PC{0,20}", bytes())
            .prop_map(move |(alias, version, bytes)| made(2, &alias, &version, bytes)),
        (3_u8..0x80, ".{0,8}", ".{0,8}", bytes())
            .prop_map(move |(kind, alias, version, bytes)| made(kind, &alias, &version, bytes)),
        // What no record has: of any kind, and too long now and then.
        (any::<u8>(), "[a-zA-Z.]{0,3}", prop_oneof![Just(72_usize), Just(4096), Just(4097)])
            .prop_map(move |(kind, alias, len)| made(kind, &alias, "", vec![7; len])),
    ]
}

fn any_record() -> impl Strategy<Value = Record> {
    let extension = prop_oneof![4 => 0_u16..6, 1 => any::<u16>()];
    let key = prop_oneof![key(ROOT), key(DATA), key(LOOKUP), key(4)];
    let environment = prop_oneof![9 => "[a-z0-9_.-]{1,64}", 1 => "[A-Z]?[a-z]{0,65}"];
    let endorser = prop::option::weighted(0.3, self::key(ROOT));
    (
        (key, self::key(ROOT), 1_u8..7, any::<[u8; 32]>()),
        (any::<u64>(), any::<[u64; 3]>(), environment),
        (
            prop_oneof![9 => vec(wrap(), 0..4), 1 => vec(wrap(), 7..11)],
            endorser,
            vec((extension, vec(any::<u8>(), 0..20)), 0..3),
        ),
    )
        .prop_map(
            |((key, root, state, scope_tag), (sequence, times, environment), (wraps, endorser, mut extensions))| {
                let endorser = endorser.filter(|_| key.class == ROOT || sequence % 8 == 0);
                // Mostly as §7.1 has it.
                let wraps = if state == DESTROYED && sequence % 8 != 0 { Vec::new() } else { wraps };
                if sequence % 16 != 1 {
                    extensions.sort();
                }
                Record { state, key, root, scope_tag, sequence, times, environment, wraps, endorser, extensions }
            },
        )
}

fn to_core(key: &Key) -> vectors::Key {
    let class = [KeyClass::Root, KeyClass::Data, KeyClass::Lookup, KeyClass::Audit][usize::from(key.class) - 1];
    let (lineage, slot) = (Lineage::from_bytes(key.lineage), SlotId::from_bytes(key.slot));
    vectors::Key { bytes: key.bytes, lineage, class, slot, generation: key.generation }
}

/// A keyring that the reference has made: the root that is pinned, the one that it endorses if there is one, the key of a partition that nobody uses
/// but for names of scopes, and a data key, maybe of a scope, maybe wrapped by the KEK alone.
#[derive(Clone, Debug)]
struct Made {
    keys: [Key; 4],
    environment: String,
    endorsed: bool,
    scope: Option<String>,
    isolated: bool,
    state: u8,
    nonce: [u8; 24],
    /// Of a kind that nobody knows, in front of each key's wrap.
    unknown: Option<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

fn made() -> impl Strategy<Value = Made> {
    let keys = (any::<[[u8; 32]; 4]>(), any::<[u8; 16]>(), any::<[u8; 16]>(), 1_u32..1 << 30);
    let extensions = btree_map(4_u16..0x8000, vec(any::<u8>(), 0..20), 0..3);
    let scope = prop::option::of(r"\PC{1,20}");
    (
        keys,
        "[a-z0-9_.-]{1,64}",
        scope,
        any::<(bool, bool)>(),
        1_u8..4,
        any::<[u8; 24]>(),
        prop::option::of(3_u8..0x80),
        extensions,
    )
        .prop_map(
            |(
                (bytes, lineage, slot, first),
                environment,
                scope,
                (endorsed, isolated),
                state,
                nonce,
                unknown,
                extensions,
            )| {
                let none = [0; 16];
                let slots = [none, none, none, if scope.is_some() { slot } else { none }];
                let key = |i: usize| Key {
                    bytes: bytes[i],
                    lineage,
                    class: [ROOT, ROOT, LOOKUP, DATA][i],
                    slot: slots[i],
                    generation: first + i as u32,
                };
                let keys = [key(0), key(1), key(2), key(3)];
                // A data key of the keyring itself is never isolated.
                let isolated = isolated && scope.is_some();
                let extensions = extensions.into_iter().collect();
                Made { keys, environment, endorsed, scope, isolated, state, nonce, unknown, extensions }
            },
        )
}

impl Made {
    fn by_kek(&self, kms: &FakeKms, key: &Key) -> Wrap {
        let payload = Secret::with(|payload: &mut [u8; 64]| {
            payload.copy_from_slice(&record::kek_payload(key, &self.environment))
        });
        let context = KmsContext::new(&self.environment, Lineage::from_bytes(key.lineage), to_core(key).key_id());
        assert_eq!(context.pairs(), record::kms_context(key, &self.environment));
        let wrapped = block_on(kms.wrap(WrapRequest::new(&payload, &context))).unwrap();
        Wrap { kind: UNDER_KEK, alias: "kek".to_owned(), version: wrapped.kek_version, bytes: wrapped.bytes }
    }

    /// Of the roots, the lookup key and the data key.
    fn records(&self, kms: &FakeKms) -> Vec<Vec<u8>> {
        let [first, second, names, data] = &self.keys;
        let root = if self.endorsed { second } else { first };
        let scope_tag = self.scope.as_ref().map_or([0; 32], |scope| record::scope_tag(names, scope));
        let record = |key: &Key, root: &Key, wrap: Wrap| {
            let unknown = self.unknown.map(|kind| Wrap {
                kind,
                alias: "Ü".to_owned(),
                version: String::new(),
                bytes: vec![1, 2, 3],
            });
            Record {
                state: if key.class == DATA { self.state } else { 2 },
                key: key.clone(),
                root: root.clone(),
                scope_tag: if key.class == DATA { scope_tag } else { [0; 32] },
                sequence: 1,
                times: [lab::TIME; 3],
                environment: self.environment.clone(),
                wraps: unknown.into_iter().chain([wrap]).collect(),
                endorser: (key.class == ROOT && key.generation == second.generation).then(|| first.clone()),
                extensions: self.extensions.clone(),
            }
            .bytes()
        };
        let of_data = if self.isolated { self.by_kek(kms, data) } else { wrap_by_root(data, root, &self.nonce) };
        let mut nonce = self.nonce;
        nonce[0] ^= 1;
        let mut records = vec![record(first, first, self.by_kek(kms, first))];
        if self.endorsed {
            records.push(record(second, second, self.by_kek(kms, second)));
        }
        records.extend([record(names, root, wrap_by_root(names, root, &nonce)), record(data, root, of_data)]);
        records
    }
}

proptest! {
    #![proptest_config(cases(5000))]

    /// Covers F-7.1-1, F-7.1-2, F-7.1-3, F-7.1-4, F-7.1-5, F-7.1-6, F-7.1-7, F-7.2-1, F-7.2-2, F-7.2-3, F-7.2-4, F-7.2-5, F-7.2-6, F-7.5-1, F-7.5-4,
    /// F-7.5-5.
    #[test]
    fn records_are_written_and_read_alike(record in any_record(), edits in edits(0..3)) {
        let wraps = record.wraps.iter().map(|Wrap { kind, alias, version, bytes }| WrapParts {
            kind: *kind,
            alias: alias.clone(),
            version: version.clone(),
            bytes: bytes.clone(),
        });
        let parts = RecordParts {
            key: to_core(&record.key),
            root: to_core(&record.root),
            state: KeyState::ALL[usize::from(record.state) - 1],
            scope_tag: Some(record.scope_tag),
            sequence: record.sequence,
            times: record.times,
            environment: &record.environment,
            wraps: wraps.collect(),
            endorser: record.endorser.as_ref().map(to_core),
            extensions: record.extensions(),
        };
        let bytes = parts.to_bytes();
        prop_assert_eq!(&bytes, &record.bytes());
        let changed = edited(&bytes, &edits);
        // Of a record that was cut down to nothing there is nothing to say.
        for bytes in [&bytes, &changed] {
            let faults = record::faults(bytes);
            match kind(keyfold::Record::parse(bytes)) {
                Ok(parsed) => {
                    prop_assert!(faults.is_empty(), "{faults:?}");
                    prop_assert_eq!(parsed.as_bytes(), &bytes[..]);
                }
                Err(kind) => prop_assert!(faults.contains(&kind), "{kind:?}, {faults:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(600))]

    /// Covers F-2.1-1, F-2.3-1, F-7.3-2, F-7.3-3, F-7.4-1, F-7.6-2, F-7.6-8.
    #[test]
    fn records_of_the_reference_open_values(made in made(), value_nonce: [u8; 24], flip: (prop::sample::Index, u8)) {
        let mut lab = Lab::new();
        let [first, _, names, data] = &made.keys;
        let records = made.records(&lab.kms);
        lab.store.state().records.clear();
        lab.store.state().scopes.clear();
        for record in &records {
            lab.store.plant(&keyfold::Record::parse(record).unwrap());
        }
        let mut policy = Policy::new();
        let accepted_suites = vec![Suite::Field, Suite::Frame];
        policy.add(FieldPolicy { accepted_suites, max_frame_records: 65_536, ..FieldPolicy::randomized("plain") }).unwrap();
        lab.config = KeyringConfig {
            environment: made.environment.clone(),
            lineage: Lineage::from_bytes(first.lineage),
            root_pins: vec![first.commitment().try_into().unwrap()],
            scope_names: KeyId::from_bytes(names.id().try_into().unwrap()),
            lookup: BTreeMap::new(),
            policy,
            ..lab.config.clone()
        };
        let scope = made.scope.as_deref();
        let process = |lab: &Lab| {
            let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([(alias("kek"), Arc::new(lab.kms.clone()) as Arc<dyn Kms>)]);
            keyfold::Keyring::open(lab.config.clone(), Arc::new(lab.store.clone()), keks, Arc::new(lab.marks.clone())).unwrap()
        };
        let aad = reference::aad(&data.header(1), "plain", &reference::context(&[], None));
        let sealed = reference::seal_field(data, &value_nonce, &aad, b"\x02hello");
        let opens = |lab: &Lab, sealed: &[u8]| kind(decryptor(&process(lab), "plain", scope).and_then(|handle| open(&handle, sealed, None))).map(drop);
        prop_assert_eq!(opens(&lab, &sealed), Ok(()));

        // With its records in a frame, where the store does not have them. The root of an endorsed one stays.
        let frame = record::frame(records.last().unwrap(), &records[records.len() - 3], &sealed);
        prop_assert_eq!(Frame::parse(&frame).unwrap().value(), &sealed[..]);
        let data_id = to_core(data).key_id();
        let kept = lab.store.state().records.remove(&data_id).unwrap();
        // A scope is found by a record of the store, whoever seals in it.
        let in_frame = opens(&lab, &frame);
        prop_assert_eq!(in_frame.is_ok(), scope.is_none(), "{:?}", in_frame);

        // Any bit of the data key's record.
        let mut bytes = kept.as_bytes().to_vec();
        let at = flip.0.index(bytes.len());
        bytes[at] ^= 1 << (flip.1 % 8);
        if let Ok(changed) = keyfold::Record::parse(&bytes) {
            lab.store.plant_as(data_id, &changed);
            prop_assert!(opens(&lab, &sealed).is_err(), "byte {} was changed", at);
        }
    }

    /// The other way round: the reference takes the keys out of records that core has made, and opens what they have sealed.
    #[test]
    fn records_of_core_open_by_the_reference(rotations in 1_usize..3, scope in prop::option::of(r"\PC{1,20}"), text in ".{0,20}") {
        let lab = Lab::new();
        let ring = lab.process();
        for _ in 0..rotations {
            block_on(ring.rotate_data_key(None)).unwrap();
        }
        let sealed = seal(&ring, scope.as_deref(), &text).unwrap();
        let stored = lab.store.find(lab::key_id_of(&sealed));
        let key = record::open(stored.as_bytes(), &known(&lab::root())).expect("the root vouches for it");
        let aad = reference::aad(&key.header(1), "plain", &reference::context(&[], None));
        prop_assert_eq!(reference::open_field(&key, &sealed, &aad), Ok([b"\x02", text.as_bytes()].concat()));
        let names = known(&lab::ours(KeyClass::Lookup, SlotId::NONE, lab::SCOPE_NAMES));
        prop_assert_eq!(stored.scope_tag(), scope.map(|scope| record::scope_tag(&names, &scope)));
    }
}
