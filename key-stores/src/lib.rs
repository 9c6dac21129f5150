//! Where keyfold keeps key records: [`MemoryStore`] for tests, [`SqliteStore`] embedded, `PostgresStore` (feature
//! `postgres`) for several machines; and [`FileHighWater`], which remembers outside the store how far a keyring has
//! come. [`JournaledStore`] has every record in a [`Journal`] before a store shows it.
//!
//! Key records are safe to keep in the open: they hold wrapped keys, and a keyring believes none without its root's
//! MAC. So a store guards availability and order, not secrecy: losing key records is losing data.
//!
//! Every store passes `keyfold::testing::store_conformance`; one that is added here calls it from its tests.
#![forbid(unsafe_code)]

pub mod files;
mod high_water;
mod journal;
mod journaled;
mod lines;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod row;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use high_water::FileHighWater;
pub use journal::{BackupWriter, Found, Journal, is_backup, parse_records, read_records};
pub use journaled::JournaledStore;
pub use memory::MemoryStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresStore, Settings as PostgresSettings};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
