//! A store in memory.

use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, Error, ErrorKind, KeyStore, Lineage, Record, RecordChange, Remainder, Result, Slot, SlotId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Keeps key records in memory, for tests and experiments. What is in it is gone with the last handle.
///
/// Clones are handles of the same store. Its clock is the machine's until [`set_now`](Self::set_now).
///
/// # Examples
///
/// ```
/// use keyfold_store::MemoryStore;
///
/// let store = MemoryStore::new();
/// let handle = store.clone();
/// store.set_now(1_800_000_000);
/// # let _: &dyn keyfold::KeyStore = &handle;
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    keyrings: HashMap<Lineage, Keyring>,
    now: Option<u64>,
}

#[derive(Debug, Default)]
struct Keyring {
    records: BTreeMap<KeyId, Record>,
    /// The keys of each slot, whose records stay in it.
    slots: HashMap<Slot, BTreeSet<KeyId>>,
    scopes: HashMap<[u8; 32], SlotId>,
    generation: Generation,
}

impl Keyring {
    /// The records of a slot, highest generation first: a key ID starts with its generation.
    fn newest(&self, slot: Slot) -> impl Iterator<Item = &Record> {
        let key_ids = self.slots.get(&slot).into_iter().flatten().rev();
        key_ids.filter_map(|key_id| self.records.get(key_id))
    }

    fn insert(&mut self, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
        if self.newest(record.slot()).next().map(Record::key_id) != expected_head {
            return Err(conflict("the newest key is not the expected one", record));
        }
        if self.records.contains_key(&record.key_id()) {
            return Err(conflict("the key ID exists", record));
        }
        if let Some(tag) = record.scope_tag()
            && *self.scopes.entry(tag).or_insert(record.slot_id()) != record.slot_id()
        {
            return Err(conflict("the scope tag belongs to another scope", record));
        }
        self.slots.entry(record.slot()).or_default().insert(record.key_id());
        self.records.insert(record.key_id(), record.clone());
        Ok(())
    }

    fn update(&mut self, record: &Record, expected_sequence: u64) -> Result<()> {
        let stored = self.records.get_mut(&record.key_id()).ok_or_else(|| no_matching_key(record))?;
        if stored.sequence() != expected_sequence {
            return Err(conflict("the record has changed", record));
        }
        if (stored.slot(), stored.scope_tag()) != (record.slot(), record.scope_tag()) {
            return Err(conflict("the key belongs to another class or scope", record));
        }
        *stored = record.clone();
        Ok(())
    }

    fn allocate_generation(&mut self, above: Generation) -> Result<Generation> {
        let in_records = self.records.last_key_value().map_or(0, |(key_id, _)| key_id.generation());
        let used = self.generation.max(above).max(in_records);
        self.generation = used.checked_add(1).ok_or(NO_GENERATION_LEFT)?;
        Ok(self.generation)
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store of `records`, in any order, each of another key.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](ErrorKind::Conflict): two are of one key, or a scope tag belongs to two scopes.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<Self> {
        let store = Self::new();
        for record in records {
            store.change(record.lineage(), |keyring| {
                let head = keyring.newest(record.slot()).next().map(Record::key_id);
                keyring.insert(record, head)
            })?;
        }
        Ok(store)
    }

    /// Stops the clock at `now` seconds since 1970.
    pub fn set_now(&self, now: u64) {
        self.state().now = Some(now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half way through a change, so a poisoned lock is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T: Default>(&self, lineage: Lineage, f: impl FnOnce(&Keyring) -> T) -> T {
        self.state().keyrings.get(&lineage).map(f).unwrap_or_default()
    }

    fn change<T>(&self, lineage: Lineage, f: impl FnOnce(&mut Keyring) -> T) -> T {
        f(self.state().keyrings.entry(lineage).or_default())
    }
}

impl KeyStore for MemoryStore {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move { Ok(self.read(lineage, |keyring| keyring.records.get(&key_id).cloned())) })
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(
            async move { Ok(self.read(slot.lineage, |keyring| keyring.newest(slot).take(limit).cloned().collect())) },
        )
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(async move { Ok(self.read(lineage, |keyring| keyring.scopes.get(&scope_tag).copied())) })
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Box::pin(async move {
            Ok(self.read(lineage, |keyring| {
                keyring.records.range((from, Bound::Unbounded)).take(limit).map(|(_, record)| record.clone()).collect()
            }))
        })
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async move { self.change(lineage, |keyring| keyring.allocate_generation(above)) })
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(record.lineage(), |keyring| keyring.insert(record, expected_head)) })
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(record.lineage(), |keyring| keyring.update(record, expected_sequence)) })
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async move {
            not_replaced(changes, |change| {
                self.change(change.record.lineage(), |keyring| keyring.update(&change.record, change.expected_sequence))
            })
        })
    }

    /// Nothing is kept that was replaced.
    fn purge<'a>(&'a self, _: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn places(&self) -> Vec<String> {
        Vec::new()
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { self.state().now.map_or_else(machine_time, Ok) })
    }
}

pub(crate) const NO_GENERATION_LEFT: Error =
    Error::new(ErrorKind::LimitExceeded, "all generation numbers of the keyring are used");

/// Seconds since 1970 by the clock of this machine.
pub(crate) fn machine_time() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map(|since| since.as_secs()).map_err(|_| Error::new(ErrorKind::Store, "the clock shows a time before 1970"))
}

/// Makes every change that can be made; returns the key IDs of the others.
pub(crate) fn not_replaced(
    changes: &[RecordChange],
    mut update: impl FnMut(&RecordChange) -> Result<()>,
) -> Result<Vec<KeyId>> {
    let mut others = Vec::new();
    for change in changes {
        match update(change) {
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NoMatchingKey) => {
                others.push(change.record.key_id());
            }
            result => result?,
        }
    }
    Ok(others)
}

pub(crate) fn conflict(why: &'static str, record: &Record) -> Error {
    Error::new(ErrorKind::Conflict, why).with_detail(record.key_id().to_string())
}

pub(crate) fn no_matching_key(record: &Record) -> Error {
    Error::from(ErrorKind::NoMatchingKey).with_detail(record.key_id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::testing::{SampleRecord, block_on, store_conformance};

    #[test]
    fn conforms() {
        store_conformance(|| {
            let store = MemoryStore::new();
            [store.clone(), store]
        });
    }

    #[test]
    fn can_be_made_of_records_in_any_order() {
        let lineage = Lineage::from_bytes([1; 16]);
        let [older, newer] = [41, 42].map(|generation| SampleRecord::new(lineage, generation).build());
        let store = MemoryStore::of([&newer, &older]).expect("made");
        assert_eq!(block_on(store.newest(older.slot(), 2)).expect("read"), [newer.clone(), older.clone()]);
        assert_eq!(MemoryStore::of([&older, &older]).expect_err("twice").kind(), ErrorKind::Conflict);
    }

    #[test]
    fn the_clock_can_be_set() {
        let store = MemoryStore::new();
        assert!(block_on(store.now()).expect("a clock") > 1_700_000_000);
        store.clone().set_now(5);
        assert_eq!(block_on(store.now()).expect("a clock"), 5);
    }

    #[test]
    fn generations_stay_above_inserted_records() {
        let (store, lineage) = (MemoryStore::new(), Lineage::from_bytes([1; 16]));
        block_on(store.insert(&SampleRecord::new(lineage, 41).build(), None)).expect("inserted");
        assert_eq!(block_on(store.allocate_generation(lineage, 0)).expect("allocated"), 42);
    }
}
