//! The cache under every interleaving that a scheduler can think of: the sources of core/src/cache, not a copy, are
//! compiled with shuttle's locks and atomics, and each test runs thousands of schedules, chosen at random and by
//! probabilistic concurrency testing. A schedule in which everybody waits is reported as a deadlock.
//!
//! That the model finds bugs can be repeated by planting one; each of these makes the test named beside it fail, with a
//! schedule that `shuttle::replay` repeats:
//!
//! - gate.rs, `Turn`: its guard in a `std::mem::ManuallyDrop`, so that a turn is not given back and nobody is woken:
//!   `one_fetches_however_many_ask_or_give_up` (deadlock).
//! - lease.rs, `renew`: without the arm that asks for `terms.overtaken`: `what_was_ended_stays_ended`.
//! - lease.rs, `extend`: without asking for `ended_by`: `an_outage_does_not_bring_back_what_was_ended`.
//! - mod.rs, `insert_fetched`: without comparing the epoch:
//!   `what_was_fetched_before_it_was_to_be_asked_for_is_fetched_again`.
//! - mod.rs, `end`: without `ended`: `what_is_fetched_while_its_key_ends_is_not_used`.
//! - mod.rs, `get_or_insert`: making a value without looking among former ones:
//!   `what_somebody_holds_comes_back_instead_of_a_second_one`.
//! - gate.rs, `wait`: without comparing when the failure began: `what_failed_before_it_was_to_be_asked_for_is_fetched_again`.
//! - gate.rs, `wait`: comparing that with the present moment: `a_failure_answers_all_who_wait_whatever_is_to_be_asked_for_again`.
//! - lease.rs, `grant`: storing the present epoch instead of `begun_in`: `a_confirmation_counts_for_the_time_before_it`.
//! - mod.rs, `get_or_fetch`: telling everybody of a limit: `a_limit_of_one_caller_reaches_none_of_the_others`.
//! - mod.rs, `Waiting::drop`: without counting down visitors: `one_fetches_however_many_ask_or_give_up` (gates remain).
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(dead_code, unused_imports, unreachable_pub, reason = "parts of the library, compiled once more")]

#[path = "../src/cache/mod.rs"]
mod cache;
#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/observe.rs"]
mod observe;

mod error {
    pub use keyfold::{Error, ErrorKind, KmsErrorKind, Result};
}

mod random {
    pub fn array<const N: usize>() -> keyfold::Result<[u8; N]> {
        Ok([0; N])
    }
}

mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
    pub(crate) use std::sync::PoisonError;
}

use cache::{Bounds, Cache, CachePolicy, Cached, Epoch, Lease};
use keyfold::{Error, ErrorKind, KmsErrorKind, Result};
use shuttle::future::{block_on, yield_now};
use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use shuttle::thread;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

const SCHEDULES: usize = 20_000;
const BOUNDS: Bounds =
    Bounds { entries: 8, bytes: usize::MAX, max_idle: Duration::from_secs(1800), negative: Duration::ZERO };
const POLICY_AGE: Duration = Duration::from_secs(600);
/// The time of every call, unless a test says otherwise.
const NOW: u64 = 1_000_000_000;
/// When a key of [`NOW`] is due but may still be used.
const DUE: u64 = NOW + 599_000_000_000;
/// When its age is over and its grace is not.
const OUTAGE: u64 = NOW + 700_000_000_000;

struct Key {
    version: u64,
    lease: Lease,
}

impl Cached for Key {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn size(&self) -> usize {
        100
    }
}

struct World {
    epoch: Epoch,
    cache: Cache<u16, Key>,
    /// What the service would answer.
    version: AtomicU64,
    revoked: AtomicBool,
    away: AtomicBool,
    under_way: AtomicUsize,
    asked: AtomicUsize,
    fetched: AtomicUsize,
}

impl World {
    fn new(bounds: Bounds) -> Arc<Self> {
        let epoch = Epoch::default();
        let cache = Cache::new("model", bounds, &epoch);
        Arc::new(Self {
            epoch,
            cache,
            version: AtomicU64::new(1),
            revoked: AtomicBool::new(false),
            away: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
        })
    }

