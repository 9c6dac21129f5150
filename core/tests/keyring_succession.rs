//! Rotation by age, by messages and with a lead, by the store's clock alone (DESIGN K13).

use crate::common::lab::*;
use crate::common::{Shuffle, block_on, refused};
use keyfold::vectors::RecordParts;
use keyfold::wire::KeyId;
use keyfold::{Clock, ErrorKind, KeyClass, KeyState, Keyring, KeyringConfig, Record, RotationPolicy, SlotId, Value};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

const DAY: u64 = 24 * 60 * 60;

/// A clock for caches that stands still unless it is moved.
#[derive(Clone, Default)]
struct Still(Arc<AtomicU64>);

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::from_secs(1_000_000 + self.0.load(Ordering::SeqCst))
    }
}

/// A lab whose two clocks move together: the store's, by which keys age, and that of the caches.
struct Time {
    lab: Lab,
    clock: Still,
}

impl Time {
    fn new(rotation: RotationPolicy) -> Self {
        let mut lab = Lab::new();
        lab.config.rotation = rotation;
        Self { lab, clock: Still::default() }
    }

    fn ring(&self) -> Keyring {
        self.ring_with(self.lab.config.clone())
    }

    fn ring_with(&self, config: KeyringConfig) -> Keyring {
        let (store, marks) = (Arc::new(self.lab.store.clone()), Arc::new(self.lab.marks.clone()));
        Keyring::open_with_clock(config, store, self.lab.keks(), marks, Arc::new(self.clock.clone())).unwrap()
    }

    fn set_store(&self, now: u64) {
        self.lab.store.state().now = Some(now);
    }

