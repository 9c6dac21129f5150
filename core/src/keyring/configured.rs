//! What can be replaced while the keyring is open, and looking after the caches.

use super::isolated::check_keks;
use super::{Keyring, KeyringConfig};
use crate::cache::{Bounds, CachePolicy, Cached};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::KeyClass;
use crate::kms::{KekAlias, Kms};
use crate::observe;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) struct Configured {
    pub(super) keyring: KeyringConfig,
    pub(super) keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
}

impl Configured {
    pub(super) fn new(keyring: KeyringConfig, keks: BTreeMap<KekAlias, Arc<dyn Kms>>) -> Result<Self> {
        if keyring.root_pins.is_empty() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "root_pins is empty: without a pinned root no key record can be trusted, and there is no trust on first use",
            ));
        }
        if keks.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, "no KEK is configured"));
        }
        check_keks(&keyring, &keks)?;
        keyring.cache.check()?;
        keyring.rotation.check()?;
        Ok(Self { keyring, keks })
    }
}

/// How the limits of a cache policy are shared out: what one key costs in all its places.
pub(super) struct Shares {
    pub(super) keys: Bounds,
    pub(super) scopes: Bounds,
    pub(super) current: Bounds,
    pub(super) roots: Bounds,
    /// Keys whose sequence and state are remembered.
    pub(super) seen: usize,
}

impl Shares {
    /// Bytes of one mark in memory, in its two tables.
    const MARK: usize = 192;
    /// Roots are few, and every other key hangs under one.
    const MAX_ROOTS: usize = 1024;

    pub(super) fn of(policy: &CachePolicy) -> Self {
        let part = |eighths: usize| policy.max_bytes / 8 * eighths;
        let bounds = |entries, bytes| Bounds { entries, bytes, max_idle: policy.max_idle, negative: policy.negative };
        Self {
            keys: bounds(policy.max_keys, part(4)),
            scopes: Bounds { negative: Duration::ZERO, ..bounds(usize::MAX, part(1)) },
            current: bounds(usize::MAX, part(2)),
            roots: bounds(Self::MAX_ROOTS, usize::MAX),
            seen: part(1) / Self::MARK,
        }
    }
}

impl Keyring {
    /// Puts another configuration in the place of this one: policy, pins, KEKs, cache and rotation.
    ///
    /// From now on new handles follow it, and every key that is renewed must be trusted by it: all keys are renewed at
    /// the next opportunity. Handles that exist keep the policy that they were made with; make them anew.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): of another lineage or environment, which is another keyring, or
    ///   one that could not be opened. The present configuration stays.
    /// - [`Closed`](ErrorKind::Closed): after [`close`](Self::close).
    pub fn reload(&self, config: KeyringConfig, keks: BTreeMap<KekAlias, Arc<dyn Kms>>) -> Result<()> {
        self.check_open()?;
        let present = self.configured();
        if (config.lineage, &config.environment) != (present.keyring.lineage, &present.keyring.environment) {
            return Err(Error::new(
                ErrorKind::Configuration,
                "another lineage or environment is another keyring: open it beside this one",
            ));
        }
        let next = Configured::new(config, keks)?;
        let (inner, shares) = (&*self.inner, Shares::of(&next.keyring.cache));
        inner.configured.store(Arc::new(next));
        inner.keys.set_bounds(shares.keys);
        inner.scopes.set_bounds(shares.scopes);
        inner.current.set_bounds(shares.current);
        inner.roots.set_bounds(shares.roots);
        self.invalidate();
        tracing::info!("configuration reloaded");
        Ok(())
    }

    /// Has every key renewed before it is next used by an awaiting call, whatever its age: after a key was disabled,
    /// say, or records were changed by another process. Keys stay in use meanwhile; see [`CachePolicy::max_age`].
    pub fn invalidate(&self) {
        let now = self.time();
        self.inner.roots.sweep(now).iter().for_each(|(_, root)| root.lease().ask_for_renewal());
        self.inner.keys.sweep(now).iter().for_each(|(_, key)| {
            key.lease().ask_for_renewal();
            // A key may outlive its root's place in the cache.
            key.root.lease().ask_for_renewal();
        });
        self.inner.current.sweep(now).iter().for_each(|(_, current)| current.expire());
    }

    /// Looks after the caches: renews what is in use and due, and forgets what has idled. Call it every few seconds
    /// from a task of its own, and no request waits for a renewal.
    ///
    /// # Errors
    ///
    /// The last error of a renewal; the others were tried all the same.
    pub async fn refresh(&self) -> Result<()> {
        self.check_open()?;
        let now = self.time();
        self.inner.scopes.sweep(now);
        let mut result = Ok(());
        for (key_id, root) in self.inner.roots.sweep(now) {
            if root.needs_renewal(self.time()) {
                result = self.root(key_id).await.map(drop).and(result);
            }
        }
        let keys = self.inner.keys.sweep(now);
        let data = keys.iter().filter(|((_, slot), _)| slot.class == KeyClass::Data);
        if let Some(oldest) = data.map(|((key_id, _), _)| key_id.generation()).min() {
            observe::oldest_generation(oldest);
        }
        for ((key_id, slot), key) in keys {
            if key.needs_renewal(self.time()) {
                result = self.acquire(key_id, slot).await.map(drop).and(result);
            }
        }
        for (_, current) in self.inner.current.sweep(now) {
            if current.key_id().is_some() && current.needs_renewal(self.time()) {
                if current.key().is_some() {
                    result = self.ready(&current).await.and(result);
                } else {
                    self.look_at_newest(&current).await;
                }
            }
        }
        result
    }

    /// Ends the keyring: every call and every handle of it fails with [`Closed`](ErrorKind::Closed) from now on, calls
    /// that are under way may finish, and keys are erased when the last of their handles is dropped.
    pub fn close(&self) {
        let inner = &*self.inner;
        inner.closed.store(true, Ordering::Release);
        inner.current.clear();
        inner.keys.clear();
        inner.roots.clear();
        inner.scopes.clear();
        tracing::info!("keyring closed");
    }

    /// Entries and bytes of the caches of this keyring, as they are counted against [`CachePolicy::max_bytes`].
    #[must_use]
    pub fn occupancy(&self) -> (usize, usize) {
        let inner = &*self.inner;
        [inner.keys.occupancy(), inner.current.occupancy(), inner.scopes.occupancy(), inner.roots.occupancy()]
            .into_iter()
            .fold((0, 0), |(entries, bytes), (n, b)| (entries + n, bytes + b))
    }
}
