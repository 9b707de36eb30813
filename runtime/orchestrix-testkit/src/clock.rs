//! A clock that moves when told.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orchestrix_core::{Clock, Timestamp};

/// A [`Clock`] that stands still until a test moves it. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use orchestrix_core::{Clock, Timestamp};
/// use orchestrix_testkit::TestClock;
///
/// let clock = TestClock::at("2026-01-31T12:00:00Z".parse()?);
/// let seen_by_the_node = clock.clone();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(seen_by_the_node.now(), "2026-01-31T12:01:30Z".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    /// Makes a clock that shows this moment.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_micros())))
    }

    /// Sets the clock; back is allowed, as wall clocks step back too.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let step = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let later = |now: i64| Some(now.saturating_add(step));
        let _previous = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }
}

impl Default for TestClock {
    /// Shows the first moment of 2026.
    fn default() -> Self {
        Self::at(Timestamp::from_micros(1_767_225_600_000_000))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_until_told_and_may_step_back() {
        let clock = TestClock::default();
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00.000000Z");
        clock.advance(Duration::from_micros(7));
        assert_eq!(clock.now().to_string(), "2026-01-01T00:00:00.000007Z");
        clock.set(Timestamp::from_micros(5));
        assert_eq!(clock.now(), Timestamp::from_micros(5));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), Timestamp::from_micros(i64::MAX));
    }
}
