//! Waiting for key services and stores without the GIL, in a way that Ctrl-C ends.

use crate::errors::to_py_err;
use crate::fork::detached;
use crate::gil;
use crate::host_call;
use crate::log;
use keyfold::Result;
use pyo3::prelude::*;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long a signal may wait to be seen.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `work` on this thread with the GIL released. A signal whose handler raises, as that of Ctrl-C does, drops `work`
/// where it waits.
pub(crate) fn wait<T: Send>(py: Python<'_>, work: impl Future<Output = Result<T>> + Send) -> PyResult<T> {
    wait_for(py, work)?.map_err(|error| to_py_err(py, &error, None))
}

/// As [`wait`], for `work` whose errors are still to be told apart.
pub(crate) fn wait_for<T: Send>(py: Python<'_>, work: impl Future<Output = T> + Send) -> PyResult<T> {
    let _call = gil::Call::begin(py);
    // What goes wrong outside of `work` is told apart from its own errors by the outer result.
    let waited = detached(py, || {
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut context = Context::from_waker(&waker);
        let mut work = pin!(work);
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                return Ok(PyResult::Ok(done));
            }
            thread::park_timeout(SIGNALS_EVERY);
            if let Err(raised) = gil::attach(|py| py.check_signals()) {
                return Ok(Err(raised));
            }
        }
    });
    let done = waited.unwrap_or_else(|error| Err(to_py_err(py, &error, None)))?;
    log::pass_on(py)?;
    host_call::check_ending()?;
    Ok(done)
}
