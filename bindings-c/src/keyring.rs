//! Keyrings.

use crate::boundary::boundary;
use crate::callback::{NO_FUNCTION, kf_records_fn};
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, optional, optional_text, text};
use crate::options::{given, kf_options, path};
use crate::result::{kf_error, kf_result};
use keyfold::wire::KeyId;
use keyfold::{AuditAction, AuditEvent, Error, ErrorKind, KekAlias, Keyring, Record};
use keyfold_open::NewKeyring;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

/// A named set of keys, which a configuration describes.
pub struct kf_keyring {
    pub(crate) ring: Keyring,
}

impl Object for kf_keyring {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_keyring> = Table::new(3);
        &TABLE
    }
}

/// Bytes of a key ID. The first four are the key's generation, in big-endian order.
pub const KF_KEY_ID_LEN: usize = 24;

const _: () = assert!(KF_KEY_ID_LEN == KeyId::LEN);

/// What a key is for: kf_key_info::key_class.
#[repr(u8)]
#[derive(Clone, Copy)]
pub enum kf_key_class {
    /// Authenticates key records and wraps the keyring's other keys.
    KF_CLASS_ROOT = 1,
    /// Seals fields of one scope, or of the keyring where no scope is used.
    KF_CLASS_DATA = 2,
    /// Seals deterministic fields of one partition.
    KF_CLASS_LOOKUP = 3,
    /// Starts audit chains.
    KF_CLASS_AUDIT = 4,
}

/// Where a key is in its life (NIST SP 800-57): kf_key_info::state.
#[repr(u8)]
#[derive(Clone, Copy)]
pub enum kf_key_state {
    /// Published, so that every process can open under it before anyone seals.
    KF_STATE_PRE_ACTIVE = 1,
    /// Seals and opens.
    KF_STATE_ACTIVE = 2,
    /// Opens only.
    KF_STATE_DEACTIVATED = 3,
    /// Opens only where the policy says so; data under it must be re-encrypted.
    KF_STATE_COMPROMISED = 4,
    /// Neither seals nor opens; can still be taken back.
    KF_STATE_DESTROY_PENDING = 5,
    /// The key is gone.
    KF_STATE_DESTROYED = 6,
}

/// A key as its record says.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_key_info {
    /// Its ID.
    pub key_id: [u8; KF_KEY_ID_LEN],
    /// Its generation: in each keyring a newer key has a higher one.
    pub generation: u32,
    /// What it is for: a kf_key_class.
    pub key_class: u8,
    /// Where it is in its life: a kf_key_state.
    pub state: u8,
    /// Whether a trusted root vouches for the record. Of one that is not trusted believe nothing.
    pub is_trusted: bool,
    /// 0.
    pub reserved: u8,
    /// When it was made, in seconds since 1970 by the clock of the store.
    pub created_at: u64,
}

impl kf_key_info {
    fn new(record: &Record, is_trusted: bool) -> Self {
        let key_id = record.key_id();
        Self {
            key_id: *key_id.as_bytes(),
            generation: key_id.generation(),
            key_class: record.class().id(),
            state: record.state().id(),
            is_trusted,
            reserved: 0,
            created_at: record.created_at(),
        }
    }
}

/// Makes a keyring in `folder`, which is made if needed: an SQLite store of key records, and a configuration `keyfold.toml`, in which the
/// key-encryption key is called "kek" and is the one of the URI `kek` (NULL: a new file of one, for one machine and for tests).
/// `environment` names the isolation domain; keys of another one never open in this one, and it cannot be changed later. `options` may
/// be NULL; passphrases and KEKs of the program count.
///
/// Threads: any. Blocks for files, and for the key service. On failure nothing is left.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_CONFIGURATION: the URI is none of a KEK; KF_ERR_IO: the
/// folder holds a keyring already, or cannot be written; KF_ERR_KMS_*.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_init(
    folder: *const c_char,
    folder_len: usize,
    name: *const c_char,
    name_len: usize,
    environment: *const c_char,
    environment_len: usize,
    kek: *const c_char,
    kek_len: usize,
    options: *const kf_options,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (folder, name, environment) =
            unsafe { (path(folder, folder_len)?, text(name, name_len)?, text(environment, environment_len)?) };
        // SAFETY: as above.
        let kek = unsafe { optional_text(kek, kek_len) }?;
        let given = given(options)?;
        let keks = match kek {
            Some(uri) => BTreeMap::from([(KekAlias::new("kek")?, uri.to_owned())]),
            None => BTreeMap::new(),
        };
        let new =
            NewKeyring { name: name.to_owned(), environment: environment.to_owned(), keks, ..NewKeyring::default() };
        pollster::block_on(keyfold_open::init_with(folder, &new, &given.options))?;
        Ok(())
    })
}