    async fn get(&self, key: u16, now: u64) -> Result<Arc<Key>> {
        let fetch = async |present: Option<&Arc<Key>>| self.fetch(present, now).await;
        self.cache.get_or_fetch(&key, || now, &CachePolicy::default(), fetch).await
    }

    /// Has the key asked for again, by itself or with everything.
    fn ask_again(&self, everything: bool) {
        if everything {
            self.epoch.advance();
        } else {
            self.cache.ask_again(|key| *key == 1);
        }
    }

    /// Asks, waits, and answers with what was so when it was asked.
    async fn fetch(&self, present: Option<&Arc<Key>>, now: u64) -> Result<Arc<Key>> {
        let _one = UnderWay::enter(&self.under_way);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let (version, revoked) = (self.version.load(Ordering::SeqCst), self.revoked.load(Ordering::SeqCst));
        let away = self.away.load(Ordering::SeqCst);
        yield_now().await;
        yield_now().await;
        if away {
            return Err(ErrorKind::Kms(KmsErrorKind::Unavailable).into());
        }
        if revoked {
            return Err(denied());
        }
        self.fetched.fetch_add(1, Ordering::SeqCst);
        if let Some(present) = present.filter(|present| present.version == version) {
            present.lease.renew(now, POLICY_AGE)?;
            return Ok(present.clone());
        }
        Ok(Arc::new(Key { version, lease: Lease::new(&self.epoch, now, POLICY_AGE) }))
    }
}

/// Fails the test if two are inside at once.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "two fetch the same key at once");
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn denied() -> Error {
    ErrorKind::Kms(KmsErrorKind::AccessDenied).into()
}

/// Polls `future` at most `polls` times, then drops it.
fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    block_on(std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }))
}

fn explore(test: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(test.clone(), SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, 3);
}

fn join<T>(threads: Vec<thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

// Failures A8, B11
#[test]
fn one_fetches_however_many_ask_or_give_up() {
    explore(|| {
        let world = World::new(BOUNDS);
        let patient = (0..3).map(|_| {
            let world = world.clone();
            thread::spawn(move || block_on(world.get(1, NOW)).unwrap().version)
        });
        let patient: Vec<_> = patient.collect();
        let impatient = (1..3).map(|polls| {
            let world = world.clone();
            thread::spawn(move || give_up_after(polls, world.get(1, NOW)).is_some())
        });
        join(impatient.collect());
        assert_eq!(join(patient), [1; 3]);
        assert_eq!(world.fetched.load(Ordering::SeqCst), 1);
        assert_eq!(world.cache.gates(), 0, "nobody waits, so no gate remains");
        assert_eq!(world.cache.occupancy(), (1, world.cache.occupancy().1));
    });
}

// Failure A9
#[test]
fn a_failure_reaches_those_who_waited_and_nobody_later() {
    explore(|| {
        let world = World::new(BOUNDS);
        world.away.store(true, Ordering::SeqCst);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let world = world.clone();
                thread::spawn(move || block_on(world.get(1, NOW)).map(|key| key.version))
            })
            .collect();
        world.away.store(false, Ordering::SeqCst);
        for result in join(threads) {
            assert!(matches!(result, Ok(1)) || result.is_err_and(|error| error.is_retryable()));
        }
        assert_eq!(block_on(world.get(1, NOW)).unwrap().version, 1);
        assert_eq!(world.cache.gates(), 0);
    });
}

/// A limit on unknown keys is for some callers, and not for those who know that the key is the keyring's.
// Failures A7, B3
#[test]
fn a_limit_of_one_caller_reaches_none_of_the_others() {
    explore(|| {
        let world = World::new(BOUNDS);
        let limited = {
            let world = world.clone();
            thread::spawn(move || {
                let refuse = async |present: Option<&Arc<Key>>| match present {
                    Some(present) => Ok(present.clone()),
                    None => {
                        yield_now().await;
                        Err(ErrorKind::LimitExceeded.into())
                    }
                };
                drop(block_on(world.cache.get_or_fetch(&1, || NOW, &CachePolicy::default(), refuse)));
            })
        };
        assert_eq!(block_on(world.get(1, NOW)).unwrap().version, 1);
        limited.join().unwrap();
        assert_eq!(world.cache.gates(), 0);
    });
}

