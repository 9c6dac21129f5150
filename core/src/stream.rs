//! Streams: data of any length that is sealed and opened piece by piece (FORMAT.md §19, DESIGN F23).
//!
//! Chunks are sealed and opened where they are: in the buffer of the caller, of an adapter, or of a thread. Nothing here waits.

/// What each adapter takes over from the stream in its field `stream`.
macro_rules! renews_as {
    ($Stream:ident) => {
        /// Whether [`renew`](Self::renew) has something to do.
        #[must_use]
        pub fn needs_renewal(&self) -> bool {
            self.stream.needs_renewal()
        }

        #[doc = concat!("See [`", stringify!($Stream), "::renew`].")]
        ///
        /// # Errors
        ///
        #[doc = concat!("As for [`", stringify!($Stream), "::renew`].")]
        pub async fn renew(&mut self) -> $crate::Result<()> {
            self.stream.renew().await
        }
    };
}

/// The same of what opens, and the way back to its field `input` of type `R`.
macro_rules! reads_as_opening_stream {
    () => {
        /// Whether the key is compromised: whoever has it can have made the stream.
        #[must_use]
        pub fn is_compromised(&self) -> bool {
            self.stream.is_compromised()
        }

        renews_as!(OpeningStream);

        /// The input, wherever it stands.
        #[must_use]
        pub fn into_inner(self) -> R {
            self.input
        }
    };
}

/// The same of what seals, and the way back to its field `output` of type `W`.
macro_rules! writes_as_sealing_stream {
    () => {
        /// The first 83 bytes of the stream.
        #[must_use]
        pub const fn header(&self) -> &StreamHeader {
            self.stream.header()
        }

        renews_as!(SealingStream);

        /// The output, whether the stream is complete or not.
        #[must_use]
        pub fn into_inner(self) -> W {
            self.output
        }
    };
}

mod async_read;
mod async_write;
mod chunks;
mod open;
mod pump;
mod range;
mod read;
mod seal;
mod write;

pub use async_read::AsyncStreamReader;
pub use async_write::AsyncStreamWriter;
pub(crate) use chunks::{Chunks, DERIVED_LEN, binding, derive};
pub use open::{OpeningStream, StreamOpener};
pub use range::StreamRanges;
pub use read::StreamReader;
pub use seal::{SealingStream, StreamSealer};
pub use write::StreamWriter;

use crate::cache::Cached;
use crate::context::BoundContext;
use crate::error::{Error, ErrorKind, Result};
use crate::field::used::Uses;
use crate::keyring::{Keyring, Material, OpenKey};
use crate::policy::FieldPolicy;
use crate::wire::stream::STREAM_COMMITMENT_LEN;
use crate::wire::{HEADER_LEN, STREAM_SALT_LEN};
use std::sync::Arc;
use std::task::Poll;

/// What all streams of a handle are bound to.
pub(crate) struct Bound {
    pub(crate) ring: Keyring,
    pub(crate) policy: Arc<FieldPolicy>,
    pub(crate) context: BoundContext,
    pub(crate) uses: Uses,
}

impl Bound {
    /// The key, base nonce and commitment of one stream.
    fn derive(
        &self,
        key: &OpenKey,
        head: &[u8; HEADER_LEN],
        salt: &[u8; STREAM_SALT_LEN],
        row: Option<&[u8]>,
    ) -> Result<(Chunks, [u8; STREAM_COMMITMENT_LEN])> {
        let Material::Data { stream, .. } = &key.material else { return Err(crate::field::WRONG_CLASS) };
        let binding = self.context.of_row(row, |context| binding(head, &self.policy.name, context))??;
        let derived = derive(stream, salt, &binding);
        let chunks = Chunks::new(&derived);
        // When both are there: then it is known whether there was room.
        self.ring.check_memory()?;
        Ok(chunks)
    }
}

/// The key of a stream that is under way: asked before each call whether it still may be used, since a stream can take longer than a lease.
struct Held {
    bound: Arc<Bound>,
    key: Arc<OpenKey>,
    /// The only process that may go on, of a stream that is being sealed: after a fork two would seal with the same nonces.
    process: Option<u32>,
    /// Why every call that follows fails: one has failed, or the stream is complete.
    ended: Option<Error>,
}

const COMPLETE: Error = Error::new(ErrorKind::Closed, "the stream is complete, and nothing can follow");

const PANICKED: Error = Error::new(ErrorKind::Io, "the input or output of the stream has panicked");

const COMPROMISED: Error = Error::new(
    ErrorKind::KeyState,
    "the key of the stream was marked compromised: begin the stream again under another one",
);

