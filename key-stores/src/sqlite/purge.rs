//! Making the bytes of replaced records disappear from the file and its log.

use super::{SqliteStore, failed, restore_one};
use keyfold::{Record, Remainder, Result};
use rusqlite::ErrorCode;

const FILE: &str = "store";
const LOG: &str = "write-ahead log";

impl SqliteStore {
    /// Puts the records back in one transaction.
    pub(super) fn restore_all(&self, records: &[Record]) -> Result<()> {
        self.write(|transaction| records.iter().try_for_each(|record| restore_one(transaction, record)))
    }

    /// Writes the file anew, since moving records within a page can leave copies where `secure_delete` does not look, and then
    /// empties the log, which has every page as it was. Whoever reads at that moment keeps both from happening.
    pub(super) fn purge_all(&self, pending: &[Remainder]) -> Result<Vec<Remainder>> {
        let is_asked = |place| pending.is_empty() || pending.iter().any(|remainder| remainder.place == place);
        let mut remainders = Vec::new();
        if is_asked(FILE) {
            let vacuumed = self.with(|connection| match connection.execute_batch("VACUUM") {
                Ok(()) => Ok(None),
                Err(error) if is_busy(&error) => Ok(Some(format!("another process uses it, try again: {error}"))),
                Err(error) => Err(failed(error)),
            })?;
            remainders.push(remainder(FILE, vacuumed, "the file was written anew (VACUUM, secure_delete)"));
        }
        // The new file is in the log, too.
        let busy: bool = self.with(|connection| {
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(failed)
        })?;
        let problem = busy.then(|| "another process reads the store, try again".to_owned());
        remainders.push(remainder(LOG, problem.clone(), "the log was moved into the file and emptied"));
        if problem.is_some()
            && let Some(file) = remainders.iter_mut().find(|remainder| remainder.place == FILE && remainder.gone)
        {
            file.gone = false;
            file.detail = "the new file is still in the write-ahead log, try again".to_owned();
        }
        Ok(remainders)
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn remainder(place: &str, problem: Option<String>, done: &str) -> Remainder {
    let gone = problem.is_none();
    let detail = problem.unwrap_or_else(|| done.to_owned());
    Remainder { place: place.to_owned(), gone, detail, mark: String::new() }
}
