//! A KEK in a file that opens with a passphrase: 32 random bytes, wrapped under what Argon2id (RFC 9106) makes of the
//! passphrase. For a KEK that is kept offline until everything else is lost.
//!
//! ```text
//! keyfold-passphrase-kek-1
//! argon2id m=MEMORY t=PASSES p=LANES
//! SALT
//! WRAPPED
//! CHECKSUM
//! ```
//!
//! Memory is in KiB; salt (16 bytes), wrapped key (40 bytes, AES-256-KWP) and checksum (8 bytes) are in lower-case
//! hexadecimal. Each line ends with a line feed, numbers have no leading zeros, and there is one accepted spelling. The
//! checksum is the start of SHA-256(all lines before it): it tells a damaged file from a wrong passphrase. FORMAT.md,
//! Appendix A, is normative.
//!
//! With the passphrase it is a [`LocalKek`]: the same bytes, the same KEK version.

mod file;

use crate::examine::{Binding, Examine, Finding, Profile};
use crate::local::LocalKek;
use aes_kw::{KeyInit, KwpAes256};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use file::{Sealed, WRAPPED_LEN};
use keyfold::device::PassphraseCost;
use keyfold::{
    BoxFuture, Error, ErrorKind, Kms, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;
use zeroize::{Zeroize, Zeroizing};

/// Fewest characters of the passphrase of a new KEK.
pub const MIN_PASSPHRASE_CHARS: usize = 12;
/// Most bytes of a passphrase.
pub const MAX_PASSPHRASE_LEN: usize = 4096;

/// Most bytes of the passphrase of a bundle: a device has little memory.
pub const MAX_TRANSPORT_PASSPHRASE_LEN: usize = 1024;

/// Asks for the passphrase of a KEK when that is first used: at a terminal, in a file. May block.
pub type PassphraseSource = Arc<dyn Fn() -> Result<Zeroizing<String>> + Send + Sync>;

/// What a guess of the passphrase costs. Bounded both ways whenever a file is read: nobody can make a file that costs
/// next to nothing to guess, or more memory than a machine has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Argon2Params {
    memory: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// Least memory in KiB: 19 MiB.
    // F-A-4.
    pub const MIN_MEMORY: u32 = 19 * 1024;
    /// Most memory in KiB: 1 GiB.
    pub const MAX_MEMORY: u32 = 1024 * 1024;
    /// Fewest and most passes.
    pub const PASSES: std::ops::RangeInclusive<u32> = 2..=16;
    /// Fewest and most lanes.
    pub const LANES: std::ops::RangeInclusive<u32> = 1..=8;
    /// The least that is accepted, which takes some 20 ms.
    pub const MIN: Self = Self { memory: Self::MIN_MEMORY, passes: 2, lanes: 1 };

    /// `memory` KiB, `passes` and `lanes`.
    ///
    /// # Errors
    ///
    /// - [`LimitExceeded`](ErrorKind::LimitExceeded): outside of the bounds.
    pub fn new(memory: u32, passes: u32, lanes: u32) -> Result<Self> {
        let memory_is_good = (Self::MIN_MEMORY..=Self::MAX_MEMORY).contains(&memory);
        if !memory_is_good || !Self::PASSES.contains(&passes) || !Self::LANES.contains(&lanes) {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                "Argon2id takes 19 MiB to 1 GiB of memory, 2 to 16 passes and 1 to 8 lanes here",
            ));
        }
        Ok(Self { memory, passes, lanes })
    }

    /// The same with `memory` KiB.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn with_memory(self, memory: u32) -> Result<Self> {
        Self::new(memory, self.passes, self.lanes)
    }
}

impl Default for Argon2Params {
    /// 256 MiB, 3 passes, 4 lanes: about half a second.
    fn default() -> Self {
        Self { memory: 256 * 1024, passes: 3, lanes: 4 }
    }
}

/// A KEK that lives in a file and opens with a passphrase.
///
/// Reads the file when it is opened, and asks for the passphrase when it is first used. That takes a thread and the
/// memory of its [`Argon2Params`] for about half a second; afterwards it is as fast as a [`LocalKek`]. A wrong passphrase
/// is remembered, so that not every request pays for it: open the KEK anew to try another one.
pub struct PassphraseKek {
    sealed: Arc<Sealed>,
    source: PassphraseSource,
    opened: OnceCell<Result<LocalKek>>,
}

