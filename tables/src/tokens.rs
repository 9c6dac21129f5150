//! Random tokens in the place of values, and the table that says which stands for which (DESIGN F22): codes that do not derive from the patient.

use crate::postgres::{Failure, SCHEMA, Session};
use crate::sqlite;
use crate::{TableName, wrong};
use keyfold::{Error, ErrorKind, Result};
use keyfold_store::PostgresSettings;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlx::Row as _;
use std::path::Path;

/// How often a token is drawn again that another value has already.
const MAX_DRAWS: u32 = 8;

/// What belongs together in a token table: values of different fields or partitions have tokens of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenSpace {
    /// The name of the field.
    pub field: String,
    /// The name of the partition: a study, a tenant.
    pub partition: String,
}

/// A table of tokens: `field`, `partition`, `token` and `value`, which is sealed deterministically, so that each value is there once. See
/// docs/LOOKUP.md for its SQL.
pub struct TokenTable(Backend);

enum Backend {
    Sqlite { connection: Connection, table: String },
    Postgres { session: Box<Session>, table: String },
}

impl TokenTable {
    /// Opens a token table: `sqlite:FILE`, or `postgres://USER@HOST/DATABASE?OPTIONS`; `folder` is what paths are relative to. Connects to PostgreSQL at
    /// the first call.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the URI.
    /// - [`Store`](ErrorKind::Store): the file cannot be opened.
    pub fn open(uri: &str, folder: &Path, table: &TableName) -> Result<Self> {
        let table_name = table.to_string();
        match uri.split_once(':') {
            Some(("sqlite", file)) => {
                let connection = sqlite::connect(&folder.join(file), crate::Access::Write)?;
                Ok(Self(Backend::Sqlite { connection, table: table_name }))
            }
            Some(("postgres" | "postgresql", _)) => {
                let settings = PostgresSettings::parse_with(uri, folder, SCHEMA)?;
                let session = Box::new(Session::new(settings, &table_name));
                Ok(Self(Backend::Postgres { session, table: table_name }))
            }
            // The rest of the URI may hold a password.
            _ => Err(wrong(
                "the database is not one that this build knows: sqlite:FILE or postgres://USER@HOST/DATABASE",
            )),
        }
    }

    /// The token of each value, made where there is none: however many writers ask at once, a value gets one. `values` are what each may look like
    /// when it is sealed, the form that is stored first; `draw` makes a random token.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed, or has no such table. Tokens that were made stay.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): every token that was drawn is taken: they are too short.
    /// - Those of `draw`.
    pub fn tokens(
        &mut self,
        space: &TokenSpace,
        values: &[Vec<Vec<u8>>],
        mut draw: impl FnMut() -> Result<String>,
    ) -> Result<Vec<String>> {
        let mut tokens: Vec<Option<String>> = vec![None; values.len()];
        for _ in 0..MAX_DRAWS {
            let missing: Vec<usize> = (0..values.len()).filter(|&at| tokens[at].is_none()).collect();
            if missing.is_empty() {
                break;
            }
            let wanted: Vec<(Vec<Vec<u8>>, String)> =
                missing.iter().map(|&at| Ok((values[at].clone(), draw()?))).collect::<Result<_>>()?;
            let found = match &mut self.0 {
                Backend::Sqlite { connection, table } => sqlite_tokens(connection, table, space, &wanted)?,
                Backend::Postgres { session, table } => postgres_tokens(session, table, space, wanted)?,
            };
            for (at, token) in missing.into_iter().zip(found) {
                tokens[at] = token;
            }
        }
        let taken = || Error::new(ErrorKind::LimitExceeded, "every token that was drawn is taken: make tokens longer");
        tokens.into_iter().map(|token| token.ok_or_else(taken)).collect()
    }

    /// The sealed value of each token; `None`: the table has no such token.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed, or has no such table.
    pub fn values(&mut self, space: &TokenSpace, tokens: &[&str]) -> Result<Vec<Option<Vec<u8>>>> {
        match &mut self.0 {
            Backend::Sqlite { connection, table } => {
                let sql = format!("SELECT value FROM {table} WHERE field = ?1 AND partition = ?2 AND token = ?3");
                let mut statement = connection.prepare_cached(&sql).map_err(sqlite::failed)?;
                let mut value = |token: &&str| {
                    let row = statement.query_row(params![space.field, space.partition, token], |row| row.get(0));
                    row.optional().map_err(sqlite::failed)
                };
                tokens.iter().map(&mut value).collect()
            }
            Backend::Postgres { session, table } => {
                let sql = format!(
                    "SELECT t.value FROM unnest($3::text[]) WITH ORDINALITY AS n(token, i) \
                     LEFT JOIN {table} AS t ON t.field = $1 AND t.partition = $2 AND t.token = n.token ORDER BY n.i"
                );
                let (space, tokens) =
                    (space.clone(), tokens.iter().map(|token| (*token).to_owned()).collect::<Vec<_>>());
                let done = session.run(move |connection| {
                    Box::pin(async move {
                        let query = sqlx::query(&sql).bind(space.field).bind(space.partition).bind(tokens);
                        let rows = query.fetch_all(connection).await?;
                        rows.iter().map(|row| row.try_get(0)).collect()
                    })
                });
                done.map_err(|failure: Failure| session.error(failure))
            }
        }
    }
}

