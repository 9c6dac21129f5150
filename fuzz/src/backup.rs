//! Backups and journals of key records: one spelling of each, and every changed byte shows.

use crate::edit::set_from_end;
use crate::memory::bounded;
use crate::world::members;
use arbitrary::{Arbitrary, Unstructured};
use data_encoding::HEXLOWER;
use keyfold::{CopyStatus, Record};
use keyfold_store::{BackupWriter, parse_records};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// A line, as it should be or not.
#[derive(Arbitrary, Debug)]
enum Line {
    Record(u8),
    Intent(u8),
    Commit(u8),
    Abort(u8),
    Generation {
        lineage: u8,
        number: u32,
    },
    Text(String),
    /// Links to nothing.
    Loose(String),
    /// A byte of the line before is another one.
    Damage {
        at: u16,
        byte: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct File {
    is_journal: bool,
    lines: Vec<Line>,
    ends: bool,
    tail: Vec<u8>,
}

/// Reads the bytes as a file, and as a description of one whose links are right.
pub fn run(data: &[u8]) {
    check(data);
    let Ok(file) = File::arbitrary_take_rest(Unstructured::new(data)) else { return };
    check(&write(&file));
}

fn records() -> &'static [Record] {
    static RECORDS: OnceLock<Vec<Record>> = OnceLock::new();
    RECORDS.get_or_init(|| {
        members().iter().map(|member| Record::parse(&member.parts.to_bytes()).expect("a record")).collect()
    })
}

/// What is accepted of a backup is what a writer writes of it.
fn check(bytes: &[u8]) {
    let Ok(found) = bounded(bytes.len(), 16, || parse_records(bytes)) else { return };
    let is_backup = bytes.starts_with(b"keyfold-records 1 backup\n");
    assert!(is_backup || bytes.starts_with(b"keyfold-records 1 journal "));
    let mut lines =
        bytes.split_inclusive(|byte| *byte == b'\n').map(|line| std::str::from_utf8(line).ok()?.strip_suffix('\n'));
    let mut link = next_link("0000000000000000", lines.next().flatten().expect("a first line"));
    let mut last_is_good = true;
    for line in lines {
        // Only the last line of a journal may be what a crash left of one.
        assert!(last_is_good, "a line behind one that is damaged");
        let entry = line.and_then(|line| line.rsplit_once(' '));
        last_is_good = entry.is_some_and(|(entry, found)| found == next_link(&link, entry));
        link = entry.map_or(link, |(_, found)| found.to_owned());
    }
    assert!(last_is_good || !is_backup, "a line that does not link");
    if !is_backup {
        return;
    }
    let is_stored = found.copies.iter().all(|copy| copy.status == CopyStatus::Stored);
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    if is_stored && found.generations.is_empty() && found.copies.len() + 2 == lines {
        let mut writer = BackupWriter::new(Vec::new()).expect("memory takes all");
        found.copies.iter().for_each(|copy| writer.add(&copy.record).expect("memory takes all"));
        let (again, count) = writer.finish().expect("memory takes all");
        assert_eq!((again.len(), count), (bytes.len(), found.copies.len() as u64));
        let again = parse_records(&again).expect("what is written is read");
        assert_eq!(again.copies.len(), found.copies.len());
    }
}

/// A file as appendix D of FORMAT.md says it.
fn write(file: &File) -> Vec<u8> {
    let first = match file.is_journal {
        true => format!("keyfold-records 1 journal {:020}", 0),
        false => "keyfold-records 1 backup".to_owned(),
    };
    let mut link = next_link("0000000000000000", &first);
    let mut out = format!("{first}\n").into_bytes();
    let mut count = 0;
    for line in &file.lines {
        let record = |index: &u8| &records()[usize::from(*index) % records().len()];
        let digest = |index: &u8| HEXLOWER.encode(&Sha256::digest(record(index).as_bytes())[..16]);
        let entry = match line {
            Line::Record(index) => {
                count += 1;
                format!("record {}", HEXLOWER.encode(record(index).as_bytes()))
            }
            Line::Intent(index) => format!("intent {}", HEXLOWER.encode(record(index).as_bytes())),
            Line::Commit(index) => format!("commit {}", digest(index)),
            Line::Abort(index) => format!("abort {}", digest(index)),
            Line::Generation { lineage, number } => format!("generation {:032x} {number}", lineage),
            Line::Text(text) => text.clone(),
            Line::Loose(text) => {
                out.extend_from_slice(text.as_bytes());
                out.push(b'\n');
                continue;
            }
            Line::Damage { at, byte } => {
                set_from_end(&mut out, *at, *byte);
                continue;
            }
        };
        link = next_link(&link, &entry);
        out.extend_from_slice(format!("{entry} {link}\n").as_bytes());
    }
    if file.ends {
        let entry = format!("end {count} {}", HEXLOWER.encode(&Sha256::digest(&out)));
        out.extend_from_slice(format!("{entry} {}\n", next_link(&link, &entry)).as_bytes());
    }
    out.extend_from_slice(&file.tail);
    out
}

fn next_link(link: &str, entry: &str) -> String {
    HEXLOWER.encode(&Sha256::new().chain_update(link).chain_update(entry).finalize()[..8])
}
