//! What is measured: comparisons as they are called, with all that is computed before.

use keyfold::aead::Backend;
use keyfold::aead::hazmat::{
    aes256gcm_open, aes256gcm_seal, aes256siv_open, aes256siv_seal, hmac_sha256, xaes256gcm_open, xaes256gcm_seal,
};
use keyfold::testing::{FakeKms, block_on};
use keyfold::wire::{DocumentHeader, StreamHeader};
use keyfold::{
    CachePolicy, ChainStart, ColumnBytes, CopyStatus, DocumentBody, DocumentPolicy, DocumentValue, FieldPolicy,
    IndexKind, IndexPolicy, KekAlias, KeyClass, Keyring, Kms, Lineage, MemoryHighWater, Record, RecordCopy, TokenForm,
    Value,
};
use keyfold_store::MemoryStore;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What the classes of a target are.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Classes {
    /// The first byte is wrong, the last one, or all are random.
    Wrong,
    /// As it is, or random.
    Fixed,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Expected {
    Equal,
    /// A fault of ours that must be found.
    Planted,
}

/// Whether what it is given is right.
type Work = Box<dyn FnMut(&mut [u8]) -> bool>;

/// Something whose time is measured.
pub(crate) struct Target {
    pub(crate) name: String,
    /// An input that is right.
    pub(crate) genuine: Vec<u8>,
    /// The bytes of it that the classes change.
    pub(crate) place: Range<usize>,
    pub(crate) classes: Classes,
    pub(crate) expected: Expected,
    pub(crate) work: Work,
}

impl Target {
    /// Compares the last `len` bytes of `genuine`.
    fn wrong(
        name: impl Into<String>,
        genuine: Vec<u8>,
        len: usize,
        work: impl FnMut(&mut [u8]) -> bool + 'static,
    ) -> Self {
        let place = genuine.len() - len..genuine.len();
        let (classes, expected) = (Classes::Wrong, Expected::Equal);
        Self { name: name.into(), genuine, place, classes, expected, work: Box::new(work) }
    }

    /// Makes sure that what is genuine is taken: or it is refused for another reason than what the classes change.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub(crate) fn check(&mut self) {
        assert!((self.work)(&mut self.genuine.clone()), "{}: what is genuine is refused", self.name);
    }
}

/// Faults first.
pub(crate) fn all() -> Vec<Target> {
    let mut all = vec![planted_comparison(), planted_mac()];
    for backend in Backend::ALL {
        all.extend([gcm(*backend), xaes(*backend)]);
    }
    all.extend([siv(), record(), commitment(), manifest(), proof(), audit_line(), token()]);
    all
}

const AAD: &[u8] = b"bound to this";
const VALUE: [u8; 32] = *b"a value that has thirty-two byte";

