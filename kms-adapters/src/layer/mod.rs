//! The one layer above all key services outside of this process.
//!
//! An [`Adapter`] makes one attempt and says how it went. [`Layered`] makes a [`Kms`] of it, the same for every provider:
//!
//! - a total deadline per operation and a timeout per attempt;
//! - several attempts with full jitter between them, and a service's `Retry-After` honoured up to a limit; nothing is
//!   repeated that would fail in the same way;
//! - new credentials and one more attempt where the service says that they have expired;
//! - a circuit breaker: after outages in a row everybody is refused at once, but for one attempt a second, so that the
//!   service counts as back within two seconds;
//! - a rate limit per KEK;
//! - errors that name service, key, number of requests and the provider's request ID.
//!
//! All of it runs on the thread of `keyfold-background`, so that it works under any executor, inside a tokio runtime and
//! outside, and in a forked child. An operation that nobody waits for any more ends by its deadline. In a simulation it runs in its
//! caller, by a [`Timer`].

mod breaker;
mod failure;
mod limits;
mod rate;
mod table;
#[cfg(test)]
mod tests;
mod time;

pub use failure::{Again, Failure};
pub use limits::Limits;
pub use table::{HTTP_ROWS, Row, sort};
pub use time::Timer;

use crate::examine::{Examine, Finding, Profile};
use crate::per_process::PerProcess;
use breaker::Breaker;
use keyfold::{
    BoxFuture, Error, ErrorKind, Kms, KmsErrorKind, KmsTrace, Result, Secret, UnwrapRequest, WrapRequest, WrappedKey,
};
use rate::Rate;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::Time;
use tokio::time::Instant;

/// How an attempt ended.
pub type Attempt<T> = Result<T, Failure>;

/// A key service as its adapter sees it: one KEK, one attempt at a time.
///
/// An attempt is one request (and a login before it, where there are no credentials yet), without repetition, without a
/// timeout of its own, and can be dropped at any await. It runs inside a tokio runtime. It notes in the trace of the request that something was
/// sent, and the ID that the provider gave it.
pub trait Adapter: Send + Sync + 'static {
    /// Service and key for errors and logs, such as `vault://kms.example/transit/clinic`; never credentials.
    fn label(&self) -> &str;

    /// Has the service wrap 64 bytes.
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>>;

    /// Refuses a wrapped key that the service need not be asked about: one that names another service or key than the
    /// configured one is [`WrongKey`](KmsErrorKind::WrongKey). Calls nobody. Comes before the rate limit and the breaker, so
    /// that forged records use up nothing; [`unwrap`](Self::unwrap) is only called with what passes.
    ///
    /// # Errors
    ///
    /// The failure that the caller of the operation gets.
    fn check(&self, _wrapped: &WrappedKey) -> Attempt<()> {
        Ok(())
    }

    /// Has the service unwrap what it wrapped.
    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>>;

    /// What is known of the KEK without asking anybody; the layer adds the label.
    fn profile(&self) -> Profile {
        Profile::default()
    }

    /// Looks at the key for people: see [`Examine::examine`]. May be several requests, each without a change of anything. By
    /// default the service has nothing more to tell.
    fn examine<'a>(&'a self, _trace: &'a KmsTrace) -> BoxFuture<'a, Attempt<Vec<Finding>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// An [`Adapter`] under the layer: a [`Kms`].
pub struct Layered<A> {
    shared: Arc<Shared<A>>,
    limits: Limits,
    place: Place,
    time: Time,
}

enum Place {
    Background,
    Here,
}

struct Shared<A> {
    adapter: A,
    state: PerProcess<State>,
}

struct State {
    breaker: Mutex<Breaker>,
    rate: Mutex<Rate>,
}

impl<A: Adapter> Layered<A> {
    /// Puts `adapter` under the layer.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): a limit is out of its bounds.
    pub fn new(adapter: A, limits: Limits) -> Result<Self> {
        limits.check()?;
        let state = PerProcess::new();
        Ok(Self { shared: Arc::new(Shared { adapter, state }), limits, place: Place::Background, time: Time::Runtime })
    }

