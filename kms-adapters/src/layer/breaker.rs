//! The circuit breaker: a service that is away is asked once a second, and everybody else is told at once.

use std::time::Duration;
use tokio::time::Instant;

/// Counts outages in a row. Any answer of the service, a refusal too, closes the circuit.
pub(super) struct Breaker {
    outages: u32,
    /// While the circuit is open: when the next attempt may be let through.
    probe_at: Option<Instant>,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self { outages: 0, probe_at: None }
    }

    /// Whether an attempt may be made now.
    ///
    /// A probe that has not ended does not hold up the next: one that hangs would else prolong the outage by its timeout.
    // KC-17, KC-22.
    pub(super) fn admit(&mut self, now: Instant, probe_every: Duration) -> bool {
        match self.probe_at {
            Some(at) if now < at => false,
            Some(_) => {
                self.probe_at = Some(now + probe_every);
                true
            }
            None => true,
        }
    }

    /// Notes how an attempt ended. True if that opened or closed the circuit.
    // KC-16.
    pub(super) fn record(&mut self, outage: bool, limit: u32, now: Instant, probe_every: Duration) -> bool {
        if !outage {
            self.outages = 0;
            return self.probe_at.take().is_some();
        }
        self.outages = self.outages.saturating_add(1);
        let opens = self.outages >= limit && self.probe_at.is_none();
        if opens {
            self.probe_at = Some(now + probe_every);
        }
        opens
    }
}
