//! Anchors: heads of chains, written where whoever edits the audit file does not get at them (FORMAT.md §15.4).

use crate::line::now;
use data_encoding::HEXLOWER;
use keyfold::{ChainId, Error, ErrorKind, Result};
use keyfold_store::files::{check_not_writable_by_others, create_new, io_error, open_regular, open_to_append};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How every line begins.
pub(crate) const BEGINS: &[u8] = b"{\"file\":";
/// Most bytes of a file, which is read into memory.
const MAX_LEN: u64 = 1 << 30;

/// That a chain had reached a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Anchor {
    /// The number of the audit file.
    pub file: u64,
    /// The chain.
    pub chain: ChainId,
    /// The line.
    pub seq: u64,
    /// The MAC of the line, which stands for all lines before it as well.
    pub mac: [u8; 32],
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AnchorLine {
    file: u64,
    chain: String,
    seq: u64,
    mac: String,
    time: String,
}

impl Anchor {
    /// The line of an anchor file, without a line feed, with the present time.
    ///
    /// # Errors
    ///
    /// - [`Internal`](ErrorKind::Internal): never.
    pub fn to_line(&self) -> Result<String> {
        let Self { file, chain, seq, mac } = self;
        let line =
            AnchorLine { file: *file, chain: chain.to_string(), seq: *seq, mac: HEXLOWER.encode(mac), time: now() };
        serde_json::to_string(&line)
            .map_err(|error| Error::new(ErrorKind::Internal, "an anchor cannot be written as JSON").with_source(error))
    }

    /// Takes a line apart. `None`: it is not an anchor.
    // F-15.4-1.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let AnchorLine { file, chain, seq, mac, time: _ } = serde_json::from_str(line).ok()?;
        let mac = HEXLOWER.decode(mac.as_bytes()).ok()?.try_into().ok()?;
        Some(Self { file, chain: chain.parse().ok()?, seq, mac })
    }

    /// Whether a line is the beginning of an anchor, and no more: a crash cut it off.
    pub(crate) fn is_cut_off(line: &str) -> bool {
        let line = line.as_bytes();
        !line.ends_with(b"}") && (line.starts_with(BEGINS) || BEGINS.starts_with(line))
    }

    /// Adds the anchor to the file `path`, which is made if it is missing. Durable on return.
    pub(crate) fn append(&self, path: &Path) -> Result<()> {
        let failed = |error| io_error("cannot write the anchors of the audit file", path, error);
        let file = open(path).map_err(failed)?;
        check_not_writable_by_others(&file, path)?;
        check_begins(&file, path, BEGINS)?;
        // Released with the file.
        retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).map_err(|errno| failed(errno.into()))?;
        let line = self.to_line()?;
        let mut out = Vec::with_capacity(line.len() + 2);
        let len = file.metadata().map_err(failed)?.len();
        if is_torn(&file, len).map_err(failed)? {
            out.push(b'\n');
        }
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        (&file).write_all(&out).and_then(|()| file.sync_data()).map_err(failed)
    }
}

/// The content of an anchor file, with its name, as [`Expected`](crate::Expected) takes it. A link, or what is no regular file, is refused, as by
/// those who write it.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): it cannot be read, is no regular file, or has more than 1 GiB.
pub fn read_anchors(path: &Path) -> Result<(String, String)> {
    let read = || {
        let mut bytes = Vec::new();
        if open_regular(path)?.take(MAX_LEN + 1).read_to_end(&mut bytes)? as u64 > MAX_LEN {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 GiB"));
        }
        Ok(bytes)
    };
    let bytes = read().map_err(|error| io_error("cannot read the anchors", path, error))?;
    Ok((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()))
}

fn open(path: &Path) -> io::Result<File> {
    match open_to_append(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create_new(path) {
            // Another process made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open_to_append(path),
            made => made.and_then(|_| open_to_append(path)),
        },
        opened => opened,
    }
}

/// Refuses to add to a file that does not begin as `begins`: it is something else, which would be destroyed.
pub(crate) fn check_begins(file: &File, path: &Path, begins: &[u8]) -> Result<()> {
    let failed = |error| io_error("cannot read the audit file", path, error);
    let len = file.metadata().map_err(failed)?.len().min(begins.len() as u64);
    let mut start = vec![0; len as usize];
    file.read_exact_at(&mut start, 0).map_err(failed)?;
    // The first line may have been cut off by a crash.
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if start.is_empty() || (!line.is_empty() && begins.starts_with(line)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Configuration, "the file is there already and is no audit file, or no anchors of one")
        .with_detail(path.display().to_string()))
}

/// Whether the file of `len` bytes ends in the middle of a line.
pub(crate) fn is_torn(file: &File, len: u64) -> io::Result<bool> {
    let Some(last) = len.checked_sub(1) else { return Ok(false) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte != *b"\n")
}
