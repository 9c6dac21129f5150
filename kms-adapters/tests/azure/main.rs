//! The adapter of Azure Key Vault and Managed HSM against a fake vault of our own, which KEYFOLD_TEST_AZURE names (`./test` starts
//! it, and so does `python3 tools/servers/azure_vault.py cargo test …`), and against answers that are wrong. No real Azure was reachable.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod vault;

use common::classes::Classes;
use common::fork::{is_left_to_own_process, use_in_forked_children};
use common::logs::Logs;
use common::rest::providers;
use common::{context, here, payload, refused, say, unwrap, unwrap_traced, use_from_everywhere, wrap};
use keyfold::testing::{ContextBinding, block_on, kms_conformance};
use keyfold::{ErrorKind, Kms, KmsErrorKind, KmsTrace, WrapRequest, WrappedKey};
use keyfold_kms::azure::{AzureConfig, AzureCredentials, AzureKek, HostToken};
use keyfold_kms::credentials::SecretText;
use serde_json::json;
use vault::Vault;

const SERVER: &str = "own fake, held to Microsoft's Python client (no real Azure was reachable)";

#[test]
fn an_rsa_key_in_a_vault_conforms() {
    let Some(vault) = Vault::given() else { return };
    say(&format!("Azure Key Vault and Managed HSM: {SERVER}"));
    let key = vault.key("RSA");
    kms_conformance(&vault.kek(&key, "auth=managed"), ContextBinding::ByKeyfold);
}

#[test]
fn an_aes_key_in_a_managed_hsm_conforms() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("oct-HSM");
    kms_conformance(&vault.kek(&key, "auth=managed&algorithm=A256KW"), ContextBinding::ByKeyfold);
}

#[test]
fn every_refusal_has_its_class() {
    use KmsErrorKind::*;
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let kek = vault.kek(&key, "auth=managed");
    let good = wrap(&kek).expect("wrapped");
    let mut classes = Classes::of("azure", SERVER);

    let mut bytes = good.bytes.clone();
    *bytes.last_mut().expect("not empty") ^= 1;
    classes.row("a flipped bit", InvalidCiphertext, unwrap(&kek, &WrappedKey { bytes, ..good.clone() }));
    let second = vault.key("RSA");
    let other = wrap(&vault.kek(&second, "auth=managed")).expect("wrapped");
    classes.row("wrapped by another key", WrongKey, unwrap(&kek, &other));
    let swapped = WrappedKey { bytes: other.bytes, ..good.clone() };
    classes.row("bytes of another key", InvalidCiphertext, unwrap(&kek, &swapped));
    let unknown = WrappedKey { kek_version: format!("{key}/{}", "0".repeat(32)), ..good.clone() };
    classes.row("a version that is not there", KeyNotFound, unwrap(&kek, &unknown));
    classes.row("no such key", KeyNotFound, wrap(&vault.kek("nobody-made-this", "auth=managed")));
    classes.row("no role", AccessDenied, wrap(&vault.kek_of(&key, "nobody")));
    let stale = vault.file("eyJ.stale-token");
    classes.row(
        "a token that is not valid",
        Credentials,
        wrap(&vault.kek(&key, &format!("auth=token&token_file={stale}"))),
    );
    let wrong = vault.file("wrong-client-secret");
    let secret = format!("auth=secret&tenant_id={}&client_id=service&client_secret_file={wrong}", vault::TENANT);
    classes.row("a wrong client secret", Credentials, wrap(&vault.kek(&key, &secret)));
    classes.row("no file with a token", Credentials, wrap(&vault.kek(&key, "auth=token&token_file=/nowhere/token")));

    vault.wish("enable", json!({ "name": key, "enabled": false }));
    classes.row("disabled, wraps", KeyDisabled, wrap(&kek));
    classes.row("disabled, unwraps", KeyDisabled, unwrap(&kek, &good));
    vault.wish("enable", json!({ "name": key, "enabled": true }));
    assert!(unwrap(&kek, &good).is_ok());
    vault.wish("delete", json!({ "name": key }));
    classes.row("deleted", KeyNotFound, unwrap(&kek, &good));
    let impatient = vault.kek(&second, "auth=managed&attempts=1");
    assert!(wrap(&impatient).is_ok());
    vault.wish("throttle", json!({ "name": second, "requests": 1 }));
    classes.row("throttled", Throttled, wrap(&impatient));
    let lost = format!(
        "azurekv://localhost:{}/{second}?resource=https://vault.azure.net&auth=managed&ca={}",
        vault.port(),
        vault.ca
    );
    classes.row("a certificate for another name", TlsError, wrap(&AzureKek::from_uri(&lost, here()).expect("opened")));
}

#[test]
fn an_rsa_key_does_not_wrap_as_an_aes_key() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let error = refused(wrap(&vault.kek(&key, "auth=managed&algorithm=A256KW")));
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
}

/// Covers KC-7.
// Failure C10
#[test]
fn what_names_another_vault_or_key_costs_no_request() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let kek = vault.kek(&key, "auth=managed");
    let good = wrap(&kek).expect("wrapped");
    let version = good.kek_version.rsplit_once('/').expect("a version").1.to_owned();
    for foreign in [
        format!("https://evil.vault.azure.net/keys/{key}/{version}"),
        format!("another/{version}"),
        format!("{key}/../{version}"),
        format!("{key}/{version}?x"),
        format!("{key}/"),
        version.clone(),
        String::new(),
    ] {
        let wrapped = WrappedKey { kek_version: foreign.clone(), ..good.clone() };
        let (result, requests) = unwrap_traced(&kek, &wrapped);
        let error = refused(result);
        let expected = [KmsErrorKind::WrongKey, KmsErrorKind::InvalidCiphertext].map(ErrorKind::Kms);
        assert!(expected.contains(&error.kind()), "{foreign}: {error:?}");
        assert_eq!(requests, 0, "{foreign}");
    }
    assert!(unwrap(&kek, &good).is_ok());
}

