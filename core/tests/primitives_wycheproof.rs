//! Wycheproof, all cases that have a counterpart here. Each test states how many that are, so that none goes missing.

use std::collections::BTreeMap;
use std::io::Write;

use keyfold::aead::{Backend, hazmat};
use wycheproof::{TestResult, aead, hkdf, mac};

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
