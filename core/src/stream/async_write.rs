//! Sealing what is written, in async code.

use super::{COMPLETE, SealingStream, UNWRITABLE};
use crate::error::Result;
use crate::wire::{SEALED_CHUNK_LEN, StreamHeader};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// Seals what is written to it and passes it on, chunk by chunk. Made by [`SealingStream::into_async_writer`].
///
/// **Only shutting it down makes the stream complete**: or [`finish`](Self::finish), which does not shut the output down. What is dropped before ends in
/// a stream that no reader takes for whole. So shut down only what has everything: to do it after the *input* failed is to say that this is all there
/// was. `tokio::io::copy` does not do it; what shuts a writer down by itself, such as `copy_bidirectional`, does so where its input ends.
///
/// A call waits for the output, and takes nothing, until the chunk that was sealed before is out; memory is two chunks. Flushing passes on what was sealed,
/// and holds back the chunk that is not full. A call that is dropped while it waits loses nothing and seals nothing twice: what was told as written
/// is in the stream once. (`write_all` does not say how much of its bytes that is, whatever it writes to.)
///
/// Errors are [`Error`](crate::Error)s within those of `std::io`. After one every later call fails with it, that to shut down as well: but for
/// [`DeadlineExceeded`](crate::ErrorKind::DeadlineExceeded), of which nothing was taken, and which ends with [`renew`](Self::renew).
pub struct AsyncStreamWriter<W> {
    stream: SealingStream,
    output: W,
    /// The header, or a chunk, that goes out.
    sealed: Vec<u8>,
    /// How much of it is out.
    written: usize,
    /// Whether the last chunk was sealed.
    is_finished: bool,
}

impl<W: AsyncWrite + Unpin> AsyncStreamWriter<W> {
    pub(super) fn new(stream: SealingStream, output: W) -> Self {
        let mut sealed = Vec::with_capacity(SEALED_CHUNK_LEN);
        sealed.extend_from_slice(stream.header().as_bytes());
        Self { stream, output, sealed, written: 0, is_finished: false }
    }

    writes_as_sealing_stream!();

    /// Seals and writes the last chunk, once, and flushes: now the stream is complete, and every later write fails with
    /// [`Closed`](crate::ErrorKind::Closed). The output is not shut down: [`into_inner`](Self::into_inner) gives it, for what else may be written. If this is
    /// dropped before it is done it may be called again.
    ///
    /// # Errors
    ///
    /// Those of [`SealingStream::update`], and of the output.
    pub async fn finish(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_finish(cx)).await?;
        poll_fn(|cx| Pin::new(&mut *self).poll_flush(cx)).await
    }

    /// Seals the last chunk, once, and has it written.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_pass(cx))?;
        if !self.is_finished {
            self.stream.seal_last(&mut self.sealed)?;
            self.is_finished = true;
        }
        self.poll_pass(cx)
    }

    /// Writes what was sealed, to its end.
    fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.stream.held.check_goes_on()?;
        while let Some(rest) = self.sealed.get(self.written..).filter(|rest| !rest.is_empty()) {
            let write = || match ready!(Pin::new(&mut self.output).poll_write(cx, rest)) {
                Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => Poll::Ready(written),
            };
            self.written += ready!(self.stream.held.poll_pass(write, UNWRITABLE))?;
        }
        self.sealed.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for AsyncStreamWriter<W> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_pass(cx))?;
        if this.is_finished {
            return Poll::Ready(Err(COMPLETE.into()));
        }
        let n = bytes.len().min(this.stream.until_full());
        this.stream.update(&bytes[..n], &mut this.sealed)?;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_pass(cx))?;
        let flush = || Pin::new(&mut this.output).poll_flush(cx);
        Poll::Ready(Ok(ready!(this.stream.held.poll_pass(flush, UNWRITABLE))?))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_finish(cx))?;
        // Which flushes as well.
        let shut = || Pin::new(&mut this.output).poll_shutdown(cx);
        Poll::Ready(Ok(ready!(this.stream.held.poll_pass(shut, UNWRITABLE))?))
    }
}

impl<W> core::fmt::Debug for AsyncStreamWriter<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("AsyncStreamWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}
