//! The store, and the keyring as services open it.

use super::kek::of_clock;
use super::{Notes, Roots, SEE, records};
use crate::audit::hex;
use crate::marks::Marks;
use crate::{MissingFiles, Options, StoreUri, open_journals, open_store, open_to_look};
use keyfold::config::Config;
use keyfold::fips;
use keyfold::{KeyClass, KeyState, KeyStore, Keyring, Record, Result, Slot, SlotId};
use keyfold_kms::examine::Finding;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;

/// Looks at store, journals and high-water file, and publishes the roots. `marks` and `missing` were read before anything was opened;
/// marks that cannot be read are none here: the keyring does not open then, and says why.
pub(super) fn check_store(
    notes: &Notes,
    config: &Config,
    folder: &Path,
    marks: &Marks,
    missing: &MissingFiles,
    roots: &Roots,
) {
    let unusable = |error: keyfold::Error| {
        notes.add(Finding::problem(
            "store",
            format!("the key store cannot be used: {error}"),
            "docs/BACKUP.md, \"A damaged record\", if that is what it is; docs/CLI.md, \"Exit codes\"; docs/POSTGRES.md",
        ));
    };
    match open_store(&config.store, folder).and_then(|store| look(notes, config, &*store).map(|found| (store, found))) {
        Ok((store, found)) => {
            roots.publish(Some(found));
            let checked = records::check_marks(notes, marks, &*store, config.keyring.lineage);
            checked.unwrap_or_else(unusable);
        }
        Err(error) => {
            roots.publish(None);
            unusable(error);
        }
    }
    if let Some(file) = &missing.high_water {
        notes.add(Finding::problem(
            "high-water",
            format!("{} is missing: an older copy of the store would not be noticed", file.display()),
            "find out where it went, and see whether the store lacks something: keys verify --journal, or with --backup FILE; if it does not, or this machine is new, keys list makes it",
        ));
    }
    check_journals(notes, config, folder);
}

fn check_journals(notes: &Notes, config: &Config, folder: &Path) {
    const NAME: &str = "journal";
    match open_journals(config, folder) {
        Ok(journals) => {
            for journal in &journals {
                let file = journal.path().display();
                let Err(error) = journal.path().symlink_metadata() else {
                    if let Err(error) = journal.check() {
                        let advice = "put it aside, and keys journal makes it anew from the store, while that is there";
                        notes.add(Finding::problem(NAME, error.to_string(), advice));
                    }
                    continue;
                };
                notes.add(match error.kind() {
                    io::ErrorKind::NotFound => Finding::problem(
                        NAME,
                        format!(
                            "the journal {file} is missing: no key is made or changed, and what only it has is lost"
                        ),
                        "see whether its disk is there; keys journal makes it anew from the store",
                    ),
                    _ => Finding::problem(
                        NAME,
                        format!("whether the journal {file} is missing cannot be seen: {error}"),
                        SEE,
                    ),
                });
            }
            if journals.is_empty() {
                notes.add(super::in_production(
                    config,
                    NAME,
                    "there is no journal: if the store were lost, so would be each key since the last backup",
                    "set [store] journal, on another disk (docs/BACKUP.md)",
                ));
            }
        }
        Err(error) => notes.add(Finding::problem(NAME, error.to_string(), "docs/BACKUP.md")),
    }
}

fn look(notes: &Notes, config: &Config, store: &dyn KeyStore) -> Result<Vec<Record>> {
    let now = pollster::block_on(store.now())?;
    notes.add(Finding::note("store", "the key store opens and answers"));
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if matches!(StoreUri::parse(&config.store)?, StoreUri::Postgres(_)) {
        let ahead = i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(ours).unwrap_or(i64::MAX);
        notes.add(of_clock("the store", ahead));
    }
    pinned_roots(notes, config, store, now)
}

