//! Access tokens: of service accounts, of files, of the host program; refused ones, and many threads that need one.

use crate::common::{here, refused, unwrap, unwrap_traced, wrap};
use crate::fake::{Fake, May};
use keyfold::{BoxFuture, ErrorKind, KmsErrorKind, Result};
use keyfold_kms::credentials::SecretText;
use keyfold_kms::gcp::{AccessTokens, GcpAuth, GcpConfig, GcpKek};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use url::Url;

#[test]
fn a_service_account_gets_one_token_for_many_threads() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let account = fake.account(May::Both);
    let kek =
        fake.kek_with(&key, &format!("credentials_file={}&rate=10000", fake.file(&account.to_string()).display()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let wrapped = wrap(&kek).expect("wrapped with a token of the account");
                assert!(unwrap(&kek, &wrapped).is_ok());
            });
        }
    });
    assert_eq!((fake.requests(&key), fake.logins(&account)), (16, 1));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let good = fake.token(May::Both);
    let file = fake.file(&good);
    let kek = fake.kek_with(&key, &format!("token_file={}", file.display()));
    let wrapped = wrap(&kek).expect("wrapped");
    fake.revoke(&good);
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert_eq!((refused(result).kind(), requests), (ErrorKind::Kms(KmsErrorKind::Credentials), 2));
    std::fs::write(&file, fake.token(May::Both)).expect("written");
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert!(result.is_ok() && requests == 1, "the file is read before each request");
}

#[test]
fn a_service_account_whose_token_is_refused_gets_another() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let account = fake.account(May::Both);
    let kek = fake.kek_with(&key, &format!("credentials_file={}", fake.file(&account.to_string()).display()));
    let wrapped = wrap(&kek).expect("wrapped");
    let body = json!({ "error": { "code": 401, "status": "UNAUTHENTICATED", "message": "expired" } });
    fake.reply(&key, 1, 401, &json!({}), &body);
    let (result, requests) = unwrap_traced(&kek, &wrapped);
    assert!(result.is_ok());
    assert_eq!((requests, fake.logins(&account)), (2, 2), "refused, and again with a new token");
}

struct Federation {
    fake: Fake,
    token: std::sync::Mutex<String>,
    refusals: AtomicU32,
}

impl AccessTokens for Federation {
    fn token(&self) -> BoxFuture<'_, Result<SecretText>> {
        Box::pin(async { Ok(SecretText::new(self.token.lock().expect("not poisoned").clone())) })
    }

    fn refused(&self, token: &SecretText) {
        let mut current = self.token.lock().expect("not poisoned");
        assert_eq!(token.expose(), *current);
        self.refusals.fetch_add(1, Ordering::SeqCst);
        *current = self.fake.token(May::Both);
    }
}

#[test]
fn the_host_program_brings_its_own() {
    let Some(fake) = Fake::given() else { return };
    let (key, address) = (fake.key(), fake.address.clone());
    let token = std::sync::Mutex::new(fake.token(May::Both));
    let host = Arc::new(Federation { fake, token, refusals: AtomicU32::new(0) });
    let mut config = GcpConfig::new(&key, GcpAuth::Host(host.clone())).expect("a key");
    config.endpoint = Url::parse(&address).expect("a URL");
    let kek = GcpKek::open(config).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    host.fake.revoke(&host.token.lock().expect("not poisoned").clone());
    assert!(unwrap(&kek, &wrapped).is_ok(), "the host was told, and brought another");
    assert_eq!(host.refusals.load(Ordering::SeqCst), 1);
}

#[test]
fn credentials_files_that_do_not_fit_are_refused_before_a_request() {
    let Some(fake) = Fake::given() else { return };
    let key = fake.key();
    let account = fake.account(May::Both);
    let with = |name: &str, value: &str| {
        let mut changed = account.clone();
        changed[name] = json!(value);
        changed.to_string()
    };
    let (configuration, credentials) = (ErrorKind::Configuration, ErrorKind::Kms(KmsErrorKind::Credentials));
    let files = [
        (String::new(), configuration),
        ("not JSON: canary".to_owned(), configuration),
        ("{}".to_owned(), configuration),
        (with("type", "external_account"), configuration),
        (with("type", "authorized_user"), configuration),
        (with("token_uri", "http://token.example/token"), configuration),
        (with("token_uri", "canary"), configuration),
        (with("private_key", "canary"), configuration),
        (with("client_email", "nobody@clinic.iam.gserviceaccount.com"), credentials),
        (" ".repeat(65 * 1024), credentials),
    ];
    for (text, expected) in files {
        let kek = fake.kek_with(&key, &format!("credentials_file={}", fake.file(&text).display()));
        let error = refused(wrap(&kek));
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
    let missing = GcpKek::from_uri(&fake.uri(&key, "credentials_file=/nonexistent/key.json"), here()).expect("opened");
    assert_eq!(refused(wrap(&missing)).kind(), credentials);
    assert_eq!(fake.requests(&key), 0);
}
