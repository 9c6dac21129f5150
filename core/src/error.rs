//! One error for the whole library, sorted by who has to act.

use core::fmt;

/// What a function of this crate returns.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// Why an operation failed.
///
/// [`kind`](Self::kind) is API and has a permanent number; the text is not. The text is safe to log: it
/// names limits, rows, fields and keys, never a value, a key byte or a context value. Nothing was
/// written, sealed or stored unless the function that returned it says otherwise.
#[derive(Clone)]
pub struct Error {
    kind: ErrorKind,
    message: &'static str,
    is_lasting: bool,
    #[cfg(feature = "std")]
    more: Option<std::sync::Arc<More>>,
}

#[cfg(feature = "std")]
struct More {
    detail: std::string::String,
    /// Shared, since an error that somebody else has, too, may get another detail.
    source: Option<std::sync::Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal),+ $(,)?) => {
        /// What went wrong, by who has to act. The text of an [`Error`] is not API; this is.
        // The classes of F-9.1-1, F-9.2-1, F-9.3-1, F-9.4-1.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum ErrorKind {
            $($(#[$doc])* $name,)+
            /// The key service refused or did not answer.
            Kms(KmsErrorKind),
        }

        impl ErrorKind {
            /// Every kind except the [`Kms`](Self::Kms) ones, which are in [`KmsErrorKind::ALL`].
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The permanent number of this kind, the same in C and Python. Never reused.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$name => $code,)+
                    Self::Kms(kind) => kind.code(),
                }
            }

            /// The name of this kind as written in documents and test vectors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                    Self::Kms(kind) => kind.name(),
                }
            }
        }
    };
}

kinds! {
    // 1xx: the caller has to act.
    /// An argument breaks a documented rule.
    InvalidInput = 100,
    // 101, 102, 104 and 105 are the C library's: what only a C program can do wrong.
    /// A value, context, column or file is larger than its documented limit.
    LimitExceeded = 103,
    /// The policy does not allow it; decided before any key was touched.
    PolicyRefused = 110,
    /// The configuration or a policy file is wrong.
    Configuration = 111,
    // 2xx: the bytes are wrong; says nothing about keys.
    /// The bytes are not one canonical encoding of a known suite.
    Malformed = 200,
    /// Well-formed, but a suite or version that this build does not know or that is reserved.
    Unsupported = 201,
    // 3xx: keys.
    /// No key of this keyring has that key ID.
    NoMatchingKey = 300,
    /// Ciphertext, context, row, field or key is not the one it was encrypted with. Which of these is deliberately not told. Treat it as tampering.
    DecryptionFailed = 301,
    /// The key belongs to another scope, partition or class than the caller stated.
    WrongScope = 302,
    /// The state of the key does not allow the operation.
    KeyState = 303,
    /// A key record is forged, edited, replayed or not vouched for by a trusted root.
    RecordRejected = 304,
    // 5xx: the system.
    /// The operating system's generator failed; nothing was sealed.
    RandomnessUnavailable = 500,
    /// The total deadline of the operation has passed.
    DeadlineExceeded = 501,
    /// The handle has been closed.
    Closed = 502,
    // 6xx: storage.
    /// The key store failed.
    Store = 600,
    /// A file could not be read or written.
    Io = 601,
    /// Somebody else changed the same thing first; read again and repeat.
    Conflict = 602,
    // 9xx: this library.
    /// A bug in this library.
    Internal = 900,
}

macro_rules! kms_kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retryable:literal),+ $(,)?) => {
        /// What a key service said, or that it said nothing. Adapters sort every answer into this list.
        #[non_exhaustive]
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum KmsErrorKind {
            $($(#[$doc])* $name),+
        }

        impl KmsErrorKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The permanent number of this kind, the same in C and Python. Never reused.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(Self::$name => $code),+ }
            }

            /// The name of this kind as written in documents and test vectors.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// Whether the same call may succeed later without anybody changing anything.
            // KC-39.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => $retryable),+ }
            }
        }
    };
}

