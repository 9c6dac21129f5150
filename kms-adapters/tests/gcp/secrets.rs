//! No token, key or payload in any log at TRACE, of any crate, nor in errors and Debug output. What hostile services of Google
//! send back: `tests/secrets.rs`.

use crate::common::fork::is_left_to_own_process;
use crate::common::logs::Logs;
use crate::common::server::{Reply, Server};
use crate::common::{here, unwrap, wrap};
use crate::fake::{Fake, May};
use keyfold_kms::gcp::GcpKek;
use serde_json::json;

#[test]
fn no_secret_is_shown() {
    let Some(fake) = Fake::given() else { return };
    if is_left_to_own_process("secrets::no_secret_is_shown") {
        return;
    }
    let mut logs = Logs::collect();
    let key = fake.key();
    let token = fake.token(May::Both);
    let account = fake.account(May::Both);
    let (token_file, account_file) = (fake.file(&token), fake.file(&account.to_string()));
    let wrapped = wrap(&fake.kek(&key)).expect("wrapped");
    for options in
        [format!("token_file={}", token_file.display()), format!("credentials_file={}", account_file.display())]
    {
        let kek = fake.kek_with(&key, &options);
        logs.note(&kek, wrap(&kek));
        logs.note(&kek, unwrap(&kek, &wrapped));
        let body = json!({ "error": { "code": 400, "status": "INVALID_ARGUMENT", "message": token } });
        for status in [400, 503] {
            // What fails and is tried again is logged by the layer.
            fake.reply(&key, 1, status, &json!({}), &body);
            logs.note(&kek, unwrap(&kek, &wrapped));
        }
    }
    // A token service that sends back all that it was sent.
    let echo = Server::always(Reply::Echo(400));
    let mut echoing = account.clone();
    echoing["token_uri"] = json!(format!("http://{}/token", echo.address));
    let file = fake.file(&echoing.to_string());
    let uri = format!("gcpkms://{key}?endpoint=http://{}&credentials_file={}", echo.address, file.display());
    let kek = GcpKek::from_uri(&uri, here()).expect("opened");
    logs.note(&kek, wrap(&kek));
    let sent = echo.seen().into_iter().find_map(|seen| Some(seen.body.split_once("assertion=")?.1.to_owned()));
    let assertion = sent.expect("the token service was sent an assertion");
    let signature = assertion.rsplit('.').next().expect("three parts");
    let private_key = account["private_key"].as_str().expect("a key");
    // Tokens that the fake made begin alike.
    let secrets = [token.as_str(), &private_key[100..140], &signature[..40], "ya29.fake-"];
    logs.check(&secrets.map(str::to_owned), Some(&wrapped));
}
