//! Against the servers that `./test` starts, or that `python3 tools/NAME.py COMMAND` starts.

use crate::common::{World, skip};
use crate::{configure_kek, doctor, secret_file};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;

/// The value of a variable that names a server; `None`, said aloud, where there is none.
fn server(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    if value.is_none() {
        skip(&format!("{variable} names no server"));
    }
    value
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set with the others"))
}

/// Sends JSON to `http://…`, and returns JSON.
fn post(url: &str, headers: &str, body: &Value) -> Value {
    let (host, path) = url.strip_prefix("http://").expect("plain HTTP").split_once('/').expect("a path");
    let body = body.to_string();
    let text = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).expect("connected");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("received");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body).unwrap_or_default()
}

#[cfg(feature = "vault")]
mod vault {
    use super::*;
    use crate::configure;
    use keyfold_kms::credentials::SecretText;
    use keyfold_kms::http::{Http, Request};
    use std::path::Path;

    /// Calls the API as the administrator.
    fn admin(path: &str, body: Value) -> Value {
        let url = format!("{}/v1/{path}", variable("KEYFOLD_TEST_OPENBAO")).parse().expect("a URL");
        let (token, ca) =
            (SecretText::new(variable("KEYFOLD_TEST_OPENBAO_TOKEN")), variable("KEYFOLD_TEST_OPENBAO_CA"));
        let call = async move {
            let http = Http::new(Some(Path::new(&ca)))?;
            let request =
                Request::post(url).secret_header("x-vault-token", "", &token).and_then(|request| request.json(&body));
            let answer = http.send(request.expect("a request"), None).await.expect("an answer");
            Ok(answer.json::<Value>().unwrap_or_default())
        };
        keyfold_background::block(call).expect("an answer")
    }

    /// A token that may do this to the key: pairs of operation and capability.
    fn token(key: &str, name: &str, may: &[(&str, &str)]) -> String {
        let rules: String = may
            .iter()
            .map(|(operation, capability)| {
                format!("path \"transit/{operation}/{key}\" {{ capabilities = [\"{capability}\"] }}\n")
            })
            .collect();
        let policy = format!("{key}-{name}");
        admin(&format!("sys/policies/acl/{policy}"), json!({ "policy": rules }));
        let answer = admin("auth/token/create", json!({ "policies": [policy], "no_default_policy": true }));
        answer["auth"]["client_token"].as_str().expect("a token").to_owned()
    }

    #[test]
    fn openbao_with_every_permission_and_without_each() {
        let Some(address) = server("KEYFOLD_TEST_OPENBAO") else { return };
        admin("sys/mounts/transit", json!({ "type": "transit" }));
        let key = format!("doctor-{}", std::process::id());
        admin(&format!("transit/keys/{key}"), json!({ "derived": true }));
        let host = address.trim_start_matches("https://");
        let world = World::new();
        let ca = variable("KEYFOLD_TEST_OPENBAO_CA");
        configure(&world, &format!("[keks.bao]\nuri = \"vault://{host}/transit/{key}?ca={ca}&token_file=token\""));
        const BOTH: [(&str, &str); 2] = [("encrypt", "update"), ("decrypt", "update")];
        let all = [&BOTH[..], &[("keys", "read")]].concat();
        let run = |name: &str, may: &[(&str, &str)]| {
            let token = token(&key, name, may);
            secret_file(&world, "token", &token);
            let found = doctor(&world, &[]);
            assert!(!found.output.contains(&token), "{}", found.output);
            found
        };
        run("service", &BOTH)
            .ends(0)
            .says("KEK bao", "login", "note", &["a token from file"])
            .says("KEK bao", "wrap", "note", &["median", "request ID"])
            .says("KEK bao", "context", "note", &["refuses another context"])
            .says("KEK bao", "key-rotation", "note", &["not permitted: read on transit/keys/"])
            .says("KEK bao", "clock", "note", &["agrees"])
            .says("KEK bao", "roots", "warning", &["keys repair"])
            .says("keyring", "quorum", "warning", &["no wrap by KEK bao"]);
        world.succeeds(&["keys", "repair"]);
        run("reader", &all).ends(0).says("KEK bao", "roots", "note", &["opens 1 of 1"]).says(
            "KEK bao",
            "key-rotation",
            "note",
            &["newest version of the key is 1"],
        );
        admin(&format!("transit/keys/{key}/rotate"), json!({}));
        run("rotated", &all).ends(0).says("KEK bao", "key-rotation", "note", &["newest version of the key is 2"]).says(
            "KEK bao",
            "kek-version",
            "note",
            &["under version 1, current is 2", "keys rewrap"],
        );
        let update = |operation| format!("update on transit/{operation}/{key}");
        run("no-encrypt", &BOTH[1..])
            .ends(1)
            .says("KEK bao", "permission", "problem", &[&update("encrypt"), "docs/kms/vault.md"])
            .says("KEK bao", "roots", "note", &["opens 1 of 1"]);
        run("no-decrypt", &BOTH[..1])
            .ends(1)
            .says("KEK bao", "permission", "problem", &[&update("decrypt"), "Set-up in five steps"])
            .says("KEK local", "roots", "note", &["opens 1 of 1"]);
        // A token that is none.
        secret_file(&world, "token", "s.hunter2");
        let found = doctor(&world, &[]);
        found.ends(1).says("KEK bao", "wrap", "problem", &["not valid", "Options"]);
        assert!(!found.output.contains("hunter2"), "{}", found.output);
        // A KEK that wraps nothing more need only unwrap.
        let config = std::fs::read_to_string(world.config()).expect("the configuration");
        std::fs::write(world.config(), format!("{config}retired = true\n")).expect("written");
        run("retired", &BOTH[1..]).ends(0).says("KEK bao", "roots", "note", &["opens 1 of 1"]);
    }
}

