//! What is worth a look in the sums of a trail. An anomaly need not be wrong.

use crate::counts::{Counts, Pair};
use crate::evidence::Watch;
use crate::time::{self, DAY, HOUR};
use crate::trail::Anomaly;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Fewest values in an hour that are a burst, however few there are otherwise.
const BURST_MIN: u64 = 100;
/// Fewest hours to compare with.
const BURST_HOURS: usize = 3;

/// All of them, the latest first.
pub(crate) fn find(counts: &Counts, watch: &Watch) -> Vec<Anomaly> {
    let mut found = counts.singly.clone();
    bursts(&counts.opened, watch, &mut found);
    let mut add = |kind, at, what| found.push(Anomaly { kind, at, what });
    for ((day, actor, what), n) in &counts.failures {
        add("failures", time::date(day * DAY), format!("{n} times, of {actor}, {what}"));
    }
    for ((day, actor), (values, changes)) in &counts.outside {
        let opened = (*values > 0).then(|| format!("opened {values} values"));
        let names = || changes.iter().copied().collect::<Vec<_>>().join(", ");
        let changed = (!changes.is_empty()).then(|| format!("changed keys ({})", names()));
        let what = opened.into_iter().chain(changed).collect::<Vec<_>>().join(" and ");
        add("outside-hours", time::date(day * DAY), format!("{actor} {what}"));
    }
    for ((hour, actor, field), n) in &counts.clear {
        let what = format!("{actor} read {n} values of {field} that are not sealed yet");
        add("clear-values", time::minute(hour * HOUR), what);
    }
    for (actor, later) in &counts.later {
        let what = format!(
            "{} events of {actor}, with {} opened values, are dated after this report and in no other figure of it: a clock is ahead, unless \
             the report was made for an earlier time (--at)",
            later.events, later.opened
        );
        add("future", time::minute(later.last), what);
    }
    if counts.unread > 0 {
        let what = format!("{} lines of the audit files are no events, and in no figure", counts.unread);
        add(
            "unreadable",
            counts.last.as_ref().map_or_else(|| "-".to_owned(), |(seconds, _)| time::minute(*seconds)),
            what,
        );
    }
    found.sort_by(|a, b| (&b.at, a.kind, &a.what).cmp(&(&a.at, b.kind, &b.what)));
    found
}

/// Hours in which an actor opened far more values of a field than is usual. What is usual is what he opened in his hours before; of his first
/// ones, what other actors open. Later hours of his own are no excuse: whoever steals an identity would make them himself.
fn bursts(opened: &BTreeMap<Pair, BTreeMap<u64, u64>>, watch: &Watch, found: &mut Vec<Anomaly>) {
    for ((actor, field), hours) in opened {
        let mut before = Median::default();
        let mut others = None;
        for (&hour, &values) in hours {
            let own = before.value().filter(|_| before.len() >= BURST_HOURS);
            let usual = match own {
                Some(median) => Usual::Own(median),
                None => *others.get_or_insert_with(|| of_others(opened, actor, field)),
            };
            before.add(values);
            let (limit, than) = match usual {
                Usual::Own(median) => {
                    (median.saturating_mul(watch.burst.into()), format!("{median} in a median hour before"))
                }
                Usual::Others(median) => (
                    median.saturating_mul(watch.burst.into()),
                    format!("in one of the first hours of {actor}; {median} in a median hour of others"),
                ),
                Usual::Unknown => {
                    (watch.unknown_max, "and nobody has opened enough before to say what is usual".to_owned())
                }
            };
            if values >= BURST_MIN && values > limit {
                found.push(Anomaly {
                    kind: "burst",
                    at: time::minute(hour * HOUR),
                    what: format!("{actor} opened {values} values of {field} within this hour, {than}"),
                });
            }
        }
    }
}

/// How many values of a field are usual in an hour.
#[derive(Clone, Copy)]
enum Usual {
    Own(u64),
    Others(u64),
    Unknown,
}

fn of_others(opened: &BTreeMap<Pair, BTreeMap<u64, u64>>, actor: &str, field: &str) -> Usual {
    let others = opened.iter().filter(|((other, of), _)| other != actor && of == field);
    let mut hours: Vec<u64> = others.flat_map(|(_, hours)| hours.values().copied()).collect();
    if hours.len() < BURST_HOURS {
        return Usual::Unknown;
    }
    hours.sort_unstable();
    Usual::Others(hours[hours.len() / 2])
}

/// The median of numbers that come one after the other: the lower half in one heap, the upper half, which has the median, in the other.
#[derive(Default)]
struct Median {
    lower: BinaryHeap<u64>,
    upper: BinaryHeap<Reverse<u64>>,
}

impl Median {
    fn len(&self) -> usize {
        self.lower.len() + self.upper.len()
    }

    fn value(&self) -> Option<u64> {
        self.upper.peek().map(|Reverse(value)| *value)
    }

    fn add(&mut self, value: u64) {
        self.lower.push(value);
        self.upper.extend(self.lower.pop().map(Reverse));
        if self.upper.len() > self.lower.len() + 1 {
            self.lower.extend(self.upper.pop().map(|Reverse(value)| value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_as_they_come() {
        let (mut median, mut seen) = (Median::default(), Vec::new());
        assert_eq!((median.value(), median.len()), (None, 0));
        for value in [5, 1, 9, 9, 2, 7, 3, 3, 100, 0, 4] {
            median.add(value);
            seen.push(value);
            seen.sort_unstable();
            assert_eq!((median.value(), median.len()), (Some(seen[seen.len() / 2]), seen.len()), "{seen:?}");
        }
    }

    #[test]
    fn an_hour_is_held_against_those_before_it() {
        let watch = Watch { hours: None, burst: 10, unknown_max: 10_000 };
        let hours =
            |values: &[u64]| values.iter().enumerate().map(|(hour, n)| (hour as u64, *n)).collect::<BTreeMap<_, _>>();
        let found = |all: &[(&str, &[u64])]| {
            let opened =
                all.iter().map(|(actor, values)| (((*actor).to_owned(), "f".to_owned()), hours(values))).collect();
            let mut found = Vec::new();
            bursts(&opened, &watch, &mut found);
            found.into_iter().map(|anomaly| anomaly.what).collect::<Vec<_>>()
        };
        assert_eq!(found(&[("api", &[100, 110, 90, 100, 1000])]), [] as [&str; 0]);
        assert_eq!(found(&[("api", &[100, 110, 90, 100, 1001])]).len(), 1);
        // Nobody to compare with: the first hours of a field.
        assert_eq!(found(&[("api", &[10_000])]), [] as [&str; 0]);
        assert_eq!(found(&[("api", &[10_001])]).len(), 1);
        // A new actor is held against others, however often he does it again afterwards.
        let api = ("api", &[100, 100, 100, 100][..]);
        assert_eq!(found(&[api, ("thief", &[1_000_000])]).len(), 1);
        assert_eq!(found(&[api, ("thief", &[1_000_000; 5])]).len(), BURST_HOURS);
        assert_eq!(found(&[api, ("export", &[1000; 5])]), [] as [&str; 0]);
    }
}
