//! Rewrapping: the same keys under other KEKs, whatever happens on the way (DESIGN K11, K14).

use crate::common::lab::*;
use crate::common::regions::{Regions, Sink, wrapped_by};
use crate::common::{block_on, refused};
use keyfold::{
    AuditAction, ErrorKind, KekPolicy, KekUse, KeyClass, KeyState, Keyring, KeyringConfig, KmsErrorKind, Record,
    Result, Rewrap, RewrapOptions, RewrapPlan, RewrapProgress, SlotId,
};
use std::collections::{BTreeMap, BTreeSet};

const ISOLATED: &str = "tenant";

/// Sealed values, each with its scope.
type Values = Vec<(Option<&'static str>, Vec<u8>)>;

/// Wrapped by `a` and `b`, with a second root and an isolated scope under `a`.
fn regions() -> (Regions, KeyringConfig, Values) {
    let regions = Regions::new(&["a", "b"]);
    let mut config = regions.lab.config.clone();
    config.isolated = BTreeMap::from([(ISOLATED.to_owned(), vec![alias("a")])]);
    let ring = regions.process_with(config.clone());
    let mut values = vec![(None, seal(&ring, None, "kept").unwrap())];
    values.push((Some("clinic"), seal(&ring, Some("clinic"), "kept").unwrap()));
    values.push((Some(ISOLATED), seal(&ring, Some(ISOLATED), "kept").unwrap()));
    block_on(ring.rotate_root()).unwrap();
    values.push((Some("device"), seal(&ring, Some("device"), "kept").unwrap()));
    (regions, config, values)
}

fn options(renew: &[&str], drop: &[&str]) -> RewrapOptions {
    let set = |names: &[&str]| names.iter().map(|name| alias(name)).collect();
    RewrapOptions { renew: set(renew), drop: set(drop) }
}

fn to_end(walk: &mut Rewrap) -> Result<RewrapProgress> {
    loop {
        let progress = block_on(walk.step(3))?;
        if progress.done {
            return Ok(progress);
        }
    }
}

fn rewrap(ring: &Keyring, options: &RewrapOptions) -> Result<RewrapProgress> {
    to_end(&mut block_on(ring.rewrap(options.clone()))?)
}

fn plan(ring: &Keyring, options: &RewrapOptions) -> RewrapPlan {
    block_on(async { ring.rewrap(options.clone()).await?.plan().await }).unwrap()
}

/// A plan refuses what the walk would end with.
#[test]
fn there_is_no_plan_for_a_root_that_no_kek_opens() {
    let mut regions = Regions::new(&["a"]);
    regions.services.remove("a");
    regions.add("c");
    let ring = regions.process();
    let planned = block_on(async { ring.rewrap(RewrapOptions::default()).await?.plan().await });
    let walked = rewrap(&ring, &RewrapOptions::default());
    assert_eq!(refused(planned, "the plan"), ErrorKind::Configuration);
    assert_eq!(refused(walked, "the walk"), ErrorKind::Configuration);
    // Nor where it is not asked in the present mode.
    let mut regions = Regions::new(&["a"]);
    regions.add("c");
    let uses = BTreeMap::from([(alias("a"), KekUse::Recovery)]);
    let keks = KekPolicy { uses, ..KekPolicy::default() };
    let ring = regions.process_with(KeyringConfig { keks, ..regions.lab.config.clone() });
    let planned = block_on(async { ring.rewrap(RewrapOptions::default()).await?.plan().await });
    assert_eq!(refused(planned, "the plan"), ErrorKind::PolicyRefused);
    assert_eq!(refused(rewrap(&ring, &RewrapOptions::default()), "the walk"), ErrorKind::PolicyRefused);
}

fn roots(regions: &Regions) -> Vec<Record> {
    regions.lab.store.of_slot(slot(KeyClass::Root, SlotId::NONE))
}

fn assert_all_open(ring: &Keyring, values: &[(Option<&str>, Vec<u8>)]) {
    for (scope, sealed) in values {
        assert_eq!(reveal(ring, *scope, sealed).unwrap().0, "kept", "{scope:?}");
    }
}

/// The requests of `work`, per KEK: (wraps, unwraps).
fn requests(regions: &Regions, work: impl FnOnce()) -> BTreeMap<&'static str, (u64, u64)> {
    let before = regions.calls();
    work();
    let after = regions.calls();
    let spent = after.into_iter().map(|(name, (wraps, unwraps))| {
        let (w, u) = before.get(name).copied().unwrap_or_default();
        (name, (wraps - w, unwraps - u))
    });
    spent.filter(|(_, calls)| *calls != (0, 0)).collect()
}

