//! Bare AES-256-GCM: a key that is expanded once, nonces from the operating system, nonce ‖ ciphertext ‖ tag. No key ID and no commitment.
//!
//! Fastest documented setting of each: in place. The nonces of a column come by one call, and its results lie in one buffer.

use crate::{Column, Opened, Peer, Rows};
use aes_gcm::aead::{AeadInOut, KeyInit};
use keyfold_benches::VALUE_LEN;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const SEALED_LEN: usize = NONCE_LEN + VALUE_LEN + TAG_LEN;

/// Seals and opens in place.
pub(crate) trait Cipher: Sync {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN];
    /// `body` ends with the tag.
    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]);
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

pub(crate) fn ring() -> impl Cipher {
    let key = ring::aead::UnboundKey::new(&ring::aead::AES_256_GCM, &random::<32>()).expect("32 bytes");
    ring::aead::LessSafeKey::new(key)
}

pub(crate) fn aws_lc_rs() -> impl Cipher {
    let key = aws_lc_rs::aead::UnboundKey::new(&aws_lc_rs::aead::AES_256_GCM, &random::<32>()).expect("32 bytes");
    aws_lc_rs::aead::LessSafeKey::new(key)
}

pub(crate) fn rustcrypto() -> impl Cipher {
    aes_gcm::Aes256Gcm::new(&random::<32>().into())
}

impl Cipher for ring::aead::LessSafeKey {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let (nonce, aad) = (ring::aead::Nonce::assume_unique_for_key(nonce), ring::aead::Aad::from(aad));
        let tag = self.seal_in_place_separate_tag(nonce, aad, body).expect("short enough");
        tag.as_ref().try_into().expect("16 bytes")
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) {
        let (nonce, aad) = (ring::aead::Nonce::assume_unique_for_key(nonce), ring::aead::Aad::from(aad));
        self.open_in_place(nonce, aad, body).expect("sealed by this key");
    }
}

impl Cipher for aws_lc_rs::aead::LessSafeKey {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        let (nonce, aad) = (aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce), aws_lc_rs::aead::Aad::from(aad));
        let tag = self.seal_in_place_separate_tag(nonce, aad, body).expect("short enough");
        tag.as_ref().try_into().expect("16 bytes")
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) {
        let (nonce, aad) = (aws_lc_rs::aead::Nonce::assume_unique_for_key(nonce), aws_lc_rs::aead::Aad::from(aad));
        self.open_in_place(nonce, aad, body).expect("sealed by this key");
    }
}

impl Cipher for aes_gcm::Aes256Gcm {
    fn seal(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) -> [u8; TAG_LEN] {
        self.encrypt_inout_detached(&nonce.into(), aad, body.into()).expect("short enough").into()
    }

    fn open(&self, nonce: [u8; NONCE_LEN], aad: &[u8], body: &mut [u8]) {
        let (body, tag) = body.split_last_chunk_mut::<TAG_LEN>().expect("it ends with the tag");
        self.decrypt_inout_detached(&nonce.into(), aad, body.into(), &(*tag).into()).expect("sealed by this key");
    }
}

/// A cipher as a peer.
pub(crate) struct Bare<C>(pub(crate) C);

impl<C: Cipher> Bare<C> {
    fn seal_into(&self, nonce: [u8; NONCE_LEN], value: &[u8], aad: &[u8], out: &mut [u8]) {
        let (head, rest) = out.split_at_mut(NONCE_LEN);
        let (body, tag) = rest.split_at_mut(value.len());
        head.copy_from_slice(&nonce);
        body.copy_from_slice(value);
        tag.copy_from_slice(&self.0.seal(nonce, aad, body));
    }

    /// To the end of `out`.
    fn open_into(&self, sealed: &[u8], aad: &[u8], out: &mut Vec<u8>) {
        let (nonce, body) = sealed.split_first_chunk().expect("longer");
        let start = out.len();
        out.extend_from_slice(body);
        self.0.open(*nonce, aad, &mut out[start..]);
        out.truncate(out.len() - TAG_LEN);
    }
}

impl<C: Cipher> Peer for Bare<C> {
    fn seal(&self, value: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut out = vec![0; NONCE_LEN + value.len() + TAG_LEN];
        self.seal_into(random(), value, aad, &mut out);
        out
    }

    fn open(&self, sealed: &[u8], aad: &[u8]) -> Opened {
        let mut out = Vec::with_capacity(sealed.len());
        self.open_into(sealed, aad, &mut out);
        Opened::Bytes(out)
    }

    fn seal_column(&self, rows: &Rows) -> Column {
        let mut nonces = vec![0; rows.len() * NONCE_LEN];
        getrandom::fill(&mut nonces).expect("the system has randomness");
        let mut out = vec![0; rows.len() * SEALED_LEN];
        let outputs = out.chunks_exact_mut(SEALED_LEN).zip(nonces.as_chunks().0);
        for ((value, aad), (out, nonce)) in rows.each().zip(outputs) {
            self.seal_into(*nonce, value, aad, out);
        }
        Column::Together(out)
    }

    fn open_column(&self, sealed: &Column, rows: &Rows) -> Column {
        let Column::Together(sealed) = sealed else { unreachable!("seal_column makes no other") };
        let mut out = Vec::with_capacity(rows.len() * VALUE_LEN + NONCE_LEN + TAG_LEN);
        for (sealed, (_, aad)) in sealed.chunks_exact(SEALED_LEN).zip(rows.each()) {
            self.open_into(sealed, aad, &mut out);
        }
        Column::Together(out)
    }

    fn shared(&self) -> Option<&(dyn Peer + Sync)> {
        Some(self)
    }
}
