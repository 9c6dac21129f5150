//! Scopes by name: a tenant, a clinic, a device. The store knows only keyed hashes of the names (FORMAT.md §7.4).

use super::{Keyring, Material};
use crate::cache::{Cached, Lease};
use crate::error::{Error, ErrorKind, Result};
use crate::keys::{KeyClass, SlotId, hmac_sha256_erased};
use crate::random;
use crate::record::{KeyState, rejected};
use crate::store::Slot;
use std::sync::Arc;
use zeroize::Zeroize;

/// Longest name of a scope in bytes.
pub const MAX_SCOPE_NAME_LEN: usize = 1024;

/// A scope's name in memory: the one plain thing in a keyring that can name a patient. Erased on drop.
#[derive(Clone, Eq, Hash, PartialEq)]
pub(super) struct ScopeName(Arc<str>);

impl Drop for ScopeName {
    fn drop(&mut self) {
        // Only the last clone may write to it.
        if let Some(name) = Arc::get_mut(&mut self.0) {
            name.zeroize();
        }
    }
}

/// A scope that a root vouches for. Its slot never changes, so it may be remembered for ever.
pub(super) struct Scope {
    slot: SlotId,
    name_len: usize,
    lease: Lease,
}

impl Cached for Scope {
    fn lease(&self) -> &Lease {
        &self.lease
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.name_len + 32
    }
}

impl Scope {
    fn new(slot: SlotId, name: &str) -> Arc<Self> {
        Arc::new(Self { slot, name_len: name.len(), lease: Lease::unlimited() })
    }
}

impl Keyring {
    /// Whether the keyring has a scope of this name.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): no scope can have the name. - Those of acquiring a key.
    pub async fn has_scope(&self, name: &str) -> Result<bool> {
        match self.scope(name, false).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NoMatchingKey && error.detail().is_empty() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The slot of the data keys of `scope`, which must exist.
    pub(crate) async fn data_slot(&self, scope: Option<&str>) -> Result<Slot> {
        let Some(name) = scope else { return Ok(self.slot(KeyClass::Data, SlotId::NONE)) };
        Ok(self.slot(KeyClass::Data, self.scope(name, false).await?))
    }

    /// The slot of the data keys of `scope`; makes the scope if there is none.
    pub(crate) async fn data_slot_or_new(&self, scope: Option<&str>) -> Result<Slot> {
        let Some(name) = scope else { return Ok(self.slot(KeyClass::Data, SlotId::NONE)) };
        Ok(self.slot(KeyClass::Data, self.scope(name, true).await?))
    }

    async fn scope(&self, name: &str, make: bool) -> Result<SlotId> {
        // F-7.4-4.
        if name.is_empty() || name.len() > MAX_SCOPE_NAME_LEN {
            return Err(Error::new(ErrorKind::InvalidInput, "a scope has a name of 1 to 1,024 bytes"));
        }
        self.check_open()?;
        let key = ScopeName(name.into());
        let policy = self.configured().keyring.cache;
        let mut attempts_left = 3;
        loop {
            attempts_left -= 1;
            let fetch = async |_: Option<&Arc<Scope>>| {
                let tag = self.scope_tag(name).await?;
                match self.find_scope(tag).await? {
                    Some(slot) => Ok(Scope::new(slot, name)),
                    None if make => Ok(Scope::new(self.create_scope(tag).await?, name)),
                    None => Err(no_such_scope()),
                }
            };
            match self.inner.scopes.get_or_fetch(&key, || self.time(), &policy, fetch).await {
                // Somebody who only wanted to read looked first, and what he did not find is to be made.
                Err(error) if make && error.kind() == ErrorKind::NoMatchingKey && attempts_left > 0 => {}
                found => return found.map(|scope| scope.slot),
            }
        }
    }

    /// The keyed name of a scope.
    // F-7.4-1.
    pub(super) async fn scope_tag(&self, name: &str) -> Result<[u8; 32]> {
        let scope_names = self.configured().keyring.scope_names;
        let key = self.acquire_known(scope_names, self.slot(KeyClass::Lookup, SlotId::NONE)).await?;
        match &key.material {
            Material::Lookup { scope_names, .. } => Ok(hmac_sha256_erased(scope_names, &[name.as_bytes()])),
            Material::Data { .. } => Err(Error::new(ErrorKind::Internal, "a lookup key has lookup material")),
        }
    }

    /// The scope with the keyed name `tag`, if the keyring knows it.
    pub(super) async fn find_scope(&self, tag: [u8; 32]) -> Result<Option<SlotId>> {
        // F-7.4-2.
        let Some(id) = self.inner.store.scope_by_tag(self.lineage(), tag).await? else { return Ok(None) };
        // The store's word for whose scope this is does not count: the newest record must say so under a root's MAC.
        let newest = self.newest(self.slot(KeyClass::Data, id), 1).await?;
        let record =
            newest.first().ok_or_else(|| Error::new(ErrorKind::Store, "the store names a scope without keys"))?;
        self.verify(record).await?;
        // F-7.4-3.
        if record.scope_tag() != Some(tag) {
            return Err(rejected(record, "it belongs to another scope than the store says"));
        }
        Ok(Some(id))
    }

    /// Makes a scope, or finds the one that somebody else made meanwhile.
    async fn create_scope(&self, tag: [u8; 32]) -> Result<SlotId> {
        let id = SlotId::from_bytes(random::array()?);
        match self.insert_data_key(self.slot(KeyClass::Data, id), Some(tag), KeyState::Active, None).await {
            Ok(_) => Ok(id),
            Err(error) if error.kind() == ErrorKind::Conflict => self.find_scope(tag).await?.ok_or(error),
            Err(error) => Err(error),
        }
    }
}

fn no_such_scope() -> Error {
    Error::new(ErrorKind::NoMatchingKey, "the keyring has no such scope")
}
