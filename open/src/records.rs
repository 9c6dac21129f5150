//! The key records of a keyring as a whole: journals, backups and restoring.

use crate::{Options, StoreUri, folder_of, open_high_water, open_journals, open_ring, open_store, read_with};
use keyfold::config::Config;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    CopyStatus, Error, ErrorKind, KeyState, KeyStore, Keyring, Lost, Record, RecordCopy, RestorePlan, Result,
    SeenElsewhere,
};
use keyfold_store::{BackupWriter, FileHighWater, Found, Journal, PostgresStore, SqliteStore, read_records};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records that are read from the store at once.
const PAGE: usize = 1000;

/// A keyring, and what its records are kept in.
pub struct Records {
    /// The keyring.
    pub ring: Keyring,
    /// Its configuration.
    pub config: Config,
    high_water: Option<Arc<FileHighWater>>,
    journals: Vec<Journal>,
}

impl Records {
    /// Opens the keyring of the configuration file `path`, with the fields of `policies` added. Calls no key service yet.
    ///
    /// # Errors
    ///
    /// As for [`open`](crate::open).
    pub fn open(path: &Path, policies: &[PathBuf], options: &Options) -> Result<Self> {
        let (config, digest) = read_with(path, policies, options)?;
        let store = open_store(&config.store, folder_of(path))?;
        Self::with(config, digest, folder_of(path), store, options)
    }

    /// As [`open`](Self::open), and makes the store if it is missing, without a key in it: the SQLite file, or the tables
    /// of a PostgreSQL store, which takes their owner's role.
    ///
    /// # Errors
    ///
    /// As for [`open`](crate::open), and those of making the store.
    pub fn open_or_create(path: &Path, options: &Options) -> Result<Self> {
        let (config, digest) = read_with(path, &[], options)?;
        let folder = folder_of(path);
        let store: Arc<dyn KeyStore> = match StoreUri::parse(&config.store)? {
            StoreUri::Sqlite(file) if !folder.join(file).exists() => Arc::new(SqliteStore::create(folder.join(file))?),
            StoreUri::Sqlite(file) => Arc::new(SqliteStore::open(folder.join(file))?),
            StoreUri::Postgres(uri) => Arc::new(PostgresStore::create(uri, folder)?),
        };
        Self::with(config, digest, folder, store, options)
    }

    fn with(
        config: Config,
        digest: Sha256,
        folder: &Path,
        store: Arc<dyn KeyStore>,
        options: &Options,
    ) -> Result<Self> {
        let high_water = open_high_water(&config, folder)?;
        let ring = open_ring(&config, digest, folder, store, high_water.clone(), options)?;
        let journals = open_journals(&config, folder)?;
        Ok(Self { ring, config, high_water, journals })
    }

    /// The journals that the configuration names.
    #[must_use]
    pub fn journals(&self) -> &[Journal] {
        &self.journals
    }

    /// Every record of the store, in ascending order of key ID. Nobody has vouched for them.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed. Those of `each`.
    pub async fn each_stored<E: From<Error>>(&self, mut each: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        let mut after = None;
        loop {
            let page = self.ring.stored(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key_id());
            page.into_iter().try_for_each(&mut each)?;
        }
    }

    /// Writes a backup of all records to `out`. Others may write meanwhile: each record is as it was at one moment of the
    /// backup, and the roots that records depend on are in it. Returns the output and the number of records.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed. [`Io`](ErrorKind::Io): the output did.
    pub async fn backup<W: Write>(&self, out: W) -> Result<(W, u64)> {
        let failed = |error| Error::new(ErrorKind::Io, "cannot write the backup").with_source(error);
        let mut writer = BackupWriter::new(out).map_err(failed)?;
        self.each_stored(|record| writer.add(&record).map_err(failed)).await?;
        writer.finish().map_err(failed)
    }

