//! Keyrings that are only asked which keys their stores have, to say whose an unknown key is.

use crate::{StoreUri, folder_of, read_config};
use keyfold::{
    BoxFuture, Error, ErrorKind, KekAlias, KeyStore, Keyring, Kms, MemoryHighWater, Result, Secret, UnwrapRequest,
    WrapRequest, WrappedKey,
};
use keyfold_store::{PostgresStore, SqliteStore};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Opens the keyring of the configuration file `path` as a neighbour: it has no key service and no neighbours of its
/// own, and a store on a server is not reached before it is asked.
pub(crate) fn open(path: &Path) -> Result<Keyring> {
    let config = read_config(path, &[])?;
    let folder = folder_of(path);
    let store: Arc<dyn KeyStore> = match StoreUri::parse(&config.store)? {
        StoreUri::Sqlite(file) => Arc::new(SqliteStore::open(folder.join(file))?),
        StoreUri::Postgres(uri) => Arc::new(PostgresStore::open_later(uri, folder)?),
    };
    let keks: BTreeMap<KekAlias, Arc<dyn Kms>> = BTreeMap::from([(KekAlias::new("none")?, Arc::new(NoKms) as _)]);
    Keyring::open(config.keyring, store, keks, Arc::new(MemoryHighWater::default()))
}

/// Stands in place of the neighbour's key services, none of which is ours to call.
struct NoKms;

const NOT_OURS: Error = Error::new(ErrorKind::Internal, "a neighbour's keys are not opened");

impl Kms for NoKms {
    fn wrap<'a>(&'a self, _: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async { Err(NOT_OURS) })
    }

    fn unwrap<'a>(&'a self, _: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async { Err(NOT_OURS) })
    }
}
