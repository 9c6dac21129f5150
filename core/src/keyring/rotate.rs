//! Rotation (DESIGN K13): the next generation of a key is published, seals once everyone can read it, and the ones before
//! it open.
//!
//! Any number of processes do this at once: a key is inserted only if the newest one is still the one that it replaces,
//! and changes state only if its record is still the one that was read.

use super::create::Planned;
use super::open_key::OpenRoot;
use super::states::Afterwards;
use super::{Keyring, RECENT};
use crate::cache::Recent;
use crate::clock::nanos;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, SlotId};
use crate::kms::KekAlias;
use crate::observe;
use crate::record::{KeyState, Record};
use crate::store::Slot;
use crate::wire::KeyId;
use std::sync::{Arc, MutexGuard, PoisonError};
use tracing::Instrument as _;

/// What a rotation left behind.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The newest key. Active: it seals from now on. Pre-active: it is published, and seals when
    /// [`RotationPolicy::lead`](crate::RotationPolicy::lead) has passed since it was made.
    pub new: Record,
    /// The key that sealed before. It still opens, and seals for as long as the new one is pre-active.
    pub old: Option<KeyId>,
    /// Whether somebody else made the new key: at the same moment, or before and it was waiting to be activated.
    pub by_other: bool,
}

/// The keys of a slot that matter for sealing. A trusted root vouches for each, and for every newer record.
pub(super) struct Succession {
    /// The newest key, whatever its state.
    pub(super) head: Option<Record>,
    /// The newest active key.
    pub(super) current: Option<Record>,
    /// The newest key that is published and waits to seal after `current`.
    pub(super) successor: Option<Record>,
    /// Whether a rotation has stopped before it deactivated what it replaced.
    unfinished: bool,
}

impl Keyring {
    /// Makes a new data key for `scope` (`None`: the keyring's own). It seals at once, after which the old one only
    /// opens; or, where the rotation policy has a lead, when that has passed.
    ///
    /// However many processes rotate at once, one new generation results. No request to the key service when the
    /// root is known, unless the scope is isolated.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`Store`](ErrorKind::Store), [`Kms`](ErrorKind::Kms), [`RecordRejected`](ErrorKind::RecordRejected):
    ///   the old key still seals, or the new one does; repeating the call is safe.
    pub async fn rotate_data_key(&self, scope: Option<&str>) -> Result<Rotated> {
        let slot = self.data_slot(scope).await?;
        self.rotate_shown(slot, &[]).await
    }

    /// Makes a new root, endorsed by the current one and wrapped by every KEK of the keyring that is not compromised or retired, or
    /// by the quorum of [`KekPolicy`](crate::KekPolicy) where others are away; what they lack is made up for by
    /// [`rewrap`](Self::rewrap). New keys are made under it; the old root still vouches for the keys under it until [`reparent`](Self::reparent) moves them. Pin the new
    /// root's commitment everywhere, then remove the old pin once no key depends on it.
    ///
    /// # Errors
    ///
    /// As for [`rotate_data_key`](Self::rotate_data_key), and [`PolicyRefused`](ErrorKind::PolicyRefused): so many
    /// roots have followed a pinned one that a process with that pin alone could not follow one more; or a KEK that
    /// wraps the present root is not configured here, or not for roots.
    ///
    /// Every KEK that wraps the present root wraps the new one as well, so that whoever reaches one of them goes on. A KEK
    /// that is marked compromised or retired is left out by itself.
    pub async fn rotate_root(&self) -> Result<Rotated> {
        self.rotate_root_without(&[]).await
    }

    /// As [`rotate_root`](Self::rotate_root), but without the KEKs `dropped`, which wrap the present root: they were
    /// replaced, or have leaked. Processes that reach no other KEK open nothing that is made from now on.
    ///
    /// # Errors
    ///
    /// As for [`rotate_root`](Self::rotate_root).
    pub async fn rotate_root_without(&self, dropped: &[KekAlias]) -> Result<Rotated> {
        self.rotate_shown(self.roots(), dropped).await
    }

    /// Lets the data key of `scope` that waits to seal do so now, without waiting for the lead of the rotation policy.
    /// Returns the key that seals, whether or not one was waiting.
    ///
    /// # Errors
    ///
    /// As for [`rotate_data_key`](Self::rotate_data_key).
    pub async fn activate_data_key(&self, scope: Option<&str>) -> Result<Record> {
        let slot = self.data_slot(scope).await?;
        self.activate_successor(slot).await
    }

