//! A clock that only tests move, and services that keep their callers waiting.

use super::lab::Lab;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    BoxFuture, Clock, KekAlias, KeyStore, Keyring, KeyringConfig, Kms, Lineage, Record, RecordChange, Result, Secret,
    Slot, SlotId, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

/// Nanoseconds since anything.
#[derive(Clone, Default)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    /// A clock that shows a day already: zero is a time like any other, but a bad one to test with.
    pub fn new() -> Self {
        let clock = Self::default();
        clock.advance(Duration::from_secs(86_400));
        clock
    }

    pub fn advance(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    pub fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// Comes back after the others had a turn.
pub async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type Hook = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Store or service that yields before and after each call, and runs a hook before each unwrap.
pub struct Slow<T: ?Sized> {
    hook: Mutex<Option<Hook>>,
    inner: Arc<T>,
}

impl<T: ?Sized> Slow<T> {
    pub fn new(inner: Arc<T>) -> Self {
        Self { hook: Mutex::default(), inner }
    }

    /// Runs before each unwrap.
    pub fn before(&self, hook: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.hook.lock().unwrap() = Some(Arc::new(hook));
    }

    async fn run<R>(&self, call: impl Future<Output = R>) -> R {
        yield_once().await;
        let result = call.await;
        yield_once().await;
        result
    }
}

impl Kms for Slow<dyn Kms> {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(self.run(self.inner.wrap(request)))
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move {
            let hook = self.hook.lock().unwrap().clone();
            if let Some(hook) = hook {
                hook().await;
            }
            self.run(self.inner.unwrap(request)).await
        })
    }
}

impl KeyStore for Slow<dyn KeyStore> {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(self.run(self.inner.get(lineage, key_id)))
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(self.run(self.inner.newest(slot, limit)))
    }

    fn scope_by_tag(&self, lineage: Lineage, tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(self.run(self.inner.scope_by_tag(lineage, tag)))
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(self.run(self.inner.list(lineage, after, limit)))
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(self.run(self.inner.allocate_generation(lineage, above)))
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(self.inner.insert(record, expected_head)))
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.run(self.inner.update(record, expected_sequence)))
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(self.run(self.inner.update_many(changes)))
    }

    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(self.run(self.inner.now()))
    }
}

/// A process of the laboratory with a clock of its own.
pub struct Process {
    pub ring: Keyring,
    pub clock: TestClock,
    pub kms: Arc<Slow<dyn Kms>>,
    pub keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
}

impl Process {
    /// Its calls answer at once.
    pub fn quick(lab: &Lab, config: KeyringConfig) -> Self {
        Self::with(lab, config, Arc::new(lab.store.clone()), lab.keks())
    }

    /// Its calls keep their callers waiting.
    pub fn slow(lab: &Lab, config: KeyringConfig) -> Self {
        let kms: Arc<Slow<dyn Kms>> = Arc::new(Slow::new(lab.kek()));
        let keks = lab.keks().into_keys().map(|alias| (alias, kms.clone() as Arc<dyn Kms>)).collect();
        let store: Slow<dyn KeyStore> = Slow::new(Arc::new(lab.store.clone()));
        Self { kms, ..Self::with(lab, config, Arc::new(store), keks) }
    }

    fn with(
        lab: &Lab,
        config: KeyringConfig,
        store: Arc<dyn KeyStore>,
        keks: BTreeMap<KekAlias, Arc<dyn Kms>>,
    ) -> Self {
        let clock = TestClock::new();
        let marks = Arc::new(lab.marks.clone());
        let ring = Keyring::open_with_clock(config, store, keks.clone(), marks, Arc::new(clock.clone()));
        Self { ring: ring.expect("it opens"), clock, kms: Arc::new(Slow::new(lab.kek())), keks }
    }
}