    /// With another deadline, such as that of `[keks.ALIAS]` in a configuration.
    ///
    /// # Errors
    ///
    /// - [`Configuration`](ErrorKind::Configuration): it is out of its bounds.
    pub fn with_deadline(mut self, deadline: Duration) -> Result<Self> {
        self.limits.deadline = deadline;
        self.limits.check()?;
        Ok(self)
    }

    /// Runs in the tokio runtime of the caller, and on its clock: for tests that pause it.
    #[must_use]
    pub fn in_callers_runtime(mut self) -> Self {
        self.place = Place::Here;
        self
    }

    /// Runs in its caller, which needs no runtime, and waits by `timer`: for simulations, and programs with timers of their own.
    #[must_use]
    pub fn by_timer(mut self, timer: Arc<dyn Timer>) -> Self {
        (self.place, self.time) = (Place::Here, Time::of(timer));
        self
    }

    /// The adapter.
    #[must_use]
    pub fn adapter(&self) -> &A {
        &self.shared.adapter
    }

    /// Performs an operation other than wrapping and unwrapping, such as a look at the key's rotation, with the same
    /// guarantees: `attempt` may be called several times.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Kms`] and [`ErrorKind::Configuration`], as the last attempt failed.
    // KC-25.
    pub async fn perform<T, F>(&self, trace: Option<&KmsTrace>, attempt: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'a> Fn(&'a A, &'a KmsTrace) -> BoxFuture<'a, Attempt<T>> + Send + Sync + 'static,
    {
        let own = Arc::new(KmsTrace::new());
        let (shared, limits, noted) = (Arc::clone(&self.shared), self.limits, Arc::clone(&own));
        let time = self.time.clone();
        let work = async move { shared.perform(&limits, &time, &noted, attempt).await };
        let result = match self.place {
            Place::Here => work.await,
            Place::Background => {
                // Asked for apart, because the caller of a key service expects no error of a store.
                keyfold_background::handle().map_err(|error| {
                    let kind = ErrorKind::Kms(KmsErrorKind::Unavailable);
                    Error::new(kind, "the thread that reaches key services cannot be started").with_source(error)
                })?;
                keyfold_background::run(work).await
            }
        };
        if let Some(trace) = trace {
            trace.copy_from(&own);
        }
        result
    }
}

impl<A: Adapter> Shared<A> {
    // KC-10, KC-11, KC-12.
    async fn perform<T, F>(&self, limits: &Limits, time: &Time, trace: &KmsTrace, attempt: F) -> Result<T>
    where
        F: for<'a> Fn(&'a A, &'a KmsTrace) -> BoxFuture<'a, Attempt<T>>,
    {
        let Ok(state) = self.state.get(|| Ok::<_, Infallible>(State::new()));
        let end = time.now() + limits.deadline;
        let mut last: Option<Failure> = None;
        let mut has_new_credentials = false;
        let mut failed = 0;
        let failure = loop {
            if let Err(refusal) = enter(limits, time, &state, end).await {
                // What the service itself said tells more than that it is not asked again.
                break last.unwrap_or(refusal);
            }
            let begun = time.now();
            let sent_before = trace.requests();
            let until = end.min(begun + limits.attempt);
            let failure = match time.timeout_at(until, attempt(&self.adapter, trace)).await {
                Some(result) => {
                    let is_outage = result.as_ref().is_err_and(Failure::is_outage);
                    // KC-21.
                    // What was found out without a request proves nothing about the service.
                    if is_outage || trace.requests() > sent_before {
                        self.record(limits, time, &state, is_outage);
                    }
                    match result {
                        Ok(value) => return Ok(value),
                        Err(failure) => failure,
                    }
                }
                None => {
                    // KC-24.
                    // An attempt that the deadline cut short tells nothing about the service.
                    if until - begun >= limits.patience() {
                        self.record(limits, time, &state, true);
                    }
                    Failure::new(KmsErrorKind::Timeout, "the key service did not answer in time")
                }
            };
            failed += 1;
            let pause = match failure.again {
                // KC-19.
                Again::WithNewCredentials if !has_new_credentials => {
                    has_new_credentials = true;
                    Some(Duration::ZERO)
                }
                Again::Later if failed < limits.attempts => {
                    Some(limits.pause(failed, time.random(), failure.retry_after))
                }
                _ => None,
            };
            tracing::debug!(kek = self.adapter.label(), kind = failure.kind.name(), ?pause, "attempt {failed} failed");
            // KC-18.
            let Some(pause) = pause.filter(|pause| time.now() + *pause < end) else { break failure };
            last = Some(failure);
            time.sleep(pause).await;
        };
        Err(failure.into_error(self.adapter.label(), trace))
    }

