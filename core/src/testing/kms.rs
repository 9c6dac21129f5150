//! What every key service adapter must do, and a service in memory.

use crate::aead::{Backend, XaesKey};
use crate::error::{Error, ErrorKind, KmsErrorKind, Result};
use crate::keys::{Lineage, Secret};
use crate::kms::{BoxFuture, Kms, KmsContext, UnwrapRequest, WrapRequest, WrappedKey};
use crate::random;
use crate::testing::block_on;
use crate::wire::{KeyId, NONCE_LEN, PREFIX_LEN, TAG_LEN};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Who notices that a wrapped key is unwrapped under another context than the one it was wrapped under.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ContextBinding {
    /// The service: it authenticates the context (associated data, encryption context).
    ByService,
    /// The keyring alone: the service takes no associated data. The second half of the payload is a hash of what the
    /// key belongs to, and the keyring compares it after every unwrap (DESIGN K5).
    ByKeyfold,
}

const PAYLOAD: &[u8; 64] = b"KEYFOLD-CANARY-PAYLOAD:never in an error, a log or wrapped bytes";

/// Kinds with which an adapter may refuse bytes that its service never made.
const DAMAGED: &[KmsErrorKind] =
    &[KmsErrorKind::InvalidCiphertext, KmsErrorKind::MalformedResponse, KmsErrorKind::WrongKey];

/// Checks that `kms` does what [`Kms`] asks. Panics with the name of the rule that it breaks.
///
/// Wraps and unwraps; wraps twice; unwraps under a context that differs in environment, keyring or key; unwraps every
/// truncation and every single flipped bit of a wrapped key, empty, extended and oversize bytes, and good bytes under
/// versions of a KEK that a forger would name; wraps and unwraps from eight threads at once; and looks for the payload in errors and wrapped bytes. Needs a KEK that may both encrypt and decrypt.
///
/// About nine requests per byte of a wrapped key, so mind the price of a service in a cloud. Blocks.
///
/// # Panics
///
/// When a rule is broken.
///
/// # Examples
///
/// ```
/// use keyfold::testing::{ContextBinding, FakeKms, kms_conformance};
///
/// kms_conformance(&FakeKms::new(), ContextBinding::ByService);
/// ```
pub fn kms_conformance(kms: &dyn Kms, binding: ContextBinding) {
    round_trip(kms);
    other_context(kms, binding);
    damaged_bytes(kms);
    other_versions(kms);
    many_threads(kms);
}

fn context(environment: &str, lineage: u8, key: u8) -> KmsContext {
    KmsContext::new(environment, Lineage::from_bytes([lineage; 16]), KeyId::from_bytes([key; 24]))
}

fn wrap(kms: &dyn Kms, payload: &Secret<64>, context: &KmsContext) -> WrappedKey {
    match block_on(kms.wrap(WrapRequest::new(payload, context))) {
        Ok(wrapped) => wrapped,
        Err(error) => panic!("wrap failed: {error:?}"),
    }
}

fn unwrap(kms: &dyn Kms, wrapped: &WrappedKey, context: &KmsContext) -> Result<Secret<64>> {
    block_on(kms.unwrap(UnwrapRequest::new(wrapped, context)))
}

fn payload() -> Secret<64> {
    Secret::with(|bytes| bytes.copy_from_slice(PAYLOAD))
}

fn assert_unwraps(kms: &dyn Kms, wrapped: &WrappedKey, context: &KmsContext, payload: &Secret<64>) {
    match unwrap(kms, wrapped, context) {
        // Not `assert_eq!`, which would print both.
        Ok(found) => assert!(found.expose() == payload.expose(), "unwrap returned another payload than was wrapped"),
        Err(error) => panic!("unwrap of a good wrapped key failed: {error:?}"),
    }
}

