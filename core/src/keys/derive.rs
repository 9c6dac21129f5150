//! Purpose keys: HKDF-SHA-256 (RFC 5869) with one label per purpose (FORMAT.md §2.2).

use super::{KeyIdentity, Secret};
use crate::prf::Hkdf;
#[cfg(feature = "std")]
use crate::prf::{HkdfExpandSha512, HmacSha256};
use crate::wire::KeyId;

/// What a derived key may be used for. Each has its own label, so no two purposes ever share a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(not(feature = "std"), allow(dead_code, reason = "a device holds data keys only"))]
pub(crate) enum Purpose {
    Commitment,
    RecordMac,
    ChildWrap,
    Endorsement,
    Field,
    Stream,
    Document,
    Deterministic,
    ScopeNames,
    Index,
    FormatPreserving,
    TokenProof,
    AuditChain,
}

impl Purpose {
    /// Every purpose with the length of its output in bytes.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 13] = [
        Self::Commitment,
        Self::RecordMac,
        Self::ChildWrap,
        Self::Endorsement,
        Self::Field,
        Self::Stream,
        Self::Document,
        Self::Deterministic,
        Self::ScopeNames,
        Self::Index,
        Self::FormatPreserving,
        Self::TokenProof,
        Self::AuditChain,
    ];

    // F-2.2-2.
    pub(crate) const fn label(self) -> &'static [u8] {
        match self {
            Self::Commitment => b"keyfold/v1/commitment",
            Self::RecordMac => b"keyfold/v1/root/record-mac",
            Self::ChildWrap => b"keyfold/v1/root/child-wrap",
            Self::Endorsement => b"keyfold/v1/root/endorsement",
            Self::Field => b"keyfold/v1/data/01-field",
            Self::Stream => b"keyfold/v1/data/04-stream",
            Self::Document => b"keyfold/v1/data/05-document",
            Self::Deterministic => b"keyfold/v1/lookup/02-deterministic",
            Self::ScopeNames => b"keyfold/v1/lookup/scope-names",
            Self::Index => b"keyfold/v1/lookup/index",
            Self::FormatPreserving => b"keyfold/v1/lookup/format-preserving",
            Self::TokenProof => b"keyfold/v1/lookup/token-proof",
            Self::AuditChain => b"keyfold/v1/audit/chain",
        }
    }
}

/// `info` of the longest label: length byte, label, identity.
const MAX_INFO_LEN: usize = 1 + 48 + KeyIdentity::LEN;

/// Where the state is that stands for a key: moved around by itself it would leave copies, with parts of the key that the hash has
/// buffered.
#[cfg(feature = "std")]
type Place<T> = keyfold_memory::Guarded<T>;
#[cfg(not(feature = "std"))]
type Place<T> = T;

/// A key after HKDF-Extract, from which its purpose keys are expanded. Erased on drop.
pub(crate) struct KeySchedule {
    hkdf: Place<Hkdf>,
    identity: KeyIdentity,
}

impl KeySchedule {
    /// Bytes that it takes beside itself.
    #[cfg(feature = "std")]
    pub(crate) const HELD_LEN: usize = Place::<Hkdf>::SLOT_LEN;

    pub(crate) fn new(key: &Secret<32>, identity: KeyIdentity) -> Self {
        // The hash takes in the key from the stack.
        #[cfg(feature = "std")]
        let hkdf = keyfold_memory::erasing_stack(|| Place::new(Hkdf::new(key.expose())));
        #[cfg(not(feature = "std"))]
        let hkdf = Hkdf::new(key.expose());
        Self { hkdf, identity }
    }

    /// HKDF-Expand(PRK, label length (1) ‖ label ‖ identity (37), N)
    // F-2.2-1.
    pub(crate) fn expand<const N: usize>(&self, purpose: Purpose) -> Secret<N> {
        let label = purpose.label();
        let mut info = [0; MAX_INFO_LEN];
        let len = 1 + label.len() + KeyIdentity::LEN;
        // Labels are constants of this file, at most 48 bytes long; a test walks all of them.
        info[0] = label.len() as u8;
        info[1..=label.len()].copy_from_slice(label);
        info[1 + label.len()..len].copy_from_slice(&self.identity.encode());
        Secret::with(|out| self.hkdf.expand(&[&info[..len]], out))
    }

