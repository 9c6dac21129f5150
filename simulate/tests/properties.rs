//! What holds of every simulation, with the real keyring behind it: repeatability, DESIGN §8, and the promises of CACHE.md.
#![allow(clippy::unwrap_used, reason = "a test")]

use keyfold_simulate::{Prediction, Scenario, simulate};
use std::fmt::Write as _;

/// A scenario with other values for some keys: `section.key = value`; one that is not there yet is added.
fn scenario(changes: &[(&str, &str)]) -> String {
    let mut values: Vec<(&str, &str)> = vec![
        ("system.processes", "4"),
        ("system.tenants", "6"),
        ("system.isolated_tenants", "2"),
        ("system.patients", "1000"),
        ("system.reads_per_second", "20.0"),
        ("system.writes_per_second", "10.0"),
        ("cache.max_age", "'2m'"),
        ("cache.grace", "'10m'"),
        ("key_service.latency_milliseconds", "20.0"),
        ("key_service.quota_per_second", "1000"),
        ("key_service.price_per_10000_calls", "0.03"),
        ("key_service.price_per_key_and_month", "1.0"),
        ("key_service.currency", "'USD'"),
        ("run.time", "'1h'"),
        ("run.step", "'10s'"),
    ];
    for (key, value) in changes {
        match values.iter_mut().find(|(name, _)| name == key) {
            Some(present) => present.1 = value,
            None => values.push((key, value)),
        }
    }
    let mut text = "version = 1\nname = 'test'\nseed = 3\n".to_owned();
    for section in ["system", "cache", "rotation", "key_service", "outage", "run"] {
        let of_section: Vec<_> = values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(section)?.strip_prefix('.')?, value)))
            .collect();
        if !of_section.is_empty() {
            writeln!(text, "[{section}]").unwrap();
            of_section.iter().for_each(|(key, value)| writeln!(text, "{key} = {value}").unwrap());
        }
    }
    text
}

