//! What hostile bytes come to: the table of FORMAT.md §9, byte by byte, and a million mutations.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "support/hostile.rs"]
mod support;
#[allow(dead_code, reason = "shared with the test of the vectors")]
#[path = "support/world.rs"]
mod world;

use keyfold::aead::Backend;
use keyfold::testing::block_on;
use keyfold::vectors;
use keyfold::wire::{self, Suite};
use keyfold::{
    BoxFuture, ErrorKind, FieldPolicy, KeyStore, Lineage, Padding, Policy, Record, RecordChange, Result, Slot, SlotId,
    Value,
};
use std::sync::Arc;
use support::{MAX_EXTRA_ALLOCATION, allocated, class_of_record_byte, generator, mutate};
use world::{BytesStore, Opening, World, bytes, members, open_with};

struct Sealed {
    opening: Opening,
    bytes: Vec<u8>,
    body_at: usize,
    min_len: usize,
}

fn seal(suite: Suite, name: &str, value: &str, seed: &str) -> Sealed {
    let members = members();
    let key = |name: &str| members.iter().find(|m| m.name == name).unwrap().key;
    let encoded = vectors::encode(Value::Text(value), Padding::None).unwrap();
    let mut opening = Opening { field: name.into(), ..Opening::default() };
    match suite {
        Suite::Deterministic => {
            opening.partition = Some("default".into());
            let key = key("lookup-default");
            let strings = vectors::strings(&key.header(suite), false, name, &opening.context()).unwrap();
            Sealed { bytes: key.seal_deterministic(&strings, &encoded).unwrap(), opening, body_at: 42, min_len: 43 }
        }
        _ => {
            (opening.row, opening.row_bound) = (Some(b"row-1".to_vec()), true);
            let key = key("data");
            let aad = vectors::aad(&key.header(suite), name, &opening.context(), opening.row.as_deref()).unwrap();
            let sealed = key.seal_field(Backend::default(), &bytes(seed), &aad, &encoded).unwrap();
            Sealed { bytes: sealed, opening, body_at: 50, min_len: 67 }
        }
    }
}

