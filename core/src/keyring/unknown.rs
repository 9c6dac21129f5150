//! Key IDs that the store does not have: a limit on how many are looked up, and a hint at whose they are.

use super::Keyring;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::SlotId;
use crate::observe;
use crate::wire::KeyId;
use std::sync::{Mutex, PoisonError};

/// How many unknown key IDs a second are looked up in the store, per part of the scopes.
const PER_SECOND: f64 = 1000.0;
/// Into how many parts scopes fall: who floods one scope slows down only those that share its part.
const PARTS: usize = 64;

/// Keeps values with invented key IDs from becoming so many queries (DESIGN K18).
pub(super) struct UnknownKeys([Quota; PARTS]);

impl Default for UnknownKeys {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Quota::new(PER_SECOND)))
    }
}

impl UnknownKeys {
    /// Refuses to look a key up while too many are unknown.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded)
    pub(super) fn check(&self, scope: SlotId, now: u64) -> Result<()> {
        if !self.part(scope).is_used_up(now) {
            return Ok(());
        }
        observe::unknown_key("refused");
        Err(Error::new(
            ErrorKind::LimitExceeded,
            "more than 1,000 unknown key IDs within a second: keys of the scope that are not in memory are looked up again in a moment",
        ))
    }

    /// Counts a key ID that the store did not have.
    pub(super) fn count(&self, scope: SlotId, now: u64) {
        observe::unknown_key("looked up");
        self.count_refused(scope, now);
    }

    /// Counts a key that was not used although somebody brought it.
    pub(super) fn count_refused(&self, scope: SlotId, now: u64) {
        self.part(scope).take(now);
    }

    fn part(&self, scope: SlotId) -> &Quota {
        // IDs of scopes are random.
        &self.0[usize::from(scope.as_bytes()[0]) % PARTS]
    }
}

/// So many a second, and as many at once.
pub(super) struct Quota {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    left: f64,
    at: u64,
}

impl Quota {
    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, bucket: Mutex::new(Bucket { left: per_second, at: 0 }) }
    }

    fn is_used_up(&self, now: u64) -> bool {
        self.refilled(now, |bucket| bucket.left < 1.0)
    }

    /// Takes one; `false` if none is left.
    pub(super) fn take(&self, now: u64) -> bool {
        self.refilled(now, |bucket| {
            let is_left = bucket.left >= 1.0;
            if is_left {
                bucket.left -= 1.0;
            }
            is_left
        })
    }

    /// Puts back one that was taken and need not count.
    pub(super) fn put_back(&self, now: u64) {
        self.refilled(now, |bucket| bucket.left = (bucket.left + 1.0).min(self.per_second));
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds to within microseconds are exact enough")]
    fn refilled<T>(&self, now: u64, f: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_sub(bucket.at) as f64 / 1e9;
        bucket.left = (bucket.left + seconds * self.per_second).min(self.per_second);
        bucket.at = bucket.at.max(now);
        f(&mut bucket)
    }
}

impl Keyring {
    /// Looks for keys that this keyring does not have in `neighbour` too, only to say whose they are in the error: a
    /// value of staging that got into production, or of another clinic. Nothing is opened with a neighbour's keys.
    pub fn add_neighbour(&self, neighbour: Self) {
        self.neighbours().push(neighbour);
    }

    /// Whose the key may be, unless it was this keyring's. Nobody vouches for what neighbours' stores say.
    pub(super) async fn with_hint(&self, error: Error, key_id: KeyId) -> Error {
        if self.has_seen(key_id) {
            return error;
        }
        let neighbours = self.neighbours().clone();
        for neighbour in neighbours {
            let configured = neighbour.configured();
            let config = &configured.keyring;
            // A neighbour whose store is away cannot give a hint; the error stands without one.
            if let Ok(Some(_)) = neighbour.inner.store.get(config.lineage, key_id).await {
                return Error::new(error.kind(), "another keyring that is configured here has a record of that key ID")
                    .with_detail(format!(
                        "{key_id} is in keyring {}, environment {}",
                        config.name, config.environment
                    ));
            }
        }
        error
    }

    pub(super) fn neighbours(&self) -> std::sync::MutexGuard<'_, Vec<Self>> {
        self.inner.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_unknown_keys_is_slowed_down_and_forgiven() {
        let [flooded, other] = [1, 2].map(|id| SlotId::from_bytes([id; 16]));
        let unknown = UnknownKeys::default();
        let second = 1_000_000_000;
        for _ in 0..1000 {
            unknown.check(flooded, second).unwrap();
            unknown.count(flooded, second);
        }
        assert_eq!(unknown.check(flooded, second).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(unknown.check(other, second).is_ok(), "another scope does not suffer");
        assert!(unknown.check(flooded, second + second / 100).is_ok());
        // A clock that goes back gives nothing.
        let unknown = UnknownKeys::default();
        (0..1000).for_each(|_| unknown.count(flooded, 9 * second));
        assert!(unknown.check(flooded, 2 * second).is_err());
    }

    #[test]
    fn what_is_taken_from_a_quota_comes_back_with_time_or_when_it_need_not_count() {
        let second = 1_000_000_000;
        let quota = Quota::new(10.0);
        assert_eq!((0..30).filter(|_| quota.take(second)).count(), 10);
        quota.put_back(second);
        assert!(quota.take(second) && !quota.take(second));
        // Whoever asks on and on gets his due, and no more.
        let given = (0..10_000).filter(|i| quota.take(second + second / 10_000 * i)).count();
        assert!((9..=10).contains(&given), "{given}");
        assert_eq!((0..30).filter(|_| quota.take(9 * second)).count(), 10);
        (0..30).for_each(|_| quota.put_back(9 * second));
        assert_eq!((0..30).filter(|_| quota.take(9 * second)).count(), 10);
    }
}
