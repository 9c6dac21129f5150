//! What the file of marks costs, whatever somebody has put into it.

#[path = "../../core/tests/support/bounds.rs"]
mod bounds;

use bounds::{Change, MAX_EXTRA_ALLOCATION, allocated, every_change};
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWater, HighWaterMark, KeyState, Lineage};
use keyfold_store::FileHighWater;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OURS: Lineage = Lineage::from_bytes([1; 16]);

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("high-water");
    (folder, path)
}

fn key(number: u32) -> KeyId {
    KeyId::new(number, &[7; 32])
}

fn mark(sequence: u64) -> HighWaterMark {
    HighWaterMark { sequence, state: KeyState::Deactivated }
}

/// What the file says of a keyring.
fn marks(path: &Path) -> Result<(Generation, Vec<(KeyId, HighWaterMark)>), Error> {
    FileHighWater::open(path)?.marks(OURS)
}

/// Of a file with marks before its checksum and after it. A log that ends early cannot be told from one that went no further.
#[test]
fn no_change_of_the_file_costs_more_than_1_mib_and_50_ms_and_none_loses_a_mark_but_at_its_end() {
    let (_folder, path) = folder();
    let raise = |number, sequence| {
        let marks = FileHighWater::open(&path).expect("opened");
        marks.raise(OURS, number, Some((key(number), mark(sequence)))).expect("raised");
        fs::metadata(&path).expect("metadata").len() as usize
    };
    raise(1, 2);
    raise(2, 1);
    // Compacted: all that is known stands before the checksum.
    FileHighWater::open(&path).expect("opened").start_over(OURS, |_, mark| Some(mark)).expect("written again");
    let begin = fs::metadata(&path).expect("metadata").len() as usize;
    let ends = [begin, raise(3, 1), raise(1, 5), raise(4, 1)];
    let good = fs::read(&path).expect("read");
    // What each whole line of the log adds, a generation alone where a key follows it.
    let at = |len: usize| {
        fs::write(&path, &good[..len]).expect("written");
        marks(&path).expect("whole lines")
    };
    let lines: Vec<usize> = (begin..=good.len()).filter(|len| good[..*len].ends_with(b"\n")).collect();
    assert!(ends.iter().all(|end| lines.contains(end)) && lines.len() == 6, "{ends:?}, {lines:?}");
    let known: Vec<_> = lines.iter().map(|len| (*len, at(*len))).collect();
    fs::write(&path, &good).expect("written");
    let last = &known[known.len() - 1].1;
    assert_eq!((last.0, last.1.len()), (4, 4));

    every_change(
        "high-water file",
        &good,
        |bytes| {
            fs::write(&path, bytes).expect("written");
            marks(&path)
        },
        |change, bytes, found| {
            let expected = match change {
                Change::Length(_) => known.iter().rev().find(|(len, _)| *len <= bytes.len()).map(|(_, marks)| marks),
                Change::Bit(_) => None,
            };
            match (&found, expected) {
                (Ok(found), Some(expected)) => assert!(found == expected, "{change}: other marks"),
                (Err(error), None) => {
                    let kinds = [ErrorKind::Malformed, ErrorKind::Unsupported];
                    assert!(kinds.contains(&error.kind()), "{change}: {error}");
                }
                (found, _) => panic!("{change}: {found:?}"),
            }
            found.is_ok()
        },
    );
}

#[test]
fn a_line_without_an_end_costs_no_memory() {
    let (_folder, path) = folder();
    let filled = |byte: u8| vec![byte; 16 << 20];
    let first = b"keyfold-high-water 2\n".to_vec();
    for bytes in [filled(b'a'), filled(0), [first.clone(), filled(b'0')].concat(), [first, filled(b'\n')].concat()] {
        fs::write(&path, bytes).expect("written");
        let (found, memory) = allocated(|| marks(&path));
        assert_eq!(found.map_err(|error| error.kind()), Err(ErrorKind::Malformed));
        assert!(memory <= MAX_EXTRA_ALLOCATION, "{memory} bytes");
    }
}

/// Whoever may write the file may make it long: what it takes to open grows with it, and not faster.
#[test]
fn a_long_file_costs_memory_in_proportion() {
    let (_folder, path) = folder();
    let mut worst = 0;
    for count in [1000, 100_000] {
        let mut text = format!("keyfold-high-water 2\n{OURS} generation {count}\n");
        for number in 1..=count {
            writeln!(text, "{OURS} key {} 1 active", key(number)).expect("memory takes all");
        }
        let checksum = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        writeln!(text, "sha256 {checksum}").expect("memory takes all");
        fs::write(&path, &text).expect("written");
        let (opened, memory) = allocated(|| FileHighWater::open(&path));
        assert_eq!(opened.and_then(|marks| marks.generation(OURS)).map_err(|error| error.kind()), Ok(count));
        assert!(memory <= 8 * text.len() + MAX_EXTRA_ALLOCATION, "{memory} bytes for a file of {}", text.len());
        worst = worst.max(memory.div_ceil(text.len()));
    }
    println!("at most {worst} times the length of the file, all that was allocated on the way counted");
}