fn predict(changes: &[(&str, &str)]) -> Prediction {
    let text = scenario(changes);
    simulate(&Scenario::parse(&text, "test.toml").unwrap_or_else(|error| panic!("{error}\n{text}"))).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_prediction() {
    // With everything in which an order could show: a quota that is too small, an outage, restarts, rotation.
    let busy = [
        ("system.restarts_per_day", "100.0"),
        ("system.generations", "3"),
        ("system.tenant_access", "'zipf'"),
        ("system.isolated_tenants", "4"),
        ("key_service.quota_per_second", "5"),
        ("key_service.keks", "2"),
        ("cache.max_keys", "20"),
        ("outage.start", "'30m'"),
        ("outage.length", "'16m'"),
        ("run.rotation_at", "'10m'"),
        ("run.root_rotation_at", "'15m'"),
    ];
    let [first, second] = [predict(&busy), predict(&busy)];
    assert_eq!(first.to_json(), second.to_json());
    assert_eq!(first.to_html(), second.to_html());
    assert!(first.calls.throttled > 0 && first.calls.lost > 0 && first.traffic.failed_reads > 0, "{:?}", first.calls);
    let text = scenario(&busy);
    let mut other = Scenario::parse(&text, "test.toml").unwrap();
    other.seed += 1;
    assert_ne!(simulate(&other).unwrap().to_json(), first.to_json());
}

/// A step that is longer than a tenth of `check_every` (a minute, unless it is said) is told, with one that is not.
#[test]
fn a_step_that_shows_in_the_results_is_told() {
    let shortest = "; \"1s\", the shortest, shows less";
    let steps = [
        ("'6s'", "'1m'", None, None),
        ("'7s'", "'1m'", Some(6), Some("; \"6s\" does not")),
        ("'1s'", "'10s'", None, None),
        ("'2s'", "'19s'", Some(1), Some("; \"1s\" does not")),
        ("'1s'", "'5s'", None, Some(", and so is every step that may be")),
        ("'2s'", "'5s'", Some(1), Some(shortest)),
    ];
    for (step, check_every, finer, instead) in steps {
        let prediction = predict(&[("run.step", step), ("run.time", "'10m'"), ("cache.check_every", check_every)]);
        assert_eq!(prediction.finer_step_seconds, finer, "{step} {check_every}");
        let text = prediction.to_text();
        let advice = instead.map(|instead| format!("longer than a tenth of check_every{instead}"));
        assert_eq!(text.contains("shows in the results"), advice.is_some(), "{text}");
        assert!(advice.is_none_or(|advice| text.contains(&advice)), "{text}");
    }
}

/// DESIGN §8: rows cost no calls, scopes none, isolated scopes and processes do.
// Failure A26
#[test]
fn calls_grow_with_keys_and_processes_and_not_with_rows() {
    let unwraps = |changes: &[(&str, &str)]| {
        let changes = [&[("system.isolated_tenants", "0")], changes].concat();
        predict(&changes).calls.unwraps as f64
    };
    let close = |found: f64, wanted: f64, what: &str| {
        assert!((found / wanted - 1.0).abs() < 0.05, "{what}: {found}, and {wanted} are wanted");
    };
    let base = unwraps(&[]);
    // A root in each of four processes, renewed after 85 % of two minutes on average, by the next refresh or request.
    close(base, 4.0 * (1.0 + 3600.0 / (0.85 * 120.0 + 2.0)), "by hand");
    let more_rows =
        [("system.patients", "1000000"), ("system.reads_per_second", "2000.0"), ("system.writes_per_second", "1000.0")];
    close(unwraps(&more_rows), base, "a hundred times the requests, a thousand times the rows");
    close(unwraps(&[("system.tenants", "60")]), base, "ten times the scopes");
    close(unwraps(&[("system.processes", "8")]), 2.0 * base, "twice the processes");
    close(
        unwraps(&[("cache.max_age", "'4m'")]),
        base * (1.0 + 3600.0 / 206.0) / (1.0 + 3600.0 / 104.0),
        "twice the age",
    );
    // An isolated key is asked for as often as the root, and up to half as often again, since it is also renewed with a root that is due.
    for isolated in ["1", "3", "6"] {
        let per_key = (unwraps(&[("system.isolated_tenants", isolated)]) - base) / isolated.parse::<f64>().unwrap();
        assert!(
            (0.95..1.5).contains(&(per_key / base)),
            "{isolated} isolated keys: {per_key} each, and {base} of the root"
        );
    }
}

/// CACHE.md: keys are used until their age and the grace are over, and no longer.
#[test]
fn an_outage_is_survived_for_the_grace() {
    let away = |length| predict(&[("outage.start", "'20m'"), ("outage.length", length)]).outage.unwrap();
    let short = away("'10m'");
    assert_eq!((short.reads_served_percent, short.writes_served_percent), (100.0, 100.0));
    assert_eq!((short.first_failed_read_seconds, short.last_failure_after_end_seconds), (None, None));
    let long = away("'30m'");
    let (grace, age) = (600.0, 120.0);
    for first in [long.first_failed_read_seconds, long.first_failed_write_seconds] {
        assert!((grace..grace + age).contains(&first.unwrap()), "{first:?}");
    }
    // Of 30 minutes 10 to 12 went well.
    for served in [long.reads_served_percent, long.writes_served_percent] {
        assert!((100.0 / 3.0..40.0).contains(&served), "{served}");
    }
    // The breaker lets one attempt through in a second.
    assert!(long.last_failure_after_end_seconds.is_none_or(|seconds| seconds < 15.0), "{long:?}");
    let one_kek = predict(&[
        ("key_service.keks", "2"),
        ("outage.keks", "1"),
        ("outage.start", "'20m'"),
        ("outage.length", "'30m'"),
    ]);
    assert_eq!(one_kek.traffic.failed_reads + one_kek.traffic.failed_writes, 0, "the other KEK answers");
}

#[test]
fn keys_are_rotated_when_they_are_due_and_at_no_calls() {
    let quiet = predict(&[("system.isolated_tenants", "0")]);
    assert!(quiet.rotation.is_none());
    let changes = [("system.isolated_tenants", "0"), ("run.rotation_at", "'20m'"), ("run.rotation_spread", "'10m'")];
    let rotated = predict(&changes);
    let rotation = rotated.rotation.unwrap();
    assert_eq!((rotation.due, rotation.rotated), (6, 6));
    // As soon as every process has asked whether its key is the newest: check_every, and the step.
    assert!(rotation.longest_seconds <= 60.0 + 10.0, "{rotation:?}");
    assert_eq!(rotated.calls.wraps, 0);
    // Each new key of an isolated scope is wrapped and verified once, however many processes race.
    let isolated = predict(&[("run.rotation_at", "'20m'")]);
    assert_eq!(isolated.calls.wraps, 2);
    // A KEK is asked twice for each record, and once to open it; and once for the root under which names of scopes are hidden.
    let rewrap = isolated.operations.rewrap;
    assert_eq!((rewrap.records, rewrap.calls), (1 + 4, 3 * 5 + 1));
    assert!((rewrap.seconds - 16.0 * 0.020).abs() < 1e-6, "{rewrap:?}");
    assert_eq!(
        isolated.operations.reparent.records,
        6 * 2 + 6 + 3,
        "the keys of tenants, and three of the keyring's own"
    );
}

#[test]
fn a_start_beyond_the_quota_shows() {
    let within = predict(&[("key_service.quota_per_second", "12")]);
    assert_eq!(
        (within.calls.peak_at_start_per_second, within.calls.throttled),
        (12, 0),
        "3 keys in each of 4 processes"
    );
    let beyond = predict(&[("key_service.quota_per_second", "4")]);
    assert!(beyond.calls.throttled > 0 && beyond.traffic.longest_wait_seconds > 0.1, "{:?}", beyond.calls);
    let throttled = keyfold::ErrorKind::Kms(keyfold::KmsErrorKind::Throttled).code();
    assert!(beyond.traffic.failures.iter().all(|of| of.code == throttled), "{:?}", beyond.traffic);
}

#[test]
fn memory_is_bounded_by_the_configuration() {
    let free = predict(&[("system.tenants", "500"), ("run.time", "'10m'"), ("run.samples_per_step", "1000")]);
    // Of each tenant its name, its key and which key seals; and the root and the key of names.
    assert!((1000..=1600).contains(&free.memory.entries), "{:?}", free.memory);
    assert!((300..3000).contains(&free.memory.bytes_per_entry), "{:?}", free.memory);
    let tight = predict(&[("system.tenants", "500"), ("run.time", "'10m'"), ("cache.max_bytes", "'128KiB'")]);
    assert!(tight.memory.bytes <= 128 * 1024 && tight.memory.entries < free.memory.entries, "{:?}", tight.memory);
    assert_eq!(tight.traffic.failed_reads, 0);
}

#[test]
fn a_start_is_no_month() {
    let start = predict(&[("run.time", "'60s'")]);
    assert_eq!((start.calls.mean_per_second, start.cost.calls_per_month, start.cost.total), (None, None, None));
    assert_eq!(start.cost.keks, 3.0);
    assert!(start.to_text().contains("unknown: simulate max_age more than the start"), "{}", start.to_text());
}

#[test]
fn costs_are_calls_and_keks() {
    assert_eq!(predict(&[("run.time", "'10m'")]).cost.keks, 3.0);
    let cost = predict(&[("system.isolated_tenants", "0")]).cost;
    let (calls, per_month) = cost.calls.zip(cost.calls_per_month).unwrap();
    assert!((calls - per_month as f64 * 0.03 / 10_000.0).abs() < 1e-9);
    assert!((cost.total.unwrap() - calls - cost.keks).abs() < 1e-9);
    // Four processes with a root each, every 104 seconds.
    let wanted = 4.0 * 30.0 * 86_400.0 / 104.0;
    assert!((per_month as f64 / wanted - 1.0).abs() < 0.1, "{per_month}, and {wanted} are wanted");
}

#[test]
fn what_is_wrong_with_a_scenario_is_said_with_its_line() {
    let ours = scenario(&[]);
    assert!(Scenario::parse(&ours, "s.toml").is_ok());
    for (changes, said) in [
        (&[("system.procesess", "3")][..], "unknown field `procesess`"),
        (&[("cache.max_ages", "'3m'")], "unknown field `max_ages`"),
        (&[("cache.max_age", "'3ms'")], "s.toml:12, max_age: "),
        (&[("system.processes", "0")], "s.toml:5, processes: "),
        (&[("system.isolated_tenants", "7")], "7, and 0 to 6 are allowed"),
        (&[("system.reads_per_second", "-1.0")], "reads_per_second"),
        (&[("system.reads_per_second", "nan")], "NaN, and 0 to"),
        (&[("system.tenant_access", "'often'")], "access is \"uniform\", \"zipf\" or an exponent"),
        (&[("key_service.latency_milliseconds", "inf")], "latency_milliseconds"),
        (&[("key_service.latency_milliseconds", "3000.0")], "answers within the time of one attempt: 3s"),
        (&[("key_service.latency_milliseconds", "9000.0")], "answers within the time of one attempt: 3s"),
        (&[("run.step", "'0s'")], "a step is 1s up to the simulated time"),
        (&[("run.time", "'32d'")], "1s to 31d are simulated"),
        (&[("run.time", "'31d'"), ("run.step", "'1s'")], "at most 1,000,000 steps"),
        (&[("run.rotation_at", "'1h'")], "within the simulated time"),
        (&[("run.rotation_at", "'1m'"), ("rotation.data_age", "'never'")], "[rotation] says never"),
        (&[("outage.start", "'50m'"), ("outage.length", "'11m'")], "the outage ends before the simulation does"),
        (&[("outage.start", "'1m'"), ("outage.length", "'18446744073709551615s'")], "length: the outage ends before"),
        (&[("outage.start", "'18446744073709551615s'"), ("outage.length", "'1s'")], "start: the outage begins within"),
        (&[("outage.start", "'1m'"), ("outage.length", "'1m'"), ("outage.keks", "2")], "2, and 1 to 1 are allowed"),
    ] {
        let error = Scenario::parse(&scenario(changes), "s.toml").unwrap_err();
        assert!(error.to_string().contains(said), "{changes:?}: {error}");
        assert_eq!(error.kind(), keyfold::ErrorKind::Configuration);
    }
    assert!(Scenario::parse(&ours.replace("version = 1", "version = 2"), "s.toml").is_err());
}

#[test]
fn pages_and_texts_say_the_same() {
    let prediction = predict(&[("outage.start", "'20m'"), ("outage.length", "'30m'")]);
    let (text, page) = (prediction.to_text(), prediction.to_html());
    let peak = format!("{} in a second, quota 1000", prediction.calls.peak_at_start_per_second);
    assert!(text.contains(&peak) && page.contains(&peak));
    assert_eq!(page.matches("<svg ").count(), 4, "calls, peaks, cache, requests");
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"));
    let mut hostile = Scenario::parse(&scenario(&[]), "test.toml").unwrap();
    hostile.name = "<b>\u{1b}[2J".to_owned();
    let prediction = simulate(&hostile).unwrap();
    assert!(!prediction.to_html().contains("<b>") && !prediction.to_text().contains('\u{1b}'));
}
