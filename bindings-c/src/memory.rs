//! The caller's memory. All pointers of C become references here.

use crate::boundary::{Failure, Outcome};
use crate::result::kf_result;
use std::ffi::c_char;
use std::ops::Range;
use std::slice;
use std::str;
use zeroize::Zeroize;

pub(crate) const TOO_LONG: Failure =
    Failure::own(kf_result::KF_ERR_INVALID_INPUT, "a length is larger than any object in memory");
const NOT_ALIGNED: Failure =
    Failure::own(kf_result::KF_ERR_INVALID_INPUT, "a pointer is not aligned for what it points to");
const NOT_UTF8: Failure = Failure::own(kf_result::KF_ERR_INVALID_INPUT, "a text is not UTF-8");
const TOO_SMALL: Failure =
    Failure::own(kf_result::KF_ERR_BUFFER_TOO_SMALL, "a buffer is smaller than its size function says");
const OVERLAP: Failure = Failure::own(kf_result::KF_ERR_OVERLAP, "an output overlaps an input or another output");

/// Checks that `len` elements could be at `data`.
fn check<T>(data: *const T, len: usize) -> Outcome<()> {
    if data.is_null() {
        return Err(Failure::NULL);
    }
    if !data.is_aligned() {
        return Err(NOT_ALIGNED);
    }
    let fits = len.checked_mul(size_of::<T>()).and_then(|len| isize::try_from(len).ok());
    // Past the end of the address space there is no object either.
    fits.and_then(|len| data.addr().checked_add(len.unsigned_abs())).map(drop).ok_or(TOO_LONG)
}

/// The `len` elements at `data`, which may be NULL if there are none.
///
/// # Safety
///
/// `data` is NULL, or `len` elements can be read there and do not change while the result is used.
pub(crate) unsafe fn input<'a, T>(data: *const T, len: usize) -> Outcome<&'a [T]> {
    if data.is_null() && len == 0 {
        return Ok(&[]);
    }
    check(data, len)?;
    // SAFETY: not NULL, aligned, no longer than an object can be; the rest is this function's contract.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// As [`input`], where NULL means that there is nothing, which is not the same as nothing in it.
///
/// # Safety
///
/// As for [`input`].
pub(crate) unsafe fn optional<'a>(data: *const u8, len: usize) -> Outcome<Option<&'a [u8]>> {
    if data.is_null() && len == 0 {
        return Ok(None);
    }
    // SAFETY: this function's contract.
    unsafe { input(data, len) }.map(Some)
}

/// The text at `data`.
///
/// # Safety
///
/// As for [`input`].
pub(crate) unsafe fn text<'a>(data: *const c_char, len: usize) -> Outcome<&'a str> {
    // SAFETY: this function's contract.
    str::from_utf8(unsafe { input(data.cast(), len) }?).map_err(|_| NOT_UTF8)
}

/// As [`text`], where NULL means that there is none.
///
/// # Safety
///
/// As for [`input`].
pub(crate) unsafe fn optional_text<'a>(data: *const c_char, len: usize) -> Outcome<Option<&'a str>> {
    // SAFETY: this function's contract.
    let bytes = unsafe { optional(data.cast(), len) }?;
    bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| NOT_UTF8)).transpose()
}

/// The struct at `data`.
///
/// # Safety
///
/// As for [`input`] with one element.
pub(crate) unsafe fn one<'a, T>(data: *const T) -> Outcome<&'a T> {
    // SAFETY: this function's contract.
    let one: &[T] = unsafe { input(data, 1) }?;
    Ok(&one[0])
}

/// Room of the caller's that results are written to. Nothing is until [`get`](Self::get) or [`set`](Self::set).
pub(crate) struct Output<T> {
    data: *mut T,
    len: usize,
    is_too_small: bool,
}

impl<T: Copy> Output<T> {
    /// Room for `cap` elements at `data`, of which `needed` are going to be written; NULL if none are.
    pub(crate) fn new(data: *mut T, cap: usize, needed: usize) -> Outcome<Self> {
        let room = Self::at_most(data, cap, needed)?;
        room.check()?;
        Ok(room)
    }

    /// As [`new`](Self::new), if need be with less room, which [`check`](Self::check) refuses.
    pub(crate) fn at_most(data: *mut T, cap: usize, needed: usize) -> Outcome<Self> {
        if needed > 0 || !data.is_null() {
            check(data, cap)?;
        }
        Ok(Self { data, len: needed.min(cap), is_too_small: cap < needed })
    }

    /// Refuses less room than is needed.
    pub(crate) fn check(&self) -> Outcome<()> {
        if self.is_too_small { Err(TOO_SMALL) } else { Ok(()) }
    }

    /// Room for one struct.
    pub(crate) fn one(data: *mut T) -> Outcome<Self> {
        Self::new(data, 1, 1)
    }

    /// Where it is.
    pub(crate) fn range(&self) -> Range<usize> {
        range(self.data, self.len)
    }

    /// Refuses to write where `inputs` are read from.
    pub(crate) fn apart_from(&self, inputs: &[Range<usize>]) -> Outcome<()> {
        if inputs.iter().any(|input| overlaps(&self.range(), input)) { Err(OVERLAP) } else { Ok(()) }
    }

    /// The room. What is in it is the caller's business and may be anything.
    ///
    /// # Safety
    ///
    /// The room that [`new`](Self::new) was given can be written, and nothing else uses it while the result is used: so the caller
    /// has called [`apart_from`](Self::apart_from) for each other piece of memory in use.
    pub(crate) unsafe fn get(&mut self) -> &mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: checked by `new`; the rest is this function's contract. Bytes that C has not set have some value nevertheless.
        unsafe { slice::from_raw_parts_mut(self.data, self.len) }
    }

    /// Writes `values` to the front.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    pub(crate) unsafe fn set(&mut self, values: &[T]) {
        // SAFETY: this function's contract.
        let room = unsafe { self.get() };
        room[..values.len()].copy_from_slice(values);
    }
}

impl Output<u8> {
    /// Erases the room.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    pub(crate) unsafe fn erase(&mut self) {
        // SAFETY: this function's contract.
        unsafe { self.get() }.zeroize();
    }
}

/// The addresses of `len` elements at `data`.
pub(crate) fn range<T>(data: *const T, len: usize) -> Range<usize> {
    data.addr()..data.addr().saturating_add(len.saturating_mul(size_of::<T>()))
}

/// The addresses of `elements`.
pub(crate) fn range_of<T>(elements: &[T]) -> Range<usize> {
    range(elements.as_ptr(), elements.len())
}

fn overlaps(one: &Range<usize>, other: &Range<usize>) -> bool {
    one.start < other.end && other.start < one.end && !one.is_empty() && !other.is_empty()
}