fn assert_refused(result: Result<Secret<64>>, allowed: &[KmsErrorKind], what: &str) {
    let Err(error) = result else { panic!("{what}: accepted") };
    assert!(
        matches!(error.kind(), ErrorKind::Kms(kind) if allowed.contains(&kind)),
        "{what}: {error:?}, expected Kms with one of {allowed:?}"
    );
    let mut texts = vec![format!("{error} {error:?}")];
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        texts.push(format!("{error} {error:?}"));
        cause = error.source();
    }
    assert!(!texts.concat().contains("CANARY"), "{what}: the error shows the payload");
}

fn round_trip(kms: &dyn Kms) {
    let (payload, context) = (payload(), context("production", 1, 1));
    let first = wrap(kms, &payload, &context);
    let second = wrap(kms, &payload, &context);
    for wrapped in [&first, &second, &first] {
        assert!(!wrapped.bytes.is_empty() && wrapped.bytes.len() <= WrappedKey::MAX_LEN, "wrapped length");
        assert!(wrapped.kek_version.len() <= WrappedKey::MAX_VERSION_LEN, "length of the KEK version");
        let shown = wrapped.bytes.windows(16).any(|bytes| PAYLOAD.windows(16).any(|part| part == bytes));
        assert!(!shown, "the wrapped bytes show the payload");
        assert_unwraps(kms, wrapped, &context, &payload);
    }
}

fn other_context(kms: &dyn Kms, binding: ContextBinding) {
    let payload = payload();
    let wrapped = wrap(kms, &payload, &context("production", 1, 1));
    let others = [
        ("another environment", context("staging", 1, 1)),
        ("no environment", context("", 1, 1)),
        ("another keyring", context("production", 2, 1)),
        ("another key", context("production", 1, 2)),
    ];
    for (what, other) in others {
        let result = unwrap(kms, &wrapped, &other);
        match (binding, result) {
            (ContextBinding::ByKeyfold, Ok(found)) => {
                assert!(found.expose() == payload.expose(), "{what}: unwrapped to something else than was wrapped");
            }
            (_, result) => assert_refused(result, &[KmsErrorKind::InvalidCiphertext], what),
        }
    }
}

fn damaged_bytes(kms: &dyn Kms) {
    let (payload, context) = (payload(), context("production", 1, 1));
    let wrapped = wrap(kms, &payload, &context);
    let with = |bytes: Vec<u8>| WrappedKey { kek_version: wrapped.kek_version.clone(), bytes };
    let refused = |bytes: Vec<u8>, what: &str| assert_refused(unwrap(kms, &with(bytes), &context), DAMAGED, what);

    for len in 0..wrapped.bytes.len() {
        refused(wrapped.bytes[..len].to_vec(), &format!("truncated to {len} bytes"));
        refused(wrapped.bytes[wrapped.bytes.len() - len..].to_vec(), &format!("the last {len} bytes alone"));
    }
    for bit in 0..wrapped.bytes.len() * 8 {
        let mut bytes = wrapped.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        refused(bytes, &format!("bit {bit} flipped"));
    }
    for extra in [1, 8, 16] {
        refused([&wrapped.bytes[..], &vec![0; extra]].concat(), &format!("extended by {extra} bytes"));
    }
    refused(vec![0; wrapped.bytes.len()], "zeros");
    refused([&wrapped.bytes[..], &wrapped.bytes[..]].concat(), "twice in a row");
    refused(vec![0xA5; WrappedKey::MAX_LEN], "the greatest length");
    refused(vec![0xA5; WrappedKey::MAX_LEN + 1], "one byte more than the greatest length");
    refused(vec![0xA5; 1 << 20], "1 MiB");
    assert_unwraps(kms, &wrapped, &context, &payload);
}

