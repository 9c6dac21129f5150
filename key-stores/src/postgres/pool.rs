//! Connections of one process, and how each is set up. A small stack rather than the driver's pool, which waits for the
//! whole deadline where a server refuses connections, and then does not say why.

use super::failure::Failure;
use super::uri::Settings;
use keyfold::{Error, ErrorKind};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A connection that was idle for longer is closed: firewalls forget it without telling.
const MAX_IDLE: Duration = Duration::from_secs(300);
/// The part of the deadline after which a connection that does not answer is given up for a new one.
const PING_SHARE: u32 = 4;

pub(super) struct Pool {
    pub(super) settings: Arc<Settings>,
    permits: Semaphore,
    idle: Mutex<Vec<(PgConnection, Instant)>>,
}

/// A connection in use. Dropped without [`Pool::give_back`] it is closed, and what it was doing is rolled back.
pub(super) struct Taken<'a> {
    pub(super) connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        let permits = Semaphore::new(settings.connection_count);
        Self { settings, permits, idle: Mutex::default() }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(PgConnection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that has just answered. The caller bounds the time that this takes.
    pub(super) async fn take(&self) -> Result<Taken<'_>, Failure> {
        let closed = |_| Error::new(ErrorKind::Internal, "the connections of the key store are closed");
        let permit = self.permits.acquire().await.map_err(closed)?;
        loop {
            let last = self.idle().pop();
            let Some((mut connection, since)) = last else { break };
            let patience = self.settings.deadline / PING_SHARE;
            if since.elapsed() < MAX_IDLE
                && matches!(tokio::time::timeout(patience, connection.ping()).await, Ok(Ok(())))
            {
                return Ok(Taken { connection, _permit: permit });
            }
        }
        Ok(Taken { connection: connect(&self.settings).await?, _permit: permit })
    }

    /// Keeps a connection that is good and outside a transaction.
    pub(super) fn give_back(&self, taken: Taken<'_>) {
        self.idle().push((taken.connection, Instant::now()));
    }
}

/// Connects to a primary and sets the session up.
///
/// The search path finds PostgreSQL's own functions first and temporary tables last, so that nobody can put his own in
/// their place. A commit is on disk when it returns, also where the role or the database has switched that off. The
/// server gives up when we do.
pub(super) async fn connect(settings: &Settings) -> Result<PgConnection, Failure> {
    let mut connection = PgConnectOptions::connect(&settings.options).await?;
    let limit = settings.deadline.as_millis().to_string();
    let row = sqlx::query(
        "SELECT pg_catalog.pg_is_in_recovery(), \
            pg_catalog.set_config('search_path', $1, false), \
            pg_catalog.set_config('statement_timeout', $2, false), \
            pg_catalog.set_config('idle_in_transaction_session_timeout', $2, false), \
            pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
            CASE WHEN pg_catalog.current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') \
                 THEN pg_catalog.set_config('synchronous_commit', 'on', false) END",
    )
    .bind(format!("pg_catalog, \"{}\", pg_temp", settings.schema))
    .bind(limit)
    .persistent(false)
    .fetch_one(&mut connection)
    .await?;
    if row.try_get::<bool, _>(0)? {
        let message = "the server is a standby, which may not know the newest keys: name the primary in the URI";
        return Err(Error::new(ErrorKind::Store, message).with_detail(settings.to_string()).into());
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_session_is_durable_and_finds_only_what_is_ours() {
        let Ok(uri) = std::env::var("KEYFOLD_TEST_POSTGRES") else {
            let _ = writeln!(
                std::io::stdout(),
                "\nSKIPPED {}: KEYFOLD_TEST_POSTGRES names no PostgreSQL server",
                std::thread::current().name().unwrap_or_default()
            );
            return;
        };
        let ca = std::env::var("KEYFOLD_TEST_POSTGRES_CA").expect("KEYFOLD_TEST_POSTGRES_CA names the CA");
        let parsed = Settings::parse(&format!("{uri}?schema=clinic&sslrootcert={ca}"), ".".as_ref());
        let mut settings = parsed.expect("a good URI");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // What a role or a database may have set; a stronger setting than ours stays.
        for (set, expected) in
            [("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")]
        {
            settings.options = settings.options.options([
                ("synchronous_commit", set),
                ("default_transaction_isolation", "serializable"),
                ("search_path", "public"),
            ]);
            runtime.block_on(async {
                let mut connection = connect(&settings).await.ok().expect("connected");
                for (name, expected) in [
                    ("synchronous_commit", expected),
                    ("default_transaction_isolation", "read committed"),
                    ("search_path", "pg_catalog, \"clinic\", pg_temp"),
                    ("statement_timeout", "10s"),
                    ("idle_in_transaction_session_timeout", "10s"),
                ] {
                    let query = sqlx::query("SELECT current_setting($1)").bind(name).fetch_one(&mut connection);
                    let found: String = query.await.expect("a setting").try_get(0).expect("a text");
                    assert_eq!(found, expected, "{name}");
                }
            });
        }
    }
}
