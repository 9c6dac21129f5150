//! KEKs behind functions of the host program, for services that keyfold does not know.

use crate::examine::{Binding, Profile};
use crate::layer::{Adapter, Attempt, Failure, Layered, Limits};
use keyfold::{BoxFuture, Error, ErrorKind, KmsContext, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use std::fmt;
use std::sync::Arc;

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
    /// waits for it any more.
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
        Self::asynchronous(
            label,
            limits,
            move |payload, context| {
                let wrap = Arc::clone(&wrap);
                Box::pin(apart(move || wrap(&payload, &context)))
            },
            move |wrapped, context| {
                let unwrap = Arc::clone(&unwrap);
                Box::pin(apart(move || unwrap(&wrapped, &context)))
            },
        )
    }
}

/// Runs `work`, which may block, on a thread of its own.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Attempt<T> + Send + 'static) -> Attempt<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Failure::from(Error::new(ErrorKind::Internal, "a function of the host program panicked")))
    })
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
