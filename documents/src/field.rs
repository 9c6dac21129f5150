//! Fields of a policy with their keys, for one direction: columns of values to texts and back, whatever the file format is.

mod index;
mod keys;
mod plan;
mod reseal;
mod tokens;

pub use index::FieldIndex;
pub use keys::FieldKeys;
pub use plan::{Locator, Used};
pub use reseal::{Resealed, Resealer, same};
pub use tokens::{FieldTokens, SharedTokens, TokenStore};

use keyfold::wire::text_len;
use keyfold::wire::{from_text, looks_sealed_text, push_text};
use keyfold::{
    ColumnBytes, Decryptor, Encryptor, Error, ErrorKind, Field, FieldMode, FieldPolicy, FormatPreserver, OpenedColumn,
    Rebinder, RowBinding, RowError, SealedColumn, Value,
};
use std::borrow::Cow;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What an error says where a value that is to be protected is sealed already.
pub const LOOKS_SEALED: &str = "the value looks sealed already";

/// What an error says where a value that is to get a random token is one already.
pub const IS_TOKEN: &str = "the value is a random token of the field already";

/// How much longer than what is protected a text may be that is revealed: a sealed text is a third longer than its value, and
/// what would be longer than this is not protected.
const SEALED_GROWTH: usize = 2;

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// From clear to protected.
    Protect {
        /// Encrypts values that look sealed, or are random tokens of their field, once more.
        seal_sealed: bool,
    },
    /// From protected to clear.
    Reveal,
    /// From protected to protected: values get another row.
    Rebind,
    /// From protected to protected: values get the current key.
    Reencrypt,
}

impl Direction {
    /// The limit of the input in this direction, where that of protecting is `max_len`.
    #[must_use]
    pub const fn limit(self, max_len: usize) -> usize {
        match self {
            Self::Protect { .. } => max_len,
            Self::Reveal | Self::Rebind | Self::Reencrypt => max_len * SEALED_GROWTH,
        }
    }
}

/// A field with its keys. Made by [`FieldKeys::fields`].
pub struct FieldCipher {
    policy: Arc<FieldPolicy>,
    cipher: Cipher,
    indexes: Vec<FieldIndex>,
    /// Whether what is a token of the field may get another one.
    seal_sealed: bool,
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
    /// Either way, of values that have tokens.
    tokens: Option<Box<dyn FieldTokens>>,
}

/// Replaces the texts that are not empty. An empty one has no format to keep and stands for itself, as it does among tokens.
fn replace_filled(
    texts: &[&str],
    replace: impl FnOnce(&[&str]) -> Result<Vec<Zeroizing<String>>, RowError>,
) -> Result<Vec<Zeroizing<String>>, RowError> {
    let rows: Vec<usize> = (0..texts.len()).filter(|row| !texts[*row].is_empty()).collect();
    let filled: Vec<&str> = rows.iter().map(|row| texts[*row]).collect();
    let replaced = replace(&filled)
        .map_err(|failed| RowError { row: failed.row.and_then(|row| rows.get(row).copied()), ..failed })?;
    let mut all = vec![Zeroizing::default(); texts.len()];
    rows.into_iter().zip(replaced).for_each(|(row, text)| all[row] = text);
    Ok(all)
}

/// A column after protecting it.
pub enum Protected {
    /// Sealed values.
    Sealed(SealedColumn),
    /// In another value's format, or by a token: texts as they stand.
    Replaced(Vec<Zeroizing<String>>),
}

impl Protected {
    /// Appends the text of a row.
    pub fn push(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Sealed(column) => push_sealed(column.bytes(row), out),
            Self::Replaced(texts) => out.extend_from_slice(texts[row].as_bytes()),
        }
    }

    /// Bytes of the text of a row.
    #[must_use]
    pub fn text_len(&self, row: usize) -> usize {
        match self {
            Self::Sealed(column) => text_len(column.bytes(row).len()),
            Self::Replaced(texts) => texts[row].len(),
        }
    }
}

/// A column after revealing it.
pub enum Revealed {
    /// Values that were sealed.
    Opened(OpenedColumn),
    /// Texts whose format was kept.
    Replaced(Vec<Zeroizing<String>>),
}

