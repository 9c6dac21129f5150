//! One field of a file job: its cipher, and texts in and out of it.

use super::Direction;
use super::tokens::IndexJob;
use crate::failure::{Exit, Failure};
use crate::reseal::Resealer;
use keyfold::wire::text_len;
use keyfold::wire::{from_text, looks_sealed_text, push_text};
use keyfold::{
    ColumnBytes, Decryptor, Encryptor, ErrorKind, Field, FieldMode, FieldPolicy, FormatPreserver, OpenedColumn,
    Rebinder, RowBinding, RowError, SealedColumn, Value,
};
use std::borrow::Cow;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A field with its keys.
pub(super) struct FieldJob {
    pub(super) policy: Arc<FieldPolicy>,
    cipher: Cipher,
    /// The indexes that are written beside its values.
    pub(super) indexes: Vec<IndexJob>,
}

/// What a field needs for what is done with it.
#[derive(Default)]
struct Cipher {
    protect: Option<Box<Encryptor>>,
    reveal: Option<Box<Decryptor>>,
    rebind: Option<Box<Rebinder>>,
    reencrypt: Option<Box<Resealer>>,
    /// Either way, of values that keep their format.
    preserve: Option<Box<FormatPreserver>>,
}

/// A column after protecting it.
pub(super) enum Protected {
    Sealed(SealedColumn),
    /// In another value's format: texts as they stand.
    Replaced(Vec<Zeroizing<String>>),
}

impl Protected {
    /// Appends the text of a row.
    pub(super) fn push(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Sealed(column) => push_sealed(column.bytes(row), out),
            Self::Replaced(texts) => out.extend_from_slice(texts[row].as_bytes()),
        }
    }

    /// Bytes of the text of a row.
    pub(super) fn text_len(&self, row: usize) -> usize {
        match self {
            Self::Sealed(column) => text_len(column.bytes(row).len()),
            Self::Replaced(texts) => texts[row].len(),
        }
    }
}

/// A column after revealing it.
pub(super) enum Revealed {
    Opened(OpenedColumn),
    Replaced(Vec<Zeroizing<String>>),
}

impl Revealed {
    /// The text of a row; `None` if the value has none.
    pub(super) fn text(&self, row: usize) -> Option<Cow<'_, str>> {
        match self {
            Self::Opened(column) => column.value(row).to_text(),
            Self::Replaced(texts) => Some(texts[row].as_str().into()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Opened(column) => column.len(),
            Self::Replaced(texts) => texts.len(),
        }
    }

    /// Values under an old key, and under a compromised one.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Self::Opened(column) => (column.outdated() as u64, column.compromised() as u64),
            Self::Replaced(_) => (0, 0),
        }
    }
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
        let mut job = Self { policy, cipher: Cipher::default(), indexes: Vec::new() };
        if let Direction::Protect { .. } = direction {
            job.indexes = IndexJob::of(&job.policy, &field)?;
        }
        if job.is_of_documents() {
            // Its values have no cipher of their own: see the documents.
            return Ok(job);
        }
        if job.keeps_format() {
            job.cipher.preserve = Some(Box::new(pollster::block_on(field.format_preserver())?));
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

    /// Whether the values are replaced by others of their format, which nothing authenticates.
    pub(super) fn keeps_format(&self) -> bool {
        matches!(self.policy.mode, FieldMode::FormatPreserving { .. })
    }

    /// Whether the values are bound to their row.
    pub(super) fn is_bound(&self) -> bool {
        self.policy.row_binding != RowBinding::None
    }

    /// Protects the values of a batch.
    pub(super) fn protect(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<Protected, RowFailure> {
        let Some(preserver) = &self.cipher.preserve else {
            return self.seal(values, rows).map(Protected::Sealed);
        };
        let text = |(row, value): (usize, &Value<'_>)| match value {
            Value::Null => Err(RowFailure::new(row, Exit::Data, "a null has no format to keep")),
            _ => Ok(Zeroizing::new(value.to_text().unwrap_or_default().into_owned())),
        };
        let texts: Vec<Zeroizing<String>> = values.iter().enumerate().map(text).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
        Ok(Protected::Replaced(preserver.encrypt_column(&texts)?))
    }

    /// Reveals the texts of a batch. A text that is not sealed is refused, never passed through.
    pub(super) fn reveal(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<Revealed, RowFailure> {
        match &self.cipher.preserve {
            None => self.open(texts, rows).map(Revealed::Opened),
            Some(preserver) => Ok(Revealed::Replaced(preserver.decrypt_column(texts)?)),
        }
    }

    /// Encrypts the values of a batch.
    pub(super) fn seal(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<SealedColumn, RowFailure> {
        let Some(encryptor) = &self.cipher.protect else {
            return Err(RowFailure::new(0, Exit::Internal, "a job that does not encrypt was asked to"));
        };
        Ok(encryptor.encrypt_column(values, rows)?)
    }

    /// Decrypts the sealed texts of a batch. A text that is not sealed is refused, never passed through.
    pub(super) fn open(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<OpenedColumn, RowFailure> {
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
