//! What a keyring tells its audit sink: every request to a key service, every key, and counts of every value.

use crate::common::cache::TestClock;
use crate::common::lab::*;
use crate::common::{FaultyMarks, block_on, open, refused};
use keyfold::wire::KeyId;
use keyfold::{
    AuditAction, AuditEvent, AuditSink, BoxFuture, Context, Error, ErrorKind, KeyState, Keyring, Kms, KmsErrorKind,
    Result, Secret, UnwrapRequest, Value, WrapRequest, WrappedKey,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Keeps events, or refuses them.
#[derive(Default)]
struct MemorySink {
    events: Mutex<Vec<AuditEvent>>,
    full: AtomicBool,
    closed: AtomicUsize,
}

impl AuditSink for MemorySink {
    fn record(&self, event: AuditEvent) -> Result<()> {
        self.check()?;
        self.events.lock().unwrap().push(event);
        Ok(())
    }

    fn record_all(&self, events: Vec<AuditEvent>) -> Result<()> {
        self.check()?;
        self.events.lock().unwrap().extend(events);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(Error::new(ErrorKind::Io, "full")) } else { Ok(()) }
    }

    fn close(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

impl MemorySink {
    fn take(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// How often each key was used in each field, by what was done.
    fn counts(&self) -> BTreeMap<(Option<KeyId>, String, &'static str), u64> {
        let mut sums = BTreeMap::new();
        for event in self.take().into_iter().filter(|event| event.action == AuditAction::Use) {
            for (name, n) in event.details {
                *sums.entry((event.key_id, event.field.clone().unwrap(), name)).or_default() +=
                    n.parse::<u64>().unwrap();
            }
        }
        sums
    }
}

fn audited(lab: &Lab, clock: &TestClock) -> (Keyring, Arc<MemorySink>) {
    let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(FaultyMarks::default()));
    let ring = Keyring::open_with_clock(lab.config.clone(), store, lab.keks(), marks, Arc::new(clock.clone())).unwrap();
    let sink = Arc::new(MemorySink::default());
    ring.set_audit(sink.clone()).unwrap();
    assert_eq!(ring.set_audit(sink.clone()).unwrap_err().kind(), ErrorKind::InvalidInput);
    (ring, sink)
}

fn actions(sink: &MemorySink) -> Vec<AuditAction> {
    sink.take().iter().map(|event| event.action).collect()
}

#[test]
fn uses_that_cannot_be_recorded_are_told_before_the_end_and_wait() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    let sealed = seal(&ring, None, "x").unwrap();
    sink.take();
    sink.full.store(true, Ordering::Relaxed);
    reveal(&ring, None, &sealed).unwrap();
    assert_eq!(refused(ring.record_uses(), "the sink is full"), ErrorKind::Io);
    sink.full.store(false, Ordering::Relaxed);
    ring.record_uses().unwrap();
    assert_eq!(sink.counts().into_values().sum::<u64>(), 2, "one was sealed, one opened");
    ring.record_uses().unwrap();
    assert_eq!(sink.take().len(), 0, "once");
}

#[test]
fn every_request_and_every_change_of_a_key_is_an_event() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    seal(&ring, None, "x").unwrap();
    let events = sink.take();
    assert_eq!(events.len(), 1, "one root was unwrapped: {events:?}");
    assert_eq!((events[0].action, events[0].error), (AuditAction::Unwrap, None));
    assert_eq!((events[0].key_id, events[0].kek.as_ref()), (Some(root().key_id()), Some(&alias(ALIAS))));
    assert!(events[0].latency.is_some());

    let rotated = block_on(ring.rotate_data_key(None)).unwrap();
    let events = sink.take();
    let of = |event: &AuditEvent, name| event.details.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone());
    assert_eq!((events[0].action, events[0].key_id), (AuditAction::KeyMade, Some(rotated.new.key_id())));
    assert_eq!(of(&events[0], "after"), Some(data(DATA).key_id().to_string()));
    assert_eq!((events[1].action, events[1].key_id), (AuditAction::StateChanged, Some(data(DATA).key_id())));
    assert_eq!(of(&events[1], "state").as_deref(), Some("deactivated"));
    assert_eq!(events.len(), 2);

    block_on(ring.rotate_root()).unwrap();
    assert_eq!(
        actions(&sink),
        [AuditAction::Wrap, AuditAction::Unwrap, AuditAction::KeyMade, AuditAction::StateChanged]
    );
    block_on(async {
        let mut walk = ring.reparent().await.unwrap();
        while !walk.step(100).await.unwrap().done {}
    });
    let moved: Vec<_> = sink.take().into_iter().filter(|event| event.action == AuditAction::Reparent).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!(of(&moved[0], "moved").as_deref(), Some("6"));
    block_on(ring.change_state(data(OLD_DATA).key_id(), KeyState::DestroyPending)).unwrap();
    assert_eq!(actions(&sink), [AuditAction::StateChanged]);

    lab.kms.set_failure(Some(KmsErrorKind::AccessDenied));
    let (other, sink) = audited(&lab, &clock);
    assert!(seal(&other, None, "x").is_err());
    let events = sink.take();
    assert_eq!(events[0].error, Some(ErrorKind::Kms(KmsErrorKind::AccessDenied)));
}

