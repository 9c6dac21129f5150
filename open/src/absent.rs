//! A key service that is not there.

use keyfold::{BoxFuture, Error, Kms, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey};

/// Stands in place of a KEK that cannot or must not be used, and says why.
pub(crate) struct Absent(pub(crate) Error);

impl Kms for Absent {
    fn wrap<'a>(&'a self, _: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async { Err(self.0.clone()) })
    }

    fn unwrap<'a>(&'a self, _: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async { Err(self.0.clone()) })
    }
}
