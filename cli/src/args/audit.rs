//! `keyfold audit`.

use super::Source;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Find edits, deletions, reorderings and missing ends in audit files and signed statements, and name the lines.
    Verify(AuditVerify),
    /// Print how far each chain has come, to be written down where nobody who edits the audit file gets at it.
    Anchor(AuditFiles),
    /// Print events for a SIEM.
    Export(AuditExport),
}

#[derive(Args, Debug)]
pub(crate) struct AuditFiles {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Audit files of one name; by default those of the configuration.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct AuditVerify {
    #[command(flatten)]
    pub(crate) files: AuditFiles,
    /// A file of anchors; by default that of the configuration, unless files are named. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) anchors: Vec<PathBuf>,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum EventFormat {
    /// Elastic Common Schema, one JSON object per line.
    Ecs,
}

#[derive(Args, Debug)]
pub(crate) struct AuditExport {
    #[command(flatten)]
    pub(crate) files: AuditFiles,
    /// How events are written.
    #[arg(long, value_enum, default_value_t = EventFormat::Ecs)]
    pub(crate) format: EventFormat,
}
