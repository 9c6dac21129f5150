//! Blind indexes, and values that keep their format.

use crate::boundary::{Failure, Outcome, boundary};
use crate::field::kf_field;
use crate::handle::{self, Object, Table, held};
use crate::memory::{Output, input, range_of, text};
use crate::result::{kf_error, kf_result};
use crate::value::value_of;
use keyfold::{Field, Indexer, Token};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// Most tokens of one value: an index of prefixes has one for each of its lengths.
pub const KF_MAX_TOKENS: usize = 8;

/// A blind index of a field: what is stored beside its values so that they are found without being opened.
pub struct kf_index {
    field: Field,
    name: String,
    indexer: OnceLock<Indexer>,
}

impl Object for kf_index {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_index> = Table::new(5);
        &TABLE
    }
}

impl kf_index {
    /// The handle that makes tokens, under keys that may be used now.
    fn indexer(&self) -> Outcome<&Indexer> {
        if self.indexer.get().is_none() {
            let made = pollster::block_on(self.field.clone().indexer(&self.name))?;
            // Of two threads that make one, either will do.
            let _ = self.indexer.set(made);
        }
        let indexer = self.indexer.get().expect("set above");
        Ok(pollster::block_on(indexer.ready())?)
    }
}

/// What a database stores and compares in the place of a value.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_token {
    /// Of an index of at most 63 bits: the token, never negative. Otherwise -1.
    pub integer: i64,
    /// Of an index of 256 bits: the token. Otherwise zero.
    pub bytes: [u8; 32],
}

impl From<&Token> for kf_token {
    fn from(token: &Token) -> Self {
        match *token {
            Token::Integer(integer) => Self { integer, bytes: [0; 32] },
            Token::Bytes(bytes) => Self { integer: -1, bytes },
        }
    }
}

/// Takes the blind index of a field that has this name in the policy. Release it with kf_index_free. It has the context of the field; scope
/// and row play no part. Make it once, not per value: it holds the keys that it has used.
///
/// Threads: any. Never blocks, and asks for no key yet.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not UTF-8; KF_ERR_POLICY_REFUSED: the field has no such index.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_index_new(
    field: *const kf_field,
    name: *const c_char,
    name_len: usize,
    index: *mut *mut kf_index,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let field = held(field)?;
        let mut out = Output::one(index)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let name = unsafe { text(name, name_len) }?;
        if !field.policy().indexes.iter().any(|index| index.name == name) {
            return Err(NO_INDEX);
        }
        let field = field.field().clone();
        let made = handle::give(kf_index { field, name: name.to_owned(), indexer: OnceLock::new() })?;
        // SAFETY: the contract of the header: `index` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

const NO_INDEX: Failure = Failure::own(kf_result::KF_ERR_POLICY_REFUSED, "the field has no such index");

/// Releases an index. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_index_free(index: *mut kf_index) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(index))
}

/// Says under how many keys a value is looked for: the one that writers use, and the others that the configuration has for the partition.
/// As many tokens kf_index_search writes, of this index always.
///
/// Threads: any, with the same index. Blocks as kf_encrypt does, for each of the keys.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: the context lacks a required key; KF_ERR_NO_MATCHING_KEY,
/// KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_index_keys(index: *const kf_index, keys: *mut usize, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let index = held(index)?;
        let mut out = Output::one(keys)?;
        let len = index.indexer()?.key_ids().len();
        // SAFETY: the contract of the header: `keys` can be written.
        unsafe { out.set(&[len]) };
        Ok(())
    })
}

/// Writes what to store of a value: one token; of prefixes one per length, in ascending order; none of a null and of what has nothing to
/// find, an empty text say. `tokens_cap` is at least KF_MAX_TOKENS.
///
/// On KF_OK `*tokens_len` has the number of tokens written. On any other result neither `tokens` nor `*tokens_len` has been changed.
///
/// Threads: any, with the same index. Blocks as kf_index_keys does.
///
/// Returns what kf_index_keys returns; KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not a type, not the bytes of the
/// type, not the type of the field, or the index has no normal form of the value (no telephone number, no date); KF_ERR_LIMIT_EXCEEDED: the
/// value is too long; KF_ERR_DEADLINE_EXCEEDED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_index_tokens(
    index: *const kf_index,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    tokens: *mut kf_token,
    tokens_cap: usize,
    tokens_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let index = held(index)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let value = unsafe { input(value.cast::<u8>(), value_len) }?;
        let room = Tokens::new(tokens, tokens_cap, KF_MAX_TOKENS, tokens_len, value)?;
        let made = index.indexer()?.tokens(value_of(r#type, value)?)?;
        // SAFETY: the contract of the header: both can be written.
        unsafe { room.set(&made) };
        Ok(())
    })
}

