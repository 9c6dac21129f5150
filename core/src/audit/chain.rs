//! What makes the lines of an audit file a chain: a MAC for each, under a key that is forgotten as soon as it was used
//! (FORMAT.md §15). No line is read or written here.

use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::keys::{
    ChainId, KeyClass, KeyIdentity, KeySchedule, Lineage, Purpose, Secret, SlotId, erasing_hmac, hmac_sha256,
    hmac_sha256_erased,
};
use crate::kms::{Kms, KmsContext, UnwrapRequest, WrapRequest, WrappedKey};
use crate::random;
use crate::record::kms_binding;
use crate::wire::KeyId;
use core::fmt;
use keyfold_memory::erasing_stack;
use subtle::ConstantTimeEq;

/// In front of what a line's MAC covers.
const LINE: &[u8] = &[1];
/// What the next key is the MAC of.
const NEXT: &[u8] = &[2];

/// What the first line of a chain says about its key. Public.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainStart {
    /// The chain.
    pub id: ChainId,
    /// The keyring whose events it holds.
    pub lineage: Lineage,
    /// The environment of the keyring.
    pub environment: String,
    /// Commits to the first key.
    pub commitment: [u8; 32],
    /// The first key, wrapped under the audit KEK.
    pub wrapped: WrappedKey,
}

impl ChainStart {
    /// Begins a chain: draws its first key and has `kek` wrap it. One request; the right to encrypt is enough.
    ///
    /// Nobody but who may decrypt under `kek` can get the key back: the [`Ratchet`] steps away from it with each line.
    ///
    /// # Errors
    ///
    /// - [`Kms`](ErrorKind::Kms): the KEK did not wrap. - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable)
    pub async fn begin(kek: &dyn Kms, lineage: Lineage, environment: &str) -> Result<(Self, Ratchet)> {
        let id = ChainId::from_bytes(random::array()?);
        let key = random::secret::<32>()?;
        let identity = identity(lineage, id);
        // Before the request: nothing from which a key is derived is held across it.
        let (commitment, ratchet) = Ratchet::first(&key, identity);
        let binding = kms_binding(&identity, &commitment, environment);
        let payload = Secret::with(|payload: &mut [u8; 64]| {
            payload[..32].copy_from_slice(key.expose());
            payload[32..].copy_from_slice(&binding);
        });
        drop(key);
        let context = KmsContext::new(environment, lineage, KeyId::new(0, &commitment));
        let wrapped = kek.wrap(WrapRequest::new(&payload, &context)).await?;
        let possible = !wrapped.bytes.is_empty()
            && wrapped.bytes.len() <= WrappedKey::MAX_LEN
            && wrapped.kek_version.len() <= WrappedKey::MAX_VERSION_LEN;
        if !possible {
            let kind = ErrorKind::Kms(KmsErrorKind::MalformedResponse);
            return Err(Error::new(kind, "the key service returned a wrap of an impossible length"));
        }
        let start = Self { id, lineage, environment: environment.to_owned(), commitment, wrapped };
        Ok((start, ratchet))
    }

    /// Has `kek` unwrap the first key. One request, which needs the right to decrypt.
    ///
    /// # Errors
    ///
    /// - [`Kms`](ErrorKind::Kms): the KEK did not unwrap, or what it unwrapped was wrapped for something else.
    /// - [`RecordRejected`](ErrorKind::RecordRejected): the key is not the one that the line commits to.
    pub async fn open(&self, kek: &dyn Kms) -> Result<Ratchet> {
        let identity = identity(self.lineage, self.id);
        let context = KmsContext::new(&self.environment, self.lineage, KeyId::new(0, &self.commitment));
        let payload = kek.unwrap(UnwrapRequest::new(&self.wrapped, &context)).await?;
        let (key, bound) = payload.expose().split_at(32);
        if !bool::from(bound.ct_eq(&kms_binding(&identity, &self.commitment, &self.environment))) {
            let kind = ErrorKind::Kms(KmsErrorKind::InvalidCiphertext);
            return Err(Error::new(kind, "the key was wrapped for another chain"));
        }
        let key = Secret::with(|out: &mut [u8; 32]| out.copy_from_slice(key));
        let (commitment, ratchet) = Ratchet::first(&key, identity);
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(Error::new(ErrorKind::RecordRejected, "the chain commits to another key"));
        }
        Ok(ratchet)
    }
}

/// Chains have no generations: the number is 0, which no other key has.
const fn identity(lineage: Lineage, id: ChainId) -> KeyIdentity {
    KeyIdentity { lineage, class: KeyClass::Audit, slot: SlotId::from_bytes(*id.as_bytes()), generation: 0 }
}

/// The key of one line of a chain. Stepping on replaces it by the next line's, from which it cannot be computed.
pub struct Ratchet {
    key: Secret<32>,
    seq: u64,
}

impl Ratchet {
    /// What a chain commits to, and the key of its first line. HKDF leaves that key on the stack, from which all others follow.
    fn first(key: &Secret<32>, identity: KeyIdentity) -> ([u8; 32], Self) {
        erasing_stack(|| {
            let schedule = KeySchedule::new(key, identity);
            (schedule.commitment(), Self { key: schedule.expand(Purpose::AuditChain), seq: 0 })
        })
    }

    /// The line whose key this is; the first one is 0.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// The MAC of a line: `HMAC-SHA-256(key, 01 ‖ previous ‖ line)`, where `previous` is the MAC of the line before it in the
    /// chain, zeros for the first one.
    // F-15.1-1.
    #[must_use]
    pub fn mac(&self, previous: &[u8; 32], line: &[u8]) -> [u8; 32] {
        hmac_sha256_erased(&self.key, &[LINE, previous, line])
    }

    /// Whether `mac` is the MAC of the line. Takes the same time wherever they differ.
    #[must_use]
    pub fn verifies(&self, previous: &[u8; 32], line: &[u8], mac: &[u8; 32]) -> bool {
        self.mac(previous, line).ct_eq(mac).into()
    }

    /// A copy, to compute the MACs of lines that may fail to be written. The one that is not used is dropped at once.
    #[must_use]
    pub fn ahead(&self) -> Self {
        Self { key: Secret::with(|key| key.copy_from_slice(self.key.expose())), seq: self.seq }
    }

    /// Forgets this line's key: `HMAC-SHA-256(key, 02)` is the next one's.
    // F-15.1-2.
    pub fn step(&mut self) {
        self.key =
            erasing_hmac(|| Secret::with(|next: &mut [u8; 32]| next.copy_from_slice(&hmac_sha256(&self.key, &[NEXT]))));
        self.seq += 1;
    }
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ratchet").field("seq", &self.seq).finish_non_exhaustive()
    }
}
