//! Looking values up without revealing them (DESIGN F21, F22; FORMAT.md §17): what indexes and formats are, and the bytes that they come to.
//! Knows neither keyrings nor fields; the handles are in `field`.

mod assigned;
mod ff1;
mod format;
mod index;
mod normal;
pub(crate) mod proof;
mod random;
mod token;

#[cfg(feature = "hazmat")]
pub(crate) use ff1::Ff1;
pub use format::{Format, TimeUnit};
pub(crate) use format::{FormatKey, Way};
pub use index::{DatePart, IndexKind, IndexPolicy, OnUnindexable, PhoneRule, most_bits};
pub use random::{TokenAlphabet, TokenForm};
pub use token::{Token, Tokens};
