//! Opening the keyring that the command line names.

use crate::args::{PassphraseFile, Source};
use crate::failure::{Exit, Failure};
use crate::passphrase;
use keyfold::{KekAlias, Keyring, Recovery};
use keyfold_open::{Options, Records};
use std::path::PathBuf;
use std::sync::Arc;

/// Opens it with the fields of `policies`, in recovery mode if the command line asks for that. Passphrases come from the
/// file that it names, or from the terminal.
pub(crate) fn open(source: &Source, policies: &[PathBuf]) -> Result<Keyring, Failure> {
    keyfold_open::open_with(&source.config, policies, &options(source)?).map_err(Failure::of_opening)
}

/// As [`open`], with what the records of the keyring are kept in.
pub(crate) fn records(source: &Source, policies: &[PathBuf]) -> Result<Records, Failure> {
    Records::open(&source.config, policies, &options(source)?).map_err(Failure::of_opening)
}

/// Refuses a scope that the keyring does not have: sealing would make it.
pub(crate) fn refuse_new_scope(ring: &Keyring, scope: Option<&str>) -> Result<(), Failure> {
    match scope {
        Some(scope) if !pollster::block_on(ring.has_scope(scope))? => {
            Err(Failure::new(Exit::Key, "the keyring has no scope of the name that --scope gives"))
        }
        _ => Ok(()),
    }
}

/// What the command line says beside the configuration.
pub(crate) fn options(source: &Source) -> Result<Options, Failure> {
    let recovery = match &source.recovery {
        None => None,
        Some(None) => Some(Recovery::default()),
        Some(Some(reason)) => {
            Some(Recovery::with_reason(reason).map_err(|error| Failure::of_argument("--recovery", error))?)
        }
    };
    let passphrase = passphrase_of(&source.passphrase);
    if source.recovery.is_some() {
        let told = "recovery mode is on: KEKs are asked that are not asked otherwise, and what they open is recorded";
        tracing::warn!("{told}");
    }
    Ok(Options { recovery, passphrase, ..Options::default() })
}

/// Where passphrases of KEKs come from: the files that were named, or the terminal.
pub(crate) fn passphrase_of(files: &PassphraseFile) -> Option<keyfold_open::PassphraseSource> {
    let files = files.clone();
    Some(Arc::new(move |alias: &KekAlias| match files.of(alias) {
        Some(file) => passphrase::read(&file),
        None => passphrase::ask(&format!("passphrase of KEK {alias}: "), &files.advice(alias)),
    }))
}

/// The failure of a passphrase that was asked for outside of a keyring.
pub(crate) fn no_passphrase(error: &keyfold::Error) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}
