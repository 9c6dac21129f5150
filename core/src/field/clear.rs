//! Reading a field while its plaintext column is being migrated: sealed values, and for a time those that are not (DESIGN F17).

use super::{Decryptor, Opened, check_type};
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::Keyring;
use crate::observe;
use crate::policy::FieldPolicy;
use crate::value::Value;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Values that pass in clear between two audit events of a handle.
const EVENT_EVERY: u64 = 1000;

/// A value of a field that is being migrated.
#[non_exhaustive]
#[derive(Debug)]
pub enum Revealed<'v> {
    /// It was sealed, and opened.
    Sealed(Opened),
    /// It is not sealed yet, and nobody has vouched for it.
    Clear(Value<'v>),
}

impl Revealed<'_> {
    /// The value.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Sealed(opened) => opened.value(),
            Self::Clear(value) => *value,
        }
    }
}

impl Decryptor {
    /// Decrypts `sealed`; or, where the row has no sealed value yet, passes `clear`, what the plaintext column holds.
    ///
    /// Which of the two it is, is up to the columns and never to what a value looks like: a sealed value that does not open is
    /// an error, whatever stands in the plaintext column. Passes plaintext only if the policy of the field has a
    /// [`Migration`](crate::Migration) in the phase dual-write and its last day, by the machine's time of day in UTC, is not over.
    /// Each such value is counted (`keyfold_clear_values_total`), and every handle records the first and each further 1,000 as use
    /// of the field, the rest when it is dropped.
    ///
    /// [`decrypt`](Self::decrypt) never passes plaintext.
    ///
    /// # Errors
    ///
    /// As for [`decrypt`](Self::decrypt), and for a value in clear
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field is not being migrated, or its time is over.
    /// - [`InvalidInput`](ErrorKind::InvalidInput): `clear` has another type than the policy gives the field.
    /// - Those of the audit sink, where its policy is to refuse: nothing is passed.
    pub fn decrypt_or_clear<'v>(
        &self,
        sealed: Option<&[u8]>,
        clear: Value<'v>,
        row: Option<&[u8]>,
    ) -> Result<Revealed<'v>> {
        if let Some(sealed) = sealed {
            return self.decrypt(sealed, row).map(Revealed::Sealed);
        }
        self.ring.check_open()?;
        let named = |error: Error| error.with_detail(format!("field {}", self.policy.name));
        let migration = self.policy.migration.ok_or_else(|| {
            named(Error::new(ErrorKind::PolicyRefused, "the value is not sealed, and its field is not being migrated"))
        })?;
        migration.check(SystemTime::now()).map_err(named)?;
        check_type(&self.policy, &clear)?;
        self.passed.count(&self.ring, &self.policy)?;
        observe::clear_value();
        Ok(Revealed::Clear(clear))
    }
}

/// How many values a handle has passed in clear.
#[derive(Default)]
pub(super) struct Passed(AtomicU64);

impl Passed {
    fn count(&self, ring: &Keyring, policy: &FieldPolicy) -> Result<()> {
        // The first, and then those since the last event.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        match before {
            0 => ring.audit(event(policy, 1)),
            n if n % EVENT_EVERY == 0 => ring.audit(event(policy, EVENT_EVERY)),
            _ => Ok(()),
        }
    }

    /// Records what no event has said yet.
    fn finish(&self, ring: &Keyring, policy: &FieldPolicy) {
        let rest = self.0.load(Ordering::Relaxed).saturating_sub(1) % EVENT_EVERY;
        if rest > 0
            && let Err(error) = ring.audit(event(policy, rest))
        {
            tracing::warn!(code = error.kind().code(), "values that passed in clear could not be recorded");
        }
    }
}

fn event(policy: &FieldPolicy, clear: u64) -> AuditEvent {
    let mut event = AuditEvent::new(AuditAction::Use).detail("clear", clear);
    event.field = Some(policy.name.clone());
    event
}

impl Drop for Decryptor {
    fn drop(&mut self) {
        self.passed.finish(&self.ring, &self.policy);
    }
}
