//! A KEK that was used before its process is forked.

use crate::common::{fork, here, unwrap, wrap};
use crate::token::Tokens;
use keyfold_kms::pkcs11::Pkcs11Kek;
use std::process::Command;

const CHILD: &str = "KEYFOLD_TEST_FORK";

/// Forks for real, in a process of its own. The child must initialise the library anew, and log in.
#[test]
fn a_forked_child_initialises_the_library_anew() {
    let Some(tokens) = Tokens::given() else { return };
    if std::env::var_os(CHILD).is_none() {
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["fork::a_forked_child_initialises_the_library_anew", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        return;
    }
    let kek = Pkcs11Kek::from_uri(&tokens.uri("forked", "kek", ""), here()).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    fork::with_children(4, || (0..10).all(|_| wrap(&kek).is_ok() && unwrap(&kek, &wrapped).is_ok()));
    assert!(unwrap(&kek, &wrapped).is_ok());
}
