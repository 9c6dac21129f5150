//! PINs that tokens have refused. They are not tried again, because a token locks itself after a few.
//!
//! A forked child knows what its parent was told: there is no lock, which another thread of the parent could have held for
//! ever, and no PIN, of which salt and hash say enough.

use crate::credentials::SecretText;
use arc_swap::ArcSwapOption;
use cryptoki::error::RvError;
use keyfold::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

static REFUSED: ArcSwapOption<Vec<RefusedPin>> = ArcSwapOption::const_empty();

#[derive(Clone)]
struct RefusedPin {
    module: PathBuf,
    token: String,
    salt: [u8; 16],
    hash: [u8; 32],
    cause: RvError,
}

impl RefusedPin {
    fn is_of(&self, module: &Path, token: &str) -> bool {
        self.module == module && self.token == token
    }
}

/// With which words the token has refused `pin` before, if it has.
pub(super) fn cause(module: &Path, token: &str, pin: &SecretText) -> Option<RvError> {
    let refused = REFUSED.load_full();
    let mut refused = refused.iter().flat_map(|refused| refused.iter());
    refused
        .find(|refused| refused.is_of(module, token) && refused.hash == hash(&refused.salt, pin))
        .map(|refused| refused.cause)
}

/// Notes that the token has refused `pin`.
///
/// # Errors
///
/// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): the system gives no salt.
pub(super) fn add(module: &Path, token: &str, pin: &SecretText, cause: RvError) -> Result<()> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)
        .map_err(|_| Error::new(ErrorKind::RandomnessUnavailable, "the system gives no random bytes"))?;
    let new = RefusedPin { module: module.to_owned(), token: token.to_owned(), salt, hash: hash(&salt, pin), cause };
    change(|refused| refused.push(new.clone()));
    Ok(())
}

/// Forgets what the token has refused, because it has taken another PIN.
pub(super) fn forget(module: &Path, token: &str) {
    change(|refused| refused.retain(|refused| !refused.is_of(module, token)));
}

fn change(change: impl Fn(&mut Vec<RefusedPin>)) {
    REFUSED.rcu(|current| {
        let mut refused = current.as_deref().cloned().unwrap_or_default();
        change(&mut refused);
        Some(Arc::new(refused))
    });
}

fn hash(salt: &[u8; 16], pin: &SecretText) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(pin.expose()).finalize().into()
}
