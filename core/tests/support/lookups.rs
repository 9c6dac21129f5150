//! The vectors of blind indexes and formats (FORMAT.md §17): normal forms are written here by hand, and messages and tweaks made byte by byte.

use super::{Cases, File, Maker, head, hex, lookup_edges};
use crate::world::World;
use keyfold::aead::hazmat::hmac_sha256;
use keyfold::testing::block_on;
use keyfold::vectors::{self, Key};
use keyfold::{
    Context, DatePart, ErrorKind, FieldPolicy, Format, IndexKind, IndexPolicy, Indexer, OnUnindexable, PhoneRule,
    Policy, Prover, TimeUnit, Token, TokenAlphabet, TokenForm, Value,
};
use serde_json::{Map, Value as Json, json};

pub(super) const FIELD: &str = "patient.name";

/// The part of messages and tweaks after the label: name and context.
pub(super) fn bound(context: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![1, FIELD.len() as u8];
    out.extend_from_slice(FIELD.as_bytes());
    out.push(context.len() as u8);
    for part in context.iter().flat_map(|(key, value)| [key, value]) {
        out.extend_from_slice(&(part.len() as u16).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}

fn context_of(pairs: &[(&str, &str)]) -> Context {
    pairs.iter().fold(Context::new(), |context, (key, value)| context.with(key, value).unwrap())
}

pub(super) fn context_json(pairs: &[(&str, &str)]) -> Json {
    pairs.iter().map(|(key, value)| json!([key, hex(value)])).collect()
}

/// How a case describes an index or a format.
pub(super) fn index_json(index: &IndexPolicy) -> Json {
    let mut map = Map::new();
    map.insert("kind".into(), json!(index.kind.name()));
    map.insert("bits".into(), json!(index.bits));
    match &index.kind {
        IndexKind::DatePart(part) => drop(map.insert("part".into(), json!(part.name()))),
        IndexKind::Prefix(lengths) => drop(map.insert("length".into(), json!(lengths))),
        IndexKind::Phone(rule) => {
            map.insert("country_code".into(), json!(rule.country_code));
            map.insert("trunk_prefix".into(), json!(rule.trunk_prefix));
            map.insert("international_prefix".into(), json!(rule.international_prefix));
        }
        _ => {}
    }
    Json::Object(map)
}

fn format_json(format: Format) -> Json {
    match format {
        Format::Timestamp { from, until, unit } => {
            json!({ "format": format.name(), "from": from, "until": until, "unit": unit.seconds() })
        }
        _ => json!({ "format": format.name() }),
    }
}

pub(crate) fn token_json(token: &Token) -> Json {
    match token {
        Token::Integer(number) => json!(number),
        Token::Bytes(bytes) => json!(hex(bytes)),
    }
}

pub(super) fn purpose(key: &Key, label: &str) -> Vec<u8> {
    key.purpose_keys().into_iter().find(|(known, _)| *known == label).expect("a purpose").1
}

/// A normal form with the parameter of its kind.
pub(super) type Form = (u8, &'static str);
/// Pairs of a context.
pub(super) type Pairs = &'static [(&'static str, &'static str)];
/// Note, kind, bits, context, value, and the normal forms that it has.
pub(super) type Indexed = (&'static str, IndexKind, u16, Pairs, Value<'static>, Vec<Form>);
/// Note, format, context, text.
pub(super) type Formatted = (&'static str, Format, Pairs, &'static str);

pub(super) fn phone(country: Option<&str>, trunk: Option<&str>) -> IndexKind {
    let international_prefix = (country == Some("1")).then(|| "011".to_owned());
    let (country_code, trunk_prefix) = (country.map(str::to_owned), trunk.map(str::to_owned));
    IndexKind::Phone(PhoneRule { country_code, trunk_prefix, international_prefix })
}

pub(super) fn indexes(make: &Maker) -> File {
    use IndexKind::{CaseFolded, Date, DatePart as Part, Digits, Exact, Prefix};
    let mut cases = Cases("index", Vec::new());
    let text = Value::Text;
    let tenant: Pairs = &[("tenant", "t")];
    let good: Vec<Indexed> = vec![
        ("a text", Exact, 256, &[], text("123-45-6789"), vec![(0, "\u{2}123-45-6789")]),
        ("the same in one bit", Exact, 1, &[], text("123-45-6789"), vec![(0, "\u{2}123-45-6789")]),
        ("and with a context", Exact, 256, tenant, text("123-45-6789"), vec![(0, "\u{2}123-45-6789")]),
        ("an empty text has a type", Exact, 63, &[], text(""), vec![(0, "\u{2}")]),
        ("a number", Exact, 63, &[], Value::Integer(65), vec![(0, "\u{3}A")]),
        ("a null has no token", Exact, 63, &[], Value::Null, vec![]),
        ("case", CaseFolded, 16, &[], text("  O'BRIEN  Zoe\u{308} "), vec![(0, "o'brien zo\u{eb}")]),
        ("sharp s", CaseFolded, 16, &[], text("STRA\u{1e9e}E"), vec![(0, "strasse")]),
        ("width and ligatures", CaseFolded, 16, &[], text("\u{ff21}\u{fb01}\u{a0}\u{2167}"), vec![(0, "afi viii")]),
        ("Greek iota below", CaseFolded, 63, &[], text("\u{1fb3}\u{345}"), vec![(0, "\u{3b1}\u{3b9}\u{3b9}")]),
        ("only spaces", CaseFolded, 16, &[], text(" \u{3000} "), vec![]),
        ("digits", Digits, 63, &[], text("123-45-6789"), vec![(0, "123456789")]),
        ("digits of a number", Digits, 12, &[], Value::Integer(-7), vec![(0, "7")]),
        ("no digits", Digits, 12, &[], text("n/a"), vec![]),
        ("a date", Date, 20, &[], Value::Date(-1), vec![(0, "1969-12-31")]),
        ("a date as text", Date, 20, &[], text("1969-12-31"), vec![(0, "1969-12-31")]),
        ("the day of a time", Date, 20, &[], Value::Timestamp { seconds: -1, nanoseconds: 5 }, vec![(0, "1969-12-31")]),
        ("a year", Part(DatePart::Year), 4, &[], Value::Date(-1), vec![(1, "1969")]),
        ("a month", Part(DatePart::YearMonth), 8, &[], Value::Date(-1), vec![(2, "1969-12")]),
        ("a birthday", Part(DatePart::MonthDay), 6, &[], text("2000-02-29"), vec![(3, "02-29")]),
        ("international", phone(None, None), 16, &[], text("+1 (555) 010-4477"), vec![(0, "15550104477")]),
        ("with 00", phone(Some("49"), None), 16, &[], text("001/555 010.4477"), vec![(0, "15550104477")]),
        ("national", phone(Some("49"), Some("0")), 16, &[], text("030 901820"), vec![(0, "4930901820")]),
        ("without trunk prefix", phone(Some("1"), Some("1")), 16, &[], text("555-010-4477"), vec![(0, "15550104477")]),
        ("with 011", phone(Some("1"), Some("1")), 16, &[], text("011 49 30 901820"), vec![(0, "4930901820")]),
        ("(0) of a country", phone(Some("49"), Some("0")), 16, &[], text("(0)30/901820"), vec![(0, "4930901820")]),
        ("prefixes", Prefix(vec![3, 5]), 8, &[], text("M\u{fc}ller"), vec![(3, "m\u{fc}l"), (5, "m\u{fc}lle")]),
        ("of a short text", Prefix(vec![3, 5]), 16, &[], text("MU\u{308}"), vec![(3, "m\u{fc}"), (5, "m\u{fc}")]),
    ];
    let bad: Vec<(&str, IndexKind, Value<'static>)> = vec![
        ("an unassigned character", CaseFolded, text("a\u{378}")),
        ("bytes", CaseFolded, Value::Bytes(b"a")),
        ("a number", CaseFolded, Value::Integer(1)),
        ("other digits", Digits, text("\u{661}\u{662}")),
        ("a superscript", Digits, text("1\u{b2}")),
        ("no date", Date, text("29.02.2000")),
        ("no such day", Date, text("2001-02-29")),
        ("a year of five digits", Date, Value::Date(3_000_000)),
        ("a number", Part(DatePart::Year), Value::Integer(1969)),
        ("no country code", phone(None, None), text("555-010-4477")),
        ("an extension", phone(Some("1"), None), text("555-010-4477 x3")),
        ("too short", phone(None, None), text("+49110")),
        ("too long", phone(None, None), text("+2345678901234567")),
        ("a zero in brackets", phone(None, None), text("+49 ( 0 )30 901820")),
        ("the same behind 00", phone(Some("49"), Some("0")), text("0049(0)30 901820")),
        ("9 digits behind 1", phone(None, None), text("+1 555 010 447")),
        ("11 digits behind 1", phone(None, None), text("001 149 30 901820")),
        ("a country code with 0", phone(None, None), text("+0 555 010 4477")),
    ];
    for case in good {
        good_index(make, &mut cases, case);
    }
    for (note, kind, value) in bad {
        bad_index(make, &mut cases, note, kind, 12, value, ErrorKind::InvalidInput);
    }
    lookup_edges::indexes(make, &mut cases);
    ("index.json", head("tokens of blind indexes (FORMAT.md §17.1)"), cases.1)
}

/// The messages of normal forms, by hand.
pub(super) fn messages(index: &IndexPolicy, context: &[(&str, &str)], forms: &[Form]) -> Vec<Vec<u8>> {
    let kind_id = ["exact", "case-folded", "digits", "date", "date-part", "phone", "prefix"]
        .iter()
        .position(|name| *name == index.kind.name())
        .expect("a kind") as u8
        + 1;
    let message = |(parameter, form): &Form| {
        let rule = [kind_id, *parameter, 1, (index.bits >> 8) as u8, index.bits as u8];
        [&b"\x10keyfold/index/v1"[..], &bound(context), &rule, form.as_bytes()].concat()
    };
    forms.iter().map(message).collect()
}

/// The tokens of messages under a key, by hand.
pub(super) fn tokens(key: &Key, bits: u16, messages: &[Vec<u8>]) -> Vec<Token> {
    let mac_key = purpose(key, "keyfold/v1/lookup/index");
    let token = |message: &Vec<u8>| {
        let mac = hmac_sha256(&mac_key, message);
        let first = u64::from_be_bytes(*mac.first_chunk().expect("32 bytes"));
        if bits == 256 { Token::Bytes(mac) } else { Token::Integer((first >> (64 - bits)) as i64) }
    };
    let mut tokens: Vec<Token> = messages.iter().map(token).collect();
    tokens.sort_unstable();
    tokens
}

pub(super) fn good_index(make: &Maker, cases: &mut Cases, (note, kind, bits, context, value, forms): Indexed) {
    // What of a value is compared is the format's; whether one of which nothing is may be stored is the policy's.
    let on_unindexable = if forms.is_empty() { OnUnindexable::Skip } else { OnUnindexable::Refuse };
    let index = IndexPolicy { on_unindexable, ..IndexPolicy::new("i", kind, bits) };
    let (stored, _) = run(&make.world, &index, context, value).expect("a good value");
    let key = make.key("lookup-default");
    let messages = messages(&index, context, &forms);
    assert_eq!(stored, tokens(&key, bits, &messages), "{note}");
    cases.push(
        note,
        json!({
            "index": index_json(&index), "field": FIELD, "partition": "default", "context": context_json(context),
            "type": value.value_type().name(), "value": hex(vectors::canonical(value)), "key_id": key.key_id().to_string(),
            "messages": messages.iter().map(hex).collect::<Vec<_>>(), "expect": "ok",
            "tokens": stored.iter().map(token_json).collect::<Vec<_>>(),
        }),
    );
}

pub(super) fn bad_index(
    make: &Maker,
    cases: &mut Cases,
    note: &str,
    kind: IndexKind,
    bits: u16,
    value: Value<'static>,
    expect: ErrorKind,
) {
    let index = IndexPolicy::new("i", kind, bits);
    let refused = run(&make.world, &index, &[], value).expect_err("a bad value");
    assert_eq!(refused, expect, "{note}");
    cases.push(
        note,
        json!({
            "index": index_json(&index), "field": FIELD, "partition": "default", "context": [],
            "type": value.value_type().name(), "value": hex(vectors::canonical(value)), "expect": refused.name(),
        }),
    );
}

/// The tokens that are stored of a value, and those that are looked for.
pub(crate) fn run(
    world: &World,
    index: &IndexPolicy,
    context: &[(&str, &str)],
    value: Value<'_>,
) -> Result<(Vec<Token>, Vec<Token>), ErrorKind> {
    let indexer = indexer(world, index, context)?;
    let tokens = indexer.tokens(value).map_err(|error| error.kind())?;
    let searched = if tokens.is_empty() { Vec::new() } else { indexer.search_tokens(value).unwrap_or_default() };
    Ok((tokens, searched))
}

pub(super) fn indexer(world: &World, index: &IndexPolicy, context: &[(&str, &str)]) -> Result<Indexer, ErrorKind> {
    let mut policy = Policy::new();
    let mut field = FieldPolicy { table_rows: Some(1 << 40), ..FieldPolicy::randomized(FIELD) };
    field.indexes = vec![IndexPolicy { unique: index.is_full_width(), ..index.clone() }];
    policy.add(field).map_err(|error| error.kind())?;
    let ring = world.keyring(policy).expect("a keyring");
    let field = ring.field(FIELD).expect("the field").context(context_of(context));
    Ok(block_on(field.indexer(&index.name)).expect("its keys"))
}

pub(super) fn formats(make: &Maker) -> File {
    let mut cases = Cases("fpe", Vec::new());
    let window = Format::Timestamp { from: 1_704_067_200, until: 1_767_225_600, unit: TimeUnit::Minute };
    let seconds = Format::Timestamp { from: 1_704_067_200, until: 1_705_067_200, unit: TimeUnit::Second };
    let tenant: Pairs = &[("tenant", "t")];
    let good: [Formatted; 12] = [
        ("digits", Format::Digits, &[], "123-45-6789"),
        ("the same digits", Format::Digits, &[], "123456789"),
        ("with a context", Format::Digits, tenant, "123456789"),
        ("the fewest", Format::Digits, &[], "000000"),
        (
            "many",
            Format::Digits,
            &[],
            "31415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253421170679",
        ),
        ("alphanumeric", Format::Alphanumeric, &[], "MRN-0001"),
        ("the fewest alphanumeric", Format::Alphanumeric, &[], "AB/12"),
        ("a card", Format::Luhn, &[], "4539 1488 0343 6467"),
        ("the fewest with a check digit", Format::Luhn, &[], "0000000"),
        ("a minute", window, &[], "2024-02-29T12:34:00Z"),
        ("the last minute", window, &[], "2025-12-31T23:59:00Z"),
        ("a second", seconds, &[], "2024-01-01T00:00:00Z"),
    ];
    let bad = [
        ("too few", Format::Digits, "12345"),
        ("a letter", Format::Digits, "A123456"),
        ("nothing", Format::Digits, ""),
        ("other digits", Format::Digits, "\u{661}\u{662}\u{663}\u{664}\u{665}\u{666}"),
        ("a control character", Format::Digits, "123456\t"),
        ("too few alphanumeric", Format::Alphanumeric, "AB1"),
        ("a small letter", Format::Alphanumeric, "mrn0001"),
        ("a wrong check digit", Format::Luhn, "4539 1488 0343 6468"),
        ("too few with a check digit", Format::Luhn, "000000"),
        ("before the window", window, "2023-12-31T23:59:00Z"),
        ("after the window", window, "2026-01-01T00:00:00Z"),
        ("no whole minute", window, "2024-02-29T12:34:01Z"),
        ("a fraction", seconds, "2024-01-01T00:00:00.5Z"),
        ("a date", window, "2024-02-29"),
    ];
    for case in good {
        good_format(make, &mut cases, case);
    }
    for (note, format, text) in bad {
        bad_format(make, &mut cases, note, format, text, ErrorKind::InvalidInput);
    }
    lookup_edges::formats(make, &mut cases);
    ("fpe.json", head("format-preserving encryption (FORMAT.md §17.4)"), cases.1)
}

pub(super) fn good_format(make: &Maker, cases: &mut Cases, (note, format, context, text): Formatted) {
    let key = make.key("lookup-study");
    let [encrypted, decrypted] = preserve(&make.world, format, context, text).expect("a good value");
    assert_eq!(decrypted, text);
    let id = ["digits", "alphanumeric", "luhn", "timestamp"].iter().position(|name| *name == format.name());
    let mut tweak = [&b"\x0ekeyfold/fpe/v1"[..], &bound(context), &[id.expect("a format") as u8 + 1]].concat();
    if let Format::Timestamp { from, until, unit } = format {
        tweak.extend_from_slice(&from.to_be_bytes());
        tweak.extend_from_slice(&until.to_be_bytes());
        tweak.push(unit.seconds() as u8);
    }
    if format == Format::Digits {
        let numerals = |text: &str| text.bytes().filter(u8::is_ascii_digit).map(|b| u16::from(b - b'0')).collect();
        let key = purpose(&key, "keyfold/v1/lookup/format-preserving").try_into().expect("32 bytes");
        let by_hand = keyfold::aead::hazmat::ff1_aes256(&key, 10, &tweak, numerals(text), true).expect("enough");
        assert_eq!(by_hand, numerals(&encrypted) as Vec<u16>, "{note}");
    }
    cases.push(
        note,
        json!({
            "format": format_json(format), "field": FIELD, "partition": "study", "context": context_json(context), "text": text,
            "key_id": key.key_id().to_string(), "tweak": hex(tweak), "encrypted": encrypted, "expect": "ok",
        }),
    );
}

pub(super) fn bad_format(make: &Maker, cases: &mut Cases, note: &str, format: Format, text: &str, expect: ErrorKind) {
    let refused = preserve(&make.world, format, &[], text).expect_err("a bad value");
    assert_eq!(refused, expect, "{note}");
    cases.push(
        note,
        json!({
            "format": format_json(format), "field": FIELD, "partition": "study", "context": [], "text": text,
            "expect": refused.name(),
        }),
    );
}

/// The tokens of these cases: 11 letters and digits.
const TOKENS: [&str; 2] = ["0123456789A", "zyxwvutsrqp"];

pub(super) fn proofs(make: &Maker) -> File {
    let mut cases = Cases("token", Vec::new());
    let key = make.key("lookup-default");
    let mac_key = purpose(&key, "keyfold/v1/lookup/token-proof");
    let tenant: Pairs = &[("tenant", "t")];
    let text = Value::Text("123-45-6789");
    let message = |context: Pairs, token: &str, value: Value<'_>| -> Vec<u8> {
        let encoded = [&[type_id(value)][..], &vectors::canonical(value)].concat();
        [&b"\x10keyfold/token/v1"[..], &bound(context), &[token.len() as u8], token.as_bytes(), &encoded].concat()
    };
    let mut push = |note: &str, key: &Key, context: Pairs, token: &str, value: Value<'_>, proof: &[u8]| {
        let checked = check_proof(&make.world, context, token, value, proof);
        let expect = checked.err().map_or("ok", |kind| kind.name());
        cases.push(
            note,
            json!({
                "field": FIELD, "partition": "default", "context": context_json(context), "key_id": key.key_id().to_string(),
                "token": token, "type": value.value_type().name(), "value": hex(vectors::canonical(value)),
                "message": hex(message(context, token, value)), "proof": hex(proof), "expect": expect,
            }),
        );
        expect
    };
    let good: [(&str, Pairs, &str, Value<'_>); 4] = [
        ("a text", &[], TOKENS[0], text),
        ("another token of it", &[], TOKENS[1], text),
        ("with a context", tenant, TOKENS[0], text),
        ("a number", &[], TOKENS[0], Value::Integer(65)),
    ];
    for (note, context, token, value) in good {
        let proof = hmac_sha256(&mac_key, &message(context, token, value));
        assert_eq!(make_proof(&make.world, context, token, value), Ok(proof), "{note}");
        assert_eq!(push(note, &key, context, token, value, &proof), "ok", "{note}");
    }
    let proof = hmac_sha256(&mac_key, &message(&[], TOKENS[0], text));
    let other = hmac_sha256(&purpose(&key, "keyfold/v1/lookup/index"), &message(&[], TOKENS[0], text));
    let bad: [(&str, Pairs, &str, Value<'_>, &[u8]); 6] = [
        ("of another token", &[], TOKENS[1], text, &proof),
        ("of another value", &[], TOKENS[0], Value::Text("123-45-6780"), &proof),
        ("of a value of another type", &[], TOKENS[0], Value::Bytes(b"123-45-6789"), &proof),
        ("of another context", tenant, TOKENS[0], text, &proof),
        ("cut off", &[], TOKENS[0], text, &proof[..31]),
        ("under the key of indexes", &[], TOKENS[0], text, &other),
    ];
    for (note, context, token, value, proof) in bad {
        assert_eq!(push(note, &key, context, token, value, proof), "DecryptionFailed", "{note}");
    }
    for (name, expect) in [("lookup-default-old", "ok"), ("lookup-study", "DecryptionFailed")] {
        let key = make.key(name);
        let proof = hmac_sha256(&purpose(&key, "keyfold/v1/lookup/token-proof"), &message(&[], TOKENS[0], text));
        let note = format!("under the key {name}");
        assert_eq!(push(&note, &key, &[], TOKENS[0], text, &proof), expect, "{note}");
    }
    let longer = [&proof[..], &[0]].concat();
    assert_eq!(push("with a byte more", &key, &[], TOKENS[0], text, &longer), "DecryptionFailed");
    assert_eq!(push("none", &key, &[], TOKENS[0], text, &[]), "DecryptionFailed");
    let short = &TOKENS[0][..10];
    let proof = hmac_sha256(&mac_key, &message(&[], short, text));
    assert_eq!(push("of a token that is too short", &key, &[], short, text, &proof), "InvalidInput");
    // Who compares a part of a proof takes one of these.
    let proof = hmac_sha256(&mac_key, &message(&[], TOKENS[0], text));
    for at in 0..proof.len() {
        let mut flipped = proof;
        flipped[at] ^= 1 << (at % 8);
        let note = format!("with a bit of byte {at} flipped");
        assert_eq!(push(&note, &key, &[], TOKENS[0], text, &flipped), "DecryptionFailed", "{note}");
    }
    for len in [1, 8, 16, 20, 24, 30] {
        let note = format!("its first {len} bytes");
        assert_eq!(push(&note, &key, &[], TOKENS[0], text, &proof[..len]), "DecryptionFailed", "{note}");
    }
    ("token.json", head("proofs of random tokens (FORMAT.md §17.5)"), cases.1)
}

/// The first byte of an encoded value.
fn type_id(value: Value<'_>) -> u8 {
    match value {
        Value::Bytes(_) => 1,
        Value::Text(_) => 2,
        Value::Integer(_) => 3,
        _ => panic!("no case has such a value"),
    }
}

fn make_proof(world: &World, context: Pairs, token: &str, value: Value<'_>) -> Result<[u8; 32], ErrorKind> {
    prover(world, context).prove(token, value).map_err(|error| error.kind())
}

pub(crate) fn check_proof(
    world: &World,
    context: &[(&str, &str)],
    token: &str,
    value: Value<'_>,
    proof: &[u8],
) -> Result<(), ErrorKind> {
    prover(world, context).check(token, value, proof).map_err(|error| error.kind())
}

fn prover(world: &World, context: &[(&str, &str)]) -> Prover {
    let mut policy = Policy::new();
    let form = TokenForm { alphabet: TokenAlphabet::Alphanumeric, length: 11 };
    policy.add(FieldPolicy::token(FIELD, "default", form)).expect("a good policy");
    let ring = world.keyring(policy).expect("a keyring");
    block_on(ring.field(FIELD).expect("the field").context(context_of(context)).prover()).expect("its keys")
}

/// A text encrypted, and decrypted again.
pub(crate) fn preserve(
    world: &World,
    format: Format,
    context: &[(&str, &str)],
    text: &str,
) -> Result<[String; 2], ErrorKind> {
    let mut policy = Policy::new();
    policy.add(FieldPolicy::format_preserving(FIELD, "study", format)).map_err(|error| error.kind())?;
    let ring = world.keyring(policy).expect("a keyring");
    let field = ring.field(FIELD).expect("the field").context(context_of(context));
    let preserver = block_on(field.format_preserver()).expect("its key");
    let encrypted = preserver.encrypt(text).map_err(|error| error.kind())?;
    let decrypted = preserver.decrypt(&encrypted).map_err(|error| error.kind())?.to_string();
    Ok([encrypted, decrypted])
}
