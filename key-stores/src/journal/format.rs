//! The lines of journals and backups (FORMAT.md, Appendix D). [`Journal`](super::Journal) says what they mean.

use crate::lines::{Failed, Lines, settled};
use data_encoding::HEXLOWER;
use keyfold::wire::{Generation, KeyId};
use keyfold::{CopyStatus, Error, ErrorKind, KeyState, Lineage, Record, RecordCopy, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};

/// The start of the first line, before the version.
const NAME: &str = "keyfold-records ";
const VERSION: u32 = 1;
/// Longest line with its end: a record of 40 KiB in hexadecimal, and what stands around it.
pub(super) const MAX_LINE_LEN: u64 = 2 * 40 * 1024 + 64;
/// Digits of the length in a journal's first line, so that it has the same length whatever it says.
const LEN_DIGITS: usize = 20;
/// Digits of a record's SHA-256 by which a later line names it.
const DIGEST_LEN: usize = 32;

/// The last characters of the last line. As each line is checked together with those of the line before, they stand for
/// everything before them.
pub(super) type Link = [u8; LINK_LEN];
pub(super) const LINK_LEN: usize = 16;

/// What one line says.
#[derive(Clone)]
pub(super) enum Entry {
    /// The store had the record when the file was written.
    Stored(Record),
    /// The record is to be stored.
    Intended(Record),
    /// The record that was to be stored was.
    Done(Digest32),
    /// The store refused it.
    Refused(Digest32),
    /// A generation of the keyring that was used.
    Generation(Lineage, Generation),
    /// Closes a backup: how many records it has, and the SHA-256 of all lines before.
    End(u64, [u8; 32]),
}

/// The start of the SHA-256 of a record, in hexadecimal.
pub(super) type Digest32 = [u8; DIGEST_LEN];

pub(super) fn digest(record: &Record) -> Digest32 {
    let mut out = [0; DIGEST_LEN];
    HEXLOWER.encode_mut(&Sha256::digest(record.as_bytes())[..DIGEST_LEN / 2], &mut out);
    out
}

impl Entry {
    fn text(&self) -> String {
        let name = |digest: &Digest32| digest.iter().map(|digit| char::from(*digit)).collect::<String>();
        match self {
            Self::Stored(record) => format!("record {}", HEXLOWER.encode(record.as_bytes())),
            Self::Intended(record) => format!("intent {}", HEXLOWER.encode(record.as_bytes())),
            Self::Done(digest) => format!("commit {}", name(digest)),
            Self::Refused(digest) => format!("abort {}", name(digest)),
            Self::Generation(lineage, generation) => format!("generation {lineage} {generation}"),
            Self::End(count, hash) => format!("end {count} {}", HEXLOWER.encode(hash)),
        }
    }

    /// There is one accepted spelling of every entry.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(' ')?;
        let record = || Record::parse(&HEXLOWER.decode(rest.as_bytes()).ok()?).ok();
        let digest = || rest.as_bytes().try_into().ok().filter(|digest: &Digest32| digest.iter().all(is_digit));
        let entry = match kind {
            "record" => Self::Stored(record()?),
            "intent" => Self::Intended(record()?),
            "commit" => Self::Done(digest()?),
            "abort" => Self::Refused(digest()?),
            "generation" => {
                let (lineage, generation) = rest.split_once(' ')?;
                Self::Generation(lineage.parse().ok()?, generation.parse().ok()?)
            }
            "end" => {
                let (count, hash) = rest.split_once(' ')?;
                Self::End(count.parse().ok()?, HEXLOWER.decode(hash.as_bytes()).ok()?.try_into().ok()?)
            }
            _ => return None,
        };
        (entry.text() == text).then_some(entry)
    }

    /// The length of its line.
    fn line_len(&self) -> u64 {
        let len = |record: &Record| 2 * record.as_bytes().len() + "record ".len();
        let text = match self {
            Self::Stored(record) | Self::Intended(record) => len(record),
            other => other.text().len(),
        };
        (text + 1 + LINK_LEN + 1) as u64
    }
}

fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// With how many bytes of it were written at once, when nothing in it was out of date.
    Journal(u64),
    Backup,
}

