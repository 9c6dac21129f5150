//! Columns: equal to single values, within the limits of a nonce prefix, and all or nothing (DESIGN F3 to F6).
//! Long, because each rule is tried on every way that a column is sealed by.

use crate::common::lab::*;
use crate::common::{Shuffle, block_on, open};
use keyfold::wire::{FIELD_OVERHEAD, KeyId};
use keyfold::{
    Column, ColumnBytes, Decryptor, Encryptor, ErrorKind, FieldPolicy, KeyringConfig, OpenedColumn, Padding, Policy,
    RowError, SealedColumn, Value, ValueType,
};
use std::collections::{HashMap, HashSet};

const NO_ROWS: Option<&[&[u8]]> = None;
const MIB: usize = 1 << 20;

/// The two handles of a field with this policy.
fn handles(lab: &Lab, field: FieldPolicy) -> (Encryptor, Decryptor) {
    let mut policy = Policy::new();
    let name = field.name.clone();
    policy.add(field).unwrap();
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    (encryptor(&ring, &name, None).unwrap(), decryptor(&ring, &name, None).unwrap())
}

fn randomized() -> (Encryptor, Decryptor) {
    handles(&Lab::new(), FieldPolicy::randomized("plain"))
}

fn open_column(decryptor: &Decryptor, sealed: &SealedColumn) -> OpenedColumn {
    block_on(decryptor.load_keys(sealed)).unwrap();
    decryptor.decrypt_column(sealed, NO_ROWS).unwrap()
}

/// Bytes 26 to 49 of each row.
fn nonces(sealed: &SealedColumn) -> Vec<[u8; 24]> {
    (0..sealed.len()).map(|row| sealed.bytes(row)[26..50].try_into().unwrap()).collect()
}

fn rows_per_prefix(nonces: &[[u8; 24]]) -> Vec<usize> {
    nonces.chunk_by(|a, b| a[..12] == b[..12]).map(<[_]>::len).collect()
}

/// No nonce twice, no AES-GCM nonce twice, and no prefix that comes back.
#[track_caller]
fn assert_distinct(nonces: &[[u8; 24]]) {
    let all: HashSet<_> = nonces.iter().collect();
    assert_eq!(all.len(), nonces.len(), "a nonce was used twice");
    let last: HashSet<_> = nonces.iter().map(|nonce| &nonce[12..]).collect();
    assert_eq!(last.len(), nonces.len(), "the last 12 bytes of a nonce were used twice");
    let prefixes: HashSet<_> = nonces.iter().map(|nonce| &nonce[..12]).collect();
    assert_eq!(prefixes.len(), rows_per_prefix(nonces).len(), "a prefix came back");
}

/// One value of each type, with lengths around the blocks of AES.
fn mixed() -> Vec<Value<'static>> {
    const TEXT: &str = "Zoë Ångström 山田太郎 zoë zoë zoë zoë zoë zoë zoë zoë zoë zoë zoë zoë zoë";
    let mut values = vec![
        Value::Null,
        Value::Bytes(b""),
        Value::Bytes(&[0, 0x80, 0xFF, 0x80, 0, 0]),
        Value::Text(""),
        Value::Text(TEXT),
        Value::Integer(0),
        Value::Integer(i128::MIN),
        Value::Integer(i128::MAX),
        Value::Decimal("39.155185939682845"),
        Value::Decimal("-1.50"),
        Value::Float(-0.0),
        Value::Float(f64::INFINITY),
        Value::Boolean(true),
        Value::Boolean(false),
        Value::Date(i32::MIN),
        Value::Timestamp { seconds: -1, nanoseconds: 999_999_999 },
        Value::Json("{\"a\": 1.0}"),
    ];
    values.extend((1..50).map(|len| Value::Text(&TEXT["Zoë Ångström 山田太郎 ".len()..][..len * 5 / 5 - len % 5])));
    values
}

