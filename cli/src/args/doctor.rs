//! The arguments of `keyfold doctor`.

use super::keys::parse_alias;
use super::{Policies, Source};
use clap::Args;
use keyfold::KekAlias;

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
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
