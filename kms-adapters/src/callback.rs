//! KEKs behind functions of the host program, for services that keyfold does not know.

use crate::examine::{Binding, Profile};
use crate::layer::{Adapter, Attempt, Failure, Layered, Limits};
use crate::per_process::PerProcess;
use keyfold::{BoxFuture, Error, ErrorKind, KmsContext, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Semaphore;

type WrapFn = dyn Fn(Arc<Secret<64>>, KmsContext) -> BoxFuture<'static, Attempt<WrappedKey>> + Send + Sync;
type UnwrapFn = dyn Fn(WrappedKey, KmsContext) -> BoxFuture<'static, Attempt<Secret<64>>> + Send + Sync;

/// A KEK that the host program's functions reach, under the same layer as all others.
///
/// The functions make one attempt each; what may be repeated they say by the [`Failure`] that they return. They are called
/// from several threads at once.
///
/// # Examples
///
/// ```
/// use keyfold::KmsErrorKind;
/// use keyfold_kms::callback::CallbackKek;
/// use keyfold_kms::layer::{Failure, Limits};
///
/// let away = || Failure::new(KmsErrorKind::Unavailable, "the HSM of the ward is switched off");
/// let kek = CallbackKek::blocking("ward HSM", Limits::default(), move |_payload, _context| Err(away()), move |_, _| Err(away()))?;
/// # let _: &dyn keyfold::Kms = &kek;
/// # Ok::<(), keyfold::Error>(())
/// ```
pub type CallbackKek = Layered<Callback>;

/// The functions of a [`CallbackKek`], without the layer.
pub struct Callback {
    label: String,
    wrap: Box<WrapFn>,
    unwrap: Box<UnwrapFn>,
}

impl CallbackKek {
    /// A KEK behind asynchronous functions. They run inside a tokio runtime, and are dropped where they take too long.
    /// `label` names the KEK in errors and logs.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): a limit is out of its bounds.
    pub fn asynchronous(
        label: &str,
        limits: Limits,
        wrap: impl Fn(Arc<Secret<64>>, KmsContext) -> BoxFuture<'static, Attempt<WrappedKey>> + Send + Sync + 'static,
        unwrap: impl Fn(WrappedKey, KmsContext) -> BoxFuture<'static, Attempt<Secret<64>>> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::new(Callback { label: label.to_owned(), wrap: Box::new(wrap), unwrap: Box::new(unwrap) }, limits)
    }

    /// A KEK behind functions that block. Each call has a thread of its own; one that takes too long goes on, and nobody
    /// waits for it any more. At most [`MAX_BLOCKING_CALLS`](Callback::MAX_BLOCKING_CALLS) run at once, and further ones wait
    /// for their turn, so that functions that hang leave threads for other KEKs.
    ///
    /// # Errors
    ///
    /// As for [`asynchronous`](Self::asynchronous).
    pub fn blocking(
        label: &str,
        limits: Limits,
        wrap: impl Fn(&Secret<64>, &KmsContext) -> Attempt<WrappedKey> + Send + Sync + 'static,
        unwrap: impl Fn(&WrappedKey, &KmsContext) -> Attempt<Secret<64>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (wrap, unwrap) = (Arc::new(wrap), Arc::new(unwrap));
        let turns = Arc::new(Turns::new());
        let turns_of_unwraps = Arc::clone(&turns);
        Self::asynchronous(
            label,
            limits,
            move |payload, context| {
                let wrap = Arc::clone(&wrap);
                Box::pin(apart(Arc::clone(&turns), move || wrap(&payload, &context)))
            },
            move |wrapped, context| {
                let unwrap = Arc::clone(&unwrap);
                Box::pin(apart(Arc::clone(&turns_of_unwraps), move || unwrap(&wrapped, &context)))
            },
        )
    }
}

impl Callback {
    /// Most calls of blocking functions of one KEK that run at once.
    // KC-38.
    pub const MAX_BLOCKING_CALLS: usize = 64;
}

/// What the calls of blocking functions take turns by: a child does not wait for those of its parent.
type Turns = PerProcess<Semaphore>;

/// Runs `work`, which may block, on a thread of its own when it is its turn.
async fn apart<T: Send + 'static>(turns: Arc<Turns>, work: impl FnOnce() -> Attempt<T> + Send + 'static) -> Attempt<T> {
    let failed = |message| Failure::from(Error::new(ErrorKind::Internal, message));
    let Ok(turns) = turns.get(|| Ok::<_, Infallible>(Semaphore::new(Callback::MAX_BLOCKING_CALLS)));
    let turn = turns.acquire_owned().await.map_err(|_| failed("nobody lets the functions of the host program run"))?;
    let done = tokio::task::spawn_blocking(move || {
        // Goes with the thread, which may outlive this future.
        let _turn = turn;
        work()
    });
    done.await.unwrap_or_else(|_| Err(failed("a function of the host program panicked")))
}

impl Adapter for Callback {
    fn profile(&self) -> Profile {
        Profile {
            login: "the host program".to_owned(),
            binding: Binding::Unknown,
            page: "docs/KMS-CONTRACT.md",
            ..Profile::default()
        }
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        if let Some(trace) = request.trace {
            trace.request_sent();
        }
        let payload = Secret::with(|copy: &mut [u8; 64]| copy.copy_from_slice(request.payload.expose()));
        (self.wrap)(Arc::new(payload), request.context.clone())
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        if let Some(trace) = request.trace {
            trace.request_sent();
        }
        (self.unwrap)(request.wrapped.clone(), request.context.clone())
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").field("label", &self.label).finish_non_exhaustive()
    }
}
