//! This machine's own clock, used for durations only. It includes the time during which the machine was suspended, so
//! that what an instance knew before a suspension is old afterwards.
//!
//! It never compares with a clock of another machine, nor with the source's moments.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since this machine booted. It means nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime(Duration);

impl LocalTime {
    /// The current time.
    #[must_use]
    pub fn now() -> Self {
        // On other systems, the monotonic clock includes suspended time.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let now = clock_gettime(clock);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// The time at this distance from the clock's start.
    #[must_use]
    pub fn after_start(time: Duration) -> Self {
        Self(time)
    }

    /// The time that is earlier by `time`, but not before the clock's start.
    #[must_use]
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The time that is later by `time`.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// The duration since `earlier`; zero if `earlier` is later than this time.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_advances_and_since_is_never_negative() {
        let before = LocalTime::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(LocalTime::now().since(before) >= Duration::from_millis(2));
        assert_eq!(before.since(LocalTime::now()), Duration::ZERO);
    }
}
