//! Every key in a second place: journals and backups.

mod format;

use crate::files::{self, io_error};
use format::{Entry, Kind, Link, MAX_LINE_LEN, digest};
use keyfold::wire::Generation;
use keyfold::{Error, ErrorKind, Lineage, Record, RecordCopy, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A journal that is shorter is not worth writing again.
const MIN_COMPACTED_LEN: u64 = 1024 * 1024;

/// A file in a second place, best on another disk, that has every key record before the store shows it. From it and a copy
/// of the store of any age no key is missing.
///
/// ```text
/// keyfold-records 1 journal LENGTH
/// record RECORD LINK
/// generation LINEAGE N LINK
/// intent RECORD LINK
/// commit DIGEST LINK
/// abort DIGEST LINK
/// ```
///
/// `record` is a record that the store had when the file was written, `intent` one that is to be stored, and is on disk
/// before the store is asked; `commit` and `abort` say what the store answered, `generation` which numbers it gave out. Records and digests, the first 16 bytes of
/// a record's SHA-256, are in lower-case hexadecimal. `LINK` is the start, 16 digits, of the SHA-256 of the 16 characters that
/// end the line before and the line up to the space before `LINK`. There is one accepted spelling of every line. A backup
/// has `backup` in its first line, `record` lines, and a last line with their number and the SHA-256 of all lines
/// before, so that one that is cut off is noticed.
///
/// A last line without its end was cut off by a crash, before the store was asked; it is ignored, and the next change cuts
/// it off, with a warning. Everything else that does not fit is damage. Who changes keys looks at the last lines alone, which are all of a
/// journal of less than 240 KiB; [`check`](Self::check) and whoever reads it look at all. Links find damage, not forgery: a keyring believes no
/// record without its root's MAC, wherever it was found. Like the store, a journal holds wrapped keys only.
///
/// Several processes and threads may use one file: a change is made under a lock on the file with `.lock` added to its name.
/// A file that has grown to more than twice what it must hold is written again: beside, synced and renamed. Nothing is kept in
/// memory. The file has mode 0600; it is refused if others may write it, or if it is a link.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

/// What a journal or a backup holds.
#[derive(Debug)]
pub struct Found {
    /// The records, with what is known of each.
    pub copies: Vec<RecordCopy>,
    /// The highest generation of each keyring that it says was given out, with a key or without. Nobody vouches for it.
    pub generations: BTreeMap<Lineage, Generation>,
}

/// Where a journal ends.
struct End {
    at: u64,
    link: Link,
    /// How much of it was not out of date when it was written.
    base: u64,
}

impl Journal {
    /// The journal at `path`. Does not look whether it is there: reading data needs none.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): its folder is missing.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = files::resolve(path).map_err(|error| io_error("cannot use the journal", path, error))?;
        Ok(Self { path })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file of that name.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// Makes the journal with the records that `records` lists, which is awaited under the lock.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): it exists, or cannot be written. - Those of `records`. There is no journal then.
    pub async fn create(&self, records: impl Future<Output = Result<Vec<Record>>>) -> Result<()> {
        let _lock = self.lock()?;
        if self.exists() {
            return Err(self.cannot("make the journal", io::ErrorKind::AlreadyExists.into()));
        }
        let entries: Vec<_> = records.await?.into_iter().map(Entry::Stored).collect();
        files::replace(&self.path, |file| format::write_journal(file, &entries))
            .map_err(|error| self.cannot("make the journal", error))
    }

    /// Everything that is in the journal.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): it is missing or cannot be read. - [`Malformed`](ErrorKind::Malformed): it is damaged, with the
    ///   line. - [`Unsupported`](ErrorKind::Unsupported): a newer version wrote it.
    pub fn read(&self) -> Result<Found> {
        let _lock = self.lock_existing()?;
        self.contents().map(|contents| Found { copies: contents.copies, generations: contents.generations })
    }

    /// Checks that every line is whole and follows the one before. Makes no file, so it takes no lock: for check-ups.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn check(&self) -> Result<()> {
        // Somebody may have been writing while it was read.
        self.contents().or_else(|_| self.contents()).map(drop)
    }

    /// Records, durably, that `records` are to be stored.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): the journal is missing, cannot be written, is damaged in its last lines, or a newer version wrote it.
    ///   None of the records may be stored.
    pub fn intend<'a>(&self, records: impl IntoIterator<Item = &'a Record>) -> Result<()> {
        let entries: Vec<_> = records.into_iter().map(|record| Entry::Intended(record.clone())).collect();
        self.append(&entries, true)
    }

    /// Notes that a generation was given out, so that one under which no key was made is not taken for a lost key.
    ///
    /// # Errors
    ///
    /// As for [`intend`](Self::intend).
    pub fn note_generation(&self, lineage: Lineage, generation: Generation) -> Result<()> {
        // Not synced: what is lost of it by a crash is a warning that is not needed.
        self.append(&[Entry::Generation(lineage, generation)], false)
    }

    /// Notes what the store answered: whether each record was stored, or refused. Where that cannot be written, a reader takes
    /// the record for one that may have been stored.
    pub fn settle<'a>(&self, answers: impl IntoIterator<Item = (&'a Record, bool)>) {
        let entry =
            |(record, stored)| if stored { Entry::Done(digest(record)) } else { Entry::Refused(digest(record)) };
        let entries: Vec<_> = answers.into_iter().map(entry).collect();
        // Not synced: the next change does that, and nothing depends on it before.
        if let Err(error) = self.append(&entries, false) {
            tracing::warn!("what became of a record was not noted: {error}");
        }
    }

    /// The records of which the journal does not say whether the store has them.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read).
    pub fn unsettled(&self) -> Result<Vec<Record>> {
        let _lock = self.lock_existing()?;
        Ok(format::unsettled(&self.contents()?))
    }

    /// Writes the journal again without what is out of date: of a destroyed key the tombstone stays and nothing else.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read) and [`intend`](Self::intend). The journal is as before.
    pub fn compact(&self) -> Result<()> {
        let _lock = self.lock_existing()?;
        self.compact_locked()
    }

    fn compact_locked(&self) -> Result<()> {
        let entries = self.contents()?.entries();
        files::replace(&self.path, |file| format::write_journal(file, &entries))
            .map_err(|error| self.cannot("write the journal again", error))
    }

    fn contents(&self) -> Result<format::Contents> {
        let read = read_file(&self.path, "cannot read the journal").map_err(|error| match error.kind() {
            ErrorKind::Malformed => DAMAGED.with_detail(error.detail()),
            _ => error,
        });
        let (kind, contents) = read?;
        match kind {
            Kind::Journal(_) => Ok(contents),
            Kind::Backup => Err(self.about(NO_JOURNAL)),
        }
    }

    fn append(&self, entries: &[Entry], sync: bool) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let _lock = self.lock_existing()?;
        let cannot_write = |error| self.cannot("write the journal", error);
        let mut file = files::open_to_append(&self.path).map_err(cannot_write)?;
        files::check_not_writable_by_others(&file, &self.path)?;
        let mut end = self.end_of(&file).map_err(unusable)?;
        let grown = end.at > MIN_COMPACTED_LEN && end.at > 2 * (end.base + MIN_COMPACTED_LEN / 2);
        if grown {
            match self.compact_locked() {
                Ok(()) => {
                    file = files::open_to_append(&self.path).map_err(cannot_write)?;
                    end = self.end_of(&file).map_err(unusable)?;
                }
                // Behind damage nothing is found again.
                Err(error) if error.kind() == ErrorKind::Malformed => return Err(unusable(error)),
                Err(error) => tracing::warn!("the journal was not compacted: {error}"),
            }
        }
        if file.metadata().map_err(cannot_write)?.len() != end.at {
            tracing::warn!(
                journal = %self.path.display(),
                "the last line of the journal was cut off, as by a crash; if the store has its record, `keyfold keys journal` adds it"
            );
            file.set_len(end.at).map_err(cannot_write)?;
        }
        let (mut text, mut link) = (Vec::new(), end.link);
        for entry in entries {
            format::push_line(&mut text, &mut link, entry);
        }
        let written = (&file).write_all(&text).and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // The first error is the one to report. A record that stays in the file and is not stored does no harm.
            let _ = file.set_len(end.at);
        }
        written.map_err(cannot_write)
    }

    /// Where the last whole line ends. Reads no more than the last lines, however long the journal is.
    fn end_of(&self, file: &File) -> Result<End> {
        let cannot_read = |error| self.cannot("read the journal", error);
        let len = file.metadata().map_err(cannot_read)?.len();
        let mut first = [0; Kind::JOURNAL_LINE_LEN];
        file.read_exact_at(&mut first, 0).map_err(|_| self.about(NO_JOURNAL))?;
        let first_line = first.strip_suffix(b"\n").ok_or_else(|| self.about(NO_JOURNAL))?;
        let kind = Kind::of_first_line(first_line).map_err(|error| named(error, &self.path))?;
        let Kind::Journal(base) = kind else { return Err(self.about(NO_JOURNAL)) };
        let start = first.len() as u64;
        // The line before the last whole one is needed too, for its link, and a torn one may follow.
        let from = len.saturating_sub(3 * MAX_LINE_LEN).max(start);
        let mut tail = vec![0; usize::try_from(len - from).unwrap_or_default()];
        file.read_exact_at(&mut tail, from).map_err(cannot_read)?;
        let before_all = (from == start).then(|| format::first_link(kind));
        let (end, link) = format::end_of(&tail, before_all).ok_or_else(|| self.about(DAMAGED))?;
        Ok(End { at: from + end as u64, link, base })
    }

    /// Holds the lock, which is not made for a journal that is missing.
    fn lock_existing(&self) -> Result<File> {
        if self.exists() { self.lock() } else { Err(self.about(MISSING)) }
    }

    /// Holds the lock between processes until the file is dropped.
    fn lock(&self) -> Result<File> {
        let locked = files::open_lock(&files::with_suffix(&self.path, ".lock")).and_then(|lock| {
            files::lock(&lock)?;
            Ok(lock)
        });
        locked.map_err(|error| self.cannot("lock the journal", error))
    }

    fn cannot(&self, what: &'static str, error: io::Error) -> Error {
        Error::new(ErrorKind::Io, "the journal cannot be used")
            .with_detail(format!("cannot {what} {}: {error}", self.path.display()))
            .with_source(error)
    }

    fn about(&self, error: Error) -> Error {
        error.with_detail(self.path.display().to_string())
    }
}

