//! The lock of the interpreter: letting go of it and taking it.
//!
//! Before Python 3.14 a thread that asks for the lock of an interpreter that ends is ended there and then, through all its frames; ours
//! abort the process upon that. So once the interpreter begins to end, threads other than the one that ends it ask no more; and before
//! it ends they leave the calls in which other code asks for them.

use pyo3::prelude::*;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// The thread that ends the interpreter, once it has begun to.
static ENDING: OnceLock<ThreadId> = OnceLock::new();
/// Threads that have begun to ask and have not got the lock.
static ASKING: AtomicUsize = AtomicUsize::new(0);
/// Threads in calls that run code of Python, which asks for the lock when it likes.
static CALLING: AtomicUsize = AtomicUsize::new(0);
/// How long the end waits for these.
const PATIENCE: Duration = Duration::from_secs(1);

thread_local! {
    /// How many such calls this thread is in, one inside the other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

fn is_ending_elsewhere() -> bool {
    ENDING.get().is_some_and(|ending| *ending != thread::current().id())
}

/// Stops this thread for ever, outside of all calls.
fn stop() -> ! {
    if DEPTH.replace(0) > 0 {
        CALLING.fetch_sub(1, Ordering::SeqCst);
    }
    loop {
        thread::park();
    }
}

/// A call that runs code of Python, such as a method of an argument or an import, between two steps of its own.
pub(crate) struct Call;

impl Call {
    pub(crate) fn begin(py: Python<'_>) -> Self {
        if DEPTH.replace(DEPTH.get() + 1) == 0 {
            // Counted before the look, as below.
            CALLING.fetch_add(1, Ordering::SeqCst);
            if is_ending_elsewhere() {
                py.detach(|| stop());
            }
        }
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if DEPTH.replace(DEPTH.get() - 1) == 1 {
            CALLING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

struct Asking;

impl Asking {
    /// `None`: this thread must not ask, since another one ends the interpreter.
    fn new() -> Option<Self> {
        // Counted before the look, and the end looks at the count after it has begun: one of the two sees the other.
        ASKING.fetch_add(1, Ordering::SeqCst);
        let asking = Self;
        (!is_ending_elsewhere()).then_some(asking)
    }

    fn or_stop() -> Self {
        Self::new().unwrap_or_else(|| stop())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` without the lock. While another thread ends the interpreter it does not return.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    let (done, _asking) = py.detach(|| {
        let done = work();
        (done, Asking::or_stop())
    });
    done
}

/// Runs `work` with the lock. While another thread ends the interpreter it does not return.
pub(crate) fn attach<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    let asking = Asking::or_stop();
    Python::attach(|py| {
        drop(asking);
        work(py)
    })
}

/// As [`attach`]; `None`: the interpreter ends.
pub(crate) fn try_attach<T>(work: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    let asking = Asking::new()?;
    Python::try_attach(|py| {
        drop(asking);
        work(py)
    })
}

/// In a forked child, which has this thread alone.
pub(crate) fn begin_child() {
    ASKING.store(0, Ordering::SeqCst);
    CALLING.store(usize::from(DEPTH.get() > 0), Ordering::SeqCst);
}

/// The interpreter begins to end, on this thread.
#[pyfunction]
pub(crate) fn _begin_end(py: Python<'_>) {
    let _ = ENDING.set(thread::current().id());
    py.detach(|| {
        let end = Instant::now() + PATIENCE;
        let are_there = || ASKING.load(Ordering::SeqCst) > 0 || CALLING.load(Ordering::SeqCst) > 0;
        while are_there() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    });
}
