//! The arguments of `keyfold simulate`.

use clap::{Args, ValueEnum, ValueHint};
use std::ffi::OsString;

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SimulateFormat {
    /// Text for a terminal.
    Text,
    /// One JSON object.
    Json,
    /// One HTML file with charts that needs nothing else.
    Html,
}

#[derive(Args, Debug)]
pub(crate) struct Simulate {
    /// The scenario (docs/SIMULATE.md), of which examples/simulate has some; - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) scenario: OsString,
    /// The form of the prediction.
    #[arg(long, value_enum, default_value_t = SimulateFormat::Text)]
    pub(crate) format: SimulateFormat,
    /// The same as --format json.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Another seed than that of the scenario: what differs between seeds is chance.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// The file; - for standard output. Appears in one step when everything has succeeded.
    #[arg(long, short, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub(crate) output: OsString,
    /// Replace the output if it exists.
    #[arg(long)]
    pub(crate) force: bool,
}
