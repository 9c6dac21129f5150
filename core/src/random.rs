//! Randomness, from the operating system at every use: nothing is kept that a fork or a snapshot could repeat. With the feature `fips` from the
//! generator of the FIPS module, which keeps state and looks after both itself (docs/FIPS.md).

use crate::error::{ErrorKind, Result};
use crate::keys::Secret;

/// Fills `out` from the generator.
///
/// # Errors
///
/// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): the generator failed; there is no fallback.
pub(crate) fn fill(out: &mut [u8]) -> Result<()> {
    #[cfg(feature = "fips")]
    let filled = aws_lc_rs::rand::fill(out);
    #[cfg(not(feature = "fips"))]
    let filled = getrandom::fill(out);
    filled.map_err(|error| crate::Error::from(ErrorKind::RandomnessUnavailable).with_source(error))
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