    fn record(&self, limits: &Limits, time: &Time, state: &State, outage: bool) {
        if state.breaker().record(outage, limits.outages, time.now(), limits.probe_every) {
            let kek = self.adapter.label();
            match outage {
                true => tracing::warn!(kek, "the key service is away: it is asked once a second until it is back"),
                false => tracing::info!(kek, "the key service is back"),
            }
        }
    }
}

/// Waits until an attempt may be made, or says why none may.
async fn enter(limits: &Limits, time: &Time, state: &State, end: Instant) -> Attempt<()> {
    let now = time.now();
    if !state.breaker().admit(now, limits.probe_every) {
        let message = "the key service is away and is asked again within a second";
        return Err(Failure::new(KmsErrorKind::Unavailable, message));
    }
    // KC-23.
    // Who has to wait gets a turn only with time enough for an answer left.
    let wait = state.rate().take(limits.rate, limits.burst, now, end - limits.patience());
    let message = "this KEK is asked more often than its configured rate";
    time.sleep(wait.ok_or_else(|| Failure::new(KmsErrorKind::Throttled, message))?).await;
    Ok(())
}

impl State {
    const fn new() -> Self {
        Self { breaker: Mutex::new(Breaker::new()), rate: Mutex::new(Rate::new()) }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Adapter> Kms for Layered<A> {
    // KC-8.
    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Result<WrappedKey>> {
        let payload = Secret::with(|copy: &mut [u8; 64]| copy.copy_from_slice(request.payload.expose()));
        let job = Arc::new((payload, request.context.clone()));
        Box::pin(self.perform(request.trace, move |adapter, trace| {
            let job = Arc::clone(&job);
            Box::pin(async move {
                let wrapped = adapter.wrap(WrapRequest::new(&job.0, &job.1).with_trace(trace)).await?;
                let lengths = (1..=WrappedKey::MAX_LEN, 0..=WrappedKey::MAX_VERSION_LEN);
                if !lengths.0.contains(&wrapped.bytes.len()) || !lengths.1.contains(&wrapped.kek_version.len()) {
                    return Err(Failure::malformed("the key service returned a wrapped key that no record can hold"));
                }
                Ok(wrapped)
            })
        }))
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Result<Secret<64>>> {
        let WrappedKey { kek_version, bytes } = request.wrapped;
        if bytes.len() > WrappedKey::MAX_LEN || kek_version.len() > WrappedKey::MAX_VERSION_LEN {
            const TOO_LONG: Error =
                Error::new(ErrorKind::Kms(KmsErrorKind::InvalidCiphertext), "no KEK wraps that many bytes");
            return Box::pin(async { Err(TOO_LONG) });
        }
        // KC-7, KC-20.
        if let Err(failure) = self.adapter().check(request.wrapped) {
            let error = failure.into_error(self.adapter().label(), &KmsTrace::new());
            return Box::pin(async { Err(error) });
        }
        let job = Arc::new((request.wrapped.clone(), request.context.clone()));
        Box::pin(self.perform(request.trace, move |adapter, trace| {
            let job = Arc::clone(&job);
            Box::pin(async move { adapter.unwrap(UnwrapRequest::new(&job.0, &job.1).with_trace(trace)).await })
        }))
    }
}

impl<A: Adapter> Examine for Layered<A> {
    fn profile(&self) -> Profile {
        Profile { label: self.adapter().label().to_owned(), ..self.adapter().profile() }
    }

    fn examine<'a>(&'a self, trace: &'a KmsTrace) -> BoxFuture<'a, Result<Vec<Finding>>> {
        Box::pin(self.perform(Some(trace), |adapter, trace| adapter.examine(trace)))
    }
}

impl<A: Adapter> fmt::Debug for Layered<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").field("kek", &self.shared.adapter.label()).field("limits", &self.limits).finish()
    }
}
