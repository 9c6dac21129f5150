//! The simulated key service: it counts, takes its time, throttles and goes away. It encrypts nothing: it keeps what it is to
//! wrap, and hands out its number.

use crate::scenario::{KeyService, Outage};
use crate::time::VirtualTime;
use keyfold::{BoxFuture, Clock, KmsContext, KmsErrorKind, KmsTrace, Secret, UnwrapRequest, WrapRequest, WrappedKey};
use keyfold_kms::layer::{Adapter, Attempt, Failure, Timer};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One service with all KEKs, as all processes see it.
pub(crate) struct Service {
    time: VirtualTime,
    model: KeyService,
    outage: Option<Outage>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Whether time, quota and outage count. Before, everything is answered at once.
    begun: bool,
    kept: Vec<Kept>,
    /// The version of every KEK.
    version: u32,
    /// The second that was last asked in, and how much was answered in it.
    second: (u64, u32),
    counts: Counts,
    /// Requests that arrived, by second since the beginning.
    seconds: Vec<u32>,
}

struct Kept {
    kek: KekName,
    context: KmsContext,
    payload: Secret<64>,
}

/// Which KEK it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KekName {
    /// One of those that wrap the root, from 0.
    Root(usize),
    /// That of an isolated tenant.
    Tenant(usize),
}

/// Requests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Answered requests to wrap.
    pub(crate) wraps: u64,
    /// Answered requests to unwrap.
    pub(crate) unwraps: u64,
    /// Requests beyond the quota.
    pub(crate) throttled: u64,
    /// Requests in the outage.
    pub(crate) lost: u64,
}

impl Counts {
    /// Requests that were answered otherwise than with a refusal to work.
    pub(crate) fn answered(&self) -> u64 {
        self.wraps + self.unwraps
    }
}

impl Service {
    pub(crate) fn new(time: VirtualTime, model: KeyService, outage: Option<Outage>) -> Arc<Self> {
        let state = Mutex::new(State { version: 1, ..State::default() });
        Arc::new(Self { time, model, outage, state })
    }

    /// From now on everything takes its time and is counted.
    pub(crate) fn begin(&self) {
        let mut state = self.state();
        (state.begun, state.counts) = (true, Counts::default());
    }

    pub(crate) fn quota_per_second(&self) -> u32 {
        self.model.quota_per_second
    }

    /// Gives every KEK a new version, under which from now on is wrapped.
    pub(crate) fn rotate_keks(&self) {
        self.state().version += 1;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Requests that arrived in each second so far, throttled and lost ones included.
    pub(crate) fn seconds(&self) -> Vec<u32> {
        self.state().seconds.clone()
    }

    /// What happens to one request, and how long it takes.
    async fn attempt(&self, kek: KekName, trace: Option<&KmsTrace>) -> Attempt<()> {
        if let Some(trace) = trace {
            trace.request_sent();
        }
        let now = self.time.now();
        let is_away = self.outage.as_ref().is_some_and(|outage| {
            let keks_away = match kek {
                KekName::Root(number) => number < outage.keks,
                KekName::Tenant(_) => outage.keks == self.model.keks,
            };
            keks_away && (outage.start..outage.end()).contains(&now)
        });
        let is_throttled = {
            let mut state = self.state();
            if !state.begun {
                return Ok(());
            }
            let second = now.as_secs();
            let place = usize::try_from(second).unwrap_or(usize::MAX);
            if state.seconds.len() <= place {
                state.seconds.resize(place + 1, 0);
            }
            state.seconds[place] += 1;
            if state.second.0 != second {
                state.second = (second, 0);
            }
            let is_throttled = !is_away && state.second.1 >= self.model.quota_per_second;
            state.counts.lost += u64::from(is_away);
            state.counts.throttled += u64::from(is_throttled);
            state.second.1 += u32::from(!is_away && !is_throttled);
            is_throttled
        };
        if is_away {
            if self.outage.as_ref().is_some_and(|outage| outage.silent) {
                self.time.sleep(Duration::MAX).await;
            }
            return Err(Failure::new(KmsErrorKind::Unavailable, "the simulated service is away"));
        }
        self.time.sleep(self.model.latency).await;
        if is_throttled {
            return Err(Failure::new(KmsErrorKind::Throttled, "the quota of the simulated service is used up"));
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half way through a change, so a poisoned lock is still good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One KEK of the service.
pub(crate) struct Kek {
    pub(crate) service: Arc<Service>,
    pub(crate) name: KekName,
}

impl Adapter for Kek {
    fn label(&self) -> &'static str {
        "simulated"
    }

    fn wrap<'a>(&'a self, request: WrapRequest<'a>) -> BoxFuture<'a, Attempt<WrappedKey>> {
        Box::pin(async move {
            self.service.attempt(self.name, request.trace).await?;
            let payload = Secret::with(|copy: &mut [u8; 64]| copy.copy_from_slice(request.payload.expose()));
            let mut state = self.service.state();
            state.counts.wraps += 1;
            state.kept.push(Kept { kek: self.name, context: request.context.clone(), payload });
            let number = state.kept.len() as u64 - 1;
            Ok(WrappedKey { kek_version: state.version.to_string(), bytes: number.to_be_bytes().to_vec() })
        })
    }

    fn unwrap<'a>(&'a self, request: UnwrapRequest<'a>) -> BoxFuture<'a, Attempt<Secret<64>>> {
        Box::pin(async move {
            self.service.attempt(self.name, request.trace).await?;
            let mut state = self.service.state();
            state.counts.unwraps += 1;
            let number = <[u8; 8]>::try_from(&*request.wrapped.bytes).ok().map(u64::from_be_bytes);
            let place = number.and_then(|number| usize::try_from(number).ok());
            let kept = place.and_then(|place| state.kept.get(place));
            match kept.filter(|kept| kept.kek == self.name && kept.context == *request.context) {
                Some(kept) => Ok(Secret::with(|copy: &mut [u8; 64]| copy.copy_from_slice(kept.payload.expose()))),
                None => Err(Failure::new(KmsErrorKind::InvalidCiphertext, "the simulated service did not wrap this")),
            }
        })
    }
}
