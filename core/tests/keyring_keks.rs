//! Several KEKs per keyring: who is asked, in which order, after which answer, and who must wrap (DESIGN K7 to K11).

use crate::common::cache::TestClock;
use crate::common::lab::*;
use crate::common::regions::{Regions, Sink, wrapped_by};
use crate::common::{block_on, refused};
use keyfold::testing::FakeKms;
use keyfold::{
    AuditAction, BoxFuture, CachePolicy, Error, ErrorKind, KekPolicy, KekUse, KeyState, Keyring, KeyringConfig, Kms,
    KmsErrorKind, MemoryHighWater, Recovery, Result, RotationPolicy, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const REFUSALS: [KmsErrorKind; 3] = [KmsErrorKind::AccessDenied, KmsErrorKind::KeyDisabled, KmsErrorKind::KeyNotFound];
const WRONG_WRAPS: [KmsErrorKind; 2] = [KmsErrorKind::WrongKey, KmsErrorKind::InvalidCiphertext];

fn config(regions: &Regions, keks: KekPolicy) -> KeyringConfig {
    // A failure is remembered for a moment, as it is outside of a lab: nobody is asked twice in one call.
    KeyringConfig { keks, cache: CachePolicy::default(), ..regions.lab.config.clone() }
}

fn recovery(reason: Option<&str>) -> Option<Recovery> {
    Some(Recovery { reason: reason.map(str::to_owned) })
}

fn uses(uses: &[(&str, KekUse)]) -> BTreeMap<keyfold::KekAlias, KekUse> {
    uses.iter().map(|(name, use_)| (alias(name), *use_)).collect()
}

/// A KEK that fails in one way, which its test chooses.
#[derive(Debug)]
struct Failing(Error);

impl Kms for Failing {
    fn wrap<'a>(&'a self, _: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async { Err(self.0.clone()) })
    }

    fn unwrap<'a>(&'a self, _: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async { Err(self.0.clone()) })
    }
}

/// Whoever goes over many keys goes on where nothing changes by itself, and ends where a service is away, which comes back.
#[test]
fn that_a_service_is_away_is_told_whatever_another_kek_says() {
    let away = || Error::new(ErrorKind::Kms(KmsErrorKind::Unavailable), "it does not answer");
    let gone = || Error::new(ErrorKind::Kms(KmsErrorKind::Unavailable), "its file is missing").lasting();
    let told = |keks: [(&str, Error); 2], mode: Option<Recovery>| {
        let regions = Regions::new(&["a", "b"]);
        let sealed = seal(&regions.process(), None, "kept").unwrap();
        let keks = keks.map(|(name, error)| (alias(name), Arc::new(Failing(error)) as Arc<dyn Kms>));
        let config = config(&regions, KekPolicy { recovery: mode, ..KekPolicy::default() });
        let store = Arc::new(regions.lab.store.clone());
        let ring = Keyring::open(config, store, BTreeMap::from(keks), Arc::new(MemoryHighWater::default()));
        reveal(&ring.unwrap(), None, &sealed).unwrap_err()
    };
    for (one, other) in [("a", "b"), ("b", "a")] {
        let lasting: Vec<Error> = WRONG_WRAPS
            .iter()
            .map(|&kind| ErrorKind::Kms(kind).into())
            .chain([ErrorKind::Configuration.into(), gone()])
            .collect();
        for error in lasting {
            let heard = told([(one, error.clone()), (other, away())], None);
            assert!(heard.to_string().contains("does not answer") && !heard.is_lasting(), "{heard}");
            let heard = told([(one, error.clone()), (other, gone())], None);
            assert!(heard.is_lasting(), "{heard}");
            // A wrap that was changed does not hide behind a KEK that is not on this machine.
            let is_wrap = WRONG_WRAPS.iter().any(|&kind| error.kind() == ErrorKind::Kms(kind));
            assert!(!is_wrap || heard.kind() == error.kind(), "{heard}");
        }
        // A refusal ends the grace of caches, so that it is told all the same; but it is not the last word.
        for kind in REFUSALS {
            let refusal = || ErrorKind::Kms(kind).into();
            let heard = told([(one, refusal()), (other, away())], recovery(None));
            assert_eq!((heard.kind(), heard.is_lasting()), (ErrorKind::Kms(kind), false), "{heard}");
            assert!(heard.detail().ends_with("another KEK of the key did not answer"), "{heard}");
            let heard = told([(one, refusal()), (other, gone())], recovery(None));
            assert_eq!((heard.kind(), heard.is_lasting()), (ErrorKind::Kms(kind), true), "{heard}");
        }
    }
}

