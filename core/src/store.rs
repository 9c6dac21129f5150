//! What Keyfold asks of a database that keeps key records.

use crate::error::Result;
use crate::keys::{KeyClass, Lineage, SlotId};
use crate::kms::BoxFuture;
use crate::record::Record;
use crate::wire::{Generation, KeyId};

/// How often one record is put back because others change it meanwhile.
const RESTORE_ATTEMPTS: usize = 16;

/// Where successive generations of one key live: a class and a scope or partition within a keyring.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Slot {
    /// The keyring.
    pub lineage: Lineage,
    /// The class of the keys.
    pub class: KeyClass,
    /// The scope or partition; [`SlotId::NONE`] for keys of the keyring itself.
    pub id: SlotId,
}

/// A record to be stored in place of the one with the same key ID.
#[derive(Clone, Debug)]
pub struct RecordChange {
    /// The record to store.
    pub record: Record,
    /// The sequence of the record that it replaces.
    pub expected_sequence: u64,
}

/// A place that held bytes of key records which were replaced, and whether they are gone from it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remainder {
    /// What the place is, such as `store`, `write-ahead log` or `journal FILE`.
    pub place: String,
    /// Whether nothing is left in it.
    pub gone: bool,
    /// How that is known, or what has to be done.
    pub detail: String,
    /// What the store needs to know when it is asked again.
    pub mark: String,
}

/// Keeps key records. What it returns is not trusted: the keyring verifies every record before it uses it.
///
/// A record is durable, and visible to every later call from any process, when [`insert`](Self::insert) or
/// [`update`](Self::update) returns. It may be called from several threads at once.
/// `keyfold::testing::store_conformance` checks an implementation.
pub trait KeyStore: Send + Sync {
    /// The record of the key `key_id`.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed or holds something that is not a record.
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>>;

    /// The records of `slot`, highest generation first, at most `limit`.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>>;

    /// The scope whose keyed name is `scope_tag`.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>>;

    /// The records of a keyring in ascending order of key ID, those after `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>>;

    /// Takes the next generation number of a keyring, greater than any taken before and than `above`. Never returned twice.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed.
    /// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): all numbers are used.
    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>>;

    /// Adds `record` if the newest record of its slot is still `expected_head`.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](crate::ErrorKind::Conflict): the newest record is another one, the key ID exists, or the scope
    ///   tag belongs to another scope. Nothing was stored.
    /// - [`Store`](crate::ErrorKind::Store): the database failed. The change was made whole or not at all; where only the
    ///   answer was lost, it was made.
    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>>;

    /// Replaces the record with the same key ID if its sequence is still `expected_sequence`.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](crate::ErrorKind::Conflict): the stored sequence is another one, or the record has another class,
    ///   slot or scope tag than the stored one. Nothing was stored.
    /// - [`NoMatchingKey`](crate::ErrorKind::NoMatchingKey): there is no such record.
    /// - [`Store`](crate::ErrorKind::Store): the database failed. The change was made whole or not at all; where only the
    ///   answer was lost, it was made.
    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>>;

    /// Replaces several records, each as by [`update`](Self::update), in one step. Returns the key IDs of those that were
    /// not replaced, because somebody else had changed them or they do not exist.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed. The change was made whole or not at all; where only the
    ///   answer was lost, it was made.
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>>;

    /// Puts records of copies of the store back in one step: adds those whose keys it lacks, and replaces those that they
    /// [outrank](Record::outranks). All are of one keyring. What it has is never lowered, so this may be repeated, and others may write meanwhile.
    ///
    /// The store does this here record by record, by the calls above; one that can do many at once should.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](crate::ErrorKind::Conflict): a scope tag belongs to another scope, a key to another class, slot or
    ///   scope tag; or others changed the same keys all the while. A part of the records may have been stored.
    /// - [`Store`](crate::ErrorKind::Store): the database failed. Likewise.
    fn restore<'a>(&'a self, records: &'a [Record]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            for record in records {
                let mut attempts_left = RESTORE_ATTEMPTS;
                loop {
                    attempts_left -= 1;
                    let stored = match self.get(record.lineage(), record.key_id()).await? {
                        Some(present) if record.outranks(&present) => self.update(record, present.sequence()).await,
                        Some(_) => Ok(()),
                        None => {
                            let head = self.newest(record.slot(), 1).await?.first().map(Record::key_id);
                            self.insert(record, head).await
                        }
                    };
                    match stored {
                        Err(error) if error.is_retryable() && attempts_left > 0 => {}
                        stored => break stored?,
                    }
                }
            }
            Ok(())
        })
    }

    /// Makes the bytes of replaced records disappear from wherever the store kept them: the free space of its files, its
    /// logs. Says of each place whether they are gone. With `pending`, the remainders of an earlier call, looks at
    /// those places again. A store that kept nothing returns nothing.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed. It can be repeated.
    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        let _ = pending;
        Box::pin(async {
            Ok(vec![Remainder {
                place: "store".to_owned(),
                gone: false,
                detail: "this store does not say what becomes of replaced records".to_owned(),
                mark: String::new(),
            }])
        })
    }

    /// The places that [`purge`](Self::purge) speaks of when it is asked about none in particular.
    fn places(&self) -> Vec<String> {
        vec!["store".to_owned()]
    }

    /// Lets go of what must not be open while this process is forked; the next call, in parent or child, opens it again.
    /// Without it the store may refuse to work in the child. By default there is nothing.
    fn release(&self) {}

    /// The time of the store in seconds since 1970, the only clock that key records know.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed.
    fn now(&self) -> BoxFuture<'_, Result<u64>>;
}
