//! The adapter of AWS KMS against moto behind a strictness layer, which KEYFOLD_TEST_AWS names (`./test` starts it, and so
//! does `python3 tools/servers/aws_kms.py cargo test …`), and against answers that are wrong. No real AWS was reachable.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod moto;

use common::classes::Classes;
use common::fork::{is_left_to_own_process, use_in_forked_children};
use common::logs::Logs;
use common::{context, here, payload, refused, say, unwrap, unwrap_traced, use_from_everywhere, wrap};
use keyfold::testing::{ContextBinding, block_on, kms_conformance};
use keyfold::{
    ErrorKind, Kms, KmsContext, KmsErrorKind, KmsTrace, Lineage, UnwrapRequest, WrapRequest, WrappedKey, wire::KeyId,
};
use keyfold_kms::aws::AwsKek;
use moto::{Moto, REGION};
use serde_json::json;

const SERVER: &str = "third-party emulator: moto 5.2.5 behind our strictness layer (no real AWS was reachable)";

/// As an identity that may encrypt and decrypt, and nothing else.
#[test]
fn conforms() {
    let Some(moto) = Moto::given() else { return };
    say(&format!("AWS KMS: {SERVER}"));
    let key = moto.key(json!({}));
    kms_conformance(&moto.kek(&key, "service"), ContextBinding::ByService);
}

// Failures A13, A22, A23
#[test]
fn every_refusal_has_its_class() {
    use KmsErrorKind::*;
    let Some(moto) = Moto::given() else { return };
    let key = moto.key(json!({}));
    let kek = moto.kek(&key, "service");
    let good = wrap(&kek).expect("wrapped");
    let mut classes = Classes::of("aws", SERVER);

    let other = KmsContext::new("production", Lineage::from_bytes([9; 16]), KeyId::from_bytes([2; 24]));
    classes.row("another context", InvalidCiphertext, block_on(kek.unwrap(UnwrapRequest::new(&good, &other))));
    let mut bytes = good.bytes.clone();
    *bytes.last_mut().expect("not empty") ^= 1;
    let tampered = WrappedKey { bytes, ..good.clone() };
    classes.row("a flipped bit", InvalidCiphertext, unwrap(&kek, &tampered));
    let second = moto.key(json!({}));
    let swapped = WrappedKey { kek_version: second.clone(), ..good.clone() };
    classes.row("wrapped by another key", WrongKey, unwrap(&moto.kek(&second, "service"), &swapped));
    classes.row("no such key", KeyNotFound, wrap(&moto.kek(&key.replace("key/", "key/0"), "service")));
    classes.row("no such alias", KeyNotFound, wrap(&moto.kek(&moto.alias_arn("nobody-made-this"), "service")));
    classes.row("may decrypt alone, encrypts", AccessDenied, wrap(&moto.kek(&key, "reader")));
    classes.row("may do nothing, decrypts", AccessDenied, unwrap(&moto.kek(&key, "nobody"), &good));
    classes.row("a wrong secret", Credentials, wrap(&moto.kek(&key, "forger")));
    classes.row("an unknown access key", Credentials, wrap(&moto.kek(&key, "stranger")));
    classes.row("an expired session", Credentials, wrap(&moto.kek(&key, "expired")));
    classes.row("no such profile", Credentials, wrap(&moto.kek(&key, "nobody-made-this")));
    moto.admin("DisableKey", json!({ "KeyId": key }));
    classes.row("disabled, encrypts", KeyDisabled, wrap(&kek));
    classes.row("disabled, decrypts", KeyDisabled, unwrap(&kek, &good));
    moto.admin("EnableKey", json!({ "KeyId": key }));
    assert!(unwrap(&kek, &good).is_ok());
    moto.admin("ScheduleKeyDeletion", json!({ "KeyId": key, "PendingWindowInDays": 7 }));
    classes.row("pending deletion, decrypts", KeyDisabled, unwrap(&kek, &good));

    let faulty = moto.faulty_kek(&second);
    for (what, class, error) in [
        ("throttled", Throttled, "ThrottlingException"),
        ("internal error", Unavailable, "KMSInternalException"),
        ("dependency timeout", Unavailable, "DependencyTimeoutException"),
        ("key unavailable", Unavailable, "KeyUnavailableException"),
    ] {
        moto.fault(json!({ "service": "kms", "error": { "code": error } }));
        classes.row(&format!("microburst: {what}"), class, wrap(&faulty));
    }
    moto.fault(json!({ "service": "kms", "reset": true }));
    classes.row("microburst: reset", Unavailable, wrap(&moto.faulty_kek(&second)));
    moto.fault(json!({ "service": "kms", "latency": 8000 }));
    classes.row("microburst: 8 s late", Timeout, wrap(&moto.faulty_kek(&second)));
}

