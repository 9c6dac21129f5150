//! Work that may block, apart from the thread that all key services share.

use crate::layer::Failure;
use crate::per_process::PerProcess;
use keyfold::KmsErrorKind;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

/// Where a KEK waits for what should not block and does. One thing at a time: however many operations give up on a file
/// that hangs, it holds one thread.
pub(crate) struct Apart(PerProcess<Semaphore>);

impl Apart {
    pub(crate) const fn new() -> Self {
        Self(PerProcess::new())
    }

    /// Runs `work`, without a log, on a thread where it may block. It ends at its next await once nobody waits for it any more.
    // KC-2.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Failure> {
        const BROKE: Failure = Failure::new(KmsErrorKind::Unavailable, "the search for credentials broke off");
        let Ok(turns) = self.0.get(|| Ok::<_, Infallible>(Semaphore::new(1)));
        let turn = turns.acquire_owned().await.map_err(|_| BROKE)?;
        let (mut sender, receiver) = oneshot::channel();
        let runtime = Handle::current();
        runtime.clone().spawn_blocking(move || {
            // Held by the thread, not by who waits for it.
            let _turn = turn;
            let mut work = pin!(work);
            let done = poll_fn(|cx| match sender.poll_closed(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => work.as_mut().poll(cx).map(Some),
            });
            if let Some(done) = runtime.block_on(done.with_subscriber(Dispatch::none())) {
                // Whoever has gone away meanwhile does not need it.
                let _ = sender.send(done);
            }
        });
        receiver.await.map_err(|_| BROKE)
    }
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apart").finish_non_exhaustive()
    }
}
