//! One field of a file job: its cipher, and texts in and out of it.

use super::Direction;
use crate::failure::{Exit, Failure};
use crate::reseal::Resealer;
use keyfold::wire::{from_text, looks_sealed_text, push_text};
use keyfold::{
    ColumnBytes, Decryptor, Encryptor, ErrorKind, Field, FieldMode, FieldPolicy, OpenedColumn, Rebinder, RowBinding,
    RowError, SealedColumn, Value,
};
use std::sync::Arc;

/// A field with its keys.
pub(super) struct FieldJob {
    pub(super) policy: Arc<FieldPolicy>,
    cipher: Cipher,
}

/// What a field needs for what is done with it.
#[derive(Default)]
struct Cipher {
    protect: Option<Box<Encryptor>>,
    reveal: Option<Box<Decryptor>>,
    rebind: Option<Box<Rebinder>>,
    reencrypt: Option<Box<Resealer>>,
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
        let mut job = Self { policy, cipher: Cipher::default() };
        if job.is_of_documents() {
            // Its values have no cipher of their own: see the documents.
            return Ok(job);
        }
        // Rebinding leaves alone what is not bound, unless it is the identifier: a deterministic field.
        let is_identifier = direction == Direction::Rebind && job.is_deterministic();
        let opens_identifier = direction == Direction::Reencrypt && job.is_deterministic();
        if direction == Direction::Reencrypt {
            job.cipher.reencrypt = Some(Box::new(pollster::block_on(Resealer::new(field.clone()))?));
        }
        if is_identifier || opens_identifier || direction == Direction::Reveal {
            job.cipher.reveal = Some(Box::new(pollster::block_on(field.clone().decryptor())?));
        }
        if direction == Direction::Rebind && job.is_bound() {
            job.cipher.rebind = Some(Box::new(pollster::block_on(field.clone().rebinder())?));
        }
        if is_identifier || matches!(direction, Direction::Protect { .. }) {
            job.cipher.protect = Some(Box::new(pollster::block_on(field.encryptor())?));
        }
        Ok(job)
    }

    pub(super) fn is_deterministic(&self) -> bool {
        matches!(self.policy.mode, FieldMode::Deterministic { .. })
    }

    /// Whether the values are sealed and opened with their documents.
    pub(super) fn is_of_documents(&self) -> bool {
        self.policy.mode == FieldMode::Document
    }

    /// Whether the values are bound to their row.
    pub(super) fn is_bound(&self) -> bool {
        self.policy.row_binding != RowBinding::None
    }

    /// Encrypts the values of a batch.
    pub(super) fn protect(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<SealedColumn, RowFailure> {
        let Some(encryptor) = &self.cipher.protect else {
            return Err(RowFailure::new(0, Exit::Internal, "a job that does not encrypt was asked to"));
        };
        Ok(encryptor.encrypt_column(values, rows)?)
    }

    /// Decrypts the sealed texts of a batch. A text that is not sealed is refused, never passed through.
    pub(super) fn reveal(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<OpenedColumn, RowFailure> {
        let Some(decryptor) = &self.cipher.reveal else {
            return Err(RowFailure::new(0, Exit::Internal, "a job that does not decrypt was asked to"));
        };
        let sealed = self.sealed(texts)?;
        pollster::block_on(decryptor.load_keys(&sealed))?;
        Ok(match rows {
            Some(rows) => decryptor.decrypt_column(&sealed, Some(&Rows(rows)))?,
            None => decryptor.decrypt_column(&sealed, None::<&Rows<'_>>)?,
        })
    }

    /// Moves the sealed texts of a batch from the rows `from` to the rows `to`.
    pub(super) fn rebind(&self, texts: &[&str], from: &[&[u8]], to: &[&[u8]]) -> Result<SealedColumn, RowFailure> {
        let Some(rebinder) = &self.cipher.rebind else {
            return Err(RowFailure::new(0, Exit::Internal, "a job that does not rebind was asked to"));
        };
        let sealed = self.sealed(texts)?;
        pollster::block_on(rebinder.load_keys(&sealed))?;
        Ok(rebinder.rebind_column(&sealed, &Rows(from), &Rows(to))?)
    }

    /// The values of a batch that are to be sealed again: where they are, and their binary form.
    pub(super) fn stale(&self, texts: &[&str]) -> Result<Vec<(usize, Vec<u8>)>, RowFailure> {
        let sealed = self.sealed(texts)?;
        let resealer = self.resealer()?;
        let mut stale = Vec::new();
        for row in 0..texts.len() {
            let needed = pollster::block_on(resealer.needs(sealed.bytes(row)));
            if needed.map_err(|error| RowFailure { row, failure: error.into() })? {
                stale.push((row, sealed.bytes(row).to_vec()));
            }
        }
        Ok(stale)
    }

    /// The text of a value under the current key, behind the prefix that stays in clear; and whether it was under a
    /// compromised one.
    pub(super) fn reseal(
        &self,
        row: usize,
        text: &str,
        sealed: &[u8],
        binding: Option<&[u8]>,
    ) -> Result<(Vec<u8>, bool), RowFailure> {
        let resealed = pollster::block_on(self.resealer()?.reseal(sealed, binding))
            .map_err(|error| RowFailure { row, failure: error.into() })?;
        let mut new = self.policy.split_prefix(text).0.as_bytes().to_vec();
        push_sealed(&resealed.bytes, &mut new);
        Ok((new, resealed.compromised))
    }

    fn resealer(&self) -> Result<&Resealer, RowFailure> {
        let wrong = || RowFailure::new(0, Exit::Internal, "a job that does not re-encrypt was asked to");
        self.cipher.reencrypt.as_deref().ok_or_else(wrong)
    }

    /// The binary form of texts, each of which must be sealed.
    fn sealed(&self, texts: &[&str]) -> Result<Sealed, RowFailure> {
        let mut sealed = Sealed { data: Vec::new(), ends: Vec::with_capacity(texts.len()) };
        for (row, text) in texts.iter().enumerate() {
            let (_, rest) = self.policy.split_prefix(text);
            from_text(rest.as_bytes(), &mut sealed.data).map_err(|error| match error.kind() {
                // Nothing is passed through, since it cannot be told from a value that was lost.
                ErrorKind::Malformed if text.is_empty() => RowFailure::new(
                    row,
                    Exit::Data,
                    "the value is empty, and `protect` seals empty texts too: it was lost, or is another program's null, whose \
                     row is to be left out; plaintext is never passed through [200 Malformed]",
                ),
                ErrorKind::Malformed => RowFailure::new(
                    row,
                    Exit::Data,
                    "the value is not sealed, or damaged; plaintext is never passed through [200 Malformed]",
                ),
                _ => RowFailure { row, failure: error.into() },
            })?;
            sealed.ends.push(sealed.data.len());
        }
        Ok(sealed)
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