/// Covers KC-7.
#[test]
fn what_names_another_account_region_or_key_costs_no_request() {
    let Some(moto) = Moto::given() else { return };
    let key = moto.key(json!({}));
    moto.alias("foreign", &key);
    let good = wrap(&moto.kek(&key, "service")).expect("wrapped");
    let foreign = [
        key.replace("123456789012", "999999999999"),
        key.replace(REGION, "us-east-1"),
        key.replace("arn:aws:", "arn:aws-cn:"),
        "https://evil.example/key".to_owned(),
        "arn:aws:kms:evil.example:123456789012:key/1".to_owned(),
        moto.alias_arn("foreign"),
        String::new(),
    ];
    for kek in [moto.kek(&key, "service"), moto.kek(&moto.alias_arn("foreign"), "service")] {
        for version in &foreign {
            let wrapped = WrappedKey { kek_version: version.clone(), ..good.clone() };
            let (result, requests) = unwrap_traced(&kek, &wrapped);
            let error = refused(result);
            let expected = [KmsErrorKind::WrongKey, KmsErrorKind::InvalidCiphertext].map(ErrorKind::Kms);
            assert!(expected.contains(&error.kind()), "{version}: {error:?}");
            assert_eq!(requests, 0, "{version}");
            assert!(error.to_string().contains("nothing was sent"), "{error}");
        }
        assert!(unwrap(&kek, &good).is_ok());
    }
}

#[test]
fn an_alias_needs_no_look_up_and_what_it_pointed_to_before_opens_if_the_configuration_says_so() {
    let Some(moto) = Moto::given() else { return };
    let [old, new] = [moto.key(json!({})), moto.key(json!({}))];
    moto.alias("moves", &old);
    // Which may neither describe a key nor list aliases.
    let kek = moto.kek(&moto.alias_arn("moves"), "service");
    let before = wrap(&kek).expect("wrapped");
    assert_eq!(before.kek_version, old);
    assert!(unwrap(&kek, &before).is_ok());
    moto.admin("UpdateAlias", json!({ "AliasName": "alias/moves", "TargetKeyId": new }));
    let after = wrap(&kek).expect("wrapped");
    assert_eq!(after.kek_version, new);
    let error = refused(unwrap(&kek, &before));
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::WrongKey));
    assert!(error.to_string().contains("in the option opens"), "{error}");
    let both = moto.kek_with(&moto.alias_arn("moves"), "service", &format!("&opens={old}"));
    assert!(unwrap(&both, &before).is_ok() && unwrap(&both, &after).is_ok());
    assert_eq!(wrap(&both).expect("wrapped").kek_version, new, "it wraps nothing more");
}

