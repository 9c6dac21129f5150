//! `[hl7]`: from the file to an [`Hl7Policy`].

use crate::policy::{Hl7Policy, Policy};
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hl7Toml {
    versions: Option<BTreeSet<String>>,
    clear: Option<BTreeSet<String>>,
}

/// Adds what a file says of messages, if it does.
pub(super) fn add(policy: &mut Policy, toml: Option<Hl7Toml>) {
    if let Some(Hl7Toml { versions, clear }) = toml {
        policy.add_hl7(Hl7Policy { versions, clear });
    }
}
