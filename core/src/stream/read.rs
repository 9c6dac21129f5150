//! Reading a stream from the front to the end.

use super::{OpeningStream, UNREADABLE, from_io, read_full};
use crate::error::Result;
use crate::wire::stream::CUT;
use crate::wire::{SEALED_CHUNK_LEN, TAG_LEN};
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
    /// The chunk that is given out in pieces.
    chunk: Zeroizing<Vec<u8>>,
    /// What of it was not yet given out.
    rest: Range<usize>,
    is_complete: bool,
}

impl<R: Read> StreamReader<R> {
    pub(super) fn new(stream: OpeningStream, input: R) -> Self {
        Self { stream, input, chunk: Zeroizing::new(vec![0; SEALED_CHUNK_LEN]), rest: 0..0, is_complete: false }
    }

    /// Whether the last chunk was verified: what was read, and what is still to be read of the buffer, is all there is.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the key is compromised: whoever has it can have made the stream.
    #[must_use]
    pub fn is_compromised(&self) -> bool {
        self.stream.is_compromised()
    }

    /// Whether [`renew`](Self::renew) has something to do.
    #[must_use]
    pub fn needs_renewal(&self) -> bool {
        self.stream.needs_renewal()
    }

    /// See [`OpeningStream::renew`].
    ///
    /// # Errors
    ///
    /// As for [`OpeningStream::renew`].
    pub async fn renew(&mut self) -> Result<()> {
        self.stream.renew().await
    }

    /// The input, wherever it stands.
    #[must_use]
    pub fn into_inner(self) -> R {
        self.input
    }
}

/// Reads the next chunk into `chunk`, which has room for a whole one, and opens it there; returns the bytes of plaintext.
fn next_chunk<R: Read>(
    stream: &mut OpeningStream,
    input: &mut R,
    chunk: &mut [u8],
    is_complete: &mut bool,
) -> Result<usize> {
    stream.held.check()?;
    let read = read_full(input, chunk).map_err(|error| from_io(error, UNREADABLE));
    let n = read.and_then(|n| if n < TAG_LEN { Err(CUT) } else { Ok(n) }).map_err(|error| stream.held.fail(error))?;
    stream.open(&mut chunk[..n])?;
    *is_complete = n < SEALED_CHUNK_LEN;
    Ok(n - TAG_LEN)
}

impl<R: Read> BufRead for StreamReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() && !self.is_complete {
            let Self { stream, input, chunk, is_complete, .. } = self;
            self.rest = 0..next_chunk(stream, input, chunk, is_complete)?;
        }
        Ok(&self.chunk[self.rest.clone()])
    }

    fn consume(&mut self, n: usize) {
        self.rest.start = (self.rest.start + n).min(self.rest.end);
    }
}

impl<R: Read> Read for StreamReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = 0;
        if self.rest.is_empty() {
            let Self { stream, input, is_complete, .. } = self;
            while !*is_complete && let Some(chunk) = buffer[n..].get_mut(..SEALED_CHUNK_LEN) {
                match next_chunk(stream, input, chunk, is_complete) {
                    Ok(len) => n += len,
                    // What was opened before is given out; the next call fails again.
                    Err(_) if n > 0 => break,
                    Err(error) => return Err(error.into()),
                }
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
