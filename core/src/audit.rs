//! What happens to keys, as events for an audit trail (DESIGN §6). Where they go is up to an [`AuditSink`].
//!
//! An event never holds plaintext, key bytes, scope names or context values.

mod chain;
mod usage;

pub use chain::{ChainStart, Ratchet};
pub(crate) use usage::{Usage, Use, UseCell};

use crate::error::{ErrorKind, Result};
use crate::kms::KekAlias;
use crate::wire::KeyId;
use std::time::Duration;

/// What was done, or tried.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AuditAction {
    /// A keyring was opened with a configuration.
    Opened,
    /// Another configuration or policy took effect.
    Reconfigured,
    /// A KEK was asked to wrap a key.
    Wrap,
    /// A KEK was asked to unwrap a key.
    Unwrap,
    /// Recovery mode was on, and a KEK was asked that is not asked otherwise.
    Recovery,
    /// A break-glass KEK was asked; the event has the reason.
    BreakGlass,
    /// A key was made.
    KeyMade,
    /// A key changed its state.
    StateChanged,
    /// Keys were put under another root.
    Reparent,
    /// Keys were wrapped by other KEKs.
    Rewrap,
    /// A KEK was proven to open the keyring alone.
    Drill,
    /// A KEK was asked to wrap and unwrap random bytes, to see whether it works.
    Probe,
    /// The end of a scope was scheduled.
    ShredScheduled,
    /// The end of a scope was called off.
    ShredCancelled,
    /// The keys of a scope were destroyed.
    Shredded,
    /// A certificate of the destruction of a scope was confirmed: somebody looked again at what is left, or vouched for it.
    ShredConfirmed,
    /// A legal hold was placed.
    HoldPlaced,
    /// A legal hold was lifted.
    HoldLifted,
    /// The key records were copied.
    Backup,
    /// The key records were brought back.
    Restore,
    /// Values were sealed again under a newer generation.
    Reencrypt,
    /// Values were moved to other rows.
    Rebind,
    /// Values of a plaintext column were sealed.
    Backfill,
    /// A statement, such as a certificate, was signed under the audit KEK; the event has its digest.
    StatementSigned,
    /// A data key left in a bundle for a device.
    Provision,
    /// What a device holds was taken back.
    Revoke,
    /// Values were sealed or opened under one key, for one field, in one interval.
    Use,
}

impl AuditAction {
    /// The name of the action in audit files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reconfigured => "reconfigured",
            Self::Wrap => "wrap",
            Self::Unwrap => "unwrap",
            Self::Recovery => "recovery",
            Self::BreakGlass => "break-glass",
            Self::KeyMade => "key-made",
            Self::StateChanged => "state-changed",
            Self::Reparent => "reparent",
            Self::Rewrap => "rewrap",
            Self::Drill => "drill",
            Self::Probe => "probe",
            Self::ShredScheduled => "shred-scheduled",
            Self::ShredCancelled => "shred-cancelled",
            Self::Shredded => "shredded",
            Self::ShredConfirmed => "shred-confirmed",
            Self::HoldPlaced => "hold-placed",
            Self::HoldLifted => "hold-lifted",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Reencrypt => "reencrypt",
            Self::Rebind => "rebind",
            Self::Backfill => "backfill",
            Self::StatementSigned => "statement-signed",
            Self::Provision => "provision",
            Self::Revoke => "revoke",
            Self::Use => "use",
        }
    }
}

/// One event. Time, actor and keyring are added by the sink.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEvent {
    /// What was done, or tried.
    pub action: AuditAction,
    /// Why it failed; `None`: it succeeded.
    pub error: Option<ErrorKind>,
    /// The key.
    pub key_id: Option<KeyId>,
    /// The KEK.
    pub kek: Option<KekAlias>,
    /// How long it took.
    pub latency: Option<Duration>,
    /// The field of the policy.
    pub field: Option<String>,
    /// Why a person did it, in his words: never about a patient.
    pub reason: Option<String>,
    /// Numbers and names that belong to the action, such as counts and states; safe to log.
    pub details: Vec<(&'static str, String)>,
}

impl AuditEvent {
    /// An event that says no more than the action, which succeeded.
    #[must_use]
    pub const fn new(action: AuditAction) -> Self {
        Self {
            action,
            error: None,
            key_id: None,
            kek: None,
            latency: None,
            field: None,
            reason: None,
            details: Vec::new(),
        }
    }

    /// With how it ended.
    #[must_use]
    pub fn outcome<T>(mut self, result: &Result<T>) -> Self {
        self.error = result.as_ref().err().map(crate::Error::kind);
        self
    }

    /// With the key.
    #[must_use]
    pub const fn key(mut self, key_id: KeyId) -> Self {
        self.key_id = Some(key_id);
        self
    }

    /// With the KEK.
    #[must_use]
    pub fn kek(mut self, alias: &KekAlias) -> Self {
        self.kek = Some(alias.clone());
        self
    }

    /// With a number or name that belongs to the action; safe to log.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl ToString) -> Self {
        self.details.push((name, value.to_string()));
        self
    }
}

/// Where events go. Called from several threads at once.
pub trait AuditSink: Send + Sync {
    /// Records an event, durably as far as the sink promises that. May block.
    ///
    /// # Errors
    ///
    /// Where the policy of the sink is to refuse what it cannot record: the operation fails with this error, and a key that
    /// it was to bring is not used.
    fn record(&self, event: AuditEvent) -> Result<()>;

    /// Records several events, all or none of them.
    ///
    /// # Errors
    ///
    /// As for [`record`](Self::record).
    fn record_all(&self, events: Vec<AuditEvent>) -> Result<()> {
        events.into_iter().try_for_each(|event| self.record(event))
    }

    /// Whether an event could be recorded now: asked before something is changed that cannot be taken back.
    ///
    /// # Errors
    ///
    /// Where the policy of the sink is to refuse what it cannot record: why it could not.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// How often the counts of sealed and opened values are to be recorded.
    fn interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Nothing more is to be expected, for now: writes what ends the record.
    fn close(&self) {}
}
