use super::*;
use proptest::prelude::*;

fn round_trip(value: Value<'_>, padding: Padding) {
    let mut encoded = vec![0xEE; value.encoded_len(padding)];
    value.encode(padding, &mut encoded);
    let (value_type, bytes) = Value::split_encoded(&encoded).expect("what was encoded decodes");
    assert!(Value::from_canonical(value_type, bytes) == Some(value));
}

#[test]
fn integers_are_shortest_two_s_complement() {
    for (number, expected) in [
        (0_i128, &[0][..]),
        (127, &[0x7F]),
        (128, &[0x00, 0x80]),
        (-1, &[0xFF]),
        (-128, &[0x80]),
        (-129, &[0xFF, 0x7F]),
        (i128::MAX, &[0x7F, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255]),
    ] {
        let value = Value::Integer(number);
        let mut out = vec![0; value.canonical_len()];
        value.write_canonical(&mut out);
        assert_eq!(out, expected, "{number}");
    }
}

// Failure C14
#[test]
fn redundant_encodings_are_refused() {
    for (value_type, bytes) in [
        (ValueType::Integer, &[0, 1][..]),
        (ValueType::Integer, &[0xFF, 0x80]),
        (ValueType::Integer, &[]),
        (ValueType::Integer, &[1; 17]),
        (ValueType::Boolean, &[2]),
        (ValueType::Boolean, &[]),
        (ValueType::Null, &[0]),
        (ValueType::Text, &[0xFF]),
        (ValueType::Decimal, b"01"),
        (ValueType::Float, &[0x7F, 0xF8, 0, 0, 0, 0, 0, 1]),
        (ValueType::Date, &[0; 3]),
        (ValueType::Timestamp, &[0xFF; 12]),
    ] {
        assert!(Value::from_canonical(value_type, bytes).is_none(), "{value_type:?} {bytes:?}");
    }
    for encoded in [&[][..], &[0x00], &[0x0B], &[0x82], &[0x82, b'a', 0, 0], &[0x82, b'a', 0x81, 0]] {
        assert!(Value::split_encoded(encoded).is_none(), "{encoded:?}");
    }
}

#[test]
fn json_numbers() {
    for good in ["0", "-0", "1.50", "10", "1e5", "1E+5", "-12.25e-3", "0.1"] {
        assert!(is_json_number(good.as_bytes()), "{good}");
    }
    for bad in ["", "-", "01", "1.", ".5", "1e", "+1", "1 ", "0x1", "1e+", "NaN", "--1"] {
        assert!(!is_json_number(bad.as_bytes()), "{bad}");
    }
}

// Failure C22
#[test]
fn padding_lengths() {
    assert_eq!(Value::Text("abc").encoded_len(Padding::Multiple(16)), 16);
    assert_eq!(Value::Text(&"a".repeat(14)).encoded_len(Padding::Multiple(16)), 16);
    assert_eq!(Value::Text(&"a".repeat(15)).encoded_len(Padding::Multiple(16)), 32);
    // The examples of the Padmé paper: 9 stays within 12 %.
    for len in 2..100_000 {
        let padded = padme(len);
        assert!(padded >= len && padded * 100 <= len * 112 + 100, "{len} {padded}");
    }
    assert_eq!([padme(2), padme(9), padme(100), padme(1000)], [2, 10, 104, 1024]);
}

/// Covers F-4.2-6.
#[test]
fn text_spellings() {
    for (value_type, text) in [
        (ValueType::Date, "1949-11-14"),
        (ValueType::Date, "2000-02-29"),
        (ValueType::Timestamp, "1951-02-20T08:15:54Z"),
        (ValueType::Timestamp, "2026-11-23T00:00:00.000000001Z"),
        (ValueType::Integer, "-170141183460469231731687303715884105728"),
        (ValueType::Decimal, "39.155185939682845"),
        (ValueType::Boolean, "true"),
        (ValueType::Text, ""),
    ] {
        let value = Value::from_text(value_type, text).unwrap();
        assert_eq!(value.to_text().unwrap(), text);
        round_trip(value, Padding::None);
    }
    for (value_type, text) in [
        (ValueType::Date, "1900-02-29"),
        (ValueType::Date, "1949-1-14"),
        (ValueType::Timestamp, "1951-02-20T08:15:54-05:00"),
        (ValueType::Timestamp, "1951-02-20T08:15:54.10Z"),
        (ValueType::Timestamp, "1951-02-20T24:00:00Z"),
        (ValueType::Integer, "007"),
        (ValueType::Integer, "+7"),
        (ValueType::Integer, ""),
        (ValueType::Decimal, ".5"),
        (ValueType::Boolean, "True"),
    ] {
        assert_eq!(Value::from_text(value_type, text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
    }
}

proptest! {
    #[test]
    fn every_value_round_trips(
        number in any::<i128>(), bits in any::<u64>(), days in any::<i32>(), seconds in any::<i64>(),
        nanoseconds in 0_u32..1_000_000_000, text in ".*", bytes in proptest::collection::vec(any::<u8>(), 0..200),
        multiple in 2_u16..300,
    ) {
        for padding in [Padding::None, Padding::Multiple(multiple), Padding::Padme] {
            round_trip(Value::Integer(number), padding);
            round_trip(Value::Text(&text), padding);
            round_trip(Value::Bytes(&bytes), padding);
            round_trip(Value::Date(days), padding);
            round_trip(Value::Timestamp { seconds, nanoseconds }, padding);
            if !f64::from_bits(bits).is_nan() {
                round_trip(Value::Float(f64::from_bits(bits)), padding);
            }
        }
    }

    // Failure K14
    #[test]
    fn dates_follow_each_other(days in -719_528_i32..2_932_896) {
        let text = Value::Date(days).to_text().unwrap();
        prop_assert!(Value::from_text(ValueType::Date, &text).unwrap() == Value::Date(days));
    }
}
