//! The raw primitives against their specifications, and the backends against each other.
//!
//! Wycheproof is in `primitives_wycheproof.rs`; key wrapping is tested where it is used, in `kms-adapters`.

use std::io::Write;
use std::path::Path;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use keyfold::aead::{Backend, OpenFailed, hazmat};
use proptest::collection::vec;
use proptest::prelude::*;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};

/// All tests below say "each backend"; without one they would say less than they seem to.
#[test]
fn every_backend_of_the_build_is_tested() {
    let names: Vec<&str> = Backend::ALL.iter().map(|backend| backend.name()).collect();
    let fips = cfg!(feature = "fips");
    let optional =
        [("AWS-LC FIPS", fips), ("aws-lc-rs", cfg!(feature = "aws-lc-rs") && !fips), ("ring", cfg!(feature = "ring"))];
    let built = optional.iter().filter(|(_, built)| *built).map(|(name, _)| *name);
    let expected: Vec<&str> = built.chain(["RustCrypto"]).collect();
    assert_eq!(names, expected);
}

/// C2SP XAES-256-GCM, "Test vectors".
#[test]
fn xaes_vectors() {
    let nonce = *b"ABCDEFGHIJKLMNOPQRSTUVWX";
    for (key, aad, sealed) in [
        ([0x01; 32], "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        ([0x03; 32], "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ] {
        for &backend in Backend::ALL {
            let mut buffer = b"XAES-256-GCM".to_vec();
            let tag = hazmat::xaes256gcm_seal(backend, &key, &nonce, aad.as_bytes(), &mut buffer).expect("short");
            buffer.extend_from_slice(&tag);
            assert_eq!(HEXLOWER.encode(&buffer), sealed, "{backend:?}");
            let opened = hazmat::xaes256gcm_open(backend, &key, &nonce, aad.as_bytes(), &mut buffer);
            assert_eq!(opened.as_deref(), Ok(b"XAES-256-GCM".as_slice()), "{backend:?}");
        }
    }
}

/// C2SP XAES-256-GCM, "Accumulated randomized tests".
#[test]
fn xaes_10_000_accumulated_messages() {
    assert_accumulated(10_000, "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
}

/// Takes 12 seconds of processor time when optimised and over five minutes when not.
#[test]
fn xaes_1_000_000_accumulated_messages() {
    // `debug_assertions` does not tell: the profile of CI keeps them and is optimised. The name of the folder does.
    let program = std::env::current_exe().expect("the path of this test");
    if program.components().rev().nth(2).is_some_and(|profile| profile.as_os_str() == "debug") {
        return skipped("xaes_1_000_000_accumulated_messages", "not optimised; run `cargo test --profile ci`");
    }
    assert_accumulated(1_000_000, "2163ae1445985a30b60585ee67daa55674df06901b890593e824b8a7c885ab15");
}

/// Compares the hash on each backend, all of them at the same time.
fn assert_accumulated(messages: usize, expected: &str) {
    std::thread::scope(|scope| {
        for &backend in Backend::ALL {
            scope.spawn(move || assert_eq!(accumulated(backend, messages), expected, "{backend:?}"));
        }
    });
}

/// Seals as many messages as one SHAKE-128 stream dictates, opens each, and hashes the ciphertexts with another.
fn accumulated(backend: Backend, messages: usize) -> String {
    let mut inputs = Shake128::default().finalize_xof();
    let mut hash = Shake128::default();
    let (mut plaintext, mut aad, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..messages {
        let (mut key, mut nonce) = ([0; 32], [0; 24]);
        inputs.read(&mut key);
        inputs.read(&mut nonce);
        for string in [&mut plaintext, &mut aad] {
            let mut len = [0];
            inputs.read(&mut len);
            string.resize(len[0].into(), 0);
            inputs.read(string);
        }
        buffer.clone_from(&plaintext);
        let tag = hazmat::xaes256gcm_seal(backend, &key, &nonce, &aad, &mut buffer).expect("at most 255 bytes");
        buffer.extend_from_slice(&tag);
        hash.update(&buffer);
        let opened = hazmat::xaes256gcm_open(backend, &key, &nonce, &aad, &mut buffer).expect("just sealed");
        assert_eq!(opened, plaintext);
    }
    let mut out = [0; 32];
    hash.finalize_xof().read(&mut out);
    HEXLOWER.encode(&out)
}

proptest! {
    /// Whatever the input, every backend seals to the same bytes and opens what another one sealed.
    /// Covers F-4.5-1.
    // Failure C17
    #[test]
    fn backends_agree(
        key: [u8; 32],
        prefix: [u8; 12],
        nonce: [u8; 12],
        aad in vec(any::<u8>(), 0..200),
        plaintext in vec(any::<u8>(), 0..600),
    ) {
        let xaes_nonce: [u8; 24] = [prefix, nonce].concat().try_into().expect("12 and 12 bytes");
        let sealed: Vec<_> = Backend::ALL
            .iter()
            .map(|&backend| {
                let (mut gcm, mut xaes) = (plaintext.clone(), plaintext.clone());
                let tag = hazmat::aes256gcm_seal(backend, &key, nonce, &aad, &mut gcm).expect("short");
                gcm.extend_from_slice(&tag);
                let tag = hazmat::xaes256gcm_seal(backend, &key, &xaes_nonce, &aad, &mut xaes).expect("short");
                xaes.extend_from_slice(&tag);
                (gcm, xaes)
            })
            .collect();
        prop_assert!(sealed.iter().all(|other| *other == sealed[0]));
        for &backend in Backend::ALL {
            let (mut gcm, mut xaes) = sealed[0].clone();
            let opened = hazmat::aes256gcm_open(backend, &key, nonce, &aad, &mut gcm);
            prop_assert_eq!(opened.as_deref(), Ok(plaintext.as_slice()));
            let opened = hazmat::xaes256gcm_open(backend, &key, &xaes_nonce, &aad, &mut xaes);
            prop_assert_eq!(opened.as_deref(), Ok(plaintext.as_slice()));
        }
    }
}

/// RUSTSEC-2023-0096: a release of `aes-gcm` left the decrypted plaintext in the buffer when the tag was wrong.
/// Covers F-1-2, F-1-3.
// Failure C19
#[test]
fn a_failed_open_leaves_zeros() {
    let (key, nonce, aad) = ([7; 32], [8; 24], b"aad");
    let gcm_nonce = [8; 12];
    for &backend in Backend::ALL {
        for len in [0, 1, 15, 16, 17, 64, 4096] {
            let plaintext = vec![0xa5; len];
            let mut gcm = plaintext.clone();
            let tag = hazmat::aes256gcm_seal(backend, &key, gcm_nonce, aad, &mut gcm).expect("short");
            gcm.extend_from_slice(&tag);
            let mut xaes = plaintext.clone();
            let tag = hazmat::xaes256gcm_seal(backend, &key, &nonce, aad, &mut xaes).expect("short");
            xaes.extend_from_slice(&tag);

            for at in [0, len, len + 15] {
                for sealed in [&gcm, &xaes] {
                    let mut buffer = sealed.clone();
                    buffer[at] ^= 0x80;
                    let refused = if sealed == &gcm {
                        hazmat::aes256gcm_open(backend, &key, gcm_nonce, aad, &mut buffer).err()
                    } else {
                        hazmat::xaes256gcm_open(backend, &key, &nonce, aad, &mut buffer).err()
                    };
                    assert_eq!(refused, Some(OpenFailed), "{backend:?}, {len} bytes, byte {at}");
                    assert!(buffer.iter().all(|&byte| byte == 0), "{backend:?}, {len} bytes, byte {at}");
                }
            }
            let mut buffer = gcm.clone();
            assert_eq!(hazmat::aes256gcm_open(backend, &key, gcm_nonce, b"", &mut buffer).err(), Some(OpenFailed));
            assert!(buffer.iter().all(|&byte| byte == 0), "{backend:?}, {len} bytes, other AAD");
        }
    }
}

/// Covers F-1-2, F-1-3.
// Failure C19
#[test]
fn a_failed_siv_open_leaves_zeros() {
    let key = [9; 64];
    for len in [1, 16, 17, 4096] {
        let mut sealed = vec![0xa5; len];
        let mut iv = hazmat::aes256siv_seal(&key, &[b"string"], &mut sealed).expect("one string");
        let mut buffer = sealed.clone();
        assert_eq!(hazmat::aes256siv_open(&key, &[b"strinG"], &iv, &mut buffer), Err(OpenFailed));
        assert!(buffer.iter().all(|&byte| byte == 0), "{len} bytes, another string");
        iv[0] ^= 1;
        assert_eq!(hazmat::aes256siv_open(&key, &[b"string"], &iv, &mut sealed), Err(OpenFailed));
        assert!(sealed.iter().all(|&byte| byte == 0), "{len} bytes, another IV");
    }
}

/// AES-GCM does not commit to its key: these messages open under two. It is why every key ID holds a commitment
/// (`keyring_records::a_key_that_does_not_fit_its_commitment_is_not_used`).
#[test]
fn raw_gcm_opens_under_two_keys() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testvectors/own/aes256gcm_two_key.json");
    let Ok(text) = std::fs::read(&path) else {
        return skipped("raw_gcm_opens_under_two_keys", &format!("{} is not here", path.display()));
    };
    let file: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let tests = file["tests"].as_array().expect("tests");
    assert!(!tests.is_empty());
    for test in tests {
        let field = |name: &str| {
            HEXLOWER_PERMISSIVE.decode(test[name].as_str().expect("text").as_bytes()).expect("hexadecimal")
        };
        let nonce = field("nonce").try_into().expect("12 bytes");
        for (key, plaintext) in [("key1", "pt_under_key1"), ("key2", "pt_under_key2")] {
            let key = field(key).try_into().expect("32 bytes");
            for &backend in Backend::ALL {
                let mut buffer = field("ct_tag");
                let opened = hazmat::aes256gcm_open(backend, &key, nonce, &field("aad"), &mut buffer);
                assert_eq!(opened.as_deref(), Ok(field(plaintext).as_slice()), "{backend:?}");
            }
        }
    }
}

/// Says so past the capture of the test harness.
fn skipped(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("SKIPPED {test}: {reason}\n").as_bytes()).expect("stderr");
}
