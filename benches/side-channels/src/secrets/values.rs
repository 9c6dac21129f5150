//! Fields, columns, streams, documents and look-ups of a keyring whose KEK gives secret answers, on the default backend.

use crate::Case;
use crate::records::Stored;
use crate::valgrind::{hidden, hidden_text, hide, show};
use keyfold::testing::block_on;
use keyfold::{
    ColumnBytes, DocumentBody, DocumentPolicy, DocumentValue, FieldPolicy, Format, IndexKind, IndexPolicy, Keyring,
    Padding, Token, TokenForm, Value,
};
use std::hint::black_box;

pub(crate) const CASES: &[Case] = &[
    ("bytes", bytes),
    ("padded", padded),
    ("text", text),
    ("types", types),
    ("column", column),
    ("deterministic", deterministic),
    ("stream", stream),
    ("document", document),
    ("index", index),
    ("normal_form", normal_form),
    ("proof", proof),
    ("format", format),
];

const NO_ROWS: Option<&[&[u8]]> = None;

fn ring(field: FieldPolicy) -> Keyring {
    Stored::new(|policy| policy.add(field).expect("good")).open()
}

/// Seals and opens `value` in a field of this policy; once more with a tag that is wrong.
#[inline(never)]
fn seal_and_open(policy: FieldPolicy, value: Value<'_>) {
    let (name, ring) = (policy.name.clone(), ring(policy));
    let field = || ring.field(&name).expect("of the policy");
    let mut sealed = block_on(field().encryptor()).expect("a key").encrypt(value, None).expect("short");
    show(&sealed);
    let decryptor = block_on(field().decryptor()).expect("a key");
    block_on(decryptor.load_keys(&[&sealed[..]][..])).expect("its own key");
    drop(black_box(decryptor.decrypt(&sealed, None).expect("just sealed")));
    *sealed.last_mut().expect("longer") ^= 1;
    assert!(decryptor.decrypt(&sealed, None).is_err());
}

#[inline(never)]
fn bytes() {
    seal_and_open(FieldPolicy::randomized("f"), Value::Bytes(&hidden([7; 40])));
}

/// Padding is looked for from the end.
#[inline(never)]
fn padded() {
    let policy = FieldPolicy { padding: Padding::Padme, ..FieldPolicy::randomized("f") };
    seal_and_open(policy, Value::Bytes(&hidden([7; 41])));
}

/// Text is UTF-8, which is checked.
#[inline(never)]
fn text() {
    let text = hidden_text("Grüße an Ada");
    seal_and_open(FieldPolicy::randomized("f"), Value::Text(&text));
}

/// What is not bytes is written and read by its type. Integers are not here: how long they are is seen, and depends on them.
#[inline(never)]
fn types() {
    let number = i64::from_le_bytes(hidden([7; 8]));
    seal_and_open(FieldPolicy::randomized("f"), Value::Float(f64::from_bits(number.cast_unsigned())));
    seal_and_open(FieldPolicy::randomized("f"), Value::Date(i32::from_le_bytes(hidden([7, 0, 0, 0]))));
    seal_and_open(FieldPolicy::randomized("f"), Value::Timestamp { seconds: number, nanoseconds: 0 });
    seal_and_open(FieldPolicy::randomized("f"), Value::Decimal(&hidden_text("12.50")));
}

#[inline(never)]
fn column() {
    let ring = ring(FieldPolicy::randomized("f"));
    let field = || ring.field("f").expect("of the policy");
    let values: Vec<[u8; 20]> = (0..40).map(|i| hidden([i; 20])).collect();
    let values: Vec<Value<'_>> = values.iter().map(|value| Value::Bytes(value)).collect();
    let sealed = block_on(field().encryptor()).expect("a key").encrypt_column(&values[..], NO_ROWS).expect("short");
    let sealed: Vec<Vec<u8>> = (0..values.len()).map(|row| sealed.bytes(row).to_vec()).collect();
    sealed.iter().for_each(|sealed| show(sealed));
    let decryptor = block_on(field().decryptor()).expect("a key");
    block_on(decryptor.load_keys(&sealed[..])).expect("its own key");
    drop(black_box(decryptor.decrypt_column(&sealed[..], NO_ROWS).expect("just sealed")));
}

#[inline(never)]
fn deterministic() {
    seal_and_open(FieldPolicy::deterministic("f", "default", None), Value::Bytes(&hidden([7; 40])));
}

