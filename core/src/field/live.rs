//! The keys of a partition under which values may have been sealed.

use super::used::Uses;
use crate::cache::Cached;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Keyring, OpenKey};
use crate::keys::KeyClass;
use crate::store::Slot;
use crate::wire::KeyId;
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// Exactly the keys that the configuration names, held together by a handle on one field.
pub(super) struct LiveKeys {
    ring: Keyring,
    /// What the handle does with them.
    pub(super) uses: Uses,
    slot: Slot,
    /// The key that seals, then the others.
    key_ids: Vec<KeyId>,
    /// The keys, in that order. Replaced as a whole.
    held: ArcSwap<Vec<Arc<OpenKey>>>,
}

impl LiveKeys {
    /// The keys of a partition for the field `field`, not yet held.
    pub(super) fn of(ring: Keyring, field: &str, partition: &str) -> Result<Self> {
        let keys = ring.lookup(partition)?;
        let slot = ring.slot(KeyClass::Lookup, keys.partition);
        let mut key_ids = vec![keys.seals];
        key_ids.extend(keys.opens.into_iter().filter(|key_id| *key_id != keys.seals));
        Ok(Self { uses: Uses::new(&ring, field), ring, slot, key_ids, held: ArcSwap::default() })
    }

    pub(super) fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    /// Holds all keys, within the times of the cache policy.
    pub(super) async fn ready(&self) -> Result<()> {
        self.acquire().await.map_err(|error| self.uses.failed(error))
    }

    async fn acquire(&self) -> Result<()> {
        let now = self.now()?;
        let held = self.held.load();
        if held.len() != self.key_ids.len() || held.iter().any(|key| key.needs_renewal(now)) {
            let mut keys = Vec::with_capacity(self.key_ids.len());
            for &key_id in &self.key_ids {
                keys.push(self.ring.acquire_known(key_id, self.slot).await?);
            }
            self.held.store(Arc::new(keys));
        }
        Ok(())
    }

    /// The time that keys are checked against, in nanoseconds of the clock, if the keyring is open.
    pub(super) fn now(&self) -> Result<u64> {
        self.ring.check_open()?;
        Ok(self.ring.time())
    }

    /// The keys, each to be checked before use.
    pub(super) fn held(&self) -> Guard<Arc<Vec<Arc<OpenKey>>>> {
        self.held.load()
    }

    /// The first key, which seals where it may.
    pub(super) fn first(&self) -> Result<Arc<OpenKey>> {
        let now = self.now()?;
        let held = self.held.load();
        let key = held.first().ok_or_else(|| Error::new(ErrorKind::Internal, "a handle is made ready first"))?;
        key.check_usable(now)?;
        Ok(key.clone())
    }

    /// The key that seals, if it may.
    pub(super) fn sealing(&self) -> Result<Arc<OpenKey>> {
        let key = self.first()?;
        key.check_seals()?;
        Ok(key)
    }
}