/// A version comes from a record that may be forged: it is refused like damaged bytes, or does not matter.
fn other_versions(kms: &dyn Kms) {
    let (payload, context) = (payload(), context("production", 1, 1));
    let wrapped = wrap(kms, &payload, &context);
    let longest = "9".repeat(WrappedKey::MAX_VERSION_LEN);
    let too_long = "9".repeat(WrappedKey::MAX_VERSION_LEN + 1);
    let versions = [
        "",
        "0",
        "00",
        "-1",
        "4294967296",
        " ",
        "\0",
        "\r\nx: y",
        "../../other",
        "?x=y#z",
        "%2e%2e",
        "https://other.example/key/1",
        "arn:aws:kms:us-east-1:000000000000:key/other",
        "projects/other/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        &longest,
        &too_long,
    ];
    for version in versions.into_iter().filter(|version| *version != wrapped.kek_version) {
        let forged = WrappedKey { kek_version: version.to_owned(), bytes: wrapped.bytes.clone() };
        match unwrap(kms, &forged, &context) {
            Ok(found) => {
                assert!(found.expose() == payload.expose(), "version {version:?}: another payload than was wrapped")
            }
            result => assert_refused(result, DAMAGED, &format!("version {version:?}")),
        }
    }
}

fn many_threads(kms: &dyn Kms) {
    thread::scope(|scope| {
        for number in 0..8_u8 {
            scope.spawn(move || {
                for round in 0..8_u8 {
                    let payload = Secret::with(|p: &mut [u8; 64]| p.fill(number * 8 + round));
                    let context = context("production", number, round);
                    let wrapped = wrap(kms, &payload, &context);
                    assert_unwraps(kms, &wrapped, &context, &payload);
                }
            });
        }
    });
}

/// A key service in memory: real cryptography, switches for its faults, counted calls.
///
/// Wraps with XAES-256-GCM under a random KEK: `24-byte nonce ‖ ciphertext (64 bytes) ‖ 16-byte tag`, bound to the context.
/// Clones are handles of the same service, so that a test keeps one and gives the other away.
///
/// # Examples
///
/// ```
/// use keyfold::testing::{FakeKms, block_on};
/// use keyfold::{ErrorKind, Kms, KmsContext, KmsErrorKind, Lineage, Secret, WrapRequest, wire::KeyId};
///
/// let kms = FakeKms::new();
/// kms.set_failure(Some(KmsErrorKind::Throttled));
/// let context = KmsContext::new("test", Lineage::from_bytes([1; 16]), KeyId::from_bytes([2; 24]));
/// let payload = Secret::with(|bytes: &mut [u8; 64]| bytes.fill(3));
/// let error = block_on(kms.wrap(WrapRequest::new(&payload, &context))).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Kms(KmsErrorKind::Throttled));
/// assert_eq!(kms.wrap_count(), 1);
/// ```
#[derive(Clone)]
pub struct FakeKms(Arc<Service>);

struct Service {
    kek: XaesKey,
    wrap_count: AtomicU64,
    unwrap_count: AtomicU64,
    failure: Mutex<Failure>,
    version: Mutex<String>,
    wrong_payload: AtomicBool,
    encrypt_only: AtomicBool,
}

#[derive(Default)]
struct Failure {
    always: Option<KmsErrorKind>,
    next: Option<(u64, KmsErrorKind)>,
}

impl Default for FakeKms {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeKms {
    /// A service with a new random KEK that works.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let kek = random::secret().expect("the operating system has randomness");
        Self(Arc::new(Service {
            kek: XaesKey::new(Backend::default(), &kek),
            wrap_count: AtomicU64::new(0),
            unwrap_count: AtomicU64::new(0),
            failure: Mutex::default(),
            version: Mutex::new("1".to_owned()),
            wrong_payload: AtomicBool::new(false),
            encrypt_only: AtomicBool::new(false),
        }))
    }

    /// Answers every request with an error of `kind`; works again with `None`.
    pub fn set_failure(&self, kind: Option<KmsErrorKind>) {
        self.failure().always = kind;
    }

    /// Answers the next `count` requests with an error of `kind`.
    pub fn fail_next(&self, count: u64, kind: KmsErrorKind) {
        self.failure().next = Some((count, kind));
    }

    /// Whether to unwrap to a payload that was never wrapped, as a broken or hostile service would.
    pub fn set_wrong_payload(&self, on: bool) {
        self.0.wrong_payload.store(on, Ordering::SeqCst);
    }

