//! Opening and replacing files without following a link, and without a moment in which others can read them. For the crates of
//! this workspace that keep files of their own.
//!
//! Functions that return an [`io::Error`] give that of the operating system.

use keyfold::{Error, ErrorKind, Result};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::retry_on_intr;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// `path` with its folder resolved, so that it stays the same file when the process changes folder, and so that
/// only the last part can be a link.
///
/// # Errors
///
/// The path has no last part, or its folder cannot be resolved.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    Ok(folder.canonicalize()?.join(name))
}

/// The path with `suffix` added to the name.
#[must_use]
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A signal that comes in between is no reason to fail.
fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    Ok(retry_on_intr(|| rustix::fs::openat(CWD, path, flags, mode))?.into())
}

/// Makes a file that only its owner can read, from its first moment. Fails if anything has that name.
///
/// # Errors
///
/// Something has that name, or the file cannot be made.
pub fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, OWNER_ONLY)
}

/// Opens a regular file for reading. Refuses links; does not wait for the other end of a pipe.
///
/// # Errors
///
/// It is missing, is a link or no regular file, or must not be read.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Opens a regular file for reading, and for adding to its end. Refuses links.
///
/// # Errors
///
/// It is missing, is a link or no regular file, or must not be written.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Opens the file that processes lock, and makes it where it is missing.
///
/// # Errors
///
/// It is a link or no regular file, or cannot be made or opened.
pub fn open_lock(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, OWNER_ONLY)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Waits until nobody else has locked `file`, and locks it until it is dropped. Signals do not end the waiting.
///
/// # Errors
///
/// The file system cannot lock.
pub fn lock(file: &File) -> io::Result<()> {
    Ok(retry_on_intr(|| rustix::fs::flock(file, FlockOperation::LockExclusive))?)
}

/// Replaces the content of `path` by what `write` writes: after a crash it is the old one or the new one, never a part.
///
/// The caller holds a lock against others who do the same.
///
/// # Errors
///
/// It could not be written; the old content is in place.
pub fn replace(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = with_suffix(path, ".tmp");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_synced(&temporary, write).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover is removed by the next call.
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| sync_folder(path))
}

fn write_synced(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = create_new(path)?;
    write(&mut file)?;
    file.sync_all()
}

/// Makes the names in the folder of `path` durable.
///
/// # Errors
///
/// The folder cannot be opened or synchronised.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Refuses a file that others may write.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): they may. - [`Io`](ErrorKind::Io): its mode cannot be read.
pub fn check_not_writable_by_others(file: &File, path: &Path) -> Result<()> {
    let mode = file.metadata().map_err(|error| io_error("cannot read", path, error))?.mode() & 0o7777;
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::new(ErrorKind::Configuration, "others may write a file that only its owner must write")
        .with_detail(format!("{path} has mode {mode:04o}; run: chmod 600 {path}")))
}

/// The error of a file, with its name.
#[must_use]
pub fn io_error(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, what).with_detail(format!("{}: {error}", path.display())).with_source(error)
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

const OWNER_ONLY: Mode = Mode::from_raw_mode(0o600);