fn planned(plan: &RewrapPlan) -> BTreeMap<String, (u64, u64)> {
    plan.calls.iter().map(|(alias, c)| (alias.to_string(), (c.wraps, c.unwraps + c.verifies))).collect()
}

/// These are to go.
fn retired(names: &[&str]) -> KekPolicy {
    KekPolicy { retired: names.iter().map(|name| alias(name)).collect(), ..KekPolicy::default() }
}

/// A new KEK in the place of an old one: `c` for `a`.
fn exchange(regions: &mut Regions, config: &KeyringConfig) -> (KeyringConfig, RewrapOptions) {
    regions.add("c");
    let isolated = BTreeMap::from([(ISOLATED.to_owned(), vec![alias("c")])]);
    (KeyringConfig { isolated, keks: retired(&["a"]), ..config.clone() }, options(&[], &["a"]))
}

#[test]
fn a_kek_is_exchanged_and_everything_opens_without_the_old_one() {
    let (mut regions, config, values) = regions();
    let (config, options) = exchange(&mut regions, &config);
    let before = regions.lab.store.all();
    let planned_calls = plan(&regions.process_with(config.clone()), &options);
    assert!(regions.lab.store.all() == before, "a plan changes nothing");
    let ring = regions.process_with(config.clone());
    let sink = Sink::of(&ring);
    let mut progress = RewrapProgress::default();
    // What whose isolated scope it is costs is not a part of the walk.
    let mut walk = block_on(ring.rewrap(options.clone())).unwrap();
    let spent = requests(&regions, || progress = to_end(&mut walk).unwrap());
    let spent: BTreeMap<_, _> = spent.into_iter().map(|(name, calls)| (name.to_owned(), calls)).collect();
    assert_eq!(spent, planned(&planned_calls));
    assert_eq!((planned_calls.records, progress.changed), (3, 3), "two roots and the isolated key");
    assert_eq!((progress.added, progress.renewed, progress.dropped), (3, 0, 3));
    assert_eq!((planned_calls.added, planned_calls.dropped), (3, 3));
    assert_eq!(progress.seen, planned_calls.seen);
    assert_eq!(sink.take(AuditAction::Rewrap).len(), 3);
    // The rest was not touched: neither its bytes nor its sequence.
    for old in &before {
        let new = regions.lab.store.find(old.key_id());
        let changed = old.class() == KeyClass::Root || old.is_isolated();
        assert_eq!(new != *old, changed, "{old:?}");
        if changed {
            assert_eq!(new.sequence(), old.sequence() + 1);
            assert_eq!((new.state(), new.commitment()), (old.state(), old.commitment()));
        }
    }
    for root in roots(&regions) {
        assert_eq!(wrapped_by(&root), ["b", "c"]);
    }
    // Without `a`, by each of the others alone; the endorsement of the second root holds as well.
    regions.services.remove("a");
    for gone in ["b", "c"] {
        regions.fail_all(None);
        if gone == "b" {
            regions.fail("b", Some(KmsErrorKind::Unavailable));
        }
        assert_all_open(&regions.process_with(config.clone()), &values);
    }
    let again = rewrap(&regions.process_with(config), &options);
    assert_eq!(refused(again, "neither configured nor in use"), ErrorKind::Configuration);
}

