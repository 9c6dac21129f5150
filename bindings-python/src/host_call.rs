//! Calls of the program's own functions, on threads that Python makes.
//!
//! On a thread of ours there would be frames of ours below such a function, and if it still ran when the interpreter ends, its thread
//! would be ended through them (see [`gil`]).

use crate::gil;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::sync::{Mutex, PoisonError, mpsc};

type Take = Box<dyn FnOnce(Python<'_>, PyResult<Bound<'_, PyAny>>) + Send>;

/// What the thread calls with what the function returned, or raised.
#[pyclass(module = "keyfold", frozen)]
struct Answer(Mutex<Option<Take>>);

#[pymethods]
impl Answer {
    #[pyo3(signature = (result, error, /))]
    fn __call__(&self, result: Bound<'_, PyAny>, error: Option<Bound<'_, PyBaseException>>) {
        let take = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(take) = take {
            take(
                result.py(),
                error.map_or_else(|| Ok(result.clone()), |error| Err(PyErr::from_value(error.into_any()))),
            );
        }
    }
}

/// Calls the function that `prepare` gives, with its arguments, and waits for what `take` makes of the answer. The GIL must not be held.
///
/// `None`: the interpreter ends.
pub(crate) fn call<T: Send + 'static>(
    prepare: impl for<'py> FnOnce(Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>,
    take: impl Fn(Python<'_>, PyResult<Bound<'_, PyAny>>) -> T + Send + Clone + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let take_answer = take.clone();
    let started = gil::try_attach(|py| {
        let send: Take = Box::new(move |py, answer| {
            // Whoever waited may have gone away.
            let _ = sender.send(take_answer(py, answer));
        });
        let start = || {
            let (function, arguments) = prepare(py)?;
            let answer = Bound::new(py, Answer(Mutex::new(Some(send))))?;
            let run = py.import("keyfold._calls")?.getattr("run")?;
            py.import("_thread")?.call_method1("start_new_thread", (run, (function, arguments, answer)))
        };
        start().map(drop).map_err(|error| take(py, Err(error)))
    })?;
    match started {
        Ok(()) => receiver.recv().ok(),
        Err(failed) => Some(failed),
    }
}