const MISSING: Error = Error::new(
    ErrorKind::Io,
    "the journal is missing, so no key is made or changed: `keyfold keys journal` makes it from the store",
);
const NO_JOURNAL: Error = Error::new(ErrorKind::Malformed, "the file is not a journal");
const DAMAGED: Error =
    Error::new(ErrorKind::Malformed, "the journal is damaged: docs/BACKUP.md, \"A damaged journal\", says what to do");

/// What is wrong with a journal, as the error of who makes or changes a key: `Malformed` would be said of the caller's data.
fn unusable(error: Error) -> Error {
    let message = match error.kind() {
        ErrorKind::Malformed => {
            "the journal is damaged, so no key is made or changed: docs/BACKUP.md, \"A damaged journal\", says what to do"
        }
        ErrorKind::Unsupported => "the journal was written by a newer keyfold, so no key is made or changed",
        _ => return error,
    };
    Error::new(ErrorKind::Io, message).with_detail(error.detail())
}

/// Writes a backup: records in the format of the journal, closed by a line with their number.
///
/// # Examples
///
/// ```
/// use keyfold_store::{BackupWriter, read_records};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("backup");
/// let backup = BackupWriter::new(std::fs::File::create(&path).unwrap()).unwrap();
/// backup.finish().unwrap();
/// assert!(read_records(&path)?.copies.is_empty());
/// # Ok::<(), keyfold::Error>(())
/// ```
#[derive(Debug)]
pub struct BackupWriter<W: Write> {
    writer: format::Writer<W>,
    count: u64,
}

