//! Whether work that timed out was looked at: one atomic between the caller's timer and the actor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::error::NotAttempted;

const WAITING: u8 = 0;
const STARTED: u8 = 1;
const ABANDONED: u8 = 2;

/// Decides, between the caller's timer and the actor, whether a job was looked at.
#[derive(Debug)]
pub(crate) struct Ticket {
    state: AtomicU8,
    deadline: Instant,
}

impl Ticket {
    pub(crate) fn new(deadline: Instant) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(WAITING), deadline })
    }

    /// The caller gives up; `true` when nobody has looked at the job and nobody will.
    pub(crate) fn abandon(&self) -> bool {
        self.become_state(ABANDONED) != STARTED
    }

    /// The actor takes the job; an error when the caller has gone or the deadline has passed.
    pub(super) fn start(&self) -> Result<(), NotAttempted> {
        if Instant::now() >= self.deadline {
            self.abandon();
        }
        if self.become_state(STARTED) == ABANDONED { Err(NotAttempted::DeadlineExceeded) } else { Ok(()) }
    }

    /// Moves on from `WAITING`; returns the state before.
    fn become_state(&self, state: u8) -> u8 {
        match self.state.compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire) {
            Ok(before) | Err(before) => before,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn either_the_caller_gives_up_or_the_work_starts() {
        let later = Instant::now() + Duration::from_hours(1);
        let ticket = Ticket::new(later);
        assert_eq!(ticket.start(), Ok(()));
        assert!(!ticket.abandon(), "it has started");
        let ticket = Ticket::new(later);
        assert!(ticket.abandon());
        assert_eq!(ticket.start(), Err(NotAttempted::DeadlineExceeded));
    }

    #[test]
    fn work_whose_deadline_has_passed_does_not_start() {
        let ticket = Ticket::new(Instant::now());
        assert_eq!(ticket.start(), Err(NotAttempted::DeadlineExceeded));
        assert!(ticket.abandon());
    }
}
