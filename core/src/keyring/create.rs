//! Making keyrings, scopes and keys. A key seals only after its record is durable in the store (DESIGN K12).

use super::audited::Audit;
use super::keks::{Verdict, alarm_missing_wrap, of_kek, wrap_one};
use super::{KekPolicy, KekUse, Keyring, KeyringConfig, LookupKeys, ShredPolicy};
use crate::aead::Backend;
use crate::audit::{AuditAction, AuditEvent};
use crate::cache::CachePolicy;
use crate::clock::SystemClock;
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::high_water::{HighWater, HighWaterMark, MemoryHighWater};
use crate::keys::{KeyClass, KeyIdentity, Lineage, MemoryLock, Secret, SlotId};
use crate::kms::{KekAlias, Kms, KmsContext, UnwrapRequest, WrapRequest, WrappedKey};
use crate::policy::{FieldMode, FieldPolicy, Policy, is_name};
use crate::random;
use crate::record::{KeyState, NewKey, NewRecord, Record, RootKey};
use crate::rotation::RotationPolicy;
use crate::store::{KeyStore, Slot};
use crate::wire::record::{MAX_WRAP_COUNT, is_environment};
use crate::wire::{Generation, KeyId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The partition that [`Keyring::create`] makes.
const DEFAULT_PARTITION: &str = "default";

/// What `init` writes into the configuration of a new keyring.
#[derive(Clone, Debug)]
pub struct CreatedKeyring {
    /// The configuration, with an empty policy: lineage, pin, and the exact IDs of the lookup keys.
    pub config: KeyringConfig,
    /// The ID of the root key.
    pub root: KeyId,
}

impl Keyring {
    /// Makes a keyring: a root wrapped by every KEK, the key that hides scope names, the lookup key of the partition
    /// `default` and the first data key, all durable in `store`.
    ///
    /// One wrap and one unwrap request per KEK: each wrap is checked before the root is used.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the environment's name is not 1 to 64 of `a`–`z`, `0`–`9`, `-`, `_`, `.`.
    /// - [`Kms`](ErrorKind::Kms): a KEK did not wrap, or does not unwrap what it wrapped. Nothing was stored.
    /// - [`Store`](ErrorKind::Store), [`Io`](ErrorKind::Io): the database failed, or the marks cannot be written. Records that were
    ///   stored are of a lineage that nobody uses.
    pub async fn create(
        name: &str,
        environment: &str,
        store: Arc<dyn KeyStore>,
        keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
        high_water: Arc<dyn HighWater>,
    ) -> Result<CreatedKeyring> {
        check_environment(environment)?;
        let lineage = Lineage::from_bytes(random::array()?);
        let seen = MemoryHighWater::default();
        let environment = environment.to_owned();
        // There is no configuration yet that could name a sink.
        let audit = Audit::new(Arc::new(SystemClock));
        let (keks_policy, high_water) = (KekPolicy::default(), &*high_water);
        let maker = Maker { lineage, environment, keks: keks_policy, store: &*store, seen: &seen, high_water, audit };
        let (record, root) = maker.root(&keks, Planned::root(KeyState::Active), None, None).await?;
        let scope_names = maker.child(&root, Planned::active(KeyClass::Lookup, SlotId::NONE), None).await?;
        let partition = SlotId::from_bytes(random::array()?);
        let seals = maker.child(&root, Planned::active(KeyClass::Lookup, partition), None).await?.key_id();
        maker.child(&root, Planned::active(KeyClass::Data, SlotId::NONE), None).await?;
        let default = LookupKeys { partition, seals, opens: Vec::new() };
        let config = KeyringConfig {
            name: name.to_owned(),
            environment: maker.environment,
            lineage,
            root_pins: vec![*record.commitment()],
            scope_names: scope_names.key_id(),
            lookup: BTreeMap::from([(DEFAULT_PARTITION.to_owned(), default)]),
            policy: Policy::new(),
            cache: CachePolicy::default(),
            rotation: RotationPolicy::default(),
            isolated: BTreeMap::new(),
            scope_keks: BTreeSet::new(),
            open_compromised: false,
            keks: KekPolicy::default(),
            shred: ShredPolicy::default(),
            fips: crate::fips::Rule::default(),
            memory: MemoryLock::default(),
        };
        Ok(CreatedKeyring { config, root: record.key_id() })
    }

    /// Makes the partition `name` with its lookup key under the current root, durable in the store. It is in use once the
    /// configuration of every process has it: see [`KeyringConfig::lookup`].
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): no name, or one that the configuration has.
    /// - [`Store`](ErrorKind::Store), [`Kms`](ErrorKind::Kms), [`RecordRejected`](ErrorKind::RecordRejected): repeating the call is
    ///   safe; a key that was made meanwhile is of a partition that nobody uses.
    pub async fn create_partition(&self, name: &str) -> Result<LookupKeys> {
        if !is_name(name) {
            let rule = "a partition has a name of 1 to 255 bytes without control characters";
            return Err(Error::new(ErrorKind::InvalidInput, rule));
        }
        if self.lookup(name).is_ok() {
            let present = "the configuration has a partition of that name, whose keys a new one would not open";
            return Err(Error::new(ErrorKind::InvalidInput, present).with_detail(name));
        }
        let partition = SlotId::from_bytes(random::array()?);
        let slot = self.slot(KeyClass::Lookup, partition);
        let record = self.insert_data_key(slot, None, KeyState::Active, None).await?;
        Ok(LookupKeys { partition, seals: record.key_id(), opens: Vec::new() })
    }

    /// Makes the next lookup key of the partition `name` under the current root, durable in the store, and returns the keys of the partition
    /// with the new one as the last of `opens`. It is in use once configurations name it: publish these keys everywhere, so that whatever
    /// is written under the new one is found, and then let it seal.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the configuration has no such partition.
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): a field of the policy keeps its format in this partition; its values say no key, so
    ///   there can be one only.
    /// - [`Conflict`](ErrorKind::Conflict): another process has made one at the same moment.
    /// - [`Store`](ErrorKind::Store), [`Kms`](ErrorKind::Kms), [`RecordRejected`](ErrorKind::RecordRejected): repeating the call is
    ///   safe; a key that was made meanwhile is one that nobody uses.
    pub async fn rotate_lookup_key(&self, name: &str) -> Result<LookupKeys> {
        let mut keys = self.lookup(name)?;
        let keeps_format = |field: &&Arc<FieldPolicy>| matches!(&field.mode, FieldMode::FormatPreserving { partition, .. } if partition == name);
        if let Some(field) = self.policy().fields().find(keeps_format) {
            let why =
                "a field keeps its format in this partition, so that its values say no key: make another partition";
            return Err(Error::new(ErrorKind::PolicyRefused, why).with_detail(format!("field {}", field.name)));
        }
        let slot = self.slot(KeyClass::Lookup, keys.partition);
        let newest = self.newest(slot, 1).await?;
        keys.opens.push(self.insert_data_key(slot, None, KeyState::Active, newest.first()).await?.key_id());
        Ok(keys)
    }

    /// Makes the next data key of `slot` under the current root, if `expected_head` is still its newest.
    pub(super) async fn insert_data_key(
        &self,
        slot: Slot,
        tag: Option<[u8; 32]>,
        state: KeyState,
        expected_head: Option<&Record>,
    ) -> Result<Record> {
        let root = self.current_root().await?;
        let isolated = self.isolation(slot, tag, expected_head).await?;
        let key = Planned { class: slot.class, slot: slot.id, scope_tag: tag, state };
        let head = expected_head.map(Record::key_id);
        let record = match isolated {
            None => self.maker().child(&root, key, head).await?,
            Some(keks) => self.maker().isolated(&root, key, &keks, head).await?,
        };
        // Somebody may have taken the root out of service before the key was stored. He looks for such keys after he has
        // changed its state, so one of the two notices; nothing has been sealed yet.
        let parent = self.record(root.key_id).await?;
        if !parent.state().may_open() {
            return Err(super::wrong_state(&parent));
        }
        if let Some(head) = expected_head {
            self.refuse_after_end(head, &record).await?;
        }
        if state == KeyState::Active {
            self.remember_sealing(slot, record.key_id());
        }
        Ok(record)
    }

    pub(super) fn maker(&self) -> Maker<'_> {
        let (inner, configured) = (&*self.inner, self.configured());
        Maker {
            lineage: self.lineage(),
            environment: configured.keyring.environment.clone(),
            keks: configured.keyring.keks.clone(),
            store: &*inner.store,
            seen: &inner.seen,
            high_water: &*inner.high_water,
            audit: inner.audit.clone(),
        }
    }
}

