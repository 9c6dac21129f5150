//! Keys over time: rotation by command (DESIGN K13), after which a new generation seals and the old ones open; and
//! the states of a single key.

use super::open_key::OpenRoot;
use super::{Keyring, RECENT};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, SlotId};
use crate::record::{KeyState, Record};
use crate::store::Slot;
use crate::wire::KeyId;
use std::sync::Arc;

/// What a rotation left behind.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The key that seals from now on.
    pub new: Record,
    /// The key that sealed before; it still opens.
    pub old: Option<KeyId>,
    /// Whether another process rotated at the same moment, and its key is the new one.
    pub by_other: bool,
}

impl Keyring {
    /// Makes a new data key for `scope` (`None`: the keyring's own), after which the old one only opens.
    ///
    /// However many processes rotate at once, one new generation results. No request to the key service when the
    /// root is known.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey): there is no such scope.
    /// - [`Store`](ErrorKind::Store), [`Kms`](ErrorKind::Kms), [`RecordRejected`](ErrorKind::RecordRejected):
    ///   the old key still seals, or the new one does; repeating the call is safe.
    pub async fn rotate_data_key(&self, scope: Option<&str>) -> Result<Rotated> {
        let slot = self.data_slot(scope).await?;
        self.rotate(slot).await
    }

    /// Makes a new root, endorsed by the current one and wrapped by every KEK. New keys are made under it; the old
    /// root still vouches for the keys under it. Pin the new root's commitment everywhere, then remove the old pin
    /// once no key depends on it.
    ///
    /// # Errors
    ///
    /// As for [`rotate_data_key`](Self::rotate_data_key), and [`PolicyRefused`](ErrorKind::PolicyRefused): so many
    /// roots have followed a pinned one that a process with that pin alone could not follow one more.
    pub async fn rotate_root(&self) -> Result<Rotated> {
        self.rotate(self.slot(KeyClass::Root, SlotId::NONE)).await
    }

    /// Moves a key to `state` by hand: deactivates it, marks it compromised, schedules or takes back its destruction,
    /// or destroys it. Destroying removes its wraps from the store for good and leaves a tombstone, so that errors
    /// say what happened to the key.
    ///
    /// How long a key waits between `DestroyPending` and `Destroyed` is up to the caller. This keyring stops using the
    /// key at once, handles included; others at their next renewal, see [`CachePolicy`](crate::CachePolicy).
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the key is a root, or the configuration names it: without it
    ///   other keys would be lost as well.
    /// - [`KeyState`](ErrorKind::KeyState): the state cannot change that way (NIST SP 800-57 part 1, §7).
    /// - [`Conflict`](ErrorKind::Conflict): somebody else changed the key first; read again and repeat.
    /// - Those of acquiring a key. Nothing has changed in each case.
    pub async fn change_state(&self, key_id: KeyId, state: KeyState) -> Result<Record> {
        let record = self.record(key_id).await?;
        self.verify(&record).await?;
        let configured = self.configured();
        let config = &configured.keyring;
        let named = key_id == config.scope_names
            || config.lookup.values().any(|keys| keys.seals == key_id || keys.opens.contains(&key_id));
        if named || record.class() == KeyClass::Root {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "the state of root keys, and of keys that the configuration names, is not changed by hand",
            )
            .with_detail(key_id.to_string()));
        }
        let root = self.root(record.authenticator()).await?;
        let maker = self.maker();
        let next = root.with_state(&record, state, maker.now().await?)?;
        maker.update(&next, record.sequence()).await?;
        self.remember(&next)?;
        if state.may_open() {
            self.inner.keys.remove(&(key_id, next.slot()));
        } else {
            self.inner.keys.end(&(key_id, next.slot()), &super::wrong_state(&next));
        }
        self.current(next.slot(), None).expire();
        Ok(next)
    }

    /// The active root of the highest generation.
    pub(super) async fn current_root(&self) -> Result<Arc<OpenRoot>> {
        let slot = self.slot(KeyClass::Root, SlotId::NONE);
        let key_id = self
            .current_record(slot)
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NoMatchingKey, "the store has no active root key of this keyring"))?
            .key_id();
        self.root(key_id).await
    }

    async fn rotate(&self, slot: Slot) -> Result<Rotated> {
        // The key to be replaced is the newest one at this moment: whoever replaces it first has done what was asked.
        let shown = self.shown(slot, 1).await?;
        let replaced = shown.first().ok_or_else(|| Error::from(ErrorKind::NoMatchingKey))?.key_id();
        let before = self.newest(slot, RECENT).await?;
        let head = before.first().ok_or_else(|| Error::from(ErrorKind::NoMatchingKey))?;
        // A planted record must not become the predecessor that a new generation is numbered and tagged after.
        self.verify(head).await?;
        let sealed = |record: &&Record| record.state() == KeyState::Active && record.key_id() <= replaced;
        let old = before.iter().chain(&shown).find(sealed).map(Record::key_id);
        let root = self.current_root().await?;
        let made = match slot.class {
            _ if head.key_id() != replaced => Err(ErrorKind::Conflict.into()),
            KeyClass::Root => {
                self.refuse_long_chain(head.clone()).await?;
                self.maker().root(&self.configured().keks, Some(&root), Some(head.key_id())).await.map(|(r, _)| r)
            }
            _ => self.insert_data_key(slot, head.scope_tag(), Some(head.key_id())).await,
        };
        let (new, by_other) = match made {
            Ok(record) => (record, false),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let current = self.current_record(slot).await?;
                // A conflict without a newer key is not somebody else's rotation.
                let newer = current.filter(|record| record.key_id().generation() > replaced.generation());
                (newer.ok_or(error)?, true)
            }
            Err(error) => return Err(error),
        };
        self.remember_sealing(slot, new.key_id());
        self.deactivate_before(slot, &new).await?;
        self.current(slot, None).expire();
        Ok(Rotated { new, old, by_other })
    }

    /// A key to seal with in place of `key_id`: a new one, unless somebody has replaced it already.
    pub(super) async fn rotate_if_still(&self, slot: Slot, key_id: KeyId) -> Result<KeyId> {
        match self.current_record(slot).await? {
            Some(record) if record.key_id() != key_id => Ok(record.key_id()),
            _ => Ok(self.rotate(slot).await?.new.key_id()),
        }
    }

    /// Deactivates every active key of `slot` that is older than `new`; also finishes what a crashed rotation left.
    async fn deactivate_before(&self, slot: Slot, new: &Record) -> Result<()> {
        let maker = self.maker();
        for record in self.newest(slot, RECENT).await? {
            let older = record.key_id().generation() < new.key_id().generation();
            if !older || record.state() != KeyState::Active {
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
