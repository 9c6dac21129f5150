//! How much longer keyfold takes than bare ring over the same bytes: the two alternate in one thread, each round gives
//! one ratio of CPU times, and the median of the ratios is the result. A disturbance that lasts longer than a
//! round touches both sides.
//!
//! `--test` runs one small round of each and asserts nothing. `--assert` fails when a target is missed by more than a fifth: some are, by less (docs/PERFORMANCE.md).

use keyfold::aead::Backend;
use keyfold::aead::hazmat::XaesDerivation;
use keyfold::testing::block_on;
use keyfold::{ColumnBytes, Value};
use keyfold_benches::{BARE_LEN, BATCH_ROWS, Bare, Comparison, ENCODED_LEN, Handles, Rows, per_row, seal, spread};
use std::hint::black_box;
use std::process::ExitCode;

/// Most that a column should cost, as a multiple of bare ring.
const TARGET: f64 = 1.15;
/// What a single value may cost above bare ring, a derivation and random bytes, as a part of bare ring.
const ABOVE: f64 = 0.4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = given("--test");
    let mut compare = Comparison { rounds: if test { 1 } else { 301 }, tolerance: 0.2, failed: false };
    println!("{:<34} {:>10} {:>10}   ratio (5th to 95th percentile)", "ns of CPU time per row", "keyfold", "bare ring");
    let field = Handles::randomized();
    for n in if test { vec![64] } else { vec![4096, BATCH_ROWS] } {
        let data = Rows::new(n);
        let sealed = seal(&field.encryptor, &data);
        block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
        let bare = Bare::new(&field.encryptor, &data);
        let mut bare_sealed = vec![0; n * BARE_LEN];
        bare.seal(&mut bare_sealed);
        let ours = || per_row(n, || seal(&field.encryptor, &data));
        compare.report(&format!("seal {n} rows"), TARGET, ours, || {
            per_row(n, || {
                let mut out = vec![0; n * BARE_LEN];
                bare.seal(&mut out);
                out
            })
        });
        let mut reused = vec![0; n * BARE_LEN];
        compare.report(&format!("seal {n} rows, ring's buffer reused"), TARGET, ours, || {
            per_row(n, || bare.seal(&mut reused))
        });
        let ours = || per_row(n, || field.decryptor.decrypt_column(&sealed, Some(&data.rows())).expect("just sealed"));
        compare.report(&format!("open {n} rows"), TARGET, ours, || {
            per_row(n, || {
                let mut out = Vec::with_capacity(n * ENCODED_LEN + BARE_LEN);
                bare.open(&bare_sealed, &mut out);
                out
            })
        });
        let mut reused = Vec::with_capacity(n * ENCODED_LEN + BARE_LEN);
        compare.report(&format!("open {n} rows, ring's buffer reused"), TARGET, ours, || {
            reused.clear();
            per_row(n, || bare.open(&bare_sealed, &mut reused))
        });
    }
    one_value(&mut compare, &field, test);
    if given("--assert") && compare.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// One value at a time against its budget: 1.4 times bare ring, one derivation, one call to the operating system.
fn one_value(compare: &mut Comparison, field: &Handles, test: bool) {
    let n = if test { 16 } else { 1024 };
    let data = Rows::new(n);
    let bare = Bare::new(&field.encryptor, &data);
    let derivation = XaesDerivation::new(Backend::default(), &[7; 32]);
    let mut out = vec![0; n * BARE_LEN];
    let (values, rows) = (data.values(), data.rows());
    let sealed = seal(&field.encryptor, &data);
    block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
    let seal_each = || {
        (0..n).for_each(|row| {
            let value = Value::Bytes(values.bytes(row));
            black_box(field.encryptor.encrypt(value, Some(rows.bytes(row))).expect("well-formed"));
        });
    };
    let open_each = || {
        (0..n).for_each(|row| {
            black_box(field.decryptor.decrypt(sealed.bytes(row), Some(rows.bytes(row))).expect("just sealed"));
        });
    };
    let draw = || {
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).expect("the system has randomness");
        black_box(nonce)
    };
    // The steps run one after the other, as they must for one value: what a system call does to the code behind it
    // belongs to it. On top comes what a column may cost more than bare ring.
    compare.report(
        "seal one value, and its budget",
        1.0,
        || per_row(n, seal_each),
        || {
            let steps = per_row(n, || {
                for (row, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
                    derivation.derive(draw().first_chunk().expect("24 bytes"));
                    bare.seal_row(row, out);
                }
            });
            steps + ABOVE * per_row(n, || bare.seal(&mut out))
        },
    );
    let mut bare_sealed = vec![0; n * BARE_LEN];
    bare.seal(&mut bare_sealed);
    let mut opened = Vec::with_capacity(n * ENCODED_LEN + BARE_LEN);
    compare.report(
        "open one value, and its budget",
        1.0,
        || per_row(n, open_each),
        || {
            opened.clear();
            let steps = per_row(n, || {
                for (row, sealed) in bare_sealed.as_chunks::<BARE_LEN>().0.iter().enumerate() {
                    derivation.derive(sealed.first_chunk().expect("longer"));
                    bare.open_row(row, sealed, &mut opened);
                }
            });
            opened.clear();
            steps + ABOVE * per_row(n, || bare.open(&bare_sealed, &mut opened))
        },
    );
    let alone = |what: &str, work: &dyn Fn()| {
        let all = (0..compare.rounds).map(|_| per_row(n, || (0..n).for_each(|_| work()))).collect();
        let (median, low, high) = spread(all);
        println!("{what:<34} {median:>7.1} ns ({low:.1} to {high:.1})");
    };
    alone("one derivation alone", &|| derivation.derive(black_box(&[1; 12])));
    alone("one getrandom of 24 bytes alone", &|| {
        draw();
    });
}
