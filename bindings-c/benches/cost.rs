//! What a call from C costs over the same work in Rust. The two alternate in one thread; each round gives one ratio of CPU times, and
//! the median of the ratios is the result.
//!
//! `--test` runs one small round of each and asserts nothing. `--assert` fails when a target is missed.

use keyfold::{Column, Context, Decryptor, Encryptor, Value};
use keyfold_c::column::{kf_column, kf_column_out, kf_encrypt_column};
use keyfold_c::column_open::kf_decrypt_column;
use keyfold_c::context::{kf_context_add, kf_context_new};
use keyfold_c::field::{kf_decrypt, kf_encrypt, kf_field, kf_field_new, kf_opened};
use keyfold_c::keyring::kf_keyring_open;
use keyfold_c::options::{kf_options_add_policy, kf_options_new};
use keyfold_c::result::kf_result;
use keyfold_c::value::kf_type;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::process::ExitCode;
use std::ptr::{null, null_mut};
use std::time::Duration;

/// Most that a single call may cost, as a multiple of the call in Rust.
const ONE: f64 = 1.15;
/// Most that the call of a column may cost.
const COLUMN: f64 = 1.05;
const TEXT: u8 = kf_type::KF_TYPE_TEXT as u8;
const LEN: usize = 16;
const SEALED_LEN: usize = LEN + keyfold_c::value::KF_SEALED_OVERHEAD;
const POLICY: &str = "version = 1\n[fields.id]\nrow_binding = \"row\"\nrequired_context = [\"tenant\"]\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let (rounds, n, rows) = if given("--test") { (1, 16, 64) } else { (201, 1024, 1 << 15) };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ours = Handles::new(folder.path());
    let names: Vec<u8> = (0..rows).flat_map(|row| format!("{row:016}").into_bytes()).collect();
    let name = |row: usize| &names[row * LEN..][..LEN];
    let offsets: Vec<i64> = (0..=rows as i64).map(|row| row * LEN as i64).collect();
    let column = Column::new(&names, &offsets).expect("ascending");
    let types = vec![TEXT; rows];
    let text = |row: usize| Value::Text(std::str::from_utf8(name(row)).expect("digits"));

    println!("{:<24} {:>9} {:>9}   ratio", "ns of CPU time per value", "C", "Rust");
    let mut missed = false;
    let (mut sealed, mut opened) = ([0; SEALED_LEN], [0; SEALED_LEN]);
    let (from_c, in_rust) = (&ours.field, (&ours.encryptor, &ours.decryptor));
    missed |= compare("encrypt one", ONE, rounds, n, |row| from_c.encrypt(name(row), &mut sealed), {
        let mut sealed = [0; SEALED_LEN];
        move |row| {
            let len = in_rust.0.encrypt_if_ready(text(row), Some(name(row)), &mut sealed).expect("well-formed");
            assert_eq!(black_box(len), Some(SEALED_LEN));
        }
    });
    let each: Vec<Vec<u8>> =
        (0..n).map(|row| ours.encryptor.encrypt(text(row), Some(name(row))).expect("well-formed")).collect();
    block_on(ours.decryptor.load_keys(&each[..])).expect("the key is there");
    missed |= compare(
        "decrypt one",
        ONE,
        rounds,
        n,
        |row| from_c.decrypt(&each[row], name(row), &mut opened),
        |row| {
            let opened = in_rust.1.decrypt_if_ready(&each[row], Some(name(row))).expect("just sealed");
            assert!(matches!(black_box(opened).expect("the key is there").value(), Value::Text(_)));
        },
    );

    let values: Vec<Value<'_>> = (0..rows).map(text).collect();
    let (mut data, mut ends) = (vec![0; rows * SEALED_LEN], vec![0; rows + 1]);
    missed |= compare_columns(
        "encrypt a column",
        rounds,
        rows,
        || from_c.encrypt_column(&types, (&names, &offsets), &mut data, &mut ends),
        || {
            let values: &[Value<'_>] = &values;
            drop(black_box(in_rust.0.encrypt_column(values, Some(&column)).expect("well-formed")));
        },
    );
    let sealed = ours.encryptor.encrypt_column(&values[..], Some(&column)).expect("well-formed");
    let (mut plain, mut kinds) = (vec![0; rows * SEALED_LEN], vec![0; rows]);
    missed |= compare_columns(
        "decrypt a column",
        rounds,
        rows,
        || {
            from_c.decrypt_column(
                (sealed.data(), sealed.offsets()),
                (&names, &offsets),
                (&mut plain, &mut ends, &mut kinds),
            )
        },
        || {
            block_on(in_rust.1.load_keys(&sealed)).expect("the key is there");
            drop(black_box(in_rust.1.decrypt_column(&sealed, Some(&column)).expect("just sealed")));
        },
    );
    if given("--assert") && missed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The same field from both sides.
struct Handles {
    field: Field,
    encryptor: Encryptor,
    decryptor: Decryptor,
}

impl Handles {
    fn new(folder: &std::path::Path) -> Self {
        let made = block_on(keyfold_open::init(folder, "ring", "test")).expect("a new keyring");
        let policy = folder.join("policy.toml");
        std::fs::write(&policy, POLICY).expect("a policy");
        let ring = keyfold_open::open(&made.config, std::slice::from_ref(&policy)).expect("a keyring");
        let context = Context::new().with("tenant", "clinic7").expect("a context");
        let field = ring.field("id").expect("a field").context(context);
        let encryptor = block_on(field.clone().encryptor()).expect("a key");
        let decryptor = block_on(field.decryptor()).expect("a key");
        Self { field: Field::new(made.config.to_str(), policy.to_str()), encryptor, decryptor }
    }
}

/// A field as C holds it.
struct Field(*mut kf_field);

impl Field {
    fn new(config: Option<&str>, policy: Option<&str>) -> Self {
        let (config, policy) = (config.expect("UTF-8"), policy.expect("UTF-8"));
        let (mut options, mut ring, mut context, mut field) = (null_mut(), null_mut(), null_mut(), null_mut());
        // SAFETY: every pointer is valid for its length, or null where that is allowed.
        unsafe {
            check(kf_options_new(&raw mut options, null_mut()));
            check(kf_options_add_policy(options, policy.as_ptr().cast(), policy.len(), null_mut()));
            check(kf_keyring_open(config.as_ptr().cast(), config.len(), options, &raw mut ring, null_mut()));
            check(kf_context_new(&raw mut context, null_mut()));
            check(kf_context_add(context, c"tenant".as_ptr(), 6, c"clinic7".as_ptr().cast(), 7, null_mut()));
            check(kf_field_new(ring, c"id".as_ptr(), 2, null(), 0, context, &raw mut field, null_mut()));
        }
        Self(field)
    }

    fn encrypt(&self, text: &[u8], out: &mut [u8]) {
        let mut len = 0;
        // SAFETY: as above.
        check(unsafe {
            let (data, room) = (text.as_ptr().cast(), out.as_mut_ptr());
            kf_encrypt(self.0, TEXT, data, text.len(), data, text.len(), room, out.len(), &raw mut len, null_mut())
        });
        assert_eq!(black_box(len), SEALED_LEN);
    }

    fn decrypt(&self, sealed: &[u8], row: &[u8], out: &mut [u8]) {
        let mut opened = kf_opened { len: 0, r#type: 0, is_current: false, is_compromised: false, reserved: [0; 5] };
        // SAFETY: as above.
        check(unsafe {
            let (data, room) = (sealed.as_ptr(), out.as_mut_ptr().cast());
            let told = &raw mut opened;
            kf_decrypt(self.0, data, sealed.len(), row.as_ptr().cast(), row.len(), room, out.len(), told, null_mut())
        });
        assert_eq!(black_box(opened.len), LEN);
    }

    fn encrypt_column(&self, types: &[u8], values: (&[u8], &[i64]), data: &mut [u8], ends: &mut [i64]) {
        let (values, out) = (given(values), room(data, ends));
        // SAFETY: as above.
        check(unsafe {
            kf_encrypt_column(self.0, types.as_ptr(), &raw const values, &raw const values, &raw const out, null_mut())
        });
    }

    fn decrypt_column(
        &self,
        sealed: (&[u8], &[i64]),
        rows: (&[u8], &[i64]),
        (data, ends, types): (&mut [u8], &mut [i64], &mut [u8]),
    ) {
        let (sealed, rows, out) = (given(sealed), given(rows), room(data, ends));
        let (kinds, len) = (types.as_mut_ptr(), types.len());
        // SAFETY: as above.
        check(unsafe {
            let (sealed, rows, out) = (&raw const sealed, &raw const rows, &raw const out);
            kf_decrypt_column(self.0, sealed, rows, kinds, len, out, null_mut(), null_mut())
        });
    }
}

fn given((data, offsets): (&[u8], &[i64])) -> kf_column {
    kf_column { data: data.as_ptr(), data_len: data.len(), offsets: offsets.as_ptr(), rows: offsets.len() - 1 }
}

fn room(data: &mut [u8], ends: &mut [i64]) -> kf_column_out {
    let (offsets, offsets_cap) = (ends.as_mut_ptr(), ends.len());
    kf_column_out { data: data.as_mut_ptr(), data_cap: data.len(), offsets, offsets_cap }
}

fn check(result: kf_result) {
    assert_eq!(result, kf_result::KF_OK);
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    pollster::block_on(work)
}

/// Compares two ways of working on one value, `n` times a round. Says whether the target is missed.
fn compare(
    what: &str,
    target: f64,
    rounds: usize,
    n: usize,
    mut c: impl FnMut(usize),
    mut rust: impl FnMut(usize),
) -> bool {
    report(what, target, rounds, n, || (0..n).for_each(&mut c), || (0..n).for_each(&mut rust))
}

fn compare_columns(what: &str, rounds: usize, rows: usize, c: impl FnMut(), rust: impl FnMut()) -> bool {
    report(what, COLUMN, rounds, rows, c, rust)
}

fn report(what: &str, target: f64, rounds: usize, n: usize, mut c: impl FnMut(), mut rust: impl FnMut()) -> bool {
    let (mut ratios, mut times) = (Vec::new(), [Vec::new(), Vec::new()]);
    // The first calls fetch keys and memory.
    c();
    rust();
    for round in 0..rounds {
        let (ours, theirs) = if round % 2 == 0 {
            let ours = time(&mut c);
            (ours, time(&mut rust))
        } else {
            let theirs = time(&mut rust);
            (time(&mut c), theirs)
        };
        ratios.push(ours / theirs);
        times[0].push(ours / n as f64);
        times[1].push(theirs / n as f64);
    }
    let [ours, theirs] = times.map(median);
    let ratio = median(ratios);
    println!("{what:<24} {ours:>9.1} {theirs:>9.1}   {ratio:.3} (at most {target})");
    ratio > target
}

/// Nanoseconds of CPU time of this thread: on a shared machine the wall clock measures the neighbours.
fn time(work: &mut impl FnMut()) -> f64 {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("a thread has used no negative time");
    let before = now();
    work();
    (now() - before).as_secs_f64() * 1e9
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
