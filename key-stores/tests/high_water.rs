//! The file of marks: raised by many, never lowered, damage noticed.

use keyfold::wire::KeyId;
use keyfold::{ErrorKind, HighWater, HighWaterMark, KeyState, Lineage};
use keyfold_store::FileHighWater;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use tempfile::TempDir;

const OURS: Lineage = Lineage::from_bytes([1; 16]);
const THEIRS: Lineage = Lineage::from_bytes([2; 16]);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("high-water");
    (folder, path)
}

fn open(path: &Path) -> FileHighWater {
    FileHighWater::open(path).expect("opened")
}

fn key(number: u8) -> KeyId {
    KeyId::new(u32::from(number), &[number; 32])
}

fn mark(sequence: u64, state: KeyState) -> HighWaterMark {
    HighWaterMark { sequence, state }
}

fn kind_of_open(path: &Path) -> Option<ErrorKind> {
    FileHighWater::open(path).err().map(|error| {
        assert!(error.to_string().contains("high-water"), "does not name the file: {error}");
        error.kind()
    })
}

#[test]
fn a_fresh_machine_has_no_marks_and_makes_no_file_until_it_has() {
    let (_folder, path) = folder();
    let marks = open(&path);
    assert_eq!(marks.generation(OURS).expect("read"), 0);
    assert_eq!(marks.mark(OURS, key(1)).expect("read"), None);
    assert!(!path.exists());
    assert_eq!(FileHighWater::open_existing(&path).err().map(|e| e.kind()), Some(ErrorKind::Io));
    marks.raise(OURS, 1, None).expect("raised");
    assert!(FileHighWater::open_existing(&path).is_ok());
}

