//! The clock by which keys age in memory (DESIGN K17). Times in key records come from the store instead.

use crate::random;
use std::time::Duration;

/// A clock that never goes back and goes on while the machine sleeps. Its zero is anywhere.
pub trait Clock: Send + Sync {
    /// The time since the clock's zero.
    fn now(&self) -> Duration;

    /// 64 bits by which moments of renewal are spread, so that keys and processes that started together drift apart. No secret:
    /// by default from the operating system, and 0 where its generator fails, which only costs the drift. A simulation that is to
    /// repeat itself takes them from a seed.
    fn jitter(&self) -> u64 {
        random::array().map_or(0, u64::from_be_bytes)
    }
}

/// The machine's clock: `CLOCK_BOOTTIME` where there is one, so that a laptop or gateway that slept for a night does
/// not go on with last evening's keys. Setting the time of day does not change it. Read once per timer tick and thread,
/// so it may lag by a few milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn now(&self) -> Duration {
        use rustix::time::ClockId::{Boottime, MonotonicCoarse};
        use std::cell::Cell;
        // The exact clock stops the processor's pipeline, which costs a tenth of opening a value; the coarse one is a
        // load, and ticks soon after waking up too.
        thread_local!(static LAST: Cell<(Duration, Duration)> = const { Cell::new((Duration::MAX, Duration::ZERO)) });
        let tick = read(MonotonicCoarse);
        LAST.with(|last| {
            if last.get().0 != tick {
                last.set((tick, read(Boottime)));
            }
            last.get().1
        })
    }

    // Elsewhere, as on macOS, the monotonic clock is the one that counts sleep.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn now(&self) -> Duration {
        read(rustix::time::ClockId::Monotonic)
    }
}

fn read(clock: rustix::time::ClockId) -> Duration {
    let now = rustix::time::clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// `time` in nanoseconds, the form in which it is kept in atomics. Saturates after 584 years.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    // Failure B7
    #[test]
    fn the_system_clock_goes_on_and_never_back() {
        // The machine may leave this thread alone at any place.
        let outer = Instant::now();
        let start = SystemClock.now();
        let inner = Instant::now();
        let mut last = start;
        while inner.elapsed() < Duration::from_millis(200) {
            let now = SystemClock.now();
            assert!(now >= last);
            last = now;
        }
        let least = inner.elapsed();
        let passed = SystemClock.now() - start;
        let (most, lag) = (outer.elapsed(), Duration::from_millis(50));
        assert!(passed + lag > least && passed < most + lag, "{least:?}, {passed:?}, {most:?}");
    }

    // Failure B8
    #[test]
    fn times_beyond_584_years_saturate() {
        assert_eq!(nanos(Duration::MAX), u64::MAX);
        assert_eq!(nanos(Duration::new(1, 2)), 1_000_000_002);
    }
}
