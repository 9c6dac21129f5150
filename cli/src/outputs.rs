//! What a command over data may write: no file that it reads, and none that the keyring lives in.

use crate::args::Source;
use crate::failure::{Exit, Failure};
use crate::files::output::resolved;
use keyfold_store::PostgresStore;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What SQLite puts behind the name of a database, for files of its own beside it.
const OF_SQLITE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Refuses `outputs`, which are options with their files, where they are files of the keyring or policies, one of `inputs`, a file
/// of the database `sql`, or each other; and those that SQLite would take for its own, beside any database.
///
/// # Errors
///
/// [`Usage`](Exit::Usage): names the option. Those of reading the configuration, which tells the files of the keyring.
pub(crate) fn refuse(
    outputs: &[(&str, Option<&Path>)],
    keyring: Option<(&Path, &[PathBuf])>,
    inputs: &[&OsStr],
    sql: Option<&str>,
) -> Result<(), Failure> {
    let mut taken: Vec<PathBuf> = inputs.iter().filter(|input| **input != "-").map(PathBuf::from).collect();
    if let Some((config, policies)) = keyring {
        taken.extend(keyfold_open::own_files(config, policies).map_err(Failure::of_opening)?);
    }
    if let Some(sql) = sql {
        taken.extend(database_files(sql)?);
    }
    for (option, path) in outputs {
        let Some(path) = path else { continue };
        if taken.iter().any(|taken| is_same(taken, path)) {
            let why = format!(
                "{option} {} is a file of the keyring or a policy, the input, the database or another output, and is never \
                 overwritten",
                path.display()
            );
            return Err(Failure::new(Exit::Usage, why));
        }
        if let Some(database) = database_of(path) {
            let why = format!(
                "{option} {} is what SQLite would take for a file of its own, beside the database {}, and play back or delete: choose another name",
                path.display(),
                database.display()
            );
            return Err(Failure::new(Exit::Usage, why));
        }
        taken.push(path.to_path_buf());
    }
    Ok(())
}

/// The keyring of a command, for [`refuse`].
pub(crate) fn keyring<'a>(source: &'a Source, policies: &'a [PathBuf]) -> Option<(&'a Path, &'a [PathBuf])> {
    Some((&source.config, policies))
}

/// The files that a database URI names, and those that SQLite puts beside them.
fn database_files(sql: &str) -> Result<Vec<PathBuf>, Failure> {
    let Some(file) = sql.strip_prefix("sqlite:").map(PathBuf::from) else {
        // Opening says what is wrong with a URI.
        return Ok(PostgresStore::files(sql, Path::new(".")).unwrap_or_default());
    };
    // Behind a link, they are beside the file itself.
    let file = file.canonicalize().unwrap_or(file);
    let beside = |suffix| {
        let mut name = file.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    Ok(std::iter::once("").chain(OF_SQLITE).map(beside).collect())
}

/// The database that is there and that a file at `path` would be taken to belong to: the key store, where a command reads no configuration.
fn database_of(path: &Path) -> Option<PathBuf> {
    const BEGINS: &[u8; 16] = b"SQLite format 3\0";
    let name = path.file_name()?.as_bytes();
    let name = OF_SQLITE.iter().find_map(|suffix| name.strip_suffix(suffix.as_bytes()))?;
    let file = path.with_file_name(OsStr::from_bytes(name));
    // Opening a pipe would wait for whoever writes into it.
    let is_file = !name.is_empty() && fs::metadata(&file).is_ok_and(|metadata| metadata.is_file());
    let mut begins = [0; BEGINS.len()];
    let is_database =
        is_file && File::open(&file).and_then(|mut file| file.read_exact(&mut begins)).is_ok() && begins == *BEGINS;
    is_database.then_some(file)
}

/// Whether two paths name one file, which need not exist yet.
fn is_same(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => resolved(a) == resolved(b),
    }
}
