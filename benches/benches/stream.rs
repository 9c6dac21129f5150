//! What a stream costs beside ring that seals and opens the same chunks of 16 KiB where they are: 256 KiB at a time, in turns, in one thread. What either side
//! reads and writes is the same. Then what a second thread gains of wall time, beside what a second thread of ring gains where each has half of the chunks.
//!
//! `--test` runs one small round and asserts nothing. `--assert` fails when the target is missed.

use keyfold::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, StreamHeader};
use keyfold::{StreamOpener, StreamSealer};
use keyfold_benches::{Comparison, per_row, spread, streams};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::io::{Read, Write, sink};
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

/// Most that a stream may cost, as a multiple of ring: 0.9 of its throughput (issue 9).
const TARGET: f64 = 1.0 / 0.9;
/// Least part of what a second thread of ring gains that a second thread gains here (issue 9).
const GAIN: f64 = 0.95;
/// Chunks that are sealed at once.
const BATCH: usize = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    let test = given("--test");
    let mut compare = Comparison { rounds: if test { 1 } else { 101 }, tolerance: 0.0, failed: false };
    let batches = if test { 2 } else { 64 };
    let (sealer, opener) = streams();
    println!("{:<34} {:>10} {:>10}   ratio (5th to 95th percentile)", "ns of CPU time per chunk", "keyfold", "ring");
    in_place(&mut compare, &sealer, &opener, batches);
    whole(&mut compare, &sealer, &opener, batches);
    println!(
        "\n{:<34} {:>10} {:>10}   gain of its gain (5th to 95th percentile)",
        "two threads: gain", "keyfold", "ring"
    );
    let (rounds, batches) = if test { (1, 2) } else { (31, 1024) };
    compare.failed |= !threads(rounds, &sealer, &opener, batches);
    if given("--assert") && compare.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// ring with everything ready, and the nonces that a stream has.
struct Bare(LessSafeKey);

