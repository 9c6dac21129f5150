//! Tables in PostgreSQL databases.

mod session;

pub(crate) use session::{DEADLOCK, Failure, SERIALIZATION, Session};

use crate::name::quote;
use crate::{
    Cell, Change, Column, ColumnKind, Extent, Guard, INHERITED, KEY_TYPE, Location, NO_COLUMN, NO_TABLE, NOT_UNIQUE,
    Row, RowKey, no_such, wrong,
};
use keyfold::Result;
use keyfold_store::PostgresSettings;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, Connection, Encode, Postgres, Row as _, Type};
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// The schema of a table that names none.
pub(crate) const SCHEMA: &str = "public";

pub(crate) struct PostgresTable {
    session: Session,
    schema: String,
    table: String,
    key: String,
    key_type: KeyType,
    pub(crate) columns: Vec<Column>,
    /// Their types, as SQL spells them.
    types: Vec<String>,
    /// The names of all columns that the table has.
    pub(crate) names: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum KeyType {
    Integer,
    Text,
    Uuid,
    Bytes,
}

/// A statement with its parameters, which lives as long as what runs it.
struct Statement {
    sql: String,
    arguments: Result<PgArguments, BoxDynError>,
}

impl Statement {
    fn new(sql: String) -> Self {
        Self { sql, arguments: Ok(PgArguments::default()) }
    }

    fn bind<'v, T: Encode<'v, Postgres> + Type<Postgres> + 'v>(mut self, value: T) -> Self {
        if let Ok(arguments) = &mut self.arguments
            && let Err(error) = arguments.add(value)
        {
            self.arguments = Err(error);
        }
        self
    }

    fn bind_keys<'k>(self, key_type: KeyType, keys: impl Iterator<Item = &'k RowKey>) -> Self {
        match key_type {
            KeyType::Integer => {
                let number = |key: &RowKey| if let RowKey::Integer(number) = key { Some(*number) } else { None };
                self.bind(keys.map(number).collect::<Vec<_>>())
            }
            KeyType::Text | KeyType::Uuid => {
                let text = |key: &RowKey| if let RowKey::Text(text) = key { Some(text.clone()) } else { None };
                self.bind(keys.map(text).collect::<Vec<_>>())
            }
            KeyType::Bytes => {
                let bytes = |key: &RowKey| if let RowKey::Bytes(bytes) = key { Some(bytes.clone()) } else { None };
                self.bind(keys.map(bytes).collect::<Vec<_>>())
            }
        }
    }

    fn bind_cells<'c>(self, binary: bool, cells: impl Iterator<Item = &'c Cell>) -> Self {
        if binary {
            return self.bind(cells.map(|cell| cell.as_bytes().map(<[u8]>::to_vec)).collect::<Vec<_>>());
        }
        let text = |cell: &Cell| cell.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.bind(cells.map(text).collect::<Vec<_>>())
    }

    async fn fetch(self, connection: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
        let arguments = self.arguments.map_err(sqlx::Error::Encode)?;
        sqlx::query_with(&self.sql, arguments).fetch_all(connection).await
    }
}

impl PostgresTable {
    pub(crate) fn open(location: &Location<'_>) -> Result<Self> {
        let settings = PostgresSettings::parse_with(location.uri, location.folder, SCHEMA)?;
        let mut table = Self {
            schema: location.table.schema.clone().unwrap_or_else(|| settings.schema().to_owned()),
            table: location.table.table.clone(),
            key: location.key.to_owned(),
            key_type: KeyType::Integer,
            columns: Vec::new(),
            types: Vec::new(),
            names: Vec::new(),
            session: Session::new(settings, &location.table.to_string()),
        };
        table.session.schema.clone_from(&table.schema);
        table.session.place = table.name();
        let described = table.describe()?;
        if described.is_empty() {
            return Err(wrong(NO_TABLE).with_detail(location.table.to_string()));
        }
        if described[0].inherited {
            return Err(no_such(INHERITED, &table.table, location));
        }
        let find = |name: &str| {
            let found = described.iter().find(|column| column.name == name);
            found.ok_or_else(|| no_such(NO_COLUMN, name, location))
        };
        let key = find(location.key)?;
        table.key_type = match key.base_type.as_str() {
            "int2" | "int4" | "int8" => KeyType::Integer,
            "text" | "varchar" => KeyType::Text,
            "uuid" => KeyType::Uuid,
            "bytea" => KeyType::Bytes,
            _ => return Err(no_such(KEY_TYPE, location.key, location)),
        };
        if !key.unique || !key.not_null {
            return Err(no_such(NOT_UNIQUE, location.key, location));
        }
        for name in location.columns {
            let column = find(name)?;
            let kind = match column.base_type.as_str() {
                "bytea" => ColumnKind::Binary,
                "text" | "varchar" => ColumnKind::Text,
                _ => ColumnKind::Other,
            };
            // The name of an array's type is that of its items' behind a `_`.
            let list = column.base_type.starts_with('_');
            table.columns.push(Column { name: name.clone(), kind, list, nullable: !column.not_null });
            table.types.push(column.sql_type.clone());
        }
        table.names = described.into_iter().map(|column| column.name).collect();
        Ok(table)
    }

