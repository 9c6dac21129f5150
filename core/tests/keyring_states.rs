//! States of single keys by hand, and how far roots may run ahead of the pins (DESIGN K3, §5 States).

use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::{block_on, open, refused};
use keyfold::{
    Decryptor, Encryptor, ErrorKind, HighWater, KeyClass, KeyState, Keyring, KeyringConfig, MemoryHighWater, SlotId,
    Value,
};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

/// A keyring with a value under a key that was rotated away.
fn retired(lab: &Lab) -> (Keyring, Vec<u8>) {
    let ring = lab.process();
    let sealed = seal(&ring, Some("clinic"), "old").unwrap();
    block_on(ring.rotate_data_key(Some("clinic"))).unwrap();
    (ring, sealed)
}

fn change(ring: &Keyring, sealed: &[u8], state: KeyState) -> keyfold::Result<()> {
    block_on(ring.change_state(key_id_of(sealed), state)).map(|record| assert_eq!(record.state(), state))
}

#[test]
fn a_destroyed_key_leaves_a_tombstone_and_nothing_opens_any_more() {
    let lab = Lab::new();
    let (ring, sealed) = retired(&lab);
    change(&ring, &sealed, KeyState::DestroyPending).unwrap();
    assert_eq!(refused(reveal(&ring, Some("clinic"), &sealed), "pending"), ErrorKind::KeyState);
    change(&ring, &sealed, KeyState::Deactivated).unwrap();
    assert_eq!(reveal(&ring, Some("clinic"), &sealed).unwrap().0, "old", "taken back in time");
    let with_wrap = lab.store.find(key_id_of(&sealed));
    change(&ring, &sealed, KeyState::DestroyPending).unwrap();
    change(&ring, &sealed, KeyState::Destroyed).unwrap();
    for ring in [&ring, &lab.process()] {
        let error = reveal(ring, Some("clinic"), &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::KeyState);
        assert!(error.to_string().contains("destroyed"), "{error}");
    }
    let tombstone = lab.store.find(key_id_of(&sealed));
    assert!(tombstone.as_bytes().len() < with_wrap.as_bytes().len() - 72, "the wrap is gone");
    // A record from before, put back: the process remembers.
    lab.store.plant(&with_wrap);
    assert_eq!(refused(reveal(&ring, Some("clinic"), &sealed), "put back"), ErrorKind::RecordRejected);
    lab.store.plant(&tombstone);
    // The scope itself goes on.
    let fresh = seal(&ring, Some("clinic"), "new").unwrap();
    assert_eq!(reveal(&ring, Some("clinic"), &fresh).unwrap(), ("new".to_owned(), true));
}

// Failure N14
#[test]
fn only_the_steps_of_the_life_cycle_are_taken() {
    let lab = Lab::new();
    let (ring, sealed) = retired(&lab);
    for state in [KeyState::Active, KeyState::PreActive, KeyState::Destroyed, KeyState::Deactivated] {
        assert_eq!(refused(change(&ring, &sealed, state), state.name()), ErrorKind::KeyState);
    }
    assert_eq!(reveal(&ring, Some("clinic"), &sealed).unwrap().0, "old", "nothing has changed");
    change(&ring, &sealed, KeyState::Compromised).unwrap();
    assert_eq!(refused(reveal(&ring, Some("clinic"), &sealed), "compromised"), ErrorKind::KeyState);
    change(&ring, &sealed, KeyState::DestroyPending).unwrap();
    change(&ring, &sealed, KeyState::Destroyed).unwrap();
    assert_eq!(refused(change(&ring, &sealed, KeyState::Deactivated), "for ever"), ErrorKind::KeyState);
}

