//! Why a file is not protected or revealed, and whether the next one may be all the same.

use crate::failure::{Exit, Failure, is_used_up};
use crate::files::interrupt::Interrupted;
use crate::files::output::OutputError;
use keyfold::wire::{MAGIC, STREAM_HEADER_LEN};
use keyfold::{Error, ErrorKind};
use rustix::io::Errno;
use std::error::Error as _;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// Why a file was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// The input is at fault, and stays so until it is replaced or moved away: others may be in order.
    Input(Failure),
    /// This file cannot be done as things are: its key, its output or a limit is in the way. Others may be done.
    Item(Failure),
    /// Whatever comes next would end likewise: a signal, a key service or a store that is away, a full disk, a key that seals no more, no file that may
    /// still be opened.
    Run(Failure),
}

impl Refused {
    /// Of a stream whose key cannot be had. What has become of it, or of the KEKs of its root, concerns the streams under it alone.
    pub(super) fn of_key(error: Error) -> Self {
        match error.kind() {
            ErrorKind::KeyState | ErrorKind::RecordRejected => Self::Item(error.into()),
            _ if error.is_lasting() => Self::Item(error.into()),
            kind => Self::of_kind(kind, error.into()),
        }
    }

    /// Of what follows a header. That an input cannot be read is an error of it; what is wrong with an output has an [`OutputError`].
    pub(super) fn of_content(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Io if system_error(&error).is_some_and(is_of_all) => Self::Run(error.into()),
            ErrorKind::Io => Self::Input(error.into()),
            kind => Self::of_kind(kind, error.into()),
        }
    }

    /// Of an input that cannot be read.
    pub(super) fn unreadable(error: &io::Error) -> Self {
        let failure = Failure::new(Exit::Storage, format!("cannot read the input: {error}"));
        if is_of_all(error) { Self::Run(failure) } else { Self::Input(failure) }
    }

    /// Of a path that cannot be read. What is gone is in nobody's way.
    pub(super) fn cannot_read(path: &Path, error: &io::Error) -> Self {
        Self::not_read(path, path.display(), error)
    }

    /// Of a folder that cannot be read any further.
    pub(super) fn cannot_read_rest(folder: &Path, error: &io::Error) -> Self {
        Self::not_read(folder, format_args!("the rest of {}", folder.display()), error)
    }

    fn not_read(path: &Path, what: impl fmt::Display, error: &io::Error) -> Self {
        let failure = Failure::new(Exit::Storage, format!("cannot read {what}: {error}"));
        match error.kind() {
            _ if is_of_all(error) || is_of_folder(path, error) => Self::Run(failure),
            io::ErrorKind::NotFound => {
                Self::Item(failure.add("it was there a moment ago, and --resume goes on without it"))
            }
            _ => Self::Input(failure),
        }
    }

    fn of_kind(kind: ErrorKind, failure: Failure) -> Self {
        match kind {
            ErrorKind::Malformed | ErrorKind::Unsupported | ErrorKind::DecryptionFailed => Self::Input(failure),
            ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::NoMatchingKey | ErrorKind::WrongScope => {
                Self::Item(failure)
            }
            _ => Self::Run(failure),
        }
    }

    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Input(failure) | Self::Item(failure) | Self::Run(failure) => failure,
        }
    }

    /// The same with `place` in front; a signal has none.
    pub(super) fn at(self, place: impl fmt::Display) -> Self {
        self.map(|failure| if failure.is_interruption() { failure } else { failure.at(place) })
    }

    fn map(self, change: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::Input(failure) => Self::Input(change(failure)),
            Self::Item(failure) => Self::Item(change(failure)),
            Self::Run(failure) => Self::Run(change(failure)),
        }
    }
}

/// What the system said.
pub(super) fn system_error(error: &Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// Whether an error is not that of the file at which it comes up: the process or the system has no room for another open file, or what the file is on is gone.
pub(super) fn is_of_all(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::MFILE
                | Errno::NFILE
                | Errno::NOMEM
                | Errno::STALE
                | Errno::NOTCONN
                | Errno::NODEV
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::TIMEDOUT
                | Errno::SHUTDOWN
        )
    )
}

