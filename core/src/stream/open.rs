//! Opening streams.

use super::chunks::{check_last, check_whole, opened_parts};
use super::{AsyncStreamReader, Bound, COMPLETE, Chunks, Held, StreamProgress, StreamRanges, StreamReader, pump};
use crate::audit::Use;
use crate::error::{Error, ErrorKind, Result};
use crate::field::opening::OpeningKeys;
use crate::keyring::CurrentKey;
use crate::policy::FieldPolicy;
use crate::store::Slot;
use crate::wire::stream::{CUT, TOO_LONG};
use crate::wire::{CHUNK_LEN, MAX_CHUNKS, SEALED_CHUNK_LEN, StreamHeader, TAG_LEN};
use std::io::{Read, Seek, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use tokio::io::AsyncRead;
use zeroize::Zeroize;

/// Opens streams of one field under one scope and context. Cannot seal; shared freely between threads.
///
/// ```
/// # use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
/// # use std::io::{Read, Seek, SeekFrom};
/// # async fn example(ring: &keyfold::Keyring, mut file: std::fs::File) -> Result<(), Box<dyn std::error::Error>> {
/// let opener = ring.field("patient.image")?.stream_opener().await?;
/// let mut header = [0; STREAM_HEADER_LEN];
/// file.read_exact(&mut header)?;
/// let header = StreamHeader::parse(&header)?;
/// opener.load_key(&header).await?; // may call the key service
/// let mut ranges = opener.begin(&header, Some(b"image-17"))?.into_ranges(file)?;
/// ranges.seek(SeekFrom::Start(1 << 30))?;
/// ranges.read_exact(&mut [0; 100])?; // reads one chunk, or two, which proves nothing about the length
/// let whole = ranges.verified_len()?;
/// # Ok(())
/// # }
/// ```
pub struct StreamOpener {
    bound: Arc<Bound>,
    keys: OpeningKeys,
}

impl StreamOpener {
    pub(crate) fn new(bound: Bound, slot: Slot, current: Arc<CurrentKey>) -> Self {
        Self { bound: Arc::new(bound), keys: OpeningKeys::new(slot, current) }
    }

    /// The policy of the field.
    #[must_use]
    pub fn policy(&self) -> &FieldPolicy {
        &self.bound.policy
    }

    /// Acquires the key of the stream with this header unless the handle holds it, and has it renewed when that is due. Costs a few loads
    /// when there is nothing to do.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`WrongScope`](ErrorKind::WrongScope),
    ///   [`RecordRejected`](ErrorKind::RecordRejected), [`KeyState`](ErrorKind::KeyState), [`Kms`](ErrorKind::Kms),
    ///   [`Store`](ErrorKind::Store), [`Closed`](ErrorKind::Closed).
    pub async fn load_key(&self, header: &StreamHeader) -> Result<()> {
        self.keys.load(&self.bound.ring, header.key_id()).await.map_err(|error| self.bound.uses.failed(error))
    }

    /// Whether `header` names the key that seals, as [`load_key`](Self::load_key) last saw it. What a header claims is not authenticated.
    #[must_use]
    pub fn is_current(&self, header: &StreamHeader) -> bool {
        self.keys.is_current(header.key_id())
    }

    /// Begins to open the stream with this header. Its key must be held. A header that opens is of a stream that was sealed for this field,
    /// context and row; what follows it is verified piece by piece.
    ///
    /// # Errors
    ///
    /// - [`NoMatchingKey`](ErrorKind::NoMatchingKey), [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): as for
    ///   [`Decryptor::decrypt`](crate::Decryptor::decrypt); [`load_key`](Self::load_key) sees to both.
    /// - [`InvalidInput`](ErrorKind::InvalidInput), [`LimitExceeded`](ErrorKind::LimitExceeded): row binding missing, not wanted or too long.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): another field, context or row, or the header was changed.
    pub fn begin(&self, header: &StreamHeader, row: Option<&[u8]>) -> Result<OpeningStream> {
        self.try_begin(header, row).map_err(|error| self.bound.uses.failed(error))
    }

    fn try_begin(&self, header: &StreamHeader, row: Option<&[u8]>) -> Result<OpeningStream> {
        self.bound.ring.check_open()?;
        let key = self.keys.usable(&self.bound.ring, header.key_id())?;
        let (chunks, commitment) = self.bound.derive(&key, header.head(), header.salt(), row)?;
        if !bool::from(commitment.ct_eq(header.commitment())) {
            return Err(ErrorKind::DecryptionFailed.into());
        }
        self.bound.uses.count(key.key_id, Use::Opened, 1);
        let held = Held { bound: self.bound.clone(), key, process: None, ended: None };
        Ok(OpeningStream { held, chunks, next: 0, pending: Vec::with_capacity(SEALED_CHUNK_LEN) })
    }
}

impl core::fmt::Debug for StreamOpener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamOpener").field("field", &self.bound.policy.name).finish_non_exhaustive()
    }
}

