//! SQL tables as places where sealed values are: SQLite files and PostgreSQL databases.
//!
//! A [`Table`] is read in pages along a unique key column, and changed in batches, each in one transaction, only where a
//! row still holds what was read: whoever writes at the same time never loses what he wrote.
//!
//! Names of tables and columns are looked up and quoted, values are parameters. Blocks; a thread of
//! `keyfold-background` does the network I/O.
#![forbid(unsafe_code)]

mod cell;
mod name;
mod postgres;
mod sqlite;
mod tokens;

pub use cell::{Cell, RowKey};
pub use name::TableName;
pub use tokens::{TokenTable, Tokenizer};

use keyfold::{Error, ErrorKind, Result};
use postgres::PostgresTable;
use sqlite::SqliteTable;
use std::collections::BTreeMap;
use std::path::Path;

/// Most rows in a page or batch.
pub const MAX_BATCH_ROWS: usize = 100_000;

/// Which table, and which columns of it.
#[derive(Clone, Debug)]
pub struct Location<'a> {
    /// `sqlite:FILE`, or `postgres://USER@HOST/DATABASE?OPTIONS` with the options of a key store's URI. There `schema` is
    /// the one of table names that name none, `public` by default.
    pub uri: &'a str,
    /// What paths in the URI are relative to.
    pub folder: &'a Path,
    /// The table.
    pub table: &'a TableName,
    /// The unique column along which the table is read.
    pub key: &'a str,
    /// The columns that are read and changed; elsewhere named by their position here.
    pub columns: &'a [String],
}

/// What may be done with a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Reading. A standby will do.
    Read,
    /// Reading and changing.
    Write,
}

/// How much of each value a page holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The first so many bytes of a binary value, and characters of a text.
    Start(u32),
}

/// What a column is made for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ColumnKind {
    /// Bytes: sealed values are there in binary form.
    Binary,
    /// Text: sealed values are there in text form.
    Text,
    /// Something else, such as numbers or dates. Read as text.
    Other,
}

/// A column that is read and changed.
#[derive(Debug)]
struct Column {
    name: String,
    kind: ColumnKind,
    list: bool,
    nullable: bool,
}

/// A row as it was read.
#[derive(Debug)]
pub struct Row {
    /// Where it is.
    pub key: RowKey,
    /// Its values, in the order of [`Location::columns`].
    pub cells: Vec<Cell>,
    /// The version that was read, where the database counts versions of rows.
    version: Option<String>,
}

/// Under which condition a value is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The column still holds what was read.
    Column,
    /// The whole row is as it was read: in PostgreSQL nobody has written it since, in SQLite its columns that were read
    /// hold what was read. No value in clear becomes a parameter of a statement in PostgreSQL, where statements may be
    /// logged. One change per row and batch.
    Row,
}

/// One value to be replaced.
#[derive(Debug)]
pub struct Change<'a> {
    /// The row, read as a whole.
    pub row: &'a Row,
    /// Which of its columns.
    pub column: usize,
    /// What it is to hold.
    pub new: Cell,
    /// The condition.
    pub guard: Guard,
}

/// The tables of a database with their columns, in the order of their names: of a PostgreSQL database those of the schema of the URI,
/// views and partitions aside; of an SQLite file all but its own. `uri` and `folder` are as in [`Location`].
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): the URI. - [`Store`](ErrorKind::Store): the database cannot be reached or read.
pub fn columns(uri: &str, folder: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let found = match uri.split_once(':') {
        Some(("sqlite", file)) => sqlite::columns(&folder.join(file))?,
        Some(("postgres" | "postgresql", _)) => PostgresTable::columns_of(uri, folder)?,
        other => return Err(unknown_database(other)),
    };
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (table, column) in found {
        tables.entry(table).or_default().push(column);
    }
    Ok(tables)
}

/// The error of a URI, whose rest may hold a password.
fn unknown_database(parts: Option<(&str, &str)>) -> Error {
    wrong("the database is not one that this build knows: sqlite:FILE or postgres://USER@HOST/DATABASE")
        .with_detail(parts.map_or("no scheme", |(scheme, _)| scheme))
}

/// An open table.
#[derive(Debug)]
pub struct Table {
    place: String,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Sqlite(SqliteTable),
    Postgres(Box<PostgresTable>),
}

