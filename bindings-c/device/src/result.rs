//! Results: the numbers of the one list, which the header has from keyfold_result.h.

use core::mem::{MaybeUninit, size_of};
use keyfold::Error;
use zeroize::Zeroize;

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

/// As [`result`] of what `work` returns, whose stack is erased: keys were on it, and copies of them that the compiler made.
#[inline(always)]
pub(crate) fn erased(work: impl FnOnce() -> Outcome<()>) -> kf_result {
    let outcome = on_its_own(work);
    erase_stack();
    result(outcome)
}

/// Has `work` use the stack from here on.
#[inline(never)]
fn on_its_own(work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    work()
}

/// Erases what `on_its_own` used.
#[inline(never)]
fn erase_stack() {
    let mut used = [MaybeUninit::<usize>::uninit(); STACK_LEN / size_of::<usize>()];
    used.zeroize();
}

/// Bytes of stack that a call uses below `erased`, as tests/c/fields.c measures. Where there are megabytes, eight blocks of AES at a
/// time take ten thousand.
const STACK_LEN: usize = if cfg!(target_os = "none") { 3328 } else { 12 * 1024 };

pub(crate) fn result(outcome: Outcome<()>) -> kf_result {
    outcome.err().unwrap_or(kf_result::OK)
}
