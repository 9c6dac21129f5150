//! Rows of the table `records` in SQLite.

use super::failed;
use crate::row::Columns;
use keyfold::{Record, Result};
use rusqlite::{Connection, Row, params};

impl Columns {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            lineage: row.get(0)?,
            key_id: row.get(1)?,
            class: row.get(2)?,
            slot: row.get(3)?,
            generation: row.get(4)?,
            scope_tag: row.get(5)?,
            state: row.get(6)?,
            sequence: row.get(7)?,
        })
    }

    pub(super) fn insert(&self, connection: &Connection, record: &Record) -> rusqlite::Result<()> {
        let sql = "INSERT INTO records (lineage, key_id, class, slot, generation, scope_tag, state, sequence, record) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let params = params![
            self.lineage,
            self.key_id,
            self.class,
            self.slot,
            self.generation,
            self.scope_tag,
            self.state,
            self.sequence,
            record.as_bytes(),
        ];
        one_row(connection.prepare_cached(sql)?.execute(params)?)
    }

    pub(super) fn update(&self, connection: &Connection, record: &Record) -> rusqlite::Result<()> {
        let sql = "UPDATE records SET state = ?3, sequence = ?4, record = ?5 WHERE lineage = ?1 AND key_id = ?2";
        let params = params![self.lineage, self.key_id, self.state, self.sequence, record.as_bytes()];
        one_row(connection.prepare_cached(sql)?.execute(params)?)
    }
}

fn one_row(count: usize) -> rusqlite::Result<()> {
    if count == 1 { Ok(()) } else { Err(rusqlite::Error::StatementChangedRows(count)) }
}

/// The record of a row, in the order of columns of the queries in `mod.rs`.
///
/// # Errors
///
/// - [`Store`](keyfold::ErrorKind::Store): the bytes are not a record that this build reads, or not the record that
///   the row says.
pub(super) fn read(row: &Row<'_>) -> Result<Record> {
    let columns = Columns::read(row).map_err(failed)?;
    let bytes = row.get_ref(8).map_err(failed)?;
    let bytes = bytes.as_blob().map_err(|error| columns.damaged("it is not a blob").with_source(error))?;
    columns.record(bytes)
}
