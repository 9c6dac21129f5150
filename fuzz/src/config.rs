//! `keyfold.toml` and policy files: refused with file and reason, or a policy that can be used.

use crate::lab::{PROTECT, documents};
use crate::memory::bounded;
use crate::world::World;
use keyfold::config::{Config, add_policy};
use keyfold::{Error, ErrorKind, Policy};
use keyfold_documents::Direction;

/// Reads the text as either.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What is parsed of a TOML document takes much more memory than its text.
    bounded(text.len(), 512, || {
        match Config::parse(text, "keyfold.toml") {
            Ok(config) => {
                let again = Config::parse(text, "keyfold.toml").expect("it was read before");
                assert_eq!(format!("{config:?}"), format!("{again:?}"));
            }
            Err(error) => check(&error, "keyfold.toml"),
        }
        let mut policy = Policy::new();
        match add_policy(&mut policy, text, "policy.toml") {
            Ok(()) => use_policy(policy, text),
            Err(error) => check(&error, "policy.toml"),
        }
    });
}

fn check(error: &Error, file: &str) {
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains(file), "an error that names no file: {error}");
}

/// A policy that was read opens a keyring, or that says why not; and compiles its paths, or that says why not.
fn use_policy(mut policy: Policy, text: &str) {
    let mut fields = policy.fields().map(|field| field.name.to_string()).peekable();
    let has_fields = fields.peek().is_some();
    drop(fields);
    let Ok(ring) = World::generated().keyring(policy.clone()) else { return };
    for direction in [PROTECT, Direction::Reveal, Direction::Reencrypt] {
        drop(documents(&ring, direction));
    }
    if has_fields {
        let twice = add_policy(&mut policy, text, "policy.toml").expect_err("every field is there already");
        check(&twice, "policy.toml");
    }
}
