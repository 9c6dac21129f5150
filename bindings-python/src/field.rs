//! Fields: handles that encrypt and decrypt one value, or find it.

use crate::arrow;
use crate::errors::to_py_err;
use crate::fork::detached;
use crate::inspect::{refuse_sealed, sealed_bytes};
use crate::keyring::{Keyring, utf8};
use crate::lookup::{Index, Preserver};
use crate::many;
use crate::stream::{Opening, Sealing, header_of};
use crate::value::{Taken, row_binding, to_python};
use crate::wait::wait;
use keyfold::{
    Decryptor, Encryptor, Error, ErrorKind, FieldMode, FieldPolicy, RowBinding, Searcher, StreamOpener, StreamSealer,
    ValueType,
};
use pyo3::prelude::*;
use pyo3::pyclass::{PyTraverseError, PyVisit};
use pyo3::types::{PyBool, PyBytes, PyList, PyString};
use std::sync::OnceLock;

/// Values longer than this are sealed and opened without the GIL; for shorter ones letting go of it takes longer.
const LONG: usize = 16 * 1024;

/// A field of the policy, bound to scope and context. Make it once and share it between threads.
///
/// Its methods ask the store and the key service when keys are first needed or due to be renewed; the GIL is let go of for
/// that, and for values of more than 16 KiB. Between, a call asks nobody.
///
/// A value is a `str`, `bytes`, `bytearray`, `memoryview`, `int` of up to 128 bits, `float`, `bool`, `date`, `datetime` with a
/// time zone, or `Decimal`, as the policy says; each opens as it was, buffers as `bytes` and datetimes in UTC. None is no
/// value. A buffer is copied before it is sealed.
#[pyclass(module = "keyfold", frozen)]
pub(crate) struct Field {
    field: keyfold::Field,
    pub(crate) value_type: Option<ValueType>,
    /// Whether it is bound to a scope of that name. Which one, and the context, are for nobody's eyes.
    has_scope: bool,
    // Made when first used. Two threads may both make one, and one of them stays: nobody waits for the other, who may be
    // asking a key service.
    encryptor: OnceLock<Encryptor>,
    decryptor: OnceLock<Decryptor>,
    searcher: OnceLock<Searcher>,
    stream_sealer: OnceLock<StreamSealer>,
    stream_opener: OnceLock<StreamOpener>,
    /// Kept, so that it is made ready for forks as long as a field of it is used. Dropped last: its object is forgotten then, and a fork that
    /// follows at once would find the store open that any other part of this one still holds.
    ring: Py<Keyring>,
}

impl Field {
    pub(crate) fn new(ring: Py<Keyring>, field: keyfold::Field, has_scope: bool) -> Self {
        let value_type = field.policy().value_type;
        Self {
            ring,
            field,
            value_type,
            has_scope,
            encryptor: OnceLock::new(),
            decryptor: OnceLock::new(),
            searcher: OnceLock::new(),
            stream_sealer: OnceLock::new(),
            stream_opener: OnceLock::new(),
        }
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
    /// Return `value` sealed, bound to `row` where the policy binds rows.
    ///
    /// Makes the scope if the keyring has none of that name.
    ///
    /// Raises:
    ///     TypeError: `value` or `row` has a type that is not listed above.
    ///     InvalidInput: another type than the policy says, no Unicode (a lone surrogate), a datetime without a time zone, a value
    ///         of more than 1 MiB, `row` missing, or given where the policy does not bind rows.
    ///     PolicyRefused: a context key is missing that the policy requires.
    ///     KeyRefused: no key of the scope seals.
    ///     KmsError, StoreError: no key could be had; nothing was sealed.
    #[pyo3(signature = (value, /, *, row = None, seal_sealed = false))]
    fn encrypt<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        row: Option<&Bound<'py, PyAny>>,
        seal_sealed: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type)?;
        let row = row_binding(row)?;
        let row = row.as_deref();
        let failed = |error| to_py_err(py, &error, None);
        if !seal_sealed {
            refuse_sealed(taken.value()).map_err(failed)?;
        }
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

