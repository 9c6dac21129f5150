//! Turns byte positions of the TOML parser into file, line and key.

use crate::error::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use std::ops::Range;

pub use toml::Spanned;

/// A file that is being parsed: its errors say file, line and key.
pub struct Origin<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Origin<'a> {
    /// The file `name`, whose text is `text`.
    #[must_use]
    pub const fn new(name: &'a str, text: &'a str) -> Self {
        Self { name, text }
    }

    /// Parses the whole file.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): it is no TOML, or not what `T` takes.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        toml::from_str(self.text).map_err(|error| {
            let place = self.place(error.span().unwrap_or(0..0));
            let hint = if has_bare_dot(&place) { "; a name with a dot is put in quotes: [fields.\"a.b\"]" } else { "" };
            Error::new(ErrorKind::Configuration, "configuration")
                .with_detail(format!("{place}: {}{hint}", error.message()))
        })
    }

    /// Runs `check` on a value of the file; its error gets the value's line and key.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): what `check` says.
    pub fn at<T, U>(&self, value: &Spanned<T>, check: impl FnOnce(&T) -> Result<U>) -> Result<U> {
        check(value.get_ref()).map_err(|error| {
            let place = self.place(value.span());
            Error::new(ErrorKind::Configuration, "configuration").with_detail(format!("{place}: {error}"))
        })
    }

    /// Refuses a file of another version than `known`.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration)
    pub fn check_version(&self, version: &Spanned<u32>, known: u32) -> Result<()> {
        self.at(version, |&found| {
            if found == known {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Configuration, "this build reads version 1 of the file")
                .with_detail(format!("found {found}")))
        })
    }

    /// `file:line, key`: the key is what stands on the line before `=`, or the table's name.
    fn place(&self, span: Range<usize>) -> String {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_number = before.matches('\n').count() + 1;
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = self.text[line_start..].lines().next().and_then(|line| line.split('#').next()).unwrap_or_default();
        let key = if line.trim_start().starts_with('[') { line } else { line.split('=').next().unwrap_or_default() };
        let key: String = key.trim().chars().take(80).collect();
        if key.is_empty() {
            format!("{}:{line_number}", self.name)
        } else {
            format!("{}:{line_number}, {key}", self.name)
        }
    }
}

/// Whether `place` ends with the header of a field whose name has a dot and no quotes, so that TOML takes it for several names.
fn has_bare_dot(place: &str) -> bool {
    place.rsplit_once(", [fields.").is_some_and(|(_, name)| name.contains('.') && !name.contains(['"', '\'']))
}
