//! Sealing and opening many values in one call (FORMAT.md §4.4): one derivation per batch, no allocation per row.

use crate::aead::{GcmKey, SivCipher, SivKey, XaesKey};
use crate::context::{Aad, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::random;
use crate::row::{seal_row, split_nonce};
use crate::value::{Padding, Value, ValueType};
use crate::wire::{
    DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, GCM_NONCE_LEN, HEADER_LEN, KeyId, NONCE_LEN, PREFIX_LEN, Sealed, Suite,
    TAG_LEN, header,
};
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use core::fmt;
use core::ops::Range;
use zeroize::Zeroize;

/// Most rows under one nonce prefix (FORMAT.md §4.4).
const MAX_ROWS_PER_PREFIX: usize = 1 << 16;
/// Most AES blocks under one nonce prefix.
const MAX_BLOCKS_PER_PREFIX: u64 = 1 << 32;
/// Most rows whose nonces come from one seed.
const MAX_ROWS_PER_CHUNK: usize = 4096;
/// Most encoded bytes in a chunk, unless its only row is longer.
const MAX_CHUNK_LEN: usize = 8 * 1024 * 1024;

/// The values of a column.
pub trait ColumnValues {
    /// Rows.
    fn len(&self) -> usize;

    /// The value of a row.
    fn value(&self, row: usize) -> Value<'_>;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl ColumnValues for [Value<'_>] {
    fn len(&self) -> usize {
        self.len()
    }

    fn value(&self, row: usize) -> Value<'_> {
        self[row]
    }
}

/// Byte strings, one per row: row bindings, or sealed values.
pub trait ColumnBytes {
    /// Rows.
    fn len(&self) -> usize;

    /// The bytes of a row.
    fn bytes(&self, row: usize) -> &[u8];

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: AsRef<[u8]>> ColumnBytes for [T] {
    fn len(&self) -> usize {
        self.len()
    }

    fn bytes(&self, row: usize) -> &[u8] {
        self[row].as_ref()
    }
}

/// Byte strings in Arrow's variable-size binary layout: row `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy)]
pub struct Column<'a> {
    data: &'a [u8],
    offsets: &'a [i64],
}

impl<'a> Column<'a> {
    /// The column with these buffers, which has one row less than offsets.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): no offset, a descending one, or one beyond the data.
    pub fn new(data: &'a [u8], offsets: &'a [i64]) -> Result<Self> {
        let end = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let ordered = offsets.is_sorted() && offsets.first().is_some_and(|&first| first >= 0);
        if ordered && offsets.last().is_some_and(|&last| last <= end) {
            Ok(Self { data, offsets })
        } else {
            Err(Error::new(ErrorKind::InvalidInput, "the offsets of a column ascend from 0 within its data"))
        }
    }
}

impl ColumnBytes for Column<'_> {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn bytes(&self, row: usize) -> &[u8] {
        // `new` has checked that every offset lies within the data, so none is negative or too large for usize.
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl ColumnValues for Column<'_> {
    fn len(&self) -> usize {
        ColumnBytes::len(self)
    }

    fn value(&self, row: usize) -> Value<'_> {
        Value::Bytes(self.bytes(row))
    }
}

/// What went wrong with a column, and in which row.
#[derive(Clone)]
pub struct RowError {
    /// The row, counted from 0.
    pub row: usize,
    /// What went wrong.
    pub error: Error,
}

impl RowError {
    fn at(row: usize) -> impl FnOnce(Error) -> Self {
        move |error| Self { row, error }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {}", self.row, self.error)
    }
}

impl fmt::Debug for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowError({}: {:?})", self.row, self.error)
    }
}

impl std::error::Error for RowError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl From<RowError> for Error {
    fn from(error: RowError) -> Self {
        error.error
    }
}

/// Sealed values in Arrow's large variable-size binary layout.
#[derive(Clone, Debug, Default)]
pub struct SealedColumn {
    data: Vec<u8>,
    offsets: Vec<i64>,
}

