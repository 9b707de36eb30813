//! Until when a lease is believed in, and when it is renewed. A decision file: the time comes in as an argument.
//!
//! The store counts a lease from when it got the renewal, by its own clock. The holder counts from before it *sent* it,
//! and ends a margin earlier, so it always stops answering before anybody else may begin: by at least the time that the
//! message took, plus the margin, as long as the two clocks drift apart by less than the margin within one lease.

use std::time::Duration;

use super::boottime::BootTime;

/// The part of a lease that the holder does not use: a tenth, where clocks drift by a ten-thousandth at worst. It also
/// covers an answer on its way out while the lease ends.
const MARGIN: u32 = 10;

/// How many renewals fall into a lease: two may fail before anybody notices.
const RENEWALS: u32 = 3;

/// How many attempts fall into a lease while the store does not answer.
const ATTEMPTS: u32 = 12;

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The store has extended the lease.
    Extended,
    /// Somebody else took over; this run will not get its shards back.
    Deposed,
    /// Nobody knows. The lease may have been extended; it is not believed in for longer than before.
    NoAnswer,
}

/// The lease of one run of a node, as its holder sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    length: Duration,
    until: Option<BootTime>,
}

impl Lease {
    pub(crate) fn new(length: Duration) -> Self {
        Self { length, until: None }
    }

    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// Takes in what came of a renewal that was sent at a time. Returns how long to wait before the next one, or `None`
    /// when there is nothing left to renew.
    pub(crate) fn on_renewal(&mut self, sent: BootTime, renewal: Renewal) -> Option<Duration> {
        match renewal {
            Renewal::Extended => {
                let until = sent.plus(self.length.saturating_sub(self.length / MARGIN));
                self.until = Some(self.until.map_or(until, |before| before.max(until)));
                Some(self.length / RENEWALS)
            }
            Renewal::NoAnswer => Some(self.length / ATTEMPTS),
            Renewal::Deposed => {
                self.until = None;
                None
            }
        }
    }

    /// Returns the moment from which the lease is not believed in any more; `None` when it never was.
    pub(crate) fn until(&self) -> Option<BootTime> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIX: Duration = Duration::from_secs(6);

    fn at(millis: u64) -> BootTime {
        BootTime::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_lease_counts_from_before_it_was_sent_and_ends_early() {
        let mut lease = Lease::new(SIX);
        assert_eq!(lease.until(), None);
        assert_eq!(lease.on_renewal(at(1_000), Renewal::Extended), Some(Duration::from_secs(2)));
        assert_eq!(lease.until(), Some(at(6_400)));
    }

    #[test]
    fn a_renewal_without_an_answer_extends_nothing_and_is_repeated_soon() {
        let mut lease = Lease::new(SIX);
        lease.on_renewal(at(1_000), Renewal::Extended);
        assert_eq!(lease.on_renewal(at(3_000), Renewal::NoAnswer), Some(Duration::from_millis(500)));
        assert_eq!(lease.until(), Some(at(6_400)));
    }

    #[test]
    fn an_answer_that_comes_out_of_order_takes_nothing_back() {
        let mut lease = Lease::new(SIX);
        lease.on_renewal(at(3_000), Renewal::Extended);
        lease.on_renewal(at(1_000), Renewal::Extended);
        assert_eq!(lease.until(), Some(at(8_400)));
    }

    #[test]
    fn a_run_that_was_deposed_has_nothing_to_renew() {
        let mut lease = Lease::new(SIX);
        lease.on_renewal(at(1_000), Renewal::Extended);
        assert_eq!(lease.on_renewal(at(2_000), Renewal::Deposed), None);
        assert_eq!(lease.until(), None);
    }
}
