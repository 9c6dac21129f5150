//! What it costs to ask for the key with every value, and what a second thread gains.
//!
//! `--test` runs one small round of each and asserts nothing. `--assert` fails when a target is missed. `--bare-ring`
//! is how the benchmark starts itself as a process of bare ring, to be measured beside two threads of keyfold.

use keyfold::testing::block_on;
use keyfold::{ColumnBytes, Value};
use keyfold_benches::{BARE_LEN, Bare, Comparison, Handles, Rows, cpu_time, per_row, seal, spread};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Most that acquiring the key with every value may cost, as a multiple of a handle that is not asked (issue 3).
const CACHED: f64 = 1.15;
/// Most CPU time per value with two threads, as a multiple of that with one.
const CPU: f64 = 1.05;
/// Least part of what a second process of bare ring gains that a second thread of keyfold gains (issue 9).
const GAIN: f64 = 0.95;
/// Keys that are used in turn.
const SCOPES: usize = 64;
/// Rows of one call.
const ROWS: usize = 4096;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    if given("--bare-ring") {
        bare_ring();
        return ExitCode::SUCCESS;
    }
    let test = given("--test");
    let mut compare = Comparison { rounds: if test { 1 } else { 301 }, tolerance: 0.0, failed: false };
    println!("{:<34} {:>10} {:>10}   ratio (5th to 95th percentile)", "ns of CPU time per row", "asking", "held");
    cached(&mut compare, if test { SCOPES } else { 1024 });
    let mut failed = compare.failed;
    println!("\n{:<34} CPU, 2 to 1   gain   bare ring: CPU, gain   gain of its gain", "two threads");
    for work in [Work::SealColumn, Work::OpenColumn, Work::SealOne, Work::OpenOne] {
        failed |= !threads(work, if test { 1 } else { 61 }, if test { 1 } else { 40 });
    }
    if given("--assert") && failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The key of each value is asked for, as a service does, against handles that are known to be ready.
fn cached(compare: &mut Comparison, n: usize) {
    let handles = Handles::of_scopes(SCOPES);
    let data = Rows::new(n);
    let (values, rows) = (data.values(), data.rows());
    let sealed: Vec<Vec<u8>> = (0..n)
        .map(|row| {
            let value = Value::Bytes(values.bytes(row));
            handles[row % SCOPES].encryptor.encrypt(value, Some(rows.bytes(row))).expect("well-formed")
        })
        .collect();
    for (row, sealed) in sealed.iter().enumerate() {
        block_on(handles[row % SCOPES].decryptor.load_keys(&[&sealed[..]][..])).expect("the key is there");
    }
    let seal_one = |row: usize| {
        let value = Value::Bytes(values.bytes(row));
        black_box(handles[row % SCOPES].encryptor.encrypt(value, Some(rows.bytes(row))).expect("well-formed"));
    };
    let open_one = |row: usize| {
        let opened = handles[row % SCOPES].decryptor.decrypt(&sealed[row], Some(rows.bytes(row)));
        black_box(opened.expect("just sealed"));
    };
    // One executor for all values, as in a service; what it costs to enter one is not ours.
    let asked_seal = || {
        block_on(async {
            for row in 0..n {
                handles[row % SCOPES].encryptor.ready().await.expect("the key is there");
                seal_one(row);
            }
        });
    };
    let asked_open = || {
        block_on(async {
            for (row, sealed) in sealed.iter().enumerate() {
                handles[row % SCOPES].decryptor.load_keys(&[&sealed[..]][..]).await.expect("the key is there");
                open_one(row);
            }
        });
    };
    let each = |one: &dyn Fn(usize)| (0..n).for_each(one);
    compare.report(
        "seal: await ready() for each",
        CACHED,
        || per_row(n, asked_seal),
        || per_row(n, || each(&seal_one)),
    );
    compare.report(
        "open: await load_keys() for each",
        CACHED,
        || per_row(n, asked_open),
        || per_row(n, || each(&open_one)),
    );
}

#[derive(Clone, Copy)]
enum Work {
    SealColumn,
    OpenColumn,
    SealOne,
    OpenOne,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::SealColumn => "seal columns",
            Self::OpenColumn => "open columns",
            Self::SealOne => "seal one by one",
            Self::OpenOne => "open one by one",
        }
    }

    /// Calls per column of work, so that a round takes about as long whatever the work is.
    const fn repeat(self, columns: usize) -> usize {
        match self {
            Self::SealColumn | Self::OpenColumn => columns,
            Self::SealOne | Self::OpenOne => columns.div_ceil(3),
        }
    }
}

/// Wall time until the last one is ready, and CPU time of all.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

