//! Opening a keyring to look at it: what is missing is not made, so that whoever looks again finds it missing again.

use crate::{Options, folder_of, open_records, open_ring, read_config, read_with};
use keyfold::config::Config;
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWater, HighWaterMark, Keyring, Lineage, Result};
use keyfold_store::FileHighWater;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that a configuration names and that are not there, although whoever opens the keyring and uses it makes them.
#[non_exhaustive]
#[derive(Clone, Debug, Default)]
pub struct MissingFiles {
    /// The high-water file: an older copy of the store would not be noticed.
    pub high_water: Option<PathBuf>,
    /// The audit file, of which none that was put aside is there either.
    pub trail: Option<PathBuf>,
    /// The anchors.
    pub anchors: Option<PathBuf>,
}

impl MissingFiles {
    fn of(config: &Config, folder: &Path) -> Result<Self> {
        let missing = |file: &String| Some(folder.join(file)).filter(|file| !file.exists());
        let mut found = Self { high_water: config.high_water.as_ref().and_then(missing), ..Self::default() };
        if let Some(audit) = &config.audit {
            let file = folder.join(&audit.file);
            found.trail = keyfold_audit::files_of(&file)?.is_empty().then_some(file);
            found.anchors = audit.anchors.as_ref().and_then(missing);
        }
        Ok(found)
    }
}

/// Which files of the keyring of the configuration file `path` are missing. Opens and makes none.
///
/// # Errors
///
/// Those of [`read_config`]; [`Io`](ErrorKind::Io): the folder of the audit files cannot be read.
pub fn missing_files(path: &Path) -> Result<MissingFiles> {
    MissingFiles::of(&read_config(path, &[])?, folder_of(path))
}

/// As [`open_with`](crate::open_with), to look at keys and not to use them: records are held against the marks of the high-water file, none
/// is raised, and a file that is missing stays so. Without neighbours. The audit trail gets what opening a keyring records.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): a file of the audit trail is missing, which what is recorded would make anew.
/// - As for [`open_with`](crate::open_with).
pub fn open_to_look(path: &Path, policies: &[PathBuf], options: &Options) -> Result<Keyring> {
    let (config, digest) = read_with(path, policies, options)?;
    let folder = folder_of(path);
    let MissingFiles { trail, anchors, .. } = MissingFiles::of(&config, folder)?;
    if let Some(file) = trail.or(anchors) {
        return Err(Error::new(
            ErrorKind::Io,
            "a file of the audit trail is missing, and opening the keyring would make it anew: find out where it went; where nothing was recorded yet, keys list makes it",
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
