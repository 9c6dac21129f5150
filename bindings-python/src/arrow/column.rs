//! Columns of other programs, and those that are given back.

use super::array::{Array, Kind};
use super::capsule::{Stream, give_array, give_stream, give_type, take_array, take_type, unsupported};
use super::decimal;
use crate::errors::{at_row, invalid, invalid_with, to_py_err};
use crate::gil;
use arrow_data::ArrayData;
use arrow_schema::DataType;
use keyfold::{Result, ValueType};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

/// A column of another program, chunk by chunk.
pub(super) struct Column {
    data_type: DataType,
    chunks: Chunks,
}

enum Chunks {
    One(Option<Array>),
    Stream(Stream),
}

/// `result` as Python has it.
pub(super) fn or_raise<T>(py: Python<'_>, result: Result<T>) -> PyResult<T> {
    result.map_err(|error| to_py_err(py, &error, None))
}

/// Whether `object` has one of Arrow's interfaces.
pub(crate) fn is_column(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(object.hasattr("__arrow_c_array__")? || object.hasattr("__arrow_c_stream__")?)
}

/// What `method` of `object` gives. An exception of it is not passed on, as it may hold a value: pyarrow's and pandas' do, of a column
/// whose values are of several types.
fn given_by<'py>(object: &Bound<'py, PyAny>, method: &str) -> PyResult<Bound<'py, PyAny>> {
    let py = object.py();
    object.call_method0(method).map_err(|error| {
        if error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py) {
            return error;
        }
        let said = py.import("keyfold._arrow").and_then(|module| {
            let name = error.get_type(py).name()?;
            module.getattr("not_a_column")?.call1((object, name))?.extract::<(String, Option<usize>)>()
        });
        match said {
            Ok((what, row)) => {
                let raised = invalid_with(py, "the object is not given as a column of Arrow", what);
                match row {
                    Some(row) => at_row(py, raised, row),
                    None => raised,
                }
            }
            Err(_) => invalid(py, "the object is not given as a column of Arrow"),
        }
    })
}

/// Whether objects of this class are tables: a table of one column has the type of a column of structures with one member.
fn is_table(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = object.get_type();
    Ok(class.hasattr("columns")? || class.hasattr("column_names")? || class.hasattr("read_next_batch")?)
}

