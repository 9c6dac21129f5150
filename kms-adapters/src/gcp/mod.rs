//! KEKs in Google Cloud KMS: `gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY?…`.
//!
//! Google authenticates the context, which it is given as additional authenticated data. Everything that goes there and
//! comes back carries a CRC32C; where one is wrong or missing, nothing of the answer is used, and the attempt repeated.
//!
//! The KEK version of a wrapped key is the name of the CryptoKeyVersion that wrapped it. Unwrapping asks the CryptoKey, which
//! finds the version itself; a name of any other key is refused before anything is sent.
//!
//! Permissions that a service needs: `cloudkms.cryptoKeyVersions.useToEncrypt` and `.useToDecrypt` on the key, which is the
//! role `roles/cloudkms.cryptoKeyEncrypterDecrypter`. docs/kms/gcp.md has the set-up.

mod config;
mod examine;
mod table;
mod tokens;

pub use config::{GcpAuth, GcpConfig};
pub use table::TABLE;
pub use tokens::AccessTokens;

use crate::examine::{Finding, Profile};
use crate::http::{Http, Request, Response, decode_payload};
use crate::layer::{Adapter, Again, Attempt, Failure, Layered, sort};
use config::VERSIONS;
use data_encoding::BASE64;
use keyfold::{BoxFuture, KmsContext, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokens::Tokens;
use zeroize::Zeroizing;

/// A KEK in Google Cloud KMS.
///
/// # Examples
///
/// ```
/// use keyfold_kms::gcp::GcpKek;
/// use std::path::Path;
///
/// let uri = "gcpkms://projects/clinic/locations/europe-west3/keyRings/patients/cryptoKeys/kek?auth=metadata";
/// let kek = GcpKek::from_uri(uri, Path::new("."))?; // Calls nobody yet.
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type GcpKek = Layered<CloudKms>;

/// One CryptoKey, without the layer: see [`GcpKek`].
pub struct CloudKms {
    config: GcpConfig,
    label: String,
    http: Arc<Http>,
    tokens: Tokens,
}

impl GcpKek {
    /// The KEK that `config` names. Calls nobody yet, and reads no credentials.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): a name or limit is not allowed, or the CA cannot be used.
    pub fn open(config: GcpConfig) -> Result<Self> {
        config.check()?;
        let http = Arc::new(Http::new(config.ca.as_deref())?);
        // The CA is that of Cloud KMS: what gives tokens is somebody else.
        let login = if config.ca.is_some() { Arc::new(Http::new(None)?) } else { Arc::clone(&http) };
        let (tokens, limits) = (Tokens::new(config.auth.clone(), login), config.limits);
        Self::new(CloudKms { label: config.to_string(), config, http, tokens }, limits)
    }

    /// The KEK that `uri` names: see [`GcpConfig::from_uri`].
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): as for [`open`](Self::open), or the URI is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        Self::open(GcpConfig::from_uri(uri, folder)?)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encrypt<'a> {
    plaintext: &'a str,
    plaintext_crc32c: String,
    #[serde(flatten)]
    context: Context,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decrypt {
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(flatten)]
    context: Context,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    additional_authenticated_data: String,
    additional_authenticated_data_crc32c: String,
}

impl Context {
    fn new(context: &KmsContext) -> Self {
        let bytes = context.canonical();
        Self {
            additional_authenticated_data: BASE64.encode(&bytes),
            additional_authenticated_data_crc32c: checksum(&bytes),
        }
    }
}

/// What is false is left out by Google, and what was not checked must not be taken for checked.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    name: String,
    ciphertext: String,
    ciphertext_crc32c: String,
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted<'a> {
    // Borrowed, unless Google writes the `=` at its end as an escape.
    #[serde(borrow)]
    plaintext: Cow<'a, str>,
    plaintext_crc32c: String,
}

#[derive(Default, Deserialize)]
struct Refusal {
    error: Status,
}

/// `google.rpc.Status`.
#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    /// Of `google.rpc.RetryInfo`: seconds, such as `1.5s`.
    retry_delay: Option<String>,
}

impl Status {
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.details.iter().find_map(|detail| detail.retry_delay.as_deref())?.strip_suffix('s')?;
        Duration::try_from_secs_f64(seconds.parse().ok()?).ok()
    }
}

