//! The arguments of `keyfold doctor`.

use super::Source;
use super::keys::parse_alias;
use clap::{Args, ValueHint};
use keyfold::KekAlias;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) source: Source,
    /// A policy file whose fields are added to those of the configuration. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Vec<PathBuf>,
    /// Ask this KEK, and of the KEKs no other; one for recovery or with a passphrase, too. May be repeated.
    #[arg(long, value_name = "ALIAS", value_parser = parse_alias)]
    pub(crate) kek: Vec<KekAlias>,
    /// End after so many seconds, with what was found until then.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) timeout: u32,
    /// End with 1 where there is a warning, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
