//! The cost of one field as a stack: each layer beside the one below it, all in turns in one thread; what a layer costs is the median of the
//! differences of a round. Then what bindings, padding and the like cost, each beside the cryptography over as many bytes; and rows of many batches.
//!
//! What a call from another language costs on top is measured elsewhere: C by `cargo bench -p keyfold-c --bench cost`, Python by
//! `benches/python/one_value.py`.
//!
//! `--test` runs one small round of each and asserts nothing. `--assert` fails when rows of many batches cost more than their targets.

use keyfold::aead::Backend;
use keyfold::aead::hazmat::XaesDerivation;
use keyfold::testing::block_on;
use keyfold::{ColumnBytes, Context, FieldPolicy, Padding, RowBinding, SealedColumn, Value};
use keyfold_benches::{
    AAD_LEN, ENCODED_LEN, FIELD, Handles, Rows, Shuffled, bound_to_rows, context, per_row, seal, spread,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::process::ExitCode;

/// Bytes that are authenticated of a field that binds neither row nor context: header, label, name, number of pairs.
const HEAD_LEN: usize = 57;
/// Bytes of a row binding, and of each pair of the context, with their lengths.
const BINDING_LEN: usize = 26;
const PAIR_LEN: usize = 17;
/// To what padded values are filled up.
const PADDED_LEN: usize = 64;
/// Batches that are opened at once, the rows of each, and how many stay together where batches are clustered.
const BATCHES: usize = 1000;
const BATCH_ROWS: usize = 16;
const RUN: usize = 4;
const BATCH_ROWS_IN_ALL: usize = BATCHES * BATCH_ROWS;
/// Most that a row may cost more than one of a single batch, in derivations (issue 9).
const RANDOM: f64 = 1.0;
const ORDERED: f64 = 0.5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = given("--test");
    let rounds = if test { 1 } else { 301 };
    let (ones, rows) = if test { (16, 64) } else { (512, 4096) };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("ns of CPU time per value, {rounds} rounds, load average {}", load.split(' ').next().unwrap_or("unknown"));
    one_value(rounds, ones);
    column(rounds, rows);
    options(rounds, ones, rows);
    let met = batches(if test { 1 } else { 31 }, test);
    if given("--assert") && !met { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What a layer consists of.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Cryptography,
    Randomness,
    Other,
}

/// A way to seal or open, which returns nanoseconds per value.
struct Way<'a> {
    name: &'static str,
    kind: Kind,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

fn way<'a>(name: &'static str, kind: Kind, n: usize, mut all: impl FnMut() + 'a) -> Way<'a> {
    Way { name, kind, run: Box::new(move || per_row(n, &mut all)) }
}

/// The times of each way, by round. They go up and down in turns, so that each has had either neighbour before it.
fn measure(rounds: usize, ways: &mut [Way<'_>]) -> Vec<Vec<f64>> {
    for way in &mut *ways {
        (way.run)();
    }
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for at in 0..ways.len() {
            let at = if round % 2 == 0 { at } else { ways.len() - 1 - at };
            times[at].push((ways[at].run)());
        }
    }
    times
}

fn median(all: &[f64]) -> f64 {
    spread(all.to_vec()).0
}

/// The median of what one way takes more than another one in the same round.
fn more(above: &[f64], below: &[f64]) -> f64 {
    spread(above.iter().zip(below).map(|(above, below)| above - below).collect()).0
}

/// Prints ways of which each does what the one before does, and something more.
fn stack(title: &str, rounds: usize, mut ways: Vec<Way<'_>>) {
    let times = measure(rounds, &mut ways);
    let whole = median(times.last().expect("a stack has layers"));
    println!("\n{title:<50} {:>8} {:>8} {:>6}", "in all", "layer", "share");
    let mut sums = [0.0; 3];
    for (at, way) in ways.iter().enumerate() {
        let layer = if at == 0 { median(&times[0]) } else { more(&times[at], &times[at - 1]) };
        sums[way.kind as usize] += layer;
        println!("{:<50} {:>8.1} {layer:>+8.1} {:>5.0}%", way.name, median(&times[at]), 100.0 * layer / whole);
    }
    let all: f64 = sums.iter().sum();
    for (name, sum) in ["cryptography", "random bytes", "neither"].into_iter().zip(sums) {
        println!("{:<50} {:>8} {sum:>8.1} {:>5.0}%", format!("  of which {name}"), "", 100.0 * sum / all);
    }
}

/// AES-256-GCM of ring over `BODY` bytes and as many bytes of AAD, with everything ready that a caller could have ready.
struct Gcm<const BODY: usize, const AAD: usize> {
    key: LessSafeKey,
    rows: Vec<([u8; 12], [u8; AAD], [u8; BODY])>,
    /// Nonce, ciphertext and tag of each row.
    sealed: Vec<u8>,
}

impl<const BODY: usize, const AAD: usize> Gcm<BODY, AAD> {
    const LEN: usize = 12 + BODY + 16;

    fn new(n: usize) -> Self {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes"));
        let nonce = |row: usize| {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&row.to_le_bytes());
            nonce
        };
        let mut gcm = Self { key, rows: (0..n).map(|row| (nonce(row), [1; AAD], [2; BODY])).collect(), sealed: vec![] };
        let mut sealed = vec![0; n * Self::LEN];
        gcm.seal(&mut sealed);
        gcm.sealed = sealed;
        gcm
    }

    fn seal(&self, out: &mut [u8]) {
        (0..self.rows.len()).for_each(|row| self.seal_row(row, &mut out[row * Self::LEN..][..Self::LEN]));
    }

    #[inline]
    fn seal_row(&self, row: usize, out: &mut [u8]) {
        let (nonce, aad, body) = &self.rows[row];
        out[..12].copy_from_slice(nonce);
        out[12..12 + BODY].copy_from_slice(body);
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(aad));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, &mut out[12..12 + BODY]).expect("short");
        out[12 + BODY..].copy_from_slice(tag.as_ref());
    }

    fn open(&self, out: &mut Vec<u8>) {
        (0..self.rows.len()).for_each(|row| self.open_row(row, out));
    }

    #[inline]
    fn open_row(&self, row: usize, out: &mut Vec<u8>) {
        let (nonce, body) = self.sealed[row * Self::LEN..][..Self::LEN].split_first_chunk().expect("longer");
        let start = out.len();
        out.extend_from_slice(body);
        let (nonce, aad) = (Nonce::assume_unique_for_key(*nonce), Aad::from(&self.rows[row].1));
        self.key.open_in_place(nonce, aad, &mut out[start..]).expect("sealed by this key");
        out.truncate(start + BODY);
    }
}