/// Opens the keyring of the configuration file `path`. `options` may be NULL. Release the result with kf_keyring_close.
///
/// One keyring per configuration is enough for a process: it owns the cache of unwrapped keys.
///
/// Threads: any. Blocks for files, for a store on a server, and for the key service of an audit trail; asks no other key service yet.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_CONFIGURATION: the text says file, line and key;
/// KF_ERR_IO, KF_ERR_STORE; KF_ERR_KMS_*: the key service of the audit trail; KF_ERR_RECORD_REJECTED, KF_ERR_MALFORMED: records that
/// the options bring.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_open(
    path: *const c_char,
    path_len: usize,
    options: *const kf_options,
    keyring: *mut *mut kf_keyring,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let mut out = Output::one(keyring)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let path = unsafe { self::path(path, path_len) }?;
        let given = given(options)?;
        let ring = keyfold_open::open_with(path, &given.policies, &given.options)?;
        let made = handle::give(kf_keyring { ring })?;
        // SAFETY: the contract of the header: `keyring` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Reads the configuration file `path` again, with `options`, and puts policy, pins, KEKs, cache and rotation in the place of what the
/// keyring has. Fields that exist go on with the policy that they were made with.
///
/// Threads: any, at the same time as others use the keyring. Blocks for files.
///
/// Returns what kf_keyring_open returns. On failure the keyring goes on as it was.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_reload(
    keyring: *mut kf_keyring,
    path: *const c_char,
    path_len: usize,
    options: *const kf_options,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let path = unsafe { self::path(path, path_len) }?;
        let given = given(options)?;
        Ok(keyfold_open::reload_with(&keyring.ring, path, &given.policies, &given.options)?)
    })
}

/// Makes a new key that seals in `scope` (NULL: where no scope is used) from now on; older ones still open. Of several processes
/// that do this at once, one makes a key. Writes the new key to `*key`, unless `key` is NULL.
///
/// Threads: any. Blocks for the store, and for the key service where the root key is not in memory.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT; KF_ERR_NO_MATCHING_KEY: there is no such scope;
/// KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_CONFLICT, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_rotate(
    keyring: *mut kf_keyring,
    scope: *const c_char,
    scope_len: usize,
    key: *mut kf_key_info,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        let mut out = if key.is_null() { None } else { Some(Output::one(key)?) };
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let scope = unsafe { optional_text(scope, scope_len) }?;
        let rotated = pollster::block_on(keyring.ring.rotate_data_key(scope))?;
        if let Some(out) = &mut out {
            // SAFETY: the contract of the header: `key` can be written.
            unsafe { out.set(&[kf_key_info::new(&rotated.new, true)]) };
        }
        Ok(())
    })
}

/// Lists keys in the order of their IDs: at most `keys_cap`, beginning behind the ID `after` (KF_KEY_ID_LEN bytes; NULL: at the first).
/// Writes them to `keys`, and how many they are to `*keys_len`; fewer than `keys_cap` are the last ones.
///
/// Threads: any. Blocks for the store, and for the key service where the root key is not in memory.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT, KF_ERR_OVERLAP, KF_ERR_KMS_*, KF_ERR_STORE,
/// KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_list(
    keyring: *const kf_keyring,
    after: *const u8,
    keys: *mut kf_key_info,
    keys_cap: usize,
    keys_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        // SAFETY: the contract of the header: `after` is NULL or has KF_KEY_ID_LEN bytes.
        let after = unsafe { optional(after, if after.is_null() { 0 } else { KF_KEY_ID_LEN }) }?;
        let after = after.and_then(|id| id.first_chunk()).map(|id| KeyId::from_bytes(*id));
        let (mut out, mut len) = (Output::new(keys, keys_cap, keys_cap)?, Output::one(keys_len)?);
        out.apart_from(&[len.range()])?;
        let page = pollster::block_on(keyring.ring.list(after, keys_cap))?;
        let infos: Vec<_> = page.iter().map(|info| kf_key_info::new(&info.record, info.verified.is_ok())).collect();
        // SAFETY: the contract of the header: both can be written; they are apart, and `after` was copied.
        unsafe {
            out.set(&infos);
            len.set(&[infos.len()]);
        }
        Ok(())
    })
}

