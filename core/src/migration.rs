//! Migration of a live plaintext column, per field and for a time (DESIGN F17, docs/MIGRATION.md).

use crate::error::{Error, ErrorKind, Result};
use crate::value::Value;
use std::time::{SystemTime, UNIX_EPOCH};

const SECONDS_PER_DAY: u64 = 86_400;

/// How far the migration of a plaintext column to a sealed one has come. Programs write both columns in either phase, so that
/// each step can be taken back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MigrationPhase {
    /// The plaintext column is the one that counts; the sealed one is being filled.
    DualWrite,
    /// The sealed column is the one that counts. Plaintext is not passed any more.
    CutOver,
}

impl MigrationPhase {
    /// The name of the phase in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DualWrite => "dual-write",
            Self::CutOver => "cut-over",
        }
    }
}

/// Allows [`Decryptor::decrypt_or_clear`](crate::Decryptor::decrypt_or_clear) to pass values of one field that are not sealed yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Migration {
    /// The last day, UTC, on which a plaintext passes, in days since 1970-01-01.
    pub until: i32,
    /// The phase.
    pub phase: MigrationPhase,
}

impl Migration {
    /// The migration until the date `until`, such as `2027-03-31`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): not a date.
    pub fn until(until: &str, phase: MigrationPhase) -> Result<Self> {
        match Value::from_text(crate::ValueType::Date, until)? {
            Value::Date(until) => Ok(Self { until, phase }),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    /// Whether a plaintext passes at `now`.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the phase is over, or the last day.
    pub fn check(&self, now: SystemTime) -> Result<()> {
        if self.phase != MigrationPhase::DualWrite {
            return Err(Error::new(ErrorKind::PolicyRefused, "the field has been cut over: only sealed values count"));
        }
        // A clock before 1970 is wrong, and lets nothing pass.
        let day = now.duration_since(UNIX_EPOCH).map_or(i64::MAX, |since| (since.as_secs() / SECONDS_PER_DAY) as i64);
        if day > i64::from(self.until) {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "the time of the field's migration is over, and the value is not sealed",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn passes_until_the_end_of_the_last_day() {
        let until = |text| Migration::until(text, MigrationPhase::DualWrite).expect("a date");
        let end = UNIX_EPOCH + Duration::from_secs(20_909 * SECONDS_PER_DAY);
        // 2027-03-31 is day 20,908.
        let migration = until("2027-03-31");
        assert_eq!(migration.until, 20_908);
        assert!(migration.check(end - Duration::from_nanos(1)).is_ok());
        assert_eq!(migration.check(end).expect_err("over").kind(), ErrorKind::PolicyRefused);
        assert!(migration.check(UNIX_EPOCH - Duration::from_secs(1)).is_err());
        let cut_over = Migration { phase: MigrationPhase::CutOver, ..migration };
        assert_eq!(cut_over.check(UNIX_EPOCH).expect_err("cut over").kind(), ErrorKind::PolicyRefused);
        assert!(Migration::until("2027-3-31", MigrationPhase::DualWrite).is_err());
        assert!(Migration::until("soon", MigrationPhase::DualWrite).is_err());
    }
}
