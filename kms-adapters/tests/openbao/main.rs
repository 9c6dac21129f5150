//! The transit adapter against a real OpenBao server, which KEYFOLD_TEST_OPENBAO names (`./test` starts one, and so does
//! `python3 tools/servers/openbao.py cargo test …`).

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod away;
mod bao;
mod fork;
mod login;
mod texts;

use bao::Bao;
use common::{context, refused, unwrap, unwrap_traced, wrap};
use keyfold::testing::{ContextBinding, block_on, kms_conformance};
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::vault::VaultKek;
use serde_json::json;

#[test]
fn conforms() {
    let Some(bao) = Bao::given() else { return };
    bao.say();
    for kind in ["aes256-gcm96", "chacha20-poly1305"] {
        let key = bao.key(json!({ "derived": true, "type": kind }));
        kms_conformance(&bao.kek(&key), ContextBinding::ByService);
    }
}

// Failure A27
#[test]
fn rotation_rewrap_on_the_server_and_retirement() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let kek = bao.kek(&key);
    let old = wrap(&kek).expect("wrapped");
    assert_eq!(old.kek_version, "1");
    bao.post(&format!("transit/keys/{key}/rotate"), json!({}));
    assert!(unwrap(&kek, &old).is_ok(), "what an older version wrapped still opens");
    assert_eq!(wrap(&kek).expect("wrapped").kek_version, "2");
    let new = block_on(kek.rewrap(&old, &context())).expect("rewrapped");
    assert_eq!(new.kek_version, "2");
    bao.post(&format!("transit/keys/{key}/config"), json!({ "min_decryption_version": 2 }));
    assert!(unwrap(&kek, &new).is_ok());
    assert_eq!(refused(unwrap(&kek, &old)).kind(), ErrorKind::Kms(KmsErrorKind::KeyDisabled));
}

#[test]
fn a_key_whose_first_version_is_retired_wraps_on() {
    let Some(bao) = Bao::given() else { return };
    let retire_first_version = |key: &str| {
        bao.post(&format!("transit/keys/{key}/rotate"), json!({}));
        bao.post(&format!("transit/keys/{key}/config"), json!({ "min_decryption_version": 2 }));
    };
    let key = bao.derived_key();
    let token = bao.new_token(json!({ "policies": [bao.policy(&key)] }));
    retire_first_version(&key);
    let kek = bao.kek_with(&key, &format!("token_file={}", bao.file(&token).display()));
    let wrapped = wrap(&kek).expect("wrapped");
    assert_eq!(wrapped.kek_version, "2");
    assert!(unwrap(&kek, &wrapped).is_ok());
    // It is looked at no less.
    let plain = bao.key(json!({}));
    retire_first_version(&plain);
    let error = refused(wrap(&bao.kek(&plain)));
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("derived=true"), "{error}");
}

#[test]
fn a_key_is_never_made_by_using_it() {
    let Some(bao) = Bao::given() else { return };
    // The root token may create keys by encrypting under their names.
    let kek = bao.kek("nobody-made-this-key");
    assert_eq!(refused(wrap(&kek)).kind(), ErrorKind::Kms(KmsErrorKind::KeyNotFound));
    assert_eq!(bao.call("GET", "transit/keys/nobody-made-this-key", json!(null)).0, 404);
}

/// Covers KC-7.
#[test]
fn a_version_that_is_not_one_is_refused_without_a_request() {
    let Some(bao) = Bao::given() else { return };
    let kek = bao.kek(&bao.derived_key());
    let good = wrap(&kek).expect("wrapped");
    for version in
        ["", "0", "01", "+1", " 1", "1:x", "4294967296", "https://evil.example/v1", "arn:aws:kms:us-east-1:1:key/2"]
    {
        let foreign = WrappedKey { kek_version: version.to_owned(), bytes: good.bytes.clone() };
        let (result, requests) = unwrap_traced(&kek, &foreign);
        assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), "{version:?}");
        assert_eq!(requests, 0, "{version:?}");
    }
}

#[test]
fn works_inside_a_runtime_and_outside() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    // A runtime without I/O and timers of its own.
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let kek = runtime.block_on(async { bao.kek(&key) });
    let wrapped = runtime.block_on(async { wrap(&kek).expect("wrapped, blocking inside a runtime") });
    drop(runtime);
    assert!(unwrap(&kek, &wrapped).is_ok(), "what was made under a runtime that has gone works on");
}

#[test]
fn an_error_names_the_key_and_no_credential() {
    let Some(bao) = Bao::given() else { return };
    let key = bao.derived_key();
    let kek: VaultKek = bao.kek(&key);
    let damaged = WrappedKey { kek_version: "1".to_owned(), bytes: vec![0; 92] };
    let shown = format!("{:?} {kek:?}", refused(unwrap(&kek, &damaged)));
    assert!(shown.contains(&key) && !shown.contains(&bao.token), "{shown}");
}
