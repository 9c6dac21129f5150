//! One field of a file job: its cipher, and texts in and out of it.

use super::Direction;
use crate::failure::{Exit, Failure};
use keyfold::wire::{from_text, looks_sealed_text, push_text};
use keyfold::{
    ColumnBytes, Decryptor, Encryptor, ErrorKind, Field, FieldMode, FieldPolicy, OpenedColumn, RowBinding, RowError,
    SealedColumn, Value,
};
use std::sync::Arc;

/// A field with its keys.
pub(super) struct FieldJob {
    pub(super) policy: Arc<FieldPolicy>,
    cipher: Cipher,
}

enum Cipher {
    Protect(Box<Encryptor>),
    Reveal(Box<Decryptor>),
}

/// A row of a batch that failed, and why; the caller knows where the row is in the file.
pub(super) struct RowFailure {
    pub(super) row: usize,
    pub(super) failure: Failure,
}

impl RowFailure {
    pub(super) fn new(row: usize, exit: Exit, message: &str) -> Self {
        Self { row, failure: Failure::new(exit, message) }
    }
}

impl From<RowError> for RowFailure {
    fn from(error: RowError) -> Self {
        Self { row: error.row, failure: error.error.into() }
    }
}

impl FieldJob {
    pub(super) fn new(policy: Arc<FieldPolicy>, field: Field, direction: Direction) -> Result<Self, Failure> {
        let cipher = match direction {
            Direction::Protect { .. } => Cipher::Protect(Box::new(pollster::block_on(field.encryptor())?)),
            Direction::Reveal => Cipher::Reveal(Box::new(pollster::block_on(field.decryptor())?)),
        };
        Ok(Self { policy, cipher })
    }

    pub(super) fn is_deterministic(&self) -> bool {
        matches!(self.policy.mode, FieldMode::Deterministic { .. })
    }

    /// Whether the values are bound to their row.
    pub(super) fn is_bound(&self) -> bool {
        self.policy.row_binding != RowBinding::None
    }

    /// Encrypts the values of a batch.
    pub(super) fn protect(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<SealedColumn, RowFailure> {
        let Cipher::Protect(encryptor) = &self.cipher else {
            return Err(RowFailure::new(0, Exit::Internal, "a decrypting job was asked to encrypt"));
        };
        Ok(encryptor.encrypt_column(values, rows)?)
    }

    /// Decrypts the sealed texts of a batch. A text that is not sealed is refused, never passed through.
    pub(super) fn reveal(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<OpenedColumn, RowFailure> {
        let Cipher::Reveal(decryptor) = &self.cipher else {
            return Err(RowFailure::new(0, Exit::Internal, "an encrypting job was asked to decrypt"));
        };
        let mut sealed = Sealed { data: Vec::new(), ends: Vec::with_capacity(texts.len()) };
        for (row, text) in texts.iter().enumerate() {
            let (_, rest) = self.policy.split_prefix(text);
            from_text(rest.as_bytes(), &mut sealed.data).map_err(|error| match error.kind() {
                ErrorKind::Malformed => RowFailure::new(
                    row,
                    Exit::Data,
                    "the value is not sealed, or damaged; reveal never passes plaintext through [200 Malformed]",
                ),
                _ => RowFailure { row, failure: error.into() },
            })?;
            sealed.ends.push(sealed.data.len());
        }
        pollster::block_on(decryptor.load_keys(&sealed))?;
        Ok(match rows {
            Some(rows) => decryptor.decrypt_column(&sealed, Some(&Rows(rows)))?,
            None => decryptor.decrypt_column(&sealed, None::<&Rows<'_>>)?,
        })
    }

    /// Refuses a text that looks sealed already.
    pub(super) fn refuse_sealed(&self, row: usize, text: &str) -> Result<(), RowFailure> {
        let (_, rest) = self.policy.split_prefix(text);
        if looks_sealed_text(rest.as_bytes()) {
            return Err(RowFailure::new(
                row,
                Exit::Policy,
                "the value looks sealed already; --seal-sealed encrypts it once more",
            ));
        }
        Ok(())
    }
}

/// Appends the text form of a sealed value.
pub(super) fn push_sealed(sealed: &[u8], out: &mut Vec<u8>) {
    push_text(sealed, out).expect("the library sealed this value itself, so it is well-formed");
}

/// Sealed values, one after the other.
struct Sealed {
    data: Vec<u8>,
    ends: Vec<usize>,
}

impl ColumnBytes for Sealed {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn bytes(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.data[start..self.ends[row]]
    }
}

/// Row bindings of a batch.
struct Rows<'a>(&'a [&'a [u8]]);

impl ColumnBytes for Rows<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self, row: usize) -> &[u8] {
        self.0[row]
    }
}
