//! Sealing what is written.

use super::{COMPLETE, SealingStream, UNWRITABLE, from_io};
use crate::error::Result;
use crate::wire::{SEALED_CHUNK_LEN, StreamHeader};
use std::io::{self, Write};

/// Seals what is written to it and passes it on, chunk by chunk. Made by [`SealingStream::into_writer`].
///
/// Only [`finish`](Self::finish) makes the stream complete: what is dropped before, because of an error or a panic, say, ends in a stream that
/// no reader takes for whole. [`flush`](Write::flush) passes on what was sealed, and holds back the chunk that is not full. Errors are
/// [`Error`](crate::Error)s within those of `std::io`. After one every later call fails with it: but for
/// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), of which nothing was taken, and which ends with [`renew`](Self::renew).
pub struct StreamWriter<W> {
    stream: SealingStream,
    output: W,
    /// The chunk that goes out.
    sealed: Vec<u8>,
    /// Whether it is complete.
    is_finished: bool,
}

impl<W: Write> StreamWriter<W> {
    pub(super) fn new(stream: SealingStream, mut output: W) -> io::Result<Self> {
        output.write_all(stream.header().as_bytes()).map_err(|error| from_io(error, UNWRITABLE))?;
        Ok(Self { stream, output, sealed: Vec::with_capacity(SEALED_CHUNK_LEN), is_finished: false })
    }

    writes_as_sealing_stream!();

    /// Seals and writes the last chunk, once, and flushes: now the stream is complete, and every later write fails with
    /// [`Closed`](crate::ErrorKind::Closed). [`into_inner`](Self::into_inner) gives the output.
    ///
    /// # Errors
    ///
    /// Those of [`SealingStream::update`], and of the output.
    pub fn finish(&mut self) -> io::Result<()> {
        if !self.is_finished {
            self.stream.seal_last(&mut self.sealed)?;
            self.pass()?;
            self.flush()?;
            self.is_finished = true;
        }
        Ok(())
    }

    /// Writes what was sealed.
    fn pass(&mut self) -> Result<()> {
        let written = self.stream.held.pass(|| self.output.write_all(&self.sealed), UNWRITABLE);
        self.sealed.clear();
        written
    }
}

impl<W: Write> Write for StreamWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_finished {
            return Err(COMPLETE.into());
        }
        let n = bytes.len().min(self.stream.until_full());
        self.stream.update(&bytes[..n], &mut self.sealed)?;
        self.pass()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.held.check_goes_on()?;
        Ok(self.stream.held.pass(|| self.output.flush(), UNWRITABLE)?)
    }
}

impl<W> core::fmt::Debug for StreamWriter<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}
