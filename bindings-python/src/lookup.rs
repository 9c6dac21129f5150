//! Blind indexes, and values that keep their format: what a database compares, and what stands where nothing else fits.

use crate::arrow;
use crate::errors::to_py_err;
use crate::fork::detached;
use crate::keyring::Keyring;
use crate::many;
use crate::value::{Taken, not_utf8};
use crate::wait::wait;
use keyfold::{Error, ErrorKind, FieldPolicy, FormatPreserver, Indexer, RowError, Token, ValueType};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyList, PyString};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// A blind index of a field: what is stored beside its values so that they are found without being opened.
///
/// A token is an `int` of 0 to 2^63 - 1, or 32 `bytes` where the policy says `bits = 256`. Rows with equal tokens may have equal
/// values, and whoever searches opens what he finds and compares. Tokens are bound to the field, the context and the partition, to no
/// row and no scope. Make it once and share it between threads.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Index {
    field: keyfold::Field,
    name: String,
    indexer: OnceLock<Indexer>,
    /// Kept, and last, as of a field.
    _ring: Py<Keyring>,
}

impl Index {
    /// The index `name` of `field`.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field has no such index.
    pub(crate) fn new(ring: Py<Keyring>, field: keyfold::Field, name: &str) -> Result<Self, Error> {
        let policy = field.policy();
        if !policy.indexes.iter().any(|index| index.name == name) {
            let has: Vec<&str> = policy.indexes.iter().map(|index| index.name.as_str()).collect();
            let detail = format!("{} has {}", policy.name, if has.is_empty() { "none".into() } else { has.join(", ") });
            return Err(Error::new(ErrorKind::PolicyRefused, "the field has no such index").with_detail(detail));
        }
        Ok(Self { _ring: ring, field, name: name.to_owned(), indexer: OnceLock::new() })
    }

    pub(crate) fn policy(&self) -> &FieldPolicy {
        self.field.policy()
    }

    pub(crate) fn value_type(&self) -> Option<ValueType> {
        self.policy().value_type
    }

    /// The handle that makes tokens, under keys that may be used now.
    pub(crate) fn indexer(&self, py: Python<'_>) -> PyResult<&Indexer> {
        match self.indexer.get() {
            Some(indexer) => wait(py, indexer.ready()),
            None => {
                let made = wait(py, self.field.clone().indexer(&self.name))?;
                Ok(self.indexer.get_or_init(|| made))
            }
        }
    }
}

#[pymethods]
impl Index {
    /// Return what to store of `value`: one token; of prefixes one per length, sorted; none of what has nothing to find, an empty text say.
    ///
    /// Raises:
    ///     TypeError: `value` has a type that `Field` does not list.
    ///     InvalidInput: another type than the policy says, or the index has no normal form of it: no telephone number, no date.
    ///     PolicyRefused: a context key is missing that the policy requires.
    ///     KeyRefused, KmsError, StoreError: no key of the partition could be had.
    #[pyo3(signature = (value, /))]
    fn tokens<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type())?;
        let indexer = self.indexer(py)?;
        let tokens = detached(py, || indexer.tokens(taken.value())).map_err(|error| to_py_err(py, &error, None))?;
        tokens_to_python(py, &tokens)
    }

    /// Return the tokens of each of `values`, in their order; none of None.
    ///
    /// Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `tokens`, with the row in `.row`.
    #[pyo3(signature = (values, /))]
    fn tokens_many<'py>(&self, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        many::tokens(self, values)
    }

    /// Return the column of the tokens of `data`, whatever `Field.encrypt_column` takes: int64, or binary for 256 bits.
    ///
    /// What has no token is null. Of an index of prefixes it is a column of lists of these, since a value has several.
    ///
    /// Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `tokens`, with the row in `.row`; TypeError, InvalidInput: as `Field.encrypt_column`.
    #[pyo3(signature = (data, /))]
    fn tokens_column<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        arrow::tokens(self, data)
    }

    /// Return what to look for to find `value`: one token per live key of the partition, that of the present key first.
    ///
    /// A row that has any of them may have the value, or start with it.
    ///
    /// Raises:
    ///     As `tokens`. InvalidInput as well where there is nothing to find, or the prefix is shorter than the shortest of the index.
    #[pyo3(signature = (value, /))]
    fn search_tokens<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type())?;
        let indexer = self.indexer(py)?;
        let found =
            detached(py, || indexer.search_tokens(taken.value())).map_err(|error| to_py_err(py, &error, None))?;
        tokens_to_python(py, &found)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self._ring)
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.Index '{}' of '{}'>", self.name, self.policy().name)
    }
}

/// Tokens as a list of Python's numbers or bytes.
pub(crate) fn tokens_to_python<'py>(py: Python<'py>, tokens: &[Token]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for token in tokens {
        match token {
            Token::Integer(number) => list.append(number)?,
            Token::Bytes(bytes) => list.append(PyBytes::new(py, bytes))?,
        }
    }
    Ok(list)
}