#[test]
fn marks_only_rise_and_survive() {
    let (_folder, path) = folder();
    let marks = open(&path);
    marks.raise(OURS, 7, Some((key(1), mark(3, KeyState::Deactivated)))).expect("raised");
    marks.raise(OURS, 5, Some((key(1), mark(2, KeyState::Active)))).expect("raised");
    marks.raise(OURS, 6, Some((key(2), mark(1, KeyState::Active)))).expect("raised");
    marks.raise(THEIRS, 1, None).expect("raised");
    for marks in [&marks, &open(&path)] {
        assert_eq!(marks.generation(OURS).expect("read"), 7);
        assert_eq!(marks.generation(THEIRS).expect("read"), 1);
        assert_eq!(marks.mark(OURS, key(1)).expect("read"), Some(mark(3, KeyState::Deactivated)));
        assert_eq!(marks.mark(OURS, key(2)).expect("read"), Some(mark(1, KeyState::Active)));
        assert_eq!(marks.mark(THEIRS, key(1)).expect("read"), None);
    }
    let mode = fs::metadata(&path).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn every_state_comes_back() {
    use KeyState::{Active, Compromised, Deactivated, DestroyPending, Destroyed, PreActive};
    let (_folder, path) = folder();
    for (number, state) in (1..).zip([PreActive, Active, Deactivated, Compromised, DestroyPending, Destroyed]) {
        open(&path).raise(OURS, 0, Some((key(number), mark(u64::MAX, state)))).expect("raised");
        assert_eq!(open(&path).mark(OURS, key(number)).expect("read"), Some(mark(u64::MAX, state)));
    }
}

#[test]
fn another_handle_sees_a_change_at_once() {
    let (_folder, path) = folder();
    let (a, b) = (open(&path), open(&path));
    for generation in 1..50 {
        a.raise(OURS, generation, None).expect("raised");
        assert_eq!(b.generation(OURS).expect("read"), generation);
    }
}

#[test]
fn eight_threads_lose_nothing() {
    const ROUND_COUNT: u64 = 25;
    let (_folder, path) = folder();
    let shared = open(&path);
    thread::scope(|scope| {
        for number in 0..8_u8 {
            let (path, shared) = (&path, &shared);
            scope.spawn(move || {
                let own = open(path);
                for round in 1..=ROUND_COUNT {
                    let marks = if round % 2 == 0 { &own } else { shared };
                    let generation = u32::from(number) * 1000 + u32::try_from(round).expect("small");
                    marks.raise(OURS, generation, Some((key(number), mark(round, KeyState::Active)))).expect("raised");
                    assert!(own.generation(OURS).expect("read") >= generation);
                }
            });
        }
    });
    let marks = open(&path);
    assert_eq!(marks.generation(OURS).expect("read"), 7025);
    for number in 0..8 {
        assert_eq!(marks.mark(OURS, key(number)).expect("read"), Some(mark(ROUND_COUNT, KeyState::Active)));
    }
}

#[test]
fn a_file_put_back_or_deleted_does_not_lower_what_was_seen() {
    let (_folder, path) = folder();
    let marks = open(&path);
    marks.raise(OURS, 1, Some((key(1), mark(1, KeyState::Active)))).expect("raised");
    let old = fs::read(&path).expect("read");
    marks.raise(OURS, 9, Some((key(1), mark(2, KeyState::Deactivated)))).expect("raised");

    fs::write(&path, &old).expect("put back");
    let seen = marks.mark(OURS, key(1)).expect("read").expect("a mark");
    assert_eq!((marks.generation(OURS).expect("read"), seen), (9, mark(2, KeyState::Deactivated)));
    // What the keyring asks: may the record of the restored store follow what was seen?
    assert_eq!(seen.check(mark(1, KeyState::Active)).err().map(|e| e.kind()), Some(ErrorKind::RecordRejected));

    fs::remove_file(&path).expect("deleted");
    assert_eq!(marks.generation(OURS).expect("read"), 9);
    marks.raise(THEIRS, 1, None).expect("raised");
    assert_eq!(open(&path).generation(OURS).expect("read"), 9, "not written again");
}

// Failure K4
#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let (_folder, path) = folder();
    let marks = open(&path);
    marks.raise(OURS, 7, Some((key(1), mark(3, KeyState::Deactivated)))).expect("raised");
    // What is written again holds marks before its checksum; the last one comes after it.
    fs::remove_file(&path).expect("deleted");
    marks.raise(THEIRS, 7, Some((key(2), mark(1, KeyState::Active)))).expect("raised");
    let good = fs::read(&path).expect("read");
    let log = end_of(&good, b"sha256 ");
    assert!(log > 200 && log < good.len() - 100, "{log} of {}", good.len());
    for len in 0..log {
        fs::write(&path, &good[..len]).expect("written");
        assert_eq!(kind_of_open(&path), Some(ErrorKind::Malformed), "{len} bytes");
    }
    flip_every_bit(&path, &good);
    for extra in [&b"\n"[..], b"x\n", b"\0\0\n\n"] {
        fs::write(&path, [&good[..], extra].concat()).expect("written");
        assert_eq!(kind_of_open(&path), Some(ErrorKind::Malformed), "{extra:?} at the end");
    }
    fs::write(&path, &good).expect("written");
    assert_eq!(kind_of_open(&path), None);
    // An open handle refuses too, and does not overwrite the damage.
    fs::write(&path, b"garbage").expect("written");
    assert_eq!(marks.generation(OURS).err().map(|e| e.kind()), Some(ErrorKind::Malformed));
    assert_eq!(marks.raise(OURS, 8, None).err().map(|e| e.kind()), Some(ErrorKind::Malformed));
    assert_eq!(fs::read(&path).expect("read"), b"garbage");
}

// Failure K1
#[test]
fn links_folders_and_files_that_others_may_write_are_refused() {
    let (folder, path) = folder();
    let real = folder.path().join("real");
    open(&real).raise(OURS, 1, None).expect("raised");
    symlink(&real, &path).expect("linked");
    assert_eq!(kind_of_open(&path), Some(ErrorKind::Io), "a link");
    fs::remove_file(&path).expect("removed");
    fs::create_dir(&path).expect("a folder");
    assert_eq!(kind_of_open(&path), Some(ErrorKind::Io), "a folder");
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&real, fs::Permissions::from_mode(mode)).expect("changed");
        let error = FileHighWater::open(&real).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

