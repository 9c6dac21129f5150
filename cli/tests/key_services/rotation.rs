//! The rotation of a KEK as the pages in docs/kms tell it, to its end: what is left behind opens no more, what was renewed does.

use crate::common::{KMS, PATIENTS, argument};
use crate::keyring::{Ring, section};
use crate::services::{Service, alone, post, say, variable};
use serde_json::{Value, json};
use std::fs;
use tempfile::TempDir;

/// What an administrator of `service` does at the service; `uri` is that of the KEK.
trait Administration {
    /// The KEK gets a new version. The URI under which it is used from now on, until the old version has ended.
    fn rotate(&mut self, uri: &str) -> String;
    /// The old version ends. The URI from now on.
    fn retire(&mut self, uri: &str) -> String;
}

struct Vault;

impl Vault {
    fn admin(uri: &str, what: &str, body: Value) {
        let (address, key) = (variable("KEYFOLD_TEST_OPENBAO"), name(uri));
        let (token, ca) = (variable("KEYFOLD_TEST_OPENBAO_TOKEN"), variable("KEYFOLD_TEST_OPENBAO_CA"));
        let url = format!("{address}/v1/transit/keys/{key}/{what}");
        assert_eq!(post(&url, &[("x-vault-token", &token)], Some(&ca), body).0, 200, "{what}");
    }
}

impl Administration for Vault {
    fn rotate(&mut self, uri: &str) -> String {
        Self::admin(uri, "rotate", json!({}));
        uri.to_owned()
    }

    fn retire(&mut self, uri: &str) -> String {
        Self::admin(uri, "config", json!({ "min_decryption_version": 2 }));
        uri.to_owned()
    }
}

/// An alias that is moved to another key.
#[derive(Default)]
struct Aws {
    old: String,
}

impl Aws {
    fn admin(operation: &str, body: Value) -> Value {
        let target = format!("TrentService.{operation}");
        let headers = [("x-amz-target", target.as_str()), ("x-test-admin", "eu-central-1")];
        let (status, answer) = post(&variable("KEYFOLD_TEST_AWS"), &headers, None, body);
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// `uri` with an alias in the place of the key that it names.
    fn behind_an_alias(&mut self, uri: &str) -> String {
        self.old = uri.trim_start_matches("awskms://").split('?').next().expect("an ARN").to_owned();
        let (place, id) = self.old.split_once(":key/").expect("an ARN of a key");
        Self::admin("CreateAlias", json!({ "AliasName": format!("alias/{id}"), "TargetKeyId": id }));
        uri.replace(&self.old, &format!("{place}:alias/{id}"))
    }
}

impl Administration for Aws {
    fn rotate(&mut self, uri: &str) -> String {
        let new = Self::admin("CreateKey", json!({}))["KeyMetadata"]["KeyId"].clone();
        let id = self.old.rsplit('/').next().expect("an ID");
        Self::admin("UpdateAlias", json!({ "AliasName": format!("alias/{id}"), "TargetKeyId": new }));
        format!("{uri}&opens={}", self.old)
    }

    fn retire(&mut self, uri: &str) -> String {
        Self::admin("DisableKey", json!({ "KeyId": self.old }));
        uri.replace(&format!("&opens={}", self.old), "")
    }
}

#[derive(Default)]
struct Azure {
    old: Value,
}

impl Azure {
    fn wish(what: &str, body: Value) -> Value {
        post(&format!("{}/_test/{what}", variable("KEYFOLD_TEST_AZURE_CONTROL")), &[], None, body).1
    }
}

impl Administration for Azure {
    fn rotate(&mut self, uri: &str) -> String {
        Self::wish("create", json!({ "name": name(uri), "kty": "RSA" }));
        uri.to_owned()
    }

