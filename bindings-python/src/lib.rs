//! The module `keyfold._native`, which the Python package `keyfold` is made of. What its classes and functions do
//! is written in its stub, python/keyfold/_native.pyi.
// But for what Arrow hands over, in `arrow::capsule`.
#![deny(unsafe_code)]

mod arrow;
mod errors;
mod field;
mod host_kms;
mod inspect;
mod keyring;
mod many;
mod value;
mod wait;

/// See python/keyfold/_native.pyi. On a free-threaded interpreter it asks for the GIL: it was never tried without.
#[pyo3::pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::arrow::{ArrowArray, ArrowStream};
    #[pymodule_export]
    use crate::errors::error_kinds;
    #[pymodule_export]
    use crate::field::Field;
    #[pymodule_export]
    use crate::inspect::{Census, Inspection, census, from_text, inspect, to_text};
    #[pymodule_export]
    use crate::keyring::{KeyInfo, Keyring, init};
}
