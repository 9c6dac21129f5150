//! Keys in the form in which they are used, with the time for which they may be.
//!
//! A little over 500 lines: what ends a key, its lease, its root and its allowance, is judged in one place.

use crate::aead::{Backend, SivKey, XaesKey};
use crate::cache::{CachePolicy, Cached, Lease, RETRY};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, KeySchedule, Purpose, Secret};
use crate::record::{KeyState, RootKey};
use crate::share::{SHARE_COUNT, share_of_thread};
use crate::store::Slot;
use crate::wire::KeyId;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// A root key that a KEK has unwrapped.
pub(crate) struct OpenRoot {
    pub(crate) key: RootKey,
    /// Renewed by a request to the key service.
    pub(crate) lease: Lease,
}

impl Deref for OpenRoot {
    type Target = RootKey;

    fn deref(&self) -> &RootKey {
        &self.key
    }
}

impl Cached for OpenRoot {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn size(&self) -> usize {
        size_of::<Self>() + RootKey::HELD_LEN
    }
}

/// A key whose record was verified, in the form in which it is used. Erased when its last user drops it.
pub(crate) struct OpenKey {
    pub(crate) key_id: KeyId,
    pub(crate) slot: Slot,
    pub(crate) material: Material,
    /// Renewed by reading the record again; of an isolated key, by a request to the key service.
    pub(crate) lease: Lease,
    /// Vouches for the record. The key is used no longer than its root.
    pub(crate) root: Arc<OpenRoot>,
    /// How many values it may seal in this process; `None`: any number.
    limit: Option<Limit>,
    /// Whether somebody wanted to seal more values at once than it may still seal, and the next key may.
    is_outgrown: AtomicBool,
    /// Made when it first seals: it is larger than the key, and most keys only open.
    allowance: OnceLock<Box<Allowance>>,
    state: AtomicU8,
}

#[allow(clippy::large_enum_variant, reason = "one per key, behind an Arc")]
pub(crate) enum Material {
    Data {
        field: XaesKey,
        stream: Secret<32>,
        document: Secret<32>,
    },
    Lookup {
        siv: SivKey,
        scope_names: Secret<32>,
        index: Secret<32>,
        format_preserving: Secret<32>,
        token_proof: Secret<32>,
    },
}

impl Material {
    /// Bytes of keys that a data key holds.
    const DATA_LEN: usize = XaesKey::HELD_LEN + 2 * Secret::<32>::HELD_LEN;
    /// Bytes of keys that a lookup key holds.
    const LOOKUP_LEN: usize = Secret::<64>::HELD_LEN + 4 * Secret::<32>::HELD_LEN;

    pub(crate) fn of(class: KeyClass, schedule: &KeySchedule, backend: Backend) -> Option<Self> {
        // What is returned has but places of keys in it.
        keyfold_memory::erasing_stack(|| match class {
            KeyClass::Data => Some(Self::Data {
                field: XaesKey::new(backend, &schedule.expand(Purpose::Field)),
                stream: schedule.expand(Purpose::Stream),
                document: schedule.expand(Purpose::Document),
            }),
            KeyClass::Lookup => Some(Self::Lookup {
                siv: SivKey::new(schedule.expand(Purpose::Deterministic)),
                scope_names: schedule.expand(Purpose::ScopeNames),
                index: schedule.expand(Purpose::Index),
                format_preserving: schedule.expand(Purpose::FormatPreserving),
                token_proof: schedule.expand(Purpose::TokenProof),
            }),
            KeyClass::Root | KeyClass::Audit => None,
        })
    }
}

impl OpenKey {
    pub(crate) fn new(
        key_id: KeyId,
        slot: Slot,
        state: KeyState,
        material: Material,
        lease: Lease,
        root: Arc<OpenRoot>,
        limit: Option<Limit>,
    ) -> Self {
        let state = AtomicU8::new(state.id());
        let is_outgrown = AtomicBool::new(false);
        Self { key_id, slot, material, lease, root, limit, is_outgrown, allowance: OnceLock::new(), state }
    }

    /// Whether its record said so when it was last read.
    #[inline]
    pub(crate) fn is_compromised(&self) -> bool {
        self.state.load(Ordering::Relaxed) == KeyState::Compromised.id()
    }

