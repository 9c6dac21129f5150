//! Keyrings that are only asked which keys their stores have, to say whose an unknown key is.

use crate::absent::Absent;
use crate::{StoreUri, folder_of, read_config};
use keyfold::{Error, ErrorKind, KekAlias, KeyStore, Keyring, Kms, MemoryHighWater, Result};
use keyfold_store::{PostgresStore, SqliteStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const NOT_OURS: Error = Error::new(ErrorKind::Internal, "a neighbour's keys are not opened");

/// Opens the keyring of the configuration file `path` as the neighbour `name`: it has no key service and no neighbours of its
/// own, and a store on a server is not reached before it is asked.
pub(crate) fn open(name: &str, path: &Path) -> Result<Keyring> {
    let mut config = read_config(path, &[])?;
    // By what the hint is to name it, and without what needs its KEKs.
    name.clone_into(&mut config.keyring.name);
    config.keyring.isolated.clear();
    config.keyring.scope_keks.clear();
    let folder = folder_of(path);
    let store: Arc<dyn KeyStore> = match StoreUri::parse(&config.store)? {
        StoreUri::Sqlite(file) => Arc::new(SqliteStore::open(folder.join(file))?),
        StoreUri::Postgres(uri) => Arc::new(PostgresStore::open_later(uri, folder)?),
    };
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> =
        BTreeMap::from([(KekAlias::new("none")?, Arc::new(Absent(NOT_OURS)) as _)]);
    Keyring::open(config.keyring, store, keks, Arc::new(MemoryHighWater::default()))
}
