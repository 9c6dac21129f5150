//! Reading a text file line by line, whatever somebody has put into it.

use keyfold::Error;
use std::io::{self, BufRead, Read};

/// Lines of bounded length.
pub(crate) struct Lines<R> {
    text: R,
    max_len: u64,
    line: Vec<u8>,
    /// Of the last line; the first one has 1.
    pub(crate) number: u64,
    /// Where the last line ended.
    pub(crate) end: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `text`; of one that is longer than `max_len` bytes only so many.
    pub(crate) const fn new(text: R, max_len: u64) -> Self {
        Self { text, max_len, line: Vec::new(), number: 0, end: 0 }
    }

    /// The next line with its end, which the last one may lack.
    pub(crate) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let len = (&mut self.text).take(self.max_len).read_until(b'\n', &mut self.line)?;
        self.number += 1;
        self.end += len as u64;
        Ok((len > 0).then_some(&self.line))
    }
}

/// Why reading ended.
pub(crate) enum Failed {
    Io(io::Error),
    Refused(Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// An error of the system, or what somebody found in the file.
pub(crate) fn settled<T>(read: Result<T, Failed>) -> io::Result<keyfold::Result<T>> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(Failed::Refused(error)) => Ok(Err(error)),
        Err(Failed::Io(error)) => Err(error),
    }
}
