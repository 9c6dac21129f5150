//! The files of KEKs and credentials: who may read them, and what lies beside them; and those of the audit trail.

use super::{Notes, in_production};
use crate::audit::is_forgeable;
use crate::records::places_of;
use crate::{Distance, MissingFiles};
use keyfold::config::{AuditConfig, Config, OnAuditFailure};
use keyfold_kms::examine::Finding;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

pub(super) fn check(notes: &Notes, config: &Config, folder: &Path, missing: &MissingFiles) {
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
    of_separation(notes, config, folder);
    of_audit(notes, config, missing);
}

/// KEKs beside the key records that they open: whoever takes one has the other.
fn of_separation(notes: &Notes, config: &Config, folder: &Path) {
    // A store or a journal that this build does not know is a finding of the store.
    let Ok(places) = places_of(config, folder) else { return };
    for (alias, file) in places.keks.iter().filter(|(alias, _)| !config.audit_keks.contains_key(*alias)) {
        let place = match places.distance(file) {
            Distance::SameFolder => "in the folder of the key records",
            Distance::SameFileSystem => "on the file system of the key records",
            Distance::Apart | Distance::Missing => continue,
        };
        let sentence = format!("KEK {alias} is a file {place}: whoever copies them has both");
        let advice = "have it in a key service, or on another machine's disk (README.md, \"Where the KEK is\")";
        notes.add(in_production(config, "separation", sentence, advice));
    }
}

/// The audit trail: whether there is one that means something, and whether its files are there.
fn of_audit(notes: &Notes, config: &Config, missing: &MissingFiles) {
    const NAME: &str = "audit";
    const ANCHORS: &str = "anchors";
    let Some(audit) = &config.audit else {
        let sentence = "there is no [audit] section: who uses which key, and what becomes of keys, is not recorded";
        return notes.add(in_production(config, NAME, sentence, "add it (docs/AUDIT.md, \"Setting it up\")"));
    };
    let AuditConfig { on_failure, anchors, kek, .. } = audit;
    match (&missing.trail, &missing.anchors) {
        (Some(file), gone) => {
            let others = match (missing.is_put_aside, gone, anchors) {
                (true, Some(_), _) => ", and so are its anchors, though files that were put aside are there",
                (true, None, _) => {
                    ", though files that were put aside are there: it was taken away, or a process ended before it began the next file"
                }
                (false, Some(_), _) => ", and so are its anchors",
                (false, None, Some(_)) => ", though its anchors are there: it was taken away",
                (false, None, None) => "",
            };
            let advice = if anchors.is_none() && missing.is_put_aside {
                "a process may have ended before it began the next file, and keys list begins it; otherwise find out where it went and put it back"
            } else if anchors.is_none() {
                "if nothing was recorded yet, keys list begins it; otherwise find out where it went and put it back, before keys list begins another"
            } else if missing.is_put_aside {
                "audit verify says what the anchors miss: if nothing, a process ended, and keys list begins the next file. Otherwise find out where it went and put it back; if it is lost, put its anchors where you keep records, before keys list begins another"
            } else {
                "if nothing was recorded yet, keys list begins it; otherwise find out where it went and put it back: audit verify says what the anchors miss. If it is lost, put its anchors where you keep records, before keys list begins another"
            };
            notes.add(Finding::problem(NAME, format!("the audit file {} is missing{others}", file.display()), advice));
        }
        (None, Some(file)) => notes.add(Finding::problem(
            ANCHORS,
            format!("the anchors {} of the audit file are missing: that its end was cut off does not show", file.display()),
            "put them back, or see by audit verify --anchors FILE whether the trail has what was written down of it (audit anchor); if they are lost, or new in the configuration, keys list begins others",
        )),
        (None, None) => {}
    }
    if anchors.is_none() {
        let sentence = "the audit file has no anchors: if its end is cut off, that does not show";
        notes.add(in_production(
            config,
            ANCHORS,
            sentence,
            "set [audit] anchors, on another machine's volume (docs/AUDIT.md)",
        ));
    }
    if *on_failure == OnAuditFailure::Count {
        let sentence = "on_failure is \"count\": what cannot be recorded is done all the same";
        notes.add(in_production(config, NAME, sentence, "on_failure = \"refuse\" records everything that is done"));
    }
    if config.audit_keks.get(kek).is_some_and(|uri| is_forgeable(config, uri)) {
        let sentence = format!("audit KEK {kek} is a file, or wraps roots as well: whoever has it can forge the trail");
        let advice = "use a key service where services may encrypt and auditors alone may decrypt";
        notes.add(in_production(config, NAME, sentence, advice));
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
