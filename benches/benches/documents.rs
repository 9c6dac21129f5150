//! What protecting and revealing documents costs beside reading and writing their JSON: FHIR resources under the ready-made policy
//! `policies/fhir-r4.toml`, with its filters and lists of names, through the code that the command uses for a batch of lines, against
//! `serde_json` that parses and prints the same lines. In turns, in one thread. Beside each the cryptography of protecting them, alone.
//!
//! `--test` runs one small round and asserts nothing. `--assert` fails when the target is missed.

use keyfold::{Column, Context, Keyring, Value};
use keyfold_benches::{Comparison, Handles, PATIENT, keyring, per_row, spread};
use keyfold_documents::{Direction, DocumentCipher, DocumentOptions, DocumentText, FieldKeys};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use std::hint::black_box;
use std::process::ExitCode;

/// Most that either direction may cost, as a multiple of parsing and printing (issue 8: at least half of its throughput).
const TARGET: f64 = 2.0;

const POLICY: &str = include_str!("../../policies/fhir-r4.toml");

/// Patients, Devices, Encounters, Observations and a Bundle in which every field of the policy has a value.
const RESOURCES: &str = include_str!("../../policies/resources.ndjson");

/// Lines of a batch.
const LINES: usize = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = given("--test");
    let mut compare = Comparison { rounds: if test { 1 } else { 51 }, tolerance: 0.0, failed: false };
    let ring = keyring(|policy| keyfold::config::add_policy(policy, POLICY, "fhir-r4.toml"));
    let ciphers = [Direction::Protect { seal_sealed: false }, Direction::Reveal].map(|way| cipher(&ring, way));
    println!(
        "{:<34} {:>10} {:>10}   ratio (5th to 95th percentile)",
        "ns of CPU time per document", "keyfold", "serde_json"
    );
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    compare_both("a Patient", &vec![PATIENT.to_owned(); if test { 2 } else { LINES }], &ciphers, &mut compare);
    let mut all = Vec::new();
    for name in ["Patient", "Device"] {
        match std::fs::read_to_string(format!("{}/../../shared/data/synthea/{name}.ndjson", env!("CARGO_MANIFEST_DIR")))
        {
            Ok(text) => {
                all.extend(lines(&text));
                compare_both(&format!("Synthea's {name}s"), &lines(&text), &ciphers, &mut compare);
            }
            Err(_) => println!("SKIPPED: Synthea's {name}s are not there"),
        }
    }
    if !all.is_empty() {
        compare_both("both of Synthea's files", &all, &ciphers, &mut compare);
    }
    let (bundles, alone): (Vec<String>, Vec<String>) =
        lines(RESOURCES).into_iter().partition(|line| line.contains("\"Bundle\""));
    compare_both("made-up resources of all kinds", &alone, &ciphers, &mut compare);
    compare_both("a made-up Bundle", &vec![bundles[0].clone(); if test { 2 } else { 10 }], &ciphers, &mut compare);
    if given("--assert") && compare.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Protects and reveals `lines`.
