//! ◇ How long a lane waits before it tries to connect again.

use std::time::Duration;

/// The first pause.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause: a peer that comes back is found again within this time and a half.
const LONGEST: Duration = Duration::from_secs(1);

/// Grows with every failure in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A connection was made.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// An attempt failed. Returns the pause: doubled each time, and by `chance` up to half as long again, so that many
    /// lanes that lost the same peer do not come back to it in step.
    pub(super) fn next(&mut self, chance: u16) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        pause + pause.mul_f64(f64::from(chance) / f64::from(u16::MAX) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..7).map(|_| backoff.next(0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.next(0), FIRST);
    }

    #[test]
    fn chance_adds_up_to_a_half() {
        assert_eq!(Backoff::default().next(u16::MAX), FIRST + FIRST / 2);
        let mut backoff = Backoff { failures: u32::MAX };
        assert_eq!(backoff.next(u16::MAX), LONGEST + LONGEST / 2);
    }
}
