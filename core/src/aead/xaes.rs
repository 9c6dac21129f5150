//! XAES-256-GCM (c2sp.org/XAES-256-GCM): one derivation per 12-byte nonce prefix, then AES-256-GCM.

use super::gcm::erasing;
use super::{Backend, GcmKey};
#[cfg(feature = "std")]
use super::{GcmKeys, HeldGcmKey};
use crate::keys::Secret;
use crate::wire::PREFIX_LEN;
use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

/// A key for XAES-256-GCM. Erased on drop.
pub(crate) struct XaesKey {
    cmac: Place<Cmac>,
    backend: Backend,
}

/// Where the expanded key is: the round keys begin with the key itself.
#[cfg(feature = "std")]
type Place<T> = keyfold_memory::Guarded<T>;
#[cfg(not(feature = "std"))]
type Place<T> = T;

/// CMAC-AES-256 of messages of one block (NIST SP 800-38B).
#[cfg_attr(feature = "fips", allow(clippy::large_enum_variant, reason = "the large one is for tests alone"))]
enum Cmac {
    #[cfg(feature = "fips")]
    AwsLcRs(aws_lc_rs::cmac::Key),
    RustCrypto {
        /// Expanded once.
        aes: Aes256Enc,
        /// The first subkey (§6.1).
        subkey: Zeroizing<[u8; 16]>,
    },
}

impl Cmac {
    fn new(backend: Backend, key: &Secret<32>) -> Self {
        match backend {
            #[cfg(feature = "fips")]
            Backend::AwsLcRs => {
                let key = aws_lc_rs::cmac::Key::new(aws_lc_rs::cmac::AES_256, key.expose());
                Self::AwsLcRs(key.expect("the key has 32 bytes"))
            }
            _ => {
                let aes = Aes256Enc::new(key.expose().into());
                // K1 = L · x in GF(2¹²⁸), where L is the encryption of the zero block
                let mut subkey = Zeroizing::new([0; 16]);
                aes.encrypt_block((&mut *subkey).into());
                let l = u128::from_be_bytes(*subkey);
                *subkey = ((l << 1) ^ ((l >> 127) * 0x87)).to_be_bytes();
                Self::RustCrypto { aes, subkey }
            }
        }
    }

    /// Puts the MAC of each message in its place. Of one whole block M it is AES(K, M ⊕ K1).
    fn replace(&self, messages: &mut [[u8; 16]]) {
        match self {
            #[cfg(feature = "fips")]
            Self::AwsLcRs(key) => {
                for message in messages {
                    let of = *message;
                    aws_lc_rs::cmac::sign_to_buffer(key, &of, message).expect("there is room for a MAC of 16 bytes");
                }
            }
            Self::RustCrypto { aes, subkey } => {
                // One by one: for several at once the crate puts copies of the expanded key on the stack, where the processor has VAES.
                for message in messages {
                    message.iter_mut().zip(**subkey).for_each(|(byte, key)| *byte ^= key);
                    aes.encrypt_block(message.into());
                }
            }
        }
    }
}

impl XaesKey {
    pub(crate) fn new(backend: Backend, key: &Secret<32>) -> Self {
        let cmac = Cmac::new(backend, key);
        #[cfg(feature = "std")]
        let cmac = Place::new(cmac);
        Self { cmac, backend }
    }

    /// Bytes that a key takes beside itself.
    #[cfg(feature = "std")]
    pub(crate) const HELD_LEN: usize = Place::<Cmac>::SLOT_LEN;

    #[cfg(feature = "std")]
    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    /// Runs `work` with the AES-256-GCM key of all messages whose nonce starts with `prefix`; what follows it is random. Overwrites what that leaves
    /// on the stack: what deriving the key does as well.
    pub(crate) fn with_derived<T>(&self, prefix: &[u8; PREFIX_LEN], work: impl FnOnce(&GcmKey) -> T) -> T {
        erasing(|| work(&self.derive(prefix)))
    }

    /// That key, for many messages.
    #[cfg(feature = "std")]
    pub(crate) fn hold_derived(&self, prefix: &[u8; PREFIX_LEN]) -> HeldGcmKey {
        HeldGcmKey::made_by(|| self.derive(prefix))
    }

    /// That key, as the last one of `keys`.
    #[cfg(feature = "std")]
    pub(crate) fn add_derived(&self, prefix: &[u8; PREFIX_LEN], keys: &mut GcmKeys) {
        keys.push(|| self.derive(prefix));
    }

    fn derive(&self, prefix: &[u8; PREFIX_LEN]) -> GcmKey {
        GcmKey::with_random_nonces(self.backend, &self.derive_bytes(prefix))
    }

    /// As [`with_derived`](Self::with_derived), for nonces that the caller chooses.
    #[cfg(feature = "hazmat")]
    pub(crate) fn with_derived_for_any_nonce<T>(
        &self,
        prefix: &[u8; PREFIX_LEN],
        work: impl FnOnce(&GcmKey) -> T,
    ) -> T {
        erasing(|| work(&GcmKey::new(self.backend, &self.derive_bytes(prefix))))
    }

    /// NIST SP 800-108r1 §4.1, counter mode, with CMAC-AES-256: for i in 1, 2
    /// `CMAC(K, i (2 bytes) ‖ "X" ‖ 00 ‖ prefix)`, concatenated. Each message is one whole block.
    // F-4.5-1.
    fn derive_bytes(&self, prefix: &[u8; PREFIX_LEN]) -> Zeroizing<[u8; 32]> {
        let mut derived = Zeroizing::new([0; 32]);
        let halves = derived.as_chunks_mut::<16>().0;
        for (i, half) in (1_u8..).zip(&mut *halves) {
            half[..4].copy_from_slice(&[0, i, b'X', 0]);
            half[4..].copy_from_slice(prefix);
        }
        self.cmac.replace(halves);
        derived
    }
}
