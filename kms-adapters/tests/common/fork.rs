//! Real children of this process.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Forks `count` children, each of which must find that `works`, while the parent does the same.
pub(crate) fn with_children(count: usize, works: impl Fn() -> bool) {
    let mut children = Vec::new();
    for _ in 0..count {
        // SAFETY: the child touches nothing that another thread could hold, and ends with `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let status = catch_unwind(AssertUnwindSafe(&works)).map_or(2, |works| i32::from(!works));
                // SAFETY: ends this process without running what belongs to the parent.
                unsafe { libc::_exit(status) };
            }
            child => children.push(child),
        }
    }
    assert!(works(), "the parent goes on at the same time");
    for child in children {
        let mut status = 0;
        // SAFETY: waits for a child of ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "a child failed");
    }
}
