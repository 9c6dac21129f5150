//! Ciphers and MACs, each on every backend of the build.

use crate::Case;
use crate::valgrind::{hidden, show};
use keyfold::aead::Backend;
use keyfold::aead::hazmat::{
    aes256gcm_open, aes256gcm_seal, aes256siv_open, aes256siv_seal, cmac_aes256, ff1_aes256, hkdf_sha256, hmac_sha256,
    xaes256gcm_open, xaes256gcm_seal,
};
use std::hint::black_box;

pub(crate) const CASES: &[Case] = &[
    ("gcm", || Backend::ALL.iter().for_each(|backend| gcm(*backend))),
    ("xaes", || Backend::ALL.iter().for_each(|backend| xaes(*backend))),
    ("siv", siv),
    ("macs", macs),
    ("ff1", ff1),
];

const AAD: &[u8] = b"public";
/// Lengths that end within a block, with one, and after what is done many blocks at a time.
const LENGTHS: [usize; 5] = [1, 16, 100, 512, 5000];

/// A value of `len` bytes, secret.
fn value(len: usize) -> Vec<u8> {
    let mut value = vec![7; len];
    crate::valgrind::hide(&mut value);
    value
}

#[inline(never)]
fn gcm(backend: Backend) {
    let key = hidden([1; 32]);
    for len in LENGTHS {
        let mut body = value(len);
        let tag = aes256gcm_seal(backend, &key, [2; 12], AAD, &mut body).expect("short");
        body.extend(tag);
        show(&body);
        assert!(aes256gcm_open(backend, &key, [2; 12], AAD, &mut body.clone()).is_ok());
        body[len] ^= 1;
        assert!(aes256gcm_open(backend, &key, [2; 12], AAD, &mut body).is_err());
    }
}

#[inline(never)]
fn xaes(backend: Backend) {
    let key = hidden([1; 32]);
    for len in LENGTHS {
        let mut body = value(len);
        let tag = xaes256gcm_seal(backend, &key, &[2; 24], AAD, &mut body).expect("short");
        body.extend(tag);
        show(&body);
        assert!(xaes256gcm_open(backend, &key, &[2; 24], AAD, &mut body.clone()).is_ok());
        body[len] ^= 1;
        assert!(xaes256gcm_open(backend, &key, &[2; 24], AAD, &mut body).is_err());
    }
}

#[inline(never)]
fn siv() {
    let key = hidden([1; 64]);
    for len in LENGTHS {
        let mut body = value(len);
        let mut iv = aes256siv_seal(&key, &[AAD], &mut body).expect("short");
        show(&body);
        show(&iv);
        assert!(aes256siv_open(&key, &[AAD], &iv, &mut body.clone()).is_ok());
        iv[15] ^= 1;
        assert!(aes256siv_open(&key, &[AAD], &iv, &mut body).is_err());
    }
}

#[inline(never)]
fn macs() {
    let key = hidden([1; 32]);
    for len in LENGTHS {
        let message = value(len);
        black_box(hmac_sha256(&key, &message));
        black_box(cmac_aes256(&key, &message));
        let mut derived = [0; 64];
        hkdf_sha256(&key, AAD, &message, &mut derived).expect("short");
        black_box(derived);
    }
}

/// Its numbers are large, and it is known to be variable.
#[inline(never)]
fn ff1() {
    let mut numerals = [1_u16, 2, 3, 4, 5, 6, 7, 8, 9, 0].map(u16::to_ne_bytes).concat();
    crate::valgrind::hide(&mut numerals);
    let numerals = numerals.as_chunks().0.iter().map(|bytes| u16::from_ne_bytes(*bytes)).collect();
    let key = hidden([1; 32]);
    let encrypted = ff1_aes256(&key, 10, AAD, numerals, true).expect("in the format");
    black_box(ff1_aes256(&key, 10, AAD, encrypted, false).expect("in the format"));
}
