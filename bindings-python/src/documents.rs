//! JSON documents, protected and revealed in place by the policy's paths.

use crate::errors::{at_row, to_py_err};
use crate::gil;
use crate::keyring::Keyring;
use crate::value::not_utf8;
use crate::wait::{wait, wait_for};
use keyfold::{Context, Error};
use keyfold_documents::{Direction, DocumentCipher, DocumentError, DocumentOptions, DocumentText, FieldKeys};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBytes, PyList, PyString};
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Where a chunk ends: some milliseconds of work, after which Ctrl-C is heard.
const CHUNK_BYTES: usize = 1024 * 1024;

/// JSON documents whose values the paths of the policy select: replaced in place, every other byte as it is. Make it once and share it
/// between threads.
///
/// Fields may be of any mode but "token". Those of "document" are sealed together, under one header and, as the `[documents]` section
/// says, a manifest that shows which protected values there are. What the command `keyfold` protects is revealed here, and the other way
/// round.
///
/// Its methods ask the store and the key service when keys are first needed or due to be renewed, and let go of the GIL.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Documents {
    scope: Option<String>,
    context: Context,
    options: DocumentOptions,
    seal_sealed: bool,
    // Made when first used, as those of a field are.
    protect: OnceLock<DocumentCipher<'static>>,
    reveal: OnceLock<DocumentCipher<'static>>,
    /// Last, as of a field.
    ring: Py<Keyring>,
}

impl Documents {
    pub(crate) fn new(
        ring: Py<Keyring>,
        scope: Option<String>,
        context: Context,
        pass_unmatched: bool,
        seal_sealed: bool,
    ) -> Self {
        let options = DocumentOptions { pass_unmatched, many_lines: true };
        Self { ring, scope, context, options, seal_sealed, protect: OnceLock::new(), reveal: OnceLock::new() }
    }

    fn cipher(&self, py: Python<'_>, direction: Direction) -> PyResult<&DocumentCipher<'static>> {
        let place = if direction == Direction::Reveal { &self.reveal } else { &self.protect };
        if let Some(cipher) = place.get() {
            return Ok(cipher);
        }
        let ring = self.ring.get().open_ring(py)?;
        let keys =
            FieldKeys { ring, direction, scope: self.scope.as_deref(), context: self.context.clone(), tokens: None };
        let made = wait(py, async { DocumentCipher::new(&keys, self.options).map_err(Error::from) })?;
        Ok(place.get_or_init(|| made))
    }

    const fn protecting(&self) -> Direction {
        Direction::Protect { seal_sealed: self.seal_sealed }
    }

    fn one<'py>(&self, document: &Bound<'py, PyAny>, direction: Direction) -> PyResult<Bound<'py, PyAny>> {
        let py = document.py();
        let given = Given::from(document)?;
        let cipher = self.cipher(py, direction)?;
        let texts = [DocumentText { content: given.bytes(), line: 1 }];
        let made = wait(py, async { cipher.transform_all(&texts).map_err(Error::from) })?;
        let text = made.texts.into_iter().next().unwrap_or_default();
        given.give_back(py, &text)
    }

    fn many<'py>(&self, documents: &Bound<'py, PyAny>, direction: Direction) -> PyResult<Bound<'py, PyList>> {
        let py = documents.py();
        let _call = gil::Call::begin(py);
        // One text is no list of its letters.
        if documents.is_instance_of::<PyString>() || documents.is_instance_of::<PyBytes>() {
            let name = documents.get_type().qualname()?;
            return Err(PyTypeError::new_err(format!("many documents are a list of them, not one {name}")));
        }
        let cipher = self.cipher(py, direction)?;
        let out = PyList::empty(py);
        let mut left = documents.try_iter()?;
        loop {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while bytes < CHUNK_BYTES
                && let Some(document) = left.next().transpose()?
            {
                let row = out.len() + chunk.len();
                let given = Given::from(&document).map_err(|error| at_row(py, error, row))?;
                bytes += given.bytes().len();
                chunk.push(given);
            }
            if chunk.is_empty() {
                return Ok(out);
            }
            let texts: Vec<_> = chunk.iter().map(|given| DocumentText { content: given.bytes(), line: 1 }).collect();
            let made = wait_for(py, async { cipher.transform_all(&texts) })?.map_err(|error: DocumentError| {
                let index = error.index();
                let raised = to_py_err(py, &error.into(), None);
                match index {
                    Some(index) => at_row(py, raised, out.len() + index),
                    None => raised,
                }
            })?;
            for (given, text) in chunk.iter().zip(&made.texts) {
                out.append(given.give_back(py, text)?)?;
            }
        }
    }
}

