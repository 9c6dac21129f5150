//! How long something that was fetched may be used.

use super::CachePolicy;
use crate::clock::{Clock, SystemClock, nanos};
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Counts how often everything was asked to be renewed. Shared by all leases of a keyring, also by those of keys that
/// have left the cache and that only a handle still holds; and so is the clock that spreads their renewals.
#[derive(Clone)]
pub(crate) struct Epoch(Arc<Shared>);

struct Shared {
    number: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Epoch {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { number: AtomicU64::new(0), clock }))
    }

    #[inline]
    pub(crate) fn number(&self) -> u64 {
        self.0.number.load(Ordering::Acquire)
    }

    /// Every lease is to be renewed, also those whose confirmation is under way.
    pub(crate) fn advance(&self) {
        self.0.number.fetch_add(1, Ordering::AcqRel);
    }
}

impl Default for Epoch {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Epoch").field(&self.number()).finish()
    }
}

/// The time for which a key may be used, shared by everyone who holds the key. Times are nanoseconds of a [`Clock`].
///
/// Renewed in place, so that whoever holds the key learns of it; and ended in place, so that nobody goes on with a
/// key that was revoked. What is read for each value are single atomics; changes are made one at a time.
///
/// [`Clock`]: crate::Clock
#[derive(Debug)]
pub(crate) struct Lease {
    epoch: Epoch,
    /// The epoch that the last confirmation counts for.
    confirmed_in: AtomicU64,
    /// From here on the key is older than it should be, and used on because nobody answers.
    stale_from: AtomicU64,
    /// From here on somebody should renew.
    renew_from: AtomicU64,
    /// From here on nobody may use the key.
    ends_at: AtomicU64,
    terms: Mutex<Terms>,
}

#[derive(Debug, Default)]
struct Terms {
    renewed_at: u64,
    /// The epoch in which the confirmation under way was begun.
    begun_in: u64,
    /// Whether a renewal was asked for after the confirmation under way was begun: it may have come too early.
    asked: bool,
    /// Whether the lease was ended after the confirmation under way was begun: what is confirmed is from before.
    overtaken: bool,
    ended_by: Option<Error>,
}

impl Lease {
    /// A lease that starts now and is to be renewed within `age`.
    pub(crate) fn new(epoch: &Epoch, now: u64, age: Duration) -> Self {
        let lease = Self::ending_at(epoch.clone(), now);
        lease.grant(&mut lease.terms(), now, age, age);
        lease
    }

    /// A lease that never ends by itself, for what cannot change.
    pub(crate) fn unlimited() -> Self {
        /// Never advanced, and shared, since there may be a million such leases.
        static FIRST: LazyLock<Epoch> = LazyLock::new(Epoch::default);
        Self::ending_at(FIRST.clone(), u64::MAX)
    }

    /// A lease on something that is still to be fetched.
    pub(crate) fn none(epoch: &Epoch) -> Self {
        Self::ending_at(epoch.clone(), 0)
    }

    fn ending_at(epoch: Epoch, time: u64) -> Self {
        let number = epoch.number();
        Self {
            epoch,
            confirmed_in: AtomicU64::new(number),
            stale_from: AtomicU64::new(time),
            renew_from: AtomicU64::new(time),
            ends_at: AtomicU64::new(time),
            terms: Mutex::new(Terms { begun_in: number, ..Terms::default() }),
        }
    }

    /// Store or service are about to be asked whether the key may be used on; one caller at a time does this. What
    /// is asked for, or ended, from now on is newer than their answer.
    pub(crate) fn begin(&self) {
        let mut terms = self.terms();
        terms.begun_in = self.epoch.number();
        (terms.asked, terms.overtaken) = (false, false);
    }

    /// Store or service, asked since [`begin`](Self::begin), have confirmed the key at `now`.
    ///
    /// # Errors
    ///
    /// The error that ended the lease meanwhile: the confirmation is from before, and changes nothing.
    pub(crate) fn renew(&self, now: u64, age: Duration) -> Result<()> {
        self.renew_again_within(now, age, age)
    }

