//! What hostile frames come to: the table of FORMAT.md §9.4, byte by byte, and mutations.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[allow(dead_code, reason = "shared with the other tests of hostile bytes")]
#[path = "support/hostile.rs"]
mod support;
#[allow(dead_code, reason = "shared with the test of the vectors")]
#[path = "support/world.rs"]
mod world;

use keyfold::aead::Backend;
use keyfold::wire::{Frame, Suite};
use keyfold::{ErrorKind, KmsErrorKind, Padding, Value, vectors};
use std::collections::BTreeMap;
use support::{MAX_EXTRA_ALLOCATION, allocated, class_of_record_byte, generator, mutate};
use world::{ENVIRONMENT, Opening, World, bytes, members, open_with};

/// A frame around a text of the field `patient.ssn`, and a world whose store has neither its key nor its root.
struct Framed {
    world: World,
    opening: Opening,
    bytes: Vec<u8>,
}

impl Framed {
    fn new() -> Self {
        let members = members();
        let find = |name: &str| members.iter().find(|m| m.name == name).unwrap();
        let (data, root) = (find("data"), find("root-1"));
        let opening = Opening {
            field: "patient.ssn".into(),
            row: Some(b"row-1".to_vec()),
            row_bound: true,
            accept: vec![Suite::Field, Suite::Frame],
            ..Opening::default()
        };
        let header = data.key.header(Suite::Field);
        let aad = vectors::aad(&header, "patient.ssn", &opening.context(), opening.row.as_deref()).unwrap();
        let encoded = vectors::encode(Value::Text("123-45-6789"), Padding::None).unwrap();
        let value = data.key.seal_field(Backend::default(), &bytes("hostile frame"), &aad, &encoded).unwrap();
        let each = |record: Vec<u8>| [&(record.len() as u16).to_be_bytes()[..], &record].concat();
        let records = [each(data.parts.to_bytes()), each(root.parts.to_bytes())].concat();
        let head = [&data.key.header(Suite::Frame)[..], &(records.len() as u32).to_be_bytes()].concat();
        let mut world = World::generated();
        for member in [data, root] {
            world.store.0.remove(&member.key.key_id());
        }
        Self { world, opening, bytes: [head, records, value].concat() }
    }

    /// Opens it with a new keyring, so that nothing is in memory.
    fn open(&self, bytes: &[u8]) -> Option<ErrorKind> {
        self.opening.open(&self.world, bytes).err().map(|error| error.kind())
    }

    /// Where each part starts: length of the first record, first record, length of the second, second, value.
    fn places(&self) -> [usize; 5] {
        let frame = Frame::parse(&self.bytes).unwrap();
        let second = 32 + frame.record().len();
        [30, 32, second, second + 2, second + 2 + frame.root_record().len()]
    }
}

/// FORMAT.md §9.4: what a change of the byte at `at` comes to.
fn class_of_frame_byte(
    at: usize,
    bytes: &[u8],
    [first_len, first, second_len, second, value]: [usize; 5],
) -> Vec<ErrorKind> {
    use ErrorKind::{DecryptionFailed, Malformed, NoMatchingKey, PolicyRefused, Unsupported};
    let one = |kind| vec![kind];
    match at {
        // As a value of suite 01 it is one of a key that the store does not have.
        1 if bytes[1] == 1 => one(NoMatchingKey),
        1 if bytes[1] == 2 => one(PolicyRefused),
        1 => one(Unsupported),
        _ if at < first_len => one(Malformed),
        _ if at < first || (second_len..second).contains(&at) => one(Malformed),
        _ if at < second_len => class_of_record_byte(at - first, &bytes[first..second_len], ENVIRONMENT.len()).to_vec(),
        _ if at < value => class_of_root_byte(at - second, &bytes[second..value]),
        _ => match at - value {
            1 if bytes[at] == 2 => one(PolicyRefused),
            1 if bytes[at] != 3 => one(Unsupported),
            0..=25 => one(Malformed),
            _ => one(DecryptionFailed),
        },
    }
}

/// §9.4 again: in the record of a pinned root with one wrap.
fn class_of_root_byte(at: usize, record: &[u8]) -> Vec<ErrorKind> {
    use ErrorKind::{Configuration, KeyState, Malformed, RecordRejected, Unsupported};
    let kms = |kind| ErrorKind::Kms(kind);
    let (wrong_key, bad) = (kms(KmsErrorKind::WrongKey), kms(KmsErrorKind::InvalidCiphertext));
    let wrap = 183 + ENVIRONMENT.len() + 1;
    let (alias, version) = (wrap + 2, wrap + 2 + 5 + 1);
    let wrapped = version + 16 + 2;
    match at {
        5 if matches!(record[5], 4 | 5) => vec![KeyState],
        6..=9 if record[6..10] == [0; 4] => vec![Malformed],
        102..=117 => vec![bad],
        _ if at < wrap => class_of_record_byte(at, record, ENVIRONMENT.len()).to_vec(),
        _ if at < alias => vec![Malformed, Unsupported, Configuration],
        _ if at < alias + 5 => vec![Malformed, Configuration],
        _ if at == version - 1 => vec![Malformed, Unsupported],
        _ if at < wrapped - 2 => vec![Malformed, wrong_key],
        _ if at < wrapped => vec![Malformed, Unsupported],
        _ if at < wrapped + 72 => vec![bad],
        // Endorsement flag and length of the extensions.
        _ if at < wrapped + 75 => vec![Malformed],
        _ => vec![RecordRejected],
    }
}

