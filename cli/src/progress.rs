//! A progress line on standard error, if that is a terminal.

use crate::files::standard;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Draws a second.
const RATE: u8 = 20;

/// A line by `template` of indicatif's; `len` is how far there is to go, if that is known. Hidden where standard error is no terminal, or one that
/// cannot move its cursor.
pub(crate) fn bar(len: Option<u64>, template: &str) -> ProgressBar {
    let is_dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    let target = match io::stderr().is_terminal() && !is_dumb {
        true => ProgressDrawTarget::term_like_with_hz(Box::<Terminal>::default(), RATE),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(len, target);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// The terminal at standard error. What is drawn while it is stopped (Ctrl-S) is left out, so that nothing waits for it.
#[derive(Debug, Default)]
struct Terminal {
    /// What the next flush shows.
    drawn: Mutex<String>,
}

impl Terminal {
    fn drawn(&self) -> MutexGuard<'_, String> {
        // Text is whole whenever somebody panics.
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the cursor by `n`; `way` is the last letter of the control sequence (ECMA-48, 8.3).
    fn move_cursor(&self, n: usize, way: char) -> io::Result<()> {
        // None is taken for one.
        if n > 0 {
            self.drawn().push_str(&format!("\x1b[{n}{way}"));
        }
        Ok(())
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| size.ws_col);
        if columns > 0 { columns } else { 80 }
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.write_str(s)?;
        self.write_str("\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.drawn().push_str(s);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        standard::show(&std::mem::take(&mut *self.drawn()));
        Ok(())
    }
}
