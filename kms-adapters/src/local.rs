//! A KEK in a file: AES-256-KWP (RFC 5649, NIST SP 800-38F §6.3) under 32 random bytes.
//!
//! ```text
//! keyfold-local-kek-1
//! KEY
//! CHECKSUM
//! ```
//!
//! Key (32 bytes) and checksum (8 bytes) are in lower-case hexadecimal, each line ends with a line feed, and there is
//! one accepted spelling. The checksum is the start of SHA-256(first line ‖ key): it tells a damaged file from a wrong one.
//! Whoever reads the file can open everything that it wraps: keep it apart from the key store and its backups.
//!
//! A wrapped key is 72 bytes; its KEK version is an identifier of the key, 16 hexadecimal digits of
//! SHA-256(`keyfold/v1/local-kek-id` ‖ key), so that a wrong key file is told apart from damaged bytes.
//! AES-KWP takes no associated data: the context is bound by the keyring, which compares the second half
//! of the payload after every unwrap (`ContextBinding::ByKeyfold`).

mod file;

use crate::examine::{Binding, Examine, Finding, Profile};
use crate::kwp;
use data_encoding::HEXLOWER;
use keyfold::{
    BoxFuture, Error, ErrorKind, Kms, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use keyfold_memory::erasing_stack;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;

/// 64 bytes of payload, which need no padding, and 8 bytes of KWP's integrity value.
const WRAPPED_LEN: usize = 64 + kwp::OVERHEAD;

/// A KEK that lives in a file on this machine.
///
/// Reads the file once, when it is opened. Wraps and unwraps without any request; never blocks. The key is erased on drop.
///
/// # Examples
///
/// ```
/// use keyfold_kms::LocalKek;
///
/// # let folder = tempfile::tempdir().unwrap();
/// let path = folder.path().join("local.kek");
/// LocalKek::create(&path)?;
/// let kek = LocalKek::open(&path)?;
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub struct LocalKek {
    key: Secret<32>,
    id: String,
}

impl LocalKek {
    /// Makes a file with a new random key, readable by its owner alone (mode 0600), and opens it. Durable on return.
    ///
    /// # Errors
    ///
    /// - [`Io`](ErrorKind::Io): something has that name, a link included, or the file cannot be written. Nothing is left behind.
    /// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable): the system generator failed; nothing was written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let key = kwp::new_key()?;
        // The text of the file, and what SHA-256 takes in, are on the stack.
        erasing_stack(|| {
            file::create(path.as_ref(), &key)?;
            Ok(Self::new(key))
        })
    }

    /// Opens the file that [`create`](Self::create) made.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): group or others have a permission on it, it belongs to somebody other
    ///   than this user or root, it is a symbolic link or not a regular file, or it is not a local KEK.
    /// - [`Malformed`](ErrorKind::Malformed): it is one, but damaged or cut off.
    /// - [`Unsupported`](ErrorKind::Unsupported): it was written by a newer version.
    /// - [`Io`](ErrorKind::Io): it is missing or cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        erasing_stack(|| Ok(Self::new(file::read(path.as_ref())?)))
    }

    /// The identifier of the key, 16 hexadecimal digits: the KEK version of everything that it wraps. Public.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn new(key: Secret<32>) -> Self {
        let digest = Sha256::new().chain_update(b"keyfold/v1/local-kek-id").chain_update(key.expose()).finalize();
        Self { id: HEXLOWER.encode(&digest[..8]), key }
    }

    fn wrap_now(&self, request: &WrapRequest<'_>) -> Result<WrappedKey> {
        let mut bytes = [0; WRAPPED_LEN];
        erasing_stack(|| kwp::wrap(&self.key, request.payload.expose(), &mut bytes))?;
        Ok(WrappedKey { kek_version: self.id.clone(), bytes: bytes.to_vec() })
    }

    // F-A-2.
    fn unwrap_now(&self, request: &UnwrapRequest<'_>) -> Result<Secret<64>> {
        const INVALID: Error = Error::new(
            ErrorKind::Kms(KmsErrorKind::InvalidCiphertext),
            "the local KEK did not wrap these bytes, or they are damaged",
        );
        let WrappedKey { kek_version, bytes } = request.wrapped;
        if *kek_version != self.id {
            // The other identifier comes from a record that nothing vouches for yet, so it is not repeated.
            return Err(Error::new(ErrorKind::Kms(KmsErrorKind::WrongKey), "another local KEK wrapped these bytes")
                .with_detail(format!("this one is {}; put back the file that did", self.id)));
        }
        let bytes: &[u8; WRAPPED_LEN] = bytes.as_slice().try_into().map_err(|_| INVALID)?;
        Secret::try_with(|payload| erasing_stack(|| kwp::unwrap(&self.key, bytes, payload)).ok_or(INVALID))
    }
}

impl Kms for LocalKek {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async move { self.wrap_now(&request) })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move { self.unwrap_now(&request) })
    }
}

/// A file has no more to tell than that it opened.
impl Examine for LocalKek {
    fn profile(&self) -> Profile {
        Profile {
            login: "the file itself".to_owned(),
            binding: Binding::ByKeyfold,
            page: "docs/RECOVERY.md",
            ..Profile::default()
        }
    }

    fn examine<'a>(&'a self, _trace: &'a KmsTrace) -> BoxFuture<'a, Result<Vec<Finding>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl fmt::Debug for LocalKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key: _, id } = self;
        f.debug_struct("LocalKek").field("id", id).finish_non_exhaustive()
    }
}
