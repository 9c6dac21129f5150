//! Marks in a file: what this machine has seen of its keyrings.

mod format;

use crate::files::{self, io_error};
use format::{Entry, LINK_LEN, Link, Marks, What, Whole};
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWater, HighWaterMark, Lineage, Result};
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A file that is shorter is not worth writing again.
const MIN_COMPACTED_LEN: u64 = 64 * 1024;

/// Remembers in a file how far keyrings have come, so that an older copy of a key store is noticed on this machine.
///
/// ```text
/// keyfold-high-water 2
/// LINEAGE generation N
/// LINEAGE key KEY-ID SEQUENCE STATE
/// sha256 CHECKSUM
/// LINEAGE generation N LINK
/// LINEAGE key KEY-ID SEQUENCE STATE LINK
/// ```
///
/// What stands before the checksum was known when the file was made: lineages and the key IDs of one ascend. After it
/// comes a log, a line for each mark that was raised since. Lineages, key IDs and the SHA-256 of all earlier lines are
/// in lower-case hexadecimal. `LINK` is the start, 16 digits, of the SHA-256 of the 16 characters that end the line
/// before and the line up to the space before `LINK`. There is one accepted spelling of every line. Files that start with
/// `keyfold-high-water 1` end with the checksum; the next change writes them again.
///
/// A last line without its end was cut off by a crash, before anybody was told that it had been written; it is ignored, and the
/// next change cuts it off. Everything else that does not fit is damage. The checksums find damage, not forgery:
/// whoever can write the file can also delete it, or the last lines of its log. So it has mode 0600, and is refused if
/// others may write it or if it is a link.
///
/// Several processes and threads may use one file: a change is made under a lock on the file with `.lock` added to its
/// name. It adds to the log and syncs it. A file of more than 64 KiB most of which is out of date is written again
/// first: beside, synced and renamed. Reading costs one `stat` while the file stays the same, and then what was added.
/// Marks that this process has seen stay in force even if the file disappears or goes back; the next change writes them
/// again. They are all held in memory.
///
/// # Examples
///
/// ```
/// use keyfold::{HighWater, Lineage};
/// use keyfold_store::FileHighWater;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("high-water");
/// let lineage = Lineage::from_bytes([7; 16]);
/// FileHighWater::open(&path)?.raise(lineage, 12, None)?;
/// assert_eq!(FileHighWater::open(&path)?.generation(lineage)?, 12);
/// # Ok::<(), keyfold::Error>(())
/// ```
#[derive(Debug)]
pub struct FileHighWater {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// What this process knows: everything that was ever in the file while it looked.
#[derive(Debug, Default)]
struct Seen {
    marks: Marks,
    file: Option<Known>,
}

/// The file as this process read it last.
#[derive(Clone, Copy, Debug)]
struct Known {
    stamp: Stamp,
    /// Where its last whole line ends.
    end: u64,
    link: Link,
    /// Whether a log may follow.
    has_log: bool,
    /// Whether it holds all marks that were seen.
    is_complete: bool,
    /// Whether a crash of the machine cannot bring back another file of this name.
    name_synced: bool,
}

/// Changes whenever the file does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    len: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn is_longer_than(&self, earlier: &Self) -> bool {
        (self.device, self.inode) == (earlier.device, earlier.inode) && self.len > earlier.len
    }
}

