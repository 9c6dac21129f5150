//! The module `keyfold._native`, which the Python package `keyfold` is made of. The comments of its classes and functions are
//! their docstrings, in Python's form; tools/stubs.py copies them into the stub, python/keyfold/_native.pyi, which has the types.
// But for what Arrow hands over, in `arrow::capsule`.
#![deny(unsafe_code)]

mod arrow;
mod audit;
mod errors;
mod field;
mod fork;
mod gil;
mod host_call;
mod host_kms;
mod inspect;
mod keyring;
mod log;
mod many;
mod value;
mod wait;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use std::sync::OnceLock;

/// Refuses an interpreter other than the first of the process: objects of that are kept for the life of the process. Each
/// interpreter has a module `sys` of its own.
fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<usize> = OnceLock::new();
    let this = py.import("sys")?.as_ptr() as usize;
    if *FIRST.get_or_init(|| this) == this {
        return Ok(());
    }
    Err(PyImportError::new_err("keyfold works in the first interpreter of a process alone, not in subinterpreters"))
}

/// The module that `keyfold` is made of. On a free-threaded interpreter it asks for the GIL: it was never tried without.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    use super::{Bound, PyModule, PyModuleMethods, PyResult, check_interpreter};

    #[pymodule_init]
    fn init_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
        check_interpreter(module.py())?;
        crate::log::listen();
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    #[pymodule_export]
    use crate::arrow::{ArrowArray, ArrowStream};
    #[pymodule_export]
    use crate::audit::{AuditReport, verify_audit};
    #[pymodule_export]
    use crate::errors::error_kinds;
    #[pymodule_export]
    use crate::field::Field;
    #[pymodule_export]
    use crate::fork::{_begin_call, _begin_child, _begin_fork, _end_fork};
    #[pymodule_export]
    use crate::gil::_begin_end;
    #[pymodule_export]
    use crate::inspect::{Census, Inspection, census, from_text, inspect, to_text};
    #[pymodule_export]
    use crate::keyring::{_read_policy, KeyInfo, Keyring, init};
}
