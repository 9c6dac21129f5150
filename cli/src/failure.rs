//! Why the command ends without success: a message for people and an exit code for scripts.

use crate::files::csv::CsvError;
use crate::files::hl7::Hl7Error;
use crate::files::interrupt::Interrupted;
use crate::files::json::JsonError;
use crate::files::output::{Output, OutputError};
use keyfold::{Error, ErrorKind, RowError};
use keyfold_documents::{Cause, DocumentError, IS_TOKEN, LOOKS_SEALED, UNMATCHED};
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::path::Path;

/// How the library's text begins of a context that lacks a key; a test sees both together.
const MISSING_CONTEXT: &str = "the policy requires a context key that is missing";
/// Likewise of a scope that the keyring does not have.
const NO_SCOPE: &str = "the keyring has no such scope";
/// How it begins of a key that the keyring does not have. Where it is a neighbour's, it goes on with whose it is.
const NO_KEY: &str = "no key of this keyring has that key ID";
const OF_NEIGHBOUR: &str = "another keyring";
const IS_LOST: &str = "this machine has seen the key";
/// How it begins where key IDs that no key has were brought by the thousand: keys that are not in memory are looked up again in a moment.
const FLOODED: &str = "more than 1,000 unknown key IDs within a second";
/// How it begins of a key that has sealed its number of values, while the next one does not seal yet.
const USED_UP: &str = "the key has sealed as many values as the rotation policy allows";
/// How it ends of a key that may be in a forger's hands.
const COMPROMISED: &str = " is compromised";
/// How it begins of a root, which no setting lets open anything then.
const OF_ROOT: &str = "the state of the root";

/// Exit codes. They are part of the interface: scripts rely on them (docs/CLI.md).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// A bug, or something nobody foresaw.
    Internal = 1,
    /// The command line is wrong; clap uses this number, too.
    Usage = 2,
    /// Configuration or policy is wrong, or the policy refuses.
    Policy = 3,
    /// The input is not what it should be.
    Data = 4,
    /// A key is missing, wrong, or does not open the value.
    Key = 5,
    /// The key service refused or did not answer.
    Kms = 6,
    /// A file or the key store cannot be read or written.
    Storage = 7,
    /// The system failed: randomness, a deadline.
    System = 8,
}

/// A message that is safe to log, and the code to exit with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { code: exit as u8, message: message.into() }
    }

    /// The same failure, with what follows from it.
    pub(crate) fn add(self, consequence: &str) -> Self {
        Self { message: format!("{}; {consequence}", self.message), ..self }
    }

    /// The same failure, of the command line.
    pub(crate) fn usage(self) -> Self {
        Self { code: Exit::Usage as u8, ..self }
    }

    /// The same failure, of keys.
    pub(crate) fn of_keys(self) -> Self {
        Self { code: Exit::Key as u8, ..self }
    }

    /// The same failure, with what it leaves of the output.
    pub(crate) fn leaving(self, output: &Output) -> Self {
        match output.left(self.is_interruption()) {
            Some(left) => self.add(left),
            None => self,
        }
    }

    /// Whether a signal ended the command.
    pub(crate) fn is_interruption(&self) -> bool {
        self.code > 128
    }

    /// The same failure, with the place where it happened in front.
    pub(crate) fn at(self, place: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// The same failure, with the name of the input in front where its content is at fault, or its keys are: not for services, output and system. Standard
    /// input has none.
    pub(crate) fn of_file(self, input: &OsStr) -> Self {
        let is_of_input = [Exit::Policy, Exit::Data, Exit::Key].iter().any(|exit| self.code == *exit as u8);
        if is_of_input && input != "-" { self.at(Path::new(input).display()) } else { self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one line whatever the names in it are: a line break in one would make a message of its own of what follows.
        Printable(&self.message).fmt(f)
    }
}

/// Text of one line whose names of files, fields and columns may hold what a terminal would obey, or line breaks.
pub(crate) struct Printable<'a>(pub(crate) &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if keyfold_report::is_plain(c) => f.write_char(c),
            c => write!(f, "{}", c.escape_default()),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::Malformed | ErrorKind::Unsupported => {
                Exit::Data
            }
            ErrorKind::PolicyRefused | ErrorKind::Configuration => Exit::Policy,
            ErrorKind::NoMatchingKey
            | ErrorKind::DecryptionFailed
            | ErrorKind::WrongScope
            | ErrorKind::KeyState
            | ErrorKind::RecordRejected => Exit::Key,
            ErrorKind::Kms(_) => Exit::Kms,
            ErrorKind::Store | ErrorKind::Io | ErrorKind::Conflict => Exit::Storage,
            ErrorKind::RandomnessUnavailable | ErrorKind::DeadlineExceeded | ErrorKind::Closed => Exit::System,
            _ => Exit::Internal,
        };
        let text = error.to_string();
        let failure = Self::new(exit, format!("{text} [{} {}]", error.kind().code(), error.kind().name()));
        match text.as_str() {
            LOOKS_SEALED | IS_TOKEN => failure.add("--seal-sealed encrypts it once more"),
            UNMATCHED => failure.add("--pass-unmatched would pass it through as it is"),
            text if text.starts_with(MISSING_CONTEXT) => failure.add("--context KEY=VALUE gives it"),
            NO_SCOPE => failure.add("check how --scope, or SCOPE of `keyfold device`, spells it"),
            text if text.starts_with(NO_KEY) && !text.contains(OF_NEIGHBOUR) => {
                failure.add(match text.contains(IS_LOST) {
                    true => "keys restore brings it back from a journal or backups (docs/BACKUP.md)",
                    false => {
                        "it may be of another keyring (--config names the one that has it), or lost: docs/BACKUP.md"
                    }
                })
            }
            text if error.kind() == ErrorKind::KeyState && text.ends_with(COMPROMISED) && !text.starts_with(OF_ROOT) => failure.add(
                "what is sealed under it may be forged, and opens where [keyring] of keyfold.toml has `open_compromised = true`: docs/runbooks/data-key-leaked.md",
            ),
            _ if error.kind() == ErrorKind::WrongScope => failure.add(
                "--scope must name the scope that it was sealed in, or be left out if there was none; of a deterministic field [lookup] says the partition",
            ),
            _ => failure,
        }
    }
}

