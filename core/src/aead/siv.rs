//! AES-256-SIV (RFC 5297): deterministic, with a vector of associated strings.

use super::OpenFailed;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::Secret;
use crate::wire::TAG_LEN;
use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use keyfold_memory::{Guarded, erase_stack, erasing_stack};
use zeroize::Zeroize;

/// A key for AES-256-SIV: 32 bytes for S2V, 32 for CTR. Erased on drop.
pub(crate) struct SivKey(Secret<64>);

impl SivKey {
    pub(crate) const fn new(key: Secret<64>) -> Self {
        Self(key)
    }

    /// Runs `work` with the key, expanded, and overwrites what that leaves on the stack: both expanding it and CTR copy the key there.
    pub(crate) fn with_cipher<T>(&self, work: impl FnOnce(&mut SivCipher) -> T) -> T {
        erasing_stack(|| work(&mut self.cipher()))
    }

    /// The key, expanded, for values that come one by one.
    pub(crate) fn held_cipher(&self) -> HeldSivCipher {
        HeldSivCipher(erasing_stack(|| Guarded::new(self.cipher())))
    }

    fn cipher(&self) -> SivCipher {
        SivCipher(Aes256Siv::new(self.0.expose().into()))
    }
}

/// A cipher that stays, and overwrites what it has left on the stack when it is dropped.
pub(crate) struct HeldSivCipher(Guarded<SivCipher>);

impl HeldSivCipher {
    /// Bytes that it takes beside itself.
    pub(crate) const HELD_LEN: usize = Guarded::<SivCipher>::SLOT_LEN;

    /// As [`SivCipher::open`].
    // On a part of the stack that ends before that of whoever drops the cipher.
    #[inline(never)]
    pub(crate) fn open(&mut self, strings: &[&[u8]], iv: &[u8; TAG_LEN], body: &mut [u8]) -> Result<(), OpenFailed> {
        self.0.open(strings, iv, body)
    }
}

impl Drop for HeldSivCipher {
    fn drop(&mut self) {
        erase_stack();
    }
}

/// The key, expanded, for any number of values in one thread.
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
