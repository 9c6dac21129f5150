//! Renewals of a token that the service does not answer, made by a server of ours.

mod common;

use common::server::{Reply, Seen, Server};
use common::{here, payload, refused, unwrap};
use data_encoding::BASE64;
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::vault::VaultKek;
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn wrapped() -> WrappedKey {
    WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] }
}

fn decrypted() -> Reply {
    Reply::json(200, json!({ "data": { "plaintext": BASE64.encode(payload().expose()) } }).to_string())
}

fn kek(server: &Server, options: &str) -> VaultKek {
    let uri = format!("vault://{}/transit/k?tls=off&{options}", server.address);
    VaultKek::from_uri(&uri, here()).expect("opened")
}

fn count(server: &Server, path: &str) -> usize {
    server.seen().iter().filter(|request| request.line.contains(path)).count()
}

/// Covers KC-1.
#[test]
fn a_token_is_used_while_its_renewal_is_not_answered() {
    let answer = |request: &Seen| match request.line.contains("renew-self") {
        true => Reply::Silence,
        false => decrypted(),
    };
    let server = Server::start(answer);
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "s.token").expect("written");
    let kek = kek(&server, &format!("token_file={}&timeout=900ms", token.display()));
    let begun = Instant::now();
    assert!(unwrap(&kek, &wrapped()).is_ok());
    assert!(begun.elapsed() < Duration::from_millis(900), "in the first attempt: {:?}", begun.elapsed());
    let begun = Instant::now();
    assert!(unwrap(&kek, &wrapped()).is_ok());
    assert!(begun.elapsed() < Duration::from_millis(250), "not renewed each time: {:?}", begun.elapsed());
    assert_eq!((count(&server, "renew-self"), count(&server, "decrypt")), (1, 2));
}

/// The secret ID is good for one login, so a session that is thrown away does not come back.
#[test]
fn a_session_outlives_a_failed_renewal_but_no_refused_one() {
    for (status, logins) in [(503, 1), (403, 2)] {
        let used = AtomicU32::new(0);
        let server = Server::start(move |request| {
            if request.line.contains("/login") {
                let auth = json!({ "client_token": "s.token", "renewable": true, "lease_duration": 1 });
                return match used.fetch_add(1, Ordering::SeqCst) {
                    0 => Reply::json(200, json!({ "auth": auth }).to_string()),
                    _ => Reply::json(400, json!({ "errors": ["invalid role or secret ID"] }).to_string()),
                };
            }
            match request.line.contains("renew-self") {
                true => Reply::json(status, json!({ "errors": ["permission denied"] }).to_string()),
                false => decrypted(),
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "secret").expect("written");
        let kek = kek(&server, &format!("auth=approle&role_id=r&secret_id_file={}", secret.display()));
        assert!(unwrap(&kek, &wrapped()).is_ok());
        // Two thirds of the life of the token.
        sleep(Duration::from_millis(700));
        let result = unwrap(&kek, &wrapped());
        match status {
            503 => assert!(result.is_ok()),
            _ => assert_eq!(refused(result).kind(), ErrorKind::Kms(KmsErrorKind::Credentials)),
        }
        assert_eq!((count(&server, "renew-self"), count(&server, "/login")), (1, logins), "{status}");
    }
}
