//! What a configuration does not say.

use crate::boundary::{Outcome, boundary};
use crate::callback::{
    HostAudit, NO_FUNCTION, User, host_kek, kf_audit_fn, kf_kek, kf_passphrase_fn, kf_release_fn, passphrase_source,
};
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, input, one, text};
use crate::result::{kf_error, kf_result};
use keyfold::{Error, ErrorKind, Recovery};
use keyfold_open::Options;
use std::ffi::{OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What kf_keyring_open is told besides the configuration.
pub struct kf_options {
    given: Mutex<Given>,
}

/// The options that were given.
#[derive(Clone, Default)]
pub(crate) struct Given {
    pub(crate) policies: Vec<PathBuf>,
    pub(crate) options: Options,
}

impl Object for kf_options {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_options> = Table::new(2);
        &TABLE
    }
}

/// The options of a handle, where NULL stands for none.
pub(crate) fn given(options: *const kf_options) -> Outcome<Given> {
    if options.is_null() {
        return Ok(Given::default());
    }
    Ok(held(options)?.given.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes the options of a handle, or leaves them as they were. What `change` returns is dropped without the lock: it may call the program.
fn change<T>(options: *mut kf_options, change: impl FnOnce(&mut Given) -> Outcome<T>) -> Outcome<T> {
    let options = held(options)?;
    let mut given = options.given.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut given)
}

/// The path at `path`.
///
/// # Safety
///
/// As for [`input`].
pub(crate) unsafe fn path<'a>(path: *const c_char, len: usize) -> Outcome<&'a std::path::Path> {
    // SAFETY: this function's contract.
    let bytes = unsafe { input(path.cast::<u8>(), len) }?;
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(Error::new(ErrorKind::InvalidInput, "a path is not empty and has no NUL").into());
    }
    Ok(std::path::Path::new(OsStr::from_bytes(bytes)))
}

/// Makes options that say nothing. Release them with kf_options_free; keyrings that were opened with them keep what they need.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_new(options: *mut *mut kf_options, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(options)?;
        let made = handle::give(kf_options { given: Mutex::default() })?;
        // SAFETY: the contract of the header: `options` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Adds the fields of a policy file. It is read when the keyring is opened.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_add_policy(
    options: *mut kf_options,
    path: *const c_char,
    path_len: usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let path = unsafe { self::path(path, path_len) }?;
        change(options, |given| {
            given.policies.push(path.to_owned());
            Ok(())
        })
    })
}

/// Turns recovery mode on, with the reason that break-glass KEKs need and that the audit trail gets: one line of 1 to 512 bytes.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_set_recovery(
    options: *mut kf_options,
    reason: *const c_char,
    reason_len: usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let reason = unsafe { text(reason, reason_len) }?;
        change(options, |given| {
            given.options.recovery = Some(Recovery::with_reason(reason)?);
            Ok(())
        })
    })
}

/// Has keys read from a backup of the key records (`keyfold keys backup`) in the place of the store, for machines that do not reach it.
/// Nothing is made or changed then. The bytes are copied.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_set_records(
    options: *mut kf_options,
    records: *const c_void,
    records_len: usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let records = unsafe { input(records.cast::<u8>(), records_len) }?;
        change(options, |given| {
            given.options.records = Some(Arc::from(records));
            Ok(())
        })
    })
}

/// Adds a key in a key service that the program reaches: the configuration names it by `uri = "host:NAME"`. `kek` is copied.
/// From KF_OK on its `release` is going to be called, once, after the options and the keyrings that were opened with them are released.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER: also if `wrap` or `unwrap` is NULL; KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: the name is not
/// UTF-8, or is there already.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_add_kek(
    options: *mut kf_options,
    name: *const c_char,
    name_len: usize,
    kek: *const kf_kek,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (name, kek) = unsafe { (text(name, name_len)?, one(kek)?) };
        change(options, |given| {
            let keks = &mut given.options.host_keks;
            if keks.contains_key(name) {
                return Err(Error::new(ErrorKind::InvalidInput, "a KEK of the program is added twice")
                    .with_detail(name)
                    .into());
            }
            keks.insert(name.to_owned(), host_kek(name, kek)?);
            Ok(())
        })
    })
}

/// Has `ask` give the passphrases of KEKs. It runs on threads of keyfold's when such a KEK is first used, and may block. It is given
/// `user`, for which `release` (may be NULL) is called as kf_options_add_kek says, or when another function takes its place.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_set_passphrase(
    options: *mut kf_options,
    ask: kf_passphrase_fn,
    release: kf_release_fn,
    user: *mut c_void,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let ask = ask.ok_or(NO_FUNCTION)?;
        let source =
            |given: &mut Given| Ok(given.options.passphrase.replace(passphrase_source(ask, User::new(user, release))));
        change(options, source).map(drop)
    })
}

/// Has `record` get every event of the keyring: requests to key services, changes of keys, and counts of what was sealed and opened. For
/// configurations without an `[audit]` section. It runs on any thread, several at once, and may block; it is given `user`, for which
/// `release` (may be NULL) is called as kf_options_add_kek says, or when another function takes its place.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_options_set_audit(
    options: *mut kf_options,
    record: kf_audit_fn,
    release: kf_release_fn,
    user: *mut c_void,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let record = record.ok_or(NO_FUNCTION)?;
        let sink = |given: &mut Given| {
            Ok(given.options.audit.replace(Arc::new(HostAudit::new(record, User::new(user, release)))))
        };
        change(options, sink).map(drop)
    })
}

/// Releases options. NULL does nothing.
///
/// Threads: any. Never blocks, but for a `release` of the program's that does.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_options_free(options: *mut kf_options) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(options))
}
