//! From a policy to its fields with their keys.

use super::{Direction, FieldCipher, SharedTokens};
use crate::DocumentError;
use keyfold::{Context, Documents, Error, ErrorKind, FieldMode, FieldPolicy, Keyring, Policy};

/// Whose keys, for what: the keyring, the direction, and what values are bound to beside their rows.
///
/// Its methods block while keys are acquired.
#[derive(Clone)]
pub struct FieldKeys<'r> {
    /// Keys and policy.
    pub ring: &'r Keyring,
    /// Which way.
    pub direction: Direction,
    /// The keys of this scope, if not those of the keyring itself. Protecting makes it if there is none of that name.
    pub scope: Option<&'r str>,
    /// The context of all values.
    pub context: Context,
    /// What holds random tokens, if anything does.
    pub tokens: Option<SharedTokens>,
}

impl FieldKeys<'_> {
    /// The fields of the policy that `keep` chooses, with their keys.
    ///
    /// # Errors
    ///
    /// Those of acquiring the keys of a field, with its name. [`PolicyRefused`](ErrorKind::PolicyRefused): its values have random tokens,
    /// and there is nothing that holds them.
    pub fn fields(&self, keep: impl Fn(&FieldPolicy) -> bool) -> Result<Vec<FieldCipher>, DocumentError> {
        let policy = self.ring.policy();
        // Tokens, and values that keep their format, say no key: there is nothing to renew, and no row that they are bound to.
        let moves = matches!(self.direction, Direction::Rebind | Direction::Reencrypt);
        let stays = |field: &FieldPolicy| {
            moves && matches!(field.mode, FieldMode::FormatPreserving { .. } | FieldMode::Token { .. })
        };
        let cipher = |policy: &std::sync::Arc<FieldPolicy>| {
            let mut field = self.ring.field(&policy.name)?.context(self.context.clone());
            if let Some(scope) = self.scope {
                field = field.scope(scope);
            }
            FieldCipher::new(policy.clone(), field, self.direction, self.tokens.as_ref())
        };
        let chosen = policy.fields().filter(|field| keep(field) && !stays(field));
        chosen.map(|policy| cipher(policy).map_err(|error| DocumentError::from(error).of_field(&policy.name))).collect()
    }

    /// Documents of this kind, about to be sealed or opened.
    pub(crate) fn documents(&self, kind: &str) -> Result<Documents, Error> {
        let documents = self.ring.documents(kind)?.context(self.context.clone());
        Ok(match self.scope {
            Some(scope) => documents.scope(scope),
            None => documents,
        })
    }
}

/// Refuses fields that say where they are in other formats only: the same data in this one would stay in clear.
/// `missing` tells whether a field lacks a locator for this format and for all others; `what` is the locator.
///
/// # Errors
///
/// [`PolicyRefused`](ErrorKind::PolicyRefused).
pub fn refuse_elsewhere(
    policy: &Policy,
    missing: impl Fn(&FieldPolicy) -> (bool, bool),
    what: &str,
) -> Result<(), DocumentError> {
    match policy.fields().find(|field| !field.optional && missing(field) == (true, false)) {
        None => Ok(()),
        Some(field) => {
            let why = "the policy does not say where it is in this format, so it would stay in clear; optional = true allows that";
            let error = Error::new(ErrorKind::PolicyRefused, why).with_detail(format!("no {what}"));
            Err(DocumentError::from(error).of_field(&field.name))
        }
    }
}
