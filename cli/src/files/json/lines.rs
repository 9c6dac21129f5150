//! A file of JSON lines in batches.

use std::io::Read;

use super::JsonError;
use crate::files::{BYTE_ORDER_MARK, read_chunk};

/// Most lines in a batch.
const MAX_BATCH_LINES: usize = 4096;

/// A batch ends with the line that reaches this many bytes.
const MAX_BATCH_LEN: usize = 1024 * 1024;

/// Reads lines from `R` in batches.
pub(crate) struct LineSource<R> {
    input: R,
    /// Most bytes in a line.
    max_line_len: usize,
    /// Bytes that were read but belong to the next batch.
    ahead: Vec<u8>,
    /// Lines in front of the next batch.
    lines: u64,
    /// A byte order mark may come only in front of everything.
    at_start: bool,
    /// Whether line feeds end lines; otherwise the whole file is one.
    splits: bool,
}

impl<R: Read> LineSource<R> {
    /// Reads nothing yet.
    pub(crate) fn new(input: R, max_line_len: usize) -> Self {
        Self { input, max_line_len, ahead: Vec::new(), lines: 0, at_start: true, splits: true }
    }

    /// As [`new`](Self::new), for a file that is one JSON value over any number of lines: it is one line here.
    pub(crate) fn whole(input: R, max_len: usize) -> Self {
        Self { splits: false, ..Self::new(input, max_len) }
    }

    /// Reads the next batch: at most 4,096 lines, and none after the one that reaches 4 MiB.
    ///
    /// The batches' bytes, in order, are the whole file. Returns `None` at the end.
    ///
    /// # Errors
    ///
    /// [`JsonError::Io`], [`JsonError::LineTooLong`]. The source is then of no further use.
    pub(crate) fn next_batch(&mut self) -> Result<Option<LineBatch>, JsonError> {
        let mut raw = std::mem::take(&mut self.ahead);
        let mut lines: Vec<(u32, u32)> = Vec::new();
        let mut start = 0;
        while lines.len() < MAX_BATCH_LINES && start < MAX_BATCH_LEN {
            let Some(end) = self.find_end(&mut raw, start, self.lines + lines.len() as u64 + 1)? else { break };
            let mut content = &raw[start..end];
            let mut content_start = start;
            if std::mem::take(&mut self.at_start) && content.starts_with(BYTE_ORDER_MARK) {
                content = &content[BYTE_ORDER_MARK.len()..];
                content_start += BYTE_ORDER_MARK.len();
            }
            let content = content.strip_suffix(b"\n").unwrap_or(content);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            // At most MAX_BATCH_LEN + max_line_len and a chunk: far below 2³², as max_line_len is at most twice MAX_LINE_LEN.
            lines.push((content_start as u32, (content_start + content.len()) as u32));
            start = end;
        }
        if lines.is_empty() {
            return Ok(None);
        }
        self.ahead = raw.split_off(start);
        let first_line = self.lines + 1;
        self.lines += lines.len() as u64;
        Ok(Some(LineBatch { raw, lines, first_line }))
    }

    /// Finds the end of the line at `start`, after its terminator if it has one; `None` if nothing
    /// is left. Reads as much of the input as that needs.
    fn find_end(&mut self, raw: &mut Vec<u8>, start: usize, line: u64) -> Result<Option<usize>, JsonError> {
        let mut searched = start;
        loop {
            let found = if self.splits { raw[searched..].iter().position(|&byte| byte == b'\n') } else { None };
            let end = found.map_or(raw.len(), |at| searched + at + 1);
            // Two bytes for the terminator, whatever it is.
            if end - start > self.max_line_len + 2 {
                return Err(JsonError::LineTooLong { line, max_len: self.max_line_len });
            }
            if found.is_some() {
                return Ok(Some(end));
            }
            searched = raw.len();
            if !read_chunk(&mut self.input, raw)? {
                return Ok((start < raw.len()).then_some(raw.len()));
            }
        }
    }
}

/// Some lines of a file.
///
/// Has no `Debug`: it holds plaintext.
pub(crate) struct LineBatch {
    raw: Vec<u8>,
    /// Where each line's content is.
    lines: Vec<(u32, u32)>,
    first_line: u64,
}

impl LineBatch {
    /// Number of lines, blank ones included.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Length of the batch as written, in bytes.
    pub(crate) fn raw_len(&self) -> usize {
        self.raw.len()
    }

    /// The content of a line: without its terminator, and without a byte order mark.
    ///
    /// # Panics
    ///
    /// If there is no such line.
    pub(crate) fn line(&self, index: usize) -> &[u8] {
        let (start, end) = self.lines[index];
        &self.raw[start as usize..end as usize]
    }

    /// The number of a line in the file, from 1.
    pub(crate) fn number(&self, index: usize) -> u64 {
        self.first_line + index as u64
    }

    /// Whether a line holds no JSON at all, and is best passed through.
    pub(crate) fn is_blank(&self, index: usize) -> bool {
        self.line(index).iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
    }

    /// Appends the batch to `out` with the content of every line replaced, and what is around the
    /// lines as it was. Blank lines are left alone.
    ///
    /// `replacement(index, out)` appends the new content.
    ///
    /// # Errors
    ///
    /// The first of `replacement`. What was appended is then of no use.
    pub(crate) fn render<E>(
        &self,
        out: &mut Vec<u8>,
        mut replacement: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut copied = 0;
        for (index, &(start, end)) in self.lines.iter().enumerate() {
            if !self.is_blank(index) {
                out.extend_from_slice(&self.raw[copied..start as usize]);
                copied = end as usize;
                replacement(index, out)?;
            }
        }
        out.extend_from_slice(&self.raw[copied..]);
        Ok(())
    }
}
