//! Answers that are wrong, late, endless or hostile, and the class that each becomes within the deadline. Over plain HTTP to a
//! loopback address; the way is the same but for TLS.

use crate::common::faults::{Case, Fault, cases};
use crate::common::server::{Reply, Seen, Server};
use crate::common::{PAYLOAD, here, unwrap, unwrap_traced};
use data_encoding::BASE64URL_NOPAD;
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::azure::{AzureKek, TABLE};
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};

const VERSION: &str = "0123456789abcdef0123456789abcdef";
const TOKEN: &str = "eyJ.token-of-the-test";
const DEADLINE: Duration = Duration::from_millis(700);
const SLACK: Duration = Duration::from_millis(100);

pub(crate) fn wrapped() -> WrappedKey {
    WrappedKey { kek_version: format!("patient-kek/{VERSION}"), bytes: vec![7; 256] }
}

fn kek(server: &str, token_file: &str) -> AzureKek {
    let options = format!("tls=off&auth=token&token_file={token_file}&deadline=700ms&attempts=2");
    AzureKek::from_uri(&format!("azurekv://{server}/patient-kek?{options}"), here()).expect("opened")
}

fn token() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(TOKEN.as_bytes()).expect("written");
    file
}

fn challenge(resource: &str) -> Reply {
    let header = format!("Bearer authorization=\"https://login.microsoftonline.com/t\", resource=\"{resource}\"");
    Reply::Http { status: 401, headers: vec![("www-authenticate".to_owned(), header)], body: String::new() }
}

/// A vault that challenges who has no token, and answers `reply` to who has.
fn vault(reply: Reply) -> Server {
    Server::start(
        move |seen| if has_token(seen) { here_is(&reply, seen) } else { challenge("https://vault.azure.net") },
    )
}

fn has_token(seen: &Seen) -> bool {
    seen.headers.to_ascii_lowercase().lines().any(|line| line.starts_with("authorization: bearer"))
}

/// The file's names in the place of which a server has its own.
fn here_is(reply: &Reply, seen: &Seen) -> Reply {
    let host =
        seen.headers.lines().find_map(|line| line.strip_prefix("host: ").or_else(|| line.strip_prefix("Host: ")));
    match reply {
        Reply::Http { status, headers, body } => Reply::Http {
            status: *status,
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), value.replace("VAULT-DOMAIN.example", "vault.azure.net")))
                .collect(),
            body: body.replace("VAULT.example", host.unwrap_or_default().trim()),
        },
        other => other.clone(),
    }
}

fn asked(server: &Server) -> usize {
    server.seen().iter().filter(|seen| has_token(seen)).count()
}

fn check(id: &str, reply: &Reply, expected: Option<ErrorKind>, requests: usize) {
    let (server, file) = (vault(reply.clone()), token());
    let begun = Instant::now();
    let result = unwrap(&kek(&server.address.to_string(), &file.path().display().to_string()), &wrapped());
    let took = begun.elapsed();
    let error = result.err();
    assert_eq!(error.as_ref().map(keyfold::Error::kind), expected, "{id}: {error:?}");
    assert_eq!(asked(&server), requests, "{id}: requests; {error:?}");
    assert!(took <= DEADLINE + SLACK, "{id}: took {took:?}");
    // What asks for the challenge holds nothing.
    assert!(server.seen().iter().all(|seen| has_token(seen) || seen.body.is_empty()), "{id}");
}

#[test]
fn the_replies_of_the_fault_file_have_their_class() {
    let Some(cases) = cases(Some("azure")) else { return };
    for Case { id, expected, retryable, fault, .. } in &cases {
        let Fault::Reply(reply) = fault else { continue };
        // The good reply of the file holds 32 bytes: see `good_and_bad_payloads`. The evil challenge has a test of its own.
        if ["azure-200-good", "azure-401-evil-challenge"].contains(&id.as_str()) {
            continue;
        }
        let requests = match reply {
            Reply::Silence => 1,
            // It asks for a pause that is longer than this deadline.
            Reply::Http { headers, .. } if headers.iter().any(|(name, _)| name == "retry-after") => 1,
            _ => 1 + usize::from(*retryable),
        };
        check(id, reply, *expected, requests);
    }
    assert!(cases.len() >= 12, "only {} cases", cases.len());
}

#[test]
fn the_ways_to_a_vault_that_is_not_there() {
    let Some(cases) = cases(Some("azure")) else { return };
    let file = token();
    for case in cases.iter().filter(|case| matches!(case.fault, Fault::ConnectRefused)) {
        let (address, _server) = case.start().expect("an address");
        let address = address.strip_prefix("http://").expect("plain HTTP");
        let (result, _) = unwrap_traced(&kek(address, &file.path().display().to_string()), &wrapped());
        assert_eq!(result.err().map(|error| error.kind()), case.expected, "{}", case.id);
    }
}