fn assert_equal(opened: &OpenedColumn, values: &[Value<'_>]) {
    assert_eq!(opened.len(), values.len());
    for (row, value) in values.iter().enumerate() {
        assert!(opened.value(row) == *value, "row {row}: {value:?} came back as {:?}", opened.value(row));
        assert_eq!(opened.types()[row], value.value_type());
    }
}

#[test]
fn columns_and_single_values_open_each_other() {
    let lab = Lab::new();
    let values = mixed();
    for padding in [Padding::None, Padding::Multiple(2), Padding::Multiple(16), Padding::Multiple(4096), Padding::Padme]
    {
        for unlinkable in [false, true] {
            let (encryptor, decryptor) =
                handles(&lab, FieldPolicy { padding, unlinkable, ..FieldPolicy::randomized("plain") });
            let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
            let singles: Vec<_> = values.iter().map(|value| encryptor.encrypt(*value, None).unwrap()).collect();
            for (row, single) in singles.iter().enumerate() {
                assert_eq!(single.len(), column.bytes(row).len(), "row {row}");
                assert!(open(&decryptor, column.bytes(row), None).unwrap().value() == values[row]);
                let encoded = single.len() - FIELD_OVERHEAD + 1;
                match padding {
                    Padding::Multiple(n) => assert_eq!(encoded % usize::from(n), 0),
                    Padding::None => {}
                    _ => assert!(encoded <= 12 + encoded * 9 / 8),
                }
            }
            assert_equal(&open_column(&decryptor, &column), &values);
            assert_equal(&decryptor.decrypt_column(&singles[..], NO_ROWS).unwrap(), &values);
            assert_distinct(&nonces(&column));
        }
    }
}

#[test]
fn deterministic_columns_equal_single_values_byte_for_byte() {
    let lab = Lab::new();
    let values = mixed();
    for padding in [Padding::None, Padding::Multiple(32), Padding::Padme] {
        let field = FieldPolicy { padding, ..FieldPolicy::deterministic("f", "default", None) };
        let (encryptor, decryptor) = handles(&lab, field);
        let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
        let singles: Vec<_> = values.iter().map(|value| encryptor.encrypt(*value, None).unwrap()).collect();
        assert_eq!(column.data(), singles.concat());
        assert_equal(&open_column(&decryptor, &column), &values);
        let Err(error) = encryptor.encrypt_column(&values[..], Some(&vec![b"r"; values.len()][..])) else {
            panic!("a row binding was accepted")
        };
        assert_eq!(error.error.kind(), ErrorKind::InvalidInput);
    }
}

// Failure C22
#[test]
fn padding_hides_lengths_and_is_checked() {
    let (encryptor, decryptor) =
        handles(&Lab::new(), FieldPolicy { padding: Padding::Multiple(64), ..FieldPolicy::randomized("plain") });
    let text = "x".repeat(200);
    // Format byte and one byte of padding at least: 62 bytes fill 64.
    for (len, encoded) in [(0, 64), (1, 64), (62, 64), (63, 128), (126, 128), (127, 192)] {
        let sealed = encryptor.encrypt(Value::Text(&text[..len]), None).unwrap();
        assert_eq!(sealed.len(), FIELD_OVERHEAD - 1 + encoded, "{len}");
        assert!(open(&decryptor, &sealed, None).unwrap().value() == Value::Text(&text[..len]));
    }
}

/// Covers F-4.4-2.
// Failure N1
#[test]
fn a_prefix_seals_65536_rows_and_no_nonce_comes_twice() {
    let (encryptor, decryptor) = randomized();
    let cases: [(usize, &[usize]); 10] = [
        (0, &[]),
        (1, &[1]),
        (4095, &[4095]),
        (4096, &[4096]),
        (4097, &[4097]),
        (65535, &[65535]),
        (65536, &[65536]),
        (65537, &[65536, 1]),
        (70000, &[65536, 4464]),
        (131_073, &[65536, 65536, 1]),
    ];
    let mut seen = HashSet::new();
    for (rows, expected) in cases {
        let values: Vec<_> = (0..rows).map(|row| Value::Integer(row as i128)).collect();
        let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
        assert_eq!(column.len(), rows);
        let nonces = nonces(&column);
        assert_eq!(rows_per_prefix(&nonces), expected, "{rows} rows");
        assert_distinct(&nonces);
        for nonce in nonces {
            assert!(seen.insert(nonce), "two columns share a nonce");
        }
        assert_equal(&open_column(&decryptor, &column), &values);
    }
    let prefixes: HashSet<_> = seen.iter().map(|nonce| &nonce[..12]).collect();
    assert_eq!(prefixes.len(), cases.iter().map(|(_, expected)| expected.len()).sum::<usize>());
}

#[test]
fn large_values_make_smaller_chunks_and_the_prefix_holds_no_more_rows() {
    let (encryptor, decryptor) = randomized();
    let bytes: Vec<u8> = (0..MIB).map(|i| (i / 251) as u8).collect();
    // 8 MiB are full before 4,096 rows are.
    let values = vec![Value::Bytes(&bytes[..2100]); 66_000];
    let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
    let per_prefix = rows_per_prefix(&nonces(&column));
    assert!(per_prefix.iter().all(|&rows| rows <= 65_536), "{per_prefix:?}");
    assert_eq!(per_prefix.len(), 2, "{per_prefix:?}");
    assert_distinct(&nonces(&column));
    drop(column);
    // Chunks of one row, of a few, and rows around the limit of a chunk.
    let lens = [MIB, 0, MIB, MIB - 1, 1, MIB, MIB, MIB, MIB, MIB, MIB, MIB, 100, MIB / 2, MIB / 2, MIB, 7];
    let values: Vec<_> = lens.iter().map(|&len| Value::Bytes(&bytes[..len])).collect();
    let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
    assert_distinct(&nonces(&column));
    assert_equal(&open_column(&decryptor, &column), &values);
}

/// Covers F-4.2-1.
#[test]
fn a_value_has_at_most_one_mebibyte() {
    let lab = Lab::new();
    let text = "x".repeat(MIB + 1);
    for (padding, deterministic) in
        [(Padding::None, false), (Padding::Multiple(4096), false), (Padding::Padme, false), (Padding::Padme, true)]
    {
        let base =
            if deterministic { FieldPolicy::deterministic("f", "default", None) } else { FieldPolicy::randomized("f") };
        let (encryptor, decryptor) = handles(&lab, FieldPolicy { padding, ..base });
        let longest = Value::Text(&text[..MIB]);
        let sealed = encryptor.encrypt(longest, None).unwrap();
        assert!(open(&decryptor, &sealed, None).unwrap().value() == longest);
        let too_long = Value::Text(&text);
        assert_eq!(encryptor.encrypt(too_long, None).unwrap_err().kind(), ErrorKind::LimitExceeded);
        let values = [Value::Text("a"), longest, Value::Text("b"), too_long, Value::Text("c")];
        let error = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap_err();
        assert_eq!((error.row, error.error.kind()), (Some(3), ErrorKind::LimitExceeded));
        assert!(error.to_string().starts_with("row 3: "), "{error}");
    }
}

#[test]
fn unlinkable_draws_a_prefix_for_every_row() {
    let (encryptor, decryptor) =
        handles(&Lab::new(), FieldPolicy { unlinkable: true, ..FieldPolicy::randomized("plain") });
    let values: Vec<_> = (0..5000).map(Value::Integer).collect();
    let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
    let nonces = nonces(&column);
    assert_distinct(&nonces);
    assert_eq!(rows_per_prefix(&nonces).len(), 5000);
    assert_equal(&open_column(&decryptor, &column), &values);
}

/// Covers F-4.4-1.
// Failure N1
#[test]
fn single_values_draw_all_of_their_nonce() {
    let (encryptor, _) = randomized();
    let nonces: Vec<[u8; 24]> =
        (0..5000).map(|_| encryptor.encrypt(Value::Text("x"), None).unwrap()[26..50].try_into().unwrap()).collect();
    assert_distinct(&nonces);
    assert_eq!(rows_per_prefix(&nonces).len(), 5000);
    // Every byte takes every value: none is constant or counted.
    for at in 0..24 {
        let values: HashSet<_> = nonces.iter().map(|nonce| nonce[at]).collect();
        assert_eq!(values.len(), 256, "byte {at}");
    }
}

// Rows

#[test]
fn rows_are_bound_and_their_number_must_fit() {
    let lab = Lab::new();
    let (encryptor, decryptor) = handles(&lab, bound("bound"));
    let values: Vec<_> = (0..10).map(Value::Integer).collect();
    let ids: Vec<String> = (0..10).map(|row| format!("patient-{row}")).collect();
    let column = encryptor.encrypt_column(&values[..], Some(&ids[..])).unwrap();
    block_on(decryptor.load_keys(&column)).unwrap();
    assert_equal(&decryptor.decrypt_column(&column, Some(&ids[..])).unwrap(), &values);
    // Two rows swapped: the first of them is named.
    let mut swapped = ids.clone();
    swapped.swap(3, 7);
    let error = decryptor.decrypt_column(&column, Some(&swapped[..])).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (Some(3), ErrorKind::DecryptionFailed));

    let refused = |result: Result<(), RowError>, row: usize, kind: ErrorKind, what: &str| {
        let Err(error) = result else { panic!("{what}: accepted") };
        assert_eq!((error.row, error.error.kind()), (Some(row), kind), "{what}");
    };
    let more: Vec<_> = ids.iter().cloned().chain(["one more".to_owned()]).collect();
    let mut empty = ids.clone();
    empty[4].clear();
    let mut long = ids.clone();
    long[5] = "x".repeat(4096);
    let cases: [(&str, Option<&[String]>, usize, ErrorKind); 6] = [
        ("one too few", Some(&ids[..9]), 9, ErrorKind::InvalidInput),
        ("one too many", Some(&more), 10, ErrorKind::InvalidInput),
        ("none at all", Some(&[]), 0, ErrorKind::InvalidInput),
        ("an empty one", Some(&empty), 4, ErrorKind::InvalidInput),
        ("a long one", Some(&long), 5, ErrorKind::LimitExceeded),
        ("no binding", None, 0, ErrorKind::InvalidInput),
    ];
    for (what, rows, row, kind) in cases {
        refused(encryptor.encrypt_column(&values[..], rows).map(drop), row, kind, what);
        refused(decryptor.decrypt_column(&column, rows).map(drop), row, kind, what);
    }
    let (plain, plain_decryptor) = randomized();
    let unwanted = plain.encrypt_column(&values[..], Some(&ids[..]));
    refused(unwanted.map(drop), 0, ErrorKind::InvalidInput, "an unwanted binding");
    let column = plain.encrypt_column(&values[..], NO_ROWS).unwrap();
    block_on(plain_decryptor.load_keys(&column)).unwrap();
    let unwanted = plain_decryptor.decrypt_column(&column, Some(&ids[..]));
    refused(unwanted.map(drop), 0, ErrorKind::InvalidInput, "an unwanted binding");
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    let lab = Lab::new();
    for base in [FieldPolicy::randomized("f"), FieldPolicy::deterministic("f", "default", None)] {
        let (encryptor, decryptor) = handles(&lab, FieldPolicy { value_type: Some(ValueType::Date), ..base });
        let good = [Value::Date(1), Value::Null, Value::Date(2)];
        let column = encryptor.encrypt_column(&good[..], NO_ROWS).unwrap();
        assert_equal(&open_column(&decryptor, &column), &good);
        let values = [Value::Date(1), Value::Null, Value::Integer(2), Value::Text("3")];
        let error = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap_err();
        assert_eq!((error.row, error.error.kind()), (Some(2), ErrorKind::InvalidInput));
        assert_eq!(encryptor.encrypt(Value::Text("3"), None).unwrap_err().kind(), ErrorKind::InvalidInput);
        for (row, wrong) in
            [Value::Decimal("1,5"), Value::Timestamp { seconds: 0, nanoseconds: 1_000_000_000 }].iter().enumerate()
        {
            let (any, _) = randomized();
            let mut values = [Value::Null; 2];
            values[row] = *wrong;
            let error = any.encrypt_column(&values[..], NO_ROWS).unwrap_err();
            assert_eq!((error.row, error.error.kind()), (Some(row), ErrorKind::InvalidInput));
        }
    }
}