    /// Lets seconds pass, for the store and for the caches.
    fn pass(&self, seconds: u64) {
        let now = self.lab.store.state().now.unwrap_or(TIME);
        self.set_store(now + seconds);
        self.clock.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn data(&self) -> Vec<Record> {
        self.lab.store.of_slot(slot(KeyClass::Data, SlotId::NONE))
    }
}

fn policy_of(data_age: u64, lead: u64) -> RotationPolicy {
    RotationPolicy {
        data_age: Some(Duration::from_secs(data_age)),
        root_age: None,
        data_messages: None,
        lead: Duration::from_secs(lead),
    }
}

fn sealing_key(ring: &Keyring, scope: Option<&str>) -> KeyId {
    key_id_of(&seal(ring, scope, "x").unwrap())
}

fn state(time: &Time, key_id: KeyId) -> KeyState {
    time.lab.store.find(key_id).state()
}

#[test]
fn a_key_is_replaced_at_its_age_and_not_a_second_earlier() {
    let time = Time::new(policy_of(90 * DAY, 0));
    let ring = time.ring();
    let first = sealing_key(&ring, None);
    assert_eq!(first, data(DATA).key_id());
    time.pass(90 * DAY - 1);
    assert_eq!(sealing_key(&ring, None), first);
    time.pass(1);
    // The newest key is believed for as long as `check_every` says.
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    let second = sealing_key(&ring, None);
    assert!(second.generation() > first.generation());
    assert_eq!((state(&time, first), state(&time, second)), (KeyState::Deactivated, KeyState::Active));
    assert_eq!(time.lab.store.find(second).activated_at(), TIME + 90 * DAY);
    // And again, by another process.
    time.pass(90 * DAY);
    assert!(sealing_key(&time.ring(), None).generation() > second.generation());
    assert_eq!(time.data().iter().filter(|record| record.state() == KeyState::Active).count(), 1);
}

#[test]
fn a_successor_is_published_ahead_and_seals_when_the_lead_is_over() {
    let (age, lead) = (90 * DAY, 600);
    let time = Time::new(policy_of(age, lead));
    let writer = time.ring();
    let first = sealing_key(&writer, None);
    // Published ahead of its time, so that it takes over in time.
    time.pass(age - lead);
    assert_eq!(sealing_key(&writer, None), first);
    let published = time.data()[0].clone();
    assert_eq!((published.state(), published.activated_at()), (KeyState::PreActive, 0));
    time.pass(lead - 1);
    assert_eq!(sealing_key(&writer, None), first, "not a second early");
    assert_eq!(time.data().len(), 3, "one successor, however often one looks");
    time.pass(1);
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    assert_eq!(sealing_key(&writer, None), published.key_id());
    assert_eq!(time.lab.store.find(published.key_id()).activated_at(), TIME + age);
    assert_eq!(state(&time, first), KeyState::Deactivated);
}

// Failure N15
#[test]
fn a_published_key_opens_before_it_seals() {
    let time = Time::new(policy_of(90 * DAY, 600));
    let successor = data(30);
    let parts = RecordParts { state: KeyState::PreActive, times: [TIME, 0, TIME], ..child_parts(successor, root()) };
    time.lab.store.plant(&record(&parts));
    let ring = time.ring();
    // As another process would seal that has activated it already.
    let ahead = sealed_under(&successor, &[1; 24], "ahead");
    assert_eq!(reveal(&ring, None, &ahead).unwrap(), ("ahead".to_owned(), false));
    assert_eq!(sealing_key(&ring, None), data(DATA).key_id());
    time.pass(600);
    assert_eq!(sealing_key(&ring, None), successor.key_id());
    assert_eq!(reveal(&ring, None, &ahead).unwrap(), ("ahead".to_owned(), true));
}

#[test]
fn rotation_by_command_waits_for_the_lead_unless_told_not_to() {
    let time = Time::new(policy_of(90 * DAY, 600));
    let ring = time.ring();
    let first = sealing_key(&ring, None);
    let published = block_on(ring.rotate_data_key(None)).unwrap();
    assert_eq!((published.new.state(), published.old, published.by_other), (KeyState::PreActive, Some(first), false));
    let again = block_on(time.ring().rotate_data_key(None)).unwrap();
    assert_eq!((again.new.key_id(), again.by_other), (published.new.key_id(), true), "it waits already");
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    assert_eq!(sealing_key(&ring, None), first);
    let activated = block_on(ring.activate_data_key(None)).unwrap();
    assert_eq!((activated.key_id(), activated.state()), (published.new.key_id(), KeyState::Active));
    assert_eq!(sealing_key(&ring, None), activated.key_id());
    assert_eq!(state(&time, first), KeyState::Deactivated);
    // Nothing waits: the one that seals is named.
    assert_eq!(block_on(ring.activate_data_key(None)).unwrap().key_id(), activated.key_id());
}

// Failure B7
#[test]
fn a_wall_clock_that_jumps_makes_at_most_one_generation_per_jump() {
    let ten_years = 3652 * DAY;
    for lead in [0, 600] {
        let time = Time::new(policy_of(90 * DAY, lead));
        let ring = time.ring();
        let mut values = vec![seal(&ring, None, "value").unwrap()];
        for (jump, now) in [TIME + ten_years, TIME, TIME - ten_years, TIME].into_iter().enumerate() {
            time.set_store(now);
            for _ in 0..5 {
                time.pass(601);
                time.clock.0.fetch_add(60, Ordering::SeqCst);
                values.push(seal(&ring, None, "value").unwrap());
                values.push(seal(&time.ring(), None, "value").unwrap());
            }
            assert!(time.data().len() <= 2 + 1 + jump, "lead {lead}, jump {jump}: {} keys", time.data().len());
        }
        for ring in [&ring, &time.ring()] {
            assert!(values.iter().all(|sealed| reveal(ring, None, sealed).unwrap().0 == "value"));
        }
        assert_eq!(time.data().iter().filter(|record| record.state() == KeyState::Active).count(), 1);
    }
}

// Failures B7, N15
#[test]
fn a_wall_clock_that_jumps_does_not_shorten_the_lead() {
    let ten_years = 3652 * DAY as i64;
    for jump in [-ten_years, -700, 700, ten_years] {
        let time = Time::new(policy_of(90 * DAY, 600));
        let ring = time.ring();
        let first = sealing_key(&ring, None);
        let published = block_on(ring.rotate_data_key(None)).unwrap().new.key_id();
        time.set_store((TIME as i64 + jump) as u64);
        for _ in 0..9 {
            time.clock.0.fetch_add(60, Ordering::SeqCst);
            assert_eq!(sealing_key(&ring, None), first, "jump {jump}");
            // A process that starts after a jump ahead has no way to know; after one back it waits for the whole lead.
            assert!(jump > 0 || sealing_key(&time.ring(), None) == first, "jump {jump}");
        }
        time.clock.0.fetch_add(120, Ordering::SeqCst);
        assert_eq!(sealing_key(&ring, None), published, "jump {jump}");
    }
}

#[test]
fn a_limit_that_is_reloaded_counts_what_was_sealed_before() {
    for before in [None, Some(1_000_000)] {
        let time = Time::new(RotationPolicy { data_messages: before, data_age: None, ..policy_of(DAY, 0) });
        let ring = time.ring();
        let mut counts = std::collections::HashMap::<KeyId, u64>::new();
        (0..50).for_each(|_| *counts.entry(sealing_key(&ring, None)).or_default() += 1);
        let mut config = time.lab.config.clone();
        config.rotation.data_messages = Some(100);
        ring.reload(config, time.lab.keks()).unwrap();
        (0..500).for_each(|_| *counts.entry(sealing_key(&ring, None)).or_default() += 1);
        // Without a limit nobody counts.
        let most = if before.is_none() { 150 } else { 100 };
        assert!(counts.len() >= 5 && counts.values().all(|count| *count <= most), "{counts:?}");
    }
}

#[test]
fn processes_that_find_a_key_due_at_once_make_one_generation() {
    for lead in [0, 600] {
        let time = Time::new(policy_of(90 * DAY, lead));
        seal(&time.ring(), Some("clinic"), "before").unwrap();
        for round in 0..20 {
            let before = time.lab.store.all().len();
            time.pass(90 * DAY);
            let barrier = Barrier::new(16);
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| {
                        let ring = time.ring();
                        barrier.wait();
                        seal(&ring, Some("clinic"), "x").unwrap();
                    });
                }
            });
            assert_eq!(time.lab.store.all().len(), before + 1, "lead {lead}, round {round}");
            // Activates what was published.
            time.pass(lead);
            seal(&time.ring(), Some("clinic"), "x").unwrap();
        }
    }
}