impl FileHighWater {
    /// The marks in `path`. A missing file is a machine that has seen nothing; the first change makes it.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): it cannot be read, is a symbolic link or not a regular file, or its folder is missing.
    /// - [`Malformed`](ErrorKind::Malformed): it is damaged. [`Unsupported`](ErrorKind::Unsupported): a newer version wrote it.
    /// - [`Configuration`](ErrorKind::Configuration): others may write it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = files::resolve(path).map_err(|error| io_error("cannot use the high-water file", path, error))?;
        let this = Self { path, seen: Mutex::default() };
        this.with(|_| ())?;
        Ok(this)
    }

    /// As [`open`](Self::open), for a machine that must have marks: a missing file is an error.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): the file is missing. Otherwise as for [`open`](Self::open).
    pub fn open_existing(path: impl AsRef<Path>) -> Result<Self> {
        let this = Self::open(path)?;
        if this.with(|seen| seen.file.is_none())? {
            return Err(io_error("the high-water file is missing", &this.path, io::ErrorKind::NotFound.into()));
        }
        Ok(this)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Everything that was seen of a keyring: the highest generation, and the marks of keys.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn marks(&self, lineage: Lineage) -> Result<(Generation, Vec<(KeyId, HighWaterMark)>)> {
        self.with(|seen| {
            let marks = seen.marks.0.get(&lineage);
            marks
                .map_or((0, Vec::new()), |marks| (marks.generation, marks.keys.iter().map(|(k, m)| (*k, *m)).collect()))
        })
    }

    /// Begins a new file in the place of this one, which stays under another name, its own with a number: for a keyring of
    /// which something was lost and cannot be restored. Generations and marks stay, but those of keys of `lineage` that
    /// `lower` changes or, with `None`, drops. Stop every process that uses the file before. Returns the other name.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): the file is missing, or no other can be written; it is as before.
    pub fn start_over(
        &self,
        lineage: Lineage,
        lower: impl Fn(KeyId, HighWaterMark) -> Option<HighWaterMark>,
    ) -> Result<PathBuf> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock().map_err(|error| self.cannot_write(error))?;
        self.refresh(&mut seen)?;
        let old = self.keep_old().map_err(|error| self.cannot_write(error))?;
        if let Some(marks) = seen.marks.0.get_mut(&lineage) {
            let keys = std::mem::take(&mut marks.keys);
            marks.keys = keys.into_iter().filter_map(|(key_id, mark)| Some((key_id, lower(key_id, mark)?))).collect();
        }
        files::replace(&self.path, |file| seen.marks.write(file)).map_err(|error| self.cannot_write(error))?;
        seen.file = None;
        self.refresh(&mut seen)?;
        Ok(old)
    }

    /// Gives the file a second name that nothing has.
    fn keep_old(&self) -> io::Result<PathBuf> {
        for number in 1_u32.. {
            let name = files::with_suffix(&self.path, &format!(".{number}"));
            match std::fs::hard_link(&self.path, &name) {
                Ok(()) => return files::sync_folder(&self.path).map(|()| name),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn with<T>(&self, f: impl FnOnce(&Seen) -> T) -> Result<T> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match self.refresh(&mut seen) {
            // Another process may have been cutting off what a crash had left. Under the lock nobody is.
            Err(error) if error.kind() == ErrorKind::Malformed => {
                let _lock = self.lock().map_err(|_| error)?;
                self.refresh(&mut seen)?;
            }
            read => read?,
        }
        Ok(f(&seen))
    }

    /// Reads what is new in the file.
    fn refresh(&self, seen: &mut Seen) -> Result<()> {
        let cannot_read = |error| io_error("cannot read the high-water file", &self.path, error);
        match self.path.symlink_metadata() {
            Ok(metadata) if seen.file.is_some_and(|known| known.stamp == Stamp::of(&metadata)) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if seen.file.take().is_some() {
                    tracing::warn!(path = %self.path.display(), "the high-water file has disappeared");
                }
                return Ok(());
            }
            Err(error) => return Err(cannot_read(error)),
        }
        let mut file = files::open_regular(&self.path).map_err(cannot_read)?;
        files::check_not_writable_by_others(&file, &self.path)?;
        let stamp = Stamp::of(&file.metadata().map_err(cannot_read)?);
        if let Some(known) = seen.file.filter(|known| known.has_log)
            && stamp.is_longer_than(&known.stamp)
            && let Some(known) = read_added(&mut file, known, stamp, &mut seen.marks).map_err(cannot_read)?
        {
            seen.file = Some(known);
            return Ok(());
        }
        file.rewind().map_err(cannot_read)?;
        let whole = format::read(BufReader::new((&file).take(stamp.len))).map_err(cannot_read)?;
        let Whole { marks, end, link, has_log } = whole.map_err(|error| {
            let why = error.detail().to_owned();
            error.with_detail(format!("{}: {why}", self.path.display()))
        })?;
        let before = std::mem::replace(&mut seen.marks, marks);
        let complete = seen.marks.merge(&before);
        if !complete {
            tracing::warn!(path = %self.path.display(), "the high-water file has gone back; what was seen stays in force");
        }
        seen.file = Some(Known { stamp, end, link, has_log, is_complete: complete, name_synced: false });
        Ok(())
    }

    /// Holds the lock between processes until the file is dropped.
    fn lock(&self) -> io::Result<File> {
        let lock = files::open_lock(&files::with_suffix(&self.path, ".lock"))?;
        files::lock(&lock)?;
        Ok(lock)
    }

    /// Writes the file again, without what is out of date. The caller holds the lock.
    fn compact(&self, seen: &mut Seen) -> Result<()> {
        let replaced = files::replace(&self.path, |file| seen.marks.write(file));
        // Read, rather than believed: what is added next must fit it, also where only syncing its name failed.
        seen.file = None;
        self.refresh(seen)?;
        replaced.map_err(|error| self.cannot_write(error))?;
        if let Some(known) = &mut seen.file {
            known.name_synced = true;
        }
        Ok(())
    }

    /// Adds `entries` to the log, durably. The caller holds the lock and has read the file.
    fn append(&self, known: &Known, entries: &[Entry]) -> io::Result<Known> {
        let file = files::open_to_append(&self.path)?;
        const LAST_LEN: usize = LINK_LEN + 1;
        let mut last = [0; LAST_LEN];
        file.read_exact_at(&mut last, known.end - LAST_LEN as u64)?;
        if last[..LINK_LEN] != known.link || last[LINK_LEN] != b'\n' {
            return Err(io::Error::other("something changes it without its lock"));
        }
        if !known.name_synced {
            files::sync_folder(&self.path)?;
        }
        if file.metadata()?.len() != known.end {
            file.set_len(known.end)?;
        }
        let (mut text, mut link) = (Vec::new(), known.link);
        for entry in entries {
            format::push_line(&mut text, &mut link, *entry);
        }
        let written = (&file).write_all(&text).and_then(|()| file.sync_data());
        if written.is_err() {
            // The first error is the one to report. Marks that stay in the file are too high, which is safe.
            let _ = file.set_len(known.end);
        }
        written?;
        let end = known.end + text.len() as u64;
        Ok(Known { stamp: Stamp::of(&file.metadata()?), end, link, name_synced: true, ..*known })
    }

    fn cannot_write(&self, error: io::Error) -> Error {
        io_error("cannot write the high-water file", &self.path, error)
    }
}

