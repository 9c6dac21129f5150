//! Key services as operators and auditors see them: a span, a measurement and an event for every request.

use super::audited::Audit;
use crate::audit::{AuditAction, AuditEvent};
use crate::error::Result;
use crate::keys::Secret;
use crate::kms::{BoxFuture, KekAlias, Kms, KmsContext, UnwrapRequest, WrapRequest, WrappedKey};
use crate::observe;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

/// A key service under the alias by which the configuration names it.
pub(super) struct ObservedKms {
    pub(super) alias: KekAlias,
    pub(super) inner: Arc<dyn Kms>,
    pub(super) audit: Audit,
}

impl ObservedKms {
    /// Makes a request. What it brings is used only if its event could be recorded.
    async fn observe<T>(
        &self,
        action: AuditAction,
        context: &KmsContext,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (operation, asked_at) = (action.name(), Instant::now());
        let span = tracing::info_span!("keyfold_kms_request", kek = %self.alias, operation);
        let answer = request.instrument(span).await;
        let (outcome, took) = (answer.as_ref().err().map_or("ok", |error| error.kind().name()), asked_at.elapsed());
        observe::kms_request(self.alias.as_str(), operation, outcome, took);
        let mut event = AuditEvent::new(action).kek(&self.alias).key(context.key_id()).outcome(&answer);
        event.latency = Some(took);
        let recorded = self.audit.record(event);
        answer.and_then(|answer| recorded.map(|()| answer))
    }
}

impl Kms for ObservedKms {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(self.observe(AuditAction::Wrap, request.context, self.inner.wrap(request)))
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(self.observe(AuditAction::Unwrap, request.context, self.inner.unwrap(request)))
    }
}
