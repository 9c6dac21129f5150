//! What operators see: every metric of docs/METRICS.md and the spans, and nothing in them that names a patient.
#![cfg(all(feature = "testing", feature = "hazmat", feature = "metrics"))]
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::block_on;
use common::cache::{Process, TestClock};
use common::lab::*;
use common::regions::Regions;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    ErrorKind, FieldPolicy, HighWater, HighWaterMark, IndexKind, IndexPolicy, KekPolicy, Keyring, KeyringConfig,
    KmsErrorKind, Lineage, MemoryHighWater, Migration, MigrationPhase, OnUnindexable, Recovery, Result, Value,
};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The name of a scope, and so of a patient; and the value itself.
const CANARY: &str = "canary-4711";

/// Meets everything that is measured.
fn a_day(lab: &Lab) {
    let mut config = lab.config.clone();
    let migration = Migration::until("2999-12-31", MigrationPhase::DualWrite).unwrap();
    config.policy.add(FieldPolicy { migration: Some(migration), ..FieldPolicy::randomized("moving") }).unwrap();
    let on_unindexable = OnUnindexable::Skip;
    let dates = IndexPolicy { on_unindexable, ..IndexPolicy::new("i", IndexKind::Date, 8) };
    config.policy.add(FieldPolicy { indexes: vec![dates], ..FieldPolicy::randomized("indexed") }).unwrap();
    let process = Process::quick(lab, config);
    let ring = &process.ring;
    let value = seal(ring, Some(CANARY), CANARY).unwrap();
    let indexer = block_on(ring.field("indexed").unwrap().indexer("i")).unwrap();
    assert_eq!(indexer.tokens(Value::Text(CANARY)).unwrap(), []);
    for _ in 0..3 {
        assert!(reveal(ring, Some(CANARY), &value).is_ok());
    }
    let held = encryptor(ring, "plain", Some(CANARY)).unwrap();
    process.clock.advance(lab.config.cache.max_age * 19 / 20);
    block_on(ring.refresh()).unwrap();
    lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
    process.clock.advance(lab.config.cache.max_age + Duration::from_secs(1));
    block_on(held.ready()).unwrap();
    assert!(held.encrypt(Value::Text(CANARY), None).is_ok());
    assert!(reveal(ring, Some(CANARY), &value).is_ok(), "in the grace");
    lab.kms.set_failure(None);
    // A key that is due, in a store that takes no new one.
    (lab.store.state().now, lab.store.state().conflicts) = (Some(TIME + 91 * 24 * 60 * 60), true);
    process.clock.advance(lab.config.cache.max_age);
    block_on(held.ready()).unwrap();
    lab.store.state().conflicts = false;
    // Invented key IDs, until they are refused.
    let reader = decryptor(ring, "plain", None).unwrap();
    let moving = decryptor(ring, "moving", None).unwrap();
    moving.decrypt_or_clear(None, Value::Text(CANARY), None).unwrap();
    let mut invented = value;
    let refused = (0..=1000_u32).any(|n| {
        invented[6..10].copy_from_slice(&n.to_be_bytes());
        let error = block_on(reader.load_keys(&[&invented[..]][..])).unwrap_err().error;
        error.kind() == ErrorKind::LimitExceeded
    });
    assert!(refused);
}

/// Meets what is measured where there are several KEKs: a wrong wrap, one that is away, and recovery mode.
fn a_bad_day() {
    let regions = Regions::new(&["first", "second", "third"]);
    let keks = KekPolicy { quorum: Some(2), recovery: Some(Recovery::default()), ..KekPolicy::default() };
    let ring = regions.process_with(KeyringConfig { keks, ..regions.lab.config.clone() });
    let value = seal(&ring, Some(CANARY), CANARY).unwrap();
    regions.fail("second", Some(KmsErrorKind::Unavailable));
    block_on(ring.rotate_root()).unwrap();
    regions.fail("first", Some(KmsErrorKind::InvalidCiphertext));
    regions.fail("second", Some(KmsErrorKind::KeyDisabled));
    ring.invalidate();
    assert!(reveal(&ring, Some(CANARY), &value).is_ok());
}