/// A limit is not met by bringing a service back.
#[test]
fn only_an_outage_is_explained_by_what_was_away() {
    let explain = || {
        let world = World::new(BOUNDS);
        let key = block_on(world.get(1, NOW)).unwrap();
        for (kind, is_outage) in [(ErrorKind::Store, true), (ErrorKind::LimitExceeded, false)] {
            let error = cache::explained(kind.into(), &key.lease, 10 * OUTAGE);
            assert_eq!((error.kind(), error.detail().contains("store back")), (kind, is_outage));
        }
    };
    shuttle::check_random(explain, 1);
}

#[test]
fn a_flood_of_failures_leaves_no_more_gates_than_are_remembered() {
    let flood = || {
        let world = World::new(Bounds { negative: Duration::from_secs(1), ..BOUNDS });
        world.away.store(true, Ordering::SeqCst);
        for key in 0..5_000 {
            assert!(block_on(world.get(key, NOW)).is_err());
            assert!(world.cache.gates() <= 4_096 + 1);
        }
        world.away.store(false, Ordering::SeqCst);
        assert!(block_on(world.get(4_999, NOW)).is_err(), "the last ones are remembered");
        assert!(block_on(world.get(0, NOW)).is_ok(), "the first ones are not");
    };
    shuttle::check_random(flood, 1);
}

/// Thousands who waited leave no more behind than a flood that came one by one.
#[test]
fn those_who_failed_at_once_leave_no_more_gates_than_are_remembered() {
    let at_once = || {
        let world = World::new(Bounds { negative: Duration::from_secs(1), ..BOUNDS });
        let ask = async |key: u16| {
            let fail = async |_: Option<&Arc<Key>>| {
                yield_now().await;
                Err(ErrorKind::Kms(KmsErrorKind::Unavailable).into())
            };
            drop(world.cache.get_or_fetch(&key, || NOW, &CachePolicy::default(), fail).await);
        };
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut callers: Vec<_> = (0..10_000).map(|key| Box::pin(ask(key))).collect();
        for caller in &mut callers {
            assert!(caller.as_mut().poll(&mut context).is_pending());
        }
        for caller in &mut callers {
            while caller.as_mut().poll(&mut context).is_pending() {}
        }
        drop(callers);
        assert!(world.cache.gates() <= 4_096, "{}", world.cache.gates());
    };
    shuttle::check_random(at_once, 1);
}

#[test]
fn what_was_ended_stays_ended() {
    explore(|| {
        let world = World::new(BOUNDS);
        let held = block_on(world.get(1, NOW)).unwrap();
        let renewing = {
            let world = world.clone();
            thread::spawn(move || block_on(world.get(1, DUE)).is_ok_and(|key| key.lease.is_usable(DUE)))
        };
        // Whoever revokes a key first makes sure that the service says so, then ends its use here.
        world.revoked.store(true, Ordering::SeqCst);
        world.cache.end(&1, &denied());
        renewing.join().unwrap();
        assert!(!held.lease.is_usable(DUE), "a confirmation from before brought it back");
        assert_eq!(held.lease.end_reason().unwrap().kind(), denied().kind());
        assert!(block_on(world.get(1, DUE)).is_err());
    });
}

/// Nobody had it yet, so there is no lease to end.
#[test]
fn what_is_fetched_while_its_key_ends_is_not_used() {
    explore(|| {
        let world = World::new(BOUNDS);
        let other = block_on(world.get(2, NOW)).unwrap();
        let fetching = {
            let world = world.clone();
            thread::spawn(move || block_on(world.get(1, NOW)))
        };
        world.revoked.store(true, Ordering::SeqCst);
        world.cache.end(&1, &denied());
        let fetched = fetching.join().unwrap();
        assert!(!fetched.is_ok_and(|key| key.lease.is_usable(NOW)), "what was so before was used");
        assert!(block_on(world.get(1, NOW)).is_err(), "what was so before was used twice");
        assert!(!other.lease.needs_renewal(NOW), "the end of one key is no matter of another");
    });
}

