//! A keyring: which keys exist, which of them count, and how they are opened (DESIGN §5).
//!
//! One call from top to bottom: [`Keyring::field`] → [`Field::encryptor`] → `data_seal_key` → `acquire`, which takes
//! the record from the store, finds the root that vouches for it (`root`: pinned or endorsed, unwrapped by a KEK),
//! verifies the record under that root, and only then unwraps the key.

mod create;
mod lifecycle;
mod trust;

pub use create::CreatedKeyring;
#[cfg(feature = "config")]
pub(crate) use create::check_environment;
pub use lifecycle::Rotated;

use crate::aead::{Backend, SivKey, XaesKey};
use crate::error::{Error, ErrorKind, Result};
use crate::field::Field;
use crate::high_water::{HighWater, MemoryHighWater};
use crate::keys::{KeyClass, KeySchedule, Lineage, Purpose, Secret, SlotId, hmac_sha256};
use crate::kms::{KekAlias, Kms};
use crate::policy::Policy;
use crate::record::{KeyState, Record, RootKey, rejected};
use crate::store::{KeyStore, Slot};
use crate::wire::KeyId;
use core::fmt;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroize;

/// Longest name of a scope in bytes.
pub const MAX_SCOPE_NAME_LEN: usize = 1024;
/// How many generations of one scope are looked through for the one that seals.
const RECENT: usize = 16;

/// What a keyring is and what it trusts; from `keyfold.toml`.
#[derive(Clone, Debug)]
pub struct KeyringConfig {
    /// For people; may change.
    pub name: String,
    /// The isolation domain, such as `production`: keys of another environment never open here.
    pub environment: String,
    /// Identifies the keyring for ever.
    pub lineage: Lineage,
    /// Commitments of the roots that are trusted without further evidence. Never empty: there is no trust on first use.
    pub root_pins: Vec<[u8; 32]>,
    /// The lookup key that hides the names of scopes.
    pub scope_names: KeyId,
    /// The keys of each partition, by name.
    pub lookup: BTreeMap<String, LookupKeys>,
    /// The fields.
    pub policy: Policy,
}

/// The keys of one partition of the look-up space.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LookupKeys {
    /// The partition.
    pub partition: SlotId,
    /// The key that seals.
    pub seals: KeyId,
    /// Further keys under which values are still searched and opened.
    pub opens: Vec<KeyId>,
}

/// An open keyring. Cheap to clone; every clone is the same keyring. Make one per process and share it.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
}

struct Inner {
    config: KeyringConfig,
    backend: Backend,
    store: Arc<dyn KeyStore>,
    keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
    high_water: Arc<dyn HighWater>,
    /// What this process has seen of each key, so that nothing older is accepted later.
    seen: MemoryHighWater,
    /// The newest key that sealed, per slot: the store may not go back behind it.
    sealing: Mutex<HashMap<Slot, KeyId>>,
    scopes: Mutex<HashMap<String, SlotId>>,
    roots: Mutex<HashMap<KeyId, Arc<RootKey>>>,
    keys: Mutex<HashMap<KeyId, Arc<OpenKey>>>,
}

/// A key whose record was verified, in the form in which it is used.
pub(crate) struct OpenKey {
    pub(crate) key_id: KeyId,
    pub(crate) slot: Slot,
    pub(crate) material: Material,
}

#[allow(clippy::large_enum_variant, reason = "one per key, behind an Arc")]
pub(crate) enum Material {
    Data(XaesKey),
    Lookup { siv: SivKey, scope_names: Secret<32> },
}

impl Material {
    fn of(class: KeyClass, schedule: &KeySchedule, backend: Backend) -> Option<Self> {
        match class {
            KeyClass::Data => Some(Self::Data(XaesKey::new(backend, &schedule.expand(Purpose::Field)))),
            KeyClass::Lookup => Some(Self::Lookup {
                siv: SivKey::new(schedule.expand(Purpose::Deterministic)),
                scope_names: schedule.expand(Purpose::ScopeNames),
            }),
            KeyClass::Root | KeyClass::Audit => None,
        }
    }
}

/// A key as `keys list` shows it.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// The record.
    pub record: Record,
    /// Whether a trusted root vouches for it.
    pub verified: Result<()>,
}