impl Kind {
    fn first_line(self) -> String {
        match self {
            Self::Journal(len) => format!("{NAME}{VERSION} journal {len:0LEN_DIGITS$}"),
            Self::Backup => format!("{NAME}{VERSION} backup"),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let kind = match line.rsplit_once(' ')? {
            (_, "backup") => Self::Backup,
            (_, len) => Self::Journal(len.parse().ok()?),
        };
        (kind.first_line() == line).then_some(kind)
    }

    /// The length of a journal's first line with its end, and what it must hold.
    pub(super) const JOURNAL_LINE_LEN: usize = NAME.len() + "1 journal ".len() + LEN_DIGITS + 1;

    // F-D-2.
    pub(super) fn of_first_line(line: &[u8]) -> Result<Self> {
        let line = std::str::from_utf8(line).unwrap_or_default();
        Self::parse(line).ok_or_else(|| {
            let version = line.strip_prefix(NAME).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
            match version {
                Some(version) if version > VERSION => {
                    Error::new(ErrorKind::Unsupported, "the journal or backup was written by a newer keyfold")
                }
                _ => damaged("it does not start like one"),
            }
        })
    }
}

pub(super) fn first_link(kind: Kind) -> Link {
    next_link(&[b'0'; LINK_LEN], &kind.first_line())
}

fn next_link(link: &Link, text: &str) -> Link {
    let hash = Sha256::new().chain_update(link).chain_update(text).finalize();
    let mut next = [0; LINK_LEN];
    HEXLOWER.encode_mut(&hash[..LINK_LEN / 2], &mut next);
    next
}

/// Adds a line to `text`.
pub(super) fn push_line(text: &mut Vec<u8>, link: &mut Link, entry: &Entry) {
    let entry = entry.text();
    *link = next_link(link, &entry);
    text.extend_from_slice(entry.as_bytes());
    text.push(b' ');
    text.extend_from_slice(link);
    text.push(b'\n');
}

/// Writes a journal that holds `entries` and nothing else.
pub(super) fn write_journal(out: impl Write, entries: &[Entry]) -> io::Result<()> {
    let kind = Kind::Journal(entries.iter().map(Entry::line_len).sum());
    let mut writer = Writer::new(io::BufWriter::new(out), kind)?;
    for entry in entries {
        writer.write(entry)?;
    }
    writer.out.flush()
}

/// Writes a file line by line.
pub(super) struct Writer<W> {
    pub(super) out: W,
    link: Link,
    hash: Sha256,
    line: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(mut out: W, kind: Kind) -> io::Result<Self> {
        let first = kind.first_line() + "\n";
        out.write_all(first.as_bytes())?;
        Ok(Self { out, link: first_link(kind), hash: Sha256::new().chain_update(first), line: Vec::new() })
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.line.clear();
        push_line(&mut self.line, &mut self.link, entry);
        self.hash.update(&self.line);
        self.out.write_all(&self.line)
    }

