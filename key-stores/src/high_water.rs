//! Marks in a file: what this machine has seen of its keyrings.

use crate::files::{self, io_error};
use data_encoding::HEXLOWER;
use keyfold::wire::{Generation, KeyId};
use keyfold::{Error, ErrorKind, HighWater, HighWaterMark, KeyState, Lineage, Result};
use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Most bytes of a file with marks; about 100,000 keys.
const MAX_FILE_LEN: u64 = 16 * 1024 * 1024;
const FIRST_LINE: &str = "keyfold-high-water 1";

/// Remembers in a file how far keyrings have come, so that an older copy of a key store is noticed on this machine.
///
/// ```text
/// keyfold-high-water 1
/// LINEAGE generation N
/// LINEAGE key KEY-ID SEQUENCE STATE
/// sha256 CHECKSUM
/// ```
///
/// Lineages, key IDs and the SHA-256 of all earlier lines are in lower-case hexadecimal; lineages and the key IDs of
/// one ascend. There is one accepted spelling of every content. The checksum finds damage, not forgery: whoever can
/// write the file can also delete it. So it has mode 0600, and is refused if others may write it or if it is a link.
///
/// Several processes and threads may use one file: a change is made under a lock on the file with `.lock` added to its
/// name, written beside, synced and renamed. Reading costs one `stat` while the file stays the same. Marks that this
/// process has seen stay in force even if the file disappears or goes back; the next change writes them again.
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
    marks: BTreeMap<Lineage, Marks>,
    file: Option<Stamp>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Marks {
    generation: Generation,
    keys: BTreeMap<KeyId, HighWaterMark>,
}

impl Marks {
    fn raise(&mut self, generation: Generation, keys: impl IntoIterator<Item = (KeyId, HighWaterMark)>) {
        self.generation = self.generation.max(generation);
        for (key_id, mark) in keys {
            let known = self.keys.entry(key_id).or_insert(mark);
            if mark.sequence > known.sequence {
                *known = mark;
            }
        }
    }
}

