//! Many values in one call: in chunks, each without the GIL, and between them a look at signals.

use crate::errors::{at_row, invalid, is_about_the_value, lets_null_stand, row_to_py_err, to_py_err};
use crate::field::Field;
use crate::fork::detached;
use crate::gil;
use crate::inspect::{refuse_sealed, sealed_bytes, without_missing};
use crate::lookup::{Index, Preserver, Way, text_of, tokens_to_python};
use crate::value::{RowBinding, Taken, to_python};
use crate::wait::wait_for;
use keyfold::{ColumnBytes, ColumnValues, Decryptor, Error, Opened, OpenedColumn, Result, RowError, Value};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyIterator, PyList};
use std::borrow::Cow;
use std::slice;

/// Where a chunk ends: some milliseconds of work, after which Ctrl-C is heard.
const CHUNK_ROWS: usize = 1 << 14;
const CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// What the caller gave for some rows. Rows without a value are left out.
struct Chunk<T> {
    values: Vec<T>,
    bindings: Option<Vec<RowBinding>>,
    /// The row of each value.
    rows: Vec<usize>,
    /// The row after the last.
    end: usize,
}

impl<T> Chunk<T> {
    fn bindings(&self) -> Option<&[RowBinding]> {
        self.bindings.as_deref()
    }
}

/// Reads what the caller gave, chunk by chunk.
struct Reader<'py> {
    values: Bound<'py, PyIterator>,
    bindings: Option<Bound<'py, PyIterator>>,
    row: usize,
}

impl<'py> Reader<'py> {
    fn new(values: &Bound<'py, PyAny>, bindings: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        let bindings = bindings.map(|rows| rows.try_iter()).transpose()?;
        Ok(Self { values: without_missing(values)?.try_iter()?, bindings, row: 0 })
    }

    /// The next chunk; `None` at the end. `take` gives a value and its bytes, or `None` to leave it out.
    fn next<T>(
        &mut self,
        mut take: impl FnMut(&Bound<'py, PyAny>, usize) -> PyResult<Option<(T, usize)>>,
    ) -> PyResult<Option<Chunk<T>>> {
        let py = self.values.py();
        let bindings = self.bindings.is_some().then(Vec::new);
        let mut chunk = Chunk { values: Vec::new(), bindings, rows: Vec::new(), end: self.row };
        let mut bytes = 0;
        while chunk.end - self.row < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let value = self.values.next().transpose()?;
            let binding = self.bindings.as_mut().and_then(Iterator::next).transpose()?;
            let Some(value) = value else {
                if binding.is_some() {
                    return Err(invalid(py, "there are more rows than values"));
                }
                break;
            };
            if self.bindings.is_some() && binding.is_none() {
                return Err(invalid(py, "there are fewer rows than values"));
            }
            let row = chunk.end;
            chunk.end += 1;
            if value.is_none() {
                continue;
            }
            let Some((value, len)) = take(&value, row)? else { continue };
            if let (Some(bindings), Some(binding)) = (&mut chunk.bindings, &binding) {
                bindings.push(RowBinding::from(binding).map_err(|error| at_row(py, error, row))?);
            }
            chunk.values.push(value);
            chunk.rows.push(row);
            bytes += len;
        }
        py.check_signals()?;
        let is_end = self.row == chunk.end;
        self.row = chunk.end;
        Ok((!is_end).then_some(chunk))
    }
}

struct Values<'a>(&'a [Taken]);

impl ColumnValues for Values<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn value(&self, row: usize) -> Value<'_> {
        self.0[row].value()
    }
}

/// A sealed value, as the caller holds it or decoded from its text form.
enum SealedValue {
    Held(PyBackedBytes),
    Decoded(Vec<u8>),
}

impl AsRef<[u8]> for SealedValue {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Held(bytes) => bytes,
            Self::Decoded(bytes) => bytes,
        }
    }
}

