//! What the adapters share that use a provider's SDK. An SDK signs and parses; everything else is ours: its requests go
//! through the one [`Http`], it repeats nothing, and it logs nothing.

use crate::http::{Http, Request, Response, is_loopback, login_outage};
use crate::layer::Failure;
use crate::per_process::PerProcess;
use arc_swap::ArcSwap;
use keyfold::KmsTrace;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;
use url::Url;

tokio::task_local! {
    /// The trace of the operation that the SDK is working for.
    static TRACE: Arc<KmsTrace>;
    /// What is wrong with the place that was last asked for credentials, if it is that and not they.
    static OUTAGE: Arc<Mutex<Option<Failure>>>;
}

/// Runs what calls an SDK. Its requests are noted in `trace`, even if `work` is dropped. What the SDK and the crates below
/// it would log goes nowhere: at their finest levels they show whole answers, keys and all.
pub(crate) async fn quietly<T>(trace: Option<&KmsTrace>, work: impl Future<Output = T>) -> T {
    let noted = Noted { own: Arc::new(KmsTrace::new()), to: trace };
    if let Some(trace) = trace {
        noted.own.copy_from(trace);
    }
    TRACE.scope(Arc::clone(&noted.own), work).with_subscriber(Dispatch::none()).await
}

/// Runs what asks for credentials. Where a place that gives them is in trouble, the error is that, whatever the SDK makes of it.
pub(crate) async fn login<T, E>(
    work: impl Future<Output = Result<T, E>>,
    carry: impl FnOnce(Carried) -> E,
) -> Result<T, E> {
    let outage = Arc::default();
    let result = OUTAGE.scope(Arc::clone(&outage), work).await;
    let outage = outage.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (result, outage) {
        (Err(_), Some(outage)) => Err(carry(Carried(outage))),
        (result, _) => result,
    }
}

/// A task's value outlives the operation, whose trace is borrowed: so it gets a copy, and what it notes is copied back.
struct Noted<'a> {
    own: Arc<KmsTrace>,
    to: Option<&'a KmsTrace>,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        if let Some(to) = self.to {
            to.copy_from(&self.own);
        }
    }
}

/// How an SDK reaches its service, or the place that gives it credentials.
#[derive(Clone)]
pub(crate) struct Transport {
    http: Arc<Http>,
    purpose: Purpose,
}

/// What the requests of a [`Transport`] are for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// The operation. The answer names itself in the header.
    Service { request_id: &'static str },
    /// Credentials, perhaps from a metadata service.
    Login {
        /// The hosts of the provider that what proves an identity is sent to, with all below them; without them, any.
        /// Variables of the environment could else lead it elsewhere.
        hosts: Option<Arc<[String]>>,
    },
}

impl Purpose {
    /// What goes out without TLS, the client restricts.
    fn allows(&self, url: &str) -> bool {
        let Self::Login { hosts: Some(hosts) } = self else { return true };
        Url::parse(url).is_ok_and(|url| {
            let host = url.host_str().unwrap_or_default();
            let is_of = |name: &String| {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            url.scheme() == "http" || is_loopback(&url) || hosts.iter().any(is_of)
        })
    }
}

impl Transport {
    pub(crate) const fn new(http: Arc<Http>, purpose: Purpose) -> Self {
        Self { http, purpose }
    }

    pub(crate) async fn send<'a>(
        &self,
        method: &str,
        url: &str,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &[u8],
    ) -> Result<Response, Carried> {
        const ELSEWHERE: Failure = Failure::configuration(
            "a variable of the environment leads credentials to a host that is none of the provider's",
        );
        if !self.purpose.allows(url) {
            return Err(Carried(ELSEWHERE));
        }
        let is_login = matches!(self.purpose, Purpose::Login { .. });
        let request = Request::of_sdk(method, url, headers, body, is_login).map_err(Carried)?;
        match self.purpose {
            Purpose::Login { .. } => {
                let response = self.http.send(request, None).await.map_err(Carried)?;
                let outage = login_outage(response.status, response.retry_after());
                // The last answer counts: a second one may be a refusal.
                let _ = OUTAGE.try_with(|last| *last.lock().unwrap_or_else(PoisonError::into_inner) = outage);
                Ok(response)
            }
            Purpose::Service { request_id } => {
                let trace = TRACE.try_with(Arc::clone).ok();
                let response = self.http.send(request, trace.as_deref()).await.map_err(Carried)?;
                if let Some(id) = response.header(request_id) {
                    response.note_id(trace.as_deref(), id);
                }
                Ok(response)
            }
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

/// A failure of ours on its way through an SDK.
#[derive(Clone, Debug)]
pub(crate) struct Carried(pub(crate) Failure);

impl Carried {
    /// The one that an SDK's error was caused by.
    pub(crate) fn in_causes_of(error: &(dyn StdError + 'static)) -> Option<Failure> {
        let causes = std::iter::successors(Some(error), |&cause| cause.source());
        causes.filter_map(|cause| cause.downcast_ref::<Self>()).map(|carried| carried.0.clone()).next()
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Carried {}

/// An SDK's client with its cache of credentials: made when it is first needed, once per process, and again after its
/// credentials were refused.
pub(crate) struct Session<C>(PerProcess<ArcSwap<OnceCell<Arc<C>>>>);

impl<C> Session<C> {
    pub(crate) const fn new() -> Self {
        Self(PerProcess::new())
    }

    fn slot(&self) -> Arc<ArcSwap<OnceCell<Arc<C>>>> {
        let Ok(slot) = self.0.get(|| Ok::<_, Infallible>(ArcSwap::default()));
        slot
    }

    pub(crate) async fn get(&self, make: impl Future<Output = Result<C, Failure>>) -> Result<Arc<C>, Failure> {
        let cell = self.slot().load_full();
        cell.get_or_try_init(|| async { make.await.map(Arc::new) }).await.cloned()
    }

    /// The next one to ask gets a new client, unless somebody else has seen to that.
    pub(crate) fn forget(&self, used: &Arc<C>) {
        let slot = self.slot();
        let current = slot.load_full();
        if current.get().is_some_and(|client| Arc::ptr_eq(client, used)) {
            slot.compare_and_swap(&current, Arc::new(OnceCell::new()));
        }
    }
}