/// Covers F-1-2.
#[test]
fn one_bad_row_refuses_the_column_and_is_named() {
    let (encryptor, decryptor) = randomized();
    let values: Vec<_> = (0..4100).map(Value::Integer).collect();
    let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
    let rows = |sealed: &SealedColumn| (0..sealed.len()).map(|row| sealed.bytes(row).to_vec()).collect::<Vec<_>>();
    block_on(decryptor.load_keys(&column)).unwrap();
    for row in [0, 1, 2047, 4095, 4096, 4099] {
        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage, ErrorKind); 12] = [
            ("a flipped bit of the tag", |bytes| *bytes.last_mut().unwrap() ^= 1, ErrorKind::DecryptionFailed),
            ("a flipped bit of the ciphertext", |bytes| bytes[50] ^= 1, ErrorKind::DecryptionFailed),
            ("another prefix", |bytes| bytes[26] ^= 1, ErrorKind::DecryptionFailed),
            ("another nonce", |bytes| bytes[49] ^= 1, ErrorKind::DecryptionFailed),
            ("another key", |bytes| bytes[2] ^= 1, ErrorKind::NoMatchingKey),
            ("no magic", |bytes| bytes[0] = 0, ErrorKind::Malformed),
            ("nothing", Vec::clear, ErrorKind::Malformed),
            ("another suite", |bytes| bytes[1] = 2, ErrorKind::PolicyRefused),
            ("a byte less", |bytes| bytes.truncate(bytes.len() - 1), ErrorKind::DecryptionFailed),
            ("less than any value", |bytes| bytes.truncate(FIELD_OVERHEAD - 1), ErrorKind::Malformed),
            ("nothing behind the prefix", |bytes| bytes.truncate(38), ErrorKind::Malformed),
            ("more than any value", |bytes| bytes.resize(FIELD_OVERHEAD + 2 * MIB, 0), ErrorKind::Malformed),
        ];
        for (what, damage, kind) in damages {
            let mut sealed = rows(&column);
            damage(&mut sealed[row]);
            let error = decryptor.decrypt_column(&sealed[..], NO_ROWS).unwrap_err();
            assert_eq!((error.row, error.error.kind()), (Some(row), kind), "{what}");
        }
    }
    // A key that the keyring does not have is noticed when the keys are loaded, with its row.
    let mut sealed = rows(&column);
    sealed[9][10] ^= 1;
    let error = block_on(decryptor.load_keys(&sealed[..])).unwrap_err();
    assert_eq!((error.row, error.error.kind()), (Some(9), ErrorKind::NoMatchingKey));
}

