//! The command line. Completions and the man page are made from it.

mod audit;
mod data;
mod device;
mod doctor;
mod index;
mod keys;
mod policy;
mod records;
mod report;
mod shred;
mod simulate;

pub(crate) use audit::{Audit, AuditExport, AuditFiles, AuditVerify, EventFormat};
pub(crate) use data::{Backfill, Binding, Census, Columns, Errors, LedgerKeys, Reencrypt, Table, Walk};
pub(crate) use device::{Device, DeviceInspect, DeviceProvision, DeviceRevoke, DeviceTransportKey, Transport};
pub(crate) use doctor::Doctor;
pub(crate) use index::{Index, IndexAdvise, IndexBackfill, Kind};
pub(crate) use keys::{
    Keys, KeysDrill, KeysList, KeysNewKek, KeysPartition, KeysRepair, KeysReparent, KeysRewrap, KeysRotate, KeysState,
    NewState,
};
pub(crate) use policy::{Policy, PolicyCheck, PolicyDiff, Rules, Scan};
pub(crate) use records::{KeysBackup, KeysJournal, KeysRestore, KeysVerify};
pub(crate) use report::{Report, ReportFormat, ServiceFiles};
pub(crate) use shred::{KeysHold, KeysShred};
pub(crate) use simulate::{Simulate, SimulateFormat};

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use keyfold::KekAlias;
use keyfold_open::KEY_SERVICES;
use keyfold_tables::TableName;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::LazyLock;

/// The version, and which key services are built in.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let names = |is_wanted: bool| {
        let wanted = KEY_SERVICES.iter().filter(|service| service.is_built_in == is_wanted);
        let names = wanted.map(|service| service.scheme).collect::<Vec<_>>().join(", ");
        if names.is_empty() { "none".to_owned() } else { names }
    };
    format!("{}\nkey services: {}; not in this build: {}", env!("CARGO_PKG_VERSION"), names(true), names(false))
});

