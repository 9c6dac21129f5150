//! Whether keys may be in memory that is not locked (docs/MEMORY.md).

use super::{KeySchedule, Secret};
use crate::aead::{HeldGcmKey, HeldSivCipher, XaesKey};
use crate::error::{Error, ErrorKind, Result};
use crate::stream;

/// Bytes that each sort of what is in the arena takes up: keys, those that others are derived from, and those expanded for a column, document or stream.
const SIZES: [usize; 7] = [
    Secret::<32>::HELD_LEN,
    Secret::<64>::HELD_LEN,
    Secret::<{ stream::DERIVED_LEN }>::HELD_LEN,
    KeySchedule::HELD_LEN,
    XaesKey::HELD_LEN,
    HeldSivCipher::HELD_LEN,
    HeldGcmKey::HELD_LEN,
];

/// What is done where the system does not lock the memory that keys are in, so that it may be written to swap.
///
/// All keys of a process are in one arena, so it is about the keys of all keyrings, KEKs and handles.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MemoryLock {
    /// They are used all the same; [`key_memory`](crate::key_memory) and a metric say how many bytes that are.
    #[default]
    BestEffort,
    /// No key is opened while there is one: opening a keyring, reloading it, acquiring a key that is not in memory, sealing a column or document and beginning
    /// a stream fail.
    Required,
}

impl MemoryLock {
    /// Whether another key may be opened.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): the memory must be locked and is not; what the system said is the source.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::BestEffort {
            return Ok(());
        }
        keyfold_memory::check_locked(&SIZES).map_err(|error| {
            let why = "the memory for keys cannot be locked, which [memory] requires: raise RLIMIT_MEMLOCK";
            Error::new(ErrorKind::Configuration, why).with_detail(error.to_string()).with_source(error)
        })
    }
}
