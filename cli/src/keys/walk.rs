//! Walks through the keys of a keyring: with progress, at a limited rate, until they are done or somebody interrupts.

use crate::failure::{Exit, Failure};
use crate::files::interrupt::{Interrupt, Interrupted};
use crate::progress;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Records that are read and stored in one step, for which a store of one file is locked.
const STEP: usize = 250;
/// How long an interrupt may go unnoticed.
const SLICE: Duration = Duration::from_millis(100);
/// How long a step may go on after one: what the store has been told is recorded in the audit trail then, too.
const GRACE: Duration = Duration::from_millis(500);

/// How a walk ended.
pub(super) enum End {
    /// Nothing is left to do.
    Done,
    /// Between two steps. What was done stays done.
    Interrupted(Interrupted),
}

/// Where a walk has come to.
pub(super) struct Place {
    pub(super) seen: u64,
    pub(super) changed: u64,
    pub(super) done: bool,
}

/// Calls `step` with a number of records until it is done. `verb` is what is done, and what was done, to keys. An interrupt
/// ends a step that goes on for longer, as when it waits for a key service: records are stored one at a time, each completely
/// or not at all.
///
/// # Errors
///
/// Those of `step`, with how much had been done before.
pub(super) fn walk(
    verb: (&str, &str),
    records_per_second: Option<u32>,
    mut step: impl AsyncFnMut(usize) -> keyfold::Result<Place>,
) -> Result<End, Failure> {
    let interrupt =
        Interrupt::install().map_err(|error| Failure::new(Exit::System, format!("cannot handle signals: {error}")))?;
    let template = format!("{} {{spinner}} {{pos}} keys looked at, {{msg}} {}, {{elapsed}}", verb.0, verb.1);
    let bar = progress::bar(None, &template);
    let limit = records_per_second.map_or(STEP, |rate| STEP.min(rate as usize));
    let mut changed = 0;
    loop {
        let began = Instant::now();
        let place = match until_interrupted(step(limit), &interrupt) {
            Ok(place) => place,
            Err(interrupted) => {
                bar.finish_and_clear();
                return Ok(End::Interrupted(interrupted));
            }
        };
        let place = place.map_err(|error| {
            bar.finish_and_clear();
            Failure::from(error).add(&format!("{changed} keys were {} before; run it again to go on", verb.1))
        })?;
        changed = place.changed;
        if place.done {
            bar.finish_and_clear();
            return Ok(End::Done);
        }
        bar.set_position(place.seen);
        bar.set_message(changed.to_string());
        let pause = records_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(limit as f64 / f64::from(rate)).saturating_sub(began.elapsed())
        });
        if let Err(interrupted) = wait(pause, &interrupt) {
            bar.finish_and_clear();
            return Ok(End::Interrupted(interrupted));
        }
    }
}

/// Runs `future` on this thread. After an interrupt it has [`GRACE`] to end by itself, and is dropped then.
fn until_interrupted<F: Future>(future: F, interrupt: &Interrupt) -> Result<F::Output, Interrupted> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    let mut end = None;
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return Ok(done);
        }
        if let Err(interrupted) = interrupt.check()
            && Instant::now() >= *end.get_or_insert_with(|| Instant::now() + GRACE)
        {
            return Err(interrupted);
        }
        thread::park_timeout(SLICE);
    }
}

/// Waits, but not for long after an interrupt.
fn wait(pause: Duration, interrupt: &Interrupt) -> Result<(), Interrupted> {
    let until = Instant::now() + pause;
    loop {
        interrupt.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(SLICE));
    }
}
