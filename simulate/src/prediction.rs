//! What a simulation predicts.

use crate::operations::Operations;
use crate::render;
use crate::scenario::Scenario;
use crate::service::Counts;
use crate::tally::{Outcomes, Tally};
use crate::world::World;
use serde::Serialize;
use std::time::Duration;

const VERSION: u32 = 1;
/// A month of costs, in seconds: 30 days.
const MONTH: f64 = 30.0 * 86_400.0;

/// What a simulation predicts. Its JSON form has every member; docs/SIMULATE.md says what they mean.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// The version of the JSON form, 1: another one where a member goes or means something else.
    pub version: u32,
    /// The name of the scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// How long was simulated.
    pub simulated_seconds: u64,
    /// How often each process got its requests.
    pub step_seconds: u64,
    /// A tenth of `check_every`: a longer step shows in the results.
    pub unseen_step_seconds: f64,
    /// Where `step_seconds` is longer, the longest step that is not, or else the shortest that may be.
    pub finer_step_seconds: Option<u64>,
    /// Processes.
    pub processes: usize,
    /// Tenants, and how many of them are isolated.
    pub tenants: [usize; 2],
    /// Patients, or devices.
    pub patients: u64,
    /// What the key service is asked.
    pub calls: Calls,
    /// What caches hold.
    pub memory: Memory,
    /// What became of requests.
    pub traffic: Traffic,
    /// How data keys were rotated by age; `None`: none was due.
    pub rotation: Option<Rotation>,
    /// What commands of operators cost.
    pub operations: Operations,
    /// What a month costs.
    pub cost: Cost,
    /// What the outage did.
    pub outage: Option<OutageEffect>,
    /// The course of it.
    pub intervals: Vec<Interval>,
}

/// What the key service is asked.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Calls {
    /// Answered requests to wrap.
    pub wraps: u64,
    /// Answered requests to unwrap.
    pub unwraps: u64,
    /// Requests beyond the quota.
    pub throttled: u64,
    /// Requests in the outage.
    pub lost: u64,
    /// Per second, without the first `max_age`, rotations and the outage. None where less than `max_age` else is simulated.
    pub mean_per_second: Option<f64>,
    /// Most in a second of the first `max_age`.
    pub peak_at_start_per_second: u32,
    /// Most in a second from when keys become due until `max_age` later.
    pub peak_at_rotation_per_second: Option<u32>,
    /// Most in any second.
    pub peak_per_second: u32,
    /// The quota.
    pub quota_per_second: u32,
    /// Answered requests for a million reads and writes.
    pub per_million_requests: f64,
}

/// What the caches of the process that has most hold, as they count it themselves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Entries.
    pub entries: usize,
    /// Bytes.
    pub bytes: usize,
    /// Bytes of an entry on average.
    pub bytes_per_entry: usize,
    /// The limit: `max_bytes` of `[cache]`.
    pub max_bytes: usize,
}

/// What became of requests.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// Requests that read.
    pub reads: u64,
    /// Those that failed.
    pub failed_reads: u64,
    /// Those of them that began in the first `max_age`.
    pub failed_reads_at_start: u64,
    /// Those of them that began in the outage, or within `max_age` after it.
    pub failed_reads_around_outage: u64,
    /// Requests that wrote.
    pub writes: u64,
    /// Those that failed.
    pub failed_writes: u64,
    /// Likewise of writes.
    pub failed_writes_at_start: u64,
    /// Likewise of writes.
    pub failed_writes_around_outage: u64,
    /// How many were made; each stands for as many as there are more.
    pub made: u64,
    /// Requests that waited more than 200 ms for the key service, in percent.
    pub waited_percent: f64,
    /// The longest wait.
    pub longest_wait_seconds: f64,
    /// What failed, by error.
    pub failures: Vec<Failures>,
}

/// Requests that failed with one error.
#[derive(Clone, Debug, Serialize)]
pub struct Failures {
    /// The permanent code of the error (`keyfold::ErrorKind::code`).
    pub code: u16,
    /// Its name.
    pub name: &'static str,
    /// How many.
    pub requests: u64,
}

/// How data keys were rotated by age.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Rotation {
    /// Tenants whose keys became due.
    pub due: usize,
    /// Tenants that seal under new ones.
    pub rotated: usize,
    /// From when a key is due until no process seals under it any more: the median of tenants.
    pub median_seconds: f64,
    /// Likewise, the longest.
    pub longest_seconds: f64,
}

/// What a month of 30 days costs, without free tiers and taxes.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What the amounts are in.
    pub currency: String,
    /// Answered requests of a month: those of the quiet time and of rotations; no start, and no outage.
    /// None where there is no mean.
    pub calls_per_month: Option<u64>,
    /// What they cost.
    pub calls: Option<f64>,
    /// What KEKs cost.
    pub keks: f64,
    /// Both.
    pub total: Option<f64>,
}

