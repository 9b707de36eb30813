//! The clock by which leases are counted: it never steps, and goes on while the machine is suspended.
//!
//! [`std::time::Instant`] stops during a suspension on Linux, so a node that wakes up would still believe in its lease.

use std::time::Duration;

/// A moment, in nanoseconds since the machine started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTime(u64);

impl BootTime {
    /// Reads the clock.
    pub(crate) fn now() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let clock = rustix::time::ClockId::Boottime;
        // On macOS this one goes on during sleep; elsewhere nothing better is known.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        Self::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the moment `by` later.
    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Returns how long it is until `later`; nothing when that has passed.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let before = BootTime::now();
        assert!(before.as_nanos() > 0);
        assert!(BootTime::now() >= before);
        let later = before.plus(Duration::from_secs(1));
        assert_eq!((before.until(later), later.until(before)), (Duration::from_secs(1), Duration::ZERO));
    }
}
