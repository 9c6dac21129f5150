//! Where the rows of a column go while they are sealed.

use super::{ColumnBytes, RowError, SealedColumn};
use crate::error::{Error, ErrorKind, Result};
use core::mem;
use zeroize::Zeroize;

/// Where the rows of a sealed column go.
pub(crate) trait SealedRows {
    /// Makes room for `n` rows. `check` says of a row whether it can be sealed and how long it is then, `len` the latter alone.
    fn begin(
        &mut self,
        n: usize,
        check: impl Fn(usize) -> Result<usize, RowError>,
        len: impl Fn(usize) -> usize,
    ) -> Result<(), RowError>;

    /// Where the rows start, and where the last one ends.
    fn offsets(&self) -> &[i64];

    /// Makes the next rows, up to `end`, be there, with whatever is to be written over. A few at a time, so that they are in the cache when they
    /// are sealed.
    fn lay_out(&mut self, end: usize);

    /// A row that has been laid out.
    fn row(&mut self, row: usize) -> &mut [u8];

    /// Erases the rows, whatever has become of them.
    fn abandon(&mut self);
}

/// Rows that are being sealed. Unless they all are, none is: on drop they are erased, since a row that failed half way may still hold
/// plaintext.
pub(crate) struct Added<'a, R: SealedRows> {
    pub(super) rows: &'a mut R,
    is_done: bool,
}

impl<'a, R: SealedRows> Added<'a, R> {
    pub(super) fn new(
        rows: &'a mut R,
        n: usize,
        check: impl Fn(usize) -> Result<usize, RowError>,
        len: impl Fn(usize) -> usize,
    ) -> Result<Self, RowError> {
        let added = Self { rows, is_done: false };
        added.rows.begin(n, check, len)?;
        Ok(added)
    }

    pub(crate) fn finish(mut self) {
        self.is_done = true;
    }
}

impl<R: SealedRows> Drop for Added<'_, R> {
    fn drop(&mut self) {
        if !self.is_done {
            self.rows.abandon();
        }
    }
}

/// Of a value that is not as long as it was when room was made for it.
pub(super) const CHANGED: Error =
    Error::new(ErrorKind::InvalidInput, "a value of the column changed while it was sealed");

/// Where the row ends that begins at `start` and has `len` bytes.
#[inline]
fn end_of(row: usize, start: usize, len: usize) -> Result<usize, RowError> {
    let end = start.checked_add(len).filter(|&end| isize::try_from(end).is_ok());
    end.ok_or_else(|| {
        RowError::at(row)(Error::new(ErrorKind::LimitExceeded, "the sealed column is larger than memory can be"))
    })
}

/// Rows behind those that a column has.
pub(crate) struct Behind<'a> {
    out: &'a mut SealedColumn,
    /// Rows and bytes of the column before.
    rows: usize,
    len: usize,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(out: &'a mut SealedColumn) -> Self {
        if out.offsets.is_empty() {
            out.offsets.push(0);
        }
        let (rows, len) = (ColumnBytes::len(out), out.data.len());
        Self { out, rows, len }
    }
}

impl SealedRows for Behind<'_> {
    /// All room is allocated at once, so that no row moves while it is sealed.
    fn begin(
        &mut self,
        n: usize,
        check: impl Fn(usize) -> Result<usize, RowError>,
        _: impl Fn(usize) -> usize,
    ) -> Result<(), RowError> {
        let (behind, mut end) = (self.out.offsets.len(), self.len);
        self.out.offsets.resize(behind + n, 0);
        for (row, offset) in self.out.offsets[behind..].iter_mut().enumerate() {
            end = end_of(row, end, check(row)?)?;
            *offset = end as i64;
        }
        self.out.data.reserve(end - self.len);
        Ok(())
    }

    fn offsets(&self) -> &[i64] {
        &self.out.offsets[self.rows..]
    }

    fn lay_out(&mut self, end: usize) {
        self.out.data.resize(self.out.offsets[self.rows + end] as usize, 0);
    }

    #[inline]
    fn row(&mut self, row: usize) -> &mut [u8] {
        let [start, end] = [0, 1].map(|next| self.out.offsets[self.rows + row + next] as usize);
        &mut self.out.data[start..end]
    }

    fn abandon(&mut self) {
        self.out.data[self.len..].zeroize();
        self.out.data.truncate(self.len);
        self.out.offsets.truncate(self.rows + 1);
    }
}

/// Rows in buffers of the caller's.
pub(crate) struct Within<'a> {
    data: &'a mut [u8],
    offsets: &'a mut [i64],
    /// Whether something has been written.
    is_begun: bool,
}

impl<'a> Within<'a> {
    pub(crate) fn new(data: &'a mut [u8], offsets: &'a mut [i64]) -> Self {
        Self { data, offsets, is_begun: false }
    }

    /// How many bytes the rows have.
    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }
}

impl SealedRows for Within<'_> {
    /// What is behind the room for the rows is let go of.
    fn begin(
        &mut self,
        n: usize,
        check: impl Fn(usize) -> Result<usize, RowError>,
        len: impl Fn(usize) -> usize,
    ) -> Result<(), RowError> {
        const TOO_SHORT: Error = Error::new(ErrorKind::InvalidInput, "the buffers are shorter than the sealed column");
        let needed = (0..n).try_fold(0, |end, row| end_of(row, end, check(row)?))?;
        if needed > self.data.len() || n >= self.offsets.len() {
            return Err(TOO_SHORT.into());
        }
        self.data = &mut mem::take(&mut self.data)[..needed];
        self.offsets = &mut mem::take(&mut self.offsets)[..=n];
        self.is_begun = true;
        let mut end = 0;
        self.offsets[0] = 0;
        for (row, offset) in self.offsets[1..].iter_mut().enumerate() {
            end += len(row);
            *offset = end as i64;
        }
        // The column is the caller's code.
        if end == needed { Ok(()) } else { Err(CHANGED.into()) }
    }

    fn offsets(&self) -> &[i64] {
        self.offsets
    }

    fn lay_out(&mut self, _: usize) {}

    #[inline]
    fn row(&mut self, row: usize) -> &mut [u8] {
        let [start, end] = [0, 1].map(|next| self.offsets[row + next] as usize);
        &mut self.data[start..end]
    }

    fn abandon(&mut self) {
        if self.is_begun {
            self.data.zeroize();
            self.offsets.zeroize();
        }
    }
}
