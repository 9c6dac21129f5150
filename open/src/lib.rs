//! From a `keyfold.toml` to an open keyring: picks the store and the key services that its URIs name.
//!
//! The command line, the Python wheel and the C library all open keyrings through here.
#![forbid(unsafe_code)]

mod absent;
mod audit;
pub mod doctor;
mod keks;
mod log;
mod look;
mod marks;
mod neighbour;
mod reading;
mod records;
mod snapshot;
mod wraps;

pub use audit::{AuditTrail, audit_trail, sign_statement, statement_digest, verify_statement};
pub use keks::{KEY_SERVICES, KeyService};
pub use log::listen;
pub use look::{MissingFiles, missing_files, open_to_look};
pub use marks::{Marks, RolledBack};
pub use reading::{ConfigDigests, read_config, read_config_with_digests, read_policies};
pub use records::{Accepted, Copies, Distance, Places, Records, backup, places, stored_records};
pub use wraps::Wraps;

use keyfold::config::Config;
use keyfold::fips::Rule;
use keyfold::{
    AuditAction, AuditSink, CreatedKeyring, Error, ErrorKind, HighWater, KekAlias, KeyStore, Keyring, KmsErrorKind,
    MemoryHighWater, Recovery, Result,
};
use keyfold_kms::examine::Examine;
use keyfold_kms::local::LocalKek;
use keyfold_store::{FileHighWater, Journal, JournaledStore, PostgresStore, SqliteStore};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The files that [`init`] writes into its folder.
pub const CONFIG_FILE: &str = "keyfold.toml";
const STORE_FILE: &str = "keys.db";
const HIGH_WATER_FILE: &str = "keys.high-water";
const KEK_FILE: &str = "local.kek";

/// Whether `error` says that a key service or store was no help or refused, or that the KEKs are not configured or not to be asked in the present
/// mode, which says nothing of what was to be verified. A wrap that is not what it should be does.
#[must_use]
pub fn is_no_answer(error: &Error) -> bool {
    use KmsErrorKind::{InvalidCiphertext, MalformedResponse, WrongKey};
    match error.kind() {
        ErrorKind::Kms(kind) => !matches!(kind, InvalidCiphertext | MalformedResponse | WrongKey),
        kind => matches!(
            kind,
            ErrorKind::Configuration
                | ErrorKind::PolicyRefused
                | ErrorKind::DeadlineExceeded
                | ErrorKind::Store
                | ErrorKind::Io
        ),
    }
}

/// Asks for the passphrase of a KEK, when that is first used. May block, and may be asked for several KEKs.
pub type PassphraseSource = Arc<dyn Fn(&KekAlias) -> Result<Zeroizing<String>> + Send + Sync>;

/// Makes a KEK of the host program, with the deadline that the configuration gives it, if any.
pub type HostKek = Arc<dyn Fn(Option<Duration>) -> Result<Arc<dyn Examine>> + Send + Sync>;

/// What a configuration does not say.
#[derive(Clone, Default)]
pub struct Options {
    /// Recovery mode, in the place of what the configuration says of it.
    pub recovery: Option<Recovery>,
    /// Where passphrases come from. Without it a KEK with a passphrase is away.
    pub passphrase: Option<PassphraseSource>,
    /// KEKs of the host program, which the configuration names by `host:NAME`. Without the one that it names, a KEK is away.
    pub host_keks: BTreeMap<String, HostKek>,
    /// The audit sink of the host program, for a configuration that has no `[audit]` section.
    pub audit: Option<Arc<dyn AuditSink>>,
    /// A [`backup`] of the key records, in the place of the store and its journals: [`open_with`] reads keys from it, and makes and
    /// changes none. For machines that do not reach the store. What was changed since is not seen.
    pub records: Option<Arc<[u8]>>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host_keks = self.host_keks.keys();
        f.debug_struct("Options")
            .field("recovery", &self.recovery)
            .field("host_keks", &host_keks)
            .finish_non_exhaustive()
    }
}

