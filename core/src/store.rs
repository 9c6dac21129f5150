//! What Keyfold asks of a database that keeps key records.

use crate::error::Result;
use crate::keys::{KeyClass, Lineage, SlotId};
use crate::kms::BoxFuture;
use crate::record::Record;
use crate::wire::{Generation, KeyId};

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

    /// The time of the store in seconds since 1970, the only clock that key records know.
    ///
    /// # Errors
    ///
    /// - [`Store`](crate::ErrorKind::Store): the database failed.
    fn now(&self) -> BoxFuture<'_, Result<u64>>;
}
