//! `keyfold census`, `keyfold reencrypt`, `keyfold backfill`: what is stored, in files and SQL tables.

use super::{Format, Policies, Source, Transform, parse_delimiter, parse_pair, parse_scope};
use clap::{Args, ValueEnum, ValueHint};
use keyfold_tables::TableName;
use std::ffi::OsString;
use std::path::PathBuf;

/// A table, and how it is walked through.
#[derive(Args, Debug)]
pub(crate) struct Walk {
    /// The table: TABLE or SCHEMA.TABLE, as it is stored, with "…" around a part that has a dot.
    #[arg(long, value_name = "TABLE", requires = "sql", value_parser = parse_table)]
    pub(crate) table: Option<TableName>,
    /// The column along which the table is read: unique by itself, never null, an integer, text, uuid or bytea.
    #[arg(long, value_name = "COLUMN", requires = "sql")]
    pub(crate) key: Option<String>,
    /// Rows that are read, and changed in one transaction, at once.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) batch_rows: u32,
    /// Look at no more than so many rows a second, to spare the database.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rows_per_second: Option<u32>,
    /// A file that remembers how far the walk has come, so that it goes on there when it is started again. Holds the key of
    /// a row; readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "sql", value_hint = ValueHint::FilePath)]
    pub(crate) checkpoint: Option<PathBuf>,
}

/// The table that a command works on.
#[derive(Args, Debug)]
pub(crate) struct Table {
    /// The database: sqlite:FILE or postgres://USER@HOST/DATABASE (docs/POSTGRES.md), without a password, since others can
    /// see it.
    #[arg(long, value_name = "URI", requires_all = ["table", "key"])]
    pub(crate) sql: String,
    #[command(flatten)]
    pub(crate) walk: Walk,
}

/// Columns of a table that hold fields, for commands that take files as well.
#[derive(Args, Debug)]
pub(crate) struct Columns {
    /// The database whose table is meant, instead of a file: sqlite:FILE or postgres://USER@HOST/DATABASE (docs/POSTGRES.md), without
    /// a password, since others can see it. To look at it, a standby will do.
    #[arg(long, value_name = "URI", requires_all = ["table", "key", "field"])]
    pub(crate) sql: Option<String>,
    #[command(flatten)]
    pub(crate) walk: Walk,
    /// A field of the policy and the column that holds it. May be repeated.
    #[arg(long, value_name = "NAME=COLUMN", requires = "sql", value_parser = parse_pair)]
    pub(crate) field: Vec<(String, String)>,
}

/// Whose keys the values of a row are under, and what they are bound to.
#[derive(Args, Debug)]
pub(crate) struct Binding {
    /// The scope whose keys are used. Other users of this machine can see it: never name a patient.
    #[arg(long, value_name = "NAME", value_parser = parse_scope)]
    pub(crate) scope: Option<String>,
    /// The column that names the scope of each row.
    #[arg(long, value_name = "COLUMN", conflicts_with = "scope", requires = "sql")]
    pub(crate) scope_column: Option<String>,
    /// A context pair that every value is bound to, such as tenant=clinic-17. May be repeated. Visible like --scope.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub(crate) context: Vec<(String, String)>,
    /// A context pair whose value is in a column. May be repeated.
    #[arg(long, value_name = "KEY=COLUMN", requires = "sql", value_parser = parse_pair)]
    pub(crate) context_column: Vec<(String, String)>,
    /// The column that values are bound to where the policy binds rows; by default the one that the policy names. If it is one
    /// of the fields, a deterministic one, it is opened; `index backfill` opens it if it is a column of a deterministic field of the policy.
    #[arg(long, value_name = "COLUMN", requires = "sql")]
    pub(crate) row: Option<String>,
}

/// Rows that cannot be dealt with.
#[derive(Args, Debug)]
pub(crate) struct Errors {
    /// Write what is wrong with which row to this file, one JSON object per line, and go on; such rows stay as they are.
    /// Without it the first one ends the run.
    #[arg(long, value_name = "FILE", requires = "sql", value_hint = ValueHint::FilePath)]
    pub(crate) errors: Option<PathBuf>,
    /// End the run after more than so many errors.
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "errors")]
    pub(crate) max_errors: u64,
    /// How rows are named in that file. Keys of rows may identify patients.
    #[arg(long, value_enum, default_value_t = LedgerKeys::Hash, requires = "errors")]
    pub(crate) ledger_keys: LedgerKeys,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LedgerKeys {
    /// By a salted SHA-256 of the key: nobody reads it by accident, but whoever can guess keys can try them.
    Hash,
    /// By the key.
    Plain,
}

