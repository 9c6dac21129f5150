//! Functions of the C program: key services, passphrases, audit trails.

use crate::boundary::{Failure as Failed, Outcome};
use crate::result::kf_result;
use keyfold::{
    AuditEvent, AuditSink, Error, ErrorKind, KekAlias, KmsContext, KmsErrorKind, Result, Secret, WrappedKey,
};
use keyfold_kms::callback::CallbackKek;
use keyfold_kms::layer::{Attempt, Failure, Limits};
use keyfold_open::{HostKek, PassphraseSource};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Bytes of what a key service wraps.
pub const KF_PAYLOAD_LEN: usize = 64;
/// Most bytes of a wrapped payload.
pub const KF_MAX_WRAPPED_LEN: usize = 4096;
/// Most bytes of the version of a key in a key service.
pub const KF_MAX_VERSION_LEN: usize = 255;
/// Most bytes of a passphrase.
pub const KF_MAX_PASSPHRASE_LEN: usize = 1024;

// A service may end a version with NUL.
const _: () = assert!(KF_MAX_VERSION_LEN + 1 == 256);
const _: () = assert!(KF_MAX_WRAPPED_LEN == WrappedKey::MAX_LEN && KF_MAX_VERSION_LEN == WrappedKey::MAX_VERSION_LEN);

/// What a key service is told, and must bind to: it unwraps nothing under another context. It may log it. Texts are UTF-8, with a
/// NUL behind them that their lengths do not count.
#[repr(C)]
pub struct kf_kms_context {
    /// The environment of the keyring ("kf:env").
    pub environment: *const c_char,
    /// Its length.
    pub environment_len: usize,
    /// The key that is wrapped, in hexadecimal ("kf:key").
    pub key_id: *const c_char,
    /// Its length.
    pub key_id_len: usize,
    /// The keyring, in hexadecimal ("kf:keyring").
    pub keyring: *const c_char,
    /// Its length.
    pub keyring_len: usize,
    /// All of it in one encoding that never changes, for services that authenticate bytes.
    pub bytes: *const u8,
    /// Its length.
    pub bytes_len: usize,
}

/// A wrapped payload.
#[repr(C)]
pub struct kf_wrapped {
    /// The bytes that the service returned, of which `len` count.
    pub bytes: [u8; KF_MAX_WRAPPED_LEN],
    /// How many.
    pub len: usize,
    /// Which version of the key wrapped it, in UTF-8, where the bytes do not say so themselves.
    pub version: [c_char; 256],
    /// How many bytes of that count.
    pub version_len: usize,
}

/// A key in a key service, which functions of the program reach. They make one attempt each; deadline, repetition with jitter, circuit
/// breaker and rate limit are keyfold's. They run on threads of keyfold's, several at once, and may block.
///
/// They return KF_OK or one of KF_ERR_KMS_*, which says whether the attempt is repeated; any other number counts as
/// KF_ERR_KMS_REJECTED. They neither throw nor jump out, and call no function of this header on the keyring that asks them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct kf_kek {
    /// Wraps KF_PAYLOAD_LEN bytes under the context: fills `wrapped`, which is all zeros before.
    pub wrap: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            payload: *const u8,
            context: *const kf_kms_context,
            wrapped: *mut kf_wrapped,
        ) -> i32,
    >,
    /// Unwraps what `wrap` made: writes KF_PAYLOAD_LEN bytes to `payload`.
    pub unwrap: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            wrapped: *const kf_wrapped,
            context: *const kf_kms_context,
            payload: *mut u8,
        ) -> i32,
    >,
    /// Called once when nobody calls the others any more, on any thread; may be NULL.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Passed to them; may be NULL.
    pub user: *mut c_void,
}

/// Gives the passphrase of a KEK: writes it to `passphrase`, which has KF_MAX_PASSPHRASE_LEN bytes that keyfold erases afterwards, and
/// its length to `*passphrase_len`. Returns KF_OK, or anything else if there is none.
pub type kf_passphrase_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        alias: *const c_char,
        alias_len: usize,
        passphrase: *mut u8,
        passphrase_len: *mut usize,
    ) -> i32,