fn both() -> [Sealed; 2] {
    [Suite::Field, Suite::Deterministic].map(|suite| seal(suite, "patient.ssn", "123-45-6789", "hostile"))
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

/// FORMAT.md §9.1: what a change of the byte at `at` comes to.
fn class_of_byte(at: usize, bytes: &[u8]) -> ErrorKind {
    match at {
        0 => ErrorKind::Malformed,
        1 if matches!(bytes[1], 1..=3) => ErrorKind::PolicyRefused,
        1 => ErrorKind::Unsupported,
        2..=25 => ErrorKind::NoMatchingKey,
        _ => ErrorKind::DecryptionFailed,
    }
}

/// Covers F-9.1-1.
// Failures C1, C2, C7, C18
#[test]
fn every_truncation_and_every_flipped_bit_of_a_value() {
    let world = World::generated();
    for sealed in both() {
        let decryptor = sealed.opening.decryptor(&world).unwrap();
        let open = |bytes: &[u8]| open_with(&decryptor, bytes, sealed.opening.row.as_deref());
        assert_eq!(open(&sealed.bytes).unwrap(), ("text", b"123-45-6789".to_vec()));
        for len in 0..sealed.bytes.len() {
            let expected = if len < sealed.min_len { ErrorKind::Malformed } else { ErrorKind::DecryptionFailed };
            assert_eq!(kind(open(&sealed.bytes[..len])), Some(expected), "the first {len} bytes");
        }
        for bit in 0..sealed.bytes.len() * 8 {
            let mut bytes = sealed.bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(kind(open(&bytes)), Some(class_of_byte(bit / 8, &bytes)), "bit {bit}");
        }
        // Every value of the suite byte.
        for suite in (0..=255).filter(|&suite| suite != sealed.bytes[1]) {
            let mut bytes = [&sealed.bytes[..], &[0; 32]].concat();
            bytes[1] = suite;
            assert_eq!(kind(open(&bytes)), Some(class_of_byte(1, &bytes)), "suite {suite:02x}");
        }
        assert!(sealed.bytes.len() > sealed.body_at);
    }
}

fn from_text(text: &[u8]) -> Result<Vec<u8>> {
    let mut out = b"kept".to_vec();
    let result = wire::from_text(text, &mut out);
    assert!(out.starts_with(b"kept") && (result.is_ok() || out == b"kept"), "a refused text leaves something behind");
    result.map(|()| out.split_off(4))
}

/// Covers F-9.2-1, F-6-4.
// Failures C1, C2
#[test]
fn every_truncation_and_every_flipped_bit_of_a_text() {
    let world = World::generated();
    for sealed in both() {
        let decryptor = sealed.opening.decryptor(&world).unwrap();
        let open = |text: &[u8]| open_with(&decryptor, &from_text(text)?, sealed.opening.row.as_deref());
        let mut text = Vec::new();
        wire::push_text(&sealed.bytes, &mut text).unwrap();
        assert_eq!(open(&text).unwrap(), ("text", b"123-45-6789".to_vec()));
        for len in 0..text.len() {
            let allowed = if len < wire::text_len(sealed.min_len) {
                [ErrorKind::Malformed; 2]
            } else {
                // A cut within a byte leaves stray bits, unless they happen to be zero.
                [ErrorKind::Malformed, ErrorKind::DecryptionFailed]
            };
            assert!(allowed.contains(&kind(open(&text[..len])).unwrap()), "the first {len} characters");
        }
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // §9.2: no text of any value, or the class of the first byte that it changes.
            let expected = match from_text(&changed) {
                Err(error) => {
                    let suite = (4..6).contains(&(bit / 8))
                        && changed[4..6].iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
                    assert_eq!(
                        error.kind(),
                        if suite { ErrorKind::Unsupported } else { ErrorKind::Malformed },
                        "bit {bit}"
                    );
                    error.kind()
                }
                Ok(bytes) => {
                    let at = bytes.iter().zip(&sealed.bytes).position(|(a, b)| a != b).expect("one text per value");
                    class_of_byte(at, &bytes)
                }
            };
            assert_eq!(kind(open(&changed)), Some(expected), "bit {bit}");
        }
    }
}

/// Covers F-9.3-1.
// Failures C1, C2
#[test]
fn every_truncation_and_every_flipped_bit_of_a_record() {
    let mut world = World::generated();
    let (opening, sealed) = {
        let s = seal(Suite::Field, "patient.ssn", "123-45-6789", "hostile");
        (s.opening, s.bytes)
    };
    let key_id = members().iter().find(|m| m.name == "data").unwrap().key.key_id();
    let good = world.store.0[&key_id].clone();
    assert_eq!(good.len(), 183 + world::ENVIRONMENT.len() + 113);
    let mut open = |record: &[u8]| {
        world.store.0.insert(key_id, record.to_vec());
        kind(opening.open(&world, &sealed))
    };
    assert_eq!(open(&good), None);
    for len in 0..good.len() {
        assert_eq!(open(&good[..len]), Some(ErrorKind::Malformed), "the first {len} bytes");
    }
    for bit in 0..good.len() * 8 {
        let mut record = good.clone();
        record[bit / 8] ^= 1 << (bit % 8);
        let found = open(&record).unwrap_or_else(|| panic!("bit {bit}: accepted"));
        let allowed = class_of_record_byte(bit / 8, &record, world::ENVIRONMENT.len());
        assert!(allowed.contains(&found), "bit {bit} (byte {}): {found:?}, not one of {allowed:?}", bit / 8);
    }
}

