//! Access tokens, from wherever the configuration says.
//!
//! `gcp_auth` gets those of service accounts, of `gcloud` and of the metadata server. It repeats what fails up to four times
//! within a second; the layer's timeouts hold for it. It writes what a token service answered into its log, and that may
//! be the assertion that it was sent, so it works without one.

use super::config::GcpAuth;
use crate::credentials::SecretText;
use crate::http::is_loopback;
use crate::layer::{Again, Attempt, Failure};
use crate::per_process::PerProcess;
use gcp_auth::{ConfigDefaultCredentials, CustomServiceAccount, MetadataServiceAccount, TokenProvider};
use keyfold::{BoxFuture, Error, ErrorKind, KmsErrorKind, Result};
use serde::Deserialize;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use url::Url;
use zeroize::Zeroizing;

const SCOPES: &[&str] = &["https://www.googleapis.com/auth/cloudkms"];
/// Longest key file in bytes; Google's have about 2,400.
const MAX_FILE_LEN: u64 = 64 * 1024;
/// Where `gcloud auth application-default login` leaves its credentials, in the home folder.
const GCLOUD_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Access tokens from the host program. For identities that keyfold cannot get itself, such as those of workload identity
/// federation.
pub trait AccessTokens: Send + Sync {
    /// A token that is valid now, for the scope `cloudkms` or `cloud-platform`. Called before each request, inside a tokio
    /// runtime, so it should keep a token until shortly before its end. It can be dropped at any await.
    ///
    /// # Errors
    ///
    /// Any; [`Credentials`](KmsErrorKind::Credentials) where there is none to be had. Its text is shown and logged.
    fn token(&self) -> BoxFuture<'_, Result<SecretText>>;

    /// Google has refused `token`. The next call of [`token`](Self::token) follows at once and should return another.
    fn refused(&self, token: &SecretText) {
        let _ = token;
    }
}

pub(super) struct Tokens {
    auth: GcpAuth,
    /// Held while a token is fetched, so that however many threads wait there is one request.
    provider: PerProcess<Mutex<Option<Arc<dyn TokenProvider>>>>,
}

impl Tokens {
    pub(super) const fn new(auth: GcpAuth) -> Self {
        Self { auth, provider: PerProcess::new() }
    }

    /// A token that should be valid.
    pub(super) async fn token(&self) -> Attempt<SecretText> {
        match &self.auth {
            GcpAuth::Token(source) => Ok(source.read()?),
            GcpAuth::Host(host) => Ok(host.token().await?),
            GcpAuth::Default | GcpAuth::Metadata | GcpAuth::ServiceAccount(_) => {
                let provider = self.provider();
                let mut slot = provider.lock().await;
                let current = match slot.take() {
                    Some(current) => current,
                    None => self.make().with_subscriber(NoSubscriber::default()).await?,
                };
                let token = current.token(SCOPES).with_subscriber(NoSubscriber::default()).await;
                *slot = Some(current);
                Ok(SecretText::new(token.map_err(|error| refusal(&error))?.as_str()))
            }
        }
    }

    /// Notes that Google has refused `token`.
    pub(super) async fn refused(&self, token: &SecretText) {
        match &self.auth {
            GcpAuth::Token(_) => {}
            GcpAuth::Host(host) => host.refused(token),
            GcpAuth::Default | GcpAuth::Metadata | GcpAuth::ServiceAccount(_) => {
                let provider = self.provider();
                let mut slot = provider.lock().await;
                if let Some(current) = slot.take() {
                    // Another thread may have got a new one meanwhile. This one is kept by the provider, so no request is made.
                    let newest = current.token(SCOPES).with_subscriber(NoSubscriber::default()).await;
                    if newest.is_ok_and(|newest| newest.as_str() != token.expose()) {
                        *slot = Some(current);
                    }
                }
            }
        }
    }

    fn provider(&self) -> Arc<Mutex<Option<Arc<dyn TokenProvider>>>> {
        let Ok(provider) = self.provider.get(|| Ok::<_, Infallible>(Mutex::new(None)));
        provider
    }

    async fn make(&self) -> Attempt<Arc<dyn TokenProvider>> {
        let given = match &self.auth {
            GcpAuth::ServiceAccount(path) => Some(path.clone()),
            GcpAuth::Default => std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            _ => None,
        };
        if let Some(path) = given {
            return service_account(&path);
        }
        let has_file = || std::env::home_dir().is_some_and(|home| home.join(GCLOUD_FILE).exists());
        if matches!(self.auth, GcpAuth::Default) && has_file() {
            return Ok(Arc::new(ConfigDefaultCredentials::new().await.map_err(|error| refusal(&error))?));
        }
        Ok(Arc::new(MetadataServiceAccount::new().await.map_err(|error| refusal(&error))?))
    }
}

/// What is looked at in a key file before `gcp_auth` reads it.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    sort: String,
    token_uri: Option<String>,
}

fn service_account(path: &Path) -> Attempt<Arc<dyn TokenProvider>> {
    let wrong = |kind, message, why: &str| {
        Failure::from(Error::new(kind, message).with_detail(format!("credentials from file {}{why}", path.display())))
    };
    let missing = |why: &str| wrong(ErrorKind::Kms(KmsErrorKind::Credentials), "the key file cannot be read", why);
    // Before it is opened: a pipe that nobody writes to must not hold up the thread that all key services share.
    let metadata = std::fs::metadata(path).map_err(|error| missing(&format!(": {error}")))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_LEN {
        return Err(missing(": not a regular file of at most 64 KiB"));
    }
    let file = File::open(path).map_err(|error| missing(&format!(": {error}")))?;
    // As long as it may get, because growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_LEN as usize + 1));
    file.take(MAX_FILE_LEN + 1).read_to_string(&mut text).map_err(|_| missing(": not text"))?;
    let misfit = |message| wrong(ErrorKind::Configuration, message, "");
    // Errors of the parsers would show what they stumbled upon.
    let parsed: KeyFile =
        serde_json::from_str(&text).map_err(|_| misfit("the credentials file is not one of Google's"))?;
    if parsed.sort != "service_account" {
        return Err(misfit(
            "the credentials file is not of a service account: for federated identities give keyfold tokens (token_file)",
        ));
    }
    let uri = parsed.token_uri.and_then(|uri| Url::parse(&uri).ok());
    if !uri.is_some_and(|uri| uri.scheme() == "https" || uri.scheme() == "http" && is_loopback(&uri)) {
        return Err(misfit("the credentials file sends its assertion to a token service without HTTPS"));
    }
    let account =
        CustomServiceAccount::from_json(&text).map_err(|_| misfit("the credentials file has no usable private key"))?;
    Ok(Arc::new(account))
}

/// Sorts an error of `gcp_auth` by its kind: its text may be what a token service wrote.
fn refusal(error: &gcp_auth::Error) -> Failure {
    match error {
        gcp_auth::Error::Http(..) | gcp_auth::Error::Other(..) => Failure::new(
            KmsErrorKind::Unavailable,
            "no access token: the token service or metadata server cannot be reached",
        ),
        gcp_auth::Error::Json(..) => {
            Failure::malformed("no access token: the token service or credentials file does not follow its protocol")
        }
        _ => {
            Failure::new(KmsErrorKind::Credentials, "no access token: Google refused the credentials").again(Again::No)
        }
    }
}
