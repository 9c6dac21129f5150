//! Fields: one value at a time.

use crate::boundary::{Outcome, boundary};
use crate::context::{context_of, kf_context};
use crate::handle::{self, Object, Table, held};
use crate::keyring::kf_keyring;
use crate::memory::{Output, input, optional, optional_text, range_of, text};
use crate::result::{kf_error, kf_result};
use crate::value::{KF_DETERMINISTIC_OVERHEAD, value_of};
use keyfold::{
    Column, ColumnBytes, Decryptor, Encryptor, Error, ErrorKind, Field, FieldPolicy, FormatPreserver, Opened,
    OpenedColumn, Padding, RowBinding, Searcher, StreamOpener, StreamSealer, Value,
};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// A field of the policy, bound to a scope and a context. Encrypts and decrypts.
pub struct kf_field {
    field: Field,
    encryptor: OnceLock<Encryptor>,
    decryptor: OnceLock<Decryptor>,
    searcher: OnceLock<Searcher>,
    preserver: OnceLock<FormatPreserver>,
    stream_sealer: OnceLock<StreamSealer>,
    stream_opener: OnceLock<StreamOpener>,
}

impl Object for kf_field {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_field> = Table::new(4);
        &TABLE
    }
}

impl kf_field {
    pub(crate) fn field(&self) -> &Field {
        &self.field
    }

    pub(crate) fn policy(&self) -> &FieldPolicy {
        self.field.policy()
    }

    /// Bytes of a sealed value whose bytes are `value_len`.
    #[inline]
    pub(crate) fn sealed_len(&self, value_len: usize) -> Outcome<usize> {
        Ok(self.field.policy().sealed_len(value_len)?)
    }

    /// Whether sealed values are longer by more than what sealing always adds.
    pub(crate) fn is_padded(&self) -> bool {
        self.field.policy().padding != Padding::None
    }

    /// The handle that seals; it is to be made ready.
    #[inline]
    fn made_encryptor(&self) -> Outcome<&Encryptor> {
        if let Some(encryptor) = self.encryptor.get() {
            return Ok(encryptor);
        }
        let made = pollster::block_on(self.field.clone().encryptor())?;
        Ok(self.encryptor.get_or_init(|| made))
    }

    /// The handle that seals, under a key that may be used now.
    pub(crate) fn encryptor(&self) -> Outcome<&Encryptor> {
        Ok(pollster::block_on(self.made_encryptor()?.ready())?)
    }

    /// Seals a value into `out`; says how long that is.
    #[inline]
    fn seal(&self, value: Value<'_>, row: Option<&[u8]>, out: &mut [u8]) -> Outcome<usize> {
        let encryptor = self.made_encryptor()?;
        match encryptor.encrypt_if_ready(value, row, out)? {
            Some(len) => Ok(len),
            None => Ok(pollster::block_on(encryptor.ready())?.encrypt_into(value, row, out)?),
        }
    }

    /// The handle that opens; its keys are to be loaded.
    #[inline]
    pub(crate) fn decryptor(&self) -> Outcome<&Decryptor> {
        if let Some(decryptor) = self.decryptor.get() {
            return Ok(decryptor);
        }
        let made = pollster::block_on(self.field.clone().decryptor())?;
        Ok(self.decryptor.get_or_init(|| made))
    }

    /// Opens a column.
    pub(crate) fn open_column(&self, sealed: &Column<'_>, rows: Option<Column<'_>>) -> Outcome<OpenedColumn> {
        let decryptor = self.decryptor()?;
        pollster::block_on(decryptor.load_keys(sealed))?;
        Ok(decryptor.decrypt_column(sealed, rows.as_ref())?)
    }

    /// The handle that finds values, under keys that may be used now.
    pub(crate) fn searcher(&self) -> Outcome<&Searcher> {
        if self.searcher.get().is_none() {
            let made = pollster::block_on(self.field.clone().searcher())?;
            // Of two threads that make one, either will do.
            let _ = self.searcher.set(made);
        }
        let searcher = self.searcher.get().expect("set above");
        Ok(pollster::block_on(searcher.ready())?)
    }

    /// The handle that replaces values by others of their format, under a key that may be used now.
    pub(crate) fn preserver(&self) -> Outcome<&FormatPreserver> {
        if self.preserver.get().is_none() {
            let made = pollster::block_on(self.field.clone().format_preserver())?;
            // Of two threads that make one, either will do.
            let _ = self.preserver.set(made);
        }
        let preserver = self.preserver.get().expect("set above");
        Ok(pollster::block_on(preserver.ready())?)
    }

