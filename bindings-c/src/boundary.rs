//! Where errors and panics become results.

use crate::result::{kf_error, kf_result};
use keyfold::{Error, RowError};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a function of the header does, but for how it says that it failed.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    cause: Cause,
    /// The row of a column that it is about.
    row: Option<usize>,
}

#[derive(Debug)]
enum Cause {
    /// What only a C program can do wrong.
    Own(kf_result, &'static str),
    Core(Error),
}

impl Failure {
    pub(crate) const NULL: Self = Self::own(kf_result::KF_ERR_NULL_POINTER, "a pointer is NULL that must not be");

    pub(crate) const fn own(result: kf_result, message: &'static str) -> Self {
        Self { cause: Cause::Own(result, message), row: None }
    }

    pub(crate) fn in_row(mut self, row: usize) -> Self {
        self.row = Some(row);
        self
    }

    pub(crate) fn result(&self) -> kf_result {
        match &self.cause {
            Cause::Own(result, _) => *result,
            Cause::Core(error) => kf_result::of(error.kind()),
        }
    }

    pub(crate) fn text(&self) -> String {
        match &self.cause {
            Cause::Own(_, message) => (*message).to_owned(),
            Cause::Core(error) => error.to_string(),
        }
    }

    pub(crate) const fn row(&self) -> Option<usize> {
        self.row
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { cause: Cause::Core(error), row: None }
    }
}

impl From<RowError> for Failure {
    fn from(failure: RowError) -> Self {
        Self { row: failure.row, ..Self::from(failure.error) }
    }
}

/// Runs `work`; whatever becomes of it is a result, and what went wrong is in `error` unless that is NULL.
#[inline]
pub(crate) fn boundary(error: *mut kf_error, work: impl FnOnce() -> Outcome<()>) -> kf_result {
    // A panic may leave objects of ours in a state that nobody planned, but none that is unsafe to use, as all of them are made
    // for use by several threads: their locks are poisoned, or they have none.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    match outcome {
        Ok(Ok(())) => kf_result::KF_OK,
        Ok(Err(failure)) => failed(error, &failure),
        Err(_) => {
            failed(error, &Failure::own(kf_result::KF_ERR_INTERNAL, "a bug in keyfold: standard error has the place"))
        }
    }
}

#[cold]
fn failed(error: *mut kf_error, failure: &Failure) -> kf_result {
    if !error.is_null() && error.is_aligned() {
        // SAFETY: the contract of every function of the header: `error` is NULL or points to a kf_error of the caller's.
        unsafe { error.write(kf_error::new(failure)) };
    }
    failure.result()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::ErrorKind;
    use std::ptr;

    // Failure F4
    #[test]
    fn a_panic_is_a_result() {
        let mut error = kf_error::new(&Failure::NULL);
        assert_eq!(boundary(&raw mut error, || panic!("planted")), kf_result::KF_ERR_INTERNAL);
        assert_eq!(error.code, 900);
        assert!(!error.text().contains("planted"));
    }

    #[test]
    fn an_error_has_code_row_and_text() {
        let mut error = kf_error::new(&Failure::NULL);
        let failure = RowError::at(3)(ErrorKind::Malformed.into());
        let result = boundary(&raw mut error, || Err(failure.into()));
        assert_eq!((result as i32, error.code, error.row), (200, 200, 3));
        assert_eq!(error.text(), "not a canonical keyfold value");
        assert_eq!(boundary(ptr::null_mut(), || Err(Failure::NULL)), kf_result::KF_ERR_NULL_POINTER);
        assert_eq!(boundary(&raw mut error, || Ok(())), kf_result::KF_OK);
        assert_eq!(error.row, 3, "success writes nothing");
    }
}
