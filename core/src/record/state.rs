//! The states of a key (NIST SP 800-57 part 1, §7).

/// Where a key is in its life (NIST SP 800-57 part 1, §7).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum KeyState {
    /// Published, so that every process can open under it before anyone seals.
    PreActive = 1,
    /// Seals and opens.
    Active = 2,
    /// Opens only.
    Deactivated = 3,
    /// Opens only where the policy says so; data under it must be re-encrypted.
    Compromised = 4,
    /// Neither seals nor opens; can still be taken back.
    DestroyPending = 5,
    /// A tombstone: the wraps are gone.
    Destroyed = 6,
}

impl KeyState {
    /// All states, in the order of their bytes.
    pub const ALL: [Self; 6] =
        [Self::PreActive, Self::Active, Self::Deactivated, Self::Compromised, Self::DestroyPending, Self::Destroyed];

    /// The byte that stands for this state in key records.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    pub(crate) const fn from_id(id: u8) -> Option<Self> {
        Some(match id {
            1 => Self::PreActive,
            2 => Self::Active,
            3 => Self::Deactivated,
            4 => Self::Compromised,
            5 => Self::DestroyPending,
            6 => Self::Destroyed,
            _ => return None,
        })
    }

    /// The name of this state as NIST SP 800-57 writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreActive => "pre-active",
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Compromised => "compromised",
            Self::DestroyPending => "destroy-pending",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether values under a key in this state may be opened.
    #[must_use]
    pub const fn may_open(self) -> bool {
        matches!(self, Self::PreActive | Self::Active | Self::Deactivated)
    }

    /// How much the state restricts the use of a key, for comparisons.
    pub(crate) const fn restriction(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::PreActive => 1,
            Self::Deactivated => 2,
            Self::Compromised => 3,
            Self::DestroyPending => 4,
            Self::Destroyed => 5,
        }
    }

    /// Whether the state may change from this one to `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use KeyState::{Active, Compromised, Deactivated, DestroyPending, Destroyed, PreActive};
        matches!(
            (self, next),
            (PreActive, Active | Deactivated | Compromised)
                | (Active, Deactivated | Compromised)
                | (Deactivated, Compromised | DestroyPending)
                | (Compromised, DestroyPending)
                | (DestroyPending, Deactivated | Compromised | Destroyed)
        )
    }
}
