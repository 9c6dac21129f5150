//! From a `keyfold.toml` to an open keyring: picks the store and the key services that its URIs name.
//!
//! The command line, the Python wheel and the C library all open keyrings through here.
#![forbid(unsafe_code)]

mod absent;
mod audit;
mod kek;
mod neighbour;

pub use audit::sign_statement;

use absent::Absent;
use kek::open_kek;
use keyfold::config::Config;
use keyfold::{
    CreatedKeyring, Error, ErrorKind, HighWater, KekAlias, KeyStore, Keyring, Kms, KmsErrorKind, MemoryHighWater,
    Result,
};
use keyfold_kms::local::LocalKek;
use keyfold_store::{FileHighWater, PostgresStore, SqliteStore};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest configuration or policy file in bytes.
const MAX_CONFIG_LEN: u64 = 4 * 1024 * 1024;
const NO_CONFIG: &str = "cannot read the configuration (--config names one, `keyfold init DIR` makes one)";
/// The files that [`init`] writes into its folder.
pub const CONFIG_FILE: &str = "keyfold.toml";
const STORE_FILE: &str = "keys.db";
const HIGH_WATER_FILE: &str = "keys.high-water";
const KEK_FILE: &str = "local.kek";

/// Reads the configuration file `path` and adds the fields of `policies`.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): a file cannot be read. - [`Configuration`](ErrorKind::Configuration): names file, line and key.
pub fn read_config(path: &Path, policies: &[PathBuf]) -> Result<Config> {
    let mut config = Config::parse(&read_text(path, NO_CONFIG)?, &path.display().to_string())?;
    for policy in policies {
        config.add_policy(&read_text(policy, "cannot read the policy")?, &policy.display().to_string())?;
    }
    Ok(config)
}

/// Opens the keyring of the configuration file `path`, with the fields of `policies` added. Calls no key service yet;
/// blocks until a store on a server has answered.
///
/// Neighbours that the configuration names are opened as well, to say whose an unknown key is. One that cannot be
/// opened is a warning.
///
/// # Errors
///
/// As for [`read_config`], and those of opening the store, the high-water file and the KEKs.
pub fn open(path: &Path, policies: &[PathBuf]) -> Result<Keyring> {
    let config = read_config(path, policies)?;
    let folder = folder_of(path);
    let store = open_store(&config.store, folder)?;
    let keks = open_keks(&config, folder)?;
    let high_water: Arc<dyn HighWater> = match &config.high_water {
        Some(file) => {
            let file = folder.join(file);
            if !file.exists() {
                tracing::warn!(file = %file.display(), "the high-water file is missing: an older copy of the store would not be noticed");
            }
            Arc::new(FileHighWater::open(file)?)
        }
        None => Arc::new(MemoryHighWater::default()),
    };
    let ring = Keyring::open(config.keyring, store, keks, high_water)?;
    for (name, file) in &config.neighbours {
        match neighbour::open(name, &folder.join(file)) {
            Ok(neighbour) => ring.add_neighbour(neighbour),
            Err(error) => tracing::warn!(name, %error, "a neighbour cannot be opened: it will give no hints"),
        }
    }
    Ok(ring)
}

/// Puts the configuration file `path`, with the fields of `policies` added, in the place of what `ring` has: policy,
/// pins, KEKs, cache, rotation. For a service, upon a signal: see [`Keyring::reload`]. Calls neither store nor key
/// service, but reads the files of local KEKs.
///
/// Store, high-water file and neighbours stay those that the keyring was opened with; restart to change them.
///
/// # Errors
///
/// As for [`read_config`] and [`Keyring::reload`], and those of opening the KEKs. The keyring goes on as it was.
pub fn reload(ring: &Keyring, path: &Path, policies: &[PathBuf]) -> Result<()> {
    let config = read_config(path, policies)?;
    let keks = open_keks(&config, folder_of(path))?;
    ring.reload(config.keyring, keks)
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
    let keks = config.keks.values().chain(config.audit_keks.values());
    files.extend(keks.flat_map(|uri| kek::files(uri, folder)));
    if let Some(audit) = &config.audit {
        files.extend([Some(&audit.file), audit.anchors.as_ref()].into_iter().flatten().map(|file| folder.join(file)));
    }
    files.extend(config.high_water.as_deref().map(|file| folder.join(file)));
    files.extend(config.neighbours.values().map(|file| folder.join(file)));
    match StoreUri::parse(&config.store)? {
        StoreUri::Sqlite(file) => {
            files.extend(["", "-wal", "-shm"].map(|suffix| folder.join(format!("{file}{suffix}"))))
        }
        StoreUri::Postgres(uri) => files.extend(PostgresStore::files(uri, folder)?),
    }
    Ok(files)
}

