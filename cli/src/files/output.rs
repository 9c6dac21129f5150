//! An output file that appears whole or not at all.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};
use tempfile::NamedTempFile;

use super::interrupt::Interrupted;
use super::is_closed;
use super::standard::Standard;

/// Kinds of what is no regular file; [`kind_of`] has the others.
const FOLDER: &str = "a folder";
const LINK: &str = "a symbolic link";

/// Bytes collected before they are written.
const BUFFER_LEN: usize = 256 * 1024;

/// Where the output goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    /// Standard output, written as the data comes.
    Stdout,
    /// A regular file, existing or not.
    Path(PathBuf),
}

impl Target {
    /// Reads a command-line argument: `-` is standard output, everything else a path.
    pub(crate) fn from_argument(argument: &OsStr) -> Self {
        if argument == "-" { Self::Stdout } else { Self::Path(argument.into()) }
    }

    /// Refuses a target that is the very file that `input` reads from, under whatever name.
    ///
    /// Replacing it would leave the user without the original; appending to it through standard
    /// output would never end.
    ///
    /// # Errors
    ///
    /// [`OutputError::SameAsInput`], or [`OutputError::Io`] when the files cannot be examined.
    pub(crate) fn refuse_input(&self, input: &File) -> Result<(), OutputError> {
        let fail = |error| self.error("examine", error);
        let target = match self {
            Self::Stdout => io::stdout().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata()),
            Self::Path(path) => fs::metadata(path),
        };
        let target = match target {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fail(error)),
        };
        // A terminal or a socket that is both standard input and output is nothing unusual.
        let same = |input: Metadata| input.is_file() && (input.dev(), input.ino()) == (target.dev(), target.ino());
        match same(input.metadata().map_err(fail)?) {
            true => Err(OutputError::SameAsInput { target: self.clone() }),
            false => Ok(()),
        }
    }

    /// Refuses a target that is `own`, a file of the keyring, or would be.
    ///
    /// # Errors
    ///
    /// [`OutputError::OwnFile`], or [`OutputError::Io`] when the target cannot be examined.
    pub(crate) fn refuse_own(&self, own: &Path) -> Result<(), OutputError> {
        let Self::Path(path) = self else { return Ok(()) };
        match (fs::metadata(path), fs::metadata(own)) {
            (Ok(target), Ok(own)) if (own.dev(), own.ino()) == (target.dev(), target.ino()) => {
                Err(OutputError::OwnFile { target: self.clone() })
            }
            // What is not always there, such as the journal of SQLite, is taken for one when it is.
            (Err(_), Err(_)) if path.file_name() == own.file_name() && resolved(path) == resolved(own) => {
                Err(OutputError::OwnFile { target: self.clone() })
            }
            // No file has a name that is too long.
            (Err(error), _) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                Err(self.error("examine", error))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a terminal, for bytes that are no text.
    ///
    /// # Errors
    ///
    /// [`OutputError::Terminal`].
    pub(crate) fn refuse_terminal(&self) -> Result<(), OutputError> {
        if *self == Self::Stdout && io::stdout().is_terminal() { Err(OutputError::Terminal) } else { Ok(()) }
    }

    /// Refuses a standard output that the process was started without, since what is written there is lost.
    ///
    /// # Errors
    ///
    /// [`OutputError::Closed`].
    pub(crate) fn refuse_closed(&self) -> Result<(), OutputError> {
        if *self == Self::Stdout && is_closed(io::stdout()) { Err(OutputError::Closed) } else { Ok(()) }
    }

    /// Names what could not be done to this target.
    pub(crate) fn error(&self, action: &'static str, source: io::Error) -> OutputError {
        let target = self.clone();
        if let Some(interrupted) = Interrupted::within(&source) {
            return OutputError::Interrupted(interrupted);
        }
        match source.kind() {
            io::ErrorKind::BrokenPipe => OutputError::BrokenPipe { target },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OutputError::NoSpace { target },
            _ => OutputError::Io { target, action, source },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why an output cannot be written.
#[derive(Debug)]
pub(crate) enum OutputError {
    /// The target exists, and overwriting was not asked for.
    Exists { target: Target },
    /// The target is a device, a pipe, a folder or a symbolic link.
    NotRegular { target: Target, kind: &'static str },
    /// The target is a path without a name at its end.
    NoName { target: Target },
    /// Standard output is a terminal, and the bytes are no text.
    Terminal,
    /// The process was started without a standard output.
    Closed,
    /// A signal came while nobody read the output.
    Interrupted(Interrupted),
    /// The target is the file that is read from.
    SameAsInput { target: Target },
    /// The target is a file of the keyring, a configuration or a policy.
    OwnFile { target: Target },
    /// The reader of the output is gone. Usual after `| head`, so a command may end quietly.
    BrokenPipe { target: Target },
    /// The file system or the user's quota is full.
    NoSpace { target: Target },
    /// Anything else that the operating system says.
    Io { target: Target, action: &'static str, source: io::Error },
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { target } => write!(f, "{target} already exists; use --force to replace it"),
            Self::NotRegular { target, kind: kind @ FOLDER } => write!(f, "{target} is {kind}, where a file is to be"),
            Self::NotRegular { target, kind } => {
                write!(f, "{target} is {kind}, and only a regular file can be replaced in one step")?;
                // A link does not say what it leads to.
                if *kind == LINK { Ok(()) } else { f.write_str("; use - for pipes") }
            }
            Self::NoName { target: Target::Path(path) } if !path.as_os_str().is_empty() => {
                write!(f, "a name is needed for the output: there is no folder {}", path.display())
            }
            Self::NoName { .. } => f.write_str("a name is needed for the output, and this one is empty"),
            Self::Terminal => f.write_str("these bytes are not for a terminal: name a file, or a pipe"),
            Self::Closed => f.write_str(
                "standard output is closed, or is a /dev/null that is open for reading, too: open it for writing only",
            ),
            Self::Interrupted(interrupted) => interrupted.fmt(f),
            Self::SameAsInput { target } => write!(f, "{target} is also the input"),
            Self::OwnFile { target } => {
                write!(f, "{target} is a file of the keyring or a policy, and is never overwritten")
            }
            Self::BrokenPipe { target } => write!(f, "nobody reads {target} any more (broken pipe)"),
            Self::NoSpace { target: Target::Stdout } => f.write_str("no space left behind standard output"),
            Self::NoSpace { target } => write!(f, "no space left to write {target}; it was not changed"),
            Self::Io { target, action, source } => {
                write!(f, "cannot {action} {target}: {source}")?;
                match (source.kind(), getrlimit(Resource::Fsize).current) {
                    (io::ErrorKind::FileTooLarge, Some(limit)) => {
                        write!(f, "; the limit is {limit} bytes (`ulimit -f`)")
                    }
                    (io::ErrorKind::FileTooLarge, None) => f.write_str("; the file system takes no longer ones"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Where the bytes are until [`Output::commit`].
enum Place {
    Stdout(Standard<File>),
    /// A file without a name (`O_TMPFILE`), which the kernel removes however the process ends.
    Unnamed(File),
    /// A file with a temporary name, where the file system offers no other. Survives a SIGKILL.
    Named(NamedTempFile),
}

/// A buffered output that gets its name at the end.
///
/// Dropped without [`commit`](Self::commit), it leaves nothing behind, except for what went
/// through standard output. The file is readable and writable by its owner only.
pub(crate) struct Output {
    target: Target,
    place: Place,
    buffer: Vec<u8>,
    overwrite: bool,
    /// Whether bytes have left the buffer.
    has_written: bool,
}

impl Output {
    /// Starts an output to `target`; a path is left alone until [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// - [`Exists`](OutputError::Exists): there is such a file, and `force` is not set.
    /// - [`NotRegular`](OutputError::NotRegular): there is something else, `force` or not.
    /// - [`NoName`](OutputError::NoName): the path ends without one.
    /// - [`Closed`](OutputError::Closed): the process has no standard output.
    /// - [`Io`](OutputError::Io): no file can be created in the folder.
    pub(crate) fn create(target: Target, force: bool) -> Result<Self, OutputError> {
        Self::create_with(target, force, open_unnamed)
    }

    fn create_with(
        target: Target,
        force: bool,
        open_unnamed: impl Fn(&Path) -> io::Result<File>,
    ) -> Result<Self, OutputError> {
        target.refuse_closed()?;
        let place = match &target {
            Target::Stdout => {
                io::stdout().as_fd().try_clone_to_owned().map(|fd| Place::Stdout(Standard::new(fd.into())))
            }
            Target::Path(path) => {
                refuse_existing(path, force)?;
                let folder = folder_of(path);
                // Any failure leads to the fallback; if the folder itself is the trouble, that one
                // fails for the same reason, and says so.
                open_unnamed(folder).map(Place::Unnamed).or_else(|first| {
                    // The text of the second has the temporary name, which is nobody's business.
                    let text_of = |second: io::Error| match first.kind() == second.kind() {
                        true => first,
                        false => second.kind().into(),
                    };
                    temporary_name().tempfile_in(folder).map(Place::Named).map_err(text_of)
                })
            }
        };
        let place = place.map_err(|error| target.error("create", error))?;
        let buffer = Vec::with_capacity(BUFFER_LEN);
        Ok(Self { target, place, buffer, overwrite: force, has_written: false })
    }

    /// What a run that failed or was interrupted leaves, if there is anything to say of it.
    pub(crate) fn left(&self, interrupted: bool) -> Option<&'static str> {
        match (&self.target, self.has_written) {
            (Target::Stdout, true) => Some("standard output has a part of the data only: discard it"),
            (Target::Stdout, false) => Some("nothing was written to standard output"),
            (Target::Path(_), _) if interrupted => Some("no file was written"),
            (Target::Path(_), _) => None,
        }
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// [`BrokenPipe`](OutputError::BrokenPipe), [`NoSpace`](OutputError::NoSpace) or
    /// [`Io`](OutputError::Io). The output is then of no use and should be dropped.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        if self.buffer.len() + bytes.len() > BUFFER_LEN {
            self.flush()?;
        }
        if bytes.len() < BUFFER_LEN {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_through(bytes)
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub(crate) fn flush(&mut self) -> Result<(), OutputError> {
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.write_through(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        result
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.has_written |= !bytes.is_empty();
        let written = match &mut self.place {
            Place::Stdout(stdout) => stdout.write_all(bytes),
            Place::Unnamed(file) => file.write_all(bytes),
            Place::Named(file) => file.write_all(bytes),
        };
        written.map_err(|error| self.target.error("write", error))
    }

    /// Writes the rest, makes it durable, and gives the file its name.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write) and [`create`](Self::create), since somebody else may have created
    /// the target in the meantime. Nothing has then changed under the target's name, unless the
    /// action in [`Io`](OutputError::Io) is "make durable the folder of".
    pub(crate) fn commit(mut self) -> Result<(), OutputError> {
        self.flush()?;
        let Self { target, place, overwrite, .. } = self;
        let Target::Path(path) = &target else { return Ok(()) };
        let sync = |file: &File| file.sync_all().map_err(|error| target.error("write", error));
        let named = match place {
            Place::Stdout(_) => return Ok(()),
            Place::Unnamed(file) => {
                sync(&file)?;
                if overwrite {
                    // A link never replaces a file, so a name on the way is needed, for as long as
                    // it takes to rename it.
                    refuse_existing(path, true)?;
                    let make = |name: &Path| link_unnamed(&file, name);
                    temporary_name().make_in(folder_of(path), make).and_then(|made| Ok(made.persist(path)?))
                } else {
                    link_unnamed(&file, path)
                }
            }
            Place::Named(file) => {
                sync(file.as_file())?;
                if overwrite {
                    refuse_existing(path, true)?;
                    file.persist(path).map(drop).map_err(io::Error::from)
                } else {
                    file.persist_noclobber(path).map(drop).map_err(io::Error::from)
                }
            }
        };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OutputError::Exists { target: target.clone() },
            _ => target.error("create", error),
        })?;
        sync_folder(folder_of(path)).map_err(|error| target.error("make durable the folder of", error))
    }
}

/// Refuses what is at `path`, unless it is nothing or a regular file that may be overwritten.
///
/// # Errors
///
/// As for [`Output::create`].
pub(crate) fn refuse_existing(path: &Path, overwrite: bool) -> Result<(), OutputError> {
    let target = Target::Path(path.to_owned());
    // `lstat` would look through a link that is followed by a slash; and a name is needed anyway.
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.file_name().is_none() {
        return match path.is_dir() {
            true => Err(OutputError::NotRegular { target, kind: FOLDER }),
            false => Err(OutputError::NoName { target }),
        };
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(OutputError::NotRegular { target, kind: kind_of(metadata.file_type()) })
        }
        Ok(_) if !overwrite => Err(OutputError::Exists { target }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(target.error("examine", error)),
    }
}

pub(crate) fn kind_of(file_type: FileType) -> &'static str {
    if file_type.is_file() {
        "a file"
    } else if file_type.is_symlink() {
        LINK
    } else if file_type.is_dir() {
        FOLDER
    } else if file_type.is_fifo() {
        "a named pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The path without links, of which the last part may be missing.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    match (folder_of(path).canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Temporary names start with a dot and say whose they are. The files have mode 0600.
fn temporary_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".keyfold-").suffix(".tmp").rand_bytes(12);
    builder
}

/// Opens a file without a name in `folder`, if that can later be given one.
#[cfg(target_os = "linux")]
fn open_unnamed(folder: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(rustix::io::retry_on_intr(|| rustix::fs::open(folder, flags, mode))?);
    // Without /proc there is no way to name it that works without privileges.
    fs::metadata(name_in_proc(&file))?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn open_unnamed(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Gives `file` the name `path`, which must be free (open(2), O_TMPFILE).
#[cfg(target_os = "linux")]
fn link_unnamed(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    Ok(linkat(CWD, name_in_proc(file), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

#[cfg(not(target_os = "linux"))]
fn link_unnamed(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn name_in_proc(file: &File) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Makes a new name in `folder` durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    match synced {
        // Some file systems cannot sync a folder, and some folders may be written but not read.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
