//! Sealed values in cells of a table: in binary form, or as text behind a prefix that stays in clear.

use keyfold::wire::{from_text, push_text};
use keyfold::{Error, ErrorKind, FieldPolicy, Result};
use keyfold_tables::{Cell, ColumnKind};
use zeroize::Zeroizing;

/// How a value is written into its cell.
pub(crate) enum Form {
    Binary,
    /// With this in front.
    Text(String),
}

/// A sealed value that was taken out of its cell.
pub(crate) struct Stored {
    pub(crate) form: Form,
    pub(crate) sealed: Vec<u8>,
}

impl Stored {
    /// Takes the value out of `cell`; `None`: there is none, or an empty text.
    ///
    /// # Errors
    ///
    /// [`Malformed`](ErrorKind::Malformed), [`Unsupported`](ErrorKind::Unsupported): it is not a sealed value. It may be in clear.
    pub(crate) fn of(cell: &Cell, policy: &FieldPolicy) -> Result<Option<Self>> {
        match cell {
            Cell::Null => Ok(None),
            Cell::Bytes(bytes) if bytes.is_empty() => Ok(None),
            Cell::Text(text) if text.is_empty() => Ok(None),
            Cell::Bytes(bytes) => Ok(Some(Self { form: Form::Binary, sealed: bytes.to_vec() })),
            Cell::Text(text) => {
                let (prefix, rest) = policy.split_prefix(text);
                let mut sealed = Vec::new();
                from_text(rest.as_bytes(), &mut sealed).map_err(|error| match error.kind() {
                    ErrorKind::Malformed => Error::new(ErrorKind::Malformed, "the value is not sealed, or damaged"),
                    _ => error,
                })?;
                Ok(Some(Self { form: Form::Text(prefix.to_owned()), sealed }))
            }
        }
    }
}

impl Form {
    /// The form of a column, for a value behind `prefix`.
    pub(crate) fn of_column(kind: ColumnKind, prefix: &str) -> Self {
        match kind {
            ColumnKind::Binary => Self::Binary,
            ColumnKind::Text | ColumnKind::Other => Self::Text(prefix.to_owned()),
        }
    }

    /// The cell that holds `sealed`.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported): a frame, in a column of text.
    pub(crate) fn cell(&self, sealed: &[u8]) -> Result<Cell> {
        match self {
            Self::Binary => Ok(Cell::Bytes(Zeroizing::new(sealed.to_vec()))),
            Self::Text(prefix) => {
                let mut text = prefix.clone().into_bytes();
                push_text(sealed, &mut text)?;
                let text = String::from_utf8(text).map_err(|_| ErrorKind::Internal)?;
                Ok(Cell::Text(Zeroizing::new(text)))
            }
        }
    }
}