impl Revealed {
    /// The text of a row; `None` if the value has none.
    #[must_use]
    pub fn text(&self, row: usize) -> Option<Cow<'_, str>> {
        match self {
            Self::Opened(column) => column.value(row).to_text(),
            Self::Replaced(texts) => Some(texts[row].as_str().into()),
        }
    }

    /// The number of rows.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a batch has rows")]
    pub fn len(&self) -> usize {
        match self {
            Self::Opened(column) => column.len(),
            Self::Replaced(texts) => texts.len(),
        }
    }

    /// Values under an old key, and under a compromised one.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        match self {
            Self::Opened(column) => (column.outdated() as u64, column.compromised() as u64),
            Self::Replaced(_) => (0, 0),
        }
    }
}

impl FieldCipher {
    fn new(
        policy: Arc<FieldPolicy>,
        field: Field,
        direction: Direction,
        tokens: Option<&SharedTokens>,
    ) -> Result<Self, Error> {
        let seal_sealed = direction == Direction::Protect { seal_sealed: true };
        let mut made = Self { policy, cipher: Cipher::default(), indexes: Vec::new(), seal_sealed };
        if let Direction::Protect { .. } = direction {
            made.indexes = FieldIndex::of(&made.policy, &field)?;
        }
        if made.is_of_documents() {
            // Its values have no cipher of their own: see the documents.
            return Ok(made);
        }
        if let FieldMode::Token { .. } = made.policy.mode {
            let missing = "its values have random tokens, and nothing was given that holds them";
            let store = tokens.ok_or_else(|| Error::new(ErrorKind::PolicyRefused, missing))?;
            made.cipher.tokens = Some(store.of(field)?);
            return Ok(made);
        }
        if made.keeps_format() {
            made.cipher.preserve = Some(Box::new(pollster::block_on(field.format_preserver())?));
            return Ok(made);
        }
        // Rebinding leaves alone what is not bound, unless it is the identifier: a deterministic field.
        let is_identifier = direction == Direction::Rebind && made.is_deterministic();
        let opens_identifier = direction == Direction::Reencrypt && made.is_deterministic();
        if direction == Direction::Reencrypt {
            made.cipher.reencrypt = Some(Box::new(pollster::block_on(Resealer::new(field.clone()))?));
        }
        if is_identifier || opens_identifier || direction == Direction::Reveal {
            made.cipher.reveal = Some(Box::new(pollster::block_on(field.clone().decryptor())?));
        }
        if direction == Direction::Rebind && made.is_bound() {
            made.cipher.rebind = Some(Box::new(pollster::block_on(field.clone().rebinder())?));
        }
        if is_identifier || matches!(direction, Direction::Protect { .. }) {
            made.cipher.protect = Some(Box::new(pollster::block_on(field.encryptor())?));
        }
        Ok(made)
    }

    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &Arc<FieldPolicy> {
        &self.policy
    }

    /// The indexes that are written beside its values; none but where values are protected.
    #[must_use]
    pub fn indexes(&self) -> &[FieldIndex] {
        &self.indexes
    }

    /// Whether equal values have equal texts.
    #[must_use]
    pub fn is_deterministic(&self) -> bool {
        matches!(self.policy.mode, FieldMode::Deterministic { .. })
    }

    /// Whether other values may be bound to these, as their row: equal ones have equal texts, and they open by themselves.
    #[must_use]
    pub fn may_be_row(&self) -> bool {
        self.is_deterministic() || matches!(self.policy.mode, FieldMode::Token { .. })
    }

    /// Whether the values are sealed and opened with their documents.
    #[must_use]
    pub fn is_of_documents(&self) -> bool {
        self.policy.mode == FieldMode::Document
    }

    /// Whether the values are replaced by others of their format, which nothing authenticates.
    #[must_use]
    pub fn keeps_format(&self) -> bool {
        matches!(self.policy.mode, FieldMode::FormatPreserving { .. })
    }

