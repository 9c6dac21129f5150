//! A prediction as text and as a page. Both are made of the same rows.

use crate::operations::Operation;
use crate::prediction::{Interval, Prediction};
use keyfold_report::is_plain;
use keyfold_report::page::{Block, Cell, Chart, Section, Table, html as page};
use std::fmt::Write as _;

/// What the numbers do not say.
const LIMITS: [&str; 7] = [
    "Real: keyring, caches, leases, rotation, rewrapping, and the layer above key services with its deadline, repetitions, breaker and rate limit. A model: the key service.",
    "Calls count each attempt; costs count what was answered.",
    "The store answers at once, and is never away. Requests cost no time of processors: what encryption takes is measured by the benchmarks.",
    "Each request has a handle of its own and is about one patient, whose values are under one key: more values of a patient cost no more calls.",
    "Requests of a process in one step for one key are two, the first and one that stands for the others (data_messages counts no more), and of more keys than samples_per_step so many are asked for, but all of them when processes start.",
    "Requests of a process in one step begin in the same moment. All processes start in the same moment.",
    "Costs are of a month like the quiet time, with rotations as often as they come; free tiers, taxes and audit KEKs are left out.",
];

/// Where a prediction has no mean.
const NO_QUIET_TIME: &str =
    "unknown: simulate max_age more than the start (max_age), rotations, the outage and a max_age after each";

