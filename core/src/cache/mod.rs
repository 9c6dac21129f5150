//! Keys in memory: bounded in number, bytes and time, fetched once however many ask (DESIGN K17, K18).
//!
//! [`Cache`] holds values by key; each value has a [`Lease`], which says how long it may be used, and each key that is
//! being fetched has a [`Gate`]. Built here and not bought, for the reasons in docs/CACHE.md. What is hard about it,
//! waiting, is Tokio's; the rest is model-checked (core/tests/cache_model.rs). A little over 500 lines: what is under one lock is read together.

mod former;
mod gate;
mod lease;
mod policy;
mod recent;

pub(crate) use gate::Gate;
pub(crate) use lease::{Epoch, Lease};
pub use policy::CachePolicy;
pub(crate) use recent::Recent;

use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::observe;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use former::Former;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// Most failures that are remembered at once. Beyond, those go that answer no more, and if half as many are left all of them.
const MAX_FAILURES: usize = 4096;
/// How long a renewal that failed is not tried again, at least.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// What a cache holds.
pub(crate) trait Cached {
    /// How long the value may be used.
    fn lease(&self) -> &Lease;

    /// Bytes that the value occupies, itself included.
    fn size(&self) -> usize;

    /// Whether the value may be used: its own lease runs, and those of what it depends on.
    fn is_usable(&self, now: u64) -> bool {
        self.lease().is_usable(now)
    }

    /// Whether somebody should renew the value or what it depends on.
    fn needs_renewal(&self, now: u64) -> bool {
        self.lease().needs_renewal(now)
    }

    /// Goes on with the value while nobody answers; see [`Lease::extend`].
    fn extend(&self, now: u64, policy: &CachePolicy) -> bool {
        self.lease().extend(now, RETRY, policy)
    }

    /// Whether the value, or what it depends on, is used beyond its age because nobody answers.
    fn is_stale(&self, now: u64) -> bool {
        self.lease().is_stale(now)
    }

    /// Tells this value, which somebody holds beside the cache, what was heard when `newer` was fetched.
    fn learn(&self, _newer: &Self) {}
}

/// How many values, how many bytes, and how long without use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    pub(crate) max_idle: Duration,
    pub(crate) negative: Duration,
}

/// Values by key. Evicts by second chance: what was used since the hand last passed stays.
pub(crate) struct Cache<K, V> {
    name: &'static str,
    epoch: Epoch,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    bounds: Bounds,
    entries: HashMap<K, Entry<V>>,
    /// Keys in the order in which the hand visits them; may hold keys that are gone.
    hand: VecDeque<K>,
    /// Of the entries.
    bytes: usize,
    former: Former<K, V>,
    is_closed: bool,
    /// What is being fetched, and what could not be fetched a moment ago.
    gates: HashMap<K, Place>,
    /// At how many of the gates there is a caller.
    visited: usize,
}

/// Where callers wait for one key.
struct Place {
    gate: Arc<Gate>,
    visitors: usize,
    /// Whether the key was to be asked for again since the one who fetches began.
    overtaken: bool,
    /// Why the key was ended since then.
    ended: Option<Error>,
}

/// An entry as [`Cache::sweep`] finds it.
pub(crate) struct Swept<K, V> {
    pub(crate) key: K,
    pub(crate) value: Arc<V>,
    pub(crate) used_at: u64,
    /// Whether somebody holds the value, or has looked it up since it was last renewed.
    pub(crate) in_use: bool,
}

struct Entry<V> {
    value: Arc<V>,
    size: usize,
    used_at: u64,
    used: bool,
}

impl<K: Clone + Eq + Hash, V: Cached> Cache<K, V> {
    pub(crate) fn new(name: &'static str, bounds: Bounds, epoch: &Epoch) -> Self {
        let (entries, gates) = (HashMap::new(), HashMap::new());
        let (hand, former) = (VecDeque::new(), Former::new());
        let state = State { bounds, entries, hand, bytes: 0, former, is_closed: false, gates, visited: 0 };
        Self { name, epoch: epoch.clone(), state: Mutex::new(state) }
    }

