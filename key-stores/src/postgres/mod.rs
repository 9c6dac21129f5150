//! The shared store: tables in a schema of a PostgreSQL database.

mod failure;
mod pool;
mod purge;
mod schema;
mod statements;
mod uri;

use arc_swap::ArcSwap;
use failure::Failure;
use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, KeyStore, Lineage, Record, RecordChange, Remainder, Result, Slot, SlotId};
use pool::Pool;
use purge::PURGES;
use sqlx::postgres::PgConnection;
use statements::{ADDS, ALLOCATES, READ, READ_SCOPE, REPLACES, RESTORES};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use uri::Settings;

/// How often an operation is tried that was rolled back because it was in another one's way.
const MAX_TRIES: u32 = 5;
/// How long a table may take to be rewritten.
const MAX_PURGE: Duration = Duration::from_secs(3600);

/// Keeps key records in a PostgreSQL database that several machines share (version 13 or later).
///
/// The URI is `postgres://USER@HOST[:PORT]/DATABASE?OPTIONS`; docs/POSTGRES.md lists the options. TLS verifies the
/// server's certificate and name unless the URI names something weaker. The password comes from `password_file`,
/// `PGPASSWORD`, a passfile (`PGPASSFILE` or `~/.pgpass`) or the URI.
///
/// Every operation, connecting included, ends within a deadline of 10 seconds (`deadline=SECONDS`). A change is on disk
/// when the call returns, and it is made whole or not at all, also where the future is dropped: the work then goes on to its
/// end. Where the connection breaks while a change is committed, the call fails and the change may have been made; read again.
/// Only a primary is used, for reading too: a standby may not know the newest keys. Connections that broke while idle
/// are replaced without an error.
///
/// Works under any executor: a thread of its own does the I/O. In a forked child the store makes a thread and connections
/// of its own, and neither uses nor closes those of the parent.
///
/// Nothing in the database is trusted: each row is read through its record, and a row that disagrees with its record is
/// an error.
pub struct PostgresStore {
    settings: Arc<Settings>,
    pool: ArcSwap<OwnPool>,
}

/// The connections of the process that made them.
struct OwnPool {
    process: u32,
    /// Taken only by `drop`.
    pool: Option<Arc<Pool>>,
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Closing in a forked child would end the parent's sessions; leaking does no harm.
            std::mem::forget(self.pool.take());
        }
    }
}

impl PostgresStore {
    /// Makes the tables where they are missing, brings older ones up to date, and opens the store. Several keyrings may
    /// share one. The paths in `uri` are relative to `folder`. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): the URI, or a file that it names.
    /// - [`Store`](keyfold::ErrorKind::Store): the database failed, the role may not make tables, or a newer version made
    ///   them. Nothing was changed.
    pub fn create(uri: &str, folder: &Path) -> Result<Self> {
        let store = Self::new(uri, folder)?;
        let settings = Arc::clone(&store.settings);
        store.prepare(schema::MIGRATE, move |connection| {
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                schema::migrate(connection, &settings).await?;
                schema::check(connection, &settings).await
            })
        })?;
        Ok(store)
    }

    /// Opens a store that [`create`](Self::create) made. Never changes the tables. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): the URI, or a file that it names.
    /// - [`Store`](keyfold::ErrorKind::Store): the database cannot be reached or failed; the tables are missing, or of another
    ///   version.
    pub fn open(uri: &str, folder: &Path) -> Result<Self> {
        let store = Self::new(uri, folder)?;
        let settings = Arc::clone(&store.settings);
        store.prepare(schema::READ_VERSION, move |connection| {
            let settings = Arc::clone(&settings);
            Box::pin(async move { schema::check(connection, &settings).await })
        })?;
        Ok(store)
    }

    /// As [`open`](Self::open), and does not reach the database yet: what is wrong with it, or with the version of its
    /// tables, is an error of the first operation or of none. For stores that are only asked in passing.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): the URI, or a file that it names.
    pub fn open_later(uri: &str, folder: &Path) -> Result<Self> {
        Self::new(uri, folder)
    }

    /// The files that `uri` names: certificates and the password. Does not look whether they exist.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](keyfold::ErrorKind::Configuration): it is not such a URI.
    pub fn files(uri: &str, folder: &Path) -> Result<Vec<PathBuf>> {
        uri::files(uri, folder)
    }

    fn new(uri: &str, folder: &Path) -> Result<Self> {
        let settings = Arc::new(Settings::parse(uri, folder)?);
        let pool = ArcSwap::from_pointee(OwnPool::new(&settings));
        Ok(Self { settings, pool })
    }

    fn pool(&self) -> Option<Arc<Pool>> {
        loop {
            let current = self.pool.load();
            if current.process == std::process::id() {
                return current.pool.clone();
            }
            self.pool.compare_and_swap(&current, Arc::new(OwnPool::new(&self.settings)));
        }
    }

    fn prepare(&self, needs: &'static str, work: impl Work<()>) -> Result<()> {
        keyfold_background::block(within_deadline(self.pool(), needs, work))
    }

    fn call<T: Send + 'static>(&self, needs: &'static str, work: impl Work<T>) -> BoxFuture<'_, Result<T>> {
        let pool = self.pool();
        Box::pin(keyfold_background::run(within_deadline(pool, needs, work)))
    }
}