type Rows = Vec<(&'static str, String)>;

fn parts(prediction: &Prediction) -> Vec<(&'static str, Rows)> {
    let mut parts = vec![
        ("System", system(prediction)),
        ("Calls of the key service", calls(prediction)),
        ("Memory", memory(prediction)),
        ("Rotation and rewrapping", rotation(prediction)),
        ("Cost of a month", cost(prediction)),
    ];
    if let Some(rows) = outage(prediction) {
        parts.push(("Outage", rows));
    }
    parts
}

fn system(p: &Prediction) -> Rows {
    let traffic = &p.traffic;
    let one_in = (traffic.reads + traffic.writes) as f64 / traffic.made.max(1) as f64;
    let mut rows = vec![
        ("Simulated", format!("{} with seed {}", duration(p.simulated_seconds as f64), p.seed)),
        ("Step", step(p)),
        ("Processes", p.processes.to_string()),
        ("Tenants", format!("{}, {} of them isolated", p.tenants[0], p.tenants[1])),
        ("Patients", p.patients.to_string()),
        (
            "Reads",
            requests(
                traffic.reads,
                traffic.failed_reads,
                traffic.failed_reads_at_start,
                traffic.failed_reads_around_outage,
            ),
        ),
        (
            "Writes",
            requests(
                traffic.writes,
                traffic.failed_writes,
                traffic.failed_writes_at_start,
                traffic.failed_writes_around_outage,
            ),
        ),
        (
            "Sample",
            match traffic.made == traffic.reads + traffic.writes {
                true => "every request was made".to_owned(),
                false => format!("{} requests were made, each stands for {one_in:.1}", traffic.made),
            },
        ),
        (
            "Waiting",
            format!(
                "{} of requests waited more than 200 ms, the longest {}",
                percent(traffic.waited_percent),
                duration(traffic.longest_wait_seconds)
            ),
        ),
    ];
    if !traffic.failures.is_empty() {
        let failures = traffic.failures.iter().map(|of| format!("{} with {} {}", of.requests, of.code, of.name));
        rows.push(("Failures", failures.collect::<Vec<_>>().join(", ")));
    }
    rows
}

fn step(p: &Prediction) -> String {
    let step = duration(p.step_seconds as f64);
    let shows = |seconds: u64| seconds as f64 > p.unseen_step_seconds;
    if !shows(p.step_seconds) {
        return step;
    }
    let instead = match p.finer_step_seconds {
        None => ", and so is every step that may be".to_owned(),
        Some(finer) if shows(finer) => format!("; \"{finer}s\", the shortest, shows less"),
        Some(finer) => format!("; \"{finer}s\" does not"),
    };
    format!("{step}, which shows in the results: it is longer than a tenth of check_every{instead}")
}

/// Requests of one kind, and when those began that failed.
fn requests(count: u64, failed: u64, at_start: u64, around_outage: u64) -> String {
    let otherwise = failed.saturating_sub(at_start + around_outage);
    let parts = [
        (at_start, "at the start (within max_age)"),
        (around_outage, "in the outage or within max_age after it"),
        (otherwise, "at other times"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, when)| format!("{count} {when}")).collect();
    let when = if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
    format!("{count}, {failed} failed{when}")
}

fn calls(p: &Prediction) -> Rows {
    let calls = &p.calls;
    let mut rows = vec![
        (
            "Mean",
            calls.mean_per_second.map_or_else(|| NO_QUIET_TIME.to_owned(), |mean| format!("{} a second", short(mean))),
        ),
        ("Peak at start", format!("{} in a second, quota {}", calls.peak_at_start_per_second, calls.quota_per_second)),
    ];
    if let Some(peak) = calls.peak_at_rotation_per_second {
        rows.push(("Peak at rotation", format!("{peak} in a second")));
    }
    rows.push(("Peak", format!("{} in a second", calls.peak_per_second)));
    rows.push(("Answered", format!("{} unwraps, {} wraps", calls.unwraps, calls.wraps)));
    rows.push(("Not answered", format!("{} throttled, {} lost in the outage", calls.throttled, calls.lost)));
    rows.push(("Per million requests", format!("{} calls", short(calls.per_million_requests))));
    rows
}

fn memory(p: &Prediction) -> Rows {
    let memory = &p.memory;
    vec![
        ("Cache entries", format!("{} in the process that has most", memory.entries)),
        ("Cache memory", format!("{} of at most {}", bytes(memory.bytes), bytes(memory.max_bytes))),
        ("Per entry", format!("{} bytes, as the caches count", memory.bytes_per_entry)),
    ]
}

fn rotation(p: &Prediction) -> Rows {
    let of = |operation: &Operation| {
        format!("{} for {} records and {} calls", duration(operation.seconds), operation.records, operation.calls)
    };
    let by_age = match &p.rotation {
        None => "no data key was due".to_owned(),
        Some(rotation) if rotation.rotated == 0 => {
            format!("none of {} tenants wrote since keys were due", rotation.due)
        }
        Some(rotation) => format!(
            "{} of {} tenants; from due until nobody seals under the old key {} (median), {} (longest)",
            rotation.rotated,
            rotation.due,
            duration(rotation.median_seconds),
            duration(rotation.longest_seconds)
        ),
    };
    vec![
        ("By age", by_age),
        ("All tenants by command", of(&p.operations.rotate_all)),
        ("Root by command", of(&p.operations.rotate_root)),
        ("Reparent", of(&p.operations.reparent)),
        ("Rewrap everything", of(&p.operations.rewrap)),
    ]
}

fn cost(p: &Prediction) -> Rows {
    let (cost, amount) = (&p.cost, |amount: f64| format!("{amount:.2} {}", p.cost.currency));
    let of_calls = cost.calls.zip(cost.calls_per_month);
    let calls = of_calls.map(|(price, calls)| format!("{} for {calls} calls", amount(price)));
    vec![
        ("Calls", calls.unwrap_or_else(|| NO_QUIET_TIME.to_owned())),
        ("KEKs", amount(cost.keks)),
        ("Together", cost.total.map_or_else(|| NO_QUIET_TIME.to_owned(), amount)),
    ]
}

fn outage(p: &Prediction) -> Option<Rows> {
    let outage = p.outage.as_ref()?;
    let first = |seconds: Option<f64>| {
        seconds
            .map_or_else(|| "none failed".to_owned(), |seconds| format!("the first failed after {}", duration(seconds)))
    };
    let of = |percent_served: f64, first_failed: Option<f64>| {
        format!("{} of those that began in it were served; {}", percent(percent_served), first(first_failed))
    };
    Some(vec![
        (
            "Key service away",
            format!(
                "for {}, from {} on",
                duration(outage.length_seconds as f64),
                duration(outage.start_seconds as f64)
            ),
        ),
        ("Reads", of(outage.reads_served_percent, outage.first_failed_read_seconds)),
        ("Writes", of(outage.writes_served_percent, outage.first_failed_write_seconds)),
        (
            "Afterwards",
            outage.last_failure_after_end_seconds.map_or_else(
                || "no request failed after the end".to_owned(),
                |seconds| format!("the last request failed {} after the end", duration(seconds)),
            ),
        ),
    ])
}

pub(crate) fn text(prediction: &Prediction) -> String {
    let mut out = format!("{}\n", plain(&prediction.scenario));
    for (title, rows) in parts(prediction) {
        let _ = writeln!(out, "\n{title}");
        for (name, value) in rows {
            let _ = writeln!(out, "  {name:<24}{}", plain(&value));
        }
    }
    out.push_str("\nWhat these numbers are\n");
    for limit in LIMITS {
        let _ = writeln!(out, "  - {limit}");
    }
    out
}

pub(crate) fn html(prediction: &Prediction) -> String {
    let mut sections: Vec<Section> = parts(prediction)
        .into_iter()
        .map(|(title, rows)| {
            let rows = rows.into_iter().map(|(name, value)| vec![Cell::from(name), Cell::from(value)]).collect();
            Section { title, blocks: vec![Block::Table(Table::new(title, &["What", "Figure"], rows))] }
        })
        .collect();
    sections.push(course(prediction));
    let limits = LIMITS.iter().map(ToString::to_string).collect();
    sections.push(Section { title: "What these numbers are", blocks: vec![Block::List(limits)] });
    page(&format!("Keyfold simulation: {}", prediction.scenario), &sections)
}

fn course(prediction: &Prediction) -> Section {
    let labels = || prediction.intervals.iter().map(|interval| moment(interval.start_seconds)).collect();
    let series = |name: &str, value: fn(&Interval) -> u64| {
        (name.to_owned(), prediction.intervals.iter().map(value).collect::<Vec<_>>())
    };
    let chart = |title, unit, series| Block::Chart(Chart::bars(title, unit, labels(), series).labelled("From"));
    let mut blocks = vec![
        chart("Calls", "calls of the key service", vec![series("calls", |interval| interval.calls)]),
        chart(
            "Peaks",
            "most calls in a second",
            vec![series("calls", |interval| interval.peak_calls_per_second.into())],
        ),
        chart(
            "Cache",
            "KiB in the caches of the process that has most",
            vec![series("KiB", |interval| interval.cache_bytes as u64 / 1024)],
        ),
    ];
    if prediction.intervals.iter().any(|interval| interval.failed_reads + interval.failed_writes > 0) {
        let failed = vec![
            series("failed reads", |interval| interval.failed_reads),
            series("failed writes", |interval| interval.failed_writes),
            series("served", |interval| interval.served),
        ];
        blocks.push(chart("Requests", "reads and writes", failed));
    }
    Section { title: "Course", blocks }
}

/// Hours and minutes since the start.
fn moment(seconds: u64) -> String {
    match seconds % 60 {
        0 => format!("{}:{:02}", seconds / 3600, seconds / 60 % 60),
        rest => format!("{}:{:02}:{rest:02}", seconds / 3600, seconds / 60 % 60),
    }
}

/// Three digits at least.
fn short(number: f64) -> String {
    match number {
        _ if number == 0.0 => "0".to_owned(),
        _ if number < 1.0 => format!("{number:.4}"),
        _ if number < 100.0 => format!("{number:.2}"),
        _ => format!("{number:.0}"),
    }
}

fn percent(part: f64) -> String {
    // What is nearly all must not look as if it were all.
    if part > 99.99 && part < 100.0 { "more than 99.99 %".to_owned() } else { format!("{part:.2} %") }
}

fn duration(seconds: f64) -> String {
    match seconds {
        _ if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        _ if seconds < 120.0 => format!("{seconds:.1} s"),
        _ if seconds < 7200.0 => format!("{:.1} min", seconds / 60.0),
        _ if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} d", seconds / 86_400.0),
    }
}

fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}

/// Names come from scenario files: none of them moves the cursor of a terminal, or hides what it says.
fn plain(said: &str) -> String {
    said.chars().map(|c| if is_plain(c) { c } else { '\u{FFFD}' }).collect()
}
