//! The files of KEKs and credentials: who may read them.

use super::Notes;
use keyfold::config::Config;
use keyfold_kms::examine::Finding;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

pub(super) fn check(notes: &Notes, config: &Config, folder: &Path) {
    for (alias, uri) in config.keks.iter().chain(&config.audit_keks) {
        match uri.split_once(':') {
            Some(("local" | "passphrase", file)) => of_key(notes, &format!("KEK {alias}"), &folder.join(file)),
            #[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "pkcs11", feature = "vault"))]
            Some(_) => keyfold_kms::uri::credential_files(uri, folder)
                .iter()
                .for_each(|file| of_credential(notes, &format!("KEK {alias}"), file)),
            _ => {}
        }
    }
}

/// Whether a KEK file may be used, opening it tells.
fn of_key(notes: &Notes, whose: &str, file: &Path) {
    let Ok(metadata) = fs::symlink_metadata(file) else { return };
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    let days = age.map_or_else(String::new, |age| format!(", {} days old", age.as_secs() / 86_400));
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    notes.add(Finding::note(
        "key-file",
        format!("{whose}: {} has mode {mode:04o}, owner {owner}{days}", file.display()),
    ));
}

#[cfg(any(feature = "aws", feature = "azure", feature = "gcp", feature = "pkcs11", feature = "vault"))]
fn of_credential(notes: &Notes, whose: &str, file: &Path) {
    const NAME: &str = "credential-file";
    let shown = file.display();
    match fs::metadata(file) {
        Err(error) => {
            notes.add(Finding::problem(NAME, format!("{whose}: {shown}: {error}"), "put the credential there"))
        }
        Ok(metadata) if !metadata.is_file() => {
            let sentence = format!("{whose}: {shown} is not a regular file, and is not read");
            notes.add(Finding::problem(NAME, sentence, "put the credential into a file; a pipe is not waited for"));
        }
        Ok(metadata) if metadata.mode() & 0o077 != 0 => {
            let mode = metadata.mode() & 0o7777;
            let sentence =
                format!("{whose}: {shown} has mode {mode:04o}: others on the machine may touch the credential");
            notes.add(Finding::warning(NAME, sentence, format!("chmod 600 {shown}, or have who makes it do so")));
        }
        Ok(_) => notes.add(Finding::note(NAME, format!("{whose}: {shown} is for its owner alone"))),
    }
}