/// Opens the keyring of the configuration file `path`, with the fields of `policies` added. Calls no key service yet, but the
/// audit KEK where there is an `[audit]` section; blocks until it and a store on a server have answered.
///
/// A KEK that cannot be opened is away, and the log says why, where the keyring can do without it: one for isolated scopes, one
/// for recovery, or any while another KEK for roots can be asked.
///
/// Neighbours that the configuration names are opened as well, to say whose an unknown key is. One that cannot be
/// opened is a warning.
///
/// # Errors
///
/// As for [`read_config`], and those of opening the store, the high-water file and the KEKs.
pub fn open(path: &Path, policies: &[PathBuf]) -> Result<Keyring> {
    open_with(path, policies, &Options::default())
}

/// As [`open`], with what the configuration does not say.
///
/// # Errors
///
/// As for [`open`].
pub fn open_with(path: &Path, policies: &[PathBuf], options: &Options) -> Result<Keyring> {
    let (config, digest) = read_with(path, policies, options)?;
    let folder = folder_of(path);
    let store = open_records(&config, folder, options)?;
    let high_water = open_high_water(&config, folder)?.map(|file| file as Arc<dyn HighWater>);
    let ring = open_ring(&config, digest, folder, store, high_water, options)?;
    for (name, file) in &config.neighbours {
        match neighbour::open(name, &folder.join(file)) {
            Ok(neighbour) => ring.add_neighbour(neighbour),
            Err(error) => tracing::warn!(name, %error, "a neighbour cannot be opened: it will give no hints"),
        }
    }
    Ok(ring)
}

/// The store that the configuration names, or the copy in its place.
fn open_records(config: &Config, folder: &Path, options: &Options) -> Result<Arc<dyn KeyStore>> {
    match &options.records {
        Some(backup) => Ok(Arc::new(snapshot::Snapshot::read(backup, config.keyring.lineage)?)),
        None => open_store(&config.store, folder),
    }
}

fn open_high_water(config: &Config, folder: &Path) -> Result<Option<Arc<FileHighWater>>> {
    let Some(file) = &config.high_water else { return Ok(None) };
    let file = folder.join(file);
    if matches!(file.try_exists(), Ok(false)) {
        tracing::warn!(file = %file.display(), "the high-water file is missing: an older copy of the store would not be noticed");
    }
    FileHighWater::open(file).map(|file| Some(Arc::new(file)))
}

/// `digest` is that of the configuration and its policies.
fn open_ring(
    config: &Config,
    digest: Sha256,
    folder: &Path,
    mut store: Arc<dyn KeyStore>,
    high_water: Option<Arc<dyn HighWater>>,
    options: &Options,
) -> Result<Keyring> {
    let sink = audit::sink(config, folder, options)?;
    let journals = if options.records.is_none() { open_journals(config, folder)? } else { Vec::new() };
    if !journals.is_empty() {
        store = Arc::new(JournaledStore::new(store, journals));
    }
    let high_water = high_water.unwrap_or_else(|| Arc::new(MemoryHighWater::default()));
    let keks = keks::open_keks(config, folder, options)?;
    let ring = Keyring::open(config.keyring.clone(), store, keks, high_water)?;
    if let Some(sink) = sink {
        ring.set_audit(sink)?;
        ring.audit(audit::of_configuration(AuditAction::Opened, digest))?;
    }
    Ok(ring)
}

/// The journals of a configuration. Whether they are there matters to whoever changes keys.
fn open_journals(config: &Config, folder: &Path) -> Result<Vec<Journal>> {
    config.journals.iter().map(|uri| Journal::new(folder.join(journal_file(uri)?))).collect()
}

fn journal_file(uri: &str) -> Result<&str> {
    uri.strip_prefix("file:").filter(|file| !file.is_empty()).ok_or_else(|| {
        Error::new(ErrorKind::Configuration, "the journal is not one that this build knows: file:FILE").with_detail(uri)
    })
}

