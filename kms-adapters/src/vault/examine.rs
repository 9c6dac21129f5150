//! What the transit engine says about the key to those who may ask: `read` on MOUNT/keys/KEY.

use super::{Answer, Transit, VaultAuth, VaultConfig};
use crate::examine::{Binding, Finding, Profile};
use crate::http::Request;
use crate::layer::Attempt;
use keyfold::KmsTrace;
use serde::Deserialize;

pub(super) fn profile(config: &VaultConfig) -> Profile {
    let VaultConfig { mount, key, .. } = config;
    let login = match &config.auth {
        VaultAuth::Token(source) => format!("a token from {source}"),
        VaultAuth::AppRole { mount, secret_id, .. } => format!("AppRole at auth/{mount}, secret ID from {secret_id}"),
        VaultAuth::Kubernetes { mount, role, jwt } => {
            format!("Kubernetes at auth/{mount}, role {role}, JWT from {jwt}")
        }
    };
    Profile {
        login,
        binding: Binding::ByService,
        wrap_permission: format!("update on {mount}/encrypt/{key}"),
        unwrap_permission: format!("update on {mount}/decrypt/{key}"),
        page: "docs/kms/vault.md",
        ..Profile::default()
    }
}

#[derive(Deserialize)]
struct Key {
    latest_version: u32,
    #[serde(default)]
    min_decryption_version: u32,
    /// In seconds; 0: not at all.
    #[serde(default)]
    auto_rotate_period: u64,
    #[serde(default)]
    derived: bool,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    deletion_allowed: bool,
}

impl Transit {
    pub(super) async fn look(&self, trace: &KmsTrace) -> Attempt<Vec<Finding>> {
        let (mount, key) = (self.config.mount.as_str(), self.config.key.as_str());
        let request = self.with_headers(Request::get(self.config.url([mount, "keys", key])))?;
        match self.ask(request, Some(trace)).await {
            Ok(answer) => Ok(findings(&answer.json::<Answer<Key>>()?.data)),
            Err(failure) => Ok(vec![failure.while_looking("key-rotation", &format!("read on {mount}/keys/{key}"))?]),
        }
    }
}

fn findings(key: &Key) -> Vec<Finding> {
    let rotation = match key.auto_rotate_period {
        0 => "the vault does not rotate it by itself".to_owned(),
        seconds if seconds < 86_400 => format!("the vault rotates it every {} hours", seconds / 3600),
        seconds => format!("the vault rotates it every {} days", seconds / 86_400),
    };
    let Key { latest_version, min_decryption_version, .. } = key;
    let mut found = vec![Finding::note(
        "key-rotation",
        format!(
            "the newest version of the key is {latest_version}, the oldest that opens is {min_decryption_version}; {rotation}"
        ),
    )];
    if !key.derived {
        found.push(Finding::problem(
            "key-attributes",
            "the key is not derived, so it ignores the context",
            "make one with derived=true",
        ));
    }
    if key.exportable {
        found.push(Finding::warning(
            "key-attributes",
            "the key may be exported from the vault",
            "make one that is not exportable",
        ));
    }
    if key.deletion_allowed {
        found.push(Finding::warning(
            "key-attributes",
            "the key may be deleted, and everything that it alone wraps would be lost",
            "set deletion_allowed=false",
        ));
    }
    found
}
