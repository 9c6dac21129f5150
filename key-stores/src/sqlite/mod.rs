//! The embedded store: one SQLite file in WAL mode.

mod purge;
mod row;
mod schema;

use crate::files;
use crate::memory::{NO_GENERATION_LEFT, conflict, machine_time, no_matching_key, not_replaced};
use crate::row::Columns;
use arc_swap::ArcSwap;
use keyfold::wire::{Generation, KeyId};
use keyfold::{BoxFuture, Error, ErrorKind, KeyStore, Lineage, Record, RecordChange, Remainder, Result, Slot, SlotId};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps key records in one SQLite file.
///
/// Several processes and threads may use one file at the same time. A change is on disk when the call returns
/// (`synchronous = FULL`); after a crash every change is there whole or not at all. What a change replaces is
/// overwritten (`secure_delete`). SQLite keeps two more files beside it while it is open, with `-wal` and `-shm`
/// added to the name; a backup is made with `sqlite3 FILE ".backup COPY"`, never by copying the file alone.
///
/// Nothing in the file is trusted: each row is read through its record, and a row that disagrees with its record is an error.
///
/// Calls block while another process writes, up to ten seconds. Local file systems only: WAL mode does not work over
/// a network. A store survives `fork` only if every store of the same file was [released](KeyStore::release) before: otherwise each
/// call in the child fails, and so does not damage the file. If the file is deleted or replaced, every call fails: open it again.
///
/// # Examples
///
/// ```
/// use keyfold_store::SqliteStore;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("keys.db");
/// let store = SqliteStore::create(&path)?;
/// let second = SqliteStore::open(&path)?;
/// assert!(SqliteStore::create(&path).is_err());
/// # Ok::<(), keyfold::Error>(())
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// Device and inode of the file that was opened.
    identity: (u64, u64),
    /// Replaced in a forked child, where another thread of the parent may have left the lock locked for ever.
    own: ArcSwap<Own>,
}

/// The connection of one process. SQLite connections must not be used, nor closed, after a fork; and none may be made
/// in the child while the parent's is open, since SQLite takes the parent's locks for its own.
#[derive(Debug)]
struct Own {
    process: u32,
    /// Whether there is no connection. Becomes false before one is made.
    released: AtomicBool,
    connection: Mutex<Option<Connection>>,
}

impl Own {
    fn new(connection: Option<Connection>) -> Self {
        let released = AtomicBool::new(connection.is_none());
        Self { process: std::process::id(), released, connection: Mutex::new(connection) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        // A panic in a transaction drops it, which rolls it back, so a poisoned lock is still good.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqliteStore {
    /// Makes an empty store, readable by its owner alone (mode 0600), and opens it.
    ///
    /// The file appears under its name complete: after a crash there is a store or none.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the file exists, or `-wal`, `-shm` or `-journal` files of an earlier store do; the folder
    ///   is missing or cannot be written; the file system cannot do WAL mode. Of what was made nothing is left.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = resolved(path.as_ref())?;
        schema::create(&path)?;
        Self::open(&path).inspect_err(|_| schema::remove(&path))
    }

    /// Opens the store that [`create`](Self::create) made.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the file is missing, a symbolic link, not a regular file, not a key store, damaged, or
    ///   written by a newer version. It was not changed.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = resolved(path.as_ref())?;
        let connection = schema::open(&path)?;
        let identity = identity(&path).ok_or_else(|| replaced(&path))?;
        Ok(Self { path, identity, own: ArcSwap::from_pointee(Own::new(Some(connection))) })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What this process works with.
    fn own(&self) -> Result<Arc<Own>> {
        loop {
            let own = self.own.load_full();
            if own.process == std::process::id() {
                return Ok(own);
            }
            if !own.released.load(Ordering::Acquire) {
                return Err(store_error(
                    "the key store was open when this process was forked; release it before, or open it in the child",
                ));
            }
            self.own.compare_and_swap(&own, Arc::new(Own::new(None)));
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> Result<T>) -> Result<T> {
        let own = self.own()?;
        // A file that was deleted or replaced would still take changes, and lose them.
        if identity(&self.path) != Some(self.identity) {
            return Err(replaced(&self.path));
        }
        let mut connection = own.lock();
        let connection = match &mut *connection {
            Some(connection) => connection,
            none => {
                own.released.store(false, Ordering::Release);
                none.insert(schema::open(&self.path)?)
            }
        };
        f(connection)
    }

    /// Runs `f` with the write lock held from the start, so that what it reads cannot change before it writes.
    fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.with(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let done = f(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        })
    }

    fn records(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Record>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let mut rows = statement.query(params).map_err(failed)?;
            let mut records = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                records.push(row::read(row)?);
            }
            Ok(records)
        })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Closing in a forked child could delete the log that the parent is writing; leaking does no harm.
            let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(connection.take());
        }
    }
}