/// Puts the configuration file `path`, with the fields of `policies` added, in the place of what `ring` has: policy,
/// pins, KEKs, cache, rotation. For a service, upon a signal: see [`Keyring::reload`]. Calls neither store nor key
/// service, but reads the files of local KEKs.
///
/// Store, high-water file, audit file and neighbours stay those that the keyring was opened with; restart to change them.
///
/// # Errors
///
/// As for [`read_config`] and [`Keyring::reload`], and those of opening the KEKs. The keyring goes on as it was. Where the audit
/// file refuses the event that says so, it goes on with the new configuration.
pub fn reload(ring: &Keyring, path: &Path, policies: &[PathBuf]) -> Result<()> {
    reload_with(ring, path, policies, &Options::default())
}

/// As [`reload`], with what the configuration does not say: it is not kept from [`open_with`].
///
/// # Errors
///
/// As for [`reload`].
pub fn reload_with(ring: &Keyring, path: &Path, policies: &[PathBuf], options: &Options) -> Result<()> {
    let (config, digest) = read_with(path, policies, options)?;
    let keks = keks::open_keks(&config, folder_of(path), options)?;
    ring.check_audit()?;
    ring.reload(config.keyring, keks)?;
    ring.audit(audit::of_configuration(AuditAction::Reconfigured, digest))
}

fn read_with(path: &Path, policies: &[PathBuf], options: &Options) -> Result<(Config, Sha256)> {
    let (mut config, digest) = reading::read(path, policies)?;
    if let Some(recovery) = &options.recovery {
        config.keyring.keks.recovery = Some(recovery.clone());
    }
    check_fips(&config)?;
    Ok((config, digest))
}

/// Refuses KEKs that passphrases open where only what FIPS 140 approves is allowed: Argon2id is not.
fn check_fips(config: &Config) -> Result<()> {
    let mut keks = config.keks.iter().chain(&config.audit_keks);
    match keks.find(|(_, uri)| uri.starts_with("passphrase:")) {
        Some((alias, _)) if config.keyring.fips == Rule::Required => Err(Error::new(
            ErrorKind::Configuration,
            "passphrases open KEKs by Argon2id, which FIPS 140 does not approve, and the configuration requires that (fips = \"required\")",
        )
        .with_detail(format!("KEK {alias}"))),
        _ => Ok(()),
    }
}

/// The files that make up the keyring of the configuration file `path`, itself and the policies among them: what no
/// output may overwrite.
///
/// # Errors
///
/// As for [`read_config`].
pub fn own_files(path: &Path, policies: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let config = read_config(path, &[])?;
    let folder = folder_of(path);
    let mut files = vec![path.to_owned()];
    files.extend_from_slice(policies);
    if let Some(audit) = &config.audit {
        files.extend(audit::files(audit, folder)?);
        files.extend(audit.anchors.as_ref().map(|file| folder.join(file)));
    }
    files.extend(key_files(&config, folder)?);
    Ok(files)
}

/// The files that hold keys, records of them, and what is known of them.
fn key_files(config: &Config, folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = keks::files(config, folder);
    if let Some(file) = &config.high_water {
        files.extend(["", ".lock"].map(|suffix| folder.join(format!("{file}{suffix}"))));
    }
    for uri in &config.journals {
        let file = journal_file(uri)?;
        files.extend(["", ".lock"].map(|suffix| folder.join(format!("{file}{suffix}"))));
    }
    files.extend(config.neighbours.values().map(|file| folder.join(file)));
    match StoreUri::parse(&config.store)? {
        StoreUri::Sqlite(file) => {
            // The last is there after a crash only, and SQLite plays back whatever it finds under that name.
            files.extend(["", "-wal", "-shm", "-journal"].map(|suffix| folder.join(format!("{file}{suffix}"))))
        }
        StoreUri::Postgres(uri) => files.extend(PostgresStore::files(uri, folder)?),
    }
    Ok(files)
}

/// What [`init_with`] makes.
#[derive(Clone, Debug, Default)]
pub struct NewKeyring {
    /// Name of the keyring, for people.
    pub name: String,
    /// The isolation domain: keys of another environment never open in this one.
    pub environment: String,
    /// The URI of the PostgreSQL store of key records, whose tables are made if needed; without it an SQLite file. Everything in it, a
    /// password too, is written into the configuration.
    pub store: Option<String>,
    /// The URIs of the KEKs that wrap the root, by alias; without any, a new file of a local KEK, `local`.
    pub keks: BTreeMap<KekAlias, String>,
}