/// What the outage did.
#[derive(Clone, Debug, Serialize)]
pub struct OutageEffect {
    /// When it began.
    pub start_seconds: u64,
    /// How long it lasted.
    pub length_seconds: u64,
    /// Reads that began in it and were served, in percent.
    pub reads_served_percent: f64,
    /// Likewise, of writes.
    pub writes_served_percent: f64,
    /// After how long in the outage the first read failed.
    pub first_failed_read_seconds: Option<f64>,
    /// Likewise, of writes.
    pub first_failed_write_seconds: Option<f64>,
    /// How long after the end of the outage, and within `max_age`, the last request failed; `None`: none did.
    pub last_failure_after_end_seconds: Option<f64>,
}

/// A part of the simulated time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Interval {
    /// When it begins.
    pub start_seconds: u64,
    /// Requests to the key service.
    pub calls: u64,
    /// Most of them in a second.
    pub peak_calls_per_second: u32,
    /// Reads and writes that were served.
    pub served: u64,
    /// Reads that failed.
    pub failed_reads: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Bytes in the caches of the process that has most.
    pub cache_bytes: usize,
}

impl Prediction {
    pub(crate) fn new(
        scenario: &Scenario,
        world: &World,
        tally: &Tally,
        counts: Counts,
        seconds: &[u32],
        operations: Operations,
    ) -> Self {
        let windows = Windows::of(scenario);
        let calls = calls(scenario, tally, counts, seconds, &windows);
        let (entries, bytes) = tally.memory;
        let [reads, writes] = tally.failed_when;
        let system = &scenario.system;
        Self {
            version: VERSION,
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            simulated_seconds: scenario.run.time.as_secs(),
            step_seconds: scenario.run.step.as_secs(),
            unseen_step_seconds: scenario.unseen_step().as_secs_f64(),
            finer_step_seconds: scenario.finer_step().map(|step| step.as_secs()),
            processes: system.processes,
            tenants: [system.tenants, system.isolated_tenants],
            patients: system.patients,
            memory: Memory {
                entries,
                bytes,
                bytes_per_entry: bytes / entries.max(1),
                max_bytes: world.config.cache.max_bytes,
            },
            traffic: Traffic {
                reads: whole(tally.reads.served + tally.reads.failed),
                failed_reads: whole(tally.reads.failed),
                failed_reads_at_start: whole(reads.at_start),
                failed_reads_around_outage: whole(reads.around_outage),
                writes: whole(tally.writes.served + tally.writes.failed),
                failed_writes: whole(tally.writes.failed),
                failed_writes_at_start: whole(writes.at_start),
                failed_writes_around_outage: whole(writes.around_outage),
                made: tally.made,
                // Nobody waits where nobody asks.
                waited_percent: if requests(tally) > 0.0 { percent(tally.noticed, requests(tally)) } else { 0.0 },
                longest_wait_seconds: tally.longest_wait.as_secs_f64(),
                failures: tally
                    .errors
                    .iter()
                    .map(|(&(code, name), &count)| Failures { code, name, requests: whole(count) })
                    .collect(),
            },
            rotation: rotation(tally),
            operations,
            cost: cost(scenario, &calls, seconds, &windows),
            outage: outage(scenario, tally),
            intervals: intervals(tally, seconds),
            calls,
        }
    }

    /// The prediction as text for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        render::text(self)
    }

    /// The prediction as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("names are texts, and numbers are finite")
    }

    /// The prediction as one HTML file with charts, which loads nothing and runs nothing.
    #[must_use]
    pub fn to_html(&self) -> String {
        render::html(self)
    }
}

/// Times that are not as others are, in seconds.
struct Windows {
    start: [u64; 2],
    rotations: Vec<[u64; 2]>,
    outage: Option<[u64; 2]>,
}

impl Windows {
    fn of(scenario: &Scenario) -> Self {
        let age = scenario.cache.max_age.as_secs();
        let rotation = |at: Option<Duration>, spread: Duration| {
            at.map(|at| [at.as_secs(), at.as_secs() + spread.as_secs() + scenario.rotation.lead.as_secs() + age])
        };
        let run = &scenario.run;
        let data = rotation(run.rotation_at.filter(|_| scenario.rotation.data_age.is_some()), run.rotation_spread);
        let root = rotation(run.root_rotation_at.filter(|_| scenario.rotation.root_age.is_some()), Duration::ZERO);
        Self {
            start: [0, age],
            rotations: data.into_iter().chain(root).collect(),
            outage: scenario.outage.as_ref().map(|outage| [outage.start.as_secs(), outage.end().as_secs() + age]),
        }
    }

    fn is_quiet(&self, second: u64) -> bool {
        let unusual = [Some(self.start), self.outage];
        !unusual.iter().flatten().chain(&self.rotations).any(|[start, end]| (*start..*end).contains(&second))
    }
}

/// The requests of some seconds.
fn of(seconds: &[u32], [start, end]: [u64; 2]) -> &[u32] {
    let place = |second: u64| usize::try_from(second).unwrap_or(usize::MAX).min(seconds.len());
    &seconds[place(start)..place(end)]
}

fn sum(seconds: &[u32]) -> u64 {
    seconds.iter().map(|&calls| u64::from(calls)).sum()
}

fn peak(seconds: &[u32]) -> u32 {
    seconds.iter().copied().max().unwrap_or(0)
}

