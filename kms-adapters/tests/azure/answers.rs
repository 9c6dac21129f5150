//! Challenges, rows of the error table and URIs, without a vault. What else may be answered: `tests/faults.rs`.

use crate::common::rest::{Provider, azure_challenge, providers};
use crate::common::server::{Reply, Server};
use crate::common::{here, unwrap};
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::azure::{AzureKek, TABLE};
use serde_json::json;
use std::time::Duration;

fn vault() -> Provider {
    providers().into_iter().find(|provider| provider.name == "azure").expect("the adapter")
}

/// A vault that asks for the token of another service gets none, not at the next attempt either.
// Failure A18
#[test]
fn an_evil_challenge_gets_no_token() {
    let vault = vault();
    for resource in [
        "https://evil.example",
        "https://vault.azure.net.evil.example",
        "https://management.azure.com",
        "https://azure.net",
        "https://managedhsm.azure.net",
        "http://vault.azure.net",
    ] {
        let server = Server::always(azure_challenge(resource));
        let opened = vault.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
        for _ in 0..2 {
            let error = unwrap(&*opened.kek, &(vault.wrapped)()).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Credentials), "{resource}: {error}");
        }
        assert!(!server.seen().is_empty());
        for seen in server.seen() {
            assert!(
                !(vault.is_operation)(&seen) && seen.body.is_empty() && !seen.headers.contains(vault.credentials.1),
                "{resource}: {seen:?}"
            );
        }
    }
}

/// Covers KC-26, KC-28.
#[test]
fn each_row_of_the_table_is_reached() {
    let vault = vault();
    for row in TABLE.iter().filter(|row| !row.code.is_empty()) {
        let status = row.statuses.first().copied().unwrap_or(403);
        let body = json!({ "error": { "code": "Forbidden", "message": "", "innererror": { "code": row.code } } });
        let server = vault.serve(Reply::json(status, body.to_string()));
        let opened = vault.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
        let error = unwrap(&*opened.kek, &(vault.wrapped)()).err().expect("refused");
        assert_eq!(error.kind(), row.kind, "{}", row.code);
        assert!(error.to_string().starts_with(row.message) && error.to_string().contains(row.code), "{error}");
    }
}

#[test]
fn what_a_uri_may_not_say() {
    for wrong in [
        "azurekv://clinic.vault.azure.net",
        "azurekv://clinic.vault.azure.net/",
        "azurekv://clinic.vault.azure.net/key/version",
        "azurekv://clinic.vault.azure.net/key?tls=off",
        "azurekv://clinic.vault.azure.net/key?resource=https://management.azure.com",
        "azurekv://clinic.vault.azure.net.evil.example/key",
        "azurekv://vault.azure.net/key",
        "azurekv://evilvault.azure.net/key",
        "azurekv://localhost/key",
        "azurekv://clinic.vault.azure.net/key?auth=password",
        "azurekv://clinic.vault.azure.net/key?auth=token",
        "azurekv://clinic.vault.azure.net/key?algorithm=RSA1_5",
        "azurekv://clinic.vault.azure.net/key?token_file=token",
    ] {
        let error = AzureKek::from_uri(wrong, here()).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
    }
    for good in ["clinic.vault.azure.net", "clinic.managedhsm.azure.net", "clinic.vault.usgovcloudapi.net"] {
        assert!(AzureKek::from_uri(&format!("azurekv://{good}/key"), here()).is_ok(), "{good}");
    }
}
