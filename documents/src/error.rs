//! What can be wrong with a file of JSON lines, and where, without what the values are.

use std::fmt;
use std::io;

use serde_json::error::Category;

/// Why a JSON path or a line is refused. Columns are bytes, from 1.
#[derive(Debug)]
#[allow(missing_docs, reason = "what the fields are is said by the names, and what they mean by the variant")]
pub enum JsonError {
    /// The input cannot be read.
    Io(io::Error),
    /// The path of a rule is not one of RFC 9535.
    Path { rule: String, reason: String },
    /// A line is longer than allowed.
    LineTooLong { line: u64, max_len: usize },
    /// A line is not UTF-8.
    NotUtf8 { line: u64, column: usize },
    /// A line is not one JSON value.
    Invalid { line: u64, column: usize, reason: String },
    /// An object has two members of the same name; the place is behind the second name.
    // F-18.6-1.
    DuplicateMember { line: u64, column: usize },
    /// Two rules select the same value, or one selects a part of what the other selects.
    /// Names the rules only: the path that was selected has member names of the input.
    Overlap { line: u64, first: String, second: String },
    /// The document has another shape than the path of a rule expects at `prefix`, a part of that path.
    Shape { line: u64, rule: String, prefix: String },
    /// A header of a document that is there and may not be, or has no place.
    Header { line: u64, reason: &'static str },
    /// Something that stands where the header of a document does, and is none, or the second.
    DamagedHeader { line: u64, reason: &'static str },
    /// A line has more than [`MAX_VALUES`](super::MAX_VALUES) values.
    TooManyValues { line: u64 },
}

impl JsonError {
    /// Takes from `error` only what cannot quote the input.
    pub(super) fn of_parser(error: &serde_json::Error, line: u64) -> Self {
        // A value over several lines is counted from its first.
        let line = line + (error.line() as u64).saturating_sub(1);
        let column = error.column().max(1);
        match error.classify() {
            // The only error of our own visitor. serde's, which quote the value that was not
            // expected, are in this category too, and are not shown either.
            Category::Data => Self::DuplicateMember { line, column },
            // Fixed texts of serde_json's parser, followed by its idea of the place.
            Category::Syntax | Category::Eof | Category::Io => {
                let text = error.to_string();
                let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason).to_owned();
                Self::Invalid { line, column, reason }
            }
        }
    }
}

impl From<io::Error> for JsonError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the input: {error}"),
            Self::Path { rule, reason } => write!(f, "path of {rule:?}: {reason}"),
            Self::LineTooLong { line, max_len } => write!(f, "line {line}: longer than {max_len} bytes"),
            Self::NotUtf8 { line, column } => write!(f, "line {line}, column {column}: not UTF-8"),
            Self::Invalid { line, column, reason } => {
                write!(f, "line {line}, column {column}: not valid JSON: {reason}")
            }
            Self::DuplicateMember { line, column } => {
                write!(f, "line {line}, column {column}: an object has two members of the same name")
            }
            Self::Overlap { line, first, second } if first == second => {
                write!(f, "line {line}: {first:?} selects a value and a part of it")
            }
            Self::Overlap { line, first, second } => {
                write!(f, "line {line}: {first:?} and {second:?} both select the same value or a part of it")
            }
            Self::Shape { line, rule, prefix } => {
                write!(
                    f,
                    "line {line}: {rule:?} cannot be applied, since {prefix} is not what its path expects there (an array, an object)"
                )
            }
            Self::Header { line, reason } => write!(f, "line {line}: {reason}"),
            Self::DamagedHeader { line, reason } => write!(f, "line {line}: {reason} [200 Malformed]"),
            Self::TooManyValues { line } => write!(f, "line {line}: more than {} values", super::MAX_VALUES),
        }
    }
}

impl std::error::Error for JsonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
