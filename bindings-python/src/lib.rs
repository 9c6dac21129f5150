//! The module `keyfold._native`, which the Python package `keyfold` is made of. The comments of its classes and functions are
//! their docstrings, in Python's form; tools/stubs.py copies them into the stub, python/keyfold/_native.pyi, which has the types.
// But for what Arrow hands over, in `arrow::capsule`, memory of long outputs, in `arrow::pages`, and the number of the interpreter.
#![deny(unsafe_code)]

mod arrow;
mod audit;
mod documents;
mod errors;
mod field;
mod fips;
mod fork;
mod gil;
mod host_call;
mod host_kms;
mod inspect;
mod keyring;
mod log;
mod lookup;
mod many;
mod stream;
mod value;
mod wait;

use keyfold_memory::ErasingAllocator;
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMapping;
use std::alloc::System;
use std::sync::OnceLock;

/// Answers of key services, which have keys in clear, go through buffers of others.
#[global_allocator]
static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);

/// Refuses an interpreter other than the first of the process that imports it: objects of that are kept for the life of the
/// process.
#[expect(unsafe_code, reason = "pyo3 does not say which interpreter it is in")]
fn check_interpreter(_py: Python<'_>) -> PyResult<()> {
    // Of which no number recurs in a process, as the address of whatever an interpreter has does.
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the GIL is held, so there is an interpreter.
    let this = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if *FIRST.get_or_init(|| this) == this {
        return Ok(());
    }
    Err(PyImportError::new_err("keyfold works in the first interpreter of a process alone, not in subinterpreters"))
}

/// Makes what is made once per process while no thread has anything of this package. Whoever makes such a value lets go of the GIL meanwhile, and a child that another
/// thread forks then would wait for it for ever.
fn made_once(py: Python<'_>) -> PyResult<()> {
    errors::module(py)?;
    value::Library::of(py)?;
    // The class of mappings, which pyo3 looks up for the first context that is no `dict`.
    let _ = py.None().bind(py).cast::<PyMapping>();
    Ok(())
}

/// The module that `keyfold` is made of. On a free-threaded interpreter it asks for the GIL: it was never tried without.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    use super::{Bound, PyModule, PyModuleMethods, PyResult, check_interpreter};

    #[pymodule_init]
    fn init_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
        check_interpreter(module.py())?;
        crate::log::listen();
        crate::made_once(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }

    #[pymodule_export]
    use crate::arrow::{_row_bindings, ArrowArray, ArrowStream};
    #[pymodule_export]
    use crate::audit::{AuditReport, verify_audit};
    #[pymodule_export]
    use crate::documents::Documents;
    #[pymodule_export]
    use crate::errors::error_kinds;
    #[pymodule_export]
    use crate::field::Field;
    #[pymodule_export]
    use crate::fips::{FipsService, FipsStatus, fips_status};
    #[pymodule_export]
    use crate::fork::{_begin_call, _begin_child, _begin_fork, _end_fork};
    #[pymodule_export]
    use crate::gil::_begin_end;
    #[pymodule_export]
    use crate::inspect::{Census, Inspection, census, from_text, inspect, to_text};
    #[pymodule_export]
    use crate::keyring::{_read_policy, KeyInfo, Keyring, init};
    #[pymodule_export]
    use crate::lookup::{Index, Preserver};
    #[pymodule_export]
    use crate::stream::{Opening, Sealing};
}
