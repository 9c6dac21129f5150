//! Tink for Rust: a keyset in memory, and an envelope with a data key per value under a KEK in memory.
//!
//! https://docs.rs/tink-aead/0.3.0/tink_aead/. Neither has more settings than its template.

use crate::{Opened, Peer};

pub(crate) struct Tink(Box<dyn tink_core::Aead>);

fn aead() -> Box<dyn tink_core::Aead> {
    tink_aead::init();
    let handle = tink_core::keyset::Handle::new(&tink_aead::aes256_gcm_key_template()).expect("a known template");
    tink_aead::new(&handle).expect("a keyset of AEAD")
}

pub(crate) fn keyset() -> Tink {
    Tink(aead())
}

pub(crate) fn envelope() -> Tink {
    Tink(Box::new(tink_aead::KmsEnvelopeAead::new(tink_aead::aes256_gcm_key_template(), aead())))
}

impl Peer for Tink {
    fn seal(&self, value: &[u8], aad: &[u8]) -> Vec<u8> {
        self.0.encrypt(value, aad).expect("short enough")
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Opened {
        Opened::Bytes(self.0.decrypt(sealed, aad).expect("sealed by this key"))
    }

    /// Not even its trait can be: `tink_core::Aead` is neither `Send` nor `Sync`.
    fn shared(&self) -> Option<&(dyn Peer + Sync)> {
        None
    }
}
