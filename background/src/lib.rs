//! One thread of our own that does the network I/O of key stores and key services, so that they work under any executor,
//! inside a runtime and outside.
//!
//! A handle or pool of the parent must not be used, nor dropped, in a forked child: its thread is gone, and its sockets
//! and its epoll descriptor are shared with the parent. So the child makes a new thread, and leaks the old one's remains.
//!
//! What passes through here has keys in clear, in buffers of others that erase nothing. So these threads have chosen that what they free is
//! erased, where the program has the allocator for it ([`keyfold_memory::ErasingAllocator`]).

#![forbid(unsafe_code)]

use arc_swap::ArcSwapOption;
use keyfold::{Error, ErrorKind, Result};
use keyfold_memory::erase_what_this_thread_frees;
use std::future::Future;
use std::sync::{Arc, mpsc};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

struct Background {
    process: u32,
    handle: Handle,
    /// Dropped, it ends the thread.
    _running: oneshot::Sender<()>,
}

impl Background {
    fn start() -> Result<Self> {
        let failed = |error| {
            Error::new(ErrorKind::Store, "cannot start the thread that reaches key stores and key services")
                .with_source(error)
        };
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // Threads for what blocks, such as an HSM or a file of credentials.
            .on_thread_start(erase_what_this_thread_frees)
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        // The runtime lives and dies on its thread: dropping one inside another runtime panics.
        let run = move || {
            erase_what_this_thread_frees();
            drop(runtime.block_on(ended));
        };
        std::thread::Builder::new().name("keyfold-io".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { process: std::process::id(), handle, _running: running })
    }
}

/// The runtime of this process.
///
/// # Errors
///
/// - [`Store`](ErrorKind::Store): the operating system gives no thread or no descriptor.
pub fn handle() -> Result<Handle> {
    // No lock: after a fork, a lock that another thread of the parent held would never be free again.
    static SHARED: ArcSwapOption<Background> = ArcSwapOption::const_empty();
    loop {
        let current = SHARED.load_full();
        match &current {
            Some(background) if background.process == std::process::id() => return Ok(background.handle.clone()),
            _ => {}
        }
        let new = Arc::new(Background::start()?);
        drop(SHARED.compare_and_swap(&current, Some(new)));
        // What a parent left is never dropped here.
        std::mem::forget(current);
    }
}

/// Runs `work` on the thread and waits for it in any executor. It goes on to its end if nobody waits any more.
///
/// # Errors
///
/// - Those of `work` and of [`handle`]. - [`Internal`](ErrorKind::Internal): `work` panicked.
pub async fn run<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    handle()?.spawn(work).await.map_err(|error| stopped().with_source(error))?
}

/// As [`run`], and blocks the calling thread meanwhile; allowed inside a runtime as well.
///
/// # Errors
///
/// As for [`run`].
pub fn block<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    handle()?.spawn(async move {
        // Nobody has gone away: the receiver is below.
        let _ = sender.send(work.await);
    });
    receiver.recv().map_err(|error| stopped().with_source(error))?
}

const fn stopped() -> Error {
    Error::new(ErrorKind::Internal, "work in the background ended without a result")
}
