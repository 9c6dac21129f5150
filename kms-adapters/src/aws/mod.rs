//! KEKs in AWS KMS: `awskms://arn:aws:kms:REGION:ACCOUNT:key/ID?…`, symmetric keys for encrypting.
//!
//! `Encrypt` and `Decrypt` are all that is ever called. The encryption context is the three pairs of
//! [`keyfold::KmsContext`], which the service authenticates and CloudTrail shows.
//!
//! The KEK version is the ARN of the key that wrapped: `Encrypt` says it, so an alias need not be looked up. `Decrypt` names
//! the configured key or alias and never one that a record brings; the answer must come from the key that the record names. What
//! names a key of another account or region, or another key than a configured one, is refused without a request. An alias that
//! was moved no longer opens what it wrapped before, unless the option `opens` names the key. A multi-Region key opens what
//! its replicas wrapped. Rotated key material needs no version: the service finds it by the wrapped bytes.

mod arn;
mod config;
mod credentials;
mod examine;
mod table;

pub use arn::Arn;
pub use config::{AwsConfig, AwsCredentials};
pub use table::TABLE;

use crate::examine::{Finding, Profile};
use crate::http::{Http, retry_after};
use crate::layer::{Adapter, Again, Attempt, Failure, Layered, sort};
use crate::sdk::{Carried, Purpose, Session, Transport, quietly};
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, IdentityCache, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::{Client, Config};
use bytes::Bytes;
use keyfold::{
    BoxFuture, ErrorKind, KmsContext, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A KEK in AWS KMS.
///
/// # Examples
///
/// ```
/// use keyfold_kms::aws::AwsKek;
///
/// let uri = "awskms://arn:aws:kms:eu-central-1:111122223333:alias/patients";
/// let kek = AwsKek::from_uri(uri, ".".as_ref())?; // Calls nobody yet.
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type AwsKek = Layered<AwsKms>;

/// One key of AWS KMS, without the layer: see [`AwsKek`].
pub struct AwsKms {
    config: AwsConfig,
    label: String,
    service: Transport,
    login: Transport,
    session: Session<Client>,
}

impl AwsKek {
    /// The KEK that `config` names. Calls nobody yet.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the endpoint or a limit is not allowed, or the CA cannot be used.
    pub fn open(config: AwsConfig) -> Result<Self> {
        config.check()?;
        let http = Arc::new(Http::new(config.ca.as_deref())?);
        // The CA is that of the endpoint: what gives credentials is somebody else.
        let login = if config.ca.is_some() { Arc::new(Http::new(None)?) } else { Arc::clone(&http) };
        let limits = config.limits;
        let kms = AwsKms {
            label: config.to_string(),
            service: Transport::new(http, Purpose::Service { request_id: "x-amzn-requestid" }),
            login: Transport::new(login, Purpose::Login { hosts: Some(credentials::hosts(config.key.region())) }),
            session: Session::new(),
            config,
        };
        Self::new(kms, limits)
    }

    /// The KEK that `uri` names: see [`AwsConfig::from_uri`].
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): as for [`open`](Self::open), or the URI is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        Self::open(AwsConfig::from_uri(uri, folder)?)
    }
}

