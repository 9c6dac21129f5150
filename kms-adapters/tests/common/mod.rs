//! What the tests of all remote adapters share: a server that answers as it is told, and the classes of fault files.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod classes;
pub(crate) mod faults;
pub(crate) mod fork;
pub(crate) mod logs;
#[cfg(feature = "http")]
pub(crate) mod rest;
pub(crate) mod server;

use keyfold::testing::block_on;
use keyfold::{
    Error, Kms, KmsContext, KmsTrace, Lineage, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey, wire::KeyId,
};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

pub(crate) const PAYLOAD: &[u8; 64] = b"KEYFOLD-CANARY-PAYLOAD:never in an error, a log or wrapped bytes";

pub(crate) fn here() -> &'static Path {
    Path::new(".")
}

pub(crate) fn context() -> KmsContext {
    KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]))
}

pub(crate) fn payload() -> Secret<64> {
    Secret::with(|bytes| bytes.copy_from_slice(PAYLOAD))
}

pub(crate) fn wrap(kms: &dyn Kms) -> Result<WrappedKey> {
    block_on(kms.wrap(WrapRequest::new(&payload(), &context())))
}

pub(crate) fn unwrap(kms: &dyn Kms, wrapped: &WrappedKey) -> Result<Secret<64>> {
    block_on(kms.unwrap(UnwrapRequest::new(wrapped, &context())))
}

/// As [`unwrap`], with how many requests it took.
pub(crate) fn unwrap_traced(kms: &dyn Kms, wrapped: &WrappedKey) -> (Result<Secret<64>>, u32) {
    let (trace, context) = (KmsTrace::new(), context());
    let result = block_on(kms.unwrap(UnwrapRequest::new(wrapped, &context).with_trace(&trace)));
    (result, trace.requests())
}

/// The error of something that must have failed; its success may hold a secret, so it is not printed.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}

/// The value of a variable that names a server; `None`, said aloud, where there is none.
pub(crate) fn server(variable: &str, how: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    if value.is_none() {
        skip(&format!("{variable} names no server: {how} starts one"));
    }
    value
}

/// Says why the test of this thread does nothing, or not all that it could.
pub(crate) fn skip(why: &str) {
    say(&format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or_default()));
}

/// Not by `println!`, which the test harness swallows where a test passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "\n{text}");
}

/// Sends JSON to `http://…` and returns status and JSON.
pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &serde_json::Value) -> (u16, serde_json::Value) {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let body = body.to_string();
    let mut text = format!("POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let mut stream = TcpStream::connect(host).expect("connected");
    stream.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("received");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// Uses a KEK inside a runtime without I/O, blocking and waiting, after that has gone, and from eight threads.
pub(crate) fn use_from_everywhere(make: impl Fn() -> Box<dyn Kms>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (kek, wrapped) = runtime.block_on(async {
        let kek = make();
        let wrapped = wrap(&*kek).expect("wrapped, blocking inside a runtime");
        let (payload, context, trace) = (payload(), context(), KmsTrace::new());
        let request = WrapRequest::new(&payload, &context).with_trace(&trace);
        kek.wrap(request).await.expect("wrapped, waiting inside a runtime");
        assert_eq!(trace.requests(), 1);
        (kek, wrapped)
    });
    drop(runtime);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(unwrap(&*kek, &wrapped).is_ok()));
        }
    });
}
