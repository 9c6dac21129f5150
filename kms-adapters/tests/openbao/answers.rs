//! Every row of the error table that this server can produce, by making it do so.

use crate::bao::{Bao, OwnBao};
use crate::common::classes::Classes;
use crate::common::{refused, unwrap, wrap};
use keyfold::testing::block_on;
use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, UnwrapRequest, WrappedKey, wire::KeyId};
use keyfold_kms::vault::TABLE;
use serde_json::json;

#[test]
fn every_answer_has_its_class() {
    let Some(bao) = Bao::given() else { return };
    let mut answers = Classes::of("vault", "real server, OpenBao");
    contexts_and_bytes(&bao, &mut answers);
    states(&bao, &mut answers);
    identities(&bao, &mut answers);
    wrong_keys(&bao, &mut answers);
    let own = OwnBao::start();
    outages(&own.bao, &mut answers);
    // The rows that no answer reached are those of services and states that are not here.
    let reached = answers.texts();
    let missing: Vec<_> = TABLE
        .iter()
        .map(|row| row.message)
        .filter(|message| !reached.iter().any(|text| text.starts_with(message)))
        .collect();
    assert_eq!(
        missing,
        [
            // Of the look whether the key is derived, and never shown.
            "the transit key is derived and was given no context",
            // HashiCorp Vault and its Enterprise edition.
            "the token is not valid, or no longer",
            "this node of the vault is not up to date yet",
            // Whatever stands in front of the service.
            "the key service gave up waiting for another one",
            "the key service does not work at present",
            "the key service does not accept the credentials",
        ]
    );
}

fn contexts_and_bytes(bao: &Bao, answers: &mut Classes) {
    let kek = bao.kek(&bao.derived_key());
    let good = wrap(&kek).expect("wrapped");
    let other = KmsContext::new("staging", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
    let error = refused(block_on(kek.unwrap(UnwrapRequest::new(&good, &other))));
    answers.add("wrong context", ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), error);
    let mut bytes = good.bytes.clone();
    bytes[40] ^= 1;
    let tampered = WrappedKey { bytes, ..good.clone() };
    answers.add("tampered bytes", ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), refused(unwrap(&kek, &tampered)));
    let short = WrappedKey { bytes: good.bytes[..8].to_vec(), ..good.clone() };
    answers.add("bytes cut off", ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), refused(unwrap(&kek, &short)));
    let newer = WrappedKey { kek_version: "9".to_owned(), ..good.clone() };
    answers.add(
        "a version that never was",
        ErrorKind::Kms(KmsErrorKind::InvalidCiphertext),
        refused(unwrap(&kek, &newer)),
    );
    let another = bao.kek(&bao.derived_key());
    answers.add(
        "wrapped by another key",
        ErrorKind::Kms(KmsErrorKind::InvalidCiphertext),
        refused(unwrap(&another, &good)),
    );
}

fn states(bao: &Bao, answers: &mut Classes) {
    let key = bao.derived_key();
    let kek = bao.kek(&key);
    let good = wrap(&kek).expect("wrapped");
    bao.post(&format!("transit/keys/{key}/rotate"), json!({}));
    bao.post(&format!("transit/keys/{key}/config"), json!({ "min_decryption_version": 2 }));
    answers.add("retired version", ErrorKind::Kms(KmsErrorKind::KeyDisabled), refused(unwrap(&kek, &good)));
    bao.call("DELETE", &format!("transit/keys/{key}/soft-delete"), json!(null));
    answers.add(
        "disabled: soft-deleted, unwrap",
        ErrorKind::Kms(KmsErrorKind::KeyDisabled),
        refused(unwrap(&kek, &good)),
    );
    answers.add("disabled: soft-deleted, wrap", ErrorKind::Kms(KmsErrorKind::KeyDisabled), refused(wrap(&kek)));
    bao.post(&format!("transit/keys/{key}/soft-delete-restore"), json!({}));
    bao.post(&format!("transit/keys/{key}/config"), json!({ "deletion_allowed": true }));
    bao.call("DELETE", &format!("transit/keys/{key}"), json!(null));
    answers.add("deleted", ErrorKind::Kms(KmsErrorKind::KeyNotFound), refused(unwrap(&kek, &good)));
    let uri = bao.uri("k", &format!("token_file={}", bao.file(&bao.token).display()));
    let open = |uri: &str| keyfold_kms::vault::VaultKek::from_uri(uri, crate::common::here()).expect("opened");
    answers.add(
        "no such mount",
        ErrorKind::Kms(KmsErrorKind::KeyNotFound),
        refused(unwrap(&open(&uri.replace("/transit/", "/nowhere/")), &good)),
    );
    answers.add(
        "no such namespace",
        ErrorKind::Kms(KmsErrorKind::KeyNotFound),
        refused(unwrap(&open(&format!("{uri}&namespace=nowhere")), &good)),
    );
}

