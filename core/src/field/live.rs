//! The keys of a partition under which values may have been sealed.

use crate::cache::Cached;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Keyring, OpenKey};
use crate::keys::KeyClass;
use crate::store::Slot;
use crate::wire::KeyId;
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;

/// Exactly the keys that the configuration names, held together.
pub(super) struct LiveKeys {
    slot: Slot,
    /// The key that seals, then the others.
    key_ids: Vec<KeyId>,
    /// The keys, in that order. Replaced as a whole.
    held: ArcSwap<Vec<Arc<OpenKey>>>,
}

impl LiveKeys {
    /// The keys of a partition, not yet held.
    pub(super) fn of(ring: &Keyring, partition: &str) -> Result<Self> {
        let keys = ring.lookup(partition)?;
        let slot = ring.slot(KeyClass::Lookup, keys.partition);
        let mut key_ids = vec![keys.seals];
        key_ids.extend(keys.opens.into_iter().filter(|key_id| *key_id != keys.seals));
        Ok(Self { slot, key_ids, held: ArcSwap::default() })
    }

    pub(super) fn key_ids(&self) -> &[KeyId] {
        &self.key_ids
    }

    pub(super) async fn ready(&self, ring: &Keyring) -> Result<()> {
        ring.check_open()?;
        let now = ring.time();
        let held = self.held.load();
        if held.len() != self.key_ids.len() || held.iter().any(|key| key.needs_renewal(now)) {
            let mut keys = Vec::with_capacity(self.key_ids.len());
            for &key_id in &self.key_ids {
                keys.push(ring.acquire(key_id, self.slot).await?);
            }
            self.held.store(Arc::new(keys));
        }
        Ok(())
    }

    /// The keys, each to be checked before use.
    pub(super) fn held(&self) -> Guard<Arc<Vec<Arc<OpenKey>>>> {
        self.held.load()
    }

    /// The key that seals, if it may.
    pub(super) fn sealing(&self, ring: &Keyring) -> Result<Arc<OpenKey>> {
        ring.check_open()?;
        let held = self.held.load();
        let key = held.first().ok_or_else(|| Error::new(ErrorKind::Internal, "a handle is made ready first"))?;
        key.check_usable(ring.time())?;
        key.check_seals()?;
        Ok(key.clone())
    }
}