impl OwnPool {
    fn new(settings: &Arc<Settings>) -> Self {
        Self { process: std::process::id(), pool: Some(Arc::new(Pool::new(Arc::clone(settings)))) }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresStore({})", self.settings)
    }
}

/// What is done with a connection; more than once if it was in the way of others.
trait Work<T>: Fn(&mut PgConnection) -> BoxFuture<'_, Result<T, Failure>> + Send + 'static {}

impl<T, F: Fn(&mut PgConnection) -> BoxFuture<'_, Result<T, Failure>> + Send + 'static> Work<T> for F {}

async fn within_deadline<T>(pool: Option<Arc<Pool>>, needs: &'static str, work: impl Work<T>) -> Result<T> {
    let deadline = pool.as_ref().map_or(Duration::ZERO, |pool| pool.settings.deadline);
    within(deadline, pool, needs, work).await
}

async fn within<T>(deadline: Duration, pool: Option<Arc<Pool>>, needs: &'static str, work: impl Work<T>) -> Result<T> {
    let pool = pool.ok_or(keyfold::ErrorKind::Closed)?;
    match tokio::time::timeout(deadline, attempt(&pool, work)).await {
        Ok(done) => done.map_err(|failure| failure.into_error(&pool.settings, needs)),
        Err(_) => Err(failure::no_answer(&pool.settings)),
    }
}

async fn attempt<T>(pool: &Pool, work: impl Work<T>) -> Result<T, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut taken = pool.take().await?;
        match work(&mut taken.connection).await {
            Err(error) if error.may_repeat() && tries < MAX_TRIES => {}
            Err(error @ Failure::Database(_)) => return Err(error),
            done => {
                pool.give_back(taken);
                return done;
            }
        }
    }
}

impl KeyStore for PostgresStore {
    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        self.call(READ, move |connection| Box::pin(statements::get(connection, lineage, key_id)))
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.call(READ, move |connection| Box::pin(statements::newest(connection, slot, limit)))
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        self.call(READ_SCOPE, move |connection| Box::pin(statements::scope_by_tag(connection, lineage, scope_tag)))
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        self.call(READ, move |connection| Box::pin(statements::list(connection, lineage, after, limit)))
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        self.call(ALLOCATES, move |connection| Box::pin(statements::allocate_generation(connection, lineage, above)))
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        let record = record.clone();
        self.call(ADDS, move |connection| {
            let record = record.clone();
            Box::pin(async move { statements::insert(connection, &record, expected_head).await })
        })
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        let record = record.clone();
        self.call(REPLACES, move |connection| {
            let record = record.clone();
            Box::pin(async move { statements::update(connection, &record, expected_sequence).await })
        })
    }

    /// One statement for all of them.
    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        let changes: Arc<[RecordChange]> = changes.into();
        self.call(REPLACES, move |connection| {
            let changes = Arc::clone(&changes);
            Box::pin(async move { statements::update_many(connection, &changes).await })
        })
    }

    /// Four statements for all of them.
    fn restore<'a>(&'a self, records: &'a [Record]) -> BoxFuture<'a, Result<()>> {
        let records: Arc<[Record]> = records.into();
        self.call(RESTORES, move |connection| {
            let records = Arc::clone(&records);
            Box::pin(async move { purge::restore(connection, &records).await })
        })
    }

    /// Needs the owner's role, and takes as long as it takes.
    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        let pending: Arc<[Remainder]> = pending.into();
        let within = within(MAX_PURGE, self.pool(), PURGES, move |connection| {
            let pending = Arc::clone(&pending);
            Box::pin(async move { purge::purge(connection, &pending).await })
        });
        Box::pin(keyfold_background::run(within))
    }

    /// The clock of the database.
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        self.call("no privilege", |connection| Box::pin(statements::now(connection)))
    }
}
