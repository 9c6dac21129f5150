//! FF1 of NIST SP 800-38G with AES-256.

use crate::error::{Error, ErrorKind, Result};
use crate::keys::Secret;
use aes::Aes256;
use fpe::ff1::{FF1, FlexibleNumeralString};

/// A key of FF1 in one radix.
pub(crate) struct Ff1(FF1<Aes256>);

const REFUSED: Error =
    Error::new(ErrorKind::InvalidInput, "fewer than 1,000,000 values could stand in the place of this one");

impl Ff1 {
    /// `radix` is 2 to 65,536.
    pub(crate) fn new(key: &Secret<32>, radix: u32) -> Self {
        Self(FF1::new(key.expose(), radix).expect("a radix of FF1 and a key of AES-256"))
    }

    /// The numerals, each below the radix, that stand in the place of `numerals`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): fewer than 10⁶ values have so many numerals, or a numeral is none of the radix.
    pub(crate) fn encrypt(&self, tweak: &[u8], numerals: Vec<u16>) -> Result<Vec<u16>> {
        let encrypted = self.0.encrypt(tweak, &FlexibleNumeralString::from(numerals));
        encrypted.map(Into::into).map_err(|_| REFUSED)
    }

    /// What [`encrypt`](Self::encrypt) was given.
    ///
    /// # Errors
    ///
    /// As for [`encrypt`](Self::encrypt).
    pub(crate) fn decrypt(&self, tweak: &[u8], numerals: Vec<u16>) -> Result<Vec<u16>> {
        let decrypted = self.0.decrypt(tweak, &FlexibleNumeralString::from(numerals));
        decrypted.map(Into::into).map_err(|_| REFUSED)
    }
}
