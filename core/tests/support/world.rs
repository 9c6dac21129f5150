//! The keyring of the test vectors: known keys, their records, a store that serves any bytes, a local KEK.

use keyfold::testing::block_on;
use keyfold::vectors::{Key, RecordParts, WrapParts};
use keyfold::wire::{Generation, KeyId, Suite};
use keyfold::{
    BoxFuture, Context, Error, ErrorKind, FieldPolicy, KekAlias, KeyClass, KeyState, KeyStore, Keyring, KeyringConfig,
    Kms, KmsErrorKind, Lineage, LookupKeys, MemoryHighWater, Policy, Record, RecordChange, Result, RowBinding, Secret,
    Slot, SlotId, UnwrapRequest, WrapRequest, WrappedKey,
};
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update, XofReader};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) const ENVIRONMENT: &str = "vectors";
pub(crate) const ALIAS: &str = "local";
pub(crate) const TIME: u64 = 1_790_000_000;

/// The first `N` bytes of SHAKE-128 of "keyfold vectors v1 " ‖ `label`.
pub(crate) fn bytes<const N: usize>(label: &str) -> [u8; N] {
    let mut shake = Shake128::default();
    shake.update(b"keyfold vectors v1 ");
    shake.update(label.as_bytes());
    let mut out = [0; N];
    shake.finalize_xof().read(&mut out);
    out
}

pub(crate) fn kek() -> [u8; 32] {
    bytes("kek")
}

pub(crate) fn lineage() -> Lineage {
    Lineage::from_bytes(bytes("lineage"))
}

pub(crate) fn slot(name: &str) -> SlotId {
    if name.is_empty() { SlotId::NONE } else { SlotId::from_bytes(bytes(&format!("slot {name}"))) }
}

/// AES-256-KWP (RFC 5649), as the local KEK wraps.
pub(crate) fn kwp(kek: &[u8; 32], payload: &[u8; 64]) -> Vec<u8> {
    use aes_kw::KeyInit;
    let mut buffer = [0; 72];
    aes_kw::KwpAes256::new(kek.into()).wrap_key(payload, &mut buffer).expect("64 bytes wrap").to_vec()
}

/// The KEK version that a local KEK writes (FORMAT.md appendix A).
pub(crate) fn kek_id(kek: &[u8; 32]) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new().chain_update(b"keyfold/v1/local-kek-id").chain_update(kek).finalize();
    data_encoding::HEXLOWER.encode(&digest[..8])
}

pub(crate) struct LocalKek(pub(crate) [u8; 32]);

impl Kms for LocalKek {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        let bytes = kwp(&self.0, request.payload.expose());
        Box::pin(async move { Ok(WrappedKey { kek_version: kek_id(&self.0), bytes }) })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move {
            use aes_kw::KeyInit;
            if request.wrapped.kek_version != kek_id(&self.0) {
                return Err(Error::new(ErrorKind::Kms(KmsErrorKind::WrongKey), "another local KEK wrapped it"));
            }
            let refused = || Error::new(ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), "does not unwrap");
            Secret::try_with(|out: &mut [u8; 64]| {
                let wrapped = &request.wrapped.bytes;
                let mut buffer = vec![0; wrapped.len()];
                let kek = aes_kw::KwpAes256::new((&self.0).into());
                let payload = kek.unwrap_key(wrapped, &mut buffer).map_err(|_| refused())?;
                *out = payload.try_into().map_err(|_| refused())?;
                Ok(())
            })
        })
    }
}

/// Serves the bytes that it is given, honest or not, under the key ID that it is asked for.
#[derive(Clone, Default)]
pub(crate) struct BytesStore(pub(crate) BTreeMap<KeyId, Vec<u8>>);

impl BytesStore {
    fn parsed(&self) -> impl Iterator<Item = Record> {
        self.0.values().rev().filter_map(|bytes| Record::parse(bytes).ok())
    }
}

impl KeyStore for BytesStore {
    fn get(&self, _: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move { self.0.get(&key_id).map(|bytes| Record::parse(bytes)).transpose() })
    }
    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move { Ok(self.parsed().filter(|record| record.slot() == slot).take(limit).collect()) })
    }
    fn scope_by_tag(&self, _: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(async move { Ok(self.parsed().find(|r| r.scope_tag() == Some(tag)).map(|r| r.slot_id())) })
    }
    fn list(&self, _: Lineage, _: Option<KeyId>, _: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn allocate_generation(&self, _: Lineage, _: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }
    fn insert<'a>(&'a self, _: &'a Record, _: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }
    fn update<'a>(&'a self, _: &'a Record, _: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }
    fn update_many<'a>(&'a self, _: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async { Err(ErrorKind::Store.into()) })
    }
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async { Ok(TIME) })
    }
}

