//! The control map: which clause a setting supports, what is measured of it here, and what remains with the customer.
//!
//! The map is data (`controls.toml`), in our own words; nothing in it is legal advice.

use crate::evidence::Evidence;
use crate::text::counted;
use crate::{FieldRow, Report, time};
use keyfold::config::OnAuditFailure;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One row of the map.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// The body of rules.
    pub source: String,
    /// The clause.
    pub clause: String,
    /// What it asks for, in our words.
    pub asks: String,
    /// `required`, `addressable`, or nothing.
    #[serde(default)]
    pub kind: String,
    /// Names of settings, which [`Row`] has with their present values.
    pub settings: Vec<String>,
    /// Names of measurements, likewise.
    pub evidence: Vec<String>,
    /// Commands that produce the evidence again: of `keyfold`, or `python3 tools/FILE` in the source.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Tests that prove the mechanism: `FILE::FUNCTION`, or `./test STEP`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// What remains with the customer.
    pub customer: String,
}

/// A row with what it is in this installation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The row of the map.
    #[serde(flatten)]
    pub control: Control,
    /// The settings, as they are.
    pub setting: Vec<String>,
    /// What was measured.
    pub measured: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    control: Vec<Control>,
}

/// The map that this build has.
///
/// # Panics
///
/// Never: a test reads it.
#[must_use]
pub fn controls() -> Vec<Control> {
    let map: Map = toml::from_str(include_str!("controls.toml")).expect("the map in the source is right");
    map.control
}

/// The map with what it is in this installation.
pub(crate) fn rows(evidence: &Evidence, report: &Report) -> Vec<Row> {
    let of = |control: Control| {
        let text = |names: &[String], say: &dyn Fn(&str) -> Option<String>| -> Vec<String> {
            names.iter().filter_map(|name| say(name)).collect()
        };
        let setting = text(&control.settings, &|name| setting(name, evidence, report));
        let measured = text(&control.evidence, &|name| measure(name, evidence, report));
        Row { control, setting, measured }
    };
    controls().into_iter().map(of).collect()
}

/// The present value of a setting; `None`: there is no such name.
fn setting(name: &str, evidence: &Evidence, report: &Report) -> Option<String> {
    let config = &evidence.services.first()?.config;
    Some(match name {
        "fields" => {
            let mut modes: BTreeMap<&str, usize> = BTreeMap::new();
            report.fields.iter().for_each(|field| *modes.entry(field.mode).or_default() += 1);
            let modes: Vec<_> = modes.iter().map(|(mode, n)| format!("{n} {mode}")).collect();
            format!("[fields]: {} ({})", counted(report.fields.len(), "field"), or_none(&modes.join(", ")))
        }
        "tokens" => format!("mode = \"token\": {}", named(report, |field| field.mode == "token")),
        "formats" => {
            format!("mode = \"format-preserving\": {}", named(report, |field| field.mode == "format-preserving"))
        }
        "documents" => {
            let policies = evidence.services.iter().map(|service| &service.config.keyring.policy);
            let kinds = policies.flat_map(|policy| policy.documents());
            let kinds: Vec<_> = kinds
                .map(|kind| format!("{} (manifest {})", kind.name, crate::services::manifest_rule(kind)))
                .collect();
            format!("[documents]: {}", or_none(&kinds.join(", ")))
        }
        "row-binding" => {
            format!("row_binding: set for {} of {}", report.bound(), counted(report.fields.len(), "field"))
        }
        "identifiers" => {
            format!("identifier: set for {} of {}", report.classified(), counted(report.fields.len(), "field"))
        }
        "keks" => format!(
            "[keks]: {}",
            report.keks.iter().map(|kek| format!("{} ({})", kek.kek, kek.service)).collect::<Vec<_>>().join(", ")
        ),
        "recovery-keks" => {
            let keks: Vec<_> =
                report.keks.iter().filter(|kek| kek.used != "always").map(|kek| kek.kek.as_str()).collect();
            format!(
                "KEKs for recovery or break-glass: {}",
                if keks.is_empty() { "none".to_owned() } else { keks.join(", ") }
            )
        }
        "audit" => match &config.audit {
            None => "[audit]: not set".to_owned(),
            Some(audit) => format!(
                "[audit]: on_failure = \"{}\", anchors {}",
                if audit.on_failure == OnAuditFailure::Refuse { "refuse" } else { "count" },
                if audit.anchors.is_some() { "set" } else { "not set" }
            ),
        },
        "rotation" => {
            format!("[rotation]: data keys {}, roots {}", report.keys.data_rotation, report.keys.root_rotation)
        }
        "cache" => {
            let cache = &config.keyring.cache;
            let (age, grace) = (time::length(cache.max_age.as_secs()), time::length(cache.grace.as_secs()));
            format!("[cache]: keys count for {age}, in an outage for {grace} more")
        }
        "shred" => match config.keyring.shred.waiting.as_secs() {
            0 => "[shred] waiting: none".to_owned(),
            waiting => format!("[shred] waiting: {}", time::length(waiting)),
        },
        "store" => format!(
            "[store]: {}, {}, high-water file {}",
            if config.store.starts_with("sqlite:") { "SQLite" } else { "PostgreSQL" },
            counted(config.journals.len(), "journal"),
            evidence.high_water.sentence()
        ),
        "environment" => format!("environment = \"{}\"", config.keyring.environment),
        "build" => format!("keyfold {}", report.version),
        _ => return None,
    })
}

