//! How long unwrapped keys are used, and how many are held.

use crate::error::{Error, ErrorKind, Result};
use std::time::Duration;

/// How long unwrapped keys are used before store and key service are asked again, and how many are held (DESIGN K17).
///
/// A key that the service disables, or a record that changes state, is noticed at the next renewal: after
/// [`max_age`](Self::max_age) at the latest while the service answers, after `max_age` + [`grace`](Self::grace) at the
/// latest whatever happens. That is the revocation latency.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CachePolicy {
    /// How long an unwrapped key is used before it is renewed: roots and isolated keys by a request to the key
    /// service, others by reading their record again. Renewal starts earlier, at a random moment in the last quarter.
    pub max_age: Duration,
    /// How much longer a key is used while service or store cannot be reached. Access denied, a disabled or deleted
    /// KEK, and a record whose state forbids use end it at once.
    pub grace: Duration,
    /// How long a key that nobody uses is held. At least [`max_age`](Self::max_age).
    pub max_idle: Duration,
    /// How long the newest key of a scope is taken to be the newest before the store is asked again: how soon a
    /// rotation by another process shows.
    pub check_every: Duration,
    /// How long an unknown key ID, or a failed request, is answered from memory. At most a second.
    pub negative: Duration,
    /// Most keys held. A sixteenth is kept for keys that frames bring, which take nothing from the others.
    pub max_keys: usize,
    /// Most bytes that the caches of the keyring use, for keys, scopes and what was seen of them.
    pub max_bytes: usize,
}

impl CachePolicy {
    /// Longest [`negative`](Self::negative).
    pub const MAX_NEGATIVE: Duration = Duration::from_secs(1);
    /// Longest [`max_age`](Self::max_age) and [`max_idle`](Self::max_idle).
    pub const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
    /// Longest [`grace`](Self::grace).
    pub const MAX_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

    /// Checks the limits.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names the setting and its limits.
    pub fn check(&self) -> Result<()> {
        let second = Duration::from_secs(1);
        let wrong = |why| Err(Error::new(ErrorKind::Configuration, why));
        if !(second..=Self::MAX_AGE).contains(&self.max_age) {
            return wrong("max_age is 1s to 24h: a handle holds its key at least for the call that it was made for");
        }
        if self.grace > Self::MAX_GRACE {
            return wrong("grace is at most 7d");
        }
        if !(self.max_age..=Self::MAX_AGE).contains(&self.max_idle) {
            return wrong("max_idle is max_age to 24h");
        }
        if !(second..=self.max_age).contains(&self.check_every) {
            return wrong("check_every is 1s to max_age");
        }
        if self.negative > Self::MAX_NEGATIVE {
            return wrong("negative is at most 1s");
        }
        Ok(())
    }
}

impl Default for CachePolicy {
    /// Ten minutes, an hour of grace, at most 100,000 keys and 64 MiB.
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            max_age: minutes(10),
            grace: minutes(60),
            max_idle: minutes(30),
            check_every: minutes(1),
            negative: Self::MAX_NEGATIVE,
            max_keys: 100_000,
            max_bytes: 64 * 1024 * 1024,
        }
    }
}
