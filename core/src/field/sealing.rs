//! The key that a handle seals whole documents and streams under.

use crate::error::Result;
use crate::keyring::{CurrentKey, Keyring, OpenKey};
use crate::wire::KeyId;
use std::sync::Arc;

/// The key of a slot that seals. Made ready before a handle has it.
pub(crate) struct SealingKeys {
    current: Arc<CurrentKey>,
}

impl SealingKeys {
    pub(crate) async fn new(ring: &Keyring, current: Arc<CurrentKey>) -> Result<Self> {
        ring.ready(&current).await?;
        Ok(Self { current })
    }

    /// Makes sure that the key that seals is the current one, and was confirmed in time.
    pub(crate) async fn ready(&self, ring: &Keyring) -> Result<()> {
        ring.ready(&self.current).await
    }

    /// Whether [`ready`](Self::ready) has nothing to do.
    pub(crate) fn is_ready(&self, ring: &Keyring) -> bool {
        self.current.is_ready(ring.time())
    }

    /// The key that sealed last, or would now.
    pub(crate) fn key_id(&self) -> KeyId {
        self.held().key_id
    }

    /// The key that seals, if it may be used now, with `n` values counted against its allowance.
    pub(crate) fn usable(&self, ring: &Keyring, n: usize) -> Result<Arc<OpenKey>> {
        ring.check_open()?;
        let key = self.held();
        self.current.check_seals(&key, ring.time())?;
        key.count(n as u64)?;
        Ok(key)
    }

    /// As [`ready`](Self::ready) and [`usable`](Self::usable), with what `count` counts: see [`Keyring::take`].
    pub(crate) async fn take(
        &self,
        ring: &Keyring,
        count: impl Fn(&OpenKey) -> Result<usize>,
    ) -> Result<(Arc<OpenKey>, usize)> {
        ring.take(&self.current, count).await
    }

    fn held(&self) -> Arc<OpenKey> {
        self.current.key().clone().expect("made ready before a handle has it")
    }
}
