//! Answers that are wrong, late, endless or hostile, for every adapter that speaks REST, and the class that each becomes within
//! the deadline: those of `kms_faults.json`, and a list of our own. An adapter gets them all by a row in `common/rest.rs`.

mod common;

use common::faults::{Case, Fault, cases};
use common::rest::{Opened, Provider, providers};
use common::server::{Reply, Server, closed_address, data};
use common::{PAYLOAD, context, payload, unwrap};
use keyfold::testing::block_on;
use keyfold::{ErrorKind, KmsErrorKind, WrapRequest};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_millis(700);
const SLACK: Duration = Duration::from_millis(100);
/// Calls that took longer.
static LATE: AtomicUsize = AtomicUsize::new(0);

/// Fails unless `work` ends with `expected` (`None`: well), in time.
fn check(id: &str, expected: Option<ErrorKind>, work: impl FnOnce() -> keyfold::Result<()>) {
    let begun = Instant::now();
    let error = work().err();
    let took = begun.elapsed();
    assert_eq!(error.as_ref().map(keyfold::Error::kind), expected, "{id}: {error:?}");
    // A busy machine holds one of dozens up, now and then.
    if took > DEADLINE + SLACK {
        let late = LATE.fetch_add(1, Ordering::Relaxed);
        assert!(late == 0 && took < Duration::from_secs(10), "{id}: took {took:?}");
    }
}

fn unwraps(provider: &Provider, opened: &Opened) -> keyfold::Result<()> {
    let found = unwrap(&*opened.kek, &(provider.wrapped)())?;
    assert_eq!(found.expose(), PAYLOAD, "another payload than was wrapped");
    Ok(())
}

/// Unwraps at a server that answers `reply` to the operation: the class, and how often it was asked for.
fn answered(provider: &Provider, id: &str, reply: Reply, expected: Option<KmsErrorKind>, asked: usize) {
    let id = format!("{}, {id}", provider.name);
    let server = provider.serve(reply);
    let opened = provider.kek(&format!("http://{}", server.address), DEADLINE, "");
    check(&id, expected.map(ErrorKind::Kms), || unwraps(provider, &opened));
    assert_eq!(provider.asked(&server), asked, "{id}: requests");
}

/// Covers KC-26.
// Failures A1, A5, A12, A24
#[test]
fn every_case_of_the_fault_file_has_its_class() {
    let Some(cases) = cases() else { return };
    let providers = providers();
    let (mut ran, mut not) = (BTreeMap::<&str, usize>::new(), BTreeMap::<String, usize>::new());
    for case in &cases {
        let provider = providers.iter().find(|provider| provider.name == case.provider);
        match provider {
            // Keys are made by keyfold, never by a service.
            _ if case.operation == "GenerateDataKey" => {
                *not.entry(format!("{}: keyfold never calls GenerateDataKey", case.id)).or_default() += 1;
            }
            None => *not.entry(format!("{}: the adapter is not in this build", case.provider)).or_default() += 1,
            Some(provider) => {
                run(provider, case);
                *ran.entry(provider.name).or_default() += 1;
            }
        }
    }
    let mut text = format!("\nkms_faults.json: {} cases, {} sorted", cases.len(), ran.values().sum::<usize>());
    ran.iter().for_each(|(name, count)| text.push_str(&format!("; {name} {count}")));
    not.iter().for_each(|(why, count)| text.push_str(&format!("\n  {count} not: {why}")));
    let _ = writeln!(std::io::stdout(), "{text}");
    assert_eq!(ran.values().chain(not.values()).sum::<usize>(), cases.len());
}

