//! What a self-test found, as text and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::primitive::Check;

/// A folder of vectors of another kind, such as this repository's own, is no proof of anything here.
const NO_CASE: &str = "the vector folder holds no case that can be run: Wycheproof's files (.json, of AES-GCM, AES-SIV, HKDF, HMAC, AES-CMAC and AES key wrap) and NIST's response files of GCM (.rsp) count; \
     Keyfold's own testvectors are run by testvectors/decoder.py";
/// Failures described per row; the rest are only counted.
const MAX_FAILURES_DESCRIBED: usize = 10;
/// Characters that a name or a reason from outside may fill.
const MAX_TEXT_LEN: usize = 120;

/// Cases that were run.
#[derive(Default, Serialize)]
pub(super) struct Tally {
    pub(super) run: u64,
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failures: Vec<Failure>,
}

#[derive(Serialize)]
pub(super) struct Failure {
    pub(super) case: String,
    pub(super) reason: String,
}

impl Tally {
    pub(super) fn record(&mut self, case: impl AsRef<str>, check: Check) {
        self.run += 1;
        let Err(reason) = check else {
            self.passed += 1;
            return;
        };
        self.failed += 1;
        if self.failures.len() < MAX_FAILURES_DESCRIBED {
            self.failures.push(Failure { case: printable(case.as_ref()), reason: printable(&reason) });
        }
    }
}

/// The known answers of a primitive on a backend.
#[derive(Serialize)]
pub(super) struct KnownAnswers {
    pub(super) primitive: &'static str,
    pub(super) backend: &'static str,
    #[serde(flatten)]
    pub(super) tally: Tally,
}

/// A file of a vector folder.
#[derive(Serialize)]
pub(super) struct FileReport {
    /// Relative to the folder.
    pub(super) file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) algorithm: Option<String>,
    #[serde(flatten)]
    pub(super) outcome: FileOutcome,
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub(super) enum FileOutcome {
    /// Understood. Cases outside what Keyfold uses are counted by reason.
    Run {
        #[serde(flatten)]
        tally: Tally,
        not_applicable: BTreeMap<String, u64>,
    },
    /// Holds nothing for Keyfold; `cases` is how many it has of what it is.
    NotApplicable { reason: String, cases: u64 },
    /// Should have been understood and was not: counts as a failure.
    Unreadable { reason: String },
}

impl FileOutcome {
    pub(super) fn not_applicable(reason: impl AsRef<str>, cases: u64) -> Self {
        Self::NotApplicable { reason: printable(reason.as_ref()), cases }
    }

    pub(super) fn unreadable(reason: impl AsRef<str>) -> Self {
        Self::Unreadable { reason: printable(reason.as_ref()) }
    }

    fn skipped(&self) -> u64 {
        match self {
            Self::Run { not_applicable, .. } => not_applicable.values().sum(),
            Self::NotApplicable { cases, .. } => *cases,
            Self::Unreadable { .. } => 0,
        }
    }
}

/// The files of a vector folder, in the order of their names.
#[derive(Serialize)]
pub(super) struct VectorReport {
    pub(super) folder: String,
    pub(super) files: Vec<FileReport>,
}

impl VectorReport {
    pub(super) fn run(&self) -> u64 {
        self.files
            .iter()
            .map(|file| if let FileOutcome::Run { tally, .. } = &file.outcome { tally.run } else { 0 })
            .sum()
    }
}

/// Everything.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) ok: bool,
    pub(super) passed: u64,
    /// Cases, and files that could not be read.
    pub(super) failed: u64,
    /// Cases that Keyfold has no use for.
    pub(super) skipped: u64,
    /// Why `ok` is false although no case failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    /// What runs in a FIPS 140 module.
    fips: String,
    known_answers: Vec<KnownAnswers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vectors: Option<VectorReport>,
}

impl Report {
    pub(super) fn new(known_answers: Vec<KnownAnswers>, vectors: Option<VectorReport>) -> Self {
        let fips = keyfold::fips::status().to_string();
        let mut report =
            Self { ok: false, passed: 0, failed: 0, skipped: 0, problem: None, fips, known_answers, vectors };
        for row in &report.known_answers {
            report.passed += row.tally.passed;
            report.failed += row.tally.failed;
        }
        if let Some(vectors) = &report.vectors {
            for file in &vectors.files {
                match &file.outcome {
                    FileOutcome::Run { tally, .. } => {
                        report.passed += tally.passed;
                        report.failed += tally.failed;
                    }
                    FileOutcome::Unreadable { .. } => report.failed += 1,
                    FileOutcome::NotApplicable { .. } => {}
                }
                report.skipped += file.outcome.skipped();
            }
            if vectors.run() == 0 {
                report.problem = Some(NO_CASE);
            }
        }
        if keyfold::fips::self_test().is_err() {
            report.problem = Some("the FIPS module does not compute what its standards say: no keyring opens");
        }
        report.ok = report.failed == 0 && report.problem.is_none();
        report
    }

    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    pub(super) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{:<16}{:<12}{:>6}{:>8}{:>8}", "primitive", "backend", "run", "passed", "failed")?;
        for row in &self.known_answers {
            let KnownAnswers { primitive, backend, tally } = row;
            writeln!(out, "{primitive:<16}{backend:<12}{:>6}{:>8}{:>8}", tally.run, tally.passed, tally.failed)?;
            write_failures(out, &tally.failures, tally.failed)?;
        }
        if let Some(vectors) = &self.vectors {
            vectors.write_text(out)?;
        }
        writeln!(out, "\nFIPS 140: {}", self.fips)?;
        if let Some(problem) = self.problem {
            writeln!(out, "{problem}")?;
        }
        writeln!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl VectorReport {
    fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.files.iter().map(|file| file.file.chars().count()).max().unwrap_or(0).max(4);
        writeln!(out, "\nvectors in {}", self.folder)?;
        writeln!(out, "{:<width$}{:>8}{:>8}{:>8}  not applicable", "file", "run", "passed", "failed")?;
        for FileReport { file, algorithm: _, outcome } in &self.files {
            let skipped = outcome.skipped();
            match outcome {
                FileOutcome::Run { tally, not_applicable } => {
                    let Tally { run, passed, failed, failures } = tally;
                    writeln!(out, "{file:<width$}{run:>8}{passed:>8}{failed:>8}  {skipped}")?;
                    for (reason, count) in not_applicable {
                        writeln!(out, "    not applicable: {count} × {reason}")?;
                    }
                    write_failures(out, failures, *failed)?;
                }
                FileOutcome::NotApplicable { reason, .. } => {
                    writeln!(out, "{file:<width$}{:>8}{:>8}{:>8}  {skipped}\n    not applicable: {reason}", 0, 0, 0)?;
                }
                FileOutcome::Unreadable { reason } => {
                    writeln!(out, "{file:<width$}{:>8}{:>8}{:>8}  0\n    failed: unreadable: {reason}", 0, 0, 1)?;
                }
            }
        }
        Ok(())
    }
}

fn write_failures(out: &mut dyn Write, failures: &[Failure], failed: u64) -> io::Result<()> {
    for Failure { case, reason } in failures {
        writeln!(out, "    failed: {case}: {reason}")?;
    }
    match failed.saturating_sub(failures.len() as u64) {
        0 => Ok(()),
        more => writeln!(out, "    failed: and {more} more"),
    }
}

/// Text from a file or a file name, cut to a length and without characters that a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == MAX_TEXT_LEN {
            out.push('…');
            break;
        }
        // Bidirectional controls reorder what stands around them.
        let reorders = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || reorders { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}
