//! Key bytes that are erased when dropped.

use zeroize::Zeroize;

#[cfg(feature = "std")]
type Storage<const N: usize> = keyfold_memory::Guarded<[u8; N]>;
#[cfg(not(feature = "std"))]
type Storage<const N: usize> = [u8; N];

/// `N` secret bytes, erased on drop.
///
/// Has no `Debug`, `Clone` or `PartialEq`, so that it cannot be logged, duplicated or compared in variable time
/// by accident. With `std` the bytes live in memory that is locked where the system allows it (docs/MEMORY.md), so moving the value
/// leaves no copy behind; `N` is at most 4096 then.
pub struct Secret<const N: usize>(Storage<N>);

impl<const N: usize> Secret<N> {
    /// A secret that `fill` writes into place. Starts as zeros.
    pub fn with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zeroed();
        fill(&mut secret.0);
        secret
    }

    /// As [`with`](Self::with), for a `fill` that can fail.
    ///
    /// # Errors
    ///
    /// Whatever `fill` returns; the bytes written so far are erased.
    pub fn try_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed();
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes. Named for what it does, so that a reviewer can search for it.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// As [`expose`](Self::expose), to work in place.
    #[cfg(feature = "std")]
    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }

    /// Bytes that a secret takes up.
    #[cfg(feature = "std")]
    pub(crate) const HELD_LEN: usize = Storage::<N>::SLOT_LEN;

    fn zeroed() -> Self {
        #[cfg(feature = "std")]
        return Self(Storage::zeroed());
        #[cfg(not(feature = "std"))]
        return Self([0; N]);
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
