//! Which KEKs are asked, in which order, and which must wrap (DESIGN K7 to K11).

use crate::kms::KekAlias;
use std::collections::{BTreeMap, BTreeSet};

/// When a KEK is asked to unwrap.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KekUse {
    /// Always, in order of health.
    #[default]
    Always,
    /// In recovery mode only.
    Recovery,
    /// In recovery mode, and only if a reason is given.
    BreakGlass,
}

/// How the KEKs of a keyring are used.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KekPolicy {
    /// When each is asked; those that are not named, always.
    pub uses: BTreeMap<KekAlias, KekUse>,
    /// KEKs that have leaked: they unwrap what they wrapped, and wrap nothing more.
    pub compromised: BTreeSet<KekAlias>,
    /// How many KEKs must wrap a new root or isolated key; `None`: all.
    pub quorum: Option<usize>,
    /// Recovery mode: every KEK that wraps a key may be asked for it, whatever the others said.
    pub recovery: Option<Recovery>,
}

/// Recovery mode.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Recovery {
    /// Why, in a person's words: never about a patient. Break-glass KEKs are asked only with one.
    pub reason: Option<String>,
}
