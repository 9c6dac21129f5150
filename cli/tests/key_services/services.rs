//! The key services, as their administrators see them: each makes a new key and says how a service reaches it.

use keyfold::{BoxFuture, Kms, Result, UnwrapRequest, WrapRequest};
use keyfold_kms::callback::CallbackKek;
use keyfold_kms::http::{Http, Request};
use keyfold_kms::layer::Limits;
use keyfold_kms::{LocalKek, aws, azure, gcp, pkcs11, vault};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const REGION: &str = "eu-central-1";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    Vault,
    Aws,
    Azure,
    Google,
    Pkcs11,
    /// A file: no service, and the default of `keyfold init`.
    Local,
    /// Functions of this program, which no URI names.
    Callback,
}

impl Service {
    /// What no URI names comes last: a keyring that a configuration describes begins with another one.
    pub(crate) const ALL: [Self; 7] =
        [Self::Vault, Self::Aws, Self::Azure, Self::Google, Self::Pkcs11, Self::Local, Self::Callback];

    /// The alias of its KEK, which no record of another one contains.
    pub(crate) fn alias(self) -> &'static str {
        match self {
            Self::Vault => "kek-vault",
            Self::Aws => "kek-aws",
            Self::Azure => "kek-azure",
            Self::Google => "kek-google",
            Self::Pkcs11 => "kek-hsm",
            Self::Callback => "kek-callback",
            Self::Local => "kek-local",
        }
    }

    /// The variable by which tests find its server.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Vault => Some("KEYFOLD_TEST_OPENBAO"),
            Self::Aws => Some("KEYFOLD_TEST_AWS"),
            Self::Azure => Some("KEYFOLD_TEST_AZURE"),
            Self::Google => Some("KEYFOLD_TEST_GOOGLE_KMS"),
            Self::Pkcs11 => Some("KEYFOLD_TEST_PKCS11_MODULE"),
            Self::Callback | Self::Local => None,
        }
    }

    /// Those whose servers are there; of each other one a line that says so.
    pub(crate) fn given() -> Vec<Self> {
        let is_there = |service: &Self| {
            let missing = service.variable().filter(|name| std::env::var_os(name).is_none());
            if let Some(variable) = missing {
                say(&format!("SKIPPED: {service:?}: {variable} names no server"));
            }
            missing.is_none()
        };
        Self::ALL.into_iter().filter(is_there).collect()
    }

    /// Makes a new key, and writes into `folder` what it takes to use it. The URI; empty for [`Callback`](Self::Callback).
    pub(crate) fn new_key(self, folder: &Path) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // As long as a name of a key has to be for tests that put something as long in its place.
        let name = format!("patients-of-the-clinic-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let write = |file: &str, text: &str| fs::write(folder.join(file), text).expect("written");
        match self {
            Self::Vault => {
                let (token, ca) = (variable("KEYFOLD_TEST_OPENBAO_TOKEN"), variable("KEYFOLD_TEST_OPENBAO_CA"));
                write("vault.token", &token);
                let address = variable("KEYFOLD_TEST_OPENBAO");
                let admin = |path: &str, body| {
                    post(&format!("{address}/v1/{path}"), &[("x-vault-token", &token)], Some(&ca), body)
                };
                // Fails where another test has mounted it.
                admin("sys/mounts/transit", json!({ "type": "transit" }));
                assert_eq!(admin(&format!("transit/keys/{name}"), json!({ "derived": true })).0, 200);
                let host = address.trim_start_matches("https://");
                format!("vault://{host}/transit/{name}?ca={ca}&token_file=vault.token&rate=10000")
            }
            Self::Aws => {
                let endpoint = variable("KEYFOLD_TEST_AWS");
                let headers = [("x-amz-target", "TrentService.CreateKey"), ("x-test-admin", REGION)];
                let arn = text(&post(&endpoint, &headers, None, json!({})).1["KeyMetadata"]["Arn"]);
                let credentials = variable("KEYFOLD_TEST_AWS_CREDENTIALS");
                format!("awskms://{arn}?endpoint={endpoint}&credentials_file={credentials}&profile=service&rate=10000")
            }
            Self::Azure => {
                let (address, control) = (variable("KEYFOLD_TEST_AZURE"), variable("KEYFOLD_TEST_AZURE_CONTROL"));
                let wish = |what: &str, body| post(&format!("{control}/_test/{what}"), &[], None, body).1;
                wish("create", json!({ "name": name, "kty": "RSA" }));
                write("azure.token", &text(&wish("token", json!({ "identity": "service" }))["access_token"]));
                let (host, ca) = (address.trim_start_matches("https://"), variable("KEYFOLD_TEST_AZURE_CA"));
                format!("azurekv://{host}/{name}?ca={ca}&auth=token&token_file=azure.token&rate=10000")
            }
            Self::Google => {
                let address = variable("KEYFOLD_TEST_GOOGLE_KMS");
                let wish = |what: &str, body| post(&format!("{address}/fake/{what}"), &[], None, body).1;
                let use_it = ["cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt"];
                write("google.token", &text(&wish("token", json!({ "permissions": use_it }))["token"]));
                let key = text(&wish("key", json!({}))["name"]);
                format!("gcpkms://{key}?endpoint={address}&token_file=google.token&rate=10000")
            }
            Self::Pkcs11 => {
                write("pin", &variable("KEYFOLD_TEST_PKCS11_PIN"));
                let module = variable("KEYFOLD_TEST_PKCS11_MODULE");
                format!("pkcs11://token=keyfold;object=kek?module-path={module}&pin_file=pin&rate=10000")
            }
            Self::Callback => {
                LocalKek::create(folder.join("callback.kek")).expect("made");
                String::new()
            }
            Self::Local => {
                LocalKek::create(folder.join("file.kek")).expect("made");
                "local:file.kek".to_owned()
            }
        }
    }

    /// The KEK that `uri` names, for a program that opens its keyring itself.
    pub(crate) fn open(self, uri: &str, folder: &Path) -> Arc<dyn Kms> {
        match self {
            Self::Vault => Arc::new(vault::VaultKek::from_uri(uri, folder).expect("opened")),
            Self::Aws => Arc::new(aws::AwsKek::from_uri(uri, folder).expect("opened")),
            Self::Azure => Arc::new(azure::AzureKek::from_uri(uri, folder).expect("opened")),
            Self::Google => Arc::new(gcp::GcpKek::from_uri(uri, folder).expect("opened")),
            Self::Pkcs11 => Arc::new(pkcs11::Pkcs11Kek::from_uri(uri, folder).expect("opened")),
            Self::Callback => Arc::new(callback(LocalKek::open(folder.join("callback.kek")).expect("opened"))),
            Self::Local => Arc::new(LocalKek::open(folder.join("file.kek")).expect("opened")),
        }
    }

    /// How many requests the server had from whomever; `None` where it does not count them.
    pub(crate) fn requests(self) -> Option<u64> {
        let count = |url: String, member: &str| {
            let answer = post(&url, &[], None, json!({})).1;
            Some(answer[member].as_u64().expect("a number"))
        };
        match self {
            Self::Aws => count(format!("{}/_test/calls", variable("KEYFOLD_TEST_AWS")), "calls"),
            Self::Azure => count(format!("{}/_test/calls", variable("KEYFOLD_TEST_AZURE_CONTROL")), "calls"),
            Self::Google => count(format!("{}/fake/seen", variable("KEYFOLD_TEST_GOOGLE_KMS")), "count"),
            Self::Vault | Self::Pkcs11 | Self::Callback | Self::Local => None,
        }
    }
}

