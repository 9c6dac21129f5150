//! Objects of Python as key services.

use crate::host_call;
use keyfold::{Error, ErrorKind, KmsContext, KmsErrorKind, Secret, WrappedKey};
use keyfold_kms::callback::CallbackKek;
use keyfold_kms::layer::{Again, Attempt, Failure, Limits};
use keyfold_open::{HostKek, PassphraseSource};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyDict};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use zeroize::Zeroizing;

const ENDING: Failure = Failure::new(KmsErrorKind::Unavailable, "the interpreter is ending").again(Again::No);
const NO_PASSPHRASE: Error = Error::new(ErrorKind::Configuration, "the function that asks for a passphrase gave none");
const NOT_WRAPPED: Failure = Failure::malformed("wrap() returns bytes, or a version (str) and bytes");
const NOT_UNWRAPPED: Failure = Failure::malformed("unwrap() returns the bytes that were wrapped");

/// An object of the program that its keyring calls. It may refer to the keyring in turn, so the keyring shows it to Python's collector,
/// which empties it when nothing else refers to either.
#[derive(Clone)]
pub(crate) struct HostObject(Arc<Mutex<Option<Py<PyAny>>>>);

impl HostObject {
    pub(crate) fn new(object: Py<PyAny>) -> Self {
        Self(Arc::new(Mutex::new(Some(object))))
    }

    fn bind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let object = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let object = object.as_ref().map(|object| object.bind(py).clone());
        object.ok_or_else(|| PyRuntimeError::new_err("the keyring has been collected"))
    }

    pub(crate) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever has the lock has the GIL as well, so nobody has it now.
        self.0.try_lock().map_or(Ok(()), |object| visit.call(&*object))
    }

    pub(crate) fn clear(&self) {
        let object = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Without the lock: its end may run code of the program.
        drop(object);
    }
}

/// The KEKs that objects reach, by the names that configurations give them.
pub(crate) fn host_keks_of(objects: &BTreeMap<String, HostObject>) -> BTreeMap<String, HostKek> {
    objects.iter().map(|(name, object)| (name.clone(), host_kek(name.clone(), object.clone()))).collect()
}

/// The KEK that the methods `wrap` and `unwrap` of `object` reach.
fn host_kek(name: String, object: HostObject) -> HostKek {
    Arc::new(move |deadline| Ok(Arc::new(callback_kek(&name, deadline, &object)?)))
}

fn callback_kek(name: &str, deadline: Option<Duration>, object: &HostObject) -> Result<CallbackKek, Error> {
    let [wrapper, unwrapper] = [object.clone(), object.clone()];
    let mut limits = Limits::default();
    limits.deadline = deadline.unwrap_or(limits.deadline);
    CallbackKek::blocking(
        name,
        limits,
        move |payload, context| {
            let called = host_call::call(
                |py| {
                    let arguments = (PyBytes::new(py, payload.expose()), pairs_of(py, context)?).into_pyobject(py)?;
                    Ok((wrapper.bind(py)?.getattr("wrap")?, arguments))
                },
                |py, answer| wrapped(answer.map_err(|error| failure(py, &error))?),
            );
            called.unwrap_or(Err(ENDING))
        },
        move |wrapped, context| {
            let called = host_call::call(
                |py| {
                    let (bytes, version) = (PyBytes::new(py, &wrapped.bytes), &wrapped.kek_version);
                    let arguments = (bytes, pairs_of(py, context)?, version).into_pyobject(py)?;
                    Ok((unwrapper.bind(py)?.getattr("unwrap")?, arguments))
                },
                |py, answer| unwrapped(&answer.map_err(|error| failure(py, &error))?),
            );
            called.unwrap_or(Err(ENDING))
        },
    )
}

/// The source of passphrases that `ask` is: it gets the alias of the KEK.
pub(crate) fn passphrase_source(ask: HostObject) -> PassphraseSource {
    Arc::new(move |alias| {
        let asked = host_call::call(
            |py| Ok((ask.bind(py)?, (alias.as_str(),).into_pyobject(py)?)),
            |_, answer| match answer.and_then(|asked| asked.extract::<String>()) {
                Ok(passphrase) => Ok(Zeroizing::new(passphrase)),
                Err(raised) => Err(NO_PASSPHRASE.with_source(raised)),
            },
        );
        asked.unwrap_or(Err(NO_PASSPHRASE)).map_err(|error| error.with_detail(alias.as_str()))
    })
}

/// What `wrap` returned.
fn wrapped(answer: Bound<'_, PyAny>) -> Attempt<WrappedKey> {
    if let Ok(bytes) = answer.extract() {
        return Ok(WrappedKey { kek_version: String::new(), bytes });
    }
    let (kek_version, bytes) = answer.extract().map_err(|_| NOT_WRAPPED)?;
    Ok(WrappedKey { kek_version, bytes })
}

/// What `unwrap` returned.
fn unwrapped(answer: &Bound<'_, PyAny>) -> Attempt<Secret<64>> {
    let payload = answer.cast::<PyBytes>().map_err(|_| NOT_UNWRAPPED)?.as_bytes();
    Secret::try_with(|secret| {
        *secret = payload.try_into().map_err(|_| NOT_UNWRAPPED)?;
        Ok(())
    })
}

fn pairs_of<'py>(py: Python<'py>, context: &KmsContext) -> PyResult<Bound<'py, PyDict>> {
    let pairs = PyDict::new(py);
    for (name, value) in context.pairs() {
        pairs.set_item(name, value)?;
    }
    Ok(pairs)
}

/// What an exception of the object says. Its text is left out: it may hold what a service wrote, or the payload.
fn failure(py: Python<'_>, error: &PyErr) -> Failure {
    classified(py, error).unwrap_or_else(|| {
        let name = error.get_type(py).qualname().map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
        Failure::new(KmsErrorKind::Rejected, "the program's key service raised an exception that is no KmsFailure")
            .detail(name)
    })
}

/// The failure that a `KmsFailure` names.
fn classified(py: Python<'_>, error: &PyErr) -> Option<Failure> {
    let class = py.import("keyfold._kms").and_then(|module| module.getattr("KmsFailure")).ok()?;
    let value = error.value(py);
    if !value.is_instance(&class).ok()? {
        return None;
    }
    let name: String = value.getattr("kind").ok()?.extract().ok()?;
    let kind = *KmsErrorKind::ALL.iter().find(|kind| kind.name() == name)?;
    let failure = Failure::new(kind, "the program's key service failed").detail(name);
    Some(match value.getattr("retryable").ok()?.extract().ok()? {
        true => failure.again(Again::Later),
        false => failure.again(Again::No),
    })
}
