//! Credentials and payloads in no log at TRACE, no error and no `Debug`, whatever the service answers. In a process of its
//! own, because it collects the logs of all crates of the process.

mod common;

use common::server::{Reply, Server};
use common::{PAYLOAD, unwrap, wrap};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use keyfold::WrappedKey;
use keyfold_kms::vault::VaultKek;
use serde_json::json;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

const TOKEN: &str = "s.CANARYTOKENvalue0001";
const LOGIN_TOKEN: &str = "s.CANARYLOGINtoken0002";
const SECRET_ID: &str = "CANARYSECRETid-0003";
const JWT: &str = "eyCANARYJWT.0004.sig";

/// Everything that any crate has logged.
#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// For the crates that log through `log`: TLS and HTTP.
impl log::Log for Logs {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let _ = writeln!(self.clone(), "{} {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

#[test]
fn nothing_shows_credentials_or_payloads() {
    let logs = Logs::default();
    log::set_boxed_logger(Box::new(logs.clone())).expect("the first logger");
    log::set_max_level(log::LevelFilter::Trace);
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(logs.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).expect("the first subscriber");

    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in [("token", TOKEN), ("secret", SECRET_ID), ("jwt", JWT)] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let methods =
        ["token_file=token", "auth=approle&role_id=r&secret_id_file=secret", "auth=kubernetes&role=r&jwt_file=jwt"];
    let login = json!({ "auth": { "client_token": LOGIN_TOKEN, "renewable": true, "lease_duration": 3600 } });
    let good =
        json!({ "request_id": "id-1", "data": { "plaintext": BASE64.encode(PAYLOAD), "ciphertext": "vault:v1:AAAA" } });
    let wrapped = WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] };
    let mut shown = String::new();
    let replies = [
        Reply::json(200, good.to_string()),
        Reply::Echo(200),
        Reply::Echo(400),
        Reply::Echo(403),
        Reply::Echo(500),
        Reply::Cut,
        Reply::Reset,
        Reply::Garbage,
        Reply::Http {
            status: 302,
            headers: vec![("location".into(), "http://127.0.0.1:9/".into())],
            body: String::new(),
        },
    ];
    for method in methods {
        for reply in &replies {
            for logs_in in [true, false] {
                let (login, reply) = (login.to_string(), reply.clone());
                let server = Server::start(move |seen| match seen.line.contains("/auth/") && logs_in {
                    true => Reply::json(200, login.clone()),
                    false => reply.clone(),
                });
                let uri = format!("vault://{}/transit/k?tls=off&attempts=2&{method}", server.address);
                let kek = VaultKek::from_uri(&uri, folder.path()).expect("opened");
                for error in [wrap(&kek).err(), unwrap(&kek, &wrapped).err()].into_iter().flatten() {
                    shown.push_str(&format!("{error} {error:?} "));
                    let mut cause = std::error::Error::source(&error);
                    while let Some(error) = cause {
                        shown.push_str(&format!("{error} {error:?} "));
                        cause = error.source();
                    }
                }
                shown.push_str(&format!("{kek:?}"));
                assert!(!server.seen().is_empty());
            }
        }
    }
    shown.push_str(&String::from_utf8_lossy(&logs.0.lock().expect("not poisoned")));
    // TLS as well: a server that does not speak it.
    assert!(
        shown.contains("reqwest") && shown.contains("keyfold_kms::layer"),
        "the logs are not those of all crates: {shown:.2000}"
    );
    let payload = [
        BASE64.encode(PAYLOAD),
        BASE64URL_NOPAD.encode(PAYLOAD),
        HEXLOWER.encode(PAYLOAD),
        "CANARY-PAYLOAD".to_owned(),
    ];
    let secrets = [TOKEN, LOGIN_TOKEN, SECRET_ID, JWT].map(str::to_owned);
    for secret in payload.iter().chain(&secrets) {
        if let Some(at) = shown.find(secret.as_str()) {
            let around: String = shown.chars().skip(at.saturating_sub(200)).take(400).collect();
            panic!("{secret} is shown: {around}");
        }
    }
}
