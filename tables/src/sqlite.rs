//! Tables in SQLite files.

use crate::name::quote;
use crate::{
    Access, Cell, Change, Column, ColumnKind, Extent, Guard, KEY_TYPE, Location, NO_COLUMN, NO_TABLE, NOT_UNIQUE, Row,
    RowKey, no_such, wrong,
};
use keyfold::{Error, ErrorKind, Result};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, OptionalExtension, ToSql, TransactionBehavior, params_from_iter};
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// How long a statement waits while another process writes.
const BUSY: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct SqliteTable {
    connection: Connection,
    table: String,
    key: String,
    pub(crate) columns: Vec<Column>,
    /// The names of all columns that the table has.
    pub(crate) names: Vec<String>,
}

impl SqliteTable {
    pub(crate) fn open(file: &Path, location: &Location<'_>, access: Access) -> Result<Self> {
        let connection = connect(file, access)?;
        let (schema, table) = (location.table.schema.as_deref().unwrap_or("main"), &location.table.table);
        let known: Option<String> = connection
            .query_row(
                "SELECT name FROM pragma_table_list WHERE schema = ?1 AND name = ?2 AND type = 'table'",
                [schema, table.as_str()],
                |row| row.get(0),
            )
            .optional()
            .map_err(failed)?;
        if known.is_none() {
            return Err(wrong(NO_TABLE).with_detail(location.table.to_string()));
        }
        let described = describe(&connection, schema, table).map_err(failed)?;
        let find = |name: &str| described.iter().find(|column| column.name == name);
        let key = find(location.key).ok_or_else(|| no_such(NO_COLUMN, location.key, location))?;
        if !is_unique(&connection, schema, table, key, &described).map_err(failed)? {
            return Err(no_such(NOT_UNIQUE, location.key, location));
        }
        let columns = location.columns.iter().map(|name| {
            let column = find(name).ok_or_else(|| no_such(NO_COLUMN, name, location))?;
            let kind = kind_of(&column.declared);
            Ok(Column { name: column.name.clone(), kind, list: false, nullable: !column.not_null })
        });
        let columns = columns.collect::<Result<_>>()?;
        let (table, key) = (format!("{}.{}", quote(schema), quote(table)), quote(location.key));
        let names = described.into_iter().map(|column| column.name).collect();
        Ok(Self { connection, table, key, columns, names })
    }

    fn select(&self, extent: Extent, condition: &str) -> String {
        let cells: String = self.columns.iter().map(|column| format!(", {}", read_as(&column.name, extent))).collect();
        // Always the binary order, in which keys that differ are never equal.
        format!("SELECT {}{cells} FROM {} {condition}", self.key, self.table)
    }

    pub(crate) fn page(&mut self, after: Option<&RowKey>, limit: usize, extent: Extent) -> Result<Vec<Row>> {
        let (key, order) = (&self.key, format!("ORDER BY {} COLLATE BINARY LIMIT {limit}", self.key));
        let sql = match after {
            Some(_) => self.select(extent, &format!("WHERE {key} > ?1 COLLATE BINARY {order}")),
            None => self.select(extent, &order),
        };
        self.query(&sql, after)
    }

    pub(crate) fn rows(&mut self, keys: &[RowKey]) -> Result<Vec<Row>> {
        let sql = self.select(Extent::Whole, &format!("WHERE {} = ?1 COLLATE BINARY", self.key));
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            rows.append(&mut self.query(&sql, Some(key))?);
        }
        Ok(rows)
    }

    fn query(&self, sql: &str, key: Option<&RowKey>) -> Result<Vec<Row>> {
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query(params_from_iter(key)).map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next().map_err(failed)? {
            let key = match row.get_ref(0).map_err(failed)? {
                ValueRef::Integer(number) => RowKey::Integer(number),
                ValueRef::Text(text) => RowKey::Text(utf8(text)?.to_owned()),
                ValueRef::Blob(bytes) => RowKey::Bytes(bytes.to_vec()),
                ValueRef::Null | ValueRef::Real(_) => return Err(Error::new(ErrorKind::Store, KEY_TYPE)),
            };
            let cells = (1..=self.columns.len()).map(|at| {
                Ok(match row.get_ref(at).map_err(failed)? {
                    ValueRef::Null => Cell::Null,
                    ValueRef::Blob(bytes) => Cell::Bytes(Zeroizing::new(bytes.to_vec())),
                    ValueRef::Text(text) => Cell::Text(Zeroizing::new(utf8(text)?.to_owned())),
                    // `read_as` makes texts of numbers.
                    ValueRef::Integer(_) | ValueRef::Real(_) => return Err(ErrorKind::Internal.into()),
                })
            });
            rows.push(Row { key, cells: cells.collect::<Result<_>>()?, version: None });
        }
        Ok(rows)
    }

    pub(crate) fn replace(&mut self, changes: &[Change<'_>]) -> Result<Vec<bool>> {
        let Self { connection, table, key, columns, .. } = self;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let mut made = Vec::with_capacity(changes.len());
        for change in changes {
            let guarded: Vec<usize> = match change.guard {
                Guard::Column => vec![change.column],
                Guard::Row => (0..columns.len()).collect(),
            };
            let conditions: String = guarded
                .iter()
                .enumerate()
                .map(|(at, &column)| format!(" AND {} IS ?{}", read_as(&columns[column].name, Extent::Whole), at + 3))
                .collect();
            let column = quote(&columns[change.column].name);
            let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {key} = ?2 COLLATE BINARY{conditions}");
            let mut parameters: Vec<&dyn ToSql> = vec![&change.new, &change.row.key];
            parameters.extend(guarded.iter().map(|&column| &change.row.cells[column] as &dyn ToSql));
            let mut statement = transaction.prepare_cached(&sql).map_err(failed)?;
            made.push(statement.execute(&parameters[..]).map_err(failed)? == 1);
        }
        transaction.commit().map_err(failed)?;
        Ok(made)
    }
}

