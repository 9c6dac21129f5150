//! The table of tokens in SQLite and PostgreSQL.

use crate::postgres::{Failure, SCHEMA, Session};
use crate::sqlite;
use crate::{NO_TABLE, TableName, unknown_database, wrong};
use keyfold::Result;
use keyfold_store::PostgresSettings;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlx::Row as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const NO_COLUMN: &str = "the table of tokens lacks a column: make it as docs/LOOKUP.md says";
const NO_CONSTRAINT: &str = "the table of tokens does not keep a value from having two tokens, or a token two values: it needs UNIQUE (field, partition, value), and token as its \
     primary key";

/// What belongs together in a token table: values of different fields or partitions have tokens of their own.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) field: String,
    pub(super) partition: String,
}

/// A row that is added if its value has none.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    /// What the value may look like when it is sealed; stored in the first form.
    pub(super) forms: Vec<Vec<u8>>,
    pub(super) token: String,
    pub(super) proof: Vec<u8>,
}

/// A token, or the sealed value, and the proof beside it.
type Proven<T> = Option<(T, Vec<u8>)>;

/// A table of tokens: `field`, `partition`, `token`, `value`, which is sealed deterministically, so that each value is there once, and `proof`, which says that
/// they belong together. See docs/LOOKUP.md for its SQL, and [`Tokenizer`](super::Tokenizer) for what is done with it.
///
/// Shared freely between threads, one of which uses it at a time.
pub struct TokenTable(Mutex<State>);

struct State {
    backend: Backend,
    /// Quoted.
    table: String,
    name: TableName,
    /// Whether its columns and constraints were looked at.
    is_checked: bool,
}

enum Backend {
    Sqlite(Connection),
    Postgres(Box<Session>),
}

impl TokenTable {
    /// Opens a token table: `sqlite:FILE`, or `postgres://USER@HOST/DATABASE?OPTIONS`; `folder` is what paths are relative to. The table itself is looked at when
    /// it is first used; so is the server of PostgreSQL.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): the URI.
    /// - [`Store`](keyfold::ErrorKind::Store): the file cannot be opened.
    pub fn open(uri: &str, folder: &Path, table: &TableName) -> Result<Self> {
        let backend = match uri.split_once(':') {
            Some(("sqlite", file)) => Backend::Sqlite(sqlite::connect(&folder.join(file), crate::Access::Write)?),
            Some(("postgres" | "postgresql", _)) => {
                let settings = PostgresSettings::parse_with(uri, folder, SCHEMA)?;
                Backend::Postgres(Box::new(Session::new(settings, &table.to_string())))
            }
            other => return Err(unknown_database(other)),
        };
        let state = State { backend, table: table.to_string(), name: table.clone(), is_checked: false };
        Ok(Self(Mutex::new(state)))
    }

    /// The token of each value, or the one that was drawn for it; `None` where that is another value's. `space` says among which.
    pub(super) fn find_or_add(&self, space: &Space, drawn: Vec<Drawn>) -> Result<Vec<Proven<String>>> {
        self.run(|backend, table| match backend {
            Backend::Sqlite(connection) => sqlite_find_or_add(connection, table, space, &drawn),
            Backend::Postgres(session) => postgres_find_or_add(session, table, space, drawn),
        })
    }

    /// The sealed value of each token; `None`: the table has no such token.
    pub(super) fn find(&self, space: &Space, tokens: &[&str]) -> Result<Vec<Proven<Vec<u8>>>> {
        self.run(|backend, table| match backend {
            Backend::Sqlite(connection) => sqlite_find(connection, table, space, tokens),
            Backend::Postgres(session) => postgres_find(session, table, space, tokens),
        })
    }

    fn run<T>(&self, work: impl FnOnce(&mut Backend, &str) -> Result<T>) -> Result<T> {
        // What failed has left it as it was.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { backend, table, name, is_checked } = &mut *state;
        if !*is_checked {
            let (columns, unique) = match backend {
                Backend::Sqlite(connection) => sqlite_describe(connection, name)?,
                Backend::Postgres(session) => postgres_describe(session, table)?,
            };
            check(&columns, &unique).map_err(|error| error.with_detail(&*table))?;
            *is_checked = true;
        }
        work(backend, table)
    }
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenTable")
    }
}

