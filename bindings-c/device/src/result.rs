//! Results: the numbers of the one list, which the header has from keyfold_result.h.

use keyfold::Error;

/// What a call came to.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct kf_result(pub i32);

/// What a function of the header does.
pub(crate) type Outcome<T> = Result<T, kf_result>;

impl kf_result {
    pub const OK: Self = Self(0);
    pub const INVALID_INPUT: Self = Self(100);
    pub const NULL_POINTER: Self = Self(101);
    pub const BUFFER_TOO_SMALL: Self = Self(102);
    pub const LIMIT_EXCEEDED: Self = Self(103);
    pub const INVALID_HANDLE: Self = Self(104);
    pub const OVERLAP: Self = Self(105);
    pub const UNSUPPORTED: Self = Self(201);
    pub const WRONG_SCOPE: Self = Self(302);
    pub const RECORD_REJECTED: Self = Self(304);
    pub const INTERNAL: Self = Self(900);
}

impl From<Error> for kf_result {
    fn from(error: Error) -> Self {
        Self(error.kind().code().into())
    }
}

pub(crate) fn result(outcome: Outcome<()>) -> kf_result {
    outcome.err().unwrap_or(kf_result::OK)
}