// Opening

#[test]
fn rows_of_a_thousand_batches_open_in_any_order() {
    let lab = Lab::new();
    let (encryptor, decryptor) = handles(&lab, bound("bound"));
    let mut rows = Vec::new();
    for batch in 0..1000_i128 {
        let values: Vec<_> = (0..5).map(|row| Value::Integer(batch * 5 + row)).collect();
        let ids: Vec<_> = (0..5).map(|row| format!("{batch}/{row}")).collect();
        let column = encryptor.encrypt_column(&values[..], Some(&ids[..])).unwrap();
        rows.extend(ids.into_iter().enumerate().map(|(row, id)| (values[row], id, column.bytes(row).to_vec())));
    }
    let mut shuffle = Shuffle(7);
    for _ in 0..5 {
        shuffle.shuffle(&mut rows);
        let sealed: Vec<_> = rows.iter().map(|(_, _, sealed)| sealed).collect();
        let ids: Vec<_> = rows.iter().map(|(_, id, _)| id).collect();
        block_on(decryptor.load_keys(&sealed[..])).unwrap();
        let opened = decryptor.decrypt_column(&sealed[..], Some(&ids[..])).unwrap();
        let values: Vec<_> = rows.iter().map(|(value, _, _)| *value).collect();
        assert_equal(&opened, &values);
        assert_eq!(opened.outdated(), 0);
    }
}

