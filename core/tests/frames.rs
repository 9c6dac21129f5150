//! Values that travel with their key records (FORMAT.md §14, DESIGN F16): what is trusted, what wins, what is kept apart.
//!
//! Longer than other files: one place for what a frame may and may not do, with the sites that the tests share.

use crate::common::lab::{
    ALIAS, DATA, ENVIRONMENT, LOOKUP, Lab, child_parts, data, in_state, ours, record, root, root_parts, scope_id,
    scope_tag, sealed_under, theirs, wrap_by_kek,
};
use crate::common::{FaultyMarks, block_on, open, refused};
use keyfold::testing::FakeKms;
use keyfold::vectors::{Key, RecordParts};
use keyfold::wire::{Frame, KeyId, Sealed, Suite};
use keyfold::{
    CachePolicy, Clock, ColumnBytes, Decryptor, Encryptor, ErrorKind, FieldPolicy, KekAlias, KeyClass, KeyState,
    Keyring, KeyringConfig, Kms, KmsErrorKind, Policy, Record, Result, SlotId, Value,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct VirtualClock(AtomicU64);

impl VirtualClock {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

fn accepting(field: FieldPolicy) -> FieldPolicy {
    let accepted_suites = [&field.accepted_suites[..], &[Suite::Frame]].concat();
    FieldPolicy { accepted_suites, ..field }
}

fn policy() -> Policy {
    let mut policy = Policy::new();
    for field in [
        accepting(FieldPolicy::randomized("plain")),
        FieldPolicy::randomized("unframed"),
        accepting(FieldPolicy::deterministic("mrn", "default", Some("patient"))),
        FieldPolicy { max_frame_records: 300, ..accepting(FieldPolicy::randomized("small")) },
    ] {
        policy.add(field).unwrap();
    }
    policy
}

fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.config.policy = policy();
    lab
}

/// Another site: the same configuration and KEK, a store of its own that lacks the keys in `missing`.
fn site(lab: &Lab, missing: &[KeyId]) -> Lab {
    let store = lab.store.copy();
    missing.iter().for_each(|key_id| drop(store.state().records.remove(key_id)));
    let faults = store.faults.clone();
    let marks = FaultyMarks { faults: faults.clone(), ..FaultyMarks::default() };
    Lab { store, kms: lab.kms.clone(), marks, faults, asked: Arc::new(Mutex::default()), config: lab.config.clone() }
}

fn without_data(lab: &Lab) -> Lab {
    site(lab, &[data(DATA).key_id(), root().key_id()])
}

fn with_clock(lab: &Lab, clock: &Arc<VirtualClock>) -> Keyring {
    let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(lab.marks.clone()));
    Keyring::open_with_clock(lab.config.clone(), store, lab.keks(), marks, clock.clone()).unwrap()
}

fn encryptor(ring: &Keyring, field: &str) -> Encryptor {
    block_on(ring.field(field).unwrap().encryptor()).unwrap()
}

fn decryptor(ring: &Keyring, field: &str) -> Decryptor {
    block_on(ring.field(field).unwrap().decryptor()).unwrap()
}

fn frame_of(ring: &Keyring, text: &str) -> Vec<u8> {
    block_on(encryptor(ring, "plain").encrypt_framed(Value::Text(text), None)).unwrap()
}

/// The text in `frame`, by a new handle.
fn text_in(ring: &Keyring, frame: &[u8]) -> Result<String> {
    let opened = open(&decryptor(ring, "plain"), frame, None)?;
    let Value::Text(text) = opened.value() else { panic!("another type came back") };
    Ok(text.to_owned())
}

/// A frame from parts, whoever made them.
fn frame(record: &Record, root: &Record, value: &[u8]) -> Vec<u8> {
    let records: Vec<u8> = [record, root]
        .iter()
        .flat_map(|record| [&(record.as_bytes().len() as u16).to_be_bytes()[..], record.as_bytes()].concat())
        .collect();
    let mut out = value[..26].to_vec();
    out[1] = Suite::Frame.id();
    [&out[..], &(records.len() as u32).to_be_bytes(), &records, value].concat()
}

/// A frame around a text under a genuine key of the keyring that no store has.
fn frame_under(kms: &FakeKms, key: Key, text: &str) -> Vec<u8> {
    let records = [record(&child_parts(key, root())), record(&root_parts(kms, root()))];
    frame(&records[0], &records[1], &sealed_under(&key, &[9; 24], text))
}

/// Covers F-14.1-6.
#[test]
fn a_frame_opens_where_the_store_lacks_the_records_and_is_stripped_where_it_has_them() {
    let here = lab();
    let (sender, there) = (here.process(), without_data(&here));
    let sealed = frame_of(&sender, "a result");
    let receiver = there.process();
    assert_eq!(text_in(&receiver, &sealed).unwrap(), "a result");
    there.assert_only_asked_for(&[root()], "a frame");
    // The value alone is one of a key that the receiver's store does not have, and one that the sender's has.
    let value = Frame::parse(&sealed).unwrap().value();
    assert_eq!(refused(text_in(&receiver, value), "the value without its frame"), ErrorKind::NoMatchingKey);
    assert_eq!(text_in(&sender, value).unwrap(), "a result");
    assert_eq!(text_in(&sender, &sealed).unwrap(), "a result");
    assert_eq!(sealed.len() - value.len(), 30 + Frame::parse(&sealed).unwrap().records_len());
    println!("a frame with one local KEK adds {} bytes", sealed.len() - value.len());
}

