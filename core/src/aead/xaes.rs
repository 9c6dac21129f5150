//! XAES-256-GCM (c2sp.org/XAES-256-GCM): one derivation per 12-byte nonce prefix, then AES-256-GCM.

use super::{Backend, GcmKey};
use crate::keys::Secret;
use crate::wire::PREFIX_LEN;
use aes::Aes256Enc;
use cmac::{Cmac, KeyInit, Mac};
use zeroize::Zeroizing;

/// A key for XAES-256-GCM. Erased on drop.
pub(crate) struct XaesKey {
    /// Keyed once; cloned per derivation, which is cheaper than expanding the AES key again.
    cmac: Cmac<Aes256Enc>,
    backend: Backend,
}

impl XaesKey {
    pub(crate) fn new(backend: Backend, key: &Secret<32>) -> Self {
        Self { cmac: Cmac::new(key.expose().into()), backend }
    }

    /// The AES-256-GCM key of all messages whose nonce starts with `prefix`.
    ///
    /// NIST SP 800-108r1 §4.1, counter mode, with CMAC-AES-256: for i in 1, 2
    /// `CMAC(K, i (2 bytes) ‖ "X" ‖ 00 ‖ prefix)`, concatenated.
    pub(crate) fn derive(&self, prefix: &[u8; PREFIX_LEN]) -> GcmKey {
        let mut derived = Zeroizing::new([0; 32]);
        for (i, half) in (1_u8..).zip(derived.chunks_exact_mut(16)) {
            let mut mac = self.cmac.clone();
            mac.update(&[0, i, b'X', 0]);
            mac.update(prefix);
            half.copy_from_slice(&mac.finalize().into_bytes());
        }
        GcmKey::new(self.backend, &derived)
    }
}
