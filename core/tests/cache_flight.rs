//! One request however many ask, whatever becomes of the one who asks (DESIGN K17, K18).
#![cfg(all(feature = "testing", feature = "hazmat"))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::cache::{Process, yield_once};
use common::lab::*;
use common::{block_on, refused};
use keyfold::{Decryptor, ErrorKind, KmsErrorKind, Value};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

const CALLERS: usize = 3_000;
const ROUNDS: usize = 100;

fn threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap()
}

async fn seal_cold(process: Arc<Process>) -> keyfold::Result<Vec<u8>> {
    process.ring.field("plain")?.encryptor().await?.encrypt(Value::Text("x"), None)
}

async fn open_cold(process: Arc<Process>, sealed: Arc<Vec<u8>>) -> keyfold::Result<()> {
    let decryptor = process.ring.field("plain")?.decryptor().await?;
    decryptor.load_keys(&[&sealed[..]][..]).await?;
    decryptor.decrypt(&sealed, None).map(drop)
}

/// Starts as many callers as there may be; every other one opens if `open`.
fn start(process: &Arc<Process>, sealed: &Arc<Vec<u8>>, open: bool) -> Vec<JoinHandle<keyfold::Result<()>>> {
    (0..CALLERS)
        .map(|_| {
            let (process, sealed) = (process.clone(), sealed.clone());
            tokio::spawn(async move {
                if open { open_cold(process, sealed).await } else { seal_cold(process).await.map(drop) }
            })
        })
        .collect()
}

// Failure A7
#[test]
fn three_thousand_cold_callers_make_one_request() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    threads().block_on(async {
        for round in 0..ROUNDS {
            for open in [false, true] {
                let process = Arc::new(Process::slow(&lab, lab.config.clone()));
                let before = lab.kms.unwrap_count();
                for caller in start(&process, &sealed, open) {
                    caller.await.unwrap().unwrap();
                }
                assert_eq!(lab.kms.unwrap_count() - before, 1, "round {round}, open: {open}");
            }
        }
    });
}

// Failure A8
#[test]
fn the_next_one_asks_when_the_one_who_asks_is_cancelled() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    threads().block_on(async {
        for open in [false, true] {
            let process = Arc::new(Process::slow(&lab, lab.config.clone()));
            // The first three requests are never answered. Whoever made one says so, and is cancelled.
            let (asking, mut asked) = tokio::sync::mpsc::unbounded_channel();
            let left = Arc::new(AtomicU64::new(3));
            process.kms.before(move || {
                let hangs = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                let asking = asking.clone();
                Box::pin(async move {
                    if hangs {
                        asking.send(tokio::task::id()).unwrap();
                        std::future::pending::<()>().await;
                    }
                })
            });
            let before = lab.kms.unwrap_count();
            let callers = start(&process, &sealed, open);
            for _ in 0..3 {
                let id = asked.recv().await.unwrap();
                callers.iter().find(|caller| caller.id() == id).unwrap().abort();
            }
            let mut cancelled = 0;
            for caller in callers {
                match caller.await {
                    Ok(result) => result.unwrap(),
                    Err(error) => cancelled += usize::from(error.is_cancelled()),
                }
            }
            assert_eq!((cancelled, lab.kms.unwrap_count() - before), (3, 1), "open: {open}");
        }
    });
}

// Failures A8, B10
#[test]
fn the_next_one_asks_when_the_one_who_asks_panics() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    std::panic::set_hook(Box::new(|_| {}));
    threads().block_on(async {
        for open in [false, true] {
            let process = Arc::new(Process::slow(&lab, lab.config.clone()));
            let left = AtomicU64::new(3);
            process.kms.before(move || {
                let panics = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                Box::pin(async move { assert!(!panics, "the service's client has a bug") })
            });
            let before = lab.kms.unwrap_count();
            let mut panicked = 0;
            for caller in start(&process, &sealed, open) {
                match caller.await {
                    Ok(result) => result.unwrap(),
                    Err(error) => panicked += usize::from(error.is_panic()),
                }
            }
            assert_eq!((panicked, lab.kms.unwrap_count() - before), (3, 1), "open: {open}");
        }
    });
    let _ = std::panic::take_hook();
}

/// However often everything is to be renewed while a request is under way, such as by a configuration that is reloaded all the time.
#[test]
fn those_who_wait_hear_of_one_failure_whatever_is_invalidated_meanwhile() {
    const WAITING: usize = 60;
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    Builder::new_current_thread().build().unwrap().block_on(async {
        for open in [false, true] {
            let process = Arc::new(Process::slow(&lab, lab.config.clone()));
            let ring = process.ring.clone();
            process.kms.before(move || {
                let ring = ring.clone();
                Box::pin(async move {
                    for _ in 0..3 {
                        ring.invalidate();
                        yield_once().await;
                    }
                })
            });
            lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
            let before = lab.kms.unwrap_count();
            let mut callers = start(&process, &sealed, open);
            callers.drain(WAITING..).for_each(|caller| caller.abort());
            for caller in callers {
                let failed = caller.await.unwrap().unwrap_err();
                assert_eq!(failed.kind(), ErrorKind::Kms(KmsErrorKind::Unavailable));
            }
            // Those who open look for the newest key first, and one of them comes later than the others.
            let asked = lab.kms.unwrap_count() - before;
            assert!((1..=3).contains(&asked) && (open || asked == 1), "{asked} requests, open: {open}");
            lab.kms.set_failure(None);
            seal_cold(process).await.unwrap();
        }
    });
}

/// Polls `future` at most `polls` times, then drops it.
fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    (0..polls).find_map(|_| match future.as_mut().poll(&mut context) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    })
}