#[test]
fn columns_and_deterministic_values_travel_too() {
    let here = lab();
    let missing = [
        data(DATA).key_id(),
        ours(KeyClass::Lookup, crate::common::lab::DEFAULT_PARTITION, LOOKUP).key_id(),
        root().key_id(),
    ];
    let there = site(&here, &missing);
    let (sender, receiver) = (here.process(), there.process());
    let values = [Value::Text("p-1"), Value::Integer(7), Value::Null];
    for field in ["plain", "mrn"] {
        let encryptor = encryptor(&sender, field);
        let column = block_on(encryptor.encrypt_framed_column(&values[..], None::<&[&[u8]]>)).unwrap();
        let decryptor = decryptor(&receiver, field);
        block_on(decryptor.load_keys(&column)).unwrap();
        let opened = decryptor.decrypt_column(&column, None::<&[&[u8]]>).unwrap();
        assert!((0..3).all(|row| opened.value(row) == values[row]), "{field}");
        assert_eq!(
            opened.outdated(),
            if field == "plain" { 3 } else { 0 },
            "the receiver has no key that seals fields"
        );
        // Frames and values without, in one column: only the frames open here.
        let stripped = Frame::parse(column.bytes(0)).unwrap().value();
        let mixed = [column.bytes(0), stripped, column.bytes(1)];
        let error = decryptor.decrypt_column(&mixed[..], None::<&[&[u8]]>).unwrap_err();
        assert_eq!((error.row, error.error.kind()), (Some(1), ErrorKind::NoMatchingKey));
        let empty = block_on(encryptor.encrypt_framed_column(&[][..], None::<&[&[u8]]>)).unwrap();
        assert_eq!(ColumnBytes::len(&empty), 0);
    }
    // Equal values stay equal inside their frames.
    let encryptor = encryptor(&sender, "mrn");
    let twice = [0, 1].map(|_| block_on(encryptor.encrypt_framed(Value::Text("p-1"), None)).unwrap());
    assert_eq!(twice[0], twice[1]);
}

/// Covers F-14.2-1.
#[test]
fn a_policy_that_does_not_accept_frames_refuses_before_anything_else() {
    let here = lab();
    let (sender, there) = (here.process(), without_data(&here));
    let sealed = frame_of(&sender, "x");
    let receiver = there.process();
    let decryptor = decryptor(&receiver, "unframed");
    there.faults.reset();
    for frame in [&sealed[..], &sealed[..2], &sealed[..40]] {
        assert_eq!(refused(open(&decryptor, frame, None), "a frame"), ErrorKind::PolicyRefused);
    }
    let at = |e: keyfold::RowError| e.error.kind();
    assert_eq!(
        decryptor.decrypt_column(&[&sealed][..], None::<&[&[u8]]>).map_err(at).unwrap_err(),
        ErrorKind::PolicyRefused
    );
    assert!(!there.faults.log().iter().any(|call| matches!(*call, "get" | "unwrap")), "{:?}", there.faults.log());
    let encryptor = encryptor(&sender, "unframed");
    here.faults.reset();
    let kind = refused(block_on(encryptor.encrypt_framed(Value::Text("x"), None)), "sealing a frame");
    assert_eq!((kind, here.faults.calls()), (ErrorKind::PolicyRefused, 0));
    let column = block_on(encryptor.encrypt_framed_column(&[Value::Text("x")][..], None::<&[&[u8]]>));
    assert_eq!(column.map_err(at).unwrap_err(), ErrorKind::PolicyRefused);
}

/// Covers F-14.2-3, F-14.4-3.
// Failure C12
#[test]
fn more_records_than_the_policy_allows_are_neither_sealed_nor_opened() {
    let here = lab();
    let sender = here.process();
    let encryptor = encryptor(&sender, "small");
    let kind = refused(block_on(encryptor.encrypt_framed(Value::Text("x"), None)), "300 bytes of records");
    assert_eq!(kind, ErrorKind::LimitExceeded);
    let there = without_data(&here);
    let receiver = there.process();
    let decryptor = decryptor(&receiver, "small");
    there.faults.reset();
    let kind = refused(open(&decryptor, &frame_of(&sender, "x"), None), "300 bytes of records");
    assert_eq!(kind, ErrorKind::LimitExceeded);
    assert!(!there.faults.log().contains(&"get"), "{:?}", there.faults.log());
}