/// A KEK behind functions of this program, which ask a KEK in a file.
fn callback(file: LocalKek) -> CallbackKek {
    let wraps = Arc::new(file);
    let unwraps = Arc::clone(&wraps);
    let mut limits = Limits::default();
    (limits.rate, limits.burst) = (10_000.0, 10_000);
    let kek = CallbackKek::blocking(
        "functions of the test",
        limits,
        move |payload, context| Ok(pollster::block_on(wraps.wrap(WrapRequest::new(payload, context)))?),
        move |wrapped, context| Ok(pollster::block_on(unwraps.unwrap(UnwrapRequest::new(wrapped, context)))?),
    );
    kek.expect("opened")
}

/// Servers count for all who ask, so one test uses them at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not by `println!`, which the test harness swallows where a test passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "\n{text}");
}

pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).expect("set together")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Status and answer.
pub(crate) fn post(url: &str, headers: &[(&'static str, &str)], ca: Option<&str>, body: Value) -> (u16, Value) {
    let request = headers
        .iter()
        .try_fold(Request::post(url.parse().expect("a URL")), |request, (name, value)| request.header(name, value));
    let request = request.and_then(|request| request.json(&body)).expect("a request");
    let http = Http::new(ca.map(Path::new)).expect("a client");
    let call: BoxFuture<'static, Result<(u16, Value)>> = Box::pin(async move {
        let answer = http.send(request, None).await.expect("an answer");
        Ok((answer.status, serde_json::from_slice(answer.body()).unwrap_or_default()))
    });
    keyfold_background::block(call).expect("an answer")
}