/// One key of the vectors.
pub(crate) struct Member {
    pub(crate) name: &'static str,
    pub(crate) key: Key,
    pub(crate) parts: RecordParts<'static>,
    pub(crate) scope: &'static str,
}

fn key(class: KeyClass, place: &str, generation: u32) -> Key {
    Key { bytes: bytes(&format!("key {generation}")), lineage: lineage(), class, slot: slot(place), generation }
}

/// Every key of the vectors, in order of generation.
pub(crate) fn members() -> Vec<Member> {
    use KeyClass::{Data, Lookup, Root};
    use KeyState::{Active, Compromised, Deactivated, DestroyPending, Destroyed, PreActive};
    let roots = [key(Root, "", 1), key(Root, "", 7)];
    let names = key(Lookup, "", 2);
    let table: [(&'static str, KeyClass, &'static str, KeyState, usize); 15] = [
        ("root-1", Root, "", Deactivated, 0),
        ("scope-names", Lookup, "", Active, 0),
        ("lookup-default-old", Lookup, "partition default", Deactivated, 0),
        ("data-old", Data, "", Deactivated, 0),
        ("data", Data, "", Active, 0),
        ("clinic-17", Data, "clinic-17", Active, 0),
        ("root-2", Root, "", Active, 1),
        ("clinic-18", Data, "clinic-18", Active, 1),
        ("data-destroyed", Data, "", Destroyed, 0),
        ("lookup-study", Lookup, "partition study", Active, 0),
        ("data-compromised", Data, "", Compromised, 0),
        ("lookup-default", Lookup, "partition default", Active, 0),
        ("data-pre-active", Data, "", PreActive, 0),
        ("data-destroy-pending", Data, "", DestroyPending, 0),
        ("clinic-19", Data, "clinic-19", Active, 0),
    ];
    (1_u32..)
        .zip(table)
        .map(|(generation, (name, class, place, state, root))| {
            let key = key(class, place, generation);
            let scope = if class == Data { place } else { "" };
            let wrap_nonce: [u8; 24] = bytes(&format!("wrap {generation}"));
            let under_kek = WrapParts {
                kind: 2,
                alias: ALIAS.into(),
                version: kek_id(&kek()),
                bytes: kwp(&kek(), &key.kek_payload(ENVIRONMENT)),
            };
            let under_root = |nonce| WrapParts {
                kind: 1,
                alias: String::new(),
                version: String::new(),
                bytes: key.wrap(&roots[root], nonce).expect("32 bytes wrap").to_vec(),
            };
            let mut wraps = match (class, state) {
                (_, Destroyed) => vec![],
                (Root, _) => vec![under_kek],
                _ => vec![under_root(&wrap_nonce)],
            };
            let mut extensions = Vec::new();
            if name == "clinic-19" {
                // What a newer version may add: a wrap and an extension that this one keeps and passes over.
                let (alias, version, bytes) = ("later".into(), "2".into(), bytes::<80>("unknown wrap").to_vec());
                wraps.insert(0, WrapParts { kind: 0x7F, alias, version, bytes });
                extensions = b"\x00\x07\x00\x05later\x7f\xff\x00\x00".to_vec();
            }
            let changes = u64::from(!matches!(state, Active | PreActive));
            let parts = RecordParts {
                key,
                root: if class == Root { key } else { roots[root] },
                state,
                scope_tag: (!scope.is_empty()).then(|| names.scope_tag(scope)),
                sequence: 1 + changes,
                times: [TIME, if state == PreActive { 0 } else { TIME }, TIME + changes * 86_400],
                environment: ENVIRONMENT,
                wraps,
                endorser: (name == "root-2").then(|| roots[0]),
                extensions,
            };
            Member { name, key, parts, scope }
        })
        .collect()
}

/// A keyring to open values with.
pub(crate) struct World {
    pub(crate) kek: [u8; 32],
    pub(crate) config: KeyringConfig,
    pub(crate) store: BytesStore,
}

