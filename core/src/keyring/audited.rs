//! What the keyring tells its audit sink.

use super::Keyring;
use crate::audit::{AuditEvent, AuditSink, Usage, UseCell};
use crate::clock::{Clock, nanos};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::KeyId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The sink of a keyring, and the counts that wait for it. All clones are one.
#[derive(Clone)]
pub(crate) struct Audit(Arc<Inner>);

struct Inner {
    sink: OnceLock<Arc<dyn AuditSink>>,
    usage: Usage,
    /// When the counts were last recorded.
    recorded_at: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Audit {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let recorded_at = AtomicU64::new(nanos(clock.now()));
        Self(Arc::new(Inner { sink: OnceLock::new(), usage: Usage::default(), recorded_at, clock }))
    }

    /// Whether anybody is told.
    pub(crate) fn is_on(&self) -> bool {
        self.0.sink.get().is_some()
    }

    /// Records an event, and the counts before it if their interval is over.
    pub(super) fn record(&self, event: AuditEvent) -> Result<()> {
        let Some(sink) = self.0.sink.get() else { return Ok(()) };
        if !self.is_due(sink) {
            return sink.record(event);
        }
        self.record_counts(sink, Some(event))
    }

    /// Whether an event could be recorded.
    pub(super) fn check(&self) -> Result<()> {
        self.0.sink.get().map_or(Ok(()), |sink| sink.check())
    }

    /// Records the counts if their interval is over.
    pub(super) fn record_due_counts(&self) -> Result<()> {
        match self.0.sink.get() {
            Some(sink) if self.is_due(sink) => self.record_counts(sink, None),
            _ => Ok(()),
        }
    }

    /// Records the counts, so that a child of a fork does not have them as well.
    pub(super) fn before_fork(&self) {
        if let Some(sink) = self.0.sink.get() {
            self.record_last_counts(sink);
        }
    }

    /// Records the counts, and ends the record.
    pub(super) fn close(&self) {
        let Some(sink) = self.0.sink.get() else { return };
        self.record_last_counts(sink);
        sink.close();
    }

    fn record_last_counts(&self, sink: &Arc<dyn AuditSink>) {
        if let Err(error) = self.record_counts(sink, None) {
            tracing::warn!(code = error.kind().code(), "the last counts were not recorded: {error}");
        }
    }

    /// Where the use of a key in a field is counted. `None` for the key: of whichever key.
    pub(crate) fn cell(&self, key_id: Option<KeyId>, field: &Arc<str>) -> Option<Arc<UseCell>> {
        let usage = &self.0.usage;
        if let Some(cell) = usage.cell(key_id, field) {
            return Some(cell);
        }
        // Recording what was counted so far makes room for pairs whose handles are gone.
        if let Err(error) = self.0.sink.get().map_or(Ok(()), |sink| self.record_counts(sink, None)) {
            tracing::warn!(code = error.kind().code(), "counts were not recorded: {error}");
        }
        usage.cell(key_id, field).or_else(|| usage.cell(None, field))
    }

    /// Whether the interval is over, for one caller.
    fn is_due(&self, sink: &Arc<dyn AuditSink>) -> bool {
        let (now, recorded_at) = (nanos(self.0.clock.now()), self.0.recorded_at.load(Ordering::Relaxed));
        now.saturating_sub(recorded_at) >= nanos(sink.interval())
            && self.0.recorded_at.compare_exchange(recorded_at, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn record_counts(&self, sink: &Arc<dyn AuditSink>, and: Option<AuditEvent>) -> Result<()> {
        let taken = self.0.usage.take();
        let mut events = taken.events();
        events.extend(and);
        if events.is_empty() {
            return Ok(());
        }
        let recorded = sink.record_all(events);
        if recorded.is_err() {
            self.0.usage.put_back(taken);
        }
        recorded
    }
}

/// The sink of a keyring that looks on another one's keys: what it records is a part of that one's record, which it does not end.
impl AuditSink for Audit {
    fn record(&self, event: AuditEvent) -> Result<()> {
        Self::record(self, event)
    }

    fn check(&self) -> Result<()> {
        Self::check(self)
    }
}

impl Keyring {
    /// Has every event of this keyring recorded by `sink`, from now on. Once per keyring, before handles are made: those that
    /// exist do not count what they seal and open.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): it has a sink already.
    pub fn set_audit(&self, sink: Arc<dyn AuditSink>) -> Result<()> {
        let refused = |_| Error::new(ErrorKind::InvalidInput, "the keyring has an audit sink already");
        self.inner.audit.0.sink.set(sink).map_err(refused)
    }

    /// Whether there is a sink.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.inner.audit.is_on()
    }

    /// Records an event of the caller's own, such as a restore, beside those of the keyring. Does nothing without a sink.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn audit(&self, event: AuditEvent) -> Result<()> {
        self.inner.audit.record(event)
    }

    /// Whether an event could be recorded now: for who is about to change what cannot be taken back. Without a sink: yes.
    ///
    /// # Errors
    ///
    /// Those of the sink, where its policy is to refuse.
    pub fn check_audit(&self) -> Result<()> {
        self.inner.audit.check()
    }

    /// Records what was counted and not recorded yet, as [`close`](Self::close) does, which cannot say that it failed: for who is about to hand
    /// out what was opened. Does nothing without a sink.
    ///
    /// # Errors
    ///
    /// Those of the sink, where its policy is to refuse. What was counted still waits to be recorded.
    pub fn record_uses(&self) -> Result<()> {
        let audit = &self.inner.audit;
        audit.0.sink.get().map_or(Ok(()), |sink| audit.record_counts(sink, None))
    }

    pub(crate) fn audit_of(&self) -> &Audit {
        &self.inner.audit
    }
}

impl Drop for super::Inner {
    fn drop(&mut self) {
        self.audit.close();
    }
}
