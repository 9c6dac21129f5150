//! The AWS Encryption SDK for Rust: a raw AES keyring in memory, and a suite that commits and does not sign.
//!
//! It has no cache of data keys for raw keyrings (<https://docs.aws.amazon.com/encryption-sdk/latest/developer-guide/data-key-caching.html>), so
//! a value has a data key of its own. Its context is the same for all rows, as in ../peers/esdk.py.

use crate::{Opened, Peer};
use aws_esdk::client::Client;
use aws_esdk::material_providers::client::Client as Materials;
use aws_esdk::material_providers::types::keyring::KeyringRef;
use aws_esdk::material_providers::types::material_providers_config::MaterialProvidersConfig;
use aws_esdk::material_providers::types::{AesWrappingAlg, EsdkAlgorithmSuiteId};
use aws_esdk::types::aws_encryption_sdk_config::AwsEncryptionSdkConfig;
use std::collections::HashMap;
use tokio::runtime::{Builder, Runtime};

pub(crate) struct Esdk {
    runtime: Runtime,
    client: Client,
    keyring: KeyringRef,
    context: HashMap<String, String>,
}

impl Esdk {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
        let config = AwsEncryptionSdkConfig::builder().build().expect("defaults");
        let materials = MaterialProvidersConfig::builder().build().expect("defaults");
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).expect("the system has randomness");
        let keyring = Materials::from_conf(materials)
            .expect("defaults")
            .create_raw_aes_keyring()
            .key_name("one")
            .key_namespace("bench")
            .wrapping_key(key)
            .wrapping_alg(AesWrappingAlg::AlgAes256GcmIv12Tag16);
        let padding = "-".repeat(64);
        let context = [("field", "patient.mrn"), ("tenant", "clinic7"), ("padding", &padding)];
        Self {
            keyring: runtime.block_on(keyring.send()).expect("a key of 32 bytes"),
            client: Client::from_conf(config).expect("defaults"),
            context: context.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            runtime,
        }
    }
}

impl Peer for Esdk {
    fn seal(&self, value: &[u8], _: &[u8]) -> Vec<u8> {
        let request = self
            .client
            .encrypt()
            .plaintext(value)
            .keyring(self.keyring.clone())
            .encryption_context(self.context.clone())
            .algorithm_suite_id(EsdkAlgorithmSuiteId::AlgAes256GcmHkdfSha512CommitKey);
        let sealed = self.runtime.block_on(request.send()).expect("short enough");
        sealed.ciphertext.expect("a ciphertext").into_inner()
    }

    fn open(&self, sealed: &[u8], _: &[u8]) -> Opened {
        let request = self.client.decrypt().ciphertext(sealed).keyring(self.keyring.clone());
        let opened = self.runtime.block_on(request.send()).expect("sealed by this keyring");
        Opened::Bytes(opened.plaintext.expect("a plaintext").into_inner())
    }

    fn shared(&self) -> Option<&(dyn Peer + Sync)> {
        Some(self)
    }
}