/// What [`init`] made.
#[derive(Debug)]
pub struct Initialised {
    /// The configuration file.
    pub config: PathBuf,
    /// The KEK file, if one was made. Whoever has it and the store has every key.
    pub kek: Option<PathBuf>,
    /// The file of the store of key records; `None` where a server keeps them.
    pub store: Option<PathBuf>,
    /// The high-water file: what this machine has seen of the keyring, by which an older copy of the store is noticed.
    pub high_water: PathBuf,
    /// The keyring.
    pub created: CreatedKeyring,
}

/// Makes a keyring on the embedded default in `folder`, which is made if needed: a local KEK file, an SQLite store,
/// a high-water file and a configuration.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): one of the files exists already, or cannot be written. What this call made before it
///   failed is removed; what was there is untouched.
pub async fn init(folder: &Path, name: &str, environment: &str) -> Result<Initialised> {
    let new = NewKeyring { name: name.to_owned(), environment: environment.to_owned(), ..NewKeyring::default() };
    init_with(folder, &new, &Options::default()).await
}

/// As [`init`], with a store or KEKs elsewhere. Paths in their URIs are relative to `folder`. Each KEK wraps the new root and is
/// asked to unwrap it again. Of `options`, passphrases and KEKs of the program count.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): a URI is not that of a PostgreSQL store or of a KEK that this build knows, or
///   `options` bring a KEK that no URI names.
/// - [`Kms`](ErrorKind::Kms): a KEK does not wrap or unwrap; nothing is left.
/// - [`Store`](ErrorKind::Store): the store cannot be reached or made. What was stored before a failure is of a lineage that
///   nobody uses.
/// - Those of [`init`].
pub async fn init_with(folder: &Path, new: &NewKeyring, options: &Options) -> Result<Initialised> {
    let server = match new.store.as_deref().map(StoreUri::parse).transpose()? {
        None => None,
        Some(StoreUri::Postgres(uri)) => Some(uri),
        Some(StoreUri::Sqlite(_)) => {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the SQLite store is the default and needs no URI: keys.db in the folder",
            ));
        }
    };
    let path = |file: &str| folder.join(file);
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err();
    let mut made =
        Made { files: Vec::new(), folders: folder.ancestors().take_while(missing).map(Path::to_owned).collect() };
    let own_folder = !made.folders.is_empty();
    fs::create_dir_all(folder).map_err(|error| io(error, folder, "cannot make the folder"))?;
    for file in [CONFIG_FILE, KEK_FILE, STORE_FILE, HIGH_WATER_FILE] {
        if fs::symlink_metadata(path(file)).is_ok() {
            let what = match file {
                CONFIG_FILE => "the folder holds a keyring already; nothing was changed",
                // Written last. Nothing is sealed under what is there, but whoever has taken the configuration away needs it.
                _ => "the folder holds a part of a keyring, as an init that was killed leaves it; nothing was changed",
            };
            return Err(Error::new(ErrorKind::Io, what).with_detail(path(file).display().to_string()));
        }
    }
    let (mut keks, mut uris) = (keks::open_all(&new.keks, folder, options)?, new.keks.clone());
    let own_kek = keks.is_empty();
    if own_kek {
        let alias = KekAlias::new("local")?;
        keks.insert(alias.clone(), Arc::new(LocalKek::create(path(KEK_FILE))?));
        uris.insert(alias, format!("local:{KEK_FILE}"));
        made.files.push(path(KEK_FILE));
    }
    made.files.extend([HIGH_WATER_FILE, "keys.high-water.lock"].map(path));
    let (uri, store): (String, Arc<dyn KeyStore>) = match server {
        Some(uri) => (uri.to_owned(), Arc::new(PostgresStore::create(uri, folder)?)),
        None => {
            let store = SqliteStore::create(path(STORE_FILE))?;
            made.files.extend([STORE_FILE, "keys.db-wal", "keys.db-shm"].map(path));
            (format!("sqlite:{STORE_FILE}"), Arc::new(store))
        }
    };
    let high_water = Arc::new(FileHighWater::open(path(HIGH_WATER_FILE))?);
    let created = Keyring::create(&new.name, &new.environment, store, keks, high_water).await?;
    let text = Config::template(&created, &uri, HIGH_WATER_FILE, &uris);
    if own_folder {
        // The KEK and the store must not get into a repository together.
        made.files.push(path(".gitignore"));
        write_new(folder, ".gitignore", b"*\n")?;
    }
    // Last, and in one step: a configuration that exists is complete.
    write_new(folder, CONFIG_FILE, text.as_bytes())?;
    made.keep();
    Ok(Initialised {
        config: path(CONFIG_FILE),
        kek: own_kek.then(|| path(KEK_FILE)),
        store: server.is_none().then(|| path(STORE_FILE)),
        high_water: path(HIGH_WATER_FILE),
        created,
    })
}

