//! What FORMAT.md says of all values, contexts, texts, records and streams, held against a reference that was written down from its text
//! (`format_properties/reference.rs`) with inputs that proptest draws and, where one shows a difference, makes small.
//!
//! Each run draws the same. `KEYFOLD_FORMAT_SEED` has others, and `KEYFOLD_FORMAT_TIMES` so many times as many of each.

mod draw;
mod records;
mod reference;
mod sealed;
mod streams;

use draw::{Binding, cases, edited};
use keyfold::wire::{KeyId, Sealed, from_text, push_text};
use keyfold::{Context, Error, ErrorKind, Padding, Result, Value, vectors};
use proptest::collection::vec;
use proptest::prelude::*;
use reference::{Pair, Plain};

/// The same value as core has it.
fn value(plain: &Plain) -> Value<'_> {
    match plain {
        Plain::Bytes(bytes) => Value::Bytes(bytes),
        Plain::Text(text) => Value::Text(text),
        Plain::Integer(number) => Value::Integer(*number),
        Plain::Decimal(text) => Value::Decimal(text),
        Plain::Float(number) => Value::Float(*number),
        Plain::Boolean(truth) => Value::Boolean(*truth),
        Plain::Date(days) => Value::Date(*days),
        Plain::Timestamp(seconds, nanoseconds) => Value::Timestamp { seconds: *seconds, nanoseconds: *nanoseconds },
        Plain::Json(text) => Value::Json(text),
        Plain::Null => Value::Null,
    }
}

fn padding(padding: reference::Padding) -> Padding {
    match padding {
        reference::Padding::None => Padding::None,
        reference::Padding::Multiple(n) => Padding::Multiple(n as u16),
        reference::Padding::Padme => Padding::Padme,
    }
}

fn context(pairs: &[Pair]) -> Result<Context> {
    pairs.iter().try_fold(Context::new(), |context, (key, value)| context.with(key, value))
}

