//! The lines of a file with marks. [`FileHighWater`](super::FileHighWater) says what they mean.

use crate::lines::{Failed, Lines, settled};
use data_encoding::HEXLOWER;
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWaterMark, KeyState, Lineage, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};

const FIRST_LINE: &str = "keyfold-high-water 2";
/// Whoever wrote this knew no log: nothing follows the checksum.
const OLD_FIRST_LINE: &str = "keyfold-high-water 1";
const CHECKSUM_PREFIX: &str = "sha256 ";
/// Longer than every line that is written, with its end.
const MAX_LINE_LEN: u64 = 256;
/// About what a mark takes in the file, so that its size says how much of it is out of date.
const LINE_LEN: u64 = 112;

/// What is known of all keyrings.
#[derive(Debug, Default)]
pub(super) struct Marks(pub(super) BTreeMap<Lineage, LineageMarks>);

#[derive(Debug, Default)]
pub(super) struct LineageMarks {
    pub(super) generation: Generation,
    pub(super) keys: BTreeMap<KeyId, HighWaterMark>,
}

/// What one line says.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) lineage: Lineage,
    pub(super) what: What,
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Generation(Generation),
    Key(KeyId, HighWaterMark),
}

impl Marks {
    pub(super) fn raise(&mut self, Entry { lineage, what }: Entry) {
        let marks = self.0.entry(lineage).or_default();
        match what {
            What::Generation(generation) => marks.generation = marks.generation.max(generation),
            What::Key(key_id, mark) => {
                let known = marks.keys.entry(key_id).or_insert(mark);
                if mark.sequence > known.sequence {
                    *known = mark;
                }
            }
        }
    }

    /// Whether the entry would change something.
    pub(super) fn is_news(&self, Entry { lineage, what }: Entry) -> bool {
        let marks = self.0.get(&lineage);
        match what {
            What::Generation(generation) => generation > marks.map_or(0, |marks| marks.generation),
            What::Key(key_id, mark) => {
                marks.and_then(|marks| marks.keys.get(&key_id)).is_none_or(|known| mark.sequence > known.sequence)
            }
        }
    }

    /// All of it, in the order of the file.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        self.0.iter().flat_map(|(&lineage, marks)| {
            let keys = marks.keys.iter().map(|(key_id, mark)| What::Key(*key_id, *mark));
            std::iter::once(What::Generation(marks.generation)).chain(keys).map(move |what| Entry { lineage, what })
        })
    }

    /// Raises these by `older`. Whether that held all of what was known already.
    pub(super) fn merge(&mut self, older: &Self) -> bool {
        let mut complete = true;
        for entry in older.entries() {
            // A lineage whose generation is 0 is no news.
            if self.is_news(entry) {
                complete = false;
                self.raise(entry);
            }
        }
        complete
    }

    /// About how many bytes the file has when nothing in it is out of date.
    pub(super) fn file_len(&self) -> u64 {
        self.0.values().map(|marks| LINE_LEN * (1 + marks.keys.len() as u64)).sum()
    }

    /// Writes a file without a log.
    pub(super) fn write(&self, out: impl Write) -> io::Result<()> {
        let mut out = Hashing { out: io::BufWriter::new(out), hash: Sha256::new() };
        writeln!(out, "{FIRST_LINE}")?;
        for entry in self.entries() {
            writeln!(out, "{entry}")?;
        }
        let Hashing { mut out, hash } = out;
        writeln!(out, "{CHECKSUM_PREFIX}{}", HEXLOWER.encode(&hash.finalize()))?;
        out.flush()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lineage = self.lineage;
        match self.what {
            What::Generation(generation) => write!(f, "{lineage} generation {generation}"),
            What::Key(key_id, HighWaterMark { sequence, state }) => {
                write!(f, "{lineage} key {key_id} {sequence} {}", state.name())
            }
        }
    }
}

impl Entry {
    /// There is one accepted spelling of every entry.
    fn parse(text: &str) -> Option<Self> {
        let (lineage, rest) = text.split_once(' ')?;
        let mut parts = rest.split(' ');
        let what = match parts.next()? {
            "generation" => What::Generation(parts.next()?.parse().ok()?),
            "key" => {
                let (key_id, sequence, state) = (parts.next()?, parts.next()?, parts.next()?);
                let state = KeyState::ALL.into_iter().find(|known| known.name() == state)?;
                What::Key(key_id.parse().ok()?, HighWaterMark { sequence: sequence.parse().ok()?, state })
            }
            _ => return None,
        };
        let entry = Self { lineage: lineage.parse().ok()?, what };
        (entry.to_string() == text).then_some(entry)
    }
}

/// The last characters of the last line. As each line of the log is checked together with those of the line before,
/// they stand for everything before them.
pub(super) type Link = [u8; LINK_LEN];
pub(super) const LINK_LEN: usize = 16;

fn next_link(link: &Link, entry: &str) -> Link {
    let hash = Sha256::new().chain_update(link).chain_update(entry).finalize();
    let mut next = [0; LINK_LEN];
    HEXLOWER.encode_mut(&hash[..LINK_LEN / 2], &mut next);
    next
}

