//! Sealing streams.

use super::chunks::{check_last, check_whole};
use super::{AsyncStreamWriter, Bound, COMPLETE, Chunks, Held, StreamProgress, StreamWriter, pump};
use crate::audit::Use;
use crate::error::{Error, ErrorKind, Result};
use crate::field::sealing::SealingKeys;
use crate::policy::FieldPolicy;
use crate::random;
use crate::wire::stream::TOO_LONG;
use crate::wire::{CHUNK_LEN, KeyId, MAX_CHUNKS, SEALED_CHUNK_LEN, StreamHeader, TAG_LEN};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use tokio::io::AsyncWrite;
use zeroize::{Zeroize, Zeroizing};

/// Seals streams of one field under one scope and context. Cannot open; shared freely between threads.
///
/// ```
/// # use std::io::Write;
/// # async fn example(ring: &keyfold::Keyring, file: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
/// let sealer = ring.field("patient.image")?.stream_sealer().await?; // may call the key service
/// let mut writer = sealer.begin(Some(b"image-17"))?.into_writer(file)?;
/// writer.write_all(b"DICM")?;
/// writer.finish()?; // without it the stream is not complete
/// # Ok(())
/// # }
/// ```
pub struct StreamSealer {
    bound: Arc<Bound>,
    keys: SealingKeys,
}

impl StreamSealer {
    pub(crate) fn new(bound: Bound, keys: SealingKeys) -> Self {
        Self { bound: Arc::new(bound), keys }
    }

    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.bound.policy
    }

    /// The key that sealed last, or would now; [`ready`](Self::ready) may bring another.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.keys.key_id()
    }

    /// Makes sure that the next stream begins under the current key: see [`Encryptor::ready`](crate::Encryptor::ready).
    ///
    /// # Errors
    ///
    /// As for [`Encryptor::ready`](crate::Encryptor::ready).
    pub async fn ready(&self) -> Result<&Self> {
        self.keys.ready(&self.bound.ring).await.map_err(|error| self.bound.uses.failed(error))?;
        Ok(self)
    }

    /// Whether [`ready`](Self::ready) has nothing to do.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.keys.is_ready(&self.bound.ring)
    }

    /// Begins a stream under a key of its own, bound to `row` where the policy binds the field.
    ///
    /// It counts as one value against what the rotation policy allows a key. A rotation does not touch streams that have begun.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): row binding missing or not wanted.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): the row binding is too long, or the key has sealed as many values as the rotation
    ///   policy allows.
    /// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable), [`DeadlineExceeded`](ErrorKind::DeadlineExceeded),
    ///   [`KeyState`](ErrorKind::KeyState): as for [`Encryptor::encrypt`](crate::Encryptor::encrypt).
    pub fn begin(&self, row: Option<&[u8]>) -> Result<SealingStream> {
        self.try_begin(row).map_err(|error| self.bound.uses.failed(error))
    }

    fn try_begin(&self, row: Option<&[u8]>) -> Result<SealingStream> {
        let key = self.keys.usable(&self.bound.ring, 1)?;
        let salt = random::array()?;
        let mut chunks = None;
        let header = StreamHeader::new(&key.key_id, &salt, |head| {
            let (derived, commitment) = self.bound.derive(&key, head, &salt, row)?;
            chunks = Some(Arc::new(derived));
            Ok(commitment)
        })?;
        self.bound.uses.count(key.key_id, Use::Sealed, 1);
        Ok(SealingStream {
            held: Held { bound: self.bound.clone(), key, process: Some(std::process::id()), ended: None },
            header,
            chunks: chunks.ok_or(ErrorKind::Internal)?,
            next: 0,
            pending: Zeroizing::new(Vec::with_capacity(CHUNK_LEN)),
        })
    }
}

impl core::fmt::Debug for StreamSealer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamSealer")
            .field("field", &self.bound.policy.name)
            .field("key_id", &self.key_id())
            .finish_non_exhaustive()
    }
}

/// A stream that is being sealed: its [`header`](Self::header) comes first, then what the calls give, in order.
///
/// Only [`finish`](Self::finish) makes it complete. A stream that was dropped before is refused at its end, whatever was read of it until then.
///
/// Its nonces are fixed when it begins, so nothing may seal it twice: after a fork only the process that began it goes on ([`Closed`](ErrorKind::Closed) in others). **A
/// snapshot of a machine that is resumed twice in the middle of a stream cannot be noticed** (docs/LIMITS.md).
pub struct SealingStream {
    pub(super) held: Held,
    header: StreamHeader,
    chunks: Arc<Chunks>,
    /// Number of the next chunk.
    next: u64,
    /// What was given of a chunk that is not full.
    pending: Zeroizing<Vec<u8>>,
}

