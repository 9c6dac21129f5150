//! Access tokens, from wherever the configuration says.
//!
//! Service accounts, users of `gcloud` and the metadata server need one request each, which goes out by our own client: its
//! limits hold for what comes back, and nothing is logged. `gcp_auth` reads private keys and signs with them.

use super::config::GcpAuth;
use crate::credentials::{SecretText, read_file};
use crate::http::{Http, Request, is_loopback, login_outage};
use crate::layer::{Attempt, Failure};
use crate::per_process::PerProcess;
use data_encoding::BASE64URL_NOPAD;
use gcp_auth::CustomServiceAccount;
use keyfold::{BoxFuture, Error, ErrorKind, KmsErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

const SCOPE: &str = "https://www.googleapis.com/auth/cloudkms";
/// Longest life of a token that is believed, and of an assertion that is signed. Google's have an hour.
const MAX_LIFE: Duration = Duration::from_secs(3600);
/// A token is replaced so long before its end. The metadata server gives a new one five minutes before.
const MARGIN: Duration = Duration::from_secs(60);
/// Where `gcloud auth application-default login` leaves its credentials, in the home folder.
const GCLOUD_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Who gives tokens, where no file says so.
struct Places {
    /// By its number, which no name service can lead astray.
    metadata: &'static str,
    users: &'static str,
}

const GOOGLE: Places = Places { metadata: "http://169.254.169.254", users: "https://oauth2.googleapis.com/token" };

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
    login: Arc<Http>,
    places: Places,
    /// Held while a token is fetched, so that however many threads wait there is one request.
    current: PerProcess<Mutex<Option<Token>>>,
}

struct Token {
    text: SecretText,
    replace_at: Instant,
}

/// What a token service or the metadata server answers.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    expires_in: u64,
}

impl Tokens {
    /// Tokens for `auth`, asked for by `login`.
    pub(super) const fn new(auth: GcpAuth, login: Arc<Http>) -> Self {
        Self { auth, login, places: GOOGLE, current: PerProcess::new() }
    }

    /// A token that should be valid.
    pub(super) async fn token(&self) -> Attempt<SecretText> {
        match &self.auth {
            GcpAuth::Token(source) => Ok(source.read()?),
            GcpAuth::Host(host) => Ok(host.token().await?),
            GcpAuth::Default | GcpAuth::Metadata | GcpAuth::ServiceAccount(_) => {
                let current = self.current();
                let mut current = current.lock().await;
                if let Some(token) = current.as_ref().filter(|token| Instant::now() < token.replace_at) {
                    return Ok(token.text.clone());
                }
                let token = self.fetch().await?;
                Ok(current.insert(token).text.clone())
            }
        }
    }

    /// Notes that Google has refused `token`.
    pub(super) async fn refused(&self, token: &SecretText) {
        match &self.auth {
            GcpAuth::Token(_) => {}
            GcpAuth::Host(host) => host.refused(token),
            GcpAuth::Default | GcpAuth::Metadata | GcpAuth::ServiceAccount(_) => {
                let current = self.current();
                // Another thread may have got a new one meanwhile.
                current.lock().await.take_if(|current| current.text.expose() == token.expose());
            }
        }
    }

    fn current(&self) -> Arc<Mutex<Option<Token>>> {
        let Ok(current) = self.current.get(|| Ok::<_, Infallible>(Mutex::new(None)));
        current
    }

    async fn fetch(&self) -> Attempt<Token> {
        let answer = self.login.send(self.request()?, None).await?;
        if answer.status != 200 {
            return Err(login_outage(answer.status, answer.retry_after()).unwrap_or_else(|| {
                let message = "no access token: Google refused the credentials";
                Failure::new(KmsErrorKind::Credentials, message).detail(format!("status {}", answer.status))
            }));
        }
        let Answer { access_token, expires_in } = answer.json()?;
        let life = Duration::from_secs(expires_in).min(MAX_LIFE);
        Ok(Token { text: SecretText::new(access_token), replace_at: Instant::now() + life.saturating_sub(MARGIN) })
    }