/// Prefixes that share their first byte, all but their last, or everything but the key.
#[test]
fn prefixes_that_collide_open_in_any_order() {
    let lab = Lab::new();
    let mut rows = Vec::new();
    for key in [data(DATA), data(OLD_DATA)] {
        for n in 0..200_u8 {
            let mut nonce = [7; 24];
            // Byte 0 collides in every table with a power of two of slots; byte 11 tells them apart.
            nonce[0] = if n % 2 == 0 { 0 } else { 64 * (n % 4) };
            nonce[11] = n;
            nonce[12] = n;
            let text = format!("{} {n}", key.generation);
            rows.push((sealed_under(&key, &nonce, &text), text));
        }
    }
    let decryptor = decryptor(&lab.process(), "plain", None).unwrap();
    let mut shuffle = Shuffle(1);
    for _ in 0..10 {
        shuffle.shuffle(&mut rows);
        let sealed: Vec<_> = rows.iter().map(|(sealed, _)| sealed).collect();
        block_on(decryptor.load_keys(&sealed[..])).unwrap();
        let opened = decryptor.decrypt_column(&sealed[..], NO_ROWS).unwrap();
        for (row, (_, text)) in rows.iter().enumerate() {
            assert!(opened.value(row) == Value::Text(text));
        }
        assert_eq!(opened.outdated(), 200, "those under the old key");
    }
}

