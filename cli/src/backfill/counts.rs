//! What became of the rows of a table. Each is counted once.

use crate::failure::{Exit, Failure};
use serde_json::{Value as Json, json};
use std::fmt;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) rows: u64,
    /// Sealed, where nothing was sealed.
    pub(super) sealed: u64,
    /// Sealed, where what was sealed was another value.
    pub(super) replaced: u64,
    /// Emptied: the sealed column, or in the last step the plaintext one.
    pub(super) emptied: u64,
    /// What is sealed is the plaintext.
    pub(super) equal: u64,
    /// There is plaintext, and nothing is sealed.
    pub(super) missing: u64,
    /// What is sealed is another value.
    pub(super) different: u64,
    /// Something is sealed, and there is no plaintext.
    pub(super) sealed_only: u64,
    /// Both columns are null.
    pub(super) empty: u64,
    /// Left as they are, because of an error.
    pub(super) failed: u64,
    /// Deleted meanwhile.
    pub(super) gone: u64,
    /// Changed by somebody else each time.
    pub(super) busy: u64,
}

impl Counts {
    pub(super) fn to_json(self) -> Json {
        json!({
            "rows": self.rows, "sealed": self.sealed, "replaced": self.replaced, "emptied": self.emptied, "equal": self.equal,
            "missing": self.missing, "different": self.different, "sealed_only": self.sealed_only, "empty": self.empty,
            "failed": self.failed, "gone": self.gone, "busy": self.busy,
        })
    }

    pub(super) fn from_json(json: &Json) -> Result<Self, Failure> {
        let number = |name: &str| {
            let damaged = || Failure::new(Exit::Usage, "the checkpoint is damaged; start with another file");
            json[name].as_u64().ok_or_else(damaged)
        };
        Ok(Self {
            rows: number("rows")?,
            sealed: number("sealed")?,
            replaced: number("replaced")?,
            emptied: number("emptied")?,
            equal: number("equal")?,
            missing: number("missing")?,
            different: number("different")?,
            sealed_only: number("sealed_only")?,
            empty: number("empty")?,
            failed: number("failed")?,
            gone: number("gone")?,
            busy: number("busy")?,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.rows)?;
        for (count, what) in [
            (self.sealed, "sealed"),
            (self.replaced, "sealed again, since the plaintext was another one"),
            (self.emptied, "emptied"),
            (self.equal, "equal"),
            (self.missing, "not sealed"),
            (self.different, "sealed with another value"),
            (self.sealed_only, "sealed and without plaintext"),
            (self.empty, "null"),
            (self.failed, "left as they are because of errors"),
            (self.gone, "deleted meanwhile"),
            (self.busy, "changed by others again and again, and left"),
        ] {
            if count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}
