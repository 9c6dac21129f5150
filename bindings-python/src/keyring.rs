//! Keyrings.

use crate::documents::Documents;
use crate::errors::to_py_err;
use crate::field::Field;
use crate::fork::{Inside, detached};
use crate::gil;
use crate::host_kms::{HostObject, host_keks_of, passphrase_source};
use crate::log;
use crate::value::not_utf8;
use crate::wait::wait;
use keyfold::wire::Suite;
use keyfold::{
    Context, Error, ErrorKind, FieldMode, FieldPolicy, KekAlias, Record, Recovery, Result, RewrapOptions, RowBinding,
    ValueType,
};
use keyfold_open::{NewKeyring, Options};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyMapping, PyString, PyType};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// Records that are looked at in one step, after which signals are.
const PAGE: usize = 256;
/// Most names of fields in an error.
const SHOWN: usize = 20;

/// An open set of keys. Make one per process and share it between threads. After `os.fork`, and what
/// uses it, a child goes on with it and with its fields; a fork that another language makes leaves it without its key store.
///
/// Cannot be pickled or copied: send its `config` to other machines. As a context manager it is closed at the end. Every call
/// that may ask a key service or the store lets go of the GIL, and Ctrl-C ends the wait.
#[pyclass(module = "keyfold", frozen, weakref)]
pub(crate) struct Keyring {
    ring: keyfold::Keyring,
    config: Py<PyAny>,
    /// What it calls.
    host_objects: Vec<HostObject>,
}

impl Keyring {
    /// The keyring, unless it has been closed: then it does not look at its store either.
    pub(crate) fn open_ring(&self, py: Python<'_>) -> PyResult<&keyfold::Keyring> {
        if self.ring.is_closed() {
            return Err(to_py_err(py, &Error::new(ErrorKind::Closed, "the keyring has been closed"), None));
        }
        Ok(&self.ring)
    }
}