fn derivation() -> XaesDerivation {
    XaesDerivation::new(Backend::default(), &[7; 32])
}

/// As a column draws its nonces (FORMAT.md §4.4).
fn key_stream(seed: &[u8; 32], out: &mut [u8]) {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, seed).expect("32 bytes"));
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), out);
    assert!(tag.is_ok(), "it is short");
}

fn draw<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    getrandom::fill(&mut out).expect("the system has randomness");
    black_box(out)
}

/// Handles of the field as others measure it, without and with an audit trail.
fn both() -> [Handles; 2] {
    [false, true].map(|counted| Handles::with(bound_to_rows(), context(), counted))
}

fn one_value(rounds: usize, n: usize) {
    use Kind::{Cryptography, Other, Randomness};
    let data = Rows::new(n);
    let (values, rows) = (data.values(), data.rows());
    let (bare, bound) = (Gcm::<ENCODED_LEN, 0>::new(n), Gcm::<ENCODED_LEN, AAD_LEN>::new(n));
    let (derivation, [plain, counted]) = (derivation(), both());
    let value = |row| (Value::Bytes(values.bytes(row)), Some(rows.bytes(row)));
    let len = plain.encryptor.sealed_len(value(0).0).expect("a good value");
    // Different for each row, and in the cache, as the place is of a value that was just made.
    let [mut a, mut b, mut c, mut d, mut e] = [0; 5].map(|_| vec![0; 128]);
    let ready = |field: &Handles| {
        block_on(async {
            for row in 0..n {
                let (value, binding) = value(row);
                let encryptor = field.encryptor.ready().await.expect("the key is there");
                black_box(encryptor.encrypt(value, binding).expect("well-formed"));
            }
        });
    };
    let short = Gcm::<ENCODED_LEN, 0>::LEN;
    stack(
        "sealing one value",
        rounds,
        vec![
            way("AES-256-GCM of ring, nothing authenticated", Cryptography, n, || {
                (0..n).for_each(|row| bare.seal_row(row, black_box(&mut a[..short])));
            }),
            way("+ 100 bytes authenticated", Cryptography, n, || {
                (0..n).for_each(|row| bound.seal_row(row, black_box(&mut b[..short])));
            }),
            way("+ a key derived for it", Cryptography, n, || {
                for row in 0..n {
                    derivation.derive(black_box(&[1; 12]));
                    bound.seal_row(row, black_box(&mut c[..short]));
                }
            }),
            way("+ 24 bytes from the system", Randomness, n, || {
                for row in 0..n {
                    derivation.derive(draw::<24>().first_chunk().expect("24 bytes"));
                    bound.seal_row(row, black_box(&mut d[..short]));
                }
            }),
            way("+ what is authenticated, header, encoding, checks", Other, n, || {
                for row in 0..n {
                    let (value, binding) = value(row);
                    let done = plain.encryptor.encrypt_into(value, binding, black_box(&mut e[..len]));
                    assert_eq!(done.expect("well-formed"), len);
                }
            }),
            way("+ a vector for the result", Other, n, || {
                for row in 0..n {
                    let (value, binding) = value(row);
                    black_box(plain.encryptor.encrypt(value, binding).expect("well-formed"));
                }
            }),
            way("+ ready() awaited before", Other, n, || ready(&plain)),
            way("+ counted for an audit trail", Other, n, || ready(&counted)),
        ],
    );
    let sealed = [&plain, &counted].map(|field| {
        let sealed = seal(&field.encryptor, &data);
        block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
        (0..n).map(|row| sealed.bytes(row).to_vec()).collect::<Vec<_>>()
    });
    let load = |field: &Handles, sealed: &[Vec<u8>]| {
        block_on(async {
            for (row, sealed) in sealed.iter().enumerate() {
                field.decryptor.load_keys(&[&sealed[..]][..]).await.expect("the key is there");
                black_box(field.decryptor.decrypt(sealed, Some(rows.bytes(row))).expect("just sealed"));
            }
        });
    };
    let [mut a, mut b, mut c] = [0; 3].map(|_| Vec::with_capacity(128));
    stack(
        "opening one value",
        rounds,
        vec![
            way("AES-256-GCM of ring, nothing authenticated", Cryptography, n, || {
                for row in 0..n {
                    a.clear();
                    bare.open_row(row, black_box(&mut a));
                }
            }),
            way("+ 100 bytes authenticated", Cryptography, n, || {
                for row in 0..n {
                    b.clear();
                    bound.open_row(row, black_box(&mut b));
                }
            }),
            way("+ a key derived for it", Cryptography, n, || {
                for row in 0..n {
                    c.clear();
                    derivation.derive(black_box(&[1; 12]));
                    bound.open_row(row, black_box(&mut c));
                }
            }),
            way("+ header, what is authenticated, checks, a vector", Other, n, || {
                for (row, sealed) in sealed[0].iter().enumerate() {
                    black_box(plain.decryptor.decrypt(sealed, Some(rows.bytes(row))).expect("just sealed"));
                }
            }),
            way("+ load_keys() awaited before", Other, n, || load(&plain, &sealed[0])),
            way("+ counted for an audit trail", Other, n, || load(&counted, &sealed[1])),
        ],
    );
}

