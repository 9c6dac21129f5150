//! Documents whose values were replaced, about to be written.

use super::lines::Line;
use super::replaced::Replaced;
use super::{DocumentCipher, DocumentCounts, DocumentText};
use crate::{DocumentError, splice};
use keyfold::ErrorKind;
use std::ops::Range;

/// About as many changes as a header and tokens are.
const HEADER_CHANGES: usize = 3;

/// Documents whose values were replaced, about to be written. Holds plaintext.
pub struct Changed<'c, 'b> {
    pub(super) cipher: &'c DocumentCipher<'c>,
    pub(super) texts: &'b [DocumentText<'b>],
    pub(super) lines: Vec<Line<'b>>,
    /// Per line.
    pub(super) replaced: Vec<Replaced>,
    /// The text that is written next.
    pub(super) next: usize,
    pub(super) counts: DocumentCounts,
}

impl Changed<'_, '_> {
    /// Appends the next text to `out`: each once, in their order.
    ///
    /// # Errors
    ///
    /// - [`PolicyRefused`](ErrorKind::PolicyRefused): what was protected could not be revealed, since a path or condition looks at it.
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): it would be too long for that.
    /// - [`Internal`](ErrorKind::Internal): there is no further text.
    pub fn push_next(&mut self, out: &mut Vec<u8>) -> Result<(), DocumentError> {
        let index = self.next;
        let Some(text) = self.texts.get(index) else {
            return Err(DocumentError::new(ErrorKind::Internal, "there is no further document"));
        };
        self.next += 1;
        let start = out.len();
        let first = self.lines.partition_point(|line| line.index < index);
        let behind = self.lines.partition_point(|line| line.index <= index);
        let lines = &self.lines[first..behind];
        let values = lines.iter().map(|line| line.found.values.len() + HEADER_CHANGES);
        let mut changes: Vec<(Range<usize>, &[u8])> = Vec::with_capacity(values.sum());
        for (line, replaced) in lines.iter().zip(&self.replaced[first..behind]) {
            let at = line.document.offset();
            let new = replaced.changes(|found| line.document.tree.span(line.found.values[found].node));
            changes.extend(new.map(|(span, new)| (at + span.start..at + span.end, new)));
        }
        changes.sort_by_key(|(span, _)| (span.start, span.end));
        let spliced = splice(text.content, changes, out);
        spliced.map_err(|error| DocumentError::from(error).in_text(index, text.line))?;
        let checked = self.cipher.check_output(lines, &out[start..], text.line, &mut self.counts);
        checked.map_err(|error| error.in_text(index, text.line))
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> DocumentCounts {
        self.counts
    }
}