/// Covers F-14.1-6, F-14.4-4.
#[test]
fn reframing_replaces_the_records_and_keeps_the_value() {
    let here = lab();
    let sender = here.process();
    let old = frame_of(&sender, "on its way");
    // A second KEK: the root's record gets another wrap, and a frame made from now on carries that.
    let rewrapped = RecordParts {
        wraps: vec![
            wrap_by_kek(&here.kms, &root(), ENVIRONMENT, "second"),
            root_parts(&here.kms, root()).wraps.remove(0),
        ],
        sequence: 2,
        ..root_parts(&here.kms, root())
    };
    here.store.plant(&record(&rewrapped));
    let sender = here.process();
    let there = without_data(&here);
    let receiver = there.process();
    assert_eq!(text_in(&receiver, &frame_of(&sender, "later")).unwrap(), "later");
    // Older than what the receiver has seen of the root: reframed, it opens.
    assert_eq!(refused(text_in(&receiver, &old), "an older record of the root"), ErrorKind::RecordRejected);
    let again = block_on(sender.reframe(&old)).unwrap();
    assert_eq!(text_in(&receiver, &again).unwrap(), "on its way");
    let [before, after] = [&old, &again].map(|bytes| Frame::parse(bytes).unwrap());
    assert_eq!(before.value(), after.value());
    assert_eq!(before.record(), after.record());
    assert_eq!(after.root_record(), record(&rewrapped).as_bytes());
    // So it is on another machine that has seen the newer one, in a process that has not.
    assert_eq!(refused(text_in(&there.process(), &old), "the high-water file knows"), ErrorKind::RecordRejected);
    assert_eq!(text_in(&there.elsewhere(), &old).unwrap(), "on its way");
}

/// Covers F-14.4-1, F-14.4-2.
#[test]
fn reframing_refuses_what_nobody_could_open() {
    let here = lab();
    let ring = here.process();
    let frame = frame_of(&ring, "x");
    let reframe = |frame: &[u8]| refused(block_on(here.process().reframe(frame)), "reframing");
    assert_eq!(reframe(Frame::parse(&frame).unwrap().value()), ErrorKind::Unsupported);
    assert_eq!(reframe(&frame[..frame.len() / 2]), ErrorKind::Malformed);
    assert_eq!(reframe(&frame_under(&here.kms, data(77), "x")), ErrorKind::NoMatchingKey);
    for (state, kind) in [(KeyState::Compromised, ErrorKind::KeyState), (KeyState::Destroyed, ErrorKind::KeyState)] {
        let there = site(&here, &[]);
        there.store.plant(&record(&in_state(child_parts(data(DATA), root()), state)));
        assert_eq!(refused(block_on(there.process().reframe(&frame)), "reframing"), kind, "{state:?}");
    }
    // A key that KEKs wrap directly belongs to an isolated scope and stays where it can be destroyed.
    let key = data(DATA);
    let isolated =
        RecordParts { wraps: vec![wrap_by_kek(&here.kms, &key, ENVIRONMENT, ALIAS)], ..child_parts(key, root()) };
    here.store.plant(&record(&isolated));
    assert_eq!(reframe(&frame), ErrorKind::PolicyRefused);
}

/// Covers F-14.3-1.
#[test]
fn what_the_store_says_wins_and_a_store_that_fails_says_no() {
    let here = lab();
    let sealed = frame_of(&here.process(), "x");
    for state in [KeyState::Compromised, KeyState::DestroyPending, KeyState::Destroyed] {
        let there = site(&here, &[]);
        there.store.plant(&record(&in_state(child_parts(data(DATA), root()), state)));
        assert_eq!(refused(text_in(&there.process(), &sealed), state.name()), ErrorKind::KeyState);
    }
    let there = without_data(&here);
    let receiver = there.process();
    let decryptor = decryptor(&receiver, "plain");
    // Whichever of the calls for a frame fails: nothing opens, and the next attempt may.
    there.faults.reset();
    block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
    let calls = there.faults.log();
    assert!(calls.iter().filter(|call| **call == "get").count() == 2, "its key and its root, once each: {calls:?}");
    for (n, call) in (1..).zip(&calls) {
        let there = without_data(&here);
        let ring = there.process();
        let decryptor = self::decryptor(&ring, "plain");
        there.faults.fail_nth(n, false);
        let loaded = block_on(decryptor.load_keys(&[&sealed[..]][..]));
        there.faults.off();
        match *call {
            "get" => assert_eq!(loaded.unwrap_err().error.kind(), ErrorKind::Store, "call {n}"),
            "unwrap" => assert_eq!(loaded.unwrap_err().error.kind(), ErrorKind::Kms(KmsErrorKind::Unavailable)),
            // Marks and the newest key are looked at as well; that the handle was made asked for them.
            _ => drop(loaded),
        }
        assert_eq!(text_in(&ring, &sealed).unwrap(), "x", "after call {n} ({call})");
    }
}

/// The store had neither the key nor its root when the frame was opened.
#[test]
fn what_came_in_a_frame_ends_with_the_key_that_this_process_takes_out_of_service() {
    for max_keys in [CachePolicy::default().max_keys, 0] {
        let here = lab();
        let sealed = frame_of(&here.process(), "x");
        let mut there = without_data(&here);
        there.config.cache.max_keys = max_keys;
        let receiver = there.process();
        let decryptor = decryptor(&receiver, "plain");
        assert!(open(&decryptor, &sealed, None).is_ok());
        there.store.plant(&record(&root_parts(&here.kms, root())));
        there.store.plant(&record(&child_parts(data(DATA), root())));
        assert!(open(&decryptor, &sealed, None).is_ok());
        block_on(receiver.change_state(data(DATA).key_id(), KeyState::Compromised)).unwrap();
        assert_eq!(refused(open(&decryptor, &sealed, None), "compromised"), ErrorKind::KeyState);
        assert_eq!(refused(text_in(&receiver, &sealed), "compromised"), ErrorKind::KeyState);
    }
}

