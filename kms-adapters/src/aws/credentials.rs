//! Credentials by the AWS SDK's own sources, over our HTTPS client.

use super::{AwsConfig, AwsCredentials};
use crate::apart::Apart;
use crate::credentials::open_file;
use crate::sdk::{Carried, Transport, login};
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, imds};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long an EC2 instance may take to answer, and a machine that is none to show that it is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest file of credentials or settings in bytes: an organisation may have hundreds of profiles.
const MAX_FILE_LEN: u64 = 1024 * 1024;
/// The variables that name files which the chain reads.
const FILES: [&str; 4] = [
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// What the names of AWS's services end with.
const DOMAINS: [&str; 7] = [
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
];

/// The hosts of STS for `region`, that of a VPC included. Nothing else is sent what proves an identity.
pub(super) fn hosts(region: &str) -> Arc<[String]> {
    let regional = DOMAINS.into_iter().flat_map(|domain| {
        [format!("sts.{region}.{domain}"), format!("sts-fips.{region}.{domain}"), format!("sts.{region}.vpce.{domain}")]
    });
    regional.chain(["sts.amazonaws.com".to_owned()]).collect()
}

/// The source that a configuration names. The SDK reads files as if that could not block, so it works apart from
/// the thread that all key services share.
#[derive(Debug)]
pub(super) struct Source {
    inner: Arc<Inner>,
    apart: Apart,
}

#[derive(Debug)]
struct Inner {
    config: AwsConfig,
    login: Transport,
    /// Made when it is first asked, because making the chain reads files.
    provider: OnceCell<SharedCredentialsProvider>,
}

impl Source {
    pub(super) fn new(config: &AwsConfig, login: Transport) -> Self {
        let inner = Inner { config: config.clone(), login, provider: OnceCell::new() };
        Self { inner: Arc::new(inner), apart: Apart::new() }
    }
}

impl Inner {
    async fn provide(&self) -> Result<Credentials, CredentialsError> {
        self.check_files().map_err(|error| carry(Carried(error.into())))?;
        self.provider.get_or_init(|| self.make()).await.provide_credentials().await
    }

    /// Refuses what the SDK would read for ever, or into all of the memory. A file that is not there the chain passes over.
    fn check_files(&self) -> keyfold::Result<()> {
        let files: Vec<PathBuf> = match &self.config.credentials {
            AwsCredentials::Profile { file: Some(file), .. } => vec![file.clone()],
            _ => FILES.into_iter().filter_map(std::env::var_os).map(PathBuf::from).collect(),
        };
        // By which people say that there is none.
        let is_none = |file: &Path| file == Path::new("/dev/null") || !file.exists();
        files.iter().filter(|file| !is_none(file)).try_for_each(|file| open_file(file, MAX_FILE_LEN).map(drop))
    }

    async fn make(&self) -> SharedCredentialsProvider {
        let region = Region::new(self.config.key.region().to_owned());
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_use_fips(Some(self.config.fips))
            // The layer repeats.
            .with_retry_config(RetryConfig::disabled())
            .with_http_client(self.login.clone());
        match &self.config.credentials {
            AwsCredentials::Chain => {
                let instance = imds::Client::builder()
                    .configure(&config)
                    .max_attempts(1)
                    .connect_timeout(METADATA_TIMEOUT)
                    .read_timeout(METADATA_TIMEOUT)
                    .build();
                let chain = DefaultCredentialsChain::builder().region(region).configure(config).imds_client(instance);
                SharedCredentialsProvider::new(chain.build().await)
            }
            AwsCredentials::Profile { file, name } => {
                let profile = ProfileFileCredentialsProvider::builder().configure(&config).profile_name(name);
                let profile = match file {
                    Some(file) => profile.profile_files(
                        EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build(),
                    ),
                    None => profile,
                };
                SharedCredentialsProvider::new(profile.build())
            }
        }
    }
}

impl ProvideCredentials for Source {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async move {
            let inner = Arc::clone(&self.inner);
            let done = self.apart.run(async move { login(inner.provide(), carry).await }).await;
            done.unwrap_or_else(|failure| Err(carry(Carried(failure))))
        })
    }
}

fn carry(carried: Carried) -> CredentialsError {
    CredentialsError::provider_error(carried)
}

/// What the SDK sends goes out by our client.
impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let parts = [settings.connect_timeout(), settings.read_timeout()];
        let timeout = parts.into_iter().flatten().reduce(|a, b| a + b);
        SharedHttpConnector::new(Connector { transport: self.clone(), timeout })
    }
}

#[derive(Debug)]
struct Connector {
    transport: Transport,
    /// Set where a source of credentials sets one; operations have that of the layer.
    timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (transport, timeout) = (self.transport.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let call = send(&transport, request);
            match timeout {
                None => call.await,
                Some(timeout) => match tokio::time::timeout(timeout, call).await {
                    Ok(result) => result,
                    Err(elapsed) => Err(ConnectorError::timeout(elapsed.into())),
                },
            }
        })
    }
}

async fn send(transport: &Transport, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    // No request of ours is streamed.
    let body = request.body().bytes().unwrap_or_default();
    let answer = transport.send(request.method(), request.uri(), request.headers().iter(), body).await;
    let (status, headers, body) = answer.map_err(|carried: Carried| ConnectorError::io(carried.into()))?.into_parts();
    let status = StatusCode::try_from(status).map_err(|error| ConnectorError::other(error.into(), None))?;
    let mut response = HttpResponse::new(status, SdkBody::from(body));
    for (name, value) in &headers {
        if let Ok(value) = value.to_str() {
            // Those that the SDK would not take it does not need.
            let _ = response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
        }
    }
    Ok(response)
}
