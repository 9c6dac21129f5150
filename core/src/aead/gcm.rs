//! AES-256-GCM (NIST SP 800-38D) with 12-byte nonces and 16-byte tags, on the chosen backend.

use super::{Backend, OpenFailed};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{GCM_NONCE_LEN, TAG_LEN};
use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
#[cfg(feature = "std")]
use keyfold_memory::{Guarded, OnHeap};
use zeroize::Zeroize;

/// An AES-256-GCM key, expanded for its backend.
///
/// RustCrypto and aws-lc-rs erase it on drop, and leave copies on the stack; ring erases nothing. So whoever makes one either uses it within
/// [`erasing`], or makes a [`HeldGcmKey`] of it.
#[allow(clippy::large_enum_variant, reason = "one lives per nonce prefix, and a box would cost a cache miss per value")]
pub(crate) enum GcmKey {
    #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
    AwsLcRs(aws_lc_rs::aead::LessSafeKey),
    /// Draws the nonces of what it seals, as the FIPS module wants it.
    #[cfg(feature = "fips")]
    Drawing(aws_lc_rs::aead::RandomizedNonceKey),
    #[cfg(feature = "ring")]
    Ring(ring::aead::LessSafeKey),
    RustCrypto(Aes256Gcm),
}

impl GcmKey {
    /// A key that seals under the caller's nonces, on every backend.
    pub(crate) fn new(backend: Backend, key: &[u8; 32]) -> Self {
        match backend {
            #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
            Backend::AwsLcRs => {
                let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, key);
                Self::AwsLcRs(aws_lc_rs::aead::LessSafeKey::new(key.expect("the key has 32 bytes")))
            }
            #[cfg(feature = "ring")]
            Backend::Ring => {
                let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, key).expect("the key has 32 bytes");
                Self::Ring(ring::aead::LessSafeKey::new(key))
            }
            Backend::RustCrypto => Self::RustCrypto(Aes256Gcm::new(key.into())),
        }
    }

    /// A key whose nonces are random: the caller's, or those of a backend that [draws its own](Backend::draws_nonces).
    pub(crate) fn with_random_nonces(backend: Backend, key: &[u8; 32]) -> Self {
        match backend {
            #[cfg(feature = "fips")]
            Backend::AwsLcRs => {
                let key = aws_lc_rs::aead::RandomizedNonceKey::new(&aws_lc_rs::aead::AES_256_GCM, key);
                Self::Drawing(key.expect("the key has 32 bytes"))
            }
            _ => Self::new(backend, key),
        }
    }

    /// Replaces `body` by its ciphertext and returns the tag. `nonce` is the one to use, and afterwards the one that was used: see
    /// [`with_random_nonces`](Self::with_random_nonces).
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): longer than AES-GCM allows; `body` must not be used.
    /// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): the backend has drawn no nonce; likewise.
    #[inline]
    pub(crate) fn seal(&self, nonce: &mut [u8; GCM_NONCE_LEN], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_LEN]> {
        const TOO_LONG: Error = Error::new(ErrorKind::LimitExceeded, "longer than AES-GCM allows");
        match self {
            #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
            Self::AwsLcRs(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(*nonce);
                let aad = aws_lc_rs::aead::Aad::from(aad);
                let tag = key.seal_in_place_separate_tag(nonce, aad, body).map_err(|_| TOO_LONG)?;
                Ok(tag.as_ref().try_into().expect("an AES-GCM tag has 16 bytes"))
            }
            #[cfg(feature = "fips")]
            Self::Drawing(key) => {
                // Values are far shorter than the limit of AES-GCM, so what fails here is the generator of the module.
                let sealed = key.seal_in_place_separate_tag(aws_lc_rs::aead::Aad::from(aad), body);
                let (drawn, tag) = sealed.map_err(|_| ErrorKind::RandomnessUnavailable)?;
                *nonce = *drawn.as_ref();
                Ok(tag.as_ref().try_into().expect("an AES-GCM tag has 16 bytes"))
            }
            #[cfg(feature = "ring")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
                let tag =
                    key.seal_in_place_separate_tag(nonce, ring::aead::Aad::from(aad), body).map_err(|_| TOO_LONG)?;
                Ok(tag.as_ref().try_into().expect("an AES-GCM tag has 16 bytes"))
            }
            Self::RustCrypto(key) => rust_crypto::seal(key, nonce, aad, body).ok_or(TOO_LONG),
        }
    }

    /// Replaces the ciphertext in `body_and_tag` (ciphertext ‖ 16-byte tag) by its plaintext and returns that part.
    ///
    /// # Errors
    ///
    /// [`OpenFailed`]: tag, nonce, AAD or key is wrong; `body_and_tag` has been zeroed.
    #[inline]
    pub(crate) fn open<'b>(
        &self,
        nonce: [u8; GCM_NONCE_LEN],
        aad: &[u8],
        body_and_tag: &'b mut [u8],
    ) -> Result<&'b mut [u8], OpenFailed> {
        let Some(len) = body_and_tag.len().checked_sub(TAG_LEN) else {
            body_and_tag.zeroize();
            return Err(OpenFailed);
        };
        let opened = match self {
            #[cfg(any(feature = "aws-lc-rs", feature = "fips"))]
            Self::AwsLcRs(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc_rs::aead::Aad::from(aad), body_and_tag).is_ok()
            }
            #[cfg(feature = "fips")]
            Self::Drawing(key) => {
                let nonce = aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, aws_lc_rs::aead::Aad::from(aad), body_and_tag).is_ok()
            }
            #[cfg(feature = "ring")]
            Self::Ring(key) => {
                let nonce = ring::aead::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, ring::aead::Aad::from(aad), body_and_tag).is_ok()
            }
            Self::RustCrypto(key) => rust_crypto::open(key, &nonce, aad, body_and_tag),
        };
        if opened {
            Ok(&mut body_and_tag[..len])
        } else {
            // The backends promise different things about the buffer after a failure; this one promises zeros.
            // F-1-2, F-1-3.
            body_and_tag.zeroize();
            Err(OpenFailed)
        }
    }
}

