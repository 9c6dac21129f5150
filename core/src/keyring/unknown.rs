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
pub(super) struct UnknownKeys([Mutex<Bucket>; PARTS]);

struct Bucket {
    left: f64,
    at: u64,
}

impl Default for UnknownKeys {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Bucket { left: PER_SECOND, at: 0 })))
    }
}

impl UnknownKeys {
    /// Refuses to look a key up while too many are unknown.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded)
    pub(super) fn check(&self, scope: SlotId, now: u64) -> Result<()> {
        if self.refilled(scope, now, |bucket| bucket.left) >= 1.0 {
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
        self.count_as(scope, now, 1.0);
    }

    /// Counts something that cost as much as `n` key IDs that the store did not have.
    pub(super) fn count_as(&self, scope: SlotId, now: u64, n: f64) {
        self.refilled(scope, now, |bucket| bucket.left = (bucket.left - n).max(0.0));
    }

    #[allow(clippy::cast_precision_loss, reason = "seconds to within microseconds are exact enough")]
    fn refilled<T>(&self, scope: SlotId, now: u64, f: impl FnOnce(&mut Bucket) -> T) -> T {
        // IDs of scopes are random.
        let part = usize::from(scope.as_bytes()[0]) % PARTS;
        let mut bucket = self.0[part].lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_sub(bucket.at) as f64 / 1e9;
        bucket.left = (bucket.left + seconds * PER_SECOND).min(PER_SECOND);
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

    pub(super) async fn with_hint(&self, error: Error, key_id: KeyId) -> Error {
        let neighbours = self.neighbours().clone();
        for neighbour in neighbours {
            let configured = neighbour.configured();
            let config = &configured.keyring;
            // A neighbour whose store is away cannot give a hint; the error stands without one.
            if let Ok(Some(_)) = neighbour.inner.store.get(config.lineage, key_id).await {
                return Error::new(error.kind(), "the key belongs to another keyring that is configured here")
                    .with_detail(format!(
                        "{key_id} is in keyring {}, environment {}",
                        config.name, config.environment
                    ));
            }
        }
        error
    }

    fn neighbours(&self) -> std::sync::MutexGuard<'_, Vec<Self>> {
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
}
