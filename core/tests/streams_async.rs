//! The adapters of streams for async code. What attackers make of streams is held against the reader in streams.rs.
//!
//! A little over 500 lines: reader and writer are held against the same slow and failing inputs and outputs.

use crate::common::lab::*;
use crate::common::{block_on, refused};
use crate::streams::*;
use keyfold::wire::{SEALED_CHUNK_LEN, STREAM_HEADER_LEN, sealed_stream_len};
use keyfold::{AsyncStreamReader, AsyncStreamWriter, Clock, ErrorKind, Keyring};
use proptest::prelude::*;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::compat::{
    FuturesAsyncReadCompatExt, FuturesAsyncWriteCompatExt, TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt,
};

/// Is pending every other time, and takes or gives at most some bytes the other times; fails once.
pub(crate) struct Slow<T> {
    inner: T,
    most: usize,
    is_ready: bool,
    /// Bytes until it fails.
    left: usize,
}

impl<T> Slow<T> {
    pub(crate) fn new(inner: T, most: usize) -> Self {
        Self { inner, most, is_ready: false, left: usize::MAX }
    }

    fn failing(inner: T, left: usize) -> Self {
        Self { left, ..Self::new(inner, 5000) }
    }

    fn poll_most(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.is_ready = !self.is_ready;
        if self.is_ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.left == 0 {
            self.left = usize::MAX;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Ready(Ok(self.most.min(self.left)))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Slow<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = ready!(self.poll_most(cx))?.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buffer.advance(n);
        self.left -= n;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Slow<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = ready!(self.poll_most(cx))?.min(bytes.len());
        let n = ready!(Pin::new(&mut self.inner).poll_write(cx, &bytes[..most]))?;
        self.left -= n;
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_most(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_most(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Reads by `read` until it ends.
pub(crate) async fn drain_async<R: AsyncRead + Unpin>(mut reader: AsyncStreamReader<R>, size: usize) -> Outcome {
    let (mut out, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => {
                assert!(reader.is_complete());
                return (out, Ok(()));
            }
            Ok(n) => out.extend_from_slice(&buffer[..n]),
            Err(error) => {
                let first = unwrapped(&error);
                assert_eq!(
                    unwrapped(&reader.read(&mut buffer).await.unwrap_err()).kind(),
                    first.kind(),
                    "it keeps failing"
                );
                return (out, Err(first));
            }
        }
    }
}

fn opened(ring: &Keyring, sealed: &[u8], expected: &[u8]) -> Result<(), ErrorKind> {
    open_every_way(|| begin_to_open(ring, "image", "t1", None, sealed), sealed, expected).map_err(|error| error.kind())
}

fn writer<W: AsyncWrite + Unpin>(ring: &Keyring, output: W) -> AsyncStreamWriter<W> {
    begin(ring, "image", None).unwrap().into_async_writer(output).unwrap()
}

fn reader<R: AsyncRead + Unpin>(ring: &Keyring, sealed: &[u8], chunks: R) -> AsyncStreamReader<R> {
    begin_to_open(ring, "image", "t1", None, sealed).unwrap().into_async_reader(chunks)
}

fn kind<T>(done: io::Result<T>) -> Option<ErrorKind> {
    done.err().map(|error| unwrapped(&error).kind())
}

/// Polls a future once, and drops it: what a `select!` does whose other branch is ready.
fn once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

#[test]
fn every_length_is_sealed_as_by_the_others() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    for len in LENGTHS {
        let plaintext = plaintext(len);
        for (piece, most) in [(1, 100_000), (1000, 1), (CHUNK, 9000), (100_000, 100_000)] {
            let mut sealed = Vec::new();
            let mut writer = writer(&ring, Slow::new(&mut sealed, most));
            block_on(async {
                for piece in plaintext.chunks(piece) {
                    writer.write_all(piece).await.unwrap();
                }
                writer.shutdown().await.unwrap();
                // It is complete once.
                writer.shutdown().await.unwrap();
                assert_eq!(kind(writer.write_all(b"more").await), Some(ErrorKind::Closed));
            });
            drop(writer);
            assert_eq!(sealed.len() as u64, sealed_stream_len(len as u64).unwrap());
            assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()), "{len} by {piece}");
        }
        // By bytes, from an input that has one at a time.
        let sealed = seal_bytes(&ring, &plaintext[..len.min(3 * CHUNK)]);
        let reader = reader(&ring, &sealed, Slow::new(&sealed[STREAM_HEADER_LEN..], 1));
        let (bytes, ended) = block_on(drain_async(reader, 1));
        assert!(ended.is_ok() && bytes == plaintext[..len.min(3 * CHUNK)]);
    }
    // Lines, which `AsyncBufRead` has.
    let sealed = seal_bytes(&ring, b"one\ntwo\n");
    let mut lines = reader(&ring, &sealed, &sealed[STREAM_HEADER_LEN..]).lines();
    block_on(async {
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("one"));
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("two"));
        assert_eq!(lines.next_line().await.unwrap(), None);
    });
    assert_eq!(block_on(lines.into_inner().read(&mut [])).unwrap(), 0);
}

