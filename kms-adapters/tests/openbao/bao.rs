//! The server that tests are given, as its administrator sees it.

use crate::common::{here, skip};
use keyfold_kms::vault::VaultKek;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const POLICY: &str = r#"
path "transit/encrypt/KEY" { capabilities = ["update"] }
path "transit/decrypt/KEY" { capabilities = ["update"] }
"#;

#[derive(Clone)]
pub(crate) struct Bao {
    /// `https://127.0.0.1:PORT`.
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) ca: PathBuf,
    pub(crate) unseal_key: Option<String>,
    folder: Arc<tempfile::TempDir>,
}

impl Bao {
    /// `None`, said aloud, where there is no server.
    pub(crate) fn given() -> Option<Self> {
        if std::env::var_os("KEYFOLD_TEST_OPENBAO").is_none() {
            skip("KEYFOLD_TEST_OPENBAO names no OpenBao server");
            return None;
        }
        Some(Self::new(&std::env::vars().collect()))
    }

    fn new(variables: &HashMap<String, String>) -> Self {
        let variable = |name: &str| variables.get(&format!("KEYFOLD_TEST_OPENBAO{name}")).cloned();
        let bao = Self {
            address: variable("").expect("an address"),
            token: variable("_TOKEN").expect("a token"),
            ca: variable("_CA").expect("a CA").into(),
            unseal_key: variable("_UNSEAL_KEY"),
            folder: Arc::new(tempfile::tempdir().expect("a folder")),
        };
        // Fails where another test has mounted it.
        bao.call("POST", "sys/mounts/transit", json!({ "type": "transit" }));
        bao
    }

    /// Says what kind of server the tests of an adapter ran against.
    pub(crate) fn say(&self) {
        let version = self.call("GET", "sys/seal-status", json!(null)).1["version"].clone();
        let _ = writeln!(std::io::stdout(), "\nvault: real server, OpenBao {version} over TLS at {}", self.address);
    }

    /// Calls the API as the administrator. Status and answer.
    pub(crate) fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_in(None, method, path, body)
    }

    pub(crate) fn call_in(&self, namespace: Option<&str>, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).expect("a CA") {
            roots.add(certificate.expect("a certificate")).expect("a CA");
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocols")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().expect("a client");
        let mut request = client
            .request(method.parse().expect("a method"), format!("{}/v1/{path}", self.address))
            .header("x-vault-token", &self.token);
        if let Some(namespace) = namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        let exchange = async {
            let answer = request.send().await.expect("an answer");
            let status = answer.status().as_u16();
            (status, serde_json::from_slice(&answer.bytes().await.expect("a body")).unwrap_or_default())
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(exchange)
    }

    /// As [`call`](Self::call), and it must work.
    pub(crate) fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, body);
        assert!(matches!(status, 200 | 204), "{path}: {status} {answer}");
        answer
    }

    /// A name that no other test uses.
    pub(crate) fn name(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// A new key.
    pub(crate) fn key(&self, settings: Value) -> String {
        let name = self.name();
        self.post(&format!("transit/keys/{name}"), settings);
        name
    }

    pub(crate) fn derived_key(&self) -> String {
        self.key(json!({ "derived": true }))
    }

    /// A policy that allows what a service needs on `key`.
    pub(crate) fn policy(&self, key: &str) -> String {
        let name = self.name();
        self.post(&format!("sys/policies/acl/{name}"), json!({ "policy": POLICY.replace("KEY", key) }));
        name
    }

    /// A token with `settings`.
    pub(crate) fn new_token(&self, settings: Value) -> String {
        self.post("auth/token/create", settings)["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    /// A file with `text`.
    pub(crate) fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join(self.name());
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The URI of `key`, with more `options`.
    pub(crate) fn uri(&self, key: &str, options: &str) -> String {
        let host = self.address.strip_prefix("https://").expect("HTTPS");
        format!("vault://{host}/transit/{key}?ca={}&{options}", self.ca.display())
    }

    /// `key` as the administrator sees it, who is never told to slow down.
    pub(crate) fn kek(&self, key: &str) -> VaultKek {
        self.kek_with(key, &format!("token_file={}&rate=10000", self.file(&self.token).display()))
    }

    pub(crate) fn kek_with(&self, key: &str, options: &str) -> VaultKek {
        VaultKek::from_uri(&self.uri(key, options), here()).expect("opened")
    }
}

/// A server of a test's own, which it may seal. Ends when it is dropped.
pub(crate) struct OwnBao {
    pub(crate) bao: Bao,
    process: Child,
}

impl OwnBao {
    pub(crate) fn start() -> Self {
        let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/../tools/servers/openbao.py");
        let mut process = Command::new("python3")
            .args([tool, "--serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tools/servers/openbao.py runs");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok).take(4);
        let variables =
            lines.filter_map(|line| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
        Self { bao: Bao::new(&variables.collect()), process }
    }
}

impl Drop for OwnBao {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
