//! How long keys are used while nobody answers, and how soon they are not when somebody says no (DESIGN K9, K17).

use crate::common::block_on;
use crate::common::cache::Process;
use crate::common::lab::*;
use keyfold::{CachePolicy, Decryptor, Encryptor, ErrorKind, KeyState, KmsErrorKind, Result, Value};
use std::time::Duration;

const NANOSECOND: Duration = Duration::from_nanos(1);

/// A warm process with a handle that seals, one that opens, and a value.
struct Warm {
    process: Process,
    encryptor: Encryptor,
    decryptor: Decryptor,
    sealed: Vec<u8>,
}

impl Warm {
    fn new(lab: &Lab) -> Self {
        let process = Process::quick(lab, lab.config.clone());
        let encryptor = encryptor(&process.ring, "plain", None).unwrap();
        let decryptor = decryptor(&process.ring, "plain", None).unwrap();
        let sealed = encryptor.encrypt(Value::Text("x"), None).unwrap();
        block_on(decryptor.load_keys(&[&sealed[..]][..])).unwrap();
        Self { process, encryptor, decryptor, sealed }
    }

    fn seal_held(&self) -> Result<()> {
        self.encryptor.encrypt(Value::Text("x"), None).map(drop)
    }

    fn open_held(&self) -> Result<()> {
        self.decryptor.decrypt(&self.sealed, None).map(drop)
    }

    fn seal(&self) -> Result<()> {
        block_on(self.encryptor.ready())?;
        self.seal_held()
    }

    fn open(&self) -> Result<()> {
        block_on(self.decryptor.load_keys(&[&self.sealed[..]][..])).map_err(|error| error.error)?;
        self.open_held()
    }

    /// Both, by the handles and by new ones.
    fn all(&self) -> [Result<()>; 4] {
        let ring = &self.process.ring;
        [self.seal(), self.open(), seal(ring, None, "x").map(drop), reveal(ring, None, &self.sealed).map(drop)]
    }

    #[track_caller]
    fn assert_works(&self, when: &str) {
        for (n, result) in self.all().into_iter().enumerate() {
            assert!(result.is_ok(), "{when}, way {n}: {result:?}");
        }
    }

    #[track_caller]
    fn assert_fails(&self, kind: ErrorKind, when: &str) {
        for (n, result) in self.all().into_iter().enumerate() {
            assert_eq!(result.map_err(|error| error.kind()), Err(kind), "{when}, way {n}");
        }
    }
}

/// What keeps answers away.
type Outage = (&'static str, fn(&Lab, bool), ErrorKind);

const OUTAGES: [Outage; 2] = [
    (
        "the key service",
        |lab, away| lab.kms.set_failure(away.then_some(KmsErrorKind::Unavailable)),
        ErrorKind::Kms(KmsErrorKind::Unavailable),
    ),
    ("the store", |lab, away| lab.faults.fail_store(away), ErrorKind::Store),
];

// Failure A1
#[test]
fn an_outage_is_survived_for_exactly_the_grace() {
    for grace in [Duration::from_secs(3600), Duration::from_secs(1), NANOSECOND] {
        for (what, set, error) in OUTAGES {
            let mut lab = Lab::new();
            lab.config.cache.grace = grace;
            let (warm, CachePolicy { max_age, .. }) = (Warm::new(&lab), lab.config.cache);
            set(&lab, true);
            // A program asks now and then.
            let mut passed = Duration::ZERO;
            let step = (max_age + grace) / 97;
            while passed + step < max_age + grace {
                warm.assert_works(&format!("{passed:?} without {what}"));
                warm.process.clock.advance(step);
                passed += step;
            }
            warm.process.clock.advance(max_age + grace - NANOSECOND - passed);
            warm.assert_works(&format!("the last nanosecond without {what}"));
            warm.process.clock.advance(NANOSECOND);
            let first = warm.seal().unwrap_err().to_string();
            let seconds = (max_age + grace).as_secs();
            assert!(
                first.contains(&format!("last confirmed {seconds} s ago")) && first.contains("bring the"),
                "{first}"
            );
            warm.assert_fails(error, &format!("without {what} for longer than the grace"));
            // Handles that nobody makes ready say what to do.
            for result in [warm.seal_held(), warm.open_held()] {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
                assert!(error.is_retryable() && error.to_string().contains("await ready() or load_keys()"), "{error}");
            }
            set(&lab, false);
            warm.process.clock.advance(lab.config.cache.negative);
            warm.assert_works(&format!("{what} is back"));
        }
    }
}

#[test]
fn a_handle_that_is_never_awaited_stops_at_the_age() {
    for away in [false, true] {
        let lab = Lab::new();
        let warm = Warm::new(&lab);
        lab.kms.set_failure(away.then_some(KmsErrorKind::Timeout));
        warm.process.clock.advance(lab.config.cache.max_age - NANOSECOND);
        assert!(warm.seal_held().is_ok() && warm.open_held().is_ok());
        warm.process.clock.advance(NANOSECOND);
        for result in [warm.seal_held(), warm.open_held()] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        }
    }
}