/// What was measured; `None`: there is no such name.
fn measure(name: &str, evidence: &Evidence, report: &Report) -> Option<String> {
    const NOT_RECORDED: &str = "not recorded: there is no audit trail";
    let audit = |say: &dyn Fn(&crate::trail::AuditSummary) -> String| {
        report.audit.as_ref().map_or_else(|| NOT_RECORDED.to_owned(), say)
    };
    let latest = |action: &str, what: &str| {
        audit(&|audit| match audit.latest(action, evidence.at) {
            Some((when, ago)) => format!("last {what} on {when}, {} ago", time::length(ago)),
            None => format!("no {what} in the trail"),
        })
    };
    Some(match name {
        "coverage" => {
            let of = |is: fn(&FieldRow) -> bool| report.fields.iter().filter(|field| is(field)).count();
            format!(
                "the policies of {} name {}: {} sealed and authenticated ({} of them deterministic), {} replaced by tokens, {} \
                 format-preserving, NOT AUTHENTICATED; {} may still be read in clear (migration). What is stored was not looked at: keyfold scan does",
                counted(report.services.len(), "service"),
                counted(report.fields.len(), "field"),
                of(|field| field.mode != "token" && field.authenticated),
                of(|field| field.mode == "deterministic"),
                of(|field| field.mode == "token"),
                of(|field| field.mode == "format-preserving"),
                of(|field| field.migrates),
            )
        }
        "authenticity" => match report.unauthenticated().len() {
            0 if report.fields.is_empty() => report.authenticity(),
            0 => "every field is authenticated".to_owned(),
            _ => format!("NOT AUTHENTICATED: {}", named(report, |field| !field.authenticated)),
        },
        "manifests" => {
            let said = report.fields.iter().filter_map(|field| field.manifest.as_deref());
            let said: BTreeSet<_> = said.flat_map(|manifests| manifests.split("; ")).collect();
            match said.is_empty() {
                true => "no manifest: a value that is taken out of a record is not missed".to_owned(),
                false => {
                    let said = Vec::from_iter(said).join("; ");
                    format!("manifests of documents, by which values that are dropped are missed: {said}")
                }
            }
        }
        "formats" => format!(
            "format-preserving, NOT AUTHENTICATED: {}",
            named(report, |field| field.mode == "format-preserving")
        ),
        "tokens" => {
            let by = |mode| named(report, |field| field.mode == mode);
            format!(
                "fields of random tokens: {}; derived, so no such codes: {} (deterministic), {} (format-preserving), {} (tokens of blind indexes)",
                by("token"),
                by("deterministic"),
                by("format-preserving"),
                named(report, FieldRow::is_indexed)
            )
        }
        "indexes" => {
            let indexed: Vec<_> = report
                .fields
                .iter()
                .filter(|field| field.is_indexed())
                .map(|field| format!("{}: {}", field.field, field.index))
                .collect();
            format!("blind indexes: {}", or_none(&indexed.join("; ")))
        }
        "algorithms" => {
            let mut names: Vec<_> = report.fields.iter().map(|field| field.algorithm).collect();
            names.sort_unstable();
            names.dedup();
            format!("algorithms in use: {}", if names.is_empty() { "none".to_owned() } else { names.join("; ") })
        }
        "binding" => {
            format!("{} of {} are bound to their row", report.bound(), counted(report.fields.len(), "field"))
        }
        "catalogue" => {
            let mut letters: Vec<_> = report.fields.iter().filter_map(|field| field.identifier).collect();
            letters.sort_unstable();
            letters.dedup();
            let missing: String = ('A'..='R').filter(|letter| !letters.contains(letter)).collect();
            let letters: String = letters.into_iter().collect();
            format!("identifier classes with a field: {}; without: {}", or_none(&letters), or_none(&missing))
        }
        "keys" => format!(
            "{}; records {}",
            report.keys_by_state(),
            match (report.keys.refused, report.keys.verified) {
                (0, true) => "verified under a trusted root".to_owned(),
                (refused @ 1.., _) => {
                    let others = report.keys.not_verified.as_ref().map(|why| format!("; {why}"));
                    format!("NOT ALL VERIFIED: {refused} refused{}", others.unwrap_or_default())
                }
                (0, false) => match &report.keys.not_verified {
                    None => "not verified in this report".to_owned(),
                    Some(why) => format!("NOT VERIFIED: {why}"),
                },
            }
        ),
        "overdue" => format!("{} overdue for rotation", counted(report.keys.overdue, "key")),
        "separation" => {
            let keks = report.keks.iter().filter(|kek| kek.wraps != "audit chains");
            let said: Vec<_> = keks.map(|kek| format!("KEK {} ({}) is {}", kek.kek, kek.service, kek.place)).collect();
            or_none(&said.join("; ")).to_owned()
        }
        "trail" => audit(&|audit| {
            format!(
                "{} from {} to {}; {}",
                counted(audit.events, "event"),
                audit.first.as_deref().and_then(time::parse).map_or_else(|| "-".to_owned(), time::date),
                audit.last.as_deref().and_then(time::parse).map_or_else(|| "-".to_owned(), time::date),
                audit.verdict()
            )
        }),
        "actors" => audit(&|audit| format!("actors that the trail names: {}", or_none(&audit.actors.join(", ")))),
        "opened" => audit(&|audit| {
            format!("{} opened, {}", counted(audit.total.opened, "value"), counted(audit.total.failed, "failure"))
        }),
        "key-uses" => audit(&|audit| {
            let used = |of: &&crate::KeyUse| of.key_id.is_some();
            let keys: BTreeSet<_> = audit.uses.iter().filter(used).map(|of| &of.key_id).collect();
            let actors: BTreeSet<_> = audit.uses.iter().filter(used).map(|of| &of.actor).collect();
            format!(
                "{} used by {}: section \"Use of keys\"",
                counted(keys.len(), "key"),
                counted(actors.len(), "actor")
            )
        }),
        "anomalies" => audit(&|audit| {
            format!("{} to look at", counted(audit.anomalies.len(), "anomaly").replace("anomalys", "anomalies"))
        }),
        "drill" => latest("drill", "drill of a KEK"),
        "backup" => latest("backup", "backup of the key records"),
        "restore" => latest("restore", "restore"),
        "reencrypt" => latest("reencrypt", "re-encryption"),
        "rotation" => {
            let of = |class: &str| {
                let rotations = report.keys.rotations.get(class).cloned().unwrap_or_default();
                match rotations.latest.as_deref().and_then(time::parse) {
                    Some(when) => format!(
                        "{} of {class} keys, the last {} ago on {}",
                        rotations.count,
                        time::length(evidence.at.saturating_sub(when)),
                        time::minute(when)
                    ),
                    None => format!("no {class} key took the place of another one yet"),
                }
            };
            format!("rotations by the key records: {}", ["data", "lookup", "root"].map(of).join("; "))
        }
        "shredded" => latest("shredded", "destruction of a scope"),
        "break-glass" => audit(&|audit| {
            let uses =
                audit.anomalies.iter().filter(|anomaly| matches!(anomaly.kind, "break-glass" | "recovery")).count();
            format!("{} of KEKs for recovery or break-glass", counted(uses, "use"))
        }),
        "kms-calls" => audit(&|audit| {
            let requests: u64 = audit.calls.iter().map(|calls| calls.wraps + calls.unwraps + calls.other).sum();
            format!(
                "{} of KEKs, {} failed",
                counted(requests, "operation"),
                audit.calls.iter().map(|calls| calls.failed).sum::<u64>()
            )
        }),
        "retention" => match report.retention.len() {
            0 => "no retention warning".to_owned(),
            n => format!(
                "{}: {}",
                counted(n, "retention warning"),
                report.retention.iter().map(|found| found.warning).collect::<Vec<_>>().join(", ")
            ),
        },
        "version" => format!("keyfold {}", report.version),
        _ => return None,
    })
}

