//! Which key of which service, and how to log in.

use crate::credentials::SecretSource;
use crate::http::is_loopback;
use crate::layer::Limits;
use crate::uri::KekUri;
use keyfold::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use url::Url;

const FORM: &str = "vault://HOST:8200/MOUNT/KEY?…";
const DEFAULT_PORT: u16 = 8200;
/// Where Kubernetes puts the token of a pod's service account.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How to get a token.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum VaultAuth {
    /// It is there already, for example in a file that an agent keeps fresh. Read before each request; renewed where it
    /// can be.
    Token(SecretSource),
    /// AppRole.
    AppRole {
        /// Where the auth method is mounted.
        mount: String,
        /// Not secret by itself.
        role_id: String,
        /// Secret ID.
        secret_id: SecretSource,
    },
    /// The service account of a pod.
    Kubernetes {
        /// Where the auth method is mounted.
        mount: String,
        /// The role in Vault.
        role: String,
        /// The token of the service account.
        jwt: SecretSource,
    },
}

/// A key of a transit engine.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct VaultConfig {
    /// `https://HOST:PORT`, or `http://` with a loopback address.
    pub address: Url,
    /// Where the engine is mounted, such as `transit`.
    pub mount: String,
    /// The key.
    pub key: String,
    /// The namespace, where the service has several.
    pub namespace: Option<String>,
    /// How to get a token.
    pub auth: VaultAuth,
    /// A PEM file with the CA to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// Deadline, attempts, rate.
    pub limits: Limits,
}

impl VaultConfig {
    /// The key `key` of the engine `mount` at `address`, with the system's CAs and the usual limits.
    #[must_use]
    pub fn new(address: Url, mount: &str, key: &str, auth: VaultAuth) -> Self {
        Self {
            address,
            mount: mount.to_owned(),
            key: key.to_owned(),
            namespace: None,
            auth,
            ca: None,
            limits: Limits::default(),
        }
    }

    /// The key that `uri` names: `vault://HOST[:PORT]/MOUNT/KEY?OPTION=VALUE&…`. Paths are relative to `folder`.
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `auth` | `token` (the default), `approle` or `kubernetes` |
    /// | `token_file`, `token_env` | with `token`: where the token is |
    /// | `role_id`, `secret_id_file`, `secret_id_env` | with `approle` |
    /// | `role`, `jwt_file` | with `kubernetes`; the file is the pod's own by default |
    /// | `auth_mount` | where the auth method is mounted; its name by default |
    /// | `namespace` | the namespace |
    /// | `ca` | a PEM file with the CA to trust in place of the system's |
    /// | `tls` | `off` speaks plain HTTP to a loopback address |
    /// | `timeout`, `attempts`, `rate` | limits: see [`Limits`] |
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): names what is wrong, never a credential.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        let mut uri = KekUri::parse(uri, "vault", folder)?;
        let form = || wrong("the URI of the KEK must name host, mount and key", FORM);
        let (host, path) = uri.address.split_once('/').ok_or_else(form)?;
        let (mount, key) = path.rsplit_once('/').ok_or_else(form)?;
        let (host, mount, key) = (host.to_owned(), mount.to_owned(), key.to_owned());
        let scheme = match uri.take("tls").as_deref() {
            None => "https",
            Some("off") => "http",
            Some(_) => return Err(wrong("the option tls of a KEK is off or absent", FORM)),
        };
        let mut address = Url::parse(&format!("{scheme}://{host}")).map_err(|_| form())?;
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        if !has_port {
            address.set_port(Some(DEFAULT_PORT)).map_err(|()| form())?;
        }
        let auth = Self::take_auth(&mut uri)?;
        let (namespace, ca, limits) = (uri.take("namespace"), uri.take_path("ca"), uri.take_limits()?);
        uri.finish()?;
        let config = Self { address, mount, key, namespace, auth, ca, limits };
        config.check()?;
        Ok(config)
    }

    fn take_auth(uri: &mut KekUri) -> Result<VaultAuth> {
        let method = uri.take("auth").unwrap_or_else(|| "token".to_owned());
        let mount = uri.take("auth_mount").unwrap_or_else(|| method.clone());
        let lacks = |option| wrong("the URI of the KEK lacks an option", option);
        match method.as_str() {
            "token" => Ok(VaultAuth::Token(uri.take_secret("token")?.ok_or_else(|| lacks("token_file or token_env"))?)),
            "approle" => Ok(VaultAuth::AppRole {
                mount,
                role_id: uri.require("role_id")?,
                secret_id: uri.take_secret("secret_id")?.ok_or_else(|| lacks("secret_id_file or secret_id_env"))?,
            }),
            "kubernetes" => Ok(VaultAuth::Kubernetes {
                mount,
                role: uri.require("role")?,
                jwt: uri.take_secret("jwt")?.unwrap_or_else(|| SecretSource::File(POD_TOKEN.into())),
            }),
            _ => Err(wrong("the option auth of the KEK is token, approle or kubernetes", FORM)),
        }
    }

    /// Checks names and address.
    pub(super) fn check(&self) -> Result<()> {
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !matches!(part, "." | "..")
        };
        let is_path = |path: &str| path.split('/').all(is_part);
        let auth_mount = match &self.auth {
            VaultAuth::Token(_) => "token",
            VaultAuth::AppRole { mount, .. } | VaultAuth::Kubernetes { mount, .. } => mount,
        };
        let namespace = self.namespace.as_deref().map(|namespace| namespace.trim_end_matches('/'));
        if !is_path(&self.mount) || !is_part(&self.key) || !is_path(auth_mount) || !namespace.is_none_or(is_path) {
            return Err(wrong(
                "mounts, keys and namespaces of a vault have names of a-z, A-Z, 0-9, '-', '_' and '.'",
                FORM,
            ));
        }
        let address = &self.address;
        if address.host().is_none() || !matches!(address.path(), "" | "/") || address.query().is_some() {
            return Err(wrong("the address of a vault is host and port", FORM));
        }
        match address.scheme() {
            "https" => {}
            "http" if is_loopback(address) => {}
            _ => {
                return Err(wrong(
                    "a vault is reached over HTTPS; tls=off is for loopback addresses such as 127.0.0.1",
                    FORM,
                ));
            }
        }
        self.limits.check()
    }

    /// The URL of a path of the API.
    pub(super) fn url<const N: usize>(&self, parts: [&str; N]) -> Url {
        let mut url = self.address.clone();
        // The names were checked: they hold nothing that a URL would read otherwise.
        url.set_path(&format!("v1/{}", parts.join("/")));
        url
    }
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}

/// Service and key, for errors and logs.
impl fmt::Display for VaultConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.address.port_or_known_default().unwrap_or(DEFAULT_PORT);
        write!(f, "vault://{}:{port}/{}/{}", self.address.host_str().unwrap_or_default(), self.mount, self.key)?;
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, "?namespace={namespace}"))
    }
}