    /// The value of `key`, from memory or from `fetch`, which one caller at a time runs; it is given the value to
    /// renew, if there is one.
    ///
    /// While a value is renewed, others use the present one. If renewing fails because nobody answers, the present
    /// value stays until the grace of `policy` is over; any other failure ends its lease.
    pub(crate) async fn get_or_fetch(
        &self,
        key: &K,
        now: impl Fn() -> u64,
        policy: &CachePolicy,
        fetch: impl AsyncFnOnce(Option<&Arc<V>>) -> Result<Arc<V>>,
    ) -> Result<Arc<V>> {
        let present = self.get(key, now());
        if let Some(value) = present.as_ref().filter(|value| !value.needs_renewal(now())) {
            return Ok(self.used(value, now()));
        }
        let waiting = Waiting { gate: self.gate(key), cache: self, key, now: &now };
        let turn = match present.filter(|value| value.is_usable(now())) {
            None => waiting.gate.wait(&now).await?,
            // Whoever has a usable value does not wait for another one's request.
            Some(value) => match waiting.gate.try_now(now()) {
                Some(turn) => turn,
                None => return Ok(self.used(&value, now())),
            },
        };
        // Fetched by somebody else while this one waited?
        let present = self.get(key, now());
        if let Some(value) = present.as_ref().filter(|value| !value.needs_renewal(now())) {
            return Ok(self.used(value, now()));
        }
        match &present {
            Some(value) => {
                observe::renewal(self.name);
                value.lease().begin();
            }
            None => observe::miss(self.name),
        }
        let epoch = self.begin(key);
        match fetch(present.as_ref()).await {
            Ok(value) => {
                turn.succeeded();
                self.insert_fetched(key, &value, now(), epoch);
                Ok(value)
            }
            Err(error) => {
                if let Some(value) = present.as_ref().filter(|value| keep_after(&error, &***value, now(), policy)) {
                    tracing::warn!(code = error.kind().code(), "a key could not be renewed and is used on: {error}");
                    return Ok(self.used(value, now()));
                }
                self.remove(key);
                if !is_absence(&error) {
                    let held = self.state().former.remove(key);
                    held.iter().for_each(|value| value.lease().end(&error));
                }
                let error = match &present {
                    Some(value) => explained(error, value.lease(), now()),
                    None => error,
                };
                // A limit of how much this caller may ask for says nothing to those who wait.
                if error.kind() != ErrorKind::LimitExceeded {
                    let answers = remembers(&error).then(|| now().saturating_add(self.negative()));
                    turn.failed(&error, answers.unwrap_or(0));
                }
                Err(error)
            }
        }
    }

    fn used(&self, value: &Arc<V>, now: u64) -> Arc<V> {
        observe::hit(self.name);
        if value.is_stale(now) {
            observe::stale_use(self.name);
        }
        value.clone()
    }

    /// The value of `key`, whatever its lease says. Counts as use.
    pub(crate) fn get(&self, key: &K, now: u64) -> Option<Arc<V>> {
        let mut state = self.state();
        let idle = crate::clock::nanos(state.bounds.max_idle);
        let entry = state.entries.get_mut(key)?;
        if entry.is_idle(now, idle) {
            state.remove(key);
            return None;
        }
        entry.used = true;
        entry.used_at = now;
        Some(entry.value.clone())
    }

    /// The value of `key`, or the one that `make` makes at once. One that was forgotten while somebody held it comes
    /// back, so that there is never a second one beside it.
    pub(crate) fn get_or_insert(&self, key: &K, now: u64, make: impl FnOnce() -> V) -> Arc<V> {
        if let Some(value) = self.get(key, now) {
            return value;
        }
        let mut state = self.state();
        if let Some(entry) = state.entries.get(key) {
            return entry.value.clone();
        }
        let value = state.former.remove(key).pop().unwrap_or_else(|| Arc::new(make()));
        state.insert(key.clone(), value.clone(), now);
        value
    }

