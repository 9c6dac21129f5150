//! The limits that a process enforces (docs/LIMITS.md).

use crate::world::World;
use keyfold::testing::block_on;
use keyfold::{ColumnBytes, Encryptor, ErrorKind, FieldPolicy, Padding, Policy, SealedColumn, Value};
use std::collections::{HashMap, HashSet};

fn encryptor(change: impl FnOnce(&mut FieldPolicy)) -> (Encryptor, keyfold::Decryptor) {
    let mut field = FieldPolicy::randomized("f");
    change(&mut field);
    let mut policy = Policy::new();
    policy.add(field).unwrap();
    let ring = World::generated().keyring(policy).unwrap();
    let field = ring.field("f").unwrap().scope("clinic-17");
    (block_on(field.clone().encryptor()).unwrap(), block_on(field.decryptor()).unwrap())
}

/// Rows per nonce prefix. All nonces must differ.
fn prefixes(sealed: &SealedColumn) -> HashMap<Vec<u8>, usize> {
    let mut nonces = HashSet::new();
    let mut prefixes = HashMap::new();
    for row in 0..sealed.len() {
        let nonce = &sealed.bytes(row)[26..50];
        assert!(nonces.insert(nonce.to_vec()), "a nonce twice");
        *prefixes.entry(nonce[..12].to_vec()).or_default() += 1;
    }
    prefixes
}

fn seal(encryptor: &Encryptor, rows: usize) -> SealedColumn {
    let values = vec![Value::Text("123-45-6789"); rows];
    encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).unwrap()
}

#[test]
fn a_prefix_seals_at_most_65_536_rows_and_no_nonce_comes_twice() {
    let (encryptor, _) = encryptor(|_| {});
    let mut counts: Vec<usize> = prefixes(&seal(&encryptor, 140_000)).into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [140_000 - 2 * 65_536, 65_536, 65_536]);
    // Another call, another prefix: nothing is kept between calls.
    let [one, other] = [seal(&encryptor, 1), seal(&encryptor, 1)].map(|sealed| prefixes(&sealed));
    assert_ne!(one, other);
}

#[test]
fn unlinkable_rows_share_no_prefix() {
    let (encryptor, _) = encryptor(|field| field.unlinkable = true);
    assert_eq!(prefixes(&seal(&encryptor, 5_000)).len(), 5_000);
}

/// Covers F-4.2-1.
// Failures C17, N7
#[test]
fn the_longest_value_fits_with_every_padding_and_a_byte_more_does_not() {
    let longest = vec![b'x'; keyfold::wire::MAX_VALUE_LEN + 1];
    for padding in [Padding::None, Padding::Multiple(2), Padding::Multiple(4096), Padding::Padme] {
        let (encryptor, decryptor) = encryptor(|field| field.padding = padding);
        let value = Value::Bytes(&longest[1..]);
        let sealed = encryptor.encrypt(value, None).unwrap();
        assert!(sealed.len() <= 66 + keyfold::wire::MAX_ENCODED_LEN);
        block_on(decryptor.load_keys(&[&sealed][..])).unwrap();
        assert!(decryptor.decrypt(&sealed, None).unwrap().value() == value);
        assert_eq!(encryptor.encrypt(Value::Bytes(&longest), None).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }
}
