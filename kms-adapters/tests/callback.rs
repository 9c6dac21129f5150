//! KEKs behind functions of the host program.

mod common;

use common::{context, refused, unwrap, unwrap_traced, wrap};
use keyfold::testing::{ContextBinding, FakeKms, block_on, kms_conformance};
use keyfold::{ErrorKind, Kms, KmsErrorKind, UnwrapRequest, WrapRequest, WrappedKey};
use keyfold_kms::callback::{Callback, CallbackKek};
use keyfold_kms::layer::{Failure, Limits};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

fn unlimited() -> Limits {
    let mut limits = Limits::default();
    (limits.rate, limits.burst) = (10_000.0, 10_000);
    limits
}

fn blocking(fake: &FakeKms) -> CallbackKek {
    let (wraps, unwraps) = (fake.clone(), fake.clone());
    CallbackKek::blocking(
        "fake",
        unlimited(),
        move |payload, context| Ok(block_on(wraps.wrap(WrapRequest::new(payload, context)))?),
        move |wrapped, context| Ok(block_on(unwraps.unwrap(UnwrapRequest::new(wrapped, context)))?),
    )
    .expect("opened")
}

#[test]
fn conforms() {
    kms_conformance(&blocking(&FakeKms::new()), ContextBinding::ByService);
    let fake = FakeKms::new();
    let (wraps, unwraps) = (fake.clone(), fake);
    let kek = CallbackKek::asynchronous(
        "fake",
        unlimited(),
        move |payload, context| {
            let fake = wraps.clone();
            Box::pin(async move { Ok(fake.wrap(WrapRequest::new(&payload, &context)).await?) })
        },
        move |wrapped, context| {
            let fake = unwraps.clone();
            Box::pin(async move { Ok(fake.unwrap(UnwrapRequest::new(&wrapped, &context)).await?) })
        },
    );
    kms_conformance(&kek.expect("opened"), ContextBinding::ByService);
}

/// Covers KC-25.
#[test]
fn works_inside_a_runtime_and_outside() {
    let kek = blocking(&FakeKms::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let wrapped = runtime.block_on(async { wrap(&kek).expect("wrapped") });
    drop(runtime);
    assert!(unwrap(&kek, &wrapped).is_ok());
}

/// The layer is above these as above all others: what a function says may be repeated is repeated, and its silence ends.
// Failures B10, F6
#[test]
fn functions_that_fail_hang_or_panic() {
    let wrapped = WrappedKey { kek_version: String::new(), bytes: vec![7; 64] };
    let calls = Arc::new(AtomicU32::new(0));
    let kek = |deadline, unwrap: fn(u32) -> Failure| {
        let mut limits = unlimited();
        (limits.deadline, limits.attempt) = (deadline, deadline);
        let calls = Arc::clone(&calls);
        let never = |_: &_, _: &_| Err(Failure::new(KmsErrorKind::Rejected, "not asked"));
        CallbackKek::blocking("ward HSM", limits, never, move |_, _| Err(unwrap(calls.fetch_add(1, Ordering::SeqCst))))
            .expect("opened")
    };
    let (long, short) = (Duration::from_secs(30), Duration::from_millis(300));
    let (result, requests) =
        unwrap_traced(&kek(long, |_| Failure::new(KmsErrorKind::KeyDisabled, "switched off")), &wrapped);
    let error = refused(result);
    assert_eq!((error.kind(), requests), (ErrorKind::Kms(KmsErrorKind::KeyDisabled), 1));
    assert_eq!(error.to_string(), "switched off: ward HSM");
    let begun = Instant::now();
    let slow = kek(short, |_| {
        std::thread::sleep(Duration::from_secs(10));
        Failure::new(KmsErrorKind::KeyDisabled, "too late")
    });
    assert_eq!(refused(unwrap(&slow, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::Timeout));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let panics = kek(long, |_| panic!("a bug of the host"));
    assert_eq!(refused(unwrap(&panics, &wrapped)).kind(), ErrorKind::Internal);
}

/// More calls hang than there are threads for all KEKs together.
/// Covers KC-38.
#[test]
fn functions_that_hang_leave_threads_for_other_keks() {
    let mut limits = unlimited();
    (limits.attempts, limits.outages) = (1, u32::MAX);
    (limits.deadline, limits.attempt) = (Duration::from_millis(500), Duration::from_millis(500));
    let running = Arc::new(AtomicU32::new(0));
    let (end, ended) = mpsc::channel::<()>();
    let (counted, ended) = (Arc::clone(&running), Mutex::new(ended));
    let never = |_: &_, _: &_| Err(Failure::new(KmsErrorKind::Rejected, "not asked"));
    let hangs = CallbackKek::blocking("hangs", limits, never, move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        // Until the sender is dropped.
        let _ = ended.lock().map(|ended| ended.recv());
        Err(Failure::new(KmsErrorKind::Rejected, "too late"))
    });
    let hangs = Arc::new(hangs.expect("opened"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let calls: Vec<_> = (0..600)
            .map(|_| {
                let hangs = Arc::clone(&hangs);
                tokio::spawn(async move {
                    let wrapped = WrappedKey { kek_version: String::new(), bytes: vec![7; 64] };
                    hangs.unwrap(UnwrapRequest::new(&wrapped, &context())).await.map(drop)
                })
            })
            .collect();
        for call in calls {
            let error = refused(call.await.expect("not stopped"));
            assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Timeout));
        }
    });
    let others = wrap(&blocking(&FakeKms::new()));
    drop(end);
    assert!(others.is_ok(), "{}", refused(others));
    assert!(running.load(Ordering::SeqCst) as usize <= Callback::MAX_BLOCKING_CALLS);
}

/// Covers KC-8.
#[test]
fn a_wrapped_key_that_no_record_can_hold_is_refused() {
    for (version, len) in [(0, 0), (0, WrappedKey::MAX_LEN + 1), (WrappedKey::MAX_VERSION_LEN + 1, 64)] {
        let kek = CallbackKek::blocking(
            "odd",
            unlimited(),
            move |_, _| Ok(WrappedKey { kek_version: "v".repeat(version), bytes: vec![0; len] }),
            |_, _| Err(Failure::new(KmsErrorKind::Rejected, "not asked")),
        );
        let error = refused(wrap(&kek.expect("opened")));
        assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::MalformedResponse), "{version} {len}");
    }
}
