//! What must not be shared with a forked child: sockets, sessions, and locks that another thread of the parent may hold.

use arc_swap::ArcSwapOption;
use std::sync::Arc;

/// A value that each process makes for itself, when it is first asked for. A child makes its own and leaks its parent's,
/// because dropping that would shut connections that the parent uses.
// KC-6.
pub(crate) struct PerProcess<T> {
    // No lock: after a fork, a lock that another thread of the parent held would never be free again.
    slot: ArcSwapOption<Slot<T>>,
}

struct Slot<T> {
    process: u32,
    value: Arc<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self { slot: ArcSwapOption::const_empty() }
    }

    /// The value of this process. Where two threads make it at once, both get the first one.
    pub(crate) fn get<E>(&self, make: impl Fn() -> Result<T, E>) -> Result<Arc<T>, E> {
        loop {
            let current = self.slot.load_full();
            match &current {
                Some(slot) if slot.process == std::process::id() => return Ok(Arc::clone(&slot.value)),
                _ => {}
            }
            let new = Arc::new(Slot { process: std::process::id(), value: Arc::new(make()?) });
            drop(self.slot.compare_and_swap(&current, Some(new)));
            std::mem::forget(current);
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.swap(None)
            && slot.process != std::process::id()
        {
            std::mem::forget(slot);
        }
    }
}