/// Covers F-14.3-8, F-14.4-4.
#[test]
fn records_of_frames_leave_marks_and_heed_them() {
    let here = lab();
    let old = frame_of(&here.process(), "x");
    let newer = record(&in_state(child_parts(data(DATA), root()), KeyState::Deactivated));
    let value = Frame::parse(&old).unwrap().value();
    let retired = frame(&newer, &record(&root_parts(&here.kms, root())), value);
    let there = without_data(&here);
    let receiver = there.process();
    assert_eq!(text_in(&receiver, &retired).unwrap(), "x");
    assert_eq!(refused(text_in(&receiver, &old), "an older record in a frame"), ErrorKind::RecordRejected);
    // A record in the store that is older than one that came in a frame, and the other way round.
    there.store.plant(&record(&child_parts(data(DATA), root())));
    there.store.plant(&record(&root_parts(&there.kms, root())));
    assert_eq!(refused(text_in(&receiver, value), "an older record in the store"), ErrorKind::RecordRejected);
    let there = site(&here, &[]);
    there.store.plant(&newer);
    let receiver = there.process();
    assert_eq!(text_in(&receiver, value).unwrap(), "x");
    there.store.state().records.remove(&data(DATA).key_id());
    receiver.invalidate();
    assert_eq!(text_in(&there.elsewhere(), &old).unwrap(), "x", "another machine has not seen the newer one");
    let same_machine = there.process();
    assert_eq!(refused(text_in(&same_machine, &old), "a key that was met out of service"), ErrorKind::RecordRejected);
    // What a frame says of its own key counts: a tombstone, a compromise.
    for state in [KeyState::Compromised, KeyState::Destroyed] {
        let there = without_data(&here);
        let receiver = there.process();
        let dead = record(&in_state(child_parts(data(DATA), root()), state));
        let dead = frame(&dead, &record(&root_parts(&here.kms, root())), value);
        assert_eq!(refused(text_in(&receiver, &dead), state.name()), ErrorKind::KeyState);
        assert_eq!(refused(text_in(&receiver, &old), "the older frame"), ErrorKind::RecordRejected);
    }
}

/// Covers F-14.3-5, F-7.6-3.
#[test]
fn no_key_service_is_called_for_a_root_that_nobody_trusts() {
    let here = lab();
    let there = without_data(&here);
    let planted = theirs(KeyClass::Root, SlotId::NONE, 50);
    let key = theirs(KeyClass::Data, SlotId::NONE, 51);
    let value = sealed_under(&key, &[1; 24], "x");
    let root_record = root_parts(&here.kms, planted);
    let child = record(&child_parts(key, planted));
    // Alone, endorsed by itself, by a root that the store does not have, by the real root in its name only.
    let by = |endorser: Key| RecordParts { endorser: Some(endorser), ..root_parts(&here.kms, planted) };
    let impostor = Key { bytes: [3; 32], ..root() };
    for parts in [root_record.clone(), by(planted), by(theirs(KeyClass::Root, SlotId::NONE, 49)), by(impostor)] {
        let frame = frame(&child, &record(&parts), &value);
        assert_eq!(refused(text_in(&there.process(), &frame), "a planted root"), ErrorKind::RecordRejected);
    }
    // The real root's record is in the frame of a key that it does not know.
    let mut forged = child_parts(key, planted).to_bytes();
    forged[62..86].copy_from_slice(root().key_id().as_bytes());
    let forged = Record::parse(&forged).unwrap();
    let named = frame(&forged, &record(&root_parts(&here.kms, root())), &value);
    assert_eq!(refused(text_in(&there.process(), &named), "the real root"), ErrorKind::RecordRejected);
    there.assert_only_asked_for(&[root()], "planted roots");
    // An endorser counts from the store only: the same frame where the store has it, and where it does not.
    let second = ours(KeyClass::Root, SlotId::NONE, 40);
    let key = data(41);
    let endorsed = RecordParts { endorser: Some(root()), ..root_parts(&here.kms, second) };
    let frame = frame(&record(&child_parts(key, second)), &record(&endorsed), &sealed_under(&key, &[1; 24], "x"));
    assert_eq!(text_in(&site(&here, &[]).process(), &frame).unwrap(), "x");
    let there = site(&here, &[root().key_id()]);
    assert_eq!(refused(text_in(&there.process(), &frame), "no endorser"), ErrorKind::RecordRejected);
    there.assert_only_asked_for(&[], "an endorser that the store does not have");
}