impl SealedColumn {
    /// The values, one after the other.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Where each value starts in [`data`](Self::data), and where the last one ends: one more than rows.
    #[must_use]
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The buffers.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u8>, Vec<i64>) {
        (self.data, self.offsets)
    }

    /// Rows of these lengths, none of which is there yet. Room for all of them is allocated.
    fn with_lens<E>(lens: impl ExactSizeIterator<Item = Result<usize, E>>) -> Result<Self, E> {
        let mut offsets = Vec::with_capacity(lens.len() + 1);
        let mut end = 0_usize;
        offsets.push(0);
        for len in lens {
            end += len?;
            offsets.push(i64::try_from(end).expect("memory is smaller than 2⁶³ bytes"));
        }
        Ok(Self { data: Vec::with_capacity(end), offsets })
    }

    /// Adds the rows of `range`: the header, and zeros where the body will be. Rows are added shortly before they are
    /// sealed, while they are in the cache.
    fn lay_out(&mut self, header: &[u8; HEADER_LEN], range: Range<usize>) {
        self.data.resize(self.offsets[range.end] as usize, 0);
        for start in &self.offsets[range] {
            self.data[*start as usize..][..HEADER_LEN].copy_from_slice(header);
        }
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        &mut self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl ColumnBytes for SealedColumn {
    fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    fn bytes(&self, row: usize) -> &[u8] {
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

/// Opened values in Arrow's large variable-size binary layout. Erased on drop.
#[derive(Default)]
pub struct OpenedColumn {
    data: Erased,
    offsets: Vec<i64>,
    types: Vec<ValueType>,
    outdated: usize,
}

/// A buffer of plaintext, erased on drop.
#[derive(Default)]
struct Erased(Vec<u8>);

impl Drop for Erased {
    fn drop(&mut self) {
        // `zeroize` erases elements one by one, but spare capacity in one go.
        self.0.clear();
        self.0.zeroize();
    }
}

impl OpenedColumn {
    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.types.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.types.is_empty()
    }

    /// The value of a row.
    ///
    /// # Panics
    ///
    /// If there is no such row.
    #[must_use]
    pub fn value(&self, row: usize) -> Value<'_> {
        let bytes = &self.data.0[self.offsets[row] as usize..self.offsets[row + 1] as usize];
        Value::from_canonical(self.types[row], bytes).expect("checked when the row was opened")
    }

    /// The canonical bytes of all values, one after the other (FORMAT.md §4.2).
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data.0
    }

    /// Where each value starts in [`data`](Self::data), and where the last one ends.
    #[must_use]
    pub fn offsets(&self) -> &[i64] {
        &self.offsets
    }

    /// The type of each value.
    #[must_use]
    pub fn types(&self) -> &[ValueType] {
        &self.types
    }

    /// Rows whose key is no longer the one that seals: what waits for re-encryption.
    #[must_use]
    pub const fn outdated(&self) -> usize {
        self.outdated
    }
}

impl fmt::Debug for OpenedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedColumn")
            .field("len", &self.len())
            .field("outdated", &self.outdated)
            .finish_non_exhaustive()
    }
}

/// Seals one value of a randomised field under 24 bytes from the operating system (DESIGN F3).
pub(crate) fn seal_value(
    key_id: &KeyId,
    key: &XaesKey,
    aad: &Aad,
    padding: Padding,
    value: Value<'_>,
    row: Option<&[u8]>,
) -> Result<Vec<u8>> {
    value.check()?;
    let header = header(Suite::Field, key_id);
    aad.of_one(&header, row, |aad| {
        let len = FIELD_OVERHEAD - 1 + value.encoded_len(padding);
        let mut out = Vec::with_capacity(len);
        out.extend_from_slice(&header);
        out.resize(len, 0);
        let nonce: [u8; NONCE_LEN] = random::array()?;
        let (prefix, last) = split_nonce(&nonce);
        seal_row(&key.derive(prefix), prefix, *last, aad, value, padding, &mut out)?;
        Ok(out)
    })
}

/// How a column of a randomised field is sealed.
pub(crate) struct FieldSeal<'a> {
    pub(crate) key_id: KeyId,
    pub(crate) key: &'a XaesKey,
    pub(crate) aad: &'a mut Aad,
    pub(crate) padding: Padding,
    pub(crate) unlinkable: bool,
}

