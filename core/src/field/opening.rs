//! The keys that a handle opens whole documents and streams with.

use crate::cache::Cached;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{CurrentKey, Keyring, OpenKey};
use crate::store::Slot;
use crate::wire::KeyId;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys of one slot that were loaded, by their IDs, and which of them seals.
pub(crate) struct OpeningKeys {
    slot: Slot,
    current: Arc<CurrentKey>,
    /// Replaced as a whole, so that readers on many threads never meet.
    held: ArcSwap<BTreeMap<KeyId, Arc<OpenKey>>>,
}

impl OpeningKeys {
    pub(crate) fn new(slot: Slot, current: Arc<CurrentKey>) -> Self {
        Self { slot, current, held: ArcSwap::default() }
    }

    /// Acquires a key unless it is held, and renews it when that is due.
    pub(crate) async fn load(&self, ring: &Keyring, key_id: KeyId) -> Result<()> {
        let now = ring.time();
        if self.current.needs_renewal(now) {
            Box::pin(ring.look_at_newest(&self.current)).await;
        }
        let held = self.held.load().get(&key_id).cloned();
        let key = match held {
            Some(key) if !key.needs_renewal(now) => return Ok(()),
            Some(key) => Box::pin(ring.renew_held(&key)).await?,
            None => Box::pin(ring.acquire(key_id, self.slot)).await?,
        };
        self.held.rcu(|held| {
            let mut held = BTreeMap::clone(held);
            held.insert(key_id, key.clone());
            held
        });
        Ok(())
    }

    /// Whether it is the key that seals, as [`load`](Self::load) last saw it.
    pub(crate) fn is_current(&self, key_id: KeyId) -> bool {
        self.current.key_id() == Some(key_id)
    }

    /// A key that is held, and that the cache policy lets be used now.
    pub(crate) fn usable(&self, ring: &Keyring, key_id: KeyId) -> Result<Arc<OpenKey>> {
        let key = self.held.load().get(&key_id).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NoMatchingKey, "the handle does not hold the key: call load_key first")
                .with_detail(key_id.to_string())
        })?;
        key.check_usable(ring.time())?;
        Ok(key)
    }
}
