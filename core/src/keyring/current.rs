//! Which key seals: the newest active one of a scope, or the one that the configuration names for a partition.

use super::Keyring;
use super::open_key::OpenKey;
use super::rotate::Succession;
use crate::cache::{Cached, Gate, Lease, RETRY, explained, is_absence, keep_after, remembers};
use crate::clock::nanos;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::SlotId;
use crate::record::KeyState;
use crate::store::Slot;
use crate::wire::KeyId;
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often a key that seals may have been replaced before it was read.
const MAX_REPLACED: usize = 16;

/// The key that seals, shared by all handles of a scope or partition: what one of them learns, all of them know.
pub(crate) struct CurrentKey {
    slot: Slot,
    /// The key that the configuration names; `None`: the newest active one.
    exact: Option<KeyId>,
    /// How long `newest` is believed without asking the store, and `key` taken to be the newest.
    check: Lease,
    newest: ArcSwapOption<KeyId>,
    key: ArcSwapOption<OpenKey>,
    /// How often this process has taken a key of the slot out of service.
    withdrawals: AtomicU64,
    /// How often it had when it last asked which key seals. Until it has asked again nothing seals on while nobody answers.
    withdrawals_seen: AtomicU64,
    gate: Gate,
    /// While `key` is running out, or is not known to be the newest: when to ask for another one again.
    ask_again_at: AtomicU64,
}

impl CurrentKey {
    /// The key ID that seals, as far as is known.
    #[inline]
    pub(crate) fn key_id(&self) -> Option<KeyId> {
        self.newest.load().as_deref().copied()
    }

    /// The key that seals, to be checked before use; `None` before the first [`Keyring::ready`].
    #[inline]
    pub(crate) fn key(&self) -> arc_swap::Guard<Option<Arc<OpenKey>>> {
        self.key.load()
    }

    /// Asks the store at the next opportunity, whatever it said a moment ago.
    fn expire(&self) {
        self.gate.forget_failure();
        self.check.ask_for_renewal();
    }

    /// A key of the slot seals no more: this process has said so itself.
    fn withdraw(&self) {
        self.withdrawals.fetch_add(1, Ordering::SeqCst);
        self.expire();
    }

    fn is_withdrawn(&self) -> bool {
        self.withdrawals_seen.load(Ordering::SeqCst) != self.withdrawals.load(Ordering::SeqCst)
    }

    /// Not before [`RETRY`] has passed since `now`, as far as another key is concerned.
    fn ask_again_after(&self, now: u64) {
        self.ask_again_at.store(now.saturating_add(nanos(RETRY)), Ordering::Relaxed);
    }

    /// Whether [`Keyring::ready`] has nothing to do.
    #[inline]
    pub(crate) fn is_ready(&self, now: u64) -> bool {
        self.is_ready_with(self.key().as_deref(), now)
    }

    /// As [`is_ready`](Self::is_ready), if `key` is what [`key`](Self::key) has just given.
    #[inline]
    pub(crate) fn is_ready_with(&self, key: Option<&OpenKey>, now: u64) -> bool {
        let Some(key) = key else { return false };
        let is_last = !key.is_running_out() && self.key_id() == Some(key.key_id);
        // A reader may have put the next look off to beyond the time for which the last one counts.
        let is_time = || now >= self.ask_again_at.load(Ordering::Relaxed) || !self.check.is_usable(now);
        let asks = self.is_withdrawn() || key.is_retired() || !is_last && is_time();
        !self.check.needs_renewal(now) && !key.needs_renewal(now) && !asks
    }

    /// Whether callers go on with the key while one of them renews.
    fn is_usable(&self, now: u64) -> bool {
        let is_usable =
            |key: &OpenKey| key.is_usable(now) && !key.is_retired() && !key.is_used_up() && !self.is_withdrawn();
        self.check.is_usable(now) && self.key.load().as_deref().is_some_and(is_usable)
    }

