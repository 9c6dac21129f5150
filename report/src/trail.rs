//! What the audit trail says: history, uses per day, requests to key services, and what is worth a look.

use crate::cost::Cost;
use crate::evidence::{Evidence, Trail};
use crate::services::KekRow;
use crate::time::{self, DAY, HOUR};
use keyfold_audit::Event;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Days of the table and chart of uses.
pub(crate) const DAYS: u64 = 30;
/// Fewest values in an hour that are a burst, however few there are otherwise.
const BURST_MIN: u64 = 100;
/// Fewest other hours without which nobody can say what is usual.
const BURST_HOURS: usize = 3;
/// Seconds of a month, for rates.
const MONTH: f64 = 30.44 * DAY as f64;

/// The audit trail, in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct AuditSummary {
    /// Whether each chain was checked under its key. If not, the structure was, which whoever edits can make fit.
    pub authenticated: bool,
    /// Whether nothing is wrong with what was checked.
    pub clean: bool,
    /// What is wrong: place and kind.
    pub findings: Vec<String>,
    /// Lines behind the last anchors; `None`: there are no anchors.
    pub gap: Option<u64>,
    /// KEKs under which whoever runs a service could forge chains.
    pub forgeable: Vec<String>,
    /// Files, events, and when the first and the last were recorded.
    pub files: usize,
    /// Likewise.
    pub events: u64,
    /// Likewise (RFC 3339).
    pub first: Option<String>,
    /// Likewise.
    pub last: Option<String>,
    /// Events that could not be recorded.
    pub lost: u64,
    /// Sealed, opened and searched values, and failures, of each of the last 30 days.
    pub days: Vec<DayUse>,
    /// The same over the whole trail.
    pub total: DayUse,
    /// What is worth a look.
    pub anomalies: Vec<Anomaly>,
    /// What happened to keys and copies of them, the latest first.
    pub history: Vec<Happening>,
    /// Requests to key services.
    pub calls: Vec<Calls>,
}

/// Values that were used in a day.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DayUse {
    /// The date (UTC).
    pub day: String,
    /// Values that were sealed.
    pub sealed: u64,
    /// Values that were opened.
    pub opened: u64,
    /// Values that were searched for.
    pub searched: u64,
    /// Values that did not open or were refused.
    pub failed: u64,
}

/// Something that is worth a look. It need not be wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Anomaly {
    /// Its name: `burst`, `failures`, `outside-hours`, `break-glass`, `recovery`, `clear-values`, `lost-events`.
    pub kind: &'static str,
    /// When: a day or an hour (UTC).
    pub at: String,
    /// The same for people.
    pub what: String,
}

/// Something that happened to keys.
#[derive(Clone, Debug, Serialize)]
pub struct Happening {
    /// When (RFC 3339).
    pub time: String,
    /// The action, as in docs/AUDIT.md.
    pub action: String,
    /// `ok`, or the class of the error.
    pub outcome: String,
    /// Who.
    pub actor: String,
    /// The key.
    pub key_id: Option<String>,
    /// The KEK.
    pub kek: Option<String>,
    /// How long it took.
    pub took_ms: Option<f64>,
    /// Counts and states.
    pub details: BTreeMap<String, String>,
}

/// Requests to one KEK.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calls {
    /// The KEK.
    pub kek: String,
    /// Keys that it wrapped, unwrapped, and probes and drills of it.
    pub wraps: u64,
    /// Likewise.
    pub unwraps: u64,
    /// Likewise.
    pub other: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Requests that went over the network, logins and repetitions included.
    pub requests: u64,
    /// The median of how long it took, in milliseconds.
    pub median_ms: Option<f64>,
    /// The longest.
    pub longest_ms: Option<f64>,
}

/// Actions that belong in the history.
const HISTORY: [&str; 18] = [
    "key-made",
    "state-changed",
    "reparent",
    "rewrap",
    "drill",
    "backup",
    "restore",
    "shred-scheduled",
    "shred-cancelled",
    "shredded",
    "shred-confirmed",
    "hold-placed",
    "hold-lifted",
    "provision",
    "revoke",
    "reencrypt",
    "reconfigured",
    "statement-signed",
];