/// Whether a span is wanted is remembered for all threads, so what is heard depends on who else speaks.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Labels = Vec<(String, String)>;

// Failure T8
#[test]
fn every_documented_metric_is_there_and_no_other() {
    let _alone = alone();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let lab = Lab::new();
    metrics::with_local_recorder(&recorder, || a_day(&lab));
    let several = DebuggingRecorder::new();
    let snapshotter_of_several = several.snapshotter();
    metrics::with_local_recorder(&several, a_bad_day);
    let is_of_keks = |name: &str| name.starts_with("keyfold_kek_") || name.starts_with("keyfold_recovery_");
    let bad_day = snapshotter_of_several.snapshot().into_vec().into_iter();
    let all =
        snapshotter.snapshot().into_vec().into_iter().chain(bad_day.filter(|(key, ..)| is_of_keks(key.key().name())));
    let mut seen = BTreeMap::<(String, &str), Vec<(Labels, DebugValue)>>::new();
    for (key, _, _, value) in all {
        let kind = match key.kind() {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        let labels: Labels = key.key().labels().map(|l| (l.key().to_owned(), l.value().to_owned())).collect();
        for (name, value) in &labels {
            let known: &[&str] = match name.as_str() {
                "cache" => &["keys", "roots", "current", "scopes", "frame_keys", "frame_roots", "dead_roots"],
                "class" => &["data", "root"],
                "kek" => &[ALIAS, "first", "second", "third"],
                "memory" => &["locked", "unlocked"],
                "action" => &["recovery", "break-glass"],
                "operation" => &["wrap", "unwrap"],
                "outcome" => &["ok", "Unavailable", "looked up", "refused"],
                other => panic!("an undocumented label: {other}"),
            };
            assert!(known.contains(&value.as_str()), "{name} = {value}");
        }
        seen.entry((key.key().name().to_owned(), kind)).or_default().push((labels, value));
    }
    let document = include_str!("../../docs/METRICS.md");
    let mut documented: Vec<(String, String)> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `keyfold_"))
        .map(|row| {
            let mut cells = row.split('|');
            let name = cells.next().unwrap().trim().trim_end_matches('`');
            (format!("keyfold_{name}"), cells.next().unwrap().trim().to_owned())
        })
        .filter(|(_, kind)| ["counter", "gauge", "histogram"].contains(&kind.as_str()))
        // Those of audit files come from the crate that writes them.
        .filter(|(name, _)| !name.starts_with("keyfold_audit_"))
        .collect();
    documented.sort();
    let found: Vec<_> = seen.keys().map(|(name, kind)| (name.clone(), (*kind).to_owned())).collect();
    assert_eq!(found, documented, "what is emitted and what docs/METRICS.md lists");

    let sum = |name: &str, label: &str| {
        let all = seen.iter().filter(|((n, _), _)| n == name).flat_map(|(_, values)| values);
        let all = all.filter(|(labels, _)| labels.iter().any(|(_, value)| value == label));
        all.map(|(_, value)| if let DebugValue::Counter(n) = value { *n } else { 0 }).sum::<u64>()
    };
    assert_eq!(sum("keyfold_kms_requests_total", "ok"), 3, "once cold, renewed before and after the outage");
    assert!(sum("keyfold_kms_requests_total", "Unavailable") >= 1);
    assert_eq!(sum("keyfold_cache_misses_total", "roots"), 1);
    assert!(sum("keyfold_cache_hits_total", "keys") >= 2);
    assert!(sum("keyfold_cache_renewals_total", "keys") >= 1);
    assert!(sum("keyfold_cache_stale_uses_total", "keys") >= 1, "in the grace");
    assert_eq!(sum("keyfold_unknown_key_ids_total", "looked up"), 1000);
    assert_eq!(sum("keyfold_unknown_key_ids_total", "refused"), 1);
    assert!(sum("keyfold_kek_bad_wraps_total", "first") >= 1);
    let unindexed = &seen[&("keyfold_unindexed_values_total".to_owned(), "counter")];
    assert!(matches!(unindexed[..], [(_, DebugValue::Counter(1))]));
    assert_eq!(sum("keyfold_kek_missing_wraps_total", "second"), 1);
    assert!(sum("keyfold_recovery_unwraps_total", "third") >= 1);
}