    /// Refuses to seal under `key`, which is what [`key`](Self::key) has just given, where it is not known in time that it
    /// still seals: readers renew the lease of the key for themselves, also of one that was replaced or only opens.
    ///
    /// # Errors
    ///
    /// Those of [`OpenKey::check_usable`] and [`OpenKey::check_not_retired`].
    #[inline]
    pub(crate) fn check_seals(&self, key: &OpenKey, now: u64) -> Result<()> {
        key.check_usable(now)?;
        key.check_not_retired()?;
        // Which key the configuration names does not change.
        if self.check.is_usable(now) || self.exact.is_some() { Ok(()) } else { Err(key.held_for_too_long(&self.check)) }
    }
}

impl Cached for CurrentKey {
    fn lease(&self) -> &Lease {
        &self.check
    }

    fn size(&self) -> usize {
        // With the key ID behind its own reference count, and the key, which it may be the last to hold.
        size_of::<Self>() + size_of::<KeyId>() + 16 + OpenKey::sealing_size()
    }
}

impl Keyring {
    /// The shared state of the key that seals in `slot`. Asks nobody.
    pub(crate) fn current(&self, slot: Slot, exact: Option<KeyId>) -> Arc<CurrentKey> {
        let now = self.time();
        self.inner.current.get_or_insert(&(slot, exact), now, || CurrentKey {
            slot,
            exact,
            check: Lease::none(&self.inner.epoch),
            newest: ArcSwapOption::from_pointee(exact),
            key: ArcSwapOption::empty(),
            withdrawals: AtomicU64::new(0),
            withdrawals_seen: AtomicU64::new(0),
            gate: Gate::new(&self.inner.epoch),
            ask_again_at: AtomicU64::new(0),
        })
    }

    /// `key_id` seals no more in `slot`, as this process has said itself: who seals there asks first, also a handle from
    /// before a reload, under a key that the configuration named then.
    pub(super) fn withdraw(&self, slot: Slot, key_id: KeyId) {
        for exact in [None, Some(key_id)] {
            if let Some(current) = self.inner.current.find(&(slot, exact)) {
                current.withdraw();
            }
        }
    }

    /// Another key may seal in `slot` from now on: whoever seals there asks for it first.
    pub(super) fn expire_current(&self, slot: Slot) {
        if let Some(current) = self.inner.current.find(&(slot, None)) {
            current.expire();
        }
    }

    /// Makes sure that `current` holds the key that seals, renewed and not used up.
    ///
    /// Costs a few loads when that is so. While one caller renews, others go on with the present key.
    #[inline]
    pub(crate) async fn ready(&self, current: &CurrentKey) -> Result<()> {
        self.check_open()?;
        // Boxed, so that what is seldom done does not make every call's future large.
        if current.is_ready(self.time()) { Ok(()) } else { Box::pin(self.make_ready(current)).await }
    }

    /// The key that seals, ready and with what `count` counts against its allowance. While that is nothing
    /// ([`LimitExceeded`](ErrorKind::LimitExceeded)), and another key follows, that one.
    pub(crate) async fn take(
        &self,
        current: &CurrentKey,
        count: impl Fn(&OpenKey) -> Result<usize>,
    ) -> Result<(Arc<OpenKey>, usize)> {
        let mut used_up = None;
        loop {
            self.ready(current).await?;
            let key = current.key().clone().expect("ready sets it");
            if key.is_retired() {
                // A reader has heard so just now.
                continue;
            }
            current.check_seals(&key, self.time())?;
            match count(&key) {
                Err(error) if error.kind() == ErrorKind::LimitExceeded && used_up != Some(key.key_id) => {
                    used_up = Some(key.key_id);
                }
                Err(_) if key.is_used_up() => {
                    let why = "the key has sealed as many values as the rotation policy allows (data_messages), and the next one does not seal yet";
                    return Err(Error::new(ErrorKind::LimitExceeded, why).with_detail(key.key_id.to_string()));
                }
                counted => return Ok((key, counted?)),
            }
        }
    }