    /// Tables of the schema and their columns.
    pub(crate) fn columns_of(uri: &str, folder: &Path) -> Result<Vec<(String, String)>> {
        let settings = PostgresSettings::parse_with(uri, folder, SCHEMA)?;
        let schema = settings.schema().to_owned();
        let mut session = Session::new(settings, "the tables");
        let sql = "SELECT c.relname::text, a.attname::text FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
            WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY c.relname, a.attnum";
        let query = Statement::new(sql.to_owned()).bind(schema);
        let done = session.run(move |connection| Box::pin(query.fetch(connection)));
        let rows = done.map_err(|failure| session.error(failure))?;
        let read = |row: &PgRow| -> Result<(String, String), sqlx::Error> { Ok((row.try_get(0)?, row.try_get(1)?)) };
        rows.iter().map(|row| read(row).map_err(|error| session.failed(error))).collect()
    }

    pub(crate) fn server(&self) -> &str {
        self.session.server()
    }

    /// The table with its schema, quoted.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }

    fn describe(&mut self) -> Result<Vec<Described>> {
        // Of an index with another collation than the column's, two keys may be one to the column.
        let sql = "SELECT a.attname::text, \
                coalesce(b.typname, t.typname)::text, a.attnotnull, \
                EXISTS (SELECT 1 FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid \
                    AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND i.indcollation[0] = a.attcollation), \
                c.relkind = 'r' AND EXISTS (SELECT 1 FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid), \
                pg_catalog.format_type(a.atttypid, a.atttypmod) \
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
            JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type b ON b.oid = t.typbasetype \
            WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";
        let query = Statement::new(sql.to_owned()).bind(self.schema.clone()).bind(self.table.clone());
        let rows = self.fetch(query)?;
        let read = |row: &PgRow| -> Result<Described, sqlx::Error> {
            Ok(Described {
                name: row.try_get(0)?,
                base_type: row.try_get(1)?,
                not_null: row.try_get(2)?,
                unique: row.try_get(3)?,
                inherited: row.try_get(4)?,
                sql_type: row.try_get(5)?,
            })
        };
        rows.iter().map(|row| read(row).map_err(|error| self.session.failed(error))).collect()
    }

    /// The key, told from a column of the answer that is named like it.
    fn key_column(&self) -> String {
        format!("t.{}", quote(&self.key))
    }

    fn select(&self, extent: Extent, condition: &str) -> String {
        let columns = self.columns.iter().map(|column| {
            let name = format!("t.{}", quote(&column.name));
            let whole = if column.kind == ColumnKind::Binary { name } else { format!("{name}::text") };
            match extent {
                Extent::Whole => format!(", {whole}"),
                Extent::Start(len) => format!(", pg_catalog.substring({whole}, 1, {len})"),
            }
        });
        let key = match self.key_type {
            KeyType::Integer => format!("{}::int8", self.key_column()),
            KeyType::Text | KeyType::Uuid => format!("{}::text", self.key_column()),
            KeyType::Bytes => self.key_column(),
        };
        format!("SELECT {key}, t.xmin::text{} FROM {} AS t {condition}", columns.collect::<String>(), self.name())
    }

    pub(crate) fn page(&mut self, after: Option<&RowKey>, limit: usize, extent: Extent) -> Result<Vec<Row>> {
        let key = self.key_column();
        let behind = match (after, self.key_type) {
            (None, _) => String::new(),
            (Some(_), KeyType::Uuid) => format!("WHERE {key} > $1::uuid"),
            (Some(_), _) => format!("WHERE {key} > $1"),
        };
        let sql = self.select(extent, &format!("{behind} ORDER BY {key} LIMIT {limit}"));
        let query = Statement::new(sql);
        let query = match after {
            None => query,
            Some(RowKey::Integer(number)) => query.bind(*number),
            Some(RowKey::Text(text)) => query.bind(text.clone()),
            Some(RowKey::Bytes(bytes)) => query.bind(bytes.clone()),
        };
        self.read(query)
    }

    pub(crate) fn rows(&mut self, keys: &[RowKey]) -> Result<Vec<Row>> {
        let cast = if matches!(self.key_type, KeyType::Uuid) { "::uuid[]" } else { "" };
        let sql = self.select(Extent::Whole, &format!("WHERE {} = ANY ($1{cast})", self.key_column()));
        let query = Statement::new(sql).bind_keys(self.key_type, keys.iter());
        self.read(query)
    }

    fn read(&mut self, query: Statement) -> Result<Vec<Row>> {
        let rows = self.fetch(query)?;
        rows.iter().map(|row| self.row(row).map_err(|error| self.session.failed(error))).collect()
    }