/// Writes a file in one step; fails if anything has that name.
fn write_new(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist_noclobber(&path).map_err(|error| error.error)?;
        // A name that may not last is taken back, as everything beside it is.
        let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.inspect_err(|_| drop(fs::remove_file(&path)))
    });
    written.map_err(|error| io(error, &path, "cannot write"))
}

/// What to remove unless everything succeeds: files, and the folders that were missing, innermost first.
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    fn keep(&mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Nothing more can be done about what cannot be removed; the error that led here is reported.
        for path in &self.files {
            let _ = fs::remove_file(path);
        }
        for path in &self.folders {
            // Fails, as it should, where somebody else has put something in meanwhile.
            let _ = fs::remove_dir(path);
        }
    }
}

/// Which store a URI names.
enum StoreUri<'a> {
    Sqlite(&'a str),
    Postgres(&'a str),
}

impl<'a> StoreUri<'a> {
    fn parse(uri: &'a str) -> Result<Self> {
        match uri.split_once(':') {
            Some(("sqlite", file)) => Ok(Self::Sqlite(file)),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(uri)),
            // The rest of the URI may hold a password.
            other => Err(Error::new(
                ErrorKind::Configuration,
                "the store is not one that this build knows: sqlite:FILE or postgres://USER@HOST/DATABASE",
            )
            .with_detail(other.map_or("no scheme", |(scheme, _)| scheme))),
        }
    }
}

fn open_store(uri: &str, folder: &Path) -> Result<Arc<dyn KeyStore>> {
    Ok(match StoreUri::parse(uri)? {
        StoreUri::Sqlite(file) => Arc::new(SqliteStore::open(folder.join(file))?),
        StoreUri::Postgres(uri) => Arc::new(PostgresStore::open(uri, folder)?),
    })
}

/// Makes the tables of the PostgreSQL store that `uri` names, or brings older ones up to date; nothing where they are as
/// this build needs them. Paths in the URI are relative to `folder`. Blocks.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): the URI names no PostgreSQL store. - [`Store`](ErrorKind::Store): the database
///   failed, or its role may not make tables; nothing was changed.
pub fn migrate(uri: &str, folder: &Path) -> Result<()> {
    match StoreUri::parse(uri)? {
        StoreUri::Postgres(uri) => PostgresStore::create(uri, folder).map(drop),
        StoreUri::Sqlite(_) => Err(Error::new(
            ErrorKind::Configuration,
            "only PostgreSQL stores are migrated; `keyfold init` makes SQLite ones",
        )),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io(error: std::io::Error, path: &Path, what: &'static str) -> Error {
    Error::new(ErrorKind::Io, what).with_detail(format!("{}: {error}", path.display())).with_source(error)
}

fn add(error: Error, prefix: &str) -> Error {
    let detail = if error.detail().is_empty() { prefix.to_owned() } else { format!("{prefix}: {}", error.detail()) };
    error.with_detail(detail)
}