    /// The value of `key`, also where it was forgotten while somebody held it. Does not count as use.
    pub(crate) fn find(&self, key: &K) -> Option<Arc<V>> {
        let state = self.state();
        state.entries.get(key).map(|entry| entry.value.clone()).or_else(|| state.former.of(key).next())
    }

    /// The value of `key` is about to be fetched; the epoch in which that begins.
    fn begin(&self, key: &K) -> u64 {
        if let Some(place) = self.state().gates.get_mut(key) {
            (place.overtaken, place.ended) = (false, None);
        }
        self.epoch.number()
    }

    /// Puts in what was fetched since `epoch`.
    fn insert_fetched(&self, key: &K, value: &Arc<V>, now: u64, epoch: u64) {
        let mut state = self.state();
        let place = state.gates.get(key);
        if let Some(error) = place.and_then(|place| place.ended.as_ref()) {
            // What was fetched is from before.
            return value.lease().end(error);
        }
        if place.is_some_and(|place| place.overtaken) || self.epoch.number() != epoch {
            // What was fetched may be from before.
            value.lease().ask_for_renewal();
        } else {
            state.former.of(key).for_each(|held| held.learn(value));
        }
        state.insert(key.clone(), value.clone(), now);
        self.observe(&state);
    }

    /// Forgets `key`. Who holds its value goes on with it.
    pub(crate) fn remove(&self, key: &K) {
        let mut state = self.state();
        state.remove(key);
        self.observe(&state);
    }

    /// Forgets `key` for good, because of `error`: who holds its value can use it no more, nor who fetches it at this
    /// moment.
    pub(crate) fn end(&self, key: &K, error: &Error) {
        let mut state = self.state();
        if let Some(place) = state.gates.get_mut(key) {
            place.ended = Some(error.clone());
        }
        state.remove(key);
        let held = state.former.remove(key);
        self.observe(&state);
        drop(state);
        held.iter().for_each(|value| value.lease().end(error));
    }

    /// Forgets `key` and does `f` to its values, which somebody may hold.
    pub(crate) fn remove_and(&self, key: &K, f: impl Fn(&V)) {
        let mut state = self.state();
        state.remove(key);
        state.former.of(key).for_each(|held| f(&held));
        self.observe(&state);
    }

    /// Has every value whose key is `concerned` renewed before it is next used by an awaiting call, also what somebody
    /// holds, and what is being fetched at this moment or could not be fetched a moment ago.
    pub(crate) fn ask_again(&self, concerned: impl Fn(&K) -> bool) {
        let mut state = self.state();
        for (_, place) in state.gates.iter_mut().filter(|(key, _)| concerned(key)) {
            place.overtaken = true;
            place.gate.forget_failure();
        }
        let entries = state.entries.iter().map(|(key, entry)| (key, entry.value.clone()));
        let all = entries.chain(state.former.iter());
        all.filter(|(key, _)| concerned(key)).for_each(|(_, value)| value.lease().ask_for_renewal());
    }

    /// Sets other limits.
    pub(crate) fn set_bounds(&self, bounds: Bounds) {
        let mut state = self.state();
        state.bounds = bounds;
        state.evict();
        self.observe(&state);
    }

