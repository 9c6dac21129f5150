//! Files that hold KEKs: made once, durable, for their owner alone.

use keyfold::{Error, ErrorKind, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Makes the file `path` with `content`, mode 0600. Fails if anything has that name, a link included.
pub(crate) fn create(path: &Path, content: &[u8]) -> Result<()> {
    let failed = |error: io::Error| io_error("cannot make the KEK file", path, error);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let opened = retry_on_intr(|| rustix::fs::openat(CWD, path, flags, mode));
    let mut file: File = opened.map_err(|errno| failed(errno.into()))?.into();
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
    written.map_err(|error| {
        // A part of a key is of no use to anyone; the first error is the one to report.
        let _ = std::fs::remove_file(path);
        failed(error)
    })
}

/// Makes the name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads the file `path` into `buffer`, up to its end, and returns how much there was. Refuses what is not a regular file
/// of this user or root that nobody else may touch.
pub(crate) fn read(path: &Path, buffer: &mut [u8]) -> Result<usize> {
    // Without waiting for the other end of a pipe, and checked after opening, so that nothing can change in between.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match retry_on_intr(|| rustix::fs::openat(CWD, path, flags, Mode::empty())) {
        Ok(file) => file.into(),
        Err(Errno::LOOP) => return Err(refused("it must not be a symbolic link", path)),
        Err(errno) => {
            return Err(io_error(
                "cannot open the KEK file (if it is lost, restore the offline copy)",
                path,
                errno.into(),
            ));
        }
    };
    check_owner_only(&file, path)?;
    read_up_to(file, buffer).map_err(|error| io_error("cannot read the KEK file", path, error))
}

/// Refuses what is not a regular file, what belongs to somebody else, and what anybody but its owner may touch.
fn check_owner_only(file: &File, path: &Path) -> Result<()> {
    let metadata = file.metadata().map_err(|error| io_error("cannot read the KEK file", path, error))?;
    if !metadata.is_file() {
        return Err(refused("it must be a regular file", path));
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us && metadata.uid() != 0 {
        return Err(refused("it must belong to this user or to root", path));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Error::new(ErrorKind::Configuration, "the KEK file must be readable by its owner alone")
            .with_detail(format!("{path} has mode {mode:04o}; run: chmod 600 {path}")));
    }
    Ok(())
}

/// Reads into a fixed buffer, so that no copy of the key is left where a vector grew.
fn read_up_to(mut file: File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = buffer.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// The file begins as one of `family`, but not with `first_line`, that of the version that this build reads: says what
/// is wrong with it.
pub(crate) fn wrong_first_line(text: &[u8], family: &str, first_line: &[u8], path: &Path) -> Error {
    const NEWER: Error = Error::new(ErrorKind::Unsupported, "the KEK file was written by a newer keyfold");
    match text.strip_prefix(family.as_bytes()) {
        Some([b'2'..=b'9', ..] | [b'1', b'0'..=b'9', ..]) => NEWER.with_detail(path.display().to_string()),
        Some(_) => damaged("its first line", path),
        None if first_line.starts_with(text) => damaged("it is cut off", path),
        None => refused("it is not a file that keyfold made for this kind of KEK", path),
    }
}

pub(crate) fn damaged(why: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Malformed, "the KEK file is damaged; restore it from its backup")
        .with_detail(format!("{}: {why}", path.display()))
}

fn refused(why: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Configuration, "the KEK file cannot be used")
        .with_detail(format!("{}: {why}", path.display()))
}

fn io_error(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, what).with_detail(format!("{}: {error}", path.display())).with_source(error)
}
