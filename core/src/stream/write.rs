//! Sealing what is written.

use super::{SealingStream, UNWRITABLE, from_io};
use crate::error::Result;
use crate::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, StreamHeader, TAG_LEN};
use std::io::{self, Write};
use zeroize::Zeroizing;

/// Seals what is written to it and passes it on, chunk by chunk. Made by [`SealingStream::into_writer`].
///
/// Only [`finish`](Self::finish) makes the stream complete: what is dropped before, because of an error or a panic, say, ends in a stream that
/// no reader takes for whole. [`flush`](Write::flush) passes on what was sealed, and holds back the chunk that is not full. Errors are
/// [`Error`](crate::Error)s within those of `std::io`; after one every later call fails with it.
pub struct StreamWriter<W> {
    stream: SealingStream,
    output: W,
    /// The plaintext of the chunk that is not full.
    chunk: Zeroizing<Vec<u8>>,
}

impl<W: Write> StreamWriter<W> {
    pub(super) fn new(stream: SealingStream, mut output: W) -> io::Result<Self> {
        output.write_all(stream.header().as_bytes())?;
        Ok(Self { stream, output, chunk: Zeroizing::new(Vec::with_capacity(SEALED_CHUNK_LEN)) })
    }

    /// The first 83 bytes of the stream.
    #[must_use]
    pub const fn header(&self) -> &StreamHeader {
        self.stream.header()
    }

    /// Whether [`renew`](Self::renew) has something to do.
    #[must_use]
    pub fn needs_renewal(&self) -> bool {
        self.stream.needs_renewal()
    }

    /// See [`SealingStream::renew`].
    ///
    /// # Errors
    ///
    /// As for [`SealingStream::renew`].
    pub async fn renew(&mut self) -> Result<()> {
        self.stream.renew().await
    }

    /// Seals and writes the last chunk, flushes, and returns the output: now the stream is complete.
    ///
    /// # Errors
    ///
    /// Those of [`SealingStream::update`], and of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.put(true)?;
        self.output.flush()?;
        Ok(self.output)
    }

    /// Seals the chunk where it is, and writes it.
    fn put(&mut self, is_last: bool) -> Result<()> {
        let len = self.chunk.len();
        self.chunk.extend_from_slice(&[0; TAG_LEN]);
        if let Err(error) = self.stream.seal_next(&mut self.chunk, is_last) {
            // With nothing sealed it is as before, so that a key that has run out can be renewed.
            self.chunk.truncate(len);
            return Err(error);
        }
        let written = self.output.write_all(&self.chunk).map_err(|error| from_io(error, UNWRITABLE));
        // It is ciphertext now.
        self.chunk.clear();
        // A part of the chunk may be out, so nothing can follow.
        written.map_err(|error| self.stream.held.fail(error))
    }
}

impl<W: Write> Write for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk that could not be sealed before, as its key had run out.
        if self.chunk.len() == CHUNK_LEN {
            self.put(false)?;
        }
        let n = bytes.len().min(CHUNK_LEN - self.chunk.len());
        self.stream.held.check()?;
        self.chunk.extend_from_slice(&bytes[..n]);
        if self.chunk.len() == CHUNK_LEN {
            self.put(false)?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl<W> core::fmt::Debug for StreamWriter<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}
