//! The binary form of sealed values (FORMAT.md §3 to §5).

use super::{
    DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, HEADER_LEN, KeyId, MAGIC, MAX_ENCODED_LEN, NONCE_LEN, Reader, TAG_LEN,
};
use crate::error::{Error, ErrorKind, Result};
use core::fmt;

/// What kind of value follows the header. The suite is the version of the format.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Suite {
    /// 01: one randomised field, XAES-256-GCM.
    Field = 0x01,
    /// 02: one deterministic field, AES-256-SIV.
    Deterministic = 0x02,
    /// 03: a frame, a value of another suite that travels with its key records. Taken apart by [`Frame`](super::Frame).
    Frame = 0x03,
    /// 04: a stream of chunks, of any length. Never a value by itself.
    Stream = 0x04,
    /// 05: a document, whose values have one header together. Never a value by itself.
    Document = 0x05,
}

/// A value never has this suite alone.
pub(crate) const NOT_A_VALUE: Error =
    Error::new(ErrorKind::Unsupported, "the header of a document, which is no value: documents are opened as a whole");
/// Nor this one.
pub(crate) const A_STREAM: Error =
    Error::new(ErrorKind::Unsupported, "a stream, which is no value: it is opened piece by piece");

impl Suite {
    /// The byte that stands for this suite.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The suite of the byte `id`.
    ///
    /// # Errors
    ///
    /// - [`Unsupported`](ErrorKind::Unsupported): reserved, experimental or unknown to this build (FORMAT.md §3.1).
    pub const fn from_id(id: u8) -> Result<Self> {
        match id {
            0x01 => Ok(Self::Field),
            0x02 => Ok(Self::Deterministic),
            0x03 => Ok(Self::Frame),
            0x04 => Ok(Self::Stream),
            0x05 => Ok(Self::Document),
            // F-3.1-1.
            0x06 | 0x07 => {
                Err(Error::new(ErrorKind::Unsupported, "suites 06 and 07 are reserved for public-key sealing"))
            }
            _ => Err(Error::new(ErrorKind::Unsupported, "this suite is unknown to this build")),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.id())
    }
}

/// A sealed value, taken apart. Borrows from its input; says nothing about whether it is authentic.
#[derive(Clone, Copy)]
pub struct Sealed<'a> {
    suite: Suite,
    key_id: KeyId,
    header: &'a [u8; HEADER_LEN],
    /// Suite 01: nonce ‖ ciphertext ‖ tag. Suite 02: synthetic IV ‖ ciphertext.
    body: &'a [u8],
}

impl<'a> Sealed<'a> {
    /// Takes `bytes` apart: magic, suite, key ID and body.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): wrong magic, truncated, or longer than any value can be.
    /// - [`Unsupported`](ErrorKind::Unsupported): a suite that this build cannot open, or a [`Frame`](super::Frame)
    ///   around a value.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let header = bytes.first_chunk::<HEADER_LEN>();
        // F-8.1-5.
        if bytes.first() != Some(&MAGIC) {
            return Err(ErrorKind::Malformed.into());
        }
        // F-8.1-6.
        let suite = Suite::from_id(*bytes.get(1).ok_or(ErrorKind::Malformed)?)?;
        let header = header.ok_or(ErrorKind::Malformed)?;
        match suite {
            Suite::Field | Suite::Deterministic => {}
            Suite::Frame => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a frame, which is not expected here: take its value out",
                ));
            }
            // F-3.1-3, F-19.1-2.
            Suite::Stream => return Err(A_STREAM),
            // F-3.1-3, F-18.1-4.
            Suite::Document => return Err(NOT_A_VALUE),
        }
        // F-8.1-7.
        if !Self::has_length_of(suite, bytes) {
            return Err(ErrorKind::Malformed.into());
        }
        let mut reader = Reader::new(bytes);
        reader.bytes(2)?;
        let key_id = KeyId::from_bytes(*reader.array()?);
        Ok(Self { suite, key_id, header, body: reader.rest() })
    }

    /// Whether a value of `suite` can be as long as `bytes`.
    #[inline]
    pub(crate) const fn has_length_of(suite: Suite, bytes: &[u8]) -> bool {
        let overhead = match suite {
            Suite::Field => FIELD_OVERHEAD,
            Suite::Deterministic => DETERMINISTIC_OVERHEAD,
            Suite::Frame | Suite::Stream | Suite::Document => return false,
        };
        overhead <= bytes.len() && bytes.len() < overhead + MAX_ENCODED_LEN
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The ID of the key that this claims to be sealed under.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// Bytes of the encoded value: format byte, value, padding.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.body.len()
            - match self.suite {
                Suite::Field => NONCE_LEN + TAG_LEN,
                // Frames, streams and documents are not taken apart into this.
                Suite::Deterministic | Suite::Frame | Suite::Stream | Suite::Document => TAG_LEN,
            }
    }

    pub(crate) const fn header(&self) -> &'a [u8; HEADER_LEN] {
        self.header
    }

    pub(crate) const fn body(&self) -> &'a [u8] {
        self.body
    }
}

/// The 26 bytes that start every value.
pub(crate) fn header(suite: Suite, key_id: &KeyId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[0] = MAGIC;
    header[1] = suite.id();
    header[2..].copy_from_slice(key_id.as_bytes());
    header
}

/// Whether `bytes` start like a sealed value. A hint for tools, never a security decision (FORMAT.md §3.3).
// F-3.3-1.
#[must_use]
pub fn looks_sealed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MAGIC)
}