impl FieldSeal<'_> {
    /// Seals a column: one prefix per 2¹⁶ rows, one seed per chunk of rows (DESIGN F4).
    pub(crate) fn column(
        &mut self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
    ) -> Result<SealedColumn, RowError> {
        let n = values.len();
        check_rows(n, rows)?;
        let mut out = SealedColumn::with_lens((0..n).map(|row| {
            let value = values.value(row);
            let checked = value.check().and_then(|()| self.aad.check_row(rows.map(|r| r.bytes(row))));
            checked.map_err(RowError::at(row))?;
            Ok(FIELD_OVERHEAD - 1 + value.encoded_len(self.padding))
        }))?;
        let mut batch: Option<Batch> = None;
        let mut nonces = Vec::new();
        let mut start = 0;
        while start < n {
            let end = chunk_end(&out.offsets, start);
            let chunk_len = (out.offsets[end] - out.offsets[start]) as u64;
            let sealed = self.chunk(values, rows, start..end, chunk_len, &mut batch, &mut nonces, &mut out);
            if let Err(error) = sealed {
                // A row that failed half way may still hold plaintext.
                out.data.zeroize();
                return Err(error);
            }
            start = end;
        }
        Ok(out)
    }

    #[allow(clippy::too_many_arguments, reason = "the loop state of `column`, split off to keep both readable")]
    fn chunk(
        &mut self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        range: Range<usize>,
        chunk_len: u64,
        batch: &mut Option<Batch>,
        nonces: &mut Vec<u8>,
        out: &mut SealedColumn,
    ) -> Result<(), RowError> {
        let first = range.start;
        let head = header(Suite::Field, &self.key_id);
        out.lay_out(&head, range.clone());
        let batch = Batch::with_room(batch, self.key, range.len(), chunk_len).map_err(RowError::at(first))?;
        // Everything that will be sealed is in memory and checked, so replaying from here repeats identical ciphertexts.
        draw_nonces(range.len(), nonces).map_err(RowError::at(first))?;
        for (row, last) in range.zip(nonces.as_chunks::<GCM_NONCE_LEN>().0) {
            let sealed = (|| {
                let aad = self.aad.of_row(&head, rows.map(|r| r.bytes(row)))?;
                if self.unlinkable {
                    let nonce: [u8; NONCE_LEN] = random::array()?;
                    let (prefix, last) = split_nonce(&nonce);
                    let key = self.key.derive(prefix);
                    return seal_row(&key, prefix, *last, aad, values.value(row), self.padding, out.row_mut(row));
                }
                seal_row(&batch.key, &batch.prefix, *last, aad, values.value(row), self.padding, out.row_mut(row))
            })();
            sealed.map_err(RowError::at(row))?;
        }
        Ok(())
    }
}

/// A nonce prefix in use, and what it may still seal.
struct Batch {
    prefix: [u8; PREFIX_LEN],
    key: GcmKey,
    rows_left: usize,
    blocks_left: u64,
}

impl Batch {
    /// The current batch if it has room for `rows` rows in `len` bytes, otherwise a new one.
    fn with_room<'b>(current: &'b mut Option<Self>, key: &XaesKey, rows: usize, len: u64) -> Result<&'b mut Self> {
        // Each row may end in a partial block, and costs one block for its tag.
        let blocks = len / 16 + 2 * rows as u64;
        let fits = current.as_ref().is_some_and(|batch| batch.rows_left >= rows && batch.blocks_left >= blocks);
        if !fits {
            let prefix = random::array()?;
            let key = key.derive(&prefix);
            *current = Some(Self { prefix, key, rows_left: MAX_ROWS_PER_PREFIX, blocks_left: MAX_BLOCKS_PER_PREFIX });
        }
        let batch = current.as_mut().expect("set above");
        batch.rows_left -= rows;
        batch.blocks_left -= blocks;
        Ok(batch)
    }
}

