//! More vectors of documents: those that a reader with one rule left out agreed with before. They follow the others, whose numbers stay.

use super::documents::{Plan, bytes_of, list, put, text_of};
use super::{Cases, Maker, hex};
use crate::world::bytes;
use data_encoding::BASE64URL_NOPAD;
use keyfold::aead::Backend;
use keyfold::aead::hazmat::aes256gcm_seal;
use keyfold::vectors::body_aad;
use keyfold::wire::push_body_text;
use keyfold::{Padding, Value};
use serde_json::{Value as Json, json};

const FAILED: &str = "DecryptionFailed";

/// A text that lives as long as the program.
fn long(text: &str, times: usize) -> &'static str {
    text.repeat(times).leak()
}

/// A document with one value, without manifest, row and context.
fn plain() -> Plan {
    Plan {
        key: "data",
        scope: None,
        context: vec![],
        row: None,
        values: vec![("patient.name", "$['name']", Value::Text("Ada"), Padding::None)],
        beside: vec![],
        sequence: None,
    }
}

pub(super) fn add(make: &Maker, cases: &mut Cases) {
    positive(make, cases);
    keys(make, cases);
    encodings(make, cases);
    texts(make, cases);
    bound(make, cases);
}

fn positive(make: &Maker, cases: &mut Cases) {
    // A key that sorts before `kf:row` and is a part of it, one right behind it, and the lengths that need two bytes.
    let around =
        vec![("a", ""), ("kf", "1"), ("kf;", "2"), ("tenant", long("t", 300)), (long("k", 260), "3"), ("é", "4")];
    let plans = [
        (
            "a context around the row, with long parts",
            Plan { context: around.clone(), row: Some(long("row-", 100)), sequence: Some(7), ..plain() },
        ),
        ("the same context, bound to no row", Plan { context: around, ..plain() }),
        (
            "the longest context: 32 pairs, and 4,096 bytes with the row",
            Plan { context: longest(), row: Some("r"), ..plain() },
        ),
        (
            "a field with a name of 255 bytes that are not ASCII, and one of one byte",
            Plan {
                values: vec![
                    (long("é", 127).to_owned().leak(), "$['a']", Value::Text("Ada"), Padding::None),
                    (format!("{}n", "é".repeat(127)).leak(), "$['b']", Value::Text("Ada"), Padding::None),
                    ("n", "$['c']", Value::Text("Ada"), Padding::None),
                ],
                ..plain()
            },
        ),
        (
            "every type that a body may have",
            Plan {
                values: vec![
                    ("a", "$['bytes']", Value::Bytes(&[0, 0xF5, 0xFF]), Padding::None),
                    ("a", "$['decimal']", Value::Decimal("1.50"), Padding::None),
                    ("a", "$['float']", Value::Float(-0.0), Padding::None),
                    ("a", "$['timestamp']", Value::Timestamp { seconds: -1, nanoseconds: 5 }, Padding::Multiple(32)),
                    ("a", "$['text']", Value::Text(""), Padding::None),
                    ("a", "$['json']", Value::Json("{}"), Padding::Padme),
                ],
                sequence: Some(0),
                ..plain()
            },
        ),
        (
            "a manifest over long paths, in the order of their bytes and not of UTF-16",
            Plan {
                values: vec![
                    ("a", "$['\u{1f600}']", Value::Text("1"), Padding::None),
                    ("a", "$['\u{ff5e}']", Value::Text("2"), Padding::None),
                    ("a", format!("$['{}']", "p".repeat(300)).leak(), Value::Text("3"), Padding::None),
                ],
                beside: vec![
                    ("$['x']", "ü".repeat(200)),
                    ("$['token']", "0123456789A".into()),
                    ("$['ssn']", "339-22-7813".into()),
                ],
                sequence: Some(2),
                ..plain()
            },
        ),
        (
            "a manifest of 257 entries",
            Plan {
                beside: (0..256).map(|i| (&*format!("$['x'][{i}]").leak(), format!("{i}"))).collect(),
                sequence: Some(3),
                ..plain()
            },
        ),
        ("a header alone", Plan { values: vec![], ..plain() }),
        ("a header and a manifest of nothing", Plan { values: vec![], sequence: Some(4), ..plain() }),
        ("under a key that is not active yet", Plan { key: "data-pre-active", ..plain() }),
        ("under a key of the second root", Plan { key: "clinic-18", scope: Some("clinic-18"), ..plain() }),
    ];
    for (note, plan) in plans {
        cases.push(note, plan.seal(make, note));
    }
}

