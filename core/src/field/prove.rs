//! Proofs that a row of a token table is as a holder of the look-up key wrote it (DESIGN F22).

use super::live::LiveKeys;
use super::{Field, WRONG_CLASS, check_type};
use crate::context::{NameKind, Strings};
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{Material, OpenKey};
use crate::keys::Secret;
use crate::lookup::{TokenForm, proof};
use crate::policy::{FieldMode, FieldPolicy};
use crate::value::Value;
use crate::wire::KeyId;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const FORGED: &str =
    "the token does not stand for this value: the row of the token table was exchanged, copied or forged";

impl Field {
    /// A handle that proves, and checks, which value a random token stands for. Scope and row play no part; the context does.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the values of the field have no tokens, or a required context key is missing.
    /// - Those of acquiring each of the keys that the configuration names for the partition; see [`decryptor`](Self::decryptor).
    pub async fn prover(self) -> Result<Prover> {
        self.check()?;
        let FieldMode::Token { partition, form } = &self.policy.mode else {
            return Err(Error::new(ErrorKind::PolicyRefused, "the values of this field have no random tokens")
                .with_detail(&self.policy.name));
        };
        let (keys, form) = (LiveKeys::of(self.ring, &self.policy.name, partition)?, *form);
        let head = proof::head(&Strings::new(NameKind::Field, &self.policy.name, &self.context)?.to_bytes());
        let prover = Prover { policy: self.policy, form, head, keys };
        prover.ready().await?;
        Ok(prover)
    }
}

/// Proves which value a random token stands for, to whoever reads the table of tokens later: who can write the table, but lacks the look-up key,
/// makes no row that is accepted. Bound to the field, its context, the partition, the token and the value. Shared freely between threads.
///
/// It does not show that a row was deleted, or put back as it once was.
pub struct Prover {
    policy: Arc<FieldPolicy>,
    form: TokenForm,
    head: Vec<u8>,
    keys: LiveKeys,
}

impl Prover {
    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.policy
    }

    /// The keys whose proofs are accepted: the one that writers use, then the others.
    #[must_use]
    pub fn key_ids(&self) -> &[KeyId] {
        self.keys.key_ids()
    }

    /// Makes sure that the keys may be used, within the times of the [`CachePolicy`](crate::CachePolicy). Await it before the other calls: it costs
    /// a few loads unless there is something to do.
    ///
    /// # Errors
    ///
    /// As for [`Field::prover`]; [`Closed`](ErrorKind::Closed) after [`Keyring::close`](crate::Keyring::close).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready().await?;
        Ok(self)
    }

    /// What a writer stores beside `token` and the sealed `value`: 32 bytes, under the key that seals.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): wrong type, no canonical encoding, or `token` has not the form of the field's tokens.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the value is too long.
    /// - [`KeyState`](ErrorKind::KeyState): the key only opens.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): a key has been held for as long as the cache policy allows;
    ///   [`ready`](Self::ready) renews it. A key that was revoked gives the error that revoked it.
    pub fn prove(&self, token: &str, value: Value<'_>) -> Result<[u8; 32]> {
        let prove = || {
            let key = self.keys.sealing()?;
            self.check_input(token, &value)?;
            proof::proof(proof_key(&key)?, &self.head, token, &value)
        };
        prove().map_err(|error| self.keys.uses.failed(error))
    }

    /// Makes sure that `proof` was made by [`prove`](Self::prove) for the same token and value, under one of the keys.
    ///
    /// # Errors
    ///
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): it was not. Nothing of the row is to be believed.
    /// - As for [`prove`](Self::prove); a key that only opens will do.
    pub fn check(&self, token: &str, value: Value<'_>, proof: &[u8]) -> Result<()> {
        self.is_proof(token, &value, proof).map_err(|error| self.keys.uses.failed(error))
    }

    fn is_proof(&self, token: &str, value: &Value<'_>, proof: &[u8]) -> Result<()> {
        let now = self.keys.now()?;
        self.check_input(token, value)?;
        for key in self.keys.held().iter() {
            key.check_usable(now)?;
            if bool::from(proof::proof(proof_key(key)?, &self.head, token, value)?[..].ct_eq(proof)) {
                return Ok(());
            }
        }
        // F-17.5-2.
        Err(Error::new(ErrorKind::DecryptionFailed, FORGED).with_detail(&self.policy.name))
    }

    fn check_input(&self, token: &str, value: &Value<'_>) -> Result<()> {
        check_type(&self.policy, value)?;
        if self.form.fits(&Value::Text(token)) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "the text has not the form of the field's tokens"))
    }
}

fn proof_key(key: &OpenKey) -> Result<&Secret<32>> {
    match &key.material {
        Material::Lookup { token_proof, .. } => Ok(token_proof),
        Material::Data { .. } => Err(WRONG_CLASS),
    }
}

impl core::fmt::Debug for Prover {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Prover")
            .field("field", &self.policy.name)
            .field("keys", &self.key_ids())
            .finish_non_exhaustive()
    }
}