#[test]
fn an_outage_does_not_bring_back_what_was_ended() {
    explore(|| {
        let world = World::new(BOUNDS);
        let held = block_on(world.get(1, NOW)).unwrap();
        world.away.store(true, Ordering::SeqCst);
        let renewing = {
            let world = world.clone();
            thread::spawn(move || drop(block_on(world.get(1, OUTAGE))))
        };
        held.lease.end(&denied());
        renewing.join().unwrap();
        assert!(!held.lease.is_usable(OUTAGE));
        assert!(!held.lease.extend(OUTAGE, Duration::ZERO, &CachePolicy::default()));
    });
}

#[test]
fn what_was_fetched_before_it_was_to_be_asked_for_is_fetched_again() {
    for (warm, everything) in [(false, false), (false, true), (true, false), (true, true)] {
        explore(move || {
            let world = World::new(BOUNDS);
            if warm {
                block_on(world.get(1, NOW)).unwrap();
            }
            let now = if warm { DUE } else { NOW };
            let fetching = {
                let world = world.clone();
                thread::spawn(move || block_on(world.get(1, now)).unwrap().version)
            };
            world.version.store(2, Ordering::SeqCst);
            world.ask_again(everything);
            let after = block_on(world.get(1, now)).unwrap();
            let fetched = fetching.join().unwrap();
            assert!(fetched == 1 || fetched == 2);
            // While somebody renews, others may go on with the present key; the next one after him may not.
            let last = block_on(world.get(1, now)).unwrap();
            assert!(last.version == 2, "warm: {warm}, {fetched}, then {}, then {}", after.version, last.version);
        });
    }
}

/// Whoever allows a key again, and then asks for it, does not hear that it was refused.
#[test]
fn what_failed_before_it_was_to_be_asked_for_is_fetched_again() {
    for everything in [false, true] {
        explore(move || {
            let world = World::new(Bounds { negative: Duration::from_secs(1), ..BOUNDS });
            world.revoked.store(true, Ordering::SeqCst);
            let fetching = {
                let world = world.clone();
                thread::spawn(move || drop(block_on(world.get(1, NOW))))
            };
            world.revoked.store(false, Ordering::SeqCst);
            world.ask_again(everything);
            assert!(block_on(world.get(1, NOW)).is_ok());
            fetching.join().unwrap();
            assert!(block_on(world.get(1, NOW)).is_ok());
        });
    }
}

/// Those who have come before hear of one failure, however often that is.
#[test]
fn a_failure_answers_all_who_wait_whatever_is_to_be_asked_for_again() {
    for everything in [false, true] {
        explore(move || {
            let world = World::new(BOUNDS);
            world.away.store(true, Ordering::SeqCst);
            let mut calls: Vec<_> = (0..4).map(|_| Box::pin(world.get(1, NOW))).collect();
            let mut poll_all = |context: &mut Context<'_>| {
                calls.retain_mut(|call| match call.as_mut().poll(context) {
                    Poll::Ready(answer) => {
                        assert!(answer.is_err());
                        false
                    }
                    Poll::Pending => true,
                });
                if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            };
            block_on(std::future::poll_fn(|context| {
                assert!(poll_all(context).is_pending());
                Poll::Ready(())
            }));
            let asking_again = {
                let world = world.clone();
                thread::spawn(move || (0..2).for_each(|_| world.ask_again(everything)))
            };
            block_on(std::future::poll_fn(&mut poll_all));
            asking_again.join().unwrap();
            assert_eq!(world.asked.load(Ordering::SeqCst), 1);
        });
    }
}

#[test]
fn a_confirmation_counts_for_the_time_before_it() {
    explore(|| {
        let world = World::new(BOUNDS);
        let lease = Arc::new(Lease::none(&world.epoch));
        let confirming = {
            let (world, lease) = (world.clone(), lease.clone());
            thread::spawn(move || {
                lease.begin();
                let version = world.version.load(Ordering::SeqCst);
                lease.renew(NOW, POLICY_AGE).unwrap();
                version
            })
        };
        world.version.store(2, Ordering::SeqCst);
        world.epoch.advance();
        let confirmed = confirming.join().unwrap();
        assert!(confirmed == 2 || lease.needs_renewal(NOW), "confirmed by what was so before");
    });
}