>;

/// Records an event, which is one JSON object in UTF-8 with the members that docs/AUDIT.md gives events, but for those that an audit file
/// adds. Returns KF_OK once it is recorded as durably as the program promises that; anything else makes the operation fail that the
/// event is about, with KF_ERR_IO, and a key that it was to bring is not used.
pub type kf_audit_fn = Option<unsafe extern "C" fn(user: *mut c_void, event: *const c_char, event_len: usize) -> i32>;

/// Is given a copy of the key records, all in one piece. Returns KF_OK once it has them where they are to be.
pub type kf_records_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, records: *const c_void, records_len: usize) -> i32>;

/// Is given a JSON document, all in one piece, which is erased when it returns. Returns KF_OK once it has it where it is to be.
pub type kf_document_fn = Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, text_len: usize) -> i32>;

/// Reads up to `len` bytes of a sealed stream, from `offset` on, into `out`, and says how many in `*read`, which is 0 before: none only where the stream ends. Returns
/// KF_OK, or anything else if it cannot.
pub type kf_read_at_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, offset: u64, out: *mut c_void, len: usize, read: *mut usize) -> i32>;

/// Releases what a callback was given.
pub type kf_release_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// What the program wants to be given back, until nobody calls it any more.
pub(crate) struct User {
    pointer: *mut c_void,
    release: kf_release_fn,
}

// SAFETY: the contract of the header: callbacks are called from several threads at once, with this pointer.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    pub(crate) fn new(pointer: *mut c_void, release: kf_release_fn) -> Self {
        Self { pointer, release }
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the contract of the header: `release` may be called once with `user`, and this is that time.
            unsafe { release(self.pointer) };
        }
    }
}

pub(crate) const NO_FUNCTION: Failed =
    Failed::own(kf_result::KF_ERR_NULL_POINTER, "a callback is NULL that must not be");
const NOT_WRAPPED: Failure =
    Failure::malformed("the program's function says that the wrapped key is longer than it can be");
const NOT_A_VERSION: Failure =
    Failure::malformed("the program's function gave a version that is too long or not UTF-8");

/// The KEK that the functions of `kek` reach.
pub(crate) fn host_kek(name: &str, kek: &kf_kek) -> Outcome<HostKek> {
    let (Some(wrap), Some(unwrap)) = (kek.wrap, kek.unwrap) else { return Err(NO_FUNCTION) };
    let user = Arc::new(User::new(kek.user, kek.release));
    let name = name.to_owned();
    Ok(Arc::new(move |deadline| {
        let (wrapper, unwrapper) = (Arc::clone(&user), Arc::clone(&user));
        let mut limits = Limits::default();
        limits.deadline = deadline.unwrap_or(limits.deadline);
        let kek = CallbackKek::blocking(
            &name,
            limits,
            move |payload, context| call_wrap(wrap, &wrapper, payload, context),
            move |wrapped, context| call_unwrap(unwrap, &unwrapper, wrapped, context),
        )?;
        Ok(Arc::new(kek))
    }))
}

type Ask = unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut u8, *mut usize) -> i32;
type Record = unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> i32;
type Wrap = unsafe extern "C" fn(*mut c_void, *const u8, *const kf_kms_context, *mut kf_wrapped) -> i32;
type Unwrap = unsafe extern "C" fn(*mut c_void, *const kf_wrapped, *const kf_kms_context, *mut u8) -> i32;

fn call_wrap(wrap: Wrap, user: &User, payload: &Secret<64>, context: &KmsContext) -> Attempt<WrappedKey> {
    let context = Told::new(context);
    let mut wrapped = empty();
    // SAFETY: the contract of the header for `wrap`; each pointer is valid for this call.
    let code = unsafe { wrap(user.pointer, payload.expose().as_ptr(), &raw const *context.told(), &raw mut *wrapped) };
    check(code)?;
    let bytes = wrapped.bytes.get(..wrapped.len).ok_or(NOT_WRAPPED)?.to_vec();
    let version = wrapped.version.get(..wrapped.version_len).filter(|version| version.len() <= KF_MAX_VERSION_LEN);
    let version = version.ok_or(NOT_A_VERSION)?.iter().map(|&byte| byte as u8).collect();
    Ok(WrappedKey { kek_version: String::from_utf8(version).map_err(|_| NOT_A_VERSION)?, bytes })
}

