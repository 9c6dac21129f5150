//! Moving values to another row, on purpose (DESIGN F12).

use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::{ErrorKind, KeyState, Keyring, KeyringConfig, Rebinder, Result, Value};

fn rebinder(ring: &Keyring, field: &str, scope: Option<&str>) -> Result<Rebinder> {
    let field = ring.field(field)?;
    block_on(match scope {
        Some(scope) => field.scope(scope).rebinder(),
        None => field.rebinder(),
    })
}

#[test]
fn a_value_opens_in_its_new_row_only() {
    let ring = Lab::new().process();
    let sealed = encryptor(&ring, "bound", None).unwrap().encrypt(Value::Integer(-17), Some(b"a")).unwrap();
    let rebinder = rebinder(&ring, "bound", None).unwrap();
    assert_eq!(refused(rebinder.rebind(&sealed, b"a", b"b"), "no keys"), ErrorKind::NoMatchingKey);
    block_on(rebinder.load_keys(&[&sealed][..])).unwrap();
    let moved = rebinder.rebind(&sealed, b"a", b"b").unwrap();
    let reader = decryptor(&ring, "bound", None).unwrap();
    assert_eq!(open(&reader, &moved, Some(b"b")).unwrap().value(), Value::Integer(-17));
    for wrong in [Some(&b"a"[..]), Some(b""), None] {
        assert!(open(&reader, &moved, wrong).is_err());
    }
    assert_ne!(moved[26..50], sealed[26..50], "a nonce was used twice");
    assert_eq!(refused(rebinder.rebind(&sealed, b"c", b"b"), "not its row"), ErrorKind::DecryptionFailed);
    assert_eq!(refused(rebinder.rebind(&sealed, b"a", b"a"), "the same row"), ErrorKind::InvalidInput);
    assert_eq!(refused(rebinder.rebind(b"Canary", b"a", b"b"), "plaintext"), ErrorKind::Malformed);
}

#[test]
fn a_column_moves_as_a_whole_or_not_at_all() {
    let ring = Lab::new().process();
    let encryptor = encryptor(&ring, "bound", None).unwrap();
    let values = [Value::Text("x"), Value::Null, Value::Bytes(b"\0"), Value::Boolean(true)];
    let (from, to) = ([b"1", b"2", b"3", b"4"], [b"5", b"5", b"6", b"7"]);
    let sealed = encryptor.encrypt_column(&values[..], Some(&from[..])).unwrap();
    let rebinder = rebinder(&ring, "bound", None).unwrap();
    block_on(rebinder.load_keys(&sealed)).unwrap();
    let moved = block_on(rebinder.rebind_column(&sealed, &from[..], &to[..])).unwrap();
    let reader = decryptor(&ring, "bound", None).unwrap();
    block_on(reader.load_keys(&moved)).unwrap();
    let opened = reader.decrypt_column(&moved, Some(&to[..])).unwrap();
    assert!((0..4).all(|row| opened.value(row) == values[row]));
    assert!(reader.decrypt_column(&moved, Some(&from[..])).is_err());

    let at = |from: &[&[u8; 1]], to: &[&[u8; 1]]| {
        let error = block_on(rebinder.rebind_column(&sealed, from, to)).map(drop).unwrap_err();
        (error.row.expect("a row"), error.error.kind())
    };
    let (from, to) = ([b"1", b"2", b"3", b"4"], [b"5", b"5", b"3", b"7"]);
    assert_eq!(at(&from, &to), (2, ErrorKind::InvalidInput), "row 2 stays where it is");
    assert_eq!(at(&from, &to[..2]), (2, ErrorKind::InvalidInput), "a row too few");
    assert_eq!(at(&from[..3], &[b"5", b"5", b"6", b"7"]), (3, ErrorKind::InvalidInput));
    assert_eq!(at(&[b"1", b"9", b"3", b"4"], &[b"5", b"5", b"6", b"7"]), (1, ErrorKind::DecryptionFailed));
}

#[test]
fn it_seals_under_the_current_key() {
    let lab = Lab::new();
    let ring = lab.process();
    let old = encryptor(&ring, "bound", None).unwrap().encrypt(Value::Text("x"), Some(b"a")).unwrap();
    let rotated = block_on(ring.rotate_data_key(None)).unwrap();
    let rebinder = rebinder(&lab.process(), "bound", None).unwrap();
    block_on(rebinder.load_keys(&[&old][..])).unwrap();
    let moved = rebinder.rebind(&old, b"a", b"b").unwrap();
    assert_eq!(key_id_of(&moved), rotated.new.key_id());
    assert_ne!(key_id_of(&old), rotated.new.key_id());
}

#[test]
fn fields_without_a_row_and_scopes_that_are_not_there_are_refused() {
    let lab = Lab::new();
    let ring = lab.process();
    for field in ["plain", "mrn"] {
        assert_eq!(refused(rebinder(&ring, field, None), field), ErrorKind::PolicyRefused);
    }
    let before = lab.store.all().len();
    assert_eq!(refused(rebinder(&ring, "bound", Some("typo")), "a new scope"), ErrorKind::NoMatchingKey);
    assert_eq!(lab.store.all().len(), before, "a scope was made");
}

/// Whoever has the key could have his forgery sealed under a good one.
#[test]
fn a_value_under_a_compromised_key_is_not_moved() {
    let lab = Lab::new();
    let ring = lab.process();
    let sealed = encryptor(&ring, "bound", None).unwrap().encrypt(Value::Text("x"), Some(b"a")).unwrap();
    block_on(ring.rotate_data_key(None)).unwrap();
    block_on(ring.change_state(key_id_of(&sealed), KeyState::Compromised)).unwrap();
    let ring = lab.process_with(KeyringConfig { open_compromised: true, ..lab.config.clone() });
    let rebinder = rebinder(&ring, "bound", None).unwrap();
    block_on(rebinder.load_keys(&[&sealed][..])).unwrap();
    assert!(open(&decryptor(&ring, "bound", None).unwrap(), &sealed, Some(b"a")).unwrap().is_compromised());
    assert_eq!(refused(rebinder.rebind(&sealed, b"a", b"b"), "compromised"), ErrorKind::KeyState);
    let column = block_on(rebinder.rebind_column(&[&sealed][..], &[b"a"][..], &[b"b"][..]));
    assert_eq!(column.map(drop).unwrap_err().error.kind(), ErrorKind::KeyState);
}
