//! The arguments of `keyfold policy` and `keyfold scan`.

use super::{Columns, Format, parse_delimiter};
use clap::{ArgGroup, Args, Subcommand, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

/// What is to be sealed.
#[derive(Args, Debug)]
pub(crate) struct Rules {
    /// A policy file. May be repeated.
    #[arg(long, value_name = "FILE", required_unless_present = "config", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Vec<PathBuf>,
    /// A configuration whose fields count as well. No key is needed.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Fail where a column that is classified as an identifier has no rule, or a weaker one than a baseline.
    Check(PolicyCheck),
    /// Say what a change of policy does to data that is there.
    Diff(PolicyDiff),
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("classification").args(["schema", "database"]).required(true).multiple(true))]
pub(crate) struct PolicyCheck {
    #[command(flatten)]
    pub(crate) rules: Rules,
    /// A file that says which columns and JSON paths hold which identifier (docs/POLICY.md).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) schema: Option<PathBuf>,
    /// The database: sqlite:FILE or postgres://USER@HOST/DATABASE (docs/POSTGRES.md), without a password, since others can see
    /// it. Each of its columns must be in the schema file; without that file, columns are classified by their names, as a guess, and
    /// those whose names say nothing must be named by the policy.
    #[arg(long, value_name = "URI")]
    pub(crate) database: Option<String>,
    /// Pass columns whose names say nothing, with a note for each.
    #[arg(long, requires = "database", conflicts_with = "schema")]
    pub(crate) guess_only: bool,
    /// A policy whose rules are the least that is allowed.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) baseline: Option<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PolicyDiff {
    /// The policy as it is.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) old: PathBuf,
    /// The policy as it is to be.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) new: PathBuf,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Scan {
    #[command(flatten)]
    pub(crate) rules: Rules,
    /// CSV, NDJSON, JSON and HL7 files; - for standard input.
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "sql", conflicts_with = "sql")]
    pub(crate) files: Vec<OsString>,
    /// The format of the files; by default from their extensions (.csv, .ndjson, .jsonl, .json, .hl7).
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The character between CSV fields.
    #[arg(long, default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    #[command(flatten)]
    pub(crate) columns: Columns,
    /// Also look for what looks like a social security number, an e-mail address, a telephone or a medical record number in all other
    /// values. These are hints, which may be wrong both ways.
    #[arg(long)]
    pub(crate) patterns: bool,
    /// End with 4 for hints, too.
    #[arg(long, requires = "patterns")]
    pub(crate) strict: bool,
    /// Do not end with 4 for JSON documents and HL7 messages in which no field of the policy selects anything: they are counted alone.
    #[arg(long, conflicts_with = "sql")]
    pub(crate) pass_unmatched: bool,
    /// Also list what stays in clear: the JSON paths, columns and HL7 fields that no field of the policy selects, and how many values stand there; never
    /// the values. Names of members are printed as they are, so this is not for documents whose member names identify somebody.
    #[arg(long)]
    pub(crate) clear: bool,
    /// Most places that are printed; all are counted.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) places: usize,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
