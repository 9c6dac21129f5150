//! From a policy to its fields with their keys.

use super::{Direction, FieldCipher, SharedTokens};
use crate::DocumentError;
use keyfold::{Context, Documents, Error, FieldMode, FieldPolicy, Keyring, Policy, RowBinding};

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
    /// Those of acquiring the keys of a field, with its name. [`PolicyRefused`](keyfold::ErrorKind::PolicyRefused): its values have random tokens,
    /// and there is nothing that holds them.
    pub fn fields(&self, keep: impl Fn(&FieldPolicy) -> bool) -> Result<Vec<FieldCipher>, DocumentError> {
        let policy = self.ring.policy();
        // Tokens, and values that keep their format, say no key: there is nothing to renew, and no row that they are bound to.
        let moves = matches!(self.direction, Direction::Rebind | Direction::Reencrypt);
        let stays = |field: &FieldPolicy| match field.mode {
            FieldMode::FormatPreserving { .. } => moves,
            FieldMode::Token { .. } => !self.direction.needs_tokens(&policy, field),
            _ => false,
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

impl Direction {
    /// Whether the tokens of `field` are looked up in this direction: where values keep their keys or rows, only if some are bound to these.
    #[must_use]
    pub fn needs_tokens(self, policy: &Policy, field: &FieldPolicy) -> bool {
        let is_row = |binding: &RowBinding| match binding {
            RowBinding::Bound { column, path, segment } => {
                column.as_ref().is_some_and(|column| field.columns.contains(column))
                    || path.as_ref().is_some_and(|path| field.paths.contains(path))
                    || segment.iter().flatten().any(|place| field.segments.contains(place))
            }
            _ => false,
        };
        matches!(field.mode, FieldMode::Token { .. })
            && (matches!(self, Self::Protect { .. } | Self::Reveal)
                || policy.fields().any(|other| is_row(&other.row_binding)))
    }
}
