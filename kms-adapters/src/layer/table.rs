//! Error tables: how an adapter sorts the answers of its service, as data that documents and tests can walk through.

use super::{Again, Failure};
use keyfold::{ErrorKind, KmsErrorKind};

/// One row: answers that it takes, and what they mean. The first row that takes an answer counts.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// HTTP statuses, or native codes, that it takes; empty: any.
    pub statuses: &'static [u16],
    /// The error code, as the service writes it; empty: any.
    pub code: &'static str,
    /// Text that the message holds, in lower case; empty: any.
    pub text: &'static str,
    /// The class.
    pub kind: ErrorKind,
    /// Whether it may be repeated.
    pub again: Again,
    /// What happened and who has to act.
    pub message: &'static str,
}

impl Row {
    /// A row that takes everything: class and repetition as `kind` says.
    #[must_use]
    pub const fn kms(kind: KmsErrorKind, message: &'static str) -> Self {
        let again = if kind.is_retryable() { Again::Later } else { Again::No };
        Self { statuses: &[], code: "", text: "", kind: ErrorKind::Kms(kind), again, message }
    }

    /// A row that takes everything and blames the configuration.
    #[must_use]
    pub const fn configuration(message: &'static str) -> Self {
        Self { kind: ErrorKind::Configuration, ..Self::kms(KmsErrorKind::Rejected, message) }
    }

    /// That takes these statuses alone.
    #[must_use]
    pub const fn status(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    /// That takes this code alone.
    #[must_use]
    pub const fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// That takes messages with this text alone, written here in lower case.
    #[must_use]
    pub const fn text(mut self, text: &'static str) -> Self {
        self.text = text;
        self
    }

    /// With another answer to whether it may be repeated.
    #[must_use]
    pub const fn again(mut self, again: Again) -> Self {
        self.again = again;
        self
    }

    fn takes(&self, status: u16, code: &str, message: &str) -> bool {
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.code.is_empty() || self.code == code)
            && (self.text.is_empty() || message.to_ascii_lowercase().contains(self.text))
    }
}

/// Sorts an answer: the first row of `table` that takes it, and `Rejected` if none does. `message` is read, never shown;
/// `code` is shown if it looks like one.
// KC-28.
#[must_use]
pub fn sort(table: &[Row], status: u16, code: &str, message: &str) -> Failure {
    // KC-27.
    const UNKNOWN: Row =
        Row::kms(KmsErrorKind::Rejected, "the key service refused for a reason that this version does not know");
    let row = table.iter().find(|row| row.takes(status, code, message)).unwrap_or(&UNKNOWN);
    let mut detail = format!("status {status}");
    let is_code =
        |code: &str| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !code.is_empty() && is_code(code) {
        detail = format!("{detail}, {code}");
    }
    let mut failure = Failure::new(KmsErrorKind::Rejected, row.message).again(row.again).detail(detail);
    failure.kind = row.kind;
    failure
}

/// What remains when a table has no row for an HTTP status of its own: the meaning that HTTP gives it. The last rows of a
/// table of a REST service. None for 403 and 404: without the service's own code or words they may come from whatever
/// stands in front of it, and an ingress that is being replaced must not look like a revocation.
pub const HTTP_ROWS: [Row; 4] = [
    Row::kms(KmsErrorKind::Throttled, "the key service has had too many requests").status(&[429]),
    Row::kms(KmsErrorKind::Timeout, "the key service gave up waiting for another one").status(&[408, 504]),
    Row::kms(KmsErrorKind::Unavailable, "the key service does not work at present").status(&[500, 502, 503]),
    Row::kms(KmsErrorKind::Credentials, "the key service does not accept the credentials").status(&[401]),
];
