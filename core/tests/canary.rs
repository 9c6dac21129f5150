//! Plaintext and keys appear nowhere: not in Debug and Display output, errors, TRACE logs or panics.
//!
//! One child process does everything that the library can do, prints whatever can be printed, and panics; its parent
//! looks for the canaries in all of its output.
#![cfg(all(feature = "testing", feature = "hazmat", feature = "config"))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::lab::*;
use common::{block_on, open};
use keyfold::testing::FakeKms;
use keyfold::vectors::Key;
use keyfold::{
    Column, ColumnValues, Context, Encryptor, FieldPolicy, KeyClass, KeyState, Keyring, KeyringConfig, KmsErrorKind,
    Padding, Policy, Secret, SlotId, Value, ValueType,
};
use std::fmt::{Debug, Display};
use std::io::{Cursor, Read, Write};
use std::process::Command;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record as SpanRecord};
use tracing::{Event, Metadata, Subscriber};

const PLAINTEXT: &str = "CANARY-PLAINTEXT-Zoë-Ångström";
const CONTEXT: &str = "CANARY-CONTEXT-VALUE";
const SCOPE: &str = "CANARY-SCOPE-NAME";
const ROW: &str = "CANARY-ROW-BINDING";
const DECIMAL: &str = "8642097531864209753.1";
const INTEGER: i128 = 864_209_753_186_420_975_318_642;
const FLOAT: f64 = 8.642_097_531_864_209e17;
const SECONDS: i64 = 8_642_097_531;
const CHILD: &str = "KEYFOLD_CANARY_CHILD";

/// Every key of the lab whose bytes are known.
fn keys() -> Vec<Key> {
    let lookup = |id, generation| ours(KeyClass::Lookup, id, generation);
    vec![
        root(),
        data(DATA),
        data(OLD_DATA),
        lookup(SlotId::NONE, SCOPE_NAMES),
        lookup(DEFAULT_PARTITION, LOOKUP),
        ours(KeyClass::Data, scope_id("canary"), 20),
    ]
}

/// What must not appear, by name.
fn canaries() -> Vec<(String, Vec<u8>)> {
    let mut secrets: Vec<(String, Vec<u8>)> = [PLAINTEXT, CONTEXT, SCOPE, ROW, DECIMAL, "86420975318642097531864"]
        .iter()
        .map(|text| ((*text).to_owned(), text.as_bytes().to_vec()))
        .collect();
    secrets.push(("float".to_owned(), format!("{FLOAT}").into_bytes()));
    secrets.push(("seconds".to_owned(), SECONDS.to_string().into_bytes()));
    for key in keys() {
        let name = |what: &str| format!("{what} of {} {}", key.class.name(), key.generation);
        secrets.push((name("bytes"), key.bytes.to_vec()));
        for (label, bytes) in key.purpose_keys() {
            secrets.push((name(label), bytes));
        }
    }
    secrets
}

/// The ways in which bytes get into texts; short enough to survive being cut.
fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let part = &secret[..secret.len().min(12)];
    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = |sep: &str| part.iter().map(u8::to_string).collect::<Vec<_>>().join(sep);
    let hex_list = |sep: &str| part.iter().map(|byte| format!("{byte:#04x}")).collect::<Vec<_>>().join(sep);
    let base64 = data_encoding::BASE64_NOPAD.encode(&part[..part.len() / 3 * 3]);
    let base64url = data_encoding::BASE64URL_NOPAD.encode(&part[..part.len() / 3 * 3]);
    let escaped = part.escape_ascii().to_string();
    [
        hex.clone(),
        hex.to_uppercase(),
        list(", "),
        list(","),
        list(",\n    "),
        hex_list(", "),
        base64,
        base64url,
        escaped,
    ]
    .into_iter()
    .map(String::into_bytes)
    .chain([part.to_vec()])
    .collect()
}

fn find_canary(output: &[u8]) -> Option<String> {
    canaries().into_iter().find_map(|(name, secret)| {
        let found = spellings(&secret).into_iter().find(|text| output.windows(text.len()).any(|w| w == text));
        found.map(|text| format!("{name} as {}", String::from_utf8_lossy(&text)))
    })
}

