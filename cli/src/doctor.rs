//! `keyfold doctor`: what is well and what is not about a configuration.

use crate::args::Doctor;
use crate::failure::{Exit, Failure, Printable};
use crate::files::interrupt::Interrupt;
use crate::{opening, print_failed};
use keyfold::KekAlias;
use keyfold_open::doctor::{self, Checkup, Finding, Report, Severity};
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Prints what was found. Ends with 1 where something must be done.
pub(crate) fn run(args: &Doctor, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let options = opening::options(&args.source)?;
    let timeout = Duration::from_secs(args.timeout.into());
    let checkup = Checkup { keks: args.kek.iter().cloned().collect(), timeout };
    let interrupt = Interrupt::install()
        .map_err(|error| Failure::new(Exit::System, format!("cannot watch for signals: {error}")))?;
    let stop = || interrupt.check().is_err();
    let reports = match doctor::examine(&args.source.config, &args.policies.policy, &options, &checkup, &stop) {
        Ok(reports) => reports,
        Err(error) => {
            if args.json {
                let (text, code) = (error.to_string(), error.kind().code());
                let worst = Severity::Problem.name();
                let said = json!({ "ok": false, "worst": worst, "reports": [], "error": text, "code": code });
                writeln!(out, "{said}").map_err(print_failed)?;
            }
            return Err(Failure::of_opening(error));
        }
    };
    let worst = reports.iter().map(Report::severity).max().unwrap_or(Severity::Note);
    let enough = if args.strict { Severity::Warning } else { Severity::Problem };
    let text = if args.json { format!("{}\n", json(&reports, worst, worst < enough)) } else { text(&reports) };
    out.write_all(text.as_bytes()).map_err(print_failed)?;
    interrupt.check()?;
    Ok(if worst < enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        let verdict = match report.severity() {
            Severity::Note => "well",
            Severity::Warning => "somebody should look at it",
            Severity::Problem => "SOMETHING MUST BE DONE",
        };
        text.push_str(&format!("{}: {verdict}\n", report.subject));
        for finding in &report.findings {
            let Finding { severity, name, sentence, advice } = finding;
            text.push_str(&format!("  {:<8} {name:<16} {}\n", severity.name(), one_line(sentence)));
            if !advice.is_empty() {
                text.push_str(&format!("  {:<25} -> {}\n", "", one_line(advice)));
            }
        }
    }
    let count = |wanted| reports.iter().flat_map(|report| &report.findings).filter(|f| f.severity == wanted).count();
    text.push_str(&format!(
        "{}, {}\n",
        counted(count(Severity::Problem), "problem"),
        counted(count(Severity::Warning), "warning")
    ));
    text
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn one_line(text: &str) -> String {
    Printable(&text.replace('\n', "; ")).to_string()
}

fn json(reports: &[Report], worst: Severity, ok: bool) -> Value {
    json!({ "ok": ok, "worst": worst.name(), "reports": reports.iter().map(report).collect::<Vec<_>>() })
}

fn report(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": finding.severity.name(),
            "name": finding.name,
            "sentence": finding.sentence,
            "advice": finding.advice,
        })
    };
    let milliseconds = |took: &[Duration]| took.iter().map(|took| took.as_micros() as f64 / 1e3).collect::<Vec<_>>();
    let measured = &report.measured;
    json!({
        "subject": report.subject,
        "kek": report.kek.as_ref().map(KekAlias::as_str),
        "severity": report.severity().name(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "wrap_ms": milliseconds(&measured.wraps),
        "unwrap_ms": milliseconds(&measured.unwraps),
        "requests": measured.requests,
        "request_ids": measured.request_ids,
        "clock_ahead_s": measured.clock_ahead,
    })
}
