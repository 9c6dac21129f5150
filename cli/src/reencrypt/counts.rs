//! What became of the values of a table. Each value is counted once, so that the sum is rows times fields.

use crate::failure::{Exit, Failure};
use serde_json::{Value as Json, json};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    /// Sealed again.
    pub(super) resealed: u64,
    /// Of these, those that were under a compromised key.
    pub(super) compromised: u64,
    /// Under the current key already.
    pub(super) current: u64,
    /// Null, or empty texts.
    pub(super) empty: u64,
    /// Left as they are, because of an error.
    pub(super) failed: u64,
    /// Their row was deleted meanwhile.
    pub(super) gone: u64,
    /// Changed by somebody else each time that they were about to be replaced.
    pub(super) busy: u64,
}

impl Counts {
    pub(super) fn to_json(self) -> Json {
        json!({
            "rows": self.rows, "resealed": self.resealed, "compromised": self.compromised, "current": self.current,
            "empty": self.empty, "failed": self.failed, "gone": self.gone, "busy": self.busy,
        })
    }

    pub(super) fn from_json(json: &Json) -> Result<Self, Failure> {
        let number = |name: &str| {
            let damaged = || Failure::new(Exit::Usage, "the checkpoint is damaged; start with another file");
            json[name].as_u64().ok_or_else(damaged)
        };
        Ok(Self {
            rows: number("rows")?,
            resealed: number("resealed")?,
            compromised: number("compromised")?,
            current: number("current")?,
            empty: number("empty")?,
            failed: number("failed")?,
            gone: number("gone")?,
            busy: number("busy")?,
        })
    }
}
