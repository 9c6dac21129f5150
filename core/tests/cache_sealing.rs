//! How long a handle that is not awaited seals under a key that another process has replaced or taken out of service, while
//! readers of the same process renew the lease of that key (DESIGN K17).

use crate::common::block_on;
use crate::common::cache::Process;
use crate::common::lab::*;
use crate::common::open;
use keyfold::{ErrorKind, FieldPolicy, KeyClass, KeyState, SlotId, Value};
use std::time::Duration;

const STEP: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Elsewhere {
    Rotated,
    /// By somebody who stopped before he deactivated the old key.
    RotatedHalfWay,
    Deactivated,
    Compromised,
}

const ALL: [Elsewhere; 4] =
    [Elsewhere::Rotated, Elsewhere::RotatedHalfWay, Elsewhere::Deactivated, Elsewhere::Compromised];

/// How many keys the cache keeps: those that it has let go of hear as much.
const KEPT: [usize; 2] = [0, 100_000];

/// A laboratory without grace that opens what is under compromised keys, and has streams.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.config.cache.grace = Duration::ZERO;
    lab.config.open_compromised = true;
    lab.config.policy.add(FieldPolicy::stream("image")).unwrap();
    lab
}

impl Elsewhere {
    fn happen(self, lab: &Lab) {
        let (other, key) = (lab.process(), data(DATA).key_id());
        match self {
            Self::Rotated => drop(block_on(other.rotate_data_key(None)).unwrap()),
            Self::RotatedHalfWay => lab.store.plant(&record(&child_parts(data(DATA + 1), root()))),
            Self::Deactivated => drop(block_on(other.change_state(key, KeyState::Deactivated)).unwrap()),
            Self::Compromised => drop(block_on(other.change_state(key, KeyState::Compromised)).unwrap()),
        }
    }
}

#[test]
fn readers_do_not_let_a_handle_that_is_not_awaited_seal_beyond_the_age() {
    for (elsewhere, max_keys) in ALL.into_iter().flat_map(|elsewhere| KEPT.map(|max_keys| (elsewhere, max_keys))) {
        let mut lab = lab();
        lab.config.cache.max_keys = max_keys;
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let decryptor = decryptor(&process.ring, "plain", None).unwrap();
        let sealer = block_on(process.ring.field("image").unwrap().stream_sealer()).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        elsewhere.happen(&lab);
        let max_age = lab.config.cache.max_age;
        let (mut time, mut last) = (Duration::ZERO, Duration::ZERO);
        let mut refusals = Vec::new();
        while time < 4 * max_age {
            process.clock.advance(STEP);
            time += STEP;
            open(&decryptor, &sealed, None).unwrap();
            let texts = [Value::Text("x")];
            let results = [
                encryptor.encrypt(Value::Text("x"), None).map(drop),
                encryptor.encrypt_column(&texts[..], None::<&[&[u8]]>).map(drop).map_err(|error| error.error),
                sealer.begin(None).map(drop),
            ];
            let seals = results.iter().filter(|result| result.is_ok()).count();
            assert!([0, results.len()].contains(&seals), "{elsewhere:?} after {time:?}: some seal, some do not");
            if seals > 0 {
                last = time;
            }
            refusals.extend(results.into_iter().filter_map(Result::err));
        }
        assert!(last < max_age, "{elsewhere:?}: sealed for {last:?}, and the age is {max_age:?}");
        for error in refusals {
            let is_told = [ErrorKind::KeyState, ErrorKind::DeadlineExceeded].contains(&error.kind());
            assert!(is_told && error.to_string().contains("await ready()"), "{elsewhere:?}: {error}");
        }

        // What the error says to do helps, where anything seals.
        let ready = block_on(encryptor.ready()).map(|ready| ready.key_id());
        if matches!(elsewhere, Elsewhere::Deactivated) {
            assert_eq!(ready.unwrap_err().kind(), ErrorKind::KeyState);
        } else {
            assert!(ready.unwrap() > data(DATA).key_id(), "{elsewhere:?}");
            encryptor.encrypt(Value::Text("x"), None).unwrap();
        }
    }
}

/// However lately the store was asked which key is the newest.
#[test]
fn what_a_reader_hears_of_a_key_counts_at_once_for_whoever_seals() {
    for (elsewhere, max_keys) in
        [Elsewhere::Rotated, Elsewhere::Compromised].into_iter().zip(KEPT).chain([(Elsewhere::Rotated, 0)])
    {
        let mut lab = lab();
        lab.config.cache.max_keys = max_keys;
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        process.clock.advance(lab.config.cache.max_age - STEP);
        // Looks at which key is the newest, and at no key.
        let decryptor = decryptor(&process.ring, "plain", None).unwrap();
        elsewhere.happen(&lab);
        encryptor.encrypt(Value::Text("x"), None).unwrap();
        open(&decryptor, &sealed, None).unwrap();

        let refused = encryptor.encrypt(Value::Text("x"), None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::KeyState, "{elsewhere:?}: {refused}");
        assert!(refused.to_string().contains("await ready()"), "{elsewhere:?}: {refused}");
        let mut out = [0; 80];
        assert_eq!(encryptor.encrypt_if_ready(Value::Text("x"), None, &mut out).unwrap(), None, "{elsewhere:?}");
        lab.faults.fail_store(true);
        assert_eq!(block_on(encryptor.ready()).map(drop).unwrap_err().kind(), ErrorKind::Store, "{elsewhere:?}");
        lab.faults.fail_store(false);
        assert!(block_on(encryptor.ready()).unwrap().key_id() > data(DATA).key_id(), "{elsewhere:?}");
        encryptor.encrypt(Value::Text("x"), None).unwrap();
    }
}

