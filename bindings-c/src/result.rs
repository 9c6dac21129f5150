//! Results, and what went wrong in words.

use crate::boundary::Failure;
use keyfold::{Error, ErrorKind, KmsErrorKind};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::OnceLock;

/// What a call came to. The same numbers as everywhere in keyfold; they never change their meaning, and none is used again.
/// Hundreds say who has to act: 1xx the caller, 2xx whoever sent the bytes, 3xx whoever keeps the keys, 4xx the key service,
/// 5xx the system, 6xx storage, 9xx keyfold. There will be more of them: have a `default` in each `switch`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum kf_result {
    /// Done. All outputs are written.
    KF_OK = 0,

    /// An argument breaks a documented rule.
    KF_ERR_INVALID_INPUT = 100,
    /// A pointer is NULL that must not be.
    KF_ERR_NULL_POINTER = 101,
    /// A buffer is smaller than its size function says.
    KF_ERR_BUFFER_TOO_SMALL = 102,
    /// A value, context, column or file is larger than its documented limit.
    KF_ERR_LIMIT_EXCEEDED = 103,
    /// The handle was released, is of another kind, or was never one.
    KF_ERR_INVALID_HANDLE = 104,
    /// An output overlaps an input or another output.
    KF_ERR_OVERLAP = 105,
    /// The policy does not allow it; decided before any key was touched.
    KF_ERR_POLICY_REFUSED = 110,
    /// The configuration or a policy file is wrong.
    KF_ERR_CONFIGURATION = 111,

    /// The bytes are not one canonical encoding of a known suite.
    KF_ERR_MALFORMED = 200,
    /// Well-formed, but a suite or version that this build does not know or that is reserved.
    KF_ERR_UNSUPPORTED = 201,

    /// No key of this keyring has that key ID.
    KF_ERR_NO_MATCHING_KEY = 300,
    /// Ciphertext, context, row, field or key is not the one it was encrypted with. Which of these is deliberately not told.
    /// Treat it as tampering; do not retry.
    KF_ERR_DECRYPTION_FAILED = 301,
    /// The key belongs to another scope, partition or class than the caller stated.
    KF_ERR_WRONG_SCOPE = 302,
    /// The state of the key does not allow the operation.
    KF_ERR_KEY_STATE = 303,
    /// A key record is forged, edited, replayed or not vouched for by a trusted root.
    KF_ERR_RECORD_REJECTED = 304,

    /// The service refused for a reason that this list does not know.
    KF_ERR_KMS_REJECTED = 400,
    /// The identity may not use the key.
    KF_ERR_KMS_ACCESS_DENIED = 401,
    /// The service has no such key.
    KF_ERR_KMS_KEY_NOT_FOUND = 402,
    /// The key is disabled, pending deletion or destroyed.
    KF_ERR_KMS_KEY_DISABLED = 403,
    /// Too many requests. Retryable.
    KF_ERR_KMS_THROTTLED = 404,
    /// The service cannot be reached or answers with a server error. Retryable.
    KF_ERR_KMS_UNAVAILABLE = 405,
    /// No answer in time. Retryable.
    KF_ERR_KMS_TIMEOUT = 406,
    /// The TLS connection failed or the certificate is not trusted.
    KF_ERR_KMS_TLS_ERROR = 407,
    /// The credentials are missing, expired or invalid.
    KF_ERR_KMS_CREDENTIALS = 408,
    /// The service refused the request because of the time that this machine shows.
    KF_ERR_KMS_CLOCK_SKEW = 409,
    /// The service answered for another key than the one that was asked.
    KF_ERR_KMS_WRONG_KEY = 410,
    /// The wrapped bytes are not what this key wrapped under this context.
    KF_ERR_KMS_INVALID_CIPHERTEXT = 411,
    /// The answer does not follow the protocol or does not hold what was wrapped. Retryable.
    KF_ERR_KMS_MALFORMED_RESPONSE = 412,

    /// The operating system's generator failed; nothing was sealed.
    KF_ERR_RANDOMNESS_UNAVAILABLE = 500,
    /// The total deadline of the operation has passed. Retryable.
    KF_ERR_DEADLINE_EXCEEDED = 501,
    /// The keyring has been closed.
    KF_ERR_CLOSED = 502,

    /// The key store failed.
    KF_ERR_STORE = 600,
    /// A file could not be read or written.
    KF_ERR_IO = 601,
    /// Somebody else changed the same thing first; read again and repeat. Retryable.
    KF_ERR_CONFLICT = 602,

    /// A bug in keyfold.
    KF_ERR_INTERNAL = 900,
}

