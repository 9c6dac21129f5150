//! KEKs in Azure Key Vault and Managed HSM: `azurekv://NAME.vault.azure.net/KEY?…`.
//!
//! In a vault the KEK is an RSA key and wraps by RSA-OAEP-256, in a Managed HSM it is an AES key and wraps by A256KW; both
//! happen in the service. Neither takes associated data, so the keyring binds the context (`ContextBinding::ByKeyfold`).
//! **Anybody can wrap under an RSA key, whose public half is not secret**: what was wrapped counts for nothing
//! until the keyring has checked its record under a trusted root (DESIGN K2).
//!
//! The KEK version is `KEY/VERSION`, without the host: a key that was restored into another vault keeps its versions, and no
//! record can name another vault. `wrapKey` and `unwrapKey` are all that is ever called.

mod config;
mod credentials;
mod examine;
mod table;

pub use config::{AzureAlgorithm, AzureConfig, AzureCredentials, HostToken};
pub use table::TABLE;

use crate::examine::{Finding, Profile};
use crate::http::{Http, json, retry_after};
use crate::layer::{Adapter, Attempt, Failure, Layered, sort};
use crate::sdk::{Carried, Purpose, Session, Transport, quietly};
use azure_core::error::ErrorKind as SdkErrorKind;
use azure_core::http::{ClientOptions, RawResponse, RequestContent, RetryOptions};
use azure_security_keyvault_keys::models::{EncryptionAlgorithm, KeyOperationParameters, KeyOperationResult};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use keyfold::{BoxFuture, ErrorKind, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use url::Url;
use zeroize::Zeroizing;

/// A KEK in Azure Key Vault or Managed HSM.
///
/// # Examples
///
/// ```
/// use keyfold_kms::azure::AzureKek;
///
/// let kek = AzureKek::from_uri("azurekv://clinic.vault.azure.net/patients", ".".as_ref())?; // Calls nobody yet.
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type AzureKek = Layered<KeyVault>;

/// One key of a vault or HSM, without the layer: see [`AzureKek`].
pub struct KeyVault {
    config: AzureConfig,
    label: String,
    service: Transport,
    login: Transport,
    session: Session<KeyClient>,
}

impl AzureKek {
    /// The KEK that `config` names. Calls nobody yet.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): a name or limit is not allowed, or the CA cannot be used.
    pub fn open(config: AzureConfig) -> Result<Self> {
        config.check()?;
        let http = Arc::new(Http::new(config.ca.as_deref())?);
        let limits = config.limits;
        let kms = KeyVault {
            label: config.to_string(),
            service: Transport::new(Arc::clone(&http), Purpose::Service { request_id: "x-ms-request-id" }),
            login: Transport::new(http, Purpose::Login { hosts: credentials::hosts(&config) }),
            session: Session::new(),
            config,
        };
        Self::new(kms, limits)
    }

    /// The KEK that `uri` names: see [`AzureConfig::from_uri`].
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): as for [`open`](Self::open), or the URI is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        Self::open(AzureConfig::from_uri(uri, folder)?)
    }
}

impl KeyVault {
    fn client(&self) -> Attempt<KeyClient> {
        let options = KeyClientOptions {
            client_options: ClientOptions {
                transport: Some(credentials::transport(&self.service, &self.config.vault)),
                // Ours is the layer's.
                retry: RetryOptions::none(),
                ..ClientOptions::default()
            },
            // Ours is stricter: `credentials::Guarded` compares the whole name.
            verify_challenge_resource: Some(false),
            ..KeyClientOptions::default()
        };
        // The SDK insists on HTTPS; without it to a loopback address, the transport puts the scheme back.
        let mut vault = self.config.vault.clone();
        if vault.set_scheme("https").is_err() {
            return Err(Failure::configuration("the address of the vault cannot be used"));
        }
        let credential = credentials::make(&self.config, &self.login)?;
        KeyClient::new(vault.as_str(), credential, Some(options)).map_err(|error| failure(&error))
    }

    /// What the SDK would make of a `KeyOperationParameters`, and without the copies that it would leave behind.
    fn parameters(&self, value: &[u8]) -> Attempt<RequestContent<KeyOperationParameters>> {
        let alg = match self.config.algorithm {
            AzureAlgorithm::RsaOaep256 => EncryptionAlgorithm::RsaOaep256,
            AzureAlgorithm::A256Kw => EncryptionAlgorithm::A256Kw,
        };
        let mut text = Zeroizing::new(String::with_capacity(BASE64URL_NOPAD.encode_len(value.len())));
        BASE64URL_NOPAD.encode_append(value, &mut text);
        Ok(Bytes::from_owner(json(&Parameters { alg, value: &text })?).into())
    }

    async fn wrap_key(&self, client: &KeyClient, request: &WrapRequest<'_>) -> Attempt<WrappedKey> {
        let parameters = self.parameters(request.payload.expose())?;
        let answer = client.wrap_key(&self.config.key, parameters, None).await.and_then(|answer| answer.into_model());
        let answer = answer.map_err(|error| match failure(&error) {
            // What was to be wrapped cannot be at fault.
            failure if failure.kind == ErrorKind::Kms(KmsErrorKind::InvalidCiphertext) => Failure::configuration(
                "the vault cannot wrap with the KEK: it must be an RSA key of at least 2048 bits, or an AES key in a Managed HSM",
            ),
            failure => failure,
        })?;
        let version = self.version(&answer)?;
        let bytes = answer.result.unwrap_or_default();
        Ok(WrappedKey { kek_version: format!("{}/{version}", self.config.key), bytes })
    }