impl std::fmt::Debug for TokenTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenTable")
    }
}

/// What there is of each value, or what was put there; `None` where the token that was drawn is another value's.
fn sqlite_tokens(
    connection: &mut Connection,
    table: &str,
    space: &TokenSpace,
    wanted: &[(Vec<Vec<u8>>, String)],
) -> Result<Vec<Option<String>>> {
    let find = format!("SELECT token FROM {table} WHERE field = ?1 AND partition = ?2 AND value = ?3");
    let insert =
        format!("INSERT INTO {table} (field, partition, token, value) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING");
    // Nobody else writes between looking and inserting.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite::failed)?;
    let mut tokens = Vec::with_capacity(wanted.len());
    for (forms, drawn) in wanted {
        let mut token = None;
        for form in forms {
            let mut statement = transaction.prepare_cached(&find).map_err(sqlite::failed)?;
            let found = statement.query_row(params![space.field, space.partition, form], |row| row.get(0));
            token = found.optional().map_err(sqlite::failed)?;
            if token.is_some() {
                break;
            }
        }
        if token.is_none() {
            let mut statement = transaction.prepare_cached(&insert).map_err(sqlite::failed)?;
            let made = statement.execute(params![space.field, space.partition, drawn, forms.first()]);
            token = (made.map_err(sqlite::failed)? == 1).then(|| drawn.clone());
        }
        tokens.push(token);
    }
    transaction.commit().map_err(sqlite::failed)?;
    Ok(tokens)
}

/// As [`sqlite_tokens`], in three statements however many values there are.
fn postgres_tokens(
    session: &mut Session,
    table: &str,
    space: &TokenSpace,
    wanted: Vec<(Vec<Vec<u8>>, String)>,
) -> Result<Vec<Option<String>>> {
    let find = format!(
        "SELECT n.i, t.token FROM unnest($3::int8[], $4::bytea[]) AS n(i, value) \
         JOIN {table} AS t ON t.field = $1 AND t.partition = $2 AND t.value = n.value"
    );
    let insert = format!(
        "INSERT INTO {table} (field, partition, token, value) SELECT $1, $2, n.token, n.value \
         FROM unnest($3::text[], $4::bytea[]) AS n(token, value) ORDER BY n.value ON CONFLICT DO NOTHING"
    );
    // A value that may look in several ways, while a key is replaced, has no constraint that it is there once: only one writer
    // at a time then.
    let lock = wanted.iter().any(|(forms, _)| forms.len() > 1);
    let lock = lock.then(|| format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"));
    let space = space.clone();
    let done = session.run(move |connection| {
        Box::pin(async move {
            use sqlx::Connection as _;
            let mut transaction = connection.begin().await?;
            if let Some(lock) = lock {
                sqlx::query(&lock).execute(&mut *transaction).await?;
            }
            let mut tokens: Vec<Option<String>> = vec![None; wanted.len()];
            for round in 0..2 {
                let (mut places, mut forms): (Vec<i64>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
                for (at, (all, _)) in wanted.iter().enumerate().filter(|(at, _)| tokens[*at].is_none()) {
                    places.extend(all.iter().map(|_| at as i64));
                    forms.extend(all.iter().cloned());
                }
                let query = sqlx::query(&find).bind(&space.field).bind(&space.partition).bind(places).bind(forms);
                for row in query.fetch_all(&mut *transaction).await? {
                    let at = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
                    if let Some(token) = tokens.get_mut(at) {
                        *token = Some(row.try_get(1)?);
                    }
                }
                let missing = || wanted.iter().zip(&tokens).filter(|(_, token)| token.is_none());
                if round == 1 || missing().next().is_none() {
                    break;
                }
                let drawn: Vec<String> = missing().map(|((_, drawn), _)| drawn.clone()).collect();
                let stored: Vec<Option<Vec<u8>>> = missing().map(|((forms, _), _)| forms.first().cloned()).collect();
                let query = sqlx::query(&insert).bind(&space.field).bind(&space.partition).bind(drawn).bind(stored);
                query.execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(tokens)
        })
    });
    done.map_err(|failure: Failure| session.error(failure))
}
