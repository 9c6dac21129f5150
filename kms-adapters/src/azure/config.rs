//! Which key of which vault, and who asks for it.

use crate::credentials::{SecretSource, SecretText};
use crate::http::is_loopback;
use crate::layer::Limits;
use crate::uri::KekUri;
use keyfold::{BoxFuture, Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

const FORM: &str = "azurekv://NAME.vault.azure.net/KEY?…";
/// The services that vaults and HSMs belong to, by the end of their host names, in the public cloud and the national ones.
const SERVICES: [&str; 6] = [
    "vault.azure.net",
    "managedhsm.azure.net",
    "vault.usgovcloudapi.net",
    "managedhsm.usgovcloudapi.net",
    "vault.azure.cn",
    "managedhsm.azure.cn",
];

/// How the KEK wraps. Both take no associated data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AzureAlgorithm {
    /// An RSA key, in a vault or a Managed HSM. At least 2048 bits.
    RsaOaep256,
    /// An AES-256 key, in a Managed HSM alone.
    A256Kw,
}

/// Gives a token of Microsoft Entra ID for the service, each time that one is needed.
#[derive(Clone)]
pub struct HostToken(Arc<dyn Fn() -> BoxFuture<'static, Result<SecretText>> + Send + Sync>);

impl HostToken {
    /// Tokens from `give`, which runs on the thread that reaches key services and must not block it.
    pub fn new(give: impl Fn() -> BoxFuture<'static, Result<SecretText>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(give))
    }

    pub(super) async fn give(&self) -> Result<SecretText> {
        (self.0)().await
    }
}

impl fmt::Debug for HostToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostToken(…)")
    }
}

/// Who asks.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum AzureCredentials {
    /// What the environment says: a workload identity where AZURE_FEDERATED_TOKEN_FILE is set, a client secret where
    /// AZURE_CLIENT_SECRET is, and the managed identity of the machine otherwise.
    Chain,
    /// The managed identity of a VM, App Service or Container App; without a client ID the one that the machine has.
    Managed {
        /// Of a user-assigned identity.
        client_id: Option<String>,
    },
    /// The service account of a pod in AKS, by AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_FEDERATED_TOKEN_FILE.
    Workload,
    /// An application with a secret.
    ClientSecret {
        /// Its directory.
        tenant_id: String,
        /// Its ID.
        client_id: String,
        /// Its secret.
        secret: SecretSource,
    },
    /// The command line of a developer who is logged in.
    Cli,
    /// A token that somebody else keeps fresh. Read again when the vault refuses it, and at least every ten minutes.
    Token(SecretSource),
    /// A token of the host program.
    Host(HostToken),
}

/// A key of Azure Key Vault or Managed HSM.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct AzureConfig {
    /// `https://NAME.vault.azure.net`, or any scheme with a loopback address.
    pub vault: Url,
    /// The key.
    pub key: String,
    /// How it wraps.
    pub algorithm: AzureAlgorithm,
    /// The service whose tokens the vault takes, such as `https://vault.azure.net`. A vault that asks for another is refused.
    pub resource: String,
    /// Who asks.
    pub credentials: AzureCredentials,
    /// A PEM file with the CA to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// Deadline, attempts, rate.
    pub limits: Limits,
}

