//! What became of the values of a table. Each value is counted once, so that the sum is rows times fields.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
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
    /// In rows of a table of random tokens that are another field's.
    #[serde(default)]
    pub(super) others: u64,
    /// Left as they are, because of an error.
    pub(super) failed: u64,
    /// Their row was deleted meanwhile.
    pub(super) gone: u64,
    /// Changed by somebody else each time that they were about to be replaced.
    pub(super) busy: u64,
}
