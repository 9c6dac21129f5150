//! What the layer waits by: the timers of tokio, or those of a simulation.

use keyfold::{BoxFuture, Clock};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// A clock that one can wait by, such as the virtual one of a simulation. Its jitter spreads pauses between attempts.
pub trait Timer: Clock {
    /// Ends when so much time has passed.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

#[derive(Clone)]
pub(super) enum Time {
    /// Of the tokio runtime in which the operation runs.
    Runtime,
    /// Of a timer, whose zero is counted as this instant.
    Timer { timer: Arc<dyn Timer>, zero: Instant },
}

impl Time {
    pub(super) fn of(timer: Arc<dyn Timer>) -> Self {
        Self::Timer { timer, zero: Instant::now() }
    }

    pub(super) fn now(&self) -> Instant {
        match self {
            Self::Runtime => Instant::now(),
            Self::Timer { timer, zero } => *zero + timer.now(),
        }
    }

    pub(super) async fn sleep(&self, time: Duration) {
        match self {
            Self::Runtime => tokio::time::sleep(time).await,
            Self::Timer { .. } if time.is_zero() => {}
            Self::Timer { timer, .. } => timer.sleep(time).await,
        }
    }

    /// What `work` ends with, or `None` if it does not end before `end`.
    pub(super) async fn timeout_at<T>(&self, end: Instant, work: impl Future<Output = T>) -> Option<T> {
        match self {
            Self::Runtime => tokio::time::timeout_at(end, work).await.ok(),
            Self::Timer { timer, .. } => {
                let mut work = pin!(work);
                let mut alarm = timer.sleep(end.saturating_duration_since(self.now()));
                poll_fn(|context| match work.as_mut().poll(context) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending => alarm.as_mut().poll(context).map(|()| None),
                })
                .await
            }
        }
    }

    /// For the jitter. Without the system's generator everybody waits longest.
    pub(super) fn random(&self) -> u32 {
        match self {
            Self::Runtime => {
                let mut bytes = [0xFF; 4];
                let _ = getrandom::fill(&mut bytes);
                u32::from_le_bytes(bytes)
            }
            // The upper half: generators from a seed are best there.
            Self::Timer { timer, .. } => (timer.jitter() >> 32) as u32,
        }
    }
}
