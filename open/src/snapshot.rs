//! A copy of key records in the place of the store.

use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, Error, ErrorKind, KeyStore, Lineage, Record, RecordChange, Remainder, Result, Slot, SlotId};
use keyfold_store::{MemoryStore, parse_records};

const FIXED: Error = Error::new(
    ErrorKind::Store,
    "the key records are a copy, in which no key or scope can be made: make it where the store is, and copy the records again",
);

/// Records that are read and never changed: a key that is made in a copy would be lost, with what was sealed under it.
pub(crate) struct Snapshot(MemoryStore);

impl Snapshot {
    /// The records of the keyring `lineage` in `backup`.
    pub(crate) fn read(backup: &[u8], lineage: Lineage) -> Result<Self> {
        let found = parse_records(backup)?;
        let ours = found.copies.iter().map(|copy| &copy.record).filter(|record| record.lineage() == lineage);
        if ours.clone().next().is_none() {
            return Err(Error::new(ErrorKind::RecordRejected, "the copy has no key record of this keyring"));
        }
        MemoryStore::of(ours).map(Self)
    }
}

fn refused<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T>> {
    Box::pin(async { Err(FIXED) })
}

impl KeyStore for Snapshot {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.0.get(lineage, key_id)
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.0.newest(slot, limit)
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.0.scope_by_tag(lineage, scope_tag)
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.0.list(lineage, after, limit)
    }

    fn allocate_generation(&self, _: Lineage, _: Generation) -> BoxFuture<'_, Result<Generation>> {
        refused()
    }

    fn insert<'a>(&'a self, _: &'a Record, _: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        refused()
    }

    fn update<'a>(&'a self, _: &'a Record, _: u64) -> BoxFuture<'a, Result<()>> {
        refused()
    }

    fn update_many<'a>(&'a self, _: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        refused()
    }

    fn purge<'a>(&'a self, _: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        refused()
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.0.now()
    }
}
