//! What the audit trail says: history, uses per day, requests to key services, and what is worth a look.

use crate::anomalies;
use crate::cost::Cost;
use crate::counts::{CallCounts, Counts, first_day};
use crate::evidence::{Evidence, Trail};
use crate::services::KekRow;
use crate::time::{self, DAY};
use crate::uses::{KeyUse, uses};
use serde::Serialize;
use std::collections::BTreeMap;

/// Days of the table and chart of uses.
pub(crate) const DAYS: u64 = 30;
/// Seconds of a month, for rates.
const MONTH: f64 = 30.44 * DAY as f64;
/// Seconds within which the keys of a new keyring are made.
const MADE_TOGETHER: u64 = 60;

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
    /// Who is named in it, by the word of the services' own configurations.
    pub actors: Vec<String>,
    /// Events that could not be recorded.
    pub lost: u64,
    /// Events that are dated after the report: in no other number of it.
    pub later: u64,
    /// Lines that are no events, likewise.
    pub unread: u64,
    /// Sealed, opened and searched values, and failures, of each of the last 30 days.
    pub days: Vec<DayUse>,
    /// The same over the whole trail.
    pub total: DayUse,
    /// Values that drills opened, which are in no other number of values.
    pub drilled: u64,
    /// Who used which key when, the latest first.
    pub uses: Vec<KeyUse>,
    /// Keys that are older than the trail and of whose making it has no event, but for those that were made together with the keyring.
    pub unrecorded: usize,
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
    /// Its name: `burst`, `new-actor`, `failures`, `outside-hours`, `break-glass`, `recovery`, `compromised`, `clear-values`, `lost-events`, `drills`, `future`, `unreadable`.
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

impl AuditSummary {
    pub(crate) fn new(evidence: &Evidence, trail: &Trail) -> Self {
        let report = &trail.verification;
        let counts = &trail.counts;
        let time = |found: &Option<(u64, String)>| found.as_ref().map(|(_, time)| time.clone());
        let first = first_day(evidence.at);
        let day =
            |n: u64| DayUse { day: time::date((first + n) * DAY), ..counts.days.get(&n).cloned().unwrap_or_default() };
        Self {
            authenticated: report.is_authenticated() && !report.chains.is_empty(),
            clean: report.is_clean(),
            findings: report.findings.iter().map(ToString::to_string).collect(),
            gap: report.gap(),
            forgeable: trail.forgeable.clone(),
            files: report.files.len(),
            events: counts.events,
            first: time(&counts.first),
            last: time(&counts.last),
            actors: counts.actors.iter().cloned().collect(),
            lost: counts.lost,
            later: counts.later.values().map(|later| later.events).sum(),
            unread: counts.unread,
            days: (0..DAYS).map(day).collect(),
            total: DayUse { day: "all".to_owned(), ..counts.total.clone() },
            drilled: counts.drills.values().fold(0, |sum, drills| sum.saturating_add(drills.opened)),
            uses: uses(evidence, counts),
            unrecorded: unrecorded(evidence, counts),
            anomalies: anomalies::find(counts, &evidence.watch),
            history: history(counts),
            calls: counts.calls.iter().map(|(kek, calls)| Calls::new(kek, calls)).collect(),
        }
    }

    /// The latest event of an action that succeeded: its time, and how long ago it was.
    pub(crate) fn latest(&self, action: &str, at: u64) -> Option<(String, u64)> {
        let found = self.history.iter().find(|happening| happening.action == action && happening.outcome == "ok")?;
        let seconds = time::parse(&found.time)?;
        Some((time::minute(seconds), at.saturating_sub(seconds)))
    }

    /// When which keys were marked compromised, the latest first.
    pub(crate) fn compromised(&self) -> Vec<(String, &str)> {
        let marked = self.history.iter().filter(|happening| {
            happening.outcome == "ok" && happening.details.get("state").is_some_and(|state| state == "compromised")
        });
        marked
            .filter_map(|happening| Some((time::minute(time::parse(&happening.time)?), happening.key_id.as_deref()?)))
            .collect()
    }

    /// What each KEK in a key service is asked a month, at the rate of the trail, and what that costs.
    pub(crate) fn costs(&self, evidence: &Evidence, keks: &[KekRow]) -> Vec<Cost> {
        let span = |first: &String| Some(evidence.at.saturating_sub(time::parse(first)?));
        // Of less than a day nobody can tell a month.
        let seconds = self.first.as_ref().and_then(span).unwrap_or(0).max(DAY);
        let of = |kek: &KekRow| {
            let price = evidence.prices.as_ref().and_then(|prices| prices.of(&kek.scheme));
            if price.is_none() && matches!(kek.scheme.as_str(), "local" | "passphrase" | "host") {
                return None;
            }
            let requests = self.calls.iter().find(|calls| calls.kek == kek.kek).map_or(0, |calls| calls.requests);
            let requests_month = (requests as f64 / seconds as f64 * MONTH).ceil();
            Some(Cost {
                kek: kek.kek.clone(),
                requests_month: requests_month as u64,
                provider: price.map(|price| price.name.clone()),
                key_month: price.map(|price| price.key_month),
                requests_cost_month: price.map(|price| requests_month / 1e4 * price.per_10000_requests),
            })
        };
        keks.iter().filter_map(of).collect()
    }
}

/// How many keys were made before the trail begins, as far as it has. One that is made while the trail is there has an event, whatever the
/// clocks of the store and of machines say. Those of a new keyring are made at once, before a configuration can name a trail.
fn unrecorded(evidence: &Evidence, counts: &Counts) -> usize {
    let begin = counts.first.as_ref().map_or(evidence.at, |(seconds, _)| *seconds);
    let together = evidence.oldest().unwrap_or(0).saturating_add(MADE_TOGETHER);
    let is_unrecorded = |key: &&crate::Key| {
        let made = key.record.created_at();
        made > together && made < begin && !counts.made.contains(&key.record.key_id().to_string())
    };
    evidence.made().filter(is_unrecorded).count()
}

/// What happened to keys, the latest first.
fn history(counts: &Counts) -> Vec<Happening> {
    let mut events: Vec<_> = counts.history.iter().collect();
    // Stable: what a clock puts into one moment stays in the order in which it was written.
    events.sort_by(|(a, one), (b, other)| (a, &one.time).cmp(&(b, &other.time)));
    events.into_iter().rev().map(|(_, happening)| happening.clone()).collect()
}

impl Calls {
    fn new(kek: &str, counts: &CallCounts) -> Self {
        let CallCounts { wraps, unwraps, other, failed, requests, took } = counts;
        let mut took = took.clone();
        took.sort_by(f64::total_cmp);
        Self {
            kek: kek.to_owned(),
            wraps: *wraps,
            unwraps: *unwraps,
            other: *other,
            failed: *failed,
            requests: *requests,
            median_ms: took.get(took.len() / 2).copied(),
            longest_ms: took.last().copied(),
        }
    }
}
