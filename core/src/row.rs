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

/// What stands before the ciphertext: header and nonce.
const HEAD_LEN: usize = HEADER_LEN + NONCE_LEN;

/// Header and prefix, which rows under one prefix have in common.
pub(crate) type RowStart = [u8; HEADER_LEN + PREFIX_LEN];

/// Header and prefix of rows.
pub(crate) fn row_start(header: &[u8; HEADER_LEN], prefix: &[u8; PREFIX_LEN]) -> RowStart {
    let mut start = [0; HEADER_LEN + PREFIX_LEN];
    let (first, last) = start.split_at_mut(HEADER_LEN);
    first.copy_from_slice(header);
    last.copy_from_slice(prefix);
    start
}

/// Writes `start`, and encodes `value` where [`seal_row`] encrypts it. Best some time before: encryption that reads at once what was just
/// written in other portions waits for it.
#[inline]
pub(crate) fn encode_row(start: &RowStart, value: Value<'_>, padding: Padding, out: &mut [u8]) -> Result<()> {
    let (head, rest) = out.split_first_chunk_mut::<HEAD_LEN>().ok_or(TOO_SHORT)?;
    let (body, _) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(TOO_SHORT)?;
    *head.first_chunk_mut().ok_or(TOO_SHORT)? = *start;
    value.try_encode(padding, body).ok_or(TOO_SHORT)
}

/// Seals one row, whose start and encoded value are in `out` already, under the key of its prefix. `last` is the second half of the nonce.
#[inline]
pub(crate) fn seal_row(key: &GcmKey, last: &mut [u8; GCM_NONCE_LEN], aad: &[u8], out: &mut [u8]) -> Result<()> {
    let (head, rest) = out.split_first_chunk_mut::<HEAD_LEN>().ok_or(TOO_SHORT)?;
    let (body, tag) = rest.split_last_chunk_mut().ok_or(TOO_SHORT)?;
    *tag = key.seal(last, aad, body)?;
    *head.last_chunk_mut().ok_or(TOO_SHORT)? = *last;
    Ok(())
}
