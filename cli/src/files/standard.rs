//! Standard output and standard error: everything goes through here that the command prints.
//!
//! Whoever reads there may be slow. Writing waits for him, also where the stream was made not to wait (O_NONBLOCK), but for no longer
//! than until a signal that the command looks for.

use std::io::{self, LineWriter, Stderr, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::io::Errno;

use super::interrupt;

/// Most bytes that a pipe takes without waiting where poll(2) says that it takes some (PIPE_BUF, pipe(7)).
const PIPE_LEN: usize = 4096;

/// Standard output for text, line by line.
pub(crate) type Stdout = LineWriter<Standard<io::Stdout>>;

/// Standard output. What does not end a line needs a `flush`, which says what dropping does not.
pub(crate) fn stdout() -> Stdout {
    LineWriter::new(Standard::new(io::stdout()))
}

/// Standard error.
pub(crate) fn stderr() -> LineWriter<Standard<Stderr>> {
    LineWriter::new(Standard::new(io::stderr()))
}

/// Writes to a standard stream as the system does, without the buffer and the leniency of `std`.
///
/// Writing fails as the system says, and with [`Interrupted`](interrupt::Interrupted) inside of an [`io::Error`] where a signal came
/// while nobody read.
pub(crate) struct Standard<S> {
    stream: S,
    /// Whether somebody must read before more can be written. A file takes what it is given, and faster in one piece.
    is_read_from: bool,
}

impl<S: AsFd> Standard<S> {
    pub(crate) fn new(stream: S) -> Self {
        let is_file = fstat(&stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        // Of what is open for reading only, poll(2) never says that it can be written.
        let is_writable = fcntl_getfl(&stream).is_ok_and(|flags| flags & OFlags::RWMODE != OFlags::RDONLY);
        Self { stream, is_read_from: is_writable && !is_file }
    }
}

impl<S: AsFd> Write for Standard<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_read_from {
            return Ok(rustix::io::write(&self.stream, bytes)?);
        }
        loop {
            interrupt::wait_to_write(&self.stream)?;
            match rustix::io::write(&self.stream, &bytes[..bytes.len().min(PIPE_LEN)]) {
                Err(Errno::AGAIN) => {}
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to standard error what is of no use later: not at all while nobody reads there.
pub(crate) fn show(text: &str) {
    let stderr = io::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now)).is_ok_and(|ready| ready > 0) {
        // The next one takes its place.
        let _ = rustix::io::write(&stderr, text.as_bytes());
    }
}