    /// As [`activate_data_key`](Self::activate_data_key), for the root.
    ///
    /// # Errors
    ///
    /// As for [`rotate_data_key`](Self::rotate_data_key).
    pub async fn activate_root(&self) -> Result<Record> {
        self.activate_successor(self.roots()).await
    }

    /// The root under which keys are made, after whatever rotation of the root is due.
    pub(super) async fn current_root(&self) -> Result<Arc<OpenRoot>> {
        let current = self.advance(self.roots(), None).await?.ok_or_else(no_active_root)?;
        self.root(current.key_id()).await
    }

    /// The roots that seal keys, or are published to do so, and whose commitments are not among the pins here. They are trusted because a
    /// pinned root vouches for them, and with it will all their keys no longer be: add their pins before its goes.
    ///
    /// # Errors
    ///
    /// Those of acquiring the root.
    pub async fn unpinned_roots(&self) -> Result<Vec<Record>> {
        self.check_open()?;
        let Succession { current, successor, .. } = self.succession(self.roots()).await?;
        let mut unpinned = Vec::new();
        for root in current.into_iter().chain(successor).filter(|root| !self.is_pinned(root)) {
            self.verify_shown(&root).await?;
            unpinned.push(root);
        }
        Ok(unpinned)
    }

    pub(super) fn roots(&self) -> Slot {
        self.slot(KeyClass::Root, SlotId::NONE)
    }

    /// The keys of `slot` that matter for sealing. Refuses a store that has gone back behind what this process has seen.
    pub(super) async fn succession(&self, slot: Slot) -> Result<Succession> {
        // Looked up before the store is read: what another thread makes current meanwhile is no rollback.
        let seen = self.sealing().get(&slot).copied();
        let mut limit = RECENT;
        let found = loop {
            let records = self.newest(slot, limit).await?;
            let all = records.len() < limit;
            let found = self.sorted_out(records).await?;
            // Many keys may have been taken out of service one after the other.
            if found.current.is_some() || all {
                break found;
            }
            limit = limit.saturating_mul(4);
        };
        let current = found.current.as_ref().map(Record::key_id);
        let gone_back = match (seen, current) {
            (Some(seen), Some(current)) => current.generation() < seen.generation(),
            (Some(seen), None) => !self.was_withdrawn(seen).await?,
            (None, _) => false,
        };
        if let Some(seen) = seen.filter(|_| gone_back) {
            return Err(Error::new(
                ErrorKind::RecordRejected,
                "the store has gone back behind a generation that this process has used",
            )
            .with_detail(seen.to_string()));
        }
        if let Some(current) = current {
            self.remember_sealing(slot, current);
        }
        Ok(found)
    }

    /// Which of the newest records of a slot, in descending order, matter for sealing.
    async fn sorted_out(&self, records: Vec<Record>) -> Result<Succession> {
        let mut found = Succession { head: None, current: None, successor: None, unfinished: false };
        // A key that has sealed replaced every older one, whatever became of it and however far the rotation came.
        let mut replaced = false;
        for record in records {
            let may_seal = matches!(record.state(), KeyState::PreActive | KeyState::Active);
            if replaced {
                found.unfinished |= may_seal;
                continue;
            }
            // Its state decides what seals, so the state must be a root's word, not the store's.
            self.verify(&record).await?;
            match record.state() {
                KeyState::Active => found.current = Some(record.clone()),
                KeyState::PreActive if found.successor.is_none() => found.successor = Some(record.clone()),
                _ => {}
            }
            replaced = record.activated_at() != 0;
            found.head.get_or_insert(record);
        }
        Ok(found)
    }

    /// Whether a root's word is that a key which sealed does not seal any more.
    async fn was_withdrawn(&self, key_id: KeyId) -> Result<bool> {
        let record = match self.record(key_id).await {
            Err(error) if error.kind() == ErrorKind::NoMatchingKey => return Ok(false),
            record => record?,
        };
        self.verify(&record).await?;
        Ok(record.state() != KeyState::Active)
    }

    /// The key that seals in `slot`, after whatever is due: a successor whose lead has passed is activated, and a key
    /// that is too old, used up or wrapped by other KEKs than the configuration wants gets a successor.
    ///
    /// What cannot be done about rotation does not keep the present key from sealing: it is logged and counted.
    pub(super) async fn advance(&self, slot: Slot, used_up: Option<KeyId>) -> Result<Option<Record>> {
        let succession = self.succession(slot).await?;
        let Some(current) = succession.current.clone() else {
            return match &succession.successor {
                Some(successor) if self.lead_is_over(successor).await? => {
                    self.activate(slot, successor).await.map(Some)
                }
                _ => Ok(None),
            };
        };
        match self.advance_from(slot, &current, &succession, used_up).await {
            Ok(next) => Ok(Some(next.unwrap_or(current))),
            Err(error) if error.kind() == ErrorKind::RecordRejected => Err(error),
            Err(error) => {
                observe::rotation_failed(slot.class.name());
                tracing::warn!(
                    key_id = %current.key_id(), code = error.kind().code(),
                    "the key could not be rotated and seals on: {error}"
                );
                Ok(Some(current))
            }
        }
    }

