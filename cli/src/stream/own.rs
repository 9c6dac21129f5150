//! Files of the keyring and its policies, which are neither sealed nor overwritten.

use crate::args::Transform;
use crate::failure::{Exit, Failure};
use crate::files::output::{OutputError, Target};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) struct OwnFiles(Vec<PathBuf>);

impl OwnFiles {
    pub(super) fn of(args: &Transform) -> Result<Self, Failure> {
        Ok(Self(keyfold_open::own_files(&args.source.config, &args.policies.policy)?))
    }

    /// Refuses to seal the file at `place`, its device and inode, if it is one of them: whoever keeps the stream in its place can open neither.
    pub(super) fn refuse_input(&self, path: &Path, place: (u64, u64)) -> Result<(), Failure> {
        let mut places = self.0.iter().filter_map(|file| fs::metadata(file).ok());
        if places.all(|file| (file.dev(), file.ino()) != place) {
            return Ok(());
        }
        let why = format!(
            "{} is a file of the keyring or a policy, which it takes to open what is sealed; `keyfold keys backup` copies the key records",
            path.display()
        );
        Err(Failure::new(Exit::Usage, why))
    }

    /// Refuses to write where one of them is, or would be.
    pub(super) fn refuse_target(&self, target: &Target) -> Result<(), OutputError> {
        self.0.iter().try_for_each(|file| target.refuse_own(file))
    }
}
