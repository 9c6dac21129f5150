//! A KEK that was used before its process is forked.

use crate::common::fork::{is_left_to_own_process, use_in_forked_children};
use crate::fake::{Fake, May};

/// Its tokens come from a service account, so the child logs in for itself.
/// Covers KC-6, KC-25.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Some(fake) = Fake::given() else { return };
    if is_left_to_own_process("fork::a_forked_child_uses_connections_of_its_own") {
        return;
    }
    let account = fake.file(&fake.account(May::Both).to_string());
    use_in_forked_children(&fake.kek_with(&fake.key(), &format!("credentials_file={}", account.display())));
}
