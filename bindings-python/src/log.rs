//! What the library logs, in Python's `logging`.
//!
//! Events come from any thread, with the GIL or without, also while whoever has it waits for that thread. So an event is only
//! put into a queue, and Python sees it at the end of a call that waits for a key service or a store, where nothing of the
//! library is locked: a handler may use keyfold itself.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

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
    // Nobody else sets one: the library of this module is its own. A second module finds that of the first, which is the same.
    let _ = tracing::subscriber::set_global_default(Listener);
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

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates have their own to say, which nobody has looked at for secrets.
        metadata.is_event() && *metadata.level() <= Level::INFO && metadata.target().starts_with("keyfold")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let entry = Entry {
            process: process::id(),
            level: *event.metadata().level(),
            text: format!("{}{}", text.message, text.fields),
        };
        match queue() {
            Some(mut queue) if queue.len() < MAX_WAITING => queue.push_back(entry),
            _ => {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
        }
        IS_PENDING.store(true, Ordering::Relaxed);
    }

    // No span is enabled.
    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// An event as text: what it says, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
