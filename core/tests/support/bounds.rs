//! What a hostile input may cost: every change of some bytes, measured in memory and time.

use rustix::time::{ClockId, clock_gettime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

/// Counts the bytes that this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every method passes its arguments on to `System` unchanged; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|a| a.set(a.get() + layout.size()));
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System.alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

pub(crate) fn allocated<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.get();
    let result = f();
    (result, ALLOCATED.get() - before)
}

/// Beyond the bytes of the input.
pub(crate) const MAX_EXTRA_ALLOCATION: usize = 1 << 20;
/// Of this thread, whatever else the machine does.
const MAX_TIME: Duration = Duration::from_millis(50);

/// What was done to bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// So many are left.
    Length(usize),
    /// One is another one.
    Bit(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "length {len}"),
            Self::Bit(bit) => write!(f, "bit {bit}"),
        }
    }
}

/// What the worst of all inputs came to.
#[derive(Default)]
struct Worst {
    inputs: usize,
    accepted: usize,
    memory: usize,
    time: Duration,
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

/// Hands every truncation and every flipped bit of `bytes` to `open`, whose result `check` looks at and says whether the input was accepted. Prints
/// the figures.
pub(crate) fn every_change<T>(
    name: &str,
    bytes: &[u8],
    mut open: impl FnMut(&[u8]) -> T,
    mut check: impl FnMut(Change, &[u8], T) -> bool,
) {
    let mut worst = Worst::default();
    let mut measure = |change: Change, input: &[u8]| {
        let start = cpu_time();
        let (result, memory) = allocated(|| open(input));
        let (time, memory) = (cpu_time() - start, memory.saturating_sub(input.len()));
        assert!(memory <= MAX_EXTRA_ALLOCATION, "{name}, {change}: {memory} bytes");
        assert!(time <= MAX_TIME, "{name}, {change}: {time:?}");
        worst.inputs += 1;
        worst.accepted += usize::from(check(change, input, result));
        worst.memory = worst.memory.max(memory);
        worst.time = worst.time.max(time);
    };
    for len in 0..bytes.len() {
        measure(Change::Length(len), &bytes[..len]);
    }
    let mut flipped = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        measure(Change::Bit(bit), &flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    let Worst { inputs, accepted, memory, time } = worst;
    println!("{name}: {inputs} inputs, {accepted} accepted, at most {memory} bytes and {time:?}");
}
