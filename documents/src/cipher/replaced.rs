//! What takes the place of the values of a document.

use crate::erased::Erased;
use std::ops::Range;

/// New texts in a document. Erased on drop: they may be plaintext.
pub(super) struct Replaced {
    /// One after the other.
    texts: Erased,
    /// Of the values that were found: where the new text is.
    values: Vec<Option<Range<usize>>>,
    /// What else changes: which span of the document, and where the new text is.
    others: Vec<(Range<usize>, Range<usize>)>,
}

impl Replaced {
    /// Nothing yet, of so many values, whose texts take about `len` bytes.
    pub(super) fn new(values: usize, len: usize) -> Self {
        Self { texts: Erased::with_capacity(len), values: vec![None; values], others: Vec::new() }
    }

    /// The new text of a value.
    pub(super) fn get(&self, value: usize) -> Option<&[u8]> {
        self.values[value].clone().map(|text| &self.texts[text])
    }

    /// Gives a value the text that `push` appends.
    pub(super) fn set(&mut self, value: usize, push: impl FnOnce(&mut Erased)) {
        let start = self.texts.len();
        push(&mut self.texts);
        self.values[value] = Some(start..self.texts.len());
    }

    /// As [`set`](Self::set), unless `push` fails.
    pub(super) fn try_set<E>(
        &mut self,
        value: usize,
        push: impl FnOnce(&mut Erased) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pushed = Ok(());
        self.set(value, |out| pushed = push(out));
        pushed
    }

    /// Replaces the span that `push` says by the text that it appends.
    pub(super) fn add<E>(&mut self, push: impl FnOnce(&mut Erased) -> Result<Range<usize>, E>) -> Result<(), E> {
        let start = self.texts.len();
        let span = push(&mut self.texts)?;
        self.others.push((span, start..self.texts.len()));
        Ok(())
    }

    /// The new texts of the values, of which `span` says where they are, and then the others.
    pub(super) fn changes<'s>(
        &'s self,
        span: impl Fn(usize) -> Range<usize> + 's,
    ) -> impl Iterator<Item = (Range<usize>, &'s [u8])> + 's {
        let values = self.values.iter().enumerate().filter_map(move |(at, text)| Some((span(at), text.clone()?)));
        values.chain(self.others.iter().cloned()).map(|(span, text)| (span, &self.texts[text]))
    }
}
