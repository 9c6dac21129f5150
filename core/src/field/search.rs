//! Finding values of a deterministic field while its keys are being replaced (DESIGN F20).

use super::live::LiveKeys;
use super::{Bound, Field, WRONG_CLASS, check_type};
use crate::audit::Use;
use crate::column::DeterministicSeal;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Material, OpenKey};
use crate::policy::FieldPolicy;
use crate::value::Value;
use crate::wire::KeyId;
use std::sync::Arc;

impl Field {
    /// A handle that finds values of a deterministic field.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the field is not deterministic, so equal values do not look equal.
    /// - Those of acquiring each of the keys that the configuration names for the partition; see
    ///   [`decryptor`](Self::decryptor).
    pub async fn searcher(self) -> Result<Searcher> {
        let bound = self.bind()?;
        let Some(partition) = self.policy.deterministic_partition() else {
            return Err(Error::new(ErrorKind::PolicyRefused, "only values of a deterministic field can be found")
                .with_detail(&self.policy.name));
        };
        let keys = LiveKeys::of(self.ring, &self.policy.name, partition)?;
        let searcher = Searcher { policy: self.policy, bound, keys };
        searcher.ready().await?;
        Ok(searcher)
    }
}

/// Says what a value of one field looks like in the database, under each key under which it may have been sealed.
/// Shared freely between threads.
pub struct Searcher {
    policy: Arc<FieldPolicy>,
    bound: Bound,
    keys: LiveKeys,
}

impl Searcher {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The keys under which it finds values: the one that seals, then the others.
    #[must_use]
    pub fn key_ids(&self) -> &[KeyId] {
        self.keys.key_ids()
    }

    /// Makes sure that the keys may be used, within the times of the [`CachePolicy`](crate::CachePolicy). Await it
    /// before [`ciphertexts`](Self::ciphertexts): it costs a few loads unless there is something to do.
    ///
    /// # Errors
    ///
    /// As for [`Field::searcher`]; [`Closed`](ErrorKind::Closed) after [`Keyring::close`](crate::Keyring::close).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready().await?;
        Ok(self)
    }

    /// What `value` looks like when it is sealed: one ciphertext per key, the one of the key that seals first. A row
    /// whose column equals any of them has the value.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): wrong type, or no canonical encoding.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the value is too long.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): a key has been held for as long as the cache policy allows;
    ///   [`ready`](Self::ready) renews it. A key that was revoked gives the error that revoked it.
    pub fn ciphertexts(&self, value: Value<'_>) -> Result<Vec<Vec<u8>>> {
        self.seal(value).map_err(|error| self.keys.uses.failed(error))
    }

    fn seal(&self, value: Value<'_>) -> Result<Vec<Vec<u8>>> {
        let now = self.keys.now()?;
        check_type(&self.policy, &value)?;
        let one = |key: &Arc<OpenKey>| {
            key.check_usable(now)?;
            let Material::Lookup { siv, .. } = &key.material else { return Err(WRONG_CLASS) };
            let (key_id, padding) = (key.key_id, self.policy.padding);
            let seal = DeterministicSeal { key_id, key: siv, strings: &self.bound.strings, padding };
            let sealed = seal.column(&[value][..])?.into_parts().0;
            self.keys.uses.count(key_id, Use::Searched, 1);
            Ok(sealed)
        };
        self.keys.held().iter().map(one).collect()
    }
}

impl core::fmt::Debug for Searcher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Searcher")
            .field("field", &self.policy.name)
            .field("keys", &self.key_ids())
            .finish_non_exhaustive()
    }
}
