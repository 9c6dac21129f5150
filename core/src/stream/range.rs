//! Reading any part of a stream.

use super::{OpeningStream, UNREADABLE, from_io, read_full};
use crate::error::{Error, Result};
use crate::wire::stream::CUT;
use crate::wire::{CHUNK_LEN, SEALED_CHUNK_LEN, STREAM_HEADER_LEN, TAG_LEN, opened_stream_len};
use std::io::{self, Read, Seek, SeekFrom};
use zeroize::Zeroizing;

/// Reads any part of the plaintext of a stream. Made by [`OpeningStream::into_ranges`].
///
/// **What was read proves nothing about what follows it**: a stream that was cut gives out the chunks that are left. Only
/// [`verified_len`](Self::verified_len) says how long the stream is, after it has opened the last chunk; seeking from the end asks it, and an end, `Ok(0)`, is
/// told only after it.
///
/// Seeking reads nothing, and reading a byte elsewhere reads one chunk of 16,400 bytes. Errors are [`Error`](crate::Error)s within those of `std::io`.
/// A chunk that does not open is refused for good; where the input failed the call can be repeated.
pub struct StreamRanges<R> {
    stream: OpeningStream,
    input: R,
    /// Where the first chunk begins in `input`.
    start: u64,
    position: u64,
    /// The chunk that was opened last.
    chunk: Zeroizing<Vec<u8>>,
    /// Its number, and the bytes of its plaintext.
    opened: Option<(u64, usize)>,
    /// Known once the last chunk was opened.
    len: Option<u64>,
}

impl<R: Read + Seek> StreamRanges<R> {
    pub(super) fn new(stream: OpeningStream, mut input: R) -> io::Result<Self> {
        let start = input.stream_position()?;
        let chunk = Zeroizing::new(vec![0; SEALED_CHUNK_LEN]);
        Ok(Self { stream, input, start, position: 0, chunk, opened: None, len: None })
    }

    /// Bytes of the whole plaintext, proven: opens the last chunk, unless that was done before.
    ///
    /// # Errors
    ///
    /// - [`Malformed`](crate::ErrorKind::Malformed), [`DecryptionFailed`](crate::ErrorKind::DecryptionFailed): the stream was cut, never
    ///   finished, lengthened, or its last chunk was changed.
    /// - Those of the input.
    pub fn verified_len(&mut self) -> io::Result<u64> {
        if let Some(len) = self.len {
            return Ok(len);
        }
        let end = self.input.seek(SeekFrom::End(0))?;
        let len = opened_stream_len(end.saturating_sub(self.start) + STREAM_HEADER_LEN as u64)?;
        self.open_chunk(len / CHUNK_LEN as u64)?;
        self.len.ok_or_else(|| CUT.into())
    }

    reads_as_opening_stream!();

    /// Has chunk `number` in memory; returns the bytes of its plaintext, or `None` where the input has nothing of it.
    fn open_chunk(&mut self, number: u64) -> Result<Option<usize>> {
        if let Some((_, len)) = self.opened.filter(|(opened, _)| *opened == number) {
            return Ok(Some(len));
        }
        self.opened = None;
        self.stream.held.check()?;
        let unreadable = |error| from_io(error, UNREADABLE);
        let at = number.checked_mul(SEALED_CHUNK_LEN as u64).and_then(|offset| offset.checked_add(self.start));
        let Some(at) = at else { return Ok(None) };
        self.input.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let n = read_full(&mut self.input, &mut self.chunk).map_err(unreadable)?;
        if n < TAG_LEN {
            return Ok(None);
        }
        let len = self.stream.open_chunk(number, &mut self.chunk[..n])?;
        self.opened = Some((number, len));
        if len < CHUNK_LEN {
            self.len = Some(number * CHUNK_LEN as u64 + len as u64);
        }
        Ok(Some(len))
    }
}

impl<R: Read + Seek> Read for StreamRanges<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.len.is_some_and(|len| self.position >= len) {
            return Ok(0);
        }
        let offset = (self.position % CHUNK_LEN as u64) as usize;
        let Some(len) = self.open_chunk(self.position / CHUNK_LEN as u64)? else {
            // Behind the end, if that is one.
            return if self.position >= self.verified_len()? { Ok(0) } else { Err(CUT.into()) };
        };
        let rest = self.chunk[..len].get(offset..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl<R: Read + Seek> Seek for StreamRanges<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.verified_len()?.checked_add_signed(by),
        };
        self.position =
            position.ok_or_else(|| Error::new(crate::ErrorKind::InvalidInput, "a seek to before the start"))?;
        Ok(self.position)
    }
}

impl<R> core::fmt::Debug for StreamRanges<R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StreamRanges")
            .field("stream", &self.stream)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
