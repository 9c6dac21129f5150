//! Making and opening the file: its schema, its version, and how every connection is set up.

use super::{failed, store_error};
use crate::files;
use keyfold::{Error, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// "KFLD": tells a key store from other SQLite files.
const APPLICATION_ID: i32 = 0x4B46_4C44;
/// The version of [`SCHEMA`]. A change is a new version with a migration; older builds refuse it.
const SCHEMA_VERSION: i32 = 1;
/// How long a call waits for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The constraints repeat what the code checks, so that a mistake in it cannot be stored.
const SCHEMA: &str = "
CREATE TABLE counters (
    lineage    BLOB PRIMARY KEY NOT NULL CHECK (length(lineage) = 16),
    generation INTEGER NOT NULL CHECK (generation BETWEEN 1 AND 4294967295)
) STRICT, WITHOUT ROWID;

-- One scope per keyed name, for ever: rows outlive the keys of the scope.
CREATE TABLE scopes (
    lineage    BLOB NOT NULL CHECK (length(lineage) = 16),
    scope_tag  BLOB NOT NULL CHECK (length(scope_tag) = 32),
    slot       BLOB NOT NULL CHECK (length(slot) = 16),
    PRIMARY KEY (lineage, scope_tag),
    UNIQUE (lineage, scope_tag, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    lineage    BLOB NOT NULL CHECK (length(lineage) = 16),
    key_id     BLOB NOT NULL CHECK (length(key_id) = 24),
    class      INTEGER NOT NULL CHECK (class BETWEEN 1 AND 255),
    slot       BLOB NOT NULL CHECK (length(slot) = 16),
    generation INTEGER NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    scope_tag  BLOB CHECK (length(scope_tag) = 32),
    state      INTEGER NOT NULL CHECK (state BETWEEN 1 AND 255),
    sequence   INTEGER NOT NULL CHECK (sequence >= 0),
    record     BLOB NOT NULL CHECK (length(record) BETWEEN 1 AND 65536),
    PRIMARY KEY (lineage, key_id),
    FOREIGN KEY (lineage, scope_tag, slot) REFERENCES scopes (lineage, scope_tag, slot)
) STRICT;

CREATE INDEX records_by_slot ON records (lineage, class, slot, key_id);
";

/// Makes a store under a temporary name and gives it its name when it is complete.
pub(super) fn create(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let existing = files::with_suffix(path, suffix);
        if existing.symlink_metadata().is_ok() {
            // SQLite would replay the log of an earlier store into the new one.
            let message = if suffix.is_empty() { "the file exists" } else { "a file of an earlier key store is left" };
            return Err(store_error(message).with_detail(existing.display().to_string()));
        }
    }
    let temporary = Temporary::create(path)?;
    let mut connection = connect(&temporary.0)?;
    configure(&connection)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    transaction.execute_batch(SCHEMA).map_err(failed)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)?;
    transaction.commit().map_err(failed)?;
    // Moves the log into the file and makes it durable. Closing does so too, but does not say where it fails.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, error)| failed(error))?;
    std::fs::hard_link(&temporary.0, path).map_err(|error| cannot_create(path, error))?;
    drop(temporary);
    files::sync_folder(path).inspect_err(|_| remove(path)).map_err(|error| cannot_create(path, error))
}

/// Removes a store that nobody has used yet. Nothing more can be done about what cannot be removed.
pub(super) fn remove(path: &Path) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let _ = std::fs::remove_file(files::with_suffix(path, suffix));
    }
}

/// A file that is removed unless it has been given another name.
struct Temporary(PathBuf);

impl Temporary {
    fn create(path: &Path) -> Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = files::with_suffix(path, &format!(".{}-{number}.new", std::process::id()));
        // The mode is right from the first moment, and SQLite gives the same to its other files.
        files::create_new(&temporary).map_err(|error| cannot_create(path, error))?;
        Ok(Self(temporary))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn cannot_create(path: &Path, error: io::Error) -> Error {
    let message =
        if error.kind() == io::ErrorKind::AlreadyExists { "the file exists" } else { "cannot make the key store" };
    store_error(message).with_detail(format!("{}: {error}", path.display())).with_source(error)
}

/// Opens a store and checks that this build may use it before anything is changed.
pub(super) fn open(path: &Path) -> Result<Connection> {
    let about = |message| store_error(message).with_detail(path.display().to_string());
    // Looked at by name: a descriptor of our own must never be closed on a file that SQLite has open in this
    // process, since that releases SQLite's locks (sqlite.org/howtocorrupt.html §2.2).
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(about(
                "the key store is missing: restore it from a backup, since without it nothing that was sealed can be opened",
            ));
        }
        Err(error) => return Err(about("the key store cannot be opened").with_source(error)),
    };
    if found.is_symlink() {
        return Err(about("the key store must not be a symbolic link"));
    }
    if !found.is_file() {
        return Err(about("the key store must be a regular file"));
    }
    if found.len() == 0 {
        return Err(about("the file is empty, not a key store"));
    }
    let named = |error: Error| {
        let detail = format!("{}: {}", path.display(), error.detail());
        error.with_detail(detail)
    };
    let connection = connect(path).map_err(named)?;
    check_version(&connection).map_err(named)?;
    configure(&connection).map_err(named)?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection> {
    // The path is absolute, so SQLite does not take a name that starts with `file:` for a URI.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // Whoever can write the file could plant triggers and views in it; they are not ours and must not run.
    for (setting, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    ] {
        connection.set_db_config(setting, on).map_err(failed)?;
    }
    connection.pragma_update(None, "cell_size_check", true).map_err(failed)?;
    Ok(connection)
}

fn check_version(connection: &Connection) -> Result<()> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)).map_err(failed);
    if number("application_id")? != APPLICATION_ID {
        return Err(store_error("the file is an SQLite database, but not a key store"));
    }
    match number("user_version")? {
        SCHEMA_VERSION => Ok(()),
        newer if newer > SCHEMA_VERSION => {
            Err(store_error("the key store was written by a newer keyfold; use that version. It was not changed")
                .with_detail(format!("schema {newer}, this build knows {SCHEMA_VERSION}")))
        }
        other => Err(store_error("the key store is damaged: it has no valid schema version")
            .with_detail(format!("schema {other}"))),
    }
}

fn configure(connection: &Connection) -> Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(store_error("the file system of the key store cannot do WAL mode; use a local one"));
    }
    // fullfsync matters on macOS alone, where fsync does not reach the disk.
    for (pragma, value) in [
        ("synchronous", "full"),
        ("fullfsync", "on"),
        ("checkpoint_fullfsync", "on"),
        ("secure_delete", "on"),
        ("foreign_keys", "on"),
    ] {
        connection.execute_batch(&format!("PRAGMA {pragma} = {value}")).map_err(failed)?;
    }
    Ok(())
}