#[test]
fn a_repair_makes_up_for_whoever_was_away() {
    let regions = Regions::new(&["a", "b"]);
    let config =
        KeyringConfig { keks: KekPolicy { quorum: Some(1), ..KekPolicy::default() }, ..regions.lab.config.clone() };
    let ring = regions.process_with(config.clone());
    let sealed = seal(&ring, None, "kept").unwrap();
    regions.fail("a", Some(KmsErrorKind::Timeout));
    let new = block_on(ring.rotate_root()).unwrap().new;
    assert_eq!(ring.missing_keks(&new), [alias("a")]);
    // Still away: nothing is lost, and the walk says who it was.
    let ring = regions.process_with(config.clone());
    let mut walk = block_on(ring.rewrap(RewrapOptions::default())).unwrap();
    assert_eq!(to_end(&mut walk).unwrap().changed, 0);
    assert_eq!(walk.failures()[&alias("a")].kind(), ErrorKind::Kms(KmsErrorKind::Timeout));
    regions.fail("a", None);
    let ring = regions.process_with(config.clone());
    let calls = plan(&ring, &RewrapOptions::default());
    // One to unwrap the new root, one to unwrap the first, which endorses it.
    assert_eq!((calls.total(), calls.records), (4, 1));
    let spent = requests(&regions, || assert_eq!(rewrap(&ring, &RewrapOptions::default()).unwrap().added, 1));
    assert_eq!(spent, BTreeMap::from([("a", (1, 2)), ("b", (0, 1))]));
    let repaired = regions.root_record();
    assert!(ring.missing_keks(&repaired).is_empty());
    regions.fail("b", Some(KmsErrorKind::Unavailable));
    let ring = regions.process_with(config);
    block_on(ring.drill(&keyfold::Drill::Only(alias("a")))).unwrap()[0].outcome.clone().unwrap();
    regions.fail("b", None);
    assert_eq!(reveal(&regions.process(), None, &sealed).unwrap().0, "kept");
}

#[test]
fn wraps_are_made_anew_once_per_version() {
    let (regions, config, values) = regions();
    regions.services["a"].set_version("2");
    let ring = regions.process_with(config.clone());
    let options = options(&["a"], &[]);
    let mut walk = block_on(ring.rewrap(options.clone())).unwrap();
    // Stopped after the first root, and begun anew.
    block_on(walk.step(1)).unwrap();
    assert_eq!(walk.progress().renewed, 1);
    let progress = rewrap(&regions.process_with(config.clone()), &options).unwrap();
    assert_eq!((progress.renewed, progress.changed), (2, 2), "the other root and the isolated key");
    assert_all_open(&regions.process_with(config.clone()), &values);
    let spent = requests(&regions, || {
        assert_eq!(rewrap(&regions.process_with(config.clone()), &options).unwrap().renewed, 0);
    });
    // To see that there is nothing to do one fresh wrap suffices. The rest opens roots.
    assert_eq!(spent["a"].0, 1);
    // A service that names no version is believed to have a new one each time.
    regions.services["a"].set_version("");
    for _ in 0..2 {
        assert_eq!(rewrap(&regions.process_with(config.clone()), &options).unwrap().renewed, 3);
    }
    assert_all_open(&regions.process_with(config), &values);
}

#[test]
fn requests_do_not_depend_on_how_many_scopes_there_are() {
    let mut costs = Vec::new();
    for scopes in [0, 20, 2000] {
        let mut regions = Regions::new(&["a", "b"]);
        for scope in 0..scopes {
            regions.lab.add_scope(&format!("scope{scope}"), 100 + scope);
        }
        regions.add("c");
        let ring = regions.process_with(KeyringConfig { keks: retired(&["a"]), ..regions.lab.config.clone() });
        let options = options(&[], &["a"]);
        let plan = plan(&ring, &options);
        let spent = requests(&regions, || {
            let mut walk = block_on(ring.rewrap(options.clone())).unwrap();
            while !block_on(walk.step(500)).unwrap().done {}
            assert_eq!(walk.progress().seen, u64::from(scopes) + 6);
        });
        assert_eq!(plan.seen, u64::from(scopes) + 6);
        let total: u64 = spent.values().map(|(wraps, unwraps)| wraps + unwraps).sum();
        assert_eq!(total, plan.total());
        costs.push(spent);
    }
    // One to unwrap the root, one to wrap it and one to verify that, and one to prove the wrap that stays.
    assert_eq!(costs[0], BTreeMap::from([("a", (0, 1)), ("b", (0, 1)), ("c", (1, 1))]));
    assert!(costs.iter().all(|cost| *cost == costs[0]), "{costs:?}");
}