/// Protect and reveal patient identifiers in files; manage the keys.
///
/// Values are encrypted with AES-256 under data keys that a key-encryption key guards, each bound to its field, its
/// context and its row. Exit codes: 0 done, 2 usage, 3 configuration or policy, 4 input data, 5 keys, 6 key service,
/// 7 files and stores, 8 system, 1 anything else, 128 + n ended by signal n.
#[derive(Debug, Parser)]
#[command(name = "keyfold", version, long_version = LONG_VERSION.as_str(), propagate_version = true)]
pub(crate) struct Cli {
    /// Print what happens to keys to standard error: error, warn, info, debug or trace. Never prints values or keys.
    #[arg(long, global = true, env = "KEYFOLD_LOG", value_name = "LEVEL", default_value = "warn")]
    pub(crate) log: String,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a keyring in a folder: configuration, local KEK file, SQLite key store (or tables in PostgreSQL).
    Init(Init),
    /// Make the tables of a PostgreSQL key store, or bring older ones up to date.
    Migrate(Migrate),
    /// Encrypt the fields of a CSV, NDJSON or HL7 file that the policy names, or whole files.
    Protect(Protect),
    /// Decrypt the fields of a protected file, or whole files. Never passes plaintext through.
    Reveal(Reveal),
    /// Move the values of rows to other rows of a protected file, such as those of patients that were merged.
    Rebind(Rebind),
    /// Seal what is under older generations again, in a file or in the columns of a table.
    Reencrypt(Reencrypt),
    /// Seal the values of a live plaintext column into another one, step by step (docs/MIGRATION.md).
    Backfill(Backfill),
    /// Say how many bits an index should have, and write its tokens into tables (docs/LOOKUP.md).
    #[command(subcommand)]
    Index(Index),
    /// Count sealed values by suite and generation, in files and tables, without any key.
    Census(Census),
    /// Show suite, generation and key ID of sealed values, without any key.
    Inspect(Inspect),
    /// Say what is well and what is not about a configuration: KEKs, store, keyring, files (docs/DOCTOR.md).
    Doctor(Doctor),
    /// Check policies, before data meets them.
    #[command(subcommand)]
    Policy(Policy),
    /// Find data in clear where the policy says sealed, without any key; say places, never values (docs/POLICY.md).
    Scan(Scan),
    /// Write an evidence report: encryption matrix, keys, audit trail, control map (docs/REPORT.md).
    Report(Report),
    /// Predict what a system will ask of its key service, hold in memory, cost and survive (docs/SIMULATE.md).
    Simulate(Simulate),
    /// List, rotate, back up, recover and destroy keys.
    #[command(subcommand)]
    Keys(Keys),
    /// Provision devices with the data key of their scope, and revoke them (docs/firmware.md).
    #[command(subcommand)]
    Device(Device),
    /// Verify, anchor and export audit files.
    #[command(subcommand)]
    Audit(Audit),
    /// Test every primitive on every backend against known answers.
    Selftest(Selftest),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages of the command and its subcommands into a folder.
    Man {
        /// The folder; made if needed.
        #[arg(value_hint = ValueHint::DirPath)]
        folder: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The folder; made if needed. Nothing in it is overwritten.
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,
    /// Name of the keyring, for people.
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
    /// The isolation domain: keys of another environment never open here.
    #[arg(long, default_value = "development")]
    pub(crate) environment: String,
    /// Keep key records in a PostgreSQL database instead (docs/POSTGRES.md): postgres://USER@HOST/DATABASE, without a
    /// password, since others can see it.
    #[arg(long, value_name = "URI")]
    pub(crate) store: Option<String>,
    /// Have this KEK wrap the root key instead of a new file local.kek: vault=vault://HOST:8200/transit/KEY?… and the like
    /// (docs/CONFIG.md). Once per KEK; each of them opens the keyring. Paths in URIs are relative to the folder.
    #[arg(long = "kek", value_name = "ALIAS=URI", value_parser = parse_kek)]
    pub(crate) keks: Vec<(KekAlias, String)>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFile,
    /// Print what was made as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_kek(text: &str) -> Result<(KekAlias, String), String> {
    let (alias, uri) = text.split_once('=').ok_or("ALIAS=URI, such as vault=vault://HOST:8200/transit/patients")?;
    let alias = KekAlias::new(alias).map_err(|error| error.to_string())?;
    Ok((alias, uri.to_owned()))
}

#[derive(Args, Debug)]
pub(crate) struct Migrate {
    /// The database, as its owner (docs/POSTGRES.md): postgres://USER@HOST/DATABASE, without a password, since others
    /// can see it.
    #[arg(long, value_name = "URI")]
    pub(crate) store: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// One JSON document in the whole file.
    Json,
    /// One JSON document per line.
    Ndjson,
    /// HL7 v2 messages (docs/HL7.md).
    Hl7,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Source {
    /// The configuration of the keyring.
    #[arg(long, value_name = "FILE", default_value = "keyfold.toml", value_hint = ValueHint::FilePath)]
    pub(crate) config: PathBuf,
    /// Recovery mode (docs/RECOVERY.md): also ask the KEKs that are kept for recovery, and go on where one refuses. With
    /// =REASON break-glass KEKs, too: the reason follows the `=` without a space, as in --recovery='ticket 4711'. Other
    /// users of this machine can see the reason: never name a patient.
    #[arg(long, value_name = "REASON", num_args = 0..=1, require_equals = true)]
    pub(crate) recovery: Option<Option<String>>,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseFile,
}

/// Policies beside those of the configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct Policies {
    /// A policy file whose fields are added to those of the configuration. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Vec<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PassphraseFile {
    /// Read the passphrase of a KEK from the first line of FILE, which may be a pipe, instead of asking at the terminal: of
    /// the KEK ALIAS, or of each that no other FILE is named for. May be repeated.
    #[arg(long, env = "KEYFOLD_PASSPHRASE_FILE", value_name = "[ALIAS=]FILE", value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Vec<OsString>,
}

impl PassphraseFile {
    /// The file that holds the passphrase of `alias`. A file whose name begins as `ALIAS=` is named with its folder.
    pub(crate) fn of(&self, alias: &KekAlias) -> Option<PathBuf> {
        let mut named = None;
        for text in self.passphrase_file.iter().rev() {
            match split_alias(text) {
                Some((of, file)) if of == *alias => return Some(file),
                Some(_) => {}
                None => named = named.or_else(|| Some(PathBuf::from(text))),
            }
        }
        named
    }

