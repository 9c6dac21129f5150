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
    began: Moment,
    /// Until when it answers for those who come later.
    until: u64,
}

/// How often everything was to be renewed, and how often what had failed here was to count no more: both only grow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Moment {
    epoch: u64,
    forgotten: u64,
}

impl Moment {
    /// Whether whatever was made right by `other` was right by this one.
    fn is_not_before(self, other: Self) -> bool {
        self.epoch >= other.epoch && self.forgotten >= other.forgotten
    }
}

/// The right to fetch. Dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    gate: &'a Gate,
    began: Moment,
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
    /// The error of somebody who fetched meanwhile and failed, and began after whatever the caller knows to have been made right:
    /// what is invalidated while the caller waits is no matter of his, so all who wait hear of one failure however often that happens.
    pub(crate) async fn wait(&self, now: impl Fn() -> u64) -> Result<Turn<'_>, Error> {
        let (before, arrived) = {
            let attempts = self.attempts();
            (attempts.failed, self.moment(&attempts))
        };
        let guard = self.fetching.lock().await;
        let attempts = self.attempts();
        let met = |failure: &&Failure| {
            attempts.failed > before && failure.began.is_not_before(arrived) || self.answers(&attempts, failure, now())
        };
        match attempts.failure.as_ref().filter(met) {
            Some(failure) => Err(failure.error.clone()),
            None => Ok(self.turn(&attempts, guard)),
        }
    }

    /// A turn, unless somebody has one or a failure still answers.
    pub(crate) fn try_now(&self, now: u64) -> Option<Turn<'_>> {
        let guard = self.fetching.try_lock().ok()?;
        let attempts = self.attempts();
        let answered = attempts.failure.as_ref().is_some_and(|failure| self.answers(&attempts, failure, now));
        (!answered).then(|| self.turn(&attempts, guard))
    }

    fn turn<'a>(&'a self, attempts: &Attempts, guard: MutexGuard<'a, ()>) -> Turn<'a> {
        Turn { gate: self, began: self.moment(attempts), _guard: guard }
    }

    fn moment(&self, attempts: &Attempts) -> Moment {
        Moment { epoch: self.epoch.number(), forgotten: attempts.forgotten }
    }

    /// Whether `failure` answers, at `now`, for those who come after it.
    fn answers(&self, attempts: &Attempts, failure: &Failure, now: u64) -> bool {
        now < failure.until && failure.began == self.moment(attempts)
    }

    /// Whoever comes next fetches, whatever failed before or fails at this moment.
    pub(crate) fn forget_failure(&self) {
        self.attempts().forgotten += 1;
    }

    /// Whether a failure still answers at `now`.
    pub(crate) fn remembers_failure(&self, now: u64) -> bool {
        let attempts = self.attempts();
        attempts.failure.as_ref().is_some_and(|failure| self.answers(&attempts, failure, now))
    }

    fn attempts(&self) -> StdGuard<'_, Attempts> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Those who wait get `error`, and so do those who come before `until`, but none for whom it may be from before what made it right.
    pub(crate) fn failed(&self, error: &Error, until: u64) {
        let mut attempts = self.gate.attempts();
        attempts.failed += 1;
        attempts.failure = Some(Failure { error: error.clone(), began: self.began, until });
    }

    pub(crate) fn succeeded(&self) {
        self.gate.attempts().failure = None;
    }
}