#[test]
fn whatever_call_fails_everything_opens_and_resuming_finishes() {
    for after in [false, true] {
        let mut n = 0;
        loop {
            n += 1;
            let (mut regions, config, values) = regions();
            let (config, options) = exchange(&mut regions, &config);
            regions.lab.faults.fail_nth(n, after);
            let _ = rewrap(&regions.process_with(config.clone()), &options);
            let failed = regions.lab.faults.calls() >= n;
            regions.lab.faults.off();
            assert_all_open(&regions.process_with(config.clone()), &values);
            for root in roots(&regions) {
                assert!(wrapped_by(&root).len() >= 2, "call {n}: a wrap went before another came");
            }
            let mut walk = block_on(regions.process_with(config.clone()).rewrap(options.clone())).unwrap();
            let progress = to_end(&mut walk).unwrap();
            assert!(walk.failures().is_empty() && progress.unopened == 0 && progress.kept == 0, "call {n}");
            assert!(roots(&regions).iter().all(|root| wrapped_by(root) == ["b", "c"]), "call {n}, after {after}");
            assert_eq!(wrapped_by(&regions.lab.store.find(key_id_of(&values[2].1))), ["c"]);
            regions.services.remove("a");
            assert_all_open(&regions.process_with(config), &values);
            if !failed {
                break;
            }
        }
        assert!(n > 30, "{n} calls");
    }
}

#[test]
fn two_walks_at_once_and_changes_meanwhile_lose_nothing() {
    let (mut regions, config, values) = regions();
    let (config, options) = exchange(&mut regions, &config);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| rewrap(&regions.process_with(config.clone()), &options).unwrap());
        }
        scope.spawn(|| block_on(regions.process_with(config.clone()).rotate_data_key(None)).unwrap());
    });
    assert!(roots(&regions).iter().all(|root| wrapped_by(root) == ["b", "c"]));
    // Somebody else changes a root right after it was changed, and makes another one.
    regions.services.remove("a");
    let ring = regions.process_with(config.clone());
    regions.add("d");
    let newest = regions.root_record();
    let mut walk = block_on(regions.process_with(config.clone()).rewrap(RewrapOptions::default())).unwrap();
    block_on(walk.step(1)).unwrap();
    block_on(ring.rotate_root_without(&[alias("d")])).unwrap();
    assert!(to_end(&mut walk).unwrap().done);
    let old = regions.lab.store.find(newest.key_id());
    assert_eq!(old.state(), KeyState::Deactivated);
    // The root that was made meanwhile is met at the end of the walk.
    assert!(roots(&regions).iter().all(|root| wrapped_by(root) == ["b", "c", "d"]));
    assert_all_open(&regions.process_with(config), &values);
}