fn run(provider: &Provider, case: &Case) {
    let server = match &case.fault {
        Fault::Reply(reply) if case.id.contains("evil-challenge") => {
            let server = Server::always(reply.clone());
            check(&case.id, case.expected, || unwraps(provider, &at(provider, &server)));
            assert_eq!(provider.asked(&server), 0, "{}: what asks for the challenge holds no token", case.id);
            return;
        }
        Fault::Reply(reply) => provider.serve(with_our_payload(provider, case, reply)),
        Fault::ConnectRefused | Fault::NoSuchHost => {
            let nowhere = match case.fault {
                Fault::NoSuchHost => "https://key-service.invalid".to_owned(),
                _ => format!("http://{}", closed_address()),
            };
            return check(&case.id, case.expected, || unwraps(provider, &provider.kek(&nowhere, DEADLINE, "")));
        }
        Fault::WrongName => return over_tls(provider, "server-elsewhere.pem", case.expected),
    };
    let opened = at(provider, &server);
    check(&case.id, case.expected, || match case.operation.to_ascii_lowercase().as_str() {
        "encrypt" => block_on(opened.kek.wrap(WrapRequest::new(&payload(), &context()))).map(drop),
        _ => unwraps(provider, &opened),
    });
    let asked = match &case.fault {
        // One attempt takes all the time that there is.
        Fault::Reply(Reply::Silence) => 1,
        // A pause that is longer than this deadline.
        Fault::Reply(Reply::Http { headers, .. }) if headers.iter().any(|(name, _)| name == "retry-after") => 1,
        _ => 1 + usize::from(case.retryable),
    };
    assert_eq!(provider.asked(&server), asked, "{}: requests", case.id);
}

fn at(provider: &Provider, server: &Server) -> Opened {
    provider.kek(&format!("http://{}", server.address), DEADLINE, "")
}

/// Answers of the file that would be good hold 32 bytes, and are to be replaced by one's own.
fn with_our_payload(provider: &Provider, case: &Case, reply: &Reply) -> Reply {
    match case.id.as_str() {
        "gcp-200-crc-mismatch" => with(provider, "/plaintextCrc32c", json!("1")),
        _ if case.expected.is_none() => provider.good_reply(PAYLOAD),
        _ => reply.clone(),
    }
}

/// At a server with this certificate, which the client trusts.
fn over_tls(provider: &Provider, certificate: &str, expected: Option<ErrorKind>) {
    let server = Server::start_tls(certificate, provider.answer(provider.good_reply(PAYLOAD)));
    let trusts = format!("&ca={}", data(certificate).display());
    let opened = provider.kek(&format!("https://{}", server.address), DEADLINE, &trusts);
    check(&format!("{}, {certificate}", provider.name), expected, || unwraps(provider, &opened));
    assert_eq!(server.seen().is_empty(), expected.is_some(), "{}: {certificate}", provider.name);
}

/// Covers KC-29.
// Failure A19
#[test]
fn tls_is_believed_with_the_right_name_and_root_alone_and_a_slow_handshake_ends() {
    for provider in providers() {
        over_tls(&provider, "server-loopback.pem", None);
        over_tls(&provider, "server-elsewhere.pem", Some(ErrorKind::Kms(KmsErrorKind::TlsError)));
        // Whom the system does not trust.
        let server = Server::start_tls("server-loopback.pem", provider.answer(provider.good_reply(PAYLOAD)));
        let opened = provider.kek(&format!("https://{}", server.address), DEADLINE, "");
        let tls = Some(ErrorKind::Kms(KmsErrorKind::TlsError));
        check(&format!("{}, another root", provider.name), tls, || unwraps(&provider, &opened));
        assert!(server.seen().is_empty());
        let server = Server::slow_handshake();
        let opened = provider.kek(&format!("https://{}", server.address), DEADLINE, "");
        let late = Some(ErrorKind::Kms(KmsErrorKind::Timeout));
        check(&format!("{}, a slow handshake", provider.name), late, || unwraps(&provider, &opened));
    }
}

