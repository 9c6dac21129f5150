//! Reading a field while its plaintext column is being migrated (DESIGN F17): plaintext passes only where the policy says so, and
//! never instead of a value that does not open.

use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::{
    AuditAction, AuditEvent, AuditSink, Decryptor, Error, ErrorKind, FieldPolicy, Keyring, Migration, MigrationPhase,
    Result, Revealed, RowBinding, Value, ValueType,
};
use std::sync::{Arc, Mutex};

/// Never in an event.
const CANARY: &str = "canary-4711";

fn policy(name: &str, until: &str, phase: MigrationPhase) -> FieldPolicy {
    FieldPolicy {
        value_type: Some(ValueType::Text),
        row_binding: RowBinding::Bound { column: Some("id".to_owned()), path: None, segment: None },
        migration: Some(Migration::until(until, phase).unwrap()),
        ..FieldPolicy::randomized(name)
    }
}

/// A keyring with a field that is being migrated, one whose time is over, and one that was cut over.
fn keyring(lab: &mut Lab) -> Keyring {
    for (name, until, phase) in [
        ("moving", "2999-12-31", MigrationPhase::DualWrite),
        ("late", "2001-01-01", MigrationPhase::DualWrite),
        ("done", "2999-12-31", MigrationPhase::CutOver),
    ] {
        lab.config.policy.add(policy(name, until, phase)).unwrap();
    }
    lab.process()
}

#[derive(Default)]
struct Events {
    events: Mutex<Vec<AuditEvent>>,
    refuse: bool,
}

impl AuditSink for Events {
    fn record(&self, event: AuditEvent) -> Result<()> {
        if self.refuse {
            return Err(Error::new(ErrorKind::Io, "the disk is full"));
        }
        self.events.lock().unwrap().push(event);
        Ok(())
    }
}

fn kind(result: Result<Revealed<'_>>) -> ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

/// Covers F-3.3-1.
#[test]
fn plaintext_passes_only_where_and_while_the_policy_says_so() {
    let mut lab = Lab::new();
    let ring = keyring(&mut lab);
    let clear = Value::Text(CANARY);
    let reader = |name: &str| decryptor(&ring, name, None).unwrap();
    let passed = reader("moving");
    assert!(
        matches!(passed.decrypt_or_clear(None, clear, Some(b"1")).unwrap(), Revealed::Clear(value) if value == clear)
    );
    for name in ["late", "done", "bound"] {
        assert_eq!(kind(reader(name).decrypt_or_clear(None, clear, Some(b"1"))), ErrorKind::PolicyRefused, "{name}");
    }
    assert_eq!(kind(passed.decrypt_or_clear(None, Value::Integer(1), Some(b"1"))), ErrorKind::InvalidInput);
    // The ordinary way never passes anything.
    assert_eq!(refused(passed.decrypt(CANARY.as_bytes(), Some(b"1")), "plaintext"), ErrorKind::Malformed);
}

/// Covers F-3.3-1.
#[test]
fn a_sealed_value_opens_or_fails_whatever_stands_beside_it() {
    let mut lab = Lab::new();
    let ring = keyring(&mut lab);
    let sealed = encryptor(&ring, "moving", None).unwrap().encrypt(Value::Text("sealed"), Some(b"1")).unwrap();
    let reader: Decryptor = decryptor(&ring, "moving", None).unwrap();
    open(&reader, &sealed, Some(b"1")).unwrap();
    let clear = Value::Text(CANARY);
    let revealed = reader.decrypt_or_clear(Some(&sealed), clear, Some(b"1")).unwrap();
    assert!(matches!(revealed, Revealed::Sealed(_)) && revealed.value() == Value::Text("sealed"));
    // In every phase.
    let late = encryptor(&ring, "late", None).unwrap().encrypt(Value::Text("sealed"), Some(b"1")).unwrap();
    let late_reader = decryptor(&ring, "late", None).unwrap();
    block_on(late_reader.load_keys(&[&late[..]][..])).unwrap();
    assert!(late_reader.decrypt_or_clear(Some(&late), clear, Some(b"1")).is_ok());
    let mut damaged = sealed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (bad, row) in [(&damaged[..], "1"), (&sealed, "2"), (&late, "1"), (b"", "1"), (CANARY.as_bytes(), "1")] {
        assert!(reader.decrypt_or_clear(Some(bad), clear, Some(row.as_bytes())).is_err());
    }
}

#[test]
fn each_one_is_counted_and_a_sink_may_refuse() {
    let mut lab = Lab::new();
    let ring = keyring(&mut lab);
    let sink = Arc::new(Events::default());
    ring.set_audit(sink.clone()).unwrap();
    for passes in [1, 2, 1001, 1002, 2500] {
        let reader = decryptor(&ring, "moving", None).unwrap();
        sink.events.lock().unwrap().clear();
        for _ in 0..passes {
            reader.decrypt_or_clear(None, Value::Text(CANARY), Some(b"1")).unwrap();
        }
        drop(reader);
        let events = sink.events.lock().unwrap();
        let uses: Vec<_> = events.iter().filter(|event| event.action == AuditAction::Use).collect();
        let counted = |event: &AuditEvent| {
            let detail = event.details.iter().find(|(name, _)| *name == "clear");
            detail.map_or(0, |(_, count)| count.parse::<u64>().unwrap())
        };
        assert_eq!(uses.iter().map(|event| counted(event)).sum::<u64>(), passes, "{passes}");
        assert!(uses.iter().filter(|event| counted(event) > 0).all(|event| event.field.as_deref() == Some("moving")));
        assert!(!format!("{events:?}").contains(CANARY));
    }
    let mut lab = Lab::new();
    let ring = keyring(&mut lab);
    let reader = decryptor(&ring, "moving", None).unwrap();
    ring.set_audit(Arc::new(Events { refuse: true, ..Events::default() })).unwrap();
    assert_eq!(kind(reader.decrypt_or_clear(None, Value::Text(CANARY), Some(b"1"))), ErrorKind::Io);
}