/// Under two writers only the constraints of the table keep a value from getting two tokens.
fn check(columns: &[String], unique: &[Vec<String>]) -> Result<()> {
    if columns.is_empty() {
        return Err(wrong(NO_TABLE));
    }
    if !["field", "partition", "token", "value", "proof"].iter().all(|name| columns.iter().any(|column| column == name))
    {
        return Err(wrong(NO_COLUMN));
    }
    let is_once = |what: &str| {
        let of_it = |columns: &&Vec<String>| columns.iter().any(|column| column == what);
        let alone =
            |columns: &Vec<String>| columns.iter().all(|column| [what, "field", "partition"].contains(&&column[..]));
        unique.iter().filter(of_it).any(alone)
    };
    if is_once("value") && is_once("token") { Ok(()) } else { Err(wrong(NO_CONSTRAINT)) }
}

/// The columns of a table, and those of each unique index that holds for all rows.
type Described = (Vec<String>, Vec<Vec<String>>);

fn sqlite_describe(connection: &Connection, name: &TableName) -> Result<Described> {
    let schema = name.schema.as_deref().unwrap_or("main");
    let lists = |sql: &str| -> rusqlite::Result<Vec<String>> {
        let mut statement = connection.prepare(sql)?;
        statement.query_map([schema, &name.table], |row| row.get(0))?.collect()
    };
    let columns = lists("SELECT name FROM pragma_table_xinfo(?2, ?1)").map_err(sqlite::failed)?;
    // An expression has no name.
    let unique = lists(
        "SELECT group_concat(info.name, char(31)) FROM pragma_index_list(?2, ?1) AS list, pragma_index_info(list.name, ?1) AS info \
         WHERE list.\"unique\" AND NOT list.partial GROUP BY list.name HAVING count(*) = count(info.name)",
    );
    let unique = unique.map_err(sqlite::failed)?;
    Ok((columns, unique.iter().map(|names| names.split('\u{1f}').map(str::to_owned).collect()).collect()))
}

fn postgres_describe(session: &mut Session, table: &str) -> Result<Described> {
    let columns = "SELECT attname::text FROM pg_catalog.pg_attribute \
        WHERE attrelid = pg_catalog.to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let unique = "SELECT pg_catalog.array_agg(a.attname::text) FROM pg_catalog.pg_index i \
        CROSS JOIN LATERAL pg_catalog.unnest(i.indkey) WITH ORDINALITY AS k(number, place) \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
        WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate \
            AND i.indpred IS NULL AND i.indexprs IS NULL AND k.place <= i.indnkeyatts GROUP BY i.indexrelid";
    let table = table.to_owned();
    let done = session.run(move |connection| {
        Box::pin(async move {
            let columns = sqlx::query_scalar(columns).bind(&table).fetch_all(&mut *connection).await?;
            let unique = sqlx::query_scalar(unique).bind(&table).fetch_all(connection).await?;
            Ok((columns, unique))
        })
    });
    done.map_err(|failure: Failure| session.error(failure))
}

fn sqlite_find(connection: &Connection, table: &str, space: &Space, tokens: &[&str]) -> Result<Vec<Proven<Vec<u8>>>> {
    let sql = format!("SELECT value, proof FROM {table} WHERE field = ?1 AND partition = ?2 AND token = ?3");
    let mut statement = connection.prepare_cached(&sql).map_err(sqlite::failed)?;
    let value = |token: &&str| {
        let row = params![space.field, space.partition, token];
        statement.query_row(row, sqlite_row).optional().map_err(sqlite::failed)
    };
    tokens.iter().map(value).collect()
}

/// A token or value, and its proof: a row that lacks one has none that is right.
fn sqlite_row<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>) -> rusqlite::Result<(T, Vec<u8>)> {
    Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default()))
}

fn postgres_find(session: &mut Session, table: &str, space: &Space, tokens: &[&str]) -> Result<Vec<Proven<Vec<u8>>>> {
    let sql = format!(
        "SELECT t.value, t.proof FROM unnest($3::text[]) WITH ORDINALITY AS n(token, i) \
         LEFT JOIN {table} AS t ON t.field = $1 AND t.partition = $2 AND t.token = n.token ORDER BY n.i"
    );
    let (space, tokens) = (space.clone(), tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>());
    let done = session.run(move |connection| {
        Box::pin(async move {
            let query = sqlx::query(&sql).bind(space.field).bind(space.partition).bind(tokens);
            let rows = query.fetch_all(connection).await?;
            let read = |row: &sqlx::postgres::PgRow| -> Result<Proven<Vec<u8>>, sqlx::Error> {
                let value: Option<Vec<u8>> = row.try_get(0)?;
                let proof: Option<Vec<u8>> = row.try_get(1)?;
                Ok(value.map(|value| (value, proof.unwrap_or_default())))
            };
            rows.iter().map(read).collect()
        })
    });
    done.map_err(|failure: Failure| session.error(failure))
}

