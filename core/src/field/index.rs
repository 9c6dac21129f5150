//! Tokens of a blind index: what a writer stores beside a value, and what a reader looks for (DESIGN F21).

use super::live::LiveKeys;
use super::{Field, WRONG_CLASS, check_type};
use crate::audit::Use;
use crate::column::{ColumnValues, RowError};
use crate::context::{NameKind, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Material, OpenKey};
use crate::keys::{Secret, erasing_hmac};
use crate::lookup::{IndexPolicy, Token, Tokens};
use crate::observe;
use crate::policy::FieldPolicy;
use crate::value::Value;
use crate::wire::KeyId;
use std::sync::Arc;

impl Field {
    /// A handle that makes the tokens of the index `name` of the field. Scope and row play no part; the context does.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field has no such index, or a required context key is missing.
    /// - Those of acquiring each of the keys that the configuration names for the partition; see
    ///   [`decryptor`](Self::decryptor).
    pub async fn indexer(self, name: &str) -> Result<Indexer> {
        self.check()?;
        let Some(at) = self.policy.indexes.iter().position(|index| index.name == name) else {
            return Err(Error::new(ErrorKind::PolicyRefused, "the field has no such index")
                .with_detail(format!("{}, index {name}", self.policy.name)));
        };
        let keys = LiveKeys::of(self.ring, &self.policy.name, &self.policy.indexes[at].partition)?;
        let bound = Strings::new(NameKind::Field, &self.policy.name, &self.context)?;
        let head = IndexPolicy::head(&bound.to_bytes());
        let indexer = Indexer { policy: self.policy, at, head, keys };
        indexer.ready().await?;
        Ok(indexer)
    }
}

/// Makes the tokens of one index of a field. Opens no value. Shared freely between threads.
pub struct Indexer {
    policy: Arc<FieldPolicy>,
    /// Which of the field's indexes.
    at: usize,
    head: Vec<u8>,
    keys: LiveKeys,
}

impl Indexer {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The index.
    #[must_use]
    pub fn index(&self) -> &IndexPolicy {
        &self.policy.indexes[self.at]
    }

    /// The keys under which it finds values: the one that writers use, then the others.
    #[must_use]
    pub fn key_ids(&self) -> &[KeyId] {
        self.keys.key_ids()
    }

    /// Makes sure that the keys may be used, within the times of the [`CachePolicy`](crate::CachePolicy). Await it before the other calls:
    /// it costs a few loads unless there is something to do.
    ///
    /// # Errors
    ///
    /// As for [`Field::indexer`]; [`Closed`](ErrorKind::Closed) after [`Keyring::close`](crate::Keyring::close).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready().await?;
        Ok(self)
    }

    /// What a writer stores of `value`: one token, of prefixes one per length, sorted; none of a null or an empty text. Under the key that seals.
    /// What the index cannot take (no telephone number, no date, no digit) has none either, where the policy
    /// [skips](crate::OnUnindexable::Skip) it: then it is counted (`keyfold_unindexed_values_total`), and [`IndexPolicy::skips`] says so.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): wrong type, or the index cannot take it and the policy refuses that.
    /// - [`KeyState`](ErrorKind::KeyState): the key only opens.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): a key has been held for as long as the cache policy allows;
    ///   [`ready`](Self::ready) renews it. A key that was revoked gives the error that revoked it.
    pub fn tokens(&self, value: Value<'_>) -> Result<Tokens> {
        let tokens = self.keys.sealing().and_then(|key| {
            let tokens = erasing_hmac(|| self.tokens_under(&key, &value))?;
            self.keys.uses.count(key.key_id, Use::Sealed, 1);
            Ok(tokens)
        });
        tokens.map_err(|error| self.keys.uses.failed(error))
    }

    /// As [`tokens`](Self::tokens), for each row of a column.
    ///
    /// # Errors
    ///
    /// As for [`tokens`](Self::tokens), with the row. Nothing is returned for the other rows.
    pub fn tokens_column(&self, values: &(impl ColumnValues + ?Sized)) -> Result<Vec<Tokens>, RowError> {
        let failed = |error| self.keys.uses.failed(error);
        let key = self.keys.sealing().map_err(failed)?;
        let of_row =
            |row| self.tokens_under(&key, &values.value(row)).map_err(|error| RowError::at(row)(failed(error)));
        let tokens: Vec<Tokens> = erasing_hmac(|| (0..values.len()).map(of_row).collect::<Result<_, _>>())?;
        self.keys.uses.count(key.key_id, Use::Sealed, values.len() as u64);
        Ok(tokens)
    }

    fn tokens_under(&self, key: &OpenKey, value: &Value<'_>) -> Result<Tokens> {
        check_type(&self.policy, value)?;
        let tokens = self.index().tokens(index_key(key)?, &self.head, value)?;
        Ok(tokens.unwrap_or_else(|| {
            observe::unindexed_value();
            Tokens::new()
        }))
    }

    /// What to look for: one token per key, the one that writers use first. A row that has any of them may have the value, or start with it; open it
    /// and compare.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): as for [`tokens`](Self::tokens); there is nothing to find; or the prefix is shorter than the
    ///   shortest of the index.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): as for [`tokens`](Self::tokens).
    pub fn search_tokens(&self, value: Value<'_>) -> Result<Vec<Token>> {
        self.search(&value).map_err(|error| self.keys.uses.failed(error))
    }

    fn search(&self, value: &Value<'_>) -> Result<Vec<Token>> {
        let now = self.keys.now()?;
        check_type(&self.policy, value)?;
        let one = |key: &Arc<OpenKey>| {
            key.check_usable(now)?;
            let token = erasing_hmac(|| self.index().search_token(index_key(key)?, &self.head, value))?;
            let nothing = || Error::new(ErrorKind::InvalidInput, "the value has nothing to find");
            self.keys.uses.count(key.key_id, Use::Searched, 1);
            token.ok_or_else(nothing)
        };
        self.keys.held().iter().map(one).collect()
    }
}

fn index_key(key: &OpenKey) -> Result<&Secret<32>> {
    match &key.material {
        Material::Lookup { index, .. } => Ok(index),
        Material::Data { .. } => Err(WRONG_CLASS),
    }
}

impl core::fmt::Debug for Indexer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Indexer")
            .field("field", &self.policy.name)
            .field("index", &self.index().name)
            .field("keys", &self.key_ids())
            .finish_non_exhaustive()
    }
}
