//! Credentials and payloads in no log at TRACE, no error and no `Debug`, whatever a service answers, for every adapter that speaks
//! REST. Each test in a process of its own, because it collects the logs of all crates of the process.

mod common;

use common::fork::is_left_to_own_process;
use common::logs::Logs;
use common::rest::providers;
#[cfg(any(feature = "aws", feature = "vault"))]
use common::server::{Reply, Server};
#[cfg(any(feature = "aws", feature = "vault"))]
use common::{unwrap, wrap};
#[cfg(any(feature = "aws", feature = "vault"))]
use serde_json::json;

/// Covers KC-3, KC-5.
// Failure T1
#[test]
fn hostile_services_bring_no_secret_to_light() {
    if is_left_to_own_process("hostile_services_bring_no_secret_to_light") {
        return;
    }
    let mut logs = Logs::collect();
    for provider in providers() {
        logs.note_hostile(&provider);
    }
    let last_word = |text: &str| text.split_whitespace().last().map(str::to_owned);
    let secrets: Vec<_> = providers().iter().filter_map(|provider| last_word(provider.credentials.1)).collect();
    logs.check(&secrets, None);
}

/// The token of a web identity goes to the token service, and a container is given keys by a service of its own.
#[cfg(feature = "aws")]
#[test]
fn the_chain_of_aws_brings_no_secret_to_light() {
    if is_left_to_own_process("the_chain_of_aws_brings_no_secret_to_light") {
        return;
    }
    const ARN: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let [web_token, container_token, key, session] =
        ["eyCANARY.web-identity.0005", "CANARY-container-0006", "CANARYsecretKey0007+/", "CANARYsessionToken0008=="];
    let mut logs = Logs::collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), web_token).expect("written");
    let given = json!({ "AccessKeyId": "ASIAEXAMPLE", "SecretAccessKey": key, "Token": session, "Expiration": "2099-01-01T00:00:00Z" });
    let container = Server::always(Reply::json(200, given.to_string()));
    let echo = Server::always(Reply::Echo(400));
    let file = file.path().display().to_string();
    let (container_uri, echo_uri) = (format!("http://{}/", container.address), format!("http://{}", echo.address));
    let variables = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container_uri),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", container_token),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/intake"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &file),
    ];
    for (name, value) in variables {
        // SAFETY: this process is this test's alone, and nothing else reads or writes variables now.
        unsafe { std::env::set_var(name, value) };
    }
    let wrapped = keyfold::WrappedKey { kek_version: ARN.to_owned(), bytes: vec![7; 150] };
    for is_web in [true, false] {
        if !is_web {
            // SAFETY: as above; the requests of the other KEK have ended.
            unsafe { std::env::remove_var("AWS_WEB_IDENTITY_TOKEN_FILE") };
        }
        let uri = format!("awskms://{ARN}?endpoint={echo_uri}&attempts=2");
        let kek = keyfold_kms::aws::AwsKek::from_uri(&uri, common::here()).expect("opened");
        logs.note(&kek, wrap(&kek));
        logs.note(&kek, unwrap(&kek, &wrapped));
    }
    assert!(
        container.seen().iter().any(|seen| seen.headers.contains(container_token)),
        "the container's token was sent"
    );
    assert!(echo.seen().iter().any(|seen| seen.headers.contains(session)), "the keys that it gave were used");
    logs.check(&[web_token, container_token, key, session].map(str::to_owned), None);
}

/// By each way to log in, and over TLS where there is a server.
#[cfg(feature = "vault")]
#[test]
fn logins_of_vault_bring_no_secret_to_light() {
    use keyfold_kms::vault::VaultKek;
    if is_left_to_own_process("logins_of_vault_bring_no_secret_to_light") {
        return;
    }
    let mut logs = Logs::collect();
    let secrets = [
        "s.CANARYTOKENvalue0001",
        "ca4a7000-5ec7-4e1d-9000-000000000003",
        "eyCANARYJWT.0004.sig",
        "s.CANARYLOGINtoken0002",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in ["token", "secret", "jwt"].iter().zip(secrets) {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let login =
        json!({ "auth": { "client_token": secrets[3], "renewable": true, "lease_duration": 3600 } }).to_string();
    let wrapped = keyfold::WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] };
    for method in
        ["token_file=token", "auth=approle&role_id=r&secret_id_file=secret", "auth=kubernetes&role=r&jwt_file=jwt"]
    {
        for (reply, logs_in) in
            [200, 400, 403, 500].map(Reply::Echo).into_iter().flat_map(|reply| [(reply.clone(), true), (reply, false)])
        {
            let login = login.clone();
            let server = Server::start(move |seen| match seen.line.contains("/auth/") && logs_in {
                true => Reply::json(200, login.clone()),
                false => reply.clone(),
            });
            let uri = format!("vault://{}/transit/k?tls=off&attempts=2&{method}", server.address);
            let kek = VaultKek::from_uri(&uri, folder.path()).expect("opened");
            logs.note(&kek, wrap(&kek));
            logs.note(&kek, unwrap(&kek, &wrapped));
            assert!(!server.seen().is_empty());
        }
    }
    let over_tls = real_server();
    assert!(over_tls.is_none() || logs.text().contains("rustls"), "the logs are not those of TLS");
    logs.check(&secrets.map(str::to_owned).into_iter().chain(over_tls).collect::<Vec<_>>(), None);
}

/// Wraps and unwraps over TLS where there is a server, said aloud where there is none. The token that it used.
#[cfg(feature = "vault")]
fn real_server() -> Option<String> {
    let Ok(address) = std::env::var("KEYFOLD_TEST_OPENBAO") else {
        common::skip("KEYFOLD_TEST_OPENBAO names no OpenBao server to log TLS with");
        return None;
    };
    let variable = |name: &str| std::env::var(format!("KEYFOLD_TEST_OPENBAO{name}")).expect("set");
    let (token, ca) = (variable("_TOKEN"), variable("_CA"));
    let key = format!("secrets-{}", std::process::id());
    let setup = [
        // Fails where another test has mounted it.
        ("sys/mounts/transit".to_owned(), json!({ "type": "transit" })),
        (format!("transit/keys/{key}"), json!({ "derived": true })),
    ];
    for (path, body) in setup {
        let url = format!("{address}/v1/{path}").parse().expect("a URL");
        let (secret, ca) = (keyfold_kms::credentials::SecretText::new(token.clone()), ca.clone());
        let call = async move {
            let http = keyfold_kms::http::Http::new(Some(std::path::Path::new(&ca)))?;
            let request = keyfold_kms::http::Request::post(url).secret_header("x-vault-token", "", &secret);
            let request = request.and_then(|request| request.json(&body)).expect("a request");
            Ok(http.send(request, None).await.expect("an answer").status)
        };
        keyfold_background::block(call).expect("an answer");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &token).expect("written");
    let host = address.trim_start_matches("https://");
    let uri = format!("vault://{host}/transit/{key}?ca={ca}&token_file={}", file.path().display());
    let kek = keyfold_kms::vault::VaultKek::from_uri(&uri, std::path::Path::new("/")).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    assert!(unwrap(&kek, &wrapped).is_ok());
    Some(token)
}