    /// Whether its record said, when it was last read, that it seals no more, or that is not known.
    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state != KeyState::PreActive.id() && state != KeyState::Active.id()
    }

    /// Refuses a key that its record no longer lets seal.
    ///
    /// # Errors
    ///
    /// - [`KeyState`](ErrorKind::KeyState): it only opens. - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): see [`unknown_state`].
    pub(crate) fn check_seals(&self) -> Result<()> {
        match self.state.load(Ordering::Relaxed) {
            state if state == KeyState::Active.id() => return Ok(()),
            UNKNOWN_STATE => return Err(unknown_state(self.key_id)),
            _ => {}
        }
        Err(Error::new(ErrorKind::KeyState, "the key that the configuration names for sealing only opens")
            .with_detail(self.key_id.to_string()))
    }

    /// Refuses to seal under a key that its record no longer lets seal, as this process has heard since the key was chosen.
    ///
    /// # Errors
    ///
    /// - [`KeyState`](ErrorKind::KeyState): it only opens. - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): see [`unknown_state`].
    #[inline]
    pub(crate) fn check_not_retired(&self) -> Result<()> {
        if self.is_retired() { Err(self.why_retired()) } else { Ok(()) }
    }

    #[cold]
    fn why_retired(&self) -> Error {
        if self.state.load(Ordering::Relaxed) == UNKNOWN_STATE {
            return unknown_state(self.key_id);
        }
        let why = "the key that the handle holds seals no more: await ready() and repeat";
        Error::new(ErrorKind::KeyState, why).with_detail(self.key_id.to_string())
    }

    /// What the key is taken to be, to be given to [`confirm_state`](Self::confirm_state).
    pub(crate) fn presumed(&self) -> Presumed {
        Presumed(self.state.load(Ordering::Relaxed))
    }

    /// The record says `state`, and was asked for when the key was `presumed` to be what it was then. If this process has changed
    /// its state meanwhile, that may have been read before.
    pub(crate) fn confirm_state(&self, presumed: Presumed, state: KeyState) {
        let _ = self.state.compare_exchange(presumed.0, state.id(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// This process has changed the state of the key: to `state`, or nobody knows whether it has.
    pub(crate) fn set_state(&self, state: Option<KeyState>) {
        self.state.store(state.map_or(UNKNOWN_STATE, KeyState::id), Ordering::Relaxed);
    }

    /// Refuses a key that has been held for too long, or that was revoked.
    ///
    /// # Errors
    ///
    /// The error that revoked it, or [`DeadlineExceeded`](ErrorKind::DeadlineExceeded).
    #[inline]
    pub(crate) fn check_usable(&self, now: u64) -> Result<()> {
        if self.is_usable(now) { Ok(()) } else { Err(self.why_unusable()) }
    }

    #[cold]
    fn why_unusable(&self) -> Error {
        self.lease.end_reason().unwrap_or_else(|| self.held_for_too_long(&self.root.lease))
    }

    /// Why `lease`, which the use of the key depends on, is over.
    #[cold]
    pub(crate) fn held_for_too_long(&self, lease: &Lease) -> Error {
        lease.end_reason().unwrap_or_else(|| {
            Error::new(
                ErrorKind::DeadlineExceeded,
                "the handle has held its key for as long as the cache policy allows: await ready() or load_keys() and repeat",
            )
            .with_detail(self.key_id.to_string())
        })
    }

    /// Counts `n` values that are about to be sealed.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than the rotation policy allows. Nothing was counted.
    #[inline]
    pub(crate) fn count(&self, n: u64) -> Result<()> {
        match self.allowance() {
            Some(allowance) if !allowance.take(n) => Err(self.refused(n, allowance.limit.values)),
            _ => Ok(()),
        }
    }

    /// As [`count`](Self::count), or as many of the values as may still be sealed, if that is any; how many.
    pub(crate) fn count_up_to(&self, n: usize) -> Result<usize> {
        match self.allowance().map_or(n, |allowance| allowance.take_up_to(n as u64) as usize) {
            0 if n > 0 => Err(self.used_up()),
            counted => Ok(counted),
        }
    }

    #[inline]
    fn allowance(&self) -> Option<&Allowance> {
        let limit = self.limit.as_ref()?;
        Some(self.allowance.get_or_init(|| {
            // It is moved to the heap, and takes along what was on the stack between its numbers.
            keyfold_memory::erase_stack();
            Box::new(Allowance::new(limit))
        }))
    }

    /// Why `n` values at once are not sealed; has the next key made, if that may seal them.
    #[cold]
    fn refused(&self, n: u64, limit: u64) -> Error {
        if n > limit {
            return too_many(n, limit);
        }
        self.is_outgrown.store(true, Ordering::Relaxed);
        self.used_up()
    }

    #[cold]
    fn used_up(&self) -> Error {
        Error::new(
            ErrorKind::LimitExceeded,
            "the key has sealed as many values as the rotation policy allows: await ready() and repeat",
        )
        .with_detail(self.key_id.to_string())
    }

    /// Whether the key was opened with this limit.
    pub(crate) fn has_limit(&self, limit: Option<&Limit>) -> bool {
        self.limit.as_ref().map(|limit| limit.values) == limit.map(|limit| limit.values)
    }

    /// Whether it is time to make the next key, while this one still seals.
    pub(crate) fn is_running_out(&self) -> bool {
        self.is_outgrown() || self.limit.as_ref().is_some_and(Limit::is_close)
    }

    /// Whether what is to be sealed next waits for the next key.
    pub(crate) fn is_used_up(&self) -> bool {
        self.is_outgrown() || self.is_spent()
    }

    /// Whether it has sealed as many values as it may.
    pub(crate) fn is_spent(&self) -> bool {
        self.limit.as_ref().is_some_and(Limit::is_reached)
    }

    fn is_outgrown(&self) -> bool {
        self.is_outgrown.load(Ordering::Relaxed)
    }

    /// Bytes of a key that seals.
    pub(crate) const fn sealing_size() -> usize {
        size_of::<Self>() + Material::DATA_LEN + size_of::<Allowance>()
    }
}

/// What a key was taken to be at some moment.
#[derive(Clone, Copy)]
pub(crate) struct Presumed(u8);

/// In the place of a state: this process may have changed it. Until the store says what is so, nothing is sealed.
const UNKNOWN_STATE: u8 = u8::MAX;

/// Why a key is not used that this process may have taken out of service.
#[cold]
pub(crate) fn unknown_state(key_id: KeyId) -> Error {
    let why = "whether the state of the key has changed is not known here: await ready() or load_keys() and repeat";
    Error::new(ErrorKind::DeadlineExceeded, why).with_detail(key_id.to_string())
}

/// No key may seal so many values.
#[cold]
pub(crate) fn too_many(n: u64, limit: u64) -> Error {
    let why = "more values at once than the rotation policy lets one key seal (data_messages)";
    Error::new(ErrorKind::LimitExceeded, why).with_detail(format!("{n} of {limit}"))
}

impl Cached for OpenKey {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn size(&self) -> usize {
        let beside = match self.material {
            Material::Data { .. }
                if self.limit.is_some() && self.state.load(Ordering::Relaxed) == KeyState::Active.id() =>
            {
                Material::DATA_LEN + size_of::<Allowance>()
            }
            Material::Data { .. } => Material::DATA_LEN,
            Material::Lookup { .. } => Material::LOOKUP_LEN,
        };
        size_of::<Self>() + beside
    }

    fn extend(&self, now: u64, policy: &CachePolicy) -> bool {
        let root = &*self.root;
        // Without the key's record nobody has got as far as the root.
        self.lease.extend(now, RETRY, policy) && (root.is_usable(now) || root.extend(now, policy))
    }

    fn is_stale(&self, now: u64) -> bool {
        self.lease.is_stale(now) || self.root.lease.is_stale(now)
    }

    fn learn(&self, newer: &Self) {
        self.state.store(newer.state.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    #[inline]
    fn is_usable(&self, now: u64) -> bool {
        self.lease.is_usable(now) && self.root.lease.is_usable(now)
    }

    #[inline]
    fn needs_renewal(&self, now: u64) -> bool {
        self.lease.needs_renewal(now) || self.root.lease.needs_renewal(now)
    }
}

/// How many values may be sealed under a key in this process, and how many were. The count is common to all places that
/// hold the key, and kept when it leaves the cache or the limit changes.
#[derive(Clone)]
pub(crate) struct Limit {
    values: u64,
    used: Arc<AtomicU64>,
}

impl Limit {
    pub(crate) fn new(values: u64, used: Arc<AtomicU64>) -> Self {
        Self { values, used }
    }

    /// Whether it is time to make the next key, while this one still seals.
    fn is_close(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.values - self.values / 8
    }

    fn is_reached(&self) -> bool {
        self.used.load(Ordering::Relaxed) >= self.values
    }
}

/// How many values a process may still seal under a key. Never gives out more; may end a few shares early, of which
/// nothing is lost when the key leaves the memory.
struct Allowance {
    limit: Limit,
    /// How many a share takes from the whole at once.
    block: u64,
    shares: [Share; SHARE_COUNT],
}

/// On a cache line of its own, with its neighbour that the processor fetches along.
#[derive(Default)]
#[repr(align(128))]
struct Share(AtomicU64);

impl Allowance {
    fn new(limit: &Limit) -> Self {
        Self { limit: limit.clone(), block: (limit.values / 1024).clamp(1, 4096), shares: Default::default() }
    }

    /// Takes `n`, or nothing if so many are not left.
    #[inline]
    fn take(&self, n: u64) -> bool {
        let share = &self.shares[share_of_thread()].0;
        let taken = share.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(n));
        taken.is_ok() || self.take_from_whole(share, n)
    }

    /// Takes `n`, or what the whole has left; how many. What other shares hold is left to them.
    fn take_up_to(&self, n: u64) -> u64 {
        if self.take(n) {
            return n;
        }
        let Limit { values, used } = &self.limit;
        // More than `n` may be left by now: another place has given back what it had put aside.
        let mut taken = 0;
        let take = |used: u64| {
            taken = n.min(values.saturating_sub(used));
            Some(used + taken)
        };
        let _ = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken
    }

    #[cold]
    fn take_from_whole(&self, share: &AtomicU64, n: u64) -> bool {
        for want in [n.saturating_add(self.block), n] {
            let Limit { values, used } = &self.limit;
            let more = |used: u64| used.checked_add(want).filter(|used| used <= values);
            let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            if taken.is_ok() {
                share.fetch_add(want - n, Ordering::Relaxed);
                return true;
            }
        }
        false
    }
}

impl Drop for Allowance {
    /// What the shares still have goes back to the whole. Nobody takes from them any more.
    fn drop(&mut self) {
        let left = self.shares.iter_mut().map(|share| *share.0.get_mut()).sum();
        self.limit.used.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    // Here, and not beside Lease: cache_model.rs compiles that file with other atomics.
    #[test]
    fn a_lease_that_begins_after_an_invalidation_is_not_concerned_by_it() {
        let epoch = crate::cache::Epoch::default();
        epoch.advance();
        let lease = Lease::new(&epoch, 0, std::time::Duration::from_secs(60));
        assert!(!lease.needs_renewal(1));
        epoch.advance();
        assert!(lease.needs_renewal(1));
    }

    // Failure B5
    #[test]
    fn an_allowance_is_never_exceeded_by_many_threads_in_many_places() {
        for values in [0, 1, 7, 1_000, 100_000] {
            let limit = Limit::new(values, Arc::default());
            // As if the key had been fetched again and again.
            let places: Vec<_> = (0..4).map(|_| Allowance::new(&limit)).collect();
            let taken: u64 = thread::scope(|scope| {
                let threads: Vec<_> = (0..64)
                    .map(|n| {
                        let allowance = &places[n % places.len()];
                        scope.spawn(move || (0..values).take_while(|_| allowance.take(1)).count() as u64)
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert!(taken <= values, "{taken} of {values}");
            // What other shares still hold is not given out meanwhile, nor lost with them.
            let held = places[0].block * (SHARE_COUNT * places.len()) as u64;
            assert!(taken + held >= values, "{taken} of {values}");
            assert!(limit.is_close());
            drop(places);
            assert_eq!(limit.used.load(Ordering::Relaxed), taken);
        }
    }

    #[test]
    fn no_more_is_taken_than_was_asked_for_while_a_place_gives_back() {
        // One block is left.
        let limit = Limit::new(8192, Arc::new(AtomicU64::new(8192 - 8)));
        let allowance = Allowance::new(&limit);
        let others = AtomicUsize::new(2);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        // Puts the block aside, if it is all there, and gives it back.
                        let place = Allowance::new(&limit);
                        place.take_from_whole(&place.shares[0].0, 0);
                    }
                    others.fetch_sub(1, Ordering::Relaxed);
                });
            }
            while others.load(Ordering::Relaxed) > 0 {
                let taken = allowance.take_up_to(1);
                limit.used.fetch_sub(taken, Ordering::Relaxed);
                assert!(taken <= 1, "{taken} of one");
            }
        });
    }

    /// docs/MEMORY.md says how many keys that are.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_keys_take_up() {
        let held = [
            Material::DATA_LEN,
            Material::LOOKUP_LEN,
            RootKey::HELD_LEN,
            Secret::<32>::HELD_LEN,
            crate::aead::HeldGcmKey::HELD_LEN,
        ];
        let (seals, opens) = (OpenKey::sealing_size(), size_of::<OpenKey>() + Material::DATA_LEN);
        println!("{held:?} bytes of keys; counted: {seals} of one that seals, {opens} of one that opens");
        #[cfg(not(feature = "fips"))]
        assert_eq!(held, [320, 192, 320, 32, 1024]);
        let of_keys = CachePolicy::default().max_bytes / 32 * 14;
        println!("{} that seal, {} that open", of_keys / seals, of_keys / opens);
    }

    #[test]
    fn a_column_takes_all_or_nothing() {
        let allowance = Allowance::new(&Limit::new(100, Arc::default()));
        assert!(allowance.take(60));
        assert!(!allowance.take(60));
        assert!(allowance.take(30));
        // What is left, but for the two that the share of this thread has.
        assert_eq!([60, 60].map(|n| allowance.take_up_to(n)), [8, 0]);
        assert!(allowance.take(2) && !allowance.take(1));
    }
}