#[cfg(feature = "aws")]
#[test]
fn aws_with_every_permission_and_without_each() {
    let Some(endpoint) = server("KEYFOLD_TEST_AWS") else { return };
    let credentials = variable("KEYFOLD_TEST_AWS_CREDENTIALS");
    let admin = |operation: &str, asked: Value| {
        let headers = format!(
            "x-amz-target: TrentService.{operation}\r\nx-test-admin: eu-central-1\r\ncontent-type: application/x-amz-json-1.1\r\n"
        );
        post(&format!("{endpoint}/"), &headers, &asked)
    };
    let arn = admin("CreateKey", json!({}))["KeyMetadata"]["Arn"].as_str().expect("an ARN").to_owned();
    let run = |profile: &str| {
        let world = World::new();
        let uri = format!("awskms://{arn}?endpoint={endpoint}&credentials_file={credentials}&profile={profile}");
        configure_kek(&world, "aws", &uri);
        let found = doctor(&world, &[]);
        let secrets = std::fs::read_to_string(&credentials).expect("credentials");
        for secret in secrets.lines().filter_map(|line| line.split_once("secret_access_key = ")) {
            assert!(!found.output.contains(secret.1), "{}", found.output);
        }
        found
    };
    run("service")
        .ends(0)
        .says("KEK aws", "login", "note", &["profile service of"])
        .says("KEK aws", "wrap", "note", &["median"])
        .says("KEK aws", "context", "note", &["refuses another context"])
        .says("KEK aws", "key-state", "note", &["not permitted: kms:DescribeKey"])
        .says("KEK aws", "key-rotation", "note", &["not permitted: kms:GetKeyRotationStatus"]);
    run("operator").ends(0).says("KEK aws", "key-state", "note", &["enabled"]).says(
        "KEK aws",
        "key-rotation",
        "note",
        &["does not rotate the key"],
    );
    admin("EnableKeyRotation", json!({ "KeyId": arn }));
    run("operator").says("KEK aws", "key-rotation", "note", &["rotates the key every 365 days"]);
    run("reader").ends(1).says("KEK aws", "permission", "problem", &["kms:Encrypt", "docs/kms/aws.md"]);
    run("writer").ends(1).says("KEK aws", "permission", "problem", &["kms:Decrypt", "docs/kms/aws.md"]);
    run("stranger").ends(1).says("KEK aws", "wrap", "problem", &["does not know the access key", "profile stranger"]);
    admin("DisableKey", json!({ "KeyId": arn }));
    run("operator").ends(1).says("KEK aws", "wrap", "problem", &["disabled"]).says(
        "KEK aws",
        "key-state",
        "problem",
        &["disabled", "enable-key"],
    );
    admin("ScheduleKeyDeletion", json!({ "KeyId": arn }));
    run("operator").ends(1).says("KEK aws", "key-state", "problem", &["will delete the key", "cancel-key-deletion"]);
}

#[cfg(feature = "azure")]
#[test]
fn azure_with_every_permission_and_without_any() {
    let Some(address) = server("KEYFOLD_TEST_AZURE") else { return };
    let wish = |what: &str, asked: Value| {
        post(&format!("{}/_test/{what}", variable("KEYFOLD_TEST_AZURE_CONTROL")), "", &asked)
    };
    let key = format!("doctor-{}", std::process::id());
    wish("create", json!({ "name": key, "kty": "RSA" }));
    let host = address.strip_prefix("https://").expect("HTTPS");
    let run = |identity: &str| {
        let world = World::new();
        let token =
            wish("token", json!({ "identity": identity }))["access_token"].as_str().expect("a token").to_owned();
        secret_file(&world, "token", &token);
        let ca = variable("KEYFOLD_TEST_AZURE_CA");
        configure_kek(&world, "azure", &format!("azurekv://{host}/{key}?ca={ca}&auth=token&token_file=token"));
        let found = doctor(&world, &[]);
        assert!(!found.output.contains(&token), "{}", found.output);
        found
    };
    run("service")
        .ends(0)
        .says("KEK azure", "wrap", "note", &["median"])
        .says("KEK azure", "context", "note", &["keyfold binds it"])
        .says("KEK azure", "key-state", "note", &["not permitted: get"]);
    run("admin").ends(0).says("KEK azure", "key-state", "note", &["enabled"]);
    run("nobody").ends(1).says("KEK azure", "permission", "problem", &["wrapKey", "docs/kms/azure.md"]);
    wish("enable", json!({ "name": key, "enabled": false }));
    run("admin").ends(1).says("KEK azure", "wrap", "problem", &["disabled"]).says(
        "KEK azure",
        "key-state",
        "problem",
        &["disabled"],
    );
}

