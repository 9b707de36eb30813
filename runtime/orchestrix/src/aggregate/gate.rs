//! The output gate: answers that must not leave before what they saw is durable. A decision file.
//!
//! Answers of commands that stored events wait in the writer's lane with their commit. Everything else that was
//! decided on top of events in flight waits here: reads, refusals, replies without events, repeated replies.

use std::collections::VecDeque;

use orchestrix_core::Version;

use crate::error::NotAttempted;

/// An answer that waits: called once, when it may leave or when it never will.
pub(crate) type Output = Box<dyn FnOnce(Result<(), Withheld>)>;

/// Why an answer must not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Withheld {
    /// The events that it saw are not stored and never will be.
    Lost(NotAttempted),
    /// The aggregate ends while the events that it saw are on their way: they may yet be stored, or not.
    Undecided(NotAttempted),
    /// The node may not speak for the aggregate any more. What it saw may well be so.
    NotOurs(NotAttempted),
    /// The node's lease has ended. The aggregate may still be its own, and what it saw may well be so.
    Lapsed(NotAttempted),
}

impl From<Withheld> for NotAttempted {
    fn from(withheld: Withheld) -> Self {
        match withheld {
            Withheld::Lost(why)
            | Withheld::Undecided(why)
            | Withheld::NotOurs(why)
            | Withheld::Lapsed(why) => why,
        }
    }
}

/// Answers in the order in which they were decided; their versions never decrease.
#[derive(Default)]
pub(crate) struct Gate {
    waiting: VecDeque<(Version, Output)>,
}

impl Gate {
    /// Holds an answer back until `needs` is durable.
    pub(crate) fn hold(&mut self, needs: Version, output: Output) {
        debug_assert!(self.waiting.back().is_none_or(|(last, _)| *last <= needs), "answers come in order");
        self.waiting.push_back((needs, output));
    }

    /// Tells whether an answer waits for no more than this.
    pub(crate) fn has_due(&self, durable: Version) -> bool {
        self.waiting.front().is_some_and(|(needs, _)| *needs <= durable)
    }

    /// Lets out what has become durable, if the node may speak, and returns how many answers left.
    pub(crate) fn release(&mut self, durable: Version, leave: &Result<(), Withheld>) -> u32 {
        let mut released = 0;
        while self.has_due(durable) {
            let (_, output) = self.waiting.pop_front().expect("there is a front");
            output(leave.clone());
            released += 1;
        }
        released
    }

    /// Answers everything that is left with a failure and returns how many answers that were.
    pub(crate) fn fail(&mut self, why: &Withheld) -> u32 {
        let failed = self.waiting.len() as u32;
        for (_, output) in self.waiting.drain(..) {
            output(Err(why.clone()));
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    type Heard = Rc<RefCell<Vec<(u64, bool)>>>;

    fn gate(needs: &[u64]) -> (Gate, Heard) {
        let (mut gate, heard) = (Gate::default(), Rc::new(RefCell::new(Vec::new())));
        for version in needs.iter().copied() {
            let heard = Rc::clone(&heard);
            gate.hold(
                Version::new(version),
                Box::new(move |end| heard.borrow_mut().push((version, end.is_ok()))),
            );
        }
        (gate, heard)
    }

    #[test]
    fn an_answer_leaves_when_what_it_saw_is_durable() {
        let (mut gate, heard) = gate(&[4, 4, 6]);
        assert_eq!(gate.release(Version::new(3), &Ok(())), 0);
        assert_eq!(gate.release(Version::new(5), &Ok(())), 2);
        assert_eq!(*heard.borrow(), [(4, true), (4, true)]);
    }

    #[test]
    fn what_is_durable_does_not_leave_a_node_that_may_not_speak() {
        let (mut gate, heard) = gate(&[4, 6]);
        let not_ours = Err(Withheld::NotOurs(NotAttempted::unavailable("the lease has ended")));
        assert_eq!(gate.release(Version::new(4), &not_ours), 1);
        assert_eq!(*heard.borrow(), [(4, false)]);
        assert!(!gate.has_due(Version::new(5)) && gate.has_due(Version::new(6)));
    }

    #[test]
    fn what_saw_a_lost_event_fails() {
        let (mut gate, heard) = gate(&[4, 6]);
        assert_eq!(gate.release(Version::new(4), &Ok(())), 1);
        assert_eq!(gate.fail(&Withheld::Lost(NotAttempted::ShuttingDown)), 1);
        assert_eq!(*heard.borrow(), [(4, true), (6, false)]);
    }
}
