//! A KEK that was used before its process is forked.

use crate::common::fork::{is_left_to_own_process, use_in_forked_children};
use crate::token::Tokens;

/// The child must initialise the library anew, and log in.
/// Covers KC-6, KC-25.
#[test]
fn a_forked_child_initialises_the_library_anew() {
    let Some(tokens) = Tokens::given() else { return };
    if is_left_to_own_process("fork::a_forked_child_initialises_the_library_anew") {
        return;
    }
    use_in_forked_children(&tokens.kek("forked", "kek", ""));
}
