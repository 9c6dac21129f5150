//! KEKs in the transit engine of HashiCorp Vault and OpenBao: `vault://HOST:8200/MOUNT/KEY?…`.
//!
//! The key must be **derived** (`derived=true`): then the service authenticates the context, which it is given as
//! base64(SHA-256(canonical context)). A key that is not derived would silently ignore it, so such a key is refused before
//! the first wrap; where the key's first version is retired, once the first wrap has shown the present one, and that wrap is
//! thrown away. The look also keeps a token with the `create` capability from making a key by encrypting under an unknown name.
//!
//! A wrapped key is the service's ciphertext `vault:vN:BASE64` in parts: `N` is the KEK version, the decoded rest are the
//! bytes. So no spelling but one opens, though the service itself reads several.
//!
//! Capabilities that a service needs: `update` on `MOUNT/encrypt/KEY` and `MOUNT/decrypt/KEY`. docs/kms/vault.md has the set-up.

mod config;
mod examine;
mod session;
mod table;

pub use config::{VaultAuth, VaultConfig};
pub use table::TABLE;

use crate::examine::{Finding, Profile};
use crate::http::{Http, Request, Response, decode_payload};
use crate::layer::{Adapter, Again, Attempt, Failure, Layered, sort};
use crate::per_process::PerProcess;
use data_encoding::BASE64;
use keyfold::{
    BoxFuture, ErrorKind, KmsContext, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use serde::{Deserialize, Serialize};
use session::Session;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

/// A KEK in Vault or OpenBao.
///
/// # Examples
///
/// ```
/// use keyfold_kms::vault::VaultKek;
///
/// let uri = "vault://vault.hospital.example/transit/patients?auth=kubernetes&role=intake&ca=vault-ca.pem";
/// # let folder = tempfile::tempdir().unwrap();
/// # let uri = uri.split("&ca=").next().unwrap();
/// let kek = VaultKek::from_uri(uri, folder.path())?; // Calls nobody yet.
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type VaultKek = Layered<Transit>;

/// One key of a transit engine, without the layer: see [`VaultKek`].
pub struct Transit {
    config: VaultConfig,
    label: String,
    http: Http,
    state: PerProcess<State>,
}

#[derive(Default)]
struct State {
    /// Held during a login, so that however many threads wait there is one.
    session: Mutex<Option<Session>>,
    /// Whether the key was found to bind the context.
    is_derived: AtomicBool,
}

impl VaultKek {
    /// The KEK that `config` names. Calls nobody yet.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): a name or limit is not allowed, or the CA cannot be used.
    pub fn open(config: VaultConfig) -> Result<Self> {
        config.check()?;
        let http = Http::new(config.ca.as_deref())?;
        let limits = config.limits;
        Self::new(Transit { label: config.to_string(), config, http, state: PerProcess::new() }, limits)
    }

    /// The KEK that `uri` names: see [`VaultConfig::from_uri`].
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): as for [`open`](Self::open), or the URI is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        Self::open(VaultConfig::from_uri(uri, folder)?)
    }

    /// Has the service wrap again, under the current version of the KEK, what it wrapped under an older one. The payload
    /// never leaves it. Needs `update` on `MOUNT/rewrap/KEY`.
    ///
    /// # Errors
    ///
    /// As for [`Kms::unwrap`](keyfold::Kms::unwrap).
    pub async fn rewrap(&self, wrapped: &WrappedKey, context: &KmsContext) -> Result<WrappedKey> {
        let job = Arc::new((wrapped.clone(), context.clone()));
        self.perform(None, move |transit, trace| {
            let job = Arc::clone(&job);
            Box::pin(async move {
                let body = Body { ciphertext: Some(&ciphertext(&job.0)?), ..Body::new(&job.1) };
                transit.call("rewrap", &body, Some(trace)).await.and_then(|answer| wrapped_key(&answer))
            })
        })
        .await
    }
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

impl Body<'_> {
    fn new(context: &KmsContext) -> Self {
        Self { plaintext: None, ciphertext: None, context: Some(BASE64.encode(&Sha256::digest(context.canonical()))) }
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Ciphertext<'a> {
    ciphertext: &'a str,
}

#[derive(Deserialize)]
struct Plaintext<'a> {
    plaintext: &'a str,
}

#[derive(Deserialize)]
struct Named {
    request_id: Option<String>,
}

#[derive(Default, Deserialize)]
struct Errors {
    errors: Vec<String>,
}

impl Transit {
    fn state(&self) -> Arc<State> {
        let Ok(state) = self.state.get(|| Ok::<_, Infallible>(State::default()));
        state
    }

    /// Calls `operation` on the key, with a token.
    async fn call(&self, operation: &str, body: &Body<'_>, trace: Option<&KmsTrace>) -> Attempt<Response> {
        let url = self.config.url([self.config.mount.as_str(), operation, self.config.key.as_str()]);
        self.ask(self.request(url)?.json(body)?, trace).await
    }

    async fn ask(&self, request: Request, trace: Option<&KmsTrace>) -> Attempt<Response> {
        let state = self.state();
        let token = self.token(&state.session, trace).await?;
        let result = self.send(request.secret_header("x-vault-token", "", &token)?, trace).await;
        if matches!(&result, Err(failure) if failure.again == Again::WithNewCredentials) {
            let mut session = state.session.lock().await;
            // Another thread may have got a new one meanwhile.
            if session.as_ref().is_some_and(|session| session.token.expose() == token.expose()) {
                *session = None;
            }
        }
        result
    }

