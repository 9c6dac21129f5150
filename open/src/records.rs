//! The key records of a keyring as a whole: journals, backups and restoring.

use crate::marks::Marks;
use crate::{
    Options, StoreUri, folder_of, journal_file, open_high_water, open_journals, open_ring, open_store, read_with,
};
use keyfold::config::Config;
use keyfold::wire::{Generation, KeyId};
use keyfold::{
    CopyStatus, Error, ErrorKind, HighWater, KekAlias, KeyState, KeyStore, Keyring, Lost, Record, RecordCopy,
    RestorePlan, Result, SeenElsewhere,
};
use keyfold_store::{
    BackupWriter, FileHighWater, Found, Journal, MemoryStore, PostgresStore, SqliteStore, read_records,
};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
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
    store_is_missing: bool,
}

/// What journals and backups hold, of this keyring and of others.
#[derive(Clone, Debug, Default)]
pub struct Copies {
    /// The records.
    pub copies: Vec<RecordCopy>,
    /// The highest generation of this keyring that a journal says was given out.
    pub given_out: Generation,
    /// Files with records of other keyrings, and how many.
    pub foreign: Vec<(PathBuf, usize)>,
}

/// What whoever restores agrees to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepted {
    /// What is lost.
    pub loss: bool,
    /// That keys are destroyed of which it is not certain that they were.
    pub destruction: bool,
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

    /// As [`open`](Self::open), to plan a restore: an empty store in memory takes the place of a SQLite file that is missing, and
    /// with `make_store` that of a database that cannot be used, with a warning.
    ///
    /// # Errors
    ///
    /// As for [`open`](crate::open).
    pub fn open_to_plan(path: &Path, options: &Options, make_store: bool) -> Result<Self> {
        let (config, digest) = read_with(path, &[], options)?;
        let folder = folder_of(path);
        let missing = match StoreUri::parse(&config.store)? {
            StoreUri::Sqlite(file) => folder.join(file).symlink_metadata().is_err(),
            StoreUri::Postgres(_) => false,
        };
        let opened = if missing { None } else { Some(open_store(&config.store, folder)) };
        let store: Option<Arc<dyn KeyStore>> = match opened {
            None => None,
            Some(Err(error)) if make_store && matches!(StoreUri::parse(&config.store)?, StoreUri::Postgres(_)) => {
                tracing::warn!(%error, "the key store cannot be used: what is planned is for an empty one");
                None
            }
            Some(opened) => Some(opened?),
        };
        let store_is_missing = store.is_none();
        let store = store.unwrap_or_else(|| Arc::new(MemoryStore::new()));
        Ok(Self { store_is_missing, ..Self::with(config, digest, folder, store, options)? })
    }

    /// Whether there is an empty store in memory in the place of the one that the configuration names.
    #[must_use]
    pub fn store_is_missing(&self) -> bool {
        self.store_is_missing
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
        let marks = high_water.clone().map(|file| file as Arc<dyn HighWater>);
        let ring = open_ring(&config, digest, folder, store, marks, options)?;
        let journals = open_journals(&config, folder)?;
        Ok(Self { ring, config, high_water, journals, store_is_missing: false })
    }

    /// The journals that the configuration names.
    #[must_use]
    pub fn journals(&self) -> &[Journal] {
        &self.journals
    }

    /// What this machine has seen of the keyring. To hold the store against it, read the store afterwards.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io), [`Malformed`](ErrorKind::Malformed): the high-water file cannot be read, or is damaged.
    pub fn marks(&self) -> Result<Marks> {
        Marks::of(self.high_water.as_deref(), self.config.keyring.lineage)
    }

    /// Every record of the store, in ascending order of key ID. Nobody has vouched for them.
    ///
    /// # Errors
    ///
    /// - [`Store`](ErrorKind::Store): the database failed. Those of `each`.
    pub async fn each_stored<E: From<Error>>(&self, each: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        each_stored(&self.ring, each).await
    }

    /// Writes a [`backup`] of all records to `out`.
    ///
    /// # Errors
    ///
    /// As for [`backup`].
    pub async fn backup<W: Write>(&self, out: W) -> Result<(W, u64)> {
        backup(&self.ring, out).await
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

    /// Everything that the journals of the configuration and `files` hold.
    ///
    /// # Errors
    ///
    /// - [`RecordRejected`](ErrorKind::RecordRejected): one of `files` has no record of this keyring.
    /// - Those of reading one: none is passed over, since that could lose a key.
    pub fn copies(&self, files: &[PathBuf]) -> Result<Copies> {
        let lineage = self.config.keyring.lineage;
        let mut all = Copies::default();
        let mut take = |path: &Path, found: Found| {
            let len = found.copies.len();
            let ours = all.copies.len();
            all.copies.extend(found.copies.into_iter().filter(|copy| copy.record.lineage() == lineage));
            let ours = all.copies.len() - ours;
            if len > ours {
                all.foreign.push((path.to_owned(), len - ours));
            }
            all.given_out = all.given_out.max(found.generations.get(&lineage).copied().unwrap_or(0));
            ours
        };
        for journal in &self.journals {
            if journal.exists() {
                take(journal.path(), journal.read()?);
            } else {
                tracing::warn!(journal = %journal.path().display(), "the journal is missing: what only it has is lost");
            }
        }
        for file in files {
            if take(file, read_records(file)?) == 0 {
                let none = "the backup or journal has no record of this keyring: is it that of another one?";
                return Err(Error::new(ErrorKind::RecordRejected, none).with_detail(file.display().to_string()));
            }
        }
        Ok(all)
    }

    /// Plans restoring the store from `copies`. `in_data` are key IDs that were found in data.
    ///
    /// # Errors
    ///
    /// As for [`Keyring::plan_restore`].
    pub async fn plan(&self, copies: Copies, in_data: BTreeSet<KeyId>) -> Result<RestorePlan> {
        let (generation, marks) = match &self.high_water {
            Some(file) => file.marks(self.config.keyring.lineage)?,
            None => (0, Vec::new()),
        };
        let Copies { copies, given_out, .. } = copies;
        self.ring.plan_restore(copies, &SeenElsewhere { generation, given_out, marks, in_data }).await
    }

    /// Carries a plan out. With a loss that is accepted, a new high-water file takes the place of the old one, which stays
    /// under the name that is returned.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): something is lost, or destroyed on doubt, and that is not accepted. Nothing
    ///   was changed.
    /// - [`Store`](ErrorKind::Store): the store is missing.
    /// - As for [`Keyring::restore`], and [`Io`](ErrorKind::Io) for the high-water file; repeat it then.
    pub async fn restore(&self, plan: &RestorePlan, accepted: Accepted) -> Result<Option<PathBuf>> {
        let refused = |message| Err(Error::new(ErrorKind::PolicyRefused, message));
        if !plan.lost.is_empty() && !accepted.loss {
            return refused("something would be lost: look for more backups and journals, or accept it");
        }
        if plan.destroys_on_doubt() && !accepted.destruction {
            return refused("keys would be destroyed of which it is not certain that they were");
        }
        if self.store_is_missing {
            return Err(Error::new(
                ErrorKind::Store,
                "the key store is missing: put a copy of it back, or make an empty one (keys restore --make-store)",
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

/// Writes a backup of all records of `ring` to `out`. Others may write meanwhile: each record is as it was at one moment of the
/// backup, and the roots that records depend on are in it. Returns the output and the number of records.
///
/// # Errors
///
/// - [`Store`](ErrorKind::Store): the database failed. [`Io`](ErrorKind::Io): the output did.
pub async fn backup<W: Write>(ring: &Keyring, out: W) -> Result<(W, u64)> {
    let failed = |error| Error::new(ErrorKind::Io, "cannot write the backup").with_source(error);
    let mut writer = BackupWriter::new(out).map_err(failed)?;
    each_stored(ring, |record| writer.add(&record).map_err(failed)).await?;
    writer.finish().map_err(failed)
}

/// The records of the keyring of the configuration file `path` as its store has them: nobody has vouched for them, no KEK is asked, and
/// nothing is recorded. For reports; whoever uses keys opens the keyring.
///
/// # Errors
///
/// Those of [`read_config`](crate::read_config) and of opening and reading the store.
pub fn stored_records(path: &Path) -> Result<Vec<Record>> {
    let (config, _) = read_with(path, &[], &Options::default())?;
    let store = open_store(&config.store, folder_of(path))?;
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = pollster::block_on(store.list(config.keyring.lineage, after, PAGE))?;
        let Some(last) = page.last() else { return Ok(records) };
        after = Some(last.key_id());
        records.extend(page);
    }
}

/// Where the KEKs and the key records of a keyring are on this machine.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The files of KEKs that are files, of audit KEKs as well. What key services need is not among them.
    pub keks: BTreeMap<KekAlias, PathBuf>,
    /// The files with key records: the store, unless it is in a server, and journals.
    pub records: Vec<PathBuf>,
}

/// How far a KEK that is a file is from the key records that it opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Distance {
    /// In the folder of a file with key records.
    SameFolder,
    /// On the file system of such a file.
    SameFileSystem,
    /// On a file system without key records, which may be in a database server.
    Apart,
    /// The file is not here.
    Missing,
}

impl Places {
    /// How far the KEK file `kek` is from the key records.
    #[must_use]
    pub fn distance(&self, kek: &Path) -> Distance {
        let folder = |file: &Path| fs::canonicalize(file).ok()?.parent().map(Path::to_owned);
        let device = |file: &Path| fs::metadata(file).ok().map(|meta| meta.dev());
        let (own, here) = (folder(kek), device(kek));
        let Some(own) = own else { return Distance::Missing };
        if self.records.iter().any(|records| folder(records).as_ref() == Some(&own)) {
            Distance::SameFolder
        } else if self.records.iter().any(|records| here.is_some() && device(records) == here) {
            Distance::SameFileSystem
        } else {
            Distance::Apart
        }
    }
}

/// The places of the keyring of the configuration file `path`. Looks at none of them.
///
/// # Errors
///
/// Those of [`read_config`](crate::read_config).
pub fn places(path: &Path) -> Result<Places> {
    let (config, _) = read_with(path, &[], &Options::default())?;
    places_of(&config, folder_of(path))
}

pub(crate) fn places_of(config: &Config, folder: &Path) -> Result<Places> {
    let keks = config.keks.iter().chain(&config.audit_keks).filter_map(|(alias, uri)| {
        let (scheme, file) = uri.split_once(':')?;
        matches!(scheme, "local" | "passphrase").then(|| (alias.clone(), folder.join(file)))
    });
    let mut records = Vec::new();
    if let StoreUri::Sqlite(file) = StoreUri::parse(&config.store)? {
        records.push(folder.join(file));
    }
    for uri in &config.journals {
        records.push(folder.join(journal_file(uri)?));
    }
    Ok(Places { keks: keks.collect(), records })
}

async fn each_stored<E: From<Error>>(ring: &Keyring, mut each: impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
    let mut after = None;
    loop {
        let page = ring.stored(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.key_id());
        page.into_iter().try_for_each(&mut each)?;
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("ring", &self.ring).field("journals", &self.journals).finish_non_exhaustive()
    }
}