// Failure N6
#[test]
fn a_key_seals_no_more_values_than_the_policy_allows_even_if_it_leaves_the_cache() {
    let limit = 1000;
    let time = Time::new(RotationPolicy { data_messages: Some(limit), data_age: None, ..policy_of(DAY, 0) });
    let mut config = time.lab.config.clone();
    config.cache.max_keys = 1;
    let ring = time.ring_with(config);
    let mut counts = std::collections::HashMap::<KeyId, u64>::new();
    for n in 0..20 {
        // Another scope's key takes the only place in the cache.
        seal(&ring, Some(&format!("scope {n}")), "x").unwrap();
        for _ in 0..200 {
            *counts.entry(sealing_key(&ring, None)).or_default() += 1;
        }
    }
    assert!(counts.values().all(|count| *count <= limit), "{counts:?}");
    assert!(counts.len() >= 4, "{counts:?}");
    assert_eq!(counts.values().sum::<u64>(), 4000, "nobody was refused");
    // A column takes all of its rows or none.
    let encryptor = encryptor(&ring, "plain", None).unwrap();
    let values = vec![Value::Text("x"); 1001];
    let error = encryptor.encrypt_column(&values[..], None::<&[&[u8]]>).unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::LimitExceeded);
}

#[test]
fn with_a_lead_a_used_up_key_refuses_rather_than_seal_under_one_that_is_not_readable_everywhere() {
    let rotation = RotationPolicy { data_messages: Some(100), data_age: None, ..policy_of(DAY, 600) };
    let time = Time::new(rotation);
    let ring = time.ring();
    let handle = encryptor(&ring, "plain", None).unwrap();
    let mut sealed = 0;
    let error = loop {
        block_on(handle.ready()).unwrap();
        match handle.encrypt(Value::Text("x"), None) {
            Ok(_) => sealed += 1,
            Err(error) => break error,
        }
        if sealed % 10 == 0 {
            time.pass(1);
        }
    };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert!((90..=100).contains(&sealed), "{sealed}");
    assert_eq!(time.data()[0].state(), KeyState::PreActive, "its successor was published while it sealed");
    let calls = time.lab.store.faults.calls();
    (0..100).for_each(|_| drop(block_on(handle.ready())));
    assert!(time.lab.store.faults.calls() - calls < 50, "asking again and again costs nothing");
    time.pass(600);
    block_on(handle.ready()).unwrap();
    assert!(handle.encrypt(Value::Text("x"), None).is_ok());
}

