//! A KEK that was used before its process is forked.

use crate::common::{here, unwrap, wrap};
use crate::fake::{Fake, May};
use keyfold_kms::gcp::GcpKek;
use std::process::Command;

const URI: &str = "KEYFOLD_TEST_FORK";

/// Forks for real, in a process of its own. Its tokens come from a service account, so the child logs in for itself.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Ok(uri) = std::env::var(URI) else {
        let Some(fake) = Fake::given() else { return };
        let account = fake.file(&fake.account(May::Both).to_string());
        let done = Command::new(std::env::current_exe().expect("this program"))
            .args(["fork::a_forked_child_uses_connections_of_its_own", "--exact", "--nocapture", "--test-threads=1"])
            .env(URI, fake.uri(&fake.key(), &format!("credentials_file={}", account.display())))
            .output()
            .expect("started");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && said.contains("1 passed"), "{said} {}", String::from_utf8_lossy(&done.stderr));
        return;
    };
    let kek = GcpKek::from_uri(&uri, here()).expect("opened");
    let wrapped = wrap(&kek).expect("wrapped");
    let works = || (0..5).all(|_| wrap(&kek).is_ok() && unwrap(&kek, &wrapped).is_ok());
    crate::common::fork::with_children(4, works);
    assert!(unwrap(&kek, &wrapped).is_ok());
}
