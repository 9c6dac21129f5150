//! Opening the keyring that the command line names.

use crate::args::Source;
use crate::failure::{Exit, Failure};
use crate::passphrase;
use keyfold::{KekAlias, Keyring, Recovery};
use keyfold_open::Options;
use std::path::PathBuf;
use std::sync::Arc;

/// Opens it with the fields of `policies`, in recovery mode if the command line asks for that. Passphrases come from the
/// file that it names, or from the terminal.
pub(crate) fn open(source: &Source, policies: &[PathBuf]) -> Result<Keyring, Failure> {
    let recovery = match source.recovery.as_deref() {
        None => None,
        Some("") => Some(Recovery::default()),
        Some(reason) => Some(Recovery::with_reason(reason).map_err(|error| Failure::of_argument("--recovery", error))?),
    };
    let file = source.passphrase.passphrase_file.clone();
    let ask = move |alias: &KekAlias| match &file {
        Some(file) => passphrase::read(file),
        None => passphrase::ask(&format!("passphrase of KEK {alias}: ")),
    };
    let options = Options { recovery, passphrase: Some(Arc::new(ask)) };
    let ring = keyfold_open::open_with(&source.config, policies, &options).map_err(Failure::of_opening)?;
    if source.recovery.is_some() {
        let told = "recovery mode is on: KEKs are asked that are not asked otherwise, and what they open is recorded";
        tracing::warn!("{told}");
    }
    Ok(ring)
}

/// The failure of a passphrase that was asked for outside of a keyring.
pub(crate) fn no_passphrase(error: &keyfold::Error) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}
