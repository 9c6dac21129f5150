//! Pieces of work whose instructions `benches/instructions.py` counts.
//!
//! `--list` prints of each its name, how often it is to be done, and for how many rows it counts. `NAME TIMES` does one of them as often;
//! what it needs is made before, and depends on neither. `--test` does each once.

use keyfold::aead::Backend;
use keyfold::aead::hazmat::XaesDerivation;
use keyfold::testing::{SampleRecord, block_on};
use keyfold::wire::{CHUNK_LEN, SEALED_CHUNK_LEN};
use keyfold::{Context, Lineage, Record, Value};
use keyfold_benches::{
    BARE_LEN, Bare, ENCODED_LEN, Handles, PATIENT, ROW_LEN, Rows, Shuffled, VALUE_LEN, keyring, seal, streams,
};
use keyfold_documents::{Direction, DocumentCipher, DocumentOptions, DocumentText, FieldKeys};
use std::hint::black_box;
use std::process::ExitCode;

/// Rows of a column.
const ROWS: usize = 4096;
/// Batches that are opened at once, and the rows of each.
const BATCHES: usize = 1000;
const BATCH_ROWS: usize = 8;
/// Rows of a batch that stay together where batches are clustered.
const RUN: usize = 4;
const POLICY: &str = include_str!("../../policies/fhir-r4.toml");

type Work = Box<dyn FnMut()>;

struct Case {
    name: &'static str,
    /// So often that what differs by chance, such as how many buffers the allocator keeps, counts little.
    times: usize,
    rows: usize,
    make: fn() -> Work,
}

const fn case(name: &'static str, times: usize, rows: usize, make: fn() -> Work) -> Case {
    Case { name, times, rows, make }
}

const CASES: [Case; 19] = [
    case("ring-seal-column", 2, ROWS, ring_seal_column),
    case("ring-open-column", 2, ROWS, ring_open_column),
    case("derive", 3000, 1, derive),
    case("seal-column", 2, ROWS, seal_column),
    case("open-column", 2, ROWS, open_column),
    case("seal-one", 3000, 1, seal_one),
    case("open-one", 3000, 1, open_one),
    case("open-one-batch", 1, BATCHES * BATCH_ROWS, || open_batches(1, |rows| rows)),
    case("open-batches-sorted", 1, BATCHES * BATCH_ROWS, || open_batches(BATCHES, |rows| rows)),
    case("open-batches-clustered", 1, BATCHES * BATCH_ROWS, || open_batches(BATCHES, |rows| rows.clustered(RUN))),
    case("open-batches-random", 1, BATCHES * BATCH_ROWS, || open_batches(BATCHES, Shuffled::shuffled)),
    case("seal-deterministic", 1, ROWS, seal_deterministic),
    case("open-deterministic", 1, ROWS, open_deterministic),
    case("seal-chunk", 200, 1, seal_chunk),
    case("open-chunk", 200, 1, open_chunk),
    case("protect-patient", 100, 1, protect_patient),
    case("reveal-patient", 100, 1, reveal_patient),
    case("ready", 10, 1000, ready),
    case("parse-record", 3000, 1, parse_record),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => CASES.iter().for_each(|case| println!("{} {} {}", case.name, case.times, case.rows)),
        [name, times] if !name.starts_with('-') => {
            let Some(case) = CASES.iter().find(|case| case.name == name) else { return usage() };
            let Ok(times) = times.parse::<usize>() else { return usage() };
            let mut work = (case.make)();
            (0..times).for_each(|_| work());
        }
        // As cargo calls it, with or without --test.
        _ if arguments.iter().any(|argument| argument == "--bench" || argument == "--test") => {
            CASES.iter().for_each(|case| (case.make)()());
            println!("{} pieces of work were done once; benches/instructions.py counts", CASES.len());
        }
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: instructions --list | NAME TIMES");
    ExitCode::FAILURE
}

fn bare() -> Bare {
    Bare::new(&Handles::randomized().encryptor, &Rows::new(ROWS))
}

fn ring_seal_column() -> Work {
    let bare = bare();
    let mut out = vec![0; ROWS * BARE_LEN];
    Box::new(move || bare.seal(black_box(&mut out)))
}

fn ring_open_column() -> Work {
    let bare = bare();
    let mut sealed = vec![0; ROWS * BARE_LEN];
    bare.seal(&mut sealed);
    let mut out = Vec::with_capacity(ROWS * ENCODED_LEN + BARE_LEN);
    Box::new(move || {
        out.clear();
        bare.open(black_box(&sealed), &mut out);
    })
}

fn derive() -> Work {
    let derivation = XaesDerivation::new(Backend::default(), &[7; 32]);
    Box::new(move || derivation.derive(black_box(&[1; 12])))
}

fn seal_column() -> Work {
    let (field, data) = (Handles::randomized(), Rows::new(ROWS));
    Box::new(move || drop(black_box(seal(&field.encryptor, &data))))
}

fn open_column() -> Work {
    let (field, data) = (Handles::randomized(), Rows::new(ROWS));
    let sealed = seal(&field.encryptor, &data);
    block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
    Box::new(move || drop(black_box(field.decryptor.decrypt_column(&sealed, Some(&data.rows())).expect("sealed"))))
}

