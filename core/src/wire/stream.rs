//! The header of a stream, and where its chunks stand (FORMAT.md §19).

use super::{HEADER_LEN, KeyId, MAGIC, Suite, TAG_LEN, header};
use crate::error::{Error, ErrorKind, Result};
use core::fmt;

/// Bytes of the random part of a header.
pub const STREAM_SALT_LEN: usize = 24;
/// Bytes of a stream's header: magic, suite, key ID, format byte, salt, commitment. Its chunks follow.
pub const STREAM_HEADER_LEN: usize = HEADER_LEN + 1 + STREAM_SALT_LEN + STREAM_COMMITMENT_LEN;
/// Bytes of plaintext in every chunk but the last, which is shorter. Fixed: another number is another suite.
pub const CHUNK_LEN: usize = 16 * 1024;
/// Bytes of a sealed chunk: ciphertext, tag.
// F-19.3-1.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// Most chunks of one stream: 4 PiB.
// F-19.1-4.
pub const MAX_CHUNKS: u64 = 1 << 38;
/// Most bytes of one stream in clear: the last chunk is never full.
pub const MAX_STREAM_LEN: u64 = MAX_CHUNKS * CHUNK_LEN as u64 - 1;

pub(crate) const STREAM_COMMITMENT_LEN: usize = 32;
/// The format byte of a stream: bytes.
pub(crate) const STREAM_FORMAT: u8 = 0x01;

/// The first 83 bytes of a stream. Says nothing about whether they are authentic.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct StreamHeader([u8; STREAM_HEADER_LEN]);

impl StreamHeader {
    /// `commitment` may only be known once the other parts are.
    pub(crate) fn new(
        key_id: &KeyId,
        salt: &[u8; STREAM_SALT_LEN],
        commitment: impl FnOnce(&[u8; HEADER_LEN]) -> Result<[u8; STREAM_COMMITMENT_LEN]>,
    ) -> Result<Self> {
        let mut bytes = [0; STREAM_HEADER_LEN];
        let head = header(Suite::Stream, key_id);
        bytes[..HEADER_LEN].copy_from_slice(&head);
        bytes[HEADER_LEN] = STREAM_FORMAT;
        bytes[HEADER_LEN + 1..][..STREAM_SALT_LEN].copy_from_slice(salt);
        bytes[HEADER_LEN + 1 + STREAM_SALT_LEN..].copy_from_slice(&commitment(&head)?);
        Ok(Self(bytes))
    }

    /// Reads the header from the first 83 bytes of a stream; what follows them is ignored.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): wrong magic, or fewer bytes.
    /// - [`Unsupported`](ErrorKind::Unsupported): of another suite, or of a type that this build does not know.
    // F-19.4-2.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.first() != Some(&MAGIC) {
            return Err(ErrorKind::Malformed.into());
        }
        if Suite::from_id(*bytes.get(1).ok_or(ErrorKind::Malformed)?)? != Suite::Stream {
            return Err(Error::new(ErrorKind::Unsupported, "no stream: the header of a stream has suite 04"));
        }
        let header = Self(*bytes.first_chunk().ok_or(ErrorKind::Malformed)?);
        if header.0[HEADER_LEN] != STREAM_FORMAT {
            // F-19.1-1.
            return Err(Error::new(ErrorKind::Unsupported, "a stream of a type that this build does not know"));
        }
        Ok(header)
    }

    /// The 83 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; STREAM_HEADER_LEN] {
        &self.0
    }

    /// The ID of the key that this claims the stream to be sealed under.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        KeyId::from_bytes(*self.0[2..].first_chunk().expect("the header has 83 bytes"))
    }

    pub(crate) fn head(&self) -> &[u8; HEADER_LEN] {
        self.0.first_chunk().expect("the header has 83 bytes")
    }

    pub(crate) fn salt(&self) -> &[u8; STREAM_SALT_LEN] {
        self.0[HEADER_LEN + 1..].first_chunk().expect("the header has 83 bytes")
    }

    pub(crate) fn commitment(&self) -> &[u8; STREAM_COMMITMENT_LEN] {
        self.0.last_chunk().expect("the header has 83 bytes")
    }
}