    /// The handle that seals streams, under a key that may be used now.
    pub(crate) fn stream_sealer(&self) -> Outcome<&StreamSealer> {
        if self.stream_sealer.get().is_none() {
            let made = pollster::block_on(self.field.clone().stream_sealer())?;
            // Of two threads that make one, either will do.
            let _ = self.stream_sealer.set(made);
        }
        let sealer = self.stream_sealer.get().expect("set above");
        Ok(pollster::block_on(sealer.ready())?)
    }

    /// The handle that opens streams; their keys are to be loaded.
    pub(crate) fn stream_opener(&self) -> Outcome<&StreamOpener> {
        if self.stream_opener.get().is_none() {
            let made = pollster::block_on(self.field.clone().stream_opener())?;
            // Of two threads that make one, either will do.
            let _ = self.stream_opener.set(made);
        }
        Ok(self.stream_opener.get().expect("set above"))
    }

    /// Refuses row bindings that the policy does not want, or that are too few or many for a column of `n` rows.
    pub(crate) fn check_rows(&self, n: usize, rows: Option<&Column<'_>>) -> Outcome<()> {
        let is_bound = self.field.policy().row_binding != RowBinding::None;
        let message = match rows {
            None if is_bound => "the field is bound to its row, so row bindings are needed",
            Some(_) if !is_bound => "the field is not bound to its row, but row bindings are given",
            Some(rows) if ColumnBytes::len(rows) != n => "a column has one row binding per row",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::InvalidInput, message).into())
    }

    pub(crate) fn open(&self, sealed: &[u8], row: Option<&[u8]>) -> Outcome<Opened> {
        let decryptor = self.decryptor()?;
        if let Some(opened) = decryptor.decrypt_if_ready(sealed, row)? {
            return Ok(opened);
        }
        pollster::block_on(decryptor.load_keys(&[sealed][..])).map_err(Error::from)?;
        Ok(decryptor.decrypt(sealed, row)?)
    }
}

/// Binds a field of the policy to a scope (a tenant, a clinic, a device; NULL: none) and a context (NULL: the empty one). Release it with
/// kf_field_free. Make it once, not per value: it holds the keys that it has used.
///
/// Threads: any. Never blocks, and asks for no key yet.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_INVALID_INPUT: not UTF-8; KF_ERR_POLICY_REFUSED: the policy has no such
/// field; KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_field_new(
    keyring: *const kf_keyring,
    name: *const c_char,
    name_len: usize,
    scope: *const c_char,
    scope_len: usize,
    context: *const kf_context,
    field: *mut *mut kf_field,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        let mut out = Output::one(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (name, scope) = unsafe { (text(name, name_len)?, optional_text(scope, scope_len)?) };
        let mut field = keyring.ring.field(name)?.context(context_of(context)?);
        if let Some(scope) = scope {
            field = field.scope(scope);
        }
        let made = handle::give(kf_field {
            field,
            encryptor: OnceLock::new(),
            decryptor: OnceLock::new(),
            searcher: OnceLock::new(),
            preserver: OnceLock::new(),
            stream_sealer: OnceLock::new(),
            stream_opener: OnceLock::new(),
        })?;
        // SAFETY: the contract of the header: `field` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Releases a field. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_field_free(field: *mut kf_field) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(field))
}

/// Says how many bytes kf_encrypt is going to write for a value of `value_len` bytes: no more and no fewer.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_LIMIT_EXCEEDED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_sealed_len(
    field: *const kf_field,
    value_len: usize,
    sealed_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let mut out = Output::one(sealed_len)?;
        let len = field.sealed_len(value_len)?;
        // SAFETY: the contract of the header: `sealed_len` can be written.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

/// Bytes that a buffer must have for opening a sealed value of `sealed_len` bytes, whatever is in it. A pure function.
///
/// Threads: any. Never blocks.
#[must_use]
#[unsafe(no_mangle)]
pub extern "C" fn kf_opened_len_max(sealed_len: usize) -> usize {
    sealed_len.saturating_sub(KF_DETERMINISTIC_OVERHEAD)
}

/// Encrypts one value of type `type` (one of KF_TYPE_*) and writes the sealed value to `out`, whose `out_cap` must be at least what
/// kf_sealed_len says. The value is bound to `row` where the policy binds rows; otherwise `row` is NULL.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed; after
/// KF_ERR_INTERNAL `out` may have been erased.
///
/// Threads: any, with the same field. Blocks for the store and for one request to the key service where the key that seals is not in
/// memory or has to be renewed; otherwise never. A buffer that is too small costs no request.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not
/// the bytes of the type, not the type of the field, row missing or not wanted; KF_ERR_LIMIT_EXCEEDED: value or row is too long;
/// KF_ERR_POLICY_REFUSED: the context lacks a required key; KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
/// KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_encrypt(
    field: *const kf_field,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    row: *const c_void,
    row_len: usize,
    out: *mut u8,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (value, row) = unsafe { (input(value.cast::<u8>(), value_len)?, optional(row.cast(), row_len)?) };
        let mut len = Output::one(out_len)?;
        let mut out = Output::new(out, out_cap, field.sealed_len(value.len())?)?;
        let inputs = [range_of(value), range_of(row.unwrap_or_default()), len.range()];
        out.apart_from(&inputs)?;
        len.apart_from(&inputs[..2])?;
        // SAFETY: the contract of the header: `out` can be written; it is apart from everything else.
        let room = unsafe { out.get() };
        let written = field.seal(value_of(r#type, value)?, row, room)?;
        // SAFETY: as above, of `out_len`.
        unsafe { len.set(&[written]) };
        Ok(())
    })
}

