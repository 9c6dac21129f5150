//! Keyrings.

use crate::errors::to_py_err;
use crate::field::Field;
use crate::value::not_utf8;
use crate::wait::wait;
use keyfold::{Context, Recovery};
use keyfold_open::Options;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};
use std::path::PathBuf;

#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Keyring {
    ring: keyfold::Keyring,
}

#[pymethods]
impl Keyring {
    #[classmethod]
    #[pyo3(signature = (path, /, *, policies = Vec::new(), recovery = None), text_signature = "($cls, path, /, *, policies=(), recovery=None)")]
    fn open(
        _class: &Bound<'_, PyType>,
        path: PathBuf,
        policies: Vec<PathBuf>,
        recovery: Option<&str>,
    ) -> PyResult<Self> {
        let py = _class.py();
        let failed = |error| to_py_err(py, &error, None);
        let recovery = recovery.map(Recovery::with_reason).transpose().map_err(failed)?;
        let options = Options { recovery, ..Options::default() };
        let ring = wait(py, async move { keyfold_open::open_with(&path, &policies, &options) })?;
        Ok(Self { ring })
    }

    #[pyo3(signature = (name, /, *, scope = None, context = None))]
    fn field(
        &self,
        name: &Bound<'_, PyString>,
        scope: Option<&str>,
        context: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Field> {
        let py = name.py();
        let failed = |error| to_py_err(py, &error, None);
        let mut field = self.ring.field(name.to_str().map_err(|_| not_utf8(py))?).map_err(failed)?;
        if let Some(scope) = scope {
            field = field.scope(scope);
        }
        if let Some(pairs) = context {
            let mut context = Context::new();
            for (key, value) in pairs {
                let key = key.cast::<PyString>().map_err(|_| PyTypeError::new_err("a context key is str"))?;
                let key = key.to_str().map_err(|_| not_utf8(py))?;
                context = if let Ok(text) = value.cast::<PyString>() {
                    context.with(key, text.to_str().map_err(|_| not_utf8(py))?)
                } else if let Ok(bytes) = value.cast::<PyBytes>() {
                    context.with(key, bytes.as_bytes())
                } else {
                    return Err(PyTypeError::new_err("a context value is str or bytes"));
                }
                .map_err(failed)?;
            }
            field = field.context(context);
        }
        Ok(Field::new(field))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.ring.close());
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _kind: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) {
        self.close(py);
    }
}

#[pyfunction]
#[pyo3(signature = (folder, /, *, name = "keyring", environment = "development"))]
pub(crate) fn init(py: Python<'_>, folder: PathBuf, name: &str, environment: &str) -> PyResult<PathBuf> {
    wait(py, keyfold_open::init(&folder, name, environment)).map(|made| made.config)
}
