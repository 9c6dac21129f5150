//! `keyfold keys`.

use super::{KeysBackup, KeysHold, KeysJournal, KeysRestore, KeysShred, KeysVerify, Source, parse_scope};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use keyfold::KekAlias;
use keyfold::wire::KeyId;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// List the keys of a keyring with their states, and whether a trusted root vouches for each.
    List(KeysList),
    /// Make a new generation of a key. The old one still opens.
    Rotate(KeysRotate),
    /// Put every key under the current root, so that older roots and their pins can go. Touches no data; may be stopped
    /// anywhere and repeated.
    Reparent(KeysReparent),
    /// Change the state of one key by hand. A key that seals and is compromised gets a successor first; one that is
    /// deactivated does not, and its scope seals nothing until it is rotated.
    State(KeysState),
    /// Copy all key records into a file, while others go on.
    Backup(KeysBackup),
    /// Make the journals that the configuration names and that are missing, and bring the others up to date.
    Journal(KeysJournal),
    /// Put the key records together again from the store, journals and backups. Stop every process that uses the store.
    Restore(KeysRestore),
    /// Check that the records of store, backups and journals count, and that every key that data needs is there.
    Verify(KeysVerify),
    /// Schedule, take back or carry out the destruction of all keys of a scope, or ask again what is left of them.
    Shred(KeysShred),
    /// Place a legal hold on a scope, so that its keys cannot be destroyed, or lift it.
    Hold(KeysHold),
    /// Make the keys of a partition, in which deterministic values are linkable, and print its section `[lookup.NAME]` to add to the
    /// configuration.
    Partition(KeysPartition),
    /// Make a file with a new local KEK, for [keks.ALIAS] of a configuration. Overwrites nothing.
    NewKek(KeysNewKek),
    /// Give every root and isolated key the wraps it should have: by KEKs that were added, by new versions of KEKs, without
    /// KEKs that are to go. Touches no data and no other key; may be stopped anywhere and repeated.
    Rewrap(KeysRewrap),
    /// Make the wraps that are missing, since a KEK was away when a key was made. Does not try those that are there.
    Repair(KeysRepair),
    /// Prove that each KEK alone opens the keyring, and measure how long it takes.
    Drill(KeysDrill),
}

#[derive(Args, Debug)]
pub(crate) struct KeysPartition {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The name of the partition, which the configuration must not have yet. It stands there in clear.
    pub(crate) name: String,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysNewKek {
    /// The file.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// Protect the file by a passphrase of at least 12 characters, which is asked for: a KEK to be kept offline.
    #[arg(long)]
    pub(crate) passphrase: bool,
    /// With --passphrase: memory that each guess takes, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256, requires = "passphrase",
        value_parser = clap::value_parser!(u32).range(19..=1024))]
    pub(crate) memory: u32,
    /// With --passphrase: read it from the first line of FILE, which may be a pipe, instead of asking at the terminal. By
    /// default the file that KEYFOLD_PASSPHRASE_FILE names.
    #[arg(long, value_name = "FILE", requires = "passphrase", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct KeysRewrap {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Make each wrap by this KEK anew, since the KEK has a new version. May be repeated.
    #[arg(long, value_name = "ALIAS", value_parser = parse_alias)]
    pub(crate) renew: Vec<KekAlias>,
    /// Drop the wraps by this KEK, once the others were verified. Its section must say `retired = true`, or be gone. May be
    /// repeated. Not for one that has leaked.
    #[arg(long, value_name = "ALIAS", value_parser = parse_alias)]
    pub(crate) drop_kek: Vec<KekAlias>,
    /// Say what would be done, and how many requests to each KEK it takes; make none.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Look at no more than so many records a second, to spare store and key services.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) records_per_second: Option<u32>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysRepair {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Say what is missing, and how many requests to each KEK it takes; make none.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysDrill {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Prove that all other KEKs together do without this one: that one of them opens each key, and not which.
    #[arg(long, value_name = "ALIAS", value_parser = parse_alias, conflicts_with = "only")]
    pub(crate) without: Option<KekAlias>,
    /// Prove this KEK alone.
    #[arg(long, value_name = "ALIAS", value_parser = parse_alias)]
    pub(crate) only: Option<KekAlias>,
    /// Print one JSON object per proof.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysList {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print one JSON object per key.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysRotate {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Rotate the data key of this scope instead of the keyring's own.
    #[arg(long, value_name = "NAME", value_parser = parse_scope, conflicts_with = "root")]
    pub(crate) scope: Option<String>,
    /// Make a new look-up key of this partition, and print its section `[lookup.NAME]` for each step of docs/LOOKUP.md: the new key is
    /// published, then seals, then the old one is retired.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["root", "scope", "now"])]
    pub(crate) partition: Option<String>,
    /// With --partition: a policy file, so that fields that keep their format are known. May be repeated.
    #[arg(long, value_name = "FILE", requires = "partition", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Vec<PathBuf>,
    /// Rotate the root key, and print the pin of the new one.
    #[arg(long)]
    pub(crate) root: bool,
    /// With --root: leave out this KEK, which wraps the present root: it was replaced, or has leaked. May be repeated.
    #[arg(long, value_name = "ALIAS", requires = "root", value_parser = parse_alias)]
    pub(crate) drop_kek: Vec<KekAlias>,
    /// Have the new key seal at once, without the lead of the configuration. One that is waiting already is activated.
    #[arg(long)]
    pub(crate) now: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysReparent {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Look at no more than so many keys a second, to spare the store.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) records_per_second: Option<u32>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum NewState {
    /// Of a published key: it seals from now on.
    Active,
    /// It opens only. Takes back a scheduled destruction, but for a key that was compromised: that comes back as `compromised`.
    Deactivated,
    /// It opens only where the configuration says so; its values must be sealed again.
    Compromised,
    /// It neither seals nor opens, and can be taken back.
    DestroyPending,
}

#[derive(Args, Debug)]
pub(crate) struct KeysState {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The key, as `keys list` shows it.
    #[arg(value_parser = parse_key_id)]
    pub(crate) key_id: KeyId,
    /// Its new state.
    pub(crate) state: NewState,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) fn parse_alias(text: &str) -> Result<KekAlias, String> {
    KekAlias::new(text).map_err(|error| error.to_string())
}

fn parse_key_id(text: &str) -> Result<KeyId, String> {
    text.parse().map_err(|_| "a key ID has 48 lower-case hexadecimal digits".to_owned())
}
