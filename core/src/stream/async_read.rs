//! Reading a stream from the front to the end, in async code.

use super::read::ReadChunk;
use super::{OpeningStream, UNREADABLE};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

/// Reads the plaintext of a stream from the front. Made by [`OpeningStream::into_async_reader`].
///
/// It gives out verified plaintext only, and an end only where the stream ends: a read of 0 bytes into a buffer with room proves that everything was
/// read. Act on nothing that must be whole before that. A stream that was cut or never finished is an error in the place of its end. A call that is dropped
/// while it waits loses nothing.
///
/// Errors are [`Error`](crate::Error)s within those of `std::io`. After one every later call fails with it: but for
/// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), after which [`renew`](Self::renew) lets it go on where it was.
pub struct AsyncStreamReader<R> {
    stream: OpeningStream,
    input: R,
    chunk: ReadChunk,
}

impl<R: AsyncRead + Unpin> AsyncStreamReader<R> {
    pub(super) fn new(stream: OpeningStream, input: R) -> Self {
        Self { stream, input, chunk: ReadChunk::new() }
    }

    /// Whether the last chunk was verified: what was read, and what is still to be read of the buffer, is all there is.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.chunk.is_complete
    }

    reads_as_opening_stream!();
}

impl<R: AsyncRead + Unpin> AsyncBufRead for AsyncStreamReader<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let Self { stream, input, chunk } = self.get_mut();
        if chunk.is_spent() {
            stream.held.check()?;
            while !chunk.room().is_empty() {
                let mut room = ReadBuf::new(chunk.room());
                ready!(stream.held.poll_pass(|| Pin::new(&mut *input).poll_read(cx, &mut room), UNREADABLE))?;
                let n = room.filled().len();
                if n == 0 {
                    break;
                }
                chunk.sealed += n;
            }
            chunk.open(stream)?;
        } else {
            chunk.check(stream)?;
        }
        Poll::Ready(Ok(chunk.rest()))
    }

    fn consume(self: Pin<&mut Self>, n: usize) {
        self.get_mut().chunk.consume(n);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for AsyncStreamReader<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let rest = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl<R> core::fmt::Debug for AsyncStreamReader<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AsyncStreamReader").field("stream", &self.stream).finish_non_exhaustive()
    }
}
