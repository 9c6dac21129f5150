//! Single values: in a caller's buffer what `encrypt` makes, or nothing; and what is said of those that do not open.

use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::wire::{FIELD_OVERHEAD, push_text};
use keyfold::{Context, ErrorKind, FieldMode, FieldPolicy, KeyringConfig, Padding, Policy, Value, ValueType};
use std::collections::HashSet;

const SENTINEL: u8 = 0xA5;

fn fields() -> Vec<FieldPolicy> {
    let deterministic = || FieldPolicy::deterministic("found", "default", None);
    vec![
        FieldPolicy::randomized("plain"),
        FieldPolicy { padding: Padding::Padme, ..FieldPolicy::randomized("padded") },
        bound("bound"),
        deterministic(),
        FieldPolicy { padding: Padding::Multiple(64), name: "found and padded".to_owned(), ..deterministic() },
        FieldPolicy { value_type: Some(ValueType::Text), ..FieldPolicy::randomized("text") },
    ]
}

#[test]
fn a_buffer_gets_what_encrypt_makes_and_not_a_byte_more() {
    let lab = Lab::new();
    let mut policy = Policy::new();
    fields().into_iter().for_each(|field| policy.add(field).unwrap());
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    for field in fields() {
        let (encryptor, decryptor) =
            (encryptor(&ring, &field.name, None).unwrap(), decryptor(&ring, &field.name, None).unwrap());
        let row = (field.name == "bound").then_some(&b"p-17"[..]);
        for text in ["", "x", "999-81-5679", &"é".repeat(2000)] {
            let value = Value::Text(text);
            let single = encryptor.encrypt(value, row).unwrap();
            let len = encryptor.sealed_len(value).unwrap();
            assert_eq!(len, single.len(), "{}", field.name);

            let mut out = vec![SENTINEL; len + 9];
            assert_eq!(encryptor.encrypt_into(value, row, &mut out).unwrap(), len);
            assert_eq!(out[len..], [SENTINEL; 9], "{}: beyond its end", field.name);
            assert_eq!(open(&decryptor, &out[..len], row).unwrap().value(), value);
            let is_deterministic = matches!(field.mode, FieldMode::Deterministic { .. });
            assert_eq!(out[..len] == single, is_deterministic, "{}", field.name);

            let mut short = vec![SENTINEL; len - 1];
            assert_eq!(refused(encryptor.encrypt_into(value, row, &mut short), "short"), ErrorKind::InvalidInput);
            assert_eq!(short, vec![SENTINEL; len - 1], "{}: written in part", field.name);
        }
    }
}

#[test]
fn what_cannot_be_sealed_is_an_error_of_its_length_too() {
    let lab = Lab::new();
    let mut policy = Policy::new();
    fields().into_iter().for_each(|field| policy.add(field).unwrap());
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    let long = "x".repeat((1 << 20) + 1);
    for (field, value, row, kind) in [
        ("plain", Value::Text(&long), None, ErrorKind::LimitExceeded),
        ("text", Value::Integer(1), None, ErrorKind::InvalidInput),
        ("plain", Value::Decimal("1."), None, ErrorKind::InvalidInput),
        ("bound", Value::Text("x"), None, ErrorKind::InvalidInput),
        ("found", Value::Text("x"), Some(&b"row"[..]), ErrorKind::InvalidInput),
    ] {
        let encryptor = encryptor(&ring, field, None).unwrap();
        let mut out = vec![SENTINEL; 2 << 20];
        assert_eq!(refused(encryptor.encrypt_into(value, row, &mut out), field), kind, "{field}");
        assert!(!out.windows(2).any(|pair| pair == b"xx"), "{field}: the value is in the buffer");
        let of_value = matches!((field, value), ("plain" | "text", _));
        assert_eq!(
            encryptor.sealed_len(value).map_err(|error| error.kind()).err(),
            of_value.then_some(kind),
            "{field}"
        );
    }
}

