//! A KEK that was used before its process is forked.

use crate::bao::Bao;
use crate::common::{here, unwrap, wrap};
use keyfold_kms::vault::VaultKek;
use std::process::Command;

const URI: &str = "KEYFOLD_TEST_FORK";

/// Forks for real, in a process of its own.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Ok(uri) = std::env::var(URI) else {
        let Some(bao) = Bao::given() else { return };
        let token = bao.file(&bao.token);
        let uri = bao.uri(&bao.derived_key(), &format!("token_file={}&attempts=1", token.display()));
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["fork::a_forked_child_uses_connections_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
            .env(URI, uri)
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        return;
    };
    // One attempt each, so that a connection of the parent's that hangs in the child is not made up for by another.
    let kek = VaultKek::from_uri(&uri, here()).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    let mut children = Vec::new();
    for _ in 0..4 {
        // SAFETY: the child touches nothing that another thread could hold, and ends with `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                let works = || (0..10).all(|_| wrap(&kek).is_ok() && unwrap(&kek, &wrapped).is_ok());
                let status =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(works)).map_or(2, |works| i32::from(!works));
                // SAFETY: ends this process without running what belongs to the parent.
                unsafe { libc::_exit(status) };
            }
            child => children.push(child),
        }
    }
    // The parent goes on at the same time.
    assert!((0..10).all(|_| unwrap(&kek, &wrapped).is_ok()));
    for child in children {
        let mut status = 0;
        // SAFETY: waits for a child of ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
    }
    assert!(unwrap(&kek, &wrapped).is_ok());
}