/// Covers KC-40.
// Failure A25
#[test]
fn every_answer_decides_who_is_asked_next() {
    for kind in KmsErrorKind::ALL.iter().copied() {
        let regions = Regions::new(&["a", "b"]);
        let sealed = seal(&regions.process(), None, "kept").unwrap();
        regions.asked();
        regions.fail("a", Some(kind));
        let ring = regions.process_with(config(&regions, KekPolicy::default()));
        let sink = Sink::of(&ring);
        let opened = reveal(&ring, None, &sealed);
        if REFUSALS.contains(&kind) {
            assert_eq!(refused(opened, kind.name()), ErrorKind::Kms(kind));
            assert_eq!(regions.asked(), ["a"], "{}: no other is asked", kind.name());
        } else {
            assert_eq!(opened.unwrap().0, "kept", "{}", kind.name());
            assert_eq!(regions.asked(), ["a", "b"], "{}", kind.name());
        }
        assert!(sink.take(AuditAction::Recovery).is_empty(), "{}: nothing unusual", kind.name());
        // In recovery mode the others are asked whatever one says, and a refusal that was passed over is recorded.
        let ring =
            regions.process_with(config(&regions, KekPolicy { recovery: recovery(None), ..KekPolicy::default() }));
        let sink = Sink::of(&ring);
        assert_eq!(reveal(&ring, None, &sealed).unwrap().0, "kept", "{}", kind.name());
        let events = sink.take(AuditAction::Recovery);
        assert_eq!(events.len(), usize::from(REFUSALS.contains(&kind)), "{}", kind.name());
        if let [event] = &events[..] {
            assert_eq!((event.kek.as_ref(), event.key_id), (Some(&alias("b")), Some(root().key_id())));
            assert!(event.error.is_none() && event.latency.is_some());
        }
    }
}

#[test]
fn those_that_were_away_lately_are_asked_last_until_that_fades() {
    let regions = Regions::new(&["a", "b", "c"]);
    let clock = TestClock::new();
    let ring = regions.process_at(regions.lab.config.clone(), &clock);
    let sealed = seal(&ring, None, "kept").unwrap();
    let asked = |what: &str| {
        regions.asked();
        ring.invalidate();
        assert!(reveal(&ring, None, &sealed).is_ok(), "{what}");
        regions.asked()
    };
    assert_eq!(asked("healthy"), ["a"]);
    regions.fail("a", Some(KmsErrorKind::Timeout));
    assert_eq!(asked("a fails"), ["a", "b"]);
    assert_eq!(asked("b is healthier"), ["b"]);
    regions.fail("b", Some(KmsErrorKind::Throttled));
    assert_eq!(asked("c is the healthiest"), ["b", "c"]);
    // All are ill: in the order of the record again.
    regions.fail("c", Some(KmsErrorKind::Unavailable));
    ring.invalidate();
    regions.asked();
    assert!(reveal(&ring, None, &sealed).is_ok(), "the outage grace");
    assert_eq!(regions.asked(), ["c", "a", "b"]);
    regions.fail_all(None);
    assert_eq!(asked("a answers, and is well again"), ["a"]);
    assert_eq!(asked("a is well"), ["a"]);
    regions.fail("a", Some(KmsErrorKind::Timeout));
    clock.advance(Duration::from_secs(301));
    assert_eq!(asked("a fails again"), ["a", "b"]);
    clock.advance(Duration::from_secs(29));
    assert_eq!(asked("29 s later"), ["b"]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(asked("30 s later"), ["a", "b"], "asked in the order of the record again");
    clock.advance(Duration::from_secs(59));
    assert_eq!(asked("59 s later"), ["b"], "twice as long the second time");
    // A wrap that is wrong says nothing of the service.
    regions.fail_all(None);
    clock.advance(Duration::from_secs(301));
    regions.fail("a", Some(KmsErrorKind::InvalidCiphertext));
    assert_eq!(asked("a wrong wrap"), ["a", "b"]);
    assert_eq!(asked("the order stays"), ["a", "b"]);
}

#[test]
fn a_refusal_is_what_the_caller_hears_and_ends_the_grace() {
    let regions = Regions::new(&["a", "b", "c"]);
    for recovery_on in [false, true] {
        regions.fail_all(None);
        let keks = KekPolicy { recovery: recovery(None).filter(|_| recovery_on), ..KekPolicy::default() };
        let ring = regions.process_with(config(&regions, keks));
        let sealed = seal(&ring, None, "kept").unwrap();
        regions.fail("a", Some(KmsErrorKind::Unavailable));
        regions.fail("b", Some(KmsErrorKind::KeyDisabled));
        regions.fail("c", Some(KmsErrorKind::Timeout));
        ring.invalidate();
        let error = reveal(&ring, None, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::KeyDisabled), "{error}");
        assert!(error.to_string().contains("KEK b"), "{error}");
        // An outage of all is waited out.
        regions.fail_all(None);
        let ring = regions.process();
        assert!(reveal(&ring, None, &sealed).is_ok());
        regions.fail_all(Some(KmsErrorKind::Unavailable));
        ring.invalidate();
        assert!(reveal(&ring, None, &sealed).is_ok());
    }
}