// Failures T1, T9
#[test]
fn no_canary_in_anything_that_is_printed_logged_or_panicked() {
    let child = |name: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .env("RUST_BACKTRACE", "full")
            .output()
            .unwrap();
        [output.stdout, output.stderr].concat()
    };
    let output = child("child");
    let text = String::from_utf8_lossy(&output);
    for expected in ["key opened", "KEK did not unwrap", "key made", "key changed state", "stack backtrace", "the end"]
    {
        assert!(text.contains(expected), "the child did not get to {expected:?}:\n{text}");
    }
    assert!(text.matches("panicked at").count() == 6, "the child panics on purpose:\n{text}");
    if let Some(found) = find_canary(&output) {
        panic!("{found}");
    }
    // The search finds what is there.
    for (name, secret) in canaries() {
        for spelling in spellings(&secret) {
            let hidden = [&b"some text "[..], &spelling, b" more"].concat();
            assert!(find_canary(&hidden).is_some(), "{name}");
        }
    }
}

// The child

/// Prints every event with all of its fields.
struct Printer;

impl Visit for Printer {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        println!("  {field} = {value:?}");
    }
}

impl Subscriber for Printer {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        println!("span {}", span.metadata().name());
        span.record(&mut Self);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &SpanRecord<'_>) {
        values.record(&mut Self);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        println!("event {} {}", event.metadata().level(), event.metadata().target());
        event.record(&mut Self);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn show(what: impl Debug) {
    println!("{what:?}\n{what:#?}");
}

fn show_both(what: impl Debug + Display) {
    println!("{what}");
    show(what);
}

/// Shows an error and what caused it.
fn show_error<T>(result: Result<T, impl std::error::Error>) {
    let Err(error) = result else { panic!("an error was expected") };
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        show_both(error);
        cause = error.source();
    }
}

fn values() -> Vec<Value<'static>> {
    vec![
        Value::Null,
        Value::Bytes(PLAINTEXT.as_bytes()),
        Value::Text(PLAINTEXT),
        Value::Integer(INTEGER),
        Value::Decimal(DECIMAL),
        Value::Float(FLOAT),
        Value::Boolean(true),
        Value::Date(20_000),
        Value::Timestamp { seconds: SECONDS, nanoseconds: 1 },
        Value::Json("{\"name\":\"CANARY-PLAINTEXT-Zoë-Ångström\"}"),
    ]
}

fn context() -> Context {
    Context::new().with("tenant", CONTEXT).unwrap()
}

/// Does nothing unless its parent asks for it.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing::subscriber::set_global_default(Printer).unwrap();
    let lab = Lab::new();
    lab.add_scope("canary", 20);
    handles(&lab);
    failures(&lab);
    keys_and_configuration(&lab);
    panics(&lab);
    println!("the end");
}

fn canary_ring(lab: &Lab) -> Keyring {
    let mut policy = Policy::new();
    policy.add(bound("bound")).unwrap();
    policy.add(FieldPolicy { padding: Padding::Padme, ..FieldPolicy::randomized("plain") }).unwrap();
    policy.add(FieldPolicy { value_type: Some(ValueType::Date), ..FieldPolicy::randomized("date") }).unwrap();
    policy.add(FieldPolicy::deterministic("mrn", "default", None)).unwrap();
    policy.add(FieldPolicy { row_binding: bound("image").row_binding, ..FieldPolicy::stream("image") }).unwrap();
    let ring = lab.process_with(KeyringConfig { policy, ..lab.config.clone() });
    show(&ring);
    show(ring.policy());
    ring
}