/// A connection that is kept would keep the last answer in its buffers.
/// Covers KC-41.
// Failure T4
#[test]
fn each_request_has_a_connection_of_its_own_that_ends_with_the_answer() {
    for (provider, is_tls) in providers().into_iter().flat_map(|provider| [(provider, false), (provider, true)]) {
        let answer = provider.answer(provider.good_reply(PAYLOAD));
        let (server, scheme) = match is_tls {
            true => (Server::start_tls("server-loopback.pem", answer), "https"),
            false => (Server::start(answer), "http"),
        };
        let trusts = if is_tls { format!("&ca={}", data("server-loopback.pem").display()) } else { String::new() };
        let opened = provider.kek(&format!("{scheme}://{}", server.address), DEADLINE, &trusts);
        for _ in 0..3 {
            check(provider.name, None, || unwraps(&provider, &opened));
        }
        let (seen, connections) = (server.seen(), server.connections());
        assert_eq!(connections.begun.load(Ordering::SeqCst), seen.len(), "{}, {scheme}", provider.name);
        assert!(seen.iter().all(|seen| seen.headers.to_ascii_lowercase().contains("connection: close")), "{seen:?}");
        // While the client lives.
        let until = Instant::now() + DEADLINE;
        while connections.ended.load(Ordering::SeqCst) < seen.len() {
            assert!(Instant::now() < until, "{}, {scheme}: a connection is kept", provider.name);
            std::thread::yield_now();
        }
        drop(opened);
    }
}

/// What any service, or what stands in front of it, may answer.
/// Covers KC-1, KC-4, KC-27, KC-34.
// Failures A2, A3, A11, A12, A13, A16
#[test]
fn answers_have_their_class_and_are_asked_for_again_only_where_that_may_help() {
    use KmsErrorKind::*;
    let html = |status| Reply::Http { status, headers: Vec::new(), body: "<html>sign in</html>".to_owned() };
    let many = (0..1000).map(|number| (format!("x-{number}"), "y".to_owned())).collect();
    let endless = Reply::Http { status: 200, headers: many, body: String::new() };
    for provider in providers() {
        let check = |id: &str, reply, expected, asked| answered(&provider, id, reply, expected, asked);
        check("good", provider.good_reply(PAYLOAD), None, 1);
        for len in [0, 1, 32, 63, 65, 66, 4096] {
            check(&format!("{len} bytes"), provider.good_reply(&vec![7; len]), Some(MalformedResponse), 1);
        }
        for (id, payload) in [("not base64", json!("***")), ("a number", json!(7)), ("null", Value::Null)] {
            check(id, with(&provider, provider.payload_at, payload), Some(MalformedResponse), 1);
        }
        if let Some((at, names)) = provider.foreign {
            for name in names {
                check(&format!("from {name}"), with(&provider, at, json!(name)), Some(WrongKey), 1);
            }
        }
        let good = (provider.good)(PAYLOAD).to_string();
        check("cut JSON", Reply::json(200, &good[..good.len() - 20]), Some(MalformedResponse), 1);
        check("no members", Reply::json(200, "{}"), Some(MalformedResponse), 1);
        check("a list", Reply::json(200, "[]"), Some(MalformedResponse), 1);
        check("empty", Reply::json(200, ""), Some(MalformedResponse), 1);
        check("deep JSON", Reply::json(200, "[".repeat(60_000)), Some(MalformedResponse), 1);
        check("64 KiB and one byte", Reply::json(200, " ".repeat(64 * 1024 + 1)), Some(MalformedResponse), 1);
        check("64 MB", Reply::Long(64 << 20), Some(MalformedResponse), 1);
        check("64 MB in chunks", Reply::LongChunked(64 << 20), Some(MalformedResponse), 1);
        check("64 MB of headers", Reply::LongHeaders, Some(MalformedResponse), 1);
        check("a thousand headers", endless.clone(), Some(MalformedResponse), 1);
        check("a bomb", Reply::Bomb, Some(MalformedResponse), 1);
        check("not HTTP", Reply::Garbage, Some(MalformedResponse), 1);
        check("sign-in page", html(200), Some(MalformedResponse), 1);
        check("balancer", html(502), Some(Unavailable), 2);
        check("balancer gave up", html(504), Some(Timeout), 2);
        check("request took too long", html(408), Some(Timeout), 2);
        check("internal", html(500), Some(Unavailable), 2);
        check("too many", html(429), Some(Throttled), 2);
        check("a firewall", html(403), Some(Rejected), 1);
        check("an ingress that is being replaced", html(404), Some(Rejected), 1);
        check("no text", Reply::json(400, "{}"), Some(Rejected), 1);
        check("deep JSON, 400", Reply::json(400, "[".repeat(60_000)), Some(Rejected), 1);
        check("reset", Reply::Reset, Some(Unavailable), 2);
        check("cut", Reply::Cut, Some(Unavailable), 2);
        check("drip", Reply::Drip, Some(Timeout), 1);
        check("silence", Reply::Silence, Some(Timeout), 1);
    }
}