/// Opens a file that exists.
pub(crate) fn connect(file: &Path, access: Access) -> Result<Connection> {
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let cannot = |error: rusqlite::Error| failed(error).with_detail(format!("{}", file.display()));
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(cannot)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    // What is replaced may be in clear: overwrite it. A commit is on disk when it returns.
    connection.execute_batch("PRAGMA secure_delete = ON; PRAGMA synchronous = FULL").map_err(cannot)?;
    Ok(connection)
}

/// A column as it is read: numbers as text, so that what is compared later is what was read.
fn read_as(column: &str, extent: Extent) -> String {
    let column = quote(column);
    let text =
        format!("CASE WHEN typeof({column}) IN ('integer', 'real') THEN CAST({column} AS TEXT) ELSE {column} END");
    match extent {
        Extent::Whole => text,
        // The start of an empty blob is null to SQLite.
        Extent::Start(len) => format!("ifnull(substr({text}, 1, {len}), {text})"),
    }
}

struct Described {
    name: String,
    declared: String,
    not_null: bool,
    /// Position in the primary key, from 1; 0 if it is no part of it.
    primary: i64,
}

/// Tables and their columns.
pub(crate) fn columns(file: &Path) -> Result<Vec<(String, String)>> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let cannot = |error: rusqlite::Error| failed(error).with_detail(format!("{}", file.display()));
    let connection = Connection::open_with_flags(file, flags).map_err(cannot)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let sql = "SELECT list.name, info.name FROM pragma_table_list AS list JOIN pragma_table_xinfo(list.name, list.schema) AS info \
               WHERE list.schema = 'main' AND list.type = 'table' AND list.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
               ORDER BY list.name, info.cid";
    let read = || -> rusqlite::Result<Vec<_>> {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    read().map_err(cannot)
}

fn describe(connection: &Connection, schema: &str, table: &str) -> rusqlite::Result<Vec<Described>> {
    let sql = "SELECT name, upper(type), \"notnull\", pk FROM pragma_table_xinfo(?2, ?1)";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([schema, table], |row| {
        Ok(Described { name: row.get(0)?, declared: row.get(1)?, not_null: row.get(2)?, primary: row.get(3)? })
    })?;
    rows.collect()
}

/// Whether `key` alone tells rows apart and no row lacks it. SQLite allows nulls in primary keys other than integers.
fn is_unique(
    connection: &Connection,
    schema: &str,
    table: &str,
    key: &Described,
    columns: &[Described],
) -> rusqlite::Result<bool> {
    let alone = key.primary == 1 && columns.iter().filter(|column| column.primary > 0).count() == 1;
    if alone && key.declared == "INTEGER" {
        return Ok(true);
    }
    let sql = "SELECT count(*) FROM pragma_index_list(?2, ?1) AS list WHERE list.\"unique\" AND NOT list.partial \
               AND (SELECT count(*) FROM pragma_index_info(list.name, ?1)) = 1 \
               AND (SELECT name FROM pragma_index_info(list.name, ?1)) = ?3";
    let unique: i64 = connection.query_row(sql, [schema, table, &key.name], |row| row.get(0))?;
    if !alone && unique == 0 {
        return Ok(false);
    }
    let nulls =
        format!("SELECT EXISTS (SELECT 1 FROM {}.{} WHERE {} IS NULL)", quote(schema), quote(table), quote(&key.name));
    let has_null: bool = connection.query_row(&nulls, [], |row| row.get(0))?;
    Ok(!has_null)
}

/// By the rules of SQLite's type affinity.
fn kind_of(declared: &str) -> ColumnKind {
    let has = |part: &str| declared.contains(part);
    match () {
        () if has("INT") => ColumnKind::Other,
        () if has("CHAR") || has("CLOB") || has("TEXT") => ColumnKind::Text,
        () if has("BLOB") || declared.is_empty() => ColumnKind::Binary,
        () => ColumnKind::Other,
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

impl ToSql for RowKey {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

fn utf8(text: &[u8]) -> Result<&str> {
    std::str::from_utf8(text).map_err(|_| Error::new(ErrorKind::Store, "the table holds a text that is not UTF-8"))
}

pub(crate) fn failed(error: rusqlite::Error) -> Error {
    let message = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            "the database is locked by another process for longer than ten seconds"
        }
        Some(rusqlite::ErrorCode::DiskFull) => "the disk of the database is full",
        Some(rusqlite::ErrorCode::ReadOnly) => "the database is read only",
        Some(rusqlite::ErrorCode::CannotOpen) => "the database file cannot be opened",
        Some(rusqlite::ErrorCode::NotADatabase) => "the file is no SQLite database",
        Some(rusqlite::ErrorCode::ConstraintViolation) => "a constraint or trigger of the table refuses a change",
        _ => "the database of the table failed",
    };
    // Not the text of the error: a trigger may put values into it.
    let code = error.sqlite_error().map_or_else(String::new, |error| format!("SQLite error {}", error.extended_code));
    Error::new(ErrorKind::Store, message).with_detail(code)
}
