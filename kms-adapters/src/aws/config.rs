//! Which key of AWS KMS, and whose credentials.

use super::Arn;
use crate::http::is_loopback;
use crate::layer::Limits;
use crate::uri::KekUri;
use keyfold::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use url::Url;

const FORM: &str = "awskms://arn:aws:kms:REGION:ACCOUNT:key/ID?…";

/// Whose credentials sign the requests.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub enum AwsCredentials {
    /// The chain of the AWS SDK: environment, profile, web identity (EKS, GitHub), container (ECS, EKS Pod Identity), EC2
    /// instance. The first that has some counts.
    Chain,
    /// A profile in a file, and nothing else.
    Profile {
        /// A credentials file as the AWS command line writes it; without one, the user's own files.
        file: Option<PathBuf>,
        /// The profile.
        name: String,
    },
}

/// A key of AWS KMS.
#[non_exhaustive]
#[derive(Clone, Debug)]
pub struct AwsConfig {
    /// The key or alias that wraps. Its region is the one that is asked.
    pub key: Arn,
    /// Further keys of the region that are asked for what they wrapped: those that an alias pointed to before.
    pub opens: Vec<Arn>,
    /// Where to reach the service other than under its public name: `https://…`, or `http://` with a loopback address.
    pub endpoint: Option<Url>,
    /// Whether to use the endpoint whose cryptography is validated to FIPS 140.
    pub fips: bool,
    /// Whose credentials.
    pub credentials: AwsCredentials,
    /// A PEM file with the CA of the endpoint, to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// Deadline, attempts, rate.
    pub limits: Limits,
}

impl AwsConfig {
    /// The key or alias `key` in its region, with the SDK's chain of credentials and the usual limits.
    #[must_use]
    pub fn new(key: Arn) -> Self {
        let (credentials, limits) = (AwsCredentials::Chain, Limits::default());
        Self { key, opens: Vec::new(), endpoint: None, fips: false, credentials, ca: None, limits }
    }

    /// The key that `uri` names: `awskms://ARN?OPTION=VALUE&…`. Paths are relative to `folder`.
    ///
    /// | option | meaning |
    /// |---|---|
    /// | `opens` | ARNs of keys, with commas between them, that are asked for what they wrapped, besides the KEK itself |
    /// | `profile` | use this profile and no other source of credentials |
    /// | `credentials_file` | in this file; the profile is `default` unless named |
    /// | `endpoint` | such as a VPC endpoint; the variable AWS_ENDPOINT_URL is not read |
    /// | `fips` | `on`: the FIPS endpoint of the region |
    /// | `ca` | a PEM file with the CA of the endpoint |
    /// | `timeout`, `attempts`, `rate` | limits: see [`Limits`] |
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names what is wrong.
    pub fn from_uri(uri: &str, folder: &Path) -> Result<Self> {
        let mut uri = KekUri::parse(uri, "awskms", folder)?;
        let mut config = Self::new(uri.address.parse()?);
        if let Some(opens) = uri.take("opens") {
            config.opens = opens.split(',').map(str::parse).collect::<Result<_>>()?;
        }
        config.credentials = match (uri.take("profile"), uri.take_path("credentials_file")) {
            (None, None) => AwsCredentials::Chain,
            (name, file) => AwsCredentials::Profile { file, name: name.unwrap_or_else(|| "default".to_owned()) },
        };
        let endpoint = uri.take("endpoint");
        let endpoint = endpoint.map(|text| Url::parse(&text).map_err(|_| wrong("an endpoint is a URL", FORM)));
        config.endpoint = endpoint.transpose()?;
        config.fips = match uri.take("fips").as_deref() {
            None => false,
            Some("on") => true,
            Some(_) => return Err(wrong("the option fips of a KEK is on or absent", FORM)),
        };
        (config.ca, config.limits) = (uri.take_path("ca"), uri.take_limits()?);
        uri.finish()?;
        config.check()?;
        Ok(config)
    }

    /// The configured key or alias to ask for what the key `wrapper` wrapped, and the key that must answer. `None`: no
    /// configured one can have wrapped it. Records never choose a key: they can only name one that is configured here.
    pub(super) fn opener_of(&self, wrapper: &Arn) -> Option<(&Arn, Arn)> {
        // An alias comes last: it may have moved away from a key that is named here.
        let mut named = self.opens.iter().chain([&self.key]);
        named.find_map(|name| Some((name, name.opener_of(wrapper)?)))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.opens.iter().any(|key| key.is_alias() || key.region() != self.key.region()) {
            return Err(wrong("the option opens of a KEK names keys, no aliases, of the same region", FORM));
        }
        if let Some(endpoint) = &self.endpoint {
            let has_more = endpoint.query().is_some() || endpoint.fragment().is_some();
            if endpoint.host().is_none() || has_more || !endpoint.username().is_empty() || endpoint.password().is_some()
            {
                return Err(wrong("an endpoint is scheme, host and port", FORM));
            }
            if endpoint.scheme() != "https" && !(endpoint.scheme() == "http" && is_loopback(endpoint)) {
                return Err(wrong(
                    "AWS KMS is reached over HTTPS; http is for loopback addresses such as 127.0.0.1",
                    FORM,
                ));
            }
            if self.fips {
                return Err(wrong("an endpoint of your own is not chosen by the option fips: name a FIPS one", FORM));
            }
        }
        self.limits.check()
    }
}

/// The key, for errors and logs.
impl fmt::Display for AwsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "awskms://{}", self.key)
    }
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}