    /// The last line of a backup.
    pub(super) fn end(mut self, count: u64) -> io::Result<W> {
        let hash = self.hash.clone().finalize().into();
        self.write(&Entry::End(count, hash))?;
        Ok(self.out)
    }
}

/// What a file says.
#[derive(Default)]
pub(super) struct Contents {
    /// Every record that is not out of date, with what is known of it.
    pub(super) copies: Vec<RecordCopy>,
    /// The highest generation of each keyring that a line says was given out. Nobody vouches for it.
    pub(super) generations: BTreeMap<Lineage, Generation>,
}

impl Contents {
    /// What has to stay in a journal: of each key the record that the store has, those that may have followed it, and
    /// nothing else; so no wraps of a destroyed key.
    pub(super) fn entries(self) -> Vec<Entry> {
        let mut generations = self.generations;
        // Of a key that was refused its number stays.
        for RecordCopy { record, .. } in &self.copies {
            let last = generations.entry(record.lineage()).or_default();
            *last = record.key_id().generation().max(*last);
        }
        let mut entries: Vec<_> =
            generations.into_iter().map(|(lineage, last)| Entry::Generation(lineage, last)).collect();
        // Of those of one rank each: one of them may be what a damaged store had, and whoever reads them believes its MAC alone.
        let mut best: BTreeMap<(Lineage, KeyId), Vec<Record>> = BTreeMap::new();
        for RecordCopy { record, status } in &self.copies {
            if *status == CopyStatus::Stored {
                let known = best.entry((record.lineage(), record.key_id())).or_default();
                match known.first() {
                    Some(first) if first.outranks(record) || known.contains(record) => continue,
                    Some(first) if record.outranks(first) => known.clear(),
                    _ => {}
                }
                known.push(record.clone());
            }
        }
        // What the store has with the same sequence or a higher one disproves that the intent was ever stored.
        let follows = |record: &Record| {
            best.get(&(record.lineage(), record.key_id()))
                .and_then(|best| best.first())
                .is_none_or(|best| best.state() != KeyState::Destroyed && record.sequence() > best.sequence())
        };
        let intents = self.copies.iter().filter(|copy| copy.status == CopyStatus::Intended && follows(&copy.record));
        let intents: Vec<_> = intents.map(|copy| Entry::Intended(copy.record.clone())).collect();
        entries.extend(best.into_values().flatten().map(Entry::Stored));
        entries.extend(intents);
        entries
    }
}

/// Reads a file to its end, or to a last line that whoever crashed had not finished; of a backup every line must be there.
pub(super) fn read(text: impl BufRead) -> io::Result<Result<(Kind, Contents)>> {
    settled(read_all(text))
}

fn damaged(why: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Malformed, "the journal or backup is damaged (docs/BACKUP.md)").with_detail(why)
}

fn read_all(text: impl BufRead) -> Result<(Kind, Contents), Failed> {
    let mut lines = Lines::new(text, MAX_LINE_LEN);
    let Some(first) = lines.next()? else { return Err(damaged("it is empty").into()) };
    let first = first.strip_suffix(b"\n").ok_or_else(|| damaged("it is cut off in its first line"))?;
    let kind = Kind::of_first_line(first)?;
    let mut link = first_link(kind);
    let mut hash = Sha256::new().chain_update(kind.first_line()).chain_update("\n");
    let mut reading = Reading::default();
    loop {
        let number = lines.number + 1;
        let Some(line) = lines.next()? else {
            return match kind {
                Kind::Journal(_) => Ok((kind, reading.finish())),
                // F-D-4.
                Kind::Backup => Err(damaged("it is cut off: its last line is missing").into()),
            };
        };
        let whole = line.strip_suffix(b"\n").and_then(|line| parse_line(&link, line));
        let Some((entry, next)) = whole else {
            let torn = matches!(kind, Kind::Journal(_)) && is_torn(&link, line);
            let cut_off = kind == Kind::Backup && !line.ends_with(b"\n");
            if torn && lines.next()?.is_none() {
                return Ok((kind, reading.finish()));
            }
            return Err(damaged(format!("{}line {number}", if cut_off { "it is cut off in " } else { "" })).into());
        };
        if let Entry::End(count, found) = entry {
            let good = kind == Kind::Backup && count == reading.copies.len() as u64 && found[..] == hash.finalize()[..];
            if !good || lines.next()?.is_some() {
                return Err(damaged(format!("line {number} is not the end of what is before it")).into());
            }
            return Ok((kind, reading.finish()));
        }
        hash.update(line);
        link = next;
        reading.add(entry);
    }
}

/// The entry of a line without its end, and what links the next line to it.
// F-D-1.
pub(super) fn parse_line(link: &Link, line: &[u8]) -> Option<(Entry, Link)> {
    let (entry, next) = linked(link, line)?;
    Some((Entry::parse(entry)?, next))
}

/// As [`parse_line`], and leaves open what the entry says.
fn linked<'a>(link: &Link, line: &'a [u8]) -> Option<(&'a str, Link)> {
    let (entry, found) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
    let next = next_link(link, entry);
    (found.as_bytes() == next).then_some((entry, next))
}