#[test]
fn no_wrap_goes_unless_the_others_are_proven() {
    let (mut regions, config, values) = regions();
    let (config, options) = exchange(&mut regions, &config);
    for (name, kind) in
        [("b", KmsErrorKind::Timeout), ("c", KmsErrorKind::AccessDenied), ("b", KmsErrorKind::KeyDisabled)]
    {
        regions.fail_all(None);
        regions.fail(name, Some(kind));
        let mut walk = block_on(regions.process_with(config.clone()).rewrap(options.clone())).unwrap();
        let progress = to_end(&mut walk).unwrap();
        assert_eq!(walk.failures()[&alias(name)].kind(), ErrorKind::Kms(kind));
        assert!(progress.kept >= 2, "{progress:?}");
        assert!(roots(&regions).iter().all(|root| wrapped_by(root).contains(&"a")));
        regions.fail_all(None);
        assert_all_open(&regions.process_with(config.clone()), &values);
    }
    // With a quorum of one the KEK that answers is enough.
    regions.fail("b", Some(KmsErrorKind::Timeout));
    let quorum = KeyringConfig { keks: KekPolicy { quorum: Some(1), ..config.keks.clone() }, ..config };
    assert_eq!(rewrap(&regions.process_with(quorum.clone()), &options).unwrap().kept, 0);
    regions.fail_all(None);
    regions.services.remove("a");
    assert_all_open(&regions.process_with(quorum), &values);
}

#[test]
fn the_last_kek_that_is_always_asked_stays() {
    let regions = Regions::new(&["a", "offline"]);
    let uses = BTreeMap::from([(alias("offline"), KekUse::Recovery)]);
    let keks = KekPolicy { uses, ..retired(&["a", "offline"]) };
    let ring = regions.process_with(KeyringConfig { keks, ..regions.lab.config.clone() });
    assert_eq!(refused(rewrap(&ring, &options(&[], &["a"])), "the last"), ErrorKind::PolicyRefused);
    assert_eq!(refused(rewrap(&ring, &options(&[], &["a", "offline"])), "both"), ErrorKind::PolicyRefused);
    assert_eq!(refused(rewrap(&ring, &options(&["a"], &["a"])), "both ways"), ErrorKind::InvalidInput);
    assert_eq!(refused(rewrap(&ring, &options(&["x"], &[])), "unknown"), ErrorKind::Configuration);
    let keks = KekPolicy { uses: BTreeMap::from([(alias("offline"), KekUse::Recovery)]), ..retired(&["offline"]) };
    let ring = regions.process_with(KeyringConfig { keks, ..regions.lab.config.clone() });
    assert_eq!(rewrap(&ring, &options(&[], &["offline"])).unwrap().dropped, 1);
}

#[test]
fn after_a_compromise_it_does_not_pretend_to_help() {
    let (mut regions, config, values) = regions();
    let (config, drop_a) = exchange(&mut regions, &config);
    let compromised = KeyringConfig {
        keks: KekPolicy { compromised: BTreeSet::from([alias("a")]), ..config.keks.clone() },
        ..config.clone()
    };
    let before = regions.lab.store.all();
    let ring = regions.process_with(compromised.clone());
    for options in [&drop_a, &options(&["b"], &[]), &options(&[], &["b"])] {
        let error = rewrap(&ring, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PolicyRefused);
        assert!(error.to_string().contains("keys rotate --root --drop-kek"), "{error}");
    }
    assert!(regions.lab.store.all() == before);
    // A repair takes nothing back and promises nothing: it keeps the keys within reach while data is sealed again.
    assert!(rewrap(&ring, &RewrapOptions::default()).unwrap().added > 0);
    assert!(roots(&regions).iter().all(|root| wrapped_by(root) == ["a", "b", "c"]));
    // A root that is compromised, whatever its KEKs.
    let new = block_on(ring.rotate_root()).unwrap().new;
    assert_eq!(wrapped_by(&new), ["b", "c"]);
    let mut pins = config.root_pins.clone();
    pins.push(*new.commitment());
    pins.extend(roots(&regions).iter().map(|root| *root.commitment()));
    let compromised = KeyringConfig { root_pins: pins, ..compromised };
    let ring = regions.process_with(compromised.clone());
    let mut walk = block_on(ring.reparent()).unwrap();
    while !block_on(walk.step(100)).unwrap().done {}
    let old: Vec<_> = roots(&regions).iter().map(Record::key_id).filter(|key_id| *key_id != new.key_id()).collect();
    for key_id in &old {
        block_on(ring.change_state(*key_id, KeyState::Compromised)).unwrap();
    }
    let error = rewrap(&ring, &options(&["b"], &[])).unwrap_err();
    assert!(error.kind() == ErrorKind::PolicyRefused && error.detail().contains("root"), "{error}");
    // When the procedure is through, nothing that counts is tainted.
    for key_id in &old {
        block_on(ring.change_state(*key_id, KeyState::DestroyPending)).unwrap();
    }
    regions.services["b"].set_version("2");
    assert!(rewrap(&regions.process_with(compromised.clone()), &options(&["b"], &[])).unwrap().renewed > 0);
    assert_all_open(&regions.process_with(compromised), &values[..2]);
}