    /// Forgets everything and keeps nothing any more, nor what is being fetched at this moment.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        (state.is_closed, state.bytes) = (true, 0);
        (state.entries, state.hand, state.former) = (HashMap::new(), VecDeque::new(), Former::new());
        self.observe(&state);
    }

    /// Forgets what nobody holds and nobody has looked up for so long, and what is remembered of values that nobody
    /// holds any more; returns the rest. Does not count as use.
    pub(crate) fn sweep(&self, now: u64) -> Vec<Swept<K, V>> {
        let mut state = self.state();
        let idle = crate::clock::nanos(state.bounds.max_idle);
        let gone: Vec<K> =
            state.entries.iter().filter(|(_, entry)| entry.is_idle(now, idle)).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| state.remove(key));
        state.former.sweep();
        self.observe(&state);
        let swept = |(key, entry): (&K, &Entry<V>)| Swept {
            // First, since what is handed out here is held as well.
            in_use: entry.is_held() || entry.used_at >= entry.value.lease().renewed_at(),
            key: key.clone(),
            value: entry.value.clone(),
            used_at: entry.used_at,
        };
        state.entries.iter().map(swept).collect()
    }

    /// Takes back that looking up `key` counted as use, because it was only looked up to be renewed.
    pub(crate) fn restore_use(&self, key: &K, used_at: u64) {
        if let Some(entry) = self.state().entries.get_mut(key) {
            entry.used_at = used_at;
        }
    }

    /// Entries, and bytes with those of what is remembered of values that were let go.
    pub(crate) fn occupancy(&self) -> (usize, usize) {
        let state = self.state();
        (state.entries.len(), state.bytes + state.former.bytes())
    }

    fn observe(&self, state: &State<K, V>) {
        observe::occupancy(self.name, state.entries.len(), state.bytes + state.former.bytes());
    }

    /// How many gates there are.
    #[cfg(test)]
    #[allow(dead_code, reason = "for core/tests/cache_model.rs")]
    pub(crate) fn gates(&self) -> usize {
        self.state().gates.len()
    }

    fn gate(&self, key: &K) -> Arc<Gate> {
        let mut state = self.state();
        let place = state.gates.entry(key.clone()).or_insert_with(|| Place::new(&self.epoch));
        place.visitors += 1;
        let (gate, is_first) = (place.gate.clone(), place.visitors == 1);
        state.visited += usize::from(is_first);
        gate
    }

    fn negative(&self) -> u64 {
        crate::clock::nanos(self.state().bounds.negative)
    }

    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // Nothing panics half way through a change, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody at a gate. The last one to leave takes the gate away, unless it remembers a failure.
struct Waiting<'a, K: Clone + Eq + Hash, V: Cached, N: Fn() -> u64> {
    gate: Arc<Gate>,
    cache: &'a Cache<K, V>,
    key: &'a K,
    now: &'a N,
}

impl<K: Clone + Eq + Hash, V: Cached, N: Fn() -> u64> Drop for Waiting<'_, K, V, N> {
    fn drop(&mut self) {
        let now = (self.now)();
        let mut state = self.cache.state();
        let Some(place) = state.gates.get_mut(self.key) else { return };
        place.visitors -= 1;
        if place.visitors > 0 {
            return;
        }
        state.visited -= 1;
        if !self.gate.remembers_failure(now) {
            state.gates.remove(self.key);
        } else if state.remembered() > MAX_FAILURES {
            state.forget_failures(now);
        }
    }
}

impl Place {
    fn new(epoch: &Epoch) -> Self {
        Self { gate: Arc::new(Gate::new(epoch)), visitors: 0, overtaken: false, ended: None }
    }
}

impl<V> Entry<V> {
    /// Whether somebody has the value beside the cache. Letting go of it would not free it.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.value) > 1
    }

    fn is_idle(&self, now: u64, idle: u64) -> bool {
        !self.is_held() && now.saturating_sub(self.used_at) > idle
    }
}

impl<K: Clone + Eq + Hash, V: Cached> State<K, V> {
    /// Gates at which nobody waits.
    fn remembered(&self) -> usize {
        self.gates.len() - self.visited
    }

