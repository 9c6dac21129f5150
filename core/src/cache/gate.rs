//! One at a time, however many ask (single flight).

use super::Epoch;
use crate::error::Error;
use crate::sync::{Mutex, MutexGuard as StdGuard, PoisonError};
use tokio::sync::MutexGuard;

/// Lets one caller fetch while the others wait, and tells them of a failure instead of letting each fail by itself.
///
/// A caller that is cancelled or panics while it fetches leaves the gate open: the next one fetches. Nothing is
/// poisoned, and nobody waits for somebody who is gone.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Advanced when everything is to be renewed: what failed before that counts no more.
    epoch: Epoch,
    /// Tokio's, because it needs no runtime, wakes in order, and its history of bugs is short and public.
    fetching: tokio::sync::Mutex<()>,
    last: Mutex<Attempts>,
}

#[derive(Debug, Default)]
struct Attempts {
    failed: u64,
    /// How often what had failed was to count no more.
    forgotten: u64,
    failure: Option<Failure>,
}

/// The last failure.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The epoch in which it began.
    epoch: u64,
    /// Until when it answers for those who come later.
    until: u64,
}

/// The right to fetch. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    /// Of the gate, when the turn began.
    forgotten: u64,
    epoch: u64,
    _guard: MutexGuard<'a, ()>,
}

impl Gate {
    pub(crate) fn new(epoch: &Epoch) -> Self {
        Self { epoch: epoch.clone(), fetching: tokio::sync::Mutex::default(), last: Mutex::default() }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    ///
    /// The error of somebody who fetched meanwhile and failed.
    pub(crate) async fn wait(&self, now: impl Fn() -> u64) -> Result<Turn<'_>, Error> {
        let before = self.attempts().failed;
        let guard = self.fetching.lock().await;
        let attempts = self.attempts();
        match self.failure(&attempts) {
            Some(failure) if attempts.failed > before || now() < failure.until => Err(failure.error.clone()),
            _ => Ok(self.turn(&attempts, guard)),
        }
    }

    /// A turn, unless somebody has one or a failure still answers.
    pub(crate) fn try_now(&self, now: u64) -> Option<Turn<'_>> {
        let guard = self.fetching.try_lock().ok()?;
        let attempts = self.attempts();
        let answered = self.failure(&attempts).is_some_and(|failure| now < failure.until);
        (!answered).then(|| self.turn(&attempts, guard))
    }

    fn turn<'a>(&'a self, attempts: &Attempts, guard: MutexGuard<'a, ()>) -> Turn<'a> {
        Turn { gate: self, forgotten: attempts.forgotten, epoch: self.epoch.number(), _guard: guard }
    }

    fn failure<'a>(&self, attempts: &'a Attempts) -> Option<&'a Failure> {
        attempts.failure.as_ref().filter(|failure| failure.epoch == self.epoch.number())
    }

    /// Whoever comes next fetches, whatever failed before or fails at this moment.
    pub(crate) fn forget_failure(&self) {
        let mut attempts = self.attempts();
        attempts.forgotten += 1;
        attempts.failure = None;
    }

    /// Whether a failure still answers at `now`.
    pub(crate) fn remembers_failure(&self, now: u64) -> bool {
        self.failure(&self.attempts()).is_some_and(|failure| now < failure.until)
    }

    fn attempts(&self) -> StdGuard<'_, Attempts> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Those who wait get `error`, and so do those who come before `until`.
    pub(crate) fn failed(&self, error: &Error, until: u64) {
        let mut attempts = self.gate.attempts();
        if attempts.forgotten != self.forgotten {
            // It may be from before what made it right: those who wait try themselves.
            return;
        }
        attempts.failed += 1;
        attempts.failure = Some(Failure { error: error.clone(), epoch: self.epoch, until });
    }

    pub(crate) fn succeeded(&self) {
        self.gate.attempts().failure = None;
    }
}
