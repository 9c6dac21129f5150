//! Parts of a count that threads add to without meeting each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many parts a count has.
pub(crate) const SHARE_COUNT: usize = 8;

/// The part of the calling thread.
pub(crate) fn share_of_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARE: Cell<usize> = const { Cell::new(usize::MAX) });
    SHARE.with(|share| {
        if share.get() == usize::MAX {
            share.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARE_COUNT);
        }
        share.get()
    })
}
