//! `keyfold keys drill`: what each KEK opens alone, and how long that takes.

use crate::args::KeysDrill;
use crate::failure::Failure;
use crate::opening;
use crate::print_failed;
use keyfold::{Drill, DrillReport, KekAlias};
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Proves the KEKs and prints what was measured. Ends with the code of the first failure.
pub(crate) fn drill(args: &KeysDrill, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let ring = opening::open(&args.source, &[])?;
    let drill = match (&args.only, &args.without) {
        (Some(alias), _) => Drill::Only(alias.clone()),
        (None, Some(alias)) => Drill::Without(alias.clone()),
        (None, None) => Drill::EachAlone,
    };
    let reports = pollster::block_on(ring.drill(&drill))?;
    let mut code = ExitCode::SUCCESS;
    for report in reports.iter().rev() {
        if let Err(error) = &report.outcome {
            code = ExitCode::from(Failure::from(error.clone()).code);
        }
    }
    for report in &reports {
        let line = if args.json { json_line(report) } else { text_line(report) };
        writeln!(out, "{line}").map_err(print_failed)?;
    }
    Ok(code)
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn json_line(report: &DrillReport) -> String {
    let error = report.outcome.as_ref().err();
    json!({
        "keks": report.keks.iter().map(KekAlias::as_str).collect::<Vec<_>>(),
        "ok": error.is_none(),
        "error": error.map(ToString::to_string),
        "code": error.map(|error| error.kind().code()),
        "roots": report.roots,
        "isolated": report.isolated,
        "elsewhere": report.elsewhere,
        "first_value_ms": report.first_value.map(milliseconds),
        "took_ms": milliseconds(report.took),
    })
    .to_string()
}

fn text_line(report: &DrillReport) -> String {
    let keks = report.keks.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(" + ");
    let first =
        report.first_value.map_or_else(String::new, |first| format!("first value after {} ms, ", milliseconds(first)));
    let mut line = match &report.outcome {
        Ok(()) => format!("KEK {keks}: ok"),
        Err(error) => format!("KEK {keks}: FAILED: {error}"),
    };
    line.push_str(&format!(
        "; {} roots and {} isolated keys opened, {first}everything after {} ms",
        report.roots,
        report.isolated,
        milliseconds(report.took)
    ));
    if report.elsewhere > 0 {
        line.push_str(&format!("; {} isolated keys are under other KEKs", report.elsewhere));
    }
    line
}
