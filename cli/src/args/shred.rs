//! `keyfold keys shred` and `hold`.

use super::{Source, parse_scope};
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct KeysShred {
    #[command(flatten)]
    pub(crate) source: Source,
    /// A policy file, whose look-up columns and frames the certificate is to name. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Vec<PathBuf>,
    /// The scope. Without --finish or --cancel its end is scheduled: nothing in it is sealed or opened from now on.
    /// Other users of this machine can see the name: never name a patient.
    #[arg(long, value_name = "NAME", value_parser = parse_scope, required_unless_present = "confirm")]
    pub(crate) scope: Option<String>,
    /// Destroy the keys for good, once the waiting period has passed, and write a certificate.
    #[arg(long, requires = "scope", requires = "certificate")]
    pub(crate) finish: bool,
    /// Take the scheduled end back: the keys open again, and a new one seals.
    #[arg(long, requires = "scope", conflicts_with = "finish")]
    pub(crate) cancel: bool,
    /// Look again at what a certificate says is pending. Needs --certificate for the next one.
    #[arg(long, value_name = "FILE", requires = "certificate", conflicts_with_all = ["scope", "finish", "cancel"], value_hint = ValueHint::FilePath)]
    pub(crate) confirm: Option<PathBuf>,
    /// Where the certificate goes; - for standard output.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) certificate: Option<OsString>,
    /// On your word: this backup that [shred] declares does not hold the keys any more. May be repeated.
    #[arg(long, value_name = "NAME", requires = "confirm")]
    pub(crate) backup: Vec<String>,
    /// On your word: likewise an archive of write-ahead logs.
    #[arg(long, value_name = "NAME", requires = "confirm")]
    pub(crate) archive: Vec<String>,
    /// On your word: likewise the place of this name in the certificate, such as "write-ahead log", where the store cannot tell.
    #[arg(long, value_name = "PLACE", requires = "confirm")]
    pub(crate) place: Vec<String>,
    /// Replace the certificate if the file exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysHold {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The scope. Other users of this machine can see the name: never name a patient.
    #[arg(long, value_name = "NAME", value_parser = parse_scope)]
    pub(crate) scope: String,
    /// Lift the hold.
    #[arg(long)]
    pub(crate) release: bool,
    /// Why, for the audit log: never about a patient.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
