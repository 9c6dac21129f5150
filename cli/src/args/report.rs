//! The arguments of `keyfold report`.

use super::{Policies, Source};
use clap::{Args, ValueEnum, ValueHint};
use keyfold_report::{Hours, parse_time};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Markdown.
    Md,
    /// One JSON object.
    Json,
    /// One HTML file that needs nothing else.
    Html,
}

#[derive(Args, Debug)]
pub(crate) struct Report {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
    /// Another service that uses the keyring: its configuration, and its policies behind commas. Its fields are in the matrix as
    /// well. May be repeated.
    #[arg(long, value_name = "CONFIG[,POLICY]…", value_parser = parse_service)]
    pub(crate) service: Vec<ServiceFiles>,
    /// The form of the report.
    #[arg(long, value_enum, default_value_t = ReportFormat::Md)]
    pub(crate) format: ReportFormat,
    /// The file; - for standard output. Appears in one step when everything has succeeded.
    #[arg(long, short, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(crate) output: OsString,
    /// Replace the output if it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// The time of the report, such as 2026-11-26T09:00:00Z or 2026-11-26; by default now. Ages are counted up to it, and later
    /// events are left out: the same evidence gives the same report.
    #[arg(long, value_name = "TIME", value_parser = parse_at)]
    pub(crate) at: Option<u64>,
    /// Ask KEKs: verify each key record under a trusted root, and each chain of the audit trail under its KEK. Without it no key
    /// service is asked, and the report says that it was not.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Usual hours: days, times, and how far they are ahead of UTC, such as 'mon-fri 07:00-19:00 +01:00'. What is opened or changed at
    /// another time is an anomaly.
    #[arg(long, value_name = "HOURS")]
    pub(crate) hours: Option<Hours>,
    /// An hour in which one actor opens more than so many times as many values of a field, or of all fields, as in his median hour before is
    /// an anomaly. Until he has opened values in 100 hours of two weeks and more, he is held against others as well.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(crate) burst: u32,
    /// Where there is nothing to compare with, an hour with more than so many opened values of a field is an anomaly.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) burst_first: u64,
    /// Prices of key services, in the form that docs/REPORT.md shows. Without it the report has requests per month, and no cost.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) prices: Option<PathBuf>,
}

/// The configuration and the policies of a service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceFiles {
    pub(crate) config: PathBuf,
    pub(crate) policies: Vec<PathBuf>,
}

fn parse_service(text: &str) -> Result<ServiceFiles, String> {
    let mut files = text.split(',').map(PathBuf::from);
    match files.next() {
        Some(config) if !config.as_os_str().is_empty() => Ok(ServiceFiles { config, policies: files.collect() }),
        _ => Err("a configuration, and policies behind commas".to_owned()),
    }
}

fn parse_at(text: &str) -> Result<u64, String> {
    parse_time(text).ok_or_else(|| "a time in UTC, such as 2026-11-26T09:00:00Z, or a date".to_owned())
}
