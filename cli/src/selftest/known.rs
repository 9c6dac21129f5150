//! Known answers: published facts for every primitive, on every backend that computes it.

mod facts;

use keyfold::aead::{Backend, hazmat};
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};

use super::hex;
use super::primitive::{self, Check, Cipher};
use super::report::{KnownAnswers, Tally};
use facts::{GcmFact, MacFact, SivFact, WrapFact};

/// What computes everything but AES-256-GCM, whatever the backend.
const RUST_CRYPTO: &str = "RustCrypto";

/// What computes FF1, on the AES of RustCrypto.
const FPE: &str = "fpe";

/// Runs everything.
pub(super) fn run() -> Vec<KnownAnswers> {
    let row = |primitive, backend, tally| KnownAnswers { primitive, backend, tally };
    let mut rows = Vec::new();
    rows.extend(Backend::ALL.iter().map(|&backend| row("AES-256-GCM", backend.name(), gcm(backend))));
    rows.extend(Backend::ALL.iter().map(|&backend| row("XAES-256-GCM", backend.name(), xaes(backend))));
    rows.push(row("AES-256-SIV", RUST_CRYPTO, siv()));
    rows.push(row("HKDF-SHA-256", RUST_CRYPTO, hkdf()));
    rows.push(row("HMAC-SHA-256", RUST_CRYPTO, hmac()));
    rows.push(row("CMAC-AES-256", RUST_CRYPTO, cmac()));
    rows.push(row("AES-256-KW", RUST_CRYPTO, key_wrap()));
    rows.push(row("AES-256-KWP", RUST_CRYPTO, key_wrap_with_padding()));
    rows.push(row("FF1-AES-256", FPE, ff1()));
    rows
}

fn gcm(backend: Backend) -> Tally {
    let mut tally = Tally::default();
    for GcmFact { source, key, nonce, aad, plaintext, sealed } in facts::GCM {
        let (key, nonce, aad) = (array(key), array(nonce), bytes(aad));
        let cipher = Cipher::Gcm { backend, key: &key, nonce, aad: &aad };
        both_ways(&mut tally, source, &cipher, plaintext, sealed);
    }
    for (source, key, nonce, sealed) in facts::GCM_REFUSED {
        let cipher = Cipher::Gcm { backend, key: &array(key), nonce: array(nonce), aad: &[] };
        tally.record(source, cipher.refuses(&bytes(sealed)));
    }
    tally
}

fn xaes(backend: Backend) -> Tally {
    let mut tally = Tally::default();
    for GcmFact { source, key, nonce, aad, plaintext, sealed } in facts::XAES {
        let (key, nonce, aad) = (array(key), array(nonce), bytes(aad));
        let cipher = Cipher::Xaes { backend, key: &key, nonce: &nonce, aad: &aad };
        both_ways(&mut tally, source, &cipher, plaintext, sealed);
    }
    tally.record("C2SP XAES-256-GCM, 10,000 accumulated messages", accumulated(backend));
    tally
}

/// Seals 10,000 messages that one SHAKE-128 stream dictates; another hashes the ciphertexts. Opens each as well.
fn accumulated(backend: Backend) -> Check {
    let mut inputs = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    for _ in 0..10_000 {
        let (mut key, mut nonce) = ([0; 32], [0; 24]);
        inputs.read(&mut key);
        inputs.read(&mut nonce);
        let plaintext = short_string(&mut inputs);
        let aad = short_string(&mut inputs);

        let mut body = plaintext.clone();
        let tag = hazmat::xaes256gcm_seal(backend, &key, &nonce, &aad, &mut body).map_err(|error| error.to_string())?;
        body.extend_from_slice(&tag);
        hash.update(&body);
        match hazmat::xaes256gcm_open(backend, &key, &nonce, &aad, &mut body) {
            Ok(opened) if *opened == plaintext => {}
            _ => return Err("did not open to the plaintext".into()),
        }
    }
    let mut computed = [0; 32];
    hash.finalize_xof().read(&mut computed);
    if computed == array(facts::XAES_10_000) { Ok(()) } else { Err("another hash".into()) }
}