/// Of them, those that change keys.
const CHANGES: [&str; 10] = [
    "key-made",
    "state-changed",
    "reparent",
    "rewrap",
    "restore",
    "shred-scheduled",
    "shredded",
    "hold-lifted",
    "provision",
    "revoke",
];

/// An event and when it was, in seconds.
struct At {
    seconds: u64,
    event: Event,
}

impl At {
    fn text(&self, name: &str) -> String {
        self.event.text(name).unwrap_or_default().to_owned()
    }

    fn count(&self, name: &str) -> u64 {
        self.event.detail(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn failed(&self) -> bool {
        self.event.text("outcome").is_some_and(|outcome| outcome != "ok")
    }

    /// Failures that a `use` counts, by class.
    fn failures(&self) -> impl Iterator<Item = (&str, u64)> {
        let is_use = self.event.action == "use";
        // Classes of errors begin with a capital, what was used does not.
        let details =
            self.event.details().filter(move |(name, _)| is_use && name.starts_with(|c: char| c.is_ascii_uppercase()));
        details.map(|(name, count)| (name, count.parse().unwrap_or(0)))
    }

    fn milliseconds(&self) -> Option<f64> {
        self.event.number("latency_us").map(|micros| micros as f64 / 1e3)
    }
}

impl AuditSummary {
    pub(crate) fn new(evidence: &Evidence, trail: &Trail) -> Self {
        let events = read(trail, evidence.at);
        let report = &trail.verification;
        let mut total = DayUse { day: "all".to_owned(), ..DayUse::default() };
        events.iter().for_each(|event| add(&mut total, event));
        Self {
            authenticated: report.is_authenticated() && !report.chains.is_empty(),
            clean: report.is_clean(),
            findings: report.findings.iter().map(ToString::to_string).collect(),
            gap: report.gap(),
            forgeable: trail.forgeable.clone(),
            files: trail.files.len(),
            events: events.len() as u64,
            first: events.first().map(|event| event.event.time.clone()),
            last: events.last().map(|event| event.event.time.clone()),
            lost: events.iter().filter_map(|event| event.event.number("lost")).sum(),
            days: days(&events, evidence.at),
            total,
            anomalies: anomalies(&events, evidence),
            history: history(&events),
            calls: calls(&events),
        }
    }

    /// The latest event of an action that succeeded: its time, and how long ago it was.
    pub(crate) fn latest(&self, action: &str, at: u64) -> Option<(String, u64)> {
        let found = self.history.iter().find(|happening| happening.action == action && happening.outcome == "ok")?;
        let seconds = time::parse(&found.time)?;
        Some((time::minute(seconds), at.saturating_sub(seconds)))
    }

    /// What each KEK costs a month, where prices are known, at the rate of the trail.
    pub(crate) fn costs(&self, evidence: &Evidence, keks: &[KekRow]) -> Vec<Cost> {
        let span = |first: &String| evidence.at.saturating_sub(time::parse(first)?).checked_add(0);
        // Of less than a day nobody can tell a month.
        let seconds = self.first.as_ref().and_then(span).unwrap_or(0).max(DAY);
        let of = |kek: &KekRow| {
            let price = evidence.prices.of(&kek.scheme)?;
            let requests = self.calls.iter().find(|calls| calls.kek == kek.kek).map_or(0, |calls| calls.requests);
            let requests_month = (requests as f64 / seconds as f64 * MONTH).ceil();
            Some(Cost {
                kek: kek.kek.clone(),
                provider: price.name.clone(),
                requests_month: requests_month as u64,
                key_month: price.key_month,
                requests_cost_month: requests_month / 1e4 * price.per_10000_requests,
            })
        };
        keks.iter().filter_map(of).collect()
    }
}

/// The events up to a time, in the order of their times.
fn read(trail: &Trail, until: u64) -> Vec<At> {
    let mut events = Vec::new();
    for file in &trail.files {
        for event in file.bytes.split(|&byte| byte == b'\n').filter_map(Event::read) {
            match time::parse(&event.time) {
                Some(seconds) if seconds <= until => events.push(At { seconds, event }),
                _ => {}
            }
        }
    }
    events.sort_by(|a, b| (a.seconds, &a.event.time).cmp(&(b.seconds, &b.event.time)));
    events
}

fn add(sum: &mut DayUse, event: &At) {
    sum.sealed += event.count("sealed");
    sum.opened += event.count("opened");
    sum.searched += event.count("searched");
    sum.failed += event.failures().map(|(_, n)| n).sum::<u64>();
}

fn days(events: &[At], at: u64) -> Vec<DayUse> {
    let first = (at / DAY + 1).saturating_sub(DAYS) * DAY;
    let mut days: Vec<_> =
        (0..DAYS).map(|n| DayUse { day: time::date(first + n * DAY), ..DayUse::default() }).collect();
    for event in events.iter().filter(|event| event.event.action == "use" && event.seconds >= first) {
        if let Some(day) = days.get_mut(((event.seconds - first) / DAY) as usize) {
            add(day, event);
        }
    }
    days
}

fn history(events: &[At]) -> Vec<Happening> {
    let of = |at: &At| Happening {
        time: at.event.time.clone(),
        action: at.event.action.clone(),
        outcome: at.text("outcome"),
        actor: at.text("actor"),
        key_id: at.event.text("key_id").map(str::to_owned),
        kek: at.event.text("kek").map(str::to_owned),
        took_ms: at.milliseconds(),
        details: at.event.details().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    };
    events.iter().rev().filter(|at| HISTORY.contains(&at.event.action.as_str())).map(of).collect()
}

fn calls(events: &[At]) -> Vec<Calls> {
    let asked = |at: &&At| {
        matches!(at.event.action.as_str(), "wrap" | "unwrap" | "recovery" | "break-glass" | "drill" | "probe")
    };
    let mut by_kek: BTreeMap<String, Vec<&At>> = BTreeMap::new();
    for at in events.iter().filter(asked) {
        if let Some(kek) = at.event.text("kek") {
            by_kek.entry(kek.to_owned()).or_default().push(at);
        }
    }
    let of = |(kek, events): (String, Vec<&At>)| {
        let count = |action: &str| events.iter().filter(|at| at.event.action == action).count() as u64;
        let mut took: Vec<_> = events.iter().filter_map(|at| at.milliseconds()).collect();
        took.sort_by(f64::total_cmp);
        let (wraps, unwraps) = (count("wrap"), count("unwrap"));
        Calls {
            kek,
            wraps,
            unwraps,
            other: events.len() as u64 - wraps - unwraps,
            failed: events.iter().filter(|at| at.failed()).count() as u64,
            requests: events.iter().map(|at| at.count("requests")).sum(),
            median_ms: took.get(took.len() / 2).copied(),
            longest_ms: took.last().copied(),
        }
    };
    by_kek.into_iter().map(of).collect()
}

fn anomalies(events: &[At], evidence: &Evidence) -> Vec<Anomaly> {
    let mut found = bursts(events, evidence.watch.burst);
    found.extend(failures(events));
    found.extend(outside_hours(events, evidence));
    found.extend(singly(events));
    found.sort_by(|a, b| (&b.at, a.kind, &a.what).cmp(&(&a.at, b.kind, &b.what)));
    found
}

/// Hours in which an actor opened far more values of a field than he usually does in one.
fn bursts(events: &[At], factor: u32) -> Vec<Anomaly> {
    let mut hours: BTreeMap<(String, String), BTreeMap<u64, u64>> = BTreeMap::new();
    for at in events.iter().filter(|at| at.event.action == "use" && at.count("opened") > 0) {
        let of = hours.entry((at.text("actor"), at.text("field"))).or_default();
        *of.entry(at.seconds / HOUR).or_default() += at.count("opened");
    }
    let mut found = Vec::new();
    for ((actor, field), hours) in hours {
        for (&hour, &opened) in hours.iter().filter(|(_, opened)| **opened >= BURST_MIN) {
            let mut others: Vec<_> =
                hours.iter().filter(|(other, _)| **other != hour).map(|(_, opened)| *opened).collect();
            if others.len() < BURST_HOURS {
                continue;
            }
            others.sort_unstable();
            let median = others[others.len() / 2];
            if opened > median.saturating_mul(factor.into()) {
                found.push(Anomaly {
                    kind: "burst",
                    at: time::minute(hour * HOUR),
                    what: format!(
                        "{actor} opened {opened} values of {field} within this hour; {median} in a median one"
                    ),
                });
            }
        }
    }
    found
}

/// What failed, by day, actor and class.
fn failures(events: &[At]) -> Vec<Anomaly> {
    let mut counts: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for at in events {
        let day = time::date(at.seconds);
        for (class, n) in at.failures() {
            let what = format!("values of {}: {class}", at.text("field"));
            *counts.entry((day.clone(), at.text("actor"), what)).or_default() += n;
        }
        if at.event.action != "use" && at.failed() {
            let what = format!("{}: {}", at.event.action, at.text("outcome"));
            *counts.entry((day, at.text("actor"), what)).or_default() += 1;
        }
    }
    let of = |((at, actor, what), n): ((String, String, String), u64)| Anomaly {
        kind: "failures",
        at,
        what: format!("{n} times, of {actor}, {what}"),
    };
    counts.into_iter().map(of).collect()
}

/// Values that were opened, and keys that were changed, when nobody should be at work.
fn outside_hours(events: &[At], evidence: &Evidence) -> Vec<Anomaly> {
    let Some(hours) = &evidence.watch.hours else { return Vec::new() };
    let mut counts: BTreeMap<(String, String), (u64, BTreeSet<&str>)> = BTreeMap::new();
    for at in events.iter().filter(|at| !hours.contain(at.seconds)) {
        let changed = CHANGES.iter().find(|action| **action == at.event.action);
        let opened = at.count("opened");
        if (at.event.action == "use" && opened > 0) || changed.is_some() {
            let (values, changes) = counts.entry((time::date(at.seconds), at.text("actor"))).or_default();
            *values += if changed.is_none() { opened } else { 0 };
            changes.extend(changed);
        }
    }
    let of = |((at, actor), (values, changes)): ((String, String), (u64, BTreeSet<&str>))| {
        let mut what = Vec::new();
        if values > 0 {
            what.push(format!("opened {values} values"));
        }
        if !changes.is_empty() {
            what.push(format!("changed keys ({})", changes.into_iter().collect::<Vec<_>>().join(", ")));
        }
        Anomaly { kind: "outside-hours", at, what: format!("{actor} {}", what.join(" and ")) }
    };
    counts.into_iter().map(of).collect()
}

/// What is worth a look each time.
fn singly(events: &[At]) -> Vec<Anomaly> {
    let mut found = Vec::new();
    for at in events {
        let (kind, what) = match at.event.action.as_str() {
            "break-glass" => (
                "break-glass",
                format!("{} had KEK {} asked; the trail has the reason", at.text("actor"), at.text("kek")),
            ),
            "recovery" => {
                ("recovery", format!("{} had KEK {} asked in recovery mode", at.text("actor"), at.text("kek")))
            }
            "use" if at.count("clear") > 0 => (
                "clear-values",
                format!(
                    "{} read {} values of {} that are not sealed yet",
                    at.text("actor"),
                    at.count("clear"),
                    at.text("field")
                ),
            ),
            _ => continue,
        };
        found.push(Anomaly { kind, at: time::minute(at.seconds), what });
    }
    for at in events.iter().filter(|at| at.event.number("lost").unwrap_or(0) > 0) {
        let lost = at.event.number("lost").unwrap_or(0);
        let what = format!("{lost} events of {} could not be recorded before this time", at.text("actor"));
        found.push(Anomaly { kind: "lost-events", at: time::minute(at.seconds), what });
    }
    found
}