/// Whether the same call succeeds in a moment: others, whose key IDs are made up, are in its way.
pub(crate) fn is_flooded(error: &Error) -> bool {
    begins(error, FLOODED)
}

/// Whether the key seals no more, whatever comes next.
pub(crate) fn is_used_up(error: &Error) -> bool {
    begins(error, USED_UP)
}

fn begins(error: &Error, text: &str) -> bool {
    error.kind() == ErrorKind::LimitExceeded && error.to_string().starts_with(text)
}

impl Failure {
    /// The failure of opening a keyring: what is malformed then is a file of the keyring, not the input.
    pub(crate) fn of_opening(error: Error) -> Self {
        let exit = matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported).then_some(Exit::Storage as u8);
        let failure = Self::from(error);
        Self { code: exit.unwrap_or(failure.code), ..failure }
    }

    /// The failure of an argument.
    pub(crate) fn of_argument(name: &str, error: Error) -> Self {
        Self::from(error).usage().at(name)
    }
}

impl From<CsvError> for Failure {
    fn from(error: CsvError) -> Self {
        match &error {
            CsvError::Io(cause) => Self::of_input(cause, &error),
            _ => Self::new(Exit::Data, error.to_string()),
        }
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        let place = error.place();
        let failure = match error.into_cause() {
            Cause::Json(error) => error.into(),
            Cause::Refused(error) => Self::from(error),
        };
        if place.is_empty() { failure } else { failure.at(place) }
    }
}

/// A row of a batch that failed, and why; the caller knows where the row is in the file. `None`: the batch did, whatever its rows are.
pub(crate) struct RowFailure {
    pub(crate) row: Option<usize>,
    pub(crate) failure: Failure,
}

impl RowFailure {
    pub(crate) fn new(row: usize, exit: Exit, message: &str) -> Self {
        Self { row: Some(row), failure: Failure::new(exit, message) }
    }
}

impl From<RowError> for RowFailure {
    fn from(error: RowError) -> Self {
        Self { row: error.row, failure: error.error.into() }
    }
}

impl From<JsonError> for Failure {
    fn from(error: JsonError) -> Self {
        match &error {
            JsonError::Io(cause) => Self::of_input(cause, &error),
            JsonError::Path { .. } => Self::new(Exit::Policy, error.to_string()),
            _ => Self::new(Exit::Data, error.to_string()),
        }
    }
}

impl From<Hl7Error> for Failure {
    fn from(error: Hl7Error) -> Self {
        match &error {
            Hl7Error::Io(cause) => Self::of_input(cause, &error),
            Hl7Error::Path { .. } | Hl7Error::Overlap { .. } => Self::new(Exit::Policy, error.to_string()),
            _ => Self::new(Exit::Data, error.to_string()),
        }
    }
}

impl Failure {
    fn of_input(cause: &std::io::Error, error: &dyn fmt::Display) -> Self {
        match Interrupted::within(cause) {
            Some(interrupted) => interrupted.into(),
            None => Self::new(Exit::Storage, error.to_string()),
        }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        let exit = match error {
            OutputError::Interrupted(interrupted) => return interrupted.into(),
            OutputError::Exists { .. }
            | OutputError::NotRegular { .. }
            | OutputError::NoName { .. }
            | OutputError::Terminal
            | OutputError::SameAsInput { .. }
            | OutputError::OwnFile { .. } => Exit::Usage,
            _ => Exit::Storage,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Interrupted> for Failure {
    fn from(interrupted: Interrupted) -> Self {
        Self { code: interrupted.exit_code(), message: format!("{interrupted}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_is_advised_for_a_root() {
        let of =
            |text| Failure::from(Error::new(ErrorKind::KeyState, text).with_detail("07 is compromised")).to_string();
        assert!(of("the state of the key does not allow its use").contains("open_compromised"));
        assert!(!of("the state of the root does not allow its use").contains("open_compromised"));
    }
}
