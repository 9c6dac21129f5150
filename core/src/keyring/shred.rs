//! Shredding (DESIGN K15).

use std::time::Duration;

/// How keys are destroyed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShredPolicy {
    /// How long a key waits between destroy-pending and destroyed.
    pub waiting: Duration,
}

impl Default for ShredPolicy {
    fn default() -> Self {
        Self { waiting: Duration::from_secs(7 * 24 * 3600) }
    }
}