    fn retire(&mut self, uri: &str) -> String {
        Self::wish("enable", json!({ "name": name(uri), "version": self.old, "enabled": false }));
        uri.to_owned()
    }
}

struct Google;

impl Google {
    fn admin(uri: &str, what: &str, body: Value) {
        let address = variable("KEYFOLD_TEST_GOOGLE_KMS");
        let token = post(&format!("{address}/fake/everything"), &[], None, json!({})).1["token"].clone();
        let bearer = format!("Bearer {}", token.as_str().expect("a token"));
        let key = uri.trim_start_matches("gcpkms://").split('?').next().expect("a name");
        let (status, answer) = post(&format!("{address}/v1/{key}{what}"), &[("authorization", &bearer)], None, body);
        assert_eq!(status, 200, "{what}: {answer}");
    }
}

impl Administration for Google {
    fn rotate(&mut self, uri: &str) -> String {
        Self::admin(uri, "/cryptoKeyVersions", json!({}));
        Self::admin(uri, ":updatePrimaryVersion", json!({ "cryptoKeyVersionId": "2" }));
        uri.to_owned()
    }

    fn retire(&mut self, uri: &str) -> String {
        Self::admin(uri, "/cryptoKeyVersions/1:destroy", json!({}));
        uri.to_owned()
    }
}

/// The name of the key in a URI.
fn name(uri: &str) -> &str {
    uri.split('?').next().and_then(|path| path.rsplit('/').next()).expect("a name")
}

/// The keyring as it is now, for later.
fn copy(ring: &Ring) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(ring.world.keys()).expect("read") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copied");
    }
    folder
}

// Failure A27
#[test]
fn a_kek_is_rotated_to_its_end() {
    let _alone = alone();
    for service in Service::given() {
        let ring = Ring::new();
        let (world, alias) = (&ring.world, service.alias());
        let (mut uri, mut administration): (String, Box<dyn Administration>) = match service {
            Service::Vault => (ring.move_to(service), Box::new(Vault)),
            Service::Aws => {
                let mut aws = Aws::default();
                (aws.behind_an_alias(&ring.move_to(service)), Box::new(aws))
            }
            Service::Azure => {
                let uri = ring.move_to(service);
                let old = ring.kek_version().rsplit('/').next().map(Value::from).expect("a version");
                (uri, Box::new(Azure { old }))
            }
            Service::Google => (ring.move_to(service), Box::new(Google)),
            // Their keys have no versions.
            Service::Pkcs11 | Service::Callback | Service::Local => continue,
        };
        ring.configure(&section(service, &uri));
        world.protect(&[]);
        let old = ring.kek_version();
        uri = administration.rotate(&uri);
        ring.configure(&section(service, &uri));
        let plain = world.succeeds(&["keys", "rewrap"]);
        let plain = plain.stdout_text();
        assert!(plain.contains("0 records changed") && plain.contains("keys rewrap --renew ALIAS"), "{plain}");
        assert_eq!(ring.kek_version(), old, "{service:?}");
        let left = copy(&ring);
        let renewed = world.succeeds(&["keys", "rewrap", "--renew", alias]);
        let renewed = renewed.stdout_text();
        assert!(renewed.contains("1 made anew") && !renewed.contains("not compared"), "{renewed}");
        assert_ne!(ring.kek_version(), old, "{service:?}");
        uri = administration.retire(&uri);
        ring.configure(&section(service, &uri));
        let left = left.path().join("keyfold.toml");
        let left = world.run(&["reveal", "sealed.csv", "--output", "left.csv", "--config", argument(&left)]);
        assert_eq!(left.code, Some(KMS), "{service:?}: {}", left.stderr);
        world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
        assert_eq!(world.text("out.csv"), PATIENTS, "{service:?}");
        world.succeeds(&["keys", "rotate", "--root"]);
        say(&format!("{service:?}: rotated, renewed, the old version ended"));
    }
}

#[test]
fn new_material_of_aws_asks_for_nothing() {
    let _alone = alone();
    if !Service::given().contains(&Service::Aws) {
        return;
    }
    let ring = Ring::new();
    let uri = ring.move_to(Service::Aws);
    ring.world.protect(&[]);
    let key = uri.trim_start_matches("awskms://").split('?').next().expect("an ARN");
    Aws::admin("RotateKeyOnDemand", json!({ "KeyId": key }));
    let renewed = ring.world.succeeds(&["keys", "rewrap", "--renew", Service::Aws.alias()]);
    let renewed = renewed.stdout_text();
    assert!(renewed.contains("0 made anew"), "{renewed}");
    ring.world.succeeds(&["reveal", "sealed.csv", "--output", "out.csv"]);
    assert_eq!(ring.world.text("out.csv"), PATIENTS);
}
