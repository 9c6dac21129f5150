//! The caller's memory. All pointers of C become references here.

use crate::result::{Outcome, kf_result};
use core::ops::Range;
use core::slice;

/// Checks that `len` elements could be at `data`.
fn check<T>(data: *const T, len: usize) -> Outcome<()> {
    if data.is_null() {
        return Err(kf_result::NULL_POINTER);
    }
    let fits = len.checked_mul(size_of::<T>()).filter(|&len| isize::try_from(len).is_ok());
    match fits.and_then(|len| data.addr().checked_add(len)) {
        Some(_) if data.is_aligned() => Ok(()),
        _ => Err(kf_result::INVALID_INPUT),
    }
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

/// The text at `data`.
///
/// # Safety
///
/// As for [`input`].
pub(crate) unsafe fn text<'a>(data: *const core::ffi::c_char, len: usize) -> Outcome<&'a str> {
    // SAFETY: this function's contract.
    core::str::from_utf8(unsafe { input(data.cast(), len) }?).map_err(|_| kf_result::INVALID_INPUT)
}

/// The struct at `data`.
///
/// # Safety
///
/// As for [`input`] with one element.
pub(crate) unsafe fn one<'a, T>(data: *const T) -> Outcome<&'a T> {
    check(data, 1)?;
    // SAFETY: not NULL, aligned; the rest is this function's contract.
    Ok(unsafe { &*data })
}

/// Room of the caller's that results are written to.
pub(crate) struct Output<T> {
    data: *mut T,
    len: usize,
}

impl<T: Copy> Output<T> {
    /// Room for `cap` elements at `data`, of which `needed` are going to be written.
    pub(crate) fn new(data: *mut T, cap: usize, needed: usize) -> Outcome<Self> {
        check(data, cap)?;
        if cap < needed { Err(kf_result::BUFFER_TOO_SMALL) } else { Ok(Self { data, len: needed }) }
    }

    /// Room for one struct.
    pub(crate) fn one(data: *mut T) -> Outcome<Self> {
        Self::new(data, 1, 1)
    }

    /// Where it is.
    pub(crate) fn range(&self) -> Range<usize> {
        range(self.data, self.len)
    }

    /// Refuses to write where one of `others` is.
    pub(crate) fn apart_from(&self, others: &[Range<usize>]) -> Outcome<()> {
        apart(&self.range(), others)
    }

    /// The room. What is in it is the caller's business and may be anything.
    ///
    /// # Safety
    ///
    /// The room that [`new`](Self::new) was given can be written, and nothing else uses it while the result is used: so the caller
    /// has called [`apart_from`](Self::apart_from) for each other piece of memory in use.
    pub(crate) unsafe fn get(&mut self) -> &mut [T] {
        // SAFETY: checked by `new`; the rest is this function's contract. Bytes that C has not set have some value nevertheless.
        unsafe { slice::from_raw_parts_mut(self.data, self.len) }
    }

    /// Writes one struct.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get); made by [`one`](Self::one).
    pub(crate) unsafe fn set(&mut self, value: T) {
        // SAFETY: this function's contract.
        unsafe { self.data.write(value) }
    }
}

/// Refuses memory that is in two places at once.
pub(crate) fn apart(one: &Range<usize>, others: &[Range<usize>]) -> Outcome<()> {
    let meets =
        |other: &Range<usize>| one.start < other.end && other.start < one.end && !one.is_empty() && !other.is_empty();
    if others.iter().any(meets) { Err(kf_result::OVERLAP) } else { Ok(()) }
}

/// The addresses of `len` elements at `data`.
pub(crate) fn range<T>(data: *const T, len: usize) -> Range<usize> {
    data.addr()..data.addr().saturating_add(len.saturating_mul(size_of::<T>()))
}

/// The addresses of `elements`.
pub(crate) fn range_of<T>(elements: &[T]) -> Range<usize> {
    range(elements.as_ptr(), elements.len())
}