/// A good answer, but for the member at the JSON pointer `at`.
fn with(provider: &Provider, at: &str, value: Value) -> Reply {
    let mut answer = (provider.good)(PAYLOAD);
    *answer.pointer_mut(at).expect("a member") = value;
    Reply::json(200, answer.to_string())
}

/// Somebody who can answer in the service's place learns nothing elsewhere: redirects and challenges are not followed.
/// Covers KC-31.
// Failures A17, A18
#[test]
fn redirects_and_evil_challenges_lead_nowhere() {
    use KmsErrorKind::{Credentials, MalformedResponse, Rejected};
    let evil = Server::always(Reply::json(200, "{}"));
    let elsewhere = format!("http://{}/steal", evil.address);
    for provider in providers() {
        let redirects = [301, 302, 303, 307, 308].map(|status| (status, MalformedResponse, 1));
        let challenges = [(401, Credentials, provider.asked_after_401), (407, Rejected, 1)];
        for (status, expected, asked) in redirects.into_iter().chain(challenges) {
            let challenge = format!("Bearer authorization=\"{elsewhere}\", resource=\"{elsewhere}\"");
            let headers = ["location", "www-authenticate", "proxy-authenticate", "refresh"];
            let headers = headers
                .map(|name| (name.to_owned(), if name == "location" { elsewhere.clone() } else { challenge.clone() }));
            let reply = Reply::Http { status, headers: headers.into(), body: String::new() };
            answered(&provider, &status.to_string(), reply, Some(expected), asked);
        }
    }
    assert!(evil.seen().is_empty(), "{:?}", evil.seen());
}

/// In seconds, in milliseconds and as a date by the service's clock. More than this deadline is not waited for.
// Failure A5
#[test]
fn a_pause_that_a_service_asks_for_is_made() {
    let says = |headers: &[(&str, &str)]| Reply::Http {
        status: 429,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: String::new(),
    };
    let date = ("date", "Wed, 25 Nov 2026 10:00:00 GMT");
    for provider in providers() {
        let asked = |headers: &[(&str, &str)]| {
            let begun = Instant::now();
            let server = provider.serve(says(headers));
            check(provider.name, Some(ErrorKind::Kms(KmsErrorKind::Throttled)), || {
                unwraps(&provider, &at(&provider, &server))
            });
            (provider.asked(&server), begun.elapsed())
        };
        for headers in [
            &[("retry-after", "1")][..],
            &[("x-ms-retry-after-ms", "900")],
            &[("retry-after-ms", "900")],
            &[date, ("retry-after", "Wed, 25 Nov 2026 10:00:02 GMT")],
        ] {
            assert_eq!(asked(headers).0, 1, "{}: {headers:?}", provider.name);
        }
        let (count, took) = asked(&[("x-ms-retry-after-ms", "300")]);
        assert!(count == 2 && took >= Duration::from_millis(300), "{}: {count} {took:?}", provider.name);
        // What is over, and what is none, is no pause.
        for headers in [&[date, ("retry-after", "Wed, 25 Nov 2026 09:00:00 GMT")][..], &[("retry-after", "soon")]] {
            assert_eq!(asked(headers).0, 2, "{}: {headers:?}", provider.name);
        }
    }
}
