//! Which of several copies of a record counts: the highest that a trusted root vouches for.

use super::{CopyStatus, Keyring};
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::keys::{KeyClass, Lineage, SlotId};
use crate::kms::BoxFuture;
use crate::record::{KeyState, Record};
use crate::store::{KeyStore, Slot};
use crate::wire::{Generation, KeyId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Every copy of every key.
#[derive(Default)]
pub(super) struct Copies(BTreeMap<KeyId, Vec<(Record, CopyStatus)>>);

/// What came of them.
#[derive(Default)]
pub(super) struct Choice {
    pub(super) chosen: BTreeMap<KeyId, (Record, CopyStatus)>,
    pub(super) refused: Vec<(Record, Error)>,
    /// Every record of roots that are not trusted any more and that no key needs.
    pub(super) retired: Vec<(Record, Error)>,
    /// The highest sequence that a copy has of a key whose tombstone was chosen.
    pub(super) above: BTreeMap<KeyId, u64>,
}

impl Copies {
    /// Of copies that are alike in everything else the one that was added last counts.
    pub(super) fn add(&mut self, record: Record, status: CopyStatus) {
        let copies = self.0.entry(record.key_id()).or_default();
        let known = copies.iter().position(|(known, _)| *known == record).map(|at| copies.remove(at).1);
        copies.push((record, known.map_or(status, |known| status.max(known))));
    }
}

/// The copy of a key that counts, if somebody vouches for it: of those that nothing disproves the tombstone, then the highest
/// sequence, then what a store had, then the stricter state.
///
/// A record that was only to be stored is disproved by one that a store had with the same sequence or a higher one: a store
/// counts every change of a key. The copy that disproves most is itself among those that may count, so a forged one has no effect
/// once it is dropped.
// F-D-6, F-D-7.
fn top(copies: &[(Record, CopyStatus)]) -> Option<&(Record, CopyStatus)> {
    let had = copies.iter().filter(|(_, status)| *status == CopyStatus::Stored);
    let had = had.map(|(record, _)| record.sequence()).max();
    let possible = |(record, status): &&(Record, CopyStatus)| {
        *status == CopyStatus::Stored || had.is_none_or(|sequence| record.sequence() > sequence)
    };
    copies.iter().filter(possible).max_by_key(|(record, status)| {
        let (destroyed, sequence, restriction) = record.rank();
        (destroyed, sequence, *status, restriction)
    })
}

impl Keyring {
    /// Chooses among copies. A copy that nobody vouches for gives way to the next one of its key.
    ///
    /// # Errors
    ///
    /// A key service does not answer, its KEK unwraps no root, or no trusted root is among the copies.
    pub(super) async fn choose(&self, copies: Copies) -> Result<Choice> {
        let mut choice = Choice::default();
        let (mut roots, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (key_id, mut copies) in copies.0 {
            copies.retain(|(_, status)| *status != CopyStatus::Refused);
            let Some((top, _)) = top(&copies) else { continue };
            let kind = if top.class() == KeyClass::Root { &mut roots } else { &mut others };
            kind.insert(key_id, copies);
        }
        while self.drop_bad_roots(&mut roots, &mut choice.refused).await? {}
        if roots.is_empty() {
            // Where a KEK unwraps no root at all it is another one, rather than that somebody has changed each.
            let of_kek = |(_, error): &&(Record, Error)| matches!(error.kind(), ErrorKind::Kms(_));
            if choice.refused.iter().all(|refused| of_kek(&refused))
                && let Some((_, error)) = choice.refused.first()
            {
                let detail = format!(
                    "{}; no root opens, so the KEK is not the one that wrapped them, or each was changed",
                    error.detail()
                );
                return Err(error.clone().with_detail(detail));
            }
            return Err(Error::new(
                ErrorKind::RecordRejected,
                "no root that the configuration trusts is among the records: is it the right keyring, with all pins, that of an older root as well if they are from before it was replaced?",
            ));
        }
        while self.drop_bad_keys(&roots, &mut others, &mut choice.refused).await? {}
        for (key_id, copies) in roots.into_iter().chain(others) {
            let highest = copies.iter().filter(|(record, _)| record.state() != KeyState::Destroyed);
            let highest = highest.map(|(record, _)| record.sequence()).max();
            let Some((record, status)) = top(&copies).cloned() else { continue };
            if record.state() == KeyState::Destroyed
                && let Some(highest) = highest
            {
                choice.above.insert(key_id, highest);
            }
            choice.chosen.insert(key_id, (record, status));
        }
        self.set_retired_apart(&mut choice);
        Ok(choice)
    }

    /// Takes the roots that were replaced out of what is refused: their pins are gone, and no key is under them.
    fn set_retired_apart(&self, choice: &mut Choice) {
        let pins = &self.configured().keyring.root_pins;
        let (mut newest, mut needed) = (BTreeMap::<KeyId, &Record>::new(), BTreeSet::new());
        for (record, _) in choice.refused.iter().filter(|(record, _)| !choice.chosen.contains_key(&record.key_id())) {
            if record.class() != KeyClass::Root {
                needed.insert(record.authenticator());
                continue;
            }
            let known = newest.entry(record.key_id()).or_insert(record);
            if record.outranks(known) {
                *known = record;
            }
        }
        // A pinned one is not retired but damaged.
        let is_retired = |root: &Record| root.state() != KeyState::Active && !pins.contains(root.commitment());
        newest.retain(|key_id, root| is_retired(root) && !needed.contains(key_id));
        let retired: BTreeSet<KeyId> = newest.into_keys().collect();
        let refused = std::mem::take(&mut choice.refused);
        (choice.retired, choice.refused) =
            refused.into_iter().partition(|(record, _)| retired.contains(&record.key_id()));
    }

    /// Drops the copies of roots that nobody vouches for; whether there were any. One that depends on another bad one is looked
    /// at again without that.
    async fn drop_bad_roots(&self, roots: &mut AllCopies, refused: &mut Vec<(Record, Error)>) -> Result<bool> {
        let ring = self.over(tops(roots))?;
        let mut bad = BTreeMap::new();
        for record in tops(roots).values() {
            if let Err(error) = doubted(ring.check_copy(record).await)? {
                bad.insert(record.key_id(), (record.clone(), error));
            }
        }
        let depends = |(record, _): &&(Record, Error)| {
            let other = |key_id| key_id != record.key_id() && bad.contains_key(&key_id);
            record.endorsed_by().is_some_and(other) || other(record.authenticator())
        };
        let mut drop_now: Vec<_> = bad.values().filter(|bad| !depends(bad)).collect();
        if drop_now.is_empty() {
            // They depend on each other. Nobody destroys a root on which others depend, so it is the tombstones that are bad.
            let tombstone = |(record, _): &&(Record, Error)| record.state() == KeyState::Destroyed;
            drop_now = bad.values().filter(tombstone).collect();
        }
        if drop_now.is_empty() {
            drop_now = bad.values().collect();
        }
        for (record, error) in &drop_now {
            drop_top(roots, record, error, refused);
        }
        Ok(!drop_now.is_empty())
    }

    /// Likewise for all other keys, of which none depends on another.
    async fn drop_bad_keys(
        &self,
        roots: &AllCopies,
        others: &mut AllCopies,
        refused: &mut Vec<(Record, Error)>,
    ) -> Result<bool> {
        let ring = self.over(tops(roots))?;
        let mut any = false;
        for record in tops(others).values() {
            if let Err(error) = doubted(ring.check_copy(record).await)? {
                drop_top(others, record, &error, refused);
                any = true;
            }
        }
        Ok(any)
    }

    async fn check_copy(&self, record: &Record) -> Result<()> {
        self.check_domain(record)?;
        self.voucher(record).await?.verify(record)
    }
}

type AllCopies = BTreeMap<KeyId, Vec<(Record, CopyStatus)>>;

fn tops(copies: &AllCopies) -> BTreeMap<KeyId, Record> {
    copies.iter().filter_map(|(key_id, copies)| Some((*key_id, top(copies)?.0.clone()))).collect()
}

fn drop_top(copies: &mut AllCopies, record: &Record, error: &Error, refused: &mut Vec<(Record, Error)>) {
    refused.push((record.clone(), error.clone()));
    if let Some(of_key) = copies.get_mut(&record.key_id()) {
        of_key.retain(|(copy, _)| copy != record);
        if of_key.is_empty() {
            copies.remove(&record.key_id());
        }
    }
}

/// The verdict on a record; an error of the outer kind is none, since somebody did not answer.
fn doubted(checked: Result<()>) -> Result<Result<()>> {
    match checked {
        Err(error) => match error.kind() {
            ErrorKind::RecordRejected
            | ErrorKind::KeyState
            | ErrorKind::Malformed
            | ErrorKind::Unsupported
            | ErrorKind::Kms(KmsErrorKind::InvalidCiphertext | KmsErrorKind::WrongKey) => Ok(Err(error)),
            _ => Err(error),
        },
        Ok(()) => Ok(Ok(())),
    }
}

/// Records that nobody changes.
pub(super) struct Fixed {
    pub(super) records: BTreeMap<KeyId, Record>,
    /// The store whose clock counts.
    pub(super) now: Arc<dyn KeyStore>,
}

const FIXED: Error = Error::new(ErrorKind::Internal, "a copy of a store is not changed");

impl KeyStore for Fixed {
    fn get(&self, _: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move { Ok(self.records.get(&key_id).cloned()) })
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        let of_slot = self.records.values().rev().filter(move |record| record.slot() == slot);
        Box::pin(async move { Ok(of_slot.take(limit).cloned().collect()) })
    }

    fn scope_by_tag(&self, _: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        let found = self.records.values().find(|record| record.scope_tag() == Some(scope_tag)).map(Record::slot_id);
        Box::pin(async move { Ok(found) })
    }

    fn list(&self, _: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        let rest = self.records.values().filter(move |record| after.is_none_or(|after| record.key_id() > after));
        Box::pin(async move { Ok(rest.take(limit).cloned().collect()) })
    }

    fn allocate_generation(&self, _: Lineage, _: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async { Err(FIXED) })
    }

    fn insert<'a>(&'a self, _: &'a Record, _: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(FIXED) })
    }

    fn update<'a>(&'a self, _: &'a Record, _: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(FIXED) })
    }

    fn update_many<'a>(&'a self, _: &'a [crate::RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async { Err(FIXED) })
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.now.now()
    }
}