#[test]
fn looking_after_the_caches_brings_the_next_key_although_readers_have_asked_for_the_newest() {
    for elsewhere in [Elsewhere::Rotated, Elsewhere::RotatedHalfWay, Elsewhere::Compromised] {
        let lab = lab();
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let decryptor = decryptor(&process.ring, "plain", None).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        elsewhere.happen(&lab);
        let mut time = Duration::ZERO;
        while time < 2 * lab.config.cache.max_age {
            process.clock.advance(STEP);
            time += STEP;
            open(&decryptor, &sealed, None).unwrap();
            block_on(process.ring.refresh()).unwrap();
            let under = key_id_of(&encryptor.encrypt(Value::Text("x"), None).unwrap());
            let is_late = time > lab.config.cache.check_every + STEP;
            assert!(under > data(DATA).key_id() || !is_late, "{elsewhere:?}: the old key seals after {time:?}");
        }
    }
}

/// What was begun before a rotation is finished under its key, but not under one that is compromised.
#[test]
fn a_stream_that_was_begun_ends_where_its_key_is_known_to_be_compromised() {
    for elsewhere in [Elsewhere::Rotated, Elsewhere::Compromised] {
        let lab = lab();
        let process = Process::quick(&lab, lab.config.clone());
        let sealer = block_on(process.ring.field("image").unwrap().stream_sealer()).unwrap();
        let mut stream = sealer.begin(None).unwrap();
        elsewhere.happen(&lab);
        process.clock.advance(lab.config.cache.max_age);
        block_on(stream.renew()).unwrap();
        let sealed = stream.update(b"x", &mut Vec::new());
        match elsewhere {
            Elsewhere::Compromised => assert_eq!(sealed.unwrap_err().kind(), ErrorKind::KeyState),
            _ => sealed.unwrap(),
        }
    }
}

/// While nobody answers, a handle that is not awaited seals for as long as one that is.
#[test]
fn the_grace_is_that_of_handles_that_are_not_awaited_as_well() {
    let mut lab = lab();
    lab.config.cache.grace = Duration::from_secs(600);
    let process = Process::quick(&lab, lab.config.clone());
    let encryptor = encryptor(&process.ring, "plain", None).unwrap();
    let decryptor = decryptor(&process.ring, "plain", None).unwrap();
    let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
    open(&decryptor, &sealed, None).unwrap();
    lab.faults.fail_store(true);
    let ends = lab.config.cache.max_age + lab.config.cache.grace;
    let mut time = Duration::ZERO;
    while time < ends + 4 * STEP {
        process.clock.advance(STEP);
        time += STEP;
        let _ = open(&decryptor, &sealed, None);
        assert_eq!(encryptor.encrypt(Value::Text("x"), None).is_ok(), time < ends, "after {time:?} of {ends:?}");
    }
}

/// A look that succeeds and does not confirm the key ends what was granted while nobody answered.
#[test]
fn the_grace_ends_with_the_outage_for_handles_that_are_not_awaited() {
    for is_rejected in [false, true] {
        let mut lab = lab();
        lab.config.cache.grace = Duration::from_secs(3600);
        let process = Process::quick(&lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let reader = decryptor(&process.ring, "plain", None).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        open(&reader, &sealed, None).unwrap();
        process.clock.advance(lab.config.cache.max_age - STEP);
        lab.faults.fail_store(true);
        // At the end of the age once more, for the root.
        open(&reader, &sealed, None).unwrap();
        process.clock.advance(STEP);
        open(&reader, &sealed, None).unwrap();
        encryptor.encrypt(Value::Text("x"), None).expect("in the grace");
        lab.faults.fail_store(false);
        if is_rejected {
            let foreign = theirs(KeyClass::Root, SlotId::NONE, 98);
            lab.store.plant(&record(&child_parts(theirs(KeyClass::Data, SlotId::NONE, 99), foreign)));
        } else {
            Elsewhere::Compromised.happen(&lab);
        }
        process.clock.advance(STEP);
        // Looks at which key is the newest, and at no key.
        decryptor(&process.ring, "plain", None).unwrap();
        let refused = encryptor.encrypt(Value::Text("x"), None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded, "rejected: {is_rejected}: {refused}");
        let ready = block_on(encryptor.ready()).map(|ready| ready.key_id());
        match is_rejected {
            true => assert_eq!(ready.unwrap_err().kind(), ErrorKind::RecordRejected),
            false => assert!(ready.unwrap() > data(DATA).key_id()),
        }
    }
}
