//! Python's objects as values of fields, and back (DESIGN F14).

use crate::errors::{invalid, to_py_err};
use keyfold::{Error, ErrorKind, Value, ValueType};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyMemoryView, PyString};
use std::borrow::Cow;
use std::ops::RangeInclusive;
use zeroize::Zeroizing;

/// Days from 0001-01-01, which is day 1 to Python, to 1970-01-01.
const EPOCH_ORDINAL: i64 = 719_163;
const SECONDS_PER_DAY: i64 = 86_400;
/// The days that Python's calendar has, from 0001-01-01 to 9999-12-31, counted from 1970-01-01.
const CALENDAR: RangeInclusive<i64> = 1 - EPOCH_ORDINAL..=3_652_059 - EPOCH_ORDINAL;

/// One value out of a Python object, for as long as it takes to seal it. Holds the object where that is immutable,
/// and otherwise a copy, so that nobody can change it meanwhile.
pub(crate) enum Taken {
    Bytes(PyBackedBytes),
    Text(PyBackedStr),
    Json(PyBackedStr),
    Copied(Zeroizing<Vec<u8>>),
    Decimal(Zeroizing<String>),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Date(i32),
    Timestamp { seconds: i64, nanoseconds: u32 },
}

impl Taken {
    /// Takes the value out of `object`, for a field whose policy gives it `value_type`.
    pub(crate) fn from(object: &Bound<'_, PyAny>, value_type: Option<ValueType>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(text) = object.cast::<PyString>() {
            let text = PyBackedStr::try_from(text.clone()).map_err(|_| not_utf8(py))?;
            return Ok(if value_type == Some(ValueType::Json) { Self::Json(text) } else { Self::Text(text) });
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone().into()));
        }
        if let Ok(truth) = object.cast::<PyBool>() {
            return Ok(Self::Boolean(truth.is_true()));
        }
        if object.is_instance_of::<PyInt>() {
            return object.extract().map(Self::Integer).map_err(|_| invalid(py, "a whole number has at most 128 bits"));
        }
        if let Ok(number) = object.cast::<PyFloat>() {
            return Ok(Self::Float(number.value()));
        }
        if object.is_instance_of::<PyByteArray>() || object.is_instance_of::<PyMemoryView>() {
            let buffer = PyBuffer::<u8>::get(object).map_err(|_| invalid(py, "a buffer is one of bytes"))?;
            return Ok(Self::Copied(Zeroizing::new(buffer.to_vec(py)?)));
        }
        Self::from_library(object)
    }

    /// Takes out of `object` what classes of Python's library hold.
    fn from_library(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let library = Library::of(py)?;
        let class = object.get_type();
        // What pandas has for values that are missing; the one for times is a datetime as well.
        if ["NaTType", "NAType"].iter().any(|missing| class.name().is_ok_and(|name| name == *missing)) {
            return Err(invalid(py, "NaT and NA are no values: use None for what is missing"));
        }
        if let Some(number) = number_of_numpy(object)? {
            return Self::from(&number, None);
        }
        // Before dates: every datetime is a date as well.
        if object.is_instance(library.datetime.bind(py))? {
            if object.call_method0("utcoffset")?.is_none() {
                return Err(invalid(py, "a datetime needs a time zone: without one it is no point in time"));
            }
            // pandas has them; a column refuses them likewise.
            if object.getattr_opt("nanosecond")?.is_some_and(|rest| !rest.eq(0).unwrap_or(false)) {
                return Err(invalid(
                    py,
                    "a datetime is of whole microseconds: round it, as with pandas' round(\"us\")",
                ));
            }
            let since = object.sub(library.epoch.bind(py))?;
            let days: i64 = since.getattr("days")?.extract()?;
            if !CALENDAR.contains(&days) {
                return Err(invalid(py, "in UTC, as which it would open, the datetime is not of the years 1 to 9999"));
            }
            let seconds: i64 = since.getattr("seconds")?.extract()?;
            let microseconds: u32 = since.getattr("microseconds")?.extract()?;
            return Ok(Self::Timestamp { seconds: days * SECONDS_PER_DAY + seconds, nanoseconds: microseconds * 1000 });
        }
        if object.is_instance(library.date.bind(py))? {
            let ordinal: i64 = object.call_method0("toordinal")?.extract()?;
            let days = i32::try_from(ordinal - EPOCH_ORDINAL).map_err(|_| invalid(py, "not a date of the calendar"))?;
            return Ok(Self::Date(days));
        }
        if object.is_instance(library.decimal.bind(py))? {
            return Ok(Self::Decimal(Zeroizing::new(object.str()?.to_str()?.to_owned())));
        }
        // The type alone: what an object says of itself may be the value.
        let name = class.qualname()?;
        let known = "str, bytes, bytearray, memoryview, int, float, bool, date, datetime or Decimal";
        Err(PyTypeError::new_err(format!("a value is {known}, not {name}")))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Copied(bytes) => bytes.len(),
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Decimal(text) => text.len(),
            _ => 16,
        }
    }

    pub(crate) fn value(&self) -> Value<'_> {
        match self {
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Copied(bytes) => Value::Bytes(bytes),
            Self::Text(text) => Value::Text(text),
            Self::Json(text) => Value::Json(text),
            Self::Decimal(text) => Value::Decimal(text),
            Self::Integer(number) => Value::Integer(*number),
            Self::Float(number) => Value::Float(*number),
            Self::Boolean(truth) => Value::Boolean(*truth),
            Self::Date(days) => Value::Date(*days),
            Self::Timestamp { seconds, nanoseconds } => {
                Value::Timestamp { seconds: *seconds, nanoseconds: *nanoseconds }
            }
        }
    }
}