impl Bare {
    fn new() -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes")))
    }

    fn nonce(number: usize) -> Nonce {
        let mut nonce = [9; 12];
        nonce[4..].copy_from_slice(&(number as u64).to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    fn seal(&self, number: usize, chunk: &mut [u8]) {
        let (body, tag) = chunk.split_at_mut(chunk.len() - 16);
        let sealed = self.0.seal_in_place_separate_tag(Self::nonce(number), Aad::empty(), body).expect("short");
        tag.copy_from_slice(sealed.as_ref());
    }

    fn open(&self, number: usize, chunk: &mut [u8]) {
        self.0.open_in_place(Self::nonce(number), Aad::empty(), chunk).expect("just sealed");
    }
}

/// Chunks that are in a buffer of the caller already.
fn in_place(compare: &mut Comparison, sealer: &StreamSealer, opener: &StreamOpener, batches: usize) {
    let bare = Bare::new();
    let [mut ours, mut theirs] = [0, 1].map(|_| vec![1; BATCH * SEALED_CHUNK_LEN]);
    let chunks = batches * BATCH;
    compare.report(
        "seal in place",
        TARGET,
        || {
            per_row(chunks, || {
                let mut stream = sealer.begin(None).expect("ready");
                (0..batches).for_each(|_| stream.seal_in_place(black_box(&mut ours)).expect("whole chunks"));
            })
        },
        || {
            per_row(chunks, || {
                for batch in 0..batches {
                    let numbered = black_box(&mut theirs).chunks_mut(SEALED_CHUNK_LEN).zip(batch * BATCH..);
                    numbered.for_each(|(chunk, number)| bare.seal(number, chunk));
                }
            })
        },
    );
    let mut stream = sealer.begin(None).expect("ready");
    let header = *stream.header();
    let mut sealed = vec![1; chunks * SEALED_CHUNK_LEN];
    stream.seal_in_place(&mut sealed).expect("whole chunks");
    let mut bare_sealed = vec![1; chunks * SEALED_CHUNK_LEN];
    bare_sealed.chunks_mut(SEALED_CHUNK_LEN).zip(0..).for_each(|(chunk, number)| bare.seal(number, chunk));
    // Opening consumes what was sealed, so both sides open a copy that is made outside of the measured time.
    let [mut ours, mut theirs] = [0, 1].map(|_| vec![0; chunks * SEALED_CHUNK_LEN]);
    compare.report(
        "open in place",
        TARGET,
        || {
            ours.copy_from_slice(&sealed);
            per_row(chunks, || {
                let mut stream = opener.begin(&header, None).expect("loaded");
                for batch in ours.chunks_mut(BATCH * SEALED_CHUNK_LEN) {
                    stream.open_in_place(black_box(batch)).expect("just sealed");
                }
            })
        },
        || {
            theirs.copy_from_slice(&bare_sealed);
            per_row(chunks, || {
                for (chunk, number) in black_box(&mut theirs).chunks_mut(SEALED_CHUNK_LEN).zip(0..) {
                    bare.open(number, chunk);
                }
            })
        },
    );
}

/// From a reader to a writer, in memory: either side copies what it reads to where it is sealed.
fn whole(compare: &mut Comparison, sealer: &StreamSealer, opener: &StreamOpener, batches: usize) {
    let bare = Bare::new();
    let chunks = batches * BATCH;
    let one = NonZeroUsize::MIN;
    let plaintext = vec![1; chunks * CHUNK_LEN];
    let mut buffer = vec![0; BATCH * SEALED_CHUNK_LEN];
    let seal_bare = |buffer: &mut Vec<u8>, out: &mut dyn Write| {
        let (mut input, mut number) = (&plaintext[..], 0);
        for _ in 0..batches {
            for chunk in buffer.chunks_mut(SEALED_CHUNK_LEN) {
                input.read_exact(&mut chunk[..CHUNK_LEN]).expect("it is there");
                bare.seal(number, chunk);
                number += 1;
            }
            out.write_all(buffer).expect("memory");
        }
    };
    let mut bare_sealed = Vec::new();
    seal_bare(&mut buffer, &mut bare_sealed);
    compare.report(
        "seal_all",
        TARGET,
        || {
            let stream = sealer.begin(None).expect("ready");
            per_row(chunks, || stream.seal_all(&mut &plaintext[..], &mut sink(), one, |_| Ok(())).expect("memory"))
        },
        || per_row(chunks, || seal_bare(&mut buffer, &mut sink())),
    );
    compare.report(
        "StreamWriter",
        TARGET,
        || {
            let mut writer = sealer.begin(None).expect("ready").into_writer(sink()).expect("memory");
            per_row(chunks, || {
                writer.write_all(&plaintext).expect("memory");
                writer.finish().expect("memory")
            })
        },
        || per_row(chunks, || seal_bare(&mut buffer, &mut sink())),
    );
    let mut sealed = Vec::new();
    let stream = sealer.begin(None).expect("ready");
    stream.seal_all(&mut &plaintext[..], &mut sealed, one, |_| Ok(())).expect("memory");
    let header = StreamHeader::parse(&sealed).expect("just sealed");
    let body = &sealed[STREAM_HEADER_LEN..];
    let mut open_bare = || {
        let mut input = &bare_sealed[..];
        let mut number = 0;
        for _ in 0..batches {
            input.read_exact(&mut buffer).expect("it is there");
            for chunk in buffer.chunks_mut(SEALED_CHUNK_LEN) {
                bare.open(number, chunk);
                sink().write_all(&chunk[..CHUNK_LEN]).expect("memory");
                number += 1;
            }
        }
    };
    compare.report(
        "open_all",
        TARGET,
        || {
            let stream = opener.begin(&header, None).expect("loaded");
            per_row(chunks, || stream.open_all(&mut &*body, &mut sink(), one, |_| Ok(())).expect("just sealed"))
        },
        || per_row(chunks, &mut open_bare),
    );
    let mut large = vec![0; 256 * 1024];
    compare.report(
        "StreamReader, by 256 KiB",
        TARGET,
        || {
            let mut reader = opener.begin(&header, None).expect("loaded").into_reader(body);
            per_row(chunks, || while reader.read(&mut large).expect("just sealed") > 0 {})
        },
        || per_row(chunks, &mut open_bare),
    );
}

/// Seconds until all of `count` threads, which are started for it, have done `work`.
fn wall(count: usize, work: &(impl Fn() + Sync)) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| (0..count).for_each(|_| drop(scope.spawn(work))));
    start.elapsed().as_secs_f64()
}

