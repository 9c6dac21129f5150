//! What a trail adds up to, line by line. Of what happens with every value only sums are kept, so that memory grows with the hours, actors and
//! fields of a trail, and with what happened to keys, but not with its length.

use crate::evidence::Watch;
use crate::time::{self, DAY, HOUR};
use crate::trail::{Anomaly, DAYS, DayUse, Happening};
use keyfold_audit::{Event, NoLine};
use std::collections::{BTreeMap, BTreeSet};

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

/// The field of the value that a drill seals and opens again, which is nobody's.
pub(crate) const DRILL_FIELD: &str = "keyfold.drill";

/// An actor and a field.
pub(crate) type Pair = (String, String);

/// The sums.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    /// When the first and the last event were, in seconds, and as they say it.
    pub(crate) first: Option<(u64, String)>,
    pub(crate) last: Option<(u64, String)>,
    pub(crate) actors: BTreeSet<String>,
    pub(crate) lost: u64,
    /// Lines that are none, and events without a time.
    pub(crate) unread: u64,
    pub(crate) total: DayUse,
    /// Of the last days, from day 0 of the chart on.
    pub(crate) days: BTreeMap<u64, DayUse>,
    pub(crate) history: Vec<(u64, Happening)>,
    pub(crate) calls: BTreeMap<String, CallCounts>,
    /// Opened values of an hour, by actor and field.
    pub(crate) opened: BTreeMap<Pair, BTreeMap<u64, u64>>,
    /// What was done with each key, by key and actor. No key: the values name none, or it was not counted apart.
    pub(crate) uses: BTreeMap<(Option<String>, String), UseCounts>,
    /// Drills and the values that they opened, by actor.
    pub(crate) drills: BTreeMap<String, DrillCounts>,
    /// Keys of whose making the trail has the event.
    pub(crate) made: BTreeSet<String>,
    /// By day, actor and what failed.
    pub(crate) failures: BTreeMap<(u64, String, String), u64>,
    /// Opened values and changes of keys outside of usual hours, by day and actor.
    pub(crate) outside: BTreeMap<(u64, String), (u64, BTreeSet<&'static str>)>,
    /// Values in clear that were read, by hour, actor and field.
    pub(crate) clear: BTreeMap<(u64, String, String), u64>,
    /// Events that are dated after the report, by actor.
    pub(crate) later: BTreeMap<String, Later>,
    /// What is worth a look each time.
    pub(crate) singly: Vec<Anomaly>,
}

/// What an actor did with a key.
#[derive(Default)]
pub(crate) struct UseCounts {
    /// When the first and the last event of it were, in seconds; `None`: there is none yet.
    pub(crate) span: Option<(u64, u64)>,
    /// Values, but for those of drills.
    pub(crate) values: DayUse,
    /// Values that drills opened.
    pub(crate) drilled: u64,
    /// How often a key service unwrapped the key.
    pub(crate) unwrapped: u64,
}

impl UseCounts {
    fn see(&mut self, seconds: u64) {
        let (first, last) = self.span.unwrap_or((seconds, seconds));
        self.span = Some((first.min(seconds), last.max(seconds)));
    }
}

/// Drills.
#[derive(Default)]
pub(crate) struct DrillCounts {
    /// Parts of drills: each opens one value at most.
    pub(crate) parts: u64,
    /// Values that were opened.
    pub(crate) opened: u64,
    /// When the last of them was, in seconds.
    pub(crate) last: u64,
}

/// Events that are dated after the report.
#[derive(Default)]
pub(crate) struct Later {
    pub(crate) events: u64,
    pub(crate) opened: u64,
    pub(crate) last: u64,
}

/// Requests to one KEK.
#[derive(Default)]
pub(crate) struct CallCounts {
    pub(crate) wraps: u64,
    pub(crate) unwraps: u64,
    pub(crate) other: u64,
    pub(crate) failed: u64,
    pub(crate) requests: u64,
    /// How long each took, in milliseconds.
    pub(crate) took: Vec<f64>,
}

