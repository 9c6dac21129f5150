//! Whose key a key is: the part that every derivation and wrap is bound to.

use crate::error::{Error, ErrorKind, Result};
use crate::wire::Generation;
use core::fmt;

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = 16;

            /// The identifier with exactly these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl core::str::FromStr for $name {
            type Err = Error;

            /// Parses 32 lower-case hexadecimal digits.
            fn from_str(text: &str) -> Result<Self> {
                let mut bytes = [0; 16];
                let length = data_encoding::HEXLOWER.decode_len(text.len());
                if length != Ok(16) || data_encoding::HEXLOWER.decode_mut(text.as_bytes(), &mut bytes).is_err() {
                    return Err(Error::new(ErrorKind::InvalidInput, "expected 32 lower-case hexadecimal digits"));
                }
                Ok(Self(bytes))
            }
        }
    };
}

id16! {
    /// Identifies a keyring for ever: 16 random bytes, whatever the keyring is renamed to.
    Lineage
}

id16! {
    /// Identifies a scope or a partition: 16 random bytes, or [`NONE`](Self::NONE) where a key belongs to the keyring itself.
    SlotId
}

#[cfg(feature = "std")]
id16! {
    /// Identifies an audit chain: 16 random bytes.
    ChainId
}

impl SlotId {
    /// Of keys that belong to the keyring itself.
    pub const NONE: Self = Self([0; 16]);
}

/// What a key is for. A key of one class is never used for another.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum KeyClass {
    /// Authenticates key records and wraps the keyring's other keys.
    Root = 1,
    /// Seals fields of one scope, or of the keyring where no scope is used.
    Data = 2,
    /// Deterministic encryption, blind indexes and scope names, for one partition.
    Lookup = 3,
    /// Starts audit chains.
    Audit = 4,
}

impl KeyClass {
    /// The byte that stands for this class in key records and derivations.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    #[cfg(feature = "std")]
    pub(crate) const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::Root),
            2 => Some(Self::Data),
            3 => Some(Self::Lookup),
            4 => Some(Self::Audit),
            _ => None,
        }
    }

    /// The lower-case name of this class.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Data => "data",
            Self::Lookup => "lookup",
            Self::Audit => "audit",
        }
    }
}

/// Binds everything derived from a key to whose key it is (FORMAT.md §2.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct KeyIdentity {
    pub(crate) lineage: Lineage,
    pub(crate) class: KeyClass,
    pub(crate) slot: SlotId,
    pub(crate) generation: Generation,
}

impl KeyIdentity {
    pub(crate) const LEN: usize = 16 + 1 + 16 + 4;

    /// lineage (16) ‖ class (1) ‖ scope or partition ID (16) ‖ generation (4)
    // F-2.1-1.
    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..16].copy_from_slice(self.lineage.as_bytes());
        out[16] = self.class.id();
        out[17..33].copy_from_slice(self.slot.as_bytes());
        out[33..].copy_from_slice(&self.generation.to_be_bytes());
        out
    }
}
