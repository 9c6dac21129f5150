//! One sealed row of suite 01 (FORMAT.md §4). Needs neither `std` nor an allocation, so devices use it too.

use crate::aead::GcmKey;
use crate::error::{Error, ErrorKind, Result};
use crate::value::{Padding, Value};
use crate::wire::{GCM_NONCE_LEN, HEADER_LEN, NONCE_LEN, PREFIX_LEN, TAG_LEN};

/// Prefix and AES-GCM nonce.
pub(crate) fn split_nonce(nonce: &[u8; NONCE_LEN]) -> (&[u8; PREFIX_LEN], &[u8; GCM_NONCE_LEN]) {
    let (prefix, last) = nonce.split_first_chunk().expect("24 bytes hold 12");
    (prefix, last.try_into().expect("24 bytes hold 12 and 12"))
}

// Checked, and not indexed, as devices cannot panic.
const TOO_SHORT: Error = Error::new(ErrorKind::Internal, "a row has no room for what is sealed into it");

/// What follows the header of a row: nonce ‖ body ‖ tag.
#[inline]
fn parts(out: &mut [u8]) -> Result<(&mut [u8; NONCE_LEN], &mut [u8], &mut [u8; TAG_LEN])> {
    let (_, rest) = out.split_first_chunk_mut::<HEADER_LEN>().ok_or(TOO_SHORT)?;
    let (nonce, rest) = rest.split_first_chunk_mut().ok_or(TOO_SHORT)?;
    let (body, tag) = rest.split_last_chunk_mut().ok_or(TOO_SHORT)?;
    Ok((nonce, body, tag))
}

/// Encodes `value` where [`seal_row`] encrypts it. Best some time before: encryption that reads at once what was just written in other
/// portions waits for it.
#[inline]
pub(crate) fn encode_row(value: Value<'_>, padding: Padding, out: &mut [u8]) -> Result<()> {
    let (_, body, _) = parts(out)?;
    value.try_encode(padding, body).ok_or(TOO_SHORT)
}

/// Seals one row, whose header and encoded value are in `out` already. `last` is the second half of the nonce.
#[inline]
pub(crate) fn seal_row(
    key: &GcmKey,
    prefix: &[u8; PREFIX_LEN],
    last: &mut [u8; GCM_NONCE_LEN],
    aad: &[u8],
    out: &mut [u8],
) -> Result<()> {
    let (nonce, body, tag) = parts(out)?;
    *tag = key.seal(last, aad, body)?;
    nonce[..PREFIX_LEN].copy_from_slice(prefix);
    nonce[PREFIX_LEN..].copy_from_slice(last);
    Ok(())
}