#[test]
fn a_compromised_key_is_replaced_first_and_opens_only_with_a_flag() {
    for lead in [0, 600] {
        let mut lab = Lab::new();
        lab.config.rotation.lead = Duration::from_secs(lead);
        let ring = lab.process();
        let sealed = seal(&ring, Some("clinic"), "leaked").unwrap();
        // Somebody else seals on without a pause.
        let writer = lab.process();
        seal(&writer, Some("clinic"), "x").unwrap();
        change(&ring, &sealed, KeyState::Compromised).unwrap();
        writer.invalidate();
        for ring in [&ring, &writer, &lab.process()] {
            assert_eq!(refused(reveal(ring, Some("clinic"), &sealed), "compromised"), ErrorKind::KeyState);
            let fresh = seal(ring, Some("clinic"), "new").unwrap();
            assert_ne!(key_id_of(&fresh), key_id_of(&sealed));
            assert_eq!(reveal(ring, Some("clinic"), &fresh).unwrap(), ("new".to_owned(), true));
        }
        // Opened to be sealed again, and said so.
        let ring = lab.process_with(KeyringConfig { open_compromised: true, ..lab.config.clone() });
        let decryptor = decryptor(&ring, "plain", Some("clinic")).unwrap();
        let fresh = seal(&ring, Some("clinic"), "new").unwrap();
        let column = [&sealed[..], &fresh];
        block_on(decryptor.load_keys(&column[..])).unwrap();
        let opened = decryptor.decrypt(&sealed, None).unwrap();
        assert!(opened.is_compromised() && !opened.is_current());
        assert!(!decryptor.decrypt(&fresh, None).unwrap().is_compromised());
        let opened = decryptor.decrypt_column(&column[..], None::<&[&[u8]]>).unwrap();
        assert_eq!((opened.compromised(), opened.outdated()), (1, 1));
        assert!(seal(&ring, Some("clinic"), "x").is_ok());
        assert_eq!(refused(change(&ring, &sealed, KeyState::Active), "never again"), ErrorKind::KeyState);
    }
}

#[test]
fn a_key_that_was_deactivated_by_hand_seals_no_more_until_somebody_rotates() {
    let lab = Lab::new();
    let (ring, other) = (lab.process(), lab.process());
    let sealed = seal(&other, Some("clinic"), "x").unwrap();
    change(&ring, &sealed, KeyState::Deactivated).unwrap();
    other.invalidate();
    for ring in [&ring, &other, &lab.process()] {
        assert_eq!(refused(seal(ring, Some("clinic"), "x"), "deactivated"), ErrorKind::KeyState);
        assert!(reveal(ring, Some("clinic"), &sealed).is_ok());
    }
    block_on(ring.rotate_data_key(Some("clinic"))).unwrap();
    other.invalidate();
    assert!(seal(&other, Some("clinic"), "x").is_ok());
}

#[test]
fn what_a_killed_rotation_left_does_not_seal_in_place_of_a_key_that_was_deactivated_by_hand() {
    for by_this_process in [false, true] {
        // As a rotation leaves it that was killed between insert and deactivation.
        let lab = Lab::new();
        lab.store.plant(&record(&child_parts(data(40), root())));
        let (ring, other) = (lab.process(), lab.process());
        if by_this_process {
            block_on(other.activate_data_key(None)).unwrap();
        }
        block_on(ring.change_state(data(40).key_id(), KeyState::Deactivated)).unwrap();
        assert_eq!(lab.store.find(data(DATA).key_id()).state(), KeyState::Deactivated);
        for ring in [&ring, &other, &lab.process()] {
            assert_eq!(refused(seal(ring, None, "x"), "deactivated"), ErrorKind::KeyState);
        }
        let rotated = block_on(other.rotate_data_key(None)).unwrap();
        assert!(!rotated.by_other && rotated.new.state() == KeyState::Active);
        assert!(seal(&lab.process(), None, "x").is_ok());
    }
    // Also where whoever deactivated it did not get as far as the older key.
    let lab = Lab::new();
    lab.store.plant(&record(&in_state(child_parts(data(40), root()), KeyState::Deactivated)));
    assert_eq!(refused(seal(&lab.process(), None, "x"), "an older key is active"), ErrorKind::KeyState);
}

