//! The report as headings, texts, tables and charts, from which Markdown and HTML are made alike.

use crate::anomalies::KNOWN_HOURS;
use crate::overview::overview;
use crate::page::{Block, Cell, Chart, Section, Table};
use crate::text::counted;
use crate::{Report, time, uses};
use std::collections::BTreeMap;

/// Most keys and events that are written out; JSON has all of them.
pub(crate) const MAX_ROWS: usize = 100;

macro_rules! row {
    ($($cell:expr),+ $(,)?) => { vec![$($crate::page::Cell::from($cell)),+] };
}
pub(crate) use row;

pub(crate) fn sections(report: &Report) -> Vec<Section> {
    vec![
        overview(report),
        matrix(report),
        inventory(report),
        history(report),
        audit(report),
        uses::section(report),
        calls(report),
        retention(report),
        controls(report),
        about(),
    ]
}

pub(crate) fn lines(texts: impl IntoIterator<Item = Option<String>>) -> Cell {
    Cell(texts.into_iter().flatten().collect())
}

pub(crate) fn table(caption: impl Into<String>, head: &[&'static str], rows: Vec<Vec<Cell>>) -> Block {
    Block::Table(Table::new(caption, head, rows))
}

pub(crate) fn moment(text: &str) -> String {
    time::parse(text).map_or_else(|| text.to_owned(), time::minute)
}

fn matrix(report: &Report) -> Section {
    let row = |field: &crate::FieldRow| {
        let class = field.identifier.map(|letter| format!("({letter}) {}", field.identifier_title.unwrap_or_default()));
        vec![
            lines([Some(field.field.clone()), class.or_else(|| Some("no identifier".to_owned()))]),
            field.service.clone().into(),
            lines([
                // Values that keep their format are of none.
                Some(match field.suites.is_empty() {
                    true => field.mode.to_owned(),
                    false => format!("{}, suite {}", field.mode, field.suites.join(", ")),
                }),
                Some(field.algorithm.to_owned()),
                Some(format!("type {}, padding {}", field.value_type, field.padding)),
                field.migrates.then(|| "IN MIGRATION: values in clear may be read".to_owned()),
            ]),
            lines([
                (!field.authenticated).then(|| "NOT AUTHENTICATED".to_owned()),
                Some(field.row_binding.as_ref().map_or_else(|| "no row".to_owned(), |row| format!("row: {row}"))),
                (!field.required_context.is_empty()).then(|| format!("context: {}", field.required_context.join(", "))),
            ]),
            match &field.manifest {
                Some(manifest) => Cell(manifest.split("; ").map(str::to_owned).collect()),
                None => "-".into(),
            },
            lines(field.keys.iter().map(|keys| Some(keys.keys.clone()))),
            lines([Some(field.shows.clone()), Some(format!("index: {}", field.index))]),
        ]
    };
    let rows = report.fields.iter().map(row).collect();
    let head = ["Field", "Service", "Protection", "Bound to", "Manifest", "Keys", "Shows"];
    // Many fields have the same keys.
    let mut keys: BTreeMap<_, usize> = BTreeMap::new();
    for field in &report.fields {
        for of_field in &field.keys {
            *keys.entry((&field.service, of_field, &field.keks)).or_default() += 1;
        }
    }
    let of_keys = keys.into_iter().map(|((service, of_field, keks), fields)| {
        row![
            of_field.keys.as_str(),
            service.as_str(),
            fields.to_string(),
            of_field.rotation.as_str(),
            of_field.last_rotation.as_ref().map_or_else(|| "none is there".to_owned(), |last| moment(last)),
            keks.join(", "),
        ]
    });
    let of_keys = of_keys.collect();
    let head_of_keys = ["Keys", "Service", "Fields", "Replaced", "Newest made", "KEKs"];
    let intro = "What no policy names is in clear: keyfold policy check and keyfold scan look for it. A manifest is of a kind of JSON documents: \
        without one, values that are taken out of a document are not missed. Which kind applies hangs on members in clear; values that were sealed \
        with a manifest do not open without it, but where none is required a document that was emptied of its values passes.";
    Section {
        title: "Encryption of each service and field",
        blocks: vec![
            Block::Text(intro.to_owned()),
            table("Encryption configuration matrix", &head, rows),
            table("Keys of these fields", &head_of_keys, of_keys),
        ],
    }
}

fn inventory(report: &Report) -> Section {
    let keys = &report.keys;
    let counts = keys
        .counts
        .iter()
        .flat_map(|(class, states)| states.iter().map(move |(state, n)| row![*class, *state, n.to_string()]));
    let later = match keys.later {
        0 => String::new(),
        n => format!(" Left out: {}, made after this report's time.", counted(n, "key")),
    };
    let mut blocks = vec![
        Block::Text(format!(
            "Data keys are replaced {}, roots {}, when a process next asks which key seals; look-up keys by hand.{later}",
            keys.data_rotation, keys.root_rotation
        )),
        table("Keys by class and state", &["Class", "State", "Keys"], counts.collect()),
    ];
    let (days, growth) = keys.growth();
    if !days.is_empty() {
        let series = growth.into_iter().map(|(class, counts)| (class.to_owned(), counts)).collect();
        blocks.push(Block::Chart(Chart::steps(
            "Generations over time",
            "generations that had been made",
            days,
            series,
        )));
    }
    let ages = keys.ages();
    let classes = ["data", "lookup", "root"].map(|class| {
        (class.to_owned(), ages.iter().map(|(_, counts)| counts.get(class).copied().unwrap_or(0)).collect())
    });
    let labels = ages.iter().map(|(label, _)| (*label).to_owned()).collect();
    blocks.push(Block::Chart(Chart::bars("Key ages", "keys that are not destroyed", labels, classes.into())));
    // What has to be seen to comes first.
    let mut shown: Vec<_> = keys.keys.iter().collect();
    shown.sort_by_key(|key| (key.verified != Some(false), key.overdue_days.is_none(), key.state != "compromised"));
    let row = |key: &&crate::KeyRow| {
        vec![
            lines([Some(key.generation.to_string()), Some(key.key_id.clone())]),
            lines([
                Some(format!("{}, {}", key.class, key.state)),
                key.slot.as_ref().map(|slot| format!("slot {slot}")),
            ]),
            lines([Some(moment(&key.created_at)), Some(format!("{} old", counted(key.age_days, "day")))]),
            lines([
                key.overdue_days.map(|days| format!("OVERDUE by {}", counted(days, "day"))),
                key.changed_later
                    .then(|| format!("IN THIS STATE SINCE {}, after this report's time", moment(&key.changed_at))),
                (key.verified == Some(false)).then(|| "NOT VOUCHED FOR".to_owned()),
                key.retired.then(|| "not pinned any more, and no key needs it".to_owned()),
                key.held_since.as_ref().map(|since| format!("legal hold since {}", moment(since))),
                (!key.keks.is_empty()).then(|| format!("KEKs: {}", key.keks.join(", "))),
            ]),
        ]
    };
    let rows: Vec<_> = shown.iter().take(MAX_ROWS).map(row).collect();
    let caption = format!("Keys: {} of {}, what is overdue first", rows.len(), keys.keys.len());
    blocks.push(table(caption, &["Generation, key ID", "Class, state", "Made", "Remarks"], rows));
    let row = |kek: &crate::KekRow| {
        row![
            kek.kek.as_str(),
            format!("{}, {}", kek.service, kek.place),
            format!("{}, {}", kek.wraps, counted(kek.records, "record")),
            kek.state.map_or_else(|| kek.used.to_owned(), |state| format!("{}; {state}", kek.used)),
        ]
    };
    let rows = report.keks.iter().map(row).collect();
    blocks.push(table("Key-encryption keys", &["KEK", "Kept in", "Wraps", "Asked"], rows));
    Section { title: "Key inventory", blocks }
}

fn history(report: &Report) -> Section {
    let title = "Rotation and drill history";
    let Some(audit) = &report.audit else {
        return Section { title, blocks: vec![Block::Text("Not recorded: there is no audit trail.".to_owned())] };
    };
    let row = |happening: &crate::Happening| {
        let details =
            happening.details.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ");
        vec![
            moment(&happening.time).into(),
            lines([
                Some(happening.action.clone()),
                (happening.outcome != "ok").then(|| format!("FAILED: {}", happening.outcome)),
            ]),
            happening.actor.clone().into(),
            lines([
                happening.key_id.as_ref().map(|key| format!("key {key}")),
                happening.kek.as_ref().map(|kek| format!("KEK {kek}")),
                happening.took_ms.map(|took| format!("took {took:.1} ms")),
                (!details.is_empty()).then_some(details),
            ]),
        ]
    };
    let drills: Vec<_> =
        audit.history.iter().filter(|happening| happening.action == "drill").take(MAX_ROWS).map(row).collect();
    let others = audit.history.iter().filter(|happening| happening.action != "drill");
    let rest: Vec<_> = others.clone().take(MAX_ROWS).map(row).collect();
    let head = ["Time (UTC)", "What", "Who", "Details"];
    let caption = format!("What happened to keys: the latest {} of {}", rest.len(), others.count());
    let drills = match drills.is_empty() {
        true => Block::Text(
            "No drill is in the trail: keyfold keys drill proves that each KEK alone opens the keyring.".to_owned(),
        ),
        false => table("Drills, the latest first", &head, drills),
    };
    Section { title, blocks: vec![drills, table(caption, &head, rest)] }
}

fn audit(report: &Report) -> Section {
    let title = "Audit summary";
    let Some(audit) = &report.audit else {
        return Section {
            title,
            blocks: vec![Block::Text("There is no audit trail: nobody can say who opened what.".to_owned())],
        };
    };
    let total = &audit.total;
    let mut blocks = vec![
        Block::Text(format!("Verification: {}.", audit.verdict())),
        table(
            "The whole trail",
            &["What", "Count"],
            vec![
                row!["Events", audit.events.to_string()],
                row!["First event", audit.first.clone().unwrap_or_else(|| "none".to_owned())],
                row!["Oldest key made", report.keys.oldest.clone().unwrap_or_else(|| "there is no key".to_owned())],
                row!["Keys made before the first event, but for those of a new keyring", audit.unrecorded.to_string()],
                row!["Values sealed, and those that blind indexes made tokens of", total.sealed.to_string()],
                row!["Values opened", total.opened.to_string()],
                row!["Values that drills opened, in no other figure of values", audit.drilled.to_string()],
                row!["Values searched for", total.searched.to_string()],
                row!["Values that did not open, or were refused, under a key of theirs", total.failed.to_string()],
                row!["Events that could not be recorded", audit.lost.to_string()],
                row!["Events dated after this report, left out", audit.later.to_string()],
                row!["Lines that are no events, left out", audit.unread.to_string()],
                row![
                    "Lines behind the last anchors",
                    audit.gap.map_or_else(|| "there are no anchors".to_owned(), |gap| gap.to_string())
                ],
            ],
        ),
    ];
    if !audit.findings.is_empty() {
        blocks.push(Block::Text("What is wrong with the files:".to_owned()));
        blocks.push(Block::List(audit.findings.iter().take(MAX_ROWS).cloned().collect()));
    }
    let series = vec![
        ("opened".to_owned(), audit.days.iter().map(|day| day.opened).collect()),
        ("failed".to_owned(), audit.days.iter().map(|day| day.failed).collect()),
    ];
    let labels = audit.days.iter().map(|day| day.day.clone()).collect();
    blocks.push(Block::Chart(Chart::bars("Opens per day", "values, over the last 30 days", labels, series)));
    let hours = match &report.hours {
        Some(hours) => format!("Usual hours are {hours}"),
        None => "No usual hours were given (--hours)".to_owned(),
    };
    blocks.push(Block::Text(format!(
        "An anomaly is worth a look and need not be wrong. {hours}; a burst is more than {} times a median hour of the actor before, of an \
         actor who is not known for two weeks and {KNOWN_HOURS} hours the smaller of that and of others, and more than {} values where there is \
         nothing to compare with.",
        report.burst, report.burst_first
    )));
    let rows: Vec<_> = audit
        .anomalies
        .iter()
        .take(MAX_ROWS)
        .map(|anomaly| row![anomaly.at.as_str(), anomaly.kind, anomaly.what.as_str()])
        .collect();
    blocks.push(match rows.is_empty() {
        true => Block::Text("No anomaly was found.".to_owned()),
        false => table(
            format!("Anomalies: the latest {} of {}", rows.len(), audit.anomalies.len()),
            &["When (UTC)", "Kind", "What"],
            rows,
        ),
    });
    Section { title, blocks }
}

fn calls(report: &Report) -> Section {
    let title = "Key service calls and cost estimate";
    let Some(audit) = &report.audit else {
        return Section { title, blocks: vec![Block::Text("Not recorded: there is no audit trail.".to_owned())] };
    };
    let milliseconds = |took: Option<f64>| took.map_or_else(|| "-".to_owned(), |took| format!("{took:.1} ms"));
    let row = |calls: &crate::Calls| {
        vec![
            calls.kek.clone().into(),
            lines([
                Some(counted(calls.wraps, "wrap")),
                Some(counted(calls.unwraps, "unwrap")),
                Some(counted(calls.other, "other")),
            ]),
            calls.failed.to_string().into(),
            calls.requests.to_string().into(),
            lines([
                Some(format!("median {}", milliseconds(calls.median_ms))),
                Some(format!("longest {}", milliseconds(calls.longest_ms))),
            ]),
        ]
    };
    let head = ["KEK", "Operations", "Failed", "Requests over a network", "Time"];
    let mut blocks = vec![table("Calls of key services in the trail", &head, audit.calls.iter().map(row).collect())];
    let amount = |cost: Option<f64>| cost.map_or_else(|| "not known".to_owned(), |cost| format!("{cost:.2}"));
    let row = |cost: &crate::Cost| {
        vec![
            lines([Some(cost.kek.clone()), cost.provider.clone()]),
            cost.requests_month.to_string().into(),
            amount(cost.key_month).into(),
            amount(cost.requests_cost_month).into(),
        ]
    };
    const COUNTED: &str =
        "It counts what the trail records, without the audit KEK, free tiers, taxes and what other programs ask.";
    blocks.push(Block::Text(match &report.prices {
        None => format!("No prices were given (--prices FILE), so that there is no estimate of costs. {COUNTED}"),
        Some(prices) => {
            let source = |price: &crate::Price| format!("{} ({})", price.name, price.source);
            let sources = prices.providers.iter().map(source).collect::<Vec<_>>().join(", ");
            format!(
                "The estimate takes prices of {} in {} as an input: {sources}. {COUNTED}",
                prices.as_of, prices.currency
            )
        }
    }));
    let caption = match &report.prices {
        Some(prices) => format!("Requests and estimated cost per month in {}", prices.currency),
        None => "Requests per month".to_owned(),
    };
    blocks.push(match report.costs.is_empty() {
        true => Block::Text("No KEK is in a key service that is asked over a network.".to_owned()),
        false => table(caption, &["KEK", "Requests", "Key", "Requests cost"], report.costs.iter().map(row).collect()),
    });
    Section { title, blocks }
}

fn retention(report: &Report) -> Section {
    let rows: Vec<_> =
        report.retention.iter().map(|found| row![found.warning, found.what.as_str(), found.advice]).collect();
    let intro = "45 CFR 164.316(b)(2)(i) asks that documentation be kept for six years. Keyfold deletes no audit file; what follows would be lost, or could not be verified, earlier.";
    let found = match rows.is_empty() {
        true => Block::Text("No warning.".to_owned()),
        false => table("Retention warnings", &["Warning", "What", "What to do"], rows),
    };
    Section { title: "Six-year retention", blocks: vec![Block::Text(intro.to_owned()), found] }
}

fn controls(report: &Report) -> Section {
    let row = |row: &crate::Row| {
        let control = &row.control;
        let kind = (!control.kind.is_empty()).then(|| control.kind.clone());
        let proofs = control.commands.iter().chain(&control.tests).cloned();
        vec![
            lines([Some(control.source.clone()), Some(control.clause.clone()), kind]),
            control.asks.clone().into(),
            Cell(row.setting.clone()),
            Cell(row.measured.clone()),
            Cell(proofs.collect()),
            control.customer.clone().into(),
        ]
    };
    let head = ["Clause", "What it asks for", "Setting", "Measured here", "Produced by", "Remains with the customer"];
    let intro = "Keyfold supports these clauses; whether they are met is for the customer and an auditor to say. In our own words, and no legal advice.";
    Section {
        title: "Control map",
        blocks: vec![
            Block::Text(intro.to_owned()),
            table("Clauses and their evidence", &head, report.controls.iter().map(row).collect()),
        ],
    }
}

fn about() -> Section {
    Section {
        title: "About this report",
        blocks: vec![Block::List(vec![
            "Made from the configuration, its policies, the key records of the store and the audit files. No value was opened for it.".to_owned(),
            "Times are UTC: of keys by the clock of the store, of events by the clocks of the machines that recorded them.".to_owned(),
            "Scopes stand as random numbers (slots); no value, context value, reason or name of a scope is in it. Names of services, fields and partitions are.".to_owned(),
            "Counts of values are those that services recorded; what a killed process had not recorded is missing. Values of drills are apart.".to_owned(),
            "What is missing was not made: neither a high-water file nor an audit file nor anchors.".to_owned(),
            "The same evidence at the same --at gives the same report, byte by byte.".to_owned(),
        ])],
    }
}