impl World {
    /// Made from the members.
    pub(crate) fn generated() -> Self {
        let members = members();
        let id = |name: &str| members.iter().find(|m| m.name == name).expect("a member").key.key_id();
        let lookup = BTreeMap::from([
            (
                "default".to_owned(),
                LookupKeys {
                    partition: slot("partition default"),
                    seals: id("lookup-default"),
                    opens: vec![id("lookup-default-old")],
                },
            ),
            (
                "study".to_owned(),
                LookupKeys { partition: slot("partition study"), seals: id("lookup-study"), opens: vec![] },
            ),
        ]);
        let config = KeyringConfig {
            cache: keyfold::CachePolicy::default(),
            rotation: keyfold::RotationPolicy::default(),
            isolated: BTreeMap::new(),
            scope_keks: BTreeSet::new(),
            open_compromised: false,
            keks: keyfold::KekPolicy::default(),
            shred: keyfold::ShredPolicy { waiting: std::time::Duration::ZERO },
            fips: keyfold::fips::Rule::default(),
            memory: keyfold::MemoryLock::default(),
            name: "vectors".to_owned(),
            environment: ENVIRONMENT.to_owned(),
            lineage: lineage(),
            root_pins: vec![members[0].key.commitment()],
            scope_names: id("scope-names"),
            lookup,
            policy: Policy::new(),
        };
        let store = members.iter().map(|m| (m.key.key_id(), m.parts.to_bytes())).collect();
        Self { kek: kek(), config, store: BytesStore(store) }
    }

    pub(crate) fn keyring(&self, policy: Policy) -> Result<Keyring> {
        self.keyring_on(policy, Arc::new(self.store.clone()))
    }

    pub(crate) fn keyring_on(&self, policy: Policy, store: Arc<dyn KeyStore>) -> Result<Keyring> {
        let config = KeyringConfig { policy, ..self.config.clone() };
        let kek: Arc<dyn Kms> = Arc::new(LocalKek(self.kek));
        let keks = BTreeMap::from([(KekAlias::new(ALIAS)?, kek)]);
        Keyring::open(config, store, keks, Arc::new(MemoryHighWater::default()))
    }
}

/// How a value is opened: what the caller states.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opening {
    pub(crate) field: String,
    pub(crate) partition: Option<String>,
    pub(crate) join_group: Option<String>,
    pub(crate) scope: Option<String>,
    pub(crate) context: Vec<(String, Vec<u8>)>,
    pub(crate) row: Option<Vec<u8>>,
    pub(crate) row_bound: bool,
    pub(crate) required_context: Vec<String>,
    /// Suites that the policy accepts; empty: the field's own.
    pub(crate) accept: Vec<Suite>,
    pub(crate) max_frame_records: Option<usize>,
}

impl Opening {
    pub(crate) fn context(&self) -> Context {
        let add = |c: Context, (k, v): &(String, Vec<u8>)| c.with(k, v).expect("vectors have good contexts");
        self.context.iter().fold(Context::new(), add)
    }

    pub(crate) fn policy(&self) -> FieldPolicy {
        let mut policy = match &self.partition {
            Some(partition) => FieldPolicy::deterministic(&self.field, partition, self.join_group.as_deref()),
            None => FieldPolicy::randomized(&self.field),
        };
        if self.row_bound {
            policy.row_binding = RowBinding::Bound { column: Some("id".into()), path: None, segment: None };
        }
        policy.required_context = self.required_context.iter().cloned().collect();
        if !self.accept.is_empty() {
            policy.accepted_suites.clone_from(&self.accept);
        }
        policy.max_frame_records = self.max_frame_records.unwrap_or(policy.max_frame_records);
        policy
    }

    pub(crate) fn decryptor(&self, world: &World) -> Result<keyfold::Decryptor> {
        let mut policy = Policy::new();
        policy.add(self.policy())?;
        let mut field = world.keyring(policy)?.field(&self.field)?.context(self.context());
        if let Some(scope) = &self.scope {
            field = field.scope(scope);
        }
        block_on(field.decryptor())
    }

    /// Opens `sealed` the way a program does: load the keys, decrypt. Returns type name and canonical bytes.
    pub(crate) fn open(&self, world: &World, sealed: &[u8]) -> Result<(&'static str, Vec<u8>)> {
        let decryptor = self.decryptor(world)?;
        open_with(&decryptor, sealed, self.row.as_deref())
    }
}

pub(crate) fn open_with(
    decryptor: &keyfold::Decryptor,
    sealed: &[u8],
    row: Option<&[u8]>,
) -> Result<(&'static str, Vec<u8>)> {
    block_on(decryptor.load_keys(&[sealed][..])).map_err(|e| e.error)?;
    let opened = decryptor.decrypt(sealed, row)?;
    Ok((opened.value().value_type().name(), keyfold::vectors::canonical(opened.value())))
}