// Failures A8, F12
#[test]
fn giving_up_at_any_point_leaves_nothing_behind_that_others_wait_for() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    let mut points = [0, 0];
    for open in [false, true] {
        for polls in 1.. {
            let process = Arc::new(Process::slow(&lab, lab.config.clone()));
            let finished = if open {
                give_up_after(polls, open_cold(process.clone(), sealed.clone())).is_some()
            } else {
                give_up_after(polls, seal_cold(process.clone())).is_some()
            };
            block_on(seal_cold(process.clone())).unwrap();
            block_on(open_cold(process, sealed.clone())).unwrap();
            if finished {
                points[usize::from(open)] = polls;
                break;
            }
        }
    }
    assert!(points.iter().all(|&polls| polls > 8), "{points:?}: store and service keep their callers waiting");
}

// Failure A26
#[test]
fn ten_thousand_scopes_cost_one_request() {
    const SCOPES: u32 = 10_000;
    let lab = Lab::new();
    let ring = lab.process();
    let name = |n: u32| format!("device-{n}");
    let values: Vec<_> = (0..SCOPES)
        .map(|n| {
            let parts = lab.add_scope(&name(n), 100 + n);
            sealed_under(&parts.key, &[7; 24], "x")
        })
        .collect();
    let before = lab.kms.unwrap_count();
    for (n, sealed) in (0..SCOPES).zip(&values) {
        assert_eq!(reveal(&ring, Some(&name(n)), sealed).unwrap(), ("x".to_owned(), true));
    }
    assert_eq!(lab.kms.unwrap_count() - before, 1);
}

// Failure A9
#[test]
fn a_failure_answers_for_a_moment_and_no_longer() {
    let mut lab = Lab::new();
    lab.config.cache.negative = Duration::from_secs(1);
    let process = Process::quick(&lab, lab.config.clone());
    lab.kms.set_failure(Some(KmsErrorKind::Throttled));
    let attempt = |what: &str| refused(seal(&process.ring, None, "x"), what);
    let throttled = ErrorKind::Kms(KmsErrorKind::Throttled);
    for _ in 0..100 {
        assert_eq!(attempt("while the service is throttling"), throttled);
    }
    assert_eq!(lab.kms.unwrap_count(), 1, "one request a second");
    lab.kms.set_failure(None);
    process.clock.advance(Duration::from_nanos(999_999_999));
    assert_eq!(attempt("a moment before"), throttled);
    process.clock.advance(Duration::from_nanos(1));
    assert!(seal(&process.ring, None, "x").is_ok());
    assert_eq!(lab.kms.unwrap_count(), 2);
}

#[test]
fn an_unknown_key_is_looked_up_once_a_moment() {
    let mut lab = Lab::new();
    lab.config.cache.negative = Duration::from_secs(1);
    let process = Process::quick(&lab, lab.config.clone());
    let mine = seal(&process.ring, None, "x").unwrap();
    let unknown = sealed_under(&theirs(keyfold::KeyClass::Data, keyfold::SlotId::NONE, 9), &[1; 24], "x");
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    let load = |decryptor: &Decryptor, sealed: &[u8]| block_on(decryptor.load_keys(&[sealed][..])).map_err(|e| e.error);
    lab.faults.reset();
    for _ in 0..100 {
        assert_eq!(refused(load(&decryptor, &unknown), "unknown"), ErrorKind::NoMatchingKey);
    }
    assert_eq!(lab.faults.log().iter().filter(|call| **call == "get").count(), 1);
    process.clock.advance(Duration::from_secs(1));
    // Restored from a backup meanwhile.
    lab.store.plant(&record(&child_parts(theirs(keyfold::KeyClass::Data, keyfold::SlotId::NONE, 9), root())));
    load(&decryptor, &unknown).unwrap();
    load(&decryptor, &mine).unwrap();
}

// Failure A7
#[test]
fn a_flood_of_unknown_keys_does_not_part_those_who_wait_for_one() {
    let lab = Lab::new();
    let sealed = Arc::new(seal(&lab.process(), None, "x").unwrap());
    let process = Arc::new(Process::slow(&lab, lab.config.clone()));
    let (asked, is_answered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    process.kms.before({
        let (asked, is_answered) = (asked.clone(), is_answered.clone());
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let is_answered = is_answered.clone();
            Box::pin(async move {
                while !is_answered.load(Ordering::SeqCst) {
                    yield_once().await;
                }
            })
        }
    });
    let mut context = Context::from_waker(Waker::noop());
    let mut first = pin!(open_cold(process.clone(), sealed.clone()));
    while asked.load(Ordering::SeqCst) == 0 {
        assert!(first.as_mut().poll(&mut context).is_pending());
    }
    // Far more failures than are remembered (4,096), while the service has not answered.
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    for n in 0..10_000 {
        let unknown = sealed_under(&theirs(keyfold::KeyClass::Data, keyfold::SlotId::NONE, 9 + n), &[1; 24], "x");
        let loaded = block_on(decryptor.load_keys(&[&unknown[..]][..])).map_err(|e| e.error);
        assert_eq!(refused(loaded, "unknown"), ErrorKind::NoMatchingKey);
        // A thousand a second are looked up.
        process.clock.advance(Duration::from_millis(1));
    }
    let mut second = pin!(open_cold(process, sealed));
    for _ in 0..100 {
        assert!(second.as_mut().poll(&mut context).is_pending());
    }
    is_answered.store(true, Ordering::SeqCst);
    let mut left = [Some(first), Some(second)];
    while left.iter().any(Option::is_some) {
        for waiting in &mut left {
            if let Some(Poll::Ready(opened)) = waiting.as_mut().map(|future| future.as_mut().poll(&mut context)) {
                opened.unwrap();
                *waiting = None;
            }
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the second one waited with the first");
}
