//! What Keyfold asks of a key service.

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{Lineage, Secret};
use crate::wire::KeyId;
use core::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

/// A boxed future, so that the traits are object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The name under which configuration and key records know a KEK: 1 to 64 of `a`–`z`, `0`–`9`, `-`, `_`.
///
/// Records hold aliases, never addresses, so a forged record cannot make anyone call a foreign service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KekAlias(String);

impl KekAlias {
    /// Longest alias in bytes.
    pub const MAX_LEN: usize = 64;

    /// The alias `text`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): empty, too long or with other characters.
    pub fn new(text: &str) -> Result<Self> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) {
            return Err(Error::new(ErrorKind::InvalidInput, "a KEK alias is 1 to 64 of a-z, 0-9, '-' and '_'"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KekAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The three pairs that a key service sees and may log in clear: never a scope, field or row (DESIGN K5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KmsContext {
    environment: String,
    lineage: Lineage,
    key_id: KeyId,
}

impl KmsContext {
    /// The context of wrapping the key `key_id` of the keyring `lineage` in `environment`.
    #[must_use]
    pub fn new(environment: &str, lineage: Lineage, key_id: KeyId) -> Self {
        Self { environment: environment.to_owned(), lineage, key_id }
    }

    pub(crate) const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// `kf:env`, `kf:key` and `kf:keyring`, sorted by name, with their values.
    // F-7.3-2, KC-9.
    #[must_use]
    pub fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("kf:env", self.environment.clone()),
            ("kf:key", self.key_id.to_string()),
            ("kf:keyring", self.lineage.to_string()),
        ]
    }

    /// The pairs as bytes that a service authenticates: of each, length of the name (8) ‖ name ‖ length of the value (8) ‖ value.
    /// Lengths are big-endian and the pairs are sorted, so that there is one encoding and none reads as another. It never changes,
    /// because what was wrapped under it would no longer open.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in self.pairs() {
            for part in [name, &value] {
                out.extend_from_slice(&(part.len() as u64).to_be_bytes());
                out.extend_from_slice(part.as_bytes());
            }
        }
        out
    }
}

/// A wrapped payload as the service returned it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WrappedKey {
    /// Which version of the KEK wrapped it, in the provider's words; empty where the bytes say so themselves.
    pub kek_version: String,
    /// Opaque to everyone but the service, at most [`MAX_LEN`](Self::MAX_LEN) bytes.
    pub bytes: Vec<u8>,
}

impl WrappedKey {
    /// Most bytes that a wrapped payload may have.
    pub const MAX_LEN: usize = 4096;
    /// Most bytes that the version of a KEK may have.
    pub const MAX_VERSION_LEN: usize = 255;
}

/// What a key service did for one call, for errors and the audit trail: how many requests it took, under which ID the
/// provider's own log has the last one, and what the service's clock says. Filled in by the adapter while it works.
#[derive(Debug, Default)]
pub struct KmsTrace(Mutex<Traced>);

#[derive(Clone, Debug, Default)]
struct Traced {
    requests: u32,
    request_id: Option<String>,
    clock_ahead: Option<i64>,
}

impl KmsTrace {
    /// A trace of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that a request was sent. Forgets the ID of the one before.
    pub fn request_sent(&self) {
        let mut traced = self.traced();
        traced.requests = traced.requests.saturating_add(1);
        traced.request_id = None;
    }

    /// Notes the ID that the provider gave the last request. It comes from outside and is shown and logged, so that a hostile
    /// service could send back what must not be: other than a UUID, in hexadecimal digits with hyphens, it is ignored.
    /// An adapter notes none that was part of its request.
    pub fn set_request_id(&self, id: &str) {
        let is_uuid = id.len() == 36
            && id.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        if is_uuid {
            self.traced().request_id = Some(id.to_owned());
        }
    }

    /// How many requests were sent, repetitions included.
    #[must_use]
    pub fn requests(&self) -> u32 {
        self.traced().requests
    }

