//! Key records, bundles and audit chains: what unwraps keys and compares what they commit to.

use crate::Case;
use crate::valgrind::{hidden, show};
use keyfold::aead::Backend;
use keyfold::device::{Binding, Bundle, DeviceKey, Protection};
use keyfold::testing::{FakeKms, block_on};
use keyfold::{
    BoxFuture, ChainStart, FieldPolicy, KekAlias, Keyring, KeyringConfig, Kms, Lineage, MemoryHighWater, Policy,
    Result, Secret, SlotId, UnwrapRequest, Value, WrapRequest, WrappedKey,
};
use keyfold_store::MemoryStore;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

pub(crate) const CASES: &[Case] = &[
    ("device", device),
    ("bundle", bundle),
    ("chain", chain),
    ("create", create),
    ("scope", scope),
    ("foreign_payload", foreign_payload),
];

/// A key service whose answers are secret, so that all keys below are.
pub(crate) struct Hiding(FakeKms);

impl Kms for Hiding {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        self.0.wrap(request)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move {
            let payload = self.0.unwrap(request).await?;
            Ok(Secret::with(|bytes| *bytes = hidden(*payload.expose())))
        })
    }
}

/// A keyring in memory, and what it takes to open it once more.
pub(crate) struct Stored {
    config: KeyringConfig,
    store: Arc<MemoryStore>,
    kms: FakeKms,
}

impl Stored {
    /// With the policy that `fill` makes. No key of it is secret yet.
    pub(crate) fn new(fill: impl FnOnce(&mut Policy)) -> Self {
        Self::with(|kms| Arc::new(kms), fill)
    }

    /// Made by the KEK that `seen` makes of a key service.
    fn with(seen: fn(FakeKms) -> Arc<dyn Kms>, fill: impl FnOnce(&mut Policy)) -> Self {
        let (store, kms) = (Arc::new(MemoryStore::new()), FakeKms::new());
        let keks = BTreeMap::from([(alias(), seen(kms.clone()))]);
        let high_water = Arc::new(MemoryHighWater::default());
        let created = block_on(Keyring::create("name", "test", store.clone(), keks, high_water));
        let mut config = created.expect("an empty store takes a keyring").config;
        fill(&mut config.policy);
        Self { config, store, kms }
    }

    /// Opened by a KEK whose answers are secret.
    pub(crate) fn open(&self) -> Keyring {
        let keks = BTreeMap::from([(alias(), Arc::new(Hiding(self.kms.clone())) as Arc<dyn Kms>)]);
        let high_water = Arc::new(MemoryHighWater::default());
        Keyring::open(self.config.clone(), self.store.clone(), keks, high_water).expect("it was just made")
    }
}

fn alias() -> KekAlias {
    KekAlias::new("kek").expect("an alias")
}

/// A key of a device, from its bytes: derivation and commitment, sealing and opening.
#[inline(never)]
fn device() {
    for backend in Backend::ALL {
        let key = Secret::with(|bytes: &mut [u8; 32]| *bytes = hidden([5; 32]));
        let key = DeviceKey::new(*backend, &key, Lineage::from_bytes([1; 16]), SlotId::from_bytes([2; 16]), 9);
        // A commitment is public: it is in every value.
        show(key.key_id().as_bytes());
        let (binding, mut out) = (Binding { field: "serial", pairs: &[] }, [0; 128]);
        let value = hidden(*b"17 secret bytes..");
        let sealed = key.seal(Value::Bytes(&value), binding, &mut out, |nonce| {
            nonce.fill(3);
            Ok(())
        });
        let sealed = sealed.expect("short");
        show(sealed);
        let mut scratch = [0; 128];
        black_box(key.open(sealed, binding, &mut scratch).is_ok());
        sealed[60] ^= 1;
        black_box(key.open(sealed, binding, &mut scratch).is_ok());
    }
}

/// A bundle and its transport key; also another transport key.
#[inline(never)]
fn bundle() {
    let ring = Stored::new(|_| ()).open();
    for byte in [6, 7] {
        let transport_key = Secret::with(|bytes: &mut [u8; 32]| *bytes = hidden([6; 32]));
        let made = block_on(ring.provision_device("ward", &transport_key, Protection::TransportKey)).expect("a key");
        show(&made.bundle);
        let transport_key = Secret::with(|bytes: &mut [u8; 32]| *bytes = hidden([byte; 32]));
        let opened = Bundle::parse(&made.bundle).expect("canonical").open(Backend::RustCrypto, &transport_key);
        assert_eq!(opened.is_ok(), byte == 6);
    }
}

/// A new keyring and a rotation: wraps are unwrapped and compared, and records are written.
#[inline(never)]
fn create() {
    let ring =
        Stored::with(|kms| Arc::new(Hiding(kms)), |policy| policy.add(FieldPolicy::randomized("f")).expect("good"));
    let ring = ring.open();
    block_on(ring.rotate_data_key(None)).expect("a new key");
    block_on(ring.rotate_root()).expect("a new root");
}

/// A new scope, and the same once more: its tag is an HMAC of its name. The name is public here, since hash tables are keyed by it.
#[inline(never)]
fn scope() {
    let ring = Stored::new(|policy| policy.add(FieldPolicy::randomized("f")).expect("good")).open();
    for _ in 0..2 {
        let field = ring.field("f").expect("of the policy").scope("patient-17");
        black_box(block_on(field.encryptor()).expect("a new scope").key_id());
    }
}

/// The first key of an audit chain, and MACs of its lines.
#[inline(never)]
fn chain() {
    let kms = FakeKms::new();
    let (start, _) = block_on(ChainStart::begin(&kms, Lineage::from_bytes([1; 16]), "test")).expect("it wraps");
    let mut ratchet = block_on(start.open(&Hiding(kms))).expect("it unwraps");
    let mac = ratchet.mac(&[0; 32], b"line");
    show(&mac);
    black_box(ratchet.verifies(&[0; 32], b"line", &mac));
    ratchet.step();
    black_box(ratchet.verifies(&[0; 32], b"line", &mac));
}

/// A KEK that unwraps to something else than was wrapped.
#[inline(never)]
fn foreign_payload() {
    let ring = Stored::new(|policy| policy.add(FieldPolicy::randomized("f")).expect("good"));
    ring.kms.set_wrong_payload(true);
    let field = ring.open().field("f").expect("of the policy");
    assert!(block_on(field.encryptor()).is_err());
}