fn call_unwrap(unwrap: Unwrap, user: &User, wrapped: &WrappedKey, context: &KmsContext) -> Attempt<Secret<64>> {
    let context = Told::new(context);
    let mut given = empty();
    // Records hold no longer ones.
    given.bytes.get_mut(..wrapped.bytes.len()).ok_or(NOT_WRAPPED)?.copy_from_slice(&wrapped.bytes);
    given.len = wrapped.bytes.len();
    let version = wrapped.kek_version.as_bytes();
    for (to, &from) in given.version[..KF_MAX_VERSION_LEN].iter_mut().zip(version) {
        *to = from.cast_signed() as c_char;
    }
    given.version_len = version.len().min(KF_MAX_VERSION_LEN);
    Secret::try_with(|payload| {
        // SAFETY: the contract of the header for `unwrap`; each pointer is valid for this call.
        let code = unsafe { unwrap(user.pointer, &raw const *given, &raw const *context.told(), payload.as_mut_ptr()) };
        check(code)
    })
}

fn empty() -> Box<kf_wrapped> {
    let (bytes, version) = ([0; KF_MAX_WRAPPED_LEN], [0; 256]);
    Box::new(kf_wrapped { bytes, len: 0, version, version_len: 0 })
}

/// What a function's number says.
fn check(code: i32) -> Attempt<()> {
    if code == kf_result::KF_OK as i32 {
        return Ok(());
    }
    let known = KmsErrorKind::ALL.iter().find(|kind| i32::from(kind.code()) == code);
    Err(match known {
        Some(&kind) => Failure::new(kind, "the program's key service failed").detail(kind.name()),
        None => {
            Failure::new(KmsErrorKind::Rejected, "the program's key service returned a number that is no KF_ERR_KMS_*")
                .detail(code.to_string())
        }
    })
}

/// A context as C sees it, and what its pointers point to.
struct Told {
    told: kf_kms_context,
    _texts: [String; 3],
    _bytes: Vec<u8>,
}

impl Told {
    fn new(context: &KmsContext) -> Self {
        let (bytes, pairs) = (context.canonical(), context.pairs());
        let texts = pairs.map(|(_, mut value)| {
            value.push('\0');
            value
        });
        let [environment, key_id, keyring] = [0, 1, 2].map(|at| texts[at].as_ptr().cast::<c_char>());
        let [environment_len, key_id_len, keyring_len] = [0, 1, 2].map(|at| texts[at].len() - 1);
        let told = kf_kms_context {
            environment,
            environment_len,
            key_id,
            key_id_len,
            keyring,
            keyring_len,
            bytes: bytes.as_ptr(),
            bytes_len: bytes.len(),
        };
        // What the pointers point to is on the heap, and stays there when this moves.
        Self { told, _texts: texts, _bytes: bytes }
    }

    fn told(&self) -> &kf_kms_context {
        &self.told
    }
}

/// The source of passphrases that `ask` is.
pub(crate) fn passphrase_source(ask: Ask, user: User) -> PassphraseSource {
    Arc::new(move |alias: &KekAlias| {
        // The whole of `user` is kept, and with it what it releases.
        let user = &user;
        let mut room = Zeroizing::new([0; KF_MAX_PASSPHRASE_LEN]);
        let (name, mut len) = (alias.as_str(), 0);
        // SAFETY: the contract of the header for kf_passphrase_fn; each pointer is valid for this call.
        let code = unsafe { ask(user.pointer, name.as_ptr().cast(), name.len(), room.as_mut_ptr(), &raw mut len) };
        let given = if code == kf_result::KF_OK as i32 { room.get(..len) } else { None };
        let text = given.and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(|text| Zeroizing::new(text.to_owned())).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the program's function gave no passphrase").with_detail(name)
        })
    })
}

/// Where a program records events.
pub(crate) struct HostAudit {
    record: Record,
    user: User,
}

