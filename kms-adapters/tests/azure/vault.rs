//! The server of the tests, by what an administrator does.

use crate::common::{here, post, server};
use keyfold_kms::azure::AzureKek;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) const TENANT: &str = "11111111-2222-3333-4444-555555555555";

pub(crate) struct Vault {
    address: String,
    control: String,
    pub(crate) ca: String,
    /// The file with the client secret.
    pub(crate) secret: String,
    folder: Arc<tempfile::TempDir>,
}

impl Vault {
    /// `None`, said aloud, where no server was started.
    pub(crate) fn given() -> Option<Self> {
        let address = server("KEYFOLD_TEST_AZURE", "python3 tools/servers/azure_vault.py COMMAND")?;
        let variable = |name: &str| std::env::var(name).expect("set together");
        let [control, ca, secret] =
            ["KEYFOLD_TEST_AZURE_CONTROL", "KEYFOLD_TEST_AZURE_CA", "KEYFOLD_TEST_AZURE_SECRET"].map(variable);
        Some(Self { address, control, ca, secret, folder: Arc::new(tempfile::tempdir().expect("a folder")) })
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit(':').next().expect("a port")
    }

    pub(crate) fn wish(&self, what: &str, asked: Value) -> Value {
        let (status, answer) = post(&format!("{}/_test/{what}", self.control), &[], &asked);
        assert_eq!(status, 200, "{what}: {answer}");
        answer
    }

    /// A new key; its name.
    pub(crate) fn key(&self, kind: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("key-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        self.wish("create", json!({ "name": name, "kty": kind }));
        name
    }

    pub(crate) fn token(&self, identity: &str) -> String {
        self.wish("token", json!({ "identity": identity }))["access_token"].as_str().expect("a token").to_owned()
    }

    /// A file that holds `text`.
    pub(crate) fn file(&self, text: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = self.folder.path().join(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    pub(crate) fn uri(&self, key: &str, options: &str) -> String {
        let host = self.address.strip_prefix("https://").expect("HTTPS");
        format!("azurekv://{host}/{key}?ca={}&rate=10000&{options}", self.ca)
    }

    pub(crate) fn kek(&self, key: &str, options: &str) -> AzureKek {
        AzureKek::from_uri(&self.uri(key, options), here()).expect("opened")
    }

    /// As somebody with a token of `identity`.
    pub(crate) fn kek_of(&self, key: &str, identity: &str) -> AzureKek {
        let file = self.file(&self.token(identity));
        self.kek(key, &format!("auth=token&token_file={file}"))
    }
}