impl Table {
    /// Opens a table: connects, and looks up the columns.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the URI; there is no such table or column; the key may be null, is not
    ///   unique by itself, or is of a type without an order that is its own.
    /// - [`Store`](ErrorKind::Store): the database cannot be reached or read.
    pub fn open(location: &Location<'_>, access: Access) -> Result<Self> {
        let (place, backend) = match location.uri.split_once(':') {
            Some(("sqlite", file)) => {
                let file = location.folder.join(file);
                let file = file.canonicalize().unwrap_or(file);
                (format!("sqlite:{}", file.display()), Backend::Sqlite(SqliteTable::open(&file, location, access)?))
            }
            Some(("postgres" | "postgresql", _)) => {
                let table = PostgresTable::open(location)?;
                (format!("postgres:{}", table.server()), Backend::Postgres(Box::new(table)))
            }
            other => return Err(unknown_database(other)),
        };
        let place = match &backend {
            Backend::Sqlite(_) => format!("{place} table {}", location.table),
            Backend::Postgres(table) => format!("{place} table {}", table.name()),
        };
        Ok(Self { place, backend })
    }

    /// The database and the table, for people and for comparison. No password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The names of all columns that the table has, those among them that were not asked for.
    #[must_use]
    pub fn column_names(&self) -> &[String] {
        match &self.backend {
            Backend::Sqlite(table) => &table.names,
            Backend::Postgres(table) => &table.names,
        }
    }

    /// What a column is made for.
    ///
    /// # Panics
    ///
    /// If there is no such column in [`Location::columns`].
    #[must_use]
    pub fn kind(&self, column: usize) -> ColumnKind {
        match &self.backend {
            Backend::Sqlite(table) => table.columns[column].kind,
            Backend::Postgres(table) => table.columns[column].kind,
        }
    }

    /// Whether a column is an array, which only PostgreSQL has.
    ///
    /// # Panics
    ///
    /// If there is no such column in [`Location::columns`].
    #[must_use]
    pub fn is_list(&self, column: usize) -> bool {
        match &self.backend {
            Backend::Sqlite(table) => table.columns[column].list,
            Backend::Postgres(table) => table.columns[column].list,
        }
    }

    /// Whether a column may be null.
    ///
    /// # Panics
    ///
    /// If there is no such column in [`Location::columns`].
    #[must_use]
    pub fn is_nullable(&self, column: usize) -> bool {
        match &self.backend {
            Backend::Sqlite(table) => table.columns[column].nullable,
            Backend::Postgres(table) => table.columns[column].nullable,
        }
    }

    /// The rows behind `after`, at most `limit`, in the order of the key. Fewer: the table ends there.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed, or a key is of another type than SQLite's integers, texts and blobs.
    pub fn page(&mut self, after: Option<&RowKey>, limit: usize, extent: Extent) -> Result<Vec<Row>> {
        let limit = limit.clamp(1, MAX_BATCH_ROWS);
        match &mut self.backend {
            Backend::Sqlite(table) => table.page(after, limit, extent),
            Backend::Postgres(table) => table.page(after, limit, extent),
        }
    }

    /// The rows with these keys, as wholes, in any order. Those that are gone are left out.
    ///
    /// # Errors
    ///
    /// As for [`page`](Self::page).
    pub fn rows(&mut self, keys: &[RowKey]) -> Result<Vec<Row>> {
        match &mut self.backend {
            Backend::Sqlite(table) => table.rows(keys),
            Backend::Postgres(table) => table.rows(keys),
        }
    }

    /// Makes all changes in one transaction, except those whose condition does not hold any more; says which were made.
    ///
    /// On disk when the call returns. If the database rolls it back because it was in the way of others, none was made.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed, and none was made. Where the connection breaks at the commit, they
    ///   may have been: read again.
    pub fn replace(&mut self, changes: &[Change<'_>]) -> Result<Vec<bool>> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        match &mut self.backend {
            Backend::Sqlite(table) => table.replace(changes),
            Backend::Postgres(table) => table.replace(changes),
        }
    }
}

const fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

fn no_such(what: &'static str, name: &str, location: &Location<'_>) -> Error {
    wrong(what).with_detail(format!("{name:?} in {}", location.table))
}

const NO_COLUMN: &str = "the table has no such column";
const NO_TABLE: &str = "the database has no such table";
const NOT_UNIQUE: &str = "the key is not unique by itself and never null: name a primary key of one column, or a column with a unique index that is NOT NULL";
const INHERITED: &str = "other tables inherit from the table, and its key is not unique over theirs: name them one by one, after ALTER TABLE … NO INHERIT";
const KEY_TYPE: &str = "the key is of a type that rows cannot be read by: it is an integer, text, uuid or bytea column";