/// The roots that the configuration trusts and that still open keys.
fn pinned_roots(notes: &Notes, config: &Config, store: &dyn KeyStore, now: u64) -> Result<Vec<Record>> {
    let slot = Slot { lineage: config.keyring.lineage, class: KeyClass::Root, id: SlotId::NONE };
    let all = pollster::block_on(store.newest(slot, usize::MAX))?;
    for pin in &config.keyring.root_pins {
        if !all.iter().any(|root| root.commitment() == pin) {
            let digits: String = pin[..4].iter().map(|byte| format!("{byte:02x}")).collect();
            notes.add(Finding::problem(
                "root-pins",
                format!("no root in the store has the pin {digits}…: is it the store of this keyring?"),
                "compare root_pins with keys list; a store that has lost keys is brought back with keys restore",
            ));
        }
    }
    let trusted = |root: &Record| config.keyring.root_pins.contains(root.commitment());
    let roots: Vec<Record> = all.into_iter().filter(|root| trusted(root) && root.state().may_open()).collect();
    for root in &roots {
        let days = now.saturating_sub(root.created_at()) / DAY;
        notes.add(Finding::note("root", format!("root {} is {}, {days} days old", root.key_id(), root.state().name())));
    }
    note_keks(notes, config, &roots);
    let overdue = |age: std::time::Duration| {
        let sealing = roots.iter().filter(|root| root.state() == KeyState::Active).max_by_key(|root| root.created_at());
        sealing.is_some_and(|root| now.saturating_sub(root.created_at()) > age.as_secs())
    };
    if config.keyring.rotation.root_age.is_some_and(overdue) {
        notes.add(Finding::warning("root", "the root is older than the configuration wants", "run keys rotate --root"));
    }
    Ok(roots)
}

/// Which FIPS 140 module there is; without one that is required the keyring does not open, which is a finding of its own.
pub(super) fn note_fips(notes: &Notes, config: &Config) {
    notes.add(Finding::note("fips", format!("fips = \"{}\": {}", config.keyring.fips.name(), fips::status())));
}

/// Whether the system locks the memory that keys are in; where that is required and not so, the keyring does not open, or no key of it.
fn note_memory(notes: &Notes) {
    const NAME: &str = "memory";
    let memory = keyfold::key_memory();
    if memory.unlocked > 0 {
        notes.add(Finding::warning(
            NAME,
            format!("{} bytes of keys are in memory that is not locked, so they can be swapped", memory.unlocked),
            "raise RLIMIT_MEMLOCK for whoever starts the service, or encrypt swap (docs/MEMORY.md)",
        ));
    } else if memory.locked > 0 {
        notes.add(Finding::note(NAME, "all keys of this process are in locked memory, which is not swapped"));
    }
}

/// Which KEKs open the roots: none should be one that the configuration has forgotten, nor the only one.
fn note_keks(notes: &Notes, config: &Config, roots: &[Record]) {
    const NAME: &str = "root-keks";
    for root in roots {
        let (known, forgotten): (Vec<_>, Vec<_>) =
            root.kek_aliases().partition(|alias| config.keks.contains_key(*alias));
        for alias in forgotten {
            let sentence = format!("root {} is wrapped by KEK {alias}, which is not configured", root.key_id());
            let (consequence, advice) = match (known.is_empty(), root.state()) {
                // Whoever drops the wrap needs another KEK, which opens the root.
                (true, _) => (", nor is another one of its KEKs: it does not open", "configure it again".to_owned()),
                (false, KeyState::Active) => {
                    (": it cannot be rotated", format!("configure it again, or run keys rewrap --drop-kek {alias}"))
                }
                (false, _) => ("", format!("configure it again, or run keys rewrap --drop-kek {alias}")),
            };
            notes.add(Finding::warning(NAME, format!("{sentence}{consequence}"), advice));
        }
        if let ([alias], KeyState::Active) = (&known[..], root.state()) {
            let sentence = format!("KEK {alias} alone opens the keyring: if it were lost, so would be every key");
            notes.add(super::in_production(config, NAME, sentence, "have a second one, kept apart: docs/RECOVERY.md"));
        }
    }
}

