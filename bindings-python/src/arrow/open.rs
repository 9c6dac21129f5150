//! Opening columns.

use super::array::Kind;
use super::batch::{Batch, Failures, Turn, Work};
use super::column::{Column, or_raise, type_from};
use super::output::{Output, default_type};
use super::sealed::Sealed;
use super::{OnError, each_chunk, give_back};
use crate::errors::invalid_with;
use crate::field::Field;
use crate::gil;
use crate::wait::wait_for;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use keyfold::{Decryptor, ErrorKind, Opened, OpenedColumn, Result, RowError, Value, ValueType};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use std::slice;

pub(crate) fn decrypt<'py>(
    field: &Field,
    given: &Bound<'py, PyAny>,
    rows: Option<&Bound<'py, PyAny>>,
    wanted: Option<&Bound<'py, PyAny>>,
    on_error: &str,
    errors: Option<&Bound<'py, PyList>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let _call = gil::Call::begin(py);
    let on_error = OnError::new(py, on_error, errors, is_about_the_row)?;
    let mut column = Column::of(given)?;
    let kind = column.sealed_kind(py)?;
    let like = column.leaf_type().clone();
    let opened_type = match wanted {
        Some(wanted) => Some(wanted_type(wanted, &like)?),
        None => field.value_type.map(|value_type| default_type(value_type, &like)),
    };
    if let Some(wanted) = &opened_type {
        or_raise(py, Output::new(wanted.clone(), 0))?;
    }
    let mut open = Open { field, kind, like, opened_type };
    let key_type = column.key_type().filter(|_| rows.is_none()).cloned();
    let chunks = each_chunk(py, field, &mut column, rows, key_type.is_some(), &on_error, |work| open.all(py, work))?;
    // Of a column without a value nothing is known; most are text.
    let Open { opened_type, like, .. } = open;
    let opened_type = opened_type.unwrap_or_else(|| default_type(ValueType::Text, &like));
    let chunks = chunks.into_iter().map(|(out, distinct)| (out.finish(&opened_type), distinct)).collect();
    give_back(given, key_type.as_ref(), opened_type, chunks, column.is_stream())
}

/// The Arrow type that `wanted` is: an object that has a schema, or the name of a type of values.
fn wanted_type(wanted: &Bound<'_, PyAny>, like: &DataType) -> PyResult<DataType> {
    let Ok(name) = wanted.cast::<PyString>() else { return type_from(wanted) };
    let name = name.to_str().unwrap_or_default();
    let known = ValueType::ALL.iter().find(|known| known.name() == name && **known != ValueType::Null);
    let known = known.ok_or_else(|| {
        let names = ValueType::ALL.iter().filter(|known| **known != ValueType::Null).map(|known| known.name());
        let names = names.collect::<Vec<_>>().join(", ");
        invalid_with(wanted.py(), "type is an Arrow type, or the name of a type of values", format!("one of {names}"))
    })?;
    Ok(default_type(*known, like))
}

/// Whether an error says that a value cannot be opened, rather than that nothing can be at present.
const fn is_about_the_value(kind: ErrorKind) -> bool {
    use ErrorKind::{
        DecryptionFailed, KeyState, Malformed, NoMatchingKey, PolicyRefused, RecordRejected, Unsupported, WrongScope,
    };
    matches!(
        kind,
        Malformed
            | Unsupported
            | NoMatchingKey
            | DecryptionFailed
            | WrongScope
            | KeyState
            | RecordRejected
            | PolicyRefused
    )
}

/// Whether an error says that a row cannot be opened: its value, or what it is bound to, which is null or too long.
const fn is_about_the_row(kind: ErrorKind) -> bool {
    is_about_the_value(kind) || matches!(kind, ErrorKind::InvalidInput | ErrorKind::LimitExceeded)
}

/// An array whose type may not be known before it has a value.
#[derive(Default)]
struct Target {
    out: Option<Output>,
    /// Rows before there was a value.
    nulls: usize,
}

impl Target {
    fn len(&self) -> usize {
        self.out.as_ref().map_or(self.nulls, Output::len)
    }

    fn pad(&mut self, len: usize) {
        match &mut self.out {
            Some(out) => out.pad(len),
            None => self.nulls = self.nulls.max(len),
        }
    }

    fn finish(self, opened_type: &DataType) -> Result<ArrayData> {
        match self.out {
            Some(out) => out.finish(),
            None => {
                let mut out = Output::new(opened_type.clone(), self.nulls)?;
                out.push_nulls(self.nulls);
                out.finish()
            }
        }
    }
}

struct Open<'a> {
    field: &'a Field,
    /// How sealed values lie in the column.
    kind: Kind,
    /// The type of the sealed values.
    like: DataType,
    /// The type that they open as, once it is known.
    opened_type: Option<DataType>,
}

/// The values of a batch, or what became of each.
enum Opening {
    All(OpenedColumn),
    Each(Vec<Result<Opened>>),
}