    /// What to do where no file has the passphrase of `alias`.
    pub(crate) fn advice(&self, alias: &KekAlias) -> String {
        let advice =
            format!("name a file with --passphrase-file {alias}=FILE, or with the variable KEYFOLD_PASSPHRASE_FILE");
        let others = self.passphrase_file.iter().filter_map(|text| split_alias(text));
        let others = others.map(|(alias, _)| alias.to_string()).collect::<Vec<_>>().join(", ");
        if others.is_empty() { advice } else { format!("{advice}; what is named now is for {others}") }
    }
}

fn split_alias(text: &OsStr) -> Option<(KekAlias, PathBuf)> {
    let (alias, file) = text.to_str()?.split_once('=')?;
    Some((KekAlias::new(alias).ok()?, PathBuf::from(file)))
}

#[derive(Args, Debug)]
pub(crate) struct Transform {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
    /// The input; - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: OsString,
    /// The output; - for standard output. Appears in one step when everything has succeeded.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) output: OsString,
    /// The format; by default from the extension of the input (.csv, .ndjson, .jsonl, .hl7).
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The character between CSV fields.
    #[arg(long, default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// The scope whose keys are used, such as a tenant; protect makes it if it is new. Deterministic fields ignore it:
    /// their partition and --context keep tenants apart. Other users of this machine can see it: never name a patient.
    #[arg(long, value_name = "NAME", value_parser = parse_scope)]
    pub(crate) scope: Option<String>,
    /// Binds every value to a context pair, such as tenant=clinic-17. May be repeated. Visible like --scope.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) context: Vec<(String, String)>,
    /// The database with the table of random tokens, for fields with mode = "token" (docs/LOOKUP.md): sqlite:FILE or
    /// postgres://USER@HOST/DATABASE, without a password, since others can see it.
    #[arg(long, value_name = "URI")]
    pub(crate) tokens: Option<String>,
    /// The table of random tokens: TABLE or SCHEMA.TABLE.
    #[arg(long, value_name = "TABLE", default_value = "keyfold_tokens", value_parser = data::parse_table)]
    pub(crate) token_table: TableName,
    /// Replace the output if it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Pass JSON documents and HL7 messages to which no field of the policy applies through unchanged, instead of refusing them.
    #[arg(long)]
    pub(crate) pass_unmatched: bool,
    /// Threads that encrypt or decrypt; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Print the summary as one JSON object to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whole files, instead of fields in them.
#[derive(Args, Debug)]
pub(crate) struct Whole {
    /// Take the input as a whole, whatever it is, for this field with mode = "stream" (docs/STREAMS.md). A folder stands for all files below
    /// it, which go to the folder --output: protected ones with .kfs behind their names.
    #[arg(long, value_name = "FIELD", conflicts_with_all = ["format", "delimiter", "tokens", "token_table", "pass_unmatched"])]
    pub(crate) stream: Option<String>,
    /// Where the policy binds the field to its row: a file, which may be a pipe, whose only line says the row. The files of a folder are
    /// bound to their names in it.
    #[arg(long, value_name = "FILE", requires = "stream", value_hint = ValueHint::FilePath)]
    pub(crate) row_file: Option<PathBuf>,
    /// Of a folder, keep what is there already, after it was opened and compared with the other side byte for byte.
    #[arg(long, requires = "stream")]
    pub(crate) resume: bool,
    /// Of a folder, name what cannot be opened, read or taken, leave it out and go on with the rest. The exit code is then the highest of theirs.
    #[arg(long, requires = "stream")]
    pub(crate) keep_going: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Reveal {
    #[command(flatten)]
    pub(crate) transform: Transform,
    #[command(flatten)]
    pub(crate) whole: Whole,
}

#[derive(Args, Debug)]
pub(crate) struct Protect {
    #[command(flatten)]
    pub(crate) transform: Transform,
    #[command(flatten)]
    pub(crate) whole: Whole,
    /// Encrypt values that look sealed already, or are random tokens, once more, instead of refusing them.
    #[arg(long)]
    pub(crate) seal_sealed: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Rebind {
    #[command(flatten)]
    pub(crate) transform: Transform,
    /// A CSV file with the header from,to: identifiers of rows, in clear, and the ones that take their place. It is a
    /// file because others on the machine can see arguments.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) map: PathBuf,
    /// The column or JSONPath that holds these identifiers; needed if the policy binds values to several.
    #[arg(long, value_name = "NAME")]
    pub(crate) row: Option<String>,
    /// Go on if an identifier of the map occurs in no row.
    #[arg(long)]
    pub(crate) allow_missing: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Sealed values in text form; - reads them from standard input, one per line.
    #[arg(required_unless_present = "file")]
    pub(crate) values: Vec<String>,
    /// A file that holds one value in binary form, or a frame, which has no other. May be repeated.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Vec<PathBuf>,
    /// Print one JSON object per value.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Selftest {
    /// Also run every Wycheproof JSON file and CAVP GCM file below this folder that is understood.
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) vectors: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n') => Ok(*byte),
        _ => Err("one ASCII character, or \\t".to_owned()),
    }
}

fn parse_scope(name: &str) -> Result<String, String> {
    match name.len() {
        1..=keyfold::MAX_SCOPE_NAME_LEN => Ok(name.to_owned()),
        _ => Err(format!("a scope has a name of 1 to {} bytes", keyfold::MAX_SCOPE_NAME_LEN)),
    }
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
