//! No token, key or payload in any log at TRACE, of any crate, nor in errors and Debug output.

use crate::common::server::{Reply, Server};
use crate::common::{PAYLOAD, here, logs, refused, unwrap, wrap};
use crate::fake::{Fake, May};
use data_encoding::BASE64;
use keyfold_kms::gcp::GcpKek;
use serde_json::json;
use std::process::Command;

const CHILD: &str = "KEYFOLD_TEST_LOGS";

/// In a process of its own, whose log is that of this test alone.
#[test]
fn no_secret_is_shown() {
    let Some(fake) = Fake::given() else { return };
    if std::env::var_os(CHILD).is_none() {
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["secrets::no_secret_is_shown", "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    logs::record();
    let key = fake.key();
    let token = fake.token(May::Both);
    let account = fake.account(May::Both);
    let (token_file, account_file) = (fake.file(&token), fake.file(&account.to_string()));
    let mut shown = String::new();
    for options in
        [format!("token_file={}", token_file.display()), format!("credentials_file={}", account_file.display())]
    {
        let kek = fake.kek_with(&key, &options);
        let wrapped = wrap(&kek).expect("wrapped");
        assert!(unwrap(&kek, &wrapped).is_ok());
        let body = json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "message": token } });
        fake.reply(&key, 1, 400, &json!({}), &body);
        let error = refused(unwrap(&kek, &wrapped));
        shown.push_str(&format!("{kek:?} {error} {error:?}"));
        // What fails and is tried again is logged by the layer.
        fake.reply(&key, 1, 503, &json!({}), &body);
        assert!(unwrap(&kek, &wrapped).is_ok());
    }
    // A service that sends back all that it was sent, and a token service that does.
    let echo = Server::always(Reply::Echo(400));
    let uri = |options: &str| format!("gcpkms://{key}?endpoint=http://{}&{options}", echo.address);
    let kek = GcpKek::from_uri(&uri(&format!("token_file={}", token_file.display())), here()).expect("opened");
    let error = refused(wrap(&kek));
    shown.push_str(&format!("{kek:?} {error} {error:?}"));
    let mut echoing = account.clone();
    echoing["token_uri"] = json!(format!("http://{}/token", echo.address));
    let file = fake.file(&echoing.to_string());
    let kek = GcpKek::from_uri(&uri(&format!("credentials_file={}", file.display())), here()).expect("opened");
    let error = refused(wrap(&kek));
    shown.push_str(&format!("{kek:?} {error} {error:?}"));
    let assertion = echo.seen().into_iter().find_map(|seen| {
        let (_, assertion) = seen.body.split_once("assertion=")?;
        Some(assertion.to_owned())
    });
    let assertion = assertion.expect("the token service was sent an assertion");

    let log = logs::said();
    assert!(log.contains("reqwest") && log.contains("keyfold_kms"), "the log is that of all crates: {log:.2000}");
    let private_key = account["private_key"].as_str().expect("a key");
    let signature = assertion.rsplit('.').next().expect("three parts");
    let secrets =
        [token.as_str(), &private_key[100..140], &signature[..40], "CANARY-PAYLOAD", &BASE64.encode(PAYLOAD)[..40]];
    for secret in secrets {
        assert!(!log.contains(secret), "a log shows a secret: {:?}", log.lines().find(|line| line.contains(secret)));
        assert!(!shown.contains(secret), "an error or Debug output shows a secret");
    }
    assert!(!log.contains("ya29.fake-"), "a log shows a token of the account");
}