/// Has `write` get a copy of all key records, for kf_options_set_records on machines that do not reach the store, and for restoring. It
/// runs once, in this call, and is given `user`. A copy holds no key in clear, and is believed nowhere without a root that a KEK opens: it may
/// be sent in the open. Whoever has the KEK as well has every key. The format is that of `keyfold keys backup`.
///
/// Threads: any. Blocks for the store, and for `write`.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_STORE, KF_ERR_CLOSED; KF_ERR_IO: `write` did not return KF_OK, or the audit
/// trail did not take it.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_records(
    keyring: *const kf_keyring,
    write: kf_records_fn,
    user: *mut c_void,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        let write = write.ok_or(NO_FUNCTION)?;
        let (copy, count) = pollster::block_on(keyfold_open::backup(&keyring.ring, Vec::new()))?;
        // Before it leaves: what cannot be recorded does not happen.
        keyring.ring.audit(AuditEvent::new(AuditAction::Backup).detail("records", count))?;
        // SAFETY: the contract of the header for kf_records_fn; the bytes are valid for this call.
        let code = unsafe { write(user, copy.as_ptr().cast(), copy.len()) };
        if code == kf_result::KF_OK as i32 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "the program's function did not take the records")
            .with_detail(code.to_string())
            .into())
    })
}

/// Renews the keys that are in use and due, forgets what has idled, and records what was counted for an audit trail if its interval is
/// over. Call it every few seconds, on a thread of its own, and no call waits for a renewal. Without it counts are recorded with the next
/// event of another kind, by kf_keyring_before_fork, and when the keyring is closed.
///
/// Threads: any. Blocks for the store, and for the key service.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_CLOSED: the last
/// error of a renewal, or of recording; the others were tried all the same.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_keyring_refresh(keyring: *mut kf_keyring, error: *mut kf_error) -> kf_result {
    boundary(error, || Ok(pollster::block_on(held(keyring)?.ring.refresh())?))
}

/// Makes the keyring ready for a fork of the process, which has to follow at once: the child can use it, its fields and all other
/// handles then. Without it a child opens the keyring anew. What was counted for the audit trail is recorded in this call, which may call
/// the kf_audit_fn; what that says is no error here.
/// Every keyring of the process is made ready so. One that was closed holds its store open as long as a field, an index, documents or a
/// stream of it are not released: release these first.
///
/// Threads: any, while no other thread is in any function of this library, from this call until the fork is over: the child would wait for ever
/// for what that thread has, and find the store open. May block while another thread asks the store, and for the audit trail.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_keyring_before_fork(keyring: *mut kf_keyring) -> kf_result {
    boundary(std::ptr::null_mut(), || {
        held(keyring)?.ring.before_fork();
        Ok(())
    })
}

/// Closes a keyring and releases its handle; ends its audit trail. Its fields fail with KF_ERR_CLOSED from now on and are still to be
/// released. Calls that are under way may finish, unless they would ask a KEK. KEKs are dropped, and keys erased but for those that a
/// field, documents or stream has used: they stay in memory, with those of the root above them, until that is released. The audit KEK
/// stays until all of them are. NULL does nothing.
///
/// Threads: any. Blocks for the audit trail.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_keyring_close(keyring: *mut kf_keyring) -> kf_result {
    boundary(std::ptr::null_mut(), || {
        if keyring.is_null() {
            return Ok(());
        }
        let open = held(keyring)?;
        handle::release(keyring)?;
        open.ring.close();
        Ok(())
    })
}
