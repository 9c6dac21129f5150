//! Answers that are wrong, late, endless or hostile, and the class that each becomes within the deadline.

use crate::common::faults::{Case, Fault, cases};
use crate::common::server::{Reply, Server};
use crate::common::{PAYLOAD, here, unwrap, unwrap_traced};
use data_encoding::BASE64;
use keyfold::{ErrorKind, KmsErrorKind, WrappedKey};
use keyfold_kms::aws::{AwsKek, TABLE};
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The key that kms_faults.json answers for.
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const DEADLINE: Duration = Duration::from_millis(700);
const SLACK: Duration = Duration::from_millis(100);

pub(crate) fn wrapped() -> WrappedKey {
    WrappedKey { kek_version: KEY.to_owned(), bytes: vec![7; 150] }
}

fn kek(endpoint: &str, credentials: &Path) -> AwsKek {
    let file = credentials.display();
    let uri =
        format!("awskms://{KEY}?endpoint={endpoint}&credentials_file={file}&profile=service&deadline=700ms&attempts=2");
    AwsKek::from_uri(&uri, here()).expect("opened")
}

fn credentials() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let text = "[service]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI\n";
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn check(id: &str, reply: &Reply, expected: Option<ErrorKind>, requests: usize) {
    let (server, file) = (Server::always(reply.clone()), credentials());
    let begun = Instant::now();
    let result = unwrap(&kek(&format!("http://{}", server.address), file.path()), &wrapped());
    let took = begun.elapsed();
    let error = result.err();
    assert_eq!(error.as_ref().map(keyfold::Error::kind), expected, "{id}: {error:?}");
    assert_eq!(server.seen().len(), requests, "{id}: requests; {error:?}");
    assert!(took <= DEADLINE + SLACK, "{id}: took {took:?}");
}

#[test]
fn the_replies_of_the_fault_file_have_their_class() {
    let Some(cases) = cases(Some("aws")) else { return };
    for Case { id, expected, retryable, fault, .. } in &cases {
        // A TLS server and a name server are not ours to fake; both are the shared client's.
        let Fault::Reply(reply) = fault else { continue };
        // The good reply of the file holds 32 bytes: see `good_and_bad_payloads`.
        if *id == "aws-200-good" {
            continue;
        }
        let requests = match reply {
            Reply::Silence => 1,
            _ => 1 + usize::from(*retryable),
        };
        check(id, reply, *expected, requests);
    }
    assert!(cases.len() >= 25, "only {} cases", cases.len());
}

#[test]
fn the_ways_to_a_service_that_is_not_there() {
    let Some(cases) = cases(Some("aws")) else { return };
    let file = credentials();
    for case in cases.iter().filter(|case| matches!(case.fault, Fault::ConnectRefused | Fault::NoSuchHost)) {
        let (address, _server) = case.start().expect("an address");
        let (result, _) = unwrap_traced(&kek(&address, file.path()), &wrapped());
        assert_eq!(result.err().map(|error| error.kind()), case.expected, "{}", case.id);
    }
}

#[test]
fn good_and_bad_payloads() {
    use KmsErrorKind::{MalformedResponse, Timeout, Unavailable, WrongKey};
    let answer = |key: &str, payload: &[u8]| {
        Reply::json(200, json!({ "KeyId": key, "Plaintext": BASE64.encode(payload) }).to_string())
    };
    let bad = |kind| Some(ErrorKind::Kms(kind));
    check("good", &answer(KEY, PAYLOAD), None, 1);
    for len in [0, 1, 32, 63, 65, 4096] {
        check(&format!("{len} bytes"), &answer(KEY, &vec![7; len]), bad(MalformedResponse), 1);
    }
    check("the name of an alias", &answer("alias/clinic", PAYLOAD), bad(WrongKey), 1);
    check("64 KiB and one byte", &Reply::json(200, " ".repeat(64 * 1024 + 1)), bad(MalformedResponse), 1);
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
        let body = json!({ "__type": format!("com.amazonaws.kms#{}", row.code), "message": row.text });
        let (server, file) = (Server::always(Reply::json(400, body.to_string())), credentials());
        let error =
            unwrap(&kek(&format!("http://{}", server.address), file.path()), &wrapped()).err().expect("refused");
        assert_eq!(error.kind(), row.kind, "{}", row.code);
        assert!(error.to_string().starts_with(row.message) && error.to_string().contains(row.code), "{error}");
    }
}

#[test]
fn what_a_uri_may_not_say() {
    for wrong in [
        "awskms://alias/clinic",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=http://kms.example",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=http://localhost:1",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=https://a:b@kms.example",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?endpoint=https://kms.example&fips=on",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?fips=off",
        "awskms://arn:aws:kms:eu-central-1:111122223333:key/x?access_key=AKIA",
    ] {
        let error = AwsKek::from_uri(wrong, here()).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong}");
    }
}

/// Services that send back what they are sent, or worse.
pub(crate) fn hostile(credentials: &str, mut each: impl FnMut(&AwsKek)) {
    for reply in [Reply::Echo(200), Reply::Echo(400), Reply::Echo(403), Reply::Echo(500), Reply::Cut, Reply::Garbage] {
        let server = Server::always(reply);
        each(&kek(&format!("http://{}", server.address), Path::new(credentials)));
    }
}