#[inline(never)]
fn stream() {
    let ring = ring(FieldPolicy::stream("f"));
    let sealer = block_on(ring.field("f").expect("of the policy").stream_sealer()).expect("a key");
    let mut stream = sealer.begin(None).expect("ready");
    let mut sealed = Vec::new();
    let header = *stream.header();
    show(header.as_bytes());
    let mut plaintext = vec![7; 20_000];
    hide(&mut plaintext);
    stream.update(&plaintext, &mut sealed).expect("short");
    stream.finish(&mut sealed).expect("short");
    show(&sealed);
    let opener = block_on(ring.field("f").expect("of the policy").stream_opener()).expect("a key");
    block_on(opener.load_key(&header)).expect("its own key");
    let (mut stream, mut out) = (opener.begin(&header, None).expect("its own header"), Vec::new());
    stream.update(&sealed, &mut out).expect("just sealed");
    stream.finish(&mut out).expect("just sealed");
    black_box(out);
}

#[inline(never)]
fn document() {
    let stored = Stored::new(|policy| {
        policy.add(FieldPolicy::document("f")).expect("good");
        policy.add_document(DocumentPolicy::new("patient")).expect("good");
    });
    let ring = stored.open();
    let documents = || ring.documents("patient").expect("of the policy");
    let value = hidden([7; 40]);
    let values = [DocumentValue { field: "f", path: "$['f']", value: Value::Bytes(&value) }];
    let sealed = block_on(documents().sealer()).expect("a key").seal(None, &values, &[], 1).expect("short");
    let body = sealed.bodies.bytes(0).to_vec();
    let mut manifest = sealed.manifest.expect("by default");
    [sealed.header.as_bytes(), &body[..], &manifest].into_iter().for_each(show);
    let opener = block_on(documents().opener()).expect("a key");
    block_on(opener.load_key(&sealed.header)).expect("its own key");
    let bodies = [DocumentBody { field: "f", path: "$['f']", body: &body }];
    drop(black_box(opener.open(&sealed.header, None, &bodies, &[], Some(&manifest)).expect("just sealed")));
    manifest[39] ^= 1;
    assert!(opener.open(&sealed.header, None, &bodies, &[], Some(&manifest)).is_err());
}

fn indexed(index: IndexPolicy) -> FieldPolicy {
    FieldPolicy { indexes: vec![index], ..FieldPolicy::randomized("f") }
}

fn show_tokens(tokens: &[Token]) {
    for token in tokens {
        match token {
            Token::Integer(number) => show(&number.to_ne_bytes()),
            Token::Bytes(bytes) => show(bytes),
        }
    }
}

/// Tokens of bytes, which are their own normal form.
#[inline(never)]
fn index() {
    for index in [IndexPolicy::new("i", IndexKind::Exact, 16), IndexPolicy::unique("i", IndexKind::Exact, 256)] {
        let ring = ring(indexed(index));
        let indexer = block_on(ring.field("f").expect("of the policy").indexer("i")).expect("a key");
        let value = hidden([7; 40]);
        show_tokens(&indexer.tokens(Value::Bytes(&value)).expect("indexable"));
        show_tokens(&indexer.search_tokens(Value::Bytes(&value)).expect("indexable"));
    }
}

/// Normal forms of text fold case and composition by tables, and are known to be variable.
#[inline(never)]
fn normal_form() {
    for (kind, text) in [(IndexKind::CaseFolded, "Ægir  Ågren"), (IndexKind::Digits, "999-81-5679")] {
        let ring = ring(indexed(IndexPolicy::new("i", kind, 16)));
        let indexer = block_on(ring.field("f").expect("of the policy").indexer("i")).expect("a key");
        show_tokens(&indexer.tokens(Value::Text(&hidden_text(text))).expect("indexable"));
    }
}

#[inline(never)]
fn proof() {
    let ring = ring(FieldPolicy::token("f", "default", TokenForm::default()));
    let prover = block_on(ring.field("f").expect("of the policy").prover()).expect("a key");
    let (token, value) = ("A".repeat(22), hidden([7; 40]));
    let mut proof = prover.prove(&token, Value::Bytes(&value)).expect("of the form");
    show(&proof);
    prover.check(&token, Value::Bytes(&value), &proof).expect("just made");
    proof[31] ^= 1;
    assert!(prover.check(&token, Value::Bytes(&value), &proof).is_err());
}

/// Format-preserving values, known to be variable.
#[inline(never)]
fn format() {
    let ring = ring(FieldPolicy::format_preserving("f", "default", Format::Digits));
    let cipher = block_on(ring.field("f").expect("of the policy").format_preserver()).expect("a key");
    let encrypted = cipher.encrypt(&hidden_text("1234567890")).expect("digits");
    black_box(cipher.decrypt(&encrypted).expect("digits"));
}
