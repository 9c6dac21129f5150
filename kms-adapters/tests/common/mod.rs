//! What the tests of all remote adapters share: a server that answers as it is told, and the classes of fault files.

#![allow(dead_code, reason = "each test uses a part")]

pub(crate) mod faults;
pub(crate) mod fork;
pub(crate) mod logs;
pub(crate) mod server;

use keyfold::testing::block_on;
use keyfold::{
    Error, Kms, KmsContext, KmsTrace, Lineage, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey, wire::KeyId,
};
use std::path::Path;

pub(crate) const PAYLOAD: &[u8; 64] = b"KEYFOLD-CANARY-PAYLOAD:never in an error, a log or wrapped bytes";

pub(crate) fn here() -> &'static Path {
    Path::new(".")
}

pub(crate) fn context() -> KmsContext {
    KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]))
}

pub(crate) fn payload() -> Secret<64> {
    Secret::with(|bytes| bytes.copy_from_slice(PAYLOAD))
}

pub(crate) fn wrap(kms: &dyn Kms) -> Result<WrappedKey> {
    block_on(kms.wrap(WrapRequest::new(&payload(), &context())))
}

pub(crate) fn unwrap(kms: &dyn Kms, wrapped: &WrappedKey) -> Result<Secret<64>> {
    block_on(kms.unwrap(UnwrapRequest::new(wrapped, &context())))
}

/// As [`unwrap`], with how many requests it took.
pub(crate) fn unwrap_traced(kms: &dyn Kms, wrapped: &WrappedKey) -> (Result<Secret<64>>, u32) {
    let (trace, context) = (KmsTrace::new(), context());
    let result = block_on(kms.unwrap(UnwrapRequest::new(wrapped, &context).with_trace(&trace)));
    (result, trace.requests())
}

/// The error of something that must have failed; its success may hold a secret, so it is not printed.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    }
}
