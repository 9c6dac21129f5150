//! What must be secret, in everything that any crate of this process says at TRACE, by `tracing` or by `log`.

#[cfg(feature = "http")]
use super::rest::Provider;
#[cfg(feature = "http")]
use super::server::Reply;
use super::{PAYLOAD, unwrap, wrap};
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use keyfold::{Result, WrappedKey};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

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

    /// All that was logged and noted.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("not poisoned")).into_owned()
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

    /// Notes what comes of services of `provider` that send back what they are sent, or worse, its credentials among it.
    #[cfg(feature = "http")]
    pub(crate) fn note_hostile(&mut self, provider: &Provider) {
        let redirect = vec![("location".to_owned(), "http://127.0.0.1:9/".to_owned())];
        let redirect = Reply::Http { status: 302, headers: redirect, body: String::new() };
        let echoes = [200, 400, 401, 403, 429, 500].map(Reply::Echo);
        for reply in
            echoes.into_iter().chain([provider.good_reply(PAYLOAD), redirect, Reply::Cut, Reply::Reset, Reply::Garbage])
        {
            let server = provider.serve(reply);
            let opened = provider.kek(&format!("http://{}", server.address), Duration::from_secs(2), "");
            self.note(&opened.kek, wrap(&*opened.kek));
            self.note(&opened.kek, unwrap(&*opened.kek, &(provider.wrapped)()));
            assert!(!server.seen().is_empty(), "nothing was asked");
        }
    }

    /// Fails where a secret, the payload or what it was wrapped to is shown.
    pub(crate) fn check(&self, secrets: &[String], wrapped: Option<&WrappedKey>) {
        let shown = self.text();
        assert!(shown.contains("keyfold_kms::layer"), "the logs are not those of all crates: {shown:.2000}");
        let encoded = |bytes: &[u8]| [BASE64.encode(bytes), BASE64URL_NOPAD.encode(bytes), HEXLOWER.encode(bytes)];
        let payload = encoded(PAYLOAD).into_iter().chain(["CANARY-PAYLOAD".to_owned()]);
        for secret in payload
            .chain(wrapped.into_iter().flat_map(|wrapped| encoded(&wrapped.bytes)))
            .chain(secrets.iter().cloned())
        {
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