fn handles(lab: &Lab) {
    let ring = canary_ring(lab);
    for name in ["plain", "mrn", "bound"] {
        for scope in [Some(SCOPE), Some("canary"), None] {
            let row = (name == "bound").then_some(ROW.as_bytes());
            let field = ring.field(name).unwrap().context(context());
            let field = scope.map_or(field.clone(), |scope| field.scope(scope));
            show(&field);
            let encryptor = block_on(field.clone().encryptor()).unwrap();
            let decryptor = block_on(field.decryptor()).unwrap();
            show((&encryptor, &decryptor, encryptor.policy(), decryptor.policy(), encryptor.key_id()));
            for value in values() {
                show(value);
                show(Some(&[value]));
                show(value.value_type());
                let sealed = encryptor.encrypt(value, row).unwrap();
                let opened = open(&decryptor, &sealed, row).unwrap();
                assert!(opened.value() == value);
                show(&opened);
                let mut wrong = sealed.clone();
                *wrong.last_mut().unwrap() ^= 1;
                show_error(open(&decryptor, &wrong, row));
                show_error(decryptor.decrypt(&sealed, Some(b"another row")));
            }
            let rows = vec![ROW; values().len()];
            let rows = row.map(|_| &rows[..]);
            let column = encryptor.encrypt_column(&values()[..], rows).unwrap();
            show(&column);
            block_on(decryptor.load_keys(&column)).unwrap();
            show(decryptor.decrypt_column(&column, rows).unwrap());
        }
    }
    streams(&ring);
    block_on(ring.rotate_data_key(Some(SCOPE))).unwrap();
    show(block_on(ring.rotate_root()).unwrap());
    show(block_on(ring.list(None, 100)).unwrap());
}

fn streams(ring: &Keyring) {
    let field = || ring.field("image").unwrap().scope("canary").context(context());
    let sealer = block_on(field().stream_sealer()).unwrap();
    let opener = block_on(field().stream_opener()).unwrap();
    let row = Some(ROW.as_bytes());
    show((&sealer, &opener));
    let mut stream = sealer.begin(row).unwrap();
    let mut sealed = stream.header().as_bytes().to_vec();
    stream.update(PLAINTEXT.as_bytes(), &mut sealed).unwrap();
    show((&stream, stream.header()));
    show_error(stream.seal_in_place(&mut PLAINTEXT.as_bytes().to_vec()));
    stream.finish(&mut sealed).unwrap();
    let mut writer = sealer.begin(row).unwrap().into_writer(Vec::new()).unwrap();
    writer.write_all(PLAINTEXT.as_bytes()).unwrap();
    show(&writer);
    let mut writer = sealer.begin(row).unwrap().into_async_writer(Vec::new()).unwrap();
    block_on(tokio::io::AsyncWriteExt::write_all(&mut writer, PLAINTEXT.as_bytes())).unwrap();
    show(&writer);
    let header = keyfold::wire::StreamHeader::parse(&sealed).unwrap();
    let chunks = &sealed[keyfold::wire::STREAM_HEADER_LEN..];
    block_on(opener.load_key(&header)).unwrap();
    show_error(opener.begin(&header, Some(CONTEXT.as_bytes())));
    show_error(keyfold::wire::StreamHeader::parse(PLAINTEXT.as_bytes()));
    let begin = || opener.begin(&header, row).unwrap();
    show(begin());
    let mut reader = begin().into_reader(chunks);
    let mut ranges = begin().into_ranges(Cursor::new(chunks)).unwrap();
    assert!(reader.read(&mut [0]).unwrap() == 1 && ranges.read(&mut [0]).unwrap() == 1);
    show((&reader, &ranges));
    let mut reader = begin().into_async_reader(chunks);
    assert_eq!(block_on(tokio::io::AsyncReadExt::read(&mut reader, &mut [0])).unwrap(), 1);
    show(&reader);
    show_error(begin().finish_in_place(&mut PLAINTEXT.as_bytes().to_vec()));
    show_error(begin().into_reader(PLAINTEXT.as_bytes()).read(&mut [0; 100]));
}