use kf_result as r;

/// What core does not know, with their names.
const OWN: [(kf_result, &str); 5] = [
    (r::KF_OK, "Ok"),
    (r::KF_ERR_NULL_POINTER, "NullPointer"),
    (r::KF_ERR_BUFFER_TOO_SMALL, "BufferTooSmall"),
    (r::KF_ERR_INVALID_HANDLE, "InvalidHandle"),
    (r::KF_ERR_OVERLAP, "Overlap"),
];

impl kf_result {
    /// The result that says `kind`.
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidInput => Self::KF_ERR_INVALID_INPUT,
            ErrorKind::LimitExceeded => Self::KF_ERR_LIMIT_EXCEEDED,
            ErrorKind::PolicyRefused => Self::KF_ERR_POLICY_REFUSED,
            ErrorKind::Configuration => Self::KF_ERR_CONFIGURATION,
            ErrorKind::Malformed => Self::KF_ERR_MALFORMED,
            ErrorKind::Unsupported => Self::KF_ERR_UNSUPPORTED,
            ErrorKind::NoMatchingKey => Self::KF_ERR_NO_MATCHING_KEY,
            ErrorKind::DecryptionFailed => Self::KF_ERR_DECRYPTION_FAILED,
            ErrorKind::WrongScope => Self::KF_ERR_WRONG_SCOPE,
            ErrorKind::KeyState => Self::KF_ERR_KEY_STATE,
            ErrorKind::RecordRejected => Self::KF_ERR_RECORD_REJECTED,
            ErrorKind::RandomnessUnavailable => Self::KF_ERR_RANDOMNESS_UNAVAILABLE,
            ErrorKind::DeadlineExceeded => Self::KF_ERR_DEADLINE_EXCEEDED,
            ErrorKind::Closed => Self::KF_ERR_CLOSED,
            ErrorKind::Store => Self::KF_ERR_STORE,
            ErrorKind::Io => Self::KF_ERR_IO,
            ErrorKind::Conflict => Self::KF_ERR_CONFLICT,
            ErrorKind::Kms(kind) => match kind {
                KmsErrorKind::AccessDenied => Self::KF_ERR_KMS_ACCESS_DENIED,
                KmsErrorKind::KeyNotFound => Self::KF_ERR_KMS_KEY_NOT_FOUND,
                KmsErrorKind::KeyDisabled => Self::KF_ERR_KMS_KEY_DISABLED,
                KmsErrorKind::Throttled => Self::KF_ERR_KMS_THROTTLED,
                KmsErrorKind::Unavailable => Self::KF_ERR_KMS_UNAVAILABLE,
                KmsErrorKind::Timeout => Self::KF_ERR_KMS_TIMEOUT,
                KmsErrorKind::TlsError => Self::KF_ERR_KMS_TLS_ERROR,
                KmsErrorKind::Credentials => Self::KF_ERR_KMS_CREDENTIALS,
                KmsErrorKind::ClockSkew => Self::KF_ERR_KMS_CLOCK_SKEW,
                KmsErrorKind::WrongKey => Self::KF_ERR_KMS_WRONG_KEY,
                KmsErrorKind::InvalidCiphertext => Self::KF_ERR_KMS_INVALID_CIPHERTEXT,
                KmsErrorKind::MalformedResponse => Self::KF_ERR_KMS_MALFORMED_RESPONSE,
                // `Rejected`, and kinds that are newer than this match, for which the test below fails.
                _ => Self::KF_ERR_KMS_REJECTED,
            },
            // `Internal`, and kinds that are newer than this match, for which the test below fails.
            _ => Self::KF_ERR_INTERNAL,
        }
    }
}

