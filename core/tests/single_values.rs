//! Single values in a caller's buffer: what `encrypt` makes, or nothing.

use crate::common::lab::*;
use crate::common::{open, refused};
use keyfold::wire::push_text;
use keyfold::{ErrorKind, FieldMode, FieldPolicy, KeyringConfig, Padding, Policy, Value, ValueType};

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
