//! Where there is no arena: slots on the heap.

use crate::Status;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

static IN_USE: AtomicUsize = AtomicUsize::new(0);

fn layout(len: usize) -> Layout {
    Layout::from_size_align(len, len).expect("the length of a slot is a small power of two")
}

/// `len` zeros, aligned to `len`, a power of two.
pub(crate) fn allocate(len: usize) -> NonNull<u8> {
    IN_USE.fetch_add(len, Ordering::Relaxed);
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout(len)) }).unwrap_or_else(|| handle_alloc_error(layout(len)))
}

/// Takes back a slot.
///
/// # Safety
///
/// It is from [`allocate`] with the same `len`, and not used any more.
pub(crate) unsafe fn free(slot: NonNull<u8>, len: usize) {
    // SAFETY: as the caller says.
    unsafe { dealloc(slot.as_ptr(), layout(len)) };
    IN_USE.fetch_sub(len, Ordering::Relaxed);
}

pub(crate) fn status() -> Status {
    Status { unlocked: IN_USE.load(Ordering::Relaxed), ..Status::default() }
}

pub(crate) fn check_locked(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