/// Which way values that keep their format go.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    Encrypt,
    Decrypt,
}

impl Way {
    /// What becomes of each of `texts`.
    pub(crate) fn column(
        self,
        preserver: &FormatPreserver,
        texts: &[&str],
    ) -> Result<Vec<Zeroizing<String>>, RowError> {
        match self {
            Self::Encrypt => preserver.encrypt_column(texts),
            Self::Decrypt => preserver.decrypt_column(texts),
        }
    }
}

/// Replaces texts of a field by others of the same format, and back: for systems that take nothing else. NOT AUTHENTICATED.
///
/// Every text of the format opens to some value: what was changed, moved to another row or sealed under another key is not noticed.
/// Equal values are replaced by equal ones. Bound to the field, its context, the partition and the format, to no row and no scope.
/// Make it once and share it between threads.
#[pyclass(module = "keyfold", name = "FormatPreserver", frozen)]
pub(crate) struct Preserver {
    field: keyfold::Field,
    preserver: OnceLock<FormatPreserver>,
    /// As of an index.
    _ring: Py<Keyring>,
}

impl Preserver {
    pub(crate) fn new(ring: Py<Keyring>, field: keyfold::Field) -> Self {
        Self { _ring: ring, field, preserver: OnceLock::new() }
    }

    /// The handle that replaces values, under a key that may be used now.
    pub(crate) fn preserver(&self, py: Python<'_>) -> PyResult<&FormatPreserver> {
        match self.preserver.get() {
            Some(preserver) => wait(py, preserver.ready()),
            None => {
                let made = wait(py, self.field.clone().format_preserver())?;
                Ok(self.preserver.get_or_init(|| made))
            }
        }
    }

    fn one(&self, way: Way, text: &Bound<'_, PyString>) -> PyResult<String> {
        let py = text.py();
        let text = text_of(text)?;
        let preserver = self.preserver(py)?;
        let replaced = detached(py, || match way {
            Way::Encrypt => preserver.encrypt(&text),
            Way::Decrypt => preserver.decrypt(&text).map(|text| text.as_str().to_owned()),
        });
        replaced.map_err(|error| to_py_err(py, &error, None))
    }
}

#[pymethods]
impl Preserver {
    /// Return the text that stands in the place of `value`: as long, with the same separators.
    ///
    /// Raises:
    ///     InvalidInput: not of the format; or fewer than 1,000,000 texts are, or it has more than 256 characters that vary.
    ///     PolicyRefused: the values of the field do not keep their format, or a context key is missing.
    ///     ConfigurationError: the partition has more than one key, and a value does not say its own.
    ///     KeyRefused, KmsError, StoreError: the key could not be had.
    #[pyo3(signature = (value, /))]
    fn encrypt(&self, value: &Bound<'_, PyString>) -> PyResult<String> {
        self.one(Way::Encrypt, value)
    }

    /// Return the value that `text` stands for. Nothing shows whether `encrypt` has made it.
    ///
    /// Raises:
    ///     As `encrypt`.
    #[pyo3(signature = (text, /))]
    fn decrypt(&self, text: &Bound<'_, PyString>) -> PyResult<String> {
        self.one(Way::Decrypt, text)
    }

    /// Return what stands in the place of each of `values`, in their order. None stays None, and is not protected.
    ///
    /// Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `encrypt`, with the row in `.row`.
    #[pyo3(signature = (values, /))]
    fn encrypt_many<'py>(&self, values: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        many::replace(self, Way::Encrypt, values)
    }

    /// Return the value that each of `texts` stands for, in their order. None stays None.
    ///
    /// Raises:
    ///     As `encrypt`, with the row in `.row`.
    #[pyo3(signature = (texts, /))]
    fn decrypt_many<'py>(&self, texts: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        many::replace(self, Way::Decrypt, texts)
    }

    /// Return the column of text `data` with each value replaced, as the kind of object that `data` is. Nulls stay null.
    ///
    /// Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `encrypt`, with the row in `.row`; TypeError: `data` has none of Arrow's interfaces; InvalidInput: it is not of text.
    #[pyo3(signature = (data, /))]
    fn encrypt_column<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        arrow::replace(self, Way::Encrypt, data)
    }

    /// Return the column of text `data` with the value that each text stands for. Nulls stay null.
    ///
    /// Raises:
    ///     As `encrypt_column`.
    #[pyo3(signature = (data, /))]
    fn decrypt_column<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        arrow::replace(self, Way::Decrypt, data)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self._ring)
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.FormatPreserver '{}', not authenticated>", self.field.policy().name)
    }
}

/// A text that is to be replaced.
pub(crate) fn text_of(value: &Bound<'_, PyAny>) -> PyResult<PyBackedStr> {
    let Ok(text) = value.cast::<PyString>() else {
        let name = value.get_type().qualname()?;
        return Err(PyTypeError::new_err(format!("a value that keeps its format is str, not {name}")));
    };
    PyBackedStr::try_from(text.clone()).map_err(|_| not_utf8(value.py()))
}