/// A vault that asks for the token of another service gets none, not at the next attempt either.
#[test]
fn an_evil_challenge_gets_no_token() {
    for resource in [
        "https://evil.example",
        "https://vault.azure.net.evil.example",
        "https://management.azure.com",
        "https://azure.net",
        "https://managedhsm.azure.net",
        "http://vault.azure.net",
    ] {
        let server = Server::always(challenge(resource));
        let file = token();
        let kek = kek(&server.address.to_string(), &file.path().display().to_string());
        for _ in 0..2 {
            let error = unwrap(&kek, &wrapped()).err().expect("refused");
            assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Credentials), "{resource}: {error}");
        }
        assert!(!server.seen().is_empty());
        for seen in server.seen() {
            assert!(!has_token(&seen) && seen.body.is_empty() && !seen.headers.contains(TOKEN), "{resource}: {seen:?}");
        }
    }
}

#[test]
fn good_and_bad_payloads() {
    use KmsErrorKind::{MalformedResponse, Timeout, Unavailable, WrongKey};
    let kid = |kid: &str| format!("https://VAULT.example/keys/{kid}");
    let answer = |kid: &str, payload: &[u8]| {
        Reply::json(200, json!({ "kid": kid, "value": BASE64URL_NOPAD.encode(payload) }).to_string())
    };
    let ours = kid(&format!("patient-kek/{VERSION}"));
    let bad = |kind| Some(ErrorKind::Kms(kind));
    check("good", &answer(&ours, PAYLOAD), None, 1);
    for len in [0, 1, 32, 63, 65, 4096] {
        check(&format!("{len} bytes"), &answer(&ours, &vec![7; len]), bad(MalformedResponse), 1);
    }
    for other in [
        kid(&format!("other/{VERSION}")),
        kid(&format!("patient-kek/{}", VERSION.replace('0', "1"))),
        kid("patient-kek"),
        format!("https://evil.example/keys/patient-kek/{VERSION}"),
        format!("https://VAULT.example/secrets/patient-kek/{VERSION}"),
    ] {
        check(&other, &answer(&other, PAYLOAD), bad(WrongKey), 1);
    }
    check(
        "no key",
        &Reply::json(200, json!({ "value": BASE64URL_NOPAD.encode(PAYLOAD) }).to_string()),
        bad(MalformedResponse),
        1,
    );
    check(
        "not base64",
        &Reply::json(200, json!({ "kid": ours, "value": "***" }).to_string()),
        bad(MalformedResponse),
        1,
    );
    check("sign-in page", &Reply::json(200, "<html>"), bad(MalformedResponse), 1);
    check("64 MB", &Reply::Long(64 << 20), bad(MalformedResponse), 1);
    check("64 MB in chunks", &Reply::LongChunked(64 << 20), bad(MalformedResponse), 1);
    check("not HTTP", &Reply::Garbage, bad(MalformedResponse), 1);
    check("deep JSON", &Reply::json(200, "[".repeat(60_000)), bad(MalformedResponse), 1);
    check("reset", &Reply::Reset, bad(Unavailable), 2);
    check("drip", &Reply::Drip, bad(Timeout), 1);
    check("no text", &Reply::json(400, "{}"), bad(KmsErrorKind::Rejected), 1);
}

#[test]
fn each_row_of_the_table_is_reached() {
    for row in TABLE.iter().filter(|row| !row.code.is_empty()) {
        let status = row.statuses.first().copied().unwrap_or(403);
        let body = json!({ "error": { "code": "Forbidden", "message": "", "innererror": { "code": row.code } } });
        let (server, file) = (vault(Reply::json(status, body.to_string())), token());
        let kek = kek(&server.address.to_string(), &file.path().display().to_string());
        let error = unwrap(&kek, &wrapped()).err().expect("refused");
        assert_eq!(error.kind(), row.kind, "{}", row.code);
        assert!(error.to_string().starts_with(row.message) && error.to_string().contains(row.code), "{error}");
    }
}

#[test]
fn what_a_uri_may_not_say() {
    for wrong in [
        "azurekv://clinic.vault.azure.net",
        "azurekv://clinic.vault.azure.net/",
        "azurekv://clinic.vault.azure.net/key/version",
        "azurekv://clinic.vault.azure.net/key?tls=off",
        "azurekv://clinic.vault.azure.net/key?resource=https://management.azure.com",
        "azurekv://clinic.vault.azure.net.evil.example/key",
        "azurekv://vault.azure.net/key",
        "azurekv://evilvault.azure.net/key",
        "azurekv://localhost/key",
        "azurekv://clinic.vault.azure.net/key?auth=password",
        "azurekv://clinic.vault.azure.net/key?auth=token",
        "azurekv://clinic.vault.azure.net/key?algorithm=RSA1_5",
        "azurekv://clinic.vault.azure.net/key?token_file=token",
    ] {
        let error = AzureKek::from_uri(wrong, here()).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
    }
    for good in ["clinic.vault.azure.net", "clinic.managedhsm.azure.net", "clinic.vault.usgovcloudapi.net"] {
        assert!(AzureKek::from_uri(&format!("azurekv://{good}/key"), here()).is_ok(), "{good}");
    }
}

/// Vaults that send back what they are sent, or worse.
pub(crate) fn hostile(token_file: &str, mut each: impl FnMut(&AzureKek)) {
    for reply in [Reply::Echo(200), Reply::Echo(400), Reply::Echo(403), Reply::Echo(500), Reply::Cut, Reply::Garbage] {
        let server = vault(reply);
        each(&kek(&server.address.to_string(), token_file));
    }
}
