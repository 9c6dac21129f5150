//! The marks of this machine, which a store is held against.

use keyfold::config::Config;
use keyfold::wire::{Generation, KeyId};
use keyfold::{HighWaterMark, KeyState, Lineage, Record, Result};
use keyfold_store::FileHighWater;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What this machine has seen of a keyring. Read before the store is, so that what others change meanwhile is no rollback.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// The high-water file, if the configuration names one.
    pub file: Option<PathBuf>,
    /// The highest generation that was used.
    pub generation: Generation,
    /// Roots, and keys that were changed on this machine.
    pub keys: BTreeMap<KeyId, HighWaterMark>,
}

/// A key of which this machine has seen a later record than the store has.
#[derive(Clone, Copy, Debug)]
pub struct RolledBack {
    /// The key.
    pub key_id: KeyId,
    /// What was seen of it.
    pub seen: HighWaterMark,
    /// What the store has; `None`: nothing.
    pub stored: Option<HighWaterMark>,
}

impl Marks {
    /// Those in the file that `config` names. A file that is missing has none, and is not made.
    pub(crate) fn read(config: &Config, folder: &Path) -> Result<Self> {
        let file = config.high_water.as_ref().map(|file| FileHighWater::open(folder.join(file))).transpose()?;
        Self::of(file.as_ref(), config.keyring.lineage)
    }

    pub(crate) fn of(file: Option<&FileHighWater>, lineage: Lineage) -> Result<Self> {
        let Some(file) = file else { return Ok(Self::default()) };
        let (generation, keys) = file.marks(lineage)?;
        Ok(Self { file: Some(file.path().to_owned()), generation, keys: keys.into_iter().collect() })
    }

    /// The keys of which `stored`, everything that the store has, is older than what was seen, or lacks the record. Records never leave
    /// a store: what was destroyed has a tombstone there. One whose destruction alone is known is not missed, since nothing opens with it.
    #[must_use]
    pub fn rolled_back(&self, stored: &BTreeMap<KeyId, HighWaterMark>) -> Vec<RolledBack> {
        let older = |(key_id, seen): (&KeyId, &HighWaterMark)| {
            let stored = stored.get(key_id).copied();
            let is_older = stored.map_or(seen.state != KeyState::Destroyed, |stored| seen.check(stored).is_err());
            is_older.then_some(RolledBack { key_id: *key_id, seen: *seen, stored })
        };
        self.keys.iter().filter_map(older).collect()
    }

    /// Whether `record` is older than what was seen of its key.
    pub(crate) fn refuses(&self, record: &Record) -> bool {
        self.keys.get(&record.key_id()).is_some_and(|seen| seen.check(HighWaterMark::of(record)).is_err())
    }
}