impl Column {
    pub(super) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if object.hasattr("__arrow_c_array__")? {
            let given = given_by(object, "__arrow_c_array__")?;
            let (schema, array) = given.cast::<PyTuple>()?.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
            let data_type = or_raise(py, take_type(&schema)?)?;
            let array = or_raise(py, take_array(&array, &data_type)?)?;
            return Self::new(object, data_type, Chunks::One(Some(array)));
        }
        if object.hasattr("__arrow_c_stream__")? {
            let stream = or_raise(py, Stream::take(&given_by(object, "__arrow_c_stream__")?)?)?;
            return Self::new(object, stream.data_type().clone(), Chunks::Stream(stream));
        }
        let name = object.get_type().qualname()?;
        let known =
            "a column is an object with __arrow_c_array__ or __arrow_c_stream__ (pyarrow, Polars, pandas 3, DuckDB)";
        Err(PyTypeError::new_err(format!("{known}, not {name}")))
    }

    fn new(object: &Bound<'_, PyAny>, data_type: DataType, chunks: Chunks) -> PyResult<Self> {
        let py = object.py();
        if matches!(data_type, DataType::Struct(_)) && !is_table(object)? {
            return or_raise(py, Err(unsupported(&data_type)));
        }
        // A table that has more is refused when it is imported.
        let data_type = only_type(data_type);
        let column = Self { data_type, chunks };
        or_raise(py, Kind::of(column.leaf_type(), None))?;
        Ok(column)
    }

    /// The type of the values.
    pub(super) fn leaf_type(&self) -> &DataType {
        match &self.data_type {
            DataType::Dictionary(_, values) => values,
            other => other,
        }
    }

    /// The type of the keys, if the column is encoded with a dictionary.
    pub(super) fn key_type(&self) -> Option<&DataType> {
        match &self.data_type {
            DataType::Dictionary(keys, _) => Some(keys),
            _ => None,
        }
    }

    /// How values are read, where the policy gives the field `value_type`.
    pub(super) fn kind(&self, value_type: Option<ValueType>) -> Kind {
        Kind::of(self.leaf_type(), value_type).expect("checked when the column was taken")
    }

    /// How sealed values are read.
    ///
    /// # Errors
    ///
    /// - `InvalidInput`: the column has other values.
    pub(super) fn sealed_kind(&self, py: Python<'_>) -> PyResult<Kind> {
        match self.kind(None) {
            kind @ (Kind::Bytes | Kind::Text) => Ok(kind),
            _ => {
                let found = self.data_type.to_string();
                Err(invalid_with(py, "a column of sealed values is one of bytes, or of text in text form", found))
            }
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.chunks, Chunks::Stream(_))
    }

    /// The next chunk. One of decimals is copied: its rows are text.
    pub(super) fn next(&mut self, py: Python<'_>) -> PyResult<Option<Array>> {
        let next = match &mut self.chunks {
            Chunks::One(array) => array.take(),
            Chunks::Stream(stream) => {
                let next = gil::detach(py, || stream.next());
                or_raise(py, next)?
            }
        };
        Ok(match (next, decimal::of_type(self.leaf_type())) {
            (Some(array), Some((_, scale))) => Some(gil::detach(py, || decimal::spelled(array, scale))),
            (next, _) => next,
        })
    }
}

/// The type that `object` stands for: an object with `__arrow_c_schema__`, of a column or of a table that has just one.
pub(super) fn type_from(object: &Bound<'_, PyAny>) -> PyResult<DataType> {
    let object = object.py().import("keyfold._arrow")?.call_method1("schema_of", (object,))?;
    if !object.hasattr("__arrow_c_schema__")? {
        let name = object.get_type().qualname()?;
        let known = "a type is one of pyarrow or Polars, another object with __arrow_c_schema__, or a name";
        return Err(PyTypeError::new_err(format!("{known}, not {name}")));
    }
    let given = take_type(&object.call_method0("__arrow_c_schema__")?)?;
    or_raise(object.py(), given).map(only_type)
}

/// Of a table that has just one column, that column's type.
fn only_type(data_type: DataType) -> DataType {
    match data_type {
        DataType::Struct(fields) if fields.len() == 1 => fields[0].data_type().clone(),
        other => other,
    }
}

/// A column of one piece, for whatever reads Arrow: `pyarrow.array(it)`.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct ArrowArray(pub(super) ArrayData);

#[pymethods]
impl ArrowArray {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        // A producer that cannot cast gives what it has.
        drop(requested_schema);
        Ok((self.__arrow_c_schema__(py)?, give_array(py, &self.0)?))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        or_raise(py, give_type(py, self.0.data_type())?)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.ArrowArray of {} {}>", self.0.len(), self.0.data_type())
    }
}

/// A column in chunks, for whatever reads Arrow: `pyarrow.chunked_array(it)`. May be read more than once.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct ArrowStream {
    pub(super) data_type: DataType,
    pub(super) chunks: Vec<ArrayData>,
}

#[pymethods]
impl ArrowStream {
    #[pyo3(signature = (requested_schema = None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        drop(requested_schema);
        give_stream(py, self.data_type.clone(), self.chunks.iter().cloned())
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        or_raise(py, give_type(py, &self.data_type)?)
    }

    fn __len__(&self) -> usize {
        self.chunks.iter().map(ArrayData::len).sum()
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.ArrowStream of {} {} in {} chunks>", self.__len__(), self.data_type, self.chunks.len())
    }
}
