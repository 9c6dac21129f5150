//! Sealing values: one by one, or a column in batches that share a nonce prefix (FORMAT.md §4.4).

use super::rows::{Added, Behind, CHANGED, SealedRows};
use super::{ColumnBytes, ColumnValues, RowError, SealedColumn, check_rows};
use crate::aead::{Backend, GcmKey, HeldGcmKey, SivCipher, SivKey, XaesKey};
use crate::context::{Aad, Strings};
use crate::error::Result;
use crate::random;
use crate::row::{encode_row, row_start, seal_row, split_nonce};
use crate::value::{Padding, Value};
use crate::wire::{
    DETERMINISTIC_OVERHEAD, FIELD_OVERHEAD, GCM_NONCE_LEN, HEADER_LEN, KeyId, NONCE_LEN, PREFIX_LEN, Suite, TAG_LEN,
    header,
};
use core::ops::Range;
use zeroize::Zeroize;

/// Most rows under one nonce prefix (FORMAT.md §4.4).
// F-4.4-2.
const MAX_ROWS_PER_PREFIX: usize = 1 << 16;
/// Most AES blocks under one nonce prefix.
const MAX_BLOCKS_PER_PREFIX: u64 = 1 << 32;
/// Most rows whose nonces come from one seed.
const MAX_ROWS_PER_CHUNK: usize = 4096;
/// How many rows are encoded before they are encrypted. More are written faster than memory takes them (benches/README.md).
const ROWS_AT_ONCE: usize = 8;
/// Most encoded bytes in a chunk, unless its only row is longer.
const MAX_CHUNK_LEN: usize = 8 * 1024 * 1024;

/// Seals one value of a randomised field under 24 bytes from the operating system (DESIGN F3). The value is checked, and `out` has just
/// the length that it takes. After a failure `out` holds nothing of it.
pub(crate) fn seal_value(
    key_id: &KeyId,
    key: &XaesKey,
    aad: &Aad,
    padding: Padding,
    value: Value<'_>,
    row: Option<&[u8]>,
    out: &mut [u8],
) -> Result<()> {
    let header = header(Suite::Field, key_id);
    aad.of_one(&header, row, |aad| {
        // First, so that a generator that fails leaves the caller's buffer alone.
        // F-4.4-1.
        let nonce: [u8; NONCE_LEN] = random::array()?;
        let (prefix, last) = split_nonce(&nonce);
        let encoded = encode_row(&row_start(&header, prefix), value, padding, out);
        let sealed = encoded.and_then(|()| key.with_derived(prefix, |key| seal_row(key, &mut { *last }, aad, out)));
        sealed.inspect_err(|_| out.zeroize())
    })
}

/// How a column of a randomised field is sealed.
pub(crate) struct FieldSeal<'a> {
    pub(crate) aad: &'a mut Aad,
    pub(crate) padding: Padding,
    pub(crate) unlinkable: bool,
}

impl FieldSeal<'_> {
    /// Checks a column, and makes room for it in `out`: for [`rows`](Self::rows) to seal it.
    pub(crate) fn begin<'o, R: SealedRows>(
        &self,
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        out: &'o mut R,
    ) -> Result<Added<'o, R>, RowError> {
        let n = values.len();
        check_rows(n, rows)?;
        let len_of = |value: Value<'_>| FIELD_OVERHEAD - 1 + value.encoded_len(self.padding);
        let check = |row| {
            let value = values.value(row);
            let checked = value.check().and_then(|()| self.aad.check_row(rows.map(|r| r.bytes(row))));
            checked.map(|()| len_of(value)).map_err(RowError::at(row))
        };
        let len = |row| len_of(values.value(row));
        Added::new(out, n, check, len)
    }

    /// Seals the next rows of a column, `range`, under `key`: one prefix per 2¹⁶ rows, one seed per chunk of rows (DESIGN F4).
    pub(crate) fn rows(
        &mut self,
        key: (&KeyId, &XaesKey),
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        range: Range<usize>,
        added: &mut Added<'_, impl SealedRows>,
    ) -> Result<(), RowError> {
        let mut drawn = Drawn::default();
        let mut start = range.start;
        while start < range.end {
            let end = chunk_end(added.rows.offsets(), start).min(range.end);
            self.chunk(key, values, rows, start..end, &mut drawn, added)?;
            start = end;
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        (key_id, key): (&KeyId, &XaesKey),
        values: &(impl ColumnValues + ?Sized),
        rows: Option<&(impl ColumnBytes + ?Sized)>,
        range: Range<usize>,
        Drawn { batch, nonces }: &mut Drawn,
        added: &mut Added<'_, impl SealedRows>,
    ) -> Result<(), RowError> {
        let first = range.start;
        let chunk_len = (added.rows.offsets()[range.end] - added.rows.offsets()[first]) as u64;
        let head = header(Suite::Field, key_id);
        let batch = Batch::with_room(batch, key, range.len(), chunk_len)?;
        // F-4.4-3.
        // Everything that will be sealed is in memory and checked, so replaying from here repeats identical ciphertexts.
        draw_nonces(key.backend(), range.len(), nonces)?;
        self.aad.set_header(&head);
        let start = row_start(&head, &batch.prefix);
        for (some, nonces) in range.step_by(ROWS_AT_ONCE).zip(nonces.as_chunks_mut().0.chunks_mut(ROWS_AT_ONCE)) {
            added.rows.lay_out(some + nonces.len());
            for row in some..some + nonces.len() {
                let (value, out) = (values.value(row), added.rows.row(row));
                let is_as_long = check_len(value, self.padding, out.len() + 1 - FIELD_OVERHEAD);
                is_as_long.and_then(|()| encode_row(&start, value, self.padding, out)).map_err(RowError::at(row))?;
            }
            for (row, last) in (some..).zip(nonces) {
                let (binding, out) = (rows.map(|rows| rows.bytes(row)), added.rows.row(row));
                let sealed = self.aad.of_row(binding).and_then(|aad| match self.unlinkable {
                    false => seal_row(&batch.key, last, aad, out),
                    true => {
                        let nonce: [u8; NONCE_LEN] = random::array()?;
                        let (prefix, last) = split_nonce(&nonce);
                        out[HEADER_LEN..][..PREFIX_LEN].copy_from_slice(prefix);
                        key.with_derived(prefix, |key| seal_row(key, &mut { *last }, aad, out))
                    }
                });
                sealed.map_err(RowError::at(row))?;
            }
        }
        Ok(())
    }
}

