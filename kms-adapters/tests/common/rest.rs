//! The adapters that speak REST, as the tests that they share see them. A new one gets them all by a row in [`providers`].

use super::here;
use super::server::{Reply, Seen, Server, data};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use keyfold::{Kms, WrappedKey};
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

/// A KEK of any adapter.
pub(crate) trait Kek: Kms + Debug {}

impl<T: Kms + Debug> Kek for T {}

/// One adapter. Every answer here is one to `unwrap` of [`wrapped`](Self::wrapped).
#[derive(Clone, Copy)]
pub(crate) struct Provider {
    /// As `kms_faults.json` calls it.
    pub(crate) name: &'static str,
    /// The URI of a KEK at `http://…` or `https://…`, but for its credentials and limits.
    uri: fn(&str) -> String,
    /// The option that names the file with the credentials, and what stands in it.
    pub(crate) credentials: (&'static str, &'static str),
    open: fn(&str, Duration) -> Box<dyn Kek>,
    /// What a record holds that this KEK wrapped.
    pub(crate) wrapped: fn() -> WrappedKey,
    /// Whether a request is the operation itself; others are asked before it.
    pub(crate) is_operation: fn(&Seen) -> bool,
    /// What is answered to those others.
    pub(crate) before: fn() -> Reply,
    /// A good answer that holds the payload; the server's own `HOST` is put in.
    pub(crate) good: fn(&[u8]) -> Value,
    /// Where the payload stands in it, as a JSON pointer.
    pub(crate) payload_at: &'static str,
    /// Where the name of the key stands, and names that are none of ours.
    pub(crate) foreign: Option<(&'static str, &'static [&'static str])>,
    /// How often in two attempts the operation is asked for after a 401.
    pub(crate) asked_after_401: usize,
}

/// A KEK with its credentials, which end with it.
pub(crate) struct Opened {
    pub(crate) kek: Box<dyn Kek>,
    _credentials: tempfile::NamedTempFile,
}

impl Provider {
    /// The KEK at `endpoint`, with two attempts and this deadline.
    pub(crate) fn kek(&self, endpoint: &str, deadline: Duration, options: &str) -> Opened {
        let (option, text) = self.credentials;
        let credentials = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(credentials.path(), text).expect("written");
        let uri = format!("{}&attempts=2&{option}={}{options}", (self.uri)(endpoint), credentials.path().display());
        Opened { kek: (self.open)(&uri, deadline), _credentials: credentials }
    }

    /// Answers as the service does, and `reply` to the operation.
    pub(crate) fn answer(&self, reply: Reply) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
        let (is_operation, before) = (self.is_operation, self.before);
        move |seen| if is_operation(seen) { at_host(&reply, seen) } else { before() }
    }

    pub(crate) fn serve(&self, reply: Reply) -> Server {
        Server::start(self.answer(reply))
    }

    /// How often the operation was asked for.
    pub(crate) fn asked(&self, server: &Server) -> usize {
        server.seen().iter().filter(|seen| (self.is_operation)(seen)).count()
    }

    /// A good answer, with `payload` in it.
    pub(crate) fn good_reply(&self, payload: &[u8]) -> Reply {
        Reply::json(200, (self.good)(payload).to_string())
    }
}

/// The file's names, in the place of which a server has its own.
fn at_host(reply: &Reply, seen: &Seen) -> Reply {
    let host =
        seen.headers.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
    let host = host.unwrap_or_default();
    match reply {
        Reply::Http { status, headers, body } => Reply::Http {
            status: *status,
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), value.replace("VAULT-DOMAIN.example", "vault.azure.net")))
                .collect(),
            body: body.replace("VAULT.example", host.trim()),
        },
        other => other.clone(),
    }
}

/// Every adapter of this build that speaks REST.
pub(crate) fn providers() -> Vec<Provider> {
    vec![
        #[cfg(feature = "aws")]
        AWS,
        #[cfg(feature = "azure")]
        AZURE,
        #[cfg(feature = "gcp")]
        GCP,
        #[cfg(feature = "vault")]
        VAULT,
    ]
}

/// The key that kms_faults.json answers for.
#[cfg(feature = "aws")]
const AWS_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

#[cfg(feature = "aws")]
const AWS: Provider = Provider {
    name: "aws",
    uri: |endpoint| format!("awskms://{AWS_KEY}?endpoint={endpoint}&profile=service"),
    credentials: (
        "credentials_file",
        "[service]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI-CANARY-0001\n",
    ),
    open: |uri, deadline| {
        let kek = keyfold_kms::aws::AwsKek::from_uri(uri, here()).expect("opened");
        Box::new(kek.with_deadline(deadline).expect("a deadline"))
    },
    wrapped: || WrappedKey { kek_version: AWS_KEY.to_owned(), bytes: vec![7; 150] },
    is_operation: |_| true,
    before: || Reply::json(200, "{}"),
    good: |payload| json!({ "KeyId": AWS_KEY, "Plaintext": BASE64.encode(payload) }),
    payload_at: "/Plaintext",
    foreign: Some((
        "/KeyId",
        &[
            "alias/clinic",
            "arn:aws:kms:us-east-1:999999999999:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws:kms:us-east-1:111122223333:key/another",
        ],
    )),
    asked_after_401: 1,
};

