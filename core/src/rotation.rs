//! When a key is replaced by its next generation (DESIGN K13). Pure rules: what is done about them is in `keyring`.

use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyClass;
use crate::record::{KeyState, Record};
use core::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long and how much a key seals before the next generation takes over, and how early that is published.
///
/// All times are by the store's clock, in whole seconds. A clock that jumps can make a key count as due, whichever way
/// it jumps; one extra generation per jump is all that follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RotationPolicy {
    /// How long a data key seals; `None`: until somebody rotates it.
    pub data_age: Option<Duration>,
    /// How long a root is the one under which keys are made; `None`: until somebody rotates it.
    pub root_age: Option<Duration>,
    /// How many values one process seals under a data key before it asks for the next; `None`: no limit.
    pub data_messages: Option<u64>,
    /// How long a key is in the store before it seals. At least as long as a replica of the store may lag behind, so that
    /// a key can be read everywhere before the first value is sealed under it. Zero for a store without replicas.
    pub lead: Duration,
}

impl Default for RotationPolicy {
    /// Data keys for 90 days or 2³² values, roots for a year, no lead.
    fn default() -> Self {
        Self { data_age: Some(90 * DAY), root_age: Some(365 * DAY), data_messages: Some(1 << 32), lead: Duration::ZERO }
    }
}

impl RotationPolicy {
    /// Checks that the policy does not rotate at every step.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): an age is shorter than a second, or no value may be sealed.
    pub fn check(&self) -> Result<()> {
        let wrong = |why| Err(Error::new(ErrorKind::Configuration, why));
        if [self.data_age, self.root_age].into_iter().flatten().any(|age| age.as_secs() == 0) {
            return wrong("the age at which keys are rotated is at least one second, or \"never\"");
        }
        if [self.data_age, self.root_age].into_iter().flatten().any(|age| age.as_secs() <= self.lead_seconds()) {
            return wrong("lead must be shorter than data_age and root_age");
        }
        if self.data_messages == Some(0) {
            return wrong("data_messages is at least 1, or \"never\"");
        }
        Ok(())
    }

    /// Whether the successor of `record` is to be published: it is active, and has been for as long as its class allows,
    /// less the lead. A key from the future counts as due: a clock was wrong, and a new key has a time that can be trusted.
    pub(crate) fn is_due(&self, record: &Record, now: u64) -> bool {
        let age = match record.class() {
            KeyClass::Data => self.data_age,
            KeyClass::Root => self.root_age,
            KeyClass::Lookup | KeyClass::Audit => None,
        };
        record.state() == KeyState::Active
            && age.is_some_and(|age| {
                now.abs_diff(record.activated_at()) >= age.as_secs().saturating_sub(self.lead_seconds())
            })
    }

    /// How much longer a published key waits before it seals. One from the future waits for the whole lead, as if it
    /// had been published now: a clock was wrong.
    pub(crate) fn remaining_lead(&self, record: &Record, now: u64) -> Duration {
        let age = now.saturating_sub(record.created_at());
        Duration::from_secs(self.lead_seconds().saturating_sub(age))
    }

    /// The lead in seconds, rounded up.
    fn lead_seconds(&self) -> u64 {
        self.lead.as_secs().saturating_add(u64::from(self.lead.subsec_nanos() > 0))
    }
}