fn failures(lab: &Lab) {
    let ring = canary_ring(lab);
    show(context());
    show_error(context().with("tenant", CONTEXT));
    show_error(context().with("kf:row", CONTEXT));
    show_error(context().with("long", CONTEXT.repeat(1000)));
    for value_type in ValueType::ALL {
        for text in [PLAINTEXT, "8642097531864209753.1x", "CANARY-PLAINTEXT", "0864209753186420975"] {
            if let Err(error) = Value::from_text(value_type, text) {
                show_error::<()>(Err(error));
            }
        }
    }
    let field = |name: &str| ring.field(name).unwrap().context(context());
    let scoped = |scope: &str| field("plain").scope(scope);
    show_error(block_on(scoped("CANARY-SCOPE-NAME that is not there").decryptor()));
    show_error(block_on(scoped(&SCOPE.repeat(100)).encryptor()));
    show_error(block_on(ring.rotate_data_key(Some("CANARY-SCOPE-NAME nowhere"))));
    let long_row = ROW.repeat(300);
    let bound = block_on(field("bound").encryptor()).unwrap();
    show_error(bound.encrypt(Value::Text(PLAINTEXT), Some(long_row.as_bytes())));
    show_error(bound.encrypt(Value::Text(PLAINTEXT), None));
    let date = block_on(field("date").encryptor()).unwrap();
    show_error(date.encrypt(Value::Text(PLAINTEXT), None));
    show_error(date.encrypt_column(&values()[..], Option::<&[&[u8]]>::None));
    let plain = block_on(field("plain").encryptor()).unwrap();
    show_error(plain.encrypt(Value::Decimal(PLAINTEXT), None));
    show_error(plain.encrypt(Value::Text(&PLAINTEXT.repeat(60_000)), None));
    let mrn = block_on(field("mrn").encryptor()).unwrap();
    show_error(mrn.encrypt(Value::Text(PLAINTEXT), Some(ROW.as_bytes())));
    // Plaintext where a sealed value should be, and as a sealed value's text form.
    let decryptor = block_on(field("plain").decryptor()).unwrap();
    show_error(decryptor.decrypt(PLAINTEXT.as_bytes(), None));
    // A key ID is public and is shown; what follows it is not.
    show_error(decryptor.decrypt(&[&[0xF5, 1][..], &[0; 24], &PLAINTEXT.repeat(4).into_bytes()].concat(), None));
    show_error(decryptor.decrypt_column(&[PLAINTEXT][..], Option::<&[&[u8]]>::None));
    show_error(keyfold::wire::from_text(PLAINTEXT.as_bytes(), &mut Vec::new()));
    show_error(keyfold::wire::from_text(format!("kf1.01.00000001.{PLAINTEXT}").as_bytes(), &mut Vec::new()));
    // Key services: every class, with wraps that hold the keys.
    for &kind in KmsErrorKind::ALL {
        lab.kms.set_failure(Some(kind));
        show_error(seal(&lab.process(), Some(SCOPE), PLAINTEXT));
    }
    lab.kms.set_failure(None);
    lab.kms.set_wrong_payload(true);
    show_error(seal(&lab.process(), Some(SCOPE), PLAINTEXT));
    lab.kms.set_wrong_payload(false);
    for n in 1..40 {
        let ring = lab.process();
        lab.faults.fail_nth(n, n % 2 == 0);
        if let Err(error) = seal(&ring, Some(SCOPE), PLAINTEXT) {
            show_error::<()>(Err(error));
        }
        lab.faults.off();
    }
}