/// Where the line that starts with `prefix` ends.
fn end_of(text: &[u8], prefix: &[u8]) -> usize {
    let mut end = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.starts_with(prefix) {
            return end;
        }
    }
    panic!("no such line");
}

fn flip_every_bit(path: &Path, good: &[u8]) {
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_owned();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, &bad).expect("written");
        // The version digit may turn into a greater one.
        let kind = kind_of_open(path);
        let newer = bad.starts_with(b"keyfold-high-water ") && kind == Some(ErrorKind::Unsupported);
        assert!(kind == Some(ErrorKind::Malformed) || newer, "bit {bit}: {kind:?}");
    }
}

/// Written by version 1, which had no log.
const OLD: &str = "keyfold-high-water 1
01010101010101010101010101010101 generation 7
01010101010101010101010101010101 key 000000010101010101010101010101010101010101010101 3 deactivated
02020202020202020202020202020202 generation 9
sha256 551220401a2609ffb3f606568f98c674f684985606df3655546a0477ba99f8ab
";

// Failure C24
#[test]
fn a_file_of_version_1_is_read_checked_and_written_again() {
    let (_folder, path) = folder();
    for len in 0..OLD.len() {
        fs::write(&path, &OLD[..len]).expect("written");
        assert_eq!(kind_of_open(&path), Some(ErrorKind::Malformed), "{len} bytes");
    }
    flip_every_bit(&path, OLD.as_bytes());
    for extra in ["\n", "x", "\0"] {
        fs::write(&path, format!("{OLD}{extra}")).expect("written");
        assert_eq!(kind_of_open(&path), Some(ErrorKind::Malformed), "{extra:?} at the end");
    }
    fs::write(&path, OLD).expect("written");
    let marks = open(&path);
    assert_eq!(marks.generation(OURS).expect("read"), 7);
    assert_eq!(fs::read_to_string(&path).expect("read"), OLD, "reading changes nothing");
    marks.raise(OURS, 8, None).expect("raised");
    assert!(fs::read_to_string(&path).expect("read").starts_with("keyfold-high-water 2\n"));
    for marks in [&marks, &open(&path)] {
        assert_eq!(marks.generation(OURS).expect("read"), 8);
        assert_eq!(marks.generation(THEIRS).expect("read"), 9);
        assert_eq!(marks.mark(OURS, key(1)).expect("read"), Some(mark(3, KeyState::Deactivated)));
    }
}

fn hex_digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one process takes another one takes, and the next start.
#[test]
fn a_log_behind_a_file_of_version_1_is_damage_also_for_who_has_it_open() {
    let (_folder, path) = folder();
    fs::write(&path, OLD).expect("written");
    let marks = open(&path);
    let entry = format!("{OURS} generation 8");
    let with_entry = |file: &str| {
        let link = hex_digest(format!("{}{entry}", &file[file.len() - 17..file.len() - 1]));
        format!("{file}{entry} {}\n", &link[..16])
    };
    fs::write(&path, with_entry(OLD)).expect("written");
    assert_eq!(kind_of_open(&path), Some(ErrorKind::Malformed));
    assert_eq!(marks.generation(OURS).map_err(|error| error.kind()), Err(ErrorKind::Malformed));
    // With a log it is one that goes on.
    let newer = OLD.replacen("water 1", "water 2", 1);
    let checksum = OLD.rfind("sha256").expect("it has one");
    let newer = format!("{}sha256 {}\n", &newer[..checksum], hex_digest(&newer[..checksum]));
    fs::write(&path, &newer).expect("written");
    let marks = open(&path);
    fs::write(&path, with_entry(&newer)).expect("written");
    assert_eq!(marks.generation(OURS).expect("read"), 8);
}
