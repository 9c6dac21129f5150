//! `keyfold audit verify`

use super::{MAX_LINE_LEN, cannot_read, each_line};
use crate::args::AuditVerify;
use crate::failure::{Exit, Failure};
use crate::files::standard::stderr;
use crate::print_failed;
use keyfold::KekAlias;
use keyfold_audit::{AuditFiles, AuditText, ChainEnd, Expected, Report};
use keyfold_open::AuditTrail;
use keyfold_store::files::open_regular;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Prints what is wrong. Fails if anything is, or if the files could not be checked under the audit KEK.
pub(crate) fn verify(args: &AuditVerify, out: &mut impl Write) -> Result<ExitCode, Failure> {
    let named = &args.files.files;
    let unsigned = named.iter().filter(|path| is_unsigned(path)).cloned().collect::<Vec<_>>();
    let trail = match keyfold_open::audit_trail(&args.files.source.config) {
        Ok(trail) => Some(trail),
        Err(error) if named.is_empty() => return Err(Failure::of_opening(error)),
        Err(error) => {
            let failure = Failure::of_opening(error);
            writeln!(stderr(), "keyfold: without a configuration only the structure is checked: {failure}")
                .map_err(print_failed)?;
            None
        }
    };
    let mut expected = Expected { from_file: args.from_file, ..Expected::default() };
    let (mut paths, mut anchors) = (named.clone(), args.anchors.clone());
    paths.retain(|path| !unsigned.contains(path));
    let (mut forgeable, mut trail_files) = (Vec::new(), Vec::new());
    if let Some(trail) = trail {
        if named.is_empty() {
            paths.clone_from(&trail.files);
        }
        if anchors.is_empty() {
            anchors.extend(trail.anchors);
        }
        expected.keks = trail.keks;
        expected.lineage = Some(trail.lineage);
        (forgeable, trail_files) = (trail.forgeable, trail.files);
    }
    let files = if named.is_empty() { AuditFiles::open(&paths) } else { AuditFiles::open_named(&paths) }?;
    // Anchors are those of the trail: what the configuration names is one even where nothing, or something else, is left of it.
    if named.is_empty() || files.has_trail() {
        let of_trail = args.anchors.is_empty();
        expected.anchors =
            anchors.iter().map(|path| read_anchors(path, of_trail)).collect::<Result<_, _>>().or_else(|error| {
                // Where nothing was ever written, both are missing.
                if paths.is_empty() { Ok(Vec::new()) } else { Err(error) }
            })?;
    }
    if unsigned.is_empty() && paths.is_empty() && expected.anchors.iter().all(|(_, text)| text.is_empty()) {
        return Err(Failure::new(Exit::Storage, "there is no audit file yet"));
    }
    let report = pollster::block_on(files.verify(&expected));
    // Behind the verification, of the bytes that it was of.
    let signed = if named.is_empty() { Vec::new() } else { look_up(&files.statements()?, &trail_files)? };
    if args.json {
        let mut json = report.to_json();
        json["statements"] = signed.iter().map(Signed::json).collect();
        json["unsigned"] = unsigned.iter().map(|path| path.display().to_string()).collect();
        json["forgeable_keks"] = forgeable.iter().map(KekAlias::as_str).collect();
        writeln!(out, "{json}").map_err(print_failed)?;
    } else {
        for path in &unsigned {
            writeln!(out, "{}: not signed: nothing vouches for it", path.display()).map_err(print_failed)?;
        }
        if paths.is_empty() && !unsigned.is_empty() {
            writeln!(out, "NOT SIGNED").map_err(print_failed)?;
        } else {
            print(&report, &signed, &forgeable, out).map_err(print_failed)?;
        }
    }
    Ok(match (report.is_clean(), report.is_authenticated() && unsigned.is_empty()) {
        (true, true) => ExitCode::SUCCESS,
        // A statement that nobody signed stays so.
        (true, false) if report.is_unanswered && unsigned.is_empty() => ExitCode::from(Exit::Kms as u8),
        (true, false) => ExitCode::from(Exit::Key as u8),
        (false, _) => ExitCode::from(Exit::Data as u8),
    })
}

