//! Key IDs: the generation in clear, and a fingerprint that commits to the key.

use crate::error::{Error, ErrorKind, Result};
use core::fmt;

/// Number of a key, from one counter per keyring; gaps are allowed, reuse never. Starts at 1.
pub type Generation = u32;

/// Names one key: 4-byte big-endian generation ‖ first 20 bytes of the key's commitment (FORMAT.md §2.3).
///
/// Public: it appears in clear in every ciphertext. Two keys with the same ID cost 2⁸⁰ work to find.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyId([u8; Self::LEN]);

impl KeyId {
    /// Length in bytes.
    pub const LEN: usize = 24;
    pub(crate) const FINGERPRINT_LEN: usize = 20;

    /// The key ID that consists of `generation` and the first 20 bytes of `commitment`.
    #[must_use]
    pub fn new(generation: Generation, commitment: &[u8; 32]) -> Self {
        let mut bytes = [0; Self::LEN];
        let (head, fingerprint) = bytes.split_at_mut(4);
        head.copy_from_slice(&generation.to_be_bytes());
        fingerprint.copy_from_slice(&commitment[..Self::FINGERPRINT_LEN]);
        Self(bytes)
    }

    /// The key ID with exactly these bytes. Any bytes are a key ID; whether a key has it is another question.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The 24 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The generation: readable without any key, so that a database can find what waits for re-encryption.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        Generation::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl core::str::FromStr for KeyId {
    type Err = Error;

    /// Parses 48 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; Self::LEN];
        let length = data_encoding::HEXLOWER.decode_len(text.len());
        if length != Ok(Self::LEN) || data_encoding::HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
            return Err(Error::new(ErrorKind::InvalidInput, "a key ID is 48 lower-case hexadecimal digits"));
        }
        Ok(Self(bytes))
    }
}