/// Whether a last line is what a crash leaves of one: cut off, or with zeros where blocks did not reach the disk.
// F-D-3.
pub(super) fn is_torn(link: &Link, line: &[u8]) -> bool {
    match line {
        [0, ..] => true,
        [.., b'\n'] => line.windows(2).any(|pair| pair == [0, 0]),
        [.., 0] => true,
        // Somebody finished this line: what stands in place of its end is damage.
        [line @ .., _] => parse_line(link, line).is_none(),
        [] => false,
    }
}

/// Where the last whole line of a journal ends in `tail`, the end of its file, and what links the next line to it. `None`
/// if that is damaged, or a line before it of which the one before is in `tail`, too. `before_all` is what links the first line of `tail`, where nothing is in front of it.
pub(super) fn end_of(tail: &[u8], before_all: Option<Link>) -> Option<(usize, Link)> {
    let start_of =
        |line_end: usize| tail[..line_end - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let link_at = |end: usize| match end {
        0 => before_all,
        _ => tail.get(end.checked_sub(1 + LINK_LEN)?..end - 1)?.try_into().ok(),
    };
    let is_whole = |end: usize| match end {
        0 => before_all.is_some(),
        _ => {
            let start = start_of(end);
            link_at(start).is_some_and(|link| parse_line(&link, &tail[start..end - 1]).is_some())
        }
    };
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    // What has no end is torn; or, if nothing is behind it, the last line that has one, where it has holes.
    let last = if end == tail.len() && end > 0 && !is_whole(end) { start_of(end) } else { end };
    let link = link_at(last)?;
    let rest = &tail[last..];
    let sound = is_whole(last) && (rest.is_empty() || is_torn(&link, rest));
    (sound && are_linked(tail, last, before_all)).then_some((last, link))
}

/// Whether each line of `tail` up to `last` follows the one before.
fn are_linked(tail: &[u8], last: usize, before_all: Option<Link>) -> bool {
    let mut lines = tail[..last].split_inclusive(|byte| *byte == b'\n').map(|line| &line[..line.len() - 1]);
    // Of a first line that is only in part in `tail` the link may be so, too. Then they begin with the next.
    let first = before_all.or_else(|| lines.find_map(|line| line.last_chunk().copied()));
    first.is_some_and(|first| lines.try_fold(first, |link, line| linked(&link, line).map(|(_, next)| next)).is_some())
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    copies: Vec<RecordCopy>,
    intents: BTreeMap<Digest32, usize>,
    generations: BTreeMap<Lineage, Generation>,
}

impl Reading {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Stored(record) => self.add_copy(record, CopyStatus::Stored),
            Entry::Intended(record) => {
                self.intents.insert(digest(&record), self.copies.len());
                self.add_copy(record, CopyStatus::Intended);
            }
            // Of a record that was written out with the journal, later in the same file, nothing is to be learnt.
            Entry::Done(digest) => self.settle(&digest, CopyStatus::Stored),
            Entry::Refused(digest) => self.settle(&digest, CopyStatus::Refused),
            Entry::Generation(lineage, generation) => {
                let last = self.generations.entry(lineage).or_default();
                *last = generation.max(*last);
            }
            Entry::End(..) => {}
        }
    }

    fn add_copy(&mut self, record: Record, status: CopyStatus) {
        self.copies.push(RecordCopy { record, status });
    }

    fn settle(&mut self, digest: &Digest32, status: CopyStatus) {
        if let Some(copy) = self.intents.get(digest).and_then(|at| self.copies.get_mut(*at)) {
            // What was stored stays stored: somebody who tried the same once more was refused.
            copy.status = copy.status.max(status);
            if copy.status == CopyStatus::Intended {
                copy.status = status;
            }
        }
    }

    fn finish(self) -> Contents {
        Contents { copies: self.copies, generations: self.generations }
    }
}

/// The keys whose fate a file does not know.
pub(super) fn unsettled(contents: &Contents) -> Vec<Record> {
    let unsettled = contents.copies.iter().filter(|copy| copy.status == CopyStatus::Intended);
    let mut seen = BTreeSet::new();
    unsettled.map(|copy| copy.record.clone()).filter(|record| seen.insert(digest(record))).collect()
}
