//! What is worth a look in the sums of a trail. An anomaly need not be wrong.

use crate::counts::{Counts, DRILL_FIELD, Pair, grow};
use crate::evidence::Watch;
use crate::text::counted;
use crate::time::{self, DAY, HOUR};
use crate::trail::Anomaly;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

/// Fewest values in an hour that are a burst, however few there are otherwise.
const BURST_MIN: u64 = 100;
/// Fewest hours to compare with.
const BURST_HOURS: usize = 3;
/// Hours in which an actor has opened values of a field, and hours since the first of them, before he is known: two weeks.
pub(crate) const KNOWN_HOURS: usize = 100;
const KNOWN_SINCE: u64 = 14 * HOURS_OF_DAY;
const HOURS_OF_DAY: u64 = DAY / HOUR;
/// Most new actors that are named.
const NAMED: usize = 5;

/// Opened values of each hour, by actor and field.
type Opened = BTreeMap<Pair, BTreeMap<u64, u64>>;

/// All of them, the latest first.
pub(crate) fn find(counts: &Counts, watch: &Watch) -> Vec<Anomaly> {
    let mut found = counts.singly.clone();
    bursts(&counts.opened, watch, &mut found);
    new_actors(&counts.opened, &mut found);
    let mut add = |kind, at, what| found.push(Anomaly { kind, at, what });
    for ((day, actor, what), n) in &counts.failures {
        add("failures", time::date(day * DAY), format!("{}, of {actor}, {what}", counted(*n, "time")));
    }
    for ((day, actor), (values, changes)) in &counts.outside {
        let opened = (*values > 0).then(|| format!("opened {}", counted(*values, "value")));
        let names = || changes.iter().copied().collect::<Vec<_>>().join(", ");
        let changed = (!changes.is_empty()).then(|| format!("changed keys ({})", names()));
        let what = opened.into_iter().chain(changed).collect::<Vec<_>>().join(" and ");
        add("outside-hours", time::date(day * DAY), format!("{actor} {what}"));
    }
    for ((hour, actor, field), n) in &counts.clear {
        let what = format!("{actor} read {} of {field} in clear, not sealed yet", counted(*n, "value"));
        add("clear-values", time::minute(hour * HOUR), what);
    }
    // Values of drills are left out elsewhere: a field of that name must hide none.
    for (actor, drills) in counts.drills.iter().filter(|(_, drills)| drills.opened > drills.parts) {
        let what = format!(
            "{actor} opened {} of {DRILL_FIELD}, and the trail has {} of KEKs, each of which opens one at most: a policy has a field of that name, or \
             events are missing",
            counted(drills.opened, "value"),
            counted(drills.parts, "drill")
        );
        add("drills", time::minute(drills.last), what);
    }
    for (actor, later) in &counts.later {
        let what = format!(
            "{} of {actor}, with {}, dated after this report and in no other figure of it: a clock is ahead, unless \
             the report was made for an earlier time (--at)",
            counted(later.events, "event"),
            counted(later.opened, "opened value")
        );
        add("future", time::minute(later.last), what);
    }
    if counts.unread > 0 {
        let what = format!("unreadable lines of the audit files, which are in no figure: {}", counts.unread);
        add(
            "unreadable",
            counts.last.as_ref().map_or_else(|| "-".to_owned(), |(seconds, _)| time::minute(*seconds)),
            what,
        );
    }
    found.sort_by(|a, b| (&b.at, a.kind, &a.what).cmp(&(&a.at, b.kind, &b.what)));
    found
}

/// Hours in which an actor opened far more values of a field than is usual, or of all fields together, where none of them says it already.
fn bursts(opened: &Opened, watch: &Watch, found: &mut Vec<Anomaly>) {
    let mut totals = Opened::new();
    for ((actor, _), hours) in opened {
        let total = totals.entry((actor.clone(), "all fields".to_owned())).or_default();
        hours.iter().for_each(|(hour, values)| grow(total.entry(*hour).or_default(), *values));
    }
    let mut told = BTreeSet::new();
    for (sums, of_fields) in [(opened, true), (&totals, false)] {
        let all = by_field(sums);
        for ((actor, field), hours) in sums {
            let of_field = all.get(field.as_str()).map_or(&[][..], Vec::as_slice);
            for Burst { hour, values, than } in bursts_of(of_field, actor, hours, watch) {
                if told.insert((actor, hour)) || of_fields {
                    let what = format!("{actor} opened {values} values of {field} within this hour, {than}");
                    found.push(Anomaly { kind: "burst", at: time::minute(hour * HOUR), what });
                }
            }
        }
    }
}

struct Burst {
    hour: u64,
    values: u64,
    /// What it is more than.
    than: String,
}

