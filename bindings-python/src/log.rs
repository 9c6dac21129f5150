//! What the library logs, in Python's `logging`.
//!
//! Events come from any thread, with the GIL or without, also while whoever has it waits for that thread. So an event is only
//! put into a queue, and Python sees it at the end of a call that waits for a key service or a store, where nothing of the
//! library is locked: a handler may use keyfold itself.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use tracing::Level;

/// The name of the logger.
const LOGGER: &str = "keyfold";
/// Most events that wait for Python.
const MAX_WAITING: usize = 1000;
/// How often somebody who finds the queue taken looks again. It is taken for less than a microsecond.
const LOOKS: usize = 1000;

static QUEUE: Mutex<VecDeque<Entry>> = Mutex::new(VecDeque::new());
/// Whether something may be in the queue, or is lost.
static IS_PENDING: AtomicBool = AtomicBool::new(false);
/// Events for which there was no room.
static LOST: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is in a handler, whose own calls of keyfold must not come back to it.
    static IS_PASSING: Cell<bool> = const { Cell::new(false) };
}

struct Entry {
    /// Who tells it: a forked child does not repeat what its parent says.
    process: u32,
    level: Level,
    text: String,
}

/// The queue. `None`: it is taken for ever, in a child that was forked from another thread at that moment.
fn queue() -> Option<MutexGuard<'static, VecDeque<Entry>>> {
    (0..LOOKS).find_map(|_| match QUEUE.try_lock() {
        Ok(queue) => Some(queue),
        Err(TryLockError::Poisoned(queue)) => Some(queue.into_inner()),
        Err(TryLockError::WouldBlock) => {
            thread::yield_now();
            None
        }
    })
}

/// Has the events of the library queued from now on.
pub(crate) fn listen() {
    keyfold_open::listen(enqueue);
}

/// Gives what is in the queue to the logger. An exception of its handlers and filters is reported and passed over, unless it is
/// one that ends programs, such as `KeyboardInterrupt`.
pub(crate) fn pass_on(py: Python<'_>) -> PyResult<()> {
    if !IS_PENDING.load(Ordering::Relaxed) || IS_PASSING.replace(true) {
        return Ok(());
    }
    let passed = pass_all_on(py);
    IS_PASSING.set(false);
    match passed {
        Err(error) if error.is_instance_of::<PyException>(py) => error.write_unraisable(py, None),
        passed => return passed,
    }
    Ok(())
}

fn pass_all_on(py: Python<'_>) -> PyResult<()> {
    IS_PENDING.store(false, Ordering::Relaxed);
    let entries = queue().map(|mut queue| std::mem::take(&mut *queue)).unwrap_or_default();
    let lost = LOST.swap(0, Ordering::Relaxed);
    let logger = py.import("logging")?.call_method1("getLogger", (LOGGER,))?;
    let log = |level: Level, text: &str| logger.call_method1("log", (number(level), "%s", text)).map(drop);
    let this = process::id();
    for entry in entries.iter().filter(|entry| entry.process == this) {
        log(entry.level, &entry.text)?;
    }
    match lost {
        0 => Ok(()),
        lost => log(Level::WARN, &format!("{lost} more events were not kept")),
    }
}

/// The number of a level in Python.
fn number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        _ => 20,
    }
}

fn enqueue(level: Level, text: String) {
    let entry = Entry { process: process::id(), level, text };
    match queue() {
        Some(mut queue) if queue.len() < MAX_WAITING => queue.push_back(entry),
        _ => {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
    IS_PENDING.store(true, Ordering::Relaxed);
}
