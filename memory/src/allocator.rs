//! An allocator that erases what chosen threads free.

use crate::erase;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr::NonNull;

thread_local! {
    // Neither made nor dropped by code, so that it may be read within the allocator at any time of a thread's life.
    static ERASES: Cell<bool> = const { Cell::new(false) };
}

/// From now on, [`ErasingAllocator`] erases every block that this thread frees. Nothing happens where the program has another allocator.
pub fn erase_what_this_thread_frees() {
    ERASES.set(true);
}

fn erases() -> bool {
    // Some systems end such values before the last block of a thread is freed.
    ERASES.try_with(Cell::get).unwrap_or(false)
}

/// An allocator that erases blocks before it gives them back to `A`, where the thread that frees them has called
/// [`erase_what_this_thread_frees`], and does nothing else.
///
/// It is for what passes through libraries that erase nothing: a key service's answer has a key in clear, and goes through buffers of HTTP and
/// TLS. The threads on which keyfold does network I/O have called the function; the command, the Python package and the C library have this
/// allocator. A program in Rust has it if it says so:
///
/// ```
/// use keyfold_memory::ErasingAllocator;
/// use std::alloc::System;
///
/// #[global_allocator]
/// static ALLOCATOR: ErasingAllocator<System> = ErasingAllocator(System);
/// # fn main() {}
/// ```
///
/// **Cost.** On other threads the look at a flag of the thread for each block that is freed or moved; on these the time to write the block, and
/// blocks that grow are always copied.
///
/// **What it does not do.** It erases neither stacks, nor blocks in use, nor what such a thread made and another one frees, nor what other
/// languages allocate.
#[derive(Debug)]
pub struct ErasingAllocator<A>(pub A);

// SAFETY: every block is one of `A`'s, given back to it once, with the layout that it was allocated with. Before that its bytes are
// written, within its size, when its owner has given it up.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ErasingAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `A`'s.
        unsafe { self.0.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: likewise.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if erases()
            && let Some(block) = NonNull::new(block)
        {
            // SAFETY: the block has so many bytes, and nobody reads them any more.
            unsafe { erase(block, layout.size()) };
        }
        // SAFETY: the caller keeps the contract of `dealloc`, which is that of `A`'s.
        unsafe { self.0.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        if !erases() {
            // SAFETY: the caller keeps the contract of `realloc`, which is that of `A`'s.
            return unsafe { self.0.realloc(block, layout, new_len) };
        }
        // That of `A` would leave bytes behind where it moves the block, or makes it shorter.
        // SAFETY: the caller sees to it that this is the layout of a block, and not empty. Both blocks have the bytes that are copied, and are
        // not the same. The old one is given up, unless there is no new one.
        unsafe {
            let new = self.0.alloc(Layout::from_size_align_unchecked(new_len, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, layout.size().min(new_len));
                self.dealloc(block, layout);
            }
            new
        }
    }
}