/// Reads what was added to a file since it was `known`. `None` if it turns out to be another file.
fn read_added(file: &mut File, known: Known, stamp: Stamp, marks: &mut Marks) -> io::Result<Option<Known>> {
    file.seek(SeekFrom::Start(known.end))?;
    let mut link = known.link;
    let added = format::read_added(BufReader::new(file.take(stamp.len - known.end)), &mut link, marks)?;
    // A line that links to what is known shows that all before it is the same.
    Ok(added.ok().filter(|len| *len > 0).map(|len| Known { stamp, end: known.end + len, link, ..known }))
}

impl HighWater for FileHighWater {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        self.with(|seen| seen.marks.0.get(&lineage).map_or(0, |marks| marks.generation))
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        self.with(|seen| seen.marks.0.get(&lineage)?.keys.get(&key_id).copied())
    }

    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock().map_err(|error| self.cannot_write(error))?;
        // Under the lock, so that what is added follows what another process has added.
        self.refresh(&mut seen)?;
        let key = key.map(|(key_id, mark)| What::Key(key_id, mark));
        let entries = [Some(What::Generation(generation)), key].into_iter().flatten();
        let news: Vec<Entry> =
            entries.map(|what| Entry { lineage, what }).filter(|entry| seen.marks.is_news(*entry)).collect();
        match seen.file {
            Some(known) if known.has_log && known.is_complete => {
                let grown = known.end > MIN_COMPACTED_LEN && known.end > 2 * seen.marks.file_len();
                if grown && let Err(error) = self.compact(&mut seen) {
                    tracing::warn!("the high-water file was not compacted: {error}");
                }
            }
            _ => self.compact(&mut seen)?,
        }
        let known = seen.file.ok_or_else(|| self.cannot_write(io::ErrorKind::NotFound.into()))?;
        // Without news, too: a process that was killed may have added the marks and not synced them.
        seen.file = Some(self.append(&known, &news).map_err(|error| self.cannot_write(error))?);
        news.into_iter().for_each(|entry| seen.marks.raise(entry));
        Ok(())
    }
}
