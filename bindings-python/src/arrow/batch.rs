//! Some rows of a column at a time: what is sealed or opened in one go, without the GIL.

use super::array::{Array, Kind, Layout};
use super::column::Column;
use crate::errors::{at_row, invalid};
use crate::value::{NAN_ROW, RowBinding};
use arrow_buffer::{Buffer, NullBufferBuilder};
use keyfold::{Error, ErrorKind, Result, Value};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use std::borrow::Cow;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where a batch ends: some milliseconds of work.
const BATCH_ROWS: usize = 1 << 14;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long batches follow each other before Ctrl-C is heard. Not after each: where another thread runs Python, taking the GIL
/// again may wait for its 5 milliseconds.
const WITHOUT_GIL: Duration = Duration::from_millis(50);

/// The column that a column's values are bound to.
pub(super) struct Bindings {
    chunks: Vec<Chunk>,
    len: usize,
}

struct Chunk {
    array: Array,
    kind: Kind,
    /// The row of the column after its last.
    end: usize,
}

impl Bindings {
    pub(super) fn of(rows: &Bound<'_, PyAny>) -> PyResult<Self> {
        if rows.is_instance_of::<PyList>() || rows.is_instance_of::<PyTuple>() {
            return Self::of_list(rows);
        }
        let mut column = Column::of(rows)?;
        let mut bindings = Self { chunks: Vec::new(), len: 0 };
        while let Some(array) = column.next(rows.py())? {
            bindings.len += array.len;
            bindings.chunks.push(Chunk { kind: column.kind(None), end: bindings.len, array });
        }
        Ok(bindings)
    }

    /// Of objects of Python, each as a single value takes it; None is null.
    fn of_list(rows: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = rows.py();
        let (mut ends, mut data, mut nulls) = (vec![0_i64], Vec::new(), NullBufferBuilder::new(0));
        for (index, row) in rows.try_iter()?.enumerate() {
            let row = row?;
            if index % BATCH_ROWS == 0 {
                py.check_signals()?;
            }
            nulls.append(!row.is_none());
            if !row.is_none() {
                data.extend_from_slice(RowBinding::from(&row).map_err(|error| at_row(py, error, index))?.as_ref());
            }
            ends.push(data.len() as i64);
        }
        let len = nulls.len();
        let validity = nulls.finish().map(|nulls| nulls.buffer().clone());
        let layout = Layout::Offsets64 { offsets: Buffer::from_vec(ends), data: Buffer::from_vec(data) };
        let array = Array { len, offset: 0, validity, layout };
        Ok(Self { chunks: vec![Chunk { array, kind: Kind::Bytes, end: len }], len })
    }

    /// The bytes of every row.
    pub(super) fn all(&self) -> Result<Vec<Cow<'_, [u8]>>, (usize, Error)> {
        let mut chunk = 0;
        (0..self.len).map(|row| self.get(row, &mut chunk).map_err(|error| (row, error))).collect()
    }

    /// Refuses values that are more than the bindings: `len` of them, or more.
    pub(super) fn check_room(&self, py: Python<'_>, len: usize) -> PyResult<()> {
        if len <= self.len { Ok(()) } else { Err(invalid(py, "there are fewer rows than values")) }
    }

    /// Refuses values that are fewer than the bindings: just `len`.
    pub(super) fn check_end(&self, py: Python<'_>, len: usize) -> PyResult<()> {
        if len >= self.len { Ok(()) } else { Err(invalid(py, "there are more rows than values")) }
    }

    /// The bytes of a row: those of its text, where it is not bytes itself. `chunk`: where the last row was, which was an earlier one.
    fn get(&self, row: usize, chunk: &mut usize) -> Result<Cow<'_, [u8]>> {
        while self.chunks.get(*chunk).is_some_and(|chunk| chunk.end <= row) {
            *chunk += 1;
        }
        let Some(Chunk { array, kind, end }) = self.chunks.get(*chunk) else {
            return Err(Error::new(ErrorKind::InvalidInput, "there are fewer rows than values"));
        };
        let place = array.place(row + array.len - end)?;
        let place = place.ok_or(Error::new(ErrorKind::InvalidInput, "the row that the value is bound to is null"))?;
        if *kind == Kind::Bytes {
            return array.leaf().bytes(place).map(Cow::Borrowed);
        }
        let value = array.leaf().value(*kind, place)?;
        if matches!(value, Value::Float(number) if number.is_nan()) {
            return Err(Error::new(ErrorKind::InvalidInput, NAN_ROW));
        }
        match value.to_text() {
            Some(Cow::Borrowed(text)) => Ok(Cow::Borrowed(text.as_bytes())),
            Some(Cow::Owned(text)) => Ok(Cow::Owned(text.into_bytes())),
            None => Err(Error::new(ErrorKind::InvalidInput, "a row has a date that cannot be written")),
        }
    }
}

/// Rows that are worked on: all of an array, or some of the values of a dictionary.
pub(super) struct Work<'a> {
    pub(super) array: &'a Array,
    /// Where the values are, if they are not those of the array's rows.
    pub(super) picked: Option<&'a [u32]>,
    /// What the values are bound to, and which row of it the first one has.
    pub(super) bindings: Option<(&'a Bindings, usize)>,
    /// Whether to go on after a value that is not as it should be.
    pub(super) goes_on: bool,
}

