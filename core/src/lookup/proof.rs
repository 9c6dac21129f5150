//! Proofs of the rows of a token table (FORMAT.md §17.5): that this token stands for this value.

use crate::error::Result;
use crate::keys::{Secret, hmac_sha256_erased};
use crate::value::{Padding, Value};
use zeroize::Zeroizing;

/// Starts what is hashed.
const LABEL: &[u8] = b"keyfold/token/v1";

/// label length (1) ‖ label ‖ `bound`: the part that all proofs of a field share.
pub(crate) fn head(bound: &[u8]) -> Vec<u8> {
    [&[LABEL.len() as u8], LABEL, bound].concat()
}

/// HMAC(key, head ‖ token length (1) ‖ token ‖ encoded value).
///
/// # Errors
///
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput): the value has no canonical encoding.
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): the value is too long.
// F-17.5-1.
pub(crate) fn proof(key: &Secret<32>, head: &[u8], token: &str, value: &Value<'_>) -> Result<[u8; 32]> {
    value.check()?;
    let mut encoded = Zeroizing::new(vec![0; value.encoded_len(Padding::None)]);
    value.encode(Padding::None, &mut encoded);
    let len = u8::try_from(token.len()).expect("a token has at most 64 characters");
    Ok(hmac_sha256_erased(key, &[head, &[len], token.as_bytes(), &encoded]))
}