/// What [`init`] made.
#[derive(Debug)]
pub struct Initialised {
    /// The configuration file.
    pub config: PathBuf,
    /// The KEK file. Whoever has it and the store has every key.
    pub kek: PathBuf,
    /// The file of the store of key records; `None` where a server keeps them.
    pub store: Option<PathBuf>,
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
    make(folder, name, environment, None).await
}

/// As [`init`], with the key records in the PostgreSQL store that `uri` names, whose tables are made if needed. Paths in
/// `uri` are relative to `folder`. Everything in it, a password too, is written into the configuration.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): `uri` is not that of a PostgreSQL store.
/// - [`Store`](ErrorKind::Store): the store cannot be reached or made. What was stored before a failure is of a lineage that
///   nobody uses.
/// - Those of [`init`].
pub async fn init_with_store(folder: &Path, name: &str, environment: &str, uri: &str) -> Result<Initialised> {
    match StoreUri::parse(uri)? {
        StoreUri::Postgres(uri) => make(folder, name, environment, Some(uri)).await,
        StoreUri::Sqlite(_) => Err(Error::new(
            ErrorKind::Configuration,
            "the SQLite store is the default and needs no URI: keys.db in the folder",
        )),
    }
}

async fn make(folder: &Path, name: &str, environment: &str, server: Option<&str>) -> Result<Initialised> {
    let path = |file: &str| folder.join(file);
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && fs::symlink_metadata(folder).is_err();
    let mut made =
        Made { files: Vec::new(), folders: folder.ancestors().take_while(missing).map(Path::to_owned).collect() };
    let own_folder = !made.folders.is_empty();
    fs::create_dir_all(folder).map_err(|error| io(error, folder, "cannot make the folder"))?;
    for file in [CONFIG_FILE, KEK_FILE, STORE_FILE, HIGH_WATER_FILE] {
        if fs::symlink_metadata(path(file)).is_ok() {
            return Err(Error::new(ErrorKind::Io, "the folder holds a keyring already; nothing was changed")
                .with_detail(path(file).display().to_string()));
        }
    }
    let alias = KekAlias::new("local")?;
    let kek: Arc<dyn Kms> = Arc::new(LocalKek::create(path(KEK_FILE))?);
    made.files.push(path(KEK_FILE));
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
    let created = Keyring::create(name, environment, store, BTreeMap::from([(alias.clone(), kek)]), high_water).await?;
    let uris = BTreeMap::from([(alias, format!("local:{KEK_FILE}"))]);
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
        kek: path(KEK_FILE),
        store: server.is_none().then(|| path(STORE_FILE)),
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
        fs::File::open(folder)?.sync_all()
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

fn open_keks(config: &Config, folder: &Path) -> Result<BTreeMap<KekAlias, Arc<dyn Kms>>> {
    let open = |(alias, uri): (&KekAlias, &String)| -> Result<(KekAlias, Arc<dyn Kms>)> {
        let kek = match open_kek(uri, folder).map_err(|error| add(error, &format!("KEK {alias}"))) {
            Err(error) if config.keyring.scope_keks.contains(alias) => {
                tracing::warn!("a KEK of isolated scopes cannot be opened, and they cannot be used: {error}");
                let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
                let away = Error::new(kind, "the KEK could not be opened when the keyring was");
                Arc::new(Absent(away.with_detail(error.to_string())))
            }
            kek => kek?,
        };
        Ok((alias.clone(), kek))
    };
    config.keks.iter().map(open).collect()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn read_text(path: &Path, failed: &'static str) -> Result<String> {
    let metadata = fs::metadata(path).map_err(|error| io(error, path, failed))?;
    if !metadata.is_file() || metadata.len() > MAX_CONFIG_LEN {
        return Err(Error::new(ErrorKind::Configuration, "a configuration is a regular file of at most 4 MiB")
            .with_detail(path.display().to_string()));
    }
    if metadata.permissions().mode() & 0o002 != 0 {
        return Err(Error::new(
            ErrorKind::Configuration,
            "anyone on the machine can write the file, and it decides what is trusted and protected: run chmod o-w",
        )
        .with_detail(path.display().to_string()));
    }
    let bytes = fs::read(path).map_err(|error| io(error, path, failed))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::new(ErrorKind::Configuration, "not UTF-8 text").with_detail(path.display().to_string()))
}

fn io(error: std::io::Error, path: &Path, what: &'static str) -> Error {
    Error::new(ErrorKind::Io, what).with_detail(format!("{}: {error}", path.display())).with_source(error)
}

fn add(error: Error, prefix: &str) -> Error {
    let detail = if error.detail().is_empty() { prefix.to_owned() } else { format!("{prefix}: {}", error.detail()) };
    error.with_detail(detail)
}
