//! What can be replaced while the keyring is open, and looking after the caches.

use super::audited::Audit;
use super::isolated::check_keks;
use super::observed::ObservedKms;
use super::{Keyring, KeyringConfig};
use crate::cache::{Bounds, CachePolicy, Cached, Swept};
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
    /// The same, to be forgotten when the keyring is closed; none of a view of another one.
    pub(super) observed: Vec<Arc<ObservedKms>>,
}

impl Configured {
    pub(super) fn new(keyring: KeyringConfig, keks: BTreeMap<KekAlias, Arc<dyn Kms>>, audit: &Audit) -> Result<Self> {
        keyring.fips.check_build()?;
        crate::fips::self_test()?;
        if keyring.root_pins.is_empty() {
            // F-8.1-1.
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
        keyring.memory.check()?;
        let mut observed = Vec::with_capacity(keks.len());
        let keks = keks.into_iter().map(|(alias, inner)| {
            let kms = Arc::new(ObservedKms::new(alias.clone(), inner, audit.clone()));
            observed.push(kms.clone());
            (alias, kms as Arc<dyn Kms>)
        });
        Ok(Self { keyring, keks: keks.collect(), observed })
    }

    /// Has whoever asks a KEK from now on fail with [`Closed`](ErrorKind::Closed).
    fn forget_keks(&self) {
        self.observed.iter().for_each(|kek| kek.forget());
    }
}

/// How the limits of a cache policy are shared out: what one key costs in all its places.
pub(super) struct Shares {
    pub(super) keys: Bounds,
    pub(super) scopes: Bounds,
    pub(super) current: Bounds,
    pub(super) roots: Bounds,
    pub(super) frame_keys: Bounds,
    pub(super) frame_roots: Bounds,
    /// Keys whose sequence and state are remembered.
    pub(super) seen: usize,
    pub(super) frame_seen: usize,
}

impl Shares {
    /// Bytes of what is remembered of one key: its mark, that it sealed, and how much it may seal still.
    const MARK: usize = 384;
    /// Roots are few, and every other key hangs under one.
    const MAX_ROOTS: usize = 1024;
    /// Most roots that frames brought.
    const MAX_FRAME_ROOTS: usize = 64;

    pub(super) fn of(policy: &CachePolicy) -> Self {
        let part = |shares: usize| policy.max_bytes / 32 * shares;
        let framed = policy.max_keys / 16;
        let bounds = |entries, bytes| Bounds { entries, bytes, max_idle: policy.max_idle, negative: policy.negative };
        Self {
            keys: bounds(policy.max_keys - framed, part(14)),
            scopes: Bounds { negative: Duration::ZERO, ..bounds(usize::MAX, part(4)) },
            current: bounds(usize::MAX, part(8)),
            roots: bounds(Self::MAX_ROOTS, usize::MAX),
            frame_keys: bounds(framed, part(1)),
            frame_roots: bounds(Self::MAX_FRAME_ROOTS, usize::MAX),
            seen: part(4) / Self::MARK,
            frame_seen: part(1) / Self::MARK,
        }
    }
}

impl Keyring {
    /// Puts another configuration in the place of this one: policy, pins, KEKs, cache and rotation.
    ///
    /// From now on new handles follow it, and every key that is renewed must be trusted by it: all keys are renewed at
    /// the next opportunity. Handles that exist keep the policy that they were made with, and go on with what
    /// [`fips`](KeyringConfig::fips) refuses from now on; make them anew.
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
        let next = Configured::new(config, keks, &self.inner.audit)?;
        let (inner, shares, next) = (&*self.inner, Shares::of(&next.keyring.cache), Arc::new(next));
        inner.configured.swap(next.clone());
        if let Err(error) = self.check_open() {
            // Closed meanwhile, by whoever may have come too early to see it.
            next.forget_keks();
            return Err(error);
        }
        inner.keys.set_bounds(shares.keys);
        inner.scopes.set_bounds(shares.scopes);
        inner.current.set_bounds(shares.current);
        inner.roots.set_bounds(shares.roots);
        inner.frames.set_bounds(&shares);
        self.invalidate();
        tracing::info!("configuration reloaded");
        Ok(())
    }

    /// Has every key renewed before it is next used by an awaiting call, whatever its age: after a key was disabled,
    /// say, or records were changed by another process. A key that is being fetched at this moment is renewed as well.
    /// Handles that are not awaited go on with the present key; see [`CachePolicy::max_age`].
    pub fn invalidate(&self) {
        self.inner.epoch.advance();
    }