fn column(rounds: usize, n: usize) {
    use Kind::{Cryptography, Other, Randomness};
    let data = Rows::new(n);
    let (bare, bound) = (Gcm::<ENCODED_LEN, 0>::new(n), Gcm::<ENCODED_LEN, AAD_LEN>::new(n));
    let (derivation, [plain, counted]) = (derivation(), both());
    let len = bare.sealed.len();
    let [mut a, mut b] = [0; 2].map(|_| vec![0; len]);
    let ready = |field: &Handles| {
        block_on(field.encryptor.ready()).expect("the key is there");
        drop(black_box(seal(&field.encryptor, &data)));
    };
    stack(
        &format!("sealing a column of {n}, per value"),
        rounds,
        vec![
            way("AES-256-GCM of ring, nothing authenticated", Cryptography, n, || bare.seal(black_box(&mut a))),
            way("+ 100 bytes authenticated", Cryptography, n, || bound.seal(black_box(&mut b))),
            way("+ a fresh buffer", Other, n, || bound.seal(black_box(&mut vec![0; len]))),
            way("+ nonces of a seed, a key derived for all", Randomness, n, || {
                let mut nonces = vec![0; 12 * n];
                key_stream(&draw(), black_box(&mut nonces));
                derivation.derive(&draw());
                bound.seal(black_box(&mut vec![0; len]));
            }),
            way("+ what is authenticated, header, encoding, checks", Other, n, || {
                drop(black_box(seal(&plain.encryptor, &data)));
            }),
            way("+ ready() awaited before", Other, n, || ready(&plain)),
            way("+ counted for an audit trail", Other, n, || ready(&counted)),
        ],
    );
    let sealed = [&plain, &counted].map(|field| {
        let sealed = seal(&field.encryptor, &data);
        block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
        sealed
    });
    let open = |field: &Handles, sealed: &SealedColumn| {
        drop(black_box(field.decryptor.decrypt_column(sealed, Some(&data.rows())).expect("just sealed")));
    };
    let load = |field: &Handles, sealed: &SealedColumn| {
        block_on(field.decryptor.load_keys(sealed)).expect("the key is there");
        open(field, sealed);
    };
    let room = n * ENCODED_LEN + 16;
    let [mut a, mut b] = [0; 2].map(|_| Vec::with_capacity(room));
    stack(
        &format!("opening a column of {n}, per value"),
        rounds,
        vec![
            way("AES-256-GCM of ring, nothing authenticated", Cryptography, n, || {
                a.clear();
                bare.open(black_box(&mut a));
            }),
            way("+ 100 bytes authenticated", Cryptography, n, || {
                b.clear();
                bound.open(black_box(&mut b));
            }),
            way("+ a fresh buffer", Other, n, || bound.open(black_box(&mut Vec::with_capacity(room)))),
            way("+ header, what is authenticated, checks, types", Other, n, || open(&plain, &sealed[0])),
            way("+ load_keys() awaited before", Other, n, || load(&plain, &sealed[0])),
            way("+ counted for an audit trail", Other, n, || load(&counted, &sealed[1])),
        ],
    );
}