    /// Makes each journal that the configuration names and that is missing, from the store; adds to the others what other
    /// machines changed in the store, and writes them again without what is out of date. Returns whether each was made.
    ///
    /// Processes whose configuration does not name the journal yet must not change keys meanwhile.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the configuration names none. - Those of store and journals.
    pub async fn make_journals(&self) -> Result<Vec<(PathBuf, bool)>> {
        if self.journals.is_empty() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the configuration names no journal: add journal = \"file:FILE\" to [store], on another disk",
            ));
        }
        let mut made = Vec::new();
        for journal in &self.journals {
            let missing = !journal.exists();
            if missing {
                journal.create(self.all_stored()).await?
            } else {
                self.bring_up_to_date(journal).await?
            }
            made.push((journal.path().to_owned(), missing));
        }
        Ok(made)
    }

    /// Adds what the store has and the journal has not, or in an older form: another machine changed it, and has a journal of its
    /// own. Then takes out what is out of date, wraps that the other machine destroyed among it.
    async fn bring_up_to_date(&self, journal: &Journal) -> Result<()> {
        let mut known: BTreeMap<KeyId, Record> = BTreeMap::new();
        for RecordCopy { record, .. } in journal.read()?.copies.into_iter().filter(|c| c.status == CopyStatus::Stored) {
            let best = known.entry(record.key_id()).or_insert_with(|| record.clone());
            if record.outranks(best) {
                *best = record;
            }
        }
        let is_news = |record: &Record| known.get(&record.key_id()).is_none_or(|known| record.outranks(known));
        let mut news = self.all_stored().await?;
        news.retain(is_news);
        for page in news.chunks(PAGE) {
            journal.intend(page)?;
            journal.settle(page.iter().map(|record| (record, true)));
        }
        journal.compact()
    }

    /// Every record of the store. Nobody has vouched for them.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed.
    pub async fn all_stored(&self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        self.each_stored(|record| {
            all.push(record);
            Ok::<(), Error>(())
        })
        .await?;
        Ok(all)
    }

    /// Everything that the journals of the configuration and `files` hold, and the highest generation that they say was used.
    ///
    /// # Errors
    ///
    /// Those of reading one: none is passed over, since that could lose a key.
    pub fn copies(&self, files: &[PathBuf]) -> Result<(Vec<RecordCopy>, Generation)> {
        let (mut copies, mut given_out) = (Vec::new(), 0);
        let mut take = |found: Found| {
            copies.extend(found.copies);
            given_out = given_out.max(found.generations.get(&self.config.keyring.lineage).copied().unwrap_or(0));
        };
        for journal in &self.journals {
            if journal.exists() {
                take(journal.read()?);
            } else {
                tracing::warn!(journal = %journal.path().display(), "the journal is missing: what only it has is lost");
            }
        }
        for file in files {
            take(read_records(file)?);
        }
        Ok((copies, given_out))
    }

    /// Plans restoring the store from the journals of the configuration and `files`. `in_data` are key IDs that were found
    /// in data.
    ///
    /// # Errors
    ///
    /// As for [`copies`](Self::copies) and [`Keyring::plan_restore`].
    pub async fn plan(&self, files: &[PathBuf], in_data: BTreeSet<KeyId>) -> Result<RestorePlan> {
        let (generation, marks) = match &self.high_water {
            Some(file) => file.marks(self.config.keyring.lineage)?,
            None => (0, Vec::new()),
        };
        let (copies, given_out) = self.copies(files)?;
        self.ring.plan_restore(copies, &SeenElsewhere { generation, given_out, marks, in_data }).await
    }

    /// Carries a plan out. With a loss that is accepted, a new high-water file takes the place of the old one, which stays
    /// under the name that is returned.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): something is lost, and that is not accepted. Nothing was changed.
    /// - As for [`Keyring::restore`], and [`Io`](ErrorKind::Io) for the high-water file; repeat it then.
    pub async fn restore(&self, plan: &RestorePlan, accept_loss: bool) -> Result<Option<PathBuf>> {
        if !plan.lost.is_empty() && !accept_loss {
            return Err(Error::new(
                ErrorKind::PolicyRefused,
                "something would be lost: look for more backups and journals, or accept it (--accept-loss)",
            ));
        }
        self.ring.restore(plan).await?;
        let seen = plan.lost.iter().filter_map(|lost| match lost {
            Lost::Key(key_id, _) => Some((*key_id, None)),
            Lost::Newer(key_id, _, restored) => Some((*key_id, Some(*restored))),
            _ => None,
        });
        let seen: BTreeMap<_, _> = seen.collect();
        match &self.high_water {
            Some(file) if !seen.is_empty() => {
                let lower = |key_id, mark| seen.get(&key_id).copied().unwrap_or(Some(mark));
                file.start_over(self.config.keyring.lineage, lower).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Which of `key_ids` the keyring does not have, and the states of the others.
    ///
    /// # Errors
    ///
    /// Those of acquiring a key.
    pub async fn states_of(&self, key_ids: &BTreeSet<KeyId>) -> Result<BTreeMap<KeyId, Option<KeyState>>> {
        let found = self.ring.states_of(key_ids).await?;
        Ok(key_ids.iter().map(|key_id| (*key_id, found.get(key_id).copied())).collect())
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("ring", &self.ring).field("journals", &self.journals).finish_non_exhaustive()
    }
}