/// What was drawn for a column, and goes on from chunk to chunk.
#[derive(Default)]
struct Drawn {
    batch: Option<Batch>,
    nonces: Vec<u8>,
}

/// A nonce prefix in use, and what it may still seal.
struct Batch {
    prefix: [u8; PREFIX_LEN],
    key: HeldGcmKey,
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
            let key = key.hold_derived(&prefix);
            *current = Some(Self { prefix, key, rows_left: MAX_ROWS_PER_PREFIX, blocks_left: MAX_BLOCKS_PER_PREFIX });
        }
        let batch = current.as_mut().expect("set above");
        batch.rows_left -= rows;
        batch.blocks_left -= blocks;
        Ok(batch)
    }
}

/// Fills `nonces` with `rows` nonces of 12 bytes: the key stream of AES-256-GCM under a fresh seed that is then forgotten (FORMAT.md §4.4). Zeros,
/// where the backend puts its own in their place.
fn draw_nonces(backend: Backend, rows: usize, nonces: &mut Vec<u8>) -> Result<()> {
    nonces.clear();
    nonces.resize(rows * GCM_NONCE_LEN, 0);
    if backend.draws_nonces() {
        return Ok(());
    }
    let seed = random::secret::<32>()?;
    // What encrypts zeros is the key stream. Of the seed a backend may leave something on the stack: it tells nothing but the nonces, which are
    // to be read in the rows.
    GcmKey::new(backend, seed.expose()).seal(&mut [0; GCM_NONCE_LEN], &[], nonces)?;
    Ok(())
}

/// Refuses a value that is not as long as it was when room was made for it: the column is the caller's code.
#[inline]
fn check_len(value: Value<'_>, padding: Padding, encoded_len: usize) -> Result<()> {
    if value.encoded_len(padding) == encoded_len { Ok(()) } else { Err(CHANGED) }
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
    /// Seals a value that has been checked, into `out`, which has just the length that it takes.
    pub(crate) fn value(&self, value: Value<'_>, out: &mut [u8]) -> Result<()> {
        let head = header(Suite::Deterministic, &self.key_id);
        out[..HEADER_LEN].copy_from_slice(&head);
        let strings = self.strings.with(&head);
        self.key.with_cipher(|cipher| self.row(cipher, &strings, value, out)).inspect_err(|_| out.zeroize())
    }

    /// Seals a row whose header is there.
    fn row(&self, cipher: &mut SivCipher, strings: &[&[u8]], value: Value<'_>, out: &mut [u8]) -> Result<()> {
        let (iv, body) = out[HEADER_LEN..].split_at_mut(TAG_LEN);
        check_len(value, self.padding, body.len())?;
        value.encode(self.padding, body);
        iv.copy_from_slice(&cipher.seal(strings, body)?);
        Ok(())
    }

    pub(crate) fn column(&self, values: &(impl ColumnValues + ?Sized)) -> Result<SealedColumn, RowError> {
        let mut out = SealedColumn::default();
        self.column_into(values, &mut Behind::new(&mut out))?;
        Ok(out)
    }

    /// Seals a column into `out`.
    pub(crate) fn column_into(
        &self,
        values: &(impl ColumnValues + ?Sized),
        out: &mut impl SealedRows,
    ) -> Result<(), RowError> {
        let head = header(Suite::Deterministic, &self.key_id);
        let n = values.len();
        let len_of = |value: Value<'_>| DETERMINISTIC_OVERHEAD - 1 + value.encoded_len(self.padding);
        let check = |row| {
            let value = values.value(row);
            value.check().map(|()| len_of(value)).map_err(RowError::at(row))
        };
        let len = |row| len_of(values.value(row));
        let added = Added::new(out, n, check, len)?;
        let strings = self.strings.with(&head);
        self.key.with_cipher(|cipher| {
            (0..n).try_for_each(|row| {
                added.rows.lay_out(row + 1);
                let out = added.rows.row(row);
                out[..HEADER_LEN].copy_from_slice(&head);
                self.row(cipher, &strings, values.value(row), out).map_err(RowError::at(row))
            })
        })?;
        added.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aead::Backend;
    use crate::keys::Secret;

    /// Covers F-4.4-2.
    // Failure N5
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