/// Rows that are not as they should be, and why.
pub(super) type Failures = Vec<(usize, Error)>;

/// What the rows of a batch are collected in.
pub(super) trait Items<'a> {
    /// Takes all out, and makes room for others.
    fn clear(&mut self, room: usize);

    /// Adds what is at a place of the array that has the values, and returns its bytes. If that fails, nothing was added.
    fn add(&mut self, leaf: &'a Array, place: usize) -> Result<usize>;

    /// Adds rows that lie one after the other all at once. `None`: what it has added does not count, and they are to be added one by
    /// one.
    fn add_run(&mut self, array: &'a Array, rows: Range<usize>) -> Option<()>;
}

/// What is sealed or opened in one go. Null rows are left out. Used for one batch after the other, since fresh memory costs more
/// than what is done with it here.
pub(super) struct Batch<'a, I> {
    pub(super) items: I,
    pub(super) bindings: Option<Vec<Cow<'a, [u8]>>>,
    /// The row of each item.
    pub(super) rows: Vec<usize>,
    /// The row after the last.
    pub(super) end: usize,
    /// Rows that are not as they should be, and so are left out as well.
    pub(super) failures: Failures,
}

impl<'a, I: Items<'a>> Batch<'a, I> {
    /// Takes all rows out, and makes room for others.
    fn clear(&mut self, room: usize) {
        self.items.clear(room);
        self.rows.clear();
        self.rows.reserve(room);
        if let Some(bindings) = &mut self.bindings {
            bindings.clear();
            bindings.reserve(room);
        }
    }
}

/// How long to go on before Ctrl-C is heard.
pub(super) struct Turn(Instant);

impl Turn {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.elapsed() >= WITHOUT_GIL
    }
}

impl<'a> Work<'a> {
    pub(super) fn len(&self) -> usize {
        self.picked.map_or(self.array.len, <[u32]>::len)
    }

    /// How many rows have a value, and how many bytes these have together, as far as that is seen at once: to allocate by.
    pub(super) fn expected(&self) -> (usize, usize) {
        self.picked.map_or_else(|| self.array.expected(), |picked| (picked.len(), 0))
    }

    /// A batch without rows, before the first.
    pub(super) fn batches<I: Items<'a>>(&self, items: I) -> Batch<'a, I> {
        let bindings = self.bindings.map(|_| Vec::new());
        Batch { items, bindings, rows: Vec::new(), end: 0, failures: Failures::new() }
    }

    /// Turns `batch` into the one after it.
    pub(super) fn next<I: Items<'a>>(&self, batch: &mut Batch<'a, I>) {
        let start = batch.end;
        let end = start + (self.len() - start).min(BATCH_ROWS);
        batch.clear(end - start);
        if self.add_run(batch, start..end) {
            batch.end = end;
            return;
        }
        batch.clear(end - start);
        let (mut bytes, mut chunk) = (0, 0);
        while batch.end < end && bytes < BATCH_BYTES {
            let row = batch.end;
            batch.end += 1;
            match self.add(batch, row, &mut chunk) {
                Ok(added) => bytes += added,
                Err(error) => {
                    batch.failures.push((row, error));
                    if !self.goes_on {
                        break;
                    }
                }
            }
        }
    }

    fn add_run<I: Items<'a>>(&self, batch: &mut Batch<'a, I>, rows: Range<usize>) -> bool {
        let is_short = self.picked.is_none() && self.array.run_len(rows.clone()).is_some_and(|len| len < BATCH_BYTES);
        if !is_short || batch.items.add_run(self.array, rows.clone()).is_none() {
            return false;
        }
        batch.rows.extend(rows.clone());
        let (Some((bindings, first)), Some(taken)) = (self.bindings, &mut batch.bindings) else { return true };
        let (mut bytes, mut chunk) = (0, 0);
        rows.into_iter().all(|row| match bindings.get(first + row, &mut chunk) {
            Ok(binding) => {
                bytes += binding.len();
                taken.push(binding);
                bytes < BATCH_BYTES
            }
            Err(_) => false,
        })
    }

    /// Adds a row to `batch`, unless it is null, and returns how many bytes it has. `chunk`: where the last row's binding was.
    #[inline]
    fn add<I: Items<'a>>(&self, batch: &mut Batch<'a, I>, row: usize, chunk: &mut usize) -> Result<usize> {
        let Some(place) = self.place(row)? else { return Ok(0) };
        let binding = self.bindings.map(|(bindings, first)| bindings.get(first + row, chunk)).transpose()?;
        let mut len = batch.items.add(self.array.leaf(), place)?;
        if let (Some(binding), Some(taken)) = (binding, &mut batch.bindings) {
            len += binding.len();
            taken.push(binding);
        }
        batch.rows.push(row);
        Ok(len)
    }

    #[inline]
    fn place(&self, row: usize) -> Result<Option<usize>> {
        match self.picked {
            Some(picked) => Ok(Some(picked[row] as usize)),
            None => self.array.place(row),
        }
    }
}
