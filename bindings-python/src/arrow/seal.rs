//! Sealing columns.

use super::array::Kind;
use super::batch::{Batch, Failures, Turn, Work};
use super::column::{Column, or_raise};
use super::output::{Output, bytes_like, text_like};
use super::values::Values;
use super::{OnError, each_chunk, give_back};
use crate::errors::{invalid, invalid_with};
use crate::field::Field;
use crate::fork::detached;
use crate::gil;
use arrow_schema::DataType;
use keyfold::wire::{self, FIELD_OVERHEAD};
use keyfold::{
    ColumnBytes, ColumnValues, Encryptor, ErrorKind, FieldMode, FieldPolicy, Result, RowError, SealedColumn,
};
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
    let _call = gil::Call::begin(py);
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
    check_type(py, field.policy(), &column, kind)?;
    let sealed_type = if is_text { text_like(column.leaf_type()) } else { bytes_like(column.leaf_type()) };
    let seal = Seal { field, kind, is_text, sealed_type, seal_sealed };
    let is_deterministic = matches!(field.policy().mode, FieldMode::Deterministic { .. });
    let key_type = column.key_type().filter(|_| is_deterministic).cloned();
    let chunks = each_chunk(py, field, &mut column, rows, key_type.is_some(), &on_error, |work| seal.all(py, work))?;
    let chunks = chunks.into_iter().map(|(out, distinct)| (out.finish(), distinct)).collect();
    give_back(given, key_type.as_ref(), seal.sealed_type, chunks, column.is_stream())
}

/// Refuses a column of another type than the policy gives the field: before any row, since that is not one row's error.
pub(super) fn check_type(py: Python<'_>, policy: &FieldPolicy, column: &Column, kind: Kind) -> PyResult<()> {
    match policy.value_type.filter(|expected| *expected != kind.value_type()) {
        Some(expected) if *column.leaf_type() != DataType::Null => {
            let detail = format!("{} is {}, the column {}", policy.name, expected.name(), column.leaf_type());
            Err(invalid_with(py, "the column has another type than the policy gives the field", detail))
        }
        _ => Ok(()),
    }
}

struct Seal<'a> {
    field: &'a Field,
    kind: Kind,
    is_text: bool,
    sealed_type: DataType,
    /// Whether what looks sealed already is sealed once more.
    seal_sealed: bool,
}

/// What becomes of the rows of a [`Work`], batch by batch.
struct Sealing<'a> {
    out: Output,
    failures: Failures,
    batch: Batch<'a, Values>,
    /// Where the rows of a batch lie in `out`, if they are sealed there.
    offsets: Vec<i64>,
    /// The rows of a batch otherwise.
    column: SealedColumn,
}

impl Sealing<'_> {
    fn has_more(&self, work: &Work<'_>) -> bool {
        self.batch.end < work.len() && (work.goes_on || self.failures.is_empty())
    }
}

impl Seal<'_> {
    /// Seals all rows of `work`; up to the first that fails, unless it goes on.
    fn all(&self, py: Python<'_>, work: &Work<'_>) -> PyResult<(Output, Failures)> {
        let mut out = or_raise(py, Output::new(self.sealed_type.clone(), work.len()))?;
        if !self.is_text {
            let (rows, bytes) = work.expected();
            out.expect(rows * FIELD_OVERHEAD + bytes);
        }
        let (failures, batch) = (Failures::new(), work.batches(Values::new(self.kind, self.seal_sealed)));
        let mut sealing = Sealing { out, failures, batch, offsets: Vec::new(), column: SealedColumn::default() };
        while sealing.has_more(work) {
            let encryptor = self.field.encryptor(py)?;
            let done = detached(py, || self.batches(encryptor, work, &mut sealing));
            or_raise(py, done)?;
            py.check_signals()?;
        }
        Ok((sealing.out, sealing.failures))
    }

    /// Seals batches until it is time to hear Ctrl-C, or to look at the key.
    ///
    /// # Errors
    ///
    /// As for [`batch`](Self::batch).
    fn batches<'a>(&self, encryptor: &Encryptor, work: &Work<'a>, sealing: &mut Sealing<'a>) -> Result<()> {
        let turn = Turn::begin();
        loop {
            self.batch(encryptor, work, sealing)?;
            if !sealing.has_more(work) || turn.is_over() || !encryptor.is_ready() {
                return Ok(());
            }
        }
    }

    /// Seals the next batch.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the output cannot hold as much.
    fn batch<'a>(&self, encryptor: &Encryptor, work: &Work<'a>, sealing: &mut Sealing<'a>) -> Result<()> {
        let Sealing { out, failures, batch, offsets, column } = sealing;
        work.next(batch);
        let bindings = batch.bindings.as_deref();
        let seal = |column: &mut SealedColumn| {
            pollster::block_on(encryptor.encrypt_parts_into(&batch.items, bindings, column))
        };
        let in_place = if self.is_text { None } else { out.add_sealed(offsets, seal) };
        let is_in_place = in_place.is_some();
        let sealed = in_place.unwrap_or_else(|| {
            column.clear();
            seal(column)
        });
        let first_new = failures.len();
        let each: Option<Vec<_>> = match sealed {
            Ok(()) => None,
            Err(RowError { row: None, error }) => return Err(error),
            Err(RowError { row: Some(row), error }) if !work.goes_on => {
                failures.push((batch.rows.get(row).copied().unwrap_or(batch.end - 1), error));
                return Ok(());
            }
            Err(first) => {
                let binding = |index: usize| bindings.map(|bindings| &*bindings[index]);
                // The first failure has been counted.
                let seal = |index| match first.row == Some(index) {
                    true => Err(first.error.clone()),
                    false => encryptor.encrypt(batch.items.value(index), binding(index)),
                };
                Some((0..batch.items.len()).map(seal).collect())
            }
        };
        failures.append(&mut batch.failures);
        if is_in_place && each.is_none() {
            out.push_ends(&batch.rows, &offsets[1..])?;
        } else {
            for (index, row) in batch.rows.iter().enumerate() {
                match each.as_ref().map(|each| &each[index]) {
                    None => self.push(out, *row, column.bytes(index))?,
                    Some(Ok(bytes)) => self.push(out, *row, bytes)?,
                    Some(Err(error)) => failures.push((*row, error.clone())),
                }
            }
        }
        out.pad(batch.end);
        failures[first_new..].sort_by_key(|(row, _)| *row);
        Ok(())
    }

    fn push(&self, out: &mut Output, row: usize, sealed: &[u8]) -> Result<()> {
        out.pad(row);
        if self.is_text {
            let mut text = Vec::with_capacity(wire::text_len(sealed.len()));
            wire::push_text(sealed, &mut text)?;
            out.push_bytes(&text)
        } else {
            out.push_bytes(sealed)
        }
    }
}
