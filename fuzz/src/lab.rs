//! The keyring of the vectors under a policy, and its fields for both directions.

use crate::world::World;
use keyfold::{Context, Keyring, Policy};
use keyfold_documents::{Direction, DocumentCipher, DocumentError, DocumentOptions, FieldCipher, FieldKeys};

/// A scope with a key that seals. That of the keyring itself has keys in every state.
pub const SCOPE: &str = "clinic-17";

/// From clear to protected; what looks sealed is refused.
pub const PROTECT: Direction = Direction::Protect { seal_sealed: false };

/// The keyring, with the fields of a policy file.
pub fn ring(policy: &str) -> Keyring {
    let mut fields = Policy::new();
    keyfold::config::add_policy(&mut fields, policy, "policy.toml").expect("a policy");
    World::generated().keyring(fields).expect("a keyring")
}

fn keys(ring: &Keyring, direction: Direction) -> FieldKeys<'_> {
    FieldKeys { ring, direction, scope: Some(SCOPE), context: Context::new(), tokens: None }
}

/// Documents of one direction.
pub fn documents(ring: &Keyring, direction: Direction) -> Result<DocumentCipher<'static>, DocumentError> {
    DocumentCipher::new(&keys(ring, direction), DocumentOptions { pass_unmatched: false, many_lines: true })
}

/// The fields with these names, for protecting and for revealing.
pub fn fields<const N: usize>(ring: &Keyring, names: [&str; N]) -> [[FieldCipher; 2]; N] {
    names.map(|name| {
        [PROTECT, Direction::Reveal].map(|direction| {
            let mut found = keys(ring, direction).fields(|field| field.name == name).expect("its keys");
            found.pop().expect("a field of the policy")
        })
    })
}