/// Calls of RustCrypto, which puts copies of round keys on the stack. They are not inlined: in the frame of a caller that goes on to use other keys, or to drop
/// this one, nothing would overwrite those copies.
mod rust_crypto {
    use super::{AeadInOut, Aes256Gcm, GCM_NONCE_LEN, TAG_LEN};

    #[inline(never)]
    pub(super) fn seal(
        key: &Aes256Gcm,
        nonce: &[u8; GCM_NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        key.encrypt_inout_detached(nonce.into(), aad, body.into()).ok().map(Into::into)
    }

    /// Whether the tag, which is behind the body, is right.
    #[inline(never)]
    pub(super) fn open(key: &Aes256Gcm, nonce: &[u8; GCM_NONCE_LEN], aad: &[u8], body_and_tag: &mut [u8]) -> bool {
        let Some((body, tag)) = body_and_tag.split_last_chunk_mut::<TAG_LEN>() else { return false };
        key.decrypt_inout_detached(nonce.into(), aad, body.into(), (&*tag).into()).is_ok()
    }
}

/// How far down the stack the backend of keyrings goes when it expands a key and uses it. ring moves its half a kilobyte from one caller to the next, five
/// times. RustCrypto has four copies of a key's round keys there, or of their pairs, for several blocks at once.
#[cfg(feature = "std")]
const GCM_STACK: usize =
    if cfg!(any(feature = "ring", feature = "aws-lc-rs", feature = "fips")) { 6 * 1024 } else { 16 * 1024 };

/// Runs `work`, which makes a [`GcmKey`], and overwrites what that leaves on the stack.
pub(super) fn erasing<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "std")]
    return keyfold_memory::erasing_stack_of::<GCM_STACK, _>(work);
    #[cfg(not(feature = "std"))]
    return work();
}

/// A [`GcmKey`] that stays: for the rows of a column, a document, a stream. In guarded memory, erased on drop.
#[cfg(feature = "std")]
pub(crate) struct HeldGcmKey(Guarded<GcmKey>);

#[cfg(feature = "std")]
impl HeldGcmKey {
    /// Bytes that a key takes beside itself.
    pub(crate) const HELD_LEN: usize = Guarded::<GcmKey>::SLOT_LEN;

    /// As [`GcmKey::new`].
    pub(crate) fn new(backend: Backend, key: &[u8; 32]) -> Self {
        Self::made_by(|| GcmKey::new(backend, key))
    }

    /// As [`GcmKey::with_random_nonces`].
    pub(crate) fn with_random_nonces(backend: Backend, key: &[u8; 32]) -> Self {
        Self::made_by(|| GcmKey::with_random_nonces(backend, key))
    }

    /// Runs `work` with the key, and overwrites what that leaves on the stack: for threads other than the one that drops the key, and where something else is
    /// done before it is dropped. What is moved to the heap takes along what was on the stack between its fields.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&GcmKey) -> T) -> T {
        erasing(|| work(&self.0))
    }

    pub(super) fn made_by(make: impl FnOnce() -> GcmKey) -> Self {
        Self(erasing(|| Guarded::new(make())))
    }
}

#[cfg(feature = "std")]
impl core::ops::Deref for HeldGcmKey {
    type Target = GcmKey;

    #[inline]
    fn deref(&self) -> &GcmKey {
        &self.0
    }
}

#[cfg(feature = "std")]
impl Drop for HeldGcmKey {
    fn drop(&mut self) {
        // Of the last message there are round keys in registers, and RustCrypto's on the stack.
        erasing(|| ());
    }
}

/// [`GcmKey`]s of which there may be too many to lock, while a column is opened. On the heap, erased on drop.
#[cfg(feature = "std")]
#[derive(Default)]
pub(crate) struct GcmKeys(Vec<OnHeap<GcmKey>>);

#[cfg(feature = "std")]
impl GcmKeys {
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn get(&self, place: usize) -> Option<&GcmKey> {
        self.0.get(place).map(|key| &**key)
    }

    pub(super) fn push(&mut self, make: impl FnOnce() -> GcmKey) {
        self.0.push(erasing(|| OnHeap::new(make())));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(feature = "std")]
impl Drop for GcmKeys {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            erasing(|| self.0.clear());
        }
    }
}