#[test]
fn a_killed_rotation_is_finished_by_whoever_seals_next_and_nothing_forged_is_signed_by_it() {
    let lab = Lab::new();
    lab.store.plant(&record(&child_parts(data(40), root())));
    seal(&lab.process(), None, "x").unwrap();
    assert_eq!(lab.store.find(data(DATA).key_id()).state(), KeyState::Deactivated);
    let lab = Lab::new();
    lab.store.plant(&record(&child_parts(data(40), root())));
    let forged = record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 7), root()));
    let mut bytes = forged.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let forged = keyfold::Record::parse(&bytes).unwrap();
    lab.store.plant(&forged);
    assert_eq!(refused(seal(&lab.process(), None, "x"), "planted"), ErrorKind::RecordRejected);
    assert!(lab.store.find(forged.key_id()) == forged, "a root signed what nobody vouched for");
}

#[test]
fn a_key_below_a_dead_one_can_be_marked_compromised() {
    let mut lab = Lab::new();
    lab.config.rotation.lead = Duration::from_secs(60);
    let ring = lab.process();
    let waiting = block_on(ring.rotate_data_key(None)).unwrap().new;
    block_on(ring.change_state(waiting.key_id(), KeyState::Compromised)).unwrap();
    block_on(lab.process().change_state(data(DATA).key_id(), KeyState::Compromised)).unwrap();
    assert!(seal(&lab.process(), None, "x").is_ok());
}

#[test]
fn a_key_deactivated_by_hand_does_not_make_its_successor_seal_before_the_lead_is_over() {
    let mut lab = Lab::new();
    lab.config.rotation.lead = Duration::from_secs(60);
    let ring = lab.process();
    let waiting = block_on(ring.rotate_data_key(None)).unwrap().new;
    block_on(ring.change_state(data(DATA).key_id(), KeyState::Deactivated)).unwrap();
    assert!(seal(&ring, None, "x").is_err() && seal(&lab.process(), None, "x").is_err());
    lab.store.state().now = Some(TIME + 60);
    assert_eq!(key_id_of(&seal(&lab.process(), None, "x").unwrap()), waiting.key_id());
}

#[test]
fn any_number_of_dead_generations_hides_neither_data_keys_nor_roots() {
    let mut lab = Lab::new();
    lab.config.rotation.lead = Duration::from_secs(60);
    let ring = lab.process();
    let first = seal(&ring, None, "x").unwrap();
    for _ in 0..40 {
        let waiting = block_on(ring.rotate_data_key(None)).unwrap().new;
        block_on(ring.change_state(waiting.key_id(), KeyState::Deactivated)).unwrap();
    }
    ring.invalidate();
    for ring in [&ring, &lab.process()] {
        assert_eq!(key_id_of(&seal(ring, None, "x").unwrap()), key_id_of(&first));
    }
    for _ in 0..20 {
        let waiting = block_on(ring.rotate_root()).unwrap().new;
        block_on(ring.change_state(waiting.key_id(), KeyState::Deactivated)).unwrap();
    }
    let before = lab.kms.unwrap_count();
    let fresh = lab.process();
    (0..50).for_each(|n| drop(seal(&fresh, Some(&format!("scope {n}")), "x").unwrap()));
    assert!(lab.kms.unwrap_count() - before <= 21, "a request per root at most, not per scope");
    assert!(block_on(lab.process().rotate_root()).is_ok());
}

#[test]
fn a_dead_root_costs_one_request_however_many_scopes_are_made() {
    for state in [KeyState::Compromised, KeyState::Deactivated] {
        let mut lab = Lab::new();
        lab.config.rotation.lead = Duration::from_secs(60);
        let waiting = block_on(lab.process().rotate_root()).unwrap().new;
        block_on(lab.process().change_state(waiting.key_id(), state)).unwrap();
        let (ring, before) = (lab.process(), lab.kms.unwrap_count());
        (0..50).for_each(|n| drop(seal(&ring, Some(&format!("scope {n}")), "x").unwrap()));
        assert_eq!(lab.kms.unwrap_count() - before, 2, "{state:?}");
    }
}

