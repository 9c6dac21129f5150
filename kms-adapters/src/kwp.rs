//! AES-256-KWP (RFC 5649, NIST SP 800-38F §6.3) and new keys for local KEKs: RustCrypto's and of the operating system, or with the feature `fips`
//! those of the FIPS module.

use keyfold::{Error, ErrorKind, Result, Secret};

/// Bytes that a wrapped key is longer, where it needs no padding.
pub(crate) const OVERHEAD: usize = 8;

/// A new random key.
pub(crate) fn new_key() -> Result<Secret<32>> {
    Secret::try_with(|key: &mut [u8; 32]| {
        #[cfg(feature = "fips")]
        let filled = aws_lc_rs::rand::fill(key);
        #[cfg(not(feature = "fips"))]
        let filled = getrandom::fill(key);
        filled.map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))
    })
}

/// Wraps the 64 bytes of `payload`.
pub(crate) fn wrap(key: &Secret<32>, payload: &[u8; 64], wrapped: &mut [u8; 64 + OVERHEAD]) -> Result<()> {
    #[cfg(feature = "fips")]
    let done = module::key(key).and_then(|key| key.wrap_with_padding(payload, wrapped).map(drop));
    #[cfg(not(feature = "fips"))]
    let done = rust_crypto::key(key).wrap_key(payload, wrapped).map(drop);
    done.map_err(|error| Error::new(ErrorKind::Internal, "AES-KWP refused 64 bytes").with_source(error))
}

/// Unwraps what [`wrap`] made; `None`: something else, or under another key, and `payload` is to be erased.
pub(crate) fn unwrap(key: &Secret<32>, wrapped: &[u8; 64 + OVERHEAD], payload: &mut [u8; 64]) -> Option<()> {
    #[cfg(feature = "fips")]
    let found =
        module::key(key).and_then(|key| key.unwrap_with_padding(wrapped, payload).map(|found| found.len())).ok();
    #[cfg(not(feature = "fips"))]
    let found = rust_crypto::key(key).unwrap_key(wrapped, payload).map(<[u8]>::len).ok();
    // KWP carries the length: a shorter payload would be padded with zeros.
    (found == Some(64)).then_some(())
}

#[cfg(feature = "fips")]
use aws_lc_rs::key_wrap::KeyWrapPadded as _;

#[cfg(feature = "fips")]
mod module {
    use aws_lc_rs::error::Unspecified;
    use aws_lc_rs::key_wrap::{AES_256, AesKek};
    use keyfold::Secret;

    pub(super) fn key(key: &Secret<32>) -> Result<AesKek, Unspecified> {
        AesKek::new(&AES_256, key.expose())
    }
}

#[cfg(not(feature = "fips"))]
mod rust_crypto {
    use aes_kw::{KeyInit, KwpAes256};
    use keyfold::Secret;

    pub(super) fn key(key: &Secret<32>) -> KwpAes256 {
        KwpAes256::new(key.expose().into())
    }
}
