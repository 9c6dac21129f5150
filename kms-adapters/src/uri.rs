//! The URIs by which `keyfold.toml` names KEKs: `SCHEME://ADDRESS?OPTION=VALUE&…`, read strictly, because an option that
//! nobody reads must not look as if it protected something.
//!
//! All remote adapters share the options `timeout` (of an attempt; such as `3s` or `500ms`), `attempts` and `rate`
//! (attempts per second). The deadline of an operation stands beside the URI: see `Layered::with_deadline`. Paths are relative to the folder of the configuration. Credentials never stand in a
//! URI: an option `NAME_file` or `NAME_env` says where they are.

use crate::credentials::SecretSource;
use crate::layer::Limits;
use keyfold::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A URI in parts. Each adapter takes the options that it knows, and [`finish`](Self::finish) refuses what is left.
pub struct KekUri {
    /// Between `://` and `?`, as it stands there.
    pub address: String,
    scheme: String,
    options: BTreeMap<String, String>,
    /// The options that somebody has asked for.
    known: BTreeSet<String>,
    folder: PathBuf,
}

impl KekUri {
    /// Takes `uri` apart; it must be of `scheme`.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): another scheme, an option twice, or what no URI of a KEK has.
    // KC-35.
    pub fn parse(uri: &str, scheme: &str, folder: &Path) -> Result<Self> {
        // What cannot be parsed may hold a password anywhere, so no part of it is repeated.
        let rest = uri.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.ok_or_else(|| match uri.strip_prefix(scheme) {
            Some(rest) if rest.starts_with(':') => {
                wrong("the URI of the KEK lacks // after its scheme", &format!("{scheme}://…"))
            }
            _ => wrong("the URI of the KEK is not of that scheme", scheme),
        })?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        if address.contains(['@', '#', '\\']) || query.contains('#') || uri.chars().any(|c| c.is_control() || c == ' ')
        {
            return Err(wrong("the URI of a KEK has no user, password, fragment, space or control character", scheme));
        }
        let mut options = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if options.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(wrong("the URI of the KEK has an option twice", &name));
            }
        }
        let (address, scheme, folder) = (address.to_owned(), scheme.to_owned(), folder.to_owned());
        Ok(Self { address, scheme, options, known: BTreeSet::new(), folder })
    }

    /// The option `name`.
    #[must_use]
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.known.insert(name.to_owned());
        self.options.remove(name)
    }

    /// Whether the option `name` is there, which none should know.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// The option `name`, which must be there.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): it is not.
    pub fn require(&mut self, name: &str) -> Result<String> {
        self.take(name).ok_or_else(|| wrong("the URI of the KEK lacks an option", name))
    }

    /// The file that the option `name` names.
    #[must_use]
    pub fn take_path(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(|path| self.folder.join(path))
    }

    /// Where the options `NAME_file` or `NAME_env` say that a credential is.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): both are there.
    pub fn take_secret(&mut self, name: &str) -> Result<Option<SecretSource>> {
        match (self.take_path(&format!("{name}_file")), self.take(&format!("{name}_env"))) {
            (Some(_), Some(_)) => Err(wrong("the URI of the KEK names two places of one credential", name)),
            (Some(path), None) => Ok(Some(SecretSource::File(path))),
            (None, Some(variable)) => Ok(Some(SecretSource::Env(variable))),
            (None, None) => Ok(None),
        }
    }

    /// The options of the layer.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): one is not what it should be, or out of its bounds.
    pub fn take_limits(&mut self) -> Result<Limits> {
        let mut limits = Limits::default();
        if let Some(text) = self.take("timeout") {
            limits.attempt = duration("timeout", &text)?;
        }
        if let Some(text) = self.take("attempts") {
            limits.attempts = text.parse().map_err(|_| wrong("an option is a whole number", "attempts"))?;
        }
        if let Some(text) = self.take("rate") {
            let rate: u32 = text.parse().map_err(|_| wrong("an option is a whole number", "rate"))?;
            (limits.rate, limits.burst) = (f64::from(rate), rate);
        }
        limits.check()?;
        Ok(limits)
    }

    /// Refuses options that nobody has taken.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): names one, and those that were asked for.
    pub fn finish(self) -> Result<()> {
        let Some(name) = self.options.keys().next() else { return Ok(()) };
        let page = match self.scheme.as_str() {
            "awskms" => "aws",
            "azurekv" => "azure",
            "gcpkms" => "gcp",
            scheme => scheme,
        };
        let known = self.known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let detail = format!("{name}; known here: {known}; see docs/kms/{page}.md");
        Err(wrong("the URI of the KEK has an option that keyfold does not know", &detail))
    }
}

/// The files that the options of `uri` name, such as those of credentials: what no output may overwrite.
#[must_use]
pub fn files(uri: &str, folder: &Path) -> Vec<PathBuf> {
    files_of(uri, folder, |option| matches!(option, "ca" | "module-path") || is_credential(option))
}

/// Those of them that hold credentials, and are for their owner alone.
#[must_use]
pub fn credential_files(uri: &str, folder: &Path) -> Vec<PathBuf> {
    files_of(uri, folder, is_credential)
}

fn is_credential(option: &str) -> bool {
    option.ends_with("_file")
}

fn files_of(uri: &str, folder: &Path, is_wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .filter(|(option, _)| is_wanted(option))
        .map(|(_, path)| folder.join(&*path))
        .collect()
}

fn duration(name: &str, text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    // `parse` would take a sign as well.
    let number = digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()));
    match (number, &text[digits.len()..]) {
        (Some(number), "s") => Ok(Duration::from_secs(number)),
        (Some(number), "ms") => Ok(Duration::from_millis(number)),
        _ => Err(wrong("a duration in the URI of a KEK is a whole number of s or ms, such as 10s or 500ms", name)),
    }
}

fn wrong(message: &'static str, detail: &str) -> Error {
    Error::new(ErrorKind::Configuration, message).with_detail(detail)
}
