//! A keyring: which keys exist, which of them count, and how they are opened (DESIGN §5).
//!
//! One call from top to bottom: [`Keyring::field`] → [`Field::encryptor`] → `data_seal_key` → `acquire`, which takes
//! the record from the store, finds the root that vouches for it (`root`: pinned or endorsed, unwrapped by a KEK),
//! verifies the record under that root, and only then unwraps the key. A little over 500 lines for that reason.

mod audited;
mod configured;
mod create;
mod current;
mod drill;
mod frames;
mod isolated;
mod keks;
mod observed;
mod open_key;
mod provision;
mod reparent;
mod restore;
mod rewrap;
mod rotate;
mod scopes;
mod shred;
mod states;
mod trust;
mod unknown;

pub(crate) use audited::Audit;
pub use create::CreatedKeyring;
#[cfg(feature = "config")]
pub(crate) use create::check_environment;
pub(crate) use current::CurrentKey;
pub use drill::{Drill, DrillReport};
pub(crate) use frames::{FrameId, FrameKey, frame_id};
pub use keks::{KekPolicy, KekUse, Recovery};
pub(crate) use open_key::{Material, OpenKey, too_many};
pub use provision::{Provisioned, Revoked};
pub use reparent::{Reparent, ReparentProgress};
pub use restore::{CopyStatus, Evidence, Lost, RecordCopy, RestorePlan, SeenElsewhere};
pub use rewrap::{KekCalls, Rewrap, RewrapOptions, RewrapPlan, RewrapProgress};
pub use rotate::Rotated;
pub use scopes::MAX_SCOPE_NAME_LEN;
pub use shred::{Hold, ShredPolicy, ShredScheduled, Shredded};

use crate::aead::Backend;
use crate::cache::{Cache, CachePolicy, Epoch, Lease, Recent};
use crate::clock::{Clock, SystemClock, nanos};
use crate::document::Documents;
use crate::error::{Error, ErrorKind, Result};
use crate::field::Field;
use crate::fips;
use crate::high_water::{HighWater, MemoryHighWater};
use crate::keys::{KeyClass, Lineage, MemoryLock, SlotId};
use crate::kms::{KekAlias, Kms};
use crate::policy::Policy;
use crate::record::{KeyState, Record, rejected};
use crate::rotation::RotationPolicy;
use crate::store::{KeyStore, Slot};
use crate::wire::KeyId;
use arc_swap::ArcSwap;
use configured::{Configured, Shares};
use core::fmt;
use frames::Frames;
use keks::Health;
use open_key::{Limit, OpenRoot};
use scopes::{Scope, ScopeName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Instrument as _;
use trust::Origin;
use unknown::UnknownKeys;

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
    /// How long unwrapped keys are used, and how many are held.
    pub cache: CachePolicy,
    /// When keys are replaced by their next generation.
    pub rotation: RotationPolicy,
    /// Scopes whose keys are wrapped by these KEKs instead of the root, by name (DESIGN K1). Names are in clear here: a
    /// tenant's, never a patient's.
    pub isolated: BTreeMap<String, Vec<KekAlias>>,
    /// KEKs that wrap keys of isolated scopes only, never a root: a tenant's own.
    pub scope_keks: BTreeSet<KekAlias>,
    /// Whether values under a compromised key are opened, so that they can be encrypted again. Whoever has the key can
    /// have made them: open them only while that is being done. They never count as current.
    pub open_compromised: bool,
    /// How the KEKs are used: recovery mode, quorum.
    pub keks: KekPolicy,
    /// How keys are destroyed.
    pub shred: ShredPolicy,
    /// What is done with what no FIPS 140 module computes.
    pub fips: fips::Rule,
    /// Whether keys may be in memory that is not locked.
    pub memory: MemoryLock,
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
    configured: ArcSwap<Configured>,
    backend: Backend,
    store: Arc<dyn KeyStore>,
    high_water: Arc<dyn HighWater>,
    /// Until when it is not said that marks of what is only read could not be written.
    marks_quiet: AtomicU64,
    clock: Arc<dyn Clock>,
    closed: AtomicBool,
    /// Advances when everything is to be renewed.
    epoch: Epoch,
    /// What this process has seen of each key, so that nothing older is accepted later.
    seen: MemoryHighWater,
    /// The newest key that sealed, per slot: the store may not go back behind it.
    sealing: Mutex<Recent<Slot, KeyId>>,
    /// Until when a published key waits, by the clock of this process.
    waiting: Mutex<Recent<KeyId, u64>>,
    /// How many values were sealed under a key, not to be forgotten when it leaves the cache.
    limits: Mutex<Recent<KeyId, Arc<AtomicU64>>>,
    scopes: Cache<ScopeName, Scope>,
    roots: Cache<KeyId, OpenRoot>,
    /// Roots whose state lets them open nothing, to look at their own records.
    dead_roots: Cache<KeyId, OpenRoot>,
    keys: Cache<KeyRef, OpenKey>,
    current: Cache<(Slot, Option<KeyId>), CurrentKey>,
    unknown: UnknownKeys,
    /// What frames brought: apart, so that a flood of them touches no key of the keyring's own.
    frames: Frames,
    /// Which KEKs were away lately.
    health: Health,
    /// Where to look for a key that this keyring does not have, so that the error can say whose it is.
    neighbours: Mutex<Vec<Keyring>>,
    audit: Audit,
}