const HEAD: &str =
    "SELECT key_id FROM records WHERE lineage = ?1 AND class = ?2 AND slot = ?3 ORDER BY key_id DESC LIMIT 1";
const STORED: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                      WHERE lineage = ?1 AND key_id = ?2";
const NEWEST: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                      WHERE lineage = ?1 AND class = ?2 AND slot = ?3 ORDER BY key_id DESC LIMIT ?4";
const LIST: &str = "SELECT lineage, key_id, class, slot, generation, scope_tag, state, sequence, record FROM records \
                    WHERE lineage = ?1 AND key_id > ?2 ORDER BY key_id LIMIT ?3";
const SCOPE: &str = "SELECT slot FROM scopes WHERE lineage = ?1 AND scope_tag = ?2";

fn insert(transaction: &Transaction<'_>, record: &Record, expected_head: Option<KeyId>) -> Result<()> {
    let columns = Columns::of(record)?;
    let head: Option<[u8; KeyId::LEN]> = transaction
        .prepare_cached(HEAD)
        .and_then(|mut s| {
            s.query_row(params![columns.lineage, columns.class, columns.slot], |row| row.get(0)).optional()
        })
        .map_err(failed)?;
    if head.map(KeyId::from_bytes) != expected_head {
        return Err(conflict("the newest key is not the expected one", record));
    }
    if stored(transaction, record)?.is_some() {
        return Err(conflict("the key ID exists", record));
    }
    add(transaction, &columns, record)
}

/// Adds a record of a key that is not there.
fn add(transaction: &Transaction<'_>, columns: &Columns, record: &Record) -> Result<()> {
    if let Some(tag) = columns.scope_tag {
        match scope_by_tag(transaction, record.lineage(), tag)? {
            Some(scope) if scope != record.slot_id() => {
                return Err(conflict("the scope tag belongs to another scope", record));
            }
            Some(_) => {}
            None => {
                let sql = "INSERT INTO scopes (lineage, scope_tag, slot) VALUES (?1, ?2, ?3)";
                transaction.execute(sql, params![columns.lineage, tag, columns.slot]).map_err(failed)?;
            }
        }
    }
    columns.insert(transaction, record).map_err(failed)
}

/// Puts a record back, unless the stored one of the same key is as good.
fn restore_one(transaction: &Transaction<'_>, record: &Record) -> Result<()> {
    match stored(transaction, record)? {
        None => add(transaction, &Columns::of(record)?, record),
        Some(present) if record.outranks(&present) => update(transaction, record, present.sequence()),
        Some(_) => Ok(()),
    }
}

fn update(transaction: &Transaction<'_>, record: &Record, expected_sequence: u64) -> Result<()> {
    let columns = Columns::of(record)?;
    let stored = stored(transaction, record)?.ok_or_else(|| no_matching_key(record))?;
    if stored.sequence() != expected_sequence {
        return Err(conflict("the record has changed", record));
    }
    if (stored.slot(), stored.scope_tag()) != (record.slot(), record.scope_tag()) {
        return Err(conflict("the key belongs to another class or scope", record));
    }
    columns.update(transaction, record).map_err(failed)
}

fn stored(connection: &Connection, record: &Record) -> Result<Option<Record>> {
    let mut statement = connection.prepare_cached(STORED).map_err(failed)?;
    let mut rows = statement.query(params![record.lineage().as_bytes(), record.key_id().as_bytes()]).map_err(failed)?;
    rows.next().map_err(failed)?.map(row::read).transpose()
}

