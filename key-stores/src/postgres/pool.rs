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