/// Names of fields, or that there is none.
fn named(report: &Report, is: impl Fn(&FieldRow) -> bool) -> String {
    let mut names: Vec<_> = report.fields.iter().filter(|field| is(field)).map(|field| field.field.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    or_none(&names.join(", ")).to_owned()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    #[test]
    fn every_name_of_a_setting_and_of_evidence_is_known() {
        let evidence = samples::evidence(1_900_000_000, Vec::new(), &[]);
        let report = Report::new(&evidence);
        for Row { control, setting, measured } in &report.controls {
            let row = format!("{} {}", control.source, control.clause);
            assert_eq!((setting.len(), measured.len()), (control.settings.len(), control.evidence.len()), "{row}");
        }
    }

    #[test]
    fn every_row_names_what_is_known_and_what_proves_it() {
        for control in controls() {
            let row = format!("{} {}", control.source, control.clause);
            assert!(
                !control.tests.is_empty() || !control.commands.is_empty(),
                "{row} has neither a test nor a command"
            );
            assert!(!control.settings.is_empty() && !control.evidence.is_empty(), "{row}");
            assert!(!control.asks.is_empty() && !control.customer.is_empty(), "{row}");
            assert!(matches!(control.kind.as_str(), "" | "required" | "addressable" | "proposed"), "{row}");
        }
    }

    #[test]
    fn the_map_claims_nothing_that_only_an_auditor_can_say() {
        let text = include_str!("controls.toml").to_lowercase();
        for word in ["complian", "certified", "guarantee"] {
            assert!(!text.contains(word), "{word}");
        }
    }
}
