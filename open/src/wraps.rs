//! What it says of records that their KEKs do not unwrap them.

use keyfold::{Error, ErrorKind, KekAlias, KeyClass, KmsErrorKind, Record};
use std::collections::BTreeSet;

/// Whether records that KEKs do not unwrap were changed, or the KEKs are others than wrapped them: a KEK file of another machine, say. No record says that,
/// all of them together do.
#[derive(Clone, Debug, Default)]
pub struct Wraps {
    /// The KEKs of roots that did not open, and of those that did.
    closed: BTreeSet<KekAlias>,
    open: BTreeSet<KekAlias>,
}

impl Wraps {
    /// What there is to be done where [`are_of_other_keks`](Self::are_of_other_keks).
    pub const ADVICE: &str = "put back the KEK file that wrapped them, or the key at its URI (docs/RECOVERY.md); if it is the right one, take it for tampering";

    /// Whether `error`, of verifying a record, says that KEKs do not unwrap it, or the root that vouches for it.
    #[must_use]
    pub fn do_not_unwrap(error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Kms(KmsErrorKind::WrongKey | KmsErrorKind::InvalidCiphertext))
    }

    /// Takes in what verifying `record` said.
    pub fn note(&mut self, record: &Record, verified: Result<(), &Error>) {
        let keks = match verified {
            Ok(()) => &mut self.open,
            Err(error) if Self::do_not_unwrap(error) => &mut self.closed,
            Err(_) => return,
        };
        // Other keys have theirs from a root.
        if record.class() == KeyClass::Root {
            keks.extend(record.kek_aliases().cloned());
        }
    }

    /// Whether that is most likely so since the KEKs are others than wrapped them: nothing opens that one of these wraps. Where something does, the KEK is
    /// the right one, and the records were changed.
    #[must_use]
    pub fn are_of_other_keks(&self) -> bool {
        !self.closed.is_empty() && self.open.is_disjoint(&self.closed)
    }
}