/// Covers F-14.3-5.
// Failure C12
#[test]
fn a_hostile_frame_costs_each_key_service_one_request_at_most() {
    let here = lab();
    let there = without_data(&here);
    let mut config = there.config.clone();
    config.cache = CachePolicy { negative: Duration::from_secs(1), ..config.cache };
    let (own, other) = (there.kek(), FakeKms::new());
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([
        (crate::common::lab::alias(ALIAS), own),
        (crate::common::lab::alias("other"), Arc::new(other.clone()) as _),
    ]);
    let open_ring = |clock: &Arc<VirtualClock>| {
        let store = Arc::new(there.store.clone());
        Keyring::open_with_clock(config.clone(), store, keks.clone(), Arc::new(FaultyMarks::default()), clock.clone())
            .unwrap()
    };
    // Eight wraps of two services, none of which unwraps.
    let hostile = |seed: u8| {
        let good = wrap_by_kek(&here.kms, &root(), ENVIRONMENT, ALIAS);
        let wraps = (0..8).map(|i| {
            let mut wrap = good.clone();
            wrap.bytes[20] ^= seed;
            wrap.bytes[21] ^= i;
            wrap.alias = if i % 2 == 0 { ALIAS.to_owned() } else { "other".to_owned() };
            wrap
        });
        let parts = RecordParts { wraps: wraps.collect(), ..root_parts(&here.kms, root()) };
        let mut edited = parts.to_bytes();
        *edited.last_mut().unwrap() ^= 1;
        let edited = Record::parse(&edited).unwrap();
        frame(&record(&child_parts(data(DATA), root())), &edited, &sealed_under(&data(DATA), &[1; 24], "x"))
    };
    let clock = Arc::new(VirtualClock::default());
    let ring = open_ring(&clock);
    let before = there.kms.unwrap_count();
    assert!(matches!(refused(text_in(&ring, &hostile(1)), "hostile"), ErrorKind::Kms(_)));
    assert_eq!((there.kms.unwrap_count() - before, other.unwrap_count()), (1, 1));
    // A flood of different ones: ten a second are tried, and not one while the root is in memory.
    for seed in 2..=255 {
        refused(text_in(&ring, &hostile(seed)), "hostile");
    }
    assert!(other.unwrap_count() <= 10, "{} requests", other.unwrap_count());
    clock.advance(2);
    let genuine = frame_of(&here.process(), "x");
    assert_eq!(text_in(&ring, &genuine).unwrap(), "x");
    let before = (there.kms.unwrap_count(), other.unwrap_count());
    for seed in 2..=255 {
        assert_eq!(refused(text_in(&ring, &hostile(seed)), "hostile"), ErrorKind::RecordRejected);
    }
    assert_eq!((there.kms.unwrap_count(), other.unwrap_count()), before);
}

/// Forged frames, each with another wrap in the record of a root that has a pinned commitment.
struct RootFlood {
    here: Lab,
    there: Lab,
    clock: Arc<VirtualClock>,
    ring: Keyring,
    root: Key,
}

/// Pinned as well, and in no store.
fn travelling_root() -> Key {
    ours(KeyClass::Root, SlotId::NONE, 40)
}

impl RootFlood {
    fn new(root: Key) -> Self {
        let mut here = lab();
        here.config = here.pinning(&[crate::common::lab::root().commitment(), travelling_root().commitment()]);
        here.add_scope("b", 50);
        let there = site(&here, &[]);
        let clock = Arc::new(VirtualClock::default());
        clock.advance(1);
        let ring = with_clock(&there, &clock);
        Self { here, there, clock, ring, root }
    }

    fn decryptor(&self, scope: Option<&str>) -> Decryptor {
        let field = self.ring.field("plain").unwrap();
        block_on(match scope {
            Some(scope) => field.scope(scope).decryptor(),
            None => field.decryptor(),
        })
        .unwrap()
    }

    /// Of the root's own generation, or of another one and so of a key ID that nobody has.
    fn forged(&self, scope: Option<&str>, seed: u16, is_of_another_generation: bool) -> Vec<u8> {
        let key = ours(KeyClass::Data, scope.map_or(SlotId::NONE, scope_id), 700);
        let mut parts = root_parts(&self.here.kms, self.root);
        parts.wraps[0].bytes[20..22].iter_mut().zip(seed.to_be_bytes()).for_each(|(byte, seed)| *byte ^= seed);
        let (mut root_record, mut child) = (parts.to_bytes(), child_parts(key, self.root).to_bytes());
        *root_record.last_mut().unwrap() ^= 1;
        if is_of_another_generation {
            let generation = (1_000 + u32::from(seed)).to_be_bytes();
            root_record[6..10].copy_from_slice(&generation);
            root_record[62..66].copy_from_slice(&generation);
            child[62..66].copy_from_slice(&generation);
        }
        let [child, root] = [child, root_record].map(|bytes| Record::parse(&bytes).unwrap());
        frame(&child, &root, &sealed_under(&key, &[1; 24], "x"))
    }

    /// Opens 3,000 of them; returns how they were refused and how many requests to the key service they cost.
    fn run(&self, scope: Option<&str>, is_of_another_generation: bool) -> (BTreeMap<&'static str, u32>, u64) {
        let decryptor = self.decryptor(scope);
        self.there.faults.reset();
        let before = self.there.kms.unwrap_count();
        let mut kinds = BTreeMap::new();
        for seed in 1..=3_000 {
            let kind = refused(open(&decryptor, &self.forged(scope, seed, is_of_another_generation), None), "forged");
            *kinds.entry(kind.name()).or_insert(0) += 1;
        }
        (kinds, self.there.kms.unwrap_count() - before)
    }