impl HostAudit {
    pub(crate) fn new(record: Record, user: User) -> Self {
        Self { record, user }
    }
}

impl AuditSink for HostAudit {
    fn record(&self, event: AuditEvent) -> Result<()> {
        let json = keyfold_audit::event_json(&event)?;
        // SAFETY: the contract of the header for kf_audit_fn; the text is valid for this call.
        let code = unsafe { (self.record)(self.user.pointer, json.as_ptr().cast(), json.len()) };
        if code == kf_result::KF_OK as i32 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, "the program's audit function refused an event").with_detail(code.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyfold::Lineage;
    use keyfold::wire::KeyId;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    static RELEASED: AtomicUsize = AtomicUsize::new(0);

    unsafe extern "C" fn release(_: *mut c_void) {
        RELEASED.fetch_add(1, Relaxed);
    }

    /// Says what `user` says: how long the passphrase is.
    unsafe extern "C" fn ask(
        user: *mut c_void,
        _: *const c_char,
        _: usize,
        passphrase: *mut u8,
        len: *mut usize,
    ) -> i32 {
        // SAFETY: keyfold gives room for KF_MAX_PASSPHRASE_LEN bytes and a length.
        unsafe {
            passphrase.write_bytes(if user.addr() == 3 { 0xff } else { b'x' }, KF_MAX_PASSPHRASE_LEN);
            *len = user.addr();
        }
        i32::from(user.addr() == 4)
    }

    #[test]
    fn passphrases_are_checked_and_what_came_with_them_is_released() {
        let alias = KekAlias::new("kek").unwrap();
        let asked = |len: usize| {
            let user = User::new(std::ptr::without_provenance_mut(len), Some(release));
            passphrase_source(ask, user)(&alias)
        };
        assert_eq!(*asked(5).unwrap(), "xxxxx");
        assert_eq!(asked(KF_MAX_PASSPHRASE_LEN).unwrap().len(), KF_MAX_PASSPHRASE_LEN);
        for refused in [3, 4, KF_MAX_PASSPHRASE_LEN + 1, usize::MAX] {
            let error = asked(refused).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{refused}");
            assert!(!error.to_string().contains('x'), "{error}");
        }
        assert_eq!(RELEASED.load(Relaxed), 6);
    }

    unsafe extern "C" fn wrap(
        user: *mut c_void,
        _: *const u8,
        context: *const kf_kms_context,
        wrapped: *mut kf_wrapped,
    ) -> i32 {
        // SAFETY: keyfold gives both for the time of the call.
        let (context, wrapped) = unsafe { (&*context, &mut *wrapped) };
        assert_eq!((context.environment_len, context.key_id_len, context.keyring_len), (4, 48, 32));
        match user.addr() {
            1 => wrapped.len = KF_MAX_WRAPPED_LEN + 1,
            2 => wrapped.len = usize::MAX,
            3 => wrapped.version_len = KF_MAX_VERSION_LEN + 1,
            4 => wrapped.version_len = usize::MAX,
            5 => {
                wrapped.version[0] = 0xff_u8.cast_signed() as c_char;
                wrapped.version_len = 1;
            }
            _ => (wrapped.len, wrapped.version_len) = (KF_MAX_WRAPPED_LEN, KF_MAX_VERSION_LEN),
        }
        0
    }

    // Failure A11
    #[test]
    fn what_a_service_says_of_lengths_is_checked() {
        let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
        let payload = Secret::with(|_: &mut [u8; 64]| {});
        let wrapped = |user: usize| {
            let user = User::new(std::ptr::without_provenance_mut(user), None);
            call_wrap(wrap, &user, &payload, &context)
        };
        for refused in 1..=5 {
            let failure = wrapped(refused).unwrap_err();
            assert_eq!(failure.kind, ErrorKind::Kms(KmsErrorKind::MalformedResponse), "{refused}");
        }
        let longest = wrapped(6).unwrap();
        assert_eq!((longest.bytes.len(), longest.kek_version.len()), (KF_MAX_WRAPPED_LEN, KF_MAX_VERSION_LEN));
    }
}