const SECOND: &str = "7b1c5b1e-0f3a-4c7e-9d55-2f0a6f0e1b2c";

/// A key service that takes two requests, or fails after them.
struct Remote(Arc<dyn Kms>, bool);

impl Kms for Remote {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        self.0.wrap(request)
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        let trace = request.trace.expect("the keyring wants to know");
        trace.request_sent();
        trace.set_request_id("00000000-0000-4000-8000-000000000001");
        trace.request_sent();
        trace.set_request_id(SECOND);
        // From outside, and no UUIDs: ignored. The last one could be a wrapped key.
        for evil in [
            "evil\nline",
            "7b1c-1",
            "",
            "S0VZRk9MRC1DQU5BUlktUEFZTE9BRC0wMTIzNDU2Nzg5",
            "7b1c5b1e_0f3a-4c7e-9d55-2f0a6f0e1b2c",
        ] {
            trace.set_request_id(evil);
        }
        let failed = Error::new(ErrorKind::Kms(KmsErrorKind::AccessDenied), "no");
        if self.1 { Box::pin(async { Err(failed) }) } else { self.0.unwrap(request) }
    }
}

#[test]
fn events_name_the_requests_of_a_service_on_a_network() {
    for fails in [false, true] {
        let (lab, clock) = (Lab::new(), TestClock::new());
        let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(FaultyMarks::default()));
        let keks = lab.keks().into_iter().map(|(alias, kms)| (alias, Arc::new(Remote(kms, fails)) as Arc<dyn Kms>));
        let ring = Keyring::open_with_clock(lab.config.clone(), store, keks.collect(), marks, Arc::new(clock)).unwrap();
        let sink = Arc::new(MemorySink::default());
        ring.set_audit(sink.clone()).unwrap();
        assert_eq!(seal(&ring, None, "x").is_err(), fails);
        let events = sink.take();
        let details = [("requests", "2".to_owned()), ("request_id", SECOND.to_owned())];
        assert_eq!((events[0].action, &events[0].details[..]), (AuditAction::Unwrap, &details[..]));
        assert_eq!(events[0].error.is_some(), fails);
    }
}