    /// A genuine frame of the keyring's own slot.
    fn genuine(&self, root: Key, generation: u32) -> Vec<u8> {
        let key = data(generation);
        let records = [record(&child_parts(key, root)), record(&root_parts(&self.here.kms, root))];
        frame(&records[0], &records[1], &sealed_under(&key, &[9; 24], "genuine"))
    }

    /// Opens a genuine frame that was not seen before.
    fn open_cold(&self, root: Key, generation: u32) -> Result<String> {
        text_in(&self.ring, &self.genuine(root, generation))
    }
}

/// Covers F-14.3-7.
// Failure C9
#[test]
fn a_pinned_commitment_under_another_generation_costs_no_request_where_the_root_is_known() {
    let expected = BTreeMap::from([("RecordRejected", 1_000), ("LimitExceeded", 2_000)]);
    for scope in [Some("b"), None] {
        // Known from the store.
        let flood = RootFlood::new(root());
        let known = flood.genuine(root(), 500);
        text_in(&flood.ring, &known).unwrap();
        assert_eq!(flood.run(scope, true), (expected.clone(), 0), "{scope:?}");
        let calls = flood.there.faults.log();
        let count = |name: &str| calls.iter().filter(|call| **call == name).count();
        assert!(count("get") <= 2_000 && count("newest") <= 3, "{} and {}", count("get"), count("newest"));
        // What is in memory opens, and only the slot that was flooded waits.
        assert_eq!(text_in(&flood.ring, &known).unwrap(), "genuine");
        match (scope, flood.open_cold(root(), 501)) {
            (Some(_), opened) => assert_eq!(opened.unwrap(), "genuine"),
            (None, refusal) => assert_eq!(refused(refusal, "the flooded slot"), ErrorKind::LimitExceeded),
        }
        flood.clock.advance(1);
        flood.open_cold(root(), 502).unwrap();
        // Known from a frame.
        let flood = RootFlood::new(travelling_root());
        flood.open_cold(travelling_root(), 500).unwrap();
        assert_eq!(flood.run(scope, true), (expected.clone(), 0), "{scope:?}");
    }
}

#[test]
fn forged_roots_that_nobody_knows_cost_ten_requests_a_second_over_all_slots() {
    for is_of_another_generation in [false, true] {
        let flood = RootFlood::new(travelling_root());
        let known = flood.genuine(root(), 500);
        text_in(&flood.ring, &known).unwrap();
        let (kinds, requests) = flood.run(Some("b"), is_of_another_generation);
        assert_eq!(requests, 10);
        assert_eq!(kinds["LimitExceeded"], 2_990, "{kinds:?}");
        let reads = flood.there.faults.log().iter().filter(|call| **call == "get").count();
        assert!(reads <= 2_000, "{reads}");
        // All slots together: another one gets no requests of its own for them.
        assert_eq!(refused(flood.open_cold(travelling_root(), 501), "at once"), ErrorKind::LimitExceeded);
        assert_eq!(flood.run(None, is_of_another_generation).1, 0);
        flood.clock.advance(1);
        // Only failures count.
        for generation in 600..700 {
            let second = ours(KeyClass::Root, SlotId::NONE, generation);
            let parts = RecordParts { endorser: Some(root()), ..root_parts(&flood.here.kms, second) };
            let key = data(generation + 200);
            let value = sealed_under(&key, &[1; 24], "genuine");
            let frame = frame(&record(&child_parts(key, second)), &record(&parts), &value);
            assert_eq!(text_in(&flood.ring, &frame).unwrap(), "genuine");
        }
        // And so on, for hours: each second ten.
        for _ in 0..5 {
            flood.clock.advance(1);
            assert_eq!(flood.run(None, is_of_another_generation).1, 10);
        }
        // Meanwhile the keyring's own keys, the slot that is not flooded and frames under roots that are in memory.
        let sealed = sealed_under(&data(crate::common::lab::OLD_DATA), &[1; 24], "own");
        assert_eq!(text_in(&flood.ring, &sealed).unwrap(), "own");
        assert_eq!(text_in(&flood.ring, &known).unwrap(), "genuine");
        flood.clock.advance(1);
        flood.open_cold(travelling_root(), 501).unwrap();
        assert_eq!(flood.run(Some("b"), is_of_another_generation).1, 0, "the root is in memory");
        flood.open_cold(travelling_root(), 502).unwrap();
    }
}

#[test]
fn a_key_service_that_is_away_is_not_asked_for_each_frame() {
    let flood = RootFlood::new(travelling_root());
    flood.open_cold(root(), 499).unwrap();
    let frames: Vec<_> = (500..520).map(|generation| flood.genuine(travelling_root(), generation)).collect();
    flood.there.kms.set_failure(Some(KmsErrorKind::Unavailable));
    let outcomes: Vec<_> = frames.iter().map(|frame| refused(text_in(&flood.ring, frame), "away")).collect();
    assert_eq!(outcomes[..10], [ErrorKind::Kms(KmsErrorKind::Unavailable); 10]);
    assert_eq!(outcomes[10..], [ErrorKind::LimitExceeded; 10]);
    flood.there.kms.set_failure(None);
    flood.clock.advance(1);
    frames.iter().for_each(|frame| assert_eq!(text_in(&flood.ring, frame).unwrap(), "genuine"));
}