#[test]
fn whatever_call_fails_while_a_key_is_marked_compromised_it_can_be_repeated() {
    for after in [false, true] {
        let mut n = 0;
        loop {
            n += 1;
            let lab = Lab::new();
            let sealed = seal(&lab.process(), Some("clinic"), "x").unwrap();
            lab.faults.fail_nth(n, after);
            let outcome = change(&lab.process(), &sealed, KeyState::Compromised);
            let failed = lab.faults.calls() >= n;
            lab.faults.off();
            let ring = lab.process();
            if lab.store.find(key_id_of(&sealed)).state() != KeyState::Compromised {
                assert_eq!(reveal(&ring, Some("clinic"), &sealed).unwrap().0, "x", "call {n}");
                change(&ring, &sealed, KeyState::Compromised).unwrap();
            }
            assert_eq!(refused(reveal(&ring, Some("clinic"), &sealed), "compromised"), ErrorKind::KeyState);
            assert!(seal(&ring, Some("clinic"), "y").is_ok(), "call {n}, after {after}");
            if !failed {
                outcome.unwrap();
                break;
            }
        }
        assert!(n > 10, "{n} calls");
    }
}

#[test]
fn a_published_key_is_activated_by_hand() {
    let mut lab = Lab::new();
    lab.config.rotation.lead = Duration::from_secs(600);
    let ring = lab.process();
    let first = seal(&ring, None, "x").unwrap();
    let published = block_on(ring.rotate_data_key(None)).unwrap().new;
    let active = block_on(ring.change_state(published.key_id(), KeyState::Active)).unwrap();
    assert_eq!((active.key_id(), active.state()), (published.key_id(), KeyState::Active));
    assert_eq!(lab.store.find(key_id_of(&first)).state(), KeyState::Deactivated);
    ring.invalidate();
    assert_eq!(key_id_of(&seal(&ring, None, "x").unwrap()), published.key_id());
}

#[test]
fn roots_and_configured_keys_stay() {
    let lab = Lab::new();
    let ring = lab.process();
    let config = lab.pinning(&[root().commitment()]);
    let partition = &config.lookup.values().next().unwrap().seals;
    for key_id in [root().key_id(), config.scope_names, *partition] {
        for state in [KeyState::Deactivated, KeyState::Compromised, KeyState::DestroyPending, KeyState::Destroyed] {
            assert_eq!(refused(block_on(ring.change_state(key_id, state)), "needed"), ErrorKind::PolicyRefused);
        }
    }
    let unknown = keyfold::wire::KeyId::from_bytes([9; 24]);
    assert_eq!(refused(block_on(ring.change_state(unknown, KeyState::Compromised)), "?"), ErrorKind::NoMatchingKey);
}

/// Which look-up key seals the configuration says: the end of another one neither makes a key nor retires any.
#[test]
fn the_end_of_a_lookup_key_leaves_the_others_of_its_partition_alone() {
    for state in [KeyState::Deactivated, KeyState::Compromised] {
        for is_newest in [false, true] {
            let lab = Lab::new();
            let next = ours(KeyClass::Lookup, DEFAULT_PARTITION, 9);
            lab.store.plant(&record(&child_parts(next, root())));
            let mut config = lab.config.clone();
            let keys = config.lookup.get_mut("default").unwrap();
            let old = keys.seals;
            // The newest one is that of a rotation that was given up.
            let (seals, ended) = if is_newest { (old, next.key_id()) } else { (next.key_id(), old) };
            keys.seals = seals;
            let ring = lab.process_with(config);
            let count = block_on(ring.list(None, 1000)).unwrap().len();
            block_on(ring.change_state(ended, state)).unwrap();
            let after = block_on(ring.list(None, 1000)).unwrap();
            assert_eq!(after.len(), count);
            let of = |key_id| after.iter().find(|info| info.record.key_id() == key_id).unwrap().record.state();
            assert_eq!((of(ended), of(seals)), (state, KeyState::Active));
            encryptor(&ring, "mrn", None).unwrap().encrypt(keyfold::Value::Text("M-1"), None).unwrap();
        }
    }
}

