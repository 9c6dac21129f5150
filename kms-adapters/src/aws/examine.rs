//! What AWS KMS says about the key to those who may ask: `kms:DescribeKey` and `kms:GetKeyRotationStatus`.

use super::{AwsConfig, AwsCredentials, failure};
use crate::examine::{Binding, Finding, Profile};
use crate::layer::Attempt;
use aws_sdk_kms::Client;
use aws_sdk_kms::types::{KeyMetadata, KeyState};

pub(super) fn profile(config: &AwsConfig) -> Profile {
    let login = match &config.credentials {
        AwsCredentials::Chain => "the credentials chain of AWS".to_owned(),
        AwsCredentials::Profile { file: None, name } => format!("profile {name}"),
        AwsCredentials::Profile { file: Some(file), name } => format!("profile {name} of {}", file.display()),
    };
    Profile {
        login,
        binding: Binding::ByService,
        wrap_permission: "kms:Encrypt".to_owned(),
        unwrap_permission: "kms:Decrypt".to_owned(),
        page: "docs/kms/aws.md",
        ..Profile::default()
    }
}

pub(super) async fn look(client: &Client, config: &AwsConfig) -> Attempt<Vec<Finding>> {
    let mut found = Vec::new();
    let mut key = config.key.to_string();
    match client.describe_key().key_id(&key).send().await {
        Ok(answer) => {
            if let Some(metadata) = &answer.key_metadata {
                found.push(state(metadata));
                // Of an alias there is no rotation status.
                key = metadata.arn().map_or(key, ToOwned::to_owned);
            }
        }
        Err(error) => found.push(failure(&error).while_looking("key-state", "kms:DescribeKey")?),
    }
    match client.get_key_rotation_status().key_id(key).send().await {
        Ok(answer) => {
            let sentence = match (answer.key_rotation_enabled, answer.rotation_period_in_days) {
                (true, days) => {
                    let next = answer.next_rotation_date.map_or_else(String::new, |at| format!(", next on {at}"));
                    format!("AWS rotates the key every {} days{next}", days.unwrap_or(365))
                }
                (false, _) => "AWS does not rotate the key by itself".to_owned(),
            };
            found.push(Finding::note("key-rotation", sentence));
        }
        Err(error) => found.push(failure(&error).while_looking("key-rotation", "kms:GetKeyRotationStatus")?),
    }
    Ok(found)
}

fn state(metadata: &KeyMetadata) -> Finding {
    const NAME: &str = "key-state";
    match metadata.key_state() {
        Some(KeyState::Enabled) => Finding::note(NAME, "the key is enabled"),
        Some(KeyState::PendingDeletion) => {
            let date = metadata.deletion_date().map_or_else(String::new, |date| format!(" on {date}"));
            Finding::problem(
                NAME,
                format!("AWS will delete the key{date}, and everything that it alone wraps is lost then"),
                "call the deletion off (aws kms cancel-key-deletion, then enable-key) unless it is meant",
            )
        }
        Some(KeyState::Disabled) => {
            Finding::problem(NAME, "the key is disabled", "enable it (aws kms enable-key) unless that is meant")
        }
        _ => {
            Finding::problem(NAME, "the key is in a state in which it cannot be used", "look at it in the AWS console")
        }
    }
}