    /// Return the value in `sealed`, in binary or text form, which must be bound to `row`.
    ///
    /// Raises:
    ///     FormatError: not a sealed value, or one that this version, or Python's calendar, cannot hold.
    ///     DecryptionFailed: value, row, context or field is not the right one; which one is not told.
    ///     NoMatchingKey: the keyring has no such key, or no such scope.
    ///     KeyRefused: the key belongs to another scope, or its state does not let it open.
    ///     PolicyRefused: the policy does not accept values of this form.
    ///     KmsError, StoreError: the key could not be had.
    #[pyo3(signature = (sealed, /, *, row = None))]
    fn decrypt<'py>(&self, sealed: &Bound<'py, PyAny>, row: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        let py = sealed.py();
        let bytes = sealed_bytes(sealed)?;
        let row = row_binding(row)?;
        let row = row.as_deref();
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

    /// Return `values` sealed, in their order, each bound to its row of `rows`. None stays None, and is not protected.
    ///
    /// Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `encrypt`, with the row in `.row`. InvalidInput as well where `rows` and `values` differ in number.
    #[pyo3(signature = (values, /, *, rows = None, seal_sealed = false))]
    fn encrypt_many<'py>(
        &self,
        values: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        seal_sealed: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        many::encrypt(self, values, rows, seal_sealed)
    }

    /// Return the values in `sealed`, in their order. None stays None.
    ///
    /// With `on_error="null"` a value that does not open becomes None, and its error, with the row in `.row`, is added to
    /// `errors`; it should be looked at, as it may be tampering. A key service or a store that fails raises all the same.
    ///
    /// Works in chunks without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     As `decrypt`, with the row in `.row`. InvalidInput as well where `rows` and `sealed` differ in number.
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

    /// Return the column `data` sealed, each value bound to its row of `rows` where the policy binds rows. Nulls stay null.
    ///
    /// `data` is a column of pyarrow, Polars or pandas, and the result is one too, with the name and index of `data`; or any other
    /// object that has Arrow's C interfaces, a relation of DuckDB with one column say, and the result is an `ArrowArray` or
    /// `ArrowStream`. Values are text, bytes, booleans, dates, numbers (whole ones up to 2^63 - 1), decimals (with as many digits
    /// after the point as their type has) and timestamps with a time zone (whole microseconds). Rows are any of these: the bytes of
    /// bytes, otherwise of the value's one spelling as text (17, 2026-11-25, 2026-11-25T22:00:00Z), as in the command.
    ///
    /// Sealed values are Binary, or in text form Utf8; Large or View where `data` is. A column with a dictionary stays one in a
    /// deterministic field, and each of its values is sealed once; in other fields it is decoded.
    ///
    /// Of `data` no more than a batch is copied at a time, and sealed as it was read, but for decimals, of which a chunk is. Works
    /// without the GIL; Ctrl-C ends it within 50 ms, and nothing is returned. With `on_error="null"` a value that cannot be sealed
    /// becomes None, that is, is lost here, and its error, with the row in `.row`, is added to `errors`.
    ///
    /// Raises:
    ///     TypeError: `data` or `rows` has none of Arrow's interfaces.
    ///     InvalidInput: a type of Arrow that is not listed, or not the policy's; data that contradicts itself; with the row in
    ///         `.row`, a value that is not as above, a null row, or (whatever `on_error` is) too long a value or row; rows
    ///         missing, or not wanted, or not as many as values; more than 2 GiB sealed in one array that is not Large or View.
    ///     PolicyRefused, KeyRefused, KmsError, StoreError: as `encrypt`.
    #[pyo3(signature = (data, /, *, rows = None, form = "binary", on_error = "raise", errors = None, seal_sealed = false))]
    fn encrypt_column<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        form: &str,
        on_error: &str,
        errors: Option<&Bound<'py, PyList>>,
        seal_sealed: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrow::encrypt(self, data, rows, form, on_error, errors, seal_sealed)
    }

    /// Return the values in the column `data`, of bytes or of text in text form, each of its row of `rows`.
    ///
    /// The kinds of objects are those of `encrypt_column`. The values have the Arrow type `type`, an object with
    /// `__arrow_c_schema__` such as a `pyarrow.DataType`, or the name of a type of values as policies have it ("integer"); without
    /// it, that of the policy; without that, that of the first value, and text if there is none. Unless `type` says otherwise,
    /// whole numbers open as int64, others as float64, timestamps in microseconds of UTC, decimals and JSON as text; as a decimal
    /// type only what fits it. In pandas text opens as `str`.
    ///
    /// With `on_error="null"` a value that does not open, or whose row is null or too long, becomes null, and its error, with the row
    /// in `.row`, is added to `errors`; it should be looked at, as it may be tampering. A key service or a store that fails raises all
    /// the same.
    ///
    /// Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned. What is returned is the caller's,
    /// and is not erased.
    ///
    /// Raises:
    ///     TypeError, InvalidInput: as `encrypt_column`.
    ///     FormatError: not a sealed value, or one that the type cannot hold without loss; with the row in `.row`.
    ///     DecryptionFailed, NoMatchingKey, KeyRefused, PolicyRefused, KmsError, StoreError: as `decrypt`.
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

    /// Return what `value` looks like in a deterministic field: one ciphertext per live key, that of the present key first.
    ///
    /// A row whose column equals any of them has the value.
    ///
    /// Raises:
    ///     PolicyRefused: the field is not deterministic.
    ///     TypeError, InvalidInput, KmsError, StoreError: as `encrypt`.
    #[pyo3(signature = (value, /))]
    fn search<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let py = value.py();
        let taken = Taken::from(value, self.value_type)?;
        let searcher = self.searcher(py)?;
        let found =
            detached(py, || searcher.ciphertexts(taken.value())).map_err(|error| to_py_err(py, &error, None))?;
        Ok(found.iter().map(|sealed| PyBytes::new(py, sealed)).collect())
    }

    /// Return a binary file object that seals what is written to it into `file` ("wb"), or reads plaintext from the stream in `file` ("rb"),
    /// which must be bound to `row`. For fields whose mode is "stream".
    ///
    /// `file` is any binary file object: an open file, a socket's, one of fsspec. It is not closed. "wb" is an `io.BufferedIOBase`: only
    /// closing it, or leaving its `with` block without an exception, makes the stream complete. "rb" is an `io.BufferedReader`, and seekable if
    /// `file` is: a byte elsewhere costs one chunk of 16 KiB. It tells an end only where the stream ends; a stream that was cut or never finished
    /// raises in its place. What was read before says nothing about what follows.
    ///
    /// Raises:
    ///     FormatError: not a stream, or cut.
    ///     DecryptionFailed: stream, row, context or field is not the right one; which one is not told. Also while reading.
    ///     PolicyRefused: the field is none of streams.
    ///     InvalidInput: `row` missing, or given where the policy does not bind rows; another mode than "rb" and "wb".
    ///     TypeError: `file` is no binary file object.
    ///     NoMatchingKey, KeyRefused, KmsError, StoreError: as `decrypt` and `encrypt`.
    #[pyo3(signature = (file, mode = "rb", /, *, row = None))]
    fn open_stream<'py>(
        slf: &Bound<'py, Self>,
        file: &Bound<'py, PyAny>,
        mode: &str,
        row: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("keyfold._streams")?.call_method1("open_stream", (slf, file, mode, row))
    }

    /// Begin to seal a stream.
    fn _seal_stream(&self, py: Python<'_>, row: Option<&Bound<'_, PyAny>>) -> PyResult<Sealing> {
        let row = row_binding(row)?;
        let sealer = match self.stream_sealer.get() {
            Some(sealer) => wait(py, sealer.ready())?,
            None => {
                let made = wait(py, self.field.clone().stream_sealer())?;
                self.stream_sealer.get_or_init(|| made)
            }
        };
        let stream = sealer.begin(row.as_deref()).map_err(|error| to_py_err(py, &error, None))?;
        Ok(Sealing::new(self.ring.clone_ref(py), stream))
    }

    /// Begin to open the stream that starts with `header`.
    fn _open_stream(&self, py: Python<'_>, header: &[u8], row: Option<&Bound<'_, PyAny>>) -> PyResult<Opening> {
        let (header, row) = (header_of(py, header)?, row_binding(row)?);
        let opener = match self.stream_opener.get() {
            Some(opener) => opener,
            None => {
                let made = wait(py, self.field.clone().stream_opener())?;
                self.stream_opener.get_or_init(|| made)
            }
        };
        wait(py, opener.load_key(&header))?;
        let stream = opener.begin(&header, row.as_deref()).map_err(|error| to_py_err(py, &error, None))?;
        Ok(Opening::new(self.ring.clone_ref(py), stream))
    }

    /// Return the blind index `name` of the field: tokens to store beside its values, by which they are found. Asks nobody yet.
    ///
    /// Raises:
    ///     PolicyRefused: the policy gives the field no such index.
    #[pyo3(signature = (name, /))]
    fn index(&self, name: &Bound<'_, PyString>) -> PyResult<Index> {
        let (py, name) = (name.py(), utf8(name)?);
        let index = Index::new(self.ring.clone_ref(py), self.field.clone(), name);
        index.map_err(|error| to_py_err(py, &error, None))
    }

    /// Return what replaces values of a field whose mode is "format-preserving", which `encrypt` refuses. NOT AUTHENTICATED.
    ///
    /// Raises:
    ///     PolicyRefused: the values of the field do not keep their format.
    fn format_preserver(&self, py: Python<'_>) -> PyResult<Preserver> {
        let FieldMode::FormatPreserving { .. } = self.policy().mode else {
            let why = Error::new(ErrorKind::PolicyRefused, "the values of this field do not keep their format");
            return Err(to_py_err(py, &why.with_detail(&self.policy().name), None));
        };
        Ok(Preserver::new(self.ring.clone_ref(py), self.field.clone()))
    }

    /// Return the column `sealed` with each value that is not under the key that seals now sealed again. All others stay byte for byte.
    ///
    /// `sealed` is a column of bytes or of text in text form, and the result is one of that kind; `rows` are those of the values, which
    /// stay bound to them. A value under a compromised key is sealed again too, and with `force` every value. Type and value stay as they
    /// are; nothing is opened for the caller. Write the result in the place of the old column: `rotate` makes the new key, this uses it.
    ///
    /// Works in batches without the GIL; Ctrl-C ends it within one, and nothing is returned.
    ///
    /// Raises:
    ///     TypeError, InvalidInput: as `decrypt_column`.
    ///     FormatError, DecryptionFailed, NoMatchingKey, KeyRefused: a value does not open, or is under a key of another scope or
    ///         keyring; with the row in `.row`.
    ///     PolicyRefused, KmsError, StoreError: as `encrypt` and `decrypt`.
    #[pyo3(signature = (sealed, /, *, rows = None, force = false))]
    fn reencrypt_column<'py>(
        &self,
        sealed: &Bound<'py, PyAny>,
        rows: Option<&Bound<'py, PyAny>>,
        force: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        arrow::reencrypt(self, sealed, rows, force)
    }

    /// Return whether `sealed` is under the key that seals now. If not, encrypt the value again when convenient.
    ///
    /// Of a column, whatever `decrypt_column` takes, a column of booleans of its kind is returned, and null stays null;
    /// `reencrypt_column` is how to seal it again. Reads headers alone, which are not authenticated.
    ///
    /// Raises:
    ///     FormatError: not a sealed value; in a column with the row in `.row`.
    ///     NoMatchingKey: there is no such scope.
    #[pyo3(signature = (sealed, /))]
    fn is_current<'py>(&self, sealed: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = sealed.py();
        if !sealed.is_instance_of::<PyBytes>() && arrow::is_column(sealed)? {
            return arrow::is_current(self, sealed);
        }
        let bytes = sealed_bytes(sealed)?;
        let decryptor = self.decryptor(py)?;
        // Of no value: only what is known of the key that seals.
        wait(py, async { decryptor.load_keys(&[] as &[&[u8]]).await.map_err(Error::from) })?;
        let is_current = decryptor.is_current(&bytes).map_err(|error| to_py_err(py, &error, None))?;
        Ok(PyBool::new(py, is_current).to_owned().into_any())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.ring)
    }

    /// Whether the policy binds values to their row, so that each needs one.
    #[getter]
    fn binds_row(&self) -> bool {
        self.policy().row_binding != RowBinding::None
    }

    /// How values are protected: of "randomized" equal values look different, of "deterministic", "format-preserving" and "token" equal.
    ///
    /// Values of "format-preserving" are replaced by `format_preserver`, those of "document" as parts of documents, by
    /// `Keyring.documents`; those of "stream" by `open_stream`; those of "token" by the command `keyfold`, with its table.
    #[getter]
    fn mode(&self) -> &'static str {
        match self.policy().mode {
            FieldMode::Deterministic { .. } => "deterministic",
            FieldMode::FormatPreserving { .. } => "format-preserving",
            FieldMode::Token { .. } => "token",
            FieldMode::Document => "document",
            FieldMode::Stream => "stream",
            _ => "randomized",
        }
    }

    fn __repr__(&self) -> String {
        let scope = if self.has_scope { " in a scope" } else { "" };
        format!("<keyfold.Field '{}'{scope}>", self.field.policy().name)
    }
}
