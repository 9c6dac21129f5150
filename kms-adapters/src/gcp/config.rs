//! Which CryptoKey, and whose identity.

use super::tokens::AccessTokens;
use crate::credentials::SecretSource;
use crate::http::is_loopback;
use crate::layer::Limits;
use crate::uri::KekUri;
use keyfold::{Error, ErrorKind, Result, WrappedKey};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

const FORM: &str = "gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?…";
const ENDPOINT: &str = "https://cloudkms.googleapis.com";
/// Between the name of a key and the number of its version.
pub(super) const VERSIONS: &str = "/cryptoKeyVersions/";
/// Longest name of a key, so that its version fits into a record with it.
const MAX_KEY_LEN: usize = WrappedKey::MAX_VERSION_LEN - VERSIONS.len() - 10;

/// Where access tokens come from.
#[non_exhaustive]
#[derive(Clone)]
pub enum GcpAuth {
    /// Application default credentials: the service account in the file that `GOOGLE_APPLICATION_CREDENTIALS` names,
    /// otherwise what `gcloud auth application-default login` left, otherwise the metadata server. The `gcloud` command is
    /// never run.
    Default,
    /// The metadata server of Compute Engine, GKE and Cloud Run alone.
    Metadata,
    /// The key file of a service account, read at the first use and when Google refuses its tokens.
    ServiceAccount(PathBuf),
    /// A token that somebody else keeps fresh, such as an agent beside the service. Read before each request.
    Token(SecretSource),
    /// The host program, for example by workload identity federation.
    Host(Arc<dyn AccessTokens>),
}

impl fmt::Debug for GcpAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("Default"),
            Self::Metadata => f.write_str("Metadata"),
            Self::ServiceAccount(path) => f.debug_tuple("ServiceAccount").field(path).finish(),
            Self::Token(source) => f.debug_tuple("Token").field(source).finish(),
            Self::Host(_) => f.write_str("Host(…)"),
        }
    }
}

/// A key of Cloud KMS.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct GcpConfig {
    /// `projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY`, the project by its ID.
    pub key: String,
    /// Where access tokens come from.
    pub auth: GcpAuth,
    /// `https://HOST`, or `http://` with a loopback address.
    pub endpoint: Url,
    /// A PEM file with the CA to trust in place of the system's, for Cloud KMS; Google's token service is always checked
    /// against the system's.
    pub ca: Option<PathBuf>,
    /// Deadline, attempts, rate.
    pub limits: Limits,
}

impl GcpConfig {
    /// The key `key` at Google's global endpoint, with the system's CAs and the usual limits.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): `key` is not the name of a CryptoKey.
    pub fn new(key: &str, auth: GcpAuth) -> Result<Self> {
        let endpoint = Url::parse(ENDPOINT).map_err(|_| wrong("the endpoint of Cloud KMS is a URL", ENDPOINT))?;
        let config = Self { key: key.to_owned(), auth, endpoint, ca: None, limits: Limits::default() };
        config.check()?;
        Ok(config)
    }

    /// The key that `uri` names:
    /// `gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?OPTION=VALUE&…`. Paths are relative to
    /// `folder`.
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `credentials_file` | the key file of a service account |
    /// | `token_file`, `token_env` | where somebody else keeps an access token fresh |
    /// | `auth` | where neither is given: `default` (application default credentials) or `metadata` |
    /// | `endpoint` | another endpoint, such as `https://cloudkms.europe-west3.rep.googleapis.com` |
    /// | `ca` | a PEM file with the CA to trust in place of the system's |
    /// | `timeout`, `attempts`, `rate` | limits: see [`Limits`] |
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names what is wrong, never a credential.
    // KC-37.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        let mut uri = KekUri::parse(uri, "gcpkms", folder)?;
        let places = (uri.take_path("credentials_file"), uri.take_secret("token")?, uri.take("auth"));
        let auth = match places {
            (Some(path), None, None) => GcpAuth::ServiceAccount(path),
            (None, Some(source), None) => GcpAuth::Token(source),
            (None, None, auth) => match auth.as_deref() {
                None | Some("default") => GcpAuth::Default,
                Some("metadata") => GcpAuth::Metadata,
                Some(_) => return Err(wrong("the option auth of the KEK is default or metadata", FORM)),
            },
            _ => {
                return Err(wrong(
                    "a KEK has one of the options credentials_file, token_file, token_env and auth",
                    FORM,
                ));
            }
        };
        let mut config = Self::new(&uri.address, auth)?;
        if let Some(endpoint) = uri.take("endpoint") {
            config.endpoint = Url::parse(&endpoint).map_err(|_| wrong("the endpoint of a KEK is a URL", FORM))?;
        }
        config.ca = uri.take_path("ca");
        config.limits = uri.take_limits()?;
        uri.finish()?;
        config.check()?;
        Ok(config)
    }

    /// Checks names and endpoint.
    pub(super) fn check(&self) -> Result<()> {
        let parts: Vec<&str> = self.key.split('/').collect();
        let allowed = |part: &str, more: &[u8]| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b))
        };
        let is_key = matches!(parts[..], ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key]
            // A project of an organisation may be called `example.com:project`.
            if allowed(project, b".:") && allowed(location, b"") && allowed(ring, b"_") && allowed(key, b"_"));
        if !is_key || self.key.contains("..") || self.key.len() > MAX_KEY_LEN {
            return Err(wrong("the KEK is named as a CryptoKey, without a version, in at most 226 bytes", FORM));
        }
        let endpoint = &self.endpoint;
        let is_bare = endpoint.host().is_some()
            && matches!(endpoint.path(), "" | "/")
            && endpoint.query().is_none()
            && endpoint.fragment().is_none()
            && endpoint.username().is_empty()
            && endpoint.password().is_none();
        if !is_bare || !(endpoint.scheme() == "https" || endpoint.scheme() == "http" && is_loopback(endpoint)) {
            return Err(wrong("the endpoint of a KEK is https://HOST, or http:// with a loopback address", FORM));
        }
        self.limits.check()
    }

    /// The URL of a method of the key.
    pub(super) fn url(&self, method: &str) -> Url {
        self.path(&format!(":{method}"))
    }

    /// The URL of the key itself.
    pub(super) fn key_url(&self) -> Url {
        self.path("")
    }

    fn path(&self, rest: &str) -> Url {
        let mut url = self.endpoint.clone();
        // The name was checked: it holds nothing that a URL would read otherwise.
        url.set_path(&format!("v1/{}{rest}", self.key));
        url
    }
}

/// Key and, where it is not Google's usual one, endpoint: for errors and logs.
impl fmt::Display for GcpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gcpkms://{}", self.key)?;
        match self.endpoint.as_str().trim_end_matches('/') {
            ENDPOINT => Ok(()),
            other => write!(f, " at {other}"),
        }
    }
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}