#[test]
fn a_tenant_that_is_away_keeps_no_other_from_its_wraps() {
    let (mut regions, mut config, values) = regions();
    regions.add("tenant");
    config.scope_keks = BTreeSet::from([alias("tenant")]);
    config.isolated.insert("other".to_owned(), vec![alias("tenant")]);
    let sealed = seal(&regions.process_with(config.clone()), Some("other"), "kept").unwrap();
    regions.add("c");
    config.isolated.insert("other".to_owned(), vec![alias("c"), alias("tenant")]);
    for kind in [KmsErrorKind::Unavailable, KmsErrorKind::AccessDenied] {
        regions.fail("tenant", Some(kind));
        let progress = rewrap(&regions.process_with(config.clone()), &RewrapOptions::default()).unwrap();
        assert_eq!(progress.unopened, 1);
        assert!(roots(&regions).iter().all(|root| wrapped_by(root).contains(&"c")));
    }
    regions.fail("tenant", None);
    assert_eq!(rewrap(&regions.process_with(config.clone()), &RewrapOptions::default()).unwrap().added, 1);
    assert_eq!(wrapped_by(&regions.lab.store.find(key_id_of(&sealed))), ["tenant", "c"]);
    assert_all_open(&regions.process_with(config), &values);
}

#[test]
fn a_root_that_is_not_trusted_any_more_is_left_alone() {
    let (mut regions, config, values) = regions();
    let ring = regions.process_with(config.clone());
    let mut walk = block_on(ring.reparent()).unwrap();
    while !block_on(walk.step(100)).unwrap().done {}
    let new = regions.root_record();
    let config = KeyringConfig { root_pins: vec![*new.commitment()], ..config };
    let (config, options) = exchange(&mut regions, &config);
    assert_eq!(plan(&regions.process_with(config.clone()), &options).records, 2);
    assert_eq!(rewrap(&regions.process_with(config.clone()), &options).unwrap().changed, 2);
    assert_eq!(wrapped_by(&regions.lab.store.find(root().key_id())), ["a", "b"]);
    assert_eq!(wrapped_by(&regions.root_record()), ["b", "c"]);
    let reports = block_on(regions.process_with(config.clone()).drill(&keyfold::Drill::Without(alias("a")))).unwrap();
    assert!(reports[0].outcome.is_ok() && reports[0].roots == 1, "{reports:?}");
    assert_all_open(&regions.process_with(config), &values);
}

#[test]
fn records_from_before_are_refused_by_whoever_saw_the_new_ones() {
    let (mut regions, config, values) = regions();
    let before = regions.lab.store.snapshot();
    let (config, options) = exchange(&mut regions, &config);
    rewrap(&regions.process_with(config.clone()), &options).unwrap();
    regions.lab.store.restore(&before);
    // The marks of the machine remember the roots.
    assert!(reveal(&regions.process_with(config), None, &values[0].1).is_err());
}

#[test]
fn a_forged_root_stops_it() {
    let (mut regions, config, _) = regions();
    let (config, options) = exchange(&mut regions, &config);
    let mut bytes = regions.lab.store.find(root().key_id()).as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    regions.lab.store.plant(&Record::parse(&bytes).unwrap());
    assert_eq!(refused(rewrap(&regions.process_with(config), &options), "forged"), ErrorKind::RecordRejected);
}