#[cfg(feature = "gcp")]
#[test]
fn google_with_every_permission_and_without_each() {
    let Some(address) = server("KEYFOLD_TEST_GOOGLE_KMS") else { return };
    let ask = |what: &str, body: Value| post(&format!("{address}/fake/{what}"), "", &body);
    let key = ask("key", json!({}))["name"].as_str().expect("a name").to_owned();
    let run = |token: Value| {
        let world = World::new();
        let token = token["token"].as_str().expect("a token");
        secret_file(&world, "token", token);
        configure_kek(&world, "gcp", &format!("gcpkms://{key}?endpoint={address}&token_file=token"));
        let found = doctor(&world, &[]);
        assert!(!found.output.contains(token), "{}", found.output);
        found
    };
    let may = |what: &[&str]| {
        let permissions: Vec<_> = what.iter().map(|what| format!("cloudkms.cryptoKeyVersions.useTo{what}")).collect();
        ask("token", json!({ "permissions": permissions }))
    };
    run(may(&["Encrypt", "Decrypt"])).ends(0).says("KEK gcp", "context", "note", &["refuses another context"]).says(
        "KEK gcp",
        "key-rotation",
        "note",
        &["not permitted: cloudkms.cryptoKeys.get"],
    );
    run(ask("everything", json!({}))).ends(0).says(
        "KEK gcp",
        "key-state",
        "note",
        &["version 1 of the key is primary"],
    );
    run(may(&["Decrypt"])).ends(1).says("KEK gcp", "permission", "problem", &["useToEncrypt", "docs/kms/gcp.md"]);
    run(may(&["Encrypt"])).ends(1).says("KEK gcp", "permission", "problem", &["useToDecrypt", "docs/kms/gcp.md"]);
}

#[cfg(feature = "pkcs11")]
#[test]
fn an_hsm_with_its_pin_and_with_a_wrong_one_that_is_tried_once() {
    let Some(module) = server("KEYFOLD_TEST_PKCS11_MODULE") else { return };
    let run_on = |key: &str, pin: &str| {
        let world = World::new();
        secret_file(&world, "pin", pin);
        configure_kek(&world, "hsm", &format!("pkcs11://{key}?module-path={module}&pin_file=pin"));
        let found = doctor(&world, &[]);
        assert!(!found.output.contains(pin), "{}", found.output);
        found
    };
    let run = |pin: &str| run_on("token=keyfold;object=kek", pin);
    let right = variable("KEYFOLD_TEST_PKCS11_PIN");
    run(&right)
        .ends(0)
        .says("KEK hsm", "wrap", "note", &["median"])
        .says("KEK hsm", "key-state", "note", &["firmware", "sessions"])
        .says("KEK hsm", "clock", "note", &["does not tell the time"]);
    let found = run("9471947194");
    found.ends(1).says("KEK hsm", "wrap", "problem", &["PinIncorrect from C_Login", "docs/kms/pkcs11.md"]);
    // Neither a login that fails hides what somebody has tried, nor one that succeeds.
    assert!(found.about("KEK hsm", "pin-count").is_empty(), "it was its own trial");
    run("9471947194").ends(1).says("KEK hsm", "pin-count", "warning", &["wrong PINs"]);
    run(&right).ends(0).says("KEK hsm", "pin-count", "warning", &["wrong PINs"]);
    assert!(run(&right).about("KEK hsm", "pin-count").is_empty(), "the count began anew");
    // Names that are not right, with those that are there.
    let found = run_on("token=keyfld;object=kek", &right);
    found.ends(1).says("KEK hsm", "wrap", "problem", &["there are: ", "keyfold", "--list-slots"]);
    assert!(!found.about("KEK hsm", "wrap")[0][1].contains("requests"), "one is enough");
    let found = run_on("token=keyfold;object=kek;id=01", &right);
    found.ends(1).says("KEK hsm", "wrap", "problem", &["ID 0x3031", "id=%01"]);
}
