//! What sealed values say of themselves. Needs no key.

use crate::errors::to_py_err;
use keyfold::wire::{self, Frame, KeyId, Sealed, Suite};
use keyfold::{ErrorKind, Result};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Values of a census between two looks at signals.
const SIGNALS_EVERY: usize = 10_000;

#[pyclass(module = "keyfold", frozen, get_all, eq, hash)]
#[derive(Eq, Hash, PartialEq)]
pub(crate) struct Inspection {
    mode: &'static str,
    key_id: String,
    generation: u32,
    encoded_len: usize,
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

#[pyfunction]
#[pyo3(signature = (sealed, /))]
pub(crate) fn inspect(sealed: &Bound<'_, PyAny>) -> PyResult<Inspection> {
    let bytes = sealed_bytes(sealed)?;
    inspection(&bytes).map_err(|error| to_py_err(sealed.py(), &error, None))
}

/// A sealed value, and whether it was in a frame.
fn taken_apart(bytes: &[u8]) -> Result<(Sealed<'_>, bool)> {
    // Whatever is no frame is for the parser of values to refuse.
    match Frame::parse(bytes) {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok((Sealed::parse(bytes)?, false)),
        frame => Ok((frame?.sealed(), true)),
    }
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

#[pyfunction]
#[pyo3(signature = (sealed, /))]
pub(crate) fn to_text(py: Python<'_>, sealed: &[u8]) -> PyResult<String> {
    let mut text = Vec::with_capacity(wire::text_len(sealed.len()));
    wire::push_text(sealed, &mut text).map_err(|error| to_py_err(py, &error, None))?;
    Ok(String::from_utf8(text)?)
}

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
        let name = sealed.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!("a sealed value is bytes, or str in text form, not {name}")));
    };
    let mut bytes = Vec::new();
    let parsed =
        text.to_str().map_or(Err(ErrorKind::Malformed.into()), |text| wire::from_text(text.as_bytes(), &mut bytes));
    parsed.map_err(|error| to_py_err(sealed.py(), &error, None))?;
    Ok(Cow::Owned(bytes))
}

/// What a collection of values is sealed under.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct Census {
    keys: BTreeMap<String, usize>,
    nulls: usize,
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

#[pyfunction]
#[pyo3(signature = (values, /))]
pub(crate) fn census(values: &Bound<'_, PyAny>) -> PyResult<Census> {
    let py = values.py();
    let mut counts: BTreeMap<KeyId, usize> = BTreeMap::new();
    let (mut nulls, mut not_sealed) = (0, 0);
    for (index, value) in values.try_iter()?.enumerate() {
        let value = value?;
        if index % SIGNALS_EVERY == 0 {
            py.check_signals()?;
        }
        match sealed_bytes(&value) {
            _ if value.is_none() => nulls += 1,
            Ok(bytes) => match taken_apart(&bytes) {
                Ok((sealed, _)) => *counts.entry(sealed.key_id()).or_default() += 1,
                Err(_) => not_sealed += 1,
            },
            Err(error) if error.is_instance_of::<PyTypeError>(py) => return Err(error),
            Err(_) => not_sealed += 1,
        }
    }
    Ok(Census { keys: counts.into_iter().map(|(key_id, n)| (key_id.to_string(), n)).collect(), nulls, not_sealed })
}