    async fn advance_from(
        &self,
        slot: Slot,
        current: &Record,
        succession: &Succession,
        used_up: Option<KeyId>,
    ) -> Result<Option<Record>> {
        if succession.unfinished {
            self.deactivate_before(slot, current).await?;
        }
        if let Some(successor) = &succession.successor {
            let waits = !self.lead_is_over(successor).await?;
            return if waits { Ok(None) } else { self.activate(slot, successor).await.map(Some) };
        }
        let now = self.inner.store.now().await?;
        let due = self.configured().keyring.rotation.is_due(current, now) || used_up == Some(current.key_id());
        let misplaced = self.is_misplaced(current).await?;
        if !due && !misplaced {
            return Ok(None);
        }
        let replaced = succession.head.as_ref().map_or(current.key_id(), Record::key_id);
        // Boxed: making a data key asks for the root, which may be due itself.
        let rotated = Box::pin(self.rotate(slot, replaced, &[])).await?;
        if misplaced && rotated.new.state() == KeyState::PreActive {
            // Whoever isolates a scope does not want one more value under the root.
            return self.activate(slot, &rotated.new).await.map(Some);
        }
        Ok((rotated.new.state() == KeyState::Active).then_some(rotated.new))
    }

    /// Whether a published key has waited for its lead. Once this process knows the key, that is by its own clock, which
    /// nobody sets: a jump of the store's makes no key seal that others may not be able to read yet.
    async fn lead_is_over(&self, record: &Record) -> Result<bool> {
        if self.configured().keyring.rotation.lead.is_zero() {
            return Ok(true);
        }
        let known = self.waiting().get(&record.key_id()).copied();
        let ends_at = match known {
            Some(ends_at) => ends_at,
            None => {
                let remaining =
                    self.configured().keyring.rotation.remaining_lead(record, self.inner.store.now().await?);
                let ends_at = self.time().saturating_add(nanos(remaining));
                *self.waiting().entry_or_insert(record.key_id(), ends_at)
            }
        };
        Ok(self.time() >= ends_at)
    }

    fn waiting(&self) -> MutexGuard<'_, Recent<KeyId, u64>> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rotates by command. The key to be replaced is the newest one at this moment: whoever replaces it first has done
    /// what was asked.
    async fn rotate_shown(&self, slot: Slot, dropped: &[KekAlias]) -> Result<Rotated> {
        let shown = self.shown(slot, 1).await?;
        let replaced = shown.first().ok_or_else(|| Error::from(ErrorKind::NoMatchingKey))?.key_id();
        // The store may have the next key without saying so.
        let _asks = Afterwards(|| self.expire_current(slot));
        self.rotate(slot, replaced, dropped).await
    }

    pub(super) async fn rotate(&self, slot: Slot, replaced: KeyId, dropped: &[KekAlias]) -> Result<Rotated> {
        let span = tracing::info_span!("keyfold_rotate", class = slot.class.name());
        self.rotate_in_span(slot, replaced, dropped).instrument(span).await
    }

