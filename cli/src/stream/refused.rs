//! Why a file is not protected or revealed, and whether the next one may be all the same.

use crate::failure::{Exit, Failure};
use crate::files::interrupt::Interrupted;
use crate::files::output::OutputError;
use keyfold::wire::{MAGIC, STREAM_HEADER_LEN};
use keyfold::{Error, ErrorKind};
use std::fmt;
use std::io;

/// Why a file was not done.
#[derive(Debug)]
pub(super) enum Refused {
    /// This file is at fault, or the key of this stream: others may be in order.
    File(Failure),
    /// Whatever comes next would end likewise: a signal, a key service or a store that is away, a full disk, a key that seals no more.
    Run(Failure),
}

impl Refused {
    /// Of a stream whose key cannot be had. What has become of it concerns the streams under it alone.
    pub(super) fn of_key(error: Error) -> Self {
        let is_of_key = matches!(error.kind(), ErrorKind::KeyState | ErrorKind::RecordRejected);
        let is_of_file = is_of_key || is_of_file(&error);
        Self::new(is_of_file, error.into())
    }

    /// Of what follows a header. That an input cannot be read is an error of it; what is wrong with an output has an [`OutputError`].
    pub(super) fn of_content(error: Error) -> Self {
        let is_of_file = error.kind() == ErrorKind::Io || is_of_file(&error);
        Self::new(is_of_file, error.into())
    }

    fn new(is_of_file: bool, failure: Failure) -> Self {
        if is_of_file { Self::File(failure) } else { Self::Run(failure) }
    }

    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::File(failure) | Self::Run(failure) => failure,
        }
    }

    /// The same with `place` in front; a signal has none.
    pub(super) fn at(self, place: impl fmt::Display) -> Self {
        self.map(|failure| if failure.is_interruption() { failure } else { failure.at(place) })
    }

    fn map(self, change: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::File(failure) => Self::File(change(failure)),
            Self::Run(failure) => Self::Run(change(failure)),
        }
    }
}

/// Whether an error says something of a single stream or its name.
fn is_of_file(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidInput
            | ErrorKind::LimitExceeded
            | ErrorKind::Malformed
            | ErrorKind::Unsupported
            | ErrorKind::DecryptionFailed
            | ErrorKind::NoMatchingKey
            | ErrorKind::WrongScope
    )
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
        Self::new(is_too_long, error.into())
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
    let (kind, is_of_file) = (error.kind(), is_of_file(&error));
    let failure = Failure::from(error);
    let failure = match kind {
        ErrorKind::DecryptionFailed => failure
            .add("field, --context and --row-file, or in a folder the name, must be those that it was protected with"),
        ErrorKind::InvalidInput if row.is_none() => failure.add("--row-file names a file with it"),
        _ => failure,
    };
    Refused::new(is_of_file, failure)
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
    use super::{Error, ErrorKind, OutputError, Refused, damaged, io, not_begun};
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
            assert!(!ends_the_run(&Refused::of_key(kind.into())), "{kind:?}");
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
        assert!(!ends_the_run(&written(io::ErrorKind::FileTooLarge)));
        assert!(
            ends_the_run(&written(io::ErrorKind::StorageFull)) && ends_the_run(&written(io::ErrorKind::BrokenPipe))
        );
        let exists = OutputError::Exists { target: Target::Stdout };
        assert!(ends_the_run(&exists.into()));
    }
}