#[test]
fn a_present_wrap_counts_only_when_it_was_unwrapped() {
    let sealed = |regions: &Regions| seal(&regions.process(), None, "kept").unwrap();
    for renew in [&[][..], &["a"]] {
        let regions = Regions::new(&["a", "b"]);
        // Another key's wrap under the alias, of the present version.
        let other = keyfold::testing::FakeKms::new();
        let mut parts = root_parts(&regions.lab.kms, root());
        let mut bad = wrap_by_kek(&other, &root(), ENVIRONMENT, "a");
        bad.version = wrap_by_kek(&regions.services["a"], &root(), ENVIRONMENT, "a").version;
        parts.wraps = vec![bad, wrap_by_kek(&regions.services["b"], &root(), ENVIRONMENT, "b")];
        regions.lab.store.plant(&record(&parts));
        let sealed = sealed(&regions);
        let config = KeyringConfig { keks: retired(&["b"]), ..regions.lab.config.clone() };
        let progress = rewrap(&regions.process_with(config.clone()), &options(renew, &["b"])).unwrap();
        let replaced = u64::from(!renew.is_empty());
        assert_eq!((progress.renewed, progress.dropped, progress.kept), (replaced, replaced, 1 - replaced));
        assert_eq!(reveal(&regions.process_with(config), None, &sealed).unwrap().0, "kept");
    }
}

/// The version that the first root's wrap has told makes the second root's look as if it were of the present one.
#[test]
fn a_wrap_that_lies_about_its_version_is_made_anew_before_another_is_dropped() {
    let regions = Regions::new(&["a", "b"]);
    let later = ours(KeyClass::Root, SlotId::NONE, 60);
    let other = keyfold::testing::FakeKms::new();
    let mut bad = wrap_by_kek(&other, &later, ENVIRONMENT, "a");
    bad.version = wrap_by_kek(&regions.services["a"], &later, ENVIRONMENT, "a").version;
    let mut parts = root_parts(&regions.lab.kms, later);
    parts.wraps = vec![bad, wrap_by_kek(&regions.services["b"], &later, ENVIRONMENT, "b")];
    regions.lab.store.plant(&record(&parts));
    let pins = vec![root().commitment(), later.commitment()];
    let config = KeyringConfig { keks: retired(&["b"]), root_pins: pins, ..regions.lab.config.clone() };
    let progress = rewrap(&regions.process_with(config), &options(&["a"], &["b"])).unwrap();
    assert_eq!((progress.renewed, progress.dropped, progress.kept), (1, 2, 0), "{progress:?}");
    assert_eq!(wrapped_by(&regions.lab.store.find(later.key_id())), ["a"]);
}

#[test]
fn a_kek_is_dropped_only_if_it_is_to_go_and_known() {
    let mut regions = Regions::new(&["a", "b"]);
    regions.add("c");
    let drop = |ring: &Keyring, name| rewrap(ring, &options(&[], &[name]));
    let error = drop(&regions.process(), "b").unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("retired = true"), "{error}");
    assert_eq!(refused(drop(&regions.process(), "typo"), "typo"), ErrorKind::Configuration);
    let config = KeyringConfig { keks: retired(&["b"]), ..regions.lab.config.clone() };
    assert_eq!(drop(&regions.process_with(config.clone()), "b").unwrap().dropped, 1);
    // Neither a repair nor a new root brings it back.
    let ring = regions.process_with(config);
    assert!(ring.missing_keks(&regions.root_record()).is_empty());
    assert_eq!(rewrap(&ring, &RewrapOptions::default()).unwrap().changed, 0);
    assert_eq!(wrapped_by(&block_on(ring.rotate_root()).unwrap().new), ["a", "c"]);
    // One whose section is gone is dropped by its name.
    regions.services.remove("c");
    assert_eq!(drop(&regions.process(), "c").unwrap().dropped, 2, "of both roots");
}
