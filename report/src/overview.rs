//! What a report begins with.

use crate::document::{lines, moment, row, table};
use crate::page::{Cell, Section};
use crate::services::NOT_HERE;
use crate::text::counted;
use crate::{AuditSummary, HighWaterFile, Inventory, Report};

pub(crate) fn overview(report: &Report) -> Section {
    let rows = vec![
        row!["Keyring", format!("{}, environment {}, lineage {}", report.keyring, report.environment, report.lineage)],
        match report.as_of {
            true => row!["As of", format!("{} UTC (--at), by keyfold {}", moment(&report.at), report.version)],
            false => row!["Made", format!("{} UTC by keyfold {}", moment(&report.at), report.version)],
        },
        row![
            "Fields",
            format!(
                "{}, {} of them identifiers, {} bound to their row; {}",
                report.fields.len(),
                report.classified(),
                report.bound(),
                report.authenticity()
            )
        ],
        row!["KEKs", keks(report)],
        row!["Keys", format!("{}, {} overdue; {}", report.keys_by_state(), report.keys.overdue, verified(report))],
        row!["High-water file", report.high_water.sentence()],
        row!["FIPS 140", report.fips.sentence()],
        row!["Audit trail", report.audit.as_ref().map_or_else(no_trail, |audit| trail(report, audit))],
        row!["To look at", to_look_at(report)],
    ];
    let mut blocks = vec![table("The keyring at a glance", &["What", "State"], rows)];
    let rows: Vec<_> = report.digests.iter().map(digests).collect();
    if !rows.is_empty() {
        let caption = "What was judged: configurations and policies by their SHA-256";
        blocks.push(table(caption, &["Service", "Files", "All together, as events of opening have it"], rows));
    }
    Section { title: "Overview", blocks }
}

fn keks(report: &Report) -> String {
    let of_keys = || report.keks.iter().filter(|kek| kek.wraps != "audit chains");
    let missing = match of_keys().filter(|kek| kek.place == NOT_HERE).count() {
        0 => String::new(),
        n => format!("; {} not on this machine, so nobody knows what is beside", counted(n, "KEK file")),
    };
    match (of_keys().filter(|kek| kek.beside).count(), missing.is_empty()) {
        (0, true) => format!("{}, none of them a file beside the key records", report.keks.len()),
        (0, false) => format!("{}{missing}", report.keks.len()),
        (n, _) => {
            format!(
                "{}, {n} OF THOSE THAT WRAP KEYS BESIDE THE KEY RECORDS: whoever has both has the keys{missing}",
                report.keks.len()
            )
        }
    }
}

fn verified(report: &Report) -> String {
    let Inventory { refused, verified, not_verified, .. } = &report.keys;
    let unknown = not_verified.as_ref().map(|why| format!("RECORDS NOT VERIFIED: {why}"));
    let said = match (refused, verified) {
        (0, true) => return "records verified under a trusted root".to_owned(),
        (0, false) => {
            return unknown.unwrap_or_else(|| "records as the store has them, not verified (--verify)".to_owned());
        }
        (1, _) => "1 RECORD IS NOT VOUCHED FOR: treat it as tampering".to_owned(),
        (n, _) => format!("{n} RECORDS ARE NOT VOUCHED FOR: treat it as tampering"),
    };
    [Some(said), unknown].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn no_trail() -> String {
    "none: the configuration has no [audit] section".to_owned()
}

fn trail(report: &Report, audit: &AuditSummary) -> String {
    let begins = match (&audit.first, &report.keys.oldest) {
        (Some(first), Some(oldest)) => {
            format!("; it begins on {}, the oldest key was made on {}", moment(first), moment(oldest))
        }
        (None, Some(oldest)) => format!("; the oldest key was made on {}", moment(oldest)),
        _ => String::new(),
    };
    let (events, files) = (counted(audit.events, "event"), counted(audit.files, "file"));
    format!("{events} in {files}; {}{begins}", audit.verdict())
}

fn to_look_at(report: &Report) -> String {
    let anomalies = match report.audit.as_ref().map(|audit| audit.anomalies.len()) {
        None => "anomalies are not known: there is no audit trail".to_owned(),
        Some(1) => "1 anomaly".to_owned(),
        Some(n) => format!("{n} anomalies"),
    };
    let warnings = counted(report.retention.len(), "retention warning");
    let missing = if report.high_water == HighWaterFile::Missing { ", A MISSING HIGH-WATER FILE" } else { "" };
    format!("{anomalies}, {warnings}{missing}")
}

fn digests(of: &crate::ServiceDigests) -> Vec<Cell> {
    let files = of.digests.files.iter().flat_map(|file| [Some(file.file.clone()), Some(file.sha256.clone())]);
    vec![of.service.clone().into(), lines(files), of.digests.configuration_sha256.clone().into()]
}