#[test]
fn without_shutdown_it_is_not_complete() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(2 * CHUNK);
    let mut sealed = Vec::new();
    let mut dropped = writer(&ring, &mut sealed);
    block_on(dropped.write_all(&plaintext)).unwrap();
    block_on(dropped.flush()).unwrap();
    drop(dropped);
    assert_eq!(sealed.len(), STREAM_HEADER_LEN + 2 * SEALED_CHUNK_LEN, "what was sealed was passed on");
    assert_eq!(opened(&ring, &sealed, &plaintext), Err(ErrorKind::Malformed));
    // Whoever finishes it goes on with the output.
    let mut whole = writer(&ring, Slow::new(Vec::new(), 3000));
    block_on(whole.write_all(&plaintext)).unwrap();
    block_on(whole.finish()).unwrap();
    let mut sealed = whole.into_inner().inner;
    assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()));
    sealed.push(0);
    assert_eq!(opened(&ring, &sealed, &plaintext), Err(ErrorKind::DecryptionFailed));
    // A copy whose input fails does not finish it.
    let mut sealed = Vec::new();
    let mut copied = writer(&ring, &mut sealed);
    let failed = block_on(tokio::io::copy(&mut Slow::failing(&plaintext[..], 20_000), &mut copied));
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(copied);
    assert_eq!(opened(&ring, &sealed, &plaintext), Err(ErrorKind::Malformed));
    // Only from the front.
    let mut begun = begin(&ring, "image", None).unwrap();
    begun.update(b"abc", &mut Vec::new()).unwrap();
    assert_eq!(refused(begun.into_async_writer(tokio::io::sink()), "begun"), ErrorKind::InvalidInput);
    let whole = seal_bytes(&ring, &plaintext);
    let mut begun = begin_to_open(&ring, "image", "t1", None, &whole).unwrap();
    begun.update(&whole[STREAM_HEADER_LEN..][..5], &mut Vec::new()).unwrap();
    let read = block_on(drain_async(begun.into_async_reader(&whole[STREAM_HEADER_LEN + 5..]), 10));
    assert_eq!(refused(read.1, "begun"), ErrorKind::InvalidInput);
}

/// Takes nothing, and says so.
struct Full;

impl AsyncWrite for Full {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn failures_are_final() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(2 * CHUNK + 9);
    let whole = seal_bytes(&ring, &plaintext);
    let chunks = &whole[STREAM_HEADER_LEN..];
    for at in
        [0, 50, STREAM_HEADER_LEN, 20_000, STREAM_HEADER_LEN + SEALED_CHUNK_LEN, whole.len() - 25, whole.len() - 1]
    {
        let mut out = Vec::new();
        let mut failing = writer(&ring, Slow::failing(&mut out, at));
        block_on(async {
            let written = failing.write_all(&plaintext).await;
            let done = if written.is_ok() { failing.shutdown().await } else { written };
            assert_eq!(kind(done), Some(ErrorKind::Io), "at {at}");
            // The output takes more from now on.
            for _ in 0..2 {
                assert_eq!(kind(failing.write(b"more").await), Some(ErrorKind::Io));
                assert_eq!(kind(failing.flush().await), Some(ErrorKind::Io));
                assert_eq!(kind(failing.shutdown().await), Some(ErrorKind::Io));
            }
            assert_eq!(kind(failing.finish().await), Some(ErrorKind::Io));
        });
        assert_eq!(out.len(), at, "nothing followed");
        assert!(opened(&ring, &out, &plaintext).is_err());
        let failing = reader(&ring, &whole, Slow::failing(chunks, at.min(chunks.len() - 1)));
        let (released, ended) = block_on(drain_async(failing, 100_000));
        assert!(plaintext.starts_with(&released));
        assert_eq!(refused(ended, "input"), ErrorKind::Io);
    }
    let none = block_on(writer(&ring, Full).shutdown());
    assert_eq!(kind(none), Some(ErrorKind::Io));
    // Chunks that do not open, as streams.rs has them, with a keyring that is closed meanwhile.
    let mut late = reader(&ring, &whole, Slow::new(chunks, 5000));
    assert_eq!(block_on(late.read(&mut [0; 10])).unwrap(), 10);
    let mut sealing = writer(&ring, Vec::new());
    ring.close();
    assert_eq!(kind(block_on(late.read(&mut [0; 10]))), Some(ErrorKind::Closed));
    assert_eq!(kind(block_on(sealing.write(b"late"))), Some(ErrorKind::Closed));
    assert_eq!(kind(block_on(sealing.shutdown())), Some(ErrorKind::Closed));
}