/// Away: the service is asked about once a second and the callers go on.
// Failure A6
#[test]
fn an_outage_costs_one_request_a_second() {
    let lab = Lab::new();
    let warm = Warm::new(&lab);
    warm.process.clock.advance(lab.config.cache.max_age);
    lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
    let before = lab.kms.unwrap_count();
    for _ in 0..100 {
        warm.process.clock.advance(Duration::from_millis(100));
        warm.assert_works("in the grace");
    }
    let asked = lab.kms.unwrap_count() - before;
    assert!((5..=11).contains(&asked), "{asked} requests in ten seconds");
}

/// However many seal, and whoever asks first; also where a reader has seen that another process has rotated.
#[test]
fn an_outage_of_the_store_costs_one_call_a_second_of_readers_and_writers_together() {
    for (rotated, reads_first) in [(false, true), (false, false), (true, true)] {
        let lab = Lab::new();
        let warm = Warm::new(&lab);
        let key_id = warm.encryptor.key_id();
        warm.process.clock.advance(lab.config.cache.check_every);
        if rotated {
            block_on(lab.elsewhere().rotate_data_key(None)).unwrap();
            warm.open().unwrap();
        }
        lab.faults.fail_store(true);
        lab.faults.reset();
        for _ in 0..100 {
            if reads_first {
                warm.open().unwrap();
            }
            (0..5).for_each(|_| warm.seal().unwrap());
            warm.open().unwrap();
            warm.process.clock.advance(Duration::from_millis(100));
        }
        let asked = lab.faults.log().into_iter().filter(|call| ["newest", "get", "now"].contains(call)).count();
        assert!((5..=11).contains(&asked), "{asked} calls in ten seconds, rotated: {rotated}, {reads_first}");
        assert_eq!(warm.encryptor.key_id(), key_id);
    }
}

/// What a reader hears in vain is no answer: who seals has no more time for it.
#[test]
fn a_reader_that_asks_in_vain_lets_nobody_seal_beyond_the_end() {
    let mut lab = Lab::new();
    let max_age = lab.config.cache.max_age;
    (lab.config.cache.grace, lab.config.cache.check_every) = (Duration::ZERO, max_age);
    let warm = Warm::new(&lab);
    let clock = &warm.process.clock;
    clock.advance(max_age - Duration::from_secs(10));
    // The call by which the reader asks which key seals fails, and those that confirm the key itself do not.
    lab.faults.fail_nth(1, false);
    warm.open().unwrap();
    clock.advance(Duration::from_millis(9500));
    lab.faults.fail_store(true);
    warm.open().unwrap();
    clock.advance(Duration::from_millis(500) - NANOSECOND);
    warm.seal().unwrap();
    clock.advance(NANOSECOND);
    assert_eq!(warm.seal().unwrap_err().kind(), ErrorKind::Store, "beyond its end");
    warm.open().expect("the key itself was confirmed");
}

const REFUSALS: [KmsErrorKind; 3] = [KmsErrorKind::AccessDenied, KmsErrorKind::KeyDisabled, KmsErrorKind::KeyNotFound];

// Failure A22
#[test]
fn a_refusal_ends_use_at_once_in_every_handle() {
    for kind in REFUSALS {
        for by_refresh in [false, true] {
            let lab = Lab::new();
            let warm = Warm::new(&lab);
            let bystander = encryptor(&warm.process.ring, "other", None).unwrap();
            lab.kms.set_failure(Some(kind));
            // Due, but not over.
            warm.process.clock.advance(lab.config.cache.max_age * 19 / 20);
            assert!(warm.seal_held().is_ok(), "nobody has asked yet");
            let result = if by_refresh { block_on(warm.process.ring.refresh()) } else { warm.open() };
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Kms(kind));
            // Without another call that could notice.
            for result in [warm.seal_held(), warm.open_held(), bystander.encrypt(Value::Text("x"), None).map(drop)] {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Kms(kind));
            }
            warm.assert_fails(ErrorKind::Kms(kind), "revoked");
            // An outage does not bring it back, an answer does.
            lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
            warm.assert_fails(ErrorKind::Kms(KmsErrorKind::Unavailable), "revoked, then away");
            lab.kms.set_failure(None);
            warm.assert_works("allowed again");
            // And the grace counts anew.
            lab.kms.set_failure(Some(KmsErrorKind::Unavailable));
            warm.process.clock.advance(lab.config.cache.max_age + lab.config.cache.grace - NANOSECOND);
            warm.assert_works("a grace after a refusal is a grace");
        }
    }
}

