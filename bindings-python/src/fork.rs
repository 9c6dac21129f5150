//! Forks: no thread is inside keyfold while the process is forked, so the child finds no lock held and no store open.

use crate::gil;
use arc_swap::ArcSwap;
use keyfold::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Replaced in a forked child, where another thread of the parent may have held its lock.
static GATE: LazyLock<ArcSwap<Gate>> = LazyLock::new(ArcSwap::default);
/// Whether this process was forked while a thread was inside.
static IS_BROKEN: AtomicBool = AtomicBool::new(false);

const BROKEN: Error = Error::new(
    ErrorKind::Store,
    "this process was forked while another thread waited in keyfold for longer than a fork waits: start processes anew (spawn), or fork first",
);

thread_local! {
    /// How often this thread is inside: a handler of a signal, or a function that keyfold calls, may fork.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
    /// Whether keyfold has called the function of the program that this thread runs.
    static IS_CALLED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    is_forking: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().is_forking = false;
        self.changed.notify_all();
    }
}

/// As long as it lives, nobody forks this process from Python.
pub(crate) struct Inside(Arc<Gate>);

impl Inside {
    /// With the GIL released until it is there.
    pub(crate) fn new(py: Python<'_>) -> Result<Self> {
        gil::detach(py, Self::enter)
    }

    fn enter() -> Result<Self> {
        if IS_BROKEN.load(Ordering::Relaxed) {
            return Err(BROKEN);
        }
        let gate = GATE.load_full();
        let mut state = gate.lock();
        // Who is inside already is waited for, and must not wait in turn.
        while state.is_forking && INSIDE.get() == 0 {
            state = gate.wait(state);
        }
        state.inside += 1;
        drop(state);
        INSIDE.set(INSIDE.get() + 1);
        Ok(Self(gate))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
        // Not in a child of a fork that happened meanwhile: its gate is another one.
        if Arc::ptr_eq(&self.0, &GATE.load()) {
            self.0.lock().inside -= 1;
            self.0.changed.notify_all();
        }
    }
}

/// Runs `work`, which may wait or take locks, with the GIL released, and keeps this process from being forked meanwhile.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    gil::detach(py, || {
        let _inside = Inside::enter()?;
        work()
    })
}

/// Waits until no other thread is inside, and keeps all out until [`_end_fork`]: whether that was so in time. One fork after the other.
#[pyfunction]
pub(crate) fn _begin_fork(py: Python<'_>, patience: f64) -> bool {
    gil::detach(py, || {
        let end = Instant::now() + Duration::try_from_secs_f64(patience).unwrap_or_default();
        let gate = GATE.load_full();
        let mut state = gate.lock();
        while state.is_forking {
            state = gate.wait(state);
        }
        state.is_forking = true;
        while state.inside > INSIDE.get() {
            let left = end.saturating_duration_since(Instant::now());
            // Whoever waits for this thread stays inside as long as it waits for him.
            if left.is_zero() || IS_CALLED.get() {
                return false;
            }
            state = gate.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    })
}

/// This thread runs a function of the program that keyfold calls.
#[pyfunction]
pub(crate) fn _begin_call() {
    IS_CALLED.set(true);
}

/// After a fork, in the parent or where there was none after all.
#[pyfunction]
pub(crate) fn _end_fork() {
    GATE.load().end();
}

/// After a fork, in the child. `was_quiet`: what [`_begin_fork`] said.
#[pyfunction]
pub(crate) fn _begin_child(was_quiet: bool) {
    gil::begin_child();
    IS_BROKEN.fetch_or(!was_quiet, Ordering::Relaxed);
    // Its lock may be held for ever, so it is neither used nor dropped.
    std::mem::forget(GATE.swap(Arc::default()));
}