    fn request(&self, url: Url) -> Attempt<Request> {
        self.with_headers(Request::post(url))
    }

    fn with_headers(&self, request: Request) -> Attempt<Request> {
        // What an agent in between may ask for, to tell requests from those that a web page was tricked into.
        let request = request.header("x-vault-request", "true")?;
        match &self.config.namespace {
            Some(namespace) => request.header("x-vault-namespace", namespace),
            None => Ok(request),
        }
    }

    /// Sends, notes the request ID, and sorts every answer but a good one.
    async fn send(&self, request: Request, trace: Option<&KmsTrace>) -> Attempt<Response> {
        let answer = self.http.send(request, trace).await?;
        if let Ok(Named { request_id: Some(id) }) = answer.json() {
            answer.note_id(trace, &id);
        }
        if answer.status == 200 {
            return Ok(answer);
        }
        let Errors { errors } = answer.json().unwrap_or_default();
        Err(sort(TABLE, answer.status, "", &errors.join("; ")).retry_after(answer.retry_after()))
    }

    /// Makes sure, once per process, that the key is there and derived. Asks `version` of it for something that only such a key
    /// refuses with the words that it lacks a context; there is no request by which it could be made or used.
    async fn look_at(&self, version: &str, trace: Option<&KmsTrace>) -> Attempt<Seen> {
        let state = self.state();
        if state.is_derived.load(Ordering::Acquire) {
            return Ok(Seen::Enough);
        }
        let body = Body { plaintext: None, ciphertext: Some(&format!("vault:v{version}:AAAA")), context: None };
        match self.call("decrypt", &body, trace).await.map(drop) {
            Err(failure) if failure.is(table::LACKS_CONTEXT) => {
                state.is_derived.store(true, Ordering::Release);
                Ok(Seen::Enough)
            }
            Err(failure) if failure.is(table::VERSION_RETIRED) => Ok(Seen::Retired(failure)),
            // An identity that may only encrypt, such as that of an audit KEK, cannot look.
            Err(failure) if failure.kind == ErrorKind::Kms(KmsErrorKind::AccessDenied) => Ok(Seen::Enough),
            Ok(()) | Err(Failure { kind: ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), .. }) => {
                Err(Failure::configuration(
                    "the transit key is not derived, so it would ignore the context: make one with derived=true",
                ))
            }
            Err(failure) => Err(failure),
        }
    }
}

/// What a look at the key showed.
enum Seen {
    /// It is derived, or this identity cannot look.
    Enough,
    /// It is there, and that version of it is retired: only one that is in use says whether it is derived.
    Retired(Failure),
}

impl Adapter for Transit {
    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            let seen = self.look_at("1", request.trace).await?;
            let mut plaintext = Zeroizing::new(String::with_capacity(BASE64.encode_len(64)));
            BASE64.encode_append(request.payload.expose(), &mut plaintext);
            let body = Body { plaintext: Some(&plaintext), ..Body::new(request.context) };
            let wrapped = wrapped_key(&self.call("encrypt", &body, request.trace).await?)?;
            if let Seen::Retired(_) = seen
                // Retired as well within this moment: what was wrapped would not open.
                && let Seen::Retired(failure) = self.look_at(&wrapped.kek_version, request.trace).await?
            {
                return Err(failure);
            }
            Ok(wrapped)
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        ciphertext(wrapped).map(drop)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            let body = Body { ciphertext: Some(&ciphertext(request.wrapped)?), ..Body::new(request.context) };
            let answer = self.call("decrypt", &body, request.trace).await?;
            decode_payload(answer.json::<Answer<Plaintext<'_>>>()?.data.plaintext, &BASE64)
        })
    }

    fn profile(&self) -> Profile {
        examine::profile(&self.config)
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        Box::pin(self.look(trace))
    }
}

/// The text that the service knows: `vault:vN:BASE64`. A version that is not a number is refused without asking.
fn ciphertext(wrapped: &WrappedKey) -> Attempt<String> {
    let version = &wrapped.kek_version;
    if version.parse::<u32>().ok().filter(|&number| number > 0).is_none_or(|number| number.to_string() != *version) {
        return Err(Failure::new(KmsErrorKind::InvalidCiphertext, "the wrapped key names no version of a transit key"));
    }
    Ok(format!("vault:v{version}:{}", BASE64.encode(&wrapped.bytes)))
}

fn wrapped_key(answer: &Response) -> Attempt<WrappedKey> {
    const WRONG: Failure = Failure::malformed("the key service returned no ciphertext of a transit key");
    let text = answer.json::<Answer<Ciphertext<'_>>>()?.data.ciphertext;
    let (version, text) = text.strip_prefix("vault:v").and_then(|rest| rest.split_once(':')).ok_or(WRONG)?;
    let bytes = BASE64.decode(text.as_bytes()).map_err(|_| WRONG)?;
    let wrapped = WrappedKey { kek_version: version.to_owned(), bytes };
    // What would be refused when it comes back must not be kept.
    ciphertext(&wrapped).map_err(|_| WRONG)?;
    Ok(wrapped)
}
