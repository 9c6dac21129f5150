//! The file itself: whole lines at its end, one writer at a time, and another file when it is full (FORMAT.md §15.3).

use super::lock_of;
use crate::anchor::{check_begins, is_torn};
use crate::line::{BEGINS, ReadLine};
use keyfold::Result;
use keyfold_store::files::{
    check_not_writable_by_others, create_new, io_error, open_lock, open_to_append, sync_folder, with_suffix,
};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, flock, statat};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// More than the longest first line has: a wrapped key is at most 4,096 bytes.
const MAX_HEADER_LEN: usize = 32 * 1024;
/// What must be free on the disk before something is changed that must be recorded.
const RESERVE: u64 = 64 * 1024;

/// An audit file that may be renamed by others at any time while nobody holds its lock.
pub(super) struct Log {
    path: PathBuf,
    lock: Option<Arc<File>>,
    open: Option<Opened>,
}

struct Opened {
    file: File,
    number: u64,
}

/// Held by one writer at a time.
pub(super) struct Guard(Arc<File>);

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the file would do it, too; it fails only where it is not held.
        let _ = flock(&*self.0, FlockOperation::Unlock);
    }
}

/// Where the next line goes.
#[derive(Clone, Copy)]
pub(super) struct End {
    /// The number of the file.
    pub(super) number: u64,
    /// Its length in bytes.
    pub(super) len: u64,
    /// Whether it ends in the middle of a line that somebody could not finish.
    pub(super) torn: bool,
}

impl Log {
    /// A log in the file `path`, which need not exist.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, lock: None, open: None }
    }

    /// Waits until no other process, and no other log of this one, writes.
    pub(super) fn lock(&mut self) -> Result<Guard> {
        let path = lock_of(&self.path);
        let failed = |error| io_error("cannot lock the audit file", &path, error);
        let lock = match &self.lock {
            Some(lock) => lock.clone(),
            None => {
                let lock = open_lock(&path).map_err(failed)?;
                check_not_writable_by_others(&lock, &path)?;
                self.lock.insert(Arc::new(lock)).clone()
            }
        };
        retry_on_intr(|| flock(&*lock, FlockOperation::LockExclusive)).map_err(|errno| failed(errno.into()))?;
        Ok(Guard(lock))
    }

    /// The end of the file that has the name now; made if there is none.
    pub(super) fn end(&mut self, _: &Guard) -> Result<End> {
        let path = self.path.clone();
        let failed = |error| io_error("cannot open the audit file", &path, error);
        let stat = match statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno.into())),
        };
        let is_stat =
            |meta: std::fs::Metadata| stat.is_some_and(|stat| (meta.dev(), meta.ino()) == (stat.st_dev, stat.st_ino));
        let same = self.open.take_if(|opened| opened.file.metadata().is_ok_and(is_stat));
        let opened = match same {
            Some(opened) => opened,
            None => {
                if stat.is_none() {
                    create_new(&path).and_then(|_| sync_folder(&path)).map_err(failed)?;
                }
                let file = open_to_append(&path).map_err(failed)?;
                check_not_writable_by_others(&file, &path)?;
                check_begins(&file, &path, BEGINS)?;
                let number = number_of(&file).map_or_else(|| self.next_number(), Ok).map_err(failed)?;
                Opened { file, number }
            }
        };
        let opened = self.open.insert(opened);
        let len = opened.file.metadata().map_err(failed)?.len();
        Ok(End { number: opened.number, len, torn: is_torn(&opened.file, len).map_err(failed)? })
    }

    /// Adds `lines` at `end`, all of them or none. On disk on return.
    // F-15.3-2.
    pub(super) fn append(&mut self, _: &Guard, end: End, lines: &[u8]) -> Result<()> {
        let Some(Opened { file, .. }) = &self.open else { return Ok(()) };
        (&*file).write_all(lines).and_then(|()| file.sync_data()).map_err(|error| {
            if let Err(left) = file.set_len(end.len) {
                // F-15.3-3.
                // The next writer ends it with a line feed, and whoever verifies sees that it is no line.
                tracing::warn!("a part of an audit line is left in the file: {left}");
            }
            io_error("cannot write to the audit file", &self.path, error)
        })
    }

    /// Puts the file aside under its number and returns its new name, and the number of the next one. Lines can still be added to it, until
    /// [`end`](Self::end) begins that.
    // F-15.3-1.
    pub(super) fn put_aside(&mut self, _: &Guard, end: End) -> Result<(String, u64)> {
        let aside = with_suffix(&self.path, &format!(".{:06}", end.number));
        let failed = |error| io_error("cannot put the full audit file aside", &self.path, error);
        // What the file says of itself may have been edited.
        let next = end.number.checked_add(1).ok_or_else(|| {
            let why = format!("its first line says that it is file {}, behind which there is no number", end.number);
            failed(io::Error::new(io::ErrorKind::InvalidData, why))
        })?;
        if std::fs::symlink_metadata(&aside).is_ok() {
            return Err(failed(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there already", aside.display()),
            )));
        }
        std::fs::rename(&self.path, &aside).and_then(|()| sync_folder(&self.path)).map_err(failed)?;
        Ok((aside.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), next))
    }

    /// Makes sure that a few lines more fit onto the disk.
    pub(super) fn reserve(&mut self, _: &Guard, end: End) -> Result<()> {
        let Some(Opened { file, .. }) = &self.open else { return Ok(()) };
        match retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, end.len, RESERVE)) {
            // Not every file system can tell.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(io_error("there is no room for the audit file to grow", &self.path, errno.into())),
        }
    }

    /// The number of a file that is about to be made: behind those that were put aside, and the one that was open.
    fn next_number(&self) -> io::Result<u64> {
        let (aside, path) = put_aside(&self.path)?.pop().unwrap_or_default();
        let open = self.open.as_ref().map_or(0, |opened| opened.number);
        aside.max(open).checked_add(1).ok_or_else(|| {
            let why = match aside == u64::MAX {
                true => format!(
                    "there is no number behind that of {}, which no writer put aside: move it away",
                    path.display()
                ),
                false => format!("the file before it said that it was file {open}, behind which there is no number"),
            };
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }
}

/// The files that were put aside from `path`, with their numbers, in ascending order.
pub(crate) fn put_aside(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })? {
        let entry = entry?;
        let file_name = entry.file_name();
        let digits = file_name.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.'));
        let digits = digits.filter(|digits| digits.len() >= 6 && digits.bytes().all(|digit| digit.is_ascii_digit()));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The number that the first line of a file says.
fn number_of(file: &File) -> Option<u64> {
    let mut start = vec![0; MAX_HEADER_LEN];
    let mut len = 0;
    while len < start.len() && !start[..len].contains(&b'\n') {
        match file.read_at(&mut start[len..], len as u64) {
            Ok(0) | Err(_) => break,
            Ok(count) => len += count,
        }
    }
    let line = start[..len].split(|&byte| byte == b'\n').next()?;
    ReadLine::parse(line)?.number("file")
}