// Failure B4
#[test]
fn bounds_hold_at_every_moment_and_held_values_stay() {
    explore(|| {
        let world = World::new(Bounds { entries: 1, ..BOUNDS });
        let threads = (0..3_u16).map(|key| {
            let world = world.clone();
            thread::spawn(move || {
                // One at a time here: `fetch` counts all keys.
                let key_held = world.cache.get_or_insert(&key, NOW, || Key {
                    version: u64::from(key),
                    lease: Lease::new(&world.epoch, NOW, POLICY_AGE),
                });
                let (entries, bytes) = world.cache.occupancy();
                // Beside it a note of each that another one holds.
                let most = 400 + 2 * (200 + size_of::<Key>());
                assert!(entries <= 1 && bytes < most, "{entries} entries, {bytes} bytes");
                assert_eq!(key_held.version, u64::from(key));
                assert!(key_held.lease.is_usable(NOW));
                if key == 1 {
                    world.cache.close();
                }
            })
        });
        join(threads.collect());
        assert_eq!(world.cache.occupancy(), (0, 0));
    });
}

#[test]
fn what_somebody_holds_comes_back_instead_of_a_second_one() {
    explore(|| {
        let world = World::new(Bounds { entries: 1, ..BOUNDS });
        let threads = [1, 2, 1].map(|key| {
            let world = world.clone();
            thread::spawn(move || {
                let make = || Key { version: key.into(), lease: Lease::new(&world.epoch, NOW, POLICY_AGE) };
                world.cache.get_or_insert(&key, NOW, make)
            })
        });
        let held = join(threads.into());
        assert!(Arc::ptr_eq(&held[0], &held[2]), "two of one key");
        for (key, held) in [(1, &held[0]), (2, &held[1])] {
            assert!(world.cache.find(&key).is_some_and(|found| Arc::ptr_eq(&found, held)), "{key}");
        }
    });
}

/// Of what was let go while somebody held it a note is kept, which counts, and goes when nobody holds it any more.
#[test]
fn notes_of_what_is_held_are_counted_and_swept() {
    let look = || {
        let bytes = 20_000;
        let world = World::new(Bounds { entries: usize::MAX, bytes, ..BOUNDS });
        let make = |_: &u16| Key { version: 1, lease: Lease::new(&world.epoch, NOW, POLICY_AGE) };
        let held: Vec<_> = (0..=255).map(|key| world.cache.get_or_insert(&key, NOW, || make(&key))).collect();
        let (entries, counted) = world.cache.occupancy();
        assert!(entries < 64 && counted > 40_000, "{entries} entries and {counted} bytes: more is held than has room");
        drop(held);
        world.cache.sweep(NOW);
        let (swept, counted) = world.cache.occupancy();
        assert!(swept == entries && counted <= bytes / 2, "{swept} entries, {counted} bytes");
        (0..=255).for_each(|key| drop(world.cache.get_or_insert(&key, NOW, || make(&key))));
        let (entries, counted) = world.cache.occupancy();
        assert!(entries > swept && (bytes / 2..=bytes).contains(&counted), "{entries} entries, {counted} bytes");
    };
    shuttle::check_random(look, 1);
}

/// What `refresh` renews: what somebody holds, and what was looked up since it was last renewed.
#[test]
fn a_sweep_tells_what_is_in_use() {
    let look = || {
        let world = World::new(BOUNDS);
        let make = || Key { version: 1, lease: Lease::new(&world.epoch, NOW, POLICY_AGE) };
        drop(world.cache.get_or_insert(&1, NOW, make));
        let is_in_use = |now| world.cache.sweep(now).iter().any(|swept| swept.in_use);
        let renew = |now| world.cache.sweep(now)[0].value.lease.renew(now, POLICY_AGE).unwrap();
        assert!(is_in_use(NOW), "somebody has just put it in");
        renew(NOW + 1);
        assert!(!is_in_use(NOW + 2), "nobody has asked for it since");
        let held = world.cache.get(&1, NOW + 3);
        renew(NOW + 4);
        assert!(held.is_some() && is_in_use(NOW + 5));
        drop(held);
        assert!(!is_in_use(NOW + 6));
        drop(world.cache.get(&1, NOW + 7));
        assert!(is_in_use(NOW + 8));
    };
    shuttle::check_random(look, 1);
}