#[test]
fn roots_do_not_run_away_from_the_pins() {
    let lab = Lab::new();
    let mut made = 0;
    let error = loop {
        match block_on(lab.process().rotate_root()) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
        // Whoever has the first pin alone still follows.
        let sealed = seal(&lab.process(), Some("clinic"), "x").unwrap();
        assert_eq!(reveal(&lab.process(), Some("clinic"), &sealed).unwrap().0, "x");
    };
    assert_eq!(error.kind(), ErrorKind::PolicyRefused);
    assert!((10..=16).contains(&made), "{made}");
}

/// Covers F-8.2-8, F-8.2-9.
#[test]
fn a_planted_newest_key_stops_sealing_but_not_opening() {
    let lab = Lab::new();
    let sealed = seal(&lab.process(), None, "needed").unwrap();
    let foreign_root = theirs(KeyClass::Root, SlotId::NONE, 98);
    lab.store.plant(&record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 99), foreign_root)));
    let ring = lab.process();
    assert_eq!(refused(seal(&ring, None, "x"), "sealing"), ErrorKind::RecordRejected);
    assert_eq!(reveal(&ring, None, &sealed).unwrap(), ("needed".to_owned(), false), "nobody can say what is current");
}

#[test]
fn a_machine_that_only_reads_remembers_generations_and_roots() {
    let lab = Lab::new();
    let admin = lab.process();
    block_on(admin.rotate_root()).unwrap();
    block_on(admin.rotate_data_key(None)).unwrap();
    let marks = Arc::new(MemoryHighWater::default());
    let store: Arc<dyn keyfold::KeyStore> = Arc::new(lab.store.clone());
    let reader = Keyring::open(lab.config.clone(), store, lab.keks(), marks.clone()).unwrap();
    let sealed = seal(&reader, None, "x").unwrap();
    assert_eq!(marks.generation(lab.config.lineage).unwrap(), key_id_of(&sealed).generation());
    let old_root = marks.mark(lab.config.lineage, root().key_id()).unwrap().unwrap();
    assert_eq!(old_root.state, KeyState::Deactivated);
}

#[test]
fn a_key_that_was_deactivated_here_seals_nothing_while_the_store_is_away() {
    let lab = Lab::new();
    let (ring, other) = (lab.process(), lab.process());
    let sealed = seal(&ring, None, "x").unwrap();
    seal(&other, None, "x").unwrap();
    block_on(ring.change_state(key_id_of(&sealed), KeyState::Deactivated)).unwrap();
    lab.faults.fail_store(true);
    assert_eq!(refused(seal(&ring, None, "x"), "under a key that was deactivated"), ErrorKind::Store);
    // Others learn of it at their next look.
    assert!(seal(&other, None, "x").is_ok());
    lab.faults.fail_store(false);
    assert_eq!(refused(seal(&ring, None, "x"), "under a key that was deactivated"), ErrorKind::KeyState);
    block_on(ring.rotate_data_key(None)).unwrap();
    assert!(seal(&ring, None, "x").is_ok());
}

/// A process with handles that hold the key, whose state the process then changes without hearing that it did.
struct Unheard {
    lab: Lab,
    process: Process,
    encryptor: Encryptor,
    decryptor: Decryptor,
    sealed: Vec<u8>,
}