/// Writes what to look for to find a value: a token under each key, the one that writers use first. A row that has any of them may have the
/// value, or start with it; open it and compare. `tokens_cap` is at least what kf_index_keys says.
///
/// On KF_OK `*tokens_len` has the number of tokens written. On any other result neither `tokens` nor `*tokens_len` has been changed.
///
/// Threads: any, with the same index. Blocks as kf_index_keys does.
///
/// Returns what kf_index_tokens returns; KF_ERR_INVALID_INPUT also where there is nothing to find, or the prefix is shorter than the shortest
/// of the index.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_index_search(
    index: *const kf_index,
    r#type: u8,
    value: *const c_void,
    value_len: usize,
    tokens: *mut kf_token,
    tokens_cap: usize,
    tokens_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let index = held(index)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let value = unsafe { input(value.cast::<u8>(), value_len) }?;
        let indexer = index.indexer()?;
        let room = Tokens::new(tokens, tokens_cap, indexer.key_ids().len(), tokens_len, value)?;
        let found = indexer.search_tokens(value_of(r#type, value)?)?;
        // SAFETY: the contract of the header: both can be written.
        unsafe { room.set(&found) };
        Ok(())
    })
}

/// Room of the caller's for tokens, and for how many they are.
struct Tokens {
    tokens: Output<kf_token>,
    len: Output<usize>,
}

impl Tokens {
    /// Room for `needed` tokens, apart from `value`.
    fn new(tokens: *mut kf_token, cap: usize, needed: usize, len: *mut usize, value: &[u8]) -> Outcome<Self> {
        let (len, tokens) = (Output::one(len)?, Output::new(tokens, cap, needed)?);
        let inputs = [range_of(value), len.range()];
        tokens.apart_from(&inputs)?;
        len.apart_from(&inputs[..1])?;
        Ok(Self { tokens, len })
    }

    /// # Safety
    ///
    /// What [`new`](Self::new) was given can be written.
    unsafe fn set(mut self, tokens: &[Token]) {
        let made: Vec<kf_token> = tokens.iter().map(kf_token::from).collect();
        // SAFETY: this function's contract; `new` has checked that they are apart.
        unsafe {
            self.tokens.set(&made);
            self.len.set(&[made.len()]);
        }
    }
}

/// Writes the text that stands in the place of a text, of a field whose mode is "format-preserving": as long, with the same separators.
/// `out_cap` is at least `text_len`.
///
/// NOT AUTHENTICATED: every text of the format opens to some value, so what was changed, moved to another row or sealed under another key is
/// not noticed. Equal texts are replaced by equal ones. Bound to the field, its context, the partition and the format, to no row and no scope.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
///
/// Threads: any, with the same field. Blocks as kf_encrypt does.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE, KF_ERR_OVERLAP, KF_ERR_BUFFER_TOO_SMALL; KF_ERR_INVALID_INPUT: not UTF-8, not of the
/// format, or fewer than 1,000,000 texts are; KF_ERR_LIMIT_EXCEEDED: more than 256 characters would vary; KF_ERR_POLICY_REFUSED: the field
/// has another mode, or the context lacks a required key; KF_ERR_CONFIGURATION: the partition has more than one key; KF_ERR_NO_MATCHING_KEY,
/// KF_ERR_WRONG_SCOPE, KF_ERR_KEY_STATE, KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_format_encrypt(
    field: *const kf_field,
    text: *const c_char,
    text_len: usize,
    out: *mut c_char,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    // SAFETY: the contract of the header.
    boundary(error, || unsafe { replace(Way::Encrypt, field, (text, text_len), (out, out_cap), out_len) })
}

/// Writes the text that kf_format_encrypt was given. Nothing shows whether it has made this one. `out_cap` is at least `text_len`.
///
/// On KF_OK `*out_len` has the number of bytes written. On any other result neither `out` nor `*out_len` has been changed.
///
/// Threads: any, with the same field. Blocks as kf_decrypt does.
///
/// Returns what kf_format_encrypt returns.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_format_decrypt(
    field: *const kf_field,
    text: *const c_char,
    text_len: usize,
    out: *mut c_char,
    out_cap: usize,
    out_len: *mut usize,
    error: *mut kf_error,
) -> kf_result {
    // SAFETY: the contract of the header.
    boundary(error, || unsafe { replace(Way::Decrypt, field, (text, text_len), (out, out_cap), out_len) })
}

#[derive(Clone, Copy)]
enum Way {
    Encrypt,
    Decrypt,
}

/// # Safety
///
/// Pointers are NULL or valid for their lengths, and nobody else writes there.
unsafe fn replace(
    way: Way,
    field: *const kf_field,
    given: (*const c_char, usize),
    (out, out_cap): (*mut c_char, usize),
    out_len: *mut usize,
) -> Outcome<()> {
    let field = held(field)?;
    // SAFETY: this function's contract.
    let given = unsafe { text(given.0, given.1) }?;
    let (mut len, mut out) = (Output::one(out_len)?, Output::new(out.cast::<u8>(), out_cap, given.len())?);
    let inputs = [range_of(given.as_bytes()), len.range()];
    out.apart_from(&inputs)?;
    len.apart_from(&inputs[..1])?;
    let preserver = field.preserver()?;
    let replaced = match way {
        Way::Encrypt => preserver.encrypt(given)?.into(),
        Way::Decrypt => preserver.decrypt(given)?,
    };
    if replaced.len() > given.len() {
        return Err(LONGER);
    }
    // SAFETY: this function's contract; they are apart from each other and from the input.
    unsafe {
        out.set(replaced.as_bytes());
        len.set(&[replaced.len()]);
    }
    Ok(())
}

const LONGER: Failure = Failure::own(kf_result::KF_ERR_INTERNAL, "a text that keeps its format became longer");
