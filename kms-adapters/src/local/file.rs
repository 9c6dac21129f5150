//! The key file: who may read it, and what is in it.

use data_encoding::HEXLOWER;
use keyfold::{Error, ErrorKind, Result, Secret};
use rustix::fs::{CWD, Mode, OFlags};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

const FAMILY: &str = "keyfold-local-kek-";
const FIRST_LINE: &[u8; 20] = b"keyfold-local-kek-1\n";
const CHECKSUM_LEN: usize = 8;
/// First line, 64 digits, line feed, 16 digits, line feed.
const FILE_LEN: usize = FIRST_LINE.len() + 64 + 1 + 2 * CHECKSUM_LEN + 1;

pub(super) fn create(path: &Path, key: &Secret<32>) -> Result<()> {
    let failed = |error: io::Error| io_error("cannot make the local KEK", path, error);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file: File = rustix::fs::openat(CWD, path, flags, mode).map_err(|errno| failed(errno.into()))?.into();
    let written = file.write_all(&*encode(key)).and_then(|()| file.sync_all()).and_then(|()| sync_folder(path));
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

pub(super) fn read(path: &Path) -> Result<Secret<32>> {
    // Without waiting for the other end of a pipe, and checked after opening, so that nothing can change in between.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(rustix::io::Errno::LOOP) => return Err(refused("it must not be a symbolic link", path)),
        Err(errno) => {
            return Err(io_error(
                "cannot open the local KEK (if it is lost, restore the offline copy)",
                path,
                errno.into(),
            ));
        }
    };
    check_owner_only(&file, path)?;
    let mut text = Zeroizing::new([0; FILE_LEN + 1]);
    let len = read_up_to(file, &mut *text).map_err(|error| io_error("cannot read the local KEK", path, error))?;
    decode(&text[..len], path)
}

/// Refuses what is not a regular file, what belongs to somebody else, and what anybody but its owner may touch.
fn check_owner_only(file: &File, path: &Path) -> Result<()> {
    let metadata = file.metadata().map_err(|error| io_error("cannot read the local KEK", path, error))?;
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
        return Err(Error::new(ErrorKind::Configuration, "the local KEK must be readable by its owner alone")
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

fn encode(key: &Secret<32>) -> Zeroizing<[u8; FILE_LEN]> {
    let mut text = Zeroizing::new([b'\n'; FILE_LEN]);
    let (first, rest) = text.split_at_mut(FIRST_LINE.len());
    let (digits, rest) = rest.split_at_mut(64);
    first.copy_from_slice(FIRST_LINE);
    HEXLOWER.encode_mut(key.expose(), digits);
    HEXLOWER.encode_mut(&checksum(key), &mut rest[1..=2 * CHECKSUM_LEN]);
    text
}

/// First 8 bytes of SHA-256(first line ‖ key)
fn checksum(key: &Secret<32>) -> [u8; CHECKSUM_LEN] {
    let digest = Sha256::new().chain_update(FIRST_LINE).chain_update(key.expose()).finalize();
    let mut out = [0; CHECKSUM_LEN];
    out.copy_from_slice(&digest[..CHECKSUM_LEN]);
    out
}

fn decode(text: &[u8], path: &Path) -> Result<Secret<32>> {
    const NEWER: Error = Error::new(ErrorKind::Unsupported, "the local KEK was written by a newer keyfold");
    let damaged = |why: &str| {
        Error::new(ErrorKind::Malformed, "the local KEK is damaged; restore the file from its backup")
            .with_detail(format!("{}: {why}", path.display()))
    };
    if !text.starts_with(FIRST_LINE) {
        let version = text.strip_prefix(FAMILY.as_bytes());
        return Err(match version {
            Some([b'2'..=b'9', ..] | [b'1', b'0'..=b'9', ..]) => NEWER.with_detail(path.display().to_string()),
            Some(_) => damaged("its first line"),
            None if FIRST_LINE.starts_with(text) => damaged("it is cut off"),
            None => refused("it is not a file that keyfold made for a local KEK", path),
        });
    }
    if text.len() < FILE_LEN {
        return Err(damaged("it is cut off"));
    }
    let digits = text.get(FIRST_LINE.len()..FIRST_LINE.len() + 64).unwrap_or_default();
    let key = Secret::try_with(|key: &mut [u8; 32]| {
        // The position that the decoder reports would say something about the key.
        HEXLOWER.decode_mut(digits, key).map(drop).map_err(|_| damaged("its key is not 64 hexadecimal digits"))
    })?;
    // One comparison covers the checksum, the line feeds and everything after them.
    if text == encode(&key).as_slice() { Ok(key) } else { Err(damaged("its checksum does not fit")) }
}

fn refused(why: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::Configuration, "the local KEK cannot be used")
        .with_detail(format!("{}: {why}", path.display()))
}

fn io_error(what: &'static str, path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, what).with_detail(format!("{}: {error}", path.display())).with_source(error)
}
