//! Why documents are refused, and where.

use crate::JsonError;
use keyfold::{Error, ErrorKind};
use std::fmt;

/// Why a policy cannot be applied to a document, or to any. Says no values and no member names of documents.
#[derive(Debug)]
pub struct DocumentError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    index: Option<usize>,
    line: Option<u64>,
    byte: Option<usize>,
    document: Option<String>,
    field: Option<String>,
    cause: Cause,
}

/// What went wrong.
#[derive(Debug)]
pub enum Cause {
    /// The text of the document, or a path of the policy, is not what it should be.
    Json(JsonError),
    /// Keys, values or the policy.
    Refused(Error),
}

impl DocumentError {
    pub(crate) fn new(kind: ErrorKind, why: &'static str) -> Self {
        Error::new(kind, why).into()
    }

    /// With text that is only known at run time: names of the policy.
    pub(crate) fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        if let Cause::Refused(error) = &self.0.cause {
            self.0.cause = Cause::Refused(error.clone().with_detail(detail));
        }
        self
    }

    /// In the text `index` of a call, whose first line has this number.
    pub(crate) fn in_text(mut self, index: usize, line: u64) -> Self {
        self.0.index.get_or_insert(index);
        self.0.line.get_or_insert(line);
        self
    }

    /// In a document inside of the text, which starts at this byte of it, from 0.
    pub(crate) fn in_part(mut self, offset: usize) -> Self {
        self.0.byte = self.0.byte.or((offset > 0).then_some(offset + 1));
        self
    }

    pub(crate) fn of_field(mut self, name: &str) -> Self {
        self.0.field.get_or_insert_with(|| name.to_owned());
        self
    }

    pub(crate) fn of_document(mut self, name: &str) -> Self {
        self.0.document.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Which of the texts of a call, from 0; `None`: the policy or the keys are at fault, whatever the texts say.
    #[must_use]
    pub fn index(&self) -> Option<usize> {
        self.0.index
    }

    /// The field, where it is one's.
    #[must_use]
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// What went wrong, without the place.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.0.cause
    }

    /// As [`cause`](Self::cause), without the rest.
    #[must_use]
    pub fn into_cause(self) -> Cause {
        self.0.cause
    }

    /// What went wrong, by who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match &self.0.cause {
            Cause::Refused(error) => error.kind(),
            Cause::Json(JsonError::Path { .. }) => ErrorKind::Configuration,
            Cause::Json(JsonError::Io(_)) => ErrorKind::Io,
            Cause::Json(JsonError::LineTooLong { .. } | JsonError::TooManyValues { .. }) => ErrorKind::LimitExceeded,
            Cause::Json(JsonError::DamagedHeader { .. }) => ErrorKind::Malformed,
            Cause::Json(_) => ErrorKind::InvalidInput,
        }
    }

    /// Where it is: line, byte at which a document inside of it starts, document and field, as far as they are known; empty if nothing is. What is wrong
    /// with JSON says its line itself.
    #[must_use]
    pub fn place(&self) -> String {
        let line = self.0.line.filter(|_| matches!(self.0.cause, Cause::Refused(_))).map(|line| format!("line {line}"));
        let named = |what: &str, name: &Option<String>| name.as_ref().map(|name| format!("{what} {name}"));
        let of = if line.is_some() { "" } else { "the document at " };
        let byte = self.0.byte.map(|byte| format!("{of}byte {byte}"));
        let parts = [line, byte, named("document", &self.0.document), named("field", &self.0.field)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        match &self.0.cause {
            Cause::Json(error) => error.fmt(f),
            Cause::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for DocumentError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match &self.0.cause {
            Cause::Json(error) => error,
            Cause::Refused(error) => error,
        })
    }
}

impl From<DocumentError> for Error {
    /// The same as an error of the keyring, whose text has the place behind the rest.
    fn from(error: DocumentError) -> Self {
        let (kind, place) = (error.kind(), error.place());
        match error.into_cause() {
            Cause::Json(error) => Self::new(kind, "the document is refused").with_detail(error.to_string()),
            Cause::Refused(error) if place.is_empty() => error,
            Cause::Refused(error) if error.detail().is_empty() => error.with_detail(place),
            Cause::Refused(error) => {
                let detail = format!("{}; {place}", error.detail());
                error.with_detail(detail)
            }
        }
    }
}

impl From<JsonError> for DocumentError {
    fn from(error: JsonError) -> Self {
        Cause::Json(error).into()
    }
}

impl From<Error> for DocumentError {
    fn from(error: Error) -> Self {
        Cause::Refused(error).into()
    }
}

impl From<Cause> for DocumentError {
    fn from(cause: Cause) -> Self {
        Self(Box::new(Parts { index: None, line: None, byte: None, document: None, field: None, cause }))
    }
}
