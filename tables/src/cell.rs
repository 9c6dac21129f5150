//! Values and keys of rows.

use keyfold::{Error, ErrorKind, Result};
use std::fmt;
use zeroize::Zeroizing;

/// A value of a row. Erased on drop, since it may be in clear; what the database's driver copied is out of our hands.
#[derive(Clone, Eq, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// A binary value.
    Bytes(Zeroizing<Vec<u8>>),
    /// A text, or a value of any other type as text.
    Text(Zeroizing<String>),
}

impl Cell {
    /// The bytes of the value, or of its text; `None`: there is no value.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Null => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Text(text) => Some(text.as_bytes()),
        }
    }
}

impl fmt::Debug for Cell {
    /// Never the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Bytes(_) => "Bytes",
            Self::Text(_) => "Text",
        })
    }
}

/// The key of a row. It may identify a patient: `Debug` does not show it.
#[derive(Clone, Eq, PartialEq)]
pub enum RowKey {
    /// An integer.
    Integer(i64),
    /// A text, or a UUID as text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

impl RowKey {
    /// Which of the three it is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Integer(_) => "integer",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
        }
    }

    /// The key as text: bytes in lower-case hexadecimal.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => data_encoding::HEXLOWER.encode(bytes),
        }
    }

    /// The key with this kind and text.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): there is none.
    pub fn from_text(kind: &str, text: &str) -> Result<Self> {
        let malformed = || Error::new(ErrorKind::Malformed, "not the key of a row");
        match kind {
            "integer" => text.parse().map(Self::Integer).map_err(|_| malformed()),
            "text" => Ok(Self::Text(text.to_owned())),
            "bytes" => data_encoding::HEXLOWER.decode(text.as_bytes()).map(Self::Bytes).map_err(|_| malformed()),
            _ => Err(malformed()),
        }
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({})", self.kind())
    }
}
