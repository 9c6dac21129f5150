//! Errors of core as exceptions of Python.

use keyfold::{Error, ErrorKind, KmsErrorKind, RowError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The module of the exceptions. Made when the package is imported ([`crate::made_once`]).
pub(crate) fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || py.import("keyfold._errors").map(Bound::unbind))?;
    Ok(module.bind(py))
}

/// The exception that says `error`, which concerns the value at `row` of a batch, if it does. The only function that
/// makes one of keyfold's exceptions.
pub(crate) fn to_py_err(py: Python<'_>, error: &Error, row: Option<usize>) -> PyErr {
    let kind = error.kind();
    let made = module(py)
        .and_then(|module| module.getattr(class_of(kind)))
        .and_then(|class| class.call1((error.to_string(), kind.code(), kind.name(), error.is_retryable(), row)));
    let made = made.map_or_else(|failed| failed, PyErr::from_value);
    if let Some(raised) = raised_by_the_program(error) {
        made.set_cause(py, Some(raised.clone_ref(py)));
    }
    made
}

/// The exception of a function of the program that led to `error`, if one did.
fn raised_by_the_program(error: &Error) -> Option<&PyErr> {
    let mut chain = std::iter::successors(std::error::Error::source(error), |source| source.source());
    chain.find_map(|source| source.downcast_ref())
}

/// The exception that says what is wrong with a chunk, whose values are of these `rows`.
pub(crate) fn row_to_py_err(py: Python<'_>, RowError { row, error }: RowError, rows: &[usize]) -> PyErr {
    let error = to_py_err(py, &error, None);
    match row.and_then(|row| rows.get(row)) {
        Some(row) => at_row(py, error, *row),
        None => error,
    }
}

/// `error`, and which row of the caller's it is about.
pub(crate) fn at_row(py: Python<'_>, error: PyErr, row: usize) -> PyErr {
    let value = error.value(py);
    let noted = value.call_method1("add_note", (format!("in row {row}"),)).and_then(|_| value.setattr("row", row));
    noted.err().unwrap_or(error)
}

/// Whether `error` says that a value cannot be opened, rather than that nothing can be at present.
pub(crate) fn is_about_the_value(py: Python<'_>, error: &PyErr) -> bool {
    const CLASSES: [&str; 5] = ["FormatError", "NoMatchingKey", "DecryptionFailed", "KeyRefused", "PolicyRefused"];
    error.get_type(py).name().is_ok_and(|name| CLASSES.iter().any(|class| name == *class))
}

/// An argument that breaks a rule which only this package has.
pub(crate) fn invalid(py: Python<'_>, message: &'static str) -> PyErr {
    to_py_err(py, &Error::new(ErrorKind::InvalidInput, message), None)
}

/// As [`invalid`], with what is wrong where.
pub(crate) fn invalid_with(py: Python<'_>, message: &'static str, detail: impl AsRef<str>) -> PyErr {
    to_py_err(py, &Error::new(ErrorKind::InvalidInput, message).with_detail(detail), None)
}

/// The class of python/keyfold/_errors.py for `kind`.
const fn class_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput | ErrorKind::LimitExceeded => "InvalidInput",
        ErrorKind::PolicyRefused => "PolicyRefused",
        ErrorKind::Configuration => "ConfigurationError",
        ErrorKind::Malformed | ErrorKind::Unsupported => "FormatError",
        ErrorKind::NoMatchingKey => "NoMatchingKey",
        ErrorKind::DecryptionFailed => "DecryptionFailed",
        ErrorKind::WrongScope | ErrorKind::KeyState | ErrorKind::RecordRejected => "KeyRefused",
        ErrorKind::Store | ErrorKind::Io | ErrorKind::Conflict => "StoreError",
        ErrorKind::Kms(_) => "KmsError",
        ErrorKind::RandomnessUnavailable | ErrorKind::DeadlineExceeded | ErrorKind::Closed | ErrorKind::Internal => {
            "KeyfoldError"
        }
        // A kind that is newer than this match: the test that walks through all kinds fails.
        _ => "UnknownKind",
    }
}

/// Return the name, number, `retryable` and class of every kind of error.
#[pyfunction]
pub(crate) fn error_kinds() -> Vec<(&'static str, u16, bool, &'static str)> {
    let kms = KmsErrorKind::ALL.iter().map(|&kind| ErrorKind::Kms(kind));
    let all = ErrorKind::ALL.iter().copied().chain(kms);
    all.map(|kind| (kind.name(), kind.code(), Error::from(kind).is_retryable(), class_of(kind))).collect()
}

/// Whether null stands for a value that fails, as `on_error` says; otherwise its error is raised.
pub(crate) fn lets_null_stand(py: Python<'_>, on_error: &str) -> PyResult<bool> {
    match on_error {
        "raise" => Ok(false),
        "null" => Ok(true),
        _ => Err(invalid(py, "on_error is \"raise\" or \"null\"")),
    }
}
