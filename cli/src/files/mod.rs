//! The bytes of files: reading them in batches, working on the batches on every core, and
//! replacing the output in one step. Nothing here knows about keys.
//!
//! No error and no `Debug` output of these modules contains what a cell or a JSON token holds.
//! They name rows, lines, columns, messages, segments and byte offsets, and such column names, rule
//! names and paths as the policy speaks of.

pub(crate) mod csv;
pub(crate) mod hl7;
pub(crate) mod interrupt;
pub(crate) mod json;
pub(crate) mod output;
pub(crate) mod pipeline;
pub(crate) mod standard;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{OFlags, fcntl_getfl};

/// Most bytes asked of the input at once. Fewer in tests, which read byte by byte.
const CHUNK_LEN: usize = if cfg!(test) { 4 * 1024 } else { 256 * 1024 };

/// The UTF-8 byte order mark that some programs put in front of a file.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Appends at most [`CHUNK_LEN`] bytes of `input` to `buffer`; false at the end of the input.
///
/// One successful `read` per call, so that a slow pipe is never waited for longer than needed.
fn read_chunk(input: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let len = buffer.len();
    buffer.resize(len + CHUNK_LEN, 0);
    let result = loop {
        match input.read(&mut buffer[len..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    buffer.truncate(len + *result.as_ref().unwrap_or(&0));
    Ok(result? > 0)
}

/// Whether the process was started without this one of its standard streams. Rust then puts /dev/null in its place, open for
/// reading and writing, so that no file gets its number; what is written there is lost, and reading finds an end. Whoever names
/// /dev/null in a shell has it open for one of them, so that is no stream that is closed.
pub(crate) fn is_closed(stream: impl AsFd) -> bool {
    let is_for_both = fcntl_getfl(&stream).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR);
    let metadata = || stream.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    let null = |stream: fs::Metadata| fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == stream.rdev());
    is_for_both && metadata().is_ok_and(null)
}

/// Number of line feeds in `bytes`: written as a plain sum because that is what vectorises.
fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}