/// Covers F-9.3-1, F-9.4-1.
// Failures C1, C2
#[test]
fn every_truncation_and_every_flipped_bit_of_a_frame() {
    let framed = Framed::new();
    let places = framed.places();
    assert_eq!(framed.open(&framed.bytes), None);
    for len in 0..framed.bytes.len() {
        let expected = if len < places[4] + 67 { ErrorKind::Malformed } else { ErrorKind::DecryptionFailed };
        assert_eq!(framed.open(&framed.bytes[..len]), Some(expected), "the first {len} bytes");
    }
    for bit in 0..framed.bytes.len() * 8 {
        let mut bytes = framed.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = framed.open(&bytes).unwrap_or_else(|| panic!("bit {bit} (byte {}): accepted", bit / 8));
        let allowed = class_of_frame_byte(bit / 8, &bytes, places);
        assert!(allowed.contains(&found), "bit {bit} (byte {}): {found:?}, not one of {allowed:?}", bit / 8);
    }
}

/// Covers F-9.4-1.
// Failure C7
#[test]
fn every_suite_of_a_frame_and_of_what_is_in_it() {
    let framed = Framed::new();
    let places = framed.places();
    for at in [1, places[4] + 1] {
        for suite in (0..=255).filter(|&suite| suite != framed.bytes[at]) {
            let mut bytes = framed.bytes.clone();
            bytes[at] = suite;
            assert_eq!(framed.open(&bytes), Some(class_of_frame_byte(at, &bytes, places)[0]), "byte {at}: {suite:02x}");
        }
    }
}

// Failure C13
#[test]
fn lengths_at_extremes_allocate_little() {
    let framed = Framed::new();
    let [first, _, second, ..] = framed.places();
    let decryptor = framed.opening.decryptor(&framed.world).unwrap();
    let open = |bytes: &[u8]| allocated(|| open_with(&decryptor, bytes, framed.opening.row.as_deref()).map(drop));
    let mut frames = Vec::new();
    for number in [0, 1, 3, 4, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x1_0001, 0x7FFF_FFFF, 0x8000_0000, u32::MAX] {
        for (at, len) in [(26, 4), (first, 2), (second, 2)] {
            let mut bytes = framed.bytes.clone();
            bytes[at..at + len].copy_from_slice(&number.to_be_bytes()[4 - len..]);
            frames.push((bytes, ErrorKind::Malformed));
        }
    }
    // The longest frame that there can be, and a byte more.
    let places = framed.places();
    let mut longest = framed.bytes.clone();
    longest.resize(places[4] + 66 + keyfold::wire::MAX_ENCODED_LEN, 0);
    frames.push((longest.clone(), ErrorKind::DecryptionFailed));
    longest.push(0);
    frames.push((longest, ErrorKind::Malformed));
    for (bytes, expected) in frames {
        let (result, extra) = open(&bytes);
        assert_eq!(result.err().map(|error| error.kind()), Some(expected), "{} bytes", bytes.len());
        assert!(extra <= bytes.len() + MAX_EXTRA_ALLOCATION, "{extra} bytes for a frame of {}", bytes.len());
    }
}

#[test]
fn mutations_neither_panic_nor_open_another_value() {
    const MUTATION_COUNT: usize = 200_000;
    let framed = Framed::new();
    let others: Vec<Vec<u8>> = members().iter().map(|m| m.parts.to_bytes()).collect();
    let mut draw = generator("frame mutation v1");
    let (mut seen, mut worst) = (BTreeMap::new(), 0);
    let mut decryptor = framed.opening.decryptor(&framed.world).unwrap();
    for i in 0..MUTATION_COUNT {
        if i % 500 == 0 {
            // A keyring slows down when too many frames in a row are refused.
            decryptor = framed.opening.decryptor(&framed.world).unwrap();
        }
        let bytes = mutate(&framed.bytes, &others[draw() as usize % others.len()], &mut draw);
        if bytes == framed.bytes {
            continue;
        }
        let open = || open_with(&decryptor, &bytes, framed.opening.row.as_deref()).map(drop);
        let (outcome, extra) = allocated(open);
        worst = worst.max(extra.saturating_sub(bytes.len()));
        let kind = outcome.err().unwrap_or_else(|| panic!("mutation {i} was accepted")).kind();
        *seen.entry(kind.name()).or_insert(0) += 1;
    }
    println!("{seen:?}, at most {worst} bytes allocated beyond the input");
    assert!(worst <= MAX_EXTRA_ALLOCATION, "{worst}");
    let expected = [
        "Configuration",
        "DecryptionFailed",
        "InvalidCiphertext",
        "KeyState",
        "LimitExceeded",
        "Malformed",
        "NoMatchingKey",
        "PolicyRefused",
        "RecordRejected",
        "Unsupported",
        "WrongKey",
    ];
    assert!(seen.keys().all(|kind| expected.contains(kind)), "{seen:?}");
    assert!(["DecryptionFailed", "RecordRejected", "Malformed"].iter().all(|kind| seen.contains_key(kind)), "{seen:?}");
}
