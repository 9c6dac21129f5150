//! What the tests of streams share: a policy with fields of them, and files that are none yet.

use crate::common::{CANARY, World};

pub(crate) const RULES: &str = r#"version = 1
[fields.image]
mode = "stream"
[fields.scan]
mode = "stream"
row_binding = "id"
[fields.export]
mode = "stream"
required_context = ["tenant"]
[fields.name]
columns = ["name"]
"#;

/// Bytes that no message may have, of any length.
pub(crate) fn content(len: usize) -> Vec<u8> {
    CANARY.bytes().chain((0..).map(|i| (i % 251) as u8)).take(len).collect()
}

pub(crate) fn world() -> World {
    let world = World::new();
    world.write("policy.toml", RULES);
    world
}

/// `in` protected as `sealed` and revealed as `back`.
pub(crate) const PROTECT: [&str; 6] = ["protect", "--stream", "image", "in", "--output", "sealed"];
pub(crate) const REVEAL: [&str; 6] = ["reveal", "--stream", "image", "sealed", "--output", "back"];