fn scope_by_tag(connection: &Connection, lineage: Lineage, tag: [u8; 32]) -> Result<Option<SlotId>> {
    let slot: Option<[u8; SlotId::LEN]> = connection
        .prepare_cached(SCOPE)
        .and_then(|mut s| s.query_row(params![lineage.as_bytes(), tag], |row| row.get(0)).optional())
        .map_err(failed)?;
    Ok(slot.map(SlotId::from_bytes))
}

fn allocate_generation(transaction: &Transaction<'_>, lineage: Lineage, above: Generation) -> Result<Generation> {
    let counter: Option<Generation> = transaction
        .query_row("SELECT generation FROM counters WHERE lineage = ?1", [lineage.as_bytes()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    // A key ID starts with its generation, so the greatest key ID has the greatest generation.
    let newest: Option<[u8; KeyId::LEN]> = transaction
        .query_row("SELECT max(key_id) FROM records WHERE lineage = ?1", [lineage.as_bytes()], |row| row.get(0))
        .map_err(failed)?;
    let in_records = newest.map_or(0, |key_id| KeyId::from_bytes(key_id).generation());
    let used = counter.unwrap_or(0).max(above).max(in_records);
    let next = used.checked_add(1).ok_or(NO_GENERATION_LEFT)?;
    let sql = "INSERT INTO counters (lineage, generation) VALUES (?1, ?2) \
               ON CONFLICT (lineage) DO UPDATE SET generation = excluded.generation";
    transaction.execute(sql, params![lineage.as_bytes(), next]).map_err(failed)?;
    Ok(next)
}

impl KeyStore for SqliteStore {
    fn release(&self) {
        let own = self.own.load_full();
        if own.process == std::process::id() {
            let mut connection = own.lock();
            drop(connection.take());
            own.released.store(true, Ordering::Release);
        }
    }

    fn get(&self, lineage: Lineage, key_id: KeyId) -> BoxFuture<'_, Result<Option<Record>>> {
        Box::pin(async move {
            let records = self.records(STORED, params![lineage.as_bytes(), key_id.as_bytes()])?;
            Ok(records.into_iter().next())
        })
    }

    fn newest(&self, slot: Slot, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        Box::pin(async move {
            let params = params![slot.lineage.as_bytes(), slot.class.id(), slot.id.as_bytes(), clamped(limit)];
            self.records(NEWEST, params)
        })
    }

    fn scope_by_tag(&self, lineage: Lineage, scope_tag: [u8; 32]) -> BoxFuture<'_, Result<Option<SlotId>>> {
        Box::pin(async move { self.with(|connection| scope_by_tag(connection, lineage, scope_tag)) })
    }

    fn list(&self, lineage: Lineage, after: Option<KeyId>, limit: usize) -> BoxFuture<'_, Result<Vec<Record>>> {
        // Every key ID is greater than no bytes at all.
        let after = after.map_or(Vec::new(), |key_id| key_id.as_bytes().to_vec());
        Box::pin(async move { self.records(LIST, params![lineage.as_bytes(), after, clamped(limit)]) })
    }

    fn allocate_generation(&self, lineage: Lineage, above: Generation) -> BoxFuture<'_, Result<Generation>> {
        Box::pin(async move { self.write(|transaction| allocate_generation(transaction, lineage, above)) })
    }

    fn insert<'a>(&'a self, record: &'a Record, expected_head: Option<KeyId>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.write(|transaction| insert(transaction, record, expected_head)) })
    }

    fn update<'a>(&'a self, record: &'a Record, expected_sequence: u64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.write(|transaction| update(transaction, record, expected_sequence)) })
    }

    fn update_many<'a>(&'a self, changes: &'a [RecordChange]) -> BoxFuture<'a, Result<Vec<KeyId>>> {
        Box::pin(async move {
            self.write(|transaction| {
                not_replaced(changes, |change| update(transaction, &change.record, change.expected_sequence))
            })
        })
    }

    /// In one transaction.
    fn restore<'a>(&'a self, records: &'a [Record]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.restore_all(records) })
    }

    fn purge<'a>(&'a self, pending: &'a [Remainder]) -> BoxFuture<'a, Result<Vec<Remainder>>> {
        Box::pin(async move { self.purge_all(pending) })
    }

    fn places(&self) -> Vec<String> {
        purge::PLACES.map(str::to_owned).into()
    }

    /// The clock of this machine.
    fn now(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move { machine_time() })
    }
}

