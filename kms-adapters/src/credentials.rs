//! Where credentials come from. They are read when they are needed, so that a rotated file counts at the next login, and
//! they never stand in a URI.

use keyfold::{Error, ErrorKind, KmsErrorKind, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest credential in bytes: a JWT with many claims has a few thousand.
const MAX_LEN: u64 = 64 * 1024;

/// A token, password or PIN: erased on drop, shown nowhere.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The secret `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text. Named for what it does, so that a reviewer can search for it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

/// Where to read a credential, each time that it is needed.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A file, up to the line feeds at its end.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// The host program, once.
    Text(SecretText),
}

impl SecretSource {
    /// Reads the credential. May block for as long as reading a small file takes.
    ///
    /// # Errors
    ///
    /// - [`Credentials`](KmsErrorKind::Credentials): there is none there, it is empty, too long or not one line of text.
    // KC-36.
    pub fn read(&self) -> Result<SecretText> {
        let text = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Env(name) => std::env::var(name)
                .map(Zeroizing::new)
                .map_err(|_| missing("the environment variable is not set, or not text", name))?,
            Self::File(path) => read_file(path)?,
        };
        let line = text.trim_end_matches(['\r', '\n']);
        if line.is_empty() || line.len() as u64 > MAX_LEN || line.chars().any(char::is_control) {
            return Err(missing("a credential is one line of text of at most 64 KiB", &self.to_string()));
        }
        Ok(SecretText::new(line))
    }
}

/// Names the place, never the credential.
impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "variable {name}"),
            Self::Text(_) => f.write_str("the host program"),
        }
    }
}

/// The text of a file of credentials.
///
/// # Errors
///
/// - [`Credentials`](KmsErrorKind::Credentials): it cannot be opened or is not text, and as for [`open_file`].
pub(crate) fn read_file(path: &Path) -> Result<Zeroizing<String>> {
    let file = open_file(path, MAX_LEN)?;
    // As long as it may get, because growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_LEN as usize + 1));
    file.take(MAX_LEN + 1)
        .read_to_string(&mut text)
        .map_err(|_| missing("the file cannot be read as text", &path.display().to_string()))?;
    Ok(text)
}

/// Opens a file of credentials, which must be a regular one of at most `max_len` bytes.
///
/// # Errors
///
/// - [`Credentials`](KmsErrorKind::Credentials): it is another one, or cannot be opened.
pub(crate) fn open_file(path: &Path, max_len: u64) -> Result<File> {
    let shown = path.display();
    // A pipe that nobody writes to must not hold up the thread that all key services share.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
        .map(File::from)
        .map_err(std::io::Error::from)
        .and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (file, metadata) = file.map_err(|error| missing("cannot read the file", &format!("{shown}: {error}")))?;
    if !metadata.is_file() || metadata.len() > max_len {
        let most = max_len / 1024;
        return Err(missing("the file is not a regular one, or too long", &format!("{shown}, at most {most} KiB")));
    }
    Ok(file)
}

fn missing(message: &'static str, place: &str) -> Error {
    Error::new(ErrorKind::Kms(KmsErrorKind::Credentials), message).with_detail(format!("credential from {place}"))
}
