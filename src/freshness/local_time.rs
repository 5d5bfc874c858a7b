//! The instance's own clock, for durations. It counts the time that the machine was suspended, so that what was known before
//! a sleep is old after it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A reading of the machine's clock since it booted. Means nothing on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalTime(Duration);

impl LocalTime {
    /// The time now.
    #[must_use]
    pub fn now() -> Self {
        // Elsewhere the monotonic clock is the one that counts suspended time.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = ClockId::Monotonic;
        let now = clock_gettime(clock);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    /// The time so long after the clock began.
    #[must_use]
    pub fn after_start(time: Duration) -> Self {
        Self(time)
    }

    /// The time so much earlier, at least the clock's beginning.
    #[must_use]
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The time so much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// How long it is since `earlier`; nothing if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_passes() {
        let before = LocalTime::now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(LocalTime::now().since(before) >= Duration::from_millis(2));
        assert_eq!(before.since(LocalTime::now()), Duration::ZERO);
    }
}
