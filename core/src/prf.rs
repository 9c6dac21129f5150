//! HMAC (FIPS 198-1) and HKDF (RFC 5869): RustCrypto's, or with the feature `fips` those of the FIPS module.

#[cfg(feature = "fips")]
pub(crate) use module::{Hkdf, HkdfExpandSha512, HmacSha256};
#[cfg(not(feature = "fips"))]
pub(crate) use rust_crypto::Hkdf;
#[cfg(all(feature = "std", not(feature = "fips")))]
pub(crate) use rust_crypto::{HkdfExpandSha512, HmacSha256};

#[cfg(feature = "fips")]
mod module {
    use aws_lc_rs::{hkdf, hmac};

    const FAILED: &str = "HKDF derives up to 8,160 bytes";

    /// How many bytes to derive.
    struct Len(usize);

    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
        prk.expand(info, Len(out.len())).and_then(|okm| okm.fill(out)).expect(FAILED);
    }

    /// HKDF-SHA-256 under one key. Erased on drop.
    pub(crate) struct Hkdf(hkdf::Prk);

    impl Hkdf {
        /// Without a salt, which is as many zeros as the hash is long (§2.2): they are written out, since the module counts nothing as approved
        /// whose salt is empty.
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(hkdf::Salt::new(hkdf::HKDF_SHA256, &[0; 32]).extract(key))
        }

        /// Under a key that needs no extraction.
        pub(crate) fn from_prk(key: &[u8; 32]) -> Self {
            Self(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, key))
        }

        /// HKDF-Expand of `info`, which is given in parts, to at most 8,160 bytes.
        pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
            expand(&self.0, info, out);
        }
    }

    /// HKDF-Expand with SHA-512, under one key.
    pub(crate) struct HkdfExpandSha512(hkdf::Prk);

    impl HkdfExpandSha512 {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA512, key))
        }

        /// To at most 255 × 64 bytes.
        pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
            expand(&self.0, info, out);
        }
    }

    /// HMAC-SHA-256 of a message that comes in parts.
    pub(crate) struct HmacSha256(hmac::Context);

    impl HmacSha256 {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key)))
        }

        pub(crate) fn update(&mut self, part: &[u8]) {
            self.0.update(part);
        }

        pub(crate) fn finalize(self) -> [u8; 32] {
            self.0.sign().as_ref().try_into().expect("a MAC by HMAC-SHA-256 has 32 bytes")
        }
    }
}

#[cfg(not(feature = "fips"))]
mod rust_crypto {
    use sha2::Sha256;
    #[cfg(feature = "std")]
    use {
        hmac::{Hmac, KeyInit, Mac},
        sha2::Sha512,
        zeroize::Zeroizing,
    };

    #[cfg(feature = "std")]
    const ANY_LENGTH: &str = "HMAC takes keys of any length";

    /// HKDF-SHA-256 under one key, as the state of HMAC behind it, which is a third of the time of a short expansion. Erased on drop.
    pub(crate) struct Hkdf(hkdf::Hkdf<Sha256>);

    impl Hkdf {
        /// Without a salt.
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(hkdf::Hkdf::new(None, key))
        }

        /// Under a key that needs no extraction.
        #[cfg(feature = "std")]
        pub(crate) fn from_prk(key: &[u8; 32]) -> Self {
            Self(hkdf::Hkdf::from_prk(key).expect("the key is as long as the hash"))
        }

        /// HKDF-Expand of `info`, which is given in parts, to at most 8,160 bytes.
        // Inlined, so that devices, which cannot panic, see that `out` is short.
        #[inline]
        pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
            self.0.expand_multi_info(info, out).expect("HKDF-SHA-256 allows 8,160 bytes");
        }
    }

    /// HKDF-Expand with SHA-512, under one key.
    #[cfg(feature = "std")]
    pub(crate) struct HkdfExpandSha512(Hmac<Sha512>);

    #[cfg(feature = "std")]
    impl HkdfExpandSha512 {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(Hmac::new_from_slice(key).expect(ANY_LENGTH))
        }

        /// To at most 255 × 64 bytes. T(i) = HMAC(key, T(i-1) ‖ info ‖ i), as §2.3 has it; `hkdf` refuses a key that is shorter than the hash.
        pub(crate) fn expand(&self, info: &[&[u8]], out: &mut [u8]) {
            let mut last = Zeroizing::new([0; 64]);
            for (i, block) in (0_u8..).zip(out.chunks_mut(64)) {
                let mut mac = self.0.clone();
                if i > 0 {
                    mac.update(&*last);
                }
                info.iter().for_each(|part| mac.update(part));
                mac.update(&[i + 1]);
                last.copy_from_slice(&mac.finalize().into_bytes());
                block.copy_from_slice(&last[..block.len()]);
            }
        }
    }

    /// HMAC-SHA-256 of a message that comes in parts.
    #[cfg(feature = "std")]
    pub(crate) struct HmacSha256(Hmac<Sha256>);

    #[cfg(feature = "std")]
    impl HmacSha256 {
        pub(crate) fn new(key: &[u8; 32]) -> Self {
            Self(Hmac::new_from_slice(key).expect(ANY_LENGTH))
        }

        pub(crate) fn update(&mut self, part: &[u8]) {
            self.0.update(part);
        }

        pub(crate) fn finalize(self) -> [u8; 32] {
            self.0.finalize().into_bytes().into()
        }
    }
}