/// What is usual is what an actor opened in his hours before, once he is known for long; later hours of his own are no excuse: whoever steals
/// an identity would make them himself. Until then he could make what is usual step by step, so that it is the least that it ever was for
/// him, and no more than what others open. `of_field`: what everybody opened of the field in each hour, sorted.
fn bursts_of(of_field: &[u64], actor: &str, hours: &BTreeMap<u64, u64>, watch: &Watch) -> Vec<Burst> {
    let (mut before, mut least, mut others, mut found) = (Median::default(), u64::MAX, None, Vec::new());
    let first = hours.keys().next().copied().unwrap_or_default();
    for (&hour, &values) in hours {
        let own = before.value().filter(|_| before.len() >= BURST_HOURS);
        least = least.min(own.unwrap_or(u64::MAX));
        let is_known = before.len() >= KNOWN_HOURS && hour - first >= KNOWN_SINCE;
        let usual = match own {
            Some(median) if is_known => Usual::Own(median),
            _ => match *others.get_or_insert_with(|| of_others(of_field, hours)) {
                Usual::Others(median) if median < least => Usual::Others(median),
                other if own.is_none() => other,
                _ => Usual::Least(least),
            },
        };
        before.add(values);
        let (limit, than) = match usual {
            Usual::Own(median) => {
                (median.saturating_mul(watch.burst.into()), format!("{median} in a median hour before"))
            }
            Usual::Least(median) => (
                median.saturating_mul(watch.burst.into()),
                format!("{median} in a median hour when that was least, and {actor} is not known for long"),
            ),
            Usual::Others(median) => (
                median.saturating_mul(watch.burst.into()),
                format!("{median} in a median hour of others, and {actor} is not known for long"),
            ),
            Usual::Unknown => {
                (watch.unknown_max, "and nobody has opened enough before to say what is usual".to_owned())
            }
        };
        if values >= BURST_MIN && values > limit {
            found.push(Burst { hour, values, than });
        }
    }
    found
}

/// How many values of a field are usual in an hour.
#[derive(Clone, Copy)]
enum Usual {
    Own(u64),
    Least(u64),
    Others(u64),
    Unknown,
}

/// What all actors opened of each field in each hour, sorted: once, since there may be as many actors as lines.
fn by_field(sums: &Opened) -> HashMap<&str, Vec<u64>> {
    let mut all: HashMap<&str, Vec<u64>> = HashMap::new();
    for ((_, field), hours) in sums {
        all.entry(field).or_default().extend(hours.values());
    }
    all.values_mut().for_each(|values| values.sort_unstable());
    all
}

/// The median of what `of_field` has beyond an actor's `own`.
fn of_others(of_field: &[u64], own: &BTreeMap<u64, u64>) -> Usual {
    let mut own: Vec<u64> = own.values().copied().collect();
    own.sort_unstable();
    let others = of_field.len() - own.len();
    if others < BURST_HOURS {
        return Usual::Unknown;
    }
    let up_to = |values: &[u64], most: u64| values.partition_point(|value| *value <= most);
    // The first value up to which there are more of others than half.
    let at = of_field.partition_point(|value| up_to(of_field, *value) - up_to(&own, *value) <= others / 2);
    Usual::Others(of_field[at])
}