#[pymethods]
impl Keyring {
    /// Open the keyring of the configuration file `path`, with the fields of the files `policies` added.
    ///
    /// Asks no key service yet, but the audit KEK where there is an `[audit]` section. `recovery`, the reason for it, turns
    /// recovery mode on. `passphrase` is called with the alias of a KEK whose passphrase is needed. `host_keks` are objects that
    /// reach KEKs, by the NAME that the configuration gives as `uri = "host:NAME"`. `records`, of `Keyring.records`, take the place of
    /// the store: keys are read from them, and none is made or changed.
    ///
    /// Raises:
    ///     ConfigurationError: a file is wrong; the text names file, line and key.
    ///     FormatError, KeyRefused: `records` are damaged, or of another keyring.
    ///     StoreError: a file cannot be read, or the store cannot be opened.
    ///     KmsError: no KEK for roots can be reached; see `.retryable`.
    ///     InvalidInput: `recovery` is no reason: one line of 1 to 512 bytes.
    #[classmethod]
    #[pyo3(
        signature = (path, /, *, policies = None, recovery = None, passphrase = None, host_keks = None, records = None),
        text_signature = "($cls, path, /, *, policies=(), recovery=None, passphrase=None, host_keks=None, records=None)"
    )]
    fn open(
        class: &Bound<'_, PyType>,
        path: PathBuf,
        policies: Option<Bound<'_, PyAny>>,
        recovery: Option<&str>,
        passphrase: Option<Py<PyAny>>,
        host_keks: Option<BTreeMap<String, Py<PyAny>>>,
        records: Option<Bound<'_, PyBytes>>,
    ) -> PyResult<Py<Self>> {
        let py = class.py();
        let _call = gil::Call::begin(py);
        let failed = |error| to_py_err(py, &error, None);
        let policies = policies.as_ref().map(paths).transpose()?.unwrap_or_default();
        // In this language's words: that of the command names its options.
        fs::metadata(&path).map_err(|error| {
            let detail = format!("{}: {error}", path.display());
            failed(
                Error::new(ErrorKind::Io, "cannot read the configuration, which keyfold.init makes")
                    .with_detail(detail),
            )
        })?;
        let passphrase = passphrase.map(HostObject::new);
        let host_keks = objects_of(host_keks);
        let options = Options {
            recovery: recovery.map(Recovery::with_reason).transpose().map_err(failed)?,
            passphrase: passphrase.clone().map(passphrase_source),
            host_keks: host_keks_of(&host_keks),
            records: records.as_ref().map(|records| Arc::from(records.as_bytes())),
            ..Options::default()
        };
        let mut config = py.import("keyfold._config")?.getattr("Config")?.call1((&path, policies.clone()))?;
        if let Some(records) = records {
            config = config.call_method1("with_records", (records,))?;
        }
        let config = config.unbind();
        // Nobody may fork between its opening and its registration.
        let _inside = Inside::new(py).map_err(failed)?;
        let ring = wait(py, async { keyfold_open::open_with(&path, &policies, &options) })?;
        let host_objects = host_keks.into_values().chain(passphrase).collect();
        let ring = Py::new(py, Self { ring, config, host_objects })?;
        py.import("keyfold._process")?.getattr("register")?.call1((&ring,))?;
        Ok(ring)
    }

    /// The files that the keyring was opened with, to open it elsewhere.
    #[getter]
    fn config(&self, py: Python<'_>) -> Py<PyAny> {
        self.config.clone_ref(py)
    }

    /// Return the field `name` of the policy, bound to the keys of `scope` and to `context`.
    ///
    /// Asks nobody: the keys are fetched when the field is first used. `context` is authenticated and stored nowhere: whoever
    /// decrypts gives an equal one. A deterministic field has a partition in the place of a scope: `partition` in its policy.
    ///
    /// Raises:
    ///     PolicyRefused: the policy has no such field, or gives it a partition, and there is a scope.
    ///     ConfigurationError: the configuration does not have the field's partition.
    ///     InvalidInput: a context key is empty or begins with `kf:`, or there are more than 32 pairs or 4,096 bytes.
    ///     KeyfoldError: kind `Closed`, after `close`.
    #[pyo3(signature = (name, /, *, scope = None, context = None))]
    fn field(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyString>,
        scope: Option<&Bound<'_, PyString>>,
        context: Option<&Bound<'_, PyMapping>>,
    ) -> PyResult<Field> {
        let py = name.py();
        let ring = &slf.get().ring;
        let name = utf8(name)?;
        let mut field = match ring.field(name) {
            Err(error) if error.kind() == ErrorKind::PolicyRefused => return Err(unknown_field(py, ring, name, error)),
            field => field.map_err(|error| to_py_err(py, &error, None))?,
        };
        if let Some(scope) = scope {
            check_scope(field.policy()).map_err(|error| to_py_err(py, &error, None))?;
            field = field.scope(utf8(scope)?);
        }
        if let Some(pairs) = context {
            field = field.context(context_of(pairs)?);
        }
        Ok(Field::new(slf.clone().unbind(), field, scope.is_some()))
    }

    /// Return what protects and reveals JSON documents by the policy's paths, bound to the keys of `scope` and to `context`.
    ///
    /// Asks nobody: keys are fetched when it is first used. `pass_unmatched=True` passes documents that no field applies to as they are,
    /// instead of refusing them; `seal_sealed=True` protects values that look sealed already once more.
    ///
    /// Raises:
    ///     InvalidInput: as `field`.
    #[pyo3(signature = (*, scope = None, context = None, pass_unmatched = false, seal_sealed = false))]
    fn documents(
        slf: &Bound<'_, Self>,
        scope: Option<&Bound<'_, PyString>>,
        context: Option<&Bound<'_, PyMapping>>,
        pass_unmatched: bool,
        seal_sealed: bool,
    ) -> PyResult<Documents> {
        let scope = scope.map(|scope| utf8(scope).map(str::to_owned)).transpose()?;
        let context = context.map(context_of).transpose()?.unwrap_or_default();
        Ok(Documents::new(slf.clone().unbind(), scope, context, pass_unmatched, seal_sealed))
    }

    /// Return the names of the policy's fields.
    fn fields(&self) -> Vec<String> {
        names(&self.ring)
    }

    /// Return every key record, in the order of key IDs. Reads the whole store.
    ///
    /// Raises:
    ///     StoreError: the store failed.
    ///     KeyfoldError: kind `Closed`, after `close`.
    fn keys(&self, py: Python<'_>) -> PyResult<Vec<KeyInfo>> {
        let mut infos: Vec<KeyInfo> = Vec::new();
        let mut after = None;
        loop {
            let page = wait(py, self.open_ring(py)?.list(after, PAGE))?;
            let Some(last) = page.last() else { return Ok(infos) };
            after = Some(last.record.key_id());
            infos.extend(page.iter().map(|info| KeyInfo::of(&info.record, info.verified.is_ok())));
        }
    }

    /// Return a copy of all key records, for machines that do not reach the store: see `Config.with_records`.
    ///
    /// Holds no key in clear, and is believed nowhere without a root that a KEK opens: it may be sent in the open. Whoever has the
    /// KEK as well has every key. The format is that of `keyfold keys backup`.
    ///
    /// Raises:
    ///     StoreError: the store failed.
    fn records<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (backup, _) = wait(py, keyfold_open::backup(self.open_ring(py)?, Vec::new()))?;
        Ok(PyBytes::new(py, &backup))
    }

    /// Make the keys of a partition for deterministic fields, and return the section `[lookup.NAME]` to add to the configuration.
    ///
    /// Equal values in fields of different partitions cannot be told to be equal: one partition per study keeps studies apart.
    /// Keyrings that are opened after the section is there know the partition.
    ///
    /// Raises:
    ///     InvalidInput: `name` is empty or too long, or the configuration has it.
    ///     StoreError, KmsError, KeyRefused: repeating the call is safe.
    #[pyo3(signature = (name, /))]
    fn new_partition(&self, name: &Bound<'_, PyString>) -> PyResult<String> {
        let (py, name) = (name.py(), utf8(name)?);
        let keys = wait(py, self.open_ring(py)?.create_partition(name))?;
        Ok(keyfold::config::Config::partition(name, &keys))
    }

    /// Make the next key of `scope`, or of the keyring itself, and return it.
    ///
    /// It seals at once; where the configuration has a lead, it is `pre-active` until that has passed. Values under older keys
    /// still open: `Field.is_current` and `census` find them. However many processes rotate at once, one new key results.
    ///
    /// Raises:
    ///     NoMatchingKey: there is no such scope.
    ///     StoreError, KmsError, KeyRefused: repeating the call is safe.
    #[pyo3(signature = (scope = None, /))]
    fn rotate(&self, py: Python<'_>, scope: Option<&Bound<'_, PyString>>) -> PyResult<KeyInfo> {
        let scope = scope.map(utf8).transpose()?;
        let rotated = wait(py, self.open_ring(py)?.rotate_data_key(scope))?;
        Ok(KeyInfo::of(&rotated.new, true))
    }

    /// Make the wraps that are missing, by KEKs that were away or were configured later, and return how many were made.
    ///
    /// One request to unwrap each root and isolated key that lacks some, and two to each KEK that wraps it.
    ///
    /// Raises:
    ///     KmsError: a KEK did not wrap; what the others wrapped stays.
    ///     KeyRefused: no trusted root vouches for a record.
    ///     StoreError: the store failed.
    fn repair(&self, py: Python<'_>) -> PyResult<u64> {
        let mut repair = wait(py, self.open_ring(py)?.rewrap(RewrapOptions::default()))?;
        while !wait(py, repair.step(PAGE))?.done {}
        match repair.failures().values().next() {
            Some(error) => Err(to_py_err(py, error, None)),
            None => Ok(repair.progress().added),
        }
    }

    /// Renew the keys that are in use and due, forget what has idled, and record what was counted for the audit trail if its interval is over.
    ///
    /// Call it every few seconds, from a thread or a task of its own, and no call waits for a renewal. Without it counts are recorded
    /// with the next event of another kind, before a fork, and when the keyring is closed or nobody has it any more.
    ///
    /// Raises:
    ///     KmsError, StoreError, KeyRefused: the last error of a renewal, or of recording; the others were tried all the same.
    ///     KeyfoldError: kind `Closed`, after `close`.
    fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, self.open_ring(py)?.refresh())
    }

    fn _before_fork(&self, py: Python<'_>) {
        gil::detach(py, || self.ring.before_fork());
    }

    /// End the keyring: it and its fields raise `KeyfoldError` of kind `Closed` from now on.
    ///
    /// KEKs are dropped, and keys erased but for those that a `Field`, `Documents` or stream has used: they stay in memory, with those of
    /// the root above them, until nobody has that object any more. The audit KEK stays until the keyring and all of them are gone.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        // Refused in a child whose parent's threads held locks: closing would wait for them.
        let _ = detached(py, || {
            self.ring.close();
            Ok(())
        });
        log::pass_on(py)
    }

    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        slf.get().open_ring(slf.py())?;
        Ok(slf.clone())
    }

    #[pyo3(signature = (kind, value, traceback, /))]
    #[expect(unused_variables, reason = "whatever ended the block, the keyring is closed")]
    fn __exit__(&self, py: Python<'_>, kind: Py<PyAny>, value: Py<PyAny>, traceback: Py<PyAny>) -> PyResult<()> {
        self.close(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.host_objects.iter().try_for_each(|object| object.traverse(&visit))?;
        visit.call(&self.config)
    }

    fn __clear__(&self) {
        self.host_objects.iter().for_each(HostObject::clear);
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a keyring holds keys and cannot be copied: send its `config`, and open that"))
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.Keyring {}>", self.ring.lineage())
    }
}

