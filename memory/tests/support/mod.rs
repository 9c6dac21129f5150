//! The erasing allocator over one that looks at what it gets back. Crates that have threads which erase test them by this, too.

use keyfold_memory::ErasingAllocator;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// In no block but those of the test.
pub(crate) const TEXT: [u8; 16] = *b"a key in base64:";

/// Counts the blocks that come back with the text in them: what is freed, and what is moved.
pub(crate) struct Watching;

static FOUND: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged; before, a block that is still allocated is read, within its size.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block has these bytes, which `alloc` had filled with zeros at first.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        FOUND.fetch_add(usize::from(bytes.windows(16).any(|here| here == TEXT)), Ordering::SeqCst);
        // SAFETY: the caller keeps the contract of `dealloc`, which is that of the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: ErasingAllocator<Watching> = ErasingAllocator(Watching);

/// How many blocks came back with the text while `work` ran.
pub(crate) fn found(work: impl FnOnce()) -> usize {
    let before = FOUND.load(Ordering::SeqCst);
    work();
    FOUND.load(Ordering::SeqCst) - before
}