/// Covers F-3.3-1.
#[test]
fn what_looks_sealed_is_sealed_like_anything_else() {
    let ring = Lab::new().process();
    let (encryptor, decryptor) = (encryptor(&ring, "plain", None).unwrap(), decryptor(&ring, "plain", None).unwrap());
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    let mut text = Vec::new();
    push_text(&sealed, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    for value in [Value::Bytes(&sealed), Value::Text(&text), Value::Text("kf1."), Value::Bytes(&[0xF5])] {
        let again = encryptor.encrypt(value, None).unwrap();
        assert_ne!(again, sealed);
        assert_eq!(open(&decryptor, &again, None).unwrap().value(), value);
    }
}

/// Tag, nonce, ciphertext, context, row: which of them is wrong does not show.
// Failure C20
#[test]
fn whatever_does_not_authenticate_is_told_in_the_same_words() {
    let ring = Lab::new().process();
    let tenant = |name: &str| ring.field("bound").unwrap().context(Context::new().with("tenant", name).unwrap());
    let sealed = block_on(tenant("a").encryptor()).unwrap().encrypt(Value::Text("x"), Some(b"1")).unwrap();
    assert_eq!(sealed.len(), FIELD_OVERHEAD + 1);
    let said = |tenant_name: &str, row: &[u8], change: Option<usize>| {
        let mut bytes = sealed.clone();
        change.into_iter().for_each(|at| bytes[at] ^= 1);
        let error = open(&block_on(tenant(tenant_name).decryptor()).unwrap(), &bytes, Some(row)).unwrap_err();
        (error.kind(), error.to_string())
    };
    let (nonce, body, tag) = (26, 50, sealed.len() - 1);
    let all = [
        said("b", b"1", None),
        said("a", b"2", None),
        said("a", b"1", Some(nonce)),
        said("a", b"1", Some(body)),
        said("a", b"1", Some(tag)),
    ];
    assert_eq!(all[0].0, ErrorKind::DecryptionFailed);
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
}

/// Text forms and hexadecimal digits, given to what takes bytes.
// Failure C15
#[test]
fn spellings_of_a_value_are_no_value() {
    let ring = Lab::new().process();
    let sealed = seal(&ring, None, "x").unwrap();
    let mut text = Vec::new();
    keyfold::wire::push_text(&sealed, &mut text).unwrap();
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    let reader = decryptor(&ring, "plain", None).unwrap();
    for spelling in [&text[..], hex.as_bytes(), hex.to_uppercase().as_bytes(), &text[4..]] {
        assert_eq!(refused(open(&reader, spelling, None), "a spelling"), ErrorKind::Malformed);
    }
}

/// A value of before still belongs to its row: putting it back is noticed where the context has a version.
// Failure C8
#[test]
fn an_older_value_of_a_row_opens_unless_the_context_has_a_version() {
    let ring = Lab::new().process();
    let field = |version: Option<&str>| {
        let context = Context::new();
        ring.field("bound").unwrap().context(match version {
            Some(version) => context.with("version", version).unwrap(),
            None => context,
        })
    };
    let seal = |version| block_on(field(version).encryptor()).unwrap().encrypt(Value::Text("old"), Some(b"1")).unwrap();
    let open = |version, sealed: &[u8]| open(&block_on(field(version).decryptor()).unwrap(), sealed, Some(b"1"));
    assert!(open(None, &seal(None)).is_ok());
    assert!(open(Some("1"), &seal(Some("1"))).is_ok());
    assert_eq!(refused(open(Some("2"), &seal(Some("1"))), "an older version"), ErrorKind::DecryptionFailed);
}

// Failure N4
#[test]
fn copies_of_a_handle_repeat_no_nonce() {
    let ring = Lab::new().process();
    let field = ring.field("plain").unwrap();
    let handles: Vec<_> = (0..100).map(|_| block_on(field.clone().encryptor()).unwrap()).collect();
    let values = [Value::Null; 10];
    let mut nonces = HashSet::new();
    for handle in &handles {
        let column = handle.encrypt_column(&values[..], None::<&[&[u8]]>).unwrap();
        for row in 0..values.len() {
            let single = handle.encrypt(Value::Null, None).unwrap();
            for sealed in [&single[..], keyfold::ColumnBytes::bytes(&column, row)] {
                assert!(nonces.insert(sealed[26..50].to_vec()), "a nonce came twice");
            }
        }
    }
    assert_eq!(nonces.len(), 2000);
}