/// Adds a line of the log to `text`.
pub(super) fn push_line(text: &mut Vec<u8>, link: &mut Link, entry: Entry) {
    let entry = entry.to_string();
    *link = next_link(link, &entry);
    text.extend_from_slice(entry.as_bytes());
    text.push(b' ');
    text.extend_from_slice(link);
    text.push(b'\n');
}

/// A file with marks, as far as it is whole.
pub(super) struct Whole {
    pub(super) marks: Marks,
    pub(super) end: u64,
    pub(super) link: Link,
    /// Whether a log may follow.
    pub(super) has_log: bool,
}

/// Reads a file.
pub(super) fn read(text: impl BufRead) -> io::Result<Result<Whole>> {
    let mut lines = Lines::new(text, MAX_LINE_LEN);
    settled(read_all(&mut lines))
}

/// Reads what was added to the log since `link` ended at 0, into `marks`, and moves `link` on. Returns where it ends.
pub(super) fn read_added(text: impl BufRead, link: &mut Link, marks: &mut Marks) -> io::Result<Result<u64>> {
    let mut lines = Lines::new(text, MAX_LINE_LEN);
    settled(read_log(&mut lines, link, marks).map(|()| lines.end))
}

fn damaged(why: impl AsRef<str>) -> Failed {
    const DAMAGED: Error =
        Error::new(ErrorKind::Malformed, "the high-water file is damaged (docs/BACKUP.md, A damaged high-water file)");
    Failed::Refused(DAMAGED.with_detail(why))
}

fn read_all(lines: &mut Lines<impl BufRead>) -> Result<Whole, Failed> {
    let has_log = match next_whole(lines)?.ok_or_else(|| damaged("it is cut off"))? {
        FIRST_LINE => true,
        OLD_FIRST_LINE => false,
        other => {
            let version = other.strip_prefix("keyfold-high-water ").and_then(|version| version.parse::<u32>().ok());
            return Err(match version {
                Some(version) if version > 2 => Failed::Refused(Error::new(
                    ErrorKind::Unsupported,
                    "the high-water file was written by a newer keyfold",
                )),
                _ => damaged("it does not start like one"),
            });
        }
    };
    let mut hash = Sha256::new().chain_update(if has_log { FIRST_LINE } else { OLD_FIRST_LINE }).chain_update("\n");
    let mut marks = Marks::default();
    let mut last: Option<(Lineage, Option<KeyId>)> = None;
    let checksum = loop {
        let number = lines.number + 1;
        let line = next_whole(lines)?.ok_or_else(|| damaged("it is cut off"))?;
        if let Some(checksum) = line.strip_prefix(CHECKSUM_PREFIX) {
            break checksum;
        }
        hash = hash.chain_update(line).chain_update("\n");
        let entry = Entry::parse(line).ok_or_else(|| damaged(format!("line {number}")))?;
        let place = match entry.what {
            What::Generation(_) => (entry.lineage, None),
            What::Key(key_id, _) => (entry.lineage, Some(key_id)),
        };
        let starts_lineage = last.is_none_or(|(lineage, _)| lineage != entry.lineage);
        if last.is_some_and(|last| place <= last) || starts_lineage != place.1.is_none() {
            return Err(damaged(format!("line {number} is not where keyfold writes it")));
        }
        last = Some(place);
        marks.raise(entry);
    };
    if checksum != HEXLOWER.encode(&hash.finalize()) {
        return Err(damaged("its checksum is not that of its lines"));
    }
    let mut link = [0; LINK_LEN];
    link.copy_from_slice(&checksum.as_bytes()[checksum.len() - LINK_LEN..]);
    if has_log {
        read_log(lines, &mut link, &mut marks)?;
    } else if lines.next()?.is_some() {
        return Err(damaged("something follows its checksum"));
    }
    Ok(Whole { marks, end: lines.end, link, has_log })
}

/// Reads up to the end, or to a last line that whoever crashed had not finished.
fn read_log(lines: &mut Lines<impl BufRead>, link: &mut Link, marks: &mut Marks) -> Result<(), Failed> {
    let parse = |link: &Link, line: &[u8]| {
        let (entry, found) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
        let next = next_link(link, entry);
        (found.as_bytes() == next).then_some((Entry::parse(entry)?, next))
    };
    loop {
        let start = lines.end;
        let Some(line) = lines.next()? else { return Ok(()) };
        let (line, ended) = match line.split_last() {
            Some((b'\n', line)) => (line, true),
            _ => (line, false),
        };
        if ended && let Some((entry, next)) = parse(link, line) {
            marks.raise(entry);
            *link = next;
            continue;
        }
        // Blocks of the line that did not reach the disk are cut off, or zeros.
        let torn = match line {
            [0, ..] => true,
            [.., 0] => !ended,
            // Somebody finished this line: what stands in place of its end is damage.
            [line @ .., _] => !ended && parse(link, line).is_none(),
            [] => false,
        };
        let number = lines.number;
        if torn && lines.next()?.is_none() {
            lines.end = start;
            return Ok(());
        }
        return Err(damaged(format!("line {number}")));
    }
}

/// The next line without its end; `None` where that is missing.
fn next_whole(lines: &mut Lines<impl BufRead>) -> Result<Option<&str>, Failed> {
    let line = lines.next()?.and_then(|line| line.strip_suffix(b"\n"));
    line.map(|line| std::str::from_utf8(line).map_err(|_| damaged("it is not text"))).transpose()
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.hash.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
