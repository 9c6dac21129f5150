//! Many values at once: columns in and out, in Arrow's layout, sealed and opened in one call.

mod open;
mod rows;
mod seal;

pub(crate) use open::{OpenedValue, Opening};
pub(crate) use rows::{Behind, SealedRows, Within};
pub(crate) use seal::{DeterministicSeal, FieldSeal, seal_value};

use crate::error::{Error, ErrorKind, Result};
use crate::value::{Value, ValueType};
use core::fmt;
use zeroize::Zeroize;

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

    #[inline]
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

    #[inline]
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

    #[inline]
    fn bytes(&self, row: usize) -> &[u8] {
        // `new` has checked that every offset lies within the data, so none is negative or too large for usize.
        &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize]
    }
}

impl ColumnValues for Column<'_> {
    fn len(&self) -> usize {
        ColumnBytes::len(self)
    }

    #[inline]
    fn value(&self, row: usize) -> Value<'_> {
        Value::Bytes(self.bytes(row))
    }
}

/// What went wrong with a column, and in which row.
#[derive(Clone)]
pub struct RowError {
    /// The row, counted from 0; `None`: the whole call is concerned, such as by a key that may not be used, whatever the rows are.
    pub row: Option<usize>,
    /// What went wrong.
    pub error: Error,
}

impl RowError {
    /// An error in this row.
    #[inline]
    pub fn at(row: usize) -> impl FnOnce(Error) -> Self {
        move |error| Self { row: Some(row), error }
    }
}

impl From<Error> for RowError {
    /// An error of the whole call.
    fn from(error: Error) -> Self {
        Self { row: None, error }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Some(row) => write!(f, "row {row}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

impl fmt::Debug for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowError({:?}: {:?})", self.row, self.error)
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

    /// Takes all rows out and keeps their memory, for other rows.
    pub fn clear(&mut self) {
        self.data.clear();
        self.offsets.clear();
    }

    /// The column with these buffers, for [`encrypt_column_into`](crate::Encryptor::encrypt_column_into) to add rows behind. What
    /// lies in `data` before the first offset belongs to no row, so callers who keep their own offsets need give one alone: the
    /// length of `data`.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): as for [`Column::new`], or the last offset is not the length of the data.
    pub fn from_parts(data: Vec<u8>, offsets: Vec<i64>) -> Result<Self> {
        Column::new(&data, &offsets)?;
        if offsets.last().is_some_and(|&last| last as usize == data.len()) {
            Ok(Self { data, offsets })
        } else {
            Err(Error::new(ErrorKind::InvalidInput, "the data of a column ends with its last row"))
        }
    }

    /// The column with these buffers, whose offsets the caller has made himself.
    pub(crate) const fn of_parts(data: Vec<u8>, offsets: Vec<i64>) -> Self {
        Self { data, offsets }
    }

    /// The same values, each behind `head`.
    pub(crate) fn each_behind(&self, head: &[u8]) -> Self {
        let rows = ColumnBytes::len(self);
        let mut out = Self {
            data: Vec::with_capacity(self.data.len() + rows * head.len()),
            offsets: Vec::with_capacity(rows + 1),
        };
        out.offsets.push(0);
        for row in 0..rows {
            out.data.extend_from_slice(head);
            out.data.extend_from_slice(self.bytes(row));
            out.offsets.push(out.data.len() as i64);
        }
        out
    }
}

impl ColumnBytes for SealedColumn {
    fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    #[inline]
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
    compromised: usize,
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
    #[inline]
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

    /// Rows whose key is compromised, which open only with [`open_compromised`](crate::KeyringConfig::open_compromised):
    /// whoever has the key can have made them. They count as outdated as well.
    #[must_use]
    pub const fn compromised(&self) -> usize {
        self.compromised
    }
}

impl ColumnValues for OpenedColumn {
    fn len(&self) -> usize {
        self.len()
    }

    #[inline]
    fn value(&self, row: usize) -> Value<'_> {
        self.value(row)
    }
}

impl fmt::Debug for OpenedColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedColumn")
            .field("len", &self.len())
            .field("outdated", &self.outdated)
            .field("compromised", &self.compromised)
            .finish_non_exhaustive()
    }
}

/// Refuses row bindings that do not match the values in number.
pub(crate) fn check_rows(n: usize, rows: Option<&(impl ColumnBytes + ?Sized)>) -> Result<(), RowError> {
    match rows {
        Some(rows) if rows.len() != n => {
            let why = Error::new(ErrorKind::InvalidInput, "a column has one row binding per row");
            Err(RowError::at(rows.len().min(n))(why))
        }
        _ => Ok(()),
    }
}