/// 32 pairs that leave room for a row binding of one byte: 1 + (4 + 6 + 1) + 32 · (4 + 3) + values = 4,096.
fn longest() -> Vec<(&'static str, &'static str)> {
    let total = 4096 - 1 - (4 + 6 + 1) - 32 * (4 + 3);
    let len = |i: usize| if i == 31 { total - 31 * 120 } else { 120 };
    (0..32).map(|i| (&*format!("k{i:02}").leak(), long("v", len(i)))).collect()
}

/// What the ID of another key comes to.
fn keys(make: &Maker, cases: &mut Cases) {
    let free = plain().seal(make, "keys");
    for (key, expect) in [
        ("data-destroyed", "KeyState"),
        ("data-compromised", "KeyState"),
        ("data-destroy-pending", "KeyState"),
        ("clinic-17", "WrongScope"),
        ("scope-names", "WrongScope"),
        ("lookup-default", "WrongScope"),
        ("root-1", "WrongScope"),
        ("data-old", FAILED),
        ("data-pre-active", FAILED),
    ] {
        let id = make.key(key).key_id();
        put(cases, &format!("the key ID of {key}"), expect, &free, |case| {
            let (text, own) = (case["header"].as_str().expect("a text"), &id.as_bytes());
            let mut bytes = decode(&text[15..]);
            bytes[..20].copy_from_slice(&own[4..]);
            case["header"] = json!(format!("kf1.05{}.{}", hex(&own[..4]), BASE64URL_NOPAD.encode(&bytes)));
        });
    }
    put(cases, "a scope that there is not", "NoMatchingKey", &free, |case| case["scope"] = json!("clinic-99"));
    put(cases, "a scope that there is not, and nothing that needs its key", "NoMatchingKey", &free, |case| {
        (case["scope"], case["bodies"]) = (json!("clinic-99"), json!([]));
    });
    put(cases, "a required key of the context is missing", "PolicyRefused", &free, |case| {
        case["required_context"] = json!(["site"]);
    });
}

fn decode(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url")
}

/// A tag that is valid around something that is no encoded value.
fn encodings(make: &Maker, cases: &mut Cases) {
    let plan = plain();
    let document = plan.document(make, "encodings");
    let free = plan.seal(make, "encodings");
    let (field, path, ..) = plan.values[0];
    let aad = body_aad(field, path).expect("short");
    for (note, encoded) in [
        ("a type that is not assigned", &b"\x0bA"[..]),
        ("type 00", b"\0A"),
        ("a text that is not UTF-8", b"\x02\xff"),
        ("an integer that could be shorter", b"\x03\0\x01"),
        ("a decimal with a plus sign", b"\x04+1"),
        ("another NaN", b"\x05\x7f\xf8\0\0\0\0\0\x01"),
        ("a boolean that is neither", b"\x06\x02"),
        ("a date of three bytes", b"\x07\0\0\x01"),
        ("a timestamp with 10⁹ nanoseconds", b"\x08\0\0\0\0\0\0\0\0\x3b\x9a\xca\0"),
        ("a null with a byte", b"\x0a\0"),
        ("padding without its 80", b"\x82A\0\0"),
        ("padding of nothing", b"\x82"),
        ("padding with another byte", b"\x82A\x80\x01"),
    ] {
        let nonce: [u8; 12] = bytes(&format!("encoding {note}"));
        let mut body = encoded.to_vec();
        let tag = aes256gcm_seal(Backend::default(), &document.key, nonce, &aad, &mut body).expect("short");
        let mut text = Vec::new();
        push_body_text(&[&nonce[..], &body, &tag].concat(), &mut text);
        put(cases, &format!("a valid tag over {note}"), FAILED, &free, |case| {
            case["bodies"][0]["body"] = json!(String::from_utf8(text).expect("ASCII"));
        });
    }
}

/// The text whose last character has other bits than the ones that count.
fn stray(text: &Json) -> Json {
    let text = text.as_str().expect("a text");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = text.bytes().last().expect("a character");
    let at = alphabet.iter().position(|known| *known == last).expect("base64url");
    assert!(at % 4 == 0, "the last bits of {text} are zero");
    json!(format!("{}{}", &text[..text.len() - 1], char::from(alphabet[at + 1])))
}

