//! A deadline for every request to a KEK, whatever its adapter does.

use crate::examine::{Examine, Finding, Profile};
use keyfold::{
    BoxFuture, Error, ErrorKind, Kms, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A KEK whose requests end after a total time: with their answer, or with `Timeout`, upon which the next KEK is asked.
///
/// Works in any executor. Ends what waits for an answer; what blocks its thread cannot be ended.
pub struct Deadline<K: ?Sized> {
    inner: Arc<K>,
    limit: Duration,
}

impl<K: Kms + ?Sized> Deadline<K> {
    /// `inner`, whose requests take no longer than `limit`.
    #[must_use]
    pub fn new(inner: Arc<K>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let handle = keyfold_background::handle().map_err(|error| {
            Error::new(ErrorKind::Kms(KmsErrorKind::Unavailable), "no clock for the deadline of the KEK")
                .with_source(error)
        })?;
        let timed = {
            // Its clock is that of our own thread, wherever the request is polled.
            let _entered = handle.enter();
            tokio::time::timeout(self.limit, request)
        };
        timed.await.unwrap_or_else(|_| {
            let late = Error::new(ErrorKind::Kms(KmsErrorKind::Timeout), "the KEK did not answer within its deadline");
            Err(late.with_detail(format!("{} ms", self.limit.as_millis())))
        })
    }
}

impl<K: Kms + ?Sized> Kms for Deadline<K> {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(self.within(self.inner.wrap(request)))
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(self.within(self.inner.unwrap(request)))
    }
}

impl<K: Examine + ?Sized> Examine for Deadline<K> {
    fn profile(&self) -> Profile {
        self.inner.profile()
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Result<Vec<Finding>>> {
        Box::pin(self.within(self.inner.examine(trace)))
    }
}

impl<K: ?Sized> fmt::Debug for Deadline<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").field("limit", &self.limit).finish_non_exhaustive()
    }
}
