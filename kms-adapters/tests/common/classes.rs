//! The classes that the answers of a server became, printed as one table by every adapter.

use super::say;
use keyfold::{Error, ErrorKind, KmsErrorKind, Result};

/// Rows are printed, and then checked, when it is dropped.
pub(crate) struct Classes {
    provider: &'static str,
    /// What kind of server it was.
    server: &'static str,
    rows: Vec<(String, ErrorKind, Error)>,
}

impl Classes {
    pub(crate) fn of(provider: &'static str, server: &'static str) -> Self {
        Self { provider, server, rows: Vec::new() }
    }

    #[track_caller]
    pub(crate) fn row<T>(&mut self, what: &str, expected: KmsErrorKind, result: Result<T>) {
        let Err(error) = result else { panic!("{what}: accepted") };
        self.add(what, ErrorKind::Kms(expected), error);
    }

    pub(crate) fn add(&mut self, what: &str, expected: ErrorKind, error: Error) {
        self.rows.push((what.to_owned(), expected, error));
    }

    /// What the errors say.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.rows.iter().map(|(_, _, error)| error.to_string()).collect()
    }
}

impl Drop for Classes {
    fn drop(&mut self) {
        let provider = self.provider;
        let mut table = format!("classes of {provider}, {}\n", self.server);
        for (what, _, error) in &self.rows {
            let text = error.to_string();
            let message = text.split(": ").next().unwrap_or_default();
            table.push_str(&format!("{provider:8} {what:40} {:18} {message}\n", error.kind().name()));
        }
        say(&table);
        if !std::thread::panicking() {
            for (what, expected, error) in &self.rows {
                assert_eq!(error.kind(), *expected, "{what}: {error:?}");
            }
        }
    }
}
