//! Virtual time, and tasks that live in it. A second passes when nobody has anything left to do in the one before.

use crate::random::Random;
use keyfold::{BoxFuture, Clock};
use keyfold_kms::layer::Timer;
use keyfold_store::MemoryStore;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A clock that stands still until it is moved. Clones are handles of the same clock.
#[derive(Clone)]
pub(crate) struct VirtualTime(Arc<Shared>);

struct Shared {
    /// Nanoseconds.
    now: AtomicU64,
    state: Mutex<State>,
    /// Follows, in whole seconds.
    store: MemoryStore,
    /// What the store shows at zero, in seconds since 1970.
    store_zero: u64,
}

struct State {
    random: Random,
    /// By time, and by number where times are the same.
    timers: BTreeMap<(u64, u64), Waker>,
    numbers: u64,
}

impl VirtualTime {
    /// A clock at zero. The store's follows it, from `store_zero` seconds since 1970.
    pub(crate) fn new(random: Random, store: MemoryStore, store_zero: u64) -> Self {
        let state = State { random, timers: BTreeMap::new(), numbers: 0 };
        let time = Self(Arc::new(Shared { now: AtomicU64::new(0), state: Mutex::new(state), store, store_zero }));
        time.set(0);
        time
    }

    fn set(&self, now: u64) {
        self.0.now.store(now, Ordering::Relaxed);
        self.0.store.set_now(self.0.store_zero + now / 1_000_000_000);
    }

    fn nanos(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Moves the clock to the next timer up to `limit`, and wakes who waits for it.
    fn wake_next(&self, limit: u64) -> bool {
        let first = {
            let mut state = self.state();
            let Some(entry) = state.timers.first_entry().filter(|entry| entry.key().0 <= limit) else { return false };
            entry.remove_entry()
        };
        let ((at, _), waker) = first;
        self.set(at.max(self.nanos()));
        waker.wake();
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half way through a change, so a poisoned lock is still good.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualTime {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    fn jitter(&self) -> u64 {
        self.state().random.next()
    }
}

impl Timer for VirtualTime {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let until = self.nanos().saturating_add(nanos(time));
        let mut state = self.state();
        state.numbers += 1;
        Box::pin(Sleep { time: self.clone(), key: (until, state.numbers) })
    }
}

struct Sleep {
    time: VirtualTime,
    key: (u64, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.nanos() >= self.key.0 {
            return Poll::Ready(());
        }
        self.time.state().timers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.state().timers.remove(&self.key);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs tasks, one at a time and in an order that repeats itself.
pub(crate) struct Tasks {
    time: VirtualTime,
    ready: Arc<Mutex<VecDeque<usize>>>,
    tasks: Vec<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    free: Vec<usize>,
}

struct Ready {
    task: usize,
    queue: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

impl Tasks {
    pub(crate) fn new(time: VirtualTime) -> Self {
        Self { time, ready: Arc::default(), tasks: Vec::new(), free: Vec::new() }
    }

    /// Begins `task`, and goes on with it whenever it is woken.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.tasks.push(None);
            self.tasks.len() - 1
        });
        self.tasks[place] = Some(Box::pin(task));
        self.poll(place);
    }

    /// Lets time pass until `end`.
    pub(crate) fn run_until(&mut self, end: Duration) {
        let end = nanos(end);
        loop {
            while let Some(task) = self.next_ready() {
                self.poll(task);
            }
            if !self.time.wake_next(end) {
                break;
            }
        }
        if end > self.time.nanos() {
            self.time.set(end);
        }
    }

    fn next_ready(&self) -> Option<usize> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// A task that is woken late, when it has ended and another stands in its place, costs that one a look more.
    fn poll(&mut self, place: usize) {
        let Some(task) = self.tasks[place].as_mut() else { return };
        let waker = Waker::from(Arc::new(Ready { task: place, queue: self.ready.clone() }));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks[place] = None;
            self.free.push(place);
        }
    }
}

/// Runs `work` alone, and lets as much time pass as it waits for.
///
/// # Panics
///
/// If it waits for something that is no timer.
pub(crate) fn run_alone<T>(time: &VirtualTime, work: impl Future<Output = T>) -> T {
    let queue = Arc::<Mutex<VecDeque<usize>>>::default();
    let waker = Waker::from(Arc::new(Ready { task: 0, queue: queue.clone() }));
    let mut work = std::pin::pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        let woken = !std::mem::take(&mut *queue.lock().unwrap_or_else(PoisonError::into_inner)).is_empty();
        assert!(woken || time.wake_next(u64::MAX), "everything waits for a timer");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn time() -> VirtualTime {
        VirtualTime::new(Random::new(1), MemoryStore::new(), 1000)
    }

    #[test]
    fn tasks_go_on_in_the_order_of_their_timers() {
        let (time, log) = (time(), Rc::new(RefCell::new(Vec::new())));
        let mut tasks = Tasks::new(time.clone());
        for (name, seconds) in [("c", 3), ("a", 1), ("b", 1), ("d", 9)] {
            let (time, log) = (time.clone(), log.clone());
            tasks.spawn(async move {
                time.sleep(Duration::from_secs(seconds)).await;
                log.borrow_mut().push((name, time.now().as_secs()));
            });
        }
        tasks.run_until(Duration::from_secs(5));
        assert_eq!(*log.borrow(), [("a", 1), ("b", 1), ("c", 3)]);
        assert_eq!(time.now(), Duration::from_secs(5));
        assert_eq!(time.state().timers.len(), 1);
        drop(tasks);
        assert_eq!(time.state().timers.len(), 0, "who is not waited for any more leaves");
    }

    #[test]
    fn work_alone_takes_the_time_that_it_waits_for() {
        let time = time();
        let done = run_alone(&time, async {
            time.sleep(Duration::from_millis(2500)).await;
            7
        });
        assert_eq!((done, time.now()), (7, Duration::from_millis(2500)));
        let store = pollster::block_on(keyfold::KeyStore::now(&time.0.store)).expect("a clock");
        assert_eq!(store, 1002, "the store's clock follows");
    }
}