fn texts(make: &Maker, cases: &mut Cases) {
    // A body of 31 bytes, so that its text has bits left over.
    let short = Plan {
        values: vec![("patient.name", "$['name']", Value::Text("Al"), Padding::None)],
        sequence: Some(1),
        ..plain()
    };
    let whole = short.seal(make, "texts");
    let mut put = |note: &str, change: &dyn Fn(&mut Json)| put(cases, note, "Malformed", &whole, change);
    put("a header with stray bits", &|case| case["header"] = stray(&case["header"]));
    put("a body with stray bits", &|case| case["bodies"][0]["body"] = stray(&case["bodies"][0]["body"]));
    put("a manifest with stray bits", &|case| case["manifest"] = stray(&case["manifest"]));
    for len in [39, 41] {
        put(&format!("a manifest of {len} bytes"), &|case| {
            let mut manifest = decode(case["manifest"].as_str().expect("a text"));
            manifest.resize(len, 0);
            case["manifest"] = json!(BASE64URL_NOPAD.encode(&manifest));
        });
    }
    for (note, behind) in [("padding", "=="), ("white space", " "), ("a line end", "\n")] {
        let longer = |text: &Json| json!(format!("{}{behind}", text.as_str().expect("a text")));
        put(&format!("a header with {note} behind it"), &|case| case["header"] = longer(&case["header"]));
        put(&format!("a manifest with {note} behind it"), &|case| case["manifest"] = longer(&case["manifest"]));
        put(&format!("a body with {note} behind it"), &|case| {
            case["bodies"][0]["body"] = longer(&case["bodies"][0]["body"]);
        });
    }
    put("a body with white space in it", &|case| {
        let text = case["bodies"][0]["body"].as_str().expect("a text");
        case["bodies"][0]["body"] = json!(format!("{} {}", &text[..20], &text[20..]));
    });
    put("a body and another value at one path", &|case| {
        list(case, "beside").push(json!(["$['name']", "339-22-7813"]));
    });
    put("two other values at one path", &|case| {
        case["beside"] = json!([["$['x']", "1"], ["$['x']", "1"]]);
    });
    let body = text_of(&bytes_of(&whole["bodies"][0]["body"]));
    assert_eq!(whole["bodies"][0]["body"], body, "one text of each");
}

/// Contexts, rows and names that nothing is bound to.
fn bound(make: &Maker, cases: &mut Cases) {
    let bound = Plan { row: Some("r"), ..plain() }.seal(make, "bound");
    put(cases, "an empty row", "InvalidInput", &bound, |case| case["row"] = json!(""));
    let contexts = contexts();
    for (note, expect, context) in &contexts {
        put(cases, note, expect, &bound, |case| case["context"] = context.clone());
    }
    put(cases, "a path of 65,536 bytes", "LimitExceeded", &bound, |case| {
        case["bodies"][0]["path"] = json!(format!("$['{}']", "p".repeat(65_531)));
    });
    for (note, name) in names() {
        put(cases, note, "Configuration", &bound, |case| case["bodies"][0]["field"] = json!(name));
    }
}

/// Contexts that §4.3 does not allow, for whatever is bound to a row of one byte.
pub(super) fn contexts() -> Vec<(&'static str, &'static str, Json)> {
    let pairs = |pairs: &[(&str, &str)]| -> Json { pairs.iter().map(|(k, v)| json!([k, hex(v)])).collect() };
    let longest = longest();
    let mut longer = longest.clone();
    longer[31].1 = long("v", longest[31].1.len() + 1);
    let many: Vec<(&str, &str)> = (0..33).map(|i| (&*format!("k{i}").leak(), "")).collect();
    vec![
        ("a context with an empty key", "InvalidInput", pairs(&[("", "1")])),
        ("a context with a key twice", "InvalidInput", pairs(&[("a", "1"), ("a", "1")])),
        ("a context with a key of Keyfold's own", "InvalidInput", pairs(&[("kf:row", "r")])),
        ("a context with a key that starts as those do", "InvalidInput", pairs(&[("kf:", "r")])),
        ("a context of 33 pairs", "LimitExceeded", pairs(&many)),
        ("a context of 4,097 bytes with its row", "LimitExceeded", pairs(&longer)),
    ]
}

/// Names that no field has.
pub(super) fn names() -> [(&'static str, &'static str); 3] {
    [
        ("a field with a control character in its name", "patient\u{7f}"),
        ("a field without a name", ""),
        ("a field with a name of 256 bytes", long("é", 128)),
    ]
}