impl AwsKms {
    async fn client(&self) -> Attempt<Arc<Client>> {
        let make = async {
            let config = Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(self.config.key.region().to_owned()))
                .http_client(self.service.clone())
                .credentials_provider(credentials::Source::new(&self.config, self.login.clone()))
                // All three are the layer's.
                .retry_config(RetryConfig::disabled())
                .timeout_config(TimeoutConfig::disabled())
                .identity_cache(IdentityCache::lazy().load_timeout(Duration::MAX).build())
                .use_fips(self.config.fips);
            let config = match &self.config.endpoint {
                Some(endpoint) => config.endpoint_url(endpoint.as_str()),
                None => config,
            };
            Ok(Client::from_conf(config.build()))
        };
        self.session.get(make).await
    }

    async fn encrypt(&self, client: &Client, request: &WrapRequest<'_>) -> Attempt<WrappedKey> {
        // Erased when the SDK lets go of it, which makes JSON of it in buffers of its own.
        let payload = Bytes::from_owner(Zeroizing::new(request.payload.expose().to_vec()));
        let answer = client
            .encrypt()
            .key_id(self.config.key.to_string())
            .plaintext(Blob::from_maybe_shared(payload))
            .set_encryption_context(Some(pairs(request.context)))
            .send()
            .await
            .map_err(|error| failure(&error))?;
        const LACKS: Failure = Failure::malformed("AWS KMS said neither what it wrapped nor with which key");
        let kek_version = answer.key_id.ok_or(LACKS)?;
        let bytes = answer.ciphertext_blob.ok_or(LACKS)?.into_inner();
        match self.config.key.opener_of(&named(&kek_version)?) {
            Some(_) => Ok(WrappedKey { kek_version, bytes }),
            None => Err(OTHER_KEY),
        }
    }

    async fn decrypt(&self, client: &Client, request: &UnwrapRequest<'_>) -> Attempt<Secret<64>> {
        let (asked, opener) = self.opener_of(request.wrapped)?;
        let answer = client
            .decrypt()
            .key_id(asked.to_string())
            .ciphertext_blob(Blob::new(request.wrapped.bytes.clone()))
            .set_encryption_context(Some(pairs(request.context)))
            .send()
            .await
            .map_err(|error| match failure(&error) {
                failure if asked.is_alias() && failure.kind == ErrorKind::Kms(KmsErrorKind::WrongKey) => MOVED,
                failure => failure,
            })?;
        let plaintext = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
        let key = answer.key_id.ok_or(Failure::malformed("AWS KMS did not say with which key it decrypted"))?;
        if key != opener.to_string() {
            return Err(OTHER_KEY);
        }
        let payload: &[u8; 64] = plaintext
            .as_slice()
            .try_into()
            .map_err(|_| Failure::malformed("AWS KMS returned something else than was wrapped"))?;
        Ok(Secret::with(|copy| copy.copy_from_slice(payload)))
    }

    /// The configured key or alias to ask for `wrapped`, and the key that must answer.
    fn opener_of(&self, wrapped: &WrappedKey) -> Attempt<(&Arn, Arn)> {
        const FOREIGN: Failure =
            Failure::new(KmsErrorKind::WrongKey, "another key than those that are configured wrapped these bytes");
        self.config.opener_of(&named(&wrapped.kek_version)?).ok_or(FOREIGN)
    }

    /// Runs an attempt, and forgets credentials that the service refused.
    async fn attempt<T>(
        &self,
        trace: Option<&keyfold::KmsTrace>,
        work: impl AsyncFnOnce(&Client) -> Attempt<T>,
    ) -> Attempt<T> {
        quietly(trace, async {
            let client = self.client().await?;
            let result = work(&client).await;
            if matches!(&result, Err(failure) if failure.again == Again::WithNewCredentials) {
                self.session.forget(&client);
            }
            result
        })
        .await
    }
}

impl Adapter for AwsKms {
    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            self.attempt(request.trace, async |client: &Client| self.encrypt(client, &request).await).await
        })
    }

    fn check(&self, wrapped: &WrappedKey) -> Attempt<()> {
        if wrapped.bytes.is_empty() {
            return Err(Failure::new(KmsErrorKind::InvalidCiphertext, "the wrapped key is empty"));
        }
        self.opener_of(wrapped).map(drop)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            self.attempt(request.trace, async |client: &Client| self.decrypt(client, &request).await).await
        })
    }

    fn profile(&self) -> Profile {
        examine::profile(&self.config)
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        Box::pin(self.attempt(Some(trace), async |client: &Client| examine::look(client, &self.config).await))
    }
}

const OTHER_KEY: Failure = Failure::new(KmsErrorKind::WrongKey, "AWS KMS answered for another key than was asked");
const MOVED: Failure = Failure::new(
    KmsErrorKind::WrongKey,
    "another key than that of the alias wrapped these bytes: if the alias was moved, name the old key in the option opens",
);

/// The key that an answer or a record names.
fn named(arn: &str) -> Attempt<Arn> {
    arn.parse().map_err(|_| Failure::new(KmsErrorKind::InvalidCiphertext, "the wrapped key names no key of AWS KMS"))
}

fn pairs(context: &KmsContext) -> HashMap<String, String> {
    context.pairs().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sorts an error of the SDK.
fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + StdError + 'static,
{
    const MALFORMED: Failure = Failure::malformed("the answer of AWS KMS is not what its protocol says");
    if let Some(failure) = Carried::in_causes_of(error) {
        return failure;
    }
    let Some(raw) = error.raw_response() else {
        // Before anything was sent: the SDK found nothing to sign with. Its text is not shown; it may hold what a program printed.
        return Failure::new(
            KmsErrorKind::Credentials,
            "no AWS credentials are to be had: docs/kms/aws.md says where they are looked for",
        );
    };
    let status = raw.status().as_u16();
    if raw.status().is_success() {
        return MALFORMED.detail(format!("status {status}"));
    }
    let (code, message) = (error.code().unwrap_or_default(), error.message().unwrap_or_default());
    sort(TABLE, status, code, message).retry_after(retry_after(|name| raw.headers().get(name)))
}
