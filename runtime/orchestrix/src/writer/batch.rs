//! Which of the waiting commits travel together. A decision file: no clock, no channel, no `.await`.
//!
//! Natural batching: whatever queued up while the last append was under way goes next, up to the limits.
//! Nothing is held back to make a batch larger.

use std::collections::VecDeque;

/// What one append may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchLimits {
    /// Events.
    pub(crate) events_max: usize,
    /// Bytes, by the measure of the items.
    pub(crate) bytes_max: usize,
}

/// Something that takes room in a batch.
pub(crate) trait Weighed {
    /// Returns its events and bytes.
    fn size(&self) -> (usize, usize);
}

/// Returns how many items from the front of the queue make the next batch: at least one, also when that one is over
/// a limit.
pub(crate) fn next<T: Weighed>(queue: &VecDeque<T>, limits: BatchLimits) -> usize {
    let (mut events, mut bytes, mut count) = (0, 0, 0);
    for item in queue {
        let (more_events, more_bytes) = item.size();
        events += more_events;
        bytes += more_bytes;
        if count > 0 && (events > limits.events_max || bytes > limits.bytes_max) {
            break;
        }
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weighed for (usize, usize) {
        fn size(&self) -> (usize, usize) {
            *self
        }
    }

    const LIMITS: BatchLimits = BatchLimits { events_max: 4, bytes_max: 100 };

    fn batches(items: &[(usize, usize)]) -> Vec<usize> {
        let mut queue: VecDeque<_> = items.iter().copied().collect();
        let mut sizes = Vec::new();
        while !queue.is_empty() {
            let count = next(&queue, LIMITS);
            queue.drain(..count);
            sizes.push(count);
        }
        sizes
    }

    #[test]
    fn everything_that_fits_travels_together() {
        assert_eq!(batches(&[(1, 10), (1, 10), (2, 10)]), [3]);
    }

    #[test]
    fn either_limit_closes_a_batch() {
        assert_eq!(batches(&[(2, 1), (2, 1), (1, 1)]), [2, 1]);
        assert_eq!(batches(&[(1, 60), (1, 40), (1, 1)]), [2, 1]);
    }

    #[test]
    fn what_is_over_a_limit_travels_alone() {
        assert_eq!(batches(&[(9, 1), (1, 500), (1, 1)]), [1, 1, 1]);
    }

    #[test]
    fn an_empty_queue_gives_an_empty_batch() {
        assert_eq!(next(&VecDeque::<(usize, usize)>::new(), LIMITS), 0);
    }
}
