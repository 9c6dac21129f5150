//! A KEK that was used before its process is forked.

use crate::bao::Bao;
use crate::common::fork::{is_left_to_own_process, use_in_forked_children};

/// One attempt each, so that a connection of the parent's that hangs in the child is not made up for by another.
/// Covers KC-6, KC-25.
#[test]
fn a_forked_child_uses_connections_of_its_own() {
    let Some(bao) = Bao::given() else { return };
    if is_left_to_own_process("fork::a_forked_child_uses_connections_of_its_own") {
        return;
    }
    let token = bao.file(&bao.token);
    use_in_forked_children(&bao.kek_with(&bao.derived_key(), &format!("token_file={}&attempts=1", token.display())));
}
