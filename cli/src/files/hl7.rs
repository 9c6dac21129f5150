//! HL7 v2 messages whose values are found by segment and field and replaced in place.
//!
//! Messages are cut by their own delimiters and never written from what was parsed: only the bytes of the replaced values
//! change. What readers could cut in different ways is refused, since a part of it would stay in clear.

mod delimiters;
mod error;
mod message;
mod path;
mod source;

pub(crate) use delimiters::Delimiters;
pub(crate) use error::Hl7Error;
pub(crate) use message::{Located, Message};
pub(crate) use path::{SegmentPath, SegmentRules, segment_id};
pub(crate) use source::{MAX_MESSAGE_LEN, MessageBatch, MessageSource};

/// Most values in a message, and most segments: what is known about each takes more memory than it does.
pub(crate) const MAX_VALUES: usize = 1 << 17;

/// Begins a message in the Minimal Lower Layer Protocol (MLLP).
const START_BLOCK: u8 = 0x0B;
/// Ends a message in MLLP, in front of a carriage return.
const END_BLOCK: u8 = 0x1C;

#[cfg(test)]
mod tests;