// Failure C13
#[test]
fn hostile_lengths_allocate_little() {
    let world = World::generated();
    for sealed in both() {
        let decryptor = sealed.opening.decryptor(&world).unwrap();
        // The longest that is accepted as a value, and one byte more.
        let longest = sealed.min_len - 1 + wire::MAX_ENCODED_LEN;
        for (len, expected) in [(longest, ErrorKind::DecryptionFailed), (longest + 1, ErrorKind::Malformed)] {
            let mut long = sealed.bytes.clone();
            long.resize(len, 0);
            let (result, extra) = allowed(&decryptor, &long, sealed.opening.row.as_deref());
            assert_eq!(kind(result), Some(expected), "{len} bytes");
            assert!(extra <= len + MAX_EXTRA_ALLOCATION, "{extra} bytes for an input of {len}");
        }
    }
}

fn allowed(decryptor: &keyfold::Decryptor, bytes: &[u8], row: Option<&[u8]>) -> (Result<()>, usize) {
    allocated(|| open_with(decryptor, bytes, row).map(drop))
}

// Failures C3, C6
#[test]
fn a_million_mutations_neither_panic_nor_open() {
    const MUTATION_COUNT: usize = 1_000_000;
    let world = World::generated();
    let mut draw = generator("dev mutation v1");
    let mut seen = std::collections::BTreeMap::new();
    let values = both();
    let others = [Suite::Field, Suite::Deterministic]
        .map(|suite| seal(suite, "patient.mrn", "a longer value, elsewhere", "other").bytes);
    let text_of = |bytes: &[u8]| {
        let mut t = Vec::new();
        wire::push_text(bytes, &mut t).unwrap();
        t
    };
    let records: Vec<Vec<u8>> = world.store.0.values().cloned().collect();
    let targets: Vec<_> = values
        .iter()
        .zip(&others)
        .map(|(sealed, other)| {
            (sealed, other, text_of(&sealed.bytes), text_of(other), sealed.opening.decryptor(&world).unwrap())
        })
        .collect();
    let mut worst = 0;
    for i in 0..MUTATION_COUNT {
        let (sealed, other, text, other_text, decryptor) = &targets[i / 5 % 2];
        let row = sealed.opening.row.as_deref();
        let (outcome, extra) = match i % 5 {
            0..=1 => {
                let bytes = mutate(&sealed.bytes, other, &mut draw);
                if bytes == sealed.bytes {
                    continue;
                }
                let (outcome, extra) = allowed(decryptor, &bytes, row);
                (outcome, extra.saturating_sub(bytes.len()))
            }
            2..=3 => {
                let bytes = mutate(text, other_text, &mut draw);
                if bytes == *text {
                    continue;
                }
                let (outcome, extra) =
                    allocated(|| from_text(&bytes).and_then(|b| open_with(decryptor, &b, row)).map(drop));
                (outcome, extra.saturating_sub(bytes.len()))
            }
            _ => {
                let (a, b) = (draw() as usize % records.len(), draw() as usize % records.len());
                let bytes = mutate(&records[a], &records[b], &mut draw);
                let (parsed, extra) = allocated(|| Record::parse(&bytes));
                // Parsing decides about the layout alone: what it accepts is exactly what it writes.
                if let Ok(record) = &parsed {
                    assert_eq!(record.as_bytes(), bytes);
                    continue;
                }
                (parsed.map(drop), extra.saturating_sub(bytes.len()))
            }
        };
        worst = worst.max(extra);
        let kind = kind(outcome).unwrap_or_else(|| panic!("mutation {i} was accepted"));
        *seen.entry(kind.name()).or_insert(0) += 1;
    }
    println!("{seen:?}, at most {worst} bytes allocated beyond the input");
    assert!(worst <= MAX_EXTRA_ALLOCATION, "{worst}");
    let expected = ["DecryptionFailed", "Malformed", "NoMatchingKey", "PolicyRefused", "Unsupported"];
    assert!(seen.keys().all(|kind| expected.contains(kind)), "{seen:?}");
}