#[test]
fn what_cannot_be_recorded_brings_no_key_and_changes_nothing() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    sink.full.store(true, Ordering::Relaxed);
    assert_eq!(encryptor(&ring, "plain", None).unwrap_err().kind(), ErrorKind::Io);
    sink.full.store(false, Ordering::Relaxed);
    let sealed = seal(&ring, None, "x").unwrap();
    assert_eq!(reveal(&ring, None, &sealed).unwrap().0, "x");

    sink.full.store(true, Ordering::Relaxed);
    let before = lab.store.all();
    assert_eq!(block_on(ring.rotate_data_key(None)).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(block_on(ring.rotate_root()).unwrap_err().kind(), ErrorKind::Io);
    let deactivated = block_on(ring.change_state(data(DATA).key_id(), KeyState::Deactivated));
    assert_eq!(deactivated.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(encryptor(&ring, "plain", Some("new scope")).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(lab.store.all(), before, "nothing was made or changed");
    // What is held goes on until it must be renewed, and no longer than through an outage of the key service.
    assert_eq!(reveal(&ring, None, &sealed).unwrap().0, "x");
    let cache = lab.config.cache;
    clock.advance(cache.max_age + cache.grace + Duration::from_secs(1));
    assert!(reveal(&ring, None, &sealed).is_err());
    sink.full.store(false, Ordering::Relaxed);
    assert_eq!(reveal(&ring, None, &sealed).unwrap().0, "x");
}

#[test]
fn counts_of_many_threads_add_up_per_key_and_field() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    let (plain, other) = (encryptor(&ring, "plain", None).unwrap(), encryptor(&ring, "other", None).unwrap());
    let mrn = encryptor(&ring, "mrn", None).unwrap();
    let reader = decryptor(&ring, "plain", None).unwrap();
    let sealed = plain.encrypt(Value::Text("x"), None).unwrap();
    let old = sealed_under(&data(OLD_DATA), &[7; 24], "old");
    block_on(reader.load_keys(&[&sealed[..], &old[..]][..])).unwrap();
    let column = [Value::Text("x"); 7];
    let mixed = [&sealed[..], &old[..], &sealed[..], &sealed[..]];
    thread::scope(|scope| {
        for thread in 0..8 {
            let (plain, other, mrn, reader) = (&plain, &other, &mrn, &reader);
            let (clock, ring, column, mixed, sealed) = (&clock, &ring, &column, &mixed, &sealed);
            scope.spawn(move || {
                for n in 0..500 {
                    plain.encrypt(Value::Text("x"), None).unwrap();
                    other.encrypt_column(&column[..], None::<&[&[u8]]>).unwrap();
                    mrn.encrypt(Value::Text("x"), None).unwrap();
                    reader.decrypt(sealed, None).unwrap();
                    reader.decrypt_column(&mixed[..], None::<&[&[u8]]>).unwrap();
                    assert!(reader.decrypt(&sealed[..40], None).is_err());
                    if n % 100 == 0 {
                        // One thread's five minutes: whichever thread is kept waiting, no key expires meanwhile.
                        clock.advance(Duration::from_secs(if thread == 0 { 61 } else { 0 }));
                        block_on(ring.refresh()).unwrap();
                    }
                }
            });
        }
    });
    drop((plain, other, mrn, reader));
    ring.close();
    let (now, before) = (Some(data(DATA).key_id()), Some(data(OLD_DATA).key_id()));
    let lookup = Some(ours(keyfold::KeyClass::Lookup, DEFAULT_PARTITION, LOOKUP).key_id());
    let field = |name: &str| name.to_owned();
    let expected = BTreeMap::from([
        ((now, field("plain"), "sealed"), 1 + 4000),
        ((now, field("other"), "sealed"), 28_000),
        ((lookup, field("mrn"), "sealed"), 4000),
        ((now, field("plain"), "opened"), 4000 + 12_000),
        ((before, field("plain"), "opened"), 4000),
        ((None, field("plain"), "Malformed"), 4000),
    ]);
    assert_eq!(sink.counts(), expected);
    assert_eq!(sink.closed.load(Ordering::Relaxed), 1);
}

#[test]
fn counts_are_recorded_when_their_interval_is_over_with_the_next_event_and_at_the_end() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    let handle = encryptor(&ring, "plain", None).unwrap();
    let seal = || drop(handle.encrypt(Value::Text("x"), None).unwrap());
    sink.take();
    seal();
    block_on(ring.refresh()).unwrap();
    ring.audit(AuditEvent::new(AuditAction::Drill)).unwrap();
    assert_eq!(actions(&sink), [AuditAction::Drill], "the interval is not over");
    clock.advance(Duration::from_secs(60));
    block_on(ring.refresh()).unwrap();
    assert_eq!(actions(&sink), [AuditAction::Use]);
    block_on(ring.refresh()).unwrap();
    clock.advance(Duration::from_secs(60));
    block_on(ring.refresh()).unwrap();
    assert_eq!(actions(&sink), [], "nothing was used");
    seal();
    clock.advance(Duration::from_secs(60));
    ring.audit(AuditEvent::new(AuditAction::Drill)).unwrap();
    assert_eq!(actions(&sink), [AuditAction::Use, AuditAction::Drill]);
    // What could not be recorded is recorded later.
    seal();
    sink.full.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_secs(60));
    assert_eq!(block_on(ring.refresh()).unwrap_err().kind(), ErrorKind::Io);
    sink.full.store(false, Ordering::Relaxed);
    seal();
    // The last of a keyring is a handle.
    drop(ring);
    assert_eq!(sink.closed.load(Ordering::Relaxed), 0);
    drop(handle);
    assert_eq!(sink.closed.load(Ordering::Relaxed), 1);
    assert_eq!(sink.counts().into_values().collect::<Vec<_>>(), [2]);
}

