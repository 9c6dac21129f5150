//! The fake of Cloud KMS that tests are given, as its administrator sees it.

use crate::common::{here, skip};
use keyfold_kms::gcp::GcpKek;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

const ENCRYPT: &str = "cloudkms.cryptoKeyVersions.useToEncrypt";
const DECRYPT: &str = "cloudkms.cryptoKeyVersions.useToDecrypt";

pub(crate) struct Fake {
    /// `http://127.0.0.1:PORT`.
    pub(crate) address: String,
    folder: tempfile::TempDir,
}

/// What an identity may do.
#[derive(Clone, Copy)]
pub(crate) enum May {
    Both,
    Encrypt,
    Nothing,
}

impl May {
    fn permissions(self) -> Value {
        match self {
            Self::Both => json!([ENCRYPT, DECRYPT]),
            Self::Encrypt => json!([ENCRYPT]),
            Self::Nothing => json!([]),
        }
    }
}

impl Fake {
    /// `None`, said aloud, where there is none.
    pub(crate) fn given() -> Option<Self> {
        let Ok(address) = std::env::var("KEYFOLD_TEST_GOOGLE_KMS") else {
            skip("KEYFOLD_TEST_GOOGLE_KMS names no fake of Google Cloud KMS");
            return None;
        };
        Some(Self { address, folder: tempfile::tempdir().expect("a folder") })
    }

    /// A request to the fake: its status and answer.
    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let host = self.address.strip_prefix("http://").expect("an HTTP address");
        let mut stream = TcpStream::connect(host).expect("connected");
        let body = body.to_string();
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    fn ask(&self, what: &str, body: &Value) -> Value {
        let (status, answer) = self.call("POST", &format!("fake/{what}"), "", body);
        assert_eq!(status, 200, "{what}: {answer}");
        answer
    }

    /// The name of a new key.
    pub(crate) fn key(&self) -> String {
        self.ask("key", &json!({}))["name"].as_str().expect("a name").to_owned()
    }

    pub(crate) fn token(&self, may: May) -> String {
        self.ask("token", &json!({ "permissions": may.permissions() }))["token"].as_str().expect("a token").to_owned()
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.ask("revoke", &json!({ "token": token }));
    }

    /// The key file of a new service account, as JSON.
    pub(crate) fn account(&self, may: May) -> Value {
        self.ask("account", &json!({ "permissions": may.permissions() }))
    }

    /// The next answers for `key` have these members.
    pub(crate) fn merge(&self, key: &str, times: u32, members: &Value) {
        self.ask("fault", &json!({ "key": key, "times": times, "merge": members }));
    }

    /// The next answers for `key` are this one.
    pub(crate) fn reply(&self, key: &str, times: u32, status: u16, headers: &Value, body: &Value) {
        let reply = json!({ "http_status": status, "http_headers": headers, "http_body": body });
        self.ask("fault", &json!({ "key": key, "times": times, "reply": reply }));
    }

    /// How many requests for `key` were answered.
    pub(crate) fn requests(&self, key: &str) -> u64 {
        self.ask("seen", &json!({ "key": key }))["count"].as_u64().expect("a number")
    }

    /// How many tokens a service account asked for.
    pub(crate) fn logins(&self, account: &Value) -> u64 {
        self.ask("seen", &json!({ "account": account["client_email"] }))["count"].as_u64().expect("a number")
    }

    /// What an administrator does to a version, such as `:destroy`, or another state.
    pub(crate) fn administer(&self, method: &str, path: &str, body: &Value) {
        let token = self.ask("everything", &json!({}))["token"].as_str().expect("a token").to_owned();
        let (status, answer) = self.call(method, &format!("v1/{path}"), &token, body);
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// A file with `text`.
    pub(crate) fn file(&self, text: &str) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = self.folder.path().join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::write(&path, text).expect("written");
        path
    }

    /// `key` with a token that may use it, and without a limit of its rate.
    pub(crate) fn kek(&self, key: &str) -> GcpKek {
        self.kek_with(key, &format!("token_file={}&rate=10000", self.file(&self.token(May::Both)).display()))
    }

    pub(crate) fn uri(&self, key: &str, options: &str) -> String {
        format!("gcpkms://{key}?endpoint={}&{options}", self.address)
    }

    pub(crate) fn kek_with(&self, key: &str, options: &str) -> GcpKek {
        GcpKek::from_uri(&self.uri(key, options), here()).expect("opened")
    }
}