fn clamped(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn replaced(path: &Path) -> Error {
    store_error("the key store was deleted or replaced while it was open: stop every process before restoring one")
        .with_detail(path.display().to_string())
}

fn resolved(path: &Path) -> Result<PathBuf> {
    files::resolve(path).map_err(|error| {
        store_error("the folder of the key store cannot be used")
            .with_detail(format!("{}: {error}", path.display()))
            .with_source(error)
    })
}

const fn store_error(message: &'static str) -> Error {
    Error::new(ErrorKind::Store, message)
}

/// Sorts what SQLite says. Its own words name tables and files, never what is in them.
fn failed(error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => "the key store is damaged; restore it from a backup or the journal",
        Some(ErrorCode::NotADatabase) => "the file is not a key store",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has locked the key store for too long"
        }
        Some(ErrorCode::DiskFull) => "the disk of the key store is full",
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => "the key store cannot be written",
        Some(ErrorCode::CannotOpen) => "the key store cannot be opened",
        Some(ErrorCode::SystemIoFailure) => {
            "the key store failed (is the disk full, or a limit such as `ulimit -f` reached?)"
        }
        _ => "the key store failed",
    };
    // Of an I/O error the number alone says which call it was.
    let detail = match error.sqlite_error() {
        Some(code) if code.code == ErrorCode::SystemIoFailure => {
            format!("{error}, code {} of SQLite", code.extended_code)
        }
        _ => error.to_string(),
    };
    store_error(message).with_detail(detail).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::testing::block_on;

    /// Makes `store` what a forked child finds.
    fn fork(store: &SqliteStore) {
        let parents = store.own.load_full();
        let childs = Own {
            process: std::process::id() ^ 1,
            released: AtomicBool::new(parents.released.load(Ordering::Acquire)),
            connection: Mutex::new(parents.lock().take()),
        };
        store.own.store(Arc::new(childs));
    }

    #[test]
    fn a_forked_child_neither_uses_nor_closes_the_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.db");
        let store = SqliteStore::create(&path).expect("created");
        let lineage = Lineage::from_bytes([1; 16]);
        assert_eq!(block_on(store.allocate_generation(lineage, 0)).expect("works"), 1);
        fork(&store);
        let error = block_on(store.allocate_generation(lineage, 0)).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(error.to_string().contains("forked"), "{error}");
        drop(store);
        assert!(files::with_suffix(&path, "-wal").exists(), "the child closed the connection");
    }

    #[test]
    fn a_forked_child_opens_what_was_released() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.db");
        let store = SqliteStore::create(&path).expect("created");
        let lineage = Lineage::from_bytes([1; 16]);
        assert_eq!(block_on(store.allocate_generation(lineage, 0)).expect("works"), 1);
        store.release();
        assert!(!files::with_suffix(&path, "-wal").exists(), "the connection is open");
        fork(&store);
        assert_eq!(block_on(store.allocate_generation(lineage, 0)).expect("works"), 2);
        fork(&store);
        block_on(store.allocate_generation(lineage, 0)).expect_err("open when it was forked again");
    }

    #[test]
    fn the_connection_is_durable_and_distrusts_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::create(folder.path().join("keys.db")).expect("created");
        let pragma = |name: &str| {
            store.with(|c| {
                c.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).map_err(failed)
            })
        };
        use rusqlite::types::Value::{Integer, Text};
        let expected = [
            ("journal_mode", Text("wal".to_owned())),
            ("synchronous", Integer(2)),
            ("secure_delete", Integer(1)),
            ("foreign_keys", Integer(1)),
            ("busy_timeout", Integer(10_000)),
            ("trusted_schema", Integer(0)),
            ("cell_size_check", Integer(1)),
        ];
        for (name, value) in expected {
            assert_eq!(pragma(name).expect("a value"), value, "{name}");
        }
    }
}