/// A key to be made.
#[derive(Clone, Copy)]
pub(super) struct Planned {
    pub(super) class: KeyClass,
    pub(super) slot: SlotId,
    pub(super) scope_tag: Option<[u8; 32]>,
    pub(super) state: KeyState,
}

impl Planned {
    pub(super) const fn root(state: KeyState) -> Self {
        Self { class: KeyClass::Root, slot: SlotId::NONE, scope_tag: None, state }
    }

    const fn active(class: KeyClass, slot: SlotId) -> Self {
        Self { class, slot, scope_tag: None, state: KeyState::Active }
    }
}

/// Some KEKs of a keyring.
pub(super) type Keks = BTreeMap<KekAlias, Arc<dyn Kms>>;

/// Makes keys and their records in one keyring.
pub(super) struct Maker<'a> {
    lineage: Lineage,
    environment: String,
    keks: KekPolicy,
    store: &'a dyn KeyStore,
    /// Of this process.
    seen: &'a MemoryHighWater,
    high_water: &'a dyn HighWater,
    audit: Audit,
}

impl Maker<'_> {
    /// Makes a root, wrapped by every KEK of `keks` or a quorum of them, and endorsed by `endorser`.
    pub(super) async fn root(
        &self,
        keks: &Keks,
        planned: Planned,
        endorser: Option<&RootKey>,
        expected_head: Option<KeyId>,
    ) -> Result<(Record, Arc<RootKey>)> {
        let new = self.new_record(planned).await?;
        let key = NewKey::generate(new.identity)?;
        let root = Arc::new(RootKey::new(Backend::default(), &key.schedule));
        let wraps = self.wraps(&key, &new, keks).await?;
        let record = root.new_root_record(&key, &new, wraps, endorser);
        self.insert(&record, expected_head).await?;
        Ok((record, root))
    }

    /// Makes a key that `root` wraps.
    pub(super) async fn child(&self, root: &RootKey, planned: Planned, expected_head: Option<KeyId>) -> Result<Record> {
        let new = self.new_record(planned).await?;
        let record = root.new_child_record(&NewKey::generate(new.identity)?, &new)?;
        self.insert(&record, expected_head).await?;
        Ok(record)
    }

    /// Makes a key that every KEK of `keks` wraps, or a quorum of them, and that `root` only vouches for.
    pub(super) async fn isolated(
        &self,
        root: &RootKey,
        planned: Planned,
        keks: &Keks,
        expected_head: Option<KeyId>,
    ) -> Result<Record> {
        let new = self.new_record(planned).await?;
        let key = NewKey::generate(new.identity)?;
        let record = root.new_isolated_record(&key, &new, self.wraps(&key, &new, keks).await?);
        self.insert(&record, expected_head).await?;
        Ok(record)
    }

    /// The key wrapped by every KEK of `keks`, or by as many as the quorum asks for where others are away (DESIGN K11);
    /// one of them at least is asked without recovery mode.
    ///
    /// A wrap that does not unwrap would be found when it is needed most: each is checked before the key is used.
    async fn wraps(&self, key: &NewKey, new: &NewRecord<'_>, keks: &Keks) -> Result<Vec<(KekAlias, WrappedKey)>> {
        if keks.is_empty() || keks.len() > MAX_WRAP_COUNT {
            return Err(Error::new(ErrorKind::Configuration, "a root or an isolated scope has 1 to 8 KEKs"));
        }
        let context = KmsContext::new(&self.environment, self.lineage, key.key_id);
        let (mut wraps, mut missing) = (Vec::with_capacity(keks.len()), Vec::new());
        let most_missing = keks.len() - self.keks.needed(keks.len());
        for (alias, kms) in keks {
            match checked_wrap(&**kms, &key.payload(new), &context).await {
                Ok(wrapped) => wraps.push((alias.clone(), wrapped)),
                Err(error) if Verdict::of(&error) == Verdict::Away && missing.len() < most_missing => {
                    missing.push((alias, error));
                }
                Err(error) => return Err(of_kek(error, alias)),
            }
        }
        // A key that only KEKs for recovery wrap would be made, and open nothing from then on.
        let is_usual = |alias: &KekAlias| self.keks.use_of(alias) == KekUse::Always;
        if !wraps.iter().any(|(alias, _)| is_usual(alias)) {
            return Err(match missing.into_iter().find(|(alias, _)| is_usual(alias)) {
                Some((alias, error)) => of_kek(error, alias),
                None => Error::new(
                    ErrorKind::PolicyRefused,
                    "only KEKs for recovery would wrap the key: it needs one that is always asked",
                ),
            });
        }
        for (alias, error) in missing {
            alarm_missing_wrap(alias, &error);
        }
        Ok(wraps)
    }

    async fn new_record(&self, planned: Planned) -> Result<NewRecord<'_>> {
        self.audit.check()?;
        let above: Generation = self.high_water.generation(self.lineage)?.max(self.seen.generation(self.lineage)?);
        // F-2.1-2.
        let generation = self.store.allocate_generation(self.lineage, above).await?;
        if generation <= above {
            return Err(Error::new(ErrorKind::Store, "the store handed out a generation number that was used before")
                .with_detail(format!("{generation}, after {above}")));
        }
        // Raised before the key exists: a number that was handed out is never handed out again, whatever happens next.
        self.high_water.raise(self.lineage, generation, None)?;
        let Planned { class, slot, scope_tag, state } = planned;
        let identity = KeyIdentity { lineage: self.lineage, class, slot, generation };
        Ok(NewRecord { identity, scope_tag, environment: &self.environment, state, now: self.store.now().await? })
    }

    async fn insert(&self, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
        self.store.insert(record, expected_head).await?;
        tracing::info!(key_id = %record.key_id(), class = record.class().name(), "key made");
        let mut event = event_of(AuditAction::KeyMade, record);
        if let Some(head) = expected_head {
            event = event.detail("after", head);
        }
        self.has_stored(record, event, "was made")
    }

    /// Replaces a record by its successor, and remembers and records that.
    pub(super) async fn update(&self, record: &Record, expected_sequence: u64) -> Result<()> {
        self.audit.check()?;
        self.store.update(record, expected_sequence).await?;
        self.has_updated(record)
    }

    /// What follows when the store has `record` in the place of the one before.
    pub(super) fn has_updated(&self, record: &Record) -> Result<()> {
        let state = record.state().name();
        tracing::info!(key_id = %record.key_id(), state, "key changed state");
        self.has_stored(record, event_of(AuditAction::StateChanged, record), &format!("is {state}"))
    }

    /// As [`update`](Self::update), of a record whose wraps are others: `event` says which.
    pub(super) async fn rewrap(&self, record: &Record, expected_sequence: u64, event: AuditEvent) -> Result<()> {
        self.audit.check()?;
        self.store.update(record, expected_sequence).await?;
        tracing::info!(key_id = %record.key_id(), "key rewrapped");
        self.has_stored(record, event, "was rewrapped")
    }

    /// Remembers outside of the store what it has of a key by now, and records it, one whatever became of the other: whoever
    /// repeats the change does not make it again. The first error is the one to report, with what the key `is` all the same.
    fn has_stored(&self, record: &Record, event: AuditEvent, is: &str) -> Result<()> {
        let remembered = self.remember(record);
        let recorded = self.audit.record(event);
        remembered.and(recorded).map_err(|error| {
            let what = format!("{} {is} all the same", record.key_id());
            let detail = match error.detail() {
                "" => what,
                detail => format!("{detail}; {what}"),
            };
            error.with_detail(detail)
        })
    }

    fn remember(&self, record: &Record) -> Result<()> {
        let (generation, mark) = (record.key_id().generation(), Some((record.key_id(), HighWaterMark::of(record))));
        self.seen.raise(self.lineage, generation, mark)?;
        // Nothing is older than a first record, and its generation was raised before it was made.
        if record.sequence() == 1 && record.class() != KeyClass::Root {
            return Ok(());
        }
        self.high_water.raise(self.lineage, generation, mark)
    }

    pub(super) async fn now(&self) -> Result<u64> {
        self.store.now().await
    }
}

