//! A store whose records are in journals before it shows them (DESIGN K12).

use crate::journal::Journal;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    BoxFuture, CopyStatus, ErrorKind, KeyState, KeyStore, Lineage, Record, RecordChange, RecordCopy, Remainder, Result,
    Slot, SlotId,
};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// What the remainders of journals are called, before the path.
const PLACE: &str = "journal ";
/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// A store and its journals: a record is on disk in each journal before the store is asked to keep it, so that there is no
/// key under which anyone can seal that a journal does not have. A journal that cannot be written is an error, and
/// nothing was stored.
///
/// Every process that changes keys must use the journal; what is read comes from the store alone.
pub struct JournaledStore {
    store: Arc<dyn KeyStore>,
    journals: Vec<Journal>,
}

impl JournaledStore {
    /// `store`, with `journals`.
    #[must_use]
    pub fn new(store: Arc<dyn KeyStore>, journals: Vec<Journal>) -> Self {
        Self { store, journals }
    }

    /// Where one journal fails, the store is not asked, and those before it are told so.
    fn intend<'a>(&self, records: impl IntoIterator<Item = &'a Record> + Clone) -> Result<()> {
        for (at, journal) in self.journals.iter().enumerate() {
            if let Err(error) = journal.intend(records.clone()) {
                for earlier in &self.journals[..at] {
                    earlier.settle(records.clone().into_iter().map(|record| (record, false)));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn settle<'a>(&self, answers: impl IntoIterator<Item = (&'a Record, bool)> + Clone) {
        self.journals.iter().for_each(|journal| journal.settle(answers.clone()));
    }

    /// Notes what the store answered to a single change. What it did when it failed is not known.
    fn settle_one(&self, record: &Record, result: &Result<()>) {
        match result {
            Ok(()) => self.settle([(record, true)]),
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NoMatchingKey) => {
                self.settle([(record, false)]);
            }
            Err(_) => {}
        }
    }

    /// Takes everything out of a journal that is out of date. Keys that another machine destroyed are among it.
    async fn purge_journal(&self, journal: &Journal) -> Result<()> {
        self.take_tombstones_over(journal).await?;
        // A record of which the journal does not know whether it was stored may be the tombstone that makes another one go.
        let mut stored = Vec::new();
        for record in journal.unsettled()? {
            if self.store.get(record.lineage(), record.key_id()).await?.as_ref() == Some(&record) {
                stored.push(record);
            }
        }
        journal.settle(stored.iter().map(|record| (record, true)));
        journal.compact()
    }
}

impl JournaledStore {
    /// Adds the store's tombstones of all keys of which the journal has none.
    async fn take_tombstones_over(&self, journal: &Journal) -> Result<()> {
        let (mut keys, mut ended) = (BTreeSet::new(), BTreeSet::new());
        for RecordCopy { record, status } in journal.read()?.copies {
            let key = (record.lineage(), record.key_id());
            keys.insert(key);
            if record.state() == KeyState::Destroyed && status == CopyStatus::Stored {
                ended.insert(key);
            }
        }
        let lineages: BTreeSet<_> = keys.iter().map(|(lineage, _)| *lineage).collect();
        for lineage in lineages {
            let mut after = None;
            loop {
                let mut page = self.store.list(lineage, after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key_id());
                page.retain(|record| {
                    let key = (lineage, record.key_id());
                    record.state() == KeyState::Destroyed && keys.contains(&key) && !ended.contains(&key)
                });
                journal.intend(&page)?;
                journal.settle(page.iter().map(|record| (record, true)));
            }
        }
        Ok(())
    }
}

impl KeyStore for JournaledStore {
    fn release(&self) {
        self.store.release();
    }

    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.store.get(lineage, key_id)
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.store.newest(slot, limit)
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.store.scope_by_tag(lineage, scope_tag)
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.store.list(lineage, after, limit)
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async move {
            let generation = self.store.allocate_generation(lineage, above).await?;
            self.journals.iter().try_for_each(|journal| journal.note_generation(lineage, generation))?;
            Ok(generation)
        })
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.intend([record])?;
            let inserted = self.store.insert(record, expected_head).await;
            self.settle_one(record, &inserted);
            inserted
        })
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.intend([record])?;
            let updated = self.store.update(record, expected_sequence).await;
            self.settle_one(record, &updated);
            updated
        })
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async move {
            self.intend(changes.iter().map(|change| &change.record))?;
            let others = self.store.update_many(changes).await?;
            let refused: HashSet<_> = others.iter().collect();
            self.settle(changes.iter().map(|change| (&change.record, !refused.contains(&change.record.key_id()))));
            Ok(others)
        })
    }

    fn restore<'a>(&'a self, records: &'a [Record]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.intend(records)?;
            self.store.restore(records).await?;
            self.settle(records.iter().map(|record| (record, true)));
            Ok(())
        })
    }

    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        Box::pin(async move {
            let (ours, theirs): (Vec<_>, Vec<_>) =
                pending.iter().cloned().partition(|remainder| remainder.place.starts_with(PLACE));
            let mut remainders = Vec::new();
            if pending.is_empty() || !theirs.is_empty() {
                remainders = self.store.purge(&theirs).await?;
            }
            for journal in &self.journals {
                let place = place_of(journal);
                if !pending.is_empty() && !ours.iter().any(|remainder| remainder.place == place) {
                    continue;
                }
                let (gone, detail) = match self.purge_journal(journal).await {
                    Ok(()) => (true, "written again without it".to_owned()),
                    Err(error) => (false, error.to_string()),
                };
                remainders.push(Remainder { place, gone, detail, mark: String::new() });
            }
            // A journal that this machine does not have: only who has it can say.
            let unknown = |remainder: &&Remainder| !remainders.iter().any(|known| known.place == remainder.place);
            let unknown: Vec<_> = ours.iter().filter(unknown).cloned().collect();
            remainders.extend(unknown);
            Ok(remainders)
        })
    }

    fn places(&self) -> Vec<String> {
        let journals = self.journals.iter().map(place_of);
        self.store.places().into_iter().chain(journals).collect()
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.store.now()
    }
}

fn place_of(journal: &Journal) -> String {
    format!("{PLACE}{}", journal.path().display())
}

impl std::fmt::Debug for JournaledStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournaledStore").field("journals", &self.journals).finish_non_exhaustive()
    }
}
