//! Opening a keyring to look at it: what is missing is not made, so that whoever looks again finds it missing again.

use crate::{Options, folder_of, open_records, open_ring, read_config, read_with};
use keyfold::config::Config;
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWater, HighWaterMark, Keyring, Lineage, Result};
use keyfold_store::FileHighWater;
use keyfold_store::files::io_error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How often it is looked again for an audit file that is missing while others are put aside, and how long each waits.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// Files that a configuration names and that are not there, although whoever opens the keyring and uses it makes them.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct MissingFiles {
    /// The high-water file: an older copy of the store would not be noticed.
    pub high_water: Option<PathBuf>,
    /// The audit file that is written, whether or not others were put aside.
    pub trail: Option<PathBuf>,
    /// Whether audit files that were put aside are there, though [`trail`](Self::trail) is missing: it was taken away, or a process ended between
    /// putting a full file aside and beginning the next one.
    pub is_put_aside: bool,
    /// The anchors.
    pub anchors: Option<PathBuf>,
}

impl MissingFiles {
    fn of(config: &Config, folder: &Path) -> Result<Self> {
        // What cannot be looked at is not missing: nobody knows.
        let missing = |file: &String| {
            let file = folder.join(file);
            match file.try_exists() {
                Ok(exists) => Ok((!exists).then_some(file)),
                Err(error) => Err(io_error("whether a file of the keyring is missing cannot be seen", &file, error)),
            }
        };
        let mut found =
            Self { high_water: config.high_water.as_ref().map(missing).transpose()?.flatten(), ..Self::default() };
        if let Some(audit) = &config.audit {
            found.trail = missing(&audit.file)?;
            found.anchors = audit.anchors.as_ref().map(missing).transpose()?.flatten();
            if let Some(trail) = &found.trail {
                found.is_put_aside = !keyfold_audit::files_of(trail)?.is_empty();
                // For a moment it is, while a process puts one file aside and begins the next. Its lock is not waited for: that process may be stopped.
                for _ in 0..if found.is_put_aside { LOOKS } else { 0 } {
                    thread::sleep(PAUSE);
                    if trail.try_exists().unwrap_or(false) {
                        return Ok(Self { trail: None, is_put_aside: false, ..found });
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Which files of the keyring of the configuration file `path` are missing. Opens and makes none.
///
/// # Errors
///
/// Those of [`read_config`]; [`Io`](ErrorKind::Io): one of the files cannot be looked at, or the folder of the audit files not be read.
pub fn missing_files(path: &Path) -> Result<MissingFiles> {
    MissingFiles::of(&read_config(path, &[])?, folder_of(path))
}

/// As [`open_with`](crate::open_with), to look at keys and not to use them: records are held against the marks of the high-water file, none
/// is raised, and a file that is missing stays so. Without neighbours. The audit trail gets what opening a keyring records.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): a file of the audit trail is missing, which what is recorded would make anew, or a file cannot be looked at.
/// - As for [`open_with`](crate::open_with).
pub fn open_to_look(path: &Path, policies: &[PathBuf], options: &Options) -> Result<Keyring> {
    let (config, digest) = read_with(path, policies, options)?;
    let folder = folder_of(path);
    let MissingFiles { trail, anchors, .. } = MissingFiles::of(&config, folder)?;
    if let Some(file) = trail.or(anchors) {
        return Err(Error::new(
            ErrorKind::Io,
            "a file of the audit trail is missing, and opening the keyring would make it anew: find out where it went; where nothing was recorded yet, or a process ended before it began the next file, keys list makes it",
        )
        .with_detail(file.display().to_string()));
    }
    let store = open_records(&config, folder, options)?;
    let marks = Marks::open(&config, folder)?;
    open_ring(&config, digest, folder, store, Some(Arc::new(marks)), options)
}

/// The marks of the high-water file, if there is one. The keyring remembers by itself what it sees.
struct Marks(Option<FileHighWater>);

impl Marks {
    fn open(config: &Config, folder: &Path) -> Result<Self> {
        let file = config.high_water.as_ref().map(|file| folder.join(file));
        // Opening it makes none.
        file.map(FileHighWater::open).transpose().map(Self)
    }
}

impl HighWater for Marks {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        self.0.as_ref().map_or(Ok(0), |file| file.generation(lineage))
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        self.0.as_ref().map_or(Ok(None), |file| file.mark(lineage, key_id))
    }

    fn raise(&self, _: Lineage, _: Generation, _: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        Ok(())
    }
}