/// Draws one length byte, then as many bytes.
fn short_string(stream: &mut impl XofReader) -> Vec<u8> {
    let mut len = [0];
    stream.read(&mut len);
    let mut string = vec![0; len[0].into()];
    stream.read(&mut string);
    string
}

fn siv() -> Tally {
    let mut tally = Tally::default();
    for SivFact { source, key, strings, plaintext, sealed } in facts::SIV {
        let strings: Vec<Vec<u8>> = strings.iter().map(|string| bytes(string)).collect();
        let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
        let cipher = Cipher::Siv { key: &array(key), strings: &strings };
        both_ways(&mut tally, source, &cipher, plaintext, sealed);
    }
    tally
}

fn key_wrap() -> Tally {
    let mut tally = Tally::default();
    for WrapFact { source, kek, key, wrapped } in facts::KEY_WRAP {
        both_ways(&mut tally, source, &Cipher::KeyWrap { kek: &array(kek) }, key, wrapped);
    }
    tally
}

fn key_wrap_with_padding() -> Tally {
    let mut tally = Tally::default();
    for WrapFact { source, kek, key, wrapped } in facts::KEY_WRAP_WITH_PADDING {
        both_ways(&mut tally, source, &Cipher::KeyWrapWithPadding { kek: &array(kek) }, key, wrapped);
    }
    tally
}

/// The fact itself, and the same message with one bit of its last byte flipped, which must be refused.
fn both_ways(tally: &mut Tally, source: &str, cipher: &Cipher<'_>, plaintext: &str, sealed: &str) {
    let mut sealed = bytes(sealed);
    tally.record(source, cipher.reproduces(&bytes(plaintext), &sealed));
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    tally.record(format!("{source}, last bit flipped"), cipher.refuses(&sealed));
}

fn hkdf() -> Tally {
    let mut tally = Tally::default();
    for (source, key, salt, info, expected) in facts::HKDF {
        let expected = bytes(expected);
        let len = expected.len() as u64;
        tally.record(source, primitive::hkdf(&bytes(key), &bytes(salt), &bytes(info), len, &expected));
    }
    let too_long = primitive::hkdf(b"key", b"salt", b"info", 255 * 32 + 1, &[]);
    let refused = if too_long.is_err() { Ok(()) } else { Err("8,161 bytes were derived".into()) };
    tally.record("RFC 5869 §2.3, more than 255 blocks", refused);
    tally
}

fn hmac() -> Tally {
    let mut tally = Tally::default();
    for MacFact { source, key, message, tag } in facts::HMAC {
        let tag = bytes(tag);
        tally.record(source, primitive::hmac(&bytes(key), &bytes(message), tag.len(), &tag));
    }
    tally
}

fn cmac() -> Tally {
    let mut tally = Tally::default();
    for MacFact { source, key, message, tag } in facts::CMAC {
        let tag = bytes(tag);
        tally.record(source, primitive::cmac(&array(key), &bytes(message), tag.len(), &tag));
    }
    tally
}

fn ff1() -> Tally {
    let mut tally = Tally::default();
    for (source, key, radix, tweak, plaintext, expected) in facts::FF1 {
        tally.record(source, primitive::ff1(&array(key), *radix, &bytes(tweak), plaintext, expected));
    }
    let too_few = primitive::ff1(&[0; 32], 10, &[], "12345", "");
    let refused = if too_few.is_err() { Ok(()) } else { Err("a domain of 100,000 values was accepted".into()) };
    tally.record("SP 800-38G Rev. 1, fewer than 1,000,000 values", refused);
    tally
}

fn bytes(fact: &str) -> Vec<u8> {
    hex(fact).expect("facts are hexadecimal")
}

fn array<const N: usize>(fact: &str) -> [u8; N] {
    bytes(fact).try_into().expect("facts have the length of their type")
}
