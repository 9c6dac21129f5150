//! A connection to a PostgreSQL server: made when it is needed, closed after a failure, with errors that show no value.

use crate::name::quote;
use keyfold::{BoxFuture, Error, ErrorKind, Result};
use keyfold_store::PostgresSettings;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

pub(crate) struct Session {
    settings: PostgresSettings,
    /// `None` after a failure, until the next call connects again.
    connection: Option<PgConnection>,
    /// Where names are found that name no schema.
    pub(super) schema: String,
    /// The table, for messages.
    pub(super) place: String,
}

impl Session {
    /// Not connected yet.
    pub(crate) fn new(settings: PostgresSettings, place: &str) -> Self {
        let schema = settings.schema().to_owned();
        Self { settings, connection: None, schema, place: place.to_owned() }
    }

    pub(crate) fn server(&self) -> &str {
        self.settings.server()
    }

    /// Runs `work` within the deadline. A connection on which it failed is closed, which rolls back.
    pub(crate) fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut PgConnection) -> BoxFuture<'_, Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        let (connection, deadline) = (self.connection.take(), self.settings.deadline());
        let (options, schema) = (self.settings.options().clone(), self.schema.clone());
        let attempt = async move {
            let mut connection = match connection {
                Some(connection) => connection,
                None => connect(&options, &schema, deadline.as_millis()).await?,
            };
            let done = work(&mut connection).await?;
            Ok::<_, sqlx::Error>((connection, done))
        };
        let (connection, done) = keyfold_background::block(async move {
            Ok(match tokio::time::timeout(deadline, attempt).await {
                Ok(Ok((connection, done))) => (Some(connection), Ok(done)),
                Ok(Err(error)) => (None, Err(Failure::Database(error))),
                Err(_) => (None, Err(Failure::NoAnswer)),
            })
        })
        .map_err(Failure::Background)?;
        self.connection = connection;
        done
    }

    pub(crate) fn failed(&self, error: sqlx::Error) -> Error {
        self.error(Failure::Database(error))
    }

    pub(crate) fn error(&self, failure: Failure) -> Error {
        let store = |message| Error::new(ErrorKind::Store, message);
        let server = self.server();
        match failure {
            Failure::Background(error) => error,
            Failure::NoAnswer => {
                let seconds = self.settings.deadline().as_secs();
                let detail = format!(
                    "{server}: {seconds} s; deadline=SECONDS in its URI changes that, fewer rows at once may do"
                );
                store("the database of the table did not answer in time").with_detail(detail)
            }
            Failure::Database(sqlx::Error::Database(error)) => {
                let code = error.code().unwrap_or_default().into_owned();
                let (message, may_repeat) = meaning(&code);
                // What a statement, a constraint or a trigger says of a row may hold its values.
                let said = if may_repeat { format!(": {}", error.message()) } else { String::new() };
                store(message).with_detail(format!("{server}, {}{said} (SQLSTATE {code})", self.place))
            }
            Failure::Database(error @ (sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_))) => {
                store("the database of the table cannot be reached, or the connection broke")
                    .with_detail(format!("{server}: {error}"))
                    .with_source(error)
            }
            Failure::Database(_) => store("the database of the table failed").with_detail(server),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // Says goodbye on its own thread; the server notices either way.
            let _ = keyfold_background::block(async move {
                let _ = connection.close().await;
                Ok(())
            });
        }
    }
}

/// Connects, and sets the session up: commits are on disk when they return, dates have one spelling, names that the table's
/// triggers use are found in its schema. Where a policy would hide rows, a query is an error instead.
async fn connect(
    options: &sqlx::postgres::PgConnectOptions,
    schema: &str,
    limit: u128,
) -> Result<PgConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::query(
        "SELECT pg_catalog.set_config('search_path', $1, false), \
            pg_catalog.set_config('statement_timeout', $2, false), \
            pg_catalog.set_config('idle_in_transaction_session_timeout', $2, false), \
            pg_catalog.set_config('datestyle', 'ISO', false), \
            pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
            pg_catalog.set_config('row_security', 'off', false), \
            CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') \
                 THEN pg_catalog.set_config('synchronous_commit', 'on', false) END",
    )
    .bind(format!("pg_catalog, {}, pg_temp", quote(schema)))
    .bind(limit.to_string())
    .persistent(false)
    .execute(&mut connection)
    .await?;
    Ok(connection)
}

pub(crate) enum Failure {
    Database(sqlx::Error),
    NoAnswer,
    Background(Error),
}

/// SQLSTATE codes, from PostgreSQL's Appendix A.
pub(crate) const SERIALIZATION: &str = "40001";
pub(crate) const DEADLOCK: &str = "40P01";

/// What a code means, and whether the server's text names nothing but tables, columns, roles and the server itself.
fn meaning(code: &str) -> (&'static str, bool) {
    match code {
        "42501" => ("the database role lacks a privilege on the table", true),
        "25006" => ("the database is read only: a standby, or default_transaction_read_only", true),
        "28P01" | "28000" => ("the database refused the user or the password", true),
        "3D000" => ("the database does not exist", true),
        "53100" => ("the disk of the database is full", true),
        "57014" | "55P03" | "25P03" => ("the database of the table did not answer in time", true),
        "22001" => ("a sealed value is longer than the column allows: make the column TEXT or BYTEA", false),
        "23502" => ("the column may not be null: ALTER TABLE … ALTER COLUMN … DROP NOT NULL first", false),
        _ if code.starts_with("23") => ("a constraint of the table refuses a change", false),
        _ if code.starts_with("P0") => ("a trigger of the table refuses a change", false),
        _ if code.starts_with("57P") => ("the database is shutting down or starting", true),
        _ if code.starts_with("42") || code.starts_with("53") => ("the database of the table failed", true),
        _ => ("the database of the table failed", false),
    }
}
