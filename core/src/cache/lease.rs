//! How long something that was fetched may be used.

use super::CachePolicy;
use crate::clock::nanos;
use crate::error::Error;
use crate::random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The time for which a key may be used, shared by everyone who holds the key. Times are nanoseconds of a [`Clock`].
///
/// Renewed in place, so that whoever holds the key learns of it; and ended in place, so that nobody goes on with a
/// key that was revoked.
///
/// [`Clock`]: crate::Clock
#[derive(Debug)]
pub(crate) struct Lease {
    renewed_at: AtomicU64,
    /// From here on the key is older than it should be, and used on because nobody answers.
    stale_from: AtomicU64,
    /// From here on somebody should renew.
    renew_from: AtomicU64,
    /// From here on nobody may use the key.
    ends_at: AtomicU64,
    ended_by: Mutex<Option<Error>>,
}

impl Lease {
    /// A lease that starts now and is to be renewed within `age`.
    pub(crate) fn new(now: u64, age: Duration) -> Self {
        let lease = Self {
            renewed_at: AtomicU64::new(now),
            stale_from: AtomicU64::new(now),
            renew_from: AtomicU64::new(now),
            ends_at: AtomicU64::new(now),
            ended_by: Mutex::new(None),
        };
        lease.renew(now, age);
        lease
    }

    /// A lease that never ends by itself, for what cannot change.
    pub(crate) fn unlimited() -> Self {
        Self {
            renewed_at: AtomicU64::new(0),
            stale_from: AtomicU64::new(u64::MAX),
            renew_from: AtomicU64::new(u64::MAX),
            ends_at: AtomicU64::new(u64::MAX),
            ended_by: Mutex::new(None),
        }
    }

    /// A lease on something that is still to be fetched.
    pub(crate) fn none() -> Self {
        Self::new(0, Duration::ZERO)
    }

    /// Store or service have confirmed the key at `now`.
    pub(crate) fn renew(&self, now: u64, age: Duration) {
        let age = nanos(age);
        // Somewhere in the last quarter, less a twentieth for the renewal itself: processes and keys that started
        // together drift apart. A failing generator only costs the drift.
        let spread = age / 5;
        let random = random::array().map_or(0, u64::from_be_bytes);
        let early = age / 20 + if spread == 0 { 0 } else { random % spread };
        self.renewed_at.store(now, Ordering::Relaxed);
        self.renew_from.store(now.saturating_add(age - early.min(age)), Ordering::Relaxed);
        self.stale_from.store(now.saturating_add(age), Ordering::Relaxed);
        self.ends_at.store(now.saturating_add(age), Ordering::Release);
    }

    /// Store or service could not be asked at `now`: the key stays usable until its age and the grace are over. Asks
    /// to be renewed again after `retry`. Whether it is usable still.
    pub(crate) fn extend(&self, now: u64, retry: Duration, policy: &CachePolicy) -> bool {
        if self.end_reason().is_some() {
            return false;
        }
        let limit = nanos(policy.max_age.saturating_add(policy.grace));
        let ends_at = self.renewed_at.load(Ordering::Relaxed).saturating_add(limit);
        self.renew_from.store(now.saturating_add(nanos(retry)), Ordering::Relaxed);
        self.ends_at.store(ends_at, Ordering::Release);
        now < ends_at
    }

    /// Nobody may use the key from now on, because of `error`.
    pub(crate) fn end(&self, error: &Error) {
        *self.ended_by.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        self.renew_from.store(0, Ordering::Relaxed);
        self.ends_at.store(0, Ordering::Release);
    }

    /// Somebody should renew now, whatever the time.
    pub(crate) fn ask_for_renewal(&self) {
        self.renew_from.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        now < self.ends_at.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn needs_renewal(&self, now: u64) -> bool {
        now >= self.renew_from.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.stale_from.load(Ordering::Relaxed)
    }

    /// Why the lease was ended before its time.
    pub(crate) fn end_reason(&self) -> Option<Error> {
        self.ended_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