/// Even of one that was marked compromised before it sealed: only a KEK can show that the store has not made it up.
#[test]
fn while_a_kek_refuses_a_newer_root_no_key_is_made_and_those_that_are_there_seal_on() {
    let mut lab = Lab::new();
    lab.config.rotation.lead = Duration::from_secs(600);
    let far = FakeKms::new();
    let process = |keks: KekPolicy| {
        let mut both = lab.keks();
        // Asked before the one that wraps the present root.
        both.insert(alias("far"), Arc::new(far.clone()));
        let config = KeyringConfig { keks, ..lab.config.clone() };
        Keyring::open(config, Arc::new(lab.store.clone()), both, Arc::new(lab.marks.clone())).unwrap()
    };
    let ring = process(KekPolicy::default());
    let root = block_on(ring.rotate_root()).unwrap().new.key_id();
    block_on(ring.change_state(root, KeyState::Compromised)).unwrap();
    let denied = KmsErrorKind::AccessDenied;
    far.set_failure(Some(denied));
    let ring = process(KekPolicy::default());
    let before = lab.store.all();
    assert_eq!(key_id_of(&seal(&ring, None, "x").unwrap()), data(DATA).key_id());
    assert_eq!(refused(block_on(ring.rotate_data_key(None)), "rotating"), ErrorKind::Kms(denied));
    assert_eq!(refused(seal(&ring, Some("clinic"), "x"), "a new scope"), ErrorKind::Kms(denied));
    assert_eq!(lab.store.all(), before);
    let ring = process(KekPolicy { recovery: recovery(None), ..KekPolicy::default() });
    block_on(ring.rotate_data_key(None)).unwrap();
    far.set_failure(None);
    assert!(seal(&process(KekPolicy::default()), Some("clinic"), "x").is_ok());
}

#[test]
fn keks_for_recovery_are_asked_in_recovery_mode_alone_and_last() {
    let regions = Regions::new(&["glass", "offline", "z"]);
    let policy = KekPolicy {
        uses: uses(&[("glass", KekUse::BreakGlass), ("offline", KekUse::Recovery)]),
        ..KekPolicy::default()
    };
    let sealed = seal(&regions.process_with(config(&regions, policy.clone())), None, "kept").unwrap();
    assert_eq!(regions.asked(), ["z"]);
    regions.fail("z", Some(KmsErrorKind::Unavailable));
    let ring = regions.process_with(config(&regions, policy.clone()));
    assert_eq!(refused(reveal(&ring, None, &sealed), "away"), ErrorKind::Kms(KmsErrorKind::Unavailable));
    assert_eq!(regions.asked(), ["z"]);
    for reason in [None, Some(""), Some("  "), Some("region away, ticket 7")] {
        regions.fail("offline", Some(KmsErrorKind::Credentials));
        let policy = KekPolicy { recovery: recovery(reason), ..policy.clone() };
        let ring = regions.process_with(config(&regions, policy.clone()));
        let sink = Sink::of(&ring);
        let opened = reveal(&ring, None, &sealed);
        let given = reason.is_some_and(|reason| !reason.trim().is_empty());
        assert_eq!(opened.is_ok(), given, "{reason:?}");
        let asked: &[&str] = if given { &["z", "offline", "glass"] } else { &["z", "offline"] };
        assert_eq!(regions.asked(), asked);
        let failed = sink.take(AuditAction::Recovery);
        assert_eq!(failed[0].kek, Some(alias("offline")));
        assert_eq!(failed[0].error, Some(ErrorKind::Kms(KmsErrorKind::Credentials)));
        let broken = sink.take(AuditAction::BreakGlass);
        assert_eq!(broken.len(), usize::from(given));
        assert!(broken.iter().all(|event| event.reason.as_deref() == reason && event.error.is_none()));
        // Not needed as long as the other one is there.
        regions.fail("offline", None);
        let ring = regions.process_with(config(&regions, policy));
        assert!(reveal(&ring, None, &sealed).is_ok());
        assert_eq!(regions.asked(), ["z", "offline"]);
    }
    // Only KEKs for recovery wrap the key: the error says what is missing.
    let mut keks = regions.keks();
    keks.remove(&alias("z"));
    let ring = keyfold::Keyring::open(
        config(&regions, policy),
        std::sync::Arc::new(regions.lab.store.clone()),
        keks,
        std::sync::Arc::new(regions.lab.marks.clone()),
    );
    let error = reveal(&ring.unwrap(), None, &sealed).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PolicyRefused);
    assert!(error.to_string().contains("recovery mode"), "{error}");
}