impl Counts {
    /// Adds a line, without its line feed. `at`: the time of the report.
    pub(crate) fn add(&mut self, line: &[u8], at: u64, watch: &Watch) {
        let event = match Event::read(line) {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(NoLine) => return self.unread += 1,
        };
        let Some(seconds) = time::parse(&event.time) else { return self.unread += 1 };
        let actor = event.text("actor").unwrap_or_default().to_owned();
        if seconds > at {
            let later = self.later.entry(actor).or_default();
            later.events += 1;
            grow(&mut later.opened, count(&event, "opened"));
            later.last = later.last.max(seconds);
            return;
        }
        self.events += 1;
        if !self.actors.contains(&actor) {
            self.actors.insert(actor.clone());
        }
        let time = (seconds, event.time.clone());
        if self.first.as_ref().is_none_or(|first| time < *first) {
            self.first = Some(time.clone());
        }
        if self.last.as_ref().is_none_or(|last| time > *last) {
            self.last = Some(time);
        }
        match event.action.as_str() {
            "use" => self.add_use(&event, seconds, at, &actor),
            action => {
                if action == "drill" {
                    self.drills.entry(actor.clone()).or_default().parts += 1;
                }
                if HISTORY.contains(&action) {
                    self.history.push((seconds, happening(&event, &actor)));
                }
                if failed(&event) {
                    let what = format!("{action}: {}", event.text("outcome").unwrap_or_default());
                    *self.failures.entry((seconds / DAY, actor.clone(), what)).or_default() += 1;
                } else {
                    self.add_key_event(&event, seconds, &actor);
                }
                self.add_call(&event);
            }
        }
        self.add_outside(&event, seconds, watch, &actor);
        self.add_singly(&event, seconds, &actor);
    }

    fn add_use(&mut self, event: &Event, seconds: u64, at: u64, actor: &str) {
        let field = event.text("field").unwrap_or_default();
        let is_drill = is_drill(event);
        let opened = count(event, "opened");
        let of_key = self.of_key(event, actor);
        of_key.see(seconds);
        if is_drill {
            grow(&mut of_key.drilled, opened);
            let drills = self.drills.entry(actor.to_owned()).or_default();
            grow(&mut drills.opened, opened);
            drills.last = drills.last.max(seconds);
        } else {
            add(&mut of_key.values, event);
            add(&mut self.total, event);
            if let Some(day) = (seconds / DAY).checked_sub(first_day(at)) {
                add(self.days.entry(day).or_default(), event);
            }
        }
        if opened > 0 && !is_drill {
            let hours = self.opened.entry((actor.to_owned(), field.to_owned())).or_default();
            grow(hours.entry(seconds / HOUR).or_default(), opened);
        }
        for (class, n) in failures(event) {
            let what = format!("values of {field}: {class}");
            grow(self.failures.entry((seconds / DAY, actor.to_owned(), what)).or_default(), n);
        }
        let clear = count(event, "clear");
        if clear > 0 {
            grow(self.clear.entry((seconds / HOUR, actor.to_owned(), field.to_owned())).or_default(), clear);
        }
    }

    fn of_key(&mut self, event: &Event, actor: &str) -> &mut UseCounts {
        self.uses.entry((event.text("key_id").map(str::to_owned), actor.to_owned())).or_default()
    }

    /// What succeeded with a key as a whole.
    fn add_key_event(&mut self, event: &Event, seconds: u64, actor: &str) {
        match event.action.as_str() {
            // A KEK that is not asked otherwise has an event of its own beside this one.
            "unwrap" => {
                let of_key = self.of_key(event, actor);
                of_key.see(seconds);
                of_key.unwrapped += 1;
            }
            "key-made" => self.made.extend(event.text("key_id").map(str::to_owned)),
            _ => {}
        }
    }

    fn add_call(&mut self, event: &Event) {
        let action = event.action.as_str();
        let is_asked = matches!(action, "wrap" | "unwrap" | "recovery" | "break-glass" | "drill" | "probe");
        let Some(kek) = event.text("kek").filter(|_| is_asked) else { return };
        let calls = self.calls.entry(kek.to_owned()).or_default();
        match action {
            "wrap" => calls.wraps += 1,
            "unwrap" => calls.unwraps += 1,
            _ => calls.other += 1,
        }
        calls.failed += u64::from(failed(event));
        grow(&mut calls.requests, count(event, "requests"));
        calls.took.extend(milliseconds(event));
    }

    /// Values that were opened, and keys that were changed, when nobody should be at work.
    fn add_outside(&mut self, event: &Event, seconds: u64, watch: &Watch, actor: &str) {
        if watch.hours.as_ref().is_none_or(|hours| hours.contain(seconds)) {
            return;
        }
        let changed = CHANGES.iter().find(|action| **action == event.action);
        let opened = if event.action == "use" && !is_drill(event) { count(event, "opened") } else { 0 };
        if opened > 0 || changed.is_some() {
            let (values, changes) = self.outside.entry((seconds / DAY, actor.to_owned())).or_default();
            grow(values, opened);
            changes.extend(changed);
        }
    }