    /// Looks after the caches: renews what is in use and due, and forgets what has idled. Call it every few seconds
    /// from a task of its own, and no request waits for a renewal. Has what was counted for an audit trail recorded when its
    /// interval has passed.
    ///
    /// In use is what a handle holds, and what was asked for since it was last renewed.
    ///
    /// # Errors
    ///
    /// The last error of a renewal, or of recording counts for an audit trail; the others were tried all the same.
    pub async fn refresh(&self) -> Result<()> {
        self.check_open()?;
        let inner = &*self.inner;
        let now = self.time();
        inner.scopes.sweep(now);
        inner.dead_roots.sweep(now);
        inner.frames.sweep(now);
        let mut result = inner.audit.record_due_counts();
        // From the top: whoever seals holds a key, which holds its root. The oldest key first, so that the order is that of no
        // hash table, and a run by a virtual clock repeats itself.
        let mut swept = inner.current.sweep(now);
        swept.sort_by_cached_key(|current| current.value.key_id());
        for Swept { value: current, in_use, .. } in swept {
            if !in_use {
                continue;
            }
            if current.key().is_some() {
                // Not only where the last look is due: a reader's may have shown another key than seals here.
                result = self.ready(&current).await.and(result);
            } else if current.key_id().is_some() {
                self.look_at_newest(&current).await;
            }
        }
        let mut oldest = None;
        let mut swept = inner.keys.sweep(now);
        swept.sort_unstable_by_key(|key| key.key.0);
        for Swept { key: (key_id, slot), value, used_at, in_use } in swept {
            if slot.class == KeyClass::Data {
                oldest = Some(oldest.map_or(key_id.generation(), |oldest: u32| oldest.min(key_id.generation())));
            }
            if in_use && value.needs_renewal(self.time()) {
                result = self.acquire(key_id, slot).await.map(drop).and(result);
                inner.keys.restore_use(&(key_id, slot), used_at);
            }
        }
        let mut swept = inner.roots.sweep(now);
        swept.sort_unstable_by_key(|root| root.key);
        for Swept { key: key_id, value, used_at, in_use } in swept {
            if in_use && value.needs_renewal(self.time()) {
                result = self.root(key_id).await.map(drop).and(result);
                inner.roots.restore_use(&key_id, used_at);
            }
        }
        observe::key_memory(keyfold_memory::status());
        if let Some(oldest) = oldest {
            observe::oldest_generation(oldest);
        }
        result
    }

    /// Makes the keyring ready for a fork of this process, which follows at once: the child can then use it and its handles. See
    /// [`KeyStore::release`](crate::KeyStore::release). May block while another thread asks the store. What was counted for an audit trail is
    /// recorded, so that the child does not report it once more.
    ///
    /// No other thread may be in a call of any keyring until the fork is over: the child would find its locks held for ever, and the
    /// store open.
    pub fn before_fork(&self) {
        self.inner.audit.before_fork();
        self.inner.store.release();
        self.neighbours().iter().for_each(Self::before_fork);
    }

    /// Ends the keyring: every call and every handle of it fails with [`Closed`](ErrorKind::Closed) from now on, and so do calls
    /// that are under way where they would ask a KEK; others may finish. Ends its audit trail.
    ///
    /// KEKs are dropped, and all keys erased but those that a handle holds: they stay in memory, with those of the root above them,
    /// until the handle is dropped. The audit KEK stays until the last handle and the last clone of the keyring are dropped: what a call
    /// that is under way has done is still recorded.
    pub fn close(&self) {
        let inner = &*self.inner;
        inner.closed.store(true, Ordering::Release);
        let last = inner.configured.load_full();
        last.forget_keks();
        // Put back, which orders this and a reload that goes on at the same time: one of the two sees what the other has done.
        inner.configured.swap(last).forget_keks();
        // What is being fetched at this moment does not stay either.
        inner.current.close();
        inner.keys.close();
        inner.roots.close();
        inner.dead_roots.close();
        inner.frames.close();
        inner.scopes.close();
        inner.audit.close();
        tracing::info!("keyring closed");
    }

    /// Entries and bytes of the caches of this keyring, as they are counted against [`CachePolicy::max_bytes`].
    #[must_use]
    pub fn occupancy(&self) -> (usize, usize) {
        let inner = &*self.inner;
        [inner.keys.occupancy(), inner.current.occupancy(), inner.scopes.occupancy(), inner.roots.occupancy()]
            .into_iter()
            .chain(inner.frames.occupancy())
            .fold((0, 0), |(entries, bytes), (n, b)| (entries + n, bytes + b))
    }
}