#[test]
fn a_use_that_cannot_be_recorded_does_not_happen() {
    let regions = Regions::new(&["a", "glass"]);
    let policy = KekPolicy {
        uses: uses(&[("glass", KekUse::BreakGlass)]),
        recovery: recovery(Some("drill")),
        ..KekPolicy::default()
    };
    let sealed = seal(&regions.process(), None, "kept").unwrap();
    regions.fail("a", Some(KmsErrorKind::Unavailable));
    let ring = regions.process_with(config(&regions, policy));
    let sink = Sink::of(&ring);
    sink.full.store(true, Ordering::SeqCst);
    assert_eq!(refused(reveal(&ring, None, &sealed), "not recorded"), ErrorKind::Io);
    sink.full.store(false, Ordering::SeqCst);
    assert!(reveal(&ring, None, &sealed).is_ok());
    assert_eq!(sink.take(AuditAction::BreakGlass).len(), 1);
}

#[test]
fn a_new_root_needs_every_kek_or_the_quorum() {
    for kind in KmsErrorKind::ALL.iter().copied() {
        for quorum in [None, Some(1), Some(2), Some(3)] {
            let regions = Regions::new(&["a", "b", "c"]);
            regions.fail("b", Some(kind));
            let before = regions.lab.store.all();
            let policy = KekPolicy { quorum, ..KekPolicy::default() };
            let ring = regions.process_with(config(&regions, policy));
            let rotated = block_on(ring.rotate_root());
            let away = !REFUSALS.contains(&kind) && !WRONG_WRAPS.contains(&kind);
            let what = format!("{} with {quorum:?}", kind.name());
            if away && quorum.is_some_and(|quorum| quorum < 3) {
                let new = rotated.unwrap().new;
                assert_eq!(wrapped_by(&new), ["a", "c"], "{what}");
                assert_eq!(ring.missing_keks(&new), [alias("b")], "{what}");
            } else {
                assert_eq!(refused(rotated, &what), ErrorKind::Kms(kind));
                assert!(regions.lab.store.all() == before, "{what}: something was stored");
            }
        }
    }
}

#[test]
fn never_fewer_than_one_and_a_wrap_that_does_not_unwrap_counts_for_nothing() {
    let regions = Regions::new(&["a", "b"]);
    let policy = KekPolicy { quorum: Some(1), ..KekPolicy::default() };
    let ring = regions.process_with(config(&regions, policy));
    seal(&ring, None, "kept").unwrap();
    regions.fail_all(Some(KmsErrorKind::Unavailable));
    assert_eq!(refused(block_on(ring.rotate_root()), "none"), ErrorKind::Kms(KmsErrorKind::Unavailable));
    regions.fail_all(None);
    regions.services["b"].set_wrong_payload(true);
    let kind = refused(block_on(ring.rotate_root()), "a wrong wrap");
    assert_eq!(kind, ErrorKind::Kms(KmsErrorKind::InvalidCiphertext));
    assert_eq!(regions.lab.store.of_slot(slot(keyfold::KeyClass::Root, keyfold::SlotId::NONE)).len(), 1);
}

#[test]
fn a_compromised_kek_opens_and_wraps_nothing_more() {
    let regions = Regions::new(&["a", "b"]);
    let policy = KekPolicy { compromised: BTreeSet::from([alias("a")]), ..KekPolicy::default() };
    let ring = regions.process_with(config(&regions, policy));
    let sealed = seal(&ring, None, "kept").unwrap();
    let new = block_on(ring.rotate_root()).unwrap().new;
    assert_eq!(wrapped_by(&new), ["b"]);
    assert!(ring.missing_keks(&new).is_empty());
    regions.fail("b", Some(KmsErrorKind::Unavailable));
    assert_eq!(reveal(&regions.process(), None, &sealed).unwrap().0, "kept");
    assert_eq!(regions.services["a"].wrap_count(), 1, "the lab's own");
}