/// `value` as an object of Python.
pub(crate) fn to_python<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        Value::Text(text) | Value::Json(text) => PyString::new(py, text).into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Float(number) => PyFloat::new(py, number).into_any(),
        Value::Boolean(truth) => PyBool::new(py, truth).to_owned().into_any(),
        Value::Decimal(text) => Library::of(py)?.decimal.bind(py).call1((text,))?,
        Value::Date(days) => {
            let ordinal = i64::from(days) + EPOCH_ORDINAL;
            let date = Library::of(py)?.date.bind(py);
            date.call_method1("fromordinal", (ordinal,)).map_err(|_| too_far(py))?
        }
        Value::Timestamp { seconds, nanoseconds } => {
            if nanoseconds % 1000 != 0 {
                return Err(unsupported(py, "a datetime has microseconds, and the value has nanoseconds"));
            }
            let library = Library::of(py)?;
            let days = seconds.div_euclid(SECONDS_PER_DAY);
            let since = (days, seconds.rem_euclid(SECONDS_PER_DAY), nanoseconds / 1000);
            let since = library.timedelta.bind(py).call1(since).map_err(|_| too_far(py))?;
            library.epoch.bind(py).add(since).map_err(|_| too_far(py))?
        }
        _ => return Err(unsupported(py, "a type of value that this package does not know")),
    })
}

/// `object` as a number of Python, if it is one of NumPy. Its times are none: of those in nanoseconds it makes whole numbers.
fn number_of_numpy<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if !object.get_type().module().is_ok_and(|module| module == "numpy") {
        return Ok(None);
    }
    let Some(kind) = object.getattr_opt("dtype")?.map(|dtype| dtype.getattr("kind")).transpose()? else {
        return Ok(None);
    };
    if object.getattr_opt("ndim")?.is_some_and(|ndim| !ndim.eq(0).unwrap_or(false))
        || !["b", "i", "u", "f"].iter().any(|number| kind.eq(number).unwrap_or(false))
    {
        return Ok(None);
    }
    // A long double stays one, and is none of ours.
    let number = object.call_method0("item")?;
    let is_number = number.is_instance_of::<PyInt>() || number.is_instance_of::<PyFloat>();
    Ok(is_number.then_some(number))
}