/// Ends with the first byte that differs.
#[inline(never)]
fn ends_early(a: &[u8], b: &[u8]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

fn planted_comparison() -> Target {
    let work = |given: &mut [u8]| ends_early(&VALUE, given);
    Target { expected: Expected::Planted, ..Target::wrong("planted: 32 bytes", VALUE.to_vec(), 32, work) }
}

/// The same behind a MAC, whose time is longer and varies.
fn planted_mac() -> Target {
    let mac = hmac_sha256(&[1; 32], &VALUE);
    let work = |given: &mut [u8]| ends_early(&hmac_sha256(&[1; 32], &VALUE), given);
    Target { expected: Expected::Planted, ..Target::wrong("planted: behind HMAC", mac.to_vec(), 32, work) }
}

fn gcm(backend: Backend) -> Target {
    let mut sealed = VALUE.to_vec();
    let tag = aes256gcm_seal(backend, &[1; 32], [2; 12], AAD, &mut sealed).expect("short");
    sealed.extend(tag);
    Target::wrong(format!("tag, AES-256-GCM, {}", backend.name()), sealed, 16, move |sealed| {
        aes256gcm_open(backend, &[1; 32], [2; 12], AAD, sealed).is_ok()
    })
}

fn xaes(backend: Backend) -> Target {
    let mut sealed = VALUE.to_vec();
    let tag = xaes256gcm_seal(backend, &[1; 32], &[2; 24], AAD, &mut sealed).expect("short");
    sealed.extend(tag);
    Target::wrong(format!("tag, XAES-256-GCM, {}", backend.name()), sealed, 16, move |sealed| {
        xaes256gcm_open(backend, &[1; 32], &[2; 24], AAD, sealed).is_ok()
    })
}

/// The IV last, though it stands first in values.
fn siv() -> Target {
    let mut sealed = VALUE.to_vec();
    let iv = aes256siv_seal(&[1; 64], &[AAD], &mut sealed).expect("short");
    sealed.extend(iv);
    Target::wrong("IV, AES-256-SIV", sealed, 16, |sealed| {
        let (body, iv) = sealed.split_last_chunk_mut::<16>().expect("longer");
        aes256siv_open(&[1; 64], &[AAD], iv, body).is_ok()
    })
}

fn keyring(field: FieldPolicy) -> Keyring {
    let (store, kms) = (Arc::new(MemoryStore::new()), Arc::new(FakeKms::new()) as Arc<dyn Kms>);
    let keks = BTreeMap::from([(KekAlias::new("kek").expect("an alias"), kms)]);
    let high_water = Arc::new(MemoryHighWater::default());
    let created = block_on(Keyring::create("name", "test", store.clone(), keks.clone(), high_water.clone()));
    let mut config = created.expect("an empty store takes a keyring").config;
    // Or the key is to be renewed in the middle.
    let max_age = CachePolicy::MAX_AGE;
    config.cache = CachePolicy { max_age, max_idle: max_age, ..config.cache };
    config.policy.add(field).expect("good");
    config.policy.add_document(DocumentPolicy::new("patient")).expect("good");
    Keyring::open(config, store, keks, high_water).expect("it was just made")
}

/// The MAC of a key record, which is at its end: beside the record of its root, which is unwrapped and checked each time.
fn record() -> Target {
    let ring = keyring(FieldPolicy::randomized("f"));
    let records = block_on(ring.stored(None, 100)).expect("some");
    let of = |class| records.iter().find(|record| record.class() == class).expect("one of each").clone();
    let (root, record) = (of(KeyClass::Root), of(KeyClass::Data));
    Target::wrong("MAC, key record", record.as_bytes().to_vec(), 32, move |bytes| {
        let records = [root.clone(), Record::parse(bytes).expect("canonical")];
        let copies = records.map(|record| RecordCopy { record, status: CopyStatus::Stored });
        block_on(ring.check_copies(copies.into())).is_ok_and(|wrong| wrong.is_empty())
    })
}

/// The commitment of a stream to its key, which is at the end of its header.
fn commitment() -> Target {
    let ring = keyring(FieldPolicy::stream("f"));
    let field = || ring.field("f").expect("of the policy");
    let header = *block_on(field().stream_sealer()).expect("a key").begin(None).expect("ready").header();
    let opener = block_on(field().stream_opener()).expect("a key");
    block_on(opener.load_key(&header)).expect("its own key");
    Target::wrong("commitment, stream", header.as_bytes().to_vec(), 32, move |bytes| {
        let header = StreamHeader::parse(bytes).expect("canonical");
        opener.begin(&header, None).is_ok()
    })
}

fn manifest() -> Target {
    let ring = keyring(FieldPolicy::document("f"));
    let documents = || ring.documents("patient").expect("of the policy");
    let values = [DocumentValue { field: "f", path: "$['f']", value: Value::Bytes(&VALUE) }];
    let sealed = block_on(documents().sealer()).expect("a key").seal(None, &values, &[], 1).expect("short");
    let body = sealed.bodies.bytes(0).to_vec();
    let header: DocumentHeader = sealed.header;
    let opener = block_on(documents().opener()).expect("a key");
    block_on(opener.load_key(&header)).expect("its own key");
    // Its first 8 bytes are a number.
    Target::wrong("MAC, manifest", sealed.manifest.expect("by default").to_vec(), 32, move |manifest| {
        let bodies = [DocumentBody { field: "f", path: "$['f']", body: &body }];
        let manifest = (&*manifest).try_into().expect("40 bytes");
        opener.open(&header, None, &bodies, &[], Some(manifest)).is_ok()
    })
}

fn proof() -> Target {
    let ring = keyring(FieldPolicy::token("f", "default", TokenForm::default()));
    let prover = block_on(ring.field("f").expect("of the policy").prover()).expect("a key");
    let token = "A".repeat(TokenForm::default().length as usize);
    let proof = prover.prove(&token, Value::Bytes(&VALUE)).expect("of the form");
    Target::wrong("proof, token table", proof.to_vec(), 32, move |proof| {
        prover.check(&token, Value::Bytes(&VALUE), proof).is_ok()
    })
}

fn audit_line() -> Target {
    let begun = block_on(ChainStart::begin(&FakeKms::new(), Lineage::from_bytes([1; 16]), "test"));
    let (_, ratchet) = begun.expect("it wraps");
    let mac = ratchet.mac(&[0; 32], &VALUE);
    Target::wrong("MAC, audit line", mac.to_vec(), 32, move |mac| {
        let mac = (&*mac).try_into().expect("32 bytes");
        ratchet.verifies(&[0; 32], &VALUE, mac)
    })
}

/// The token that a value is looked for by: of one value, or of any.
fn token() -> Target {
    let indexes = vec![IndexPolicy::unique("i", IndexKind::Exact, 256)];
    let ring = keyring(FieldPolicy { indexes, ..FieldPolicy::randomized("f") });
    let indexer = block_on(ring.field("f").expect("of the policy").indexer("i")).expect("a key");
    let work = move |value: &mut [u8]| indexer.search_tokens(Value::Bytes(value)).is_ok();
    Target { classes: Classes::Fixed, ..Target::wrong("token of an index", VALUE.to_vec(), 32, work) }
}
