//! Ciphers: AES-256-GCM on a backend, XAES-256-GCM and AES-256-SIV composed from it. Never sees a header.
//!
//! All backends write the same bytes under the same nonces and open each other's (FORMAT.md §4.5); a keyring uses [`Backend::default`].

mod gcm;
#[cfg(feature = "std")]
mod siv;
mod xaes;

#[cfg(feature = "hazmat")]
pub mod hazmat;

pub(crate) use gcm::GcmKey;
#[cfg(feature = "std")]
pub(crate) use gcm::{GcmKeys, HeldGcmKey};
#[cfg(feature = "std")]
pub(crate) use siv::{HeldSivCipher, SivCipher, SivKey};
pub(crate) use xaes::XaesKey;

/// Which library computes AES-256-GCM: the first of [`ALL`](Self::ALL), chosen when the program is built.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Backend {
    /// aws-lc-rs: with the feature `fips` on the FIPS module of AWS-LC, which then derives the keys of XAES too, otherwise on AWS-LC for bulk
    /// speed. AES-SIV is RustCrypto under either: [`fips::status`](crate::fips::status) says what runs where.
    #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
    AwsLcRs,
    /// ring. It exposes no AES block, so XAES key derivation and AES-SIV are RustCrypto under it too.
    #[cfg(feature = "ring")]
    Ring,
    /// RustCrypto's `aes-gcm`: `no_std`, on every target.
    RustCrypto,
}

impl Backend {
    /// Every backend of this build.
    pub const ALL: &'static [Self] = &[
        #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
        Self::AwsLcRs,
        #[cfg(feature = "ring")]
        Self::Ring,
        Self::RustCrypto,
    ];

    /// The name of the library.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "fips")]
            Self::AwsLcRs => "AWS-LC FIPS",
            #[cfg(all(feature = "aws-lc-rs", not(feature = "fips")))]
            Self::AwsLcRs => "aws-lc-rs",
            #[cfg(feature = "ring")]
            Self::Ring => "ring",
            Self::RustCrypto => "RustCrypto",
        }
    }

    /// Whether it draws the last 12 bytes of the nonces of fields, documents and wrapped keys itself, whatever it is given.
    #[cfg(feature = "std")]
    pub(crate) const fn draws_nonces(self) -> bool {
        match self {
            #[cfg(feature = "fips")]
            Self::AwsLcRs => true,
            _ => false,
        }
    }
}

impl Default for Backend {
    /// aws-lc-rs where it is built in, else ring, else RustCrypto.
    fn default() -> Self {
        Self::ALL[0]
    }
}

/// A ciphertext that does not open. Deliberately without detail; the buffer has been zeroed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OpenFailed;

impl From<OpenFailed> for crate::Error {
    fn from(_: OpenFailed) -> Self {
        crate::ErrorKind::DecryptionFailed.into()
    }
}
