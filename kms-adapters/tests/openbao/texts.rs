//! What the transit engine writes, without a server: also what OpenBao does not say and HashiCorp Vault does.

use crate::common::rest::providers;
use crate::common::server::Reply;
use crate::common::{refused, unwrap};
use keyfold::{ErrorKind, KmsErrorKind};
use keyfold_kms::vault::VaultKek;
use serde_json::json;
use std::time::Duration;

#[test]
fn texts_have_their_class_and_are_asked_for_again_only_where_that_may_help() {
    use KmsErrorKind::*;
    let provider = providers().into_iter().find(|provider| provider.name == "vault").expect("the adapter");
    for (status, text, expected, asked) in [
        (400, "cipher: message authentication failed", InvalidCiphertext, 1),
        (400, "the moon is in the wrong phase", Rejected, 1),
        (403, "1 error occurred:\n\t* permission denied\n\n", AccessDenied, 1),
        (403, "permission denied", Credentials, 2),
        (403, "2 errors occurred:\n\t* permission denied\n\t* invalid token", Credentials, 2),
        (429, "rate limit quota exceeded", Throttled, 2),
        (503, "Vault is sealed", Unavailable, 1),
        (500, "internal error", Unavailable, 2),
        (412, "required index state not present", Unavailable, 2),
    ] {
        let server = provider.serve(Reply::json(status, json!({ "errors": [text] }).to_string()));
        let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(10), "");
        let error = refused(unwrap(&*opened.kek, &(provider.wrapped)()));
        assert_eq!((error.kind(), provider.asked(&server)), (ErrorKind::Kms(expected), asked), "{text}");
    }
}

/// Covers KC-30.
// Failure A19
#[test]
fn plain_http_goes_to_loopback_addresses_alone() {
    for host in
        ["vault.example:8200", "localhost:8200", "10.0.0.1:8200", "127.0.0.1.example:8200", "[2001:db8::1]:8200"]
    {
        let uri = format!("vault://{host}/transit/k?token_env=X&tls=off");
        assert_eq!(refused(VaultKek::from_uri(&uri, crate::common::here())).kind(), ErrorKind::Configuration, "{host}");
    }
    for host in ["127.0.0.1:8200", "127.9.9.9", "[::1]:8200"] {
        let uri = format!("vault://{host}/transit/k?token_env=X&tls=off");
        assert!(VaultKek::from_uri(&uri, crate::common::here()).is_ok(), "{host}");
    }
}