    /// Whether the values are bound to their row.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.policy.row_binding != RowBinding::None
    }

    /// Protects the values of a batch, each bound to its row if the field is.
    ///
    /// # Errors
    ///
    /// - As for [`Encryptor::encrypt_parts`], or those of [`FormatPreserver`].
    /// - [`InvalidInput`](ErrorKind::InvalidInput): a null that would need a token or a format.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused), with the text [`IS_TOKEN`]: the value is a token of the field already.
    /// - What the store of tokens fails with.
    /// - [`Internal`](ErrorKind::Internal): the cipher is of another direction, here and below.
    pub fn protect(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<Protected, RowError> {
        if let Some(tokens) = &self.cipher.tokens {
            if let (false, Some(row)) = (self.seal_sealed, tokens.known(values)?) {
                return Err(refused(row, ErrorKind::PolicyRefused, IS_TOKEN));
            }
            let tokens = tokens.protect(values)?;
            return Ok(Protected::Replaced(tokens.into_iter().map(Zeroizing::new).collect()));
        }
        let Some(preserver) = &self.cipher.preserve else {
            return self.seal(values, rows).map(Protected::Sealed);
        };
        let text = |(row, value): (usize, &Value<'_>)| match value {
            Value::Null => Err(refused(row, ErrorKind::InvalidInput, "a null has no format to keep")),
            _ => Ok(Zeroizing::new(value.to_text().unwrap_or_default().into_owned())),
        };
        let texts: Vec<Zeroizing<String>> = values.iter().enumerate().map(text).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = texts.iter().map(|text| text.as_str()).collect();
        pollster::block_on(preserver.ready())?;
        Ok(Protected::Replaced(replace_filled(&texts, |filled| preserver.encrypt_column(filled))?))
    }

    /// Reveals the texts of a batch. A text that is not sealed is refused, never passed through.
    ///
    /// # Errors
    ///
    /// - As for [`open`](Self::open), or [`FormatPreserver::decrypt_column`].
    /// - [`InvalidInput`](ErrorKind::InvalidInput): something else than a token, or one that the store of tokens does not have.
    pub fn reveal(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<Revealed, RowError> {
        if let Some(tokens) = &self.cipher.tokens {
            return self.resolve(tokens.as_ref(), texts).map(Revealed::Opened);
        }
        match &self.cipher.preserve {
            None => self.open(texts, rows).map(Revealed::Opened),
            Some(preserver) => {
                pollster::block_on(preserver.ready())?;
                Ok(Revealed::Replaced(replace_filled(texts, |filled| preserver.decrypt_column(filled))?))
            }
        }
    }

    /// Encrypts the values of a batch.
    ///
    /// # Errors
    ///
    /// As for [`Encryptor::encrypt_parts`].
    pub fn seal(&self, values: &[Value<'_>], rows: Option<&[&[u8]]>) -> Result<SealedColumn, RowError> {
        let Some(encryptor) = &self.cipher.protect else {
            return Err(WRONG_JOB.into());
        };
        pollster::block_on(encryptor.encrypt_parts(values, rows))
    }

    /// Decrypts the sealed texts of a batch, or finds the values of tokens. A text that is not sealed is refused, never passed through.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): a text is not sealed.
    /// - As for [`Decryptor::load_keys`] and [`Decryptor::decrypt_column`].
    pub fn open(&self, texts: &[&str], rows: Option<&[&[u8]]>) -> Result<OpenedColumn, RowError> {
        if let Some(tokens) = &self.cipher.tokens {
            return self.resolve(tokens.as_ref(), texts);
        }
        let Some(decryptor) = &self.cipher.reveal else {
            return Err(WRONG_JOB.into());
        };
        let sealed = self.sealed(texts)?;
        pollster::block_on(decryptor.load_keys(&sealed))?;
        Ok(match rows {
            Some(rows) => decryptor.decrypt_column(&sealed, Some(&Rows(rows)))?,
            None => decryptor.decrypt_column(&sealed, None::<&Rows<'_>>)?,
        })
    }

    /// The values of tokens behind the prefix that stays in clear.
    fn resolve(&self, tokens: &dyn FieldTokens, texts: &[&str]) -> Result<OpenedColumn, RowError> {
        let texts: Vec<&str> = texts.iter().map(|text| self.policy.split_prefix(text).1).collect();
        tokens.reveal(&texts)
    }

    /// Moves the sealed texts of a batch from the rows `from` to the rows `to`.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): a text is not sealed.
    /// - As for [`Rebinder::load_keys`] and [`Rebinder::rebind_column`].
    pub fn rebind(&self, texts: &[&str], from: &[&[u8]], to: &[&[u8]]) -> Result<SealedColumn, RowError> {
        let Some(rebinder) = &self.cipher.rebind else {
            return Err(WRONG_JOB.into());
        };
        let sealed = self.sealed(texts)?;
        pollster::block_on(rebinder.load_keys(&sealed))?;
        pollster::block_on(rebinder.rebind_column(&sealed, &Rows(from), &Rows(to)))
    }

    /// The values of a batch that are to be sealed again: where they are, and their binary form. None of tokens, which say no key.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): a text is not sealed.
    /// - As for [`Resealer::needs`].
    pub fn stale(&self, texts: &[&str]) -> Result<Vec<(usize, Vec<u8>)>, RowError> {
        if self.cipher.tokens.is_some() {
            return Ok(Vec::new());
        }
        let sealed = self.sealed(texts)?;
        let resealer = self.resealer()?;
        let mut stale = Vec::new();
        for row in 0..texts.len() {
            let needed = pollster::block_on(resealer.needs(sealed.bytes(row)));
            if needed.map_err(RowError::at(row))? {
                stale.push((row, sealed.bytes(row).to_vec()));
            }
        }
        Ok(stale)
    }

    /// The text of a value under the current key, behind the prefix that stays in clear; and whether it was under a
    /// compromised one.
    ///
    /// # Errors
    ///
    /// As for [`Resealer::reseal`].
    pub fn reseal(
        &self,
        row: usize,
        text: &str,
        sealed: &[u8],
        binding: Option<&[u8]>,
    ) -> Result<(Vec<u8>, bool), RowError> {
        let resealed = pollster::block_on(self.resealer()?.reseal(sealed, binding)).map_err(RowError::at(row))?;
        let mut new = self.policy.split_prefix(text).0.as_bytes().to_vec();
        push_sealed(&resealed.bytes, &mut new);
        Ok((new, resealed.compromised))
    }

    fn resealer(&self) -> Result<&Resealer, RowError> {
        self.cipher.reencrypt.as_deref().ok_or_else(|| WRONG_JOB.into())
    }

    /// The binary form of texts, each of which must be sealed.
    fn sealed(&self, texts: &[&str]) -> Result<Sealed, RowError> {
        let mut sealed = Sealed { data: Vec::new(), ends: Vec::with_capacity(texts.len()) };
        for (row, text) in texts.iter().enumerate() {
            let (_, rest) = self.policy.split_prefix(text);
            from_text(rest.as_bytes(), &mut sealed.data).map_err(|error| match error.kind() {
                // Nothing is passed through, since it cannot be told from a value that was lost.
                ErrorKind::Malformed if text.is_empty() => refused(row, ErrorKind::Malformed, "the value is empty, and `protect` seals empty texts too: it was lost, or is another program's null, whose \
                     row is to be left out; plaintext is never passed through"),
                ErrorKind::Malformed => refused(row, ErrorKind::Malformed, "the value is not sealed, or damaged; plaintext is never passed through"),
                _ => RowError::at(row)(error),
            })?;
            sealed.ends.push(sealed.data.len());
        }
        Ok(sealed)
    }

    /// Refuses a text that looks sealed already.
    ///
    /// # Errors
    ///
    /// [`PolicyRefused`](ErrorKind::PolicyRefused), with the text [`LOOKS_SEALED`].
    pub fn refuse_sealed(&self, row: usize, text: &str) -> Result<(), RowError> {
        let (_, rest) = self.policy.split_prefix(text);
        if looks_sealed_text(rest.as_bytes()) {
            return Err(refused(row, ErrorKind::PolicyRefused, LOOKS_SEALED));
        }
        Ok(())
    }
}

fn refused(row: usize, kind: ErrorKind, why: &'static str) -> RowError {
    RowError::at(row)(Error::new(kind, why))
}

/// Of a cipher that was made for another direction.
const WRONG_JOB: Error = Error::new(ErrorKind::Internal, "a job was asked to do what another one is for");

/// Appends the text form of a sealed value.
///
/// # Panics
///
/// If the library did not seal it.
pub fn push_sealed(sealed: &[u8], out: &mut Vec<u8>) {
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