/// What becomes of the rows of a [`Work`], batch by batch.
struct Progress<'a> {
    target: Target,
    failures: Failures,
    batch: Taken<'a>,
}

impl Progress<'_> {
    fn has_more(&self, work: &Work<'_>) -> bool {
        self.batch.end < work.len() && (work.goes_on || self.failures.is_empty())
    }
}

impl Open<'_> {
    /// Opens all rows of `work`; up to the first that fails, unless it goes on.
    fn all(&mut self, py: Python<'_>, work: &Work<'_>) -> PyResult<(Target, Failures)> {
        let batch = work.batches(Sealed::new(self.kind));
        let mut progress = Progress { target: Target::default(), failures: Failures::new(), batch };
        let decryptor = self.field.decryptor(py)?;
        while progress.has_more(work) {
            let done = wait_for(py, self.batches(decryptor, work, &mut progress))?;
            or_raise(py, done)?;
            py.check_signals()?;
        }
        Ok((progress.target, progress.failures))
    }

    /// Opens batches until it is time to hear Ctrl-C.
    ///
    /// # Errors
    ///
    /// As for [`batch`](Self::batch).
    async fn batches<'a>(&mut self, decryptor: &Decryptor, work: &Work<'a>, progress: &mut Progress<'a>) -> Result<()> {
        let turn = Turn::begin();
        loop {
            self.batch(decryptor, work, progress).await?;
            if !progress.has_more(work) || turn.is_over() {
                return Ok(());
            }
        }
    }

    /// Opens the next batch.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the output cannot hold as much.
    /// - Those that are not about a value, if it goes on.
    async fn batch<'a>(&mut self, decryptor: &Decryptor, work: &Work<'a>, progress: &mut Progress<'a>) -> Result<()> {
        let Progress { target, failures, batch } = progress;
        work.next(batch);
        let opening = match open_all(decryptor, batch).await {
            Ok(column) => Opening::All(column),
            Err(RowError { row: Some(row), error }) if !work.goes_on => {
                failures.push((batch.rows.get(row).copied().unwrap_or(batch.end - 1), error));
                return Ok(());
            }
            // What is wrong with all of them is not asked for each.
            Err(RowError { row, error }) if row.is_none() || !is_about_the_row(error.kind()) => return Err(error),
            Err(first) => Opening::Each(open_each(decryptor, batch, &first).await),
        };
        if let (Opening::All(column), Some(out)) = (&opening, &mut target.out)
            && batch.failures.is_empty()
            && column.types().iter().all(|value_type| out.takes_as_is(*value_type))
        {
            out.push_all(&batch.rows, column.data(), column.offsets())?;
            out.pad(batch.end);
            return Ok(());
        }
        let first_new = failures.len();
        failures.append(&mut batch.failures);
        for (index, &row) in batch.rows.iter().enumerate() {
            target.pad(row);
            let pushed = match &opening {
                Opening::All(column) => self.push(work, target, column.value(index)),
                Opening::Each(each) => match &each[index] {
                    Ok(opened) => self.push(work, target, opened.value()),
                    Err(error) => {
                        failures.push((row, error.clone()));
                        continue;
                    }
                },
            };
            match pushed {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::LimitExceeded => return Err(error),
                Err(error) => failures.push((row, error)),
            }
        }
        target.pad(batch.end);
        failures[first_new..].sort_by_key(|(row, _)| *row);
        Ok(())
    }

    fn push(&mut self, work: &Work<'_>, target: &mut Target, value: Value<'_>) -> Result<()> {
        if value == Value::Null {
            target.pad(target.len() + 1);
            return Ok(());
        }
        if target.out.is_none() {
            let opened_type = self.opened_type.get_or_insert_with(|| default_type(value.value_type(), &self.like));
            let mut out = Output::new(opened_type.clone(), work.len())?;
            out.push_nulls(target.nulls);
            target.out = Some(out);
        }
        target.out.as_mut().map_or(Ok(()), |out| out.push(value))
    }
}

type Taken<'a> = Batch<'a, Sealed<'a>>;

async fn open_all(decryptor: &Decryptor, batch: &Taken<'_>) -> Result<OpenedColumn, RowError> {
    decryptor.load_keys(&batch.items.values[..]).await?;
    decryptor.decrypt_column(&batch.items.values[..], batch.bindings.as_deref())
}

/// Opens each value alone, but the `first` that did not open: its failure has been counted.
async fn open_each(decryptor: &Decryptor, batch: &Taken<'_>, first: &RowError) -> Vec<Result<Opened>> {
    let mut opened = Vec::with_capacity(batch.items.values.len());
    for (index, sealed) in batch.items.values.iter().enumerate() {
        if first.row == Some(index) {
            opened.push(Err(first.error.clone()));
            continue;
        }
        let row = batch.bindings.as_ref().map(|bindings| &*bindings[index]);
        let loaded = decryptor.load_keys(slice::from_ref(sealed)).await.map_err(|failure| failure.error);
        opened.push(loaded.and_then(|()| decryptor.decrypt(sealed, row)));
    }
    opened
}
