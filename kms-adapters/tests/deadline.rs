//! Deadlines: a KEK that never answers costs its deadline, and the next one is asked.

use keyfold::testing::{ContextBinding, FakeKms, block_on, kms_conformance};
use keyfold::wire::KeyId;
use keyfold::{
    Error, ErrorKind, FieldPolicy, KekAlias, Keyring, KeyringConfig, Kms, KmsContext, KmsErrorKind, Lineage,
    MemoryHighWater, Policy, Result, Secret, UnwrapRequest, Value, WrapRequest, WrappedKey,
};
use keyfold_kms::{Deadline, LocalKek};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn context() -> KmsContext {
    KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]))
}

/// A service that never answers.
struct Silent;

impl Kms for Silent {
    fn wrap<'a>(&'a self, _: WrapRequest<'a>) -> keyfold::BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(std::future::pending())
    }

    fn unwrap<'a>(&'a self, _: UnwrapRequest<'a>) -> keyfold::BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(std::future::pending())
    }
}

// Failure A2
#[test]
fn a_deadline_ends_what_never_answers_and_passes_on_what_does() {
    let limit = Duration::from_millis(30);
    let silent = Deadline::new(Arc::new(Silent), limit);
    let began = Instant::now();
    let payload = Secret::with(|payload| payload.fill(0xC7));
    let wrapped = block_on(silent.wrap(WrapRequest::new(&payload, &context())));
    let error = wrapped.expect_err("silent");
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Timeout));
    assert!((limit..Duration::from_secs(5)).contains(&began.elapsed()), "{:?}", began.elapsed());
    let wrapped = WrappedKey { kek_version: String::new(), bytes: vec![1] };
    let unwrapped = block_on(silent.unwrap(UnwrapRequest::new(&wrapped, &context())));
    assert_eq!(unwrapped.err().map(|error| error.kind()), Some(ErrorKind::Kms(KmsErrorKind::Timeout)));
    let folder = tempfile::tempdir().expect("a folder");
    let local = LocalKek::create(folder.path().join("local.kek")).expect("created");
    let quick = Deadline::new(Arc::new(local), Duration::from_secs(5));
    kms_conformance(&quick, ContextBinding::ByKeyfold);
}

// Failure A25
#[test]
fn a_region_that_hangs_costs_its_deadline_and_the_other_one_opens() {
    let alias = |text: &str| KekAlias::new(text).expect("a good alias");
    let (first, second): (Arc<dyn Kms>, Arc<dyn Kms>) = (Arc::new(FakeKms::new()), Arc::new(FakeKms::new()));
    let keks = |first: Arc<dyn Kms>| BTreeMap::from([(alias("a"), first), (alias("b"), second.clone())]);
    let (store, marks) = (Arc::new(keyfold_store::MemoryStore::new()), Arc::new(MemoryHighWater::default()));
    let made = block_on(Keyring::create("ring", "test", store.clone(), keks(first.clone()), marks.clone()));
    let mut policy = Policy::new();
    policy.add(FieldPolicy::randomized("note")).expect("a field");
    let config = KeyringConfig { policy, ..made.expect("a keyring").config };
    let open = |first| Keyring::open(config.clone(), store.clone(), keks(first), marks.clone()).expect("it opens");
    let sealed = block_on(async { open(first).field("note")?.encryptor().await?.encrypt(Value::Text("kept"), None) });
    let sealed = sealed.expect("sealed");
    let limit = Duration::from_millis(500);
    let ring = open(Arc::new(Deadline::new(Arc::new(Silent), limit)));
    let reveal = || {
        block_on(async {
            let decryptor = ring.field("note")?.decryptor().await?;
            decryptor.load_keys(&[&sealed[..]][..]).await?;
            Ok::<_, Error>(decryptor.decrypt(&sealed, None)?.value() == Value::Text("kept"))
        })
    };
    let began = Instant::now();
    assert!(reveal().expect("the other region opens"));
    assert!((limit..limit * 10).contains(&began.elapsed()), "{:?}", began.elapsed());
    // From now on the silent one is asked last.
    ring.invalidate();
    let began = Instant::now();
    assert!(reveal().expect("opens"));
    assert!(began.elapsed() < limit, "{:?}", began.elapsed());
}

/// One that is set up wrongly.
struct Misconfigured;

impl Kms for Misconfigured {
    fn wrap<'a>(&'a self, _: WrapRequest<'a>) -> keyfold::BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async { Err(Error::new(ErrorKind::Configuration, "the KEK is of the wrong sort")) })
    }

    fn unwrap<'a>(&'a self, _: UnwrapRequest<'a>) -> keyfold::BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async { Err(Error::new(ErrorKind::Configuration, "the KEK is of the wrong sort")) })
    }
}

#[test]
fn a_kek_that_is_set_up_wrongly_does_not_take_the_keyring_down() {
    let alias = |text: &str| KekAlias::new(text).expect("a good alias");
    let (first, second): (Arc<dyn Kms>, Arc<dyn Kms>) = (Arc::new(FakeKms::new()), Arc::new(FakeKms::new()));
    let keks = |first: Arc<dyn Kms>, second: Arc<dyn Kms>| BTreeMap::from([(alias("a"), first), (alias("b"), second)]);
    let (store, marks) = (Arc::new(keyfold_store::MemoryStore::new()), Arc::new(MemoryHighWater::default()));
    let made = Keyring::create("ring", "test", store.clone(), keks(first.clone(), second.clone()), marks.clone());
    let mut policy = Policy::new();
    policy.add(FieldPolicy::randomized("note")).expect("a field");
    let config = KeyringConfig { policy, ..block_on(made).expect("a keyring").config };
    let open = |keks| Keyring::open(config.clone(), store.clone(), keks, marks.clone()).expect("it opens");
    let seal =
        |ring: Keyring| block_on(async { ring.field("note")?.encryptor().await?.encrypt(Value::Text("kept"), None) });
    assert!(seal(open(keks(Arc::new(Misconfigured), second))).is_ok(), "the other one is asked");
    // Where no other helps, the error says what is wrong.
    let error = seal(open(keks(Arc::new(Misconfigured), Arc::new(Misconfigured)))).expect_err("nobody to ask");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("wrong sort"), "{error}");
}