    /// What further wraps say of the version of the KEK, `"1"` at first; empty, as services that name none.
    /// What was wrapped before still unwraps.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut self.version());
    }

    fn version(&self) -> std::sync::MutexGuard<'_, String> {
        self.0.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to refuse to unwrap with [`AccessDenied`](KmsErrorKind::AccessDenied).
    pub fn set_encrypt_only(&self, on: bool) {
        self.0.encrypt_only.store(on, Ordering::SeqCst);
    }

    /// How many times [`wrap`](Kms::wrap) was called, failures included.
    #[must_use]
    pub fn wrap_count(&self) -> u64 {
        self.0.wrap_count.load(Ordering::SeqCst)
    }

    /// How many times [`unwrap`](Kms::unwrap) was called, failures included.
    #[must_use]
    pub fn unwrap_count(&self) -> u64 {
        self.0.unwrap_count.load(Ordering::SeqCst)
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Failure> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_failure(&self) -> Result<()> {
        let mut failure = self.failure();
        let kind = match failure.next {
            Some((count, kind)) if count > 0 => {
                failure.next = Some((count - 1, kind));
                Some(kind)
            }
            _ => failure.always,
        };
        kind.map_or(Ok(()), |kind| Err(refusal(kind, "the fake key service was told to fail")))
    }

    fn wrap_now(&self, request: &WrapRequest<'_>) -> Result<WrappedKey> {
        self.0.wrap_count.fetch_add(1, Ordering::SeqCst);
        self.check_failure()?;
        let prefix: [u8; PREFIX_LEN] = random::array()?;
        let mut nonce = random::array()?;
        let mut body = *request.payload.expose();
        let context = request.context.canonical();
        let tag = self.0.kek.with_derived(&prefix, |key| key.seal(&mut nonce, &context, &mut body))?;
        let bytes = [&prefix[..], &nonce, &body, &tag].concat();
        Ok(WrappedKey { kek_version: self.version().clone(), bytes })
    }

    fn unwrap_now(&self, request: &UnwrapRequest<'_>) -> Result<Secret<64>> {
        const REFUSED: &str = "the fake key service cannot unwrap these bytes under this context";
        self.0.unwrap_count.fetch_add(1, Ordering::SeqCst);
        self.check_failure()?;
        if self.0.encrypt_only.load(Ordering::SeqCst) {
            return Err(refusal(KmsErrorKind::AccessDenied, "the fake key service was told to encrypt only"));
        }
        let bytes: &[u8; NONCE_LEN + 64 + TAG_LEN] = request
            .wrapped
            .bytes
            .as_slice()
            .try_into()
            .map_err(|_| refusal(KmsErrorKind::InvalidCiphertext, REFUSED))?;
        let (nonce, sealed) = bytes.split_at(NONCE_LEN);
        let (prefix, last) = nonce.split_at(PREFIX_LEN);
        let prefix = prefix.try_into().expect("the nonce has 24 bytes");
        let last = last.try_into().expect("the nonce has 24 bytes");
        let mut opened = Secret::<80>::with(|buffer| buffer.copy_from_slice(sealed));
        let wrong = self.0.wrong_payload.load(Ordering::SeqCst);
        Secret::try_with(|payload: &mut [u8; 64]| {
            let (context, opened) = (request.context.canonical(), opened.expose_mut());
            let found = self.0.kek.with_derived(prefix, |key| key.open(last, &context, opened))?;
            payload.copy_from_slice(found);
            if wrong {
                payload[0] ^= 1;
            }
            Ok::<(), crate::aead::OpenFailed>(())
        })
        .map_err(|_| refusal(KmsErrorKind::InvalidCiphertext, REFUSED))
    }
}

impl Kms for FakeKms {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async move { self.wrap_now(&request) })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move { self.unwrap_now(&request) })
    }
}

fn refusal(kind: KmsErrorKind, message: &'static str) -> Error {
    Error::new(ErrorKind::Kms(kind), message)
}

impl core::fmt::Debug for FakeKms {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FakeKms")
            .field("wrap_count", &self.wrap_count())
            .field("unwrap_count", &self.unwrap_count())
            .finish_non_exhaustive()
    }
}
