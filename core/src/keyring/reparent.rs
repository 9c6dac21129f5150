//! Reparenting (DESIGN K14): the same keys under the current root, key by key. After it nothing depends on older roots.

use super::Keyring;
use super::open_key::OpenRoot;
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, ErrorKind, Result};
use crate::high_water::{HighWater, HighWaterMark};
use crate::keys::KeyClass;
use crate::record::{KeyState, Record};
use crate::store::RecordChange;
use crate::wire::KeyId;
use std::collections::HashMap;
use std::sync::Arc;

/// How often one key is read again because somebody else changed it meanwhile.
const ATTEMPTS: usize = 8;

/// A walk through all keys of a keyring that puts each under the current root. Made by [`Keyring::reparent`].
///
/// Nothing is lost if it stops anywhere: a key is under one root or under the other, and opens either way. A new walk
/// passes over what is done already.
pub struct Reparent {
    ring: Keyring,
    root: Arc<OpenRoot>,
    after: Option<KeyId>,
    progress: ReparentProgress,
    moved_in_this_pass: u64,
}

/// How far a [`Reparent`] has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReparentProgress {
    /// Records that were looked at.
    pub seen: u64,
    /// Keys that were put under the current root.
    pub moved: u64,
    /// Whether a whole walk has found nothing left to do.
    pub done: bool,
}

impl Keyring {
    /// Begins to put every key under the current root: data, lookup and audit keys in all their states. Isolated keys
    /// stay under their KEKs and get the root's MAC alone. No data is touched, and values open all the while.
    ///
    /// One request to the key service per root, however many keys there are. Afterwards the pins of older roots can
    /// be removed from every configuration, and those roots be destroyed. That does not undo what somebody did who
    /// had an older root: after a compromise make new data keys as well, and encrypt again.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](crate::ErrorKind::Conflict): a newer root is published and does not seal yet. Wait for its lead, or
    ///   activate it: what comes under the present one would have to be moved again.
    /// - Those of acquiring the root.
    pub async fn reparent(&self) -> Result<Reparent> {
        let root = self.current_root().await?;
        let current = self.succession(self.roots()).await?;
        if let Some(waiting) = current.successor {
            return Err(Error::new(
                ErrorKind::Conflict,
                "a newer root is published and does not seal yet: wait for its lead or activate it (keys rotate --root --now)",
            )
            .with_detail(waiting.key_id().to_string()));
        }
        Ok(Reparent {
            ring: self.clone(),
            root,
            after: None,
            progress: ReparentProgress::default(),
            moved_in_this_pass: 0,
        })
    }
}

impl Reparent {
    /// The current root, under which the keys come.
    #[must_use]
    pub fn root(&self) -> KeyId {
        self.root.key_id
    }

    /// How far the walk has come.
    #[must_use]
    pub fn progress(&self) -> ReparentProgress {
        self.progress
    }