/// Fills `nonces` with `rows` nonces of 12 bytes: the ChaCha20 key stream (RFC 8439) under a fresh seed that is then forgotten.
fn draw_nonces(rows: usize, nonces: &mut Vec<u8>) -> Result<()> {
    let seed = random::secret::<32>()?;
    nonces.clear();
    nonces.resize(rows * GCM_NONCE_LEN, 0);
    ChaCha20::new(seed.expose().into(), &[0; 12].into()).apply_keystream(nonces);
    Ok(())
}

/// Where the chunk that starts at row `start` ends: at most 4,096 rows and 8 MiB, at least one row.
fn chunk_end(offsets: &[i64], start: usize) -> usize {
    let last = (start + MAX_ROWS_PER_CHUNK).min(offsets.len() - 1);
    let limit = offsets[start] + MAX_CHUNK_LEN as i64;
    let within = offsets[start + 1..=last].partition_point(|&end| end <= limit);
    start + within.max(1)
}

/// How a column of a deterministic field is sealed.
pub(crate) struct DeterministicSeal<'a> {
    pub(crate) key_id: KeyId,
    pub(crate) key: &'a SivKey,
    pub(crate) strings: &'a Strings,
    pub(crate) padding: Padding,
}

impl DeterministicSeal<'_> {
    pub(crate) fn column(&self, values: &(impl ColumnValues + ?Sized)) -> Result<SealedColumn, RowError> {
        let head = header(Suite::Deterministic, &self.key_id);
        let mut out = SealedColumn::with_lens((0..values.len()).map(|row| {
            let value = values.value(row);
            value.check().map_err(RowError::at(row))?;
            Ok(DETERMINISTIC_OVERHEAD - 1 + value.encoded_len(self.padding))
        }))?;
        out.lay_out(&head, 0..values.len());
        let mut cipher = self.key.cipher();
        let strings = self.strings.with(&head);
        for row in 0..values.len() {
            let (iv, body) = out.row_mut(row)[HEADER_LEN..].split_at_mut(TAG_LEN);
            values.value(row).encode(self.padding, body);
            match cipher.seal(&strings, body) {
                Ok(synthetic) => iv.copy_from_slice(&synthetic),
                Err(error) => {
                    out.data.zeroize();
                    return Err(RowError { row, error });
                }
            }
        }
        Ok(out)
    }
}

/// Refuses row bindings that do not match the values in number.
pub(crate) fn check_rows(n: usize, rows: Option<&(impl ColumnBytes + ?Sized)>) -> Result<(), RowError> {
    match rows {
        Some(rows) if rows.len() != n => Err(RowError {
            row: rows.len().min(n),
            error: Error::new(ErrorKind::InvalidInput, "a column has one row binding per row"),
        }),
        _ => Ok(()),
    }
}

/// Opens rows one after the other into one buffer, and keeps the keys that were derived for recent prefixes (DESIGN F6).
pub(crate) struct Opening {
    out: OpenedColumn,
    /// Not for a value of its own, which has no use for it.
    prefixes: Option<PrefixCache>,
    /// The cipher of the latest deterministic value.
    siv: Option<(KeyId, SivCipher)>,
}

impl Opening {
    pub(crate) fn new(sealed: &(impl ColumnBytes + ?Sized)) -> Self {
        let rows = sealed.len();
        let len: usize = (0..rows).map(|row| sealed.bytes(row).len().saturating_sub(DETERMINISTIC_OVERHEAD)).sum();
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let out = OpenedColumn {
            data: Erased(Vec::with_capacity(len + FIELD_OVERHEAD)),
            offsets,
            types: Vec::with_capacity(rows),
            outdated: 0,
        };
        Self { out, prefixes: (rows > 1).then(PrefixCache::new), siv: None }
    }

    /// Opens a suite 01 value under `key`.
    #[inline]
    pub(crate) fn field(&mut self, key: &XaesKey, sealed: &Sealed<'_>, aad: &[u8]) -> Result<()> {
        let (nonce, body) = sealed.body().split_first_chunk::<NONCE_LEN>().ok_or(ErrorKind::Malformed)?;
        let (prefix, last) = split_nonce(nonce);
        let start = self.out.data.0.len();
        self.out.data.0.extend_from_slice(body);
        let body_and_tag = &mut self.out.data.0[start..];
        let opened = match &mut self.prefixes {
            Some(prefixes) => prefixes.get(key, sealed.key_id(), prefix).open(*last, aad, body_and_tag).is_ok(),
            None => key.derive(prefix).open(*last, aad, body_and_tag).is_ok(),
        };
        self.take(start, body.len() - TAG_LEN, opened)
    }