/// Whether two values are the same: every NaN is one, 0 and −0 are not.
fn same(a: &Plain, b: &Plain) -> bool {
    match (a, b) {
        (Plain::Float(a), Plain::Float(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        _ => value(a) == value(b),
    }
}

fn kind<T>(result: Result<T>) -> std::result::Result<T, ErrorKind> {
    result.map_err(|error| Error::kind(&error))
}

/// Whether two have come to the same about `bytes`. What is of no suite of values and too short for a header has two faults, and either class will do
/// (FORMAT.md §9).
fn agree<T: PartialEq>(
    bytes: &[u8],
    found: &std::result::Result<T, ErrorKind>,
    expected: &std::result::Result<T, ErrorKind>,
) -> bool {
    let has_two_faults = bytes.len() < 26 && expected.as_ref().err() == Some(&ErrorKind::Unsupported);
    found == expected || has_two_faults && found.as_ref().err() == Some(&ErrorKind::Malformed)
}

fn decoded(encoded: &[u8]) -> Option<reference::Canonical> {
    vectors::decode(encoded).map(|value| (value.value_type() as u8, vectors::canonical(value)))
}

proptest! {
    #![proptest_config(cases(10_000))]

    /// Covers F-1-1, F-4.2-3, F-4.2-4.
    #[test]
    fn a_value_has_one_encoding_and_comes_back(plain in draw::plain(), pad in draw::padding()) {
        let canonical = reference::canonical(&plain);
        let encoded = vectors::encode(value(&plain), padding(pad)).unwrap();
        prop_assert_eq!(&encoded, &reference::encode(&canonical, pad));
        prop_assert_eq!(value(&plain).canonical_len(), canonical.1.len());
        prop_assert_eq!(reference::decode(&encoded), Some(canonical.clone()));
        let back = vectors::decode(&encoded).unwrap();
        prop_assert_eq!((back.value_type() as u8, vectors::canonical(back)), canonical);
        prop_assert!(back == value(&plain) || matches!(plain, Plain::Float(number) if number.is_nan()));
    }

    #[test]
    fn values_that_differ_have_encodings_that_differ(a in draw::plain_of_few(), b in draw::plain_of_few(), pad in draw::padding()) {
        let [of_a, of_b] = [&a, &b].map(|plain| vectors::encode(value(plain), padding(pad)).unwrap());
        prop_assert_eq!(of_a == of_b, same(&a, &b));
    }

    /// Covers F-1-1, F-4.2-2, F-4.2-3, F-4.2-5.
    #[test]
    fn other_encodings_are_refused(plain in draw::plain(), pad in draw::padding(), zeros in 0_usize..40, edits in draw::edits(0..4)) {
        let mut encoded = reference::encode(&reference::canonical(&plain), pad);
        encoded.resize(encoded.len() + if encoded[0] >= 0x80 { zeros } else { 0 }, 0);
        let encoded = edited(&encoded, &edits);
        prop_assert_eq!(decoded(&encoded), reference::decode(&encoded));
        if let Some(canonical) = decoded(&encoded).filter(|_| encoded[0] < 0x80) {
            prop_assert_eq!(reference::encode(&canonical, reference::Padding::None), encoded);
        }
    }

    /// Of bytes that were never a value.
    /// Covers F-4.2-2.
    #[test]
    fn whatever_decodes_is_canonical(format in 0_u8..16, padded: bool, bytes in vec(prop_oneof![Just(0), Just(0x80), Just(0xFF), Just(b'1'), Just(b'.'), any::<u8>()], 0..20)) {
        let encoded = [&[if padded { format | 0x80 } else { format }], &bytes[..]].concat();
        prop_assert_eq!(decoded(&encoded), reference::decode(&encoded));
    }

    /// Covers F-4.2-2.
    #[test]
    fn decimals_are_numbers_of_json(text in "-?[0-9.eE+-]{0,8}") {
        let is_one = reference::decode(&[&[4], text.as_bytes()].concat()).is_some();
        prop_assert_eq!(vectors::encode(Value::Decimal(&text), Padding::None).is_ok(), is_one);
        prop_assert_eq!(decoded(&[&[4], text.as_bytes()].concat()).is_some(), is_one);
    }

    /// Covers F-4.3-1, F-4.3-4.
    #[test]
    fn the_order_of_pairs_does_not_matter(binding in draw::binding(), header: [u8; 26], seed: prop::sample::Index) {
        let Binding { name, pairs, row } = &binding;
        let mut others = pairs.clone();
        others.rotate_left(if pairs.is_empty() { 0 } else { seed.index(pairs.len()) });
        others.reverse();
        let aads = [pairs, &others].map(|pairs| vectors::aad(&header, name, &context(pairs).unwrap(), row.as_deref()).unwrap());
        prop_assert_eq!(&aads[0], &aads[1]);
        prop_assert_eq!(&aads[0], &reference::aad(&header, name, &reference::context(pairs, row.as_deref())));
        // It can be read again, so no other binding has it.
        let mut bound = pairs.clone();
        bound.extend(row.iter().map(|row| ("kf:row".to_owned(), row.clone())));
        bound.sort();
        prop_assert_eq!(reference::read_aad(&aads[0]), Some((header.to_vec(), name.clone(), bound)));
    }

    /// Covers F-4.3-4, F-5.2-1.
    #[test]
    fn what_differs_is_bound_differently(a in draw::binding_of_few(), b in draw::binding_of_few(), joined: bool) {
        let aad = |of: &Binding| vectors::aad(&[7; 26], &of.name, &context(&of.pairs).unwrap(), of.row.as_deref()).unwrap();
        prop_assert_eq!(aad(&a) == aad(&b), a == b);
        let strings = |of: &Binding, joined| vectors::strings(&[7; 26], joined, &of.name, &context(&of.pairs).unwrap()).unwrap();
        let rowless = |of: &Binding| (of.name.clone(), of.pairs.clone());
        prop_assert_eq!(strings(&a, joined) == strings(&b, joined), rowless(&a) == rowless(&b));
        prop_assert_ne!(strings(&a, true), strings(&a, false));
    }

    /// Covers F-4.3-2, F-4.3-3.
    #[test]
    fn pairs_that_no_context_has_are_refused(pairs in draw::any_pairs()) {
        let faults = reference::faults_of_pairs(&pairs);
        match kind(context(&pairs)) {
            Ok(_) => prop_assert!(faults.is_empty(), "{faults:?}"),
            Err(kind) => prop_assert!(faults.contains(&kind), "{kind:?}, {faults:?}"),
        }
    }

    /// Covers F-4.3-3.
    #[test]
    fn a_context_has_room_for_so_much_and_no_more(pairs in draw::pairs(), over in -3_isize..4, row_bound: bool) {
        // Filled up by one pair more, or by the row.
        let used = reference::context(&pairs, row_bound.then_some(&[])).len();
        let fill = vec![7; (4096 - used).saturating_sub(if row_bound { 0 } else { 5 }).saturating_add_signed(over)];
        let row = row_bound.then_some(&fill[..]);
        let mut filled = pairs;
        if !row_bound {
            filled.push(("\u{10FFFF}".to_owned(), fill.clone()));
        }
        let made = context(&filled).and_then(|context| vectors::aad(&[7; 26], "f", &context, row));
        let fits = filled.len() <= 32 && reference::context(&filled, row).len() <= 4096;
        prop_assert_eq!(kind(made).err(), (!fits).then_some(ErrorKind::LimitExceeded));
    }

    #[test]
    fn a_key_id_has_one_text(bytes: [u8; 24], edits in draw::edits(0..3)) {
        let text = KeyId::from_bytes(bytes).to_string();
        prop_assert_eq!(text.parse::<KeyId>().unwrap(), KeyId::from_bytes(bytes));
        prop_assert_eq!(KeyId::from_bytes(bytes).generation().to_be_bytes(), *bytes.first_chunk::<4>().unwrap());
        let other = String::from_utf8_lossy(&edited(text.as_bytes(), &edits)).into_owned();
        for other in [other, text.to_uppercase(), format!(" {text}"), format!("{text}\n")] {
            if let Ok(key_id) = other.parse::<KeyId>() {
                prop_assert_eq!(key_id.to_string(), other);
            }
        }
    }

    /// Covers F-3-1, F-3.1-1, F-4.1-1, F-5.1-1, F-8.1-5, F-8.1-6, F-8.1-7.
    #[test]
    fn headers_are_read_as_they_are_written(magic in draw::mostly(0xF5), suite in draw::suite(), rest in vec(any::<u8>(), 0..120)) {
        let bytes = [&[magic, suite], &rest[..]].concat();
        for bytes in [&bytes[..], &bytes[..1], &[]] {
            let read = Sealed::parse(bytes).map(|sealed| (sealed.suite().id(), sealed.key_id().as_bytes().to_vec()));
            let (read, expected) = (kind(read), reference::read_header(bytes));
            prop_assert!(agree(bytes, &read, &expected), "{read:?}, {expected:?}");
        }
    }

    /// Covers F-6-1, F-6-2, F-6-3, F-6-4.
    #[test]
    fn a_value_has_one_text(suite in 1_u8..3, rest in vec(any::<u8>(), 65..120), edits in draw::edits_of_texts(0..3)) {
        let sealed = [&[0xF5, suite], &rest[..]].concat();
        let (mut text, mut back) = (Vec::new(), Vec::new());
        push_text(&sealed, &mut text).unwrap();
        prop_assert_eq!(std::str::from_utf8(&text).unwrap(), reference::text(&sealed));
        from_text(&text, &mut back).unwrap();
        prop_assert_eq!(&back, &sealed);
        let other = edited(&text, &edits);
        let mut read = Vec::new();
        let result = kind(from_text(&other, &mut read)).and_then(|()| kind(Sealed::parse(&read)).map(|_| read.clone()));
        let expected = reference::from_text(&other).and_then(|bytes| reference::read_header(&bytes).map(|_| bytes));
        prop_assert_eq!(&result, &expected);
        if let Ok(bytes) = result {
            prop_assert_eq!(reference::text(&bytes).into_bytes(), other, "a second text of one value");
        }
    }
}

/// The strategies draw what the properties are about.
#[test]
fn what_is_drawn_is_not_always_the_same() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::new(cases(1));
    let (mut equal, mut refused, mut kinds) = (0, 0, std::collections::BTreeSet::new());
    for _ in 0..2000 {
        let mut draw = |strategy: BoxedStrategy<Plain>| strategy.new_tree(&mut runner).unwrap().current();
        let (a, b) = (draw(draw::plain_of_few().boxed()), draw(draw::plain_of_few().boxed()));
        equal += usize::from(same(&a, &b));
        kinds.insert(reference::canonical(&draw(draw::plain().boxed())).0);
        let pairs = draw::any_pairs().new_tree(&mut runner).unwrap().current();
        refused += usize::from(!reference::faults_of_pairs(&pairs).is_empty());
    }
    assert!((20..1980).contains(&equal) && (200..1800).contains(&refused), "{equal} equal, {refused} refused");
    assert_eq!(kinds.len(), 10);
}
