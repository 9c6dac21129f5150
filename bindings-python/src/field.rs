//! Fields: handles that encrypt and decrypt.

use crate::errors::to_py_err;
use crate::inspect::sealed_bytes;
use crate::value::{Taken, row_binding, to_python};
use crate::wait::wait;
use keyfold::{Decryptor, Encryptor, RowError, ValueType};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::OnceLock;

/// Values longer than this are sealed and opened without the GIL; for shorter ones letting go of it takes longer.
const LONG: usize = 16 * 1024;

/// A field that is bound to scope and context.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Field {
    field: keyfold::Field,
    value_type: Option<ValueType>,
    // Made when first used. Two threads may both make one, and one of them stays: nobody waits for a lock, which a fork
    // would leave locked for ever.
    encryptor: OnceLock<Encryptor>,
    decryptor: OnceLock<Decryptor>,
}

impl Field {
    pub(crate) fn new(field: keyfold::Field) -> Self {
        let value_type = field.policy().value_type;
        Self { field, value_type, encryptor: OnceLock::new(), decryptor: OnceLock::new() }
    }

    /// The handle that seals, under a key that may be used now.
    #[inline]
    fn encryptor(&self, py: Python<'_>) -> PyResult<&Encryptor> {
        match self.encryptor.get() {
            Some(encryptor) if encryptor.is_ready() => Ok(encryptor),
            Some(encryptor) => wait(py, encryptor.ready()),
            None => {
                let made = wait(py, self.field.clone().encryptor())?;
                Ok(self.encryptor.get_or_init(|| made))
            }
        }
    }

    fn decryptor(&self, py: Python<'_>) -> PyResult<&Decryptor> {
        if let Some(decryptor) = self.decryptor.get() {
            return Ok(decryptor);
        }
        let made = wait(py, self.field.clone().decryptor())?;
        Ok(self.decryptor.get_or_init(|| made))
    }
}

#[pymethods]
impl Field {
    #[pyo3(signature = (value, /, *, row = None))]
    fn encrypt<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        row: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type)?;
        let row = row_binding(row)?;
        let encryptor = self.encryptor(py)?;
        let sealed = if taken.len() > LONG {
            py.detach(|| encryptor.encrypt(taken.value(), row))
        } else {
            encryptor.encrypt(taken.value(), row)
        };
        Ok(PyBytes::new(py, &sealed.map_err(|error| to_py_err(py, &error, None))?))
    }

    #[pyo3(signature = (sealed, /, *, row = None))]
    fn decrypt<'py>(&self, sealed: &Bound<'py, PyAny>, row: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = sealed.py();
        let bytes = sealed_bytes(sealed)?;
        let row = row_binding(row)?;
        let decryptor = self.decryptor(py)?;
        if !decryptor.holds_key_of(&bytes) {
            let load = async { decryptor.load_keys(&[&bytes][..]).await.map_err(|RowError { error, .. }| error) };
            wait(py, load)?;
        }
        let opened = if bytes.len() > LONG {
            py.detach(|| decryptor.decrypt(&bytes, row))
        } else {
            decryptor.decrypt(&bytes, row)
        };
        to_python(py, opened.map_err(|error| to_py_err(py, &error, None))?.value())
    }
}
