//! Sealing what is written.

use super::{SealingStream, UNWRITABLE, from_io};
use crate::error::Result;
use crate::wire::{SEALED_CHUNK_LEN, StreamHeader};
use std::io::{self, Write};

/// Seals what is written to it and passes it on, chunk by chunk. Made by [`SealingStream::into_writer`].
///
/// Only [`finish`](Self::finish) makes the stream complete: what is dropped before, because of an error or a panic, say, ends in a stream that
/// no reader takes for whole. [`flush`](Write::flush) passes on what was sealed, and holds back the chunk that is not full. Errors are
/// [`Error`](crate::Error)s within those of `std::io`; after one every later call fails with it.
pub struct StreamWriter<W> {
    stream: SealingStream,
    output: W,
    /// The chunk that goes out.
    sealed: Vec<u8>,
}

impl<W: Write> StreamWriter<W> {
    pub(super) fn new(stream: SealingStream, mut output: W) -> io::Result<Self> {
        output.write_all(stream.header().as_bytes())?;
        Ok(Self { stream, output, sealed: Vec::with_capacity(SEALED_CHUNK_LEN) })
    }

    writes_as_sealing_stream!();

    /// Seals and writes the last chunk, flushes, and returns the output: now the stream is complete.
    ///
    /// # Errors
    ///
    /// Those of [`SealingStream::update`], and of the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.stream.seal_last(&mut self.sealed)?;
        self.pass()?;
        self.output.flush()?;
        Ok(self.output)
    }

    /// Writes what was sealed.
    fn pass(&mut self) -> Result<()> {
        let written = self.output.write_all(&self.sealed).map_err(|error| from_io(error, UNWRITABLE));
        self.sealed.clear();
        // A part of the chunk may be out, so nothing can follow.
        written.map_err(|error| self.stream.held.fail(error))
    }
}

impl<W: Write> Write for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.stream.until_full());
        self.stream.update(&bytes[..n], &mut self.sealed)?;
        self.pass()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.held.check_not_failed()?;
        self.output.flush()
    }
}

impl<W> core::fmt::Debug for StreamWriter<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}
