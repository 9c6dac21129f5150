//! What sealed values say of themselves. Needs no key.

use crate::arrow;
use crate::errors::{invalid, to_py_err};
use keyfold::wire::{self, Frame, KeyId, Sealed, Suite};
use keyfold::{Error, ErrorKind, Result, Value};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyFloat, PyMemoryView, PyString};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Values of a census between two looks at signals.
const SIGNALS_EVERY: usize = 10_000;

/// What a sealed value says of itself, none of it authenticated.
#[pyclass(module = "keyfold", frozen, get_all, eq, hash)]
#[derive(Eq, Hash, PartialEq)]
pub(crate) struct Inspection {
    /// Whether equal values look equal.
    mode: &'static str,
    /// The ID of the key that it claims, in hexadecimal.
    key_id: String,
    /// The number of that key among all keys of the keyring.
    generation: u32,
    /// Bytes of the value with its type and padding.
    encoded_len: usize,
    /// Whether it travels with its key records.
    framed: bool,
}

#[pymethods]
impl Inspection {
    fn __repr__(&self) -> String {
        let Self { mode, key_id, generation, encoded_len, framed } = self;
        let framed = if *framed { "True" } else { "False" };
        format!(
            "Inspection(mode='{mode}', key_id='{key_id}', generation={generation}, encoded_len={encoded_len}, framed={framed})"
        )
    }
}

/// Return what a sealed value, in binary or text form, says of itself. Needs no key.
///
/// Raises:
///     FormatError: not a sealed value.
#[pyfunction]
#[pyo3(signature = (sealed, /))]
pub(crate) fn inspect(sealed: &Bound<'_, PyAny>) -> PyResult<Inspection> {
    let bytes = sealed_bytes(sealed)?;
    inspection(&bytes).map_err(|error| to_py_err(sealed.py(), &error, None))
}

/// A sealed value, and whether it was in a frame.
pub(crate) fn taken_apart(bytes: &[u8]) -> Result<(Sealed<'_>, bool)> {
    // Whatever is no frame is for the parser of values to refuse.
    match Frame::parse(bytes) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok((Sealed::parse(bytes)?, false)),
        frame => Ok((frame?.sealed(), true)),
    }
}

/// Refuses to seal what is sealed already, as far as can be told: text that begins like the text form, or bytes that are a sealed
/// value in their layout.
///
/// # Errors
///
/// - [`PolicyRefused`](ErrorKind::PolicyRefused): it is.
#[inline]
pub(crate) fn refuse_sealed(value: Value<'_>) -> Result<()> {
    let is_sealed = match value {
        Value::Text(text) => wire::looks_sealed_text(text.as_bytes()),
        Value::Bytes(bytes) => wire::looks_sealed(bytes) && taken_apart(bytes).is_ok(),
        _ => false,
    };
    if is_sealed {
        let why = "the value looks sealed already; seal_sealed=True seals it once more";
        return Err(Error::new(ErrorKind::PolicyRefused, why));
    }
    Ok(())
}

fn inspection(bytes: &[u8]) -> Result<Inspection> {
    let (sealed, framed) = taken_apart(bytes)?;
    let key_id = sealed.key_id();
    Ok(Inspection {
        mode: if sealed.suite() == Suite::Deterministic { "deterministic" } else { "randomized" },
        generation: key_id.generation(),
        key_id: key_id.to_string(),
        encoded_len: sealed.encoded_len(),
        framed,
    })
}

/// Return the text form of a sealed value, `kf1.…`, for CSV, JSON and text columns.
///
/// Raises:
///     FormatError: not a sealed value, or a frame, which has no text form.
#[pyfunction]
#[pyo3(signature = (sealed, /))]
pub(crate) fn to_text(py: Python<'_>, sealed: &[u8]) -> PyResult<String> {
    let mut text = Vec::with_capacity(wire::text_len(sealed.len()));
    wire::push_text(sealed, &mut text).map_err(|error| to_py_err(py, &error, None))?;
    Ok(String::from_utf8(text)?)
}

/// Return the binary form of a sealed value in text form.
///
/// Raises:
///     FormatError: not the text form of a sealed value. Exactly one text of each value is accepted.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn from_text<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = sealed_bytes(text.as_any())?;
    Ok(PyBytes::new(text.py(), &bytes))
}

