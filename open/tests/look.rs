//! Opening a keyring to look at it makes no file that is missing, and holds its records against the marks of the machine.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use common::keyring;
use keyfold::{ErrorKind, KeyState};
use keyfold_kms::LocalKek;
use keyfold_open::{Options, missing_files, open_to_look};
use std::fs;
use std::path::{Path, PathBuf};

/// How many records a root vouches for, and how many are refused.
fn verified(config: &Path) -> (usize, usize) {
    let ring = open_to_look(config, &[], &Options::default()).unwrap();
    let keys = pollster::block_on(ring.list(None, 100)).unwrap();
    ring.close();
    let good = keys.iter().filter(|key| key.verified.is_ok()).count();
    (good, keys.len() - good)
}

#[test]
fn a_high_water_file_that_is_missing_stays_so_and_one_that_is_there_is_not_written() {
    let (folder, config) = keyring();
    let (marks, aside) = (folder.path().join("keys.high-water"), folder.path().join("aside"));
    let before = fs::read(&marks).unwrap();
    assert!(missing_files(&config).unwrap().high_water.is_none());
    assert_eq!(verified(&config), (4, 0));
    assert_eq!(fs::read(&marks).unwrap(), before);
    fs::rename(&marks, &aside).unwrap();
    for _ in 0..2 {
        assert_eq!(missing_files(&config).unwrap().high_water.as_deref(), Some(&*marks));
        assert_eq!(verified(&config), (4, 0));
    }
    assert!(!marks.exists());
    // The marks that are there count: this key had been marked compromised.
    fs::rename(&aside, &marks).unwrap();
    let store = folder.path().join("keys.db");
    let old = fs::read(&store).unwrap();
    let ring = keyfold_open::open(&config, &[]).unwrap();
    let keys = pollster::block_on(ring.list(None, 100)).unwrap();
    let data = keys.iter().find(|key| key.record.class() == keyfold::KeyClass::Data).unwrap();
    pollster::block_on(ring.change_state(data.record.key_id(), KeyState::Compromised)).unwrap();
    ring.close();
    drop(ring);
    fs::write(&store, old).unwrap();
    assert_eq!(verified(&config), (3, 1));
}

/// A keyring whose use is recorded, with anchors.
fn audited_keyring() -> (tempfile::TempDir, PathBuf) {
    let (folder, config) = keyring();
    LocalKek::create(folder.path().join("audit.kek")).unwrap();
    let section = "[keks.audit]\nuri = \"local:audit.kek\"\nwraps = \"audit\"\n[audit]\nfile = \"audit.jsonl\"\nkek = \"audit\"\nanchors = \"anchors.jsonl\"\n";
    fs::write(&config, fs::read_to_string(&config).unwrap() + section).unwrap();
    (folder, config)
}

#[test]
fn a_file_of_the_trail_that_is_missing_is_not_made() {
    let (folder, config) = audited_keyring();
    let (trail, anchors) = (folder.path().join("audit.jsonl"), folder.path().join("anchors.jsonl"));
    let refused = |file: &Path| {
        let error = open_to_look(&config, &[], &Options::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
        assert!(!file.exists());
    };
    refused(&trail);
    keyfold_open::open(&config, &[]).unwrap().close();
    assert_eq!(verified(&config), (4, 0));
    fs::remove_file(&anchors).unwrap();
    assert_eq!(missing_files(&config).unwrap().anchors.as_deref(), Some(&*anchors));
    refused(&anchors);
    // What was put aside does not stand for the file that is written: somebody may have taken that away.
    fs::rename(&trail, folder.path().join("audit.jsonl.000001")).unwrap();
    for _ in 0..2 {
        let missing = missing_files(&config).unwrap();
        assert_eq!((missing.trail.as_deref(), missing.is_put_aside), (Some(&*trail), true));
        refused(&trail);
    }
    // So it is for a moment while a process goes on to the next file.
    let begun = std::thread::spawn({
        let trail = trail.clone();
        move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            fs::write(trail, "").unwrap();
        }
    });
    let missing = missing_files(&config).unwrap();
    assert_eq!((missing.trail, missing.is_put_aside), (None, false));
    begun.join().unwrap();
    fs::remove_file(&trail).unwrap();
    // A writer that was killed leaves the same, and the next one goes on.
    keyfold_open::open(&config, &[]).unwrap().close();
    let missing = missing_files(&config).unwrap();
    assert_eq!((missing.trail, missing.anchors, missing.is_put_aside), (None, None, false));
    assert_eq!(verified(&config), (4, 0));
}

/// A link to itself is there for nobody to look at, as a file in a folder that may not be searched is.
#[test]
fn what_cannot_be_looked_at_is_not_missing() {
    let (folder, config) = audited_keyring();
    keyfold_open::open(&config, &[]).unwrap().close();
    for name in ["keys.high-water", "audit.jsonl", "anchors.jsonl"] {
        let (file, aside) = (folder.path().join(name), folder.path().join("aside"));
        fs::rename(&file, &aside).unwrap();
        std::os::unix::fs::symlink(name, &file).unwrap();
        let opened = open_to_look(&config, &[], &Options::default()).map(drop);
        for error in [missing_files(&config).map(drop).unwrap_err(), opened.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
        }
        if name == "audit.jsonl" {
            assert_eq!(keyfold_audit::files_of(&file).unwrap_err().kind(), ErrorKind::Io);
        }
        fs::rename(&aside, &file).unwrap();
    }
    assert_eq!(verified(&config), (4, 0));
}
