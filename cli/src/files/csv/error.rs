//! What can be wrong with a CSV file, and where, without what the cells hold.

use std::fmt;
use std::io;

/// A column: its position from 1, and its name if the policy speaks of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CsvColumn {
    pub(crate) position: usize,
    pub(crate) name: Option<String>,
}

impl fmt::Display for CsvColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}", self.position)?;
        match &self.name {
            Some(name) => write!(f, " ({name:?})"),
            None => Ok(()),
        }
    }
}

/// A cell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CsvPlace {
    /// From 1, without the header, which is row 0, and without blank lines.
    pub(crate) row: u64,
    /// The line of the file that the row starts on, from 1.
    pub(crate) line: u64,
    pub(crate) column: CsvColumn,
}

impl fmt::Display for CsvPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", Row(self.row, self.line), self.column)
    }
}

struct Row(u64, u64);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(0, line) => write!(f, "header (line {line})"),
            Self(row, line) => write!(f, "row {row} (line {line})"),
        }
    }
}

/// Why a CSV file is refused.
#[derive(Debug)]
pub(crate) enum CsvError {
    /// The input cannot be read.
    Io(io::Error),
    /// The delimiter is not ASCII, a quote or a line terminator.
    Delimiter { delimiter: u8 },
    /// There is no header.
    Empty,
    /// The header has more than [`MAX_COLUMN_COUNT`](super::MAX_COLUMN_COUNT) columns.
    TooManyColumns,
    /// A column name is not UTF-8.
    HeaderNotUtf8 { position: usize },
    /// Two columns have the same name, so that a policy would protect only one of them.
    DuplicateColumn { name: Option<String>, first: usize, second: usize },
    /// A row has more or fewer cells than the header.
    Ragged { row: u64, line: u64, expected: usize, found: usize },
    /// A cell of a column of the policy is longer than allowed.
    FieldTooLong { place: CsvPlace, max_len: usize },
    /// A row is longer than allowed; the place is where that shows.
    RowTooLong { place: CsvPlace, max_len: usize },
    /// A quoted cell has no closing quote.
    OpenQuote { place: CsvPlace },
    /// A quoted cell goes on after its closing quote.
    AfterQuote { place: CsvPlace },
    /// A cell that is replaced has quotes in it and none around it: when its text comes back, it would be spelled otherwise.
    BareQuote { place: CsvPlace },
    /// A cell that must be text is not UTF-8.
    NotUtf8 { place: CsvPlace },
}

impl From<io::Error> for CsvError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the input: {error}"),
            Self::Delimiter { delimiter } => write!(f, "byte 0x{delimiter:02x} cannot separate fields"),
            Self::Empty => f.write_str("the input is empty, not even a header line"),
            Self::TooManyColumns => write!(f, "header: more than {} columns", super::MAX_COLUMN_COUNT),
            Self::HeaderNotUtf8 { position } => {
                write!(f, "header: the name of column {position} is not UTF-8 (is the file in another encoding?)")
            }
            Self::DuplicateColumn { name, first, second } => {
                write!(f, "header: columns {first} and {second} have the same name")?;
                match name {
                    Some(name) => write!(f, ", {name:?}"),
                    None => Ok(()),
                }
            }
            Self::Ragged { row, line, expected, found } => {
                write!(f, "{}: {expected} cells expected as in the header, {found} found", Row(*row, *line))
            }
            Self::FieldTooLong { place, max_len } => write!(f, "{place}: the cell is longer than {max_len} bytes"),
            Self::RowTooLong { place, max_len } => {
                write!(f, "{place}: the row is longer than {max_len} bytes (is a quote missing?)")
            }
            Self::OpenQuote { place } => write!(f, "{place}: the quoted cell is never closed"),
            Self::AfterQuote { place } => write!(f, "{place}: the cell goes on after its closing quote"),
            Self::BareQuote { place } => write!(
                f,
                "{place}: the cell has a quote and is not quoted: put quotes around it and double those in it, or revealing would spell it otherwise"
            ),
            Self::NotUtf8 { place } => write!(f, "{place}: the cell is not UTF-8"),
        }
    }
}

impl std::error::Error for CsvError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
