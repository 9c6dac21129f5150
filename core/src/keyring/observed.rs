//! Key services as operators and auditors see them: a span, a measurement and an event for every request.

use super::audited::Audit;
use super::closed;
use crate::audit::{AuditAction, AuditEvent};
use crate::error::{Error, Result};
use crate::keys::Secret;
use crate::kms::{BoxFuture, KekAlias, Kms, KmsContext, KmsTrace, UnwrapRequest, WrapRequest, WrappedKey};
use crate::observe;
use arc_swap::ArcSwapOption;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument as _;

/// A key service under the alias by which the configuration names it.
pub(super) struct ObservedKms {
    alias: KekAlias,
    /// `None`: the keyring has been closed.
    inner: ArcSwapOption<Arc<dyn Kms>>,
    audit: Audit,
}

/// The source of an error of the audit sink, in the place of what the key service answered: its KEK is not to blame.
#[derive(Debug)]
pub(super) struct Unrecorded(Error);

impl Unrecorded {
    fn mark(error: Error) -> Error {
        error.clone().with_source(Self(error))
    }

    pub(super) fn is_source_of(error: &Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Self>())
    }
}

impl fmt::Display for Unrecorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unrecorded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl ObservedKms {
    pub(super) fn new(alias: KekAlias, inner: Arc<dyn Kms>, audit: Audit) -> Self {
        Self { alias, inner: ArcSwapOption::from_pointee(inner), audit }
    }

    /// Drops the key service, which may hold its KEK in memory, as soon as the requests that are under way have ended.
    pub(super) fn forget(&self) {
        self.inner.store(None);
    }

    fn inner(&self) -> Result<Arc<Arc<dyn Kms>>> {
        self.inner.load_full().ok_or_else(closed)
    }

    /// Makes a request. What it brings is used only if its event could be recorded.
    async fn observe<T>(
        &self,
        action: AuditAction,
        context: &KmsContext,
        trace: &KmsTrace,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let (operation, asked_at) = (action.name(), Instant::now());
        let span = tracing::info_span!("keyfold_kms_request", kek = %self.alias, operation);
        let answer = request.instrument(span).await;
        let (outcome, took) = (answer.as_ref().err().map_or("ok", |error| error.kind().name()), asked_at.elapsed());
        observe::kms_request(self.alias.as_str(), operation, outcome, took);
        let mut event = AuditEvent::new(action).kek(&self.alias).key(context.key_id()).outcome(&answer);
        event.latency = Some(took);
        // A KEK on this machine sends nothing.
        if trace.requests() > 0 {
            event = event.detail("requests", trace.requests());
        }
        if let Some(id) = trace.request_id() {
            event = event.detail("request_id", id);
        }
        let recorded = self.audit.record(event);
        answer.and_then(|answer| recorded.map(|()| answer).map_err(Unrecorded::mark))
    }
}

impl Kms for ObservedKms {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async move {
            let (inner, trace) = (self.inner()?, KmsTrace::new());
            let (context, traced) = (request.context, WrapRequest { trace: Some(&trace), ..request });
            self.observe(AuditAction::Wrap, context, &trace, inner.wrap(traced)).await
        })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move {
            let (inner, trace) = (self.inner()?, KmsTrace::new());
            let (context, traced) = (request.context, UnwrapRequest { trace: Some(&trace), ..request });
            self.observe(AuditAction::Unwrap, context, &trace, inner.unwrap(traced)).await
        })
    }
}
