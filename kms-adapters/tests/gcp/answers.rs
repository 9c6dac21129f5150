//! Every answer that the fake can give, by making it do so, and every reply of the shared fault file.

use crate::common::classes::Classes;
use crate::common::{refused, unwrap, wrap};
use crate::fake::{Fake, May};
use keyfold::testing::block_on;
use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, UnwrapRequest, WrappedKey, wire::KeyId};
use keyfold_kms::gcp::TABLE;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

#[test]
fn every_answer_has_its_class() {
    let Some(fake) = Fake::given() else { return };
    let mut answers = Classes::of("gcp", "own fake, held to Google's client (no real cloud was reachable)");
    contexts_and_bytes(&fake, &mut answers);
    states(&fake, &mut answers);
    identities(&fake, &mut answers);
    told(&fake, &mut answers);
    let reached = answers.texts();
    let missing: BTreeSet<_> = TABLE
        .iter()
        .map(|row| row.message)
        .filter(|message| !reached.iter().any(|text| text.starts_with(message)))
        .collect();
    assert_eq!(missing, BTreeSet::new(), "a row of the table that no answer reached");
}

fn contexts_and_bytes(fake: &Fake, answers: &mut Classes) {
    let mut add = |what, kind, error| answers.add(what, ErrorKind::Kms(kind), error);
    let kek = fake.kek(&fake.key());
    let good = wrap(&kek).expect("wrapped");
    let other = KmsContext::new("staging", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let error = refused(block_on(kek.unwrap(UnwrapRequest::new(&good, &other))));
    add("wrong context", KmsErrorKind::InvalidCiphertext, error);
    let mut bytes = good.bytes.clone();
    bytes[40] ^= 1;
    let tampered = WrappedKey { bytes, ..good.clone() };
    add("tampered bytes", KmsErrorKind::InvalidCiphertext, refused(unwrap(&kek, &tampered)));
    let short = WrappedKey { bytes: good.bytes[..8].to_vec(), ..good.clone() };
    add("bytes cut off", KmsErrorKind::InvalidCiphertext, refused(unwrap(&kek, &short)));
    let elsewhere = wrap(&fake.kek(&fake.key())).expect("wrapped");
    let relabelled = WrappedKey { bytes: elsewhere.bytes, ..good };
    add("bytes of another CryptoKey", KmsErrorKind::WrongKey, refused(unwrap(&kek, &relabelled)));
}

fn states(fake: &Fake, answers: &mut Classes) {
    let mut add = |what, kind, error| answers.add(what, ErrorKind::Kms(kind), error);
    let key = fake.key();
    let kek = fake.kek(&key);
    let good = wrap(&kek).expect("wrapped");
    let version = format!("{key}/cryptoKeyVersions/1");
    fake.administer("PATCH", &format!("{version}?updateMask=state"), &json!({ "state": "DISABLED" }));
    add("disabled: unwrap", KmsErrorKind::KeyDisabled, refused(unwrap(&kek, &good)));
    add("disabled: wrap", KmsErrorKind::KeyDisabled, refused(wrap(&kek)));
    fake.administer("POST", &format!("{version}:destroy"), &json!({}));
    add("scheduled for destruction", KmsErrorKind::KeyDisabled, refused(unwrap(&kek, &good)));
    fake.administer("PATCH", &format!("{version}?updateMask=state"), &json!({ "state": "DESTROYED" }));
    add("destroyed version", KmsErrorKind::KeyDisabled, refused(unwrap(&kek, &good)));
    let none = fake.kek("projects/clinic/locations/europe-west3/keyRings/patients/cryptoKeys/none");
    add("no such key", KmsErrorKind::KeyNotFound, refused(wrap(&none)));
}

fn identities(fake: &Fake, answers: &mut Classes) {
    let mut add = |what, kind, error| answers.add(what, ErrorKind::Kms(kind), error);
    let key = fake.key();
    let good = wrap(&fake.kek(&key)).expect("wrapped");
    let with = |token: &str| fake.kek_with(&key, &format!("token_file={}", fake.file(token).display()));
    let denied = with(&fake.token(May::Nothing));
    add("denied: wrap", KmsErrorKind::AccessDenied, refused(wrap(&denied)));
    add("denied: unwrap", KmsErrorKind::AccessDenied, refused(unwrap(&denied, &good)));
    let revoked = fake.token(May::Both);
    fake.revoke(&revoked);
    add("revoked or expired token", KmsErrorKind::Credentials, refused(unwrap(&with(&revoked), &good)));
    add("no token in the file", KmsErrorKind::Credentials, refused(unwrap(&with(""), &good)));
    let unreadable = fake.kek_with(&key, "token_file=/nonexistent/token");
    add("no token file", KmsErrorKind::Credentials, refused(unwrap(&unreadable, &good)));
}

/// What the fake says only because it was told to: the texts are Google's.
fn told(fake: &Fake, answers: &mut Classes) {
    let kms = ErrorKind::Kms;
    let told = [
        (
            "throttled",
            429,
            "RESOURCE_EXHAUSTED",
            "Quota exceeded for quota metric 'Cryptographic requests'",
            kms(KmsErrorKind::Throttled),
        ),
        ("unavailable", 503, "UNAVAILABLE", "The service is currently unavailable.", kms(KmsErrorKind::Unavailable)),
        ("deadline of Google's own", 504, "DEADLINE_EXCEEDED", "Deadline exceeded", kms(KmsErrorKind::Timeout)),
        (
            "API not enabled",
            403,
            "PERMISSION_DENIED",
            "Cloud Key Management Service (KMS) API has not been used in project 1 before or it is disabled.",
            ErrorKind::Configuration,
        ),
        (
            "scopes of the token",
            403,
            "PERMISSION_DENIED",
            "Request had insufficient authentication scopes.",
            kms(KmsErrorKind::Credentials),
        ),
        (
            "no primary version",
            400,
            "FAILED_PRECONDITION",
            "CryptoKey has no primary version.",
            kms(KmsErrorKind::KeyDisabled),
        ),
        (
            "external key manager",
            400,
            "FAILED_PRECONDITION",
            "The external key manager returned an unexpected error.",
            kms(KmsErrorKind::Unavailable),
        ),
        (
            "billing is off",
            403,
            "PERMISSION_DENIED",
            "This API method requires billing to be enabled.",
            kms(KmsErrorKind::Unavailable),
        ),
        ("refused by a proxy", 403, "", "", kms(KmsErrorKind::Rejected)),
        (
            "asymmetric key",
            400,
            "INVALID_ARGUMENT",
            "CryptoKey purpose must be ENCRYPT_DECRYPT",
            ErrorKind::Configuration,
        ),
        (
            "request damaged on its way",
            400,
            "INVALID_ARGUMENT",
            "The checksum in field ciphertext_crc32c did not match the data in field ciphertext.",
            kms(KmsErrorKind::MalformedResponse),
        ),
        ("something new", 400, "INVALID_ARGUMENT", "Nobody has read this before.", kms(KmsErrorKind::Rejected)),
    ];
    for (what, code, status, message, expected) in told {
        let key = fake.key();
        let options = format!("token_file={}&attempts=2", fake.file(&fake.token(May::Both)).display());
        let kek = fake.kek_with(&key, &options);
        let good = wrap(&kek).expect("wrapped");
        let body = json!({ "error": { "code": code, "status": status, "message": message } });
        fake.reply(&key, 2, code, &json!({}), &body);
        let before = fake.requests(&key);
        let error = refused(unwrap(&kek, &good));
        assert_eq!(fake.requests(&key) - before, if error.is_retryable() { 2 } else { 1 }, "{what}");
        assert!(
            !error.to_string().contains("Google") || message.is_empty() || !error.to_string().contains(message),
            "{what}"
        );
        answers.add(what, expected, error);
    }
}

#[test]
fn a_pause_that_google_asks_for_is_made() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let kek = fake.kek(&key);
    let info = json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.4s" });
    let body =
        json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota", "details": [info] } });
    fake.reply(&key, 1, 429, &json!({}), &body);
    let begun = Instant::now();
    wrap(&kek).expect("wrapped at the second attempt");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    fake.reply(&key, 1, 503, &json!({ "retry-after": "1" }), &json!({}));
    let begun = Instant::now();
    wrap(&kek).expect("wrapped at the second attempt");
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
