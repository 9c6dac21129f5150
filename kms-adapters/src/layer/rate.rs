//! The client-side rate limit of a KEK: a token bucket, kept as the time when it will be full again.

use std::time::Duration;
use tokio::time::Instant;

pub(super) struct Rate {
    full_at: Option<Instant>,
}

impl Rate {
    pub(super) const fn new() -> Self {
        Self { full_at: None }
    }

    /// Takes a token and returns how long to wait for it; takes none if one has to wait until after `latest`.
    // KC-15.
    pub(super) fn take(&mut self, rate: f64, burst: u32, now: Instant, latest: Instant) -> Option<Duration> {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + interval;
        let wait = (full_at - now).saturating_sub(interval * burst);
        if !wait.is_zero() && now + wait > latest {
            return None;
        }
        self.full_at = Some(full_at);
        Some(wait)
    }
}