/// Covers F-14.4-4.
#[test]
fn frames_from_before_a_data_key_changed_say_that_they_are_to_be_reframed() {
    let here = lab();
    // The root that endorses the next one.
    let (sender, there) = (here.process(), site(&here, &[data(DATA).key_id()]));
    let check = |before: &[u8], what: &str| {
        let after = block_on(sender.reframe(before)).unwrap();
        assert_eq!(text_in(&there.process(), before).unwrap(), "x", "{what}: nothing newer seen");
        let receiver = there.process();
        assert_eq!(text_in(&receiver, &after).unwrap(), "x", "{what}");
        let error = text_in(&receiver, before).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordRejected, "{what}");
        assert!(error.to_string().contains("reframe"), "{what}: {error}");
        let again = block_on(sender.reframe(before)).unwrap();
        assert_eq!(text_in(&receiver, &again).unwrap(), "x", "{what}: reframed");
        after
    };
    let first = frame_of(&sender, "x");
    block_on(sender.rotate_data_key(None)).unwrap();
    let rotated = check(&first, "rotated");
    block_on(sender.rotate_root()).unwrap();
    let mut walk = block_on(sender.reparent()).unwrap();
    while !block_on(walk.step(100)).unwrap().done {}
    check(&rotated, "reparented");
}

/// Covers F-14.3-9.
#[test]
fn keys_from_frames_never_seal_and_are_never_current() {
    let here = lab();
    let there = site(&here, &[root().key_id()]);
    there.store.plant(&record(&root_parts(&here.kms, root())));
    let receiver = there.process();
    // Newer than anything the store has.
    let newer = frame_under(&here.kms, data(DATA + 100), "newer");
    let decryptor = decryptor(&receiver, "plain");
    let opened = open(&decryptor, &newer, None).unwrap();
    assert!(!opened.is_current());
    let encryptor = encryptor(&receiver, "plain");
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    assert_eq!(Sealed::parse(&sealed).unwrap().key_id(), data(DATA).key_id());
    assert_eq!(block_on(encryptor.encrypt_framed(Value::Text("x"), None)).unwrap()[2..26], sealed[2..26]);
    // A frame's key opens frames: the same value without one is of a key that the store does not have, in this
    // handle too. The store's own keys open either.
    let value = Frame::parse(&newer).unwrap().value();
    assert_eq!(refused(open(&decryptor, value, None), "the value alone"), ErrorKind::NoMatchingKey);
    assert_eq!(refused(decryptor.decrypt(value, None), "the value alone"), ErrorKind::NoMatchingKey);
    assert!(open(&decryptor, &sealed, None).unwrap().is_current());
    // A frame answers for itself: what another one of the same key brought does not help a forged one.
    let mut forged = newer.clone();
    forged[30 + 2 + 200] ^= 1;
    assert_eq!(refused(decryptor.decrypt(&forged, None), "forged, not loaded"), ErrorKind::NoMatchingKey);
    assert_eq!(refused(open(&decryptor, &forged, None), "forged"), ErrorKind::RecordRejected);
    assert!(open(&decryptor, &newer, None).is_ok());
}

/// Covers F-14.3-10.
// Failure B3
#[test]
fn a_flood_of_frames_evicts_no_key_of_the_keyrings_own() {
    let mut here = lab();
    // Own keys and their roots; 160 keys in memory, of which 10 from frames.
    here.config.cache.max_keys = 160;
    let ring = here.process();
    let sealed = encryptor(&ring, "plain").encrypt(Value::Text("own"), None).unwrap();
    assert_eq!(text_in(&ring, &sealed).unwrap(), "own");
    let occupied = ring.occupancy();
    for generation in 1_000..2_000 {
        let frame = frame_under(&here.kms, data(generation), "framed");
        assert_eq!(text_in(&ring, &frame).unwrap(), "framed");
    }
    // As many roots as keys: each is endorsed by the store's root.
    for generation in 3_000..3_200 {
        let second = ours(KeyClass::Root, SlotId::NONE, generation);
        let key = data(generation + 1_000);
        let endorsed = RecordParts { endorser: Some(root()), ..root_parts(&here.kms, second) };
        let value = sealed_under(&key, &[1; 24], "framed");
        let frame = frame(&record(&child_parts(key, second)), &record(&endorsed), &value);
        assert_eq!(text_in(&ring, &frame).unwrap(), "framed");
    }
    let (entries, bytes) = ring.occupancy();
    assert!(entries <= occupied.0 + 10 + 64, "{entries} entries, {} before", occupied.0);
    assert!(bytes <= here.config.cache.max_bytes);
    // Neither key nor root is read or unwrapped again.
    here.faults.reset();
    assert_eq!(text_in(&ring, &sealed).unwrap(), "own");
    let calls = here.faults.log();
    assert!(!calls.iter().any(|call| matches!(*call, "get" | "unwrap")), "{calls:?}");
}

