//! Columns in Arrow's layout: taken from other programs without a copy, sealed or opened, and given back.

mod array;
mod batch;
mod capsule;
mod column;
mod decimal;
mod dictionary;
mod lookup;
mod open;
mod output;
mod pages;
mod seal;
mod sealed;
mod values;

pub(crate) use column::{ArrowArray, ArrowStream, is_column};
pub(crate) use lookup::{replace, tokens};
pub(crate) use open::decrypt;
pub(crate) use seal::encrypt;
pub(crate) use sealed::{each_sealed, is_current, reencrypt};

use crate::errors::{at_row, invalid, lets_null_stand, to_py_err};
use crate::field::Field;
use crate::gil;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use batch::{Bindings, Failures, Work};
use column::{Column, or_raise};
use dictionary::{Distinct, Keys};
use keyfold::{Error, ErrorKind, Result, RowBinding};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

/// What the rows of a column are bound to: for values that are sealed one by one.
#[pyfunction]
pub(crate) fn _row_bindings<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let py = rows.py();
    let _call = gil::Call::begin(py);
    let bindings = Bindings::of(rows)?;
    let all = bindings.all().map_err(|(row, error)| at_row(py, to_py_err(py, &error, None), row))?;
    Ok(all.iter().map(|bytes| PyBytes::new(py, bytes)).collect())
}

/// What becomes of rows that cannot be sealed or opened.
struct OnError<'a, 'py> {
    nulls: bool,
    errors: Option<&'a Bound<'py, PyList>>,
    /// Whether errors of a kind are about the value alone, so that null may stand for it.
    passes: fn(ErrorKind) -> bool,
}

impl<'a, 'py> OnError<'a, 'py> {
    fn new(
        py: Python<'_>,
        on_error: &str,
        errors: Option<&'a Bound<'py, PyList>>,
        passes: fn(ErrorKind) -> bool,
    ) -> PyResult<Self> {
        Ok(Self { nulls: lets_null_stand(py, on_error)?, errors, passes })
    }

    /// Raises the error of `row`, or lets null stand for its value.
    fn pass(&self, py: Python<'_>, error: &Error, row: usize) -> PyResult<()> {
        let raised = at_row(py, to_py_err(py, error, None), row);
        match self.errors {
            _ if !self.nulls || !(self.passes)(error.kind()) => Err(raised),
            Some(errors) => errors.append(raised.into_value(py)),
            None => Ok(()),
        }
    }
}

/// What `run` makes of each chunk of `column`: of its rows, or of the distinct values of its dictionary.
fn each_chunk<T>(
    py: Python<'_>,
    field: &Field,
    column: &mut Column,
    rows: Option<&Bound<'_, PyAny>>,
    is_distinct: bool,
    on_error: &OnError<'_, '_>,
    mut run: impl FnMut(&Work<'_>) -> PyResult<(T, Failures)>,
) -> PyResult<Vec<(T, Option<Keys>)>> {
    match (field.policy().row_binding != RowBinding::None, rows) {
        (true, None) => return Err(invalid(py, "the field is bound to its row, so a column of rows is needed")),
        (false, Some(_)) => {
            return Err(invalid(py, "the field is not bound to its row, but a column of rows is given"));
        }
        _ => {}
    }
    let bindings = rows.map(Bindings::of).transpose()?;
    let (mut made, mut start) = (Vec::new(), 0);
    while let Some(array) = column.next(py)? {
        let end = start + array.len;
        if let Some(bindings) = &bindings {
            bindings.check_room(py, end)?;
        }
        let distinct = is_distinct.then(|| gil::detach(py, || Distinct::of(&array)));
        let distinct = or_raise(py, distinct.transpose())?;
        let picked = distinct.as_ref().map(|distinct| &distinct.places[..]);
        let bindings = bindings.as_ref().map(|bindings| (bindings, start));
        let work = Work { array: &array, picked, bindings, goes_on: on_error.nulls };
        let (values, failures) = run(&work)?;
        let failures = match &distinct {
            Some(distinct) => distinct.rows_of(failures),
            None => failures,
        };
        for (row, error) in failures {
            on_error.pass(py, &error, start + row)?;
        }
        made.push((values, distinct.map(Distinct::into_keys)));
        start = end;
    }
    if let Some(bindings) = &bindings {
        bindings.check_end(py, start)?;
    }
    Ok(made)
}

/// `chunks`, the values of `given` sealed or opened, as the kind of object that `given` is.
fn give_back<'py>(
    given: &Bound<'py, PyAny>,
    key_type: Option<&DataType>,
    value_type: DataType,
    chunks: Vec<(Result<ArrayData>, Option<Keys>)>,
    is_stream: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let mut arrays = Vec::with_capacity(chunks.len());
    for (values, keys) in chunks {
        let array = values.and_then(|values| match (key_type, keys) {
            (Some(key_type), Some(keys)) => keys.encode(key_type, values),
            _ => Ok(values),
        });
        arrays.push(or_raise(py, array)?);
    }
    let made = match arrays.pop() {
        Some(array) if !is_stream => Bound::new(py, ArrowArray(array))?.into_any(),
        last => {
            arrays.extend(last);
            let data_type = match key_type {
                Some(keys) => DataType::Dictionary(Box::new(keys.clone()), Box::new(value_type)),
                None => value_type,
            };
            Bound::new(py, ArrowStream { data_type, chunks: arrays })?.into_any()
        }
    };
    py.import("keyfold._arrow")?.call_method1("like", (given, made))
}