    fn add_singly(&mut self, event: &Event, seconds: u64, actor: &str) {
        let mut add = |kind, what: String| self.singly.push(Anomaly { kind, at: time::minute(seconds), what });
        let kek = event.text("kek").unwrap_or_default();
        match event.action.as_str() {
            "break-glass" => add("break-glass", format!("{actor} had KEK {kek} asked; the trail has the reason")),
            "recovery" => add("recovery", format!("{actor} had KEK {kek} asked in recovery mode")),
            // Whatever state comes after it.
            _ if event.detail("state") == Some("compromised") && !failed(event) => {
                let key = event.text("key_id").unwrap_or("-");
                add(
                    "compromised",
                    format!("{actor} marked key {key} as compromised: what it sealed may be read, and forged"),
                );
            }
            _ => {}
        }
        let lost = event.number("lost").unwrap_or(0);
        if lost > 0 {
            add("lost-events", format!("{lost} events of {actor} could not be recorded before this time"));
            grow(&mut self.lost, lost);
        }
    }
}

/// The first day of the table and chart of uses, in days since 1970.
pub(crate) fn first_day(at: u64) -> u64 {
    (at / DAY + 1).saturating_sub(DAYS)
}

/// Adds a number of the files, which may be any: a sum does not begin anew.
pub(crate) fn grow(sum: &mut u64, by: u64) {
    *sum = sum.saturating_add(by);
}

fn count(event: &Event, name: &str) -> u64 {
    event.detail(name).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Whether a `use` is that of a drill.
fn is_drill(event: &Event) -> bool {
    event.text("field") == Some(DRILL_FIELD)
}

fn failed(event: &Event) -> bool {
    event.text("outcome").is_some_and(|outcome| outcome != "ok")
}

/// Failures that a `use` counts, by class.
fn failures(event: &Event) -> impl Iterator<Item = (&str, u64)> {
    // Classes of errors begin with a capital, what was used does not.
    let classes = event.details().filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_uppercase()));
    classes.map(|(name, count)| (name, count.parse().unwrap_or(0)))
}

fn milliseconds(event: &Event) -> Option<f64> {
    event.number("latency_us").map(|micros| micros as f64 / 1e3)
}

fn add(sum: &mut DayUse, event: &Event) {
    grow(&mut sum.sealed, count(event, "sealed"));
    grow(&mut sum.opened, count(event, "opened"));
    grow(&mut sum.searched, count(event, "searched"));
    failures(event).for_each(|(_, n)| grow(&mut sum.failed, n));
}

fn happening(event: &Event, actor: &str) -> Happening {
    Happening {
        time: event.time.clone(),
        action: event.action.clone(),
        outcome: event.text("outcome").unwrap_or_default().to_owned(),
        actor: actor.to_owned(),
        key_id: event.text("key_id").map(str::to_owned),
        kek: event.text("kek").map(str::to_owned),
        took_ms: milliseconds(event),
        details: event.details().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anomalies;

    /// Whoever edits the files must not keep the report from being made, nor hide a burst behind a sum that begins anew.
    #[test]
    fn sums_of_the_largest_numbers_stay_the_largest() {
        let most = u64::MAX;
        let line = |action: &str, time: &str| {
            let details = ["opened", "sealed", "searched", "clear", "requests", "DecryptionFailed"];
            let details = details.map(|name| format!("\"{name}\":\"{most}\"")).join(",");
            format!(
                "{{\"chain\":\"{0}\",\"seq\":1,\"at\":1,\"time\":\"{time}\",\"action\":\"{action}\",\"actor\":\"a\",\"field\":\"f\",\"kek\":\"k\",\
                 \"lost\":{most},\"latency_us\":{most},\"details\":{{{details}}},\"mac\":\"{0}{0}\"}}",
                "00".repeat(16)
            )
        };
        let watch = Watch { hours: Some("mon 00:00-00:01".parse().expect("hours")), burst: 10, unknown_max: 10_000 };
        let (at, mut counts) = (time::parse("2026-11-26").expect("a day"), Counts::default());
        let times = ["2026-10-20T09:00:00Z", "2026-11-25T09:00:00Z", "2026-11-25T09:01:00Z", "2026-12-01T09:00:00Z"];
        for (action, time) in ["use", "unwrap"].into_iter().flat_map(|action| times.map(|time| (action, time))) {
            for actor in ["a", "b"] {
                counts.add(line(action, time).replace("\"a\"", &format!("\"{actor}\"")).as_bytes(), at, &watch);
            }
        }
        assert_eq!((counts.unread, counts.events, counts.lost), (0, 12, most));
        let DayUse { sealed, opened, searched, failed, .. } = counts.total.clone();
        assert_eq!([sealed, opened, searched, failed], [most; 4]);
        assert_eq!(counts.calls["k"].requests, most);
        assert!(counts.later.values().all(|later| later.opened == most && later.events == 2));
        let found = anomalies::find(&counts, &watch);
        let of = |kind| {
            found.iter().filter(|anomaly| anomaly.kind == kind && anomaly.what.contains(&most.to_string())).count()
        };
        assert!(
            of("burst") > 0 && of("outside-hours") > 0 && of("clear-values") > 0 && of("failures") > 0,
            "{found:?}"
        );
    }
}
