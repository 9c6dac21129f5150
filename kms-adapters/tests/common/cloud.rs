//! What the tests of AWS and Azure share: plain requests to the servers of the tests, the table of classes, and processes of
//! their own for what concerns a whole process.

use super::common::{PAYLOAD, unwrap, wrap};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use keyfold::{Error, ErrorKind, Kms, KmsErrorKind, Result, WrappedKey};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// The value of a variable that names a server; `None`, said aloud, where there is none.
pub(crate) fn server(variable: &str, how: &str) -> Option<String> {
    let value = std::env::var(variable).ok();
    if value.is_none() {
        say(&format!("SKIPPED: {variable} names no server: {how} starts one"));
    }
    value
}

/// Not by `println!`, which the test harness swallows where a test passes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "\n{text}");
}

/// Sends JSON to `http://…` and returns status and JSON.
pub(crate) fn post(url: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
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
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Prints and checks, row by row, which class each answer of a server became.
pub(crate) struct Classes {
    server: &'static str,
    rows: Vec<(String, ErrorKind, Error)>,
}

impl Classes {
    pub(crate) fn of(server: &'static str) -> Self {
        Self { server, rows: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn row<T>(&mut self, what: &str, expected: KmsErrorKind, result: Result<T>) {
        let Err(error) = result else { panic!("{what}: accepted") };
        self.rows.push((what.to_owned(), ErrorKind::Kms(expected), error));
    }
}

impl Drop for Classes {
    fn drop(&mut self) {
        let row = |(what, _, error): &(String, ErrorKind, Error)| {
            format!(
                "  {what:<44} {:<18} {}\n",
                error.kind().name(),
                error.detail().rsplit(": ").next().unwrap_or_default()
            )
        };
        say(&format!("{}:\n{}", self.server, self.rows.iter().map(row).collect::<String>()));
        if !std::thread::panicking() {
            for (what, expected, error) in &self.rows {
                assert_eq!(error.kind(), *expected, "{what}: {error:?}");
            }
        }
    }
}

const OWN_PROCESS: &str = "KEYFOLD_TEST_OWN_PROCESS";

/// Runs the test `name` again in a process of its own. False: this is that process.
pub(crate) fn is_left_to_own_process(name: &str) -> bool {
    if std::env::var(OWN_PROCESS).is_ok_and(|own| own == name) {
        return false;
    }
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(OWN_PROCESS, name)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
    true
}

/// Uses `kek` in four forked children and here at the same time.
pub(crate) fn use_in_forked_children(kek: &dyn Kms) {
    let wrapped = wrap(kek).expect("wrapped");
    let mut children = Vec::new();
    for _ in 0..4 {
        // SAFETY: the child touches nothing that another thread could hold, and ends with `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let works = || (0..5).all(|_| wrap(kek).is_ok() && unwrap(kek, &wrapped).is_ok());
                let status =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(works)).map_or(2, |works| i32::from(!works));
                // SAFETY: ends this process without running what belongs to the parent.
                unsafe { libc::_exit(status) };
            }
            child => children.push(child),
        }
    }
    assert!((0..5).all(|_| unwrap(kek, &wrapped).is_ok()));
    for child in children {
        let mut status = 0;
        // SAFETY: waits for a child of ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    assert!(unwrap(kek, &wrapped).is_ok());
}

/// Uses `kek` inside a runtime without I/O, after that has gone, and from eight threads.
pub(crate) fn use_from_everywhere(make: impl Fn() -> Box<dyn Kms>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (kek, wrapped) = runtime.block_on(async {
        let kek = make();
        let wrapped = wrap(&*kek).expect("wrapped, blocking inside a runtime");
        (kek, wrapped)
    });
    drop(runtime);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(unwrap(&*kek, &wrapped).is_ok()));
        }
    });
}

/// Everything that any crate logs in this process from now on.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn collect() -> Self {
        let logs = Self::default();
        log::set_boxed_logger(Box::new(logs.clone())).expect("the first logger");
        log::set_max_level(log::LevelFilter::Trace);
        let subscriber =
            tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(logs.clone()).finish();
        tracing::subscriber::set_global_default(subscriber).expect("the first subscriber");
        logs
    }

    /// Notes what a caller may see of an operation.
    pub(crate) fn note<T>(&mut self, kek: &impl std::fmt::Debug, result: Result<T>) {
        let _ = write!(self, "{kek:?} ");
        if let Err(error) = result {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = cause {
                let _ = write!(self, "{error} {error:?} ");
                cause = error.source();
            }
        }
    }

    /// Fails where a secret, the payload or what it was wrapped to is shown.
    pub(crate) fn check(&self, secrets: &[String], wrapped: &WrappedKey) {
        let shown = String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned();
        assert!(shown.contains("keyfold_kms::layer"), "the logs are not those of all crates: {shown:.2000}");
        let encoded = |bytes: &[u8]| [BASE64.encode(bytes), BASE64URL_NOPAD.encode(bytes), HEXLOWER.encode(bytes)];
        let payload = encoded(PAYLOAD).into_iter().chain(["CANARY-PAYLOAD".to_owned()]);
        for secret in payload.chain(encoded(&wrapped.bytes)).chain(secrets.iter().cloned()) {
            assert!(secret.len() >= 10, "too short to be looked for");
            if let Some(at) = shown.find(&secret) {
                let around: String = shown.chars().skip(at.saturating_sub(300)).take(600).collect();
                panic!("{secret} is shown: {around}");
            }
        }
    }
}

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