// Failure A27
#[test]
fn a_new_version_opens_what_the_old_one_wrapped() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let kek = vault.kek(&key, "auth=managed");
    let before = wrap(&kek).expect("wrapped");
    vault.wish("create", json!({ "name": key }));
    let after = wrap(&kek).expect("wrapped");
    assert_ne!(before.kek_version, after.kek_version);
    assert!(unwrap(&kek, &before).is_ok() && unwrap(&kek, &after).is_ok());
    let version = before.kek_version.rsplit('/').next();
    vault.wish("enable", json!({ "name": key, "version": version, "enabled": false }));
    assert_eq!(refused(unwrap(&kek, &before)).kind(), ErrorKind::Kms(KmsErrorKind::KeyDisabled));
    assert!(unwrap(&kek, &after).is_ok());
}

#[test]
fn each_source_of_tokens_works() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let secret =
        format!("auth=secret&tenant_id={}&client_id=service&client_secret_file={}", vault::TENANT, vault.secret);
    // The chain finds AZURE_FEDERATED_TOKEN_FILE.
    for auth in ["auth=managed", "auth=workload", "auth=chain", &secret] {
        let kek = vault.kek(&key, auth);
        let wrapped = wrap(&kek).unwrap_or_else(|error| panic!("{auth}: {error}"));
        assert!(unwrap(&kek, &wrapped).is_ok(), "{auth}");
    }
    let token = vault.token("service");
    let mut config = AzureConfig::from_uri(&vault.uri(&key, "auth=managed"), here()).expect("a configuration");
    config.credentials = AzureCredentials::Host(HostToken::new(move || {
        let token = token.clone();
        Box::pin(async move { Ok(SecretText::new(token)) })
    }));
    assert!(wrap(&AzureKek::open(config).expect("opened")).is_ok());
}

// Failure A20
#[test]
fn a_token_that_has_expired_is_renewed() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let (tenant, secret) = (vault::TENANT, &vault.secret);
    let auth = format!("auth=secret&tenant_id={tenant}&client_id=service-expires&client_secret_file={secret}");
    let kek = vault.kek(&key, &auth);
    let wrapped = wrap(&kek).expect("wrapped");
    vault.wish("expire", json!({ "identity": "service-expires" }));
    assert!(unwrap(&kek, &wrapped).is_ok());
}

#[test]
fn errors_and_traces_name_the_request() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    let (trace, payload) = (KmsTrace::new(), payload());
    let kek = vault.kek(&key, "auth=managed");
    block_on(kek.wrap(WrapRequest::new(&payload, &context()).with_trace(&trace))).expect("wrapped");
    // One that asks for the challenge, without key or token, and one that is answered.
    assert_eq!(trace.requests(), 2);
    assert_eq!(trace.request_id().expect("an ID").len(), 36);
    let error = refused(wrap(&vault.kek_of(&key, "nobody"))).to_string();
    assert!(error.contains(&key) && error.contains("ForbiddenByRbac") && error.contains("request ID"), "{error}");
}

#[test]
fn works_inside_a_runtime_outside_and_from_many_threads() {
    let Some(vault) = Vault::given() else { return };
    let key = vault.key("RSA");
    use_from_everywhere(|| Box::new(vault.kek(&key, "auth=managed")));
}

/// Covers KC-6, KC-25.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Some(vault) = Vault::given() else { return };
    if is_left_to_own_process("a_forked_child_uses_connections_of_its_own") {
        return;
    }
    let kek: &dyn Kms = &vault.kek(&vault.key("RSA"), "auth=managed");
    use_in_forked_children(kek);
}

#[test]
fn credentials_and_payloads_are_in_no_log() {
    let Some(vault) = Vault::given() else { return };
    if is_left_to_own_process("credentials_and_payloads_are_in_no_log") {
        return;
    }
    let mut logs = Logs::collect();
    let key = vault.key("RSA");
    let kek = vault.kek(&key, "auth=managed");
    let wrapped = wrap(&kek).expect("wrapped");
    logs.note(&kek, unwrap(&kek, &wrapped));
    let secret =
        format!("auth=secret&tenant_id={}&client_id=service&client_secret_file={}", vault::TENANT, vault.secret);
    let token = vault.token("service");
    let token_file = vault.file(&token);
    for auth in ["auth=workload", &secret, &format!("auth=token&token_file={token_file}")] {
        let kek = vault.kek(&key, auth);
        logs.note(&kek, wrap(&kek));
        logs.note(&kek, unwrap(&kek, &WrappedKey { bytes: vec![7; 256], ..wrapped.clone() }));
    }
    for provider in providers().iter().filter(|provider| provider.name == "azure") {
        logs.note_hostile(provider);
    }
    let client_secret = std::fs::read_to_string(&vault.secret).expect("the secret");
    // Tokens that the fake made begin alike.
    logs.check(&[token, client_secret, "identity-header-canary".to_owned(), "Bearer eyJ.".to_owned()], Some(&wrapped));
}
