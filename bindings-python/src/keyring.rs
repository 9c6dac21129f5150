//! Keyrings.

use crate::errors::to_py_err;
use crate::field::Field;
use crate::fork::{Inside, detached};
use crate::gil;
use crate::host_kms::{host_keks_of, passphrase_source};
use crate::log;
use crate::value::not_utf8;
use crate::wait::wait;
use keyfold::{Context, KekAlias, Record, Recovery, Result, RewrapOptions};
use keyfold_open::{NewKeyring, Options};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping, PyString, PyType};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Records that are looked at in one step, after which signals are.
const PAGE: usize = 256;

#[pyclass(module = "keyfold", frozen, weakref)]
pub(crate) struct Keyring {
    ring: keyfold::Keyring,
    config: Py<PyAny>,
}

#[pymethods]
impl Keyring {
    #[classmethod]
    #[pyo3(
        signature = (path, /, *, policies = Vec::new(), recovery = None, passphrase = None, host_keks = None, records = None),
        text_signature = "($cls, path, /, *, policies=(), recovery=None, passphrase=None, host_keks=None, records=None)"
    )]
    fn open(
        class: &Bound<'_, PyType>,
        path: PathBuf,
        policies: Vec<PathBuf>,
        recovery: Option<&str>,
        passphrase: Option<Py<PyAny>>,
        host_keks: Option<BTreeMap<String, Py<PyAny>>>,
        records: Option<Bound<'_, PyBytes>>,
    ) -> PyResult<Py<Self>> {
        let py = class.py();
        let failed = |error| to_py_err(py, &error, None);
        let options = Options {
            recovery: recovery.map(Recovery::with_reason).transpose().map_err(failed)?,
            passphrase: passphrase.map(passphrase_source),
            host_keks: host_keks_of(host_keks),
            records: records.as_ref().map(|records| Arc::from(records.as_bytes())),
        };
        let mut config = py.import("keyfold._config")?.getattr("Config")?.call1((&path, policies.clone()))?;
        if let Some(records) = records {
            config = config.call_method1("with_records", (records,))?;
        }
        let config = config.unbind();
        // Nobody may fork between its opening and its registration.
        let _inside = Inside::new(py).map_err(failed)?;
        let ring = wait(py, async { keyfold_open::open_with(&path, &policies, &options) })?;
        let ring = Py::new(py, Self { ring, config })?;
        py.import("keyfold._process")?.getattr("register")?.call1((&ring,))?;
        Ok(ring)
    }

    #[getter]
    fn config(&self, py: Python<'_>) -> Py<PyAny> {
        self.config.clone_ref(py)
    }

    #[pyo3(signature = (name, /, *, scope = None, context = None))]
    fn field(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyString>,
        scope: Option<&Bound<'_, PyString>>,
        context: Option<&Bound<'_, PyMapping>>,
    ) -> PyResult<Field> {
        let py = name.py();
        let mut field = slf.get().ring.field(utf8(name)?).map_err(|error| to_py_err(py, &error, None))?;
        if let Some(scope) = scope {
            field = field.scope(utf8(scope)?);
        }
        if let Some(pairs) = context {
            field = field.context(context_of(pairs)?);
        }
        Ok(Field::new(slf.clone().unbind(), field))
    }

    fn keys(&self, py: Python<'_>) -> PyResult<Vec<KeyInfo>> {
        let mut infos: Vec<KeyInfo> = Vec::new();
        let mut after = None;
        loop {
            let page = wait(py, self.ring.list(after, PAGE))?;
            let Some(last) = page.last() else { return Ok(infos) };
            after = Some(last.record.key_id());
            infos.extend(page.iter().map(|info| KeyInfo::of(&info.record, info.verified.is_ok())));
        }
    }

    fn records<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (backup, _) = wait(py, keyfold_open::backup(&self.ring, Vec::new()))?;
        Ok(PyBytes::new(py, &backup))
    }

    #[pyo3(signature = (name, /))]
    fn new_partition(&self, name: &Bound<'_, PyString>) -> PyResult<String> {
        let (py, name) = (name.py(), utf8(name)?);
        let keys = wait(py, self.ring.create_partition(name))?;
        Ok(keyfold::config::Config::partition(name, &keys))
    }

    #[pyo3(signature = (scope = None, /))]
    fn rotate(&self, py: Python<'_>, scope: Option<&Bound<'_, PyString>>) -> PyResult<KeyInfo> {
        let scope = scope.map(utf8).transpose()?;
        let rotated = wait(py, self.ring.rotate_data_key(scope))?;
        Ok(KeyInfo::of(&rotated.new, true))
    }

    fn repair(&self, py: Python<'_>) -> PyResult<u64> {
        let mut repair = wait(py, self.ring.rewrap(RewrapOptions::default()))?;
        while !wait(py, repair.step(PAGE))?.done {}
        match repair.failures().values().next() {
            Some(error) => Err(to_py_err(py, error, None)),
            None => Ok(repair.progress().added),
        }
    }

    fn _before_fork(&self, py: Python<'_>) {
        gil::detach(py, || self.ring.before_fork());
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // Refused in a child whose parent's threads held locks: closing would wait for them.
        let _ = detached(py, || {
            self.ring.close();
            Ok(())
        });
        log::pass_on(py)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, traceback, /))]
    #[expect(unused_variables, reason = "whatever ended the block, the keyring is closed")]
    fn __exit__(&self, py: Python<'_>, kind: Py<PyAny>, value: Py<PyAny>, traceback: Py<PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a keyring holds keys and cannot be copied: send its `config`, and open that"))
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.Keyring {}>", self.ring.lineage())
    }
}

fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
    text.to_str().map_err(|_| not_utf8(text.py()))
}

fn context_of(pairs: &Bound<'_, PyMapping>) -> PyResult<Context> {
    let mut context = Context::new();
    for pair in pairs.items()? {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
        let key = key.cast::<PyString>().map_err(|_| PyTypeError::new_err("a context key is str"))?;
        let added = if let Ok(text) = value.cast::<PyString>() {
            context.with(utf8(key)?, utf8(text)?)
        } else if let Ok(bytes) = value.cast::<PyBytes>() {
            context.with(utf8(key)?, bytes.as_bytes())
        } else {
            return Err(PyTypeError::new_err("a context value is str or bytes"));
        };
        context = added.map_err(|error| to_py_err(pairs.py(), &error, None))?;
    }
    Ok(context)
}

/// A key as its record says.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct KeyInfo {
    key_id: String,
    generation: u32,
    kind: &'static str,
    state: &'static str,
    created_at: u64,
    keks: Vec<String>,
    trusted: bool,
}

impl KeyInfo {
    fn of(record: &Record, trusted: bool) -> Self {
        Self {
            key_id: record.key_id().to_string(),
            generation: record.key_id().generation(),
            kind: record.class().name(),
            state: record.state().name(),
            created_at: record.created_at(),
            keks: record.kek_aliases().map(ToString::to_string).collect(),
            trusted,
        }
    }
}

#[pymethods]
impl KeyInfo {
    fn __repr__(&self) -> String {
        format!("<keyfold.KeyInfo {} {} {}>", self.kind, self.key_id, self.state)
    }
}

#[pyfunction]
#[pyo3(
    signature = (folder, /, *, name = "keyring", environment = "development", store = None, keks = None, passphrase = None, host_keks = None),
    text_signature = "(folder, /, *, name='keyring', environment='development', store=None, keks=None, passphrase=None, host_keks=None)"
)]
#[expect(clippy::too_many_arguments, reason = "those of the function of Python, by name")]
pub(crate) fn init(
    py: Python<'_>,
    folder: PathBuf,
    name: &str,
    environment: &str,
    store: Option<String>,
    keks: Option<BTreeMap<String, String>>,
    passphrase: Option<Py<PyAny>>,
    host_keks: Option<BTreeMap<String, Py<PyAny>>>,
) -> PyResult<PathBuf> {
    let keks = keks.unwrap_or_default().into_iter().map(|(alias, uri)| Ok((KekAlias::new(&alias)?, uri)));
    let keks = keks.collect::<Result<_>>().map_err(|error| to_py_err(py, &error, None))?;
    let passphrase = passphrase.map(passphrase_source);
    let options = Options { passphrase, host_keks: host_keks_of(host_keks), ..Options::default() };
    let new = NewKeyring { name: name.to_owned(), environment: environment.to_owned(), store, keks };
    wait(py, keyfold_open::init_with(&folder, &new, &options)).map(|made| made.config)
}