#[test]
fn every_other_failure_leaves_the_grace() {
    for &kind in KmsErrorKind::ALL.iter().filter(|kind| !REFUSALS.contains(kind)) {
        let lab = Lab::new();
        let warm = Warm::new(&lab);
        lab.kms.set_failure(Some(kind));
        warm.process.clock.advance(lab.config.cache.max_age + lab.config.cache.grace - NANOSECOND);
        warm.assert_works(kind.name());
    }
}

#[test]
fn a_key_that_is_destroyed_in_the_store_stops_at_its_renewal() {
    for state in [KeyState::DestroyPending, KeyState::Destroyed, KeyState::Compromised] {
        let lab = Lab::new();
        let warm = Warm::new(&lab);
        lab.store.plant(&record(&in_state(child_parts(data(DATA), root()), state)));
        warm.process.clock.advance(lab.config.cache.max_age * 19 / 20);
        assert_eq!(warm.open().unwrap_err().kind(), ErrorKind::KeyState, "{state:?}");
        for result in [warm.seal_held(), warm.open_held()] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::KeyState, "{state:?}");
        }
    }
}

#[test]
fn a_key_that_this_process_destroys_stops_at_once() {
    let lab = Lab::new();
    let warm = Warm::new(&lab);
    block_on(warm.process.ring.rotate_data_key(None)).unwrap();
    block_on(warm.process.ring.change_state(data(DATA).key_id(), KeyState::DestroyPending)).unwrap();
    assert_eq!(warm.open_held().unwrap_err().kind(), ErrorKind::KeyState);
    assert!(warm.seal().is_ok(), "the new key");
}

/// The numbers of docs/CACHE.md: from the moment at which a KEK is disabled to the last value that is sealed or opened.
// Failure A22
#[test]
fn revocation_takes_at_most_the_age_or_age_and_grace_if_nobody_answers() {
    let day = Duration::from_secs(86_400);
    let CachePolicy { max_age, grace, .. } = CachePolicy::default();
    assert_eq!((max_age, max_age + grace), (Duration::from_secs(10 * 60), Duration::from_secs(70 * 60)));
    for (answers, limit) in [(true, max_age), (false, max_age + grace)] {
        let mut slowest = Duration::ZERO;
        for _ in 0..8 {
            let lab = Lab::new();
            let warm = Warm::new(&lab);
            lab.kms.set_failure(Some(if answers { KmsErrorKind::KeyDisabled } else { KmsErrorKind::Unavailable }));
            let mut last = Duration::ZERO;
            let mut passed = Duration::ZERO;
            while passed < day / 12 {
                let results = warm.all();
                if results.iter().any(Result::is_ok) {
                    last = passed;
                }
                warm.process.clock.advance(Duration::from_secs(1));
                passed += Duration::from_secs(1);
            }
            slowest = slowest.max(last);
        }
        assert!(slowest < limit, "answers: {answers}, {slowest:?}");
        assert!(slowest > limit * 2 / 3, "answers: {answers}, {slowest:?}: the test measures something");
    }
}

// Failure B8
#[test]
fn a_clock_at_its_ends_panics_nobody_and_makes_no_key_last() {
    let mut lab = Lab::new();
    lab.config.cache = CachePolicy {
        max_age: CachePolicy::MAX_AGE,
        grace: CachePolicy::MAX_GRACE,
        max_idle: CachePolicy::MAX_AGE,
        ..lab.config.cache
    };
    let process = Process::quick(&lab, lab.config.clone());
    process.clock.set(Duration::ZERO);
    let sealed = seal(&process.ring, None, "x").unwrap();
    assert!(reveal(&process.ring, None, &sealed).is_ok());
    process.clock.set(Duration::from_nanos(u64::MAX));
    // A handle asks for a key that is usable now; the last nanosecond of 584 years belongs to nobody.
    assert_eq!(seal(&process.ring, None, "x").unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    process.clock.set(Duration::from_nanos(u64::MAX - 1));
    assert!(reveal(&process.ring, None, &sealed).is_ok());
    // A clock that goes back, against its contract, makes keys neither fresh nor immortal.
    process.clock.set(Duration::from_secs(1));
    assert!(reveal(&process.ring, None, &sealed).is_ok());
}