impl Keyring {
    /// Opens a keyring. Calls neither store nor key service: that happens when the first key is acquired.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): no root is pinned, or no KEK is configured.
    pub fn open(
        config: KeyringConfig,
        store: Arc<dyn KeyStore>,
        keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
        high_water: Arc<dyn HighWater>,
    ) -> Result<Self> {
        if config.root_pins.is_empty() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "root_pins is empty: without a pinned root no key record can be trusted, and there is no trust on first use",
            ));
        }
        if keks.is_empty() {
            return Err(Error::new(ErrorKind::Configuration, "no KEK is configured"));
        }
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                backend: Backend::default(),
                store,
                keks,
                high_water,
                seen: MemoryHighWater::default(),
                sealing: Mutex::default(),
                scopes: Mutex::default(),
                roots: Mutex::default(),
                keys: Mutex::default(),
            }),
        })
    }

    /// The field `name` of the policy, to be bound and used.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy has no such field.
    pub fn field(&self, name: &str) -> Result<Field> {
        let policy =
            self.inner.config.policy.field(name).ok_or_else(|| {
                Error::new(ErrorKind::PolicyRefused, "the policy has no such field").with_detail(name)
            })?;
        Ok(Field::new(self.clone(), policy.clone()))
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.config.policy
    }

    /// Key records in ascending order of key ID, those after `after`, at most `limit`, each with whether a trusted
    /// root vouches for it.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn list(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyInfo>> {
        let records = self.inner.store.list(self.inner.config.lineage, after, limit).await?;
        let mut infos = Vec::with_capacity(records.len());
        for mut record in records {
            // It may have changed since it was listed; only what the store says now tells that from a rollback.
            if self.check_age(&record).is_err()
                && let Ok(now) = self.record(record.key_id()).await
            {
                record = now;
            }
            let verified = match self.check_age(&record) {
                Ok(()) => self.verify(&record).await,
                Err(error) => Err(error),
            };
            infos.push(KeyInfo { record, verified });
        }
        Ok(infos)
    }

    pub(crate) fn slot(&self, class: KeyClass, id: SlotId) -> Slot {
        Slot { lineage: self.inner.config.lineage, class, id }
    }

    pub(crate) fn lookup(&self, partition: &str) -> Result<&LookupKeys> {
        self.inner.config.lookup.get(partition).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the configuration has no [lookup] section for the partition")
                .with_detail(partition)
        })
    }

    pub(crate) async fn lookup_seal_key(&self, partition: &str) -> Result<Arc<OpenKey>> {
        let keys = self.lookup(partition)?;
        let record = self.record(keys.seals).await?;
        self.verify(&record).await?;
        // `acquire` asks for a state that opens; the configuration alone cannot make a retired key seal.
        if record.state() != KeyState::Active {
            return Err(wrong_state(&record));
        }
        self.acquire(keys.seals, self.slot(KeyClass::Lookup, keys.partition)).await
    }

    /// Whether the keyring has a scope of this name.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): no scope can have the name. - Those of acquiring a key.
    pub async fn has_scope(&self, name: &str) -> Result<bool> {
        Ok(self.find_scope(name).await?.1.is_some())
    }

    /// The slot of the data keys of `scope`, which must exist.
    pub(crate) async fn data_slot(&self, scope: Option<&str>) -> Result<Slot> {
        let Some(name) = scope else { return Ok(self.slot(KeyClass::Data, SlotId::NONE)) };
        match self.find_scope(name).await?.1 {
            Some(id) => Ok(self.slot(KeyClass::Data, id)),
            None => Err(Error::new(ErrorKind::NoMatchingKey, "the keyring has no such scope")),
        }
    }

    /// The keyed name of a scope, and its ID if the keyring knows it.
    async fn find_scope(&self, name: &str) -> Result<([u8; 32], Option<SlotId>)> {
        if name.is_empty() || name.len() > MAX_SCOPE_NAME_LEN {
            return Err(Error::new(ErrorKind::InvalidInput, "a scope has a name of 1 to 1,024 bytes"));
        }
        let inner = &*self.inner;
        let key = self.acquire(inner.config.scope_names, self.slot(KeyClass::Lookup, SlotId::NONE)).await?;
        let Material::Lookup { scope_names, .. } = &key.material else {
            return Err(Error::new(ErrorKind::Internal, "a lookup key has lookup material"));
        };
        let tag = hmac_sha256(scope_names, &[name.as_bytes()]);
        if let Some(id) = lock(&inner.scopes).get(name) {
            return Ok((tag, Some(*id)));
        }
        let Some(id) = inner.store.scope_by_tag(inner.config.lineage, tag).await? else { return Ok((tag, None)) };
        // The store's word for whose scope this is does not count: the newest record must say so under a root's MAC.
        let newest = self.newest(self.slot(KeyClass::Data, id), 1).await?;
        let record =
            newest.first().ok_or_else(|| Error::new(ErrorKind::Store, "the store names a scope without keys"))?;
        self.verify(record).await?;
        if record.scope_tag() != Some(tag) {
            return Err(rejected(record, "it belongs to another scope than the store says"));
        }
        lock(&inner.scopes).insert(name.to_owned(), id);
        Ok((tag, Some(id)))
    }

    /// The key that seals for `scope`; makes the scope if there is none.
    pub(crate) async fn data_seal_key(&self, scope: Option<&str>) -> Result<Arc<OpenKey>> {
        let (slot, tag) = match scope {
            None => (self.slot(KeyClass::Data, SlotId::NONE), None),
            Some(name) => match self.find_scope(name).await? {
                (tag, Some(id)) => (self.slot(KeyClass::Data, id), Some(tag)),
                (tag, None) => (self.create_scope(name, tag).await?, Some(tag)),
            },
        };
        if let Some(record) = self.current_record(slot).await? {
            return self.acquire(record.key_id(), slot).await;
        }
        if let Some(retired) = self.newest(slot, 1).await?.first() {
            return Err(wrong_state(retired));
        }
        let record = self.insert_data_key(slot, tag, None).await?;
        self.acquire(record.key_id(), slot).await
    }

    /// The newest active key of `slot`, for a reader, who uses it only to say whether a value's key is current. Trouble
    /// with keys that a reader does not need must not keep him from data that he can verify: then no key is current.
    pub(crate) async fn current_if_known(&self, slot: Slot) -> Option<KeyId> {
        self.current_key_id(slot).await.unwrap_or_else(|error| {
            let code = error.kind().code();
            tracing::warn!(code, "no key can be called current, so values count as outdated: {error}");
            None
        })
    }

    /// The newest active key of `slot`, as [`current_record`](Self::current_record).
    pub(crate) async fn current_key_id(&self, slot: Slot) -> Result<Option<KeyId>> {
        Ok(self.current_record(slot).await?.map(|record| record.key_id()))
    }

    /// The record of the newest active key of `slot`. A trusted root vouches for it, and for the newer ones that were
    /// passed over. Refuses a store that has gone back behind what this process has seen.
    async fn current_record(&self, slot: Slot) -> Result<Option<Record>> {
        // Looked up before the store is read: what another thread makes current meanwhile is no rollback.
        let seen = lock(&self.inner.sealing).get(&slot).copied();
        let mut current = None;
        for record in self.newest(slot, RECENT).await? {
            // Its state decides whether it seals, so the state must be a root's word, not the store's.
            self.verify(&record).await?;
            if record.state() == KeyState::Active {
                current = Some(record);
                break;
            }
        }
        if let Some(seen) = seen
            && current.as_ref().is_none_or(|current| current.key_id().generation() < seen.generation())
        {
            return Err(Error::new(
                ErrorKind::RecordRejected,
                "the store has gone back behind a generation that this process has used",
            )
            .with_detail(seen.to_string()));
        }
        if let Some(current) = &current {
            self.remember_sealing(slot, current.key_id());
        }
        Ok(current)
    }

    /// From now on the store must show `key_id`, which a root vouches for, or a newer one as the key that seals.
    fn remember_sealing(&self, slot: Slot, key_id: KeyId) {
        let mut sealing = lock(&self.inner.sealing);
        let newest = sealing.entry(slot).or_insert(key_id);
        *newest = key_id.max(*newest);
    }

    /// The key `key_id`, which must belong to `slot`. No request to the key service when its root is known.
    pub(crate) async fn acquire(&self, key_id: KeyId, slot: Slot) -> Result<Arc<OpenKey>> {
        let known = lock(&self.inner.keys).get(&key_id).cloned();
        let key = match known {
            Some(key) => key,
            None => {
                let record = self.record(key_id).await?;
                self.verify(&record).await?;
                if record.slot() != slot {
                    return Err(wrong_scope(key_id));
                }
                if !record.state().may_open() {
                    return Err(wrong_state(&record));
                }
                let schedule = self.root(record.authenticator()).await?.unwrap_child(&record)?;
                let material = Material::of(record.class(), &schedule, self.inner.backend)
                    .ok_or_else(|| rejected(&record, "keys of its class seal no values"))?;
                let key = Arc::new(OpenKey { key_id, slot, material });
                tracing::debug!(key_id = %key_id, class = record.class().name(), "key opened");
                lock(&self.inner.keys).entry(key_id).or_insert(key).clone()
            }
        };
        if key.slot == slot { Ok(key) } else { Err(wrong_scope(key_id)) }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.inner.config;
        f.debug_struct("Keyring")
            .field("name", &config.name)
            .field("environment", &config.environment)
            .field("lineage", &config.lineage)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Scope names are the one plain thing here that can name a patient.
        let scopes = self.scopes.get_mut().unwrap_or_else(PoisonError::into_inner);
        scopes.drain().for_each(|(mut name, _)| name.zeroize());
    }
}

/// Every map here is changed in single steps, so a panic elsewhere cannot leave it half changed.
fn lock<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong_state(record: &Record) -> Error {
    Error::new(ErrorKind::KeyState, "the state of the key does not allow its use").with_detail(format!(
        "{} is {}",
        record.key_id(),
        record.state().name()
    ))
}

fn wrong_scope(key_id: KeyId) -> Error {
    Error::new(ErrorKind::WrongScope, "the key belongs to another scope, partition or class")
        .with_detail(key_id.to_string())
}