/// Runs `work` in `count` threads at once.
fn in_threads(count: usize, work: &(impl Fn() + Sync)) -> Took {
    let start = Barrier::new(count);
    let times: Vec<(Instant, Instant, Duration)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let (at, cpu) = (Instant::now(), cpu_time());
                    work();
                    (at, Instant::now(), cpu_time() - cpu)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("the work does not panic")).collect()
    });
    let first = times.iter().map(|time| time.0).min().expect("at least one");
    let last = times.iter().map(|time| time.1).max().expect("at least one");
    Took { wall: (last - first).as_secs_f64(), cpu: times.iter().map(|time| time.2.as_secs_f64()).sum() }
}

/// Threads that share one keyring and one pair of handles. Whether the targets are met.
fn threads(work: Work, rounds: usize, columns: usize) -> bool {
    let handles = Handles::randomized();
    let data = Rows::new(ROWS);
    let (values, rows) = (data.values(), data.rows());
    let sealed = seal(&handles.encryptor, &data);
    block_on(handles.decryptor.load_keys(&sealed)).expect("the key is there");
    let once = || match work {
        Work::SealColumn => drop(black_box(seal(&handles.encryptor, &data))),
        Work::OpenColumn => drop(black_box(handles.decryptor.decrypt_column(&sealed, Some(&rows)).expect("sealed"))),
        Work::SealOne => (0..ROWS).for_each(|row| {
            let value = Value::Bytes(values.bytes(row));
            block_on(handles.encryptor.ready()).expect("the key is there");
            drop(black_box(handles.encryptor.encrypt(value, Some(rows.bytes(row))).expect("well-formed")));
        }),
        Work::OpenOne => (0..ROWS).for_each(|row| {
            let opened = handles.decryptor.decrypt(sealed.bytes(row), Some(rows.bytes(row)));
            drop(black_box(opened.expect("just sealed")));
        }),
    };
    let repeat = work.repeat(columns);
    let ours = || (0..repeat).for_each(|_| once());
    let mut bare = [BareProcess::start(), BareProcess::start()];
    let (mut cpu, mut gain, mut bare_cpu, mut bare_gain, mut part) = Default::default();
    let push = |all: &mut Vec<f64>, value: f64| {
        all.push(value);
        value
    };
    in_threads(1, &ours);
    for round in 0..rounds {
        let keyfold = || (in_threads(1, &ours), in_threads(2, &ours));
        let mut ring = || (run_bare(&mut bare[..1], columns), run_bare(&mut bare, columns));
        let ((one, two), (bare_one, bare_two)) = if round % 2 == 0 {
            let ours = keyfold();
            (ours, ring())
        } else {
            let theirs = ring();
            (keyfold(), theirs)
        };
        push(&mut cpu, two.cpu / 2.0 / one.cpu);
        push(&mut bare_cpu, bare_two.cpu / 2.0 / bare_one.cpu);
        let (ours, theirs) = (2.0 * one.wall / two.wall, 2.0 * bare_one.wall / bare_two.wall);
        push(&mut part, push(&mut gain, ours) / push(&mut bare_gain, theirs));
    }
    let [cpu, gain, bare_cpu, bare_gain, part] = [cpu, gain, bare_cpu, bare_gain, part].map(|all| spread(all).0);
    let met = cpu <= CPU && part >= GAIN;
    let mark = if met { "" } else { "  MISSES THE TARGET" };
    println!("{:<34} {cpu:>11.3} {gain:>6.2} {bare_cpu:>16.3} {bare_gain:>6.2} {part:>18.2}{mark}", work.name());
    met
}

/// A process that seals with bare ring when it is told to.
struct BareProcess {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BareProcess {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(program)
            .arg("--bare-ring")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let orders = child.stdin.take().expect("it was piped");
        let answers = BufReader::new(child.stdout.take().expect("it was piped"));
        Self { child, orders, answers }
    }

    fn answer(&mut self) -> Took {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the process answers");
        let mut numbers = line.split_whitespace().map(|number| number.parse::<f64>().expect("a number"));
        Took { wall: numbers.next().expect("two numbers"), cpu: numbers.next().expect("two numbers") }
    }
}

impl Drop for BareProcess {
    fn drop(&mut self) {
        // It ends with its input.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run_bare(processes: &mut [BareProcess], columns: usize) -> Took {
    let start = Instant::now();
    for process in &mut *processes {
        writeln!(process.orders, "{columns}").and_then(|()| process.orders.flush()).expect("the process listens");
    }
    let cpu = processes.iter_mut().map(|process| process.answer().cpu).sum();
    Took { wall: start.elapsed().as_secs_f64(), cpu }
}

/// Seals as many columns as each line of the input says; writes wall and CPU seconds.
fn bare_ring() {
    let handles = Handles::randomized();
    let data = Rows::new(ROWS);
    let bare = Bare::new(&handles.encryptor, &data);
    let mut out = vec![0; ROWS * BARE_LEN];
    for line in std::io::stdin().lines() {
        let columns: usize = line.expect("text").trim().parse().expect("a number");
        let (start, cpu) = (Instant::now(), cpu_time());
        (0..columns).for_each(|_| bare.seal(black_box(&mut out)));
        println!("{} {}", start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    }
}
