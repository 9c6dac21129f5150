//! Contexts.

use crate::boundary::{Outcome, boundary};
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, input, text};
use crate::result::{kf_error, kf_result};
use keyfold::Context;
use std::ffi::{c_char, c_void};
use std::sync::{Mutex, PoisonError};

/// What values are bound to besides field and row: pairs such as a tenant and a table. Not stored in sealed values.
pub struct kf_context {
    context: Mutex<Context>,
}

impl Object for kf_context {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_context> = Table::new(1);
        &TABLE
    }
}

impl kf_context {
    pub(crate) fn get(&self) -> Context {
        self.context.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes an empty context. Release it with kf_context_free; fields that were made with it keep what was in it.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_context_new(context: *mut *mut kf_context, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(context)?;
        let made = handle::give(kf_context { context: Mutex::default() })?;
        // SAFETY: the contract of the header: `context` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Adds a pair to a context. The value is bytes, of a text those of its UTF-8.
///
/// Threads: any. Never blocks. On failure the context is as it was.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: the key is empty, not UTF-8, starts with "kf:" or
/// is there already; KF_ERR_LIMIT_EXCEEDED: more than 32 pairs or 4,096 bytes.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_context_add(
    context: *mut kf_context,
    key: *const c_char,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let context = held(context)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (key, value) = unsafe { (text(key, key_len)?, input(value.cast::<u8>(), value_len)?) };
        let mut pairs = context.context.lock().unwrap_or_else(PoisonError::into_inner);
        *pairs = pairs.clone().with(key, value)?;
        Ok(())
    })
}

/// Releases a context. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_context_free(context: *mut kf_context) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(context))
}

/// The context of a handle, where NULL stands for the empty one.
pub(crate) fn context_of(context: *const kf_context) -> Outcome<Context> {
    if context.is_null() { Ok(Context::new()) } else { Ok(held(context)?.get()) }
}