fn calls(scenario: &Scenario, tally: &Tally, counts: Counts, seconds: &[u32], windows: &Windows) -> Calls {
    let total = scenario.run.time.as_secs();
    let quiet: Vec<u64> = (0..total).filter(|&second| windows.is_quiet(second)).collect();
    let at = |second: &u64| usize::try_from(*second).ok().and_then(|second| seconds.get(second).copied()).unwrap_or(0);
    let in_quiet: u64 = quiet.iter().map(|second| u64::from(at(second))).sum();
    // Keys are renewed once in `max_age`, so a shorter time tells nothing.
    let is_enough = quiet.len() as u64 >= scenario.cache.max_age.as_secs().max(1);
    let rotations = windows.rotations.iter().map(|window| peak(of(seconds, *window)));
    Calls {
        wraps: counts.wraps,
        unwraps: counts.unwraps,
        throttled: counts.throttled,
        lost: counts.lost,
        mean_per_second: is_enough.then(|| in_quiet as f64 / quiet.len() as f64),
        peak_at_start_per_second: peak(of(seconds, windows.start)),
        peak_at_rotation_per_second: rotations.max(),
        peak_per_second: peak(seconds),
        quota_per_second: scenario.key_service.quota_per_second,
        per_million_requests: counts.answered() as f64 * 1e6 / requests(tally).max(1.0),
    }
}

fn cost(scenario: &Scenario, calls: &Calls, seconds: &[u32], windows: &Windows) -> Cost {
    let beyond = |mean: f64, window: &[u64; 2]| {
        let found = of(seconds, *window);
        (sum(found) as f64 - mean * found.len() as f64).max(0.0)
    };
    let data = scenario.run.rotation_at.and(scenario.rotation.data_age);
    let root = scenario.run.root_rotation_at.and(scenario.rotation.root_age);
    let ages = [data, root].into_iter().flatten();
    let calls_per_month = calls.mean_per_second.map(|mean| {
        let rotations = windows.rotations.iter().zip(ages);
        let rotations: f64 = rotations.map(|(window, age)| beyond(mean, window) * MONTH / age.as_secs_f64()).sum();
        whole(mean * MONTH + rotations)
    });
    let service = &scenario.key_service;
    let of_calls = calls_per_month.map(|calls| calls as f64 / 10_000.0 * service.price_per_10000_calls);
    let of_keks = (service.keks + scenario.system.isolated_tenants) as f64 * service.price_per_key_and_month;
    Cost {
        currency: service.currency.clone(),
        calls_per_month,
        calls: of_calls,
        keks: of_keks,
        total: of_calls.map(|of_calls| of_calls + of_keks),
    }
}

fn rotation(tally: &Tally) -> Option<Rotation> {
    let due = tally.rotations.iter().filter(|rotation| rotation.is_due()).count();
    let mut took: Vec<f64> =
        tally.rotations.iter().filter_map(|rotation| rotation.took()).map(|took| took.as_secs_f64()).collect();
    took.sort_by(f64::total_cmp);
    (due > 0).then(|| Rotation {
        due,
        rotated: took.len(),
        median_seconds: took.get(took.len() / 2).copied().unwrap_or(0.0),
        longest_seconds: took.last().copied().unwrap_or(0.0),
    })
}

fn outage(scenario: &Scenario, tally: &Tally) -> Option<OutageEffect> {
    let outage = scenario.outage.as_ref()?;
    let [reads, writes] = tally.in_outage;
    let served = |outcomes: Outcomes| percent(outcomes.served, outcomes.served + outcomes.failed);
    let first = |failures: Option<(Duration, Duration)>| {
        failures.map(|(first, _)| first.saturating_sub(outage.start).as_secs_f64())
    };
    let last = tally.failures.iter().flatten().map(|(_, last)| *last).max();
    Some(OutageEffect {
        start_seconds: outage.start.as_secs(),
        length_seconds: outage.length.as_secs(),
        reads_served_percent: served(reads),
        writes_served_percent: served(writes),
        first_failed_read_seconds: first(tally.failures[0]),
        first_failed_write_seconds: first(tally.failures[1]),
        last_failure_after_end_seconds: last
            .and_then(|last| last.checked_sub(outage.end()))
            .map(|after| after.as_secs_f64()),
    })
}

fn intervals(tally: &Tally, seconds: &[u32]) -> Vec<Interval> {
    let length = tally.interval.as_secs();
    let interval = |(n, found): (usize, &crate::tally::OfInterval)| {
        let start = n as u64 * length;
        let calls = of(seconds, [start, start + length]);
        Interval {
            start_seconds: start,
            calls: sum(calls),
            peak_calls_per_second: peak(calls),
            served: whole(found.reads.served + found.writes.served),
            failed_reads: whole(found.reads.failed),
            failed_writes: whole(found.writes.failed),
            cache_bytes: found.bytes,
        }
    };
    tally.intervals.iter().enumerate().map(interval).collect()
}

fn requests(tally: &Tally) -> f64 {
    [tally.reads, tally.writes].iter().map(|outcomes| outcomes.served + outcomes.failed).sum()
}

fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 100.0 }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(count: f64) -> u64 {
    count.round() as u64
}