/// What a value is bound to, held for a batch.
pub(crate) enum RowBinding {
    Text(PyBackedStr),
    Bytes(PyBackedBytes),
    Spelled(Vec<u8>),
}

impl RowBinding {
    pub(crate) fn from(row: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = row.cast::<PyString>() {
            return text.clone().try_into().map(Self::Text).map_err(|_| not_utf8(row.py()));
        }
        match row.cast::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes.clone().into())),
            Err(_) => spelled(row).map(Self::Spelled),
        }
    }
}

impl AsRef<[u8]> for RowBinding {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
            Self::Spelled(bytes) => bytes,
        }
    }
}

/// What a single value is bound to.
pub(crate) fn row_binding<'a>(row: Option<&'a Bound<'_, PyAny>>) -> PyResult<Option<Cow<'a, [u8]>>> {
    let Some(row) = row else { return Ok(None) };
    if let Ok(text) = row.cast::<PyString>() {
        return text.to_str().map(|text| Some(Cow::Borrowed(text.as_bytes()))).map_err(|_| not_utf8(row.py()));
    }
    match row.cast::<PyBytes>() {
        Ok(bytes) => Ok(Some(Cow::Borrowed(bytes.as_bytes()))),
        Err(_) => spelled(row).map(|bytes| Some(Cow::Owned(bytes))),
    }
}

pub(crate) const NAN_ROW: &str = "the row that the value is bound to is NaN";

/// The bytes of a row that is neither text nor `bytes`, as a column of rows has them: those of a buffer, and otherwise of the value's
/// one spelling.
fn spelled(row: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let py = row.py();
    let taken = Taken::from(row, None).map_err(|error| {
        if !error.is_instance_of::<PyTypeError>(py) {
            return error;
        }
        let name = row.get_type().qualname().map_or_else(|_| "that".to_owned(), |name| name.to_string());
        PyTypeError::new_err(format!("a row binding is str, bytes, int, date or another value, not {name}"))
    })?;
    match taken.value() {
        Value::Bytes(bytes) => return Ok(bytes.to_vec()),
        // What is missing, to pandas. All such rows would be one.
        Value::Float(number) if number.is_nan() => return Err(invalid(py, NAN_ROW)),
        _ => {}
    }
    let text = taken.value().to_text().map(|text| text.into_owned().into_bytes());
    text.ok_or_else(|| invalid(py, "the row is a date that cannot be written"))
}

/// Without the error of Python's codec, which holds the text.
pub(crate) fn not_utf8(py: Python<'_>) -> PyErr {
    invalid(py, "text with a lone surrogate is not Unicode")
}

fn too_far(py: Python<'_>) -> PyErr {
    unsupported(py, "the calendar of Python's datetime ends before the value")
}

fn unsupported(py: Python<'_>, message: &'static str) -> PyErr {
    to_py_err(py, &Error::new(ErrorKind::Unsupported, message), None)
}

/// What is used of Python's library.
pub(crate) struct Library {
    date: Py<PyAny>,
    datetime: Py<PyAny>,
    timedelta: Py<PyAny>,
    /// 1970-01-01T00:00:00Z
    epoch: Py<PyAny>,
    decimal: Py<PyAny>,
}

impl Library {
    /// Made when the package is imported ([`crate::made_once`]).
    pub(crate) fn of(py: Python<'_>) -> PyResult<&Self> {
        static LIBRARY: PyOnceLock<Library> = PyOnceLock::new();
        LIBRARY.get_or_try_init(py, || {
            let dates = py.import("datetime")?;
            let datetime = dates.getattr("datetime")?;
            let utc = dates.getattr("timezone")?.getattr("utc")?;
            Ok(Self {
                epoch: datetime.call1((1970, 1, 1, 0, 0, 0, 0, utc))?.unbind(),
                date: dates.getattr("date")?.unbind(),
                timedelta: dates.getattr("timedelta")?.unbind(),
                decimal: py.import("decimal")?.getattr("Decimal")?.unbind(),
                datetime: datetime.unbind(),
            })
        })
    }
}