/// Every kind of error of core.
fn kinds() -> impl Iterator<Item = ErrorKind> {
    ErrorKind::ALL.iter().copied().chain(KmsErrorKind::ALL.iter().map(|&kind| ErrorKind::Kms(kind)))
}

/// Bytes of the text of a kf_error, with the NUL that ends it.
pub const KF_ERROR_TEXT_LEN: usize = 488;
/// In kf_error::row: it is not about a row.
pub const KF_NO_ROW: u64 = u64::MAX;

/// What went wrong, in words. The caller's; nothing has to be freed. Written when a call fails, and then completely.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_error {
    /// The kf_result that the call returned.
    pub code: i32,
    /// Whether the same call may succeed later without anybody changing anything.
    pub is_retryable: bool,
    /// 0.
    pub reserved: [u8; 3],
    /// The row of a column that it is about, counted from 0, or KF_NO_ROW.
    pub row: u64,
    /// One line of UTF-8 that ends with NUL, cut where it is too long. Safe to log: it names limits, rows, fields and keys, never
    /// a value, a key byte or a context value. Not a part of the API: programs look at the code.
    pub text: [c_char; KF_ERROR_TEXT_LEN],
}

impl kf_error {
    pub(crate) fn new(failure: &Failure) -> Self {
        let (code, said) = (failure.result() as i32, failure.text());
        let mut end = said.len().min(KF_ERROR_TEXT_LEN - 1);
        while !said.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = [0; KF_ERROR_TEXT_LEN];
        for (to, from) in text.iter_mut().zip(&said.as_bytes()[..end]) {
            *to = from.cast_signed() as c_char;
        }
        let row = failure.row().map_or(KF_NO_ROW, |row| row as u64);
        Self { code, is_retryable: kf_result_is_retryable(code), reserved: [0; 3], row, text }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        self.text.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect()
    }
}

/// The name of a result, such as "DecryptionFailed", as documents and the other languages write it; NULL of other numbers.
/// The text is never freed.
///
/// Threads: any. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn kf_result_name(result: i32) -> *const c_char {
    static NAMES: OnceLock<BTreeMap<i32, CString>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        let own = OWN.iter().map(|&(result, name)| (result as i32, name));
        let all = own.chain(kinds().map(|kind| (i32::from(kind.code()), kind.name())));
        all.filter_map(|(code, name)| Some((code, CString::new(name).ok()?))).collect()
    });
    names.get(&result).map_or(std::ptr::null(), |name| CStr::as_ptr(name))
}

/// Whether a call that returned `result` may succeed later without anybody changing anything.
///
/// Threads: any. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn kf_result_is_retryable(result: i32) -> bool {
    kinds().any(|kind| i32::from(kind.code()) == result && Error::from(kind).is_retryable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_kind_has_its_number_here() {
        let mut codes: BTreeSet<i32> = OWN.iter().map(|&(result, _)| result as i32).collect();
        for kind in kinds() {
            assert_eq!(kf_result::of(kind) as i32, i32::from(kind.code()), "{kind:?}");
            assert!(codes.insert(i32::from(kind.code())), "{kind:?} has a number of the C library");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let detail = "é".repeat(300);
        let failure = Failure::from(Error::new(ErrorKind::Io, "x").with_detail(detail));
        let error = kf_error::new(&failure);
        assert_eq!(error.text[KF_ERROR_TEXT_LEN - 1], 0);
        let bytes: Vec<u8> = error.text.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8).collect();
        assert!(bytes.len() >= KF_ERROR_TEXT_LEN - 3);
        assert!(String::from_utf8(bytes).is_ok());
    }

    #[test]
    fn names() {
        // SAFETY: a text that is never freed.
        let name = |code| unsafe { CStr::from_ptr(kf_result_name(code)) }.to_str().unwrap();
        assert_eq!((name(0), name(105), name(301), name(404)), ("Ok", "Overlap", "DecryptionFailed", "Throttled"));
        assert!(kf_result_name(1).is_null() && kf_result_name(-1).is_null());
        assert!(kf_result_is_retryable(404) && !kf_result_is_retryable(301) && !kf_result_is_retryable(0));
    }
}