/// A field that binds so much or pads, beside the cryptography over as many bytes.
fn options(rounds: usize, ones: usize, rows: usize) {
    println!(
        "\n{:<34} {:>8} {:>8} {:>8}   {:>8} {:>8} {:>8}",
        "sealing: one value, a column of many", "one", "bare", "above", "column", "bare", "above"
    );
    let pairs = |n: usize| (0..n).try_fold(Context::new(), |all, at| all.with(&format!("tenan{at}"), "clinic7"));
    let pairs = |n| pairs(n).expect("a short context");
    let free = || FieldPolicy::randomized(FIELD);
    let padded = FieldPolicy { padding: Padding::Multiple(PADDED_LEN as u16), ..bound_to_rows() };
    let apart = FieldPolicy { unlinkable: true, ..bound_to_rows() };
    let mut option = Options { rounds, ones, rows };
    option.report::<ENCODED_LEN, HEAD_LEN>("nothing bound", free(), pairs(0));
    option.report::<ENCODED_LEN, { HEAD_LEN + PAIR_LEN }>("one pair of context", free(), pairs(1));
    option.report::<ENCODED_LEN, { HEAD_LEN + BINDING_LEN }>("the row", bound_to_rows(), pairs(0));
    option.report::<ENCODED_LEN, AAD_LEN>("the row, one pair", bound_to_rows(), pairs(1));
    option.report::<ENCODED_LEN, { AAD_LEN + 7 * PAIR_LEN }>("the row, eight pairs", bound_to_rows(), pairs(8));
    option.report::<PADDED_LEN, AAD_LEN>("the row, one pair, padded to 64", padded, pairs(1));
    option.report::<ENCODED_LEN, AAD_LEN>("the row, one pair, unlinkable", apart, pairs(1));
}

struct Options {
    rounds: usize,
    ones: usize,
    rows: usize,
}

