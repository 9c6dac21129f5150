//! A file of messages in batches.

use std::io::Read;
use std::ops::Range;

use super::{Hl7Error, START_BLOCK};
use crate::files::{BYTE_ORDER_MARK, read_chunk};

/// A batch ends with the message that reaches this many bytes. Sealed values are many times longer than the shortest ones.
const MAX_BATCH_LEN: usize = 256 * 1024;

/// Most bytes in a message that is not sealed yet, with what is around it: the segments of its batch, blank lines.
pub(crate) const MAX_MESSAGE_LEN: usize = 16 * 1024 * 1024;

/// Reads messages from `R` in batches.
pub(crate) struct MessageSource<R> {
    input: R,
    /// Most bytes in a message.
    max_len: usize,
    /// Bytes that were read but belong to the next batch.
    ahead: Vec<u8>,
    /// Messages in front of the next batch.
    messages: u64,
}

impl<R: Read> MessageSource<R> {
    /// Reads nothing yet.
    pub(crate) fn new(input: R, max_len: usize) -> Self {
        Self { input, max_len, ahead: Vec::new(), messages: 0 }
    }

    /// Reads the next batch: whole messages, and none after the one that reaches 256 KiB.
    ///
    /// The batches' bytes, in order, are the whole file. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Hl7Error::Io`], [`Hl7Error::TooLong`]. The source is then of no further use.
    pub(crate) fn next_batch(&mut self) -> Result<Option<MessageBatch>, Hl7Error> {
        let mut raw = std::mem::take(&mut self.ahead);
        let mut messages: Vec<Range<usize>> = Vec::new();
        let mut start = 0;
        while start < MAX_BATCH_LEN {
            let Some(end) = self.find_end(&mut raw, start, self.messages + messages.len() as u64 + 1)? else { break };
            messages.push(start..end);
            start = end;
        }
        if messages.is_empty() {
            return Ok(None);
        }
        self.ahead = raw.split_off(start);
        let first = self.messages + 1;
        self.messages += messages.len() as u64;
        Ok(Some(MessageBatch { raw, messages, first }))
    }

    /// Finds the end of the message at `start`: the start of the next one, or the end of the file; `None` if nothing is
    /// left. Reads as much of the input as that needs.
    fn find_end(&mut self, raw: &mut Vec<u8>, start: usize, message: u64) -> Result<Option<usize>, Hl7Error> {
        // In front of the first header may be those of the file and the batch, which belong to its message.
        let (mut searched, mut headers) = (start, 0);
        loop {
            while let Some(at) = next_header(raw, start, searched, message) {
                searched = at.end;
                headers += 1;
                if headers == 2 {
                    return self.check_len(at.start, start, message).map(Some);
                }
            }
            self.check_len(raw.len(), start, message)?;
            // All but what may be the beginning of another one.
            searched = searched.max(raw.len().saturating_sub(b"MSH".len() - 1));
            if !read_chunk(&mut self.input, raw)? {
                return Ok((start < raw.len()).then_some(raw.len()));
            }
        }
    }

    fn check_len(&self, end: usize, start: usize, message: u64) -> Result<usize, Hl7Error> {
        match end - start > self.max_len {
            true => Err(Hl7Error::TooLong { message, max_len: self.max_len }),
            false => Ok(end),
        }
    }
}

/// The next `MSH` at the beginning of a line, with the start of its MLLP block if it has one. Lines begin at `start`.
fn next_header(raw: &[u8], start: usize, mut from: usize, message: u64) -> Option<Range<usize>> {
    let begins_line = |at: usize| {
        at == start
            || matches!(raw[at - 1], b'\r' | b'\n')
            || (message == 1 && start == 0 && raw[..at] == *BYTE_ORDER_MARK)
    };
    loop {
        let at = from + raw.get(from..)?.windows(3).position(|window| window == b"MSH")?;
        let block = at > start && raw[at - 1] == START_BLOCK && begins_line(at - 1);
        if block || begins_line(at) {
            return Some(at - usize::from(block)..at + 3);
        }
        from = at + 3;
    }
}

/// Some messages of a file, with what is around them.
///
/// Has no `Debug`: it holds plaintext.
pub(crate) struct MessageBatch {
    raw: Vec<u8>,
    messages: Vec<Range<usize>>,
    first: u64,
}

impl MessageBatch {
    /// Length of the batch as written, in bytes.
    pub(crate) fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// The messages, each with what is around it and its number in the file, from 1.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.messages.iter().map(|span| &self.raw[span.clone()]).zip(self.first..)
    }
}
