//! Whether the time of a comparison tells how much of it was right: dudect (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant time?", 2017).
//!
//! `timing [SAMPLES [NAME]]`, 10⁷ of each by default, on one processor; of what has NAME in its name, and of what is planted. Each sample is one of three classes by chance: the first byte is wrong, the last byte is
//! wrong, or all bytes are random; of a token, the value is always the same or random twice. The times of each two classes are compared by Welch's t-test, of all
//! samples and of those below each of 20 percentiles, since what interrupts a process makes long times longer. |t| above 4.5 says that times differ.
//! Other work on the machine can do that once: what is above is measured once more, and fails if it is above again. Comparisons that end early are measured first,
//! and must be found. The crate dudect-bencher is not used: it brings clap 2, which nobody maintains.
#![forbid(unsafe_code)]

mod targets;
mod welch;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;
use targets::{Classes, Expected, Target};
use welch::Comparison;

const SAMPLES: usize = 10_000_000;
/// Inputs that are made before any of them is timed, so that what the processor does of making them has ended.
const BATCH: usize = 1000;
/// Samples that say where to crop, and warm up.
const FIRST: usize = 50 * BATCH;
const BOUND: f64 = 4.5;

fn main() -> ExitCode {
    let samples = match std::env::args().nth(1).map(|argument| argument.parse()) {
        None => SAMPLES,
        Some(Ok(samples)) => samples,
        Some(Err(_)) => {
            eprintln!("usage: timing [SAMPLES [NAME]]");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = pin() {
        eprintln!("not on one processor: {error}");
        return ExitCode::FAILURE;
    }
    let name = std::env::args().nth(2).unwrap_or_default();
    let mut random = Random::new();
    let (mut passed, mut failed) = (0, 0);
    println!("{:<28} {:>9} {:>8}  {samples} samples each", "", "median ns", "max |t|");
    let is_chosen = |target: &Target| target.expected == Expected::Planted || target.name.contains(&name);
    for mut target in targets::all().into_iter().filter(is_chosen) {
        let mut measured = measure(&mut target, samples, &mut random);
        let mut first = String::new();
        if measured.max_t() > BOUND && target.expected == Expected::Equal {
            first = format!(", {:.2} at first", measured.max_t());
            measured = measure(&mut target, samples, &mut random);
        }
        let is_found = measured.max_t() > BOUND;
        let (is_good, what) = match (target.expected, is_found) {
            (Expected::Equal, false) => (true, ""),
            (Expected::Equal, true) => (false, "  TIMES DIFFER"),
            (Expected::Planted, true) => (true, "  found, as planted"),
            (Expected::Planted, false) => (false, "  planted, NOT FOUND"),
        };
        println!("{:<28} {:>9} {:>8.2}{first}{what}", target.name, measured.median(), measured.max_t());
        if is_good { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Stays on the last processor that this process may use: the first one has more interrupts.
fn pin() -> rustix::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    if let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)) {
        one.set(last);
    }
    sched_setaffinity(None, &one)
}

fn measure(target: &mut Target, samples: usize, random: &mut Random) -> Comparison {
    let len = target.genuine.len();
    target.check();
    // Each input begins a cache line.
    let stride = len.next_multiple_of(64);
    let mut inputs = vec![0; stride * BATCH + 64];
    let skip = inputs.as_ptr().align_offset(64);
    let mut classes = [0; BATCH];
    let mut round = |times: &mut dyn FnMut(usize, u64)| {
        for (input, class) in inputs[skip..].chunks_exact_mut(stride).zip(&mut classes) {
            *class = (random.next() % 3) as usize;
            input[..len].copy_from_slice(&target.genuine);
            spoil(&mut input[target.place.clone()], *class, target.classes, random);
        }
        for (input, class) in inputs[skip..].chunks_exact_mut(stride).zip(classes) {
            let start = Instant::now();
            black_box((target.work)(black_box(&mut input[..len])));
            times(class, start.elapsed().as_nanos() as u64);
        }
    };
    let mut first = Vec::with_capacity(FIRST);
    (0..FIRST / BATCH).for_each(|_| round(&mut |_, time| first.push(time)));
    let mut comparison = Comparison::new(first);
    (0..samples.div_ceil(BATCH)).for_each(|_| round(&mut |class, time| comparison.add(class, time)));
    target.check();
    comparison
}

/// Makes of what is genuine what the class says.
fn spoil(bytes: &mut [u8], class: usize, classes: Classes, random: &mut Random) {
    let wrong = (random.next() % 255) as u8 + 1;
    match (classes, class) {
        (Classes::Wrong, 0) => bytes[0] ^= wrong,
        (Classes::Wrong, 1) => bytes[bytes.len() - 1] ^= wrong,
        (Classes::Fixed, 0) => {}
        _ => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
    }
}

/// xorshift64*, seeded by the clock: which class comes next must not be in step with anything else, and need not be secret.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_nanos());
        Self(now as u64 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }
}
