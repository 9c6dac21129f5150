//! Files with marks of a machine: refused, or no mark of theirs is lost, and nothing else counts.

use crate::edit::set_from_end;
use crate::memory::bounded;
use arbitrary::{Arbitrary, Unstructured};
use data_encoding::HEXLOWER;
use keyfold::wire::{Generation, KeyId};
use keyfold::{ErrorKind, HighWater, HighWaterMark, KeyState, Lineage};
use keyfold_store::FileHighWater;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

/// What a line says.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum What {
    Generation(Generation),
    Key { key: u8, sequence: u64, state: u8 },
}

/// A line of the log, as it should be or not.
#[derive(Arbitrary, Debug)]
enum Line {
    Entry(u8, What),
    Text(String),
    /// Links to nothing.
    Loose(Vec<u8>),
    /// Blocks that did not reach the disk.
    Zeros(u8),
    /// A byte of what stands before is another one.
    Damage {
        at: u16,
        byte: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct File {
    is_old: bool,
    known: Vec<(u8, What)>,
    log: Vec<Line>,
    tail: Vec<u8>,
    /// How much of it is there when it is read first.
    read_first: u16,
    /// What is raised at the end.
    raised: Option<(u8, u8, u64)>,
}

/// What is in force of a keyring: the highest generation, and the marks of keys.
type Marks = BTreeMap<Lineage, (Generation, BTreeMap<KeyId, HighWaterMark>)>;

/// Reads the bytes as a file, and as a description of one whose checksum and links are right.
pub fn run(data: &[u8]) {
    check(data, data.len() / 2, None);
    let Ok(file) = File::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let raised = file.raised.map(|(lineage, key, sequence)| (lineage_of(lineage), key_of(key), sequence));
    check(&write(&file), file.read_first.into(), raised);
}

/// The file of this process.
fn path() -> &'static Path {
    static PLACE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PLACE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("high-water");
        (folder, path)
    });
    path
}

fn check(bytes: &[u8], read_first: usize, raised: Option<(Lineage, KeyId, u64)>) {
    let (path, first) = (path(), read_first.min(bytes.len()));
    fs::write(path, &bytes[..first]).expect("written");
    let earlier = bounded(first, 16, || FileHighWater::open(path));
    OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(&bytes[first..])).expect("added");
    let marks = match bounded(bytes.len(), 16, || FileHighWater::open(path)) {
        Ok(marks) => marks,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported), "{error}");
            assert!(!naive(bytes).is_some_and(|(_, rest)| rest.is_empty()), "a good file was refused: {error}");
            // Nor does a process go on with it that knew its beginning.
            assert!(earlier.is_err() || earlier.is_ok_and(|earlier| earlier.generation(lineage_of(0)).is_err()));
            return;
        }
    };
    let (expected, rest) = naive(bytes).expect("what is accepted begins as a good file does");
    // At most what a crash left of the last line.
    let ends = rest.iter().filter(|byte| **byte == b'\n').count();
    assert!(
        rest.is_empty() || ends == 0 || ends == 1 && rest[0] == 0 && rest.ends_with(b"\n"),
        "lines were passed over"
    );
    let all = |marks: &FileHighWater| -> Marks {
        let of = |lineage| (lineage, marks.marks(lineage).expect("it was read before"));
        expected.keys().map(|lineage| of(*lineage)).map(|(l, (n, keys))| (l, (n, keys.into_iter().collect()))).collect()
    };
    assert!(all(&marks) == expected, "other marks than those of the file");
    if let Ok(earlier) = &earlier {
        assert!(all(earlier) == expected, "what was added reads otherwise than the whole");
    }
    let Some((lineage, key_id, sequence)) = raised else { return };
    // What is added follows what is whole.
    let mark = HighWaterMark { sequence, state: KeyState::Active };
    marks.raise(lineage, 1, Some((key_id, mark))).expect("raised");
    let again = FileHighWater::open(path).expect("what is written is read");
    let highest =
        |known: Option<&HighWaterMark>| known.filter(|known| known.sequence >= sequence).copied().unwrap_or(mark);
    let (generation, keys) = again.marks(lineage).expect("it was read");
    let known = expected.get(&lineage);
    assert_eq!(generation, known.map_or(0, |known| known.0).max(1));
    let known = known.and_then(|known| known.1.get(&key_id));
    assert_eq!(keys.iter().find(|(of, _)| *of == key_id).map(|(_, mark)| *mark), Some(highest(known)));
    for (of, (generation, keys)) in expected {
        let (found, marks) = again.marks(of).expect("it was read");
        let kept = keys
            .iter()
            .filter(|(id, _)| (of, **id) != (lineage, key_id))
            .all(|(id, mark)| marks.contains(&(*id, *mark)));
        assert!(kept && found >= generation, "a mark was lost");
    }
}

