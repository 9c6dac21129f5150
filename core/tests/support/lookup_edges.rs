//! More vectors of blind indexes and formats: those that a reader with one rule left out agreed with before. They follow the others, whose
//! numbers stay.

use super::lookups::{
    FIELD, Form, Indexed, Pairs, bad_format, bad_index, good_format, good_index, index_json, indexer, messages, phone,
    run, token_json, tokens,
};
use super::{Cases, Maker, hex};
use keyfold::vectors;
use keyfold::{DatePart, ErrorKind, Format, IndexKind, IndexPolicy, TimeUnit, Value};
use serde_json::json;

use IndexKind::{CaseFolded, Date, DatePart as Part, Digits, Exact, Prefix};

const fn text(text: &'static str) -> Value<'static> {
    Value::Text(text)
}

fn json_text(text: &'static str) -> Value<'static> {
    Value::Json(text)
}

pub(super) fn indexes(make: &Maker, cases: &mut Cases) {
    let (germany, america) = (|| phone(Some("49"), Some("0")), || phone(Some("1"), Some("1")));
    let anywhere = || phone(None, None);
    let none: Pairs = &[];
    let folded = |note, from, to| -> Indexed { (note, CaseFolded, 63, none, text(from), vec![(0, to)]) };
    let number = |note, kind, from, to| -> Indexed { (note, kind, 63, none, text(from), vec![(0, to)]) };
    let nothing = |note, kind, value| -> Indexed { (note, kind, 16, none, value, vec![]) };
    let day = |note, value, to| -> Indexed { (note, Date, 63, none, value, vec![(0, to)]) };
    let good: Vec<Indexed> = vec![
        folded("the order of marks, which NFD makes", "\u{3b1}\u{345}\u{301}", "\u{3ac}\u{3b9}"),
        folded("what is folded only behind NFKC", "\u{3d2}", "\u{3c5}"),
        folded("what is composed again at the end", "\u{1f0}", "\u{1f0}"),
        folded("a tab is no space", "a\tb", "a\tb"),
        folded("nor is U+1680", "b\u{1680}a", "b\u{1680}a"),
        folded("U+2003 becomes one", "b\u{2003} a", "b a"),
        folded("a letter of Unicode 16, U+A7DC", "\u{a7dc}", "\u{19b}"),
        folded("a letter of Unicode 16, U+1C89", "\u{1c89}", "\u{1c8a}"),
        ("a prefix that ends with a space", Prefix(vec![3]), 16, none, text("ab cd"), vec![(3, "ab ")]),
        (
            "a prefix in characters, not in bytes",
            Prefix(vec![3]),
            16,
            none,
            text("\u{1f600}\u{1f601}\u{1f602}\u{1f603}"),
            vec![(3, "\u{1f600}\u{1f601}\u{1f602}")],
        ),
        (
            "prefixes of which some have equal tokens",
            Prefix(vec![3, 4, 5, 6]),
            1,
            none,
            text("abc"),
            vec![(3, "abc"), (4, "abc"), (5, "abc"), (6, "abc")],
        ),
        number("spaces at the ends", anywhere(), " +49 30 901820 ", "4930901820"),
        number("U+00A0 within and behind", anywhere(), "+49\u{a0}30 901820\u{a0}", "4930901820"),
        number("00 although there is an international prefix", america(), "00 49 30 901820", "4930901820"),
        number("00 with a separator in it", anywhere(), "0 0-49 30 901820", "4930901820"),
        number("a trunk prefix, dropped once", phone(Some("7"), Some("8")), "8 800 555 35 35", "78005553535"),
        number("no trunk prefix behind a plus sign", germany(), "+49 030 901820", "49030901820"),
        number("a zero alone in two pairs of brackets, of a country", germany(), "((0))30 901820", "4930901820"),
        number("brackets around brackets", anywhere(), "+49 (0(1)) 30 90182", "49013090182"),
        number("brackets around brackets and a zero", anywhere(), "+49 (()0) 30 90182", "4903090182"),
        number("brackets around nothing", anywhere(), "+49 () 30 901820", "4930901820"),
        number("two zeros in brackets", anywhere(), "+49 (00) 30 9018", "4900309018"),
        number("7 digits", anywhere(), "+2345678", "2345678"),
        number("8 digits", anywhere(), "+23456789", "23456789"),
        number("15 digits", anywhere(), "+234567890123456", "234567890123456"),
        nothing("an empty number", anywhere(), text("")),
        nothing("a number of spaces", germany(), text("  ")),
        nothing("an empty prefix", Prefix(vec![3, 5]), text("")),
        nothing("a prefix of a null", Prefix(vec![3, 5]), Value::Null),
        nothing("an empty date", Date, text("")),
        nothing("an empty part of a date", Part(DatePart::Year), text("")),
        nothing("no digits of an empty text", Digits, text("")),
        day("the year 0000 is a leap year", text("0000-02-29"), "0000-02-29"),
        day("the first day of it", Value::Date(-719_528), "0000-01-01"),
        day("the last day that can be written", Value::Date(2_932_896), "9999-12-31"),
        day("its last second", Value::Timestamp { seconds: 253_402_300_799, nanoseconds: 0 }, "9999-12-31"),
        day("a leap year that is divisible by 400", text("2000-02-29"), "2000-02-29"),
        ("a month of a text", Part(DatePart::YearMonth), 63, none, text("2000-02-29"), vec![(2, "2000-02")]),
        ("exactly a decimal", Exact, 63, none, Value::Decimal("1.50"), vec![(0, "\u{4}1.50")]),
        ("exactly a truth", Exact, 63, none, Value::Boolean(true), vec![(0, "\u{6}\u{1}")]),
        ("exactly a date", Exact, 63, none, Value::Date(1), vec![(0, "\u{7}\0\0\0\u{1}")]),
        (
            "exactly a time",
            Exact,
            63,
            none,
            Value::Timestamp { seconds: 1, nanoseconds: 5 },
            vec![(0, "\u{8}\0\0\0\0\0\0\0\u{1}\0\0\0\u{5}")],
        ),
        ("exactly a float", Exact, 63, none, Value::Float(2.0), vec![(0, "\u{5}@\0\0\0\0\0\0\0")]),
        ("exactly JSON", Exact, 63, none, json_text("[1]"), vec![(0, "\u{9}[1]")]),
        ("exactly bytes", Exact, 256, none, Value::Bytes(b"a"), vec![(0, "\u{1}a")]),
        (
            "with two pairs of a context, out of order",
            Exact,
            63,
            &[("a", ""), ("tenant", "t")],
            text("x"),
            vec![(0, "\u{2}x")],
        ),
    ];
    for case in good {
        good_index(make, cases, case);
    }
    let input = ErrorKind::InvalidInput;
    let bad: Vec<(&str, IndexKind, Value<'static>)> = vec![
        ("a letter of Unicode 17, U+A7CE", CaseFolded, text("\u{a7ce}")),
        ("a private character", CaseFolded, text("\u{e000}")),
        ("a noncharacter", CaseFolded, text("\u{fffe}")),
        ("the prefix of an unassigned character", Prefix(vec![3]), text("abc\u{378}")),
        ("JSON is no text", CaseFolded, json_text("\"a\"")),
        ("a digit of Unicode 16, U+10D40", Digits, text("1\u{10d40}")),
        ("a number in letters", Digits, text("\u{2167}")),
        ("the digits of a decimal", Digits, Value::Decimal("1.5")),
        ("the prefix of bytes", Prefix(vec![3]), Value::Bytes(b"abc")),
        ("1900 is no leap year", Date, text("1900-02-29")),
        ("April has 30 days", Date, text("2000-04-31")),
        ("month 13", Date, text("2000-13-01")),
        ("month 00", Date, text("2000-00-01")),
        ("day 00", Date, text("2000-01-00")),
        ("a month of one digit", Date, text("2000-1-01")),
        ("a date behind a space", Date, text(" 2000-01-01")),
        ("a date in front of a space", Date, text("2000-01-01 ")),
        ("a date with other digits", Date, text("200\u{661}-01-01")),
        ("a negative year", Date, text("-001-01-01")),
        ("the day before the year 0000", Date, Value::Date(-719_529)),
        ("a time of the year 10000", Date, Value::Timestamp { seconds: 253_402_300_800, nanoseconds: 0 }),
        ("a time before the year 0000", Part(DatePart::Year), Value::Timestamp { seconds: i64::MIN, nanoseconds: 0 }),
        ("the date of JSON", Date, json_text("\"2000-01-01\"")),
        ("a number of 6 digits", anywhere(), text("+234567")),
        ("a plus sign alone", germany(), text("+")),
        ("two plus signs", anywhere(), text("++49 30 901820")),
        ("a plus sign within", anywhere(), text("+49 30+901820")),
        ("full-width digits", anywhere(), text("+\u{ff14}\u{ff19} 30 901820")),
        ("a letter behind enough digits", anywhere(), text("+49 30 901820 a")),
        ("another space", anywhere(), text("+49\u{2009}30 901820")),
        ("a tab at the end", anywhere(), text("+49 30 901820\t")),
        ("U+00A0 alone", germany(), text("\u{a0}")),
        ("a zero alone in two pairs of brackets", anywhere(), text("+49 ((0))30 901820")),
        ("a zero alone in brackets behind the international prefix", america(), text("011 49 (0)30 901820")),
        ("a zero alone in brackets that is part of 00", anywhere(), text("0(0)49 30 901820")),
        ("the second zero of a trunk prefix", germany(), text("00 30")),
        ("an integer", anywhere(), Value::Integer(4_930_901_820)),
        ("JSON", anywhere(), json_text("\"+49 30 901820\"")),
    ];
    for (note, kind, value) in bad {
        bad_index(make, cases, note, kind, 12, value, input);
    }
    let configuration: [(IndexKind, u16); 6] =
        [(Exact, 0), (Exact, 64), (Exact, 255), (Exact, 257), (Prefix(vec![3]), 17), (Prefix(vec![2]), 8)];
    for (kind, bits) in configuration {
        let note = format!(
            "{} with {bits} bits",
            if let Prefix(n) = &kind { format!("prefix {n:?}") } else { "exact".into() }
        );
        bad_index(make, cases, &note, kind, bits, text("abc"), ErrorKind::Configuration);
    }
    searches(make, cases);
}

/// What is looked for: under each key of the partition, and of a prefix the longest that the index has.
fn searches(make: &Maker, cases: &mut Cases) {
    let prefix = || Prefix(vec![3, 5]);
    let sought: [(&str, IndexKind, u16, &'static str, Form); 5] = [
        ("a text", CaseFolded, 16, "Zoe\u{308}", (0, "zo\u{eb}")),
        ("a prefix of the least length", prefix(), 8, "M\u{dc}L", (3, "m\u{fc}l")),
        ("one between two lengths", prefix(), 8, "M\u{fc}ll", (3, "m\u{fc}l")),
        ("one of more than the greatest", prefix(), 8, "M\u{fc}ller-L", (5, "m\u{fc}lle")),
        ("one whose folded form is longer", prefix(), 8, "\u{df}a", (3, "ssa")),
    ];
    for (note, kind, bits, value, form) in sought {
        let index = IndexPolicy::new("i", kind, bits);
        let message = messages(&index, &[], &[form]);
        let (_, found) = run(&make.world, &index, &[], text(value)).expect("a good value");
        let keys = ["lookup-default", "lookup-default-old"].map(|name| (name, make.key(name)));
        let by_hand: Vec<_> = keys.iter().flat_map(|(_, key)| tokens(key, bits, &message)).collect();
        assert_eq!(found, by_hand, "{note}");
        for ((name, key), token) in keys.iter().zip(found) {
            cases.push(
                &format!("looking for {note}, under {name}"),
                json!({
                    "index": index_json(&index), "field": FIELD, "partition": "default", "context": [], "search": true,
                    "type": "text", "value": hex(value), "key_id": key.key_id().to_string(), "expect": "ok",
                    "messages": message.iter().map(hex).collect::<Vec<_>>(), "tokens": [token_json(&token)],
                }),
            );
        }
    }
    let index = IndexPolicy::new("i", prefix(), 8);
    let short = "M\u{fc}";
    let refused = indexer(&make.world, &index, &[]).expect("a good index").search_tokens(text(short));
    assert_eq!(refused.expect_err("too short").kind(), ErrorKind::InvalidInput);
    cases.push(
        "looking for a prefix that is too short",
        json!({
            "index": index_json(&index), "field": FIELD, "partition": "default", "context": [], "search": true,
            "type": "text", "value": hex(vectors::canonical(text(short))), "expect": "InvalidInput",
        }),
    );
}

pub(super) fn formats(make: &Maker, cases: &mut Cases) {
    let window =
        |from: i64, units: i64, unit: TimeUnit| Format::Timestamp { from, until: from + units * unit.seconds(), unit };
    let many: &'static str = "7".repeat(256).leak();
    let more: &'static str = "7".repeat(257).leak();
    let before = window(-1_000_000, 1_000_000, TimeUnit::Second);
    for case in [
        ("256 numerals", Format::Digits, &[][..], many),
        ("punctuation from both ends of ASCII", Format::Digits, &[], "!123/:456@[`789{~ "),
        ("punctuation between letters", Format::Alphanumeric, &[], "!A0/:@Z9[`{~"),
        ("with two pairs of a context", Format::Luhn, &[("a", ""), ("tenant", "t")], "4539 1488 0343 6467"),
        ("a window before 1970, of 1,000,000 seconds", before, &[], "1969-12-31T23:59:59Z"),
    ] {
        good_format(make, cases, case);
    }
    let (input, limit, configuration) = (ErrorKind::InvalidInput, ErrorKind::LimitExceeded, ErrorKind::Configuration);
    for (note, format, text, expect) in [
        ("257 numerals", Format::Digits, more, limit),
        ("257 letters", Format::Alphanumeric, "A".repeat(257).leak() as &str, limit),
        ("U+00A0", Format::Digits, "123\u{a0}456", input),
        ("U+007F", Format::Digits, "123456\u{7f}", input),
        ("a small letter among digits", Format::Digits, "123456a", input),
        ("a check digit and nothing else", Format::Luhn, "0", input),
        ("no check digit", Format::Luhn, "", input),
        ("999,999 seconds", window(0, 999_999, TimeUnit::Second), "1970-01-01T00:00:00Z", configuration),
        ("999,999 minutes", window(0, 999_999, TimeUnit::Minute), "1970-01-01T00:00:00Z", configuration),
        ("a window past the year 9999", window(253_402_300_000, 1_000_000, TimeUnit::Second), "", configuration),
        ("a time with an offset", before, "1970-01-01T00:59:59+01:00", input),
        ("the end of the window", before, "1970-01-01T00:00:00Z", input),
        ("no such day", before, "1969-02-29T00:00:00Z", input),
        ("no such month", before, "1969-13-01T00:00:00Z", input),
        ("no such hour", before, "1969-12-31T24:00:00Z", input),
        ("no such second", before, "1969-12-31T23:59:60Z", input),
        ("a blank for the T", before, "1969-12-31 23:59:59Z", input),
        ("no zone", before, "1969-12-31T23:59:59", input),
    ] {
        bad_format(make, cases, note, format, text, expect);
    }
}