/// Whole streams from memory, by one thread and by two. Whether the target is met.
fn threads(rounds: usize, sealer: &StreamSealer, opener: &StreamOpener, batches: usize) -> bool {
    let bare = Bare::new();
    let plaintext = vec![1; batches * BATCH * CHUNK_LEN];
    let mut sealed = Vec::new();
    let stream = sealer.begin(None).expect("ready");
    stream.seal_all(&mut &plaintext[..], &mut sealed, NonZeroUsize::MIN, |_| Ok(())).expect("memory");
    let header = StreamHeader::parse(&sealed).expect("just sealed");
    let body = &sealed[STREAM_HEADER_LEN..];
    let mut bare_sealed = vec![1; batches * BATCH * SEALED_CHUNK_LEN];
    bare_sealed.chunks_mut(SEALED_CHUNK_LEN).zip(0..).for_each(|(chunk, number)| bare.seal(number, chunk));
    let ours_sealing = |count| {
        let (stream, start) = (sealer.begin(None).expect("ready"), Instant::now());
        stream.seal_all(&mut &plaintext[..], &mut sink(), count, |_| Ok(())).expect("memory");
        start.elapsed().as_secs_f64()
    };
    let ours_opening = |count| {
        let (stream, start) = (opener.begin(&header, None).expect("loaded"), Instant::now());
        stream.open_all(&mut &*body, &mut sink(), count, |_| Ok(())).expect("just sealed");
        start.elapsed().as_secs_f64()
    };
    // As in `whole`: each batch is copied to where it is sealed or opened.
    let bare_sealing = |count: NonZeroUsize| {
        wall(count.get(), &|| {
            let mut buffer = vec![0; BATCH * SEALED_CHUNK_LEN];
            for (batch, input) in plaintext.chunks(BATCH * CHUNK_LEN).take(batches / count).enumerate() {
                let chunks = buffer.chunks_mut(SEALED_CHUNK_LEN).zip(input.chunks(CHUNK_LEN)).zip(batch * BATCH..);
                for ((chunk, input), number) in chunks {
                    chunk[..CHUNK_LEN].copy_from_slice(input);
                    bare.seal(number, black_box(chunk));
                }
            }
        })
    };
    let bare_opening = |count: NonZeroUsize| {
        wall(count.get(), &|| {
            let mut buffer = vec![0; BATCH * SEALED_CHUNK_LEN];
            for (batch, input) in bare_sealed.chunks(BATCH * SEALED_CHUNK_LEN).take(batches / count).enumerate() {
                buffer.copy_from_slice(input);
                let chunks = buffer.chunks_mut(SEALED_CHUNK_LEN).zip(batch * BATCH..);
                chunks.for_each(|(chunk, number)| bare.open(number, black_box(chunk)));
            }
        })
    };
    let sealing = gain("seal_all", rounds, ours_sealing, bare_sealing);
    gain("open_all", rounds, ours_opening, bare_opening) && sealing
}

/// Prints what a second thread gains here and of ring, of seconds that both take by a number of threads. Whether the target is met.
fn gain(what: &str, rounds: usize, ours: impl Fn(NonZeroUsize) -> f64, theirs: impl Fn(NonZeroUsize) -> f64) -> bool {
    let two = NonZeroUsize::new(2).expect("not zero");
    let of_both = |work: &dyn Fn(NonZeroUsize) -> f64| work(NonZeroUsize::MIN) / work(two);
    of_both(&ours);
    of_both(&theirs);
    let (mut us, mut them, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (a, b) = if round % 2 == 0 {
            let a = of_both(&ours);
            (a, of_both(&theirs))
        } else {
            let b = of_both(&theirs);
            (of_both(&ours), b)
        };
        us.push(a);
        them.push(b);
        parts.push(a / b);
    }
    let (part, low, high) = spread(parts);
    let mark = if part >= GAIN { "" } else { "  MISSES THE TARGET" };
    println!("{what:<34} {:>10.2} {:>10.2}   {part:.3} ({low:.3} to {high:.3}){mark}", spread(us).0, spread(them).0);
    part >= GAIN
}