pub(crate) fn encrypt<'py>(
    field: &Field,
    values: &Bound<'py, PyAny>,
    rows: Option<&Bound<'py, PyAny>>,
    seal_sealed: bool,
) -> PyResult<Bound<'py, PyList>> {
    let py = values.py();
    let _call = gil::Call::begin(py);
    let mut reader = Reader::new(values, rows)?;
    let out = PyList::empty(py);
    let take = |value: &Bound<'_, PyAny>, row: usize| {
        let taken = Taken::from(value, field.value_type).map_err(|error| at_row(py, error, row))?;
        if !seal_sealed {
            refuse_sealed(taken.value()).map_err(|error| at_row(py, to_py_err(py, &error, None), row))?;
        }
        let len = taken.len();
        Ok(Some((taken, len)))
    };
    while let Some(chunk) = reader.next(take)? {
        let encryptor = field.encryptor(py)?;
        let values = Values(&chunk.values);
        let sealed = wait_for(py, encryptor.encrypt_parts(&values, chunk.bindings()))?;
        let sealed = sealed.map_err(|failure| row_to_py_err(py, failure, &chunk.rows))?;
        for (index, row) in chunk.rows.iter().enumerate() {
            pad(&out, *row)?;
            out.append(PyBytes::new(py, sealed.bytes(index)))?;
        }
        pad(&out, chunk.end)?;
    }
    Ok(out)
}

pub(crate) fn decrypt<'py>(
    field: &Field,
    sealed: &Bound<'py, PyAny>,
    rows: Option<&Bound<'py, PyAny>>,
    on_error: &str,
    errors: Option<&Bound<'py, PyList>>,
) -> PyResult<Bound<'py, PyList>> {
    let py = sealed.py();
    let _call = gil::Call::begin(py);
    let out = PyList::empty(py);
    let nulls = lets_null_stand(py, on_error)?;
    // Raises the error of a row, or lets null stand for its value.
    let pass = |error: PyErr| match errors {
        _ if !nulls || !is_about_the_value(py, &error) => Err(error),
        Some(errors) => errors.append(error.into_value(py)),
        None => Ok(()),
    };
    let take = |value: &Bound<'py, PyAny>, row: usize| {
        let taken = match value.cast::<PyBytes>() {
            Ok(bytes) => SealedValue::Held(bytes.clone().into()),
            Err(_) => match sealed_bytes(value).map(Cow::into_owned) {
                Ok(bytes) => SealedValue::Decoded(bytes),
                Err(error) => return pass(at_row(py, error, row)).map(|()| None),
            },
        };
        let len = taken.as_ref().len();
        Ok(Some((taken, len)))
    };
    let mut reader = Reader::new(sealed, rows)?;
    while let Some(chunk) = reader.next(take)? {
        let decryptor = field.decryptor(py)?;
        let opened = match wait_for(py, open_all(decryptor, &chunk))? {
            Ok(opened) => Opening::All(opened),
            Err(first) => {
                let error = row_to_py_err(py, first.clone(), &chunk.rows);
                // What is wrong with all of them is not asked for each.
                if !nulls || !is_about_the_value(py, &error) {
                    return Err(error);
                }
                Opening::Each(wait_for(py, open_each(decryptor, &chunk, &first))?)
            }
        };
        for (index, &row) in chunk.rows.iter().enumerate() {
            let value = opened.value(index).map_err(|error| to_py_err(py, error, None));
            pad(&out, row)?;
            match value.and_then(|value| to_python(py, value)) {
                Ok(value) => out.append(value)?,
                Err(error) => pass(at_row(py, error, row))?,
            }
        }
        pad(&out, chunk.end)?;
    }
    Ok(out)
}