#[test]
fn mutated_records_never_open_a_value() {
    const MUTATION_COUNT: usize = 50_000;
    let mut world = World::generated();
    let sealed = seal(Suite::Field, "patient.ssn", "123-45-6789", "hostile");
    let key_id = members().iter().find(|m| m.name == "data").unwrap().key.key_id();
    let records: Vec<Vec<u8>> = world.store.0.values().cloned().collect();
    let good = world.store.0[&key_id].clone();
    let mut draw = generator("record mutation v1");
    for i in 0..MUTATION_COUNT {
        let other = &records[draw() as usize % records.len()];
        let record = mutate(&good, other, &mut draw);
        if record == good {
            continue;
        }
        world.store.0.insert(key_id, record);
        let found =
            kind(sealed.opening.open(&world, &sealed.bytes)).unwrap_or_else(|| panic!("mutation {i} was accepted"));
        let allowed = [ErrorKind::Malformed, ErrorKind::Unsupported, ErrorKind::RecordRejected];
        assert!(allowed.contains(&found), "mutation {i}: {found:?}");
    }
}

/// Answers `newest` with what it is told to, and everything else honestly.
struct LyingStore {
    honest: BytesStore,
    newest: Vec<Record>,
}

impl KeyStore for LyingStore {
    fn get(&self, lineage: Lineage, key_id: wire::KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.honest.get(lineage, key_id)
    }
    fn newest(&self, _: Slot, _: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async { Ok(self.newest.clone()) })
    }
    fn scope_by_tag(&self, lineage: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.honest.scope_by_tag(lineage, tag)
    }
    fn list(&self, lineage: Lineage, after: Option<wire::KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.honest.list(lineage, after, limit)
    }
    fn allocate_generation(&self, lineage: Lineage, above: u32) -> BoxFuture<'_, Result<u32>> {
        self.honest.allocate_generation(lineage, above)
    }
    fn insert<'a>(&'a self, record: &'a Record, head: Option<wire::KeyId>) -> BoxFuture<'a, Result<()>> {
        self.honest.insert(record, head)
    }
    fn update<'a>(&'a self, record: &'a Record, sequence: u64) -> BoxFuture<'a, Result<()>> {
        self.honest.update(record, sequence)
    }
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<wire::KeyId>>> {
        self.honest.update_many(changes)
    }
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.honest.now()
    }
}

#[test]
fn a_lying_store_chooses_neither_the_key_that_seals_nor_its_scope() {
    let world = World::generated();
    let record =
        |name: &str| Record::parse(&members().iter().find(|m| m.name == name).unwrap().parts.to_bytes()).unwrap();
    let seal_with = |newest: Vec<Record>, scope: Option<&str>| {
        let store = LyingStore { honest: world.store.clone(), newest };
        let mut policy = Policy::new();
        policy.add(FieldPolicy::randomized("f")).unwrap();
        let mut field = world.keyring_on(policy, Arc::new(store)).unwrap().field("f").unwrap();
        if let Some(scope) = scope {
            field = field.scope(scope);
        }
        block_on(field.encryptor()).map(|encryptor| encryptor.key_id())
    };
    assert_eq!(seal_with(vec![record("data")], None).unwrap(), record("data").key_id());
    // A genuine record of another scope, of the keyring in place of a scope, and two in the wrong order.
    let rejected = Some(ErrorKind::RecordRejected);
    assert_eq!(kind(seal_with(vec![record("clinic-17")], None)), rejected);
    assert_eq!(kind(seal_with(vec![record("clinic-18")], Some("clinic-17"))), rejected);
    assert_eq!(kind(seal_with(vec![record("data-old"), record("data")], None)), rejected);
    // A retired key, edited to look active: nobody vouches for that.
    let mut edited = record("data-old").as_bytes().to_vec();
    edited[5] = 2;
    assert_eq!(kind(seal_with(vec![Record::parse(&edited).unwrap()], None)), rejected);
}