    async fn make_ready(&self, current: &CurrentKey) -> Result<()> {
        let turn = if current.is_usable(self.time()) {
            let Some(turn) = current.gate.try_now(self.time()) else { return Ok(()) };
            turn
        } else {
            current.gate.wait(|| self.time()).await?
        };
        if current.is_ready(self.time()) {
            return Ok(());
        }
        current.check.begin();
        match self.renew_current(current).await {
            Ok(()) => {
                turn.succeeded();
                Ok(())
            }
            Err(error) => match self.keep_current(current, error).await {
                Ok(()) => {
                    // Of a key that is to be replaced all callers would ask again, and one after the other.
                    current.ask_again_after(self.time());
                    Ok(())
                }
                Err(error) => {
                    let negative = self.configured().keyring.cache.negative;
                    let until = if remembers(&error) { self.time().saturating_add(nanos(negative)) } else { 0 };
                    turn.failed(&error, until);
                    Err(error)
                }
            },
        }
    }

    /// Goes on with the present key after `error`, if that says only that nobody answered.
    async fn keep_current(&self, current: &CurrentKey, error: Error) -> Result<()> {
        let policy = self.configured().keyring.cache;
        let Some(key) = current.key.load_full() else { return Err(error) };
        // A key that has sealed all that it may, or only opens, is of no use until there is another one.
        if key.is_spent() || key.is_retired() || current.is_withdrawn() {
            return Err(error);
        }
        if !keep_after(&error, current, self.time(), &policy) {
            return Err(explained(error, current.lease(), self.time()));
        }
        if key.needs_renewal(self.time()) {
            match self.renew_held(&key).await {
                Ok(key) => current.key.store(Some(key)),
                Err(second) => return Err(if is_absence(&second) { error } else { second }),
            }
        }
        tracing::warn!(code = error.kind().code(), "the key that seals could not be checked: {error}");
        Ok(())
    }

    /// The key of a handle, renewed. It stays with the handle while nobody answers, also when it has left the cache.
    pub(crate) async fn renew_held(&self, held: &Arc<OpenKey>) -> Result<Arc<OpenKey>> {
        let renewed = self.acquire_known(held.key_id, held.slot).await;
        let policy = self.configured().keyring.cache;
        match renewed {
            Err(error) if keep_after(&error, &**held, self.time(), &policy) => Ok(held.clone()),
            renewed => renewed,
        }
    }

    async fn renew_current(&self, current: &CurrentKey) -> Result<()> {
        for _ in 0..MAX_REPLACED {
            let withdrawals = current.withdrawals.load(Ordering::SeqCst);
            let key = self.key_that_seals(current).await?;
            current.newest.store(Some(Arc::new(key.key_id)));
            current.key.store(Some(key));
            current.withdrawals_seen.store(withdrawals, Ordering::SeqCst);
            if !current.is_withdrawn() {
                break;
            }
            // Chosen by what was so before: whoever seals without asking must not be left with it.
        }
        self.checked(current)
    }

    /// The key that seals, as the store says now.
    async fn key_that_seals(&self, current: &CurrentKey) -> Result<Arc<OpenKey>> {
        match current.exact {
            Some(key_id) => {
                let record = self.record(key_id).await?;
                self.verify(&record).await?;
                // Acquiring asks for a state that opens; the configuration alone cannot make a retired key seal.
                if record.state() != KeyState::Active {
                    return Err(super::wrong_state(&record));
                }
                self.acquire_known(key_id, current.slot).await
            }
            None => {
                let present = current.key.load_full().filter(|key| key.is_running_out());
                let key = self.acquire_to_seal(current, present.map(|key| key.key_id)).await?;
                // A key that was used up before, or whose limit was lowered.
                if key.is_running_out() && self.time() >= current.ask_again_at.load(Ordering::Relaxed) {
                    self.acquire_to_seal(current, Some(key.key_id)).await
                } else {
                    Ok(key)
                }
            }
        }
    }

    /// The key that seals in the slot. Its record is read a second time, and by then another process may have put a newer one in its place.
    async fn acquire_to_seal(&self, current: &CurrentKey, used_up: Option<KeyId>) -> Result<Arc<OpenKey>> {
        let mut why = Error::new(ErrorKind::Conflict, "keys of the scope are replaced faster than they can be read");
        for _ in 0..MAX_REPLACED {
            let key_id = self.key_to_seal(current, used_up).await?;
            match self.acquire_known(key_id, current.slot).await {
                Ok(key) if !key.is_retired() => return Ok(key),
                Ok(_) => {}
                // Compromised meanwhile: it has a successor, or the next look says that nothing seals.
                Err(error) if error.kind() == ErrorKind::KeyState => why = error,
                Err(error) => return Err(error),
            }
        }
        Err(why)
    }