#[test]
fn a_root_is_replaced_at_its_age_when_keys_are_made() {
    let time = Time::new(RotationPolicy { root_age: Some(Duration::from_secs(365 * DAY)), ..policy_of(90 * DAY, 0) });
    seal(&time.ring(), Some("one"), "x").unwrap();
    time.pass(365 * DAY);
    let sealed = seal(&time.ring(), Some("two"), "x").unwrap();
    let roots = time.lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE));
    assert_eq!(roots.iter().map(Record::state).collect::<Vec<_>>(), [KeyState::Active, KeyState::Deactivated]);
    assert_eq!(time.lab.store.find(key_id_of(&sealed)).authenticator(), roots[0].key_id());
    assert_eq!(reveal(&time.ring(), Some("two"), &sealed).unwrap().0, "x");
}

#[test]
fn what_cannot_be_rotated_seals_on() {
    let time = Time::new(policy_of(90 * DAY, 0));
    let ring = time.ring();
    let first = sealing_key(&ring, None);
    time.pass(90 * DAY);
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    // A store that this process may only read.
    time.lab.store.state().conflicts = true;
    assert_eq!(sealing_key(&ring, None), first);
    assert_eq!(sealing_key(&time.ring(), None), first, "also for a process that has just started");
    time.lab.store.state().conflicts = false;
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    assert_ne!(sealing_key(&ring, None), first);
    // But a store that lies about the newest key is not passed over.
    time.pass(90 * DAY);
    time.clock.0.fetch_add(60, Ordering::SeqCst);
    time.lab.store.plant(&record(&child_parts(
        theirs(KeyClass::Data, SlotId::NONE, 999),
        theirs(KeyClass::Root, SlotId::NONE, 998),
    )));
    assert_eq!(refused(seal(&ring, None, "x"), "planted"), ErrorKind::RecordRejected);
}

// Failure N11
#[test]
fn whatever_call_fails_during_rotation_with_a_lead_values_open_and_the_next_attempt_finishes() {
    for after in [false, true] {
        let mut n = 0;
        loop {
            n += 1;
            let time = Time::new(policy_of(90 * DAY, 600));
            let sealed = seal(&time.ring(), Some("clinic"), "before").unwrap();
            time.lab.faults.fail_nth(n, after);
            let outcome = block_on(async {
                let ring = time.ring();
                ring.rotate_data_key(Some("clinic")).await?;
                ring.activate_data_key(Some("clinic")).await
            });
            let failed = time.lab.faults.calls() >= n;
            time.lab.faults.off();
            let ring = time.ring();
            assert_eq!(reveal(&ring, Some("clinic"), &sealed).unwrap().0, "before", "call {n}");
            // The next attempt finishes: one active key, newer than the first.
            block_on(ring.rotate_data_key(Some("clinic"))).unwrap();
            let now = block_on(ring.activate_data_key(Some("clinic"))).unwrap();
            assert!(now.key_id() > key_id_of(&sealed), "call {n}");
            let records = time.lab.store.of_slot(now.slot());
            let seal = records.iter().filter(|r| matches!(r.state(), KeyState::Active | KeyState::PreActive)).count();
            assert_eq!(seal, 1, "call {n}, after {after}: {records:?}");
            assert_eq!(reveal(&ring, Some("clinic"), &sealed).unwrap(), ("before".to_owned(), false));
            if !failed {
                assert!(outcome.is_ok());
                break;
            }
        }
        assert!(n > 10, "{n} calls");
    }
}

#[test]
fn many_processes_under_random_faults_and_clocks_lose_nothing() {
    let time = Time::new(policy_of(10 * DAY, 600));
    let mut values = Vec::new();
    let mut shuffle = Shuffle(7);
    for round in 0..60 {
        time.pass(shuffle.below(5 * DAY as usize) as u64);
        time.lab.faults.fail_nth(1 + shuffle.below(25) as u64, round % 2 == 0);
        let ring = time.ring();
        for _ in 0..3 {
            match seal(&ring, Some("clinic"), "kept") {
                Ok(sealed) => values.push(sealed),
                Err(error) => {
                    assert!(!matches!(error.kind(), ErrorKind::RecordRejected | ErrorKind::Internal), "{error}")
                }
            }
            time.pass(601);
        }
        time.lab.faults.off();
    }
    assert!(values.len() > 100);
    let ring = time.ring();
    assert!(values.iter().all(|sealed| reveal(&ring, Some("clinic"), sealed).unwrap().0 == "kept"));
}
