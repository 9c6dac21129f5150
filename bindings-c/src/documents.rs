//! JSON documents, protected and revealed in place.

use crate::boundary::{Failure, Outcome, boundary};
use crate::callback::{NO_FUNCTION, kf_document_fn};
use crate::context::{context_of, kf_context};
use crate::handle::{self, Object, Table, held};
use crate::keyring::kf_keyring;
use crate::memory::{Output, input, optional_text};
use crate::result::{kf_error, kf_result};
use keyfold::{Context, Error, ErrorKind, Keyring};
use keyfold_documents::{Direction, DocumentCipher, DocumentOptions, DocumentText, FieldKeys};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// Flag of kf_documents_new: documents that no field of the policy applies to pass as they are, instead of being refused.
pub const KF_PASS_UNMATCHED: u32 = 1;
/// Flag of kf_documents_new: values that look sealed already are sealed once more, instead of being refused.
pub const KF_SEAL_SEALED: u32 = 2;

const FLAGS: u32 = KF_PASS_UNMATCHED | KF_SEAL_SEALED;

/// What protects and reveals JSON documents by the paths of the policy, under a scope and a context.
pub struct kf_documents {
    ring: Keyring,
    scope: Option<String>,
    context: Context,
    flags: u32,
    protect: OnceLock<DocumentCipher<'static>>,
    reveal: OnceLock<DocumentCipher<'static>>,
}

impl Object for kf_documents {
    fn table() -> &'static Table<Self> {
        static TABLE: Table<kf_documents> = Table::new(6);
        &TABLE
    }
}

impl kf_documents {
    fn cipher(&self, direction: Direction) -> Outcome<&DocumentCipher<'static>> {
        let place = if direction == Direction::Reveal { &self.reveal } else { &self.protect };
        if let Some(cipher) = place.get() {
            return Ok(cipher);
        }
        let keys = FieldKeys {
            ring: &self.ring,
            direction,
            scope: self.scope.as_deref(),
            context: self.context.clone(),
            tokens: None,
        };
        let options = DocumentOptions { pass_unmatched: self.flags & KF_PASS_UNMATCHED != 0, many_lines: true };
        let made = DocumentCipher::new(&keys, options).map_err(Error::from)?;
        Ok(place.get_or_init(|| made))
    }

    /// Has `write` get what becomes of the document `text`.
    ///
    /// # Safety
    ///
    /// `text` is NULL or valid for `text_len` bytes; `write` is a function of the program's that may be called with `user`.
    unsafe fn transform(
        &self,
        direction: Direction,
        text: *const c_char,
        text_len: usize,
        write: kf_document_fn,
        user: *mut c_void,
    ) -> Outcome<()> {
        let write = write.ok_or(NO_FUNCTION)?;
        // SAFETY: this function's contract.
        let text = unsafe { input(text.cast::<u8>(), text_len) }?;
        let texts = [DocumentText { content: text, line: 1 }];
        let made = self.cipher(direction)?.transform_all(&texts).map_err(Error::from)?;
        let made = made.texts.first().map_or(&[][..], |text| text);
        // SAFETY: this function's contract; the bytes are valid for this call.
        match unsafe { write(user, made.as_ptr().cast(), made.len()) } {
            0 => Ok(()),
            code => Err(Error::new(ErrorKind::Io, "the program's function did not take the document")
                .with_detail(code.to_string())
                .into()),
        }
    }
}

const NO_FLAG: Failure =
    Failure::own(kf_result::KF_ERR_INVALID_INPUT, "a flag is none of KF_PASS_UNMATCHED, KF_SEAL_SEALED");

/// Makes what protects and reveals JSON documents by the paths of the policy, under a scope (NULL: none) and a context (NULL: the empty one).
/// `flags` is 0, or KF_PASS_UNMATCHED, KF_SEAL_SEALED or both. Release it with kf_documents_free. Make it once, not per document: it holds
/// the keys that it has used.
///
/// Fields may be of any mode but "token". Those of mode "document" are sealed together, under one header and, as the section [documents] of
/// the policy says, a manifest that shows which protected values there are. What the command protects is revealed here, and the other way
/// round.
///
/// Threads: any. Never blocks, and asks for no key yet.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not UTF-8, or not a flag.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_documents_new(
    keyring: *const kf_keyring,
    scope: *const c_char,
    scope_len: usize,
    context: *const kf_context,
    flags: u32,
    documents: *mut *mut kf_documents,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let keyring = held(keyring)?;
        let mut out = Output::one(documents)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths.
        let scope = unsafe { optional_text(scope, scope_len) }?.map(str::to_owned);
        if flags & !FLAGS != 0 {
            return Err(NO_FLAG);
        }
        let (ring, context) = (keyring.ring.clone(), context_of(context)?);
        let (protect, reveal) = (OnceLock::new(), OnceLock::new());
        let made = handle::give(kf_documents { ring, scope, context, flags, protect, reveal })?;
        // SAFETY: the contract of the header: `documents` can be written.
        unsafe { out.set(&[made]) };
        Ok(())
    })
}

