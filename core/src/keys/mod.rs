//! Keys and what is derived from them (FORMAT.md §2). Root, data and lookup keys are never used directly.

mod derive;
mod identity;
#[cfg(feature = "std")]
mod memory;
mod secret;

#[cfg(feature = "std")]
pub(crate) use derive::{Expander, erasing_hmac, expand_sha512, hmac_sha256, hmac_sha256_erased};
pub(crate) use derive::{KeySchedule, Purpose};
#[cfg(feature = "std")]
pub use identity::ChainId;
pub(crate) use identity::KeyIdentity;
pub use identity::{KeyClass, Lineage, SlotId};
#[cfg(feature = "std")]
pub use memory::MemoryLock;
pub use secret::Secret;
