//! Sealing columns.

use super::array::Kind;
use super::batch::{Failures, Work};
use super::column::{Column, or_raise};
use super::output::{Output, bytes_like, text_like};
use super::{OnError, each_chunk, give_back};
use crate::errors::{invalid, invalid_with};
use crate::field::Field;
use crate::inspect::refuse_sealed;
use arrow_schema::DataType;
use keyfold::wire;
use keyfold::{ColumnBytes, Encryptor, ErrorKind, FieldMode, Result, RowError, SealedColumn, Value};
use pyo3::prelude::*;
use pyo3::types::PyList;

pub(crate) fn encrypt<'py>(
    field: &Field,
    given: &Bound<'py, PyAny>,
    rows: Option<&Bound<'py, PyAny>>,
    form: &str,
    on_error: &str,
    errors: Option<&Bound<'py, PyList>>,
    seal_sealed: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    if on_error == "null" && errors.is_none() {
        return Err(invalid(
            py,
            "what cannot be sealed is lost with on_error=\"null\": give a list as `errors` that says what",
        ));
    }
    let on_error = OnError::new(py, on_error, errors, |kind| kind == ErrorKind::InvalidInput)?;
    let is_text = match form {
        "binary" => false,
        "text" => true,
        _ => return Err(invalid(py, "form is \"binary\" or \"text\"")),
    };
    let mut column = Column::of(given)?;
    let kind = column.kind(field.value_type);
    // Before any row, since what is wrong with the column is not one row's error.
    if let Some(expected) = field.value_type.filter(|expected| *expected != kind.value_type())
        && *column.leaf_type() != DataType::Null
    {
        let (name, expected, found) = (&field.policy().name, expected.name(), column.leaf_type());
        let detail = format!("{name} is {expected}, the column {found}");
        return Err(invalid_with(py, "the column has another type than the policy gives the field", detail));
    }
    let sealed_type = if is_text { text_like(column.leaf_type()) } else { bytes_like(column.leaf_type()) };
    let seal = Seal { field, kind, is_text, sealed_type, seal_sealed };
    let is_deterministic = matches!(field.policy().mode, FieldMode::Deterministic { .. });
    let key_type = column.key_type().filter(|_| is_deterministic).cloned();
    let chunks = each_chunk(py, field, &mut column, rows, key_type.is_some(), &on_error, |work| seal.all(py, work))?;
    let chunks = chunks.into_iter().map(|(out, distinct)| (out.finish(), distinct)).collect();
    give_back(given, key_type.as_ref(), seal.sealed_type, chunks, column.is_stream())
}

struct Seal<'a> {
    field: &'a Field,
    kind: Kind,
    is_text: bool,
    sealed_type: DataType,
    /// Whether what looks sealed already is sealed once more.
    seal_sealed: bool,
}

/// The values of a batch, or what became of each.
enum Sealed {
    All(SealedColumn),
    Each(Vec<Result<Vec<u8>>>),
}

impl Seal<'_> {
    /// Seals all rows of `work`; up to the first that fails, unless it goes on.
    fn all(&self, py: Python<'_>, work: &Work<'_>) -> PyResult<(Output, Failures)> {
        let mut out = or_raise(py, Output::new(self.sealed_type.clone(), work.len()))?;
        let mut failures = Failures::new();
        while out.len() < work.len() && (work.goes_on || failures.is_empty()) {
            let encryptor = self.field.encryptor(py)?;
            let done = py.detach(|| self.batch(encryptor, work, &mut out, &mut failures));
            or_raise(py, done)?;
            py.check_signals()?;
        }
        Ok((out, failures))
    }

    /// Seals the next batch.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the output cannot hold as much.
    fn batch(&self, encryptor: &Encryptor, work: &Work<'_>, out: &mut Output, failures: &mut Failures) -> Result<()> {
        let batch = work.batch(out.len(), |leaf, place| {
            let value = leaf.value(self.kind, place)?;
            if !self.seal_sealed {
                refuse_sealed(value)?;
            }
            let len = if let Value::Text(text) = value { text.len() } else { leaf.bytes(place).map_or(0, <[u8]>::len) };
            Ok((value, len))
        });
        let bindings = batch.bindings.as_deref();
        let sealed = match encryptor.encrypt_column(&batch.items[..], bindings) {
            Ok(column) => Sealed::All(column),
            Err(RowError { row, error }) if !work.goes_on => {
                failures.push((batch.rows.get(row).copied().unwrap_or(batch.end - 1), error));
                return Ok(());
            }
            Err(first) => {
                let binding = |index: usize| bindings.map(|bindings| &*bindings[index]);
                // The first failure has been counted.
                let seal = |(index, value): (usize, &Value<'_>)| match index == first.row {
                    true => Err(first.error.clone()),
                    false => encryptor.encrypt(*value, binding(index)),
                };
                Sealed::Each(batch.items.iter().enumerate().map(seal).collect())
            }
        };
        if let Sealed::All(column) = &sealed
            && !self.is_text
            && batch.is_full()
        {
            return out.push_all(column.data(), column.offsets());
        }
        let first_new = failures.len();
        failures.extend(batch.failures);
        let mut text = Vec::new();
        for (index, row) in batch.rows.iter().enumerate() {
            let bytes = match &sealed {
                Sealed::All(column) => column.bytes(index),
                Sealed::Each(each) => match &each[index] {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        failures.push((*row, error.clone()));
                        continue;
                    }
                },
            };
            out.pad(*row);
            if self.is_text {
                text.clear();
                wire::push_text(bytes, &mut text)?;
                out.push_bytes(&text)?;
            } else {
                out.push_bytes(bytes)?;
            }
        }
        out.pad(batch.end);
        failures[first_new..].sort_by_key(|(row, _)| *row);
        Ok(())
    }
}
