//! Verifying audit trails.

use crate::errors::to_py_err;
use crate::fork::detached;
use crate::wait::wait;
use keyfold::{Error, ErrorKind, Result};
use keyfold_audit::{AuditText, Expected, Report};
use pyo3::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// What the verification of a trail found.
#[pyclass(module = "keyfold", frozen, get_all)]
pub(crate) struct AuditReport {
    clean: bool,
    authenticated: bool,
    events: u64,
    lost: u64,
    findings: Vec<String>,
    notes: Vec<String>,
}

impl AuditReport {
    fn of(report: &Report) -> Self {
        Self {
            clean: report.is_clean(),
            authenticated: report.is_authenticated(),
            events: report.chains.iter().map(|chain| chain.events).sum(),
            lost: report.chains.iter().map(|chain| chain.lost).sum(),
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

#[pyfunction]
#[pyo3(signature = (path, /))]
pub(crate) fn verify_audit(py: Python<'_>, path: PathBuf) -> PyResult<AuditReport> {
    let (texts, expected) = detached(py, || read(&path)).map_err(|error| to_py_err(py, &error, None))?;
    wait(py, async { Ok(AuditReport::of(&keyfold_audit::verify(&texts, &expected).await)) })
}

/// The trail of the configuration file `path`, and what it is held against.
fn read(path: &Path) -> Result<(Vec<AuditText>, Expected)> {
    let trail = keyfold_open::audit_trail(path)?;
    let texts = trail.files.iter().map(|file| read_file(file)).collect::<Result<Vec<_>>>()?;
    let anchors = trail.anchors.iter().map(|file| {
        let text = read_file(file)?;
        Ok((text.name, String::from_utf8_lossy(&text.bytes).into_owned()))
    });
    let anchors = anchors.collect::<Result<Vec<_>>>()?;
    Ok((texts, Expected { keks: trail.keks, lineage: Some(trail.lineage), anchors, ..Expected::default() }))
}

fn read_file(path: &Path) -> Result<AuditText> {
    let name = path.display().to_string();
    match fs::read(path) {
        Ok(bytes) => Ok(AuditText { name, bytes }),
        Err(error) => Err(Error::new(ErrorKind::Io, "cannot read an audit file").with_detail(name).with_source(error)),
    }
}
