//! Memory of long outputs. The kernel hands it out page by page, when each is first touched. Asked for many pages at once it takes
//! two thirds of that time, by which a column of short values is sealed 5 % faster.
//!
//! Large pages would take less still where there are any. Where memory is in pieces the kernel first moves what lies in it, and a
//! column takes half as long again, so they are not asked for.

/// Bytes that are asked for at once: few enough that they are still in the processor's cache when they are filled.
const STEP: usize = 1024 * 1024;

/// Makes room for about `len` bytes more. It is a guess: where there is no such room, `buffer` grows as it is filled.
pub(super) fn reserve(buffer: &mut Vec<u8>, len: usize) {
    // Not having it now is no error.
    let _ = buffer.try_reserve(len);
}

/// Has the kernel hand out pages for what comes next in `buffer`, as far as it has room. `ready`: up to where they are there already.
/// What is in `buffer` stays as it is. Where the kernel knows no such request, as Linux before 5.14, pages come when they are touched.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the request is for addresses")]
pub(super) fn prepare(buffer: &mut Vec<u8>, ready: &mut usize) {
    const PAGE: usize = 4096;
    let start = buffer.len().max(*ready);
    let end = (buffer.len() + 2 * STEP).min(buffer.capacity());
    if end < start + STEP {
        return;
    }
    *ready = end;
    let from = buffer.as_mut_ptr();
    // Whole pages that are the buffer's alone.
    let skipped = start + from.wrapping_add(start).align_offset(PAGE);
    let len = end.saturating_sub(skipped) / PAGE * PAGE;
    // SAFETY: the range lies within the buffer's allocation, and what is in it stays as it is.
    unsafe { libc::madvise(from.add(skipped).cast(), len, libc::MADV_POPULATE_WRITE) };
}

/// Pages come when they are touched.
#[cfg(not(target_os = "linux"))]
pub(super) fn prepare(_buffer: &mut Vec<u8>, _ready: &mut usize) {}