#[derive(Args, Debug)]
pub(crate) struct Census {
    /// CSV, NDJSON and HL7 files, and streams or folders of them (docs/STREAMS.md); - for standard input.
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "sql", conflicts_with = "sql")]
    pub(crate) files: Vec<OsString>,
    /// The format of the files; by default from their extensions (.csv, .ndjson, .jsonl, .hl7).
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The character between CSV fields.
    #[arg(long, default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// The database: sqlite:FILE or postgres://USER@HOST/DATABASE (docs/POSTGRES.md), without a password, since others can
    /// see it. A standby will do.
    #[arg(long, value_name = "URI", requires_all = ["table", "key", "column"])]
    pub(crate) sql: Option<String>,
    #[command(flatten)]
    pub(crate) walk: Walk,
    /// A column to look at. May be repeated. In files: only these columns or paths, and also if nothing in them is sealed.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) column: Vec<String>,
    /// The configuration of the keyring, to say in which state the keys are.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Write the distinct key IDs with the number of their values to this file, - for standard output: for `keys verify`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) key_ids: Option<OsString>,
    /// Replace that file if it exists.
    #[arg(long, requires = "key_ids")]
    pub(crate) force: bool,
    /// Print one JSON object per place.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Reencrypt {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
    /// The protected file; - for standard input.
    #[arg(value_hint = ValueHint::FilePath, required_unless_present = "sql", conflicts_with = "sql", requires = "output")]
    pub(crate) input: Option<OsString>,
    /// The output; - for standard output. Appears in one step when everything has succeeded.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "sql")]
    pub(crate) output: Option<OsString>,
    /// The format; by default from the extension of the input (.csv, .ndjson, .jsonl, .hl7).
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// The character between CSV fields.
    #[arg(long, default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// Pass JSON documents and HL7 messages to which no field of the policy applies through unchanged, instead of refusing them.
    #[arg(long)]
    pub(crate) pass_unmatched: bool,
    /// Threads that encrypt or decrypt; by default one per core.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Of a file whose values are bound to random tokens, which stay as they are: the database with their table (docs/LOOKUP.md),
    /// sqlite:FILE or postgres://USER@HOST/DATABASE, without a password, since others can see it.
    #[arg(long, value_name = "URI", conflicts_with = "sql")]
    pub(crate) tokens: Option<String>,
    /// The table of random tokens: TABLE or SCHEMA.TABLE.
    #[arg(long, value_name = "TABLE", default_value = "keyfold_tokens", value_parser = parse_table)]
    pub(crate) token_table: TableName,
    #[command(flatten)]
    pub(crate) columns: Columns,
    #[command(flatten)]
    pub(crate) binding: Binding,
    #[command(flatten)]
    pub(crate) errors: Errors,
    /// Open and seal, and write nothing: not to the table, and no checkpoint, ledger or statement. Errors are counted.
    #[arg(long, requires = "sql")]
    pub(crate) dry_run: bool,
    /// Look through everything once more at the end, and write to this file the statement that nothing is left under an older
    /// generation, authenticated under the audit key of the configuration.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) statement: Option<PathBuf>,
    /// Replace the output or the statement if it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the summary as one JSON object to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Reencrypt {
    /// The same for a file.
    pub(crate) fn transform(&self) -> Transform {
        Transform {
            source: self.source.clone(),
            policies: self.policies.clone(),
            input: self.input.clone().unwrap_or_default(),
            output: self.output.clone().unwrap_or_default(),
            format: self.format,
            delimiter: self.delimiter,
            scope: self.binding.scope.clone(),
            context: self.binding.context.clone(),
            tokens: self.tokens.clone(),
            token_table: self.token_table.clone(),
            force: self.force,
            pass_unmatched: self.pass_unmatched,
            threads: self.threads,
            json: self.json,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Backfill {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
    #[command(flatten)]
    pub(crate) table: Table,
    /// The column that holds plaintext.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) from: String,
    /// The column for sealed values.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) to: String,
    /// The field of the policy. Its policy has a `migration`.
    #[arg(long, value_name = "NAME")]
    pub(crate) field: String,
    #[command(flatten)]
    pub(crate) binding: Binding,
    #[command(flatten)]
    pub(crate) errors: Errors,
    /// Open every sealed value and compare it with the plaintext; change nothing.
    #[arg(long, group = "step")]
    pub(crate) verify: bool,
    /// Empty the sealed column again, where the plaintext is still there.
    #[arg(long, group = "step")]
    pub(crate) undo: bool,
    /// Empty the sealed value, too, of rows without plaintext: a program that does not know the sealed column has erased it.
    #[arg(long, conflicts_with_all = ["verify", "undo", "finish"])]
    pub(crate) empty_erased: bool,
    /// With --finish: sealed values without plaintext are right, since they were written after the cut-over.
    #[arg(long, requires = "finish")]
    pub(crate) keep_sealed_only: bool,
    /// Verify every row, and if all are equal empty the plaintext column. Cannot be undone.
    #[arg(long, group = "step", requires = "yes", conflicts_with = "checkpoint")]
    pub(crate) finish: bool,
    /// Really.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Seal in memory, and write nothing to the table.
    #[arg(long, group = "step", conflicts_with = "checkpoint")]
    pub(crate) dry_run: bool,
    /// Print the summary as one JSON object to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) fn parse_table(text: &str) -> Result<TableName, String> {
    text.parse().map_err(|error: keyfold::Error| error.to_string())
}
