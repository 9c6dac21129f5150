//! Fields: handles that encrypt and decrypt one value, or find it.

use crate::arrow;
use crate::errors::to_py_err;
use crate::fork::detached;
use crate::inspect::sealed_bytes;
use crate::keyring::Keyring;
use crate::many;
use crate::value::{Taken, row_binding, to_python};
use crate::wait::wait;
use keyfold::{Decryptor, Encryptor, Error, FieldPolicy, RowBinding, Searcher, ValueType};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::OnceLock;

/// Values longer than this are sealed and opened without the GIL; for shorter ones letting go of it takes longer.
const LONG: usize = 16 * 1024;

/// A field that is bound to scope and context.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Field {
    /// Kept, so that it is made ready for forks as long as a field of it is used.
    _ring: Py<Keyring>,
    field: keyfold::Field,
    pub(crate) value_type: Option<ValueType>,
    // Made when first used. Two threads may both make one, and one of them stays: nobody waits for the other, who may be
    // asking a key service.
    encryptor: OnceLock<Encryptor>,
    decryptor: OnceLock<Decryptor>,
    searcher: OnceLock<Searcher>,
}

impl Field {
    pub(crate) fn new(ring: Py<Keyring>, field: keyfold::Field) -> Self {
        let value_type = field.policy().value_type;
        let (encryptor, decryptor, searcher) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { _ring: ring, field, value_type, encryptor, decryptor, searcher }
    }

    pub(crate) fn policy(&self) -> &FieldPolicy {
        self.field.policy()
    }

    /// The handle that seals, under a key that may be used now.
    #[inline]
    pub(crate) fn encryptor(&self, py: Python<'_>) -> PyResult<&Encryptor> {
        match self.encryptor.get() {
            Some(encryptor) if encryptor.is_ready() => Ok(encryptor),
            Some(encryptor) => wait(py, encryptor.ready()),
            None => {
                let made = wait(py, self.field.clone().encryptor())?;
                Ok(self.encryptor.get_or_init(|| made))
            }
        }
    }

    /// The handle that opens; its keys are to be loaded.
    #[inline]
    pub(crate) fn decryptor(&self, py: Python<'_>) -> PyResult<&Decryptor> {
        if let Some(decryptor) = self.decryptor.get() {
            return Ok(decryptor);
        }
        let made = wait(py, self.field.clone().decryptor())?;
        Ok(self.decryptor.get_or_init(|| made))
    }

    fn searcher(&self, py: Python<'_>) -> PyResult<&Searcher> {
        match self.searcher.get() {
            Some(searcher) => wait(py, searcher.ready()),
            None => {
                let made = wait(py, self.field.clone().searcher())?;
                Ok(self.searcher.get_or_init(|| made))
            }
        }
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
        let failed = |error| to_py_err(py, &error, None);
        if let Some(encryptor) = self.encryptor.get().filter(|_| taken.len() <= LONG) {
            let len = encryptor.sealed_len(taken.value()).map_err(failed)?;
            let mut is_sealed = false;
            let sealed = PyBytes::new_with(py, len, |out| {
                is_sealed = encryptor.encrypt_if_ready(taken.value(), row, out).map_err(failed)?.is_some();
                Ok(())
            })?;
            if is_sealed {
                return Ok(sealed);
            }
        }
        let encryptor = self.encryptor(py)?;
        let sealed = detached(py, || encryptor.encrypt(taken.value(), row));
        Ok(PyBytes::new(py, &sealed.map_err(failed)?))
    }

    #[pyo3(signature = (sealed, /, *, row = None))]
    fn decrypt<'py>(&self, sealed: &Bound<'py, PyAny>, row: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = sealed.py();
        let bytes = sealed_bytes(sealed)?;
        let row = row_binding(row)?;
        let decryptor = self.decryptor(py)?;
        let failed = |error| to_py_err(py, &error, None);
        if bytes.len() <= LONG
            && let Some(opened) = decryptor.decrypt_if_ready(&bytes, row).map_err(failed)?
        {
            return to_python(py, opened.value());
        }
        wait(py, async { decryptor.load_keys(&[&bytes][..]).await.map_err(|failure| failure.error) })?;
        let opened = detached(py, || decryptor.decrypt(&bytes, row));
        to_python(py, opened.map_err(failed)?.value())
    }

    #[pyo3(signature = (values, /, *, rows = None))]
    fn encrypt_many<'py>(
        &self,
        values: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        many::encrypt(self, values, rows)
    }

    #[pyo3(signature = (sealed, /, *, rows = None, on_error = "raise", errors = None))]
    fn decrypt_many<'py>(
        &self,
        sealed: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        on_error: &str,
        errors: Option<&Bound<'py, PyList>>,
    ) -> PyResult<Bound<'py, PyList>> {
        many::decrypt(self, sealed, rows, on_error, errors)
    }

    #[pyo3(signature = (data, /, *, rows = None, form = "binary", on_error = "raise", errors = None))]
    fn encrypt_column<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        form: &str,
        on_error: &str,
        errors: Option<&Bound<'py, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrow::encrypt(self, data, rows, form, on_error, errors)
    }

    #[pyo3(signature = (data, /, *, rows = None, r#type = None, on_error = "raise", errors = None))]
    fn decrypt_column<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        r#type: Option<&Bound<'py, PyAny>>,
        on_error: &str,
        errors: Option<&Bound<'py, PyList>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrow::decrypt(self, data, rows, r#type, on_error, errors)
    }

    #[pyo3(signature = (value, /))]
    fn search<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type)?;
        let searcher = self.searcher(py)?;
        let found =
            detached(py, || searcher.ciphertexts(taken.value())).map_err(|error| to_py_err(py, &error, None))?;
        Ok(found.iter().map(|sealed| PyBytes::new(py, sealed)).collect())
    }

    #[pyo3(signature = (sealed, /))]
    fn is_current(&self, sealed: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = sealed.py();
        let bytes = sealed_bytes(sealed)?;
        let decryptor = self.decryptor(py)?;
        // Of no value: only what is known of the key that seals.
        wait(py, async { decryptor.load_keys(&[] as &[&[u8]]).await.map_err(Error::from) })?;
        decryptor.is_current(&bytes).map_err(|error| to_py_err(py, &error, None))
    }

    #[getter]
    fn binds_row(&self) -> bool {
        self.policy().row_binding != RowBinding::None
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.Field '{}'>", self.field.policy().name)
    }
}
