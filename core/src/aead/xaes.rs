//! XAES-256-GCM (c2sp.org/XAES-256-GCM): one derivation per 12-byte nonce prefix, then AES-256-GCM.

use super::{Backend, GcmKey};
use crate::keys::Secret;
use crate::wire::PREFIX_LEN;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256Enc, Block};
use zeroize::Zeroizing;

/// A key for XAES-256-GCM. Erased on drop.
pub(crate) struct XaesKey {
    expanded: Place<Expanded>,
    backend: Backend,
}

/// Where the expanded key is: the round keys begin with the key itself.
#[cfg(feature = "std")]
type Place<T> = keyfold_memory::Guarded<T>;
#[cfg(not(feature = "std"))]
type Place<T> = T;

struct Expanded {
    aes: Aes256Enc,
    /// The first subkey of CMAC (NIST SP 800-38B §6.1).
    subkey: Zeroizing<[u8; 16]>,
}

impl XaesKey {
    pub(crate) fn new(backend: Backend, key: &Secret<32>) -> Self {
        let aes = Aes256Enc::new(key.expose().into());
        // K1 = L · x in GF(2¹²⁸), where L is the encryption of the zero block
        let mut subkey = Zeroizing::new([0; 16]);
        aes.encrypt_block((&mut *subkey).into());
        let l = u128::from_be_bytes(*subkey);
        *subkey = ((l << 1) ^ ((l >> 127) * 0x87)).to_be_bytes();
        let expanded = Expanded { aes, subkey };
        #[cfg(feature = "std")]
        let expanded = Place::new(expanded);
        Self { expanded, backend }
    }

    /// Bytes that a key takes beside itself.
    #[cfg(feature = "std")]
    pub(crate) const HELD_LEN: usize = Place::<Expanded>::SLOT_LEN;

    pub(crate) const fn backend(&self) -> Backend {
        self.backend
    }

    /// The AES-256-GCM key of all messages whose nonce starts with `prefix`.
    ///
    /// NIST SP 800-108r1 §4.1, counter mode, with CMAC-AES-256: for i in 1, 2
    /// `CMAC(K, i (2 bytes) ‖ "X" ‖ 00 ‖ prefix)`, concatenated. Each message is one whole block, and then
    /// `CMAC(K, M) = AES(K, M ⊕ K1)`.
    pub(crate) fn derive(&self, prefix: &[u8; PREFIX_LEN]) -> GcmKey {
        let Expanded { aes, subkey }: &Expanded = &self.expanded;
        let mut derived = Zeroizing::new([0; 32]);
        let halves = derived.as_chunks_mut::<16>().0;
        for (i, half) in (1_u8..).zip(&mut *halves) {
            half[..4].copy_from_slice(&[0, i, b'X', 0]);
            half[4..].copy_from_slice(prefix);
            half.iter_mut().zip(**subkey).for_each(|(byte, key)| *byte ^= key);
        }
        aes.encrypt_blocks(Block::cast_slice_from_core_mut(halves));
        GcmKey::new(self.backend, &derived)
    }
}
