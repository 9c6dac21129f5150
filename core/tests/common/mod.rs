//! A keyring whose key bytes are known, over a store that lies and services that fail on command.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "shared by several tests")]

pub mod cache;
pub mod lab;
pub mod regions;
pub mod store;

use keyfold::testing::FakeKms;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    BoxFuture, Decryptor, Error, ErrorKind, HighWater, HighWaterMark, Kms, KmsErrorKind, Lineage, MemoryHighWater,
    Opened, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use keyfold::testing::block_on;

/// Counts the calls of store, key service and marks, and fails one of them.
#[derive(Clone, Default)]
pub struct Faults(Arc<FaultState>);

#[derive(Default)]
struct FaultState {
    calls: AtomicU64,
    fail_at: AtomicU64,
    after: AtomicBool,
    no_store: AtomicBool,
    log: Mutex<Vec<&'static str>>,
}

impl Faults {
    /// Fails the call number `n` from now on, counted from 1: before it had its effect, or after (the answer was lost).
    pub fn fail_nth(&self, n: u64, after: bool) {
        self.0.calls.store(0, Ordering::SeqCst);
        self.0.log.lock().unwrap().clear();
        self.0.after.store(after, Ordering::SeqCst);
        self.0.fail_at.store(n, Ordering::SeqCst);
    }

    /// Whether every call of the store fails.
    pub fn fail_store(&self, on: bool) {
        self.0.no_store.store(on, Ordering::SeqCst);
    }

    pub fn off(&self) {
        self.0.fail_at.store(0, Ordering::SeqCst);
    }

    /// Calls since [`fail_nth`](Self::fail_nth) or [`reset`](Self::reset).
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub fn reset(&self) {
        self.fail_nth(0, false);
    }

    pub fn log(&self) -> Vec<&'static str> {
        self.0.log.lock().unwrap().clone()
    }

    pub fn run<T>(&self, name: &'static str, kind: ErrorKind, effect: impl FnOnce() -> Result<T>) -> Result<T> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.log.lock().unwrap().push(name);
        let fails = self.0.fail_at.load(Ordering::SeqCst) == call
            || kind == ErrorKind::Store && self.0.no_store.load(Ordering::SeqCst);
        let injected = || Error::new(kind, "injected").with_detail(name);
        if fails && !self.0.after.load(Ordering::SeqCst) {
            return Err(injected());
        }
        let result = effect();
        if fails { Err(injected()) } else { result }
    }
}

/// A key service that fails on command.
pub struct FaultyKms {
    pub inner: FakeKms,
    pub faults: Faults,
    /// The `kf:key` of every unwrap request.
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Kms for FaultyKms {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
        Box::pin(async move { self.faults.run("wrap", kind, || block_on(self.inner.wrap(request))) })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
        let [_, (_, key_id), _] = request.context.pairs();
        self.asked.lock().unwrap().push(key_id);
        Box::pin(async move { self.faults.run("unwrap", kind, || block_on(self.inner.unwrap(request))) })
    }
}

/// Marks that outlive a keyring, as a file would, and fail on command.
#[derive(Clone, Default)]
pub struct FaultyMarks {
    pub inner: Arc<MemoryHighWater>,
    pub faults: Faults,
}

impl HighWater for FaultyMarks {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        self.faults.run("marks.generation", ErrorKind::Io, || self.inner.generation(lineage))
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        self.faults.run("marks.mark", ErrorKind::Io, || self.inner.mark(lineage, key_id))
    }

    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        self.faults.run("marks.raise", ErrorKind::Io, || self.inner.raise(lineage, generation, key))
    }
}

/// Opens a value the way a program does: loads its key, decrypts.
pub fn open(decryptor: &Decryptor, sealed: &[u8], row: Option<&[u8]>) -> Result<Opened> {
    block_on(decryptor.load_keys(&[sealed][..]))?;
    decryptor.decrypt(sealed, row)
}

/// The kind of the error; panics with `what` if there is none.
#[track_caller]
pub fn refused<T>(result: Result<T>, what: &str) -> ErrorKind {
    match result {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => error.kind(),
    }
}

/// A small generator for shuffles; not for keys.
pub struct Shuffle(pub u64);

impl Shuffle {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
