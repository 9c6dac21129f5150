//! `[memory]`: whether keys may be in memory that is not locked.

use crate::keys::MemoryLock;
use serde::Deserialize;

/// The section `[memory]`, as it stands in a file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryToml {
    #[serde(default)]
    pub(super) lock: LockToml,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LockToml {
    #[default]
    BestEffort,
    Required,
}

impl From<LockToml> for MemoryLock {
    fn from(lock: LockToml) -> Self {
        match lock {
            LockToml::BestEffort => Self::BestEffort,
            LockToml::Required => Self::Required,
        }
    }
}