impl PassphraseKek {
    /// Makes a file with a new random key under `passphrase`, readable by its owner alone (mode 0600). Durable on return.
    /// Returns the identifier of the key, as [`LocalKek::id`]. Blocks while Argon2id runs.
    ///
    /// # Errors
    ///
    /// - [`InvalidInput`](ErrorKind::InvalidInput): the passphrase has fewer than [`MIN_PASSPHRASE_CHARS`] characters, more
    ///   than [`MAX_PASSPHRASE_LEN`] bytes, or control characters.
    /// - [`Io`](ErrorKind::Io): something has that name, a link included, or the file cannot be written. Nothing is left
    ///   behind. - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable).
    pub fn create(path: impl AsRef<Path>, passphrase: &str, params: Argon2Params) -> Result<String> {
        check_passphrase(passphrase)?;
        let no_randomness = |error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error);
        let key = Secret::try_with(|key: &mut [u8; 32]| getrandom::fill(key)).map_err(no_randomness)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(no_randomness)?;
        let mut wrapped = [0; WRAPPED_LEN];
        cipher(&derive(passphrase, &salt, params)?)
            .wrap_key(key.expose(), &mut wrapped)
            .map_err(|error| Error::new(ErrorKind::Internal, "AES-KWP refused 32 bytes").with_source(error))?;
        file::create(path.as_ref(), &Sealed { params, salt, wrapped })?;
        Ok(LocalKek::new(key).id().to_owned())
    }

    /// Opens the file that [`create`](Self::create) made. `source` is asked when the KEK is first used.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): group or others have a permission on it, it belongs to somebody other
    ///   than this user or root, it is a symbolic link or not a regular file, or it is not such a KEK.
    /// - [`Malformed`](ErrorKind::Malformed): it is one, but damaged, cut off, or with parameters outside of the bounds.
    /// - [`Unsupported`](ErrorKind::Unsupported): it was written by a newer version.
    /// - [`Io`](ErrorKind::Io): it is missing or cannot be read.
    pub fn open(path: impl AsRef<Path>, source: PassphraseSource) -> Result<Self> {
        Ok(Self { sealed: Arc::new(file::read(path.as_ref())?), source, opened: OnceCell::new() })
    }

    /// Which KEK the file holds, without the passphrase: equal for copies of a file, and for nothing else. Public.
    #[must_use]
    pub fn file_id(&self) -> String {
        self.sealed.id()
    }

    /// The KEK, once the passphrase is known.
    async fn opened(&self) -> Result<&LocalKek> {
        let open = async || {
            let (sealed, source) = (self.sealed.clone(), self.source.clone());
            let work = move || -> Result<Result<LocalKek>> {
                let passphrase = source().map_err(as_credentials)?;
                Ok(keyfold_memory::erasing_stack(|| sealed.open(&passphrase)))
            };
            // On a thread of its own: it blocks, and whoever waits may be an executor's.
            let opened = keyfold_background::handle().map_err(as_credentials)?.spawn_blocking(work).await;
            opened.map_err(|error| as_credentials(Error::new(ErrorKind::Internal, "it panicked").with_source(error)))?
        };
        // What the source did not say is asked for again; what the file did not open with is not.
        self.opened.get_or_try_init(open).await?.as_ref().map_err(Clone::clone)
    }
}

impl Sealed {
    fn open(&self, passphrase: &str) -> Result<LocalKek> {
        // F-A-5.
        const WRONG: Error =
            Error::new(ErrorKind::Kms(KmsErrorKind::Credentials), "the passphrase of the KEK is wrong");
        if passphrase.len() > MAX_PASSPHRASE_LEN {
            return Err(WRONG);
        }
        let cipher = cipher(&derive(passphrase, &self.salt, self.params)?);
        let key = Secret::try_with(|key: &mut [u8; 32]| match cipher.unwrap_key(&self.wrapped, key) {
            Ok(found) if found.len() == 32 => Ok(()),
            _ => Err(WRONG),
        })?;
        Ok(LocalKek::new(key))
    }
}

