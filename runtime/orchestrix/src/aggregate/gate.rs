//! The output gate: answers that must not leave before what they saw is durable. A decision file.
//!
//! Answers of commands that stored events wait in the writer's lane with their commit. Everything else that was
//! decided on top of events in flight waits here: reads, refusals, replies without events, repeated replies.

use std::collections::VecDeque;

use orchestrix_core::Version;

use crate::error::NotAttempted;

/// An answer that waits: called once, with what became of the events that it saw.
pub(crate) type Output = Box<dyn FnOnce(Result<(), NotAttempted>)>;

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

    /// Lets out what has become durable and returns how many answers left.
    pub(crate) fn release(&mut self, durable: Version) -> u32 {
        let mut released = 0;
        while self.waiting.front().is_some_and(|(needs, _)| *needs <= durable) {
            let (_, output) = self.waiting.pop_front().expect("there is a front");
            output(Ok(()));
            released += 1;
        }
        released
    }

    /// Answers everything that is left with a failure and returns how many answers that were.
    pub(crate) fn fail(&mut self, why: &NotAttempted) -> u32 {
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
        assert_eq!(gate.release(Version::new(3)), 0);
        assert_eq!(gate.release(Version::new(5)), 2);
        assert_eq!(*heard.borrow(), [(4, true), (4, true)]);
    }

    #[test]
    fn what_saw_a_lost_event_fails() {
        let (mut gate, heard) = gate(&[4, 6]);
        assert_eq!(gate.release(Version::new(4)), 1);
        assert_eq!(gate.fail(&NotAttempted::ShuttingDown), 1);
        assert_eq!(*heard.borrow(), [(4, true), (6, false)]);
    }
}