/// What the keyring is opened with, and what it may not make.
pub(super) struct ToOpen {
    pub(super) path: PathBuf,
    pub(super) policies: Vec<PathBuf>,
    pub(super) options: Options,
    pub(super) missing: MissingFiles,
}

/// Opens the keyring as a service does, but makes no file, and verifies its records. `None`, with a finding, if it is not opened.
pub(super) fn check_ring(
    notes: &Notes,
    opened: &ToOpen,
    marks: &Marks,
    roots: &Roots,
    end: Instant,
) -> Option<Keyring> {
    const NAME: &str = "keyring";
    let ToOpen { path, policies, options, missing } = opened;
    if missing.trail.is_some() || missing.anchors.is_some() {
        // Which is a finding of the files.
        notes.add(Finding::note(
            NAME,
            "not opened, and its records not verified: that would be recorded, and would make the missing file of the audit trail anew",
        ));
        return None;
    }
    let ring = match open_to_look(path, policies, options) {
        Ok(ring) => ring,
        Err(error) => {
            notes.add(Finding::problem(
                NAME,
                format!("does not open: {error}"),
                "set right what it says, and see the KEKs",
            ));
            return None;
        }
    };
    notes.add(Finding::note(NAME, "opens, with its high-water file and audit trail where it has them"));
    note_indexes(notes, &ring);
    records::check(notes, &ring, marks);
    let pinned = roots.wait(end).unwrap_or_default();
    note_pins(notes, &ring, &pinned);
    for root in pinned {
        for alias in ring.missing_keks(&root) {
            notes.add(Finding::warning(
                "quorum",
                format!("root {} has no wrap by KEK {alias} yet", root.key_id()),
                "run keys repair",
            ));
        }
    }
    note_memory(notes);
    Some(ring)
}

/// Roots that are trusted until the pin of an older one goes. One that cannot be verified is a finding of the records.
fn note_pins(notes: &Notes, ring: &Keyring, pinned: &[Record]) {
    const NAME: &str = "root-pins";
    let newest = pinned.iter().map(Record::key_id).max();
    for root in pollster::block_on(ring.unpinned_roots()).unwrap_or_default() {
        let sentence =
            format!("root {} is not pinned here, and trusted because an older one vouches for it", root.key_id());
        // A rotation has the newest root vouch for the next one. Whoever has an older one can do so as long as its pin is there.
        notes.add(if root.endorsed_by() < newest {
            Finding::problem(
                NAME,
                format!("{sentence}, which another one had replaced: whoever has the older one may have made it"),
                "do not pin it; docs/runbooks/kek-compromised.md",
            )
        } else {
            let pin = hex(root.commitment());
            Finding::warning(
                NAME,
                sentence,
                format!(
                    "if it was rotated on purpose or by age (`key-made` in the audit trail), add its pin {pin} to root_pins wherever this keyring is configured, before an older pin goes; if nobody knows of it, do not: docs/runbooks/kek-compromised.md"
                ),
            )
        });
    }
}

/// What indexes show of rows.
fn note_indexes(notes: &Notes, ring: &Keyring) {
    const NAME: &str = "indexes";
    for field in ring.policy().fields() {
        if field.has_unchecked_indexes() {
            notes.add(Finding::warning(
                NAME,
                format!("field {}: nobody checks what the indexes of its table show together of a row", field.name),
                "say how many rows the table has: rows = 1000000 at the top of the policy file (docs/LOOKUP.md)",
            ));
        }
        for index in field.indexes.iter().filter(|index| index.unique) {
            let sentence = format!(
                "field {}: index {} shows which rows are equal; the policy says that few are",
                field.name, index.name
            );
            let advice = "keyfold index advise says whether that is so".to_owned();
            notes.add(Finding { advice, ..Finding::note(NAME, sentence) });
        }
    }
}