/// Whether the folder that `path` is in cannot be read either. EIO may be a bad block of one file, or a share that is gone.
fn is_of_folder(path: &Path, error: &io::Error) -> bool {
    let Some(folder) = path.parent().filter(|_| Errno::from_io_error(error) == Some(Errno::IO)) else { return false };
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    fs::read_dir(folder).and_then(|mut entries| entries.next().transpose()).is_err()
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self::Run(failure)
    }
}

impl From<Interrupted> for Refused {
    fn from(interrupted: Interrupted) -> Self {
        Self::Run(interrupted.into())
    }
}

impl From<OutputError> for Refused {
    fn from(error: OutputError) -> Self {
        // A limit that a shorter file does not reach (ulimit -f).
        let is_too_long =
            matches!(&error, OutputError::Io { source, .. } if source.kind() == io::ErrorKind::FileTooLarge);
        if is_too_long { Self::Item(error.into()) } else { Self::Run(error.into()) }
    }
}

/// Of an input that is sealed already.
pub(super) fn is_sealed() -> Failure {
    let why = "it is a stream already, and nothing was sealed; --seal-sealed encrypts it once more";
    Failure::new(Exit::Policy, why)
}

/// Of a file that does not begin as a stream does.
pub(super) fn no_stream(error: Error, head: &[u8]) -> Failure {
    let is_cut = head.len() < STREAM_HEADER_LEN && head.first() == Some(&MAGIC);
    if is_cut || head.is_empty() {
        let what = if is_cut { "it was cut in its header" } else { "it is empty" };
        return Failure::from(error).add(what).add("get it again from where it was whole");
    }
    let what = "it does not begin as a stream does, of which `protect --stream` makes one; `reveal` without --stream takes values in CSV, JSON and HL7";
    Failure::from(error).add(what)
}

/// Of a stream that cannot be begun.
pub(super) fn not_begun(error: Error, row: Option<&[u8]>) -> Refused {
    let kind = error.kind();
    if is_used_up(&error) {
        let why = format!(
            "{} has sealed as many values as [rotation] data_messages lets a key, and the next one seals when its `lead` has passed [{} {}]",
            error.detail(),
            kind.code(),
            kind.name()
        );
        return Refused::Run(Failure::new(Exit::Data, why));
    }
    let failure = Failure::from(error);
    let failure = match kind {
        ErrorKind::DecryptionFailed => failure.add(
            "field, --context and --row-file, or in a folder the name, must be those that it was protected with, or its header was changed",
        ),
        // Of a folder it is the name, which is always right.
        ErrorKind::InvalidInput if row.is_none() => failure.usage().add("--row-file names a file with it"),
        ErrorKind::InvalidInput => failure.usage().add("leave --row-file out"),
        _ => failure,
    };
    Refused::of_kind(kind, failure)
}

/// Of a stream that was begun.
pub(super) fn damaged(error: Error) -> Refused {
    let is_changed = error.kind() == ErrorKind::DecryptionFailed;
    let refused = Refused::of_content(error);
    if !is_changed {
        return refused;
    }
    let what = "the file was changed, or cut, behind its header: get it again from where it was whole";
    refused.map(|failure| failure.add(what))
}

#[cfg(test)]
mod tests {
    use super::{Errno, Error, ErrorKind, OutputError, Path, Refused, damaged, io, not_begun};
    use crate::files::output::Target;
    use keyfold::KmsErrorKind;

    fn ends_the_run(refused: &Refused) -> bool {
        matches!(refused, Refused::Run(_))
    }

