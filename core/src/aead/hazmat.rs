//! Raw primitives with caller-chosen nonces, for test vectors and benchmarks. Repeating a nonce breaks AES-GCM:
//! never use this to protect data.

use super::{Backend, GcmKey, OpenFailed, SivKey, XaesKey};
use crate::error::Result;
use crate::keys::Secret;
use crate::wire::{NONCE_LEN, TAG_LEN};

/// Seals with AES-256-GCM: replaces `body` by its ciphertext and returns the tag.
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): longer than AES-GCM allows.
pub fn aes256gcm_seal(
    backend: Backend,
    key: &[u8; 32],
    mut nonce: [u8; 12],
    aad: &[u8],
    body: &mut [u8],
) -> Result<[u8; TAG_LEN]> {
    GcmKey::new(backend, key).seal(&mut nonce, aad, body)
}

/// Opens AES-256-GCM: `body_and_tag` is ciphertext ‖ tag; returns the plaintext within it.
///
/// # Errors
///
/// [`OpenFailed`]; `body_and_tag` has been zeroed.
pub fn aes256gcm_open<'b>(
    backend: Backend,
    key: &[u8; 32],
    nonce: [u8; 12],
    aad: &[u8],
    body_and_tag: &'b mut [u8],
) -> Result<&'b mut [u8], OpenFailed> {
    GcmKey::new(backend, key).open(nonce, aad, body_and_tag)
}

/// Seals with XAES-256-GCM: replaces `body` by its ciphertext and returns the tag.
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): longer than AES-GCM allows.
pub fn xaes256gcm_seal(
    backend: Backend,
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    body: &mut [u8],
) -> Result<[u8; TAG_LEN]> {
    with_xaes(backend, key, nonce, |key, mut nonce| key.seal(&mut nonce, aad, body))
}

/// Opens XAES-256-GCM: `body_and_tag` is ciphertext ‖ tag; returns the plaintext within it.
///
/// # Errors
///
/// [`OpenFailed`]; `body_and_tag` has been zeroed.
pub fn xaes256gcm_open<'b>(
    backend: Backend,
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    body_and_tag: &'b mut [u8],
) -> Result<&'b mut [u8], OpenFailed> {
    with_xaes(backend, key, nonce, |key, nonce| key.open(nonce, aad, body_and_tag))
}

/// The key derivation of XAES-256-GCM alone, under a key that is expanded once: what a value of its own costs more
/// than a row of a column. For benchmarks.
pub struct XaesDerivation(XaesKey);

impl XaesDerivation {
    /// Expands the key.
    #[must_use]
    pub fn new(backend: Backend, key: &[u8; 32]) -> Self {
        Self(XaesKey::new(backend, &Secret::with(|k| k.copy_from_slice(key))))
    }

    /// Derives the key of the nonces that start with `prefix`, and drops it.
    pub fn derive(&self, prefix: &[u8; 12]) {
        self.0.with_derived(prefix, |key| _ = core::hint::black_box(key));
    }
}

fn with_xaes<T>(
    backend: Backend,
    key: &[u8; 32],
    nonce: &[u8; NONCE_LEN],
    work: impl FnOnce(&GcmKey, [u8; 12]) -> T,
) -> T {
    let mut prefix = [0; 12];
    let mut last = [0; 12];
    prefix.copy_from_slice(&nonce[..12]);
    last.copy_from_slice(&nonce[12..]);
    let key = XaesKey::new(backend, &Secret::with(|k| k.copy_from_slice(key)));
    key.with_derived_for_any_nonce(&prefix, |key| work(key, last))
}

/// Seals with AES-256-SIV: replaces `body` by its ciphertext and returns the synthetic IV.
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): more strings than S2V takes.
pub fn aes256siv_seal(key: &[u8; 64], strings: &[&[u8]], body: &mut [u8]) -> Result<[u8; TAG_LEN]> {
    SivKey::new(Secret::with(|k| k.copy_from_slice(key))).with_cipher(|cipher| cipher.seal(strings, body))
}

/// Opens AES-256-SIV in place.
///
/// # Errors
///
/// [`OpenFailed`]; `body` has been zeroed.
pub fn aes256siv_open(
    key: &[u8; 64],
    strings: &[&[u8]],
    iv: &[u8; TAG_LEN],
    body: &mut [u8],
) -> Result<(), OpenFailed> {
    SivKey::new(Secret::with(|k| k.copy_from_slice(key))).with_cipher(|cipher| cipher.open(strings, iv, body))
}

/// HKDF-SHA-256 (RFC 5869) into `out`, at most 8,160 bytes.
///
/// # Errors
///
/// - [`LimitExceeded`](crate::ErrorKind::LimitExceeded): `out` is longer than HKDF-SHA-256 allows.
pub fn hkdf_sha256(key: &[u8], salt: &[u8], info: &[u8], out: &mut [u8]) -> Result<()> {
    hkdf::Hkdf::<sha2::Sha256>::new(Some(salt), key)
        .expand(info, out)
        .map_err(|_| crate::Error::new(crate::ErrorKind::LimitExceeded, "longer than HKDF-SHA-256 allows"))
}

/// HMAC-SHA-256 (FIPS 198-1).
#[must_use]
pub fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// CMAC-AES-256 (NIST SP 800-38B).
#[must_use]
pub fn cmac_aes256(key: &[u8; 32], message: &[u8]) -> [u8; 16] {
    use cmac::{Cmac, KeyInit, Mac};
    let mut mac = Cmac::<aes::Aes256Enc>::new(key.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// FF1 with AES-256: the numerals of `radix` that stand in the place of `numerals`, or for which those stand.
///
/// # Errors
///
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput): fewer than 10⁶ values have so many numerals, or one is none of the radix.
///
/// # Panics
///
/// If the radix is not 2 to 65,536.
pub fn ff1_aes256(key: &[u8; 32], radix: u32, tweak: &[u8], numerals: Vec<u16>, encrypt: bool) -> Result<Vec<u16>> {
    let ff1 = crate::lookup::Ff1::new(&Secret::with(|k| *k = *key), radix);
    if encrypt { ff1.encrypt(tweak, numerals) } else { ff1.decrypt(tweak, numerals) }
}
