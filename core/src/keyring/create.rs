//! Making keyrings, scopes and keys. A key seals only after its record is durable in the store (DESIGN K12).

use super::{Keyring, KeyringConfig, LookupKeys};
use crate::aead::Backend;
use crate::cache::CachePolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::high_water::{HighWater, HighWaterMark, MemoryHighWater};
use crate::keys::{KeyClass, KeyIdentity, Lineage, SlotId};
use crate::kms::{KekAlias, Kms, KmsContext, UnwrapRequest, WrapRequest, WrappedKey};
use crate::policy::Policy;
use crate::random;
use crate::record::{NewKey, NewRecord, Record, RootKey, unwrapped_by_kek};
use crate::rotation::RotationPolicy;
use crate::store::{KeyStore, Slot};
use crate::wire::record::{MAX_WRAP_COUNT, is_environment};
use crate::wire::{Generation, KeyId};
use std::collections::BTreeMap;
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
    /// - [`Store`](ErrorKind::Store): the database failed. Records that were stored are of a lineage that nobody uses.
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
        let maker = Maker { lineage, environment, store: &*store, seen: &seen, high_water: &*high_water };
        let (record, root) = maker.root(&keks, None, None).await?;
        let scope_names = maker.child(&root, KeyClass::Lookup, SlotId::NONE, None, None).await?;
        let partition = SlotId::from_bytes(random::array()?);
        let seals = maker.child(&root, KeyClass::Lookup, partition, None, None).await?.key_id();
        maker.child(&root, KeyClass::Data, SlotId::NONE, None, None).await?;
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
            open_compromised: false,
        };
        Ok(CreatedKeyring { config, root: record.key_id() })
    }

    /// Makes the next data key of `slot` under the current root, if `expected_head` is still its newest.
    pub(super) async fn insert_data_key(
        &self,
        slot: Slot,
        tag: Option<[u8; 32]>,
        expected_head: Option<KeyId>,
    ) -> Result<Record> {
        let root = self.current_root().await?;
        let record = self.maker().child(&root, slot.class, slot.id, tag, expected_head).await?;
        self.remember_sealing(slot, record.key_id());
        Ok(record)
    }

    pub(super) fn maker(&self) -> Maker<'_> {
        let inner = &*self.inner;
        Maker {
            lineage: self.lineage(),
            environment: self.configured().keyring.environment.clone(),
            store: &*inner.store,
            seen: &inner.seen,
            high_water: &*inner.high_water,
        }
    }
}

/// Makes keys and their records in one keyring.
pub(super) struct Maker<'a> {
    lineage: Lineage,
    environment: String,
    store: &'a dyn KeyStore,
    /// Of this process.
    seen: &'a MemoryHighWater,
    high_water: &'a dyn HighWater,
}

impl Maker<'_> {
    /// Makes a root, wrapped by every KEK and endorsed by `endorser`.
    pub(super) async fn root(
        &self,
        keks: &BTreeMap<KekAlias, Arc<dyn Kms>>,
        endorser: Option<&RootKey>,
        expected_head: Option<KeyId>,
    ) -> Result<(Record, Arc<RootKey>)> {
        if keks.is_empty() || keks.len() > MAX_WRAP_COUNT {
            return Err(Error::new(ErrorKind::Configuration, "a keyring has 1 to 8 KEKs"));
        }
        let new = self.new_record(KeyClass::Root, SlotId::NONE, None).await?;
        let key = NewKey::generate(new.identity)?;
        let root = Arc::new(RootKey::new(Backend::default(), &key.schedule));
        let context = KmsContext::new(&self.environment, self.lineage, key.key_id);
        let mut wraps = Vec::with_capacity(keks.len());
        for (alias, kms) in keks {
            let payload = key.payload(&new);
            let named = |error: Error| error.with_detail(format!("KEK {alias}"));
            let wrapped = kms.wrap(WrapRequest::new(&payload, &context)).await.map_err(named)?;
            if wrapped.bytes.is_empty()
                || wrapped.bytes.len() > WrappedKey::MAX_LEN
                || wrapped.kek_version.len() > WrappedKey::MAX_VERSION_LEN
            {
                let kind = ErrorKind::Kms(crate::KmsErrorKind::MalformedResponse);
                return Err(named(Error::new(kind, "the key service returned a wrap of an impossible length")));
            }
            wraps.push((alias.clone(), wrapped));
        }
        let record = root.new_root_record(&key, &new, wraps, endorser);
        // A wrap that does not unwrap would be found when it is needed most: check each before the root is used.
        for (alias, wrapped) in record.kek_wraps() {
            let named = |error: Error| error.with_detail(format!("KEK {alias}"));
            let payload = keks[alias].unwrap(UnwrapRequest::new(wrapped, &context)).await.map_err(named)?;
            let schedule = unwrapped_by_kek(&record, &payload).map_err(named)?;
            debug_assert!(bool::from(schedule.commitment().ct_eq(record.commitment())));
        }
        self.insert(&record, expected_head).await?;
        Ok((record, root))
    }

    /// Makes a key that `root` wraps.
    pub(super) async fn child(
        &self,
        root: &RootKey,
        class: KeyClass,
        slot: SlotId,
        scope_tag: Option<[u8; 32]>,
        expected_head: Option<KeyId>,
    ) -> Result<Record> {
        let new = self.new_record(class, slot, scope_tag).await?;
        let record = root.new_child_record(&NewKey::generate(new.identity)?, &new)?;
        self.insert(&record, expected_head).await?;
        Ok(record)
    }

    async fn new_record(&self, class: KeyClass, slot: SlotId, scope_tag: Option<[u8; 32]>) -> Result<NewRecord<'_>> {
        let above: Generation = self.high_water.generation(self.lineage)?.max(self.seen.generation(self.lineage)?);
        let generation = self.store.allocate_generation(self.lineage, above).await?;
        if generation <= above {
            return Err(Error::new(ErrorKind::Store, "the store handed out a generation number that was used before")
                .with_detail(format!("{generation}, after {above}")));
        }
        // Raised before the key exists: a number that was handed out is never handed out again, whatever happens next.
        self.high_water.raise(self.lineage, generation, None)?;
        let identity = KeyIdentity { lineage: self.lineage, class, slot, generation };
        Ok(NewRecord { identity, scope_tag, environment: &self.environment, now: self.store.now().await? })
    }

    async fn insert(&self, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
        self.store.insert(record, expected_head).await?;
        tracing::info!(key_id = %record.key_id(), class = record.class().name(), "key made");
        self.remember(record)
    }

    /// Replaces a record by its successor, and remembers it outside the store.
    pub(super) async fn update(&self, record: &Record, expected_sequence: u64) -> Result<()> {
        self.store.update(record, expected_sequence).await?;
        tracing::info!(key_id = %record.key_id(), state = record.state().name(), "key changed state");
        self.remember(record)
    }

    fn remember(&self, record: &Record) -> Result<()> {
        let (generation, mark) = (record.key_id().generation(), Some((record.key_id(), HighWaterMark::of(record))));
        self.seen.raise(self.lineage, generation, mark)?;
        self.high_water.raise(self.lineage, generation, mark)
    }

    pub(super) async fn now(&self) -> Result<u64> {
        self.store.now().await
    }
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
