//! What an adapter says about an attempt that failed.

use crate::examine::Finding;
use keyfold::{Error, ErrorKind, KmsErrorKind, KmsTrace};
use std::fmt;
use std::time::Duration;

/// Whether the same attempt may be made again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Again {
    /// No: it would fail in the same way.
    No,
    /// After a pause, while attempts and deadline last.
    Later,
    /// At once, and once per operation: the credentials were refused, and the adapter has dropped them, so that the next
    /// attempt gets new ones.
    WithNewCredentials,
}

/// Why an attempt failed. Its texts are shown and logged, so they hold constants and checked codes, never what a service
/// wrote: a hostile one would send back the credentials or the payload.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The class: [`ErrorKind::Kms`], or [`ErrorKind::Configuration`] where the KEK is of the wrong sort.
    pub kind: ErrorKind,
    /// Whether the layer may repeat it.
    pub again: Again,
    /// How long the service asked to be left alone.
    pub retry_after: Option<Duration>,
    message: &'static str,
    detail: String,
}

impl Failure {
    /// A failure of class `kind`, to be repeated where the class allows that. `message` says what happened and who has to act.
    #[must_use]
    pub const fn new(kind: KmsErrorKind, message: &'static str) -> Self {
        let again = if kind.is_retryable() { Again::Later } else { Again::No };
        Self { kind: ErrorKind::Kms(kind), again, retry_after: None, message, detail: String::new() }
    }

    /// The KEK or the adapter is set up wrongly: no attempt can succeed.
    #[must_use]
    pub const fn configuration(message: &'static str) -> Self {
        let mut failure = Self::new(KmsErrorKind::Rejected, message);
        failure.kind = ErrorKind::Configuration;
        failure
    }

    /// The answer does not follow the protocol, and would not the next time.
    #[must_use]
    pub const fn malformed(message: &'static str) -> Self {
        Self::new(KmsErrorKind::MalformedResponse, message).again(Again::No)
    }

    /// Whether it says `message`: for an adapter that tells two answers of one class apart.
    #[must_use]
    pub fn is(&self, message: &str) -> bool {
        self.message == message
    }

    /// With another answer to whether it may be repeated.
    #[must_use]
    pub const fn again(mut self, again: Again) -> Self {
        self.again = again;
        self
    }

    /// With what the service asked for.
    #[must_use]
    pub const fn retry_after(mut self, pause: Option<Duration>) -> Self {
        self.retry_after = pause;
        self
    }

    /// With text that is only known at run time and safe to show: a status, a checked code, an error of this machine.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// What it means where the service need not let anybody look, to [`Adapter::examine`](super::Adapter::examine): a note
    /// that `permission` is missing, or why it cannot be told. What is worth another attempt stays a failure, and so does an
    /// outage, which must not look like an answer.
    ///
    /// # Errors
    ///
    /// The failure itself.
    pub fn while_looking(self, name: &'static str, permission: &str) -> Result<Finding, Self> {
        match (self.kind, self.again) {
            (ErrorKind::Kms(KmsErrorKind::AccessDenied), _) => Ok(Finding::not_permitted(name, permission)),
            (_, Again::No) if !self.is_outage() => Ok(Finding::note(name, format!("cannot be told: {self}"))),
            _ => Err(self),
        }
    }

    /// The error that the caller of the operation gets.
    // KC-3, KC-5.
    pub(super) fn into_error(self, label: &str, trace: &KmsTrace) -> Error {
        let mut detail = label.to_owned();
        if !self.detail.is_empty() {
            detail = format!("{detail}: {}", self.detail);
        }
        match trace.requests() {
            0 => detail.push_str("; nothing was sent"),
            1 => {}
            requests => detail = format!("{detail}; {requests} requests"),
        }
        if let Some(id) = trace.request_id() {
            detail = format!("{detail}; request ID {id}");
        }
        Error::new(self.kind, self.message).with_detail(detail)
    }

    /// Whether it says that the service is away, rather than what it thinks of the request.
    pub(super) const fn is_outage(&self) -> bool {
        matches!(self.kind, ErrorKind::Kms(KmsErrorKind::Unavailable | KmsErrorKind::Timeout | KmsErrorKind::TlsError))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// An error that speaks for itself, such as one of a credentials file. Not repeated.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(KmsErrorKind::Rejected, "the attempt could not be made").detail(error.to_string());
        failure.kind = error.kind();
        failure
    }
}
