//! What HL7 v2 messages may be beside the values of fields.

use std::collections::BTreeSet;

/// Which HL7 v2 messages may be protected, and what may stay in clear in them. Places and versions are read by the program that cuts messages.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hl7Policy {
    /// The versions, MSH-12, that the fields were written for; `None`: any.
    pub versions: Option<BTreeSet<String>>,
    /// What may stay in clear: places such as `PID-8` or `PID-3.4`, or whole segments such as `SFT`. Every other value that no field selects is
    /// refused. `None`: whatever no field selects stays in clear.
    pub clear: Option<BTreeSet<String>>,
}

impl Hl7Policy {
    /// Adds what another file allows.
    pub(super) fn add(&mut self, other: Self) {
        let add = |known: &mut Option<BTreeSet<String>>, more: Option<BTreeSet<String>>| {
            if let Some(more) = more {
                known.get_or_insert_default().extend(more);
            }
        };
        add(&mut self.versions, other.versions);
        add(&mut self.clear, other.clear);
    }
}
