//! Finding values of deterministic fields.

use crate::boundary::{Outcome, boundary};
use crate::field::kf_field;
use crate::handle::held;
use crate::memory::{Output, TOO_LONG, input, range_of};
use crate::result::{kf_error, kf_result};
use crate::value::value_of;
use std::ffi::c_void;

/// Says how many keys the values of a deterministic field can be under: the one that seals, and those before it that the configuration
/// has for the partition. As many ciphertexts kf_search writes, of this field always.
///
/// Threads: any, with the same field. Blocks as kf_encrypt does, for each of the keys.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: the field is not deterministic, or the context lacks a
/// required key; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
/// KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_search_keys(field: *const kf_field, keys: *mut usize, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let mut out = Output::one(keys)?;
        let len = field.searcher()?.key_ids().len();
        // SAFETY: the contract of the header: `keys` can be written.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

/// Writes what a value of a deterministic field looks like when it is sealed, under each key that it can be under, the one that seals
/// first: a row whose column equals one of them has the value. They are of one length, the one that kf_sealed_len says, and follow each
/// other in `out`, whose `out_cap` must be at least kf_search_keys times that. For columns of text, pass each to kf_to_text.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
///
/// Threads: any, with the same field. Blocks as kf_search_keys does.
///
/// Returns what kf_search_keys returns; KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not the bytes of the
/// type, not the type of the field; KF_ERR_LIMIT_EXCEEDED: the value is too long; KF_ERR_DEADLINE_EXCEEDED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_search(
    field: *const kf_field,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let value = unsafe { input(value.cast::<u8>(), value_len) }?;
        let mut len = Output::one(out_len)?;
        let searcher = field.searcher()?;
        let needed = needed(field.sealed_len(value.len())?, searcher.key_ids().len())?;
        let mut out = Output::new(out, out_cap, needed)?;
        let inputs = [range_of(value), len.range()];
        out.apart_from(&inputs)?;
        len.apart_from(&inputs[..1])?;
        let found = searcher.ciphertexts(value_of(r#type, value)?)?.concat();
        // SAFETY: the contract of the header: both can be written; they are apart from each other and from the input.
        unsafe {
            out.set(&found);
            len.set(&[found.len()]);
        }
        Ok(())
    })
}

/// Bytes of `keys` ciphertexts.
fn needed(sealed_len: usize, keys: usize) -> Outcome<usize> {
    sealed_len.checked_mul(keys).ok_or(TOO_LONG)
}
