//! The clock by which keys age in memory (DESIGN K17). Times in key records come from the store instead.

use std::time::Duration;

/// A clock that never goes back and goes on while the machine sleeps. Its zero is anywhere.
pub trait Clock: Send + Sync {
    /// The time since the clock's zero.
    fn now(&self) -> Duration;
}

/// The machine's clock: `CLOCK_BOOTTIME` where there is one, so that a laptop or gateway that slept for a night does
/// not go on with last evening's keys. Setting the wall clock does not change it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // Elsewhere, as on macOS, the monotonic clock is the one that counts sleep.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let id = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let id = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(id);
        Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
    }
}

/// `time` in nanoseconds, the form in which it is kept in atomics. Saturates after 584 years.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
