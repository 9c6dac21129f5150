//! `keyfold audit verify`

use super::read;
use crate::args::AuditVerify;
use crate::failure::{Exit, Failure};
use crate::print_failed;
use keyfold::KekAlias;
use keyfold_audit::{ChainEnd, Expected, Report};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints what is wrong. Fails if anything is, or if the files could not be checked under the audit KEK.
pub(crate) fn verify(args: &AuditVerify, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let named = &args.files.files;
    let trail = match keyfold_open::audit_trail(&args.files.source.config) {
        Ok(trail) => Some(trail),
        Err(error) if named.is_empty() => return Err(Failure::of_opening(error)),
        Err(error) => {
            writeln!(anstream::stderr(), "keyfold: without a configuration only the structure is checked: {error}")
                .map_err(print_failed)?;
            None
        }
    };
    let mut expected = Expected::default();
    let (mut paths, mut anchors) = (named.clone(), args.anchors.clone());
    let mut forgeable = Vec::new();
    if let Some(trail) = trail {
        if named.is_empty() {
            paths = trail.files;
            if anchors.is_empty() {
                anchors.extend(trail.anchors);
            }
        }
        expected.keks = trail.keks;
        expected.lineage = Some(trail.lineage);
        forgeable = trail.forgeable;
    }
    if paths.is_empty() {
        return Err(Failure::new(Exit::Storage, "there is no audit file yet"));
    }
    let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    expected.anchors = anchors.iter().map(|path| read_anchors(path)).collect::<Result<_, _>>()?;
    let report = pollster::block_on(keyfold_audit::verify(&texts, &expected));
    if args.json {
        let mut json = report.to_json();
        json["forgeable_keks"] = forgeable.iter().map(KekAlias::as_str).collect();
        writeln!(out, "{json}").map_err(print_failed)?;
    } else {
        print(&report, &forgeable, out).map_err(print_failed)?;
    }
    Ok(match (report.is_clean(), report.is_authenticated()) {
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::from(Exit::Key as u8),
        (false, _) => ExitCode::from(Exit::Data as u8),
    })
}

fn print(report: &Report, forgeable: &[KekAlias], out: &mut impl Write) -> std::io::Result<()> {
    for (name, lines) in &report.files {
        writeln!(out, "{name}: {lines} lines")?;
    }
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    let (chains, events) = (report.chains.len(), report.chains.iter().map(|chain| chain.events).sum::<u64>());
    let open = report.chains.iter().filter(|chain| chain.end == ChainEnd::Open).count();
    writeln!(
        out,
        "{events} events in {chains} chains, of which {open} are not closed: still written, killed, or cut off"
    )?;
    for chain in report.chains.iter().filter(|chain| chain.statement.is_some()) {
        writeln!(out, "statement: {}", chain.statement.as_deref().unwrap_or_default().escape_debug())?;
    }
    let lost: u64 = report.chains.iter().map(|chain| chain.lost).sum();
    if lost > 0 {
        writeln!(out, "{lost} events were not recorded, because they could not be written at the time")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    if !forgeable.is_empty() {
        let names = forgeable.iter().map(KekAlias::as_str).collect::<Vec<_>>().join(", ");
        writeln!(
            out,
            "note: KEK {names} is a file, or wraps roots as well: whoever can read it can forge these chains, and only anchors protect"
        )?;
    }
    let verdict = match (report.is_clean(), report.is_authenticated()) {
        (true, true) => "nothing is wrong",
        (true, false) => {
            "ONLY THE STRUCTURE WAS CHECKED, which whoever edits the file can make fit: the audit KEK must be configured, with the right to decrypt"
        }
        (false, true) => "NOT WHAT WAS WRITTEN",
        (false, false) => "NOT WHAT WAS WRITTEN, and not all of it was checked under the audit KEK",
    };
    writeln!(out, "{verdict}")
}

fn read_anchors(path: &Path) -> Result<(String, String), Failure> {
    let text = read(path)?;
    Ok((text.name, String::from_utf8_lossy(&text.bytes).into_owned()))
}
