//! A key store in memory that can be told to lie, to forget and to fail.

use super::Faults;
use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, Error, ErrorKind, KeyStore, Lineage, Record, RecordChange, Result, Slot, SlotId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub struct LabStore {
    state: Arc<Mutex<State>>,
    pub faults: Faults,
}

/// Everything a writer of the store controls.
#[derive(Clone, Default)]
pub struct State {
    /// By the ID under which they are served, which need not be their own.
    pub records: BTreeMap<KeyId, Record>,
    pub scopes: HashMap<[u8; 32], SlotId>,
    pub generation: Generation,
    /// Served by `newest` and `list`, but not there.
    pub hidden: BTreeSet<KeyId>,
    /// What `newest` answers for a slot, whatever is stored.
    pub newest: HashMap<Slot, Vec<Record>>,
    /// Every generation ever handed out.
    pub allocated: Vec<Generation>,
    /// Hands out numbers from its counter alone, whatever is asked.
    pub ignores_above: bool,
    /// The clock; `None`: the time at which the lab was made.
    pub now: Option<u64>,
    /// Stored by somebody else right after the next update, or the next insert.
    pub after_update: Option<Record>,
    pub after_insert: Option<Record>,
    /// Answers every insert with `Conflict`.
    pub conflicts: bool,
}

impl LabStore {
    pub fn with(faults: Faults) -> Self {
        Self { state: Arc::default(), faults }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds or replaces a record, as somebody who writes the database would.
    pub fn plant(&self, record: &Record) {
        self.plant_as(record.key_id(), record);
    }

    /// Serves `record` for the key `key_id`.
    pub fn plant_as(&self, key_id: KeyId, record: &Record) {
        let mut state = self.state();
        state.generation = state.generation.max(record.key_id().generation());
        if let Some(tag) = record.scope_tag() {
            state.scopes.entry(tag).or_insert(record.slot_id());
        }
        state.records.insert(key_id, record.clone());
    }

    pub fn snapshot(&self) -> State {
        self.state().clone()
    }

    pub fn restore(&self, state: &State) {
        *self.state() = state.clone();
    }

    pub fn all(&self) -> Vec<Record> {
        self.state().records.values().cloned().collect()
    }

    pub fn of_slot(&self, slot: Slot) -> Vec<Record> {
        self.state().newest(slot)
    }

    pub fn find(&self, key_id: KeyId) -> Record {
        self.state().records[&key_id].clone()
    }

    /// Another store with the same content and faults of its own.
    pub fn copy(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.snapshot())), faults: Faults::default() }
    }

    fn run<T>(&self, name: &'static str, effect: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.faults.run(name, ErrorKind::Store, || effect(&mut self.state()))
    }
}

impl State {
    fn newest(&self, slot: Slot) -> Vec<Record> {
        if let Some(lie) = self.newest.get(&slot) {
            return lie.clone();
        }
        let shown = self.records.iter().rev().filter(|(id, _)| !self.hidden.contains(*id));
        shown.map(|(_, record)| record).filter(|record| record.slot() == slot).cloned().collect()
    }

    fn insert(&mut self, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
        let head = self.newest(record.slot()).first().map(Record::key_id);
        if self.conflicts || head != expected_head || self.records.contains_key(&record.key_id()) {
            return Err(Error::from(ErrorKind::Conflict));
        }
        if let Some(tag) = record.scope_tag()
            && *self.scopes.entry(tag).or_insert(record.slot_id()) != record.slot_id()
        {
            return Err(Error::from(ErrorKind::Conflict));
        }
        self.records.insert(record.key_id(), record.clone());
        self.somebody_else(|state| state.after_insert.take());
        Ok(())
    }

    fn somebody_else(&mut self, stores: impl FnOnce(&mut Self) -> Option<Record>) {
        if let Some(record) = stores(self) {
            self.records.insert(record.key_id(), record);
        }
    }
}

impl State {
    fn update(&mut self, record: &Record, expected_sequence: u64) -> Result<()> {
        let stored = self.records.get_mut(&record.key_id()).ok_or(ErrorKind::NoMatchingKey)?;
        if stored.sequence() != expected_sequence {
            return Err(Error::from(ErrorKind::Conflict));
        }
        *stored = record.clone();
        self.somebody_else(|state| state.after_update.take());
        Ok(())
    }
}

impl KeyStore for LabStore {
    fn get(&self, _: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move { self.run("get", |state| Ok(state.records.get(&key_id).cloned())) })
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            self.run("newest", |state| {
                let mut records = state.newest(slot);
                records.truncate(limit);
                Ok(records)
            })
        })
    }

    fn scope_by_tag(&self, _: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(async move { self.run("scope_by_tag", |state| Ok(state.scopes.get(&tag).copied())) })
    }

    fn list(&self, _: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            self.run("list", |state| {
                let after = state.records.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
                Ok(after.take(limit).map(|(_, record)| record.clone()).collect())
            })
        })
    }

    fn allocate_generation(&self, _: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async move {
            self.run("allocate_generation", |state| {
                let above = if state.ignores_above { 0 } else { above };
                state.generation = state.generation.max(above) + 1;
                let generation = state.generation;
                state.allocated.push(generation);
                Ok(generation)
            })
        })
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.run("insert", |state| state.insert(record, expected_head)) })
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.run("update", |state| state.update(record, expected_sequence)) })
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async move {
            self.run("update_many", |state| {
                let mut refused =
                    |change: &&RecordChange| state.update(&change.record, change.expected_sequence).is_err();
                Ok(changes.iter().filter(|change| refused(change)).map(|change| change.record.key_id()).collect())
            })
        })
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { self.run("now", |state| Ok(state.now.unwrap_or(super::lab::TIME))) })
    }
}
