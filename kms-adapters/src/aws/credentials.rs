//! Credentials by the AWS SDK's own sources, over our HTTPS client.

use super::{AwsConfig, AwsCredentials};
use crate::sdk::{Carried, Transport};
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::{Region, imds};
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
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long an EC2 instance may take to answer, and a machine that is none to show that it is none.
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// The source that a configuration names. Made when it is first asked, because making the chain waits for files.
#[derive(Debug)]
pub(super) struct Source {
    config: AwsConfig,
    login: Transport,
    provider: OnceCell<SharedCredentialsProvider>,
}

impl Source {
    pub(super) fn new(config: &AwsConfig, login: Transport) -> Self {
        Self { config: config.clone(), login, provider: OnceCell::new() }
    }

    async fn make(&self) -> SharedCredentialsProvider {
        let region = Region::new(self.config.key.region().to_owned());
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_use_fips(Some(self.config.fips))
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
            self.provider.get_or_init(|| self.make()).await.provide_credentials().await
        })
    }
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
