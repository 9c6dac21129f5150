//! What can be wrong with HL7 messages, and where, without what the values are.

use std::fmt;
use std::io;

/// Why a path or a message is refused. Messages and segments are counted from 1, the segments in their message.
#[derive(Debug)]
pub(crate) enum Hl7Error {
    /// The input cannot be read.
    Io(io::Error),
    /// A path of the policy is none.
    Path { path: String, reason: &'static str },
    /// Two paths of the policy select the same value, or one selects a part of what the other selects.
    Overlap { first: String, second: String },
    /// A message, with what is around it, is longer than allowed.
    TooLong { message: u64, max_len: usize },
    /// A message is not what it should be.
    Message { message: u64, reason: &'static str },
    /// A segment is not what it should be.
    Segment { message: u64, segment: usize, reason: &'static str },
    /// A message has more values or segments than [`MAX_VALUES`](super::MAX_VALUES).
    TooMany { message: u64 },
}

impl From<io::Error> for Hl7Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Hl7Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "cannot read the input: {error}"),
            Self::Path { path, reason } => write!(f, "{path:?} is no place in a message: {reason}"),
            Self::Overlap { first, second } => write!(f, "{first} and {second} select the same value or a part of it"),
            Self::TooLong { message, max_len } => write!(f, "message {message}: longer than {max_len} bytes"),
            Self::Message { message, reason } => write!(f, "message {message}: {reason}"),
            Self::Segment { message, segment, reason } => write!(f, "message {message}, segment {segment}: {reason}"),
            Self::TooMany { message } => {
                write!(f, "message {message}: more than {} segments or values to seal", super::MAX_VALUES)
            }
        }
    }
}

impl std::error::Error for Hl7Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}