/// The binary form of a sealed value that is given in that form, as `bytes`, or as text, as `str`.
pub(crate) fn sealed_bytes<'a>(sealed: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(bytes) = sealed.cast::<PyBytes>() {
        return Ok(Cow::Borrowed(bytes.as_bytes()));
    }
    let Ok(text) = sealed.cast::<PyString>() else {
        if sealed.is_instance_of::<PyByteArray>() || sealed.is_instance_of::<PyMemoryView>() {
            let buffer = PyBuffer::<u8>::get(sealed).map_err(|_| invalid(sealed.py(), "a buffer is one of bytes"))?;
            return buffer.to_vec(sealed.py()).map(Cow::Owned);
        }
        let name = sealed.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!("a sealed value is bytes, or str in text form, not {name}")));
    };
    let mut bytes = Vec::new();
    let parsed =
        text.to_str().map_or(Err(ErrorKind::Malformed.into()), |text| wire::from_text(text.as_bytes(), &mut bytes));
    parsed.map_err(|error| to_py_err(sealed.py(), &error, None))?;
    Ok(Cow::Owned(bytes))
}

/// How many values are sealed under which key, by what they say of themselves.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct Census {
    /// Values by key ID.
    keys: BTreeMap<String, usize>,
    /// How many were None.
    nulls: usize,
    /// How many were no sealed values.
    not_sealed: usize,
}

#[pymethods]
impl Census {
    fn __repr__(&self) -> String {
        let sealed: usize = self.keys.values().sum();
        let Self { keys, nulls, not_sealed } = self;
        format!("<keyfold.Census {sealed} sealed under {} keys, {nulls} null, {not_sealed} not sealed>", keys.len())
    }
}

/// Count `values`, sealed in binary or text form, by key. Needs no key and no keyring; holds the GIL.
///
/// A column of pyarrow, Polars or pandas, or anything else with Arrow's C interfaces, will do as well. Nulls, NaN and NA count as null.
///
/// Raises:
///     TypeError: one is neither bytes nor str nor None.
///     InvalidInput: a column of neither bytes nor text.
#[pyfunction]
#[pyo3(signature = (values, /))]
pub(crate) fn census(values: &Bound<'_, PyAny>) -> PyResult<Census> {
    let py = values.py();
    // Whose parts would be counted one by one.
    if values.is_instance_of::<PyString>() || values.is_instance_of::<PyBytes>() {
        let name = values.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!("a census is of a list of sealed values, not of one {name}")));
    }
    let mut counts = Counts::default();
    let values = without_missing(values)?;
    if arrow::is_column(&values)? {
        arrow::each_sealed(&values, |bytes| counts.add(bytes))?;
    } else {
        for (index, value) in values.try_iter()?.enumerate() {
            let value = value?;
            if index % SIGNALS_EVERY == 0 {
                py.check_signals()?;
            }
            match sealed_bytes(&value) {
                _ if value.is_none() || is_nan(&value) => counts.add(None),
                Ok(bytes) => counts.add(Some(Ok(bytes))),
                Err(error) if error.is_instance_of::<PyTypeError>(py) => return Err(error),
                Err(_) => counts.not_sealed += 1,
            }
        }
    }
    let keys = counts.keys.into_iter().map(|(key_id, n)| (key_id.to_string(), n)).collect();
    Ok(Census { keys, nulls: counts.nulls, not_sealed: counts.not_sealed })
}

#[derive(Default)]
struct Counts {
    keys: BTreeMap<KeyId, usize>,
    nulls: usize,
    not_sealed: usize,
}

impl Counts {
    /// Counts a value; `None`: null.
    fn add(&mut self, value: Option<Result<Cow<'_, [u8]>>>) {
        let Some(value) = value else {
            self.nulls += 1;
            return;
        };
        match value.as_deref().map(taken_apart) {
            Ok(Ok((sealed, _))) => *self.keys.entry(sealed.key_id()).or_default() += 1,
            _ => self.not_sealed += 1,
        }
    }
}

/// Whether `object` is not a number, which stands for what is missing in many a list that comes from NumPy.
fn is_nan(object: &Bound<'_, PyAny>) -> bool {
    object.cast::<PyFloat>().is_ok_and(|number| number.value().is_nan())
}

/// `values`, as a list with None for what is missing if they are of pandas, where NaN, NaT and NA are that.
pub(crate) fn without_missing<'py>(values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let is_pandas = values.get_type().module()?.to_str().is_ok_and(|module| module.split('.').next() == Some("pandas"));
    if is_pandas {
        return values.py().import("keyfold._arrow")?.call_method1("without_missing", (values,));
    }
    Ok(values.clone())
}
