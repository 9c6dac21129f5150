//! Passphrases: from a terminal without echo, or from a file. Never from an argument, which others can see.

use crate::failure::{Exit, Failure};
use crate::files::interrupt::{self, Interrupt, Interrupted, Interruptible};
use crate::opening::no_passphrase;
use keyfold::{Error, ErrorKind, Result};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Most bytes of a passphrase.
const MAX_LEN: usize = keyfold_kms::passphrase::MAX_PASSPHRASE_LEN;

const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];
const KILL_LINE: u8 = 21;

/// The first line of a file or pipe.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): it cannot be read. - [`Configuration`](ErrorKind::Configuration): others may read the file, or its
///   first line is longer than a passphrase, or no UTF-8.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<String>> {
    const UNREADABLE: &str = "cannot read the passphrase file";
    let failed = |error: io::Error| unreadable(UNREADABLE, path, &error);
    const OPEN: &str = "the passphrase file must be readable by its owner alone: run chmod 600";
    let mut file = open_private(path, UNREADABLE, OPEN)?;
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
    let mut byte = [0];
    while line.len() <= MAX_LEN && file.read(&mut byte).map_err(failed)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    match std::str::from_utf8(&line) {
        Ok(text) if line.len() <= MAX_LEN => Ok(Zeroizing::new(text.to_owned())),
        _ => {
            const NONE: &str = "the first line of the passphrase file is no passphrase: too long, or not UTF-8";
            Err(Error::new(ErrorKind::Configuration, NONE).with_detail(path.display().to_string()))
        }
    }
}

/// Opens a file of this user's or root's that its owner alone may read, or a pipe. `cannot` and `open` say what is wrong.
///
/// # Errors
///
/// - [`Io`](ErrorKind::Io): it cannot be opened. - [`Configuration`](ErrorKind::Configuration): others may read it, or it is theirs.
pub(crate) fn open_private(path: &Path, cannot: &'static str, open: &'static str) -> Result<File> {
    let failed = |error: io::Error| unreadable(cannot, path, &error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() || (metadata.is_file() && metadata.mode() & 0o077 != 0) {
        return Err(Error::new(ErrorKind::Configuration, open).with_detail(path.display().to_string()));
    }
    // Whoever owns it has read it, and may change it at any time.
    let us = rustix::process::geteuid().as_raw();
    if metadata.is_file() && metadata.uid() != us && metadata.uid() != 0 {
        const FOREIGN: &str = "a file with a secret must belong to this user or to root";
        return Err(Error::new(ErrorKind::Configuration, FOREIGN).with_detail(path.display().to_string()));
    }
    Ok(file)
}

fn unreadable(cannot: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, cannot).with_detail(format!("{}: {error}", path.display()))
}

/// A new passphrase, from the terminal, twice; `advice` as of [`ask`].
pub(crate) fn ask_twice(advice: &str) -> std::result::Result<Zeroizing<String>, Failure> {
    let first = ask("new passphrase: ", advice).map_err(|error| no_passphrase(&error))?;
    // Before it is typed twice.
    keyfold_kms::passphrase::check_passphrase(&first)?;
    let second = ask("once more: ", advice).map_err(|error| no_passphrase(&error))?;
    if *first == *second { Ok(first) } else { Err(Failure::new(Exit::Usage, "the two passphrases differ")) }
}

/// What somebody types at the terminal of the process after `prompt`, whatever its standard input and output are. `advice` says what to do where there is
/// none.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): the process has no terminal.
/// - [`Io`](ErrorKind::Io): the terminal failed.
///
/// Ctrl-C, SIGINT, SIGTERM and SIGHUP end the process at once, with the terminal as it was before: whoever gives up at one
/// prompt is not asked for the passphrase of the next KEK.
pub(crate) fn ask(prompt: &str, advice: &str) -> Result<Zeroizing<String>> {
    let failed =
        |error: io::Error| Error::new(ErrorKind::Io, "cannot ask at the terminal").with_detail(error.to_string());
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Error::new(ErrorKind::Configuration, "there is no terminal to ask for the passphrase at").with_detail(advice)
    })?;
    let typed = interrupt::guarded(|interrupt| {
        let mut quiet = Quiet::new(&terminal, interrupt.clone())?;
        quiet.tell(prompt)?;
        let line = quiet.line();
        quiet.tell("\n")?;
        line
    });
    let line = match typed.and_then(|line| line) {
        Ok(line) => line,
        Err(error) => match Interrupted::within(&error) {
            Some(interrupted) => std::process::exit(interrupted.exit_code().into()),
            None => return Err(failed(error)),
        },
    };
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::new(ErrorKind::InvalidInput, "what was typed is not UTF-8")),
    }
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Quiet<'a> {
    terminal: Interruptible<&'a File>,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File, interrupt: Interrupt) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        // Ctrl-C comes as a character, so that the terminal is never left without its echo.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal: Interruptible::new(terminal, interrupt), before })
    }

    fn tell(&mut self, text: &str) -> io::Result<()> {
        let mut terminal: &File = self.terminal.get_ref();
        terminal.write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_LEN + 1));
        let mut byte = Zeroizing::new([0]);
        loop {
            match self.terminal.read(&mut *byte)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => match byte[0] {
                    b'\r' | b'\n' => return Ok(line),
                    END if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                    INTERRUPT => return Err(io::Error::other(Interrupted::by_key())),
                    KILL_LINE => line.clear(),
                    // A character, which may be several bytes.
                    key if BACKSPACE.contains(&key) => while line.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
                    // The rest is too long for any passphrase.
                    key if line.len() <= MAX_LEN => line.push(key),
                    _ => {}
                },
            }
        }
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal.get_ref(), OptionalActions::Flush, &self.before);
    }
}