fn objects_of(objects: Option<BTreeMap<String, Py<PyAny>>>) -> BTreeMap<String, HostObject> {
    objects.unwrap_or_default().into_iter().map(|(name, object)| (name, HostObject::new(object))).collect()
}

/// The paths in `list`. One path is none, though a text can be iterated as well.
fn paths(list: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
    if list.is_instance_of::<PyString>() || list.is_instance_of::<PyBytes>() || list.hasattr("__fspath__")? {
        return Err(PyTypeError::new_err("policies is a list of paths, not one path: policies=[path]"));
    }
    list.try_iter()?.map(|path| path?.extract()).collect()
}

/// That the policy has no field `name`, with the names that it may have been meant for.
fn unknown_field(py: Python<'_>, ring: &keyfold::Keyring, name: &str, error: Error) -> PyErr {
    let names = names(ring);
    let near = py.import("difflib").and_then(|module| module.getattr("get_close_matches")?.call1((name, &names)));
    let near: Vec<String> = near.and_then(|near| near.extract()).unwrap_or_default();
    let hint = match &near[..] {
        [] => format!(
            "it has {}; a program names fields, not columns",
            if names.is_empty() { "none".to_owned() } else { listed(&names) }
        ),
        near => format!("perhaps {}", near.join(" or ")),
    };
    to_py_err(py, &error.with_detail(format!("{name} ({hint})")), None)
}