/// Releases what kf_documents_new has made. NULL does nothing.
///
/// Threads: any. Never blocks.
///
/// Returns KF_ERR_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub extern "C" fn kf_documents_free(documents: *mut kf_documents) -> kf_result {
    boundary(std::ptr::null_mut(), || handle::release(documents))
}

/// Has `write` get a JSON document with the values protected that the policy's paths select; every other byte is as it was. `write` runs once,
/// in this call, and is given `user`: how long the text becomes depends on what is in it, so there is no size to be asked for. It may use
/// keyfold.
///
/// Threads: any, with the same documents. Blocks as kf_encrypt does, for each key, and for `write`.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_INVALID_INPUT: not one JSON document, two members of one name, a value of
/// another type than the policy says, a row binding that is not there once; KF_ERR_LIMIT_EXCEEDED: more than 16 MiB, or a value is too long;
/// KF_ERR_POLICY_REFUSED: no field applies, a value looks sealed already, the policy does not say where a field is in JSON, a field has
/// random tokens, the context lacks a required key; KF_ERR_CONFIGURATION: a path is not one of RFC 9535; KF_ERR_KEY_STATE,
/// KF_ERR_RECORD_REJECTED, KF_ERR_KMS_*, KF_ERR_STORE, KF_ERR_RANDOMNESS_UNAVAILABLE, KF_ERR_DEADLINE_EXCEEDED, KF_ERR_CLOSED; KF_ERR_IO: `write`
/// did not return KF_OK. Only then has `write` run.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_document_protect(
    documents: *const kf_documents,
    text: *const c_char,
    text_len: usize,
    write: kf_document_fn,
    user: *mut c_void,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let documents = held(documents)?;
        let direction = Direction::Protect { seal_sealed: documents.flags & KF_SEAL_SEALED != 0 };
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths, and that of kf_document_fn.
        unsafe { documents.transform(direction, text, text_len, write, user) }
    })
}

/// Has `write` get a protected JSON document as it was, byte for byte, as kf_document_protect says.
///
/// Threads: any, with the same documents. Blocks as kf_decrypt does, for each key, and for `write`.
///
/// Returns what kf_document_protect returns; KF_ERR_MALFORMED: a value is not sealed, or a header is damaged; KF_ERR_POLICY_REFUSED also
/// where a manifest is missing that is required; KF_ERR_NO_MATCHING_KEY, KF_ERR_WRONG_SCOPE; KF_ERR_DECRYPTION_FAILED: values were moved,
/// copied, dropped or changed, or scope, context or row is not the right one.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_document_reveal(
    documents: *const kf_documents,
    text: *const c_char,
    text_len: usize,
    write: kf_document_fn,
    user: *mut c_void,
    error: *mut kf_error,
) -> kf_result {
    boundary(error, || {
        let documents = held(documents)?;
        // SAFETY: the contract of the header: pointers are NULL or valid for their lengths, and that of kf_document_fn.
        unsafe { documents.transform(Direction::Reveal, text, text_len, write, user) }
    })
}

/// Refuses fields that applied to documents and selected nothing in all that were protected so far: a path with a typo leaves values in clear.
/// Call it after the last document, as the command does at the end of a file.
///
/// Threads: any, with the same documents. Never blocks.
///
/// Returns KF_ERR_NULL_POINTER, KF_ERR_INVALID_HANDLE; KF_ERR_POLICY_REFUSED: a field selected nothing, and is not `optional` in the policy.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_documents_refuse_unused(documents: *const kf_documents, error: *mut kf_error) -> kf_result {
    boundary(error, || {
        let documents = held(documents)?;
        let Some(cipher) = documents.protect.get() else { return Ok(()) };
        Ok(cipher.refuse_unused().map_err(Error::from)?)
    })
}