/// Goes a day ahead when it is looked at for the n-th time.
#[derive(Clone, Default)]
struct Jumping(Arc<(AtomicI64, AtomicI64)>);

impl Jumping {
    fn in_looks(&self, n: i64) {
        self.0.0.store(n, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now(&self) -> Duration {
        if self.0.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.1.fetch_add(1, Ordering::SeqCst);
        }
        Duration::from_secs(86_400) * (1 + self.0.1.load(Ordering::SeqCst) as u32)
    }
}

/// Repeats what fails because the key has run out, once it was renewed; the number of such failures.
macro_rules! renewing {
    ($failures:ident, $stream:ident, $call:expr) => {
        loop {
            let done = $call;
            match done {
                Err(error) if unwrapped(&error).kind() == ErrorKind::DeadlineExceeded => {
                    *$failures += 1;
                    block_on($stream.renew()).unwrap();
                }
                done => break done.unwrap(),
            }
        }
    };
}

/// Wherever in a stream its key runs out, nothing of it is lost and nothing is there twice: in async code and else.
#[test]
fn a_key_may_run_out_at_any_moment() {
    let lab = Lab::new();
    let clock = Jumping::default();
    let (store, marks) = (Arc::new(lab.store.clone()), Arc::new(lab.marks.clone()));
    let ring = Keyring::open_with_clock(config(&lab), store, lab.keks(), marks, Arc::new(clock.clone())).unwrap();
    let plaintext = plaintext(3 * CHUNK + 100);
    let mut failures = [0; 6];
    for looks in 1..60 {
        let [sync_write, async_write, sync_read, large_read, async_read, range_read] = &mut failures;
        let mut sync = begin(&ring, "image", None).unwrap().into_writer(Vec::new()).unwrap();
        clock.in_looks(looks);
        for mut piece in plaintext.chunks(7000) {
            while !piece.is_empty() {
                let n = renewing!(sync_write, sync, sync.write(piece));
                piece = &piece[n..];
            }
        }
        renewing!(sync_write, sync, sync.finish());
        clock.in_looks(0);
        assert_eq!(opened(&ring, &sync.into_inner(), &plaintext), Ok(()), "{looks}");

        let mut sealed = Vec::new();
        let mut writer = writer(&ring, Slow::new(&mut sealed, 10_000));
        clock.in_looks(looks);
        for mut piece in plaintext.chunks(7000) {
            while !piece.is_empty() {
                let n = renewing!(async_write, writer, block_on(writer.write(piece)));
                piece = &piece[n..];
            }
        }
        renewing!(async_write, writer, block_on(writer.shutdown()));
        drop(writer);
        clock.in_looks(0);
        assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()), "{looks}");

        let begin = || begin_to_open(&ring, "image", "t1", None, &sealed).unwrap();
        for (count, size) in [(sync_read, 9000), (large_read, 40_000)] {
            let (mut out, mut buffer) = (Vec::new(), vec![0; size]);
            let mut reader = begin().into_reader(&sealed[STREAM_HEADER_LEN..]);
            clock.in_looks(looks);
            loop {
                match renewing!(count, reader, reader.read(&mut buffer)) {
                    0 => break,
                    n => out.extend_from_slice(&buffer[..n]),
                }
            }
            clock.in_looks(0);
            assert!(out == plaintext, "{looks}");
        }
        let (mut out, mut buffer) = (Vec::new(), vec![0; 9000]);
        let mut ranges = begin().into_ranges(io::Cursor::new(&sealed[STREAM_HEADER_LEN..])).unwrap();
        clock.in_looks(looks);
        loop {
            match renewing!(range_read, ranges, ranges.read(&mut buffer)) {
                0 => break,
                n => out.extend_from_slice(&buffer[..n]),
            }
        }
        clock.in_looks(0);
        assert!(out == plaintext, "{looks}");
        out.clear();
        let mut reader = begin().into_async_reader(Slow::new(&sealed[STREAM_HEADER_LEN..], 10_000));
        clock.in_looks(looks);
        loop {
            match renewing!(async_read, reader, block_on(reader.read(&mut buffer))) {
                0 => break,
                n => out.extend_from_slice(&buffer[..n]),
            }
        }
        clock.in_looks(0);
        assert!(out == plaintext, "{looks}");
    }
    assert!(failures.iter().all(|count| *count >= 5), "the clock has jumped where it matters: {failures:?}");
}