fn sqlite_find_or_add(
    connection: &mut Connection,
    table: &str,
    space: &Space,
    drawn: &[Drawn],
) -> Result<Vec<Proven<String>>> {
    let find = format!("SELECT token, proof FROM {table} WHERE field = ?1 AND partition = ?2 AND value = ?3");
    let insert = format!(
        "INSERT INTO {table} (field, partition, token, value, proof) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING"
    );
    // Nobody else writes between looking and inserting.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite::failed)?;
    let mut tokens = Vec::with_capacity(drawn.len());
    for Drawn { forms, token, proof } in drawn {
        let mut found = None;
        for form in forms {
            let mut statement = transaction.prepare_cached(&find).map_err(sqlite::failed)?;
            let row = params![space.field, space.partition, form];
            found = statement.query_row(row, sqlite_row).optional().map_err(sqlite::failed)?;
            if found.is_some() {
                break;
            }
        }
        if found.is_none() {
            let mut statement = transaction.prepare_cached(&insert).map_err(sqlite::failed)?;
            let made = statement.execute(params![space.field, space.partition, token, forms.first(), proof]);
            found = (made.map_err(sqlite::failed)? == 1).then(|| (token.clone(), proof.clone()));
        }
        tokens.push(found);
    }
    transaction.commit().map_err(sqlite::failed)?;
    Ok(tokens)
}

/// As [`sqlite_find_or_add`], in three statements however many values there are.
fn postgres_find_or_add(
    session: &mut Session,
    table: &str,
    space: &Space,
    drawn: Vec<Drawn>,
) -> Result<Vec<Proven<String>>> {
    let find = format!(
        "SELECT n.i, t.token, t.proof FROM unnest($3::int8[], $4::bytea[]) AS n(i, value) \
         JOIN {table} AS t ON t.field = $1 AND t.partition = $2 AND t.value = n.value"
    );
    let insert = format!(
        "INSERT INTO {table} (field, partition, token, value, proof) SELECT $1, $2, n.token, n.value, n.proof \
         FROM unnest($3::text[], $4::bytea[], $5::bytea[]) AS n(token, value, proof) ORDER BY n.value ON CONFLICT DO NOTHING"
    );
    // A value that may look in several ways, while a key is replaced, has no constraint that it is there once: only one writer
    // at a time then.
    let lock = drawn.iter().any(|drawn| drawn.forms.len() > 1);
    let lock = lock.then(|| format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"));
    let space = space.clone();
    let done = session.run(move |connection| {
        Box::pin(async move {
            use sqlx::Connection as _;
            let mut transaction = connection.begin().await?;
            if let Some(lock) = lock {
                sqlx::query(&lock).execute(&mut *transaction).await?;
            }
            let mut tokens: Vec<Proven<String>> = vec![None; drawn.len()];
            for round in 0..2 {
                let (mut places, mut forms): (Vec<i64>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
                for (at, drawn) in drawn.iter().enumerate().filter(|(at, _)| tokens[*at].is_none()) {
                    places.extend(drawn.forms.iter().map(|_| at as i64));
                    forms.extend(drawn.forms.iter().cloned());
                }
                let query = sqlx::query(&find).bind(&space.field).bind(&space.partition).bind(places).bind(forms);
                for row in query.fetch_all(&mut *transaction).await? {
                    let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
                    if let Some(token) = tokens.get_mut(at) {
                        let proof: Option<Vec<u8>> = row.try_get(2)?;
                        *token = Some((row.try_get(1)?, proof.unwrap_or_default()));
                    }
                }
                let missing: Vec<&Drawn> =
                    drawn.iter().zip(&tokens).filter(|(_, token)| token.is_none()).map(|(drawn, _)| drawn).collect();
                if round == 1 || missing.is_empty() {
                    break;
                }
                let column =
                    |of: fn(&Drawn) -> Option<Vec<u8>>| missing.iter().map(|drawn| of(drawn)).collect::<Vec<_>>();
                let query = sqlx::query(&insert)
                    .bind(&space.field)
                    .bind(&space.partition)
                    .bind(missing.iter().map(|drawn| drawn.token.clone()).collect::<Vec<_>>())
                    .bind(column(|drawn| drawn.forms.first().cloned()))
                    .bind(column(|drawn| Some(drawn.proof.clone())));
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(tokens)
        })
    });
    done.map_err(|failure: Failure| session.error(failure))
}