impl<W: std::fmt::Debug> std::fmt::Debug for format::Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("out", &self.out).finish_non_exhaustive()
    }
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn new(out: W) -> io::Result<Self> {
        Ok(Self { writer: format::Writer::new(out, Kind::Backup)?, count: 0 })
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// Those of the output. What was written is of no use then.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        self.count += 1;
        self.writer.write(&Entry::Stored(record.clone()))
    }

    /// Closes the backup. Returns the output, which is not flushed, and the number of records.
    ///
    /// # Errors
    ///
    /// Those of the output.
    pub fn finish(self) -> io::Result<(W, u64)> {
        Ok((self.writer.end(self.count)?, self.count))
    }
}

/// Reads a backup, or a journal that nobody writes to.
///
/// # Errors
///
/// As for [`Journal::read`]; also [`Malformed`](ErrorKind::Malformed) for a backup that is cut off.
pub fn read_records(path: &Path) -> Result<Found> {
    let (_, contents) = read_file(path, "cannot read the backup")?;
    Ok(Found { copies: contents.copies, generations: contents.generations })
}

/// As [`read_records`], of a backup in memory.
///
/// # Errors
///
/// - [`Malformed`](ErrorKind::Malformed): it is no backup, or damaged or cut off.
pub fn parse_records(backup: &[u8]) -> Result<Found> {
    let contents = format::read(backup).map_err(|error| {
        Error::new(ErrorKind::Malformed, "the backup of key records cannot be read").with_source(error)
    })?;
    let (_, contents) = contents?;
    Ok(Found { copies: contents.copies, generations: contents.generations })
}

/// Whether the first line of the file is that of a backup. What cannot be read is none.
#[must_use]
pub fn is_backup(path: &Path) -> bool {
    let mut first = String::new();
    let read = files::open_regular(path).and_then(|file| BufReader::new(file.take(MAX_LINE_LEN)).read_line(&mut first));
    read.is_ok()
        && first
            .strip_suffix('\n')
            .is_some_and(|line| Kind::of_first_line(line.as_bytes()).is_ok_and(|kind| kind == Kind::Backup))
}

fn read_file(path: &Path, failed: &'static str) -> Result<(Kind, format::Contents)> {
    let cannot_read = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => io_error("the journal or backup is missing", path, error),
        _ => io_error(failed, path, error),
    };
    let file = files::open_regular(path).map_err(cannot_read)?;
    let buffered = BufReader::with_capacity(256 * 1024, file);
    format::read(buffered).map_err(cannot_read)?.map_err(|error| named(error, path))
}

fn named(error: Error, path: &Path) -> Error {
    let why = error.detail().to_owned();
    error.with_detail(format!("{}: {why}", path.display()))
}
