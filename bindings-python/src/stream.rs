//! Streams: what python/keyfold/_streams.py makes file objects of.

use crate::errors::to_py_err;
use crate::fork::detached;
use crate::keyring::Keyring;
use crate::wait::wait;
use keyfold::wire::StreamHeader;
use keyfold::{Error, ErrorKind, OpeningStream, SealingStream};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// A stream that is being sealed.
#[pyclass(module = "keyfold._native", name = "_SealingStream", frozen)]
pub(crate) struct Sealing {
    stream: Mutex<Option<SealingStream>>,
    /// Kept, and last, as of a field.
    _ring: Py<Keyring>,
}

const IN_USE: Error =
    Error::new(ErrorKind::InvalidInput, "another thread uses the stream: threads take turns with a file object");

impl Sealing {
    pub(crate) fn new(ring: Py<Keyring>, stream: SealingStream) -> Self {
        Self { _ring: ring, stream: Mutex::new(Some(stream)) }
    }

    /// The stream, taken out for the time of a call: another thread that comes meanwhile finds none.
    fn take(&self, py: Python<'_>) -> PyResult<SealingStream> {
        let mut stream = lock(&self.stream).take().ok_or_else(|| to_py_err(py, &IN_USE, None))?;
        if stream.needs_renewal() {
            let renewed = wait(py, async { stream.renew().await });
            if let Err(error) = renewed {
                *lock(&self.stream) = Some(stream);
                return Err(error);
            }
        }
        Ok(stream)
    }
}

#[pymethods]
impl Sealing {
    /// The first 83 bytes of the stream.
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let stream = lock(&self.stream);
        let stream = stream.as_ref().ok_or_else(|| to_py_err(py, &IN_USE, None))?;
        Ok(PyBytes::new(py, stream.header().as_bytes()))
    }

    /// Return the chunks that `data` completes.
    fn update<'py>(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let py = data.py();
        let data = Zeroizing::new(PyBuffer::<u8>::get(data)?.to_vec(py)?);
        let mut stream = self.take(py)?;
        let mut out = Vec::new();
        let updated = detached(py, || stream.update(&data, &mut out));
        *lock(&self.stream) = Some(stream);
        updated.map_err(|error| to_py_err(py, &error, None))?;
        Ok(PyBytes::new(py, &out))
    }

    /// Return the last chunk. After an error about keys it may be called again.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let mut stream = self.take(py)?;
        let mut out = Vec::new();
        let finished = stream.finish(&mut out);
        *lock(&self.stream) = Some(stream);
        finished.map_err(|error| to_py_err(py, &error, None))?;
        Ok(PyBytes::new(py, &out))
    }
}

/// A stream that is being opened.
#[pyclass(module = "keyfold._native", name = "_OpeningStream", frozen)]
pub(crate) struct Opening {
    stream: Mutex<Option<OpeningStream>>,
    /// As above.
    _ring: Py<Keyring>,
}

impl Opening {
    pub(crate) fn new(ring: Py<Keyring>, stream: OpeningStream) -> Self {
        Self { _ring: ring, stream: Mutex::new(Some(stream)) }
    }

    /// Does `work` with the stream, once its key has been confirmed if that is due.
    fn with<T>(&self, py: Python<'_>, work: impl FnOnce(&mut OpeningStream) -> keyfold::Result<T>) -> PyResult<T> {
        let mut stream = lock(&self.stream).take().ok_or_else(|| to_py_err(py, &IN_USE, None))?;
        let renewed = if stream.needs_renewal() { wait(py, async { stream.renew().await }) } else { Ok(()) };
        let done = renewed.and_then(|()| work(&mut stream).map_err(|error| to_py_err(py, &error, None)));
        *lock(&self.stream) = Some(stream);
        done
    }
}

#[pymethods]
impl Opening {
    /// Return the plaintext of the chunk `number`.
    fn open_chunk<'py>(
        &self,
        py: Python<'py>,
        number: u64,
        chunk: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyByteArray>> {
        let mut chunk = PyBuffer::<u8>::get(chunk)?.to_vec(py)?;
        let len = self.with(py, |stream| stream.open_chunk(number, &mut chunk))?;
        let opened = Zeroizing::new(chunk);
        Ok(PyByteArray::new(py, &opened[..len]))
    }

    /// Raise what opening a chunk would raise of the key and the keyring.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |stream| stream.open_in_place(&mut []))
    }

    /// Return whether the key is compromised, as it was when it was last confirmed.
    fn is_compromised(&self, py: Python<'_>) -> PyResult<bool> {
        let stream = lock(&self.stream);
        stream.as_ref().map(OpeningStream::is_compromised).ok_or_else(|| to_py_err(py, &IN_USE, None))
    }
}

fn lock<T>(stream: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every call leaves it whole: a stream that has failed says so itself.
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The header in `bytes`.
pub(crate) fn header_of(py: Python<'_>, bytes: &[u8]) -> PyResult<StreamHeader> {
    StreamHeader::parse(bytes).map_err(|error| to_py_err(py, &error, None))
}
