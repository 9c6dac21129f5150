//! Streams: what python/keyfold/_streams.py makes file objects of.

use crate::errors::to_py_err;
use crate::fork::detached;
use crate::keyring::Keyring;
use crate::wait::wait;
use keyfold::wire::StreamHeader;
use keyfold::{Error, ErrorKind};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// A stream that is being sealed.
#[pyclass(module = "keyfold._native", name = "_SealingStream", frozen)]
pub(crate) struct Sealing {
    /// Kept, so that it is made ready for forks as long as a stream of it is written.
    _ring: Py<Keyring>,
    stream: Mutex<Option<keyfold::SealingStream>>,
}

const FINISHED: Error = Error::new(
    ErrorKind::Closed,
    "the stream is finished, or another thread uses it: threads take turns with a file object",
);

impl Sealing {
    pub(crate) fn new(ring: Py<Keyring>, stream: keyfold::SealingStream) -> Self {
        Self { _ring: ring, stream: Mutex::new(Some(stream)) }
    }

    /// The stream, taken out for the time of a call: another thread that comes meanwhile finds none.
    fn take(&self, py: Python<'_>) -> PyResult<keyfold::SealingStream> {
        let mut stream = lock(&self.stream).take().ok_or_else(|| to_py_err(py, &FINISHED, None))?;
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
        let stream = stream.as_ref().ok_or_else(|| to_py_err(py, &FINISHED, None))?;
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

    /// Return the last chunk.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let stream = self.take(py)?;
        let mut out = Vec::new();
        stream.finish(&mut out).map_err(|error| to_py_err(py, &error, None))?;
        Ok(PyBytes::new(py, &out))
    }
}

/// A stream that is being opened.
#[pyclass(module = "keyfold._native", name = "_OpeningStream", frozen)]
pub(crate) struct Opening {
    /// Kept, as above.
    _ring: Py<Keyring>,
    stream: Mutex<Option<keyfold::OpeningStream>>,
}

const IN_USE: Error =
    Error::new(ErrorKind::InvalidInput, "another thread uses the stream: threads take turns with a file object");

impl Opening {
    pub(crate) fn new(ring: Py<Keyring>, stream: keyfold::OpeningStream) -> Self {
        Self { _ring: ring, stream: Mutex::new(Some(stream)) }
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
        let mut stream = lock(&self.stream).take().ok_or_else(|| to_py_err(py, &IN_USE, None))?;
        let renewed = if stream.needs_renewal() { wait(py, async { stream.renew().await }) } else { Ok(()) };
        let len =
            renewed.and_then(|()| stream.open_chunk(number, &mut chunk).map_err(|error| to_py_err(py, &error, None)));
        *lock(&self.stream) = Some(stream);
        let len = len?;
        let opened = Zeroizing::new(chunk);
        Ok(PyByteArray::new(py, &opened[..len]))
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