#[test]
fn a_column_over_several_generations_counts_what_is_outdated() {
    let lab = Lab::new();
    let ring = lab.process();
    let mut per_key: HashMap<KeyId, usize> = HashMap::new();
    let mut sealed = Vec::new();
    for generation in 0..4 {
        for _ in 0..=generation {
            sealed.push(seal(&ring, None, "x").unwrap());
            *per_key.entry(key_id_of(sealed.last().unwrap())).or_default() += 1;
        }
        if generation < 3 {
            block_on(ring.rotate_data_key(None)).unwrap();
        }
    }
    Shuffle(3).shuffle(&mut sealed);
    let decryptor = decryptor(&lab.process(), "plain", None).unwrap();
    // Rows that are not well-formed are passed over, also where they start as the row before does.
    let with_broken: Vec<&[u8]> = sealed.iter().flat_map(|row| [&row[..], &row[..30], &row[..5]]).collect();
    block_on(decryptor.load_keys(&with_broken[..])).unwrap();
    let opened = decryptor.decrypt_column(&sealed[..], NO_ROWS).unwrap();
    assert_eq!(per_key.len(), 4);
    assert_eq!(opened.outdated(), 1 + 2 + 3);
}

// Layout

#[test]
fn offsets_are_arrows() {
    let (encryptor, decryptor) = randomized();
    for rows in [0, 1, 2, 1000] {
        let texts: Vec<String> = (0..rows).map(|row| "x".repeat(row % 40)).collect();
        let values: Vec<_> = texts.iter().map(|text| Value::Text(text)).collect();
        let column = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap();
        assert_eq!(column.offsets().len(), rows + 1);
        assert_eq!(column.offsets()[0], 0);
        assert_eq!(*column.offsets().last().unwrap(), column.data().len() as i64);
        for row in 0..rows {
            let (start, end) = (column.offsets()[row] as usize, column.offsets()[row + 1] as usize);
            assert_eq!(end - start, row % 40 + 67);
            assert_eq!(&column.data()[start..end], column.bytes(row));
        }
        let opened = open_column(&decryptor, &column);
        assert_eq!(opened.offsets().len(), rows + 1);
        assert_eq!(opened.data(), texts.concat().as_bytes());
        // The buffers of one are the input of the other, and slices of them too.
        let (data, offsets) = column.into_parts();
        let whole = Column::new(&data, &offsets).unwrap();
        assert_equal(&decryptor.decrypt_column(&whole, NO_ROWS).unwrap(), &values);
        if rows > 500 {
            let part = Column::new(&data, &offsets[300..=400]).unwrap();
            assert_equal(&decryptor.decrypt_column(&part, NO_ROWS).unwrap(), &values[300..400]);
        }
    }
    assert_eq!(encryptor.encrypt_column(&[][..], NO_ROWS).unwrap().offsets(), [0]);
}