fn compare_both(what: &str, lines: &[String], [protect, reveal]: &[DocumentCipher<'_>; 2], compare: &mut Comparison) {
    let plain: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let (sealed, values) = transform(protect, &plain);
    let sealed: Vec<&[u8]> = sealed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let (back, _) = transform(reveal, &sealed);
    assert!(back == plain.join(&b'\n'), "byte for byte");
    let len = |lines: &[&[u8]]| lines.iter().map(|line| line.len()).sum::<usize>() / lines.len();
    println!("{what}: {} bytes, {} values, {} bytes protected", len(&plain), values / plain.len() as u64, len(&sealed));
    let bare = Bare::new(&sealed);
    let all: Vec<f64> = (0..compare.rounds).map(|_| per_row(plain.len(), || bare.run())).collect();
    let (median, low, high) = spread(all);
    println!("{:<34} {median:>7.1} ns ({low:.1} to {high:.1})", "  cryptography of protect alone");
    for (way, cipher, lines) in [("protect", protect, &plain), ("reveal", reveal, &sealed)] {
        let ours = || per_row(lines.len(), || transform(cipher, lines));
        let bare = || per_row(lines.len(), || lines.iter().map(|line| parse_and_print(line)).sum::<usize>());
        compare.report(&format!("  {way}, against parse and print"), TARGET, ours, bare);
    }
}

/// The lines on the other side, as the command writes them, and how many values they have.
fn transform(cipher: &DocumentCipher<'_>, lines: &[&[u8]]) -> (Vec<u8>, u64) {
    let texts: Vec<DocumentText<'_>> =
        lines.iter().zip(1..).map(|(content, line)| DocumentText { content: black_box(content), line }).collect();
    let mut changed = cipher.transform(&texts).expect("the policy fits");
    let mut out = Vec::with_capacity(lines.iter().map(|line| line.len() * 2).sum());
    for at in 0..lines.len() {
        if at > 0 {
            out.push(b'\n');
        }
        changed.push_next(&mut out).expect("it can be read again");
    }
    (out, changed.counts().values)
}

/// The cryptography of documents that were protected, for as many values of the same lengths: random bytes, the two keys of each document,
/// a body for each value, a manifest, and the deterministic values.
struct Bare {
    /// Of each document: the encoded lengths of its values, and the length of what its manifest authenticates.
    documents: Vec<(Vec<usize>, usize)>,
    deterministic: Handles,
    /// How many deterministic values there are.
    identifiers: usize,
}

/// Bytes of what is authenticated with a body: label, field, path.
const AAD: [u8; 80] = [7; 80];
/// Bytes of the path of a value, as long as most are.
const PATH_LEN: usize = 30;
/// Bytes of what a key is derived from: label, header, context with an identifier.
const INFO: [u8; 125] = [7; 125];

impl Bare {
    fn new(sealed: &[&[u8]]) -> Self {
        let texts = |line: &str, prefix: &str| {
            let rest = line.split(prefix).skip(1);
            rest.map(|rest| rest.find('"').expect("it is in a string")).collect::<Vec<usize>>()
        };
        let (mut documents, mut identifiers) = (Vec::new(), 0);
        for line in sealed.iter().map(|line| std::str::from_utf8(line).expect("UTF-8")) {
            // A Bundle is several documents, of which each has a part of the values: a part of the same length here.
            let count = line.matches("kf1.05").count();
            let bodies: Vec<usize> = texts(line, "kf1d.").iter().map(|len| len * 3 / 4 - 28).collect();
            let beside = texts(line, "kf1.02");
            identifiers += beside.len();
            let manifest = bodies.len() * (PATH_LEN + 19) + beside.iter().map(|len| PATH_LEN + 17 + len).sum::<usize>();
            let share = bodies.len().div_ceil(count).max(1);
            documents.extend(bodies.chunks(share).map(|part| (part.to_vec(), 41 + manifest / count)));
        }
        Self { documents, deterministic: Handles::deterministic(), identifiers }
    }

    fn run(&self) {
        let drawn = self.documents.iter().map(|(bodies, _)| 24 + 12 * bodies.len()).sum();
        let mut drawn = vec![0; drawn];
        getrandom::fill(&mut drawn).expect("the system has randomness");
        let mut nonces = drawn.as_chunks::<12>().0.iter();
        let purpose = Prk::new_less_safe(HKDF_SHA256, &[7; 32]);
        let mut buffer = vec![7; 1 << 20];
        for (bodies, manifest) in &self.documents {
            let [key, mac] = [0; 2].map(|_| {
                let mut key = [0; 32];
                purpose
                    .expand(&[black_box(&INFO)], HKDF_SHA256)
                    .and_then(|key_of| key_of.fill(&mut key))
                    .expect("short");
                key
            });
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).expect("32 bytes"));
            for len in bodies {
                let nonce = Nonce::assume_unique_for_key(*nonces.next().expect("as many as values"));
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(AAD), &mut buffer[..*len]);
                black_box(sealed.expect("short").as_ref());
            }
            let mac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &mac);
            black_box(ring::hmac::sign(&mac, &buffer[..*manifest]));
        }
        let values = vec![Value::Text("00009e75-0771-a4cf-c70c-01038f9c5904"); self.identifiers];
        let sealed = self.deterministic.encryptor.encrypt_column(&values[..], None::<&Column<'_>>);
        black_box(sealed.expect("good values"));
    }
}

fn parse_and_print(line: &[u8]) -> usize {
    let value: serde_json::Value = serde_json::from_slice(black_box(line)).expect("JSON");
    black_box(serde_json::to_vec(&value).expect("JSON")).len()
}

fn cipher(ring: &Keyring, direction: Direction) -> DocumentCipher<'static> {
    let keys = FieldKeys { ring, direction, scope: None, context: Context::new(), tokens: None };
    DocumentCipher::new(&keys, DocumentOptions::default()).expect("the policy is good")
}