const FORKED: Error =
    Error::new(ErrorKind::Closed, "the stream was begun in another process, and after a fork only that one may go on");

impl Held {
    /// Refuses what would not be sealed or opened now.
    fn check(&self) -> Result<()> {
        self.check_goes_on()?;
        self.bound.ring.check_open()?;
        self.key.check_usable(self.bound.ring.time())?;
        // A rotation lets what was begun be finished. Where compromised keys open, their leases go on.
        if self.process.is_some() && self.key.is_compromised() {
            return Err(COMPROMISED.with_detail(self.key.key_id.to_string()));
        }
        Ok(())
    }

    /// Refuses what follows a failure, the end or a fork, though it needs no key.
    fn check_goes_on(&self) -> Result<()> {
        if self.process.is_some_and(|process| process != std::process::id()) {
            return Err(FORKED);
        }
        self.ended.clone().map_or(Ok(()), Err)
    }

    /// Does `work` if the key may be used.
    fn with<T>(&mut self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let done = self.check().and_then(|()| work());
        done.map_err(|error| self.fail(error))
    }

    fn fail(&mut self, error: Error) -> Error {
        // A lease that ran out can be renewed; nothing else gets better.
        if self.ended.is_none() && error.kind() != ErrorKind::DeadlineExceeded {
            self.ended = Some(error.clone());
            self.bound.uses.count_failure(error.kind());
        }
        error
    }

    /// Lets input or output do something. Its error is final, since a part of a chunk may be lost, and so is its panic.
    fn pass<T>(&mut self, work: impl FnOnce() -> std::io::Result<T>, why: &'static str) -> Result<T> {
        self.unless_it_panics(work).map_err(|error| self.fail(from_io(error, why)))
    }

    /// The same in async code.
    fn poll_pass<T>(&mut self, work: impl FnOnce() -> Poll<std::io::Result<T>>, why: &'static str) -> Poll<Result<T>> {
        self.unless_it_panics(work).map_err(|error| self.fail(from_io(error, why)))
    }

    /// Does `work` of code that is the caller's, after [`check_goes_on`](Self::check_goes_on). Calls that follow its panic fail.
    fn unless_it_panics<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.ended = Some(PANICKED);
        let done = work();
        self.ended = None;
        done
    }

    fn needs_renewal(&self) -> bool {
        self.key.needs_renewal(self.bound.ring.time())
    }

    async fn renew(&mut self) -> Result<()> {
        if self.needs_renewal() {
            let renewed = Box::pin(self.bound.ring.renew_held(&self.key)).await;
            self.key = renewed.map_err(|error| self.bound.uses.failed(error))?;
        }
        Ok(())
    }
}

/// How far [`SealingStream::seal_all`] or [`OpeningStream::open_all`] is. Stopping the work is up to the error that the caller returns.
pub struct StreamProgress<'a> {
    held: &'a mut Held,
    read: u64,
}

impl<'a> StreamProgress<'a> {
    const fn new(held: &'a mut Held, read: u64) -> Self {
        Self { held, read }
    }

    /// Bytes of input that were read, the header not counted.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// Whether [`renew`](Self::renew) has something to do.
    #[must_use]
    pub fn needs_renewal(&self) -> bool {
        self.held.needs_renewal()
    }

    /// Has the key of the stream confirmed when that is due: see [`SealingStream::renew`].
    ///
    /// # Errors
    ///
    /// As for [`SealingStream::renew`].
    pub async fn renew(&mut self) -> Result<()> {
        self.held.renew().await
    }
}

/// An error as the traits of `std::io` carry it: [`Error::within`] gives it back.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::InvalidInput | ErrorKind::LimitExceeded => std::io::ErrorKind::InvalidInput,
            ErrorKind::Malformed | ErrorKind::DecryptionFailed => std::io::ErrorKind::InvalidData,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// The error inside of an error of `std::io`, or one of kind [`Io`](ErrorKind::Io) around it: around `DeadlineExceeded` as well, which only this stream
/// says of its own key. An input or output that says it, such as another stream, has failed.
fn from_io(error: std::io::Error, why: &'static str) -> Error {
    match Error::within(&error) {
        Some(inner) if inner.kind() != ErrorKind::DeadlineExceeded => inner.clone(),
        _ => Error::new(ErrorKind::Io, why).with_source(error),
    }
}

const UNREADABLE: &str = "the input of a stream cannot be read";
const UNWRITABLE: &str = "the output of a stream cannot be written";

/// Fills `buffer` from the front as far as there is input, and says how far.
fn read_full(input: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
