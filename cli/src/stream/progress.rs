//! A progress line on standard error, if that is a terminal.

use crate::failure::Printable;
use crate::progress::bar;
use crate::transform::Direction;
use indicatif::ProgressBar;
use std::path::Path;

pub(super) struct Progress(ProgressBar);

impl Progress {
    /// None yet.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// `len` is how many bytes the input has, if that is known.
    pub(super) fn new(direction: Direction, len: Option<u64>) -> Self {
        // What is longest has 75 columns.
        let style = match len {
            Some(_) => "{prefix} {bar:15} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{prefix} {spinner} {bytes}, {bytes_per_sec}, {elapsed}",
        };
        Self::with_style(direction, len, style)
    }

    /// Of files with `len` bytes together, whose names are shown.
    pub(super) fn of_files(direction: Direction, len: u64) -> Self {
        Self::with_style(direction, Some(len), "{prefix} {bar:15} {bytes}/{total_bytes}, {eta} left {wide_msg}")
    }

    fn with_style(direction: Direction, len: Option<u64>, style: &str) -> Self {
        let bar = bar(len, style);
        bar.set_prefix(if matches!(direction, Direction::Reveal) { "revealing" } else { "protecting" });
        Self(bar)
    }

    /// The file whose turn it is.
    pub(super) fn of(&self, name: &Path) {
        self.0.set_message(Printable(&name.to_string_lossy()).to_string());
    }

    pub(super) fn at(&self, bytes: u64) {
        if !self.0.is_hidden() {
            self.0.set_position(bytes);
        }
    }

    /// Lets `tell` write to standard error without the line, which is drawn again below.
    pub(super) fn aside(&self, tell: impl FnOnce()) {
        self.0.suspend(tell);
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Path, Progress};

    #[test]
    fn a_name_does_not_obey() {
        let progress = Progress::of_files(Direction::Reveal, 1);
        progress.of(Path::new("a/\x1b[2Jb\n.dcm"));
        assert_eq!(progress.0.message(), "a/\\u{1b}[2Jb\\n.dcm");
    }
}
