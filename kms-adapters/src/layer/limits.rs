//! How long, how often and how fast a key service is asked.

use keyfold::{Error, ErrorKind, Result};
use std::time::Duration;

/// What the layer allows itself. The defaults suit a service on the Internet.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Total time of one operation, pauses, repetitions and logins included: 100 ms to 5 minutes.
    pub deadline: Duration,
    /// Time of one attempt, connecting included. The deadline ends it as well.
    pub attempt: Duration,
    /// Most attempts of one operation: 1 to 10.
    pub attempts: u32,
    /// The longest first pause. Each pause is drawn evenly from nothing to twice the longest one before (full jitter).
    pub first_pause: Duration,
    /// No pause is drawn longer.
    pub longest_pause: Duration,
    /// A service that asks for a longer pause gets this one.
    pub longest_retry_after: Duration,
    /// Attempts per second to this KEK, as a long-run average: more than 0, at most 10,000.
    pub rate: f64,
    /// Attempts that may be made at once before `rate` counts.
    pub burst: u32,
    /// Outages in a row that open the circuit.
    pub outages: u32,
    /// While the circuit is open, one attempt is let through in such a time.
    pub probe_every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            attempt: Duration::from_secs(3),
            attempts: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(2),
            longest_retry_after: Duration::from_secs(5),
            rate: 100.0,
            burst: 100,
            outages: 5,
            probe_every: Duration::from_secs(1),
        }
    }
}

impl Limits {
    /// Checks the bounds.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names the limit.
    pub fn check(&self) -> Result<()> {
        let deadlines = Duration::from_millis(100)..=Duration::from_secs(300);
        let rules = [
            (deadlines.contains(&self.deadline), "the deadline of a KEK is 100ms to 300s"),
            (
                !self.attempt.is_zero() && self.attempt <= *deadlines.end(),
                "the timeout of an attempt is more than nothing and at most 300s",
            ),
            ((1..=10).contains(&self.attempts), "a KEK is asked in 1 to 10 attempts"),
            (
                self.rate > 0.0 && self.rate <= 10_000.0,
                "the rate of a KEK is more than 0 and at most 10000 attempts per second",
            ),
            ((1..=10_000).contains(&self.burst), "the burst of a KEK is 1 to 10000 attempts"),
            (self.outages > 0, "the circuit opens after 1 or more outages"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(Error::new(ErrorKind::Configuration, rule)),
            None => Ok(()),
        }
    }

    /// The least time in which the silence of a service tells something: that of an attempt, or half of a deadline that is
    /// shorter than two of them.
    pub(super) fn patience(&self) -> Duration {
        self.attempt.min(self.deadline / 2)
    }

    /// The pause before the attempt after the `failed`-th failed one (from 1); `random` is evenly distributed.
    // KC-13, KC-14.
    pub(super) fn pause(&self, failed: u32, random: u32, retry_after: Option<Duration>) -> Duration {
        let longest = self.first_pause.saturating_mul(1_u32.checked_shl(failed - 1).unwrap_or(u32::MAX));
        let drawn = longest.min(self.longest_pause).mul_f64(f64::from(random) / f64::from(u32::MAX));
        drawn.max(retry_after.unwrap_or_default().min(self.longest_retry_after))
    }
}
