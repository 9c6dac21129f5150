//! What the commands over SQL tables share: opening, walking in batches, checkpoints, errors of single rows.

mod batch;
mod cells;
mod checkpoint;
mod ledger;
mod rows;
mod token_rows;
mod walk;

pub(crate) use batch::settle;
pub(crate) use cells::{Form, Stored};
pub(crate) use checkpoint::Checkpoint;
pub(crate) use ledger::Ledger;
pub(crate) use rows::{Bindings, Columns, row_field};
pub(crate) use token_rows::TokenRows;
pub(crate) use walk::{Pace, Rows};

use crate::args::Walk;
use crate::failure::{Exit, Failure};
use keyfold::{Error, ErrorKind};
use keyfold_tables::{Access, Location, Table};
use std::path::Path;

/// Opens the table that the arguments name. Paths in the URI are relative to the current folder.
pub(crate) fn open(sql: &str, walk: &Walk, columns: &[String], access: Access) -> Result<Table, Failure> {
    let (Some(table), Some(key)) = (&walk.table, &walk.key) else {
        return Err(Failure::new(Exit::Usage, "--sql needs --table and --key"));
    };
    let location = Location { uri: sql, folder: Path::new("."), table, key, columns };
    Table::open(&location, access).map_err(Failure::from)
}

/// The error of a value, for the ledger; or of the run, which ends.
pub(crate) enum Trouble {
    /// With this value.
    Value(Error),
    /// With the key service, a store or the system: other values would meet it as well.
    Run(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidInput
            | ErrorKind::LimitExceeded
            | ErrorKind::PolicyRefused
            | ErrorKind::Malformed
            | ErrorKind::Unsupported
            | ErrorKind::NoMatchingKey
            | ErrorKind::DecryptionFailed
            | ErrorKind::WrongScope
            | ErrorKind::KeyState
            | ErrorKind::RecordRejected => Self::Value(error),
            _ => Self::Run(error),
        }
    }
}
