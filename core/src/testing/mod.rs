//! For those who implement [`Kms`](crate::Kms) or [`KeyStore`](crate::KeyStore), and for tests without a key service.
//!
//! - [`store_conformance`] and [`kms_conformance`]: what every implementation must pass. Call them from your own tests.
//! - [`FakeKms`]: a key service in memory, with real cryptography, that counts its calls and fails on command.
//! - [`SampleRecord`], [`sample_records`]: key records that parse but that no root vouches for.
//! - [`block_on`]: runs a future, since this crate has no runtime.
//!
//! Everything here reports a broken rule by panicking with its name. Not for production.

mod kms;
mod record;
mod store;

pub use kms::{ContextBinding, FakeKms, kms_conformance};
pub use record::{SampleRecord, sample_records};
pub use store::store_conformance;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Runs `future` on this thread until it is ready.
///
/// Drives no timers and no sockets: a future that needs a runtime must find one, for example by calling this
/// inside that runtime's guard.
///
/// # Examples
///
/// ```
/// assert_eq!(keyfold::testing::block_on(async { 6 * 7 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // The flag, not the park token, says whether to poll again: a nested `block_on` may have used up the token.
        while !unpark.woken.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Secret, UnwrapRequest, WrapRequest};

    #[test]
    fn block_on_wakes_up_from_another_thread_and_when_nested() {
        let mut polls = 0;
        let woken_later = std::future::poll_fn(|context| {
            polls += 1;
            if polls > 3 {
                return Poll::Ready(polls);
            }
            let waker = context.waker().clone();
            thread::spawn(move || waker.wake());
            block_on(async {});
            Poll::Pending
        });
        assert_eq!(block_on(woken_later), 4);
    }

    #[test]
    fn the_fake_service_conforms() {
        kms_conformance(&FakeKms::new(), ContextBinding::ByService);
    }

    #[test]
    fn the_fake_service_obeys_its_switches() {
        let kms = FakeKms::new();
        let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), crate::wire::KeyId::from_bytes([2; 24]));
        let payload = Secret::with(|p: &mut [u8; 64]| p.fill(3));
        let wrapped = block_on(kms.wrap(WrapRequest::new(&payload, &context))).expect("it works");
        let unwrap = || block_on(kms.unwrap(UnwrapRequest::new(&wrapped, &context)));
        assert_eq!(unwrap().expect("it works").expose(), payload.expose());

        kms.set_wrong_payload(true);
        assert_ne!(unwrap().expect("it answers").expose(), payload.expose());
        kms.set_wrong_payload(false);

        kms.set_encrypt_only(true);
        assert_eq!(unwrap().err().map(|e| e.kind()), Some(ErrorKind::Kms(KmsErrorKind::AccessDenied)));
        assert!(block_on(kms.wrap(WrapRequest::new(&payload, &context))).is_ok());
        kms.set_encrypt_only(false);

        kms.fail_next(1, KmsErrorKind::Throttled);
        assert_eq!(unwrap().err().map(|e| e.kind()), Some(ErrorKind::Kms(KmsErrorKind::Throttled)));
        assert!(unwrap().is_ok());

        kms.set_failure(Some(KmsErrorKind::KeyDisabled));
        assert_eq!(unwrap().err().map(|e| e.kind()), Some(ErrorKind::Kms(KmsErrorKind::KeyDisabled)));
        kms.set_failure(None);
        assert_eq!((kms.wrap_count(), kms.unwrap_count()), (2, 6));
    }
}