kms_kinds! {
    /// The service refused for a reason that this list does not know.
    Rejected = 400, false,
    /// The identity may not use the key.
    AccessDenied = 401, false,
    /// The service has no such key.
    KeyNotFound = 402, false,
    /// The key is disabled, pending deletion or destroyed.
    KeyDisabled = 403, false,
    /// Too many requests.
    Throttled = 404, true,
    /// The service cannot be reached or answers with a server error.
    Unavailable = 405, true,
    /// No answer in time.
    Timeout = 406, true,
    /// The TLS connection failed or the certificate is not trusted.
    TlsError = 407, false,
    /// The credentials are missing, expired or invalid.
    Credentials = 408, false,
    /// The service refused the request because of the time that this machine shows.
    ClockSkew = 409, false,
    /// The service answered for another key than the one that was asked.
    WrongKey = 410, false,
    /// The wrapped bytes are not what this key wrapped under this context.
    InvalidCiphertext = 411, false,
    /// The answer does not follow the protocol or does not hold what was wrapped.
    MalformedResponse = 412, true,
}

impl Error {
    /// Makes an error of `kind` with a constant text.
    #[must_use]
    pub const fn new(kind: ErrorKind, message: &'static str) -> Self {
        Self {
            kind,
            message,
            is_lasting: false,
            #[cfg(feature = "std")]
            more: None,
        }
    }

    /// Adds text that is only known at run time, such as a row number or a key ID.
    ///
    /// The text must be safe to log: never a value, key bytes or a context value. Control characters are escaped.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn with_detail(mut self, detail: impl AsRef<str>) -> Self {
        let mut text = std::string::String::new();
        for c in detail.as_ref().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        let source = self.more.as_ref().and_then(|more| more.source.clone());
        self.more = Some(std::sync::Arc::new(More { detail: text, source }));
        self
    }

    /// The error of Keyfold inside of one of `std::io`, such as that of a [`StreamReader`](crate::StreamReader).
    #[cfg(feature = "std")]
    #[must_use]
    pub fn within(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// Adds the error that caused this one.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let detail = self.detail().to_owned();
        self.more = Some(std::sync::Arc::new(More { detail, source: Some(source.into().into()) }));
        self
    }

    /// The same error of a KEK that does not come back by itself, though others of its kind may: for an implementation of [`Kms`](crate::Kms), such as one
    /// that stands for a file that is missing.
    #[must_use]
    pub const fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    /// Whether a key cannot be had for what is so with its own KEKs, until somebody changes that: each that was asked refuses, is another one or is not
    /// to be had, or none is to be asked. Keys under other KEKs may be had. Not where a key service is away, which comes back.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// What went wrong, by who has to act.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Kms(kind) => kind.is_retryable(),
            ErrorKind::Conflict | ErrorKind::DeadlineExceeded => true,
            _ => false,
        }
    }

    /// The part of the text that was only known at run time; empty if there is none.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn detail(&self) -> &str {
        self.more.as_ref().map_or("", |more| &more.detail)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)?;
        #[cfg(feature = "std")]
        if !self.detail().is_empty() {
            write!(f, ": {}", self.detail())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({} {}: {self})", self.kind.code(), self.kind.name())
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        #[cfg(feature = "std")]
        if let Some(source) = self.more.as_ref().and_then(|more| more.source.as_deref()) {
            return Some(source);
        }
        None
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        let message = match kind {
            ErrorKind::DecryptionFailed => {
                "decryption failed: the ciphertext, its context or its key is not the right one"
            }
            ErrorKind::Malformed => "not a canonical keyfold value",
            ErrorKind::RandomnessUnavailable => "the operating system's random generator failed",
            ErrorKind::NoMatchingKey => "no key of this keyring has that key ID",
            _ => kind.name(),
        };
        Self::new(kind, message)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_names_are_unique() {
        let all: Vec<ErrorKind> =
            ErrorKind::ALL.iter().copied().chain(KmsErrorKind::ALL.iter().map(|&k| ErrorKind::Kms(k))).collect();
        let codes: HashSet<_> = all.iter().map(|k| k.code()).collect();
        let names: HashSet<_> = all.iter().map(|k| k.name()).collect();
        assert_eq!(codes.len(), all.len());
        assert_eq!(names.len(), all.len());
    }

    // Failure T11
    #[test]
    fn detail_is_escaped_and_source_survives() {
        let cause = std::io::Error::other("cause");
        let error = Error::new(ErrorKind::Io, "cannot read").with_source(cause).with_detail("a\x1b[31m\nb");
        assert_eq!(error.to_string(), "cannot read: a\\u{1b}[31m\\nb");
        assert!(core::error::Error::source(&error).is_some());
        // Nor does it matter who else has the error.
        assert!(core::error::Error::source(&error.clone().with_detail("more")).is_some());
    }
}
