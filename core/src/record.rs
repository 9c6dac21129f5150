//! Key records: how a key is kept, and what makes a record count (FORMAT.md §7, DESIGN K1 to K5).

mod root;
mod state;

#[cfg(feature = "hazmat")]
pub(crate) use root::child_wrap_aad;
pub(crate) use root::kms_binding;
pub(crate) use root::{NewKey, NewRecord, RootKey, unwrapped_by_kek};
pub use state::KeyState;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, KeyIdentity, Lineage, Secret, SlotId};
use crate::kms::{KekAlias, KmsContext, WrappedKey};
use crate::store::Slot;
use crate::wire::KeyId;
use crate::wire::record::{Body, MAC_LEN, Wrap};
use core::fmt;

/// A key record: safe to keep in the open, worthless until a trusted root vouches for it.
///
/// Parsing checks the layout alone. Only the keyring, which holds the root, can tell whether a record is genuine.
#[derive(Clone, Eq, PartialEq)]
pub struct Record {
    body: Body,
    bytes: Vec<u8>,
}

impl Record {
    /// Takes a stored record apart.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): not one canonical record.
    /// - [`Unsupported`](ErrorKind::Unsupported): written by a newer version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (body, _) = Body::parse(bytes)?;
        Ok(Self { body, bytes: bytes.to_vec() })
    }

    /// The canonical bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The ID of the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.body.key_id
    }

    /// The commitment to the key; of a root, what a pin in the configuration must equal.
    #[must_use]
    pub fn commitment(&self) -> &[u8; 32] {
        &self.body.commitment
    }

    /// The root whose MAC the record carries.
    #[must_use]
    pub fn authenticator(&self) -> KeyId {
        self.body.authenticator
    }

    /// The keyring.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.body.lineage
    }

    /// The class of the key.
    #[must_use]
    pub fn class(&self) -> KeyClass {
        self.body.class
    }

    /// The state of the key.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.body.state
    }

    /// The scope or partition.
    #[must_use]
    pub fn slot_id(&self) -> SlotId {
        self.body.slot
    }

    /// Keyring, class and scope or partition.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot { lineage: self.body.lineage, class: self.body.class, id: self.body.slot }
    }

    /// The keyed name of the scope; `None` for keys without one.
    #[must_use]
    pub fn scope_tag(&self) -> Option<[u8; 32]> {
        (self.body.scope_tag != [0; 32]).then_some(self.body.scope_tag)
    }

    /// Counts the changes of the record; never goes back.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.body.sequence
    }

    /// When the key was made, in seconds since 1970 by the store's clock.
    #[must_use]
    pub fn created_at(&self) -> u64 {
        self.body.created_at
    }

    /// When the key became active, in seconds since 1970 by the store's clock; 0 if it has not.
    #[must_use]
    pub fn activated_at(&self) -> u64 {
        self.body.activated_at
    }

    /// When the record last changed, in seconds since 1970 by the store's clock.
    #[must_use]
    pub fn changed_at(&self) -> u64 {
        self.body.changed_at
    }

    /// The environment that the keyring belongs to.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.body.environment
    }

    /// The aliases of the KEKs that wrap this key; empty for keys that a root wraps.
    pub fn kek_aliases(&self) -> impl Iterator<Item = &KekAlias> {
        self.body.wraps.iter().filter_map(|wrap| match wrap {
            Wrap::Kek { alias, .. } => Some(alias),
            Wrap::Root(_) | Wrap::Unknown { .. } => None,
        })
    }

    /// What each KEK made of this key; nothing for keys that a root wraps.
    pub fn kek_wraps(&self) -> impl Iterator<Item = (&KekAlias, &WrappedKey)> {
        self.body.wraps.iter().filter_map(|wrap| match wrap {
            Wrap::Kek { alias, wrapped } => Some((alias, wrapped)),
            Wrap::Root(_) | Wrap::Unknown { .. } => None,
        })
    }

    /// Of a root the one that endorsed it, if one did.
    #[must_use]
    pub fn endorsed_by(&self) -> Option<KeyId> {
        self.body.endorsement.map(|endorsement| endorsement.by)
    }

    /// Whether KEKs wrap the key directly, although a root vouches for its record (DESIGN K1). A tombstone still says so.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        let under_root = self.body.wraps.iter().any(|wrap| matches!(wrap, Wrap::Root(_)));
        let by_keks = self.kek_aliases().next().is_some();
        self.body.class != KeyClass::Root && !under_root && (by_keks || self.body.has_extension(Body::ISOLATED))
    }

    /// Since when the key is under legal hold, in seconds since 1970 by the store's clock; `None` if it is not.
    #[must_use]
    pub fn held_since(&self) -> Option<u64> {
        let content = self.body.extension_of(Body::HOLD)?;
        // Any content holds: a newer version may say more.
        Some(content.first_chunk().map_or(0, |since| u64::from_be_bytes(*since)))
    }

    /// Whether the key was compromised before its destruction was scheduled.
    pub(crate) fn was_compromised(&self) -> bool {
        self.body.has_extension(Body::COMPROMISED)
    }

    /// Whether this record wins over `other`, another one of the same key, when copies of a store are put together: a
    /// tombstone over everything else, then the higher sequence, then the more restrictive state.
    #[must_use]
    pub fn outranks(&self, other: &Self) -> bool {
        self.rank() > other.rank()
    }

    pub(crate) fn rank(&self) -> (bool, u64, u8) {
        (self.state() == KeyState::Destroyed, self.sequence(), self.state().restriction())
    }

    /// What a KEK authenticates along with this key.
    #[must_use]
    pub fn kms_context(&self) -> KmsContext {
        KmsContext::new(&self.body.environment, self.body.lineage, self.body.key_id)
    }

    /// Checks that `payload`, which a KEK unwrapped, holds the key of this record, and keeps nothing of it.
    ///
    /// # Errors
    ///
    /// - [`Kms`](ErrorKind::Kms) with `InvalidCiphertext`: it was wrapped for another record.
    /// - [`RecordRejected`](ErrorKind::RecordRejected): it is not the key that the record commits to.
    pub fn check_unwrapped(&self, payload: &Secret<64>) -> Result<()> {
        unwrapped_by_kek(self, payload).map(drop)
    }

    fn identity(&self) -> KeyIdentity {
        KeyIdentity {
            lineage: self.body.lineage,
            class: self.body.class,
            slot: self.body.slot,
            generation: self.body.key_id.generation(),
        }
    }

    fn mac(&self) -> &[u8] {
        self.bytes.last_chunk::<MAC_LEN>().map_or(&[], |mac| mac)
    }

    fn authenticated_part(&self) -> &[u8] {
        &self.bytes[..self.bytes.len() - MAC_LEN]
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("class", &self.class())
            .field("key_id", &self.key_id())
            .field("state", &self.state())
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

pub(crate) fn rejected(record: &Record, why: &str) -> Error {
    Error::new(ErrorKind::RecordRejected, "key record rejected").with_detail(format!("{}: {why}", record.key_id()))
}
