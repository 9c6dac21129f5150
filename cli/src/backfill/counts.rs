//! What became of the rows of a table. Each is counted once.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
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