#[test]
fn a_kek_of_the_present_root_that_is_not_configured_is_never_left_out_by_itself() {
    let mut regions = Regions::new(&["a", "b", "c"]);
    regions.services.remove("c");
    for quorum in [None, Some(1)] {
        let ring = regions.process_with(config(&regions, KekPolicy { quorum, ..KekPolicy::default() }));
        let error = block_on(ring.rotate_root()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PolicyRefused);
        assert_eq!(error.detail(), "c");
    }
    let ring = regions.process_with(config(&regions, KekPolicy { quorum: Some(3), ..KekPolicy::default() }));
    let error = block_on(ring.rotate_root_without(&[alias("c")])).unwrap_err();
    assert!(error.kind() == ErrorKind::PolicyRefused && error.to_string().contains("quorum"), "{error}");
    let ring = regions.process();
    assert_eq!(wrapped_by(&block_on(ring.rotate_root_without(&[alias("c")])).unwrap().new), ["a", "b"]);
}

#[test]
fn an_isolated_scope_with_a_quorum_is_repaired_and_not_rotated() {
    const SCOPE: &str = "clinic";
    let regions = Regions::new(&["a", "b", "c"]);
    let isolated = BTreeMap::from([(SCOPE.to_owned(), ["a", "b", "c"].map(alias).to_vec())]);
    let with = |quorum, compromised: &[&str]| KeyringConfig {
        isolated: isolated.clone(),
        rotation: RotationPolicy { data_age: None, ..RotationPolicy::default() },
        cache: CachePolicy { negative: Duration::ZERO, ..CachePolicy::default() },
        ..config(
            &regions,
            KekPolicy {
                quorum,
                compromised: compromised.iter().map(|name| alias(name)).collect(),
                ..KekPolicy::default()
            },
        )
    };
    regions.fail("b", Some(KmsErrorKind::Unavailable));
    let ring = regions.process_with(with(Some(2), &[]));
    let sealed = seal(&ring, Some(SCOPE), "kept").unwrap();
    assert_eq!(wrapped_by(&regions.lab.store.find(key_id_of(&sealed))), ["a", "c"]);
    regions.fail("b", None);
    // With and without the missing KEK the same key seals on.
    for _ in 0..2 {
        let again = seal(&regions.process_with(with(Some(2), &[])), Some(SCOPE), "kept").unwrap();
        assert_eq!(key_id_of(&again), key_id_of(&sealed));
    }
    let mut walk =
        block_on(regions.process_with(with(Some(2), &[])).rewrap(keyfold::RewrapOptions::default())).unwrap();
    while !block_on(walk.step(10)).unwrap().done {}
    assert_eq!(wrapped_by(&regions.lab.store.find(key_id_of(&sealed))), ["a", "c", "b"]);
    // A KEK of the scope that has leaked has the key: another one seals from now on, without it.
    let again = seal(&regions.process_with(with(None, &["c"])), Some(SCOPE), "kept").unwrap();
    assert_ne!(key_id_of(&again), key_id_of(&sealed));
    assert_eq!(wrapped_by(&regions.lab.store.find(key_id_of(&again))), ["a", "b"]);
    assert_eq!(reveal(&regions.process_with(with(None, &["c"])), Some(SCOPE), &sealed).unwrap().0, "kept");
}

#[test]
fn no_key_is_made_that_only_keks_for_recovery_wrap() {
    let regions = Regions::new(&["a", "offline"]);
    let policy = KekPolicy { uses: uses(&[("offline", KekUse::Recovery)]), quorum: Some(1), ..KekPolicy::default() };
    let ring = regions.process_with(config(&regions, policy.clone()));
    seal(&ring, None, "kept").unwrap();
    regions.services["a"].set_failure(Some(KmsErrorKind::Throttled));
    let error = block_on(ring.rotate_root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Throttled), "{error}");
    regions.fail_all(None);
    let policy = KekPolicy { retired: std::iter::once(alias("a")).collect(), ..policy };
    let ring = regions.process_with(config(&regions, policy));
    assert_eq!(refused(block_on(ring.rotate_root()), "offline alone"), ErrorKind::PolicyRefused);
}
