//! One sealed row of suite 01 (FORMAT.md §4). Needs neither `std` nor an allocation, so devices use it too.

use crate::aead::GcmKey;
use crate::error::Result;
use crate::value::{Padding, Value};
use crate::wire::{GCM_NONCE_LEN, HEADER_LEN, NONCE_LEN, PREFIX_LEN, TAG_LEN};

/// Prefix and AES-GCM nonce.
pub(crate) fn split_nonce(nonce: &[u8; NONCE_LEN]) -> (&[u8; PREFIX_LEN], &[u8; GCM_NONCE_LEN]) {
    let (prefix, last) = nonce.split_first_chunk().expect("24 bytes hold 12");
    (prefix, last.try_into().expect("24 bytes hold 12 and 12"))
}

/// Seals one row into `out`, whose header is there already: nonce ‖ ciphertext ‖ tag.
#[inline]
pub(crate) fn seal_row(
    key: &GcmKey,
    prefix: &[u8; PREFIX_LEN],
    last: [u8; GCM_NONCE_LEN],
    aad: &[u8],
    value: Value<'_>,
    padding: Padding,
    out: &mut [u8],
) -> Result<()> {
    let (nonce, rest) = out[HEADER_LEN..].split_at_mut(NONCE_LEN);
    let (body, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
    value.encode(padding, body);
    let sealed = key.seal(last, aad, body)?;
    nonce[..PREFIX_LEN].copy_from_slice(prefix);
    nonce[PREFIX_LEN..].copy_from_slice(&sealed.nonce);
    tag.copy_from_slice(&sealed.tag);
    Ok(())
}
