//! When something was done to a node, so that what it caused is told from what it should not.
//!
//! A kill lasts from the signal until all shards of the node answer elsewhere, a pause until they do after the node goes
//! on. Errors that a client hears meanwhile are excused; any other one counts. A rolling restart is no fault: it excuses
//! nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The faults of a run.
#[derive(Debug, Default)]
pub(super) struct Faults {
    begun: AtomicU64,
    ended: AtomicU64,
    rolling: AtomicBool,
}

/// A moment, as far as faults care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    begun: u64,
    ended: u64,
}

impl Faults {
    /// A fault begins.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The fault that began last has been overcome.
    pub(super) fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Returns this moment.
    pub(super) fn now(&self) -> Moment {
        // In this order: a fault that ends in between is seen as one that lasts, which excuses more and never less.
        let ended = self.ended.load(Ordering::SeqCst);
        Moment { begun: self.begun.load(Ordering::SeqCst), ended }
    }

    /// Tells whether there was a fault at some time since a moment.
    pub(super) fn any_since(&self, moment: Moment) -> bool {
        moment.begun != moment.ended || self.now().begun != moment.begun
    }

    /// A rolling restart begins or ends.
    pub(super) fn set_rolling(&self, rolling: bool) {
        self.rolling.store(rolling, Ordering::Relaxed);
    }

    /// Tells whether a rolling restart is under way.
    pub(super) fn rolling(&self) -> bool {
        self.rolling.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_a_fault_is_excused_and_nothing_else() {
        let faults = Faults::default();
        let before = faults.now();
        assert!(!faults.any_since(before), "nothing has happened");
        faults.begin();
        assert!(faults.any_since(before), "it began meanwhile");
        let during = faults.now();
        faults.end();
        assert!(faults.any_since(before) && faults.any_since(during), "it is over, and was there");
        assert!(!faults.any_since(faults.now()), "what is sent after it is on its own");
    }

    #[test]
    fn a_rolling_restart_excuses_nothing() {
        let faults = Faults::default();
        let before = faults.now();
        faults.set_rolling(true);
        assert!(faults.rolling() && !faults.any_since(before));
    }
}