#[cfg(feature = "azure")]
const AZURE_VERSION: &str = "0123456789abcdef0123456789abcdef";

#[cfg(feature = "azure")]
const AZURE: Provider = Provider {
    name: "azure",
    uri: |endpoint| {
        let (scheme, host) = endpoint.split_once("://").expect("a scheme");
        let tls = if scheme == "http" { "&tls=off" } else { "" };
        format!("azurekv://{host}/patient-kek?auth=token&resource=https://vault.azure.net{tls}")
    },
    credentials: ("token_file", "eyJ.CANARY-token-0002"),
    open: |uri, deadline| {
        let kek = keyfold_kms::azure::AzureKek::from_uri(uri, here()).expect("opened");
        Box::new(kek.with_deadline(deadline).expect("a deadline"))
    },
    wrapped: || WrappedKey { kek_version: format!("patient-kek/{AZURE_VERSION}"), bytes: vec![7; 256] },
    is_operation: |seen| {
        seen.headers.to_ascii_lowercase().lines().any(|line| line.starts_with("authorization: bearer"))
    },
    before: || azure_challenge("https://vault.azure.net"),
    good: |payload| {
        let kid = format!("https://VAULT.example/keys/patient-kek/{AZURE_VERSION}");
        json!({ "kid": kid, "value": BASE64URL_NOPAD.encode(payload) })
    },
    payload_at: "/value",
    foreign: Some((
        "/kid",
        &[
            "https://VAULT.example/keys/other/0123456789abcdef0123456789abcdef",
            "https://VAULT.example/keys/patient-kek/1123456789abcdef0123456789abcdef",
            "https://VAULT.example/keys/patient-kek",
            "https://evil.example/keys/patient-kek/0123456789abcdef0123456789abcdef",
            "https://VAULT.example/secrets/patient-kek/0123456789abcdef0123456789abcdef",
        ],
    )),
    asked_after_401: 2,
};

/// A vault that says whose tokens it takes.
#[cfg(feature = "azure")]
pub(crate) fn azure_challenge(resource: &str) -> Reply {
    let header = format!("Bearer authorization=\"https://login.microsoftonline.com/t\", resource=\"{resource}\"");
    Reply::Http { status: 401, headers: vec![("www-authenticate".to_owned(), header)], body: String::new() }
}

#[cfg(feature = "gcp")]
const GCP_KEY: &str = "projects/p/locations/global/keyRings/r/cryptoKeys/k";

#[cfg(feature = "gcp")]
const GCP: Provider = Provider {
    name: "gcp",
    uri: |endpoint| format!("gcpkms://{GCP_KEY}?endpoint={endpoint}"),
    credentials: ("token_file", "ya29.CANARY-token-0003"),
    open: |uri, deadline| {
        let kek = keyfold_kms::gcp::GcpKek::from_uri(uri, here()).expect("opened");
        Box::new(kek.with_deadline(deadline).expect("a deadline"))
    },
    wrapped: || WrappedKey { kek_version: format!("{GCP_KEY}/cryptoKeyVersions/3"), bytes: vec![7; 97] },
    is_operation: |_| true,
    before: || Reply::json(200, "{}"),
    good: |payload| json!({ "plaintext": BASE64.encode(payload), "plaintextCrc32c": crc32c::crc32c(payload).to_string() }),
    payload_at: "/plaintext",
    // An answer names no key: the service finds it by the ciphertext. The checksums have tests of their own.
    foreign: None,
    asked_after_401: 2,
};

#[cfg(feature = "vault")]
const VAULT: Provider = Provider {
    name: "vault",
    uri: |endpoint| {
        let (scheme, host) = endpoint.split_once("://").expect("a scheme");
        let tls = if scheme == "http" { "&tls=off" } else { "" };
        format!("vault://{host}/transit/k?auth=token{tls}")
    },
    credentials: ("token_file", "s.CANARYTOKENvalue0004"),
    open: |uri, deadline| {
        let kek = keyfold_kms::vault::VaultKek::from_uri(uri, here()).expect("opened");
        Box::new(kek.with_deadline(deadline).expect("a deadline"))
    },
    wrapped: || WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] },
    is_operation: |seen| seen.line.contains("/transit/"),
    // Its tokens cannot be renewed.
    before: || Reply::json(400, r#"{"errors":["lease is not renewable"]}"#),
    good: |payload| json!({ "request_id": "id-1", "data": { "plaintext": BASE64.encode(payload) } }),
    payload_at: "/data/plaintext",
    // An answer names no key.
    foreign: None,
    asked_after_401: 1,
};

/// The key file of a service account of Google, whose token service is `token_uri`.
pub(crate) fn account(token_uri: &str) -> String {
    let key = std::fs::read_to_string(data("service-account-key.pem")).expect("a key");
    json!({ "type": "service_account", "client_email": "a@clinic.example", "private_key": key, "token_uri": token_uri })
        .to_string()
}
