//! Reading a stream from the front to the end.

use super::{OpeningStream, UNREADABLE, read_full};
use crate::error::Result;
use crate::wire::SEALED_CHUNK_LEN;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use zeroize::Zeroizing;

/// Reads the plaintext of a stream from the front. Made by [`OpeningStream::into_reader`].
///
/// It gives out verified plaintext only, and an end only where the stream ends: `Ok(0)` proves that everything was read. Act on nothing that must
/// be whole before that. A stream that was cut or never finished is an error in the place of its end. Errors are [`Error`](crate::Error)s within those of
/// `std::io`; after one every later call fails with it.
///
/// A call whose buffer has 16,400 bytes or more opens chunks in it, without copying.
pub struct StreamReader<R> {
    stream: OpeningStream,
    input: R,
    chunk: ReadChunk,
}

impl<R: Read> StreamReader<R> {
    pub(super) fn new(stream: OpeningStream, input: R) -> Self {
        Self { stream, input, chunk: ReadChunk::new() }
    }

    /// Whether the last chunk was verified: what was read, and what is still to be read of the buffer, is all there is.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.chunk.is_complete
    }

    reads_as_opening_stream!();

    /// Reads the next chunk into `buffer`, which has room for a whole one, and opens it there; returns the bytes of plaintext.
    fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let n = read_next(&mut self.stream, &mut self.input, buffer)?;
        let opened = self.stream.open_next(&mut buffer[..n]);
        match &opened {
            Ok(_) => self.chunk.is_complete = n < SEALED_CHUNK_LEN,
            // It cannot be read again, and may open when the key was renewed.
            Err(_) => {
                self.chunk.room()[..n].copy_from_slice(&buffer[..n]);
                self.chunk.sealed = n;
            }
        }
        opened
    }
}

/// Fills `buffer` as far as there is input.
fn read_next(stream: &mut OpeningStream, input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    stream.held.check()?;
    stream.held.pass(|| read_full(input, buffer), UNREADABLE)
}

/// A chunk that is read, opened where it is, and given out in pieces.
pub(super) struct ReadChunk {
    buffer: Zeroizing<Vec<u8>>,
    /// Bytes that were read and not opened.
    pub(super) sealed: usize,
    /// Plaintext that was not given out.
    rest: Range<usize>,
    /// Whether it is the last one.
    pub(super) is_complete: bool,
}

impl ReadChunk {
    pub(super) fn new() -> Self {
        Self { buffer: Zeroizing::new(vec![0; SEALED_CHUNK_LEN]), sealed: 0, rest: 0..0, is_complete: false }
    }

    /// Whether all was given out, and the next chunk is wanted.
    pub(super) const fn is_spent(&self) -> bool {
        self.rest.start == self.rest.end && !self.is_complete
    }

    /// Where the sealed bytes that are missing go to.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.sealed..]
    }

    /// Opens what was read. If the key has run out nothing is lost.
    pub(super) fn open(&mut self, stream: &mut OpeningStream) -> Result<()> {
        self.rest = 0..stream.open_next(&mut self.buffer[..self.sealed])?;
        self.is_complete = self.sealed < SEALED_CHUNK_LEN;
        self.sealed = 0;
        Ok(())
    }

    /// Refuses what is left once the key may not be used: it was opened, but not given out.
    pub(super) fn check(&self, stream: &OpeningStream) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { stream.held.check() }
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.rest.clone()]
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.rest.start = (self.rest.start + n).min(self.rest.end);
    }
}

impl<R: Read> BufRead for StreamReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { stream, input, chunk } = self;
        if chunk.is_spent() {
            chunk.sealed += read_next(stream, input, chunk.room())?;
            chunk.open(stream)?;
        } else {
            chunk.check(stream)?;
        }
        Ok(chunk.rest())
    }

    fn consume(&mut self, n: usize) {
        self.chunk.consume(n);
    }
}

impl<R: Read> Read for StreamReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        while self.chunk.is_spent()
            && self.chunk.sealed == 0
            && let Some(chunk) = buffer[n..].get_mut(..SEALED_CHUNK_LEN)
        {
            match self.read_into(chunk) {
                Ok(len) => n += len,
                // What was opened before is given out; the next call fails again.
                Err(_) if n > 0 => break,
                Err(error) => return Err(error.into()),
            }
        }
        if n > 0 || buffer.is_empty() {
            return Ok(n);
        }
        let rest = self.fill_buf()?;
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<R> core::fmt::Debug for StreamReader<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamReader").field("stream", &self.stream).finish_non_exhaustive()
    }
}
