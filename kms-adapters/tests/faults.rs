//! Answers that are wrong, late, endless or hostile, and the class that each becomes within the deadline.

mod common;

use common::faults::{Case, Fault, cases};
use common::server::{Reply, Server};
use common::{here, refused, unwrap_traced};
use data_encoding::BASE64;
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::vault::VaultKek;
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_millis(700);
const SLACK: Duration = Duration::from_millis(100);

/// A KEK at `address`, with a token that a file holds.
fn vault(address: &str) -> (VaultKek, tempfile::NamedTempFile) {
    let mut token = tempfile::NamedTempFile::new().expect("a file");
    token.write_all(b"s.token").expect("written");
    let (scheme, host) = address.split_once("://").expect("a scheme");
    let tls = if scheme == "http" { "&tls=off" } else { "" };
    let options = format!("token_file={}{tls}&deadline=700ms&attempts=2", token.path().display());
    let kek = VaultKek::from_uri(&format!("vault://{host}/transit/k?{options}"), here()).expect("opened");
    (kek, token)
}

fn wrapped() -> WrappedKey {
    WrappedKey { kek_version: "1".to_owned(), bytes: vec![7; 92] }
}

/// A service whose tokens cannot be renewed and that else answers `reply`.
fn service(reply: Reply) -> Server {
    Server::start(move |seen| match seen.line.contains("renew-self") {
        true => Reply::json(400, r#"{"errors":["lease is not renewable"]}"#),
        false => reply.clone(),
    })
}

/// How many times the key was asked for.
fn asked(server: &Server) -> usize {
    server.seen().iter().filter(|seen| seen.line.contains("/transit/")).count()
}

struct Outcome {
    kind: Option<ErrorKind>,
    text: String,
    took: Duration,
}

fn outcome(address: &str) -> Outcome {
    let (kek, _token) = vault(address);
    let begun = Instant::now();
    let (result, _) = unwrap_traced(&kek, &wrapped());
    let took = begun.elapsed();
    let error = result.err();
    Outcome { kind: error.as_ref().map(keyfold::Error::kind), text: format!("{error:?}"), took }
}

fn check(id: &str, outcome: &Outcome, expected: Option<ErrorKind>) {
    assert_eq!(outcome.kind, expected, "{id}: {}", outcome.text);
    assert!(outcome.took <= DEADLINE + SLACK, "{id}: took {:?}", outcome.took);
}

/// The faults of the way to a service, which are those of all providers alike.
#[test]
fn transport_faults_have_their_class() {
    let Some(cases) = cases(None) else { return };
    let mut count = 0;
    for case in &cases {
        let is_transport =
            matches!(case.fault, Fault::ConnectRefused | Fault::NoSuchHost | Fault::Reply(Reply::Silence));
        let Some((address, _server)) = case.start().filter(|_| is_transport) else { continue };
        check(&case.id, &outcome(&address), case.expected);
        count += 1;
    }
    assert!(count >= 7, "only {count} cases");
}

/// HTTP statuses mean the same to all REST services, where no code or text says more.
#[test]
fn bare_statuses_have_their_class() {
    let Some(cases) = cases(None) else { return };
    for Case { id, expected, fault, .. } in &cases {
        let Fault::Reply(Reply::Http { status: status @ (302 | 401 | 403 | 404 | 429 | 500..), .. }) = fault else {
            continue;
        };
        let server = service(Reply::Http { status: *status, headers: Vec::new(), body: "<html>".to_owned() });
        let outcome = outcome(&format!("http://{}", server.address));
        check(id, &outcome, *expected);
    }
}

/// What the transit engine, or what stands in front of it, may answer.
#[test]
fn answers_have_their_class_and_are_asked_for_again_only_where_that_may_help() {
    use KmsErrorKind::*;
    let errors = |status, text: &str| Reply::json(status, json!({ "errors": [text] }).to_string());
    let plaintext = |text: &str| Reply::json(200, json!({ "data": { "plaintext": text } }).to_string());
    let bytes = |len| plaintext(&BASE64.encode(&vec![7; len]));
    let html = |status| Reply::Http { status, headers: Vec::new(), body: "<html>sign in</html>".to_owned() };
    let cases: Vec<(&str, Reply, Option<KmsErrorKind>, usize)> = vec![
        ("good", bytes(64), None, 1),
        ("tampered", errors(400, "cipher: message authentication failed"), Some(InvalidCiphertext), 1),
        ("unknown text", errors(400, "the moon is in the wrong phase"), Some(Rejected), 1),
        ("no text", Reply::json(400, "{}"), Some(Rejected), 1),
        ("denied", errors(403, "1 error occurred:\n\t* permission denied\n\n"), Some(AccessDenied), 1),
        ("bad token", errors(403, "permission denied"), Some(Credentials), 2),
        (
            "bad token of Vault 1.16",
            errors(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token"),
            Some(Credentials),
            2,
        ),
        ("throttled", errors(429, "rate limit quota exceeded"), Some(Throttled), 2),
        ("sealed", errors(503, "Vault is sealed"), Some(Unavailable), 1),
        ("internal", errors(500, "internal error"), Some(Unavailable), 2),
        ("balancer", html(502), Some(Unavailable), 2),
        ("balancer gave up", html(504), Some(Timeout), 2),
        ("lagging node", errors(412, "required index state not present"), Some(Unavailable), 2),
        ("sign-in page", html(200), Some(MalformedResponse), 1),
        ("empty", Reply::json(200, ""), Some(MalformedResponse), 1),
        ("cut JSON", Reply::json(200, r#"{"data":{"plaintext":"AAAA"#), Some(MalformedResponse), 1),
        ("no data", Reply::json(200, "{}"), Some(MalformedResponse), 1),
        ("no plaintext", Reply::json(200, r#"{"data":{}}"#), Some(MalformedResponse), 1),
        ("plaintext that is a number", Reply::json(200, r#"{"data":{"plaintext":7}}"#), Some(MalformedResponse), 1),
        ("not base64", plaintext("***"), Some(MalformedResponse), 1),
        ("no bytes", bytes(0), Some(MalformedResponse), 1),
        ("32 bytes", bytes(32), Some(MalformedResponse), 1),
        ("63 bytes", bytes(63), Some(MalformedResponse), 1),
        ("65 bytes", bytes(65), Some(MalformedResponse), 1),
        ("66 bytes", bytes(66), Some(MalformedResponse), 1),
        ("4096 bytes", bytes(4096), Some(MalformedResponse), 1),
        ("deep JSON", Reply::json(200, "[".repeat(60_000)), Some(MalformedResponse), 1),
        ("64 KiB and one byte", Reply::json(200, " ".repeat(64 * 1024 + 1)), Some(MalformedResponse), 1),
        ("64 MB", Reply::Long(64 << 20), Some(MalformedResponse), 1),
        ("64 MB in chunks", Reply::LongChunked(64 << 20), Some(MalformedResponse), 1),
        ("64 MB of headers", Reply::LongHeaders, Some(MalformedResponse), 1),
        ("not HTTP", Reply::Garbage, Some(MalformedResponse), 1),
        ("reset", Reply::Reset, Some(Unavailable), 2),
        ("cut", Reply::Cut, Some(Unavailable), 2),
        ("drip", Reply::Drip, Some(Timeout), 1),
        ("silence", Reply::Silence, Some(Timeout), 1),
    ];
    for (id, reply, expected, requests) in cases {
        let server = service(reply);
        let outcome = outcome(&format!("http://{}", server.address));
        check(id, &outcome, expected.map(ErrorKind::Kms));
        assert_eq!(asked(&server), requests, "{id}: requests; {}", outcome.text);
    }
}

/// Somebody who can answer in the service's place learns nothing elsewhere: redirects and challenges are not followed.
#[test]
fn redirects_and_evil_challenges_lead_nowhere() {
    let evil = Server::always(Reply::json(200, "{}"));
    let elsewhere = format!("http://{}/steal", evil.address);
    let replies = [301, 302, 303, 307, 308].map(|status| (status, KmsErrorKind::MalformedResponse)).into_iter();
    for (status, expected) in replies.chain([(401, KmsErrorKind::Credentials), (407, KmsErrorKind::Rejected)]) {
        let challenge = format!("Bearer authorization=\"{elsewhere}\", resource=\"{elsewhere}\"");
        let headers = ["location", "www-authenticate", "proxy-authenticate", "refresh"];
        let headers = headers
            .map(|name| (name.to_owned(), if name == "location" { elsewhere.clone() } else { challenge.clone() }));
        let server = service(Reply::Http { status, headers: headers.into(), body: String::new() });
        let outcome = outcome(&format!("http://{}", server.address));
        check(&status.to_string(), &outcome, Some(ErrorKind::Kms(expected)));
        assert_eq!(asked(&server), 1, "{status}");
    }
    assert!(evil.seen().is_empty(), "{:?}", evil.seen());
}

#[test]
fn retry_after_is_believed() {
    let headers = vec![("retry-after".to_owned(), "1".to_owned())];
    let server = service(Reply::Http { status: 429, headers, body: String::new() });
    // One second is more than this deadline: no point in waiting, and the service is left alone.
    let outcome = outcome(&format!("http://{}", server.address));
    check("impatient", &outcome, Some(ErrorKind::Kms(KmsErrorKind::Throttled)));
    assert!(outcome.took < DEADLINE / 2, "{:?}", outcome.took);
    assert_eq!(asked(&server), 1);
}

#[test]
fn plain_http_goes_to_loopback_addresses_alone() {
    for host in
        ["vault.example:8200", "localhost:8200", "10.0.0.1:8200", "127.0.0.1.example:8200", "[2001:db8::1]:8200"]
    {
        let uri = format!("vault://{host}/transit/k?token_env=X&tls=off");
        assert_eq!(refused(VaultKek::from_uri(&uri, here())).kind(), ErrorKind::Configuration, "{host}");
    }
    for host in ["127.0.0.1:8200", "127.9.9.9", "[::1]:8200"] {
        let uri = format!("vault://{host}/transit/k?token_env=X&tls=off");
        assert!(VaultKek::from_uri(&uri, here()).is_ok(), "{host}");
    }
}
