//! Randomness, from the operating system at every use. Nothing is kept that a fork or a snapshot could repeat.

use crate::error::{Error, ErrorKind, Result};
use crate::keys::Secret;

/// Fills `out` from the operating system's generator.
///
/// # Errors
///
/// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): the generator failed; there is no fallback.
pub(crate) fn fill(out: &mut [u8]) -> Result<()> {
    getrandom::fill(out).map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))
}

/// `N` public random bytes.
pub(crate) fn array<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    fill(&mut out)?;
    Ok(out)
}

/// `N` secret random bytes.
pub(crate) fn secret<const N: usize>() -> Result<Secret<N>> {
    Secret::try_with(|out| fill(out))
}
