//! Passphrases: from a terminal without echo, or from a file. Never from an argument, which others can see.

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
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Io, "cannot read the passphrase file").with_detail(format!("{}: {error}", path.display()))
    };
    let refused = |why| Err(Error::new(ErrorKind::Configuration, why).with_detail(path.display().to_string()));
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() || (metadata.is_file() && metadata.mode() & 0o077 != 0) {
        return refused("the passphrase file must be readable by its owner alone: run chmod 600");
    }
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
        _ => refused("the first line of the passphrase file is no passphrase: too long, or not UTF-8"),
    }
}

/// What somebody types at the terminal of the process after `prompt`, whatever its standard input and output are.
///
/// # Errors
///
/// - [`Configuration`](ErrorKind::Configuration): the process has no terminal.
/// - [`Io`](ErrorKind::Io): the terminal failed, or the person has given up with Ctrl-C.
pub(crate) fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    let failed =
        |error: io::Error| Error::new(ErrorKind::Io, "cannot ask at the terminal").with_detail(error.to_string());
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Error::new(
            ErrorKind::Configuration,
            "there is no terminal to ask for the passphrase at: name a file with --passphrase-file",
        )
    })?;
    let mut quiet = Quiet::new(&terminal).map_err(|errno| failed(errno.into()))?;
    quiet.tell(prompt).map_err(failed)?;
    let line = quiet.line().map_err(failed)?;
    quiet.tell("\n").map_err(failed)?;
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::new(ErrorKind::InvalidInput, "what was typed is not UTF-8")),
    }
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn new(terminal: &'a File) -> rustix::io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        // Ctrl-C comes as a character, so that the terminal is never left without its echo.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }

    fn tell(&mut self, text: &str) -> io::Result<()> {
        self.terminal.write_all(text.as_bytes())
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
                    INTERRUPT => return Err(io::Error::other("interrupted")),
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
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
