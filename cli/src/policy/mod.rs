//! `keyfold policy`: a policy as a gate, before data meets it.

mod check;
mod diff;
mod documents;
mod schema;
mod strength;

pub(crate) use check::check;
pub(crate) use diff::diff;

use crate::args::Rules;
use crate::failure::Failure;
use keyfold::Policy;

/// The fields that the arguments name. Opens no keyring.
pub(crate) fn read(rules: &Rules) -> Result<Policy, Failure> {
    match &rules.config {
        Some(config) => keyfold_open::read_config(config, &rules.policy).map(|config| config.keyring.policy),
        None => keyfold_open::read_policies(&rules.policy),
    }
    .map_err(Failure::of_opening)
}
