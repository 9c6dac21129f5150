//! Drills: what each KEK opens by itself (DESIGN K11).

use crate::common::lab::*;
use crate::common::regions::{Regions, Sink};
use crate::common::{block_on, refused};
use keyfold::{AuditAction, Drill, DrillReport, ErrorKind, KekPolicy, KekUse, KeyringConfig, KmsErrorKind, Recovery};
use std::collections::{BTreeMap, BTreeSet};

fn drill(regions: &Regions, config: &KeyringConfig, drill: &Drill) -> Vec<DrillReport> {
    block_on(regions.process_with(config.clone()).drill(drill)).unwrap()
}

/// Two KEKs for roots, a tenant's own, two roots and an isolated scope.
fn tenancy() -> (Regions, KeyringConfig) {
    let mut regions = Regions::new(&["a", "b"]);
    regions.add("tenant");
    let mut config = regions.lab.config.clone();
    config.scope_keks = BTreeSet::from([alias("tenant")]);
    config.isolated = BTreeMap::from([("clinic".to_owned(), vec![alias("tenant")])]);
    let ring = regions.process_with(config.clone());
    seal(&ring, Some("clinic"), "x").unwrap();
    block_on(ring.rotate_root()).unwrap();
    (regions, config)
}

#[test]
fn each_kek_opens_what_it_wraps_and_nothing_changes() {
    let (regions, config) = tenancy();
    let before = regions.lab.store.all();
    let ring = regions.process_with(config);
    let sink = Sink::of(&ring);
    let reports = block_on(ring.drill(&Drill::EachAlone)).unwrap();
    assert!(regions.lab.store.all() == before);
    let what: Vec<_> = reports
        .iter()
        .map(|r| (r.keks[0].as_str(), r.outcome.is_ok(), r.roots, r.isolated, r.elsewhere, r.first_value.is_some()))
        .collect();
    assert_eq!(
        what,
        [("a", true, 2, 0, 1, true), ("b", true, 2, 0, 1, true), ("tenant", true, 0, 1, 0, false)],
        "{reports:?}"
    );
    for report in &reports {
        assert!(report.first_value.is_none_or(|first| first <= report.took));
    }
    let events = sink.take(AuditAction::Drill);
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.error.is_none() && event.latency.is_some()));
}

#[test]
fn a_kek_that_fails_is_found_whatever_the_others_do() {
    for kind in KmsErrorKind::ALL.iter().copied() {
        let (regions, config) = tenancy();
        regions.fail("b", Some(kind));
        let reports = drill(&regions, &config, &Drill::EachAlone);
        let kinds: Vec<_> = reports.iter().map(|r| r.outcome.as_ref().err().map(keyfold::Error::kind)).collect();
        assert_eq!(kinds, [None, Some(ErrorKind::Kms(kind)), None]);
        assert!(drill(&regions, &config, &Drill::Without(alias("b")))[0].outcome.is_ok());
        assert!(drill(&regions, &config, &Drill::Without(alias("a")))[0].outcome.is_err());
        assert!(drill(&regions, &config, &Drill::Only(alias("a")))[0].outcome.is_ok());
    }
}

#[test]
fn without_the_only_kek_of_a_scope_that_is_lost() {
    let (regions, config) = tenancy();
    let report = &drill(&regions, &config, &Drill::Without(alias("tenant")))[0];
    assert!(report.outcome.is_err());
    assert_eq!((report.roots, report.isolated), (2, 0));
    assert!(report.first_value.is_some(), "the rest is back");
    // The region where every other KEK is has gone, and the probe cannot be sealed as usual.
    regions.fail_all(Some(KmsErrorKind::Unavailable));
    regions.fail("b", None);
    assert!(drill(&regions, &config, &Drill::Only(alias("b")))[0].outcome.is_ok());
}

#[test]
fn a_wrap_that_is_missing_or_wrong_fails_it() {
    let (mut regions, config) = tenancy();
    regions.add("new");
    let report = &drill(&regions, &config, &Drill::Only(alias("new")))[0];
    let error = report.outcome.as_ref().unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("wraps nothing yet"), "{error}");
    regions.services["a"].set_wrong_payload(true);
    assert!(drill(&regions, &config, &Drill::Only(alias("a")))[0].outcome.is_err());
    assert_eq!(
        refused(block_on(regions.process_with(config).drill(&Drill::Only(alias("nobody")))), "unknown"),
        ErrorKind::Configuration
    );
    let alone = Regions::new(&["a"]);
    let kind = refused(block_on(alone.process().drill(&Drill::Without(alias("a")))), "none is left");
    assert_eq!(kind, ErrorKind::Configuration);
}

#[test]
fn a_kek_for_recovery_is_drilled_without_recovery_mode_and_break_glass_only_with_a_reason() {
    let regions = Regions::new(&["a", "glass", "offline"]);
    let uses = BTreeMap::from([(alias("offline"), KekUse::Recovery), (alias("glass"), KekUse::BreakGlass)]);
    let mut config = KeyringConfig { keks: KekPolicy { uses, ..KekPolicy::default() }, ..regions.lab.config.clone() };
    let ok = |reports: Vec<DrillReport>| reports.iter().map(|r| r.outcome.is_ok()).collect::<Vec<_>>();
    let ring = regions.process_with(config.clone());
    let sink = Sink::of(&ring);
    let reports = block_on(ring.drill(&Drill::EachAlone)).unwrap();
    let error = reports[1].outcome.as_ref().unwrap_err().to_string();
    assert!(error.contains("--recovery=REASON") && !error.contains("offline"), "{error}");
    assert_eq!(ok(reports), [true, false, true]);
    assert!(sink.take(AuditAction::Recovery).is_empty() && sink.take(AuditAction::BreakGlass).is_empty());
    config.keks.recovery = Some(Recovery::with_reason("yearly drill").unwrap());
    let ring = regions.process_with(config);
    let sink = Sink::of(&ring);
    assert_eq!(ok(block_on(ring.drill(&Drill::EachAlone)).unwrap()), [true, true, true]);
    let events = sink.take(AuditAction::BreakGlass);
    assert!(!events.is_empty() && events.iter().all(|event| event.reason.as_deref() == Some("yearly drill")));
}