impl Unheard {
    fn new(process: fn(&Lab, KeyringConfig) -> Process) -> Self {
        let lab = Lab::new();
        let process = process(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let decryptor = decryptor(&process.ring, "plain", None).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        open(&decryptor, &sealed, None).unwrap();
        Self { lab, process, encryptor, decryptor, sealed }
    }

    fn change(&self, state: KeyState) -> impl Future<Output = keyfold::Result<keyfold::Record>> + '_ {
        self.process.ring.change_state(self.encryptor.key_id(), state)
    }

    fn is_in(&self, state: KeyState) -> bool {
        self.lab.store.find(key_id_of(&self.sealed)).state() == state
    }

    /// Nobody can say what became of the key, unless that `is_known`, and the process does not go on with it; then the store
    /// says it.
    #[track_caller]
    fn assert_not_used_on(&self, state: KeyState, is_known: bool, what: &str) {
        self.lab.faults.fail_store(true);
        // Without being awaited.
        let error = self.encryptor.encrypt(Value::Text("x"), None).unwrap_err();
        let is_known = is_known && self.is_in(state);
        let kind = if is_known { ErrorKind::KeyState } else { ErrorKind::DeadlineExceeded };
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert_eq!(refused(block_on(self.encryptor.ready()), what), ErrorKind::Store);
        let opened = self.decryptor.decrypt(&self.sealed, None).map(drop);
        if self.is_in(KeyState::Compromised) {
            let error = opened.unwrap_err();
            let kind = if is_known { ErrorKind::KeyState } else { ErrorKind::DeadlineExceeded };
            assert_eq!(error.kind(), kind, "{what}: {error}");
            assert!(is_known || error.to_string().contains("await ready() or load_keys()"), "{what}: {error}");
        }
        self.lab.faults.fail_store(false);
        let opened = open(&self.decryptor, &self.sealed, None);
        let ready = block_on(self.encryptor.ready());
        match (self.is_in(state), state) {
            (true, KeyState::Compromised) => {
                assert_eq!(refused(opened.map(drop), what), ErrorKind::KeyState);
                assert_ne!(ready.unwrap().key_id(), key_id_of(&self.sealed), "{what}");
            }
            (true, _) => {
                opened.unwrap();
                assert_eq!(refused(ready, what), ErrorKind::KeyState);
            }
            (false, _) => {
                opened.unwrap();
                ready.unwrap();
            }
        }
    }
}

/// The store's answer is lost, or the marks or the audit log fail when the store has the change.
#[test]
fn a_change_of_state_whose_answer_was_lost_is_heard() {
    for state in [KeyState::Deactivated, KeyState::Compromised] {
        let (mut changed, mut begun) = (0, 0);
        for n in 1.. {
            let unheard = Unheard::new(Process::quick);
            unheard.lab.faults.fail_nth(n, true);
            let result = block_on(unheard.change(state));
            let log = unheard.lab.faults.log();
            unheard.lab.faults.off();
            if log.len() < usize::try_from(n).unwrap() {
                break;
            }
            let what = format!("{state:?}, call {n}: {log:?}");
            // A mark of the machine that cannot be written is no failure.
            if result.is_err() && log.iter().any(|call| ["insert", "update"].contains(call)) {
                changed += usize::from(unheard.is_in(state));
                begun += 1;
                // What the marks cannot hold the store has nevertheless.
                unheard.assert_not_used_on(state, log.last() != Some(&"update"), &what);
            }
        }
        assert!(changed >= 2 && begun >= changed, "{state:?}: {changed} of {begun}");
    }
}

#[test]
fn a_change_of_state_that_nobody_waits_for_any_more_is_heard() {
    for state in [KeyState::Deactivated, KeyState::Compromised] {
        let unheard = Unheard::new(Process::slow);
        let mut change = Box::pin(unheard.change(state));
        while !unheard.is_in(state) {
            assert!(change.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(change);
        unheard.assert_not_used_on(state, false, "dropped");
    }
}
