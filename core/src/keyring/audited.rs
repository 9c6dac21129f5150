//! What the keyring tells its audit sink.

use super::Keyring;
use crate::audit::{AuditEvent, AuditSink};
use crate::error::{Error, ErrorKind, Result};
use std::sync::Arc;

impl Keyring {
    /// Has every event of this keyring recorded by `sink`, from now on. Once per keyring.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): it has a sink already.
    pub fn set_audit(&self, sink: Arc<dyn AuditSink>) -> Result<()> {
        let refused = |_| Error::new(ErrorKind::InvalidInput, "the keyring has an audit sink already");
        self.inner.audit.set(sink).map_err(refused)
    }

    /// Records an event of the caller's own, such as a restore, beside those of the keyring. Does nothing without a sink.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn audit(&self, event: AuditEvent) -> Result<()> {
        self.inner.audit.get().map_or(Ok(()), |sink| sink.record(event))
    }
}