    async fn rotate_in_span(&self, slot: Slot, replaced: KeyId, dropped: &[KekAlias]) -> Result<Rotated> {
        let before = self.succession(slot).await?;
        let head = before.head.as_ref().ok_or_else(|| Error::from(ErrorKind::NoMatchingKey))?;
        if let Some(waiting) = before.successor {
            return Ok(Rotated { new: waiting, old: before.current.as_ref().map(Record::key_id), by_other: true });
        }
        self.refuse_before_end(head)?;
        let at_once = self.configured().keyring.rotation.lead.is_zero() || before.current.is_none();
        let state = if at_once { KeyState::Active } else { KeyState::PreActive };
        let made = match slot.class {
            _ if head.key_id() != replaced => Err(ErrorKind::Conflict.into()),
            KeyClass::Root => self.insert_root(state, head, before.current.as_ref(), dropped).await,
            _ => self.insert_data_key(slot, head.scope_tag(), state, Some(head)).await,
        };
        let (new, by_other) = match made {
            Ok(record) => (record, false),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let now = self.succession(slot).await?;
                // A conflict without a newer key is not somebody else's rotation.
                let newer = now.successor.or(now.current).filter(|record| record.key_id() > replaced);
                (newer.ok_or(error)?, true)
            }
            Err(error) => return Err(error),
        };
        // Where the other one was faster than this call's first look, what it replaced is what this one was to replace.
        let old = before.current.map(|current| current.key_id()).filter(|old| *old != new.key_id());
        let old = old.or_else(|| by_other.then_some(replaced));
        if new.state() == KeyState::Active {
            self.remember_sealing(slot, new.key_id());
            self.deactivate_before(slot, &new).await?;
        }
        if new.state() == KeyState::PreActive {
            // From now on its lead runs by this process's clock.
            self.lead_is_over(&new).await?;
        }
        self.expire_current(slot);
        Ok(Rotated { new, old, by_other })
    }

    async fn insert_root(
        &self,
        state: KeyState,
        head: &Record,
        current: Option<&Record>,
        dropped: &[KekAlias],
    ) -> Result<Record> {
        self.refuse_long_chain(head.clone()).await?;
        let current = current.ok_or_else(no_active_root)?;
        let policy = self.configured().keyring.keks.clone();
        let mut keks = self.root_keks();
        keks.retain(|alias, _| !dropped.contains(alias));
        if policy.quorum.is_some_and(|quorum| keks.len() < quorum) || keks.is_empty() {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "fewer KEKs are left to wrap a root than the quorum asks for: configure another one first",
            ));
        }
        let left_out = |alias: &KekAlias| dropped.contains(alias) || !policy.wraps_new(alias);
        // A process that knows fewer KEKs than others must not lock those out who reach the rest (DESIGN K11).
        if let Some(missing) = current.kek_aliases().find(|alias| !keks.contains_key(*alias) && !left_out(alias)) {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "a KEK that wraps the present root is not among those that are configured here for roots: configure it \
                 again, or have `keys rewrap --drop-kek` take its wraps away if it is to go",
            )
            .with_detail(missing.as_str()));
        }
        let endorser = self.root(current.key_id()).await?;
        let planned = Planned::root(state);
        let made = self.maker().root(&keks, planned, Some(&endorser), Some(head.key_id())).await;
        made.map(|(record, _)| record)
    }

    async fn activate_successor(&self, slot: Slot) -> Result<Record> {
        let succession = self.succession(slot).await?;
        let _asks = Afterwards(|| self.expire_current(slot));
        match (succession.successor, succession.current) {
            (Some(successor), _) => self.activate(slot, &successor).await,
            (None, Some(current)) => Ok(current),
            (None, None) => Err(match succession.head {
                Some(head) => super::wrong_state(&head),
                None => ErrorKind::NoMatchingKey.into(),
            }),
        }
    }

    /// Lets `successor` seal, and the keys before it only open.
    pub(super) async fn activate(&self, slot: Slot, successor: &Record) -> Result<Record> {
        let root = self.root(successor.authenticator()).await?;
        let maker = self.maker();
        let next = root.with_state(successor, KeyState::Active, maker.now().await?)?;
        let active = match maker.update(&next, successor.sequence()).await {
            Ok(()) => next,
            // Somebody else activated it first, or replaced it.
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let current = self.succession(slot).await?.current;
                current.filter(|current| current.key_id() >= successor.key_id()).ok_or(error)?
            }
            Err(error) => return Err(error),
        };
        self.remember_sealing(slot, active.key_id());
        self.deactivate_before(slot, &active).await?;
        self.expire_current(slot);
        Ok(active)
    }

    /// Deactivates every key of `slot` that is older than `new` and could still seal; also finishes what a crashed
    /// rotation left.
    pub(super) async fn deactivate_before(&self, slot: Slot, new: &Record) -> Result<()> {
        let maker = self.maker();
        for record in self.newest(slot, RECENT).await? {
            let older = record.key_id().generation() < new.key_id().generation();
            if !older || !matches!(record.state(), KeyState::PreActive | KeyState::Active) {
                continue;
            }
            self.verify(&record).await?;
            let root = self.root(record.authenticator()).await?;
            let next = root.with_state(&record, KeyState::Deactivated, maker.now().await?)?;
            match maker.update(&next, record.sequence()).await {
                // Somebody else deactivated it first.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                result => result?,
            }
        }
        Ok(())
    }
}

fn no_active_root() -> Error {
    Error::new(ErrorKind::NoMatchingKey, "the store has no active root key of this keyring")
}