/// Verifies a trail with its anchors, under those KEKs that it still has. A trail that nobody has written to yet has none; anchors that are
/// missing otherwise are a finding. Returns the files as they were verified, too.
pub(crate) fn verify_trail(trail: AuditTrail) -> Result<(Report, AuditFiles<'static>), Failure> {
    // What cannot be looked at is not missing: reading it says why.
    let are_missing = |path: &PathBuf| matches!(path.try_exists(), Ok(false));
    let anchors = |path: &PathBuf| match are_missing(path) {
        false => read_anchors(path, true),
        true => Ok((path.display().to_string(), String::new())),
    };
    let are_expected = |path: &&PathBuf| !trail.files.is_empty() || !are_missing(path);
    let expected = Expected {
        anchors: trail.anchors.iter().filter(are_expected).map(anchors).collect::<Result<_, _>>()?,
        keks: trail.keks,
        lineage: Some(trail.lineage),
        from_file: None,
    };
    let files = AuditFiles::open(&trail.files)?;
    Ok((pollster::block_on(files.verify(&expected)), files))
}

fn print(report: &Report, signed: &[Signed], forgeable: &[KekAlias], out: &mut impl Write) -> std::io::Result<()> {
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
    for statement in signed {
        writeln!(out, "{statement}")?;
    }
    let lost = report.lost();
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
        (true, false) if report.chains.iter().any(|chain| chain.authenticated) => {
            "NOT EVERY CHAIN WAS CHECKED UNDER ITS KEY; nothing is wrong with the others"
        }
        (true, false) if report.is_unanswered => {
            "ONLY THE STRUCTURE WAS CHECKED, since the audit KEK did not answer: repeat it when it does"
        }
        (true, false) => {
            "ONLY THE STRUCTURE WAS CHECKED, which whoever edits the file can make fit: the audit KEK must be configured, with the right to decrypt"
        }
        (false, true) => "NOT WHAT WAS WRITTEN",
        (false, false) => "NOT WHAT WAS WRITTEN, and not all of it was checked under the audit KEK",
    };
    writeln!(out, "{verdict}")
}

/// A statement, and where the audit trail says that it was signed.
struct Signed {
    file: String,
    sha256: String,
    recorded_at: Option<(String, u64)>,
}

impl Signed {
    fn json(&self) -> Json {
        let recorded = self.recorded_at.as_ref().map(|(file, line)| json!({ "file": file, "line": line }));
        json!({ "file": self.file, "sha256": self.sha256, "recorded_at": recorded })
    }
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.recorded_at {
            Some((file, line)) => {
                write!(f, "{}: the audit trail has its digest, at {file}:{line}: verify that, too", self.file)
            }
            None => write!(f, "{}: the audit trail here does not have its digest, {}", self.file, self.sha256),
        }
    }
}

/// What else a statement says is skipped, and takes no memory.
#[derive(Deserialize)]
struct Unsigned {
    unsigned: bool,
}

/// Whether the file is a statement or a certificate that says itself that it is not signed, where the configuration has no audit trail. A file that cannot be
/// read, or is no file, is something else.
fn is_unsigned(path: &Path) -> bool {
    let is_file = path.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_LINE_LEN);
    let bytes = if is_file { fs::read(path).ok() } else { None };
    let statement = bytes.and_then(|bytes| serde_json::from_slice::<Unsigned>(&bytes).ok());
    statement.is_some_and(|statement| statement.unsigned)
}

/// Looks for the digests of statements in the files of a trail. Verifies nothing.
fn look_up(statements: &[AuditText], trail: &[PathBuf]) -> Result<Vec<Signed>, Failure> {
    let sha256 = |text: &AuditText| Signed {
        file: text.name.clone(),
        sha256: keyfold_open::statement_digest(&text.bytes),
        recorded_at: None,
    };
    let mut signed: Vec<_> = statements.iter().map(sha256).collect();
    for path in if signed.is_empty() { &[] } else { trail } {
        let mut number = 0;
        each_line(path, open_regular(path), |line| {
            number += 1;
            let Some(digest) = keyfold_audit::signed_digest(line) else { return Ok(()) };
            for statement in signed.iter_mut().filter(|statement| statement.sha256 == digest) {
                statement.recorded_at.get_or_insert_with(|| (path.display().to_string(), number));
            }
            Ok(())
        })?;
    }
    Ok(signed)
}

/// The anchors of the trail, or those that somebody named, which may be a link or a pipe.
fn read_anchors(path: &Path, of_trail: bool) -> Result<(String, String), Failure> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        let what = format!(
            "the anchors {} are missing: put them back, or name a copy, or the heads that were written down (audit anchor), with --anchors FILE",
            path.display()
        );
        return Err(Failure::new(Exit::Storage, what).add(
            "if they are lost, or new in the configuration, keys list begins others, which know nothing of the chains before",
        ));
    }
    if of_trail {
        return Ok(keyfold_audit::read_anchors(path)?);
    }
    let bytes = fs::read(path).map_err(|error| cannot_read(path, &error))?;
    Ok((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
}