    /// The provider's ID of the last request, where it has answered and gives IDs.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        self.traced().request_id.clone()
    }

    /// Notes by how many seconds the clock of the service is ahead of this machine's; less than 0 if it is behind.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.traced().clock_ahead = Some(seconds);
    }

    /// By how many seconds the clock of the service is ahead, where it tells the time.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.traced().clock_ahead
    }

    /// Takes over what `other` says.
    pub fn copy_from(&self, other: &Self) {
        let traced = other.traced().clone();
        *self.traced() = traced;
    }

    fn traced(&self) -> std::sync::MutexGuard<'_, Traced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A payload to wrap.
#[non_exhaustive]
pub struct WrapRequest<'a> {
    /// Key ‖ SHA-256(binding), so that services without associated data bind as well.
    pub payload: &'a Secret<64>,
    /// Authenticated by the service where it can; visible to it and to its logs.
    pub context: &'a KmsContext,
    /// Where the adapter notes what it did, if anybody wants to know.
    pub trace: Option<&'a KmsTrace>,
}

impl<'a> WrapRequest<'a> {
    /// A request to wrap `payload` under `context`.
    #[must_use]
    pub const fn new(payload: &'a Secret<64>, context: &'a KmsContext) -> Self {
        Self { payload, context, trace: None }
    }

    /// The same request, noted in `trace`.
    #[must_use]
    pub const fn with_trace(mut self, trace: &'a KmsTrace) -> Self {
        self.trace = Some(trace);
        self
    }
}

/// A wrapped payload to unwrap.
#[non_exhaustive]
pub struct UnwrapRequest<'a> {
    /// What [`Kms::wrap`] returned.
    pub wrapped: &'a WrappedKey,
    /// Equal to the one given to [`Kms::wrap`].
    pub context: &'a KmsContext,
    /// Where the adapter notes what it did, if anybody wants to know.
    pub trace: Option<&'a KmsTrace>,
}

impl<'a> UnwrapRequest<'a> {
    /// A request to unwrap `wrapped` under `context`.
    #[must_use]
    pub const fn new(wrapped: &'a WrappedKey, context: &'a KmsContext) -> Self {
        Self { wrapped, context, trace: None }
    }

    /// The same request, noted in `trace`.
    #[must_use]
    pub const fn with_trace(mut self, trace: &'a KmsTrace) -> Self {
        self.trace = Some(trace);
        self
    }
}

/// One key-encryption key in a key service.
///
/// An implementation sorts every answer of its service into [`KmsErrorKind`](crate::KmsErrorKind) and never
/// returns a payload that the service did not authenticate. It may be called from several threads at once.
/// `keyfold::testing::kms_conformance` checks an implementation.
pub trait Kms: Send + Sync {
    /// Wraps 64 bytes under the current version of this KEK. One request, and repetitions where it may succeed later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kms`] with the class of the answer. Wrapping twice yields two valid wraps, so repeating is safe.
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>>;

    /// Unwraps what [`wrap`](Self::wrap) returned. One request, and repetitions where it may succeed later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kms`]; [`InvalidCiphertext`](crate::KmsErrorKind::InvalidCiphertext) where bytes or context
    /// are not what was wrapped.
    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers F-7.3-2, KC-9.
    #[test]
    fn the_encoding_never_changes() {
        let context = KmsContext::new("prod", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
        let bytes = context.canonical();
        assert!(bytes.starts_with(b"\0\0\0\0\0\0\0\x06kf:env\0\0\0\0\0\0\0\x04prod\0\0\0\0\0\0\0\x06kf:key"));
        let (key, keyring) = ("02".repeat(24), "01".repeat(16));
        assert_eq!(context.pairs(), [("kf:env", "prod".to_owned()), ("kf:key", key), ("kf:keyring", keyring)]);
        let other = KmsContext::new("pro", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
        assert_ne!(bytes, other.canonical());
    }
}