/// What a value was when it was sealed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_opened {
    /// How many bytes of the buffer are the value.
    pub len: usize,
    /// Its type: one of KF_TYPE_*.
    pub r#type: u8,
    /// Whether its key is still the one that seals. If not, encrypt the value again when convenient.
    pub is_current: bool,
    /// Whether its key is compromised, so that whoever has the key can have made the value. Opens only where the configuration says so.
    pub is_compromised: bool,
    /// 0.
    pub reserved: [u8; 5],
}

/// Decrypts one sealed value, bound to the row that it was encrypted with, and writes the value to `out`, whose `out_cap` must be at
/// least kf_opened_len_max(sealed_len), although the value may be shorter.
///
/// On KF_OK `*opened` says what the value is. On any other result `*opened` has not been changed, and the bytes of `out` that the call
/// could have written are zero: kf_opened_len_max(sealed_len) of them, or `out_cap` if that is less. Where handles, pointers or lengths
/// are refused, `out` has not been changed.
///
/// Threads: any, with the same field. Blocks for the store and for one request to the key service where the key of the value is not
/// in memory or has to be renewed; otherwise never.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP; KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: row missing or not
/// wanted; KF_ERR_POLICY_REFUSED: the policy does not accept the suite, or the context lacks a required key; KF_ERR_MALFORMED,
/// KF_ERR_UNSUPPORTED; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE;
/// KF_ERR_DECRYPTION_FAILED; KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_decrypt(
    field: *const kf_field,
    sealed: *const u8,
    sealed_len: usize,
    row: *const c_void,
    row_len: usize,
    out: *mut c_void,
    out_cap: usize,
    opened: *mut kf_opened,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let (sealed, row) = unsafe { (input(sealed, sealed_len)?, optional(row.cast(), row_len)?) };
        let (mut room, mut told) =
            (Output::at_most(out.cast::<u8>(), out_cap, kf_opened_len_max(sealed.len()))?, Output::one(opened)?);
        let inputs = [range_of(sealed), range_of(row.unwrap_or_default()), told.range()];
        room.apart_from(&inputs)?;
        told.apart_from(&inputs[..2])?;
        let result = room.check().and_then(|()| field.open(sealed, row)).map(|opened| {
            let value = opened.value();
            // SAFETY: the contract of the header: both can be written; they are apart from each other and from the inputs. The bytes
            // of a value are fewer than those of what it was sealed in, by KF_DETERMINISTIC_OVERHEAD at least.
            unsafe {
                value.write_canonical(&mut room.get()[..value.canonical_len()]);
                told.set(&[kf_opened {
                    len: value.canonical_len(),
                    r#type: value.value_type() as u8,
                    is_current: opened.is_current(),
                    is_compromised: opened.is_compromised(),
                    reserved: [0; 5],
                }]);
            }
        });
        if result.is_err() {
            // SAFETY: as above.
            unsafe { room.erase() };
        }
        result
    })
}

/// Says whether a sealed value names the key that seals now. If not, encrypt the value again when convenient. Opens nothing: what a
/// sealed value says of itself is not authenticated.
///
/// Threads: any, with the same field. Blocks as kf_decrypt does.
///
/// Returns what kf_decrypt returns, but for KF_ERR_DECRYPTION_FAILED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_is_current(
    field: *const kf_field,
    sealed: *const u8,
    sealed_len: usize,
    is_current: *mut bool,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let mut out = Output::one(is_current)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let sealed = unsafe { input(sealed, sealed_len) }?;
        out.apart_from(&[range_of(sealed)])?;
        let decryptor = field.decryptor()?;
        // Of no value: only what is known of the key that seals.
        pollster::block_on(decryptor.load_keys(&[] as &[&[u8]])).map_err(Error::from)?;
        let answer = decryptor.is_current(sealed)?;
        // SAFETY: the contract of the header: `is_current` can be written; it is apart from the input.
        unsafe { out.set(&[answer]) };
        Ok(())
    })
}
