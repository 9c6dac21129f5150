//! `keyfold keys backup`, `journal`, `restore` and `verify`.

use super::Source;
use clap::{Args, ValueHint};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(crate) struct KeysBackup {
    #[command(flatten)]
    pub(crate) source: Source,
    /// The file; - for standard output. It holds wrapped keys only, as the store does.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: OsString,
    /// Replace the file if it exists and is a backup.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one JSON object to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysJournal {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Print the result as one JSON object per journal.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysRestore {
    #[command(flatten)]
    pub(crate) source: Source,
    /// A backup, or the journal of another machine. May be repeated. The journals of the configuration are always read.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) from: Vec<PathBuf>,
    /// Key IDs that were found in data, as `census --key-ids` prints them, - for standard input: those that no copy
    /// has are listed as lost.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_ids: Option<OsString>,
    /// Make the store if it is missing: the SQLite file, or the tables of a database, as their owner.
    #[arg(long)]
    pub(crate) make_store: bool,
    /// Say what would be done, and change nothing. A store that is missing counts as empty.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on although something is lost for good. A new high-water file takes the place of the old one, which is kept.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Destroy the keys that are listed as "on doubt": a journal says that they were to be destroyed, or the high-water
    /// file alone that they were.
    #[arg(long)]
    pub(crate) accept_destruction: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeysVerify {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Also check this backup, and say what the store has that it lacks; what it has that the store lacks is a fault. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) backup: Vec<PathBuf>,
    /// Also check the journals of the configuration: each must have every record that the store has, and the store every one of theirs.
    #[arg(long)]
    pub(crate) journal: bool,
    /// Key IDs that were found in data, as `census --key-ids` prints them, - for standard input: each must be there.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_ids: Option<OsString>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}
