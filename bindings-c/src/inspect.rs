//! What sealed values say of themselves, and their text form. Needs no key.

use crate::boundary::boundary;
use crate::keyring::KF_KEY_ID_LEN;
use crate::memory::{Output, input, range_of};
use crate::result::{kf_error, kf_result};
use keyfold::ErrorKind;
use keyfold::wire::{self, Frame, Sealed, Suite};
use std::ffi::c_char;

/// What a sealed value says of itself. Not authenticated: only decrypting is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_inspection {
    /// The key.
    pub key_id: [u8; KF_KEY_ID_LEN],
    /// The generation of the key.
    pub generation: u32,
    /// Whether it was sealed deterministically, so that equal values look equal.
    pub is_deterministic: bool,
    /// Whether it is in a frame, with the records of its key in front.
    pub is_framed: bool,
    /// 0.
    pub reserved: [u8; 2],
    /// Bytes of the value with its type and padding.
    pub encoded_len: usize,
}

/// Says what a sealed value says of itself.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not a value that this build opens.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_inspect(
    sealed: *const u8,
    sealed_len: usize,
    inspection: *mut kf_inspection,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(inspection)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let bytes = unsafe { input(sealed, sealed_len) }?;
        out.apart_from(&[range_of(bytes)])?;
        let (sealed, is_framed) = match Frame::parse(bytes) {
            // Whatever is no frame is for the parser of values to refuse.
            Err(error) if error.kind() == ErrorKind::Unsupported => (Sealed::parse(bytes)?, false),
            frame => (frame?.sealed(), true),
        };
        let key_id = sealed.key_id();
        let made = kf_inspection {
            key_id: *key_id.as_bytes(),
            generation: key_id.generation(),
            is_deterministic: sealed.suite() == Suite::Deterministic,
            is_framed,
            reserved: [0; 2],
            encoded_len: sealed.encoded_len(),
        };
        // SAFETY: the contract of the header: `inspection` can be written; it is apart from the input.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Characters of the text form of a sealed value of `sealed_len` bytes, without a NUL behind it; SIZE_MAX if there is no such number.
/// A pure function.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_text_len(sealed_len: usize) -> usize {
    wire::text_len(sealed_len)
}

/// Bytes that a buffer must have for the sealed value whose text form has `text_len` characters. A pure function.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_text_sealed_len_max(text_len: usize) -> usize {
    text_len
}

/// Writes the text form of a sealed value, for columns and documents of text: ASCII that URLs, JSON and CSV leave alone. `text_cap` must be
/// at least kf_text_len(sealed_len). No NUL is added. On any result but KF_OK nothing has been changed.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not a value that this build
/// opens, or a frame, which has no text form.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_to_text(
    sealed: *const u8,
    sealed_len: usize,
    text: *mut c_char,
    text_cap: usize,
    text_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let sealed = unsafe { input(sealed, sealed_len) }?;
        let mut out = Output::new(text.cast::<u8>(), text_cap, kf_text_len(sealed.len()))?;
        let mut len = Output::one(text_len)?;
        out.apart_from(&[range_of(sealed), len.range()])?;
        len.apart_from(&[range_of(sealed)])?;
        let mut made = Vec::with_capacity(kf_text_len(sealed.len()));
        wire::push_text(sealed, &mut made)?;
        // What is no value has a text that none comes back from.
        Sealed::parse(sealed)?;
        // SAFETY: the contract of the header: both can be written; they are apart from each other and from the input.
        unsafe {
            out.set(&made);
            len.set(&[made.len()]);
        }
        Ok(())
    })
}

/// Writes the sealed value whose text form is `text`. `sealed_cap` must be at least kf_text_sealed_len_max(text_len). On any result but KF_OK nothing
/// has been changed.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_BUFFER_TOO_SMALL, KF_ERR_OVERLAP; KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED: not the text form of a value.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_from_text(
    text: *const c_char,
    text_len: usize,
    sealed: *mut u8,
    sealed_cap: usize,
    sealed_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let text = unsafe { input(text.cast::<u8>(), text_len) }?;
        let mut out = Output::new(sealed, sealed_cap, kf_text_sealed_len_max(text.len()))?;
        let mut len = Output::one(sealed_len)?;
        out.apart_from(&[range_of(text), len.range()])?;
        len.apart_from(&[range_of(text)])?;
        let mut made = Vec::new();
        wire::from_text(text, &mut made)?;
        // SAFETY: the contract of the header: both can be written; they are apart from each other and from the input.
        unsafe {
            out.set(&made);
            len.set(&[made.len()]);
        }
        Ok(())
    })
}

/// The version of the library as a number: major * 1,000,000 + minor * 1,000 + patch. KF_VERSION is that of the header.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or_default();
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 1_000
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}