    /// Goes on with at most `limit` records, and stores their changes in one step. Whoever must spare the store waits
    /// between the steps.
    ///
    /// # Errors
    ///
    /// - [`Conflict`](crate::ErrorKind::Conflict): the root was rotated since the walk began: begin another one.
    /// - [`RecordRejected`](crate::ErrorKind::RecordRejected): no trusted root vouches for a record. Nothing of this step
    ///   was changed; what to do about the record is for a person to decide.
    /// - [`Store`](crate::ErrorKind::Store), [`Kms`](crate::ErrorKind::Kms), [`Closed`](crate::ErrorKind::Closed):
    ///   nothing of this step was changed, and it can be repeated.
    pub async fn step(&mut self, limit: usize) -> Result<ReparentProgress> {
        self.ring.check_open()?;
        let ring = self.ring.clone();
        let inner = &ring.inner;
        ring.check_audit()?;
        // Asked for at each step: no key may come under a root that has been replaced, or taken out of service, meanwhile.
        let current = ring.succession(ring.roots()).await?.current;
        if current.is_none_or(|current| current.key_id() != self.root.key_id) {
            return Err(Error::new(ErrorKind::Conflict, "the root was rotated since reparenting began: begin again")
                .with_detail(self.root.key_id.to_string()));
        }
        self.root = ring.root(self.root.key_id).await?;
        let records = inner.store.list(ring.lineage(), self.after, limit.max(1)).await?;
        let Some(last) = records.last().map(Record::key_id) else {
            // What others made under the old root meanwhile is met on the next walk.
            self.progress.done = self.moved_in_this_pass == 0;
            (self.after, self.moved_in_this_pass) = (None, 0);
            return Ok(self.progress);
        };
        let now = inner.store.now().await?;
        let mut roots = HashMap::new();
        let mut changes = Vec::new();
        for record in &records {
            // It may have changed since it was listed; only what the store says now tells that from a rollback.
            let changed = ring.check_age(record).is_err();
            let record = if changed { &ring.record(record.key_id()).await? } else { record };
            changes.extend(self.change_of(record, now, &mut roots).await?);
        }
        let refused = if changes.is_empty() { Vec::new() } else { inner.store.update_many(&changes).await? };
        for change in changes.iter().filter(|change| !refused.contains(&change.record.key_id())) {
            let (key_id, mark) = (change.record.key_id(), HighWaterMark::of(&change.record));
            inner.seen.raise(ring.lineage(), key_id.generation(), Some((key_id, mark)))?;
            inner.keys.remove(&(key_id, change.record.slot()));
        }
        let mut moved = changes.len() - refused.len();
        let mut moved_again = Ok(());
        for key_id in refused {
            match self.move_again(key_id, &mut roots).await {
                Ok(did) => moved += usize::from(did),
                // Those that were moved are recorded first.
                Err(error) => {
                    moved_again = Err(error);
                    break;
                }
            }
        }
        if moved > 0 {
            let event = AuditEvent::new(AuditAction::Reparent).key(self.root.key_id);
            let recorded = ring.audit(event.detail("moved", moved).detail("seen", records.len()));
            moved_again = moved_again.and(recorded);
        }
        moved_again?;
        self.after = Some(last);
        self.progress.seen += records.len() as u64;
        self.progress.moved += moved as u64;
        self.moved_in_this_pass += moved as u64;
        Ok(self.progress)
    }

    /// What is to become of `record`, if it is under another root.
    async fn change_of(
        &self,
        record: &Record,
        now: u64,
        roots: &mut HashMap<KeyId, Arc<OpenRoot>>,
    ) -> Result<Option<RecordChange>> {
        let under = record.authenticator();
        // A root stands by itself; only its tombstone is another root's word.
        let stays = record.class() == KeyClass::Root && record.state() != KeyState::Destroyed;
        // Never back: another walk may be on its way to a newer root.
        if stays || under.generation() >= self.root.key_id.generation() {
            return Ok(None);
        }
        self.ring.check_domain(record)?;
        let old = match roots.get(&under) {
            Some(old) => old.clone(),
            None => roots.entry(under).or_insert(self.ring.root(under).await?).clone(),
        };
        let next = self.root.reparented(&old, record, now)?;
        Ok(Some(RecordChange { record: next, expected_sequence: record.sequence() }))
    }

    /// Reads a record anew that somebody else changed meanwhile. Whether it had to be moved still.
    async fn move_again(&self, key_id: KeyId, roots: &mut HashMap<KeyId, Arc<OpenRoot>>) -> Result<bool> {
        let mut attempts_left = ATTEMPTS;
        loop {
            attempts_left -= 1;
            let store = &self.ring.inner.store;
            let record = self.ring.record(key_id).await?;
            let Some(change) = self.change_of(&record, store.now().await?, roots).await? else { return Ok(false) };
            match store.update(&change.record, change.expected_sequence).await {
                Err(error) if error.kind() == ErrorKind::Conflict && attempts_left > 0 => {}
                result => return result.map(|()| true),
            }
        }
    }
}

impl core::fmt::Debug for Reparent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reparent").field("root", &self.root()).field("progress", &self.progress).finish_non_exhaustive()
    }
}