impl CloudKms {
    /// Calls `method` of the key, with a token, and sorts every answer but a good one.
    async fn call(&self, method: &str, body: &impl Serialize, trace: Option<&KmsTrace>) -> Attempt<Response> {
        self.ask(Request::post(self.config.url(method)).json(body)?, trace).await
    }

    async fn ask(&self, request: Request, trace: Option<&KmsTrace>) -> Attempt<Response> {
        let token = self.tokens.token().await?;
        let answer = self.http.send(request.secret_header("authorization", "Bearer ", &token)?, trace).await?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let Refusal { error } = answer.json().unwrap_or_default();
        let failure = sort(TABLE, answer.status, &error.status, &error.message);
        if failure.again == Again::WithNewCredentials {
            self.tokens.refused(&token).await;
        }
        Err(failure.retry_after(answer.retry_after().or_else(|| error.retry_after())))
    }

    /// Whether `version` is that of our key.
    fn is_ours(&self, version: &str) -> bool {
        let number = version.strip_prefix(&self.config.key).and_then(|rest| rest.strip_prefix(VERSIONS));
        number.is_some_and(|digits| (1..=10).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
    }
}

impl Adapter for CloudKms {
    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            let payload = request.payload.expose();
            let mut plaintext = Zeroizing::new(String::with_capacity(BASE64.encode_len(payload.len())));
            BASE64.encode_append(payload, &mut plaintext);
            let body = Encrypt {
                plaintext: &plaintext,
                plaintext_crc32c: checksum(payload),
                context: Context::new(request.context),
            };
            let answer = self.call("encrypt", &body, request.trace).await?;
            let answer: Encrypted = answer.json()?;
            if !answer.verified_plaintext_crc32c || !answer.verified_additional_authenticated_data_crc32c {
                return Err(DAMAGED.detail("Cloud KMS did not confirm the checksums of the request"));
            }
            if !self.is_ours(&answer.name) {
                let message = "Cloud KMS wrapped with another key than the configured one (name the project by its ID, \
                    not by its number)";
                return Err(Failure::new(KmsErrorKind::WrongKey, message));
            }
            let bytes = BASE64
                .decode(answer.ciphertext.as_bytes())
                .map_err(|_| Failure::malformed("Cloud KMS returned no ciphertext"))?;
            if answer.ciphertext_crc32c != checksum(&bytes) {
                return Err(DAMAGED.detail("the checksum of the ciphertext is wrong"));
            }
            if !(1..=WrappedKey::MAX_LEN).contains(&bytes.len()) {
                return Err(Failure::malformed("Cloud KMS returned a ciphertext that no record can hold"));
            }
            Ok(WrappedKey { kek_version: answer.name, bytes })
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        if !self.is_ours(&wrapped.kek_version) {
            let message = "the record names another CryptoKey than the configured one";
            return Err(Failure::new(KmsErrorKind::WrongKey, message));
        }
        match wrapped.bytes.is_empty() {
            true => Err(Failure::new(KmsErrorKind::InvalidCiphertext, "no wrapped key has no bytes")),
            false => Ok(()),
        }
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            let bytes = &request.wrapped.bytes;
            let body = Decrypt {
                ciphertext: BASE64.encode(bytes),
                ciphertext_crc32c: checksum(bytes),
                context: Context::new(request.context),
            };
            let answer = self.call("decrypt", &body, request.trace).await?;
            let Decrypted { plaintext, plaintext_crc32c } = answer.json()?;
            // If it is a copy, it is erased.
            let plaintext = Zeroizing::new(plaintext.into_owned());
            let payload = decode_payload(&plaintext, &BASE64)?;
            if plaintext_crc32c != checksum(payload.expose()) {
                return Err(DAMAGED.detail("the checksum of the plaintext is wrong"));
            }
            Ok(payload)
        })
    }

    fn profile(&self) -> Profile {
        examine::profile(&self.config)
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        Box::pin(self.look(trace))
    }
}

/// Damaged on the way, so worth another attempt.
const DAMAGED: Failure = Failure::new(
    KmsErrorKind::MalformedResponse,
    "request or answer of Cloud KMS was damaged on its way; it was not used",
);

/// CRC32C in decimal digits, as the API writes 64-bit integers.
fn checksum(bytes: &[u8]) -> String {
    crc32c::crc32c(bytes).to_string()
}