/// Changes whenever the file is replaced: every change makes a new file.
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

    fn with<T>(&self, f: impl FnOnce(&Seen) -> T) -> Result<T> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut seen)?;
        Ok(f(&seen))
    }

    /// Reads the file again if it is another one than before. Returns what is in the file if it was read.
    fn refresh(&self, seen: &mut Seen) -> Result<Option<BTreeMap<Lineage, Marks>>> {
        let cannot_read = |error| io_error("cannot read the high-water file", &self.path, error);
        match self.path.symlink_metadata() {
            Ok(metadata) if seen.file == Some(Stamp::of(&metadata)) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if seen.file.take().is_some() {
                    tracing::warn!(path = %self.path.display(), "the high-water file has disappeared");
                }
                return Ok(Some(BTreeMap::new()));
            }
            Err(error) => return Err(cannot_read(error)),
        }
        let file = files::open_regular(&self.path).map_err(cannot_read)?;
        files::check_not_writable_by_others(&file, &self.path)?;
        let stamp = Stamp::of(&file.metadata().map_err(cannot_read)?);
        let mut text = Vec::new();
        file.take(MAX_FILE_LEN + 1).read_to_end(&mut text).map_err(cannot_read)?;
        let found = decode(&text).map_err(|error| {
            let why = error.detail().to_owned();
            error.with_detail(format!("{}: {why}", self.path.display()))
        })?;
        for (lineage, marks) in &found {
            let keys = marks.keys.iter().map(|(key_id, mark)| (*key_id, *mark));
            seen.marks.entry(*lineage).or_default().raise(marks.generation, keys);
        }
        if found != seen.marks {
            tracing::warn!(path = %self.path.display(), "the high-water file has gone back; what was seen stays in force");
        }
        seen.file = Some(stamp);
        Ok(Some(found))
    }

    /// Holds the lock between processes until the file is dropped.
    fn lock(&self) -> io::Result<File> {
        let lock = files::open_lock(&files::with_suffix(&self.path, ".lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }
}

impl HighWater for FileHighWater {
    fn generation(&self, lineage: Lineage) -> Result<Generation> {
        self.with(|seen| seen.marks.get(&lineage).map_or(0, |marks| marks.generation))
    }

    fn mark(&self, lineage: Lineage, key_id: KeyId) -> Result<Option<HighWaterMark>> {
        self.with(|seen| seen.marks.get(&lineage)?.keys.get(&key_id).copied())
    }

    fn raise(&self, lineage: Lineage, generation: Generation, key: Option<(KeyId, HighWaterMark)>) -> Result<()> {
        let cannot_write = |error| io_error("cannot write the high-water file", &self.path, error);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = self.lock().map_err(cannot_write)?;
        // Under the lock, so that what another process has raised is not lost.
        seen.file = None;
        let in_file = self.refresh(&mut seen)?.unwrap_or_default();
        let mut raised = seen.marks.clone();
        raised.entry(lineage).or_default().raise(generation, key);
        if raised != in_file {
            let text = encode(&raised);
            if text.len() as u64 > MAX_FILE_LEN {
                return Err(Error::new(ErrorKind::Io, "the high-water file would be larger than 16 MiB"));
            }
            files::replace(&self.path, text.as_bytes()).map_err(cannot_write)?;
            // The next reader takes the new stamp from the file.
            seen.file = None;
        }
        seen.marks = raised;
        Ok(())
    }
}

fn encode(all: &BTreeMap<Lineage, Marks>) -> String {
    let mut text = format!("{FIRST_LINE}\n");
    let written = all.iter().try_for_each(|(lineage, marks)| {
        writeln!(text, "{lineage} generation {}", marks.generation)?;
        marks.keys.iter().try_for_each(|(key_id, mark)| {
            writeln!(text, "{lineage} key {key_id} {} {}", mark.sequence, mark.state.name())
        })
    });
    written.expect("a string takes everything");
    let checksum = checksum(&text);
    text.push_str(&checksum);
    text
}

/// The last line.
fn checksum(text: &str) -> String {
    format!("sha256 {}\n", HEXLOWER.encode(&Sha256::digest(text.as_bytes())))
}

fn decode(bytes: &[u8]) -> Result<BTreeMap<Lineage, Marks>> {
    const DAMAGED: Error = Error::new(
        ErrorKind::Malformed,
        "the high-water file is damaged; restore it from a backup, not by deleting it",
    );
    let damaged = |why: &str| DAMAGED.with_detail(why);
    if bytes.len() as u64 > MAX_FILE_LEN {
        return Err(damaged("it is larger than 16 MiB"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let (first, _) = text.split_once('\n').ok_or_else(|| damaged("it is cut off"))?;
    if first != FIRST_LINE {
        return match first.strip_prefix("keyfold-high-water ") {
            Some(version) if version.parse::<u32>().is_ok_and(|version| version > 1) => {
                Err(Error::new(ErrorKind::Unsupported, "the high-water file was written by a newer keyfold"))
            }
            _ => Err(damaged("it does not start like one")),
        };
    }
    let body_len = text.trim_end_matches('\n').rfind('\n').map_or(text.len(), |at| at + 1);
    let (body, last) = text.split_at(body_len);
    if last != checksum(body) {
        return Err(damaged("its last line is not the checksum of the others"));
    }
    let mut all: BTreeMap<Lineage, Marks> = BTreeMap::new();
    for (number, line) in (2..).zip(body.lines().skip(1)) {
        decode_line(line, &mut all).ok_or_else(|| damaged(&format!("line {number}")))?;
    }
    // Order, repetitions and other spellings of numbers: one comparison refuses all of them.
    if encode(&all) == text { Ok(all) } else { Err(damaged("it is not written as keyfold writes it")) }
}

fn decode_line(line: &str, all: &mut BTreeMap<Lineage, Marks>) -> Option<()> {
    const STATES: [KeyState; 6] = [
        KeyState::PreActive,
        KeyState::Active,
        KeyState::Deactivated,
        KeyState::Compromised,
        KeyState::DestroyPending,
        KeyState::Destroyed,
    ];
    let (lineage, rest) = line.split_once(' ')?;
    let marks = all.entry(lineage.parse().ok()?).or_default();
    let parts: Vec<&str> = rest.splitn(5, ' ').collect();
    match parts[..] {
        ["generation", generation] => marks.generation = generation.parse().ok()?,
        ["key", key_id, sequence, state] => {
            let state = STATES.into_iter().find(|known| known.name() == state)?;
            marks.keys.insert(key_id.parse().ok()?, HighWaterMark { sequence: sequence.parse().ok()?, state });
        }
        _ => return None,
    }
    Some(())
}