    /// As [`renew`](Self::renew), but to be renewed `within` a time that may be shorter than the age.
    ///
    /// # Errors
    ///
    /// As for [`renew`](Self::renew).
    pub(crate) fn renew_again_within(&self, now: u64, within: Duration, age: Duration) -> Result<()> {
        let mut terms = self.terms();
        match &terms.ended_by {
            Some(error) if terms.overtaken => return Err(error.clone()),
            _ => terms.ended_by = None,
        }
        self.grant(&mut terms, now, within, age);
        Ok(())
    }

    fn grant(&self, terms: &mut Terms, now: u64, within: Duration, age: Duration) {
        let (within, age) = (nanos(within), nanos(age));
        // Somewhere in the last quarter, less a twentieth for the renewal itself: processes and keys that started
        // together drift apart.
        let spread = within / 5;
        let early = within / 20 + if spread == 0 { 0 } else { self.epoch.0.clock.jitter() % spread };
        let renew_from = if terms.asked { 0 } else { now.saturating_add(within - early.min(within)) };
        terms.renewed_at = now;
        self.confirmed_in.store(terms.begun_in, Ordering::Relaxed);
        self.renew_from.store(renew_from, Ordering::Relaxed);
        self.stale_from.store(now.saturating_add(age), Ordering::Relaxed);
        self.ends_at.store(now.saturating_add(age), Ordering::Release);
    }

    /// Store or service could not be asked at `now`: the key stays usable until its age and the grace are over. Asks
    /// to be renewed again after `retry`. Whether it is usable still.
    pub(crate) fn extend(&self, now: u64, retry: Duration, policy: &CachePolicy) -> bool {
        let terms = self.terms();
        if terms.ended_by.is_some() {
            return false;
        }
        let limit = nanos(policy.max_age.saturating_add(policy.grace));
        let ends_at = terms.renewed_at.saturating_add(limit);
        self.confirmed_in.store(terms.begun_in, Ordering::Relaxed);
        if !terms.asked {
            // Whoever may not use the key must not be told that there is nothing to do.
            self.renew_from.store(now.saturating_add(nanos(retry)).min(ends_at), Ordering::Relaxed);
        }
        self.ends_at.store(ends_at, Ordering::Release);
        now < ends_at
    }

    /// Store or service could not be asked at `now`, and are not asked again before `retry` is over. How long the key may
    /// be used does not change.
    pub(crate) fn postpone(&self, now: u64, retry: Duration) {
        let terms = self.terms();
        self.confirmed_in.store(terms.begun_in, Ordering::Relaxed);
        if !terms.asked {
            self.renew_from.store(now.saturating_add(nanos(retry)), Ordering::Relaxed);
        }
    }

    /// Store or service have answered and have not confirmed the key: an outage is over, and with it the grace that there was
    /// for it. The key may be used until its age is over.
    pub(crate) fn end_grace(&self, age: Duration) {
        let terms = self.terms();
        let end = terms.renewed_at.saturating_add(nanos(age));
        if self.ends_at.load(Ordering::Relaxed) > end {
            self.ends_at.store(end, Ordering::Release);
        }
    }

    /// Nobody may use the key from now on, because of `error`. Only a confirmation that begins later changes that.
    pub(crate) fn end(&self, error: &Error) {
        let mut terms = self.terms();
        terms.overtaken = true;
        terms.ended_by = Some(error.clone());
        self.renew_from.store(0, Ordering::Relaxed);
        self.ends_at.store(0, Ordering::Release);
    }

    /// Somebody should renew now, whatever the time.
    pub(crate) fn ask_for_renewal(&self) {
        let mut terms = self.terms();
        terms.asked = true;
        self.renew_from.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        now < self.ends_at.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn needs_renewal(&self, now: u64) -> bool {
        now >= self.renew_from.load(Ordering::Relaxed)
            || self.confirmed_in.load(Ordering::Relaxed) != self.epoch.number()
    }

    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.stale_from.load(Ordering::Relaxed)
    }

    pub(crate) fn renewed_at(&self) -> u64 {
        self.terms().renewed_at
    }

    /// Why the lease was ended before its time.
    pub(crate) fn end_reason(&self) -> Option<Error> {
        self.terms().ended_by.clone()
    }

    fn terms(&self) -> MutexGuard<'_, Terms> {
        // Nothing panics half way through a change, so a poisoned lock is still good.
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
