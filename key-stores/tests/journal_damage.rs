//! A journal that is damaged: who changes keys, and who looks after it, finds it.

use keyfold::testing::{SampleRecord, block_on};
use keyfold::{ErrorKind, Lineage, SlotId};
use keyfold_store::Journal;
use std::fs;

fn sample(generation: u32) -> SampleRecord {
    SampleRecord::new(Lineage::from_bytes([1; 16]), generation)
        .slot(SlotId::from_bytes([generation as u8; 16]))
        .wraps(1)
}

/// Damage anywhere in the last lines, which are all of a short journal, stops who makes or changes a key; it is nothing of the caller's data.
// Failure K4
#[test]
fn whoever_changes_a_key_finds_damage_in_the_last_lines_and_a_check_up_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::new(folder.path().join("keys.journal")).expect("a folder");
    block_on(journal.create(async { Ok(Vec::new()) })).expect("made");
    for generation in 1..=4 {
        journal.intend([&sample(generation).build()]).expect("written");
        journal.settle([(&sample(generation).build(), true)]);
    }
    let whole = fs::read(journal.path()).expect("read");
    journal.check().expect("whole");
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    for at in (0..last_line).step_by(7).chain([last_line - 1]) {
        let mut text = whole.clone();
        text[at] ^= 1 << (at % 7);
        fs::write(journal.path(), &text).expect("written");
        let error = journal.intend([&sample(5).build()]).expect_err("taken behind damage");
        assert_eq!(error.kind(), ErrorKind::Io, "byte {at}: {error}");
        assert!(error.to_string().contains("no key is made or changed"), "byte {at}: {error}");
        assert_eq!(fs::read(journal.path()).expect("read"), text, "byte {at}: it was changed");
        assert!(journal.check().is_err(), "byte {at}");
    }
    // In a long one it finds what the lines that it reads have; a check-up finds everything, and makes no file.
    fs::write(journal.path(), &whole).expect("written");
    for sequence in 2..=90 {
        journal.intend([&sample(6).sequence(sequence).wraps(8).build()]).expect("written");
    }
    let long = fs::read(journal.path()).expect("read");
    assert!(long.len() > 300 * 1024, "{} bytes", long.len());
    let flipped = |at: usize| {
        let mut text = long.clone();
        text[at] ^= 1;
        fs::write(journal.path(), text).expect("written");
    };
    flipped(long.len() - 200 * 1024);
    assert_eq!(journal.intend([&sample(7).build()]).expect_err("damaged").kind(), ErrorKind::Io);
    fs::remove_file(journal.path().with_extension("journal.lock")).expect("removed");
    flipped(100);
    let error = journal.check().expect_err("damaged");
    assert!(error.to_string().contains("A damaged journal") && error.to_string().contains("line 2"), "{error}");
    assert!(!journal.path().with_extension("journal.lock").exists());
}

/// Wherever the lines that are looked at begin: in the middle of a line, of its link, or at its end.
#[test]
fn a_long_journal_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::new(folder.path().join("keys.journal")).expect("a folder");
    block_on(journal.create(async { Ok(Vec::new()) })).expect("made");
    let record = sample(1).build();
    journal.settle((0..5000).map(|_| (&record, false)));
    assert!(fs::metadata(journal.path()).expect("a file").len() > 250 * 1024);
    for at in 0..60 {
        journal.note_generation(record.lineage(), 10_u32.pow(at % 10)).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    journal.check().expect("whole");
}