impl SealingStream {
    /// The first 83 bytes of the stream.
    #[must_use]
    pub const fn header(&self) -> &StreamHeader {
        &self.header
    }

    /// Whether [`renew`](Self::renew) has something to do.
    #[must_use]
    pub fn needs_renewal(&self) -> bool {
        self.held.needs_renewal()
    }

    /// Has the key of the stream confirmed when that is due. A stream that takes longer than the
    /// [`CachePolicy`](crate::CachePolicy) lets a key be used awaits this now and then.
    ///
    /// # Errors
    ///
    /// As for [`Encryptor::ready`](crate::Encryptor::ready).
    pub async fn renew(&mut self) -> Result<()> {
        self.held.renew().await
    }

    /// Appends the sealed chunks that `plaintext` fills to `out`, and keeps the rest for the next call.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more than [`MAX_STREAM_LEN`](crate::wire::MAX_STREAM_LEN) bytes.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): the key has been held for as long as the cache policy allows;
    ///   [`renew`](Self::renew) and repeat. A key that was revoked gives the error that revoked it.
    /// - [`KeyState`](ErrorKind::KeyState): the key was marked compromised; begin the stream again under another one.
    /// - [`Closed`](ErrorKind::Closed): after [`Keyring::close`](crate::Keyring::close).
    ///
    /// `out` is as before, and nothing of `plaintext` was taken. But for `DeadlineExceeded` every later call fails as well.
    pub fn update(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let whole = (self.pending.len() + plaintext.len()) / CHUNK_LEN;
        self.check_room(whole as u64)?;
        if whole == 0 {
            self.pending.extend_from_slice(plaintext);
            return Ok(());
        }
        // Everything goes to its place first, and is sealed there.
        out.reserve(whole * SEALED_CHUNK_LEN);
        let (first, rest) = plaintext.split_at(CHUNK_LEN - self.pending.len());
        let (full, rest) = rest.split_at((whole - 1) * CHUNK_LEN);
        out.extend_from_slice(&self.pending);
        for part in core::iter::once(first).chain(full.chunks_exact(CHUNK_LEN)) {
            out.extend_from_slice(part);
            out.extend_from_slice(&[0; TAG_LEN]);
        }
        if let Err(error) = self.seal(&mut out[start..], whole as u64) {
            out[start..].zeroize();
            out.truncate(start);
            return Err(error);
        }
        // Written over, and erased at the end.
        self.pending.clear();
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Appends the last chunk to `out`: now the stream is complete, and every later call fails with [`Closed`](ErrorKind::Closed).
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update): after `DeadlineExceeded`, [`renew`](Self::renew) and repeat.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.seal_last(out)?;
        self.held.ended = Some(COMPLETE);
        Ok(())
    }

    /// As [`finish`](Self::finish), but for refusing what follows: the caller does, who has yet to write it.
    pub(super) fn seal_last(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.check_room(0)?;
        let start = out.len();
        // At once, since growing would leave the plaintext where it was.
        out.reserve(self.pending.len() + TAG_LEN);
        out.extend_from_slice(&self.pending);
        out.extend_from_slice(&[0; TAG_LEN]);
        let sealed = self.seal(&mut out[start..], 1);
        sealed.inspect_err(|_| {
            out[start..].zeroize();
            out.truncate(start);
        })
    }

    /// Seals whole chunks where they are, without copying: `buffer` has a multiple of 16,400 bytes, of which the first 16,384 of each are
    /// plaintext. The sealed chunks take the place of all.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update), and [`InvalidInput`](ErrorKind::InvalidInput): another length, or [`update`](Self::update) was called
    /// before and holds back a part of a chunk. `buffer` is as before.
    pub fn seal_in_place(&mut self, buffer: &mut [u8]) -> Result<()> {
        let whole = check_whole(buffer)?;
        self.check_nothing_pending()?;
        self.check_room(whole)?;
        self.seal(buffer, whole)
    }

    /// Seals the last chunk where it is: `chunk` is 0 to 16,383 bytes of plaintext and 16 of room. Now the stream is complete, and
    /// every later call fails with [`Closed`](ErrorKind::Closed).
    ///
    /// # Errors
    ///
    /// As for [`seal_in_place`](Self::seal_in_place).
    pub fn finish_in_place(&mut self, chunk: &mut [u8]) -> Result<()> {
        check_last(chunk)?;
        self.check_nothing_pending()?;
        self.seal(chunk, 1)?;
        self.held.ended = Some(COMPLETE);
        Ok(())
    }

    /// A writer that seals what is written to it, for `output`. Writes the header at once.
    ///
    /// # Errors
    ///
    /// Those of `output`, and [`InvalidInput`](ErrorKind::InvalidInput) if something was sealed or held back before.
    pub fn into_writer<W: Write>(self, output: W) -> std::io::Result<StreamWriter<W>> {
        self.check_fresh()?;
        StreamWriter::new(self, output)
    }

    /// The same in async code: a [`tokio::io::AsyncWrite`], which needs no runtime. The header goes out with what is written first.
    ///
    /// ```
    /// # use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
    /// # async fn example(sealer: &keyfold::StreamSealer, input: impl AsyncRead, socket: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    /// # let mut input = std::pin::pin!(input);
    /// let mut writer = sealer.begin(Some(b"image-17"))?.into_async_writer(socket)?;
    /// tokio::io::copy(&mut input, &mut writer).await?;
    /// writer.shutdown().await?; // without it the stream is not complete
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput): something was sealed or held back before.
    pub fn into_async_writer<W: AsyncWrite + Unpin>(self, output: W) -> Result<AsyncStreamWriter<W>> {
        self.check_fresh()?;
        Ok(AsyncStreamWriter::new(self, output))
    }

    /// Seals everything that `input` has, and writes the whole stream to `output`, the header included; returns the bytes of plaintext.
    ///
    /// `threads` seal at once, and read and write one at a time; the calling thread is one of them. Memory: 512 KiB per thread, however long the
    /// stream is. `progress` is called after each 256 KiB that were read, by the thread that read them.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update), those of `progress`, and [`Io`](ErrorKind::Io): `input` or `output` failed. What was written is no
    /// complete stream. Of several threads one may be waiting for `input` when `output` fails: it ends when that answers.
    pub fn seal_all(
        mut self,
        input: &mut (impl Read + Send),
        output: &mut (impl Write + Send),
        threads: NonZeroUsize,
        mut progress: impl FnMut(&mut StreamProgress<'_>) -> Result<()> + Send,
    ) -> Result<u64> {
        self.check_fresh()?;
        let (chunks, held, mut read) = (&*self.chunks, &mut self.held, 0);
        let pumped = pump::put(output, self.header.as_bytes()).and_then(|()| {
            pump::run(
                threads,
                |batch, has_failed| {
                    held.check()?;
                    read += batch.read_plaintext(&mut pump::WhileWanted::new(input, has_failed))?;
                    progress(&mut StreamProgress::new(held, read))?;
                    // Reading may have taken any time.
                    held.check()
                },
                |batch| chunks.seal(batch.first(), batch.bytes_mut()),
                |batch| pump::put(output, batch.bytes()),
            )
        });
        pumped.map_err(|error| self.held.fail(error))?;
        Ok(read)
    }

    /// Bytes until the chunk that is held back is full: at least one.
    pub(super) fn until_full(&self) -> usize {
        CHUNK_LEN - self.pending.len()
    }

    /// Seals the next chunks where they are. After an error `buffer` has been erased, unless only the lease of the key has run out.
    fn seal(&mut self, buffer: &mut [u8], chunks: u64) -> Result<()> {
        let (keys, next) = (&self.chunks, self.next);
        self.held.with(|| keys.seal(next, buffer))?;
        self.next += chunks;
        Ok(())
    }

    /// Refuses before anything is taken in what would fail later; the last chunk needs a number, too.
    fn check_room(&mut self, chunks: u64) -> Result<()> {
        let (next, room) = (self.next, MAX_CHUNKS - 1);
        self.held.with(|| if chunks <= room.saturating_sub(next) || chunks == 0 { Ok(()) } else { Err(TOO_LONG) })
    }

    fn check_fresh(&self) -> Result<()> {
        if self.next == 0 && self.pending.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "a part of the stream is sealed or held back already"))
    }

    fn check_nothing_pending(&self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            "the stream holds back a part of a chunk, which only update and finish seal",
        ))
    }
}

impl core::fmt::Debug for SealingStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealingStream")
            .field("header", &self.header)
            .field("chunks", &self.next)
            .finish_non_exhaustive()
    }
}
