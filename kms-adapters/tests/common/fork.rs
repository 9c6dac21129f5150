//! Real children of this process, and tests in a process of their own.

use super::{unwrap, wrap};
use keyfold::Kms;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

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

/// Uses `kek` in four forked children and here at the same time.
pub(crate) fn use_in_forked_children(kek: &dyn Kms) {
    let wrapped = wrap(kek).expect("wrapped");
    with_children(4, || (0..10).all(|_| wrap(kek).is_ok() && unwrap(kek, &wrapped).is_ok()));
    assert!(unwrap(kek, &wrapped).is_ok());
}

const OWN_PROCESS: &str = "KEYFOLD_TEST_OWN_PROCESS";

/// Runs the test `name` again in a process of its own. False: this is that process.
pub(crate) fn is_left_to_own_process(name: &str) -> bool {
    if std::env::var(OWN_PROCESS).is_ok_and(|own| own == name) {
        return false;
    }
    let done = Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(OWN_PROCESS, name)
        // Of the whole run, for the chain of credentials: a process of its own brings what it needs.
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SHARED_CREDENTIALS_FILE")
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
    true
}