#[test]
fn a_sealed_file_goes_through_a_connection() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(10_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let (near, mut far) = tokio::io::duplex(10_000);
    let mut writer = writer(&ring, near);
    let input = plaintext.clone();
    let received = runtime.block_on(async {
        let sender = tokio::spawn(async move {
            let copied = tokio::io::copy(&mut &input[..], &mut writer).await.unwrap();
            writer.shutdown().await.unwrap();
            copied
        });
        let mut head = [0; STREAM_HEADER_LEN];
        far.read_exact(&mut head).await.unwrap();
        let mut reader = reader(&ring, &head, far);
        let receiver = tokio::spawn(async move {
            let mut out = Vec::new();
            reader.read_to_end(&mut out).await.unwrap();
            out
        });
        assert_eq!(sender.await.unwrap(), 10_000_000);
        receiver.await.unwrap()
    });
    assert!(received == plaintext);
}

#[test]
fn a_select_drops_what_waits() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(5 * CHUNK + 3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        // An output that takes nothing until somebody reads.
        let (near, mut far) = tokio::io::duplex(100);
        let mut writer = writer(&ring, near);
        // It takes the header, and the writer one chunk.
        assert_eq!(writer.write(&plaintext).await.unwrap(), CHUNK);
        assert!(once(writer.write(&plaintext[CHUNK..])).is_none(), "no more is taken than goes out");
        let (mut rest, mut dropped, mut sealed, mut part) = (&plaintext[CHUNK..], 0, Vec::new(), vec![0; 777]);
        while !rest.is_empty() {
            tokio::select! {
                biased;
                written = writer.write(rest) => rest = &rest[written.unwrap()..],
                read = far.read(&mut part) => {
                    sealed.extend_from_slice(&part[..read.unwrap()]);
                    dropped += 1;
                }
            }
        }
        loop {
            tokio::select! {
                biased;
                done = writer.shutdown() => break done.unwrap(),
                read = far.read(&mut part) => {
                    sealed.extend_from_slice(&part[..read.unwrap()]);
                    dropped += 1;
                }
            }
        }
        far.read_to_end(&mut sealed).await.unwrap();
        assert!(dropped > 100, "{dropped}");
        assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()));
    });
}

#[test]
fn the_traits_of_futures_are_one_call_away() {
    let lab = Lab::new();
    let ring = lab.process_with(config(&lab));
    let plaintext = plaintext(3 * CHUNK + 100);
    let mut sealed = Vec::new();
    block_on(async {
        // An output of the traits of futures, and a writer of them.
        let output = futures_util::io::Cursor::new(&mut sealed);
        let mut writer = writer(&ring, output.compat_write()).compat_write();
        futures_util::io::AsyncWriteExt::write_all(&mut writer, &plaintext).await.unwrap();
        futures_util::io::AsyncWriteExt::close(&mut writer).await.unwrap();
    });
    assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()));
    let input = futures_util::io::Cursor::new(&sealed[STREAM_HEADER_LEN..]);
    let mut reader = reader(&ring, &sealed, input.compat()).compat();
    let mut out = Vec::new();
    block_on(futures_util::io::AsyncReadExt::read_to_end(&mut reader, &mut out)).unwrap();
    assert!(out == plaintext);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Calls that are dropped wherever they wait lose nothing and seal nothing twice.
    #[test]
    fn calls_may_be_dropped(
        len in 0_usize..4 * CHUNK,
        calls in prop::collection::vec((any::<bool>(), 1_usize..40_000), 1..20),
        most in 100_usize..20_000,
    ) {
        let lab = Lab::new();
        let ring = lab.process_with(config(&lab));
        let plaintext = plaintext(len);
        let mut sealed = Vec::new();
        let mut writer = writer(&ring, Slow::new(&mut sealed, most));
        let (mut rest, mut calls_again) = (&plaintext[..], calls.iter().cycle());
        while !rest.is_empty() {
            let (flush, size) = calls_again.next().unwrap();
            if *flush {
                once(writer.flush()).transpose().unwrap();
            }
            let n = once(writer.write(&rest[..rest.len().min(*size)])).transpose().unwrap().unwrap_or(0);
            rest = &rest[n..];
        }
        while once(writer.shutdown()).transpose().unwrap().is_none() {}
        drop(writer);
        prop_assert_eq!(opened(&ring, &sealed, &plaintext), Ok(()));
        let mut reader = reader(&ring, &sealed, Slow::new(&sealed[STREAM_HEADER_LEN..], most));
        let (mut out, mut buffer) = (Vec::new(), vec![0; 40_000]);
        for (_, size) in calls.iter().cycle() {
            match once(reader.read(&mut buffer[..*size])).transpose().unwrap() {
                Some(0) => break,
                Some(n) => out.extend_from_slice(&buffer[..n]),
                None => {}
            }
        }
        prop_assert!(out == plaintext);
    }
}