impl AzureConfig {
    /// The key that `uri` names: `azurekv://HOST/KEY?OPTION=VALUE&…`. Paths are relative to `folder`.
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `algorithm` | `RSA-OAEP-256`, the default in a vault, or `A256KW`, the default in a Managed HSM |
    /// | `auth` | `chain` (the default), `managed`, `workload`, `secret`, `cli` or `token` |
    /// | `client_id` | with `managed`: of a user-assigned identity; with `secret`: of the application |
    /// | `tenant_id`, `client_secret_file`, `client_secret_env` | with `secret` |
    /// | `token_file`, `token_env` | with `token` |
    /// | `resource` | the service whose tokens the vault takes, where its host name does not say |
    /// | `ca` | a PEM file with the CA to trust in place of the system's |
    /// | `tls` | `off` speaks plain HTTP to a loopback address |
    /// | `timeout`, `attempts`, `rate` | limits: see [`Limits`] |
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names what is wrong, never a credential.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        let mut uri = KekUri::parse(uri, "azurekv", folder)?;
        let form = || wrong("the URI of the KEK must name host and key", FORM);
        let (host, key) = uri.address.split_once('/').ok_or_else(form)?;
        let (host, key) = (host.to_owned(), key.to_owned());
        let scheme = match uri.take("tls").as_deref() {
            None => "https",
            Some("off") => "http",
            Some(_) => return Err(wrong("the option tls of a KEK is off or absent", FORM)),
        };
        let vault = Url::parse(&format!("{scheme}://{host}")).map_err(|_| form())?;
        let service = service_of(&vault);
        let algorithm = match (uri.take("algorithm").as_deref(), service) {
            (None, Some(service)) if service.starts_with("managedhsm.") => AzureAlgorithm::A256Kw,
            (None | Some("RSA-OAEP-256"), _) => AzureAlgorithm::RsaOaep256,
            (Some("A256KW"), _) => AzureAlgorithm::A256Kw,
            _ => return Err(wrong("the option algorithm of a KEK is RSA-OAEP-256 or A256KW", FORM)),
        };
        let resource = match (uri.take("resource"), service) {
            (Some(resource), None) => resource,
            (None, Some(service)) => format!("https://{service}"),
            (None, None) if is_loopback(&vault) => format!("https://{}", SERVICES[0]),
            (Some(_), Some(_)) => return Err(wrong("the host of the KEK says which resource it is", FORM)),
            (None, None) => {
                return Err(wrong("the host is none of Azure's own: the option resource must be there", FORM));
            }
        };
        let credentials = take_credentials(&mut uri)?;
        let (ca, limits) = (uri.take_path("ca"), uri.take_limits()?);
        uri.finish()?;
        let config = Self { vault, key, algorithm, resource, credentials, ca, limits };
        config.check()?;
        Ok(config)
    }

    /// Whether the service is one of Azure's own, whose tokens Microsoft gives.
    pub(super) fn is_in_azure(&self) -> bool {
        self.resource.strip_prefix("https://").is_some_and(|service| SERVICES.contains(&service))
    }

    pub(super) fn check(&self) -> Result<()> {
        let is_key =
            (1..=127).contains(&self.key.len()) && self.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let vault = &self.vault;
        if !is_key || vault.host().is_none() || !matches!(vault.path(), "" | "/") || vault.query().is_some() {
            return Err(wrong("a KEK of Azure has a host and a key of 1 to 127 of a-z, A-Z, 0-9 and '-'", FORM));
        }
        if vault.scheme() != "https" && !(vault.scheme() == "http" && is_loopback(vault)) {
            return Err(wrong(
                "a vault is reached over HTTPS; tls=off is for loopback addresses such as 127.0.0.1",
                FORM,
            ));
        }
        if !self.resource.starts_with("https://") || self.resource.ends_with('/') {
            return Err(wrong("the resource of a KEK is as https://vault.azure.net, without a slash at its end", FORM));
        }
        self.limits.check()
    }
}

/// The service that the host is a subdomain of.
fn service_of(vault: &Url) -> Option<&'static str> {
    let host = vault.host_str()?;
    let is_of = |service: &str| {
        host.strip_suffix(service).and_then(|name| name.strip_suffix('.')).is_some_and(|name| !name.is_empty())
    };
    SERVICES.into_iter().find(|service| is_of(service))
}

fn take_credentials(uri: &mut KekUri) -> Result<AzureCredentials> {
    let lacks = |option| wrong("the URI of the KEK lacks an option", option);
    match uri.take("auth").as_deref() {
        None | Some("chain") => Ok(AzureCredentials::Chain),
        Some("managed") => Ok(AzureCredentials::Managed { client_id: uri.take("client_id") }),
        Some("workload") => Ok(AzureCredentials::Workload),
        Some("cli") => Ok(AzureCredentials::Cli),
        Some("secret") => Ok(AzureCredentials::ClientSecret {
            tenant_id: uri.require("tenant_id")?,
            client_id: uri.require("client_id")?,
            secret: uri
                .take_secret("client_secret")?
                .ok_or_else(|| lacks("client_secret_file or client_secret_env"))?,
        }),
        Some("token") => {
            Ok(AzureCredentials::Token(uri.take_secret("token")?.ok_or_else(|| lacks("token_file or token_env"))?))
        }
        Some(_) => Err(wrong("the option auth of the KEK is chain, managed, workload, secret, cli or token", FORM)),
    }
}

/// Vault and key, for errors and logs.
impl fmt::Display for AzureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.vault.host_str().unwrap_or_default();
        let port = self.vault.port().map_or_else(String::new, |port| format!(":{port}"));
        write!(f, "azurekv://{host}{port}/{}", self.key)
    }
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}