impl fmt::Debug for StreamHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamHeader({})", self.key_id())
    }
}

/// Bytes of the stream of a plaintext of `len` bytes, header included.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): longer than [`MAX_STREAM_LEN`].
// F-19.1-3.
pub const fn sealed_stream_len(len: u64) -> Result<u64> {
    if len > MAX_STREAM_LEN {
        return Err(TOO_LONG);
    }
    Ok(STREAM_HEADER_LEN as u64 + len + TAG_LEN as u64 * (len / CHUNK_LEN as u64 + 1))
}

/// Bytes of plaintext of a stream of `sealed_len` bytes, if nobody has cut or lengthened it: that is known once the last chunk was opened.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): no stream has that length, so this one was cut.
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): more chunks than a stream has.
pub const fn opened_stream_len(sealed_len: u64) -> Result<u64> {
    let Some(chunks) = sealed_len.checked_sub(STREAM_HEADER_LEN as u64) else { return Err(CUT) };
    let (full, last) = (chunks / SEALED_CHUNK_LEN as u64, chunks % SEALED_CHUNK_LEN as u64);
    if full >= MAX_CHUNKS {
        return Err(TOO_LONG);
    }
    match last.checked_sub(TAG_LEN as u64) {
        Some(last) => Ok(full * CHUNK_LEN as u64 + last),
        None => Err(CUT),
    }
}

/// No stream has such a length.
// F-19.4-6.
pub(crate) const CUT: Error =
    Error::new(ErrorKind::Malformed, "the stream ends before its last chunk: it was cut, or never finished");
pub(crate) const TOO_LONG: Error = Error::new(ErrorKind::LimitExceeded, "a stream has at most 4 PiB (2³⁸ chunks)");

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers F-19.1-3.
    #[test]
    fn lengths_go_both_ways() {
        let chunk = CHUNK_LEN as u64;
        for len in [0, 1, chunk - 1, chunk, chunk + 1, 7 * chunk, MAX_STREAM_LEN] {
            assert_eq!(opened_stream_len(sealed_stream_len(len).unwrap()).unwrap(), len);
        }
        assert_eq!(sealed_stream_len(0).unwrap(), 99);
        assert_eq!(sealed_stream_len(chunk).unwrap(), 83 + 16_400 + 16);
        assert_eq!(sealed_stream_len(MAX_STREAM_LEN + 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
        for cut in [0, 82, 83, 98, 83 + 16_400, 83 + 16_400 + 15] {
            assert_eq!(opened_stream_len(cut).unwrap_err().kind(), ErrorKind::Malformed, "{cut}");
        }
        let longest = sealed_stream_len(MAX_STREAM_LEN).unwrap();
        assert_eq!(opened_stream_len(longest + 16).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn a_header_says_what_it_is_made_of() {
        let key_id = KeyId::from_bytes([7; 24]);
        let header = StreamHeader::new(&key_id, &[8; 24], |_| Ok([9; 32])).unwrap();
        assert_eq!(StreamHeader::parse(header.as_bytes()).unwrap(), header);
        assert_eq!((header.key_id(), header.salt(), header.commitment()), (key_id, &[8; 24], &[9; 32]));
        let kind = |bytes: &[u8]| StreamHeader::parse(bytes).unwrap_err().kind();
        for len in 0..STREAM_HEADER_LEN {
            assert_eq!(kind(&header.as_bytes()[..len]), ErrorKind::Malformed, "{len}");
        }
        for (at, byte, expected) in
            [(0, 0, ErrorKind::Malformed), (1, 1, ErrorKind::Unsupported), (26, 2, ErrorKind::Unsupported)]
        {
            let mut bytes = *header.as_bytes();
            bytes[at] = byte;
            assert_eq!(kind(&bytes), expected);
        }
    }
}
