//! Verifying audit trails.

use crate::errors::to_py_err;
use crate::fork::detached;
use crate::wait::wait;
use keyfold::Result;
use keyfold_audit::{AuditFiles, Expected, Report, read_anchors};
use pyo3::prelude::*;
use std::path::{Path, PathBuf};

/// What `verify_audit` found.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct AuditReport {
    /// Whether nothing is wrong with what was checked.
    clean: bool,
    /// Whether everything was checked under the audit KEK. If not, whoever edits the files can make them fit.
    authenticated: bool,
    /// How many events were recorded.
    events: u64,
    /// How many events could not be written at the time.
    lost: u64,
    /// What is wrong, by file and line.
    findings: Vec<String>,
    /// What is worth knowing and not wrong.
    notes: Vec<String>,
}

impl AuditReport {
    fn of(report: &Report) -> Self {
        Self {
            clean: report.is_clean(),
            authenticated: report.is_authenticated(),
            events: report.chains.iter().map(|chain| chain.events).sum(),
            lost: report.lost(),
            findings: report.findings.iter().map(ToString::to_string).collect(),
            notes: report.notes.clone(),
        }
    }
}

#[pymethods]
impl AuditReport {
    fn __repr__(&self) -> String {
        let Self { clean, authenticated, events, findings, .. } = self;
        let (clean, checked) = (if *clean { "clean" } else { "NOT CLEAN" }, if *authenticated { "" } else { "NOT " });
        format!("<keyfold.AuditReport {clean}, {checked}authenticated, {events} events, {} findings>", findings.len())
    }
}

/// Verify the audit trail of the configuration file `path`: that every line is what was written, and none is missing.
///
/// A trail is to be believed if the report is both `clean` and `authenticated`. Asks the audit KEK, which needs the right to
/// decrypt; one that the program brings (`host:NAME`) cannot be asked here, and the trail is not authenticated then.
///
/// Raises:
///     ConfigurationError: there is no `[audit]` section.
///     StoreError: a file cannot be read.
#[pyfunction]
#[pyo3(signature = (path, /))]
pub(crate) fn verify_audit(py: Python<'_>, path: PathBuf) -> PyResult<AuditReport> {
    let (files, expected) = detached(py, || read(&path)).map_err(|error| to_py_err(py, &error, None))?;
    wait(py, async { Ok(AuditReport::of(&files.verify(&expected).await)) })
}

/// The trail of the configuration file `path`, and what it is held against.
fn read(path: &Path) -> Result<(AuditFiles<'static>, Expected)> {
    let trail = keyfold_open::audit_trail(path)?;
    let files = AuditFiles::open(&trail.files)?;
    let anchors = trail.anchors.iter().map(|file| read_anchors(file)).collect::<Result<Vec<_>>>()?;
    Ok((files, Expected { keks: trail.keks, lineage: Some(trail.lineage), anchors, ..Expected::default() }))
}