fn names(ring: &keyfold::Keyring) -> Vec<String> {
    ring.policy().fields().map(|field| field.name.clone()).collect()
}

/// The first of `names`.
fn listed(names: &[String]) -> String {
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - rest].join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}

/// Refuses a scope for a field whose partition takes its place; unless values of the other mode may be in the field still.
fn check_scope(policy: &FieldPolicy) -> Result<(), Error> {
    match &policy.mode {
        FieldMode::Deterministic { partition, .. } if !policy.accepted_suites.contains(&Suite::Field) => {
            let why = "a deterministic field has a partition in the place of a scope: `partition` in its policy";
            let detail = format!("{} is in {partition}", policy.name);
            Err(Error::new(ErrorKind::PolicyRefused, why).with_detail(detail))
        }
        _ => Ok(()),
    }
}

pub(crate) fn utf8<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a str> {
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

/// A key, as its record says.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct KeyInfo {
    /// The key ID in hexadecimal.
    key_id: String,
    /// Its number among all keys of the keyring: a later key has a higher one.
    generation: u32,
    /// What it is for: "root", "data", "lookup" and others.
    kind: &'static str,
    /// `pre-active`, `active`, `deactivated`, `compromised`, `destroy-pending` or `destroyed`.
    state: &'static str,
    /// When it was made, in seconds since 1970 by the store's clock.
    created_at: u64,
    /// The aliases of the KEKs that wrap it, if KEKs do.
    keks: Vec<String>,
    /// Whether a trusted root vouches for the record.
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

/// Make a keyring in `folder`, and return the path of its configuration.
///
/// `keks` are the URIs of the KEKs that wrap its root, by alias, as in `[keks.ALIAS]` of the configuration; each is asked to wrap and
/// to unwrap. Without any, a new file in `folder` is the KEK, for one machine and for tests: whoever has the folder has every key.
/// `store` is the URI of a PostgreSQL store; without it the key records are a file in `folder`. Paths in URIs are relative to `folder`,
/// and URIs are written into the configuration as they are, passwords too. `passphrase` and `host_keks` are those of `Keyring.open`.
///
/// Raises:
///     StoreError: the folder holds a keyring already, or cannot be written; or the store failed. What was there is untouched.
///     ConfigurationError: a URI is not that of a store or KEK that this build knows, or names a KEK that `host_keks` lacks, or
///         one of `host_keks` is named by no URI.
///     KmsError: a KEK does not wrap or unwrap.
///     InvalidInput: `environment` is no environment, or an alias no alias.
///     Whatever is raised, nothing is left in `folder`.
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
    let passphrase = passphrase.map(HostObject::new).map(passphrase_source);
    let options = Options { passphrase, host_keks: host_keks_of(&objects_of(host_keks)), ..Options::default() };
    let new = NewKeyring { name: name.to_owned(), environment: environment.to_owned(), store, keks };
    wait(py, keyfold_open::init_with(&folder, &new, &options)).map(|made| made.config)
}

/// The fields of a configuration and of `policies`, read from the files alone: of each whether it binds its row, and its type.
#[pyfunction]
#[pyo3(signature = (path, policies, /))]
pub(crate) fn _read_policy(
    py: Python<'_>,
    path: PathBuf,
    policies: Vec<PathBuf>,
) -> PyResult<BTreeMap<String, (bool, Option<&'static str>)>> {
    let config = gil::detach(py, || keyfold_open::read_config(&path, &policies));
    let config = config.map_err(|error| to_py_err(py, &error, None))?;
    let fields = config.keyring.policy.fields();
    let told = |field: &FieldPolicy| (field.row_binding != RowBinding::None, field.value_type.map(ValueType::name));
    Ok(fields.map(|field| (field.name.clone(), told(field))).collect())
}