#[test]
fn a_value_under_a_held_key_is_not_measured() {
    let _alone = alone();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let lab = Lab::new();
    let ring = lab.process();
    let encryptor = encryptor(&ring, "plain", None).unwrap();
    let decryptor = decryptor(&ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
    metrics::with_local_recorder(&recorder, || {
        block_on(encryptor.ready()).unwrap();
        block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
        encryptor.encrypt(Value::Text("x"), None).unwrap();
        decryptor.decrypt(&sealed, None).unwrap();
    });
    assert!(snapshotter.snapshot().into_vec().is_empty());
}

/// Writes down every span and event with all of its fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

struct Fields<'a>(&'a mut String);

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, _: &tracing::Id, _: Context<'_, S>) {
        let mut line = format!("span {}", attributes.metadata().name());
        attributes.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut line = "event".to_owned();
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }
}

// Failure T8
#[test]
fn spans_name_keys_and_services_and_nobody() {
    let _alone = alone();
    let log = Log::default();
    let lab = Lab::new();
    let subscriber = tracing_subscriber::registry().with(log.clone());
    tracing::subscriber::with_default(subscriber, || a_day(&lab));
    let lines = log.0.lock().unwrap();
    let root = format!("span keyfold_acquire_key key_id={} class=\"root\"", root().key_id());
    for expected in [&root[..], "span keyfold_kms_request kek=local operation=\"unwrap\"", "class=\"data\"", "used on"]
    {
        assert!(lines.iter().any(|line| line.contains(expected)), "{expected} in\n{}", lines.join("\n"));
    }
    for secret in [CANARY, "plain"] {
        let said: Vec<_> = lines.iter().filter(|line| line.contains(secret)).collect();
        assert!(said.is_empty(), "{secret}: {said:?}");
    }
}

/// The marks of a machine that may read them only.
struct ReadOnly(MemoryHighWater);

impl HighWater for ReadOnly {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        self.0.generation(lineage)
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        self.0.mark(lineage, key_id)
    }

    fn raise(&self, _: Lineage, _: Generation, _: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        Err(ErrorKind::Io.into())
    }
}

/// Each key that is out of service lacks its mark there, each time that it is read.
#[test]
fn that_marks_cannot_be_written_is_said_once_a_minute() {
    let _alone = alone();
    let (lab, log, clock) = (Lab::new(), Log::default(), TestClock::new());
    let other = lab.elsewhere();
    let values: Vec<_> = (0..4)
        .map(|_| {
            let sealed = seal(&other, None, "x").unwrap();
            block_on(other.rotate_data_key(None)).unwrap();
            sealed
        })
        .collect();
    let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(ReadOnly(MemoryHighWater::default())));
    let ring = Keyring::open_with_clock(lab.config.clone(), store, lab.keks(), marks, Arc::new(clock.clone())).unwrap();
    let said = |values: &[Vec<u8>]| {
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || {
            values.iter().for_each(|sealed| assert!(reveal(&ring, None, sealed).is_ok()));
        });
        log.0.lock().unwrap().iter().filter(|line| line.contains("was not raised")).count()
    };
    assert_eq!(said(&values[..2]), 1);
    clock.advance(Duration::from_secs(59));
    assert_eq!(said(&values[2..3]), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(said(&values[3..]), 2);
}
