//! Tokens of Microsoft Entra ID by azure_identity's credentials, over our HTTPS client.

use super::{AzureConfig, AzureCredentials, HostToken};
use crate::credentials::{SecretSource, SecretText};
use crate::layer::{Attempt, Failure};
use crate::sdk::{Carried, Transport as Client, login};
use async_trait::async_trait;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::request::Body;
use azure_core::http::{
    AsyncRawResponse, ClientMethodOptions, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use azure_core::time::{Duration, OffsetDateTime};
use azure_core::{Error, Result};
use azure_identity::{
    AzureCliCredential, ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId,
};
use keyfold::KmsErrorKind;
use std::fmt;
use std::sync::Arc;
use url::Url;

pub(super) const NONE: Failure = Failure::new(
    KmsErrorKind::Credentials,
    "no token of Microsoft Entra ID is to be had: docs/kms/azure.md says who is asked for one",
);
/// How long a token counts that does not say so itself. The SDK asks for a new one five minutes earlier.
const TOKEN_MINUTES: i64 = 15;

/// Microsoft Entra ID, in the public cloud and the national ones.
const AUTHORITIES: [&str; 4] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
];

/// The hosts that may be asked for tokens; a cloud of one's own has its own, which AZURE_AUTHORITY_HOST names.
pub(super) fn hosts(config: &AzureConfig) -> Option<Arc<[String]>> {
    config.is_in_azure().then(|| AUTHORITIES.into_iter().map(str::to_owned).collect())
}

/// The credential that `config` names, which gives tokens of the configured service and no other.
pub(super) fn make(config: &AzureConfig, client: &Client) -> Attempt<Arc<dyn TokenCredential>> {
    let none = |_: Error| NONE;
    let options = || ClientOptions {
        transport: Some(Transport::new(Arc::new(Sender { client: client.clone(), plain: None }))),
        // The layer repeats.
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    };
    let managed = |client_id: Option<&String>| {
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.cloned().map(UserAssignedId::ClientId),
            client_options: options(),
        };
        ManagedIdentityCredential::new(Some(options)).map_err(none)
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let workload = || -> Attempt<_> {
        let names = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"];
        let [Some(tenant), Some(client), Some(file)] = names.map(variable) else { return Err(NONE) };
        let options = ClientAssertionCredentialOptions { client_options: options() };
        let assertion = Assertion(SecretSource::File(file.into()));
        ClientAssertionCredential::new(tenant, client, assertion, Some(options)).map_err(none)
    };
    let secret = |tenant_id: &str, client_id: &str, secret: &SecretSource| -> Attempt<_> {
        let secret = Secret::new(secret.read()?.expose().to_owned());
        let options = ClientSecretCredentialOptions { client_options: options() };
        ClientSecretCredential::new(tenant_id, client_id.to_owned(), secret, Some(options)).map_err(none)
    };
    let inner: Arc<dyn TokenCredential> = match &config.credentials {
        // By what is there, not by what fails: a secret that has expired must not make a service use another identity.
        AzureCredentials::Chain if variable("AZURE_FEDERATED_TOKEN_FILE").is_some() => workload()?,
        AzureCredentials::Chain if variable("AZURE_CLIENT_SECRET").is_some() => {
            let [tenant, client] = ["AZURE_TENANT_ID", "AZURE_CLIENT_ID"].map(variable);
            let (Some(tenant), Some(client)) = (tenant, client) else { return Err(NONE) };
            secret(&tenant, &client, &SecretSource::Env("AZURE_CLIENT_SECRET".to_owned()))?
        }
        AzureCredentials::Chain => managed(variable("AZURE_CLIENT_ID").as_ref())?,
        AzureCredentials::Managed { client_id } => managed(client_id.as_ref())?,
        AzureCredentials::Workload => workload()?,
        AzureCredentials::ClientSecret { tenant_id, client_id, secret: source } => {
            secret(tenant_id, client_id, source)?
        }
        AzureCredentials::Cli => AzureCliCredential::new(None).map_err(none)?,
        AzureCredentials::Token(source) => Arc::new(Given::Source(source.clone())),
        AzureCredentials::Host(token) => Arc::new(Given::Host(token.clone())),
    };
    Ok(Arc::new(Guarded { inner, scope: format!("{}/.default", config.resource) }))
}

/// Gives tokens of one service. Which service is asked for comes from the vault's challenge, so an impostor could else get
/// a token that is good elsewhere.
struct Guarded {
    inner: Arc<dyn TokenCredential>,
    scope: String,
}

#[async_trait]
impl TokenCredential for Guarded {
    async fn get_token(&self, scopes: &[&str], options: Option<TokenRequestOptions<'_>>) -> Result<AccessToken> {
        if scopes != [self.scope.as_str()] {
            return Err(carry(Failure::new(
                KmsErrorKind::Credentials,
                "the vault asks for a token of another service than its own: it is not the one that it should be",
            )));
        }
        login(self.inner.get_token(scopes, options), |Carried(outage)| carry(outage)).await
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A token that this program or its host has.
#[derive(Debug)]
enum Given {
    Source(SecretSource),
    Host(HostToken),
}

#[async_trait]
impl TokenCredential for Given {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> Result<AccessToken> {
        let token: keyfold::Result<SecretText> = match self {
            Self::Source(source) => source.read(),
            Self::Host(host) => host.give().await,
        };
        let token = token.map_err(|error| carry(error.into()))?;
        Ok(AccessToken::new(token.expose().to_owned(), OffsetDateTime::now_utc() + Duration::minutes(TOKEN_MINUTES)))
    }
}

/// The token of a pod, which Kubernetes keeps fresh. Read by us at each login: the SDK would wait for a pipe, and read a
/// file of any length.
#[derive(Debug)]
struct Assertion(SecretSource);

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> Result<String> {
        let token = self.0.read().map_err(|error| carry(error.into()))?;
        Ok(token.expose().to_owned())
    }
}

/// The SDK's transport to `vault`.
pub(super) fn transport(service: &Client, vault: &Url) -> Transport {
    let plain = (vault.scheme() == "http").then(|| vault.clone());
    Transport::new(Arc::new(Sender { client: service.clone(), plain }))
}

/// What the SDK sends goes out by our client.
#[derive(Debug)]
struct Sender {
    client: Client,
    /// A loopback address that is spoken to without TLS.
    plain: Option<Url>,
}

#[async_trait]
impl HttpClient for Sender {
    async fn execute_request(&self, request: &Request) -> Result<AsyncRawResponse> {
        let mut url = request.url().clone();
        let is_plain = |vault: &Url| vault.host() == url.host() && vault.port() == url.port();
        if self.plain.as_ref().is_some_and(is_plain) {
            // From one special scheme to another, which is always allowed.
            let _ = url.set_scheme("http");
        }
        let Body::Bytes(body) = request.body() else {
            return Err(carry(Failure::configuration("the Azure SDK streams a request")));
        };
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let answer = self.client.send(request.method().as_str(), url.as_str(), headers, body).await;
        let (status, map, body) = answer.map_err(|Carried(failure)| carry(failure))?.into_parts();
        let mut headers = Headers::new();
        for (name, value) in &map {
            if let Ok(value) = value.to_str() {
                headers.insert(HeaderName::from(name.as_str().to_owned()), value.to_owned());
            }
        }
        Ok(AsyncRawResponse::from_bytes(StatusCode::from(status), headers, body))
    }
}

fn carry(failure: Failure) -> Error {
    Error::new(ErrorKind::Other, Carried(failure))
}