    /// The store has just said which key is the newest.
    fn checked(&self, current: &CurrentKey) -> Result<()> {
        let policy = self.configured().keyring.cache;
        current.check.renew_again_within(self.time(), policy.check_every, policy.max_age)
    }

    /// The key that seals in the slot, after whatever rotation is due; a new one where there is none yet.
    // F-8.2-9.
    pub(super) async fn key_to_seal(&self, current: &CurrentKey, used_up: Option<KeyId>) -> Result<KeyId> {
        let slot = current.slot;
        if let Some(record) = self.advance(slot, used_up).await? {
            if used_up == Some(record.key_id()) {
                current.ask_again_after(self.time());
            }
            return Ok(record.key_id());
        }
        match self.newest(slot, 1).await?.first() {
            Some(retired) => {
                self.refuse_before_end(retired)?;
                Err(Error::new(
                    ErrorKind::KeyState,
                    "no key of the scope seals: rotating it (keys rotate) makes the next one",
                )
                .with_detail(format!("{} is {}", retired.key_id(), retired.state().name())))
            }
            // The keyring's own data key is made with it; a scope's with the scope, whose name it must carry.
            None if slot.id != SlotId::NONE => Err(Error::new(ErrorKind::Store, "the scope has lost its keys")),
            None => Ok(self.insert_data_key(slot, None, KeyState::Active, None).await?.key_id()),
        }
    }

    /// Tells `current`, for a reader, which key is the newest. He uses it only to say whether a value's key is
    /// current: trouble with keys that he does not need must not keep him from data that he can verify.
    // F-8.2-8.
    pub(crate) async fn look_at_newest(&self, current: &CurrentKey) {
        let now = self.time();
        if current.exact.is_some() || !current.check.needs_renewal(now) {
            return;
        }
        let Some(turn) = current.gate.try_now(now) else { return };
        current.check.begin();
        let succession = self.succession(current.slot).await;
        match succession.and_then(|succession| self.seen_by_reader(current, succession)) {
            Ok(newest) => {
                if newest != current.key_id() {
                    // News for whoever seals, however lately he asked.
                    current.ask_again_at.store(0, Ordering::Relaxed);
                }
                current.newest.store(newest.map(Arc::new));
                turn.succeeded();
            }
            Err(error) => {
                let (now, code) = (self.time(), error.kind().code());
                current.newest.store(None);
                // Nobody answered: whoever seals goes on as if he had asked himself.
                let seals_on = is_absence(&error)
                    && current.key().is_some()
                    && current.check.extend(now, RETRY, &self.configured().keyring.cache);
                if !seals_on {
                    current.check.postpone(now, RETRY);
                }
                if !is_absence(&error) {
                    current.check.end_grace(self.configured().keyring.cache.max_age);
                }
                if is_absence(&error) && current.is_usable(now) {
                    // Whoever seals goes on for as long: he would hear the same, for each value.
                    current.ask_again_after(now);
                }
                tracing::warn!(code, "no key can be called current, so values count as outdated: {error}");
            }
        }
    }

    /// The newest key, as the store has just told a reader. Where that is another one than seals here, whoever seals
    /// goes on no longer for that look, nor for an outage that was before it.
    fn seen_by_reader(&self, current: &CurrentKey, succession: Succession) -> Result<Option<KeyId>> {
        let newest = succession.current.map(|record| record.key_id());
        let held = current.key().as_deref().map(|key| key.key_id);
        if held.is_none() || held == newest {
            self.checked(current)?;
        } else {
            let policy = self.configured().keyring.cache;
            current.check.postpone(self.time(), policy.check_every);
            current.check.end_grace(policy.max_age);
        }
        Ok(newest)
    }
}