const VALUE: [u8; VALUE_LEN] = *b"MRN-000000000017";
const ROW: [u8; ROW_LEN] = *b"row-000000000017";

fn seal_one() -> Work {
    let field = Handles::randomized();
    let value = Value::Bytes(&VALUE);
    Box::new(move || drop(black_box(field.encryptor.encrypt(black_box(value), Some(&ROW)).expect("well-formed"))))
}

fn open_one() -> Work {
    let field = Handles::randomized();
    let sealed = field.encryptor.encrypt(Value::Bytes(&VALUE), Some(&ROW)).expect("well-formed");
    block_on(field.decryptor.load_keys(&[&sealed[..]][..])).expect("the key is there");
    Box::new(move || drop(black_box(field.decryptor.decrypt(black_box(&sealed), Some(&ROW)).expect("just sealed"))))
}

/// As many rows as 1,000 batches have, in `batches`.
fn open_batches(batches: usize, order: fn(Shuffled) -> Shuffled) -> Work {
    let field = Handles::randomized();
    let rows = order(Shuffled::sorted(&field.encryptor, batches, BATCHES * BATCH_ROWS / batches));
    block_on(field.decryptor.load_keys(&rows.sealed[..])).expect("the key is there");
    Box::new(move || {
        drop(black_box(field.decryptor.decrypt_column(&rows.sealed[..], Some(&rows.rows[..])).expect("sealed")));
    })
}

const NO_ROWS: Option<&[&[u8]]> = None;

fn seal_deterministic() -> Work {
    let (field, data) = (Handles::deterministic(), Rows::new(ROWS));
    Box::new(move || drop(black_box(field.encryptor.encrypt_column(&data.values(), NO_ROWS).expect("well-formed"))))
}

fn open_deterministic() -> Work {
    let field = Handles::deterministic();
    let sealed = field.encryptor.encrypt_column(&Rows::new(ROWS).values(), NO_ROWS).expect("well-formed");
    block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
    Box::new(move || drop(black_box(field.decryptor.decrypt_column(&sealed, NO_ROWS).expect("just sealed"))))
}

fn seal_chunk() -> Work {
    let mut stream = streams().0.begin(None).expect("ready");
    let mut chunk = vec![1; SEALED_CHUNK_LEN];
    Box::new(move || stream.seal_in_place(black_box(&mut chunk)).expect("a whole chunk"))
}

/// With a copy of the chunk, since opening consumes it.
fn open_chunk() -> Work {
    let (sealer, opener) = streams();
    let mut stream = sealer.begin(None).expect("ready");
    let header = *stream.header();
    let mut sealed = vec![1; SEALED_CHUNK_LEN];
    stream.seal_in_place(&mut sealed).expect("a whole chunk");
    block_on(opener.load_key(&header)).expect("the key is there");
    let mut stream = opener.begin(&header, None).expect("loaded");
    let mut chunk = sealed.clone();
    Box::new(move || {
        chunk.copy_from_slice(&sealed);
        assert_eq!(stream.open_chunk(0, black_box(&mut chunk)).expect("just sealed"), CHUNK_LEN);
    })
}

fn protect_patient() -> Work {
    let cipher = document_cipher(&fhir(), Direction::Protect { seal_sealed: false });
    Box::new(move || drop(black_box(transform(&cipher, PATIENT))))
}

fn reveal_patient() -> Work {
    let ring = fhir();
    let sealed = transform(&document_cipher(&ring, Direction::Protect { seal_sealed: false }), PATIENT);
    let sealed = String::from_utf8(sealed).expect("JSON");
    let cipher = document_cipher(&ring, Direction::Reveal);
    Box::new(move || drop(black_box(transform(&cipher, &sealed))))
}

fn fhir() -> keyfold::Keyring {
    keyring(|policy| keyfold::config::add_policy(policy, POLICY, "fhir-r4.toml"))
}

fn document_cipher(ring: &keyfold::Keyring, direction: Direction) -> DocumentCipher<'static> {
    let keys = FieldKeys { ring, direction, scope: None, context: Context::new(), tokens: None };
    DocumentCipher::new(&keys, DocumentOptions::default()).expect("the policy is good")
}

fn transform(cipher: &DocumentCipher<'_>, document: &str) -> Vec<u8> {
    let text = [DocumentText { content: document.as_bytes(), line: 1 }];
    let mut changed = cipher.transform(&text).expect("the policy fits");
    let mut out = Vec::with_capacity(2 * document.len());
    changed.push_next(&mut out).expect("it can be read again");
    out
}

fn ready() -> Work {
    let field = Handles::randomized();
    Box::new(move || {
        block_on(async {
            for _ in 0..1000 {
                black_box(field.encryptor.ready().await.expect("the key is there"));
            }
        });
    })
}

fn parse_record() -> Work {
    let record = SampleRecord::new(Lineage::from_bytes([7; 16]), 3).build();
    Box::new(move || drop(black_box(Record::parse(black_box(record.as_bytes())).expect("canonical"))))
}
