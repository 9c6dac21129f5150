//! What a vault says about the key to those who may ask: `get` and `getrotationpolicy`.

use super::{AzureConfig, AzureCredentials, failure};
use crate::examine::{Binding, Finding, Profile};
use crate::layer::Attempt;
use azure_security_keyvault_keys::KeyClient;
use azure_security_keyvault_keys::models::{Key, KeyRotationPolicy, KeyRotationPolicyAction};

pub(super) fn profile(config: &AzureConfig) -> Profile {
    let login = match &config.credentials {
        AzureCredentials::Chain => "the credentials chain of Azure".to_owned(),
        AzureCredentials::Managed { client_id: None } => "the managed identity of the machine".to_owned(),
        AzureCredentials::Managed { client_id: Some(id) } => format!("the managed identity {id}"),
        AzureCredentials::Workload => "workload identity".to_owned(),
        AzureCredentials::ClientSecret { client_id, secret, .. } => format!("client {client_id}, secret from {secret}"),
        AzureCredentials::Cli => "the login of the command az".to_owned(),
        AzureCredentials::Token(source) => format!("a token from {source}"),
        AzureCredentials::Host(_) => "a token from the host program".to_owned(),
    };
    Profile {
        login,
        binding: Binding::ByKeyfold,
        wrap_permission: "wrapKey (Microsoft.KeyVault/vaults/keys/wrap/action)".to_owned(),
        unwrap_permission: "unwrapKey (Microsoft.KeyVault/vaults/keys/unwrap/action)".to_owned(),
        page: "docs/kms/azure.md",
        ..Profile::default()
    }
}

pub(super) async fn look(client: &KeyClient, key: &str) -> Attempt<Vec<Finding>> {
    let bundle = client.get_key(key, None).await.and_then(|answer| answer.into_model());
    let mut found = match bundle {
        Ok(key) => state(&key),
        Err(error) => vec![failure(&error).while_looking("key-state", "get (keys/read)")?],
    };
    let policy = client.get_key_rotation_policy(key, None).await.and_then(|answer| answer.into_model());
    found.push(match policy {
        Ok(policy) => Finding::note("key-rotation", rotation(&policy)),
        Err(error) => failure(&error).while_looking("key-rotation", "getrotationpolicy (keys/rotationpolicy/read)")?,
    });
    Ok(found)
}

fn state(key: &Key) -> Vec<Finding> {
    let attributes = key.attributes.clone().unwrap_or_default();
    let mut found = vec![match attributes.enabled {
        Some(false) => Finding::problem(
            "key-state",
            "the newest version of the key is disabled",
            "enable it in the vault unless that is meant",
        ),
        _ => Finding::note("key-state", "the newest version of the key is enabled"),
    }];
    if let Some(expires) = attributes.expires {
        found.push(Finding::warning(
            "key-expiry",
            format!("the newest version of the key expires on {}, and wraps nothing from then on", expires.date()),
            "rotate the key in the vault before",
        ));
    }
    found
}

fn rotation(policy: &KeyRotationPolicy) -> &'static str {
    let actions = policy.lifetime_actions.as_deref().unwrap_or_default();
    let mut kinds = actions.iter().filter_map(|action| action.action.as_ref()?.type_prop.as_ref());
    match kinds.any(|kind| *kind == KeyRotationPolicyAction::Rotate) {
        true => "the vault rotates the key by its rotation policy",
        false => "the vault does not rotate the key by itself",
    }
}
