//! A scope whose KEK is in OpenBao, by the command alone.

use crate::common::{self, PATIENTS, World, skip};
use keyfold_kms::credentials::SecretText;
use keyfold_kms::http::{Http, Request};
use std::fs;
use std::path::Path;

/// Calls the API as the administrator.
fn admin(path: &str, body: serde_json::Value) -> u16 {
    let variable = |name: &str| std::env::var(format!("KEYFOLD_TEST_OPENBAO{name}")).expect("set");
    let url = format!("{}/v1/{path}", variable("")).parse().expect("a URL");
    let (token, ca) = (SecretText::new(variable("_TOKEN")), variable("_CA"));
    let call = async move {
        let http = Http::new(Some(Path::new(&ca)))?;
        let request =
            Request::post(url).secret_header("x-vault-token", "", &token).and_then(|request| request.json(&body));
        Ok(http.send(request.expect("a request"), None).await.expect("an answer").status)
    };
    keyfold_background::block(call).expect("an answer")
}

/// Covers KC-32.
#[test]
fn a_scope_whose_kek_is_in_a_vault() {
    let Ok(address) = std::env::var("KEYFOLD_TEST_OPENBAO") else {
        skip("KEYFOLD_TEST_OPENBAO names no OpenBao server");
        return;
    };
    let variable = |name: &str| std::env::var(format!("KEYFOLD_TEST_OPENBAO{name}")).expect("set");
    let (token, ca) = (variable("_TOKEN"), variable("_CA"));
    let key = format!("cli-{}", std::process::id());
    // Fails where another test has mounted it.
    admin("sys/mounts/transit", serde_json::json!({ "type": "transit" }));
    assert_eq!(admin(&format!("transit/keys/{key}"), serde_json::json!({ "derived": true })), 200);
    let world = World::new();
    fs::write(world.keys().join("token"), &token).expect("written");
    fs::copy(&ca, world.keys().join("ca.pem")).expect("copied");
    let host = address.trim_start_matches("https://");
    let config = fs::read_to_string(world.config()).expect("the configuration");
    let configure = |options: &str| {
        let uri = format!("vault://{host}/transit/{key}?ca=ca.pem&{options}");
        let tenant =
            format!("[keks.tenant]\nuri = \"{uri}\"\nwraps = \"scopes\"\n[scopes.\"tenant 7\"]\nkeks = [\"tenant\"]");
        fs::write(world.config(), format!("{config}\n{tenant}\n")).expect("written");
    };
    configure("token_file=token");
    let quiet = |run: &common::Run| assert!(!run.stderr.contains(&token), "{}", run.stderr);
    quiet(&world.run(&["protect", "in.csv", "--output", "sealed.csv", "--scope", "tenant 7"]).expect(0, &[]));
    quiet(&world.run(&["reveal", "sealed.csv", "--output", "out.csv", "--scope", "tenant 7"]).expect(0, &[]));
    assert_eq!(world.text("out.csv"), PATIENTS);
    // No variable leads keys through a proxy.
    let mut command = world.command(&["reveal", "sealed.csv", "--output", "proxied.csv", "--scope", "tenant 7"]);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, "http://127.0.0.1:9");
    }
    quiet(&common::run(&mut command, b"").expect(0, &[]));
    // What the KEK needs is never overwritten.
    let own = world.keys().join("token");
    let own = own.to_str().expect("text");
    world.refuses(&["reveal", "sealed.csv", "--output", own, "--force", "--scope", "tenant 7"], common::USAGE, &[]);
    // A token that is not one: says what failed and where, and which of the KEKs.
    fs::write(world.keys().join("token"), "s.nonsense").expect("written");
    let refused = world.run(&["reveal", "sealed.csv", "--output", "no.csv", "--scope", "tenant 7"]);
    quiet(&refused.expect(common::KMS, &["408 Credentials", "KEK tenant", &key]));
    configure("token=s.hunter2");
    let refused = world.run(&["reveal", "sealed.csv", "--output", "no.csv", "--scope", "tenant 7"]);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}