    /// What to ask for a token, and whom. Files are read anew each time.
    fn request(&self) -> Attempt<Request> {
        let given = match &self.auth {
            GcpAuth::ServiceAccount(path) => Some(path.clone()),
            GcpAuth::Default => std::env::var_os("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from),
            _ => None,
        };
        if let Some(path) = given {
            return service_account(&path);
        }
        let gcloud = || std::env::home_dir().map(|home| home.join(GCLOUD_FILE)).filter(|file| file.exists());
        if matches!(self.auth, GcpAuth::Default)
            && let Some(path) = gcloud()
        {
            return user(&path, self.places.users);
        }
        let path = "computeMetadata/v1/instance/service-accounts/default/token";
        Request::login(address(&format!("{}/{path}", self.places.metadata))?).header("metadata-flavor", "Google")
    }
}

fn address(text: &str) -> Attempt<Url> {
    Url::parse(text).map_err(|_| Failure::configuration("the address of a token service cannot be used"))
}

/// What is used of a key file. `gcp_auth` reads the private key.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    sort: String,
    client_email: Option<String>,
    token_uri: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
}

/// The request for a token of the service account whose key file is `path`: RFC 7523 §2.1.
fn service_account(path: &Path) -> Attempt<Request> {
    let text = read_file(path)?;
    let misfit = |message| misfit(path, message);
    let file: KeyFile = parse(path, &text)?;
    if file.sort != "service_account" {
        return Err(misfit(
            "the credentials file is not of a service account: for federated identities give keyfold tokens (token_file)",
        ));
    }
    let (Some(issuer), Some(service)) = (&file.client_email, &file.token_uri) else {
        return Err(misfit("the credentials file lacks the address of the account or of its token service"));
    };
    let url =
        Url::parse(service).ok().filter(|url| url.scheme() == "https" || url.scheme() == "http" && is_loopback(url));
    let url = url.ok_or_else(|| misfit("the credentials file sends its assertion to a token service without HTTPS"))?;
    let unusable = || misfit("the credentials file has no usable private key");
    let account = CustomServiceAccount::from_json(&text).map_err(|_| unusable())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = Claims { iss: issuer, aud: service, scope: SCOPE, iat: now, exp: now + MAX_LIFE.as_secs() };
    let claims = serde_json::to_vec(&claims).map_err(|error| {
        Error::new(ErrorKind::Internal, "an assertion cannot be written as JSON").with_source(error)
    })?;
    let head = BASE64URL_NOPAD.encode(br#"{"alg":"RS256","typ":"JWT"}"#);
    let signed = format!("{head}.{}", BASE64URL_NOPAD.encode(&claims));
    let signature = account.signer().sign(signed.as_bytes()).map_err(|_| unusable())?;
    let assertion = Zeroizing::new(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)));
    Ok(Request::post(url)
        .form(form(&[("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", &assertion)])))
}

/// What is used of a file of `gcloud auth application-default login`.
#[derive(Deserialize)]
struct UserFile<'a> {
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    #[serde(borrow)]
    client_secret: Cow<'a, str>,
    #[serde(borrow)]
    refresh_token: Cow<'a, str>,
}

/// The request for a token of the user of `gcloud` whose file is `path`: RFC 6749 §6.
fn user(path: &Path, service: &str) -> Attempt<Request> {
    let text = read_file(path)?;
    let UserFile { client_id, client_secret, refresh_token } = parse(path, &text)?;
    Ok(Request::post(address(service)?).form(form(&[
        ("grant_type", "refresh_token"),
        ("client_id", &client_id),
        ("client_secret", &client_secret),
        ("refresh_token", &refresh_token),
    ])))
}

fn form(pairs: &[(&str, &str)]) -> Zeroizing<String> {
    Zeroizing::new(Serializer::new(String::new()).extend_pairs(pairs).finish())
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Attempt<T> {
    // The error would show what it stumbled upon.
    serde_json::from_str(text).map_err(|_| misfit(path, "the credentials file is not one of Google's"))
}

fn misfit(path: &Path, message: &'static str) -> Failure {
    let error = Error::new(ErrorKind::Configuration, message);
    error.with_detail(format!("credentials from file {}", path.display())).into()
}

#[cfg(test)]
mod tests;
