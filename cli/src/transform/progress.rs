//! A progress line on standard error, if that is a terminal.

use super::{Counts, Direction};
use crate::progress::bar;
use indicatif::ProgressBar;

pub(super) struct Progress(ProgressBar);

impl Progress {
    /// `len` is how many bytes the input has, if that is known.
    pub(super) fn new(direction: Direction, len: Option<u64>) -> Self {
        let style = match len {
            Some(_) => "{prefix} {bar:10} {bytes}/{total_bytes}, {msg} values, {eta} left",
            None => "{prefix} {spinner} {bytes}, {msg} values, {elapsed}",
        };
        let bar = bar(len, style);
        bar.set_prefix(match direction {
            Direction::Protect { .. } => "protecting",
            Direction::Reveal => "revealing",
            Direction::Rebind => "rebinding",
            Direction::Reencrypt => "re-encrypting",
        });
        Self(bar)
    }

    pub(super) fn advance(&mut self, counts: &Counts) {
        if !self.0.is_hidden() {
            self.0.set_position(counts.input_len);
            self.0.set_message(counts.values.to_string());
        }
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