#[test]
fn a_column_of_bytes_comes_from_buffers_without_copying() {
    let (encryptor, decryptor) = randomized();
    let (data, offsets) = (b"abcdef".as_slice(), [0_i64, 0, 3, 6]);
    let column = Column::new(data, &offsets).unwrap();
    let sealed = encryptor.encrypt_column(&column, NO_ROWS).unwrap();
    assert_equal(&open_column(&decryptor, &sealed), &[Value::Bytes(b""), Value::Bytes(b"abc"), Value::Bytes(b"def")]);
    let bad: [&[i64]; 6] = [&[], &[-1, 3], &[3, 1], &[0, 7], &[0, i64::MAX], &[i64::MIN, 0]];
    for offsets in bad {
        let Err(error) = Column::new(data, offsets) else { panic!("{offsets:?} accepted") };
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

/// A column of a caller's that gives another value when it is asked again, or none.
struct Fickle(std::cell::Cell<usize>, fn(usize) -> Value<'static>);

impl keyfold::ColumnValues for Fickle {
    fn len(&self) -> usize {
        3
    }

    fn value(&self, _: usize) -> Value<'_> {
        self.0.set(self.0.get() + 1);
        self.1(self.0.get())
    }
}

#[test]
fn rows_are_added_behind_others_or_not_at_all() {
    for field in [FieldPolicy::randomized("plain"), FieldPolicy::deterministic("plain", "default", None)] {
        let (encryptor, decryptor) = handles(&Lab::new(), field);
        let values = mixed();
        let long = "x".repeat(300);
        let mut out = SealedColumn::default();
        let mut all = Vec::new();
        for batch in [&values[..], &[], &[Value::Text(&long), Value::Null], &values[5..]] {
            encryptor.encrypt_column_into(batch, NO_ROWS, &mut out).unwrap();
            all.extend_from_slice(batch);
        }
        assert_equal(&open_column(&decryptor, &out), &all);
        // What fails leaves the rows that there were, and room for others.
        let before = out.clone();
        let bad = [Value::Text("a"), Value::Decimal("1,5")];
        let error = encryptor.encrypt_column_into(&bad[..], NO_ROWS, &mut out).unwrap_err();
        assert_eq!((error.row, error.error.kind()), (Some(1), ErrorKind::InvalidInput));
        assert_eq!((out.data(), out.offsets()), (before.data(), before.offsets()));
        let rows = [b"1"; 3];
        let error = encryptor.encrypt_column_into(&values[..3], Some(&rows[..]), &mut out).unwrap_err();
        assert_eq!(error.error.kind(), ErrorKind::InvalidInput);
        assert_eq!((out.data(), out.offsets()), (before.data(), before.offsets()));
        encryptor.encrypt_column_into(&values[..], NO_ROWS, &mut out).unwrap();
        all.extend_from_slice(&values);
        assert_equal(&open_column(&decryptor, &out), &all);
        // Taken apart and put together, and with offsets of its last end alone.
        let (data, offsets) = out.into_parts();
        let mut out = SealedColumn::from_parts(data.clone(), offsets).unwrap();
        encryptor.encrypt_column_into(&values[..1], NO_ROWS, &mut out).unwrap();
        assert_eq!(out.len(), all.len() + 1);
        let mut last = SealedColumn::from_parts(data.clone(), vec![data.len() as i64]).unwrap();
        encryptor.encrypt_column_into(&values[..], NO_ROWS, &mut last).unwrap();
        assert_eq!(last.data()[..data.len()], data);
        assert_equal(&open_column(&decryptor, &last), &values);
        last.clear();
        encryptor.encrypt_column_into(&values[3..5], NO_ROWS, &mut last).unwrap();
        assert_eq!(last.offsets()[0], 0);
        assert_equal(&open_column(&decryptor, &last), &values[3..5]);
    }
    for (data, offsets) in [(vec![], vec![]), (vec![1, 2], vec![0]), (vec![1], vec![0, 2]), (vec![1, 2], vec![2, 1])] {
        assert_eq!(SealedColumn::from_parts(data, offsets).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn what_was_added_is_erased_when_it_fails_half_way() {
    const SECRET: &str = "MRN0004711";
    let changes: fn(usize) -> Value<'static> = |asked| if asked < 6 { Value::Text(SECRET) } else { Value::Null };
    let panics: fn(usize) -> Value<'static> = |asked| match asked {
        0..6 => Value::Text(SECRET),
        _ => panic!("as the caller's code may"),
    };
    for field in [FieldPolicy::randomized("plain"), FieldPolicy::deterministic("plain", "default", None)] {
        let (encryptor, _) = handles(&Lab::new(), field);
        for (fickle, is_panic) in [(changes, false), (panics, true)] {
            let mut out = SealedColumn::default();
            encryptor.encrypt_column_into(&[Value::Text("first")][..], NO_ROWS, &mut out).unwrap();
            let before = out.clone();
            // Asked three times for lengths, then for each row that is sealed.
            let values = Fickle(std::cell::Cell::new(0), fickle);
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                encryptor.encrypt_column_into(&values, NO_ROWS, &mut out)
            }));
            assert_eq!(failed.is_err(), is_panic);
            if let Ok(sealed) = failed {
                let error = sealed.unwrap_err();
                assert_eq!((error.row, error.error.kind()), (Some(2), ErrorKind::InvalidInput));
            }
            assert_eq!((out.data(), out.offsets()), (before.data(), before.offsets()));
        }
    }
}

#[test]
fn rows_go_into_buffers_of_the_callers_or_nothing_does() {
    for field in [FieldPolicy::randomized("plain"), FieldPolicy::deterministic("plain", "default", None)] {
        let (encryptor, decryptor) = handles(&Lab::new(), field);
        let values = mixed();
        let needed = encryptor.encrypt_column(&values[..], NO_ROWS).unwrap().data().len();
        let (mut data, mut offsets) = (vec![7; needed + 5], vec![7; values.len() + 3]);
        let len = encryptor.encrypt_column_into_slices(&values[..], NO_ROWS, &mut data, &mut offsets).unwrap();
        assert_eq!((len, &data[needed..], &offsets[values.len() + 1..]), (needed, &[7; 5][..], &[7; 2][..]));
        let sealed = Column::new(&data[..len], &offsets[..=values.len()]).unwrap();
        block_on(decryptor.load_keys(&sealed)).unwrap();
        assert_equal(&decryptor.decrypt_column(&sealed, NO_ROWS).unwrap(), &values);
        // Buffers that are too short, and rows that cannot be sealed.
        data.fill(7);
        offsets.fill(7);
        let bad = [Value::Text("a"), Value::Decimal("1,5")];
        for (values, len, row) in [(&values[..], needed - 1, None), (&bad[..], needed, Some(1))] {
            let failed = encryptor.encrypt_column_into_slices(values, NO_ROWS, &mut data[..len], &mut offsets);
            let error = failed.unwrap_err();
            assert_eq!((error.row, error.error.kind()), (row, ErrorKind::InvalidInput));
        }
        let short = &mut offsets[..values.len()];
        assert!(encryptor.encrypt_column_into_slices(&values[..], NO_ROWS, &mut data, short).is_err());
        assert!(data.iter().all(|&byte| byte == 7) && offsets.iter().all(|&offset| offset == 7));
        let (mut none, mut one) = ([], [7]);
        assert_eq!(encryptor.encrypt_column_into_slices(&[][..], NO_ROWS, &mut none, &mut one).unwrap(), 0);
        assert_eq!(one, [0]);
        // Asked three times whether it can be sealed, three times for lengths, then for each row that is sealed.
        let changes: [fn(usize) -> Value<'static>; 3] = [
            |asked| if asked < 4 { Value::Text("MRN0004711") } else { Value::Null },
            |asked| if asked < 9 { Value::Text("MRN0004711") } else { Value::Null },
            |asked| if asked < 9 { Value::Text("MRN0004711") } else { panic!("as the caller's code may") },
        ];
        for change in changes {
            data.fill(7);
            let values = Fickle(std::cell::Cell::new(0), change);
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                encryptor.encrypt_column_into_slices(&values, NO_ROWS, &mut data, &mut offsets).is_err()
            }));
            assert!(failed.unwrap_or(true));
            assert!(data.iter().all(|&byte| byte == 0 || byte == 7), "what is left is erased");
        }
    }
}