    fn forget_failures(&mut self, now: u64) {
        self.gates.retain(|_, place| place.visitors > 0 || place.gate.remembers_failure(now));
        // A flood of unknown keys. Half, so that not each of them has all others looked at.
        if self.remembered() > MAX_FAILURES / 2 {
            self.gates.retain(|_, place| place.visitors > 0);
        }
    }

    fn insert(&mut self, key: K, value: Arc<V>, now: u64) {
        if self.is_closed {
            return;
        }
        // Tables and queues grow by doubling, so up to half of them is empty. 16: the reference counts.
        let size = value.size() + 16 + 2 * (size_of::<(K, Entry<V>)>() + 1) + 2 * size_of::<K>();
        if let Some(entry) = self.entries.get_mut(&key) {
            self.bytes = self.bytes - entry.size + size;
            if !Arc::ptr_eq(&entry.value, &value) {
                self.former.add(&key, &entry.value);
            }
            (entry.value, entry.size) = (value, size);
        } else {
            self.bytes += size;
            self.entries.insert(key.clone(), Entry { value, size, used_at: now, used: false });
            self.hand.push_back(key);
        }
        self.evict();
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.size;
            self.former.add(key, &entry.value);
        }
        // Keys that are gone stay in the queue until the hand passes; they may not pile up there.
        if self.hand.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            let mut seen = HashSet::new();
            self.hand.retain(|key| entries.contains_key(key) && seen.insert(key.clone()));
        }
    }

    /// What is left for entries beside what is remembered of values that were let go; half at least, since handles can
    /// hold any number of those.
    fn room(&self) -> usize {
        self.bounds.bytes.saturating_sub(self.former.bytes()).max(self.bounds.bytes / 2)
    }

    fn evict(&mut self) {
        while self.entries.len() > self.bounds.entries || self.bytes > self.room() {
            let Some(key) = self.hand.pop_front() else { break };
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.hand.push_back(key);
                }
                Some(_) => self.remove(&key),
                None => {}
            }
        }
    }
}

/// Whether a value may be used on although renewing it ended in `error`. If not, its lease has ended.
pub(crate) fn keep_after(error: &Error, value: &impl Cached, now: u64, policy: &CachePolicy) -> bool {
    if is_absence(error) {
        return value.extend(now, policy);
    }
    value.lease().end(error);
    false
}

/// Whether the error says that nobody was asked, nobody answered or nothing could be read, rather than that the key may not be used.
///
/// A record that is gone belongs here: a key is taken away by a tombstone, not by deleting its record.
pub(crate) fn is_absence(error: &Error) -> bool {
    use KmsErrorKind::{AccessDenied, KeyDisabled, KeyNotFound};
    match error.kind() {
        ErrorKind::Kms(kind) => !matches!(kind, AccessDenied | KeyDisabled | KeyNotFound),
        ErrorKind::Store
        | ErrorKind::Io
        | ErrorKind::Conflict
        | ErrorKind::DeadlineExceeded
        | ErrorKind::NoMatchingKey
        | ErrorKind::RandomnessUnavailable
        // Of how many keys are looked up: nobody was asked about this one.
        | ErrorKind::LimitExceeded => true,
        _ => false,
    }
}

/// `error`; if it was passed over until the lease was over, with that.
pub(crate) fn explained(error: Error, lease: &Lease, now: u64) -> Error {
    // A limit says itself what is to be done.
    if !is_absence(&error) || error.kind() == ErrorKind::LimitExceeded || lease.is_usable(now) {
        return error;
    }
    let seconds = now.saturating_sub(lease.renewed_at()) / 1_000_000_000;
    let detail = format!(
        "{}; the key was last confirmed {seconds} s ago, and max_age and grace of the cache allow no more: bring the key \
         service or store back",
        error.detail()
    );
    error.with_detail(detail)
}

/// Whether a failure answers for those who ask within the next moment: what a service said, what does not exist, and what
/// a record forbids.
pub(crate) fn remembers(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Kms(_) | ErrorKind::NoMatchingKey | ErrorKind::KeyState)
}