#[test]
fn a_flood_of_forged_frames_is_slowed_down_and_hurts_nobody_else() {
    let here = lab();
    let there = site(&here, &[]);
    let clock = Arc::new(VirtualClock::default());
    clock.advance(1);
    let ring = with_clock(&there, &clock);
    let genuine = frame_under(&here.kms, data(500), "genuine");
    assert_eq!(text_in(&ring, &genuine).unwrap(), "genuine");
    let decryptor = decryptor(&ring, "plain");
    there.faults.reset();
    for i in 0..3_000_u32 {
        let mut forged = frame_under(&here.kms, data(600), "forged");
        // In the MAC of the first record.
        let end = 32 + Frame::parse(&forged).unwrap().record().len();
        forged[end - 4..end].copy_from_slice(&i.to_be_bytes());
        let kind = refused(open(&decryptor, &forged, None), "forged");
        let expected = if i < 1_000 { ErrorKind::RecordRejected } else { ErrorKind::LimitExceeded };
        assert_eq!(kind, expected, "frame {i}");
    }
    assert!(there.faults.log().iter().filter(|call| **call == "get").count() <= 2_000);
    // What is in memory opens, keys of the store are looked up, and after a moment genuine frames are heard again.
    assert_eq!(text_in(&ring, &genuine).unwrap(), "genuine");
    let sealed = sealed_under(&data(crate::common::lab::OLD_DATA), &[1; 24], "own");
    assert_eq!(text_in(&ring, &sealed).unwrap(), "own");
    let other = frame_under(&here.kms, data(501), "other");
    assert_eq!(refused(text_in(&ring, &other), "during the flood"), ErrorKind::LimitExceeded);
    clock.advance(1);
    assert_eq!(text_in(&ring, &other).unwrap(), "other");
}

#[test]
fn a_framed_key_ends_with_its_time_and_with_the_stores_word() {
    let here = lab();
    let sealed = frame_of(&here.process(), "x");
    let there = without_data(&here);
    let clock = Arc::new(VirtualClock::default());
    let ring = with_clock(&there, &clock);
    let decryptor = decryptor(&ring, "plain");
    let policy = there.config.cache;
    open(&decryptor, &sealed, None).unwrap();
    clock.advance(policy.max_age.as_secs() + 1);
    assert_eq!(refused(decryptor.decrypt(&sealed, None), "held for too long"), ErrorKind::DeadlineExceeded);
    // Renewed by the frame itself, with one request for the root.
    let before = there.kms.unwrap_count();
    open(&decryptor, &sealed, None).unwrap();
    assert_eq!(there.kms.unwrap_count() - before, 1);
    // The service is away: used on within the grace. The store is away: the same.
    there.kms.set_failure(Some(KmsErrorKind::Unavailable));
    clock.advance(policy.max_age.as_secs() + 1);
    assert!(open(&decryptor, &sealed, None).is_ok());
    clock.advance(policy.grace.as_secs());
    assert_eq!(
        refused(open(&decryptor, &sealed, None), "the grace is over"),
        ErrorKind::Kms(KmsErrorKind::Unavailable)
    );
    there.kms.set_failure(None);
    clock.advance(2);
    open(&decryptor, &sealed, None).unwrap();
    // The store learns of the key: from the next renewal on it decides, and the key of the frame ends.
    there.store.plant(&record(&root_parts(&here.kms, root())));
    there.store.plant(&record(&in_state(child_parts(data(DATA), root()), KeyState::Compromised)));
    ring.invalidate();
    assert_eq!(refused(open(&decryptor, &sealed, None), "the store says compromised"), ErrorKind::KeyState);
    assert_eq!(refused(decryptor.decrypt(&sealed, None), "held from before"), ErrorKind::DeadlineExceeded);
    // Closed is closed.
    ring.close();
    assert_eq!(refused(open(&decryptor, &sealed, None), "closed"), ErrorKind::Closed);
    assert_eq!(refused(block_on(ring.reframe(&sealed)), "closed"), ErrorKind::Closed);
    assert_eq!(ring.occupancy().0, 0);
}

#[test]
fn a_frame_of_another_scope_keyring_or_environment_is_refused() {
    let here = lab();
    let there = site(&here, &[]);
    let scoped = |name: &str, generation| {
        let key = ours(KeyClass::Data, scope_id(name), generation);
        let parts = RecordParts { scope_tag: Some(scope_tag(name)), ..child_parts(key, root()) };
        let value = sealed_under(&key, &[1; 24], name);
        frame(&record(&parts), &record(&root_parts(&here.kms, root())), &value)
    };
    there.add_scope("clinic", 20);
    let ring = there.process();
    let in_scope = block_on(ring.field("plain").unwrap().scope("clinic").decryptor()).unwrap();
    assert!(open(&in_scope, &scoped("clinic", 30), None).is_ok(), "a later key of a scope that the store has");
    assert_eq!(refused(open(&in_scope, &scoped("other", 31), None), "another scope"), ErrorKind::WrongScope);
    assert_eq!(refused(text_in(&ring, &scoped("clinic", 30)), "no scope stated"), ErrorKind::WrongScope);
    let elsewhere = |config: KeyringConfig| there.process_with(config);
    let frame = frame_under(&here.kms, data(60), "x");
    let production = KeyringConfig { environment: "production".to_owned(), ..there.config.clone() };
    assert_eq!(refused(text_in(&elsewhere(production), &frame), "environment"), ErrorKind::RecordRejected);
    let unpinned = there.pinning(&[[7; 32]]);
    assert_eq!(refused(text_in(&elsewhere(unpinned), &frame), "pin"), ErrorKind::RecordRejected);
}
