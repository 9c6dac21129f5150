//! A keyring whose root several KEKs wrap, each with faults of its own, and a sink that remembers its events.

use super::cache::TestClock;
use super::lab::*;
use super::{Faults, block_on};
use keyfold::testing::FakeKms;
use keyfold::{
    AuditAction, AuditEvent, AuditSink, BoxFuture, Error, ErrorKind, KekAlias, KeyClass, Keyring, KeyringConfig, Kms,
    KmsErrorKind, Record, Result, Secret, SlotId, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A key service that notes in which order it was asked among the others, and can hang or fail.
struct Region {
    alias: KekAlias,
    inner: FakeKms,
    faults: Faults,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Kms for Region {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
        Box::pin(async move { self.faults.run("wrap", kind, || block_on(self.inner.wrap(request))) })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
        self.asked.lock().unwrap().push(self.alias.as_str().to_owned());
        Box::pin(async move { self.faults.run("unwrap", kind, || block_on(self.inner.unwrap(request))) })
    }
}

pub struct Regions {
    pub lab: Lab,
    pub services: BTreeMap<&'static str, FakeKms>,
    /// The aliases, in the order in which they were asked to unwrap.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Regions {
    /// The KEKs of the lab's root, in the order of its record.
    pub fn new(aliases: &[&'static str]) -> Self {
        let lab = Lab::new();
        let services: BTreeMap<_, _> = aliases.iter().map(|alias| (*alias, FakeKms::new())).collect();
        let mut parts = root_parts(&lab.kms, root());
        parts.wraps = aliases.iter().map(|alias| wrap_by_kek(&services[alias], &root(), ENVIRONMENT, alias)).collect();
        lab.store.plant(&record(&parts));
        Self { lab, services, asked: Arc::default() }
    }

    /// Adds a KEK that wraps nothing yet.
    pub fn add(&mut self, name: &'static str) {
        self.services.insert(name, FakeKms::new());
    }

    pub fn keks(&self) -> BTreeMap<KekAlias, Arc<dyn Kms>> {
        let region = |(name, inner): (&&'static str, &FakeKms)| -> (KekAlias, Arc<dyn Kms>) {
            let (faults, asked) = (self.lab.faults.clone(), self.asked.clone());
            (alias(name), Arc::new(Region { alias: alias(name), inner: inner.clone(), faults, asked }))
        };
        self.services.iter().map(region).collect()
    }

    /// A new process on the same machine.
    pub fn process(&self) -> Keyring {
        self.process_with(self.lab.config.clone())
    }

    pub fn process_with(&self, config: KeyringConfig) -> Keyring {
        self.process_at(config, &TestClock::new())
    }

    pub fn process_at(&self, config: KeyringConfig, clock: &TestClock) -> Keyring {
        let (store, marks) = (Arc::new(self.lab.store.clone()), Arc::new(self.lab.marks.clone()));
        Keyring::open_with_clock(config, store, self.keks(), marks, Arc::new(clock.clone())).expect("it opens")
    }

    pub fn fail(&self, name: &str, kind: Option<KmsErrorKind>) {
        self.services[name].set_failure(kind);
    }

    pub fn fail_all(&self, kind: Option<KmsErrorKind>) {
        self.services.values().for_each(|kms| kms.set_failure(kind));
    }

    /// Who was asked to unwrap since the last call of this.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Requests to each service so far: (wraps, unwraps).
    pub fn calls(&self) -> BTreeMap<&'static str, (u64, u64)> {
        self.services.iter().map(|(name, kms)| (*name, (kms.wrap_count(), kms.unwrap_count()))).collect()
    }

    pub fn root_record(&self) -> Record {
        self.lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE)).into_iter().next().expect("a root")
    }
}

/// The aliases of the KEKs that wrap a record.
pub fn wrapped_by(record: &Record) -> Vec<&str> {
    record.kek_aliases().map(KekAlias::as_str).collect()
}

/// Remembers events, and refuses them on command.
#[derive(Default)]
pub struct Sink {
    pub events: Mutex<Vec<AuditEvent>>,
    pub full: AtomicBool,
}

impl Sink {
    pub fn of(ring: &Keyring) -> Arc<Self> {
        let sink = Arc::new(Self::default());
        ring.set_audit(sink.clone()).expect("no sink yet");
        sink
    }

    pub fn take(&self, action: AuditAction) -> Vec<AuditEvent> {
        let mut events = self.events.lock().unwrap();
        let (taken, left) = events.drain(..).partition(|event| event.action == action);
        *events = left;
        taken
    }
}

impl AuditSink for Sink {
    fn record(&self, event: AuditEvent) -> Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Io, "the disk is full"));
        }
        self.events.lock().unwrap().push(event);
        Ok(())
    }
}
