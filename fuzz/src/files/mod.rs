//! The readers of the command, which has no library: its own files, and what they need of the module around them.
#![allow(dead_code, reason = "the command uses the rest")]

#[path = "../../../cli/src/files/csv.rs"]
pub(crate) mod csv;
#[path = "../../../cli/src/files/hl7.rs"]
pub(crate) mod hl7;

use std::io::{self, Read};

/// As in the command's tests: less than there, so that inputs go over several.
const CHUNK_LEN: usize = 4 * 1024;

pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

pub(crate) fn read_chunk(input: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let len = buffer.len();
    buffer.resize(len + CHUNK_LEN, 0);
    let read = input.read(&mut buffer[len..])?;
    buffer.truncate(len + read);
    Ok(read > 0)
}

pub(crate) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

/// Hands out its bytes in pieces of the given length.
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8], pub(crate) usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.1.min(self.0.len()).min(buffer.len());
        buffer[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}