#[pymethods]
impl Documents {
    /// Return the JSON text `document`, `str` or `bytes`, with the values protected that the policy's paths select.
    ///
    /// Raises:
    ///     TypeError: `document` is neither.
    ///     InvalidInput: not one JSON document, two members of one name, more than 16 MiB; a value of another type than the policy says;
    ///         the row binding is not there once.
    ///     PolicyRefused: no field applies; a value looks sealed already; the policy does not say where a field is in JSON; a field has
    ///         random tokens, which the command alone has a table of; a context key is missing.
    ///     ConfigurationError: a path is not one of RFC 9535.
    ///     KeyRefused, KmsError, StoreError: no key could be had; nothing was sealed.
    #[pyo3(signature = (document, /))]
    fn protect<'py>(&self, document: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.one(document, self.protecting())
    }

    /// Return the protected JSON text `document` as it was, byte for byte.
    ///
    /// Raises:
    ///     TypeError, PolicyRefused, ConfigurationError: as `protect`. PolicyRefused as well where a manifest is missing that is required.
    ///     InvalidInput, FormatError: a value is not sealed; plaintext is never passed through.
    ///     DecryptionFailed: values were moved, copied, dropped or changed, or scope, context or row is not the right one.
    ///     NoMatchingKey, KeyRefused, KmsError, StoreError: as `Field.decrypt`.
    #[pyo3(signature = (document, /))]
    fn reveal<'py>(&self, document: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.one(document, Direction::Reveal)
    }

    /// Return all `documents` protected, in their order.
    ///
    /// Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `protect`, with the number of the document, from 0, in `.row`.
    #[pyo3(signature = (documents, /))]
    fn protect_many<'py>(&self, documents: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        self.many(documents, self.protecting())
    }

    /// Return all `documents` revealed, in their order.
    ///
    /// Raises:
    ///     As `reveal`, with the number of the document, from 0, in `.row`.
    #[pyo3(signature = (documents, /))]
    fn reveal_many<'py>(&self, documents: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        self.many(documents, Direction::Reveal)
    }

    /// Refuse fields that applied to documents and selected nothing in all that were protected so far: a path with a typo leaves values in
    /// clear. Call it after the last document, as the command does at the end of a file.
    ///
    /// Raises:
    ///     PolicyRefused: a field selected nothing, and is not `optional` in the policy.
    fn refuse_unused(&self, py: Python<'_>) -> PyResult<()> {
        match self.protect.get() {
            Some(cipher) => cipher.refuse_unused().map_err(|error| to_py_err(py, &error.into(), None)),
            None => Ok(()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.ring)
    }

    fn __repr__(&self) -> String {
        format!("<keyfold.Documents{}>", if self.scope.is_some() { " in a scope" } else { "" })
    }
}

/// A document as the caller has it.
enum Given {
    Text(PyBackedStr),
    Bytes(PyBackedBytes),
}

impl Given {
    fn from(document: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(text) = document.cast::<PyString>() {
            return PyBackedStr::try_from(text.clone()).map(Self::Text).map_err(|_| not_utf8(document.py()));
        }
        match document.cast::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes.clone().into())),
            Err(_) => {
                let name = document.get_type().qualname()?;
                Err(PyTypeError::new_err(format!("a document is its JSON text as str or bytes, not {name}")))
            }
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// `text`, as the kind of object that this is.
    fn give_back<'py>(&self, py: Python<'py>, text: &Zeroizing<Vec<u8>>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Text(_) => PyString::new(py, str::from_utf8(text).map_err(|_| not_utf8(py))?).into_any(),
            Self::Bytes(_) => PyBytes::new(py, text).into_any(),
        })
    }
}