fn identities(bao: &Bao, answers: &mut Classes) {
    let key = bao.derived_key();
    let good = wrap(&bao.kek(&key)).expect("wrapped");
    let with_token = |token: &str| bao.kek_with(&key, &format!("token_file={}", bao.file(token).display()));
    let other = bao.policy(&bao.derived_key());
    let denied = with_token(&bao.new_token(json!({ "policies": [other] })));
    answers.add("denied: unwrap", ErrorKind::Kms(KmsErrorKind::AccessDenied), refused(unwrap(&denied, &good)));
    answers.add("denied: wrap", ErrorKind::Kms(KmsErrorKind::AccessDenied), refused(wrap(&denied)));
    answers.add(
        "a token that never was",
        ErrorKind::Kms(KmsErrorKind::Credentials),
        refused(unwrap(&with_token("s.nonsense"), &good)),
    );
    let approle = bao.name();
    bao.post(&format!("sys/auth/{approle}"), json!({ "type": "approle" }));
    let secret = bao.file("nonsense");
    let options = format!("auth=approle&auth_mount={approle}&role_id=nobody&secret_id_file={}", secret.display());
    answers.add(
        "wrong AppRole",
        ErrorKind::Kms(KmsErrorKind::Credentials),
        refused(unwrap(&bao.kek_with(&key, &options), &good)),
    );
    let kubernetes = bao.name();
    bao.post(&format!("sys/auth/{kubernetes}"), json!({ "type": "kubernetes" }));
    let options = format!("auth=kubernetes&auth_mount={kubernetes}&role=nobody&jwt_file={}", secret.display());
    answers.add(
        "no such Kubernetes role",
        ErrorKind::Kms(KmsErrorKind::Credentials),
        refused(unwrap(&bao.kek_with(&key, &options), &good)),
    );
}

fn wrong_keys(bao: &Bao, answers: &mut Classes) {
    let settings = [
        ("a key that is not derived", json!({})),
        ("an RSA key", json!({ "type": "rsa-2048" })),
        ("a signing key", json!({ "type": "ed25519" })),
    ];
    for (what, settings) in settings {
        let kek = bao.kek(&bao.key(settings));
        answers.add(what, ErrorKind::Configuration, refused(wrap(&kek)));
    }
}

fn outages(bao: &Bao, answers: &mut Classes) {
    let key = bao.derived_key();
    let options = format!("token_file={}&attempts=2", bao.file(&bao.token).display());
    let good = wrap(&bao.kek(&key)).expect("wrapped");
    bao.post("sys/quotas/rate-limit/slow", json!({ "rate": 1, "interval": "60s", "path": "transit" }));
    let kek = bao.kek_with(&key, &options);
    let throttled = (0..3).map(|_| unwrap(&kek, &good)).find_map(Result::err).expect("throttled");
    answers.add("throttled", ErrorKind::Kms(KmsErrorKind::Throttled), throttled);
    bao.call("DELETE", "sys/quotas/rate-limit/slow", json!(null));
    bao.post("sys/seal", json!({}));
    answers.add(
        "sealed",
        ErrorKind::Kms(KmsErrorKind::Unavailable),
        refused(unwrap(&bao.kek_with(&key, &options), &good)),
    );
}