/// The tokens of each value.
pub(crate) fn tokens<'py>(index: &Index, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let py = values.py();
    let _call = gil::Call::begin(py);
    let mut reader = Reader::new(values, None)?;
    let out = PyList::empty(py);
    let take = |value: &Bound<'_, PyAny>, row: usize| {
        let taken = Taken::from(value, index.value_type()).map_err(|error| at_row(py, error, row))?;
        let len = taken.len();
        Ok(Some((taken, len)))
    };
    while let Some(chunk) = reader.next(take)? {
        let indexer = index.indexer(py)?;
        let made = detached(py, || Ok(indexer.tokens_column(&Values(&chunk.values))));
        let made = made.map_err(|error| to_py_err(py, &error, None))?;
        let made = made.map_err(|failure| row_to_py_err(py, failure, &chunk.rows))?;
        // None has no tokens.
        let mut made = chunk.rows.iter().zip(&made).peekable();
        for row in out.len()..chunk.end {
            let of_row = made.next_if(|(at, _)| **at == row).map_or(&[][..], |(_, tokens)| tokens);
            out.append(tokens_to_python(py, of_row)?)?;
        }
    }
    Ok(out)
}

/// What stands in the place of each text that keeps its format, or what it stands for.
pub(crate) fn replace<'py>(
    preserver: &Preserver,
    way: Way,
    values: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyList>> {
    let py = values.py();
    let _call = gil::Call::begin(py);
    let mut reader = Reader::new(values, None)?;
    let out = PyList::empty(py);
    let take = |value: &Bound<'_, PyAny>, row: usize| {
        let text = text_of(value).map_err(|error| at_row(py, error, row))?;
        let len = text.len();
        Ok(Some((text, len)))
    };
    while let Some(chunk) = reader.next(take)? {
        let preserver = preserver.preserver(py)?;
        let texts: Vec<&str> = chunk.values.iter().map(|text| &**text).collect();
        let replaced = detached(py, || Ok(way.column(preserver, &texts)));
        let replaced = replaced.map_err(|error| to_py_err(py, &error, None))?;
        let replaced = replaced.map_err(|failure| row_to_py_err(py, failure, &chunk.rows))?;
        for (text, row) in replaced.iter().zip(&chunk.rows) {
            pad(&out, *row)?;
            out.append(text.as_str())?;
        }
        pad(&out, chunk.end)?;
    }
    Ok(out)
}

/// The values of a chunk, or the error of each.
enum Opening {
    All(OpenedColumn),
    Each(Vec<Result<Opened>>),
}

impl Opening {
    fn value(&self, index: usize) -> Result<Value<'_>, &Error> {
        match self {
            Self::All(column) => Ok(column.value(index)),
            Self::Each(values) => values[index].as_ref().map(Opened::value),
        }
    }
}

async fn open_all(decryptor: &Decryptor, chunk: &Chunk<SealedValue>) -> Result<OpenedColumn, RowError> {
    decryptor.load_keys(&chunk.values[..]).await?;
    decryptor.decrypt_column(&chunk.values[..], chunk.bindings())
}

/// Opens each value alone, but the `first` that did not open: its failure has been counted.
async fn open_each(decryptor: &Decryptor, chunk: &Chunk<SealedValue>, first: &RowError) -> Vec<Result<Opened>> {
    let mut opened = Vec::with_capacity(chunk.values.len());
    for (index, sealed) in chunk.values.iter().enumerate() {
        if first.row == Some(index) {
            opened.push(Err(first.error.clone()));
            continue;
        }
        let row = chunk.bindings().map(|bindings| bindings[index].as_ref());
        let loaded = decryptor.load_keys(slice::from_ref(sealed)).await.map_err(|failure| failure.error);
        opened.push(loaded.and_then(|()| decryptor.decrypt(sealed.as_ref(), row)));
    }
    opened
}

/// Lets null stand for the rows up to `len`.
fn pad(out: &Bound<'_, PyList>, len: usize) -> PyResult<()> {
    (out.len()..len).try_for_each(|_| out.append(out.py().None()))
}