/// The transport key that `passphrase` makes for a new bundle of a device, with what it takes to make it again. Blocks while
/// Argon2id runs.
///
/// # Errors
///
/// As [`PassphraseKek::create`] for the passphrase. - [`Kms`](ErrorKind::Kms) with `Unavailable`: there is not enough memory.
/// - [`RandomnessUnavailable`](ErrorKind::RandomnessUnavailable).
pub fn new_transport_key(passphrase: &str, params: Argon2Params) -> Result<(Secret<32>, PassphraseCost)> {
    check_passphrase(passphrase)?;
    if passphrase.len() > MAX_TRANSPORT_PASSPHRASE_LEN {
        return Err(Error::new(ErrorKind::InvalidInput, "the passphrase of a bundle has at most 1,024 bytes"));
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|error| Error::from(ErrorKind::RandomnessUnavailable).with_source(error))?;
    let Argon2Params { memory, passes, lanes } = params;
    Ok((derive(passphrase, &salt, params)?, PassphraseCost { salt, memory, passes, lanes }))
}

/// The transport key of a bundle that was made under `passphrase`. Blocks while Argon2id runs.
///
/// # Errors
///
/// - [`LimitExceeded`](ErrorKind::LimitExceeded): the cost is out of bounds. - [`Kms`](ErrorKind::Kms) with `Unavailable`: there
///   is not enough memory.
pub fn transport_key(passphrase: &str, cost: &PassphraseCost) -> Result<Secret<32>> {
    derive(passphrase, &cost.salt, Argon2Params::new(cost.memory, cost.passes, cost.lanes)?)
}

/// Whether a new KEK or bundle may be under `passphrase`.
///
/// # Errors
///
/// - [`InvalidInput`](ErrorKind::InvalidInput): it has fewer than [`MIN_PASSPHRASE_CHARS`] characters, more than
///   [`MAX_PASSPHRASE_LEN`] bytes, or control characters.
pub fn check_passphrase(passphrase: &str) -> Result<()> {
    let wrong = |why| Err(Error::new(ErrorKind::InvalidInput, why));
    if passphrase.chars().count() < MIN_PASSPHRASE_CHARS {
        return wrong("a passphrase has at least 12 characters: take several random words");
    }
    if passphrase.len() > MAX_PASSPHRASE_LEN {
        return wrong("a passphrase has at most 4,096 bytes");
    }
    // Nobody could be sure to type it again.
    if passphrase.chars().any(char::is_control) {
        return wrong("a passphrase has no control characters");
    }
    Ok(())
}

/// Argon2id(passphrase, salt), 32 bytes.
fn derive(passphrase: &str, salt: &[u8; 16], params: Argon2Params) -> Result<Secret<32>> {
    let failed = |_| Error::new(ErrorKind::Internal, "Argon2id refused parameters within its bounds");
    let Argon2Params { memory, passes, lanes } = params;
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(failed)?;
    let mut blocks: Vec<Block> = Vec::new();
    // Its own error: a machine may have less memory than the one on which the file was made.
    blocks.try_reserve_exact(params.block_count()).map_err(|error| {
        Error::new(ErrorKind::Kms(KmsErrorKind::Unavailable), "not enough memory for the passphrase")
            .with_detail(format!("it takes {memory} KiB"))
            .with_source(error)
    })?;
    blocks.resize(params.block_count(), Block::new());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let derived = Secret::try_with(|key: &mut [u8; 32]| {
        argon2.hash_password_into_with_memory(passphrase.as_bytes(), salt, key, &mut blocks)
    });
    blocks.zeroize();
    derived.map_err(failed)
}

fn cipher(key: &Secret<32>) -> KwpAes256 {
    KwpAes256::new(key.expose().into())
}

/// Without the passphrase the KEK is away, and others are asked.
fn as_credentials(error: Error) -> Error {
    let needed = Error::new(ErrorKind::Kms(KmsErrorKind::Credentials), "the KEK needs its passphrase");
    needed.with_detail(error.to_string()).with_source(error)
}

impl Kms for PassphraseKek {
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        Box::pin(async move { self.opened().await?.wrap(request).await })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        Box::pin(async move { self.opened().await?.unwrap(request).await })
    }
}

/// A file has no more to tell than that it opened.
impl Examine for PassphraseKek {
    fn profile(&self) -> Profile {
        Profile {
            login: "a passphrase".to_owned(),
            binding: Binding::ByKeyfold,
            page: "docs/RECOVERY.md",
            ..Profile::default()
        }
    }

    fn examine<'a>(&'a self, _trace: &'a KmsTrace) -> BoxFuture<'a, Result<Vec<Finding>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

impl fmt::Debug for PassphraseKek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opened = self.opened.get().is_some_and(Result::is_ok);
        f.debug_struct("PassphraseKek").field("opened", &opened).finish_non_exhaustive()
    }
}
