//! Values of a keyring whose keys are known: the reference opens what core seals and makes the same bytes of it, core opens what the reference seals,
//! and of what was changed both say the same.

use super::draw::{self, Binding, cases, edited};
use super::reference::{self, Key, Plain};
use super::{agree, context, kind, padding, value};
use crate::common::lab::{DATA, DEFAULT_PARTITION, LOOKUP, Lab, bound, data, ours};
use crate::common::{block_on, open};
use keyfold::wire::{from_text, push_text};
use keyfold::{
    ColumnBytes, Decryptor, Encryptor, ErrorKind, Field, FieldPolicy, KeyClass, Keyring, KeyringConfig, Opened, Policy,
    vectors,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// A key of the lab as the reference has it.
pub(super) fn known(key: &vectors::Key) -> Key {
    Key {
        bytes: key.bytes,
        lineage: *key.lineage.as_bytes(),
        class: key.class.id(),
        slot: *key.slot.as_bytes(),
        generation: key.generation,
    }
}

pub(super) fn ring_with(lab: &Lab, fields: impl IntoIterator<Item = FieldPolicy>) -> Keyring {
    let mut policy = Policy::new();
    fields.into_iter().for_each(|field| policy.add(field).unwrap());
    lab.process_with(KeyringConfig { policy, ..lab.config.clone() })
}

fn canonical(opened: &Opened) -> reference::Canonical {
    (opened.value().value_type() as u8, vectors::canonical(opened.value()))
}

/// Suite 01: a field that is bound to its row if the binding says so, of the keyring itself or of a scope.
struct Randomised {
    key: Key,
    aad: Vec<u8>,
    field: Field,
    row: Option<Vec<u8>>,
}

impl Randomised {
    fn new(binding: &Binding, padding: keyfold::Padding, scoped: bool) -> Self {
        let lab = Lab::new();
        let policy = if binding.row.is_some() { bound(&binding.name) } else { FieldPolicy::randomized(&binding.name) };
        let ring = ring_with(&lab, [FieldPolicy { padding, ..policy }]);
        let field = ring.field(&binding.name).unwrap().context(context(&binding.pairs).unwrap());
        let (key, field) = if scoped {
            (known(&lab.add_scope("clinic", DATA + 1).key), field.scope("clinic"))
        } else {
            (known(&data(DATA)), field)
        };
        let bound = reference::context(&binding.pairs, binding.row.as_deref());
        let aad = reference::aad(&key.header(1), &binding.name, &bound);
        Self { key, aad, field, row: binding.row.clone() }
    }

    fn encryptor(&self) -> Encryptor {
        block_on(self.field.clone().encryptor()).unwrap()
    }

    fn open(&self, sealed: &[u8]) -> Result<Opened, ErrorKind> {
        kind(open(&block_on(self.field.clone().decryptor()).unwrap(), sealed, self.row.as_deref()))
    }
}

/// Suite 02: a field by itself or of a join group.
struct Deterministic {
    key: Key,
    strings: [Vec<u8>; 3],
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl Deterministic {
    fn new(binding: &Binding, group: Option<&str>, padding: keyfold::Padding) -> Self {
        let policy = FieldPolicy::deterministic(&binding.name, "default", group);
        let ring = ring_with(
            &Lab::new(),
            [FieldPolicy {
                padding: if group.is_some() { keyfold::Padding::None } else { padding },
                value_type: group.map(|_| keyfold::ValueType::Text),
                ..policy
            }],
        );
        let field = ring.field(&binding.name).unwrap().context(context(&binding.pairs).unwrap());
        let key = known(&ours(KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP));
        let (of, name) = group.map_or((reference::FIELD, &*binding.name), |group| (reference::JOIN_GROUP, group));
        let strings = reference::strings(&key, of, name, &binding.pairs);
        let (encryptor, decryptor) = (block_on(field.clone().encryptor()), block_on(field.decryptor()));
        Self { key, strings, encryptor: encryptor.unwrap(), decryptor: decryptor.unwrap() }
    }
}

/// §9.1: what a change of the bit `bit` of a value comes to.
fn class_of_flip(sealed: &[u8], bit: usize) -> ErrorKind {
    match bit / 8 {
        0 => ErrorKind::Malformed,
        1 if (1..=3).contains(&(sealed[1] ^ 1 << (bit % 8))) => ErrorKind::PolicyRefused,
        1 => ErrorKind::Unsupported,
        2..=25 => ErrorKind::NoMatchingKey,
        _ => ErrorKind::DecryptionFailed,
    }
}

/// §9.1 of any bytes: classes of steps 5 to 12 for a field that accepts `suite` alone.
fn class_of(
    suite: u8,
    key: &Key,
    bytes: &[u8],
    opens: impl FnOnce(&[u8]) -> Option<reference::Canonical>,
) -> Result<reference::Canonical, ErrorKind> {
    // Of frames nothing is looked at where the policy does not accept them (§14.2).
    if bytes.starts_with(&[0xF5, 3]) {
        return Err(ErrorKind::PolicyRefused);
    }
    let (found, key_id) = reference::read_header(bytes)?;
    if found != suite {
        return Err(ErrorKind::PolicyRefused);
    }
    if key_id != key.id() {
        return Err(ErrorKind::NoMatchingKey);
    }
    opens(bytes).ok_or(ErrorKind::DecryptionFailed)
}

proptest! {
    #![proptest_config(cases(800))]

    /// Covers F-4.1-1, F-4.3-1, F-4.5-1.
    #[test]
    fn suite_01_both_ways(
        binding in draw::binding(), plain in draw::plain(), other in draw::plain(), pads in (draw::padding(), draw::padding()),
        scoped: bool, nonce: [u8; 24],
    ) {
        let site = Randomised::new(&binding, padding(pads.0), scoped);
        let encoded = reference::encode(&reference::canonical(&plain), pads.0);
        let sealed = site.encryptor().encrypt(value(&plain), site.row.as_deref()).unwrap();
        prop_assert_eq!(sealed.len(), 66 + encoded.len());
        prop_assert_eq!(reference::open_field(&site.key, &sealed, &site.aad), Ok(encoded.clone()));
        prop_assert_eq!(&reference::seal_field(&site.key, &sealed[26..50], &site.aad, &encoded), &sealed);
        // A reader does not ask which padding the policy has now.
        let theirs = reference::seal_field(&site.key, &nonce, &site.aad, &reference::encode(&reference::canonical(&other), pads.1));
        prop_assert_eq!(site.open(&theirs).map(|opened| canonical(&opened)), Ok(reference::canonical(&other)));
    }

    /// Covers F-4.4-2.
    #[test]
    fn each_row_of_a_column_is_a_value(
        binding in draw::binding(), plain in proptest::collection::vec(draw::plain(), 1..6), pad in draw::padding(), scoped: bool,
    ) {
        let site = Randomised::new(&binding, padding(pad), scoped);
        let values: Vec<_> = plain.iter().map(value).collect();
        let rows: Option<Vec<&[u8]>> = site.row.as_deref().map(|row| vec![row; values.len()]);
        let column = site.encryptor().encrypt_column(&values[..], rows.as_deref()).unwrap();
        let mut nonces = std::collections::HashSet::new();
        for (row, plain) in plain.iter().enumerate() {
            let sealed = column.bytes(row);
            let encoded = reference::encode(&reference::canonical(plain), pad);
            prop_assert_eq!(&reference::seal_field(&site.key, &sealed[26..50], &site.aad, &encoded), sealed);
            prop_assert_eq!(&sealed[26..38], &column.bytes(0)[26..38], "one batch, one prefix");
            prop_assert!(nonces.insert(&sealed[38..50]), "a nonce came twice");
        }
    }

    /// Covers F-5.1-1, F-5.2-1.
    #[test]
    fn suite_02_both_ways(binding in draw::binding(), plain in draw::plain(), pads in (draw::padding(), draw::padding())) {
        let site = Deterministic::new(&binding, None, padding(pads.0));
        let sealed = site.encryptor.encrypt(value(&plain), None).unwrap();
        let encoded = reference::encode(&reference::canonical(&plain), pads.0);
        prop_assert_eq!(&sealed, &reference::seal_deterministic(&site.key, &site.strings, &encoded));
        prop_assert_eq!(reference::open_deterministic(&site.key, &sealed, &site.strings), Ok(encoded));
        let theirs = reference::seal_deterministic(&site.key, &site.strings, &reference::encode(&reference::canonical(&plain), pads.1));
        prop_assert_eq!(canonical(&open(&site.decryptor, &theirs, None).unwrap()), reference::canonical(&plain));
    }

    /// Equal values with equal name and context, and only these, have equal bytes; fields of a join group have one name.
    /// Covers F-5.2-1.
    #[test]
    fn of_suite_02_equal_values_have_equal_bytes(
        a in draw::binding_of_few(), b in draw::binding_of_few(), texts in ("[ab]{0,2}", "[ab]{0,2}"), groups: (bool, bool),
    ) {
        let group = |joined: bool| joined.then_some("ab");
        let seal = |binding, joined, text: &str| {
            let site = Deterministic::new(binding, group(joined), keyfold::Padding::None);
            let sealed = site.encryptor.encrypt(keyfold::Value::Text(text), None).unwrap();
            assert_eq!(sealed, reference::seal_deterministic(&site.key, &site.strings, &[b"\x02", text.as_bytes()].concat()));
            sealed
        };
        let name = |binding: &Binding, joined: bool| (joined, if joined { "ab".to_owned() } else { binding.name.clone() });
        let same = texts.0 == texts.1 && name(&a, groups.0) == name(&b, groups.1) && a.pairs == b.pairs;
        prop_assert_eq!(seal(&a, groups.0, &texts.0) == seal(&b, groups.1, &texts.1), same);
    }

    /// What authenticates and is no encoded value: the padding is looked at behind the tag.
    /// Covers F-4.2-2, F-4.2-3, F-8.1-12.
    #[test]
    fn sealed_bytes_that_are_no_value_are_refused(
        binding in draw::binding(), plain in draw::plain(), pad in draw::padding(), nonce: [u8; 24], edits in draw::edits(0..3),
    ) {
        let encoded = edited(&reference::encode(&reference::canonical(&plain), pad), &edits);
        prop_assume!(!encoded.is_empty());
        let expected = reference::decode(&encoded).ok_or(ErrorKind::DecryptionFailed);
        let site = Randomised::new(&binding, keyfold::Padding::None, false);
        let sealed = reference::seal_field(&site.key, &nonce, &site.aad, &encoded);
        prop_assert_eq!(site.open(&sealed).map(|opened| canonical(&opened)), expected.clone());
        let site = Deterministic::new(&binding, None, keyfold::Padding::None);
        let sealed = reference::seal_deterministic(&site.key, &site.strings, &encoded);
        prop_assert_eq!(kind(open(&site.decryptor, &sealed, None)).map(|opened| canonical(&opened)), expected);
    }

    /// Covers F-9.1-1.
    #[test]
    fn another_binding_opens_nothing(a in draw::binding_of_few(), b in draw::binding_of_few(), scopes: (bool, bool)) {
        let (sealer, reader) = (Randomised::new(&a, keyfold::Padding::None, scopes.0), Randomised::new(&b, keyfold::Padding::None, scopes.1));
        let sealed = sealer.encryptor().encrypt(keyfold::Value::Null, a.row.as_deref()).unwrap();
        let expected = if scopes.0 != scopes.1 {
            // The key is of the store of the first lab where it is a scope's.
            Err(if scopes.0 { ErrorKind::NoMatchingKey } else { ErrorKind::WrongScope })
        } else if a != b {
            Err(ErrorKind::DecryptionFailed)
        } else {
            Ok((0x0A, Vec::new()))
        };
        prop_assert_eq!(reader.open(&sealed).map(|opened| canonical(&opened)), expected);
    }

    /// One bit, in the bytes and in their text.
    /// Covers F-9.1-1, F-9.2-1.
    #[test]
    fn whatever_bit_is_flipped_is_refused(binding in draw::binding(), plain in draw::plain(), pad in draw::padding(), bits: [Index; 8]) {
        let randomised = Randomised::new(&binding, padding(pad), false);
        let deterministic = Deterministic::new(&binding, None, padding(pad));
        let open_randomised = |bytes: &[u8]| randomised.open(bytes).map(drop);
        let open_deterministic = |bytes: &[u8]| kind(open(&deterministic.decryptor, bytes, None)).map(drop);
        let sealed = [
            randomised.encryptor().encrypt(value(&plain), binding.row.as_deref()).unwrap(),
            deterministic.encryptor.encrypt(value(&plain), None).unwrap(),
        ];
        for (sealed, open) in sealed.iter().zip([&open_randomised as &dyn Fn(&[u8]) -> Result<(), ErrorKind>, &open_deterministic]) {
            prop_assert_eq!(open(sealed), Ok(()));
            let mut text = Vec::new();
            push_text(sealed, &mut text).unwrap();
            for bit in bits {
                // Half of them where the header is.
                let at = bit.index(2 * sealed.len() * 8);
                let at = if at < sealed.len() * 8 { at } else { at % (60 * 8) % (sealed.len() * 8) };
                let mut changed = sealed.clone();
                changed[at / 8] ^= 1 << (at % 8);
                prop_assert_eq!(open(&changed), Err(class_of_flip(sealed, at)), "bit {}", at);
                let at = bit.index(text.len() * 8);
                let mut changed = text.clone();
                changed[at / 8] ^= 1 << (at % 8);
                let mut bytes = Vec::new();
                prop_assert!(from_text(&changed, &mut bytes).is_err() || open(&bytes).is_err(), "bit {} of the text", at);
            }
        }
    }

    /// Any changes, of which the reference says what they come to.
    /// Covers F-8.1-8, F-8.1-11.
    #[test]
    fn changed_values_are_refused_alike(binding in draw::binding(), plain in draw::plain(), pad in draw::padding(), nonce: [u8; 24], edits in draw::edits(1..4)) {
        let encoded = reference::encode(&reference::canonical(&plain), pad);
        let site = Randomised::new(&binding, keyfold::Padding::None, false);
        let changed = edited(&reference::seal_field(&site.key, &nonce, &site.aad, &encoded), &edits);
        let expected = class_of(1, &site.key, &changed, |bytes| reference::decode(&reference::open_field(&site.key, bytes, &site.aad).ok()?));
        let found = site.open(&changed).map(|opened| canonical(&opened));
        prop_assert!(agree(&changed, &found, &expected), "{found:?}, {expected:?}");
        let site = Deterministic::new(&binding, None, keyfold::Padding::None);
        let changed = edited(&reference::seal_deterministic(&site.key, &site.strings, &encoded), &edits);
        let expected = class_of(2, &site.key, &changed, |bytes| reference::decode(&reference::open_deterministic(&site.key, bytes, &site.strings).ok()?));
        let found = kind(open(&site.decryptor, &changed, None)).map(|opened| canonical(&opened));
        prop_assert!(agree(&changed, &found, &expected), "{found:?}, {expected:?}");
    }
}

/// The reference is bound to as much as core: with another key, name or row it opens nothing.
#[test]
fn the_reference_refuses_too() {
    let binding = Binding { name: "f".to_owned(), pairs: Vec::new(), row: None };
    let site = Randomised::new(&binding, keyfold::Padding::None, false);
    let sealed = site.encryptor().encrypt(value(&Plain::Null), None).unwrap();
    let other = Key { generation: 1, ..site.key.clone() };
    assert_eq!(reference::open_field(&other, &sealed, &site.aad), Err(ErrorKind::NoMatchingKey));
    let aad = reference::aad(&site.key.header(1), "g", &reference::context(&[], None));
    assert_eq!(reference::open_field(&site.key, &sealed, &aad), Err(ErrorKind::DecryptionFailed));
}
