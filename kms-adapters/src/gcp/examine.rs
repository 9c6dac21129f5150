//! What Cloud KMS says about the key to those who may ask: `cloudkms.cryptoKeys.get`.

use super::{CloudKms, GcpAuth, GcpConfig};
use crate::examine::{Binding, Finding, Profile};
use crate::http::Request;
use crate::layer::Attempt;
use keyfold::KmsTrace;
use serde::Deserialize;

pub(super) fn profile(config: &GcpConfig) -> Profile {
    let login = match &config.auth {
        GcpAuth::Default => "application default credentials".to_owned(),
        GcpAuth::Metadata => "the service account of the machine".to_owned(),
        GcpAuth::ServiceAccount(file) => format!("service account of {}", file.display()),
        GcpAuth::Token(source) => format!("a token from {source}"),
        GcpAuth::Host(_) => "a token from the host program".to_owned(),
    };
    Profile {
        login,
        binding: Binding::ByService,
        wrap_permission: "cloudkms.cryptoKeyVersions.useToEncrypt".to_owned(),
        unwrap_permission: "cloudkms.cryptoKeyVersions.useToDecrypt".to_owned(),
        page: "docs/kms/gcp.md",
        ..Profile::default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CryptoKey {
    primary: Option<Version>,
    rotation_period: Option<String>,
    next_rotation_time: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    name: String,
    state: String,
}

impl CloudKms {
    pub(super) async fn look(&self, trace: &KmsTrace) -> Attempt<Vec<Finding>> {
        let answer = match self.ask(Request::get(self.config.key_url()), Some(trace)).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(vec![failure.while_looking("key-rotation", "cloudkms.cryptoKeys.get")?]),
        };
        let key: CryptoKey = answer.json()?;
        let state = match &key.primary {
            Some(version) if version.state == "ENABLED" && self.is_ours(&version.name) => {
                let number = version.name.rsplit('/').next().unwrap_or_default();
                Finding::note("key-state", format!("version {number} of the key is primary and enabled"))
            }
            _ => Finding::problem(
                "key-state",
                "the key has no primary version that is enabled",
                "enable one, or make another one primary",
            ),
        };
        let rotation =
            match (key.rotation_period.as_deref().and_then(days), key.next_rotation_time.filter(|t| is_time(t))) {
                (Some(days), next) => {
                    let next = next.map_or_else(String::new, |at| format!(", next on {at}"));
                    format!("Google rotates the key every {days} days{next}")
                }
                (None, _) => "Google does not rotate the key by itself".to_owned(),
            };
        Ok(vec![state, Finding::note("key-rotation", rotation)])
    }
}

/// Of a duration such as `7776000s`.
fn days(text: &str) -> Option<u64> {
    Some(text.strip_suffix('s')?.parse::<u64>().ok()? / 86_400)
}

/// Whether it is a time such as `2026-11-25T00:00:00Z`, and nothing else that a service might write.
fn is_time(text: &str) -> bool {
    text.len() <= 32 && text.bytes().all(|b| b.is_ascii_digit() || b"-:.TZ".contains(&b))
}