/// What is in force by the words of `FileHighWater`, and what follows the last line that fits; `None`: the lines up to the checksum do not.
fn naive(bytes: &[u8]) -> Option<(Marks, &[u8])> {
    let mut rest = bytes;
    let mut marks = Marks::new();
    let is_old = match next(&mut rest)? {
        "keyfold-high-water 1" => true,
        "keyfold-high-water 2" => false,
        _ => return None,
    };
    let mut before: Option<(Lineage, Option<KeyId>)> = None;
    let checksum = loop {
        let hashed = &bytes[..bytes.len() - rest.len()];
        let line = next(&mut rest)?;
        if let Some(checksum) = line.strip_prefix("sha256 ") {
            break (checksum == HEXLOWER.encode(&Sha256::digest(hashed))).then_some(checksum)?;
        }
        let place = raise(&mut marks, line)?;
        let begins = before.is_none_or(|(lineage, _)| lineage != place.0);
        if before.is_some_and(|before| place <= before) || begins != place.1.is_none() {
            return None;
        }
        before = Some(place);
    };
    let mut link = checksum[48..].to_owned();
    loop {
        let mut after = rest;
        let entry = if is_old { None } else { next(&mut after).and_then(|line| line.rsplit_once(' ')) };
        let Some((entry, found)) = entry.filter(|(entry, found)| *found == next_link(&link, entry)) else { break };
        if raise(&mut marks, entry).is_none() {
            break;
        }
        (link, rest) = (found.to_owned(), after);
    }
    (!is_old || rest.is_empty()).then_some((marks, rest))
}

/// A line that has its end, without it.
fn next<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = &rest[..end];
    *rest = &rest[end + 1..];
    std::str::from_utf8(line).ok()
}

/// Counts a line in, and says where it belongs; `None`: it is none.
fn raise(marks: &mut Marks, line: &str) -> Option<(Lineage, Option<KeyId>)> {
    let words: Vec<&str> = line.split(' ').collect();
    let lineage: Lineage = words[0].parse().ok()?;
    match words[1..] {
        ["generation", number] => {
            let generation: Generation = number.parse().ok()?;
            if line != format!("{lineage} generation {generation}") {
                return None;
            }
            let known = &mut marks.entry(lineage).or_default().0;
            *known = generation.max(*known);
            Some((lineage, None))
        }
        ["key", key_id, sequence, state] => {
            let (key_id, sequence): (KeyId, u64) = (key_id.parse().ok()?, sequence.parse().ok()?);
            let state = KeyState::ALL.into_iter().find(|known| known.name() == state)?;
            if line != format!("{lineage} key {key_id} {sequence} {}", state.name()) {
                return None;
            }
            let mark = HighWaterMark { sequence, state };
            let known = marks.entry(lineage).or_default().1.entry(key_id).or_insert(mark);
            if known.sequence < sequence {
                *known = mark;
            }
            Some((lineage, Some(key_id)))
        }
        _ => None,
    }
}

/// A file as the documentation of `FileHighWater` says it.
fn write(file: &File) -> Vec<u8> {
    let mut known = BTreeMap::new();
    for (lineage, what) in &file.known {
        let lineage = lineage_of(*lineage);
        known.entry((lineage, None)).or_insert(What::Generation(0));
        match what {
            What::Generation(_) => known.insert((lineage, None), *what),
            What::Key { key, .. } => known.insert((lineage, Some(key_of(*key))), *what),
        };
    }
    let mut out = format!("keyfold-high-water {}\n", if file.is_old { 1 } else { 2 }).into_bytes();
    for ((lineage, _), what) in known {
        out.extend_from_slice(format!("{}\n", entry(lineage, what)).as_bytes());
    }
    let checksum = HEXLOWER.encode(&Sha256::digest(&out));
    out.extend_from_slice(format!("sha256 {checksum}\n").as_bytes());
    let mut link = checksum[48..].to_owned();
    for line in &file.log {
        let entry = match line {
            Line::Entry(lineage, what) => entry(lineage_of(*lineage), *what),
            Line::Text(text) => text.clone(),
            Line::Loose(bytes) => {
                out.extend_from_slice(bytes);
                out.push(b'\n');
                continue;
            }
            Line::Zeros(len) => {
                out.extend(std::iter::repeat_n(0, usize::from(*len)));
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
    out.extend_from_slice(&file.tail);
    out
}

fn entry(lineage: Lineage, what: What) -> String {
    match what {
        What::Generation(generation) => format!("{lineage} generation {generation}"),
        What::Key { key, sequence, state } => {
            let state = KeyState::ALL[usize::from(state) % KeyState::ALL.len()];
            format!("{lineage} key {} {sequence} {}", key_of(key), state.name())
        }
    }
}

fn lineage_of(number: u8) -> Lineage {
    Lineage::from_bytes([number % 4; 16])
}

fn key_of(number: u8) -> KeyId {
    KeyId::new(u32::from(number % 16), &[7; 32])
}

fn next_link(link: &str, entry: &str) -> String {
    HEXLOWER.encode(&Sha256::new().chain_update(link).chain_update(entry).finalize()[..8])
}