    #[test]
    fn what_others_would_meet_as_well_ends_the_run() {
        let away = [
            ErrorKind::Kms(KmsErrorKind::Unavailable),
            ErrorKind::Store,
            ErrorKind::DeadlineExceeded,
            ErrorKind::Closed,
            ErrorKind::Internal,
        ];
        for kind in away {
            assert!(ends_the_run(&Refused::of_key(kind.into())), "{kind:?}");
            assert!(ends_the_run(&damaged(kind.into())), "{kind:?}");
            assert!(ends_the_run(&not_begun(kind.into(), None)), "{kind:?}");
        }
        let of_file = [ErrorKind::DecryptionFailed, ErrorKind::Malformed, ErrorKind::LimitExceeded];
        for kind in of_file {
            assert!(!ends_the_run(&damaged(kind.into())) && !ends_the_run(&not_begun(kind.into(), None)), "{kind:?}");
        }
        for kind in [ErrorKind::NoMatchingKey, ErrorKind::WrongScope, ErrorKind::RecordRejected] {
            assert!(matches!(Refused::of_key(kind.into()), Refused::Item(_)), "{kind:?}: the input is not at fault");
        }
    }

    /// What is so with the KEKs of one root, others may not have. What keeps every key away ends the run, and what passes.
    #[test]
    fn what_a_kek_refuses_is_of_the_streams_under_it() {
        let all = KmsErrorKind::ALL.iter().map(|&kind| ErrorKind::Kms(kind));
        for kind in all.chain([ErrorKind::Configuration, ErrorKind::PolicyRefused]) {
            let error = || Error::new(kind, "why").with_detail("KEK old: more");
            assert!(matches!(Refused::of_key(error().lasting()), Refused::Item(_)), "{kind:?}");
            assert!(ends_the_run(&Refused::of_key(error())), "{kind:?}");
        }
    }

    /// A key that cannot be had is one of many; one that is taken away while it is used is taken from whoever runs.
    #[test]
    fn a_key_that_is_revoked_during_a_stream_ends_the_run() {
        let revoked = || Error::from(ErrorKind::KeyState);
        assert!(ends_the_run(&damaged(revoked())) && ends_the_run(&not_begun(revoked(), None)));
        assert!(!ends_the_run(&Refused::of_key(revoked())));
    }

    /// The same kind of error is a file's where its content is read, and not where its key is: files of the keyring are read there.
    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let unreadable = || Error::from(ErrorKind::Io);
        assert!(!ends_the_run(&damaged(unreadable())) && ends_the_run(&Refused::of_key(unreadable())));
        let written = |kind: io::ErrorKind| Target::Stdout.error("write", kind.into()).into();
        assert!(matches!(written(io::ErrorKind::FileTooLarge), Refused::Item(_)));
        assert!(
            ends_the_run(&written(io::ErrorKind::StorageFull)) && ends_the_run(&written(io::ErrorKind::BrokenPipe))
        );
        let unread = |kind: io::ErrorKind| Refused::cannot_read(Path::new("x"), &kind.into());
        assert!(matches!(unread(io::ErrorKind::PermissionDenied), Refused::Input(_)));
        assert!(matches!(unread(io::ErrorKind::NotFound), Refused::Item(_)), "what is gone is in nobody's way");
        // Of one file, or of all that comes.
        let raw = |errno: Errno| io::Error::from(errno);
        for errno in [Errno::MFILE, Errno::NFILE, Errno::STALE, Errno::NOTCONN, Errno::HOSTDOWN] {
            let within = Error::from(ErrorKind::Io).with_source(raw(errno));
            assert!(ends_the_run(&damaged(within)), "{errno}");
            assert!(ends_the_run(&Refused::unreadable(&raw(errno))), "{errno}");
            assert!(ends_the_run(&Refused::cannot_read(Path::new("Cargo.toml"), &raw(errno))), "{errno}");
        }
        assert!(!ends_the_run(&damaged(Error::from(ErrorKind::Io).with_source(raw(Errno::IO)))));
        assert!(!ends_the_run(&Refused::cannot_read(Path::new("Cargo.toml"), &raw(Errno::IO))));
        assert!(ends_the_run(&Refused::cannot_read(Path::new("gone/x"), &raw(Errno::IO))), "its folder cannot be read");
        let exists = OutputError::Exists { target: Target::Stdout };
        assert!(ends_the_run(&exists.into()));
    }
}
