//! Rows of the table `records`: columns to search by, derived from the record that is kept beside them.

use super::{failed, store_error};
use keyfold::wire::KeyId;
use keyfold::{Error, ErrorKind, Record, Result};
use rusqlite::{Connection, Row, params};

/// What a row says beside its record. Always computed from the record; never believed when read.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Columns {
    pub(super) lineage: [u8; 16],
    pub(super) key_id: [u8; KeyId::LEN],
    pub(super) class: u8,
    pub(super) slot: [u8; 16],
    pub(super) generation: u32,
    pub(super) scope_tag: Option<[u8; 32]>,
    pub(super) state: u8,
    pub(super) sequence: i64,
}

impl Columns {
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the sequence is greater than SQLite's greatest integer.
    pub(super) fn of(record: &Record) -> Result<Self> {
        let too_large = |_| store_error("the sequence of the record is too large for the store");
        Ok(Self {
            lineage: *record.lineage().as_bytes(),
            key_id: *record.key_id().as_bytes(),
            class: record.class().id(),
            slot: *record.slot_id().as_bytes(),
            generation: record.key_id().generation(),
            scope_tag: record.scope_tag(),
            state: record.state().id(),
            sequence: i64::try_from(record.sequence()).map_err(too_large)?,
        })
    }

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
/// - [`Store`](ErrorKind::Store): the bytes are not a record that this build reads, or not the record that the row says.
pub(super) fn read(row: &Row<'_>) -> Result<Record> {
    let columns = Columns::read(row).map_err(failed)?;
    let bytes = row.get_ref(8).map_err(failed)?;
    let bytes = bytes.as_blob().map_err(|error| wrong(&columns, "it is not a blob").with_source(error))?;
    let record = Record::parse(bytes).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::Unsupported => "it was written by a newer keyfold",
            _ => "it is damaged",
        };
        wrong(&columns, why).with_source(error)
    })?;
    if Columns::of(&record)? != columns {
        return Err(wrong(&columns, "the row and the record in it disagree"));
    }
    Ok(record)
}

fn wrong(columns: &Columns, why: &str) -> Error {
    let key_id = KeyId::from_bytes(columns.key_id);
    store_error("the key store holds a record that cannot be used").with_detail(format!("{key_id}: {why}"))
}