    /// The 32 public bytes that commit to key and identity. Its first 20 are in every ciphertext.
    pub(crate) fn commitment(&self) -> [u8; 32] {
        *self.expand::<32>(Purpose::Commitment).expose()
    }

    pub(crate) fn key_id(&self) -> KeyId {
        KeyId::new(self.identity.generation, &self.commitment())
    }
}

/// A purpose key from which several keys are expanded: those of one document (FORMAT.md §18.3). Erased on drop.
#[cfg(feature = "std")]
pub(crate) struct Expander(Hkdf);

#[cfg(feature = "std")]
impl Expander {
    pub(crate) fn new(key: &Secret<32>) -> Self {
        Self(Hkdf::from_prk(key.expose()))
    }

    /// HKDF-Expand(key, `info`, 32), of which `info` is given in parts.
    pub(crate) fn expand(&self, info: &[&[u8]]) -> Secret<32> {
        Secret::with(|out| self.0.expand(info, out))
    }
}

/// HKDF-Expand(`key`, concatenation of `parts`, N) with SHA-512: the keys of one stream (FORMAT.md §19.2).
// F-19.2-1.
#[cfg(feature = "std")]
pub(crate) fn expand_sha512<const N: usize>(key: &Secret<32>, parts: &[&[u8]]) -> Secret<N> {
    keyfold_memory::erasing_stack(|| Secret::with(|out| HkdfExpandSha512::new(key.expose()).expand(parts, out)))
}

/// HMAC-SHA-256 (FIPS 198-1) over the concatenation of `parts`.
#[cfg(feature = "std")]
pub(crate) fn hmac_sha256(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = HmacSha256::new(key.expose());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize()
}

/// How far down the stack HMAC may leave its key and states: less than the 16 KiB of others, since whoever verifies an audit chain computes one for
/// every line.
#[cfg(feature = "std")]
const HMAC_STACK: usize = 4096;

/// Runs `work`, which computes HMACs, and overwrites what that leaves of keys on the stack.
#[cfg(feature = "std")]
pub(crate) fn erasing_hmac<T>(work: impl FnOnce() -> T) -> T {
    keyfold_memory::erasing_stack_of::<HMAC_STACK, T>(work)
}

/// As [`hmac_sha256`], and nothing of the key is left on the stack.
#[cfg(feature = "std")]
pub(crate) fn hmac_sha256_erased(key: &Secret<32>, parts: &[&[u8]]) -> [u8; 32] {
    erasing_hmac(|| hmac_sha256(key, parts))
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::keys::{KeyClass, Lineage, SlotId};
    use std::collections::HashSet;

    fn identity() -> KeyIdentity {
        KeyIdentity {
            lineage: Lineage::from_bytes([1; 16]),
            class: KeyClass::Data,
            slot: SlotId::from_bytes([2; 16]),
            generation: 3,
        }
    }

    /// Covers F-2.2-1, F-2.2-2.
    // Failure N10
    #[test]
    fn every_purpose_and_every_part_of_the_identity_changes_the_key() {
        let key = Secret::with(|k: &mut [u8; 32]| k.fill(7));
        let base = identity();
        let identities = [
            base,
            KeyIdentity { lineage: Lineage::from_bytes([9; 16]), ..base },
            KeyIdentity { class: KeyClass::Lookup, ..base },
            KeyIdentity { slot: SlotId::NONE, ..base },
            KeyIdentity { generation: 4, ..base },
        ];
        let mut seen = HashSet::new();
        for identity in identities {
            let schedule = KeySchedule::new(&key, identity);
            for purpose in Purpose::ALL {
                assert!(purpose.label().len() <= 48);
                assert!(seen.insert(*schedule.expand::<32>(purpose).expose()), "{purpose:?} {identity:?}");
            }
        }
    }
}