impl Options {
    fn report<const BODY: usize, const AAD: usize>(&mut self, name: &str, policy: FieldPolicy, context: Context) {
        use Kind::{Cryptography, Other};
        let is_bound = policy.row_binding != RowBinding::None;
        let unlinkable = policy.unlinkable;
        let field = Handles::with(policy, context, false);
        let (ones, many) = (Gcm::<BODY, AAD>::new(self.ones), Gcm::<BODY, AAD>::new(self.rows));
        let (one, data) = (Rows::new(self.ones), Rows::new(self.rows));
        let (values, bindings) = (one.values(), one.rows());
        let derivation = derivation();
        let row_of = |row| is_bound.then(|| bindings.bytes(row));
        let mut out = vec![0; Gcm::<BODY, AAD>::LEN];
        let draw_and_derive = || derivation.derive(draw::<24>().first_chunk().expect("24 bytes"));
        let mut ways = [
            way("", Other, self.ones, || {
                (0..one.len()).for_each(|row| {
                    let sealed = field.encryptor.encrypt(Value::Bytes(values.bytes(row)), row_of(row));
                    drop(black_box(sealed.expect("well-formed")));
                });
            }),
            way("", Cryptography, self.ones, || {
                (0..one.len()).for_each(|row| {
                    draw_and_derive();
                    ones.seal_row(row, black_box(&mut out));
                });
            }),
            way("", Other, self.rows, || {
                let sealed = field.encryptor.encrypt_column(&data.values(), is_bound.then(|| data.rows()).as_ref());
                drop(black_box(sealed.expect("well-formed")));
            }),
            way("", Cryptography, self.rows, || {
                let mut out = vec![0; many.sealed.len()];
                if unlinkable {
                    (0..many.rows.len()).for_each(|_| draw_and_derive());
                }
                many.seal(black_box(&mut out));
            }),
        ];
        let times = measure(self.rounds.div_ceil(3), &mut ways);
        let [one, bare_one, column, bare_column] = [0, 1, 2, 3].map(|at| median(&times[at]));
        let (above_one, above_column) = (more(&times[0], &times[1]), more(&times[2], &times[3]));
        println!(
            "{name:<34} {one:>8.1} {bare_one:>8.1} {above_one:>+8.1}   {column:>8.1} {bare_column:>8.1} {above_column:>+8.1}"
        );
    }
}

/// Rows of 1,000 batches, beside as many rows of one that lie in memory in the same order. Whether the targets are met.
fn batches(rounds: usize, test: bool) -> bool {
    let field = Handles::randomized();
    let derivation = derivation();
    let n = if test { 10 * BATCH_ROWS } else { BATCH_ROWS_IN_ALL };
    println!(
        "\n{:<44} {:>8} {:>10} {:>8} {:>12} {:>8}",
        format!("opening {n} rows, {BATCH_ROWS} of a batch"),
        "in all",
        "one batch",
        "more",
        "derivations",
        "target"
    );
    let mut met = true;
    let orders: [(&str, usize, f64); 3] = [
        ("batch after batch", n, ORDERED),
        ("in runs of 4 rows, the runs in random order", RUN, ORDERED),
        ("in random order", 1, RANDOM),
    ];
    for (name, run, target) in orders {
        let [many, one] = [BATCH_ROWS, n].map(|len| Shuffled::sorted(&field.encryptor, n / len, len).clustered(run));
        block_on(field.decryptor.load_keys(&many.sealed[..])).expect("the key is there");
        let open = |column: &Shuffled| {
            let opened = field.decryptor.decrypt_column(&column.sealed[..], Some(&column.rows[..]));
            drop(black_box(opened.expect("just sealed")));
        };
        let mut ways = [
            way("", Kind::Other, n, || open(&many)),
            way("", Kind::Other, n, || open(&one)),
            way("", Kind::Cryptography, n, || (0..n).for_each(|_| derivation.derive(black_box(&[1; 12])))),
        ];
        let times = measure(rounds, &mut ways);
        let more = more(&times[0], &times[1]);
        let derivations = more / median(&times[2]);
        let mark = if derivations <= target { "" } else { "  ABOVE THE TARGET" };
        met &= derivations <= target;
        let [many, one] = [0, 1].map(|at| median(&times[at]));
        println!("{name:<44} {many:>8.1} {one:>10.1} {more:>+8.1} {derivations:>12.2} {target:>8.1}{mark}");
    }
    met
}
