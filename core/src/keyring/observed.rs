//! Key services as operators see them: a span and a measurement around every request.

use crate::error::Result;
use crate::keys::Secret;
use crate::kms::{BoxFuture, KekAlias, Kms, UnwrapRequest, WrapRequest, WrappedKey};
use crate::observe;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

/// A key service under the alias by which the configuration names it.
pub(super) struct ObservedKms {
    pub(super) alias: KekAlias,
    pub(super) inner: Arc<dyn Kms>,
}

impl ObservedKms {
    async fn observe<T>(&self, operation: &'static str, request: impl Future<Output = Result<T>>) -> Result<T> {
        let asked_at = Instant::now();
        let span = tracing::info_span!("keyfold_kms_request", kek = %self.alias, operation);
        let answer = request.instrument(span).await;
        let outcome = answer.as_ref().err().map_or("ok", |error| error.kind().name());
        observe::kms_request(self.alias.as_str(), operation, outcome, asked_at.elapsed());
        answer
    }
}

impl Kms for ObservedKms {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(self.observe("wrap", self.inner.wrap(request)))
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(self.observe("unwrap", self.inner.unwrap(request)))
    }
}