    async fn unwrap_key(&self, client: &KeyClient, request: &UnwrapRequest<'_>, version: &str) -> Attempt<Secret<64>> {
        let parameters = self.parameters(&request.wrapped.bytes)?;
        let answer = client
            .unwrap_key(&self.config.key, version, parameters, None)
            .await
            .and_then(|answer| answer.into_model())
            .map_err(|error| failure(&error))?;
        let is_asked = self.version(&answer)? == version;
        let value = Zeroizing::new(answer.result.unwrap_or_default());
        if !is_asked {
            return Err(OTHER_KEY);
        }
        let payload: &[u8; 64] = value
            .as_slice()
            .try_into()
            .map_err(|_| Failure::malformed("the vault returned something else than was wrapped"))?;
        Ok(Secret::with(|copy| copy.copy_from_slice(payload)))
    }

    /// The version of our key that the answer names.
    fn version(&self, answer: &KeyOperationResult) -> Attempt<String> {
        let kid = answer.kid.as_deref().ok_or(Failure::malformed("the vault did not say with which key"))?;
        let kid = Url::parse(kid).map_err(|_| Failure::malformed("the vault names its key wrongly"))?;
        let is_ours = kid.host() == self.config.vault.host() && kid.port() == self.config.vault.port();
        let parts: Vec<&str> = kid.path().split('/').collect();
        match parts[..] {
            // Names are compared as the service does.
            ["", "keys", key, version]
                if is_ours && key.eq_ignore_ascii_case(&self.config.key) && is_version(version) =>
            {
                Ok(version.to_owned())
            }
            _ => Err(OTHER_KEY),
        }
    }

    /// The version that a wrapped key names, which must be of our key.
    fn version_of<'a>(&self, wrapped: &'a WrappedKey) -> Attempt<&'a str> {
        const NONE: Failure =
            Failure::new(KmsErrorKind::InvalidCiphertext, "the wrapped key names no version of a key in Azure");
        let (key, version) = wrapped.kek_version.rsplit_once('/').ok_or(NONE)?;
        if !is_version(version) {
            return Err(NONE);
        }
        if key != self.config.key {
            return Err(Failure::new(
                KmsErrorKind::WrongKey,
                "another key than the configured one wrapped these bytes",
            ));
        }
        Ok(version)
    }

    /// Runs an attempt, and forgets credentials that the service refused.
    async fn attempt<T>(
        &self,
        trace: Option<&KmsTrace>,
        work: impl AsyncFnOnce(&KeyClient) -> Attempt<T>,
    ) -> Attempt<T> {
        quietly(trace, async {
            let client = self.session.get(async { self.client() }).await?;
            let result = work(&client).await;
            // A challenge that was refused is kept by the client as well.
            if matches!(&result, Err(failure) if failure.kind == ErrorKind::Kms(KmsErrorKind::Credentials)) {
                self.session.forget(&client);
            }
            result
        })
        .await
    }
}

impl Adapter for KeyVault {
    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            self.attempt(request.trace, async |client: &KeyClient| self.wrap_key(client, &request).await).await
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        self.version_of(wrapped).map(drop)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            let version = self.version_of(request.wrapped)?;
            self.attempt(request.trace, async |client: &KeyClient| self.unwrap_key(client, &request, version).await)
                .await
        })
    }

    fn profile(&self) -> Profile {
        examine::profile(&self.config)
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        Box::pin(self.attempt(Some(trace), async |client: &KeyClient| examine::look(client, &self.config.key).await))
    }
}

const OTHER_KEY: Failure = Failure::new(KmsErrorKind::WrongKey, "the vault answered for another key than was asked");

/// Whether it can be put into a path: the service makes 32 hexadecimal digits.
fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[derive(Serialize)]
struct Parameters<'a> {
    alg: EncryptionAlgorithm,
    value: &'a str,
}

#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    error: Detail,
}

#[derive(Default, Deserialize)]
struct Detail {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    innererror: Option<Box<Detail>>,
}

/// Sorts an error of the SDK.
fn failure(error: &azure_core::Error) -> Failure {
    if let Some(failure) = Carried::in_causes_of(error) {
        return failure;
    }
    match error.kind() {
        SdkErrorKind::HttpResponse { status, raw_response, .. } => answer(u16::from(*status), raw_response.as_deref()),
        SdkErrorKind::DataConversion => Failure::malformed("the answer of the vault is not what its protocol says"),
        SdkErrorKind::Credential => credentials::NONE,
        // Nothing of ours causes one; its text may hold anything.
        _ => Failure::new(KmsErrorKind::Rejected, "the Azure SDK failed for a reason of its own"),
    }
}

fn answer(status: u16, raw: Option<&RawResponse>) -> Failure {
    let body: Answer = raw.and_then(|raw| serde_json::from_slice(raw.body().as_ref()).ok()).unwrap_or_default();
    let Detail { code, message, innererror } = body.error;
    // The inner code says more, where it is one of those that we know.
    let inner = innererror.and_then(|inner| inner.code).filter(|inner| TABLE.iter().any(|row| row.code == inner));
    let code = inner.or(code).unwrap_or_default();
    let pause = raw.and_then(|raw| retry_after(|name| raw.headers().get_optional_str(&name.into())));
    sort(TABLE, status, &code, &message.unwrap_or_default()).retry_after(pause)
}
