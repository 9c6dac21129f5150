//! AES-256-SIV (RFC 5297): deterministic, with a vector of associated strings.

use super::OpenFailed;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Secret;
use crate::wire::TAG_LEN;
use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use zeroize::Zeroize;

/// A key for AES-256-SIV: 32 bytes for S2V, 32 for CTR. Erased on drop.
pub(crate) struct SivKey(Secret<64>);

impl SivKey {
    pub(crate) const fn new(key: Secret<64>) -> Self {
        Self(key)
    }

    /// The key, expanded, for any number of values in one thread.
    pub(crate) fn cipher(&self) -> SivCipher {
        SivCipher(Aes256Siv::new(self.0.expose().into()))
    }
}

pub(crate) struct SivCipher(Aes256Siv);

impl SivCipher {
    /// Replaces `body` by its ciphertext and returns the synthetic IV over `strings` and the plaintext.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more strings than S2V takes; `body` is unchanged.
    pub(crate) fn seal(&mut self, strings: &[&[u8]], body: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        self.0
            .encrypt_inout_detached(strings, body.into())
            .map(Into::into)
            .map_err(|_| Error::new(ErrorKind::LimitExceeded, "more associated strings than AES-SIV takes"))
    }

    /// Replaces the ciphertext in `body` by its plaintext.
    ///
    /// # Errors
    ///
    /// [`OpenFailed`]: IV, strings or key is wrong; `body` has been zeroed.
    pub(crate) fn open(&mut self, strings: &[&[u8]], iv: &[u8; TAG_LEN], body: &mut [u8]) -> Result<(), OpenFailed> {
        self.0.decrypt_inout_detached(strings, (&mut *body).into(), iv.into()).map_err(|_| {
            body.zeroize();
            OpenFailed
        })
    }
}