    fn row(&self, row: &PgRow) -> Result<Row, sqlx::Error> {
        let key = match self.key_type {
            KeyType::Integer => RowKey::Integer(row.try_get(0)?),
            KeyType::Text | KeyType::Uuid => RowKey::Text(row.try_get(0)?),
            KeyType::Bytes => RowKey::Bytes(row.try_get(0)?),
        };
        let cells = self.columns.iter().enumerate().map(|(at, column)| {
            Ok(match column.kind {
                ColumnKind::Binary => row
                    .try_get::<Option<Vec<u8>>, _>(at + 2)?
                    .map_or(Cell::Null, |bytes| Cell::Bytes(Zeroizing::new(bytes))),
                _ => row
                    .try_get::<Option<String>, _>(at + 2)?
                    .map_or(Cell::Null, |text| Cell::Text(Zeroizing::new(text))),
            })
        });
        Ok(Row { key, cells: cells.collect::<Result<_, sqlx::Error>>()?, version: Some(row.try_get(1)?) })
    }

    pub(crate) fn replace(&mut self, changes: &[Change<'_>]) -> Result<Vec<bool>> {
        let mut statements = Vec::new();
        for column in 0..self.columns.len() {
            for guard in [Guard::Column, Guard::Row] {
                let chosen: Vec<(usize, &Change<'_>)> = changes
                    .iter()
                    .enumerate()
                    .filter(|(_, change)| change.column == column && change.guard == guard)
                    .collect();
                if !chosen.is_empty() {
                    statements.push(self.update(column, guard, &chosen));
                }
            }
        }
        let done = self.session.run(move |connection| {
            Box::pin(async move {
                let mut transaction = connection.begin().await?;
                let mut made = Vec::new();
                for statement in statements {
                    for row in statement.fetch(&mut transaction).await? {
                        made.push(row.try_get::<i64, _>(0)?);
                    }
                }
                transaction.commit().await?;
                Ok(made)
            })
        });
        let mut made = vec![false; changes.len()];
        match done {
            Ok(indexes) => {
                for index in indexes {
                    if let Some(made) = usize::try_from(index).ok().and_then(|index| made.get_mut(index)) {
                        *made = true;
                    }
                }
                Ok(made)
            }
            // Rolled back, because it was in the way of others: the caller reads again.
            Err(Failure::Database(sqlx::Error::Database(error)))
                if matches!(error.code().as_deref(), Some(SERIALIZATION | DEADLOCK)) =>
            {
                Ok(made)
            }
            Err(failure) => Err(self.session.error(failure)),
        }
    }

    /// One statement for all changes of a column. Returns the indexes of those that it makes.
    fn update(&self, column: usize, guard: Guard, changes: &[(usize, &Change<'_>)]) -> Statement {
        let sql_type = &self.types[column];
        let (column, binary) = (&self.columns[column], self.columns[column].kind == ColumnKind::Binary);
        let (name, key) = (quote(&column.name), quote(&self.key));
        let values = if binary { "bytea[]" } else { "text[]" };
        let (keys, cast) = match self.key_type {
            KeyType::Integer => ("int8[]", ""),
            KeyType::Text => ("text[]", ""),
            KeyType::Uuid => ("text[]", "::uuid"),
            KeyType::Bytes => ("bytea[]", ""),
        };
        let (guards, condition) = match (guard, binary) {
            (Guard::Row, _) => ("text[]", "t.xmin::text = n.guard".to_owned()),
            (Guard::Column, true) => (values, format!("t.{name} IS NOT DISTINCT FROM n.guard")),
            // Byte by byte: by another collation, two sealed texts may be equal.
            (Guard::Column, false) => (values, format!("t.{name}::text COLLATE \"C\" IS NOT DISTINCT FROM n.guard")),
        };
        // A column of another type, such as one of numbers, takes what its texts spell.
        let new = match column.kind {
            ColumnKind::Other => format!("n.new::{sql_type}"),
            _ => "n.new".to_owned(),
        };
        let sql = format!(
            "UPDATE {} AS t SET {name} = {new} \
             FROM unnest($1::int8[], $2::{keys}, $3::{values}, $4::{guards}) AS n(i, key, new, guard) \
             WHERE t.{key} = n.key{cast} AND {condition} RETURNING n.i",
            self.name()
        );
        let indexes: Vec<i64> = changes.iter().map(|(index, _)| *index as i64).collect();
        let query = Statement::new(sql)
            .bind(indexes)
            .bind_keys(self.key_type, changes.iter().map(|(_, change)| &change.row.key))
            .bind_cells(binary, changes.iter().map(|(_, change)| &change.new));
        match guard {
            Guard::Row => query.bind(changes.iter().map(|(_, change)| change.row.version.clone()).collect::<Vec<_>>()),
            Guard::Column => {
                query.bind_cells(binary, changes.iter().map(|(_, change)| &change.row.cells[change.column]))
            }
        }
    }

    fn fetch(&mut self, query: Statement) -> Result<Vec<PgRow>> {
        let done = self.session.run(move |connection| Box::pin(query.fetch(connection)));
        done.map_err(|failure| self.session.error(failure))
    }
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresTable({}, {})", self.server(), self.name())
    }
}

struct Described {
    name: String,
    /// Of a domain, the type below it.
    base_type: String,
    not_null: bool,
    unique: bool,
    /// Whether other tables inherit from the table, with keys of their own.
    inherited: bool,
    /// As SQL spells it.
    sql_type: String,
}