/// Whoever writes records could else have any key of the account used that the service may decrypt with.
// Failure C10
#[test]
fn a_record_never_chooses_the_key_that_is_asked() {
    let Some(moto) = Moto::given() else { return };
    let [ours, other] = [moto.key(json!({})), moto.key(json!({}))];
    moto.alias("ours", &ours);
    let kek = moto.kek(&moto.alias_arn("ours"), "service");
    // The identity may decrypt under the other key too, and this is a good wrap under it.
    let foreign = wrap(&moto.kek(&other, "service")).expect("wrapped");
    let good = wrap(&kek).expect("wrapped");
    for wrapped in [
        foreign.clone(),
        WrappedKey { kek_version: other, bytes: good.bytes.clone() },
        WrappedKey { kek_version: ours, bytes: foreign.bytes },
    ] {
        assert_eq!(refused(unwrap(&kek, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::WrongKey));
    }
    assert!(unwrap(&kek, &good).is_ok());
}

// Failure A27
#[test]
fn rotated_material_opens_what_the_old_one_wrapped() {
    let Some(moto) = Moto::given() else { return };
    let key = moto.key(json!({}));
    let kek = moto.kek(&key, "service");
    let before = wrap(&kek).expect("wrapped");
    moto.admin("RotateKeyOnDemand", json!({ "KeyId": key }));
    let after = wrap(&kek).expect("wrapped");
    assert!(unwrap(&kek, &before).is_ok() && unwrap(&kek, &after).is_ok());
    assert_eq!(before.kek_version, after.kek_version);
}

#[test]
fn a_replica_in_another_region_opens() {
    let Some(moto) = Moto::given() else { return };
    let primary = moto.key(json!({ "MultiRegion": true }));
    let wrapped = wrap(&moto.kek(&primary, "service")).expect("wrapped");
    moto.admin("ReplicateKey", json!({ "KeyId": primary, "ReplicaRegion": "eu-west-1" }));
    let replica = moto.kek(&primary.replace(REGION, "eu-west-1"), "service");
    assert!(unwrap(&replica, &wrapped).is_ok());
    let back = wrap(&replica).expect("wrapped");
    assert!(unwrap(&moto.kek(&primary, "service"), &back).is_ok());
    // A key that is not of several regions is not looked for in others.
    let single = moto.key(json!({}));
    let wrapped = wrap(&moto.kek(&single, "service")).expect("wrapped");
    let elsewhere = moto.kek(&single.replace(REGION, "eu-west-1"), "service");
    assert_eq!(refused(unwrap(&elsewhere, &wrapped)).kind(), ErrorKind::Kms(KmsErrorKind::WrongKey));
}

#[test]
fn errors_and_traces_name_the_request() {
    let Some(moto) = Moto::given() else { return };
    let key = moto.key(json!({}));
    let (trace, payload) = (KmsTrace::new(), payload());
    let kek = moto.kek(&key, "service");
    block_on(kek.wrap(WrapRequest::new(&payload, &context()).with_trace(&trace))).expect("wrapped");
    assert_eq!(trace.requests(), 1);
    assert_eq!(trace.request_id().expect("an ID").len(), 36);
    let error = refused(wrap(&moto.kek(&key, "nobody"))).to_string();
    assert!(error.contains(&key) && error.contains("AccessDeniedException; request ID "), "{error}");
}

/// The profile that AWS_PROFILE names in the file that AWS_SHARED_CREDENTIALS_FILE names.
#[test]
fn the_chain_of_credentials_is_asked() {
    let Some(moto) = Moto::given() else { return };
    let uri = format!("awskms://{}?endpoint={}", moto.key(json!({})), moto.endpoint);
    let kek = AwsKek::from_uri(&uri, here()).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    assert!(unwrap(&kek, &wrapped).is_ok());
}

#[test]
fn works_inside_a_runtime_outside_and_from_many_threads() {
    let Some(moto) = Moto::given() else { return };
    let key = moto.key(json!({}));
    use_from_everywhere(|| Box::new(moto.kek(&key, "service")));
}

/// Covers KC-6, KC-25.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Some(moto) = Moto::given() else { return };
    if is_left_to_own_process("a_forked_child_uses_connections_of_its_own") {
        return;
    }
    let kek: &dyn Kms = &moto.kek(&moto.key(json!({})), "service");
    use_in_forked_children(kek);
}

#[test]
fn credentials_and_payloads_are_in_no_log() {
    let Some(moto) = Moto::given() else { return };
    if is_left_to_own_process("credentials_and_payloads_are_in_no_log") {
        return;
    }
    let mut logs = Logs::collect();
    let key = moto.key(json!({}));
    let kek = moto.kek(&key, "service");
    let wrapped = wrap(&kek).expect("wrapped");
    logs.note(&kek, unwrap(&kek, &wrapped));
    for profile in ["service", "reader", "nobody", "forger", "stranger", "expired"] {
        let kek = moto.kek(&key, profile);
        logs.note(&kek, wrap(&kek));
        logs.note(&kek, unwrap(&kek, &WrappedKey { bytes: vec![7; 80], ..wrapped.clone() }));
    }
    logs.check(&moto.secrets(), Some(&wrapped));
}