/// Actors that open values for the first time, together for each day: what one of many names opens need not be a burst. Whoever is there
/// within a day of the first value that anybody opened is not new.
fn new_actors(opened: &Opened, found: &mut Vec<Anomaly>) {
    let mut first_of: BTreeMap<&str, u64> = BTreeMap::new();
    for ((actor, _), hours) in opened {
        for &hour in hours.keys().take(1) {
            let first = first_of.entry(actor).or_insert(hour);
            *first = hour.min(*first);
        }
    }
    let Some(begin) = first_of.values().min().copied() else { return };
    // Names, which are in order, and values of their first day.
    let mut days: BTreeMap<u64, (Vec<&str>, u64)> = BTreeMap::new();
    first_of.retain(|_, first| *first - begin >= HOURS_OF_DAY);
    for (actor, first) in &first_of {
        days.entry(first / HOURS_OF_DAY).or_default().0.push(actor);
    }
    for ((actor, _), hours) in opened {
        let Some(day) = first_of.get(actor.as_str()).map(|first| first / HOURS_OF_DAY) else { continue };
        let values = &mut days.entry(day).or_default().1;
        hours.range(day * HOURS_OF_DAY..(day + 1) * HOURS_OF_DAY).for_each(|(_, more)| grow(values, *more));
    }
    for (day, (actors, values)) in days {
        let more = actors.len().saturating_sub(NAMED);
        let names = actors[..actors.len() - more].join(", ");
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let what = format!("{names}{more} opened values for the first time, {values} of them on this day");
        found.push(Anomaly { kind: "new-actor", at: time::date(day * DAY), what });
    }
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
        assert_eq!(found(&[api, ("thief", &[1_000_000; 5])]).len(), 5);
        assert_eq!(found(&[api, ("export", &[1000; 5])]), [] as [&str; 0]);
    }

    /// As many actors as lines: each with one hour takes no look at every other one.
    #[test]
    fn what_others_open_is_sorted_once() {
        let names: Vec<String> = (0..30_000).map(|n| format!("actor-{n:05}")).collect();
        let all = names.iter().enumerate().map(|(n, name)| ((name.clone(), "f".to_owned()), [(0, n as u64)].into()));
        let begun = std::time::Instant::now();
        let found = found(&all.collect());
        // A tenth of a second; what looks at all others for each of them takes more than a minute.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        assert!(found.is_empty(), "twice the median of others at most: {}", found.len());
    }

    #[test]
    fn the_median_of_others_leaves_out_what_is_ones_own() {
        let mut state = 1_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u64::from((state >> 16) % below)
        };
        for _ in 0..500 {
            // Few different values, so that many are the same.
            let [own, others] = [next(6), next(9)].map(|len| (0..len).map(|_| next(5)).collect::<Vec<_>>());
            let mut all = [&own[..], &others].concat();
            all.sort_unstable();
            let own: BTreeMap<u64, u64> = own.into_iter().enumerate().map(|(hour, n)| (hour as u64, n)).collect();
            let mut sorted = others;
            sorted.sort_unstable();
            let expected = (sorted.len() >= BURST_HOURS).then(|| sorted[sorted.len() / 2]);
            let found = match of_others(&all, &own) {
                Usual::Others(median) => Some(median),
                _ => None,
            };
            assert_eq!(found, expected, "{sorted:?} beside {own:?}");
        }
    }

    /// What `actor` opened, in each hour as many values, of one field.
    fn opened(all: &[(&str, &str, &[u64])]) -> Opened {
        let hours = |values: &[u64]| values.iter().enumerate().map(|(hour, n)| (hour as u64, *n)).collect();
        all.iter().map(|(actor, field, values)| (((*actor).into(), (*field).into()), hours(values))).collect()
    }

    fn found(opened: &Opened) -> Vec<String> {
        let mut found = Vec::new();
        bursts(opened, &Watch { hours: None, burst: 10, unknown_max: 10_000 }, &mut found);
        found.into_iter().map(|anomaly| format!("{} {}", anomaly.at, anomaly.what)).collect()
    }

    #[test]
    fn who_is_new_does_not_become_usual_step_by_step() {
        let ramp = [1000, 1000, 1000, 10_000, 10_000, 10_000, 100_000, 100_000, 100_000, 100_000, 100_000, 100_000];
        let mut hours = ramp.to_vec();
        hours.push(1_000_000);
        // Ten times what others open is the most; without others ten times his own least.
        assert_eq!(found(&opened(&[("api", "f", &[100; 20]), ("thief", "f", &hours)])).len(), 10);
        assert_eq!(found(&opened(&[("thief", "f", &hours)])).len(), 7);
    }

    #[test]
    fn who_is_known_for_long_is_held_against_himself() {
        let export = |hours: u64, last: u64| {
            let values = (0..hours).map(|n| (n * last / hours, 5000)).chain([(last, 5000)]);
            let mut all = opened(&[("api", "f", &[100; 20])]);
            all.insert(("export".into(), "f".into()), values.collect());
            found(&all).into_iter().filter(|what| what.starts_with(&time::minute(last * HOUR))).count()
        };
        assert_eq!(export(KNOWN_HOURS as u64, KNOWN_SINCE), 0);
        assert_eq!(export(KNOWN_HOURS as u64 - 1, KNOWN_SINCE), 1, "too few hours");
        assert_eq!(export(KNOWN_HOURS as u64, KNOWN_SINCE - 1), 1, "too few days");
    }

    #[test]
    fn values_that_are_spread_over_fields_add_up() {
        let fields: Vec<String> = (0..114).map(|n| format!("f{n:03}")).collect();
        let spread = fields.iter().map(|field| ("thief", field.as_str(), &[99_u64][..]));
        let mut all: Vec<_> = spread.collect();
        let alone = found(&opened(&all));
        assert_eq!(alone.len(), 1, "{alone:?}");
        assert!(alone[0].contains("thief opened 11286 values of all fields"), "{alone:?}");
        all.push(("api", "f000", &[100, 100, 100]));
        assert_eq!(found(&opened(&all)).len(), 1);
        // What a field says already is not said again.
        let two = opened(&[("thief", "f", &[20_000]), ("thief", "g", &[1])]);
        assert_eq!(found(&two).len(), 1);
        assert!(found(&two)[0].contains("values of f "));
    }

    #[test]
    fn new_actors_are_told_together() {
        let mut all = opened(&[("api", "f", &[100; 30])]);
        let mut found = Vec::new();
        new_actors(&all, &mut found);
        assert!(found.is_empty(), "a trail begins with somebody");
        for name in ["a", "b", "c", "d", "e", "f", "g"] {
            all.insert((name.into(), "f".into()), [(47, 9), (48, 1000)].into());
        }
        new_actors(&all, &mut found);
        let said: Vec<_> = found.iter().map(|anomaly| (anomaly.kind, &*anomaly.at, &*anomaly.what)).collect();
        let what = "a, b, c, d, e and 2 more opened values for the first time, 63 of them on this day";
        assert_eq!(said, [("new-actor", "1970-01-02", what)]);
    }
}