fn keys_and_configuration(lab: &Lab) {
    show(&lab.config);
    show(&lab.kms);
    show(&lab.marks.inner);
    let store = std::sync::Arc::new(common::store::LabStore::default());
    let marks = std::sync::Arc::new(keyfold::MemoryHighWater::default());
    let created = block_on(Keyring::create("canary", "test", store, lab.keks(), marks)).unwrap();
    show(&created);
    let keks = std::collections::BTreeMap::from([(alias("local"), "local:kek".to_owned())]);
    let text = keyfold::config::Config::template(&created, "sqlite:keys.db", "high-water", &keks);
    show(keyfold::config::Config::parse(&text, "keyfold.toml").unwrap());
    for key in keys() {
        let parts = if key.class == KeyClass::Root { root_parts(&lab.kms, key) } else { child_parts(key, root()) };
        for state in [KeyState::Active, KeyState::Destroyed] {
            let record = record(&in_state(parts.clone(), state));
            show((&record, record.key_id(), record.slot(), record.lineage(), record.slot_id(), record.scope_tag()));
            // Whole records are public.
            println!("{:?}", record.as_bytes());
        }
    }
    // Secrets have no Debug at all. The inherent method wins where its bound holds.
    trait NoDebug {
        fn has_debug(&self) -> bool {
            false
        }
    }
    struct Probe<T>(#[allow(dead_code, reason = "only its type counts")] T);
    impl<T: Debug> Probe<T> {
        fn has_debug(&self) -> bool {
            true
        }
    }
    impl<T> NoDebug for Probe<T> {}
    assert!(Probe(1).has_debug(), "the probe works");
    assert!(!Probe(Secret::with(|bytes: &mut [u8; 32]| bytes.fill(1))).has_debug());
    assert!(!Probe(data(DATA)).has_debug());
    let device = keyfold::device::DeviceKey::new(
        keyfold::aead::Backend::default(),
        &Secret::with(|bytes: &mut [u8; 32]| *bytes = data(DATA).bytes),
        LINEAGE,
        SlotId::NONE,
        DATA,
    );
    assert!(!Probe(device).has_debug());
}

/// Answers the second time it is asked with a longer value: a broken caller.
struct Growing(std::cell::Cell<usize>);

impl ColumnValues for Growing {
    fn len(&self) -> usize {
        1
    }
    fn value(&self, _: usize) -> Value<'_> {
        let asked = self.0.get() + 1;
        self.0.set(asked);
        if asked > 1 { Value::Text(PLAINTEXT) } else { Value::Text("") }
    }
}

/// Panics half way through a column.
struct Panicking;

impl ColumnValues for Panicking {
    fn len(&self) -> usize {
        2
    }
    fn value(&self, row: usize) -> Value<'_> {
        [Value::Text(PLAINTEXT)][row]
    }
}

fn panics(lab: &Lab) {
    let quiet = |what: &str, work: &dyn Fn()| {
        println!("panicking: {what}");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        if let Err(payload) = result {
            let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
            println!("payload: {text:?}");
        }
    };
    let ring = canary_ring(lab);
    let encryptor: Encryptor =
        block_on(ring.field("plain").unwrap().scope(SCOPE).context(context()).encryptor()).unwrap();
    let none = Option::<&[&[u8]]>::None;
    let grown = encryptor.encrypt_column(&Growing(Default::default()), none).unwrap_err();
    println!("a growing value: {grown} {grown:?}");
    quiet("a panicking column", &|| drop(encryptor.encrypt_column(&Panicking, none)));
    let decryptor = block_on(ring.field("plain").unwrap().scope(SCOPE).context(context()).decryptor()).unwrap();
    let sealed = encryptor.encrypt_column(&values()[..], none).unwrap();
    block_on(decryptor.load_keys(&sealed)).unwrap();
    let opened = decryptor.decrypt_column(&sealed, none).unwrap();
    quiet("a row that is not there", &|| drop(opened.value(99).to_text()));
    let value = open(&decryptor, &encryptor.encrypt(Value::Text(PLAINTEXT), None).unwrap(), None).unwrap();
    quiet("unwrap of a value's error", &|| {
        assert!(Value::from_text(ValueType::Date, PLAINTEXT).unwrap() == Value::Null)
    });
    quiet("expect with handles in the message", &|| {
        panic!("{value:?} {opened:?} {encryptor:?} {decryptor:?} {ring:?}")
    });
    quiet("a column with bad offsets", &|| Column::new(PLAINTEXT.as_bytes(), &[99, 1]).map(drop).unwrap());
    quiet("a service that fails", &|| {
        let kms = FakeKms::new();
        kms.set_failure(Some(KmsErrorKind::Rejected));
        keyfold::testing::kms_conformance(&kms, keyfold::testing::ContextBinding::ByService);
    });
}
