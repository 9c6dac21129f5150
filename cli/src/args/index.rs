//! `keyfold index`: blind indexes.

use super::{Binding, Errors, Policies, Source, Table, parse_delimiter};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;

#[derive(Debug, Subcommand)]
pub(crate) enum Index {
    /// Say what an index of a column would find and show with how many bits. Prints no value; asks for no key.
    Advise(Box<IndexAdvise>),
    /// Write the tokens of an index beside the sealed values of a table, or the proofs of a table of random tokens, under the key that seals: for a new
    /// index, and when the look-up key was replaced.
    Backfill(Box<IndexBackfill>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Kind {
    /// The text, byte by byte.
    Exact,
    /// The text without regard to case, width and repeated spaces.
    CaseFolded,
    /// The digits 0 to 9.
    Digits,
    /// A date.
    Date,
    /// A part of a date: --part.
    DatePart,
    /// A telephone number: --country-code.
    Phone,
    /// The first characters: --length.
    Prefix,
}

#[derive(Args, Debug)]
pub(crate) struct IndexAdvise {
    /// A CSV file with the values in clear; - for standard input.
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) input: OsString,
    /// The column that holds the values.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) column: String,
    /// The column that says how many rows have the value: the input is a histogram.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) count: Option<String>,
    /// The character between CSV fields.
    #[arg(long, default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// What of a value the index compares.
    #[arg(long, value_enum, default_value_t = Kind::Exact)]
    pub(crate) kind: Kind,
    /// Of --kind date-part: year, year-month or month-day.
    #[arg(long, value_name = "PART", value_parser = ["year", "year-month", "month-day"])]
    pub(crate) part: Option<String>,
    /// Of --kind prefix: characters, 3 to 32. May be repeated: then each row has a token per length.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=32))]
    pub(crate) length: Vec<u8>,
    /// Of --kind phone: what numbers without a country code get in front, such as 49.
    #[arg(long, value_name = "DIGITS")]
    pub(crate) country_code: Option<String>,
    /// Of --kind phone: what such numbers lose first, such as 0.
    #[arg(long, value_name = "DIGITS", requires = "country_code")]
    pub(crate) trunk_prefix: Option<String>,
    /// Of --kind phone: what says, beside + and 00, that a country code follows, such as 011.
    #[arg(long, value_name = "DIGITS")]
    pub(crate) international_prefix: Option<String>,
    /// Bits to look at beside the usual ones: 1 to 63, or 256. May be repeated.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) bits: Vec<u16>,
    /// Bits that other indexes of the table show already, those of full width not counted.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) other_bits: usize,
    /// Advise on a column of few values as well: each of its tokens shows the value to whoever knows how frequent it is.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct IndexBackfill {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) policies: Policies,
    #[command(flatten)]
    pub(crate) table: Table,
    /// The field of the policy.
    #[arg(long, value_name = "NAME")]
    pub(crate) field: String,
    /// The column that holds its sealed values.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) from: String,
    /// The index of the field. Left out of a field with random tokens: then --key is the column of its tokens, and the proof of each row is checked and written
    /// anew.
    #[arg(long, value_name = "NAME")]
    pub(crate) index: Option<String>,
    /// The column for its tokens: of integers, of bytes for 256 bits, of an array of integers for prefixes, or of text for any. By default the
    /// column that the policy names. For proofs: of bytes, by default proof.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) binding: Binding,
    #[command(flatten)]
    pub(crate) errors: Errors,
    /// Compare, and write nothing: how many tokens are not what they should be, and in which rows, by their numbers along --key, of which the first 20 are
    /// named; --errors names them by their keys. Exit code 4 if there are any.
    #[arg(long, conflicts_with = "checkpoint")]
    pub(crate) verify: bool,
    /// Print the summary as one JSON object to standard error.
    #[arg(long)]
    pub(crate) json: bool,
}
