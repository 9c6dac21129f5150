//! The control map: which clause a setting supports, what is measured of it here, and what remains with the customer.
//!
//! The map is data (`controls.toml`), in our own words; nothing in it is legal advice.

use crate::evidence::Evidence;
use crate::{Report, time};
use keyfold::KeyState;
use keyfold::config::OnAuditFailure;
use serde::{Deserialize, Serialize};

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
    /// Commands that produce the evidence again.
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

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The present value of a setting; `None`: there is no such name.
fn setting(name: &str, evidence: &Evidence, report: &Report) -> Option<String> {
    let config = &evidence.services.first()?.config;
    Some(match name {
        "fields" => format!("[fields]: {}", counted(report.fields.len(), "field")),
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
            if config.high_water.is_some() { "set" } else { "not set" }
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
            let deterministic = report.fields.iter().filter(|field| field.mode == "deterministic").count();
            format!(
                "{} of {} are sealed by policy, {} of them deterministic; {} may still be read in clear (migration)",
                counted(report.fields.len(), "field"),
                counted(report.services.len(), "service"),
                deterministic,
                report.fields.iter().filter(|field| field.migrates).count()
            )
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
            "{}: {} active, {} compromised, {} destroyed; records {}",
            counted(report.keys.keys.len(), "key"),
            report.keys.in_state(KeyState::Active),
            report.keys.in_state(KeyState::Compromised),
            report.keys.in_state(KeyState::Destroyed),
            match (report.keys.verified, report.keys.refused) {
                (true, 0) => "verified under a trusted root".to_owned(),
                (true, refused) => format!("NOT ALL VERIFIED: {refused} refused"),
                (false, _) => "not verified in this report".to_owned(),
            }
        ),
        "overdue" => format!("{} overdue for rotation", counted(report.keys.overdue, "key")),
        "kek-count" => format!(
            "{} of the keyring, none of them in the key store",
            counted(report.keks.iter().filter(|kek| kek.wraps != "audit chains").count(), "KEK")
        ),
        "trail" => audit(&|audit| {
            format!(
                "{} events from {} to {}; {}",
                audit.events,
                audit.first.as_deref().and_then(time::parse).map_or_else(|| "-".to_owned(), time::date),
                audit.last.as_deref().and_then(time::parse).map_or_else(|| "-".to_owned(), time::date),
                audit.verdict()
            )
        }),
        "opened" => audit(&|audit| format!("{} values opened, {} failures", audit.total.opened, audit.total.failed)),
        "anomalies" => audit(&|audit| {
            format!("{} to look at", counted(audit.anomalies.len(), "anomaly").replace("anomalys", "anomalies"))
        }),
        "drill" => latest("drill", "drill of a KEK"),
        "backup" => latest("backup", "backup of the key records"),
        "restore" => latest("restore", "restore"),
        "reencrypt" => latest("reencrypt", "re-encryption"),
        "root-rotation" | "rotation" => latest("key-made", "new key"),
        "shredded" => latest("shredded", "destruction of a scope"),
        "break-glass" => audit(&|audit| {
            let uses =
                audit.anomalies.iter().filter(|anomaly| matches!(anomaly.kind, "break-glass" | "recovery")).count();
            format!("{uses} uses of KEKs for recovery or break-glass")
        }),
        "kms-calls" => audit(&|audit| {
            let requests: u64 = audit.calls.iter().map(|calls| calls.wraps + calls.unwraps + calls.other).sum();
            format!(
                "{requests} operations of KEKs, {} failed",
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

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

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