/// A key under the slot that the caller states: a caller who states the wrong one gets none of the right one's answers.
type KeyRef = (KeyId, Slot);

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
    /// - [`Configuration`](ErrorKind::Configuration): no root is pinned, no KEK is configured, the FIPS 140 module that the configuration
    ///   requires is not there, or the memory for keys is to be locked and is not.
    /// - [`Internal`](ErrorKind::Internal): that module fails the [self-test](fips::self_test).
    pub fn open(
        config: KeyringConfig,
        store: Arc<dyn KeyStore>,
        keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
        high_water: Arc<dyn HighWater>,
    ) -> Result<Self> {
        Self::open_with_clock(config, store, keks, high_water, Arc::new(SystemClock))
    }

    /// As [`open`](Self::open), with another clock for the caches: a virtual one in simulations and tests.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_with_clock(
        config: KeyringConfig,
        store: Arc<dyn KeyStore>,
        keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
        high_water: Arc<dyn HighWater>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let audit = Audit::new(clock.clone());
        let configured = Configured::new(config, keks, &audit)?;
        Ok(Self::with(configured, store, high_water, clock, audit))
    }

    fn with(
        configured: Configured,
        store: Arc<dyn KeyStore>,
        high_water: Arc<dyn HighWater>,
        clock: Arc<dyn Clock>,
        audit: Audit,
    ) -> Self {
        let shares = Shares::of(&configured.keyring.cache);
        let epoch = Epoch::new(clock.clone());
        Self {
            inner: Arc::new(Inner {
                configured: ArcSwap::from_pointee(configured),
                backend: Backend::default(),
                store,
                high_water,
                marks_quiet: AtomicU64::new(0),
                clock,
                closed: AtomicBool::new(false),
                seen: MemoryHighWater::with_capacity(shares.seen),
                sealing: Mutex::new(Recent::new(shares.seen)),
                waiting: Mutex::new(Recent::new(shares.seen)),
                limits: Mutex::new(Recent::new(shares.seen)),
                scopes: Cache::new("scopes", shares.scopes, &epoch),
                roots: Cache::new("roots", shares.roots, &epoch),
                dead_roots: Cache::new("dead_roots", shares.roots, &epoch),
                keys: Cache::new("keys", shares.keys, &epoch),
                current: Cache::new("current", shares.current, &epoch),
                unknown: UnknownKeys::default(),
                frames: Frames::new(&shares, &epoch),
                epoch,
                health: Health::default(),
                neighbours: Mutex::default(),
                audit,
            }),
        }
    }

    /// The field `name` of the policy, to be bound and used.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy has no such field, or its algorithm is not approved where that is
    ///   [required](fips::Rule::Required).
    /// - [`Configuration`](ErrorKind::Configuration): the configuration does not have the partition of the field.
    /// - [`Closed`](ErrorKind::Closed): after [`close`](Self::close).
    pub fn field(&self, name: &str) -> Result<Field> {
        self.check_open()?;
        let configured = self.configured();
        let policy = configured.keyring.policy.named(name)?;
        configured.keyring.fips.check_field(policy)?;
        for partition in policy.partitions() {
            self.lookup(partition)?;
        }
        Ok(Field::new(self.clone(), policy.clone()))
    }

    /// The documents of the kind `name` of the policy, to be bound to scope and context.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): the policy has no such documents.
    /// - [`Closed`](ErrorKind::Closed): after [`close`](Self::close).
    pub fn documents(&self, name: &str) -> Result<Documents> {
        self.check_open()?;
        let policy = &self.configured().keyring.policy;
        let document = policy.document(name).ok_or_else(|| {
            Error::new(ErrorKind::PolicyRefused, "the policy has no such documents").with_detail(name)
        })?;
        Ok(Documents::new(self.clone(), document.clone(), policy))
    }

    /// The policy, as of now.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.configured().keyring.policy.clone()
    }

    /// When keys are replaced, as of now.
    #[must_use]
    pub fn rotation(&self) -> RotationPolicy {
        self.configured().keyring.rotation
    }

    /// The names of scopes that the configuration isolates and that the keyring does not have: not made yet, or misspelt.
    ///
    /// # Errors
    ///
    /// Those of acquiring a key.
    pub async fn missing_isolated_scopes(&self) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for name in self.configured().keyring.isolated.keys() {
            if !self.has_scope(name).await? {
                missing.push(name.clone());
            }
        }
        Ok(missing)
    }

    /// Key records in ascending order of key ID, those after `after`, at most `limit`, each with whether a trusted
    /// root vouches for it.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn list(&self, after: Option<KeyId>, limit: usize) -> Result<Vec<KeyInfo>> {
        let records = self.inner.store.list(self.lineage(), after, limit).await?;
        let mut infos = Vec::with_capacity(records.len());
        for mut record in records {
            // It may have changed since it was listed; only what the store says now tells that from a rollback.
            if self.check_age(&record).is_err()
                && let Ok(now) = self.record(record.key_id()).await
            {
                record = now;
            }
            let verified = match self.check_age(&record) {
                Ok(()) => self.verify_shown(&record).await,
                Err(error) => Err(error),
            };
            infos.push(KeyInfo { record, verified });
        }
        Ok(infos)
    }

    pub(crate) fn slot(&self, class: KeyClass, id: SlotId) -> Slot {
        Slot { lineage: self.lineage(), class, id }
    }

    /// The lineage, which tells this keyring from all others.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.inner.configured.load().keyring.lineage
    }

    /// What is done with what no FIPS 140 module computes.
    pub(crate) fn fips(&self) -> fips::Rule {
        self.configured().keyring.fips
    }

    fn configured(&self) -> Arc<Configured> {
        self.inner.configured.load_full()
    }

    /// The time of the caches, in nanoseconds.
    #[inline]
    pub(crate) fn time(&self) -> u64 {
        nanos(self.inner.clock.now())
    }

    /// Whether [`close`](Self::close) has been called.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inner.closed.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            return Err(closed());
        }
        Ok(())
    }

    /// Whether another key may be held: where memory must be locked, there has to be some.
    pub(crate) fn check_memory(&self) -> Result<()> {
        self.configured().keyring.memory.check()
    }

    pub(crate) fn lookup(&self, partition: &str) -> Result<LookupKeys> {
        self.configured().keyring.lookup.get(partition).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the configuration has no [lookup] section for the partition")
                .with_detail(partition)
        })
    }

    /// From now on the store must show `key_id`, which a root vouches for, or a newer one as the key that seals.
    fn remember_sealing(&self, slot: Slot, key_id: KeyId) {
        let mut sealing = self.sealing();
        let newest = sealing.entry_or_insert(slot, key_id);
        *newest = key_id.max(*newest);
    }

    fn sealing(&self) -> MutexGuard<'_, Recent<Slot, KeyId>> {
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        self.inner.sealing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key `key_id`, which must belong to `slot`, from memory or from the store. No request to the key service
    /// when its root is known, unless the key is isolated.
    pub(crate) async fn acquire(&self, key_id: KeyId, slot: Slot) -> Result<Arc<OpenKey>> {
        self.acquire_if(|| self.inner.unknown.check(slot.id, self.time()), key_id, slot).await
    }

    /// As [`acquire`](Self::acquire), of a key that is known to be one of the keyring's, whoever floods it with others that are not.
    pub(crate) async fn acquire_known(&self, key_id: KeyId, slot: Slot) -> Result<Arc<OpenKey>> {
        self.acquire_if(|| Ok(()), key_id, slot).await
    }

    /// `check` says whether a key may be looked up that is not in memory.
    async fn acquire_if(&self, check: impl Fn() -> Result<()>, key_id: KeyId, slot: Slot) -> Result<Arc<OpenKey>> {
        self.check_open()?;
        let policy = self.configured().keyring.cache;
        let fetch = async |present: Option<&Arc<OpenKey>>| {
            if present.is_none() {
                check()?;
            }
            let span = tracing::debug_span!("keyfold_acquire_key", %key_id, class = slot.class.name());
            self.read_key(key_id, slot, present).instrument(span).await
        };
        self.inner.keys.get_or_fetch(&(key_id, slot), || self.time(), &policy, fetch).await
    }

    /// Reads the record of a key and opens it; with `present` only confirms that it may still be used.
    // F-8.2-1, F-8.2-2, F-8.2-3.
    async fn read_key(&self, key_id: KeyId, slot: Slot, present: Option<&Arc<OpenKey>>) -> Result<Arc<OpenKey>> {
        let presumed = present.map(|present| present.presumed());
        let record = match self.record(key_id).await {
            Err(error) if error.kind() == ErrorKind::NoMatchingKey => {
                self.inner.unknown.count(slot.id, self.time());
                return Err(self.with_hint(error, key_id).await);
            }
            record => record?,
        };
        self.verify(&record).await?;
        if record.slot() != slot {
            // F-8.2-4.
            return Err(wrong_scope(key_id));
        }
        self.check_opens(&record)?;
        let root = self.root(record.authenticator()).await?;
        // Of an isolated key it is the KEK's word that counts, each time.
        let unwrapped =
            if record.is_isolated() { Some(self.unwrap_by_keks(&record, Origin::Store).await?) } else { None };
        let age = self.configured().keyring.cache.max_age;
        let limit = self.limit(&record);
        let same = |present: &OpenKey| Arc::ptr_eq(&present.root, &root) && present.has_limit(limit.as_ref());
        if let Some((present, presumed)) = present.zip(presumed).filter(|(present, _)| same(present)) {
            present.confirm_state(presumed, record.state());
            present.lease.renew(self.time(), age)?;
            return Ok(present.clone());
        }
        let schedule = match unwrapped {
            Some(schedule) => schedule,
            None => root.unwrap_child(&record)?,
        };
        let material = Material::of(record.class(), &schedule, self.inner.backend)
            .ok_or_else(|| rejected(&record, "keys of its class seal no values"))?;
        self.check_memory()?;
        tracing::debug!(key_id = %key_id, class = record.class().name(), "key opened");
        let lease = Lease::new(&self.inner.epoch, self.time(), age);
        Ok(Arc::new(OpenKey::new(key_id, slot, record.state(), material, lease, root, limit)))
    }

    /// Whether values under the key of `record` may be opened.
    // F-8.2-5.
    fn check_opens(&self, record: &Record) -> Result<()> {
        let compromised = record.state() == KeyState::Compromised && self.configured().keyring.open_compromised;
        if record.state().may_open() || compromised { Ok(()) } else { Err(wrong_state(record)) }
    }

    /// How many values each process may seal under a data key.
    pub(crate) fn data_messages(&self) -> Option<u64> {
        self.configured().keyring.rotation.data_messages
    }

    /// How many values this process may seal under the key of `record`.
    fn limit(&self, record: &Record) -> Option<Limit> {
        if record.class() != KeyClass::Data {
            return None;
        }
        let values = self.data_messages()?;
        // Changed in single steps: a panic elsewhere cannot leave it half changed.
        let mut limits = self.inner.limits.lock().unwrap_or_else(PoisonError::into_inner);
        // A key that sealed until now and was replaced may still be held by who seals: he stays within the same limit.
        let used = match record.state() {
            KeyState::PreActive | KeyState::Active => limits.entry_or_insert(record.key_id(), Arc::default()),
            _ => limits.get(&record.key_id())?,
        };
        Some(Limit::new(values, used.clone()))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let configured = self.configured();
        let config = &configured.keyring;
        f.debug_struct("Keyring")
            .field("name", &config.name)
            .field("environment", &config.environment)
            .field("lineage", &config.lineage)
            .finish_non_exhaustive()
    }
}

const fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the keyring has been closed")
}

fn wrong_state(record: &Record) -> Error {
    let why = match record.class() {
        KeyClass::Root => "the state of the root does not allow its use",
        _ => "the state of the key does not allow its use",
    };
    Error::new(ErrorKind::KeyState, why).with_detail(format!("{} is {}", record.key_id(), record.state().name()))
}

fn wrong_scope(key_id: KeyId) -> Error {
    Error::new(ErrorKind::WrongScope, "the key belongs to another scope, partition or class")
        .with_detail(key_id.to_string())
}