/// A stream that is being opened: takes what follows its header, in order, and gives out verified plaintext.
///
/// What was given out is where it was put, but whether it is all of it shows at the end: only if [`finish`](Self::finish) succeeds is the
/// stream complete. Act on nothing that must be whole before that.
pub struct OpeningStream {
    pub(super) held: Held,
    chunks: Chunks,
    /// Number of the next chunk.
    next: u64,
    /// What was given of a chunk that is not full, sealed.
    pending: Vec<u8>,
}

impl OpeningStream {
    /// Whether the key is compromised: whoever has it can have made the stream.
    #[must_use]
    pub fn is_compromised(&self) -> bool {
        self.held.key.is_compromised()
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
    /// As for [`StreamOpener::load_key`].
    pub async fn renew(&mut self) -> Result<()> {
        self.held.renew().await
    }

    /// Appends the plaintext of the chunks that `sealed` completes to `out`, and keeps the rest for the next call.
    ///
    /// # Errors
    ///
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): a chunk was changed, moved, repeated or left out.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): more chunks than a stream has.
    /// - [`DeadlineExceeded`](ErrorKind::DeadlineExceeded): the key has been held for as long as the cache policy allows;
    ///   [`renew`](Self::renew) and repeat. A key that was revoked gives the error that revoked it.
    /// - [`Closed`](ErrorKind::Closed): after [`Keyring::close`](crate::Keyring::close).
    ///
    /// Nothing of `sealed` was taken, `out` is as before, and the plaintext of this call has been erased. But for `DeadlineExceeded` every
    /// later call fails as well.
    pub fn update(&mut self, sealed: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let whole = (self.pending.len() + sealed.len()) / SEALED_CHUNK_LEN;
        if whole == 0 {
            self.held.with(|| Ok(()))?;
            self.pending.extend_from_slice(sealed);
            return Ok(());
        }
        let start = out.len();
        out.reserve(whole * CHUNK_LEN + TAG_LEN);
        let (first, rest) = sealed.split_at(SEALED_CHUNK_LEN - self.pending.len());
        let (full, rest) = rest.split_at((whole - 1) * SEALED_CHUNK_LEN);
        let (keys, pending, mut next) = (&self.chunks, &self.pending, self.next);
        let opened = self.held.with(|| {
            let mut at = start;
            out.extend_from_slice(pending);
            for part in core::iter::once(first).chain(full.chunks_exact(SEALED_CHUNK_LEN)) {
                // The tag of each chunk makes room for the next one.
                out.extend_from_slice(part);
                keys.open(next, &mut out[at..])?;
                at += CHUNK_LEN;
                out.truncate(at);
                next += 1;
            }
            Ok(())
        });
        opened.inspect_err(|_| {
            out[start..].zeroize();
            out.truncate(start);
        })?;
        self.next = next;
        self.pending.clear();
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    /// Appends the plaintext of the last chunk to `out`: now it is known that the stream is complete, and every later call fails with
    /// [`Closed`](ErrorKind::Closed).
    ///
    /// # Errors
    ///
    /// - [`Malformed`](ErrorKind::Malformed): the stream was cut, or never finished. Of all that was given out, none is missing before
    ///   where it ends.
    /// - [`DecryptionFailed`](ErrorKind::DecryptionFailed): cut within a chunk, lengthened, or the last chunk was changed.
    /// - The others of [`update`](Self::update): after `DeadlineExceeded`, [`renew`](Self::renew) and repeat.
    ///
    /// `out` is as before.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.extend_from_slice(&self.pending);
        let opened = self.open_next(&mut out[start..]);
        out.truncate(start + opened.as_ref().map_or(0, |len| *len));
        opened?;
        self.pending.clear();
        self.held.ended = Some(COMPLETE);
        Ok(())
    }

    /// Opens whole chunks where they are, without copying: `buffer` has a multiple of 16,400 bytes. The plaintext of each takes the first
    /// 16,384 of its bytes.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update), and [`InvalidInput`](ErrorKind::InvalidInput): another length, or [`update`](Self::update) was called
    /// before and holds back a part of a chunk. Of a chunk that does not open
    /// nothing is left: all of `buffer` has been erased. After any other error it is as before.
    pub fn open_in_place(&mut self, buffer: &mut [u8]) -> Result<()> {
        check_whole(buffer)?;
        self.check_nothing_pending()?;
        self.open(buffer)
    }

    /// Opens the last chunk where it is: 16 to 16,399 bytes, of which the plaintext takes all but the last 16. Now it is known that the
    /// stream is complete, and every later call fails with [`Closed`](ErrorKind::Closed).
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish) and [`open_in_place`](Self::open_in_place).
    pub fn finish_in_place(&mut self, chunk: &mut [u8]) -> Result<()> {
        self.check_nothing_pending()?;
        // What is shorter than a tag is no wrong call, but a stream that was cut.
        if chunk.len() >= TAG_LEN {
            check_last(chunk)?;
        }
        self.open_next(chunk)?;
        self.held.ended = Some(COMPLETE);
        Ok(())
    }

    /// Opens the chunk `number` where it is, in any order: for those who read parts of a stream themselves. Returns the bytes of plaintext, which take the first places of
    /// `chunk`: [`CHUNK_LEN`](crate::wire::CHUNK_LEN), or fewer of the last one, which alone proves how long the stream is.
    ///
    /// # Errors
    ///
    /// As for [`open_in_place`](Self::open_in_place), with [`InvalidInput`](ErrorKind::InvalidInput) for more than 16,400 bytes, and
    /// [`Malformed`](ErrorKind::Malformed) for fewer than 16: the stream ends before its last chunk. [`LimitExceeded`](ErrorKind::LimitExceeded) for
    /// a number that no chunk has. After these three the stream goes on.
    pub fn open_chunk(&mut self, number: u64, chunk: &mut [u8]) -> Result<usize> {
        self.held.check()?;
        if chunk.len() > SEALED_CHUNK_LEN {
            return Err(Error::new(ErrorKind::InvalidInput, "a chunk with its tag has at most 16,400 bytes"));
        }
        if number >= MAX_CHUNKS {
            return Err(TOO_LONG);
        }
        let len = chunk.len().checked_sub(TAG_LEN).ok_or(CUT)?;
        let keys = &self.chunks;
        self.held.with(|| keys.open(number, chunk))?;
        Ok(len)
    }

    /// A reader of the plaintext, from the front to the end. `input` stands behind the header. If a part was opened or is held back already, reading
    /// fails with [`InvalidInput`](ErrorKind::InvalidInput).
    #[must_use]
    pub fn into_reader<R: Read>(self, input: R) -> StreamReader<R> {
        StreamReader::new(self.fresh_or_failed(), input)
    }

    /// The same in async code: a [`tokio::io::AsyncRead`] and [`AsyncBufRead`](tokio::io::AsyncBufRead), which needs no runtime.
    ///
    /// ```
    /// # use keyfold::wire::{STREAM_HEADER_LEN, StreamHeader};
    /// # use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
    /// # async fn example(opener: &keyfold::StreamOpener, mut socket: impl AsyncRead + Unpin, output: impl AsyncWrite) -> std::io::Result<()> {
    /// # let mut output = std::pin::pin!(output);
    /// let mut header = [0; STREAM_HEADER_LEN];
    /// socket.read_exact(&mut header).await?;
    /// let header = StreamHeader::parse(&header)?;
    /// opener.load_key(&header).await?; // may call the key service
    /// let mut reader = opener.begin(&header, Some(b"image-17"))?.into_async_reader(socket);
    /// tokio::io::copy(&mut reader, &mut output).await?; // fails unless the stream is complete
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn into_async_reader<R: AsyncRead + Unpin>(self, input: R) -> AsyncStreamReader<R> {
        AsyncStreamReader::new(self.fresh_or_failed(), input)
    }

    /// A reader of any part of the plaintext. `input` stands behind the header.
    ///
    /// # Errors
    ///
    /// Those of `input`, when it is asked where it stands.
    pub fn into_ranges<R: Read + Seek>(self, input: R) -> std::io::Result<StreamRanges<R>> {
        StreamRanges::new(self, input)
    }

    /// Opens everything that `input`, which stands behind the header, has, and writes the plaintext to `output`; returns its bytes.
    ///
    /// `threads` open at once, and read and write one at a time; the calling thread is one of them. Memory: 512 KiB per thread, however long the
    /// stream is. `progress` is called after each 256 KiB that were read, by the thread that read them.
    ///
    /// # Errors
    ///
    /// As for [`update`](Self::update) and [`finish`](Self::finish), those of `progress`, and [`Io`](ErrorKind::Io): `input` or `output`
    /// failed. What was written was verified, but is not all: nothing of the 16 chunks in which the fault is.
    /// Of several threads one may be waiting for `input` when `output` fails: it ends when that answers.
    pub fn open_all(
        mut self,
        input: &mut (impl Read + Send),
        output: &mut (impl Write + Send),
        threads: NonZeroUsize,
        mut progress: impl FnMut(&mut StreamProgress<'_>) -> Result<()> + Send,
    ) -> Result<u64> {
        self.check_fresh()?;
        let (chunks, held, mut read, mut written) = (&self.chunks, &mut self.held, 0, 0);
        let pumped = pump::run(
            threads,
            |batch, has_failed| {
                held.check()?;
                read += batch.read_sealed(&mut pump::WhileWanted::new(input, has_failed))?;
                progress(&mut StreamProgress::new(held, read))?;
                // Reading may have taken any time.
                held.check()
            },
            |batch| chunks.open(batch.first(), batch.bytes_mut()),
            |batch| {
                opened_parts(batch.bytes()).try_for_each(|part| {
                    written += part.len() as u64;
                    pump::put(output, part)
                })
            },
        );
        pumped.map_err(|error| self.held.fail(error))?;
        Ok(written)
    }

    /// Opens the next chunks where they are.
    fn open(&mut self, buffer: &mut [u8]) -> Result<()> {
        let (keys, next) = (&self.chunks, self.next);
        self.held.with(|| keys.open(next, buffer))?;
        self.next += buffer.len().div_ceil(SEALED_CHUNK_LEN) as u64;
        Ok(())
    }

    /// Opens a chunk that was read: a full one, or the last where it is shorter. Returns the bytes of its plaintext, which are in front.
    pub(super) fn open_next(&mut self, chunk: &mut [u8]) -> Result<usize> {
        let (keys, next) = (&self.chunks, self.next);
        let len = self.held.with(|| {
            let len = chunk.len().checked_sub(TAG_LEN).ok_or(CUT)?;
            keys.open(next, chunk)?;
            Ok(len)
        })?;
        self.next += 1;
        Ok(len)
    }

    /// For those who begin in front, and say later that they cannot.
    fn fresh_or_failed(mut self) -> Self {
        if let Err(error) = self.check_fresh() {
            self.held.fail(error);
        }
        self
    }

    fn check_fresh(&self) -> Result<()> {
        if self.next == 0 && self.pending.is_empty() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, "a part of the stream is opened or held back already"))
    }

    fn check_nothing_pending(&self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidInput,
            "the stream holds back a part of a chunk, which only update and finish open",
        ))
    }
}

impl core::fmt::Debug for OpeningStream {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("OpeningStream").field("chunks", &self.next).finish_non_exhaustive()
    }
}