/// An event about a key. A slot is random: it does not say whose scope it is.
fn event_of(action: AuditAction, record: &Record) -> AuditEvent {
    let event = AuditEvent::new(action).key(record.key_id()).detail("class", record.class().name());
    let event = event.detail("state", record.state().name()).detail("sequence", record.sequence());
    if record.slot_id() == SlotId::NONE { event } else { event.detail("slot", record.slot_id()) }
}

/// A wrap of `payload` that was unwrapped again.
async fn checked_wrap(kms: &dyn Kms, payload: &Secret<64>, context: &KmsContext) -> Result<WrappedKey> {
    let wrapped = wrap_one(kms, WrapRequest::new(payload, context)).await?;
    let unwrapped = kms.unwrap(UnwrapRequest::new(&wrapped, context)).await?;
    if !bool::from(unwrapped.expose().ct_eq(payload.expose())) {
        return Err(Error::new(
            ErrorKind::Kms(KmsErrorKind::InvalidCiphertext),
            "the key service unwrapped something else than it had wrapped",
        ));
    }
    Ok(wrapped)
}

pub(crate) fn check_environment(environment: &str) -> Result<()> {
    if !is_environment(environment) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "an environment's name is 1 to 64 of a-z, 0-9, '-', '_' and '.'",
        ));
    }
    Ok(())
}
