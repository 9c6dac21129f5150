//! Criterion benchmarks: columns, single values, and bare ring over the same bytes. In CPU time of the thread.
//! For the ratio between keyfold and bare ring see `ratio`, which alternates the two.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use keyfold::aead::Backend;
use keyfold::aead::hazmat::XaesDerivation;
use keyfold::testing::block_on;
use keyfold::{ColumnBytes, Value};
use keyfold_benches::{BARE_LEN, BATCH_ROWS, Bare, ENCODED_LEN, Handles, Rows, Shuffled, cpu_time, seal};
use std::hint::black_box;
use std::time::Duration;

/// CPU time of the thread, which a busy neighbour disturbs less than the wall clock.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn columns(c: &mut Criterion<CpuTime>) {
    let field = Handles::randomized();
    for n in [4096, BATCH_ROWS] {
        let data = Rows::new(n);
        let sealed = seal(&field.encryptor, &data);
        block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
        let bare = Bare::new(&field.encryptor, &data);
        let mut group = c.benchmark_group("seal");
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("bare ring", n), |b| {
            b.iter(|| {
                let mut out = vec![0; n * BARE_LEN];
                bare.seal(&mut out);
                out
            });
        });
        group.bench_function(BenchmarkId::new("column", n), |b| b.iter(|| seal(&field.encryptor, &data)));
        group.finish();
        let mut group = c.benchmark_group("open");
        group.throughput(Throughput::Elements(n as u64));
        let mut bare_sealed = vec![0; n * BARE_LEN];
        bare.seal(&mut bare_sealed);
        group.bench_function(BenchmarkId::new("bare ring", n), |b| {
            b.iter(|| {
                let mut out = Vec::with_capacity(n * ENCODED_LEN + BARE_LEN);
                bare.open(&bare_sealed, &mut out);
                out
            });
        });
        group.bench_function(BenchmarkId::new("column", n), |b| {
            b.iter(|| field.decryptor.decrypt_column(&sealed, Some(&data.rows())).expect("it was just sealed"));
        });
        group.finish();
    }
}

fn many_batches(c: &mut Criterion<CpuTime>) {
    let field = Handles::randomized();
    let (batches, len) = (1000, 16);
    let mut group = c.benchmark_group("open 1000 batches");
    group.throughput(Throughput::Elements((batches * len) as u64));
    let sorted = Shuffled::sorted(&field.encryptor, batches, len);
    block_on(field.decryptor.load_keys(&sorted.sealed[..])).expect("the key is there");
    let open = |column: &Shuffled| {
        field.decryptor.decrypt_column(&column.sealed[..], Some(&column.rows[..])).expect("it was just sealed")
    };
    group.bench_function("sorted", |b| b.iter(|| open(&sorted)));
    let shuffled = sorted.shuffled();
    group.bench_function("random order", |b| b.iter(|| open(&shuffled)));
    group.finish();
}

fn one_value(c: &mut Criterion<CpuTime>) {
    let field = Handles::randomized();
    let data = Rows::new(1);
    let (rows, values) = (data.rows(), data.values());
    let (row, value) = (rows.bytes(0), Value::Bytes(values.bytes(0)));
    let sealed = field.encryptor.encrypt(value, Some(row)).expect("well-formed");
    block_on(field.decryptor.load_keys(&[&sealed[..]][..])).expect("the key is there");
    let mut group = c.benchmark_group("one value");
    group.bench_function("seal", |b| b.iter(|| field.encryptor.encrypt(black_box(value), Some(row))));
    group.bench_function("open", |b| b.iter(|| field.decryptor.decrypt(black_box(&sealed), Some(row))));
    let derivation = XaesDerivation::new(Backend::default(), &[7; 32]);
    group.bench_function("derive alone", |b| b.iter(|| derivation.derive(black_box(&[1; 12]))));
    group.bench_function("getrandom of 24 bytes alone", |b| {
        b.iter(|| {
            let mut nonce = [0; 24];
            getrandom::fill(&mut nonce).expect("the system has randomness");
            nonce
        });
    });
    group.finish();
}

fn deterministic(c: &mut Criterion<CpuTime>) {
    let field = Handles::deterministic();
    let data = Rows::new(4096);
    let none = None::<&[&[u8]]>;
    let seal = || field.encryptor.encrypt_column(&data.values(), none).expect("well-formed");
    let sealed = seal();
    block_on(field.decryptor.load_keys(&sealed)).expect("the key is there");
    let mut group = c.benchmark_group("deterministic");
    let values = data.values();
    let value = Value::Bytes(values.bytes(0));
    group.bench_function("seal one value", |b| b.iter(|| field.encryptor.encrypt(black_box(value), None)));
    group.bench_function("open one value", |b| b.iter(|| field.decryptor.decrypt(black_box(sealed.bytes(0)), None)));
    group.throughput(Throughput::Elements(data.len() as u64));
    group.bench_function("seal column/4096", |b| b.iter(seal));
    group.bench_function("open column/4096", |b| b.iter(|| field.decryptor.decrypt_column(&sealed, none)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = columns, many_batches, one_value, deterministic
}
criterion_main!(benches);