    /// Opens a suite 02 value under `key`.
    pub(crate) fn deterministic(&mut self, key: &SivKey, sealed: &Sealed<'_>, strings: &Strings) -> Result<()> {
        let (iv, body) = sealed.body().split_first_chunk::<TAG_LEN>().ok_or(ErrorKind::Malformed)?;
        let start = self.out.data.0.len();
        self.out.data.0.extend_from_slice(body);
        if self.siv.as_ref().is_none_or(|(id, _)| *id != sealed.key_id()) {
            self.siv = Some((sealed.key_id(), key.cipher()));
        }
        let cipher = &mut self.siv.as_mut().expect("set above").1;
        let opened = cipher.open(&strings.with(sealed.header()), iv, &mut self.out.data.0[start..]).is_ok();
        self.take(start, body.len(), opened)
    }

    /// Turns the encoded value at `start` into a row: checks it, and drops its format byte and padding.
    fn take(&mut self, start: usize, encoded_len: usize, opened: bool) -> Result<()> {
        let encoded = &self.out.data.0[start..start + encoded_len];
        let split = if opened { Value::split_encoded(encoded).map(|(kind, bytes)| (kind, bytes.len())) } else { None };
        let Some((value_type, len)) = split else {
            self.out.data.0[start..].zeroize();
            self.out.data.0.truncate(start);
            return Err(ErrorKind::DecryptionFailed.into());
        };
        self.out.data.0.copy_within(start + 1..start + 1 + len, start);
        self.out.data.0.truncate(start + len);
        self.out.types.push(value_type);
        self.out.offsets.push(self.out.data.0.len() as i64);
        Ok(())
    }

    pub(crate) fn count_outdated(&mut self) {
        self.out.outdated += 1;
    }

    pub(crate) fn finish(self) -> OpenedColumn {
        self.out
    }
}

/// The AES-256-GCM keys of recent nonce prefixes, one per slot of a small table.
struct PrefixCache {
    slots: Vec<Option<(KeyId, [u8; PREFIX_LEN], GcmKey)>>,
}

impl PrefixCache {
    /// Rows of up to this many interleaved batches open without deriving again.
    const SLOTS: usize = 64;

    fn new() -> Self {
        let mut slots = Vec::new();
        slots.resize_with(Self::SLOTS, || None);
        Self { slots }
    }

    #[inline]
    fn get(&mut self, key: &XaesKey, key_id: KeyId, prefix: &[u8; PREFIX_LEN]) -> &GcmKey {
        // Prefixes are random; whoever chooses colliding ones only makes his own rows slower.
        let slot = &mut self.slots[usize::from(prefix[0]) % Self::SLOTS];
        let hit = slot.as_ref().is_some_and(|(id, known, _)| *id == key_id && known == prefix);
        if !hit {
            *slot = Some((key_id, *prefix, key.derive(prefix)));
        }
        &slot.as_ref().expect("set above").2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Backend;
    use crate::keys::Secret;

    #[test]
    fn a_prefix_is_renewed_before_its_rows_or_blocks_run_out() {
        let key = XaesKey::new(Backend::default(), &Secret::with(|k: &mut [u8; 32]| k.fill(1)));
        let mut batch = None;
        let mut next = |rows, len| Batch::with_room(&mut batch, &key, rows, len).unwrap().prefix;
        let half = (MAX_BLOCKS_PER_PREFIX / 2) * 16;
        let first = next(1, half);
        assert_eq!(next(1, half - 64), first, "exactly all blocks, with two per row for tags and partial blocks");
        let second = next(1, 16);
        assert_ne!(second, first);
        assert_eq!(next(MAX_ROWS_PER_PREFIX - 1, 0), second);
        assert_ne!(next(1, 0), second);
    }
}