#[test]
fn failures_are_counted_by_kind() {
    let (lab, clock) = (Lab::new(), TestClock::new());
    lab.add_scope("clinic", 20);
    let (ring, sink) = audited(&lab, &clock);
    let sealed = seal(&ring, None, "x").unwrap();
    let reader = decryptor(&ring, "plain", None).unwrap();
    let forged = {
        let mut forged = sealed.clone();
        *forged.last_mut().unwrap() ^= 1;
        forged
    };
    (0..3).for_each(|_| assert!(open(&reader, &forged, None).is_err()));
    let elsewhere = decryptor(&ring, "plain", Some("clinic")).unwrap();
    assert!(open(&elsewhere, &sealed, None).is_err());
    assert!(decryptor(&ring, "plain", Some("nowhere")).is_err());
    assert!(encryptor(&ring, "plain", None).unwrap().encrypt(Value::Null, Some(b"row")).is_err());
    ring.close();
    let counted: BTreeMap<_, _> =
        sink.counts().into_iter().filter(|(_, n)| *n > 0).map(|((_, _, name), n)| (name, n)).collect();
    assert_eq!(counted["DecryptionFailed"], 3);
    assert_eq!(counted["WrongScope"], 1);
    assert_eq!(counted["NoMatchingKey"], 1);
    assert_eq!(counted["InvalidInput"], 1);
    assert_eq!(counted["sealed"], 1);
}

#[test]
fn events_hold_no_plaintext_scope_context_row_or_key() {
    const CANARIES: [&str; 4] = ["CANARY-PLAINTEXT", "CANARY-SCOPE", "CANARY-CONTEXT", "CANARY-ROW"];
    let [plaintext, scope, context, row] = CANARIES;
    let (lab, clock) = (Lab::new(), TestClock::new());
    let (ring, sink) = audited(&lab, &clock);
    let field = || ring.field("bound").unwrap().scope(scope).context(Context::new().with("tenant", context).unwrap());
    let (writer, reader) = (block_on(field().encryptor()).unwrap(), block_on(field().decryptor()).unwrap());
    let sealed = writer.encrypt(Value::Text(plaintext), Some(row.as_bytes())).unwrap();
    open(&reader, &sealed, Some(row.as_bytes())).unwrap();
    assert!(open(&reader, &sealed, Some(b"another")).is_err());
    block_on(ring.rotate_data_key(Some(scope))).unwrap();
    assert!(block_on(ring.rotate_data_key(Some("CANARY-SCOPE-2"))).is_err());
    block_on(ring.rotate_root()).unwrap();
    drop((writer, reader));
    ring.close();
    let events = sink.take();
    assert!(events.len() > 6 && events.iter().any(|event| event.action == AuditAction::Use));
    let text = format!("{events:?}");
    for canary in CANARIES {
        assert!(!text.contains(canary), "{canary}: {text}");
    }
    for key in [root(), data(DATA), ours(keyfold::KeyClass::Lookup, keyfold::SlotId::NONE, SCOPE_NAMES)] {
        let hex: String = key.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!text.contains(&hex));
    }
}
