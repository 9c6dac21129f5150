//! What this machine has seen of a keyring, so that an older copy of the store is noticed (DESIGN K4).

use crate::cache::Recent;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Lineage;
use crate::record::{KeyState, Record};
use crate::wire::{Generation, KeyId};
use std::collections::HashMap;
use std::sync::Mutex;

/// The last state of a key that was seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HighWaterMark {
    /// The sequence of its record.
    pub sequence: u64,
    /// The state in its record.
    pub state: KeyState,
}

impl HighWaterMark {
    /// The mark that `record` leaves.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { sequence: record.sequence(), state: record.state() }
    }

    /// Whether a record with the mark `newer` may follow one with this mark.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): it is an older record, an edited one, or a destroyed key come back.
    pub fn check(&self, newer: Self) -> Result<()> {
        let replayed = newer.sequence < self.sequence;
        let edited = newer.sequence == self.sequence && newer.state != self.state;
        let resurrected = self.state == KeyState::Destroyed && newer.state != KeyState::Destroyed;
        if replayed || edited || resurrected {
            return Err(Error::new(
                ErrorKind::RecordRejected,
                "the key record is older than one seen before: the store was rolled back or edited (after a restore see docs/BACKUP.md)",
            ));
        }
        Ok(())
    }
}

/// Remembers, outside the store, how far a keyring has come. Marks only rise.
///
/// Kept in a file it survives restarts; [`MemoryHighWater`] lasts as long as the process.
pub trait HighWater: Send + Sync {
    /// The highest generation seen; 0 if none.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): the marks cannot be read. - [`Malformed`](ErrorKind::Malformed): they are damaged.
    fn generation(&self, lineage: Lineage) -> Result<Generation>;

    /// The mark of one key.
    ///
    /// # Errors
    ///
    /// As for [`generation`](Self::generation).
    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>>;

    /// Raises the marks: the highest generation, and the mark of one key if given. Lower marks change nothing.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): the marks cannot be written; they are as before.
    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()>;
}

/// Marks that last as long as the process.
#[derive(Debug)]
pub struct MemoryHighWater {
    marks: Mutex<HashMap<Lineage, Marks>>,
    capacity: usize,
}

#[derive(Debug)]
struct Marks {
    generation: Generation,
    keys: Recent<KeyId, HighWaterMark>,
}

impl Default for MemoryHighWater {
    fn default() -> Self {
        Self::with_capacity(usize::MAX)
    }
}

impl MemoryHighWater {
    /// Marks of at most `capacity` keys per keyring, those that were seen first being forgotten first. The highest
    /// generation is never forgotten.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { marks: Mutex::default(), capacity }
    }

    fn with<T>(&self, lineage: Lineage, f: impl FnOnce(&mut Marks) -> T) -> T {
        // A panic while the lock is held cannot leave a mark half raised, so a poisoned lock is still good.
        let mut all = self.marks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        f(all.entry(lineage).or_insert_with(|| Marks { generation: 0, keys: Recent::new(self.capacity) }))
    }
}

impl HighWater for MemoryHighWater {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        Ok(self.with(lineage, |marks| marks.generation))
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        Ok(self.with(lineage, |marks| marks.keys.get(&key_id).copied()))
    }

    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        self.with(lineage, |marks| {
            marks.generation = marks.generation.max(generation);
            if let Some((key_id, mark)) = key {
                let known = marks.keys.entry_or_insert(key_id, mark);
                if mark.sequence > known.sequence {
                    *known = mark;
                }
            }
        });
        Ok(())
    }
}
