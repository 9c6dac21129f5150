//! The adapter of Google Cloud KMS against a fake of our own, which KEYFOLD_TEST_GOOGLE_KMS names (`./test` starts it, and so
//! does `python3 tools/servers/google_kms.py cargo test …`; `--check` holds it to Google's own client). No real cloud was reached.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod damage;
mod fake;
mod fork;
mod secrets;
mod tokens;

use common::{refused, unwrap, unwrap_traced, use_from_everywhere, wrap};
use fake::{Fake, May};
use keyfold::testing::{ContextBinding, kms_conformance};
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::gcp::{GcpAuth, GcpConfig, GcpKek};
use serde_json::json;
use std::io::Write;

#[test]
fn conforms() {
    let Some(fake) = Fake::given() else { return };
    let _ = writeln!(std::io::stdout(), "\ngcp: own fake at {}; no real cloud was reachable", fake.address);
    kms_conformance(&fake.kek(&fake.key()), ContextBinding::ByService);
}

// Failure A27
#[test]
fn rotation_keeps_older_versions_open() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let kek = fake.kek(&key);
    let old = wrap(&kek).expect("wrapped");
    assert_eq!(old.kek_version, format!("{key}/cryptoKeyVersions/1"));
    fake.administer("POST", &format!("{key}/cryptoKeyVersions"), &json!({}));
    fake.administer("POST", &format!("{key}:updatePrimaryVersion"), &json!({ "cryptoKeyVersionId": "2" }));
    let new = wrap(&kek).expect("wrapped");
    assert_eq!(new.kek_version, format!("{key}/cryptoKeyVersions/2"));
    assert!(unwrap(&kek, &old).is_ok() && unwrap(&kek, &new).is_ok());
}

/// Covers KC-7.
// Failure C10
#[test]
fn a_record_that_names_another_key_or_host_costs_no_request() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let kek = fake.kek(&key);
    let good = wrap(&kek).expect("wrapped");
    let before = fake.requests(&key);
    let other = fake.key();
    let foreign = [
        String::new(),
        key.clone(),
        format!("{key}/cryptoKeyVersions/"),
        format!("{key}/cryptoKeyVersions/1:decrypt"),
        format!("{key}/cryptoKeyVersions/1/../../evil"),
        format!("{key}/cryptoKeyVersions/12345678901"),
        format!("{key}x/cryptoKeyVersions/1"),
        format!("{other}/cryptoKeyVersions/1"),
        good.kek_version.replace("clinic", "evil"),
        format!("https://evil.example/{}", good.kek_version),
        "arn:aws:kms:us-east-1:1:key/2".to_owned(),
    ];
    for version in foreign {
        let (result, requests) = unwrap_traced(&kek, &WrappedKey { kek_version: version.clone(), ..good.clone() });
        assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::WrongKey), "{version}");
        assert_eq!(requests, 0, "{version}");
    }
    assert_eq!((fake.requests(&key), fake.requests(&other)), (before, 0));
}

/// Covers KC-25.
#[test]
fn works_inside_a_runtime_outside_and_from_many_threads() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    use_from_everywhere(|| Box::new(fake.kek(&key)));
}

/// Covers KC-35, KC-37.
#[test]
fn names_and_options_are_checked_before_anything_is_called() {
    let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
    let kek = |uri: &str| GcpKek::from_uri(uri, common::here()).map(drop);
    kek(&format!("gcpkms://{key}")).expect("the least that a URI needs");
    kek("gcpkms://projects/example.com:p/locations/global/keyRings/r_1/cryptoKeys/K-2?auth=metadata")
        .expect("a long project");
    let wrong = [
        "gcpkms://".to_owned(),
        format!("gcpkms://{key}/cryptoKeyVersions/1"),
        format!("gcpkms://{}", key.replace("/p/", "//")),
        format!("gcpkms://{}", key.replace("/p/", "/../")),
        format!("gcpkms://{}", key.replace("/p/", "/%2e/")),
        format!("gcpkms://{}", key.replace("cryptoKeys", "keys")),
        format!("gcpkms://user@{key}"),
        format!("gcpkms://{key}:decrypt"),
        format!("gcpkms://{key}{}", "k".repeat(200)),
        format!("gcpkms://{key}?token=ya29.canary"),
        format!("gcpkms://{key}?auth=ya29.canary"),
        format!("gcpkms://{key}?auth=metadata&token_env=T"),
        format!("gcpkms://{key}?token_file=a&token_env=T"),
        format!("gcpkms://{key}?token_file=a&credentials_file=b"),
        format!("gcpkms://{key}?endpoint=http://kms.example"),
        format!("gcpkms://{key}?endpoint=http://localhost:1"),
        format!("gcpkms://{key}?endpoint=https://kms.example/v2"),
        format!("gcpkms://{key}?endpoint=https://user:ya29.canary@kms.example"),
        format!("gcpkms://{key}?endpoint=ftp://kms.example"),
        format!("gcpkms://{key}?timeout=1h"),
    ];
    for uri in wrong {
        let error = refused(kek(&uri));
        assert_eq!(error.kind(), ErrorKind::Configuration, "{uri}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{uri}");
    }
    assert_eq!(refused(GcpConfig::new("k", GcpAuth::Default)).kind(), ErrorKind::Configuration);
}

// Failure A23
#[test]
fn an_identity_may_encrypt_alone() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let kek = fake.kek_with(&key, &format!("token_file={}", fake.file(&fake.token(May::Encrypt)).display()));
    let wrapped = wrap(&kek).expect("wrapped");
    assert_eq!(refused(unwrap(&kek, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::AccessDenied));
    assert!(unwrap(&fake.kek(&key), &wrapped).is_ok());
}
