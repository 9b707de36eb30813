//! What an aggregate decided, and what a test may say about it.

use std::fmt::Debug;

use orchestrix_core::{Aggregate, Command, CommandId, Handle, Metadata, Timestamp};

use super::Given;
use super::same::{difference, show};

/// What became of a command. Say what you expect, then go on with the next command, or end.
pub struct Outcome<A: Aggregate, C: Command> {
    given: Given<A>,
    /// How many events there were before this command.
    before: usize,
    answer: Result<C::Reply, C::Refusal>,
    /// Whether the test has said that it expects the refusal.
    expects_refusal: bool,
}

impl<A: Handle<C>, C: Command> Outcome<A, C>
where
    A::Event: PartialEq + Debug,
{
    pub(super) fn new(given: Given<A>, before: usize, answer: Result<C::Reply, C::Refusal>) -> Self {
        Self { given, before, answer, expects_refusal: false }
    }

    /// Expects exactly these events, in this order.
    ///
    /// # Panics
    /// When the command emitted others, or was refused.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> Self {
        let expected: Vec<A::Event> = events.into_iter().collect();
        if let Err(refusal) = &self.answer {
            panic!("{} was refused\nexpected: {expected:#?}\n  actual: refused: {refusal:?}", C::NAME);
        }
        let actual = self.emitted();
        assert!(
            *actual == *expected,
            "{} emitted other events\nexpected: {expected:#?}\n  actual: {actual:#?}",
            C::NAME
        );
        self
    }

    /// Expects the command to be accepted without an event.
    ///
    /// # Panics
    /// When the command emitted events, or was refused.
    #[track_caller]
    pub fn emits_nothing(self) -> Self {
        self.then([])
    }

    /// Expects this reply.
    ///
    /// # Panics
    /// When the reply is another one, or the command was refused.
    #[track_caller]
    pub fn replies(self, reply: C::Reply) -> Self
    where
        C::Reply: PartialEq,
    {
        let outcome = self.with_reply(|_| ());
        if let Ok(actual) = &outcome.answer {
            assert!(*actual == reply, "{} got another reply\n{}", C::NAME, difference(&reply, actual));
        }
        outcome
    }

    /// Looks at the reply, usually to assert something about it.
    ///
    /// # Panics
    /// When the command was refused, or the closure panics.
    #[track_caller]
    pub fn with_reply(self, look: impl FnOnce(&C::Reply)) -> Self {
        match &self.answer {
            Ok(reply) => look(reply),
            Err(refusal) => panic!("{} has no reply, it was refused: {refusal:?}", C::NAME),
        }
        self
    }

    /// Expects this refusal.
    ///
    /// # Panics
    /// When the refusal is another one, or the command was accepted.
    #[track_caller]
    pub fn refused(self, refusal: C::Refusal) -> Self
    where
        C::Refusal: PartialEq,
    {
        let outcome = self.with_refusal(|_| ());
        if let Err(actual) = &outcome.answer {
            assert!(
                *actual == refusal,
                "{} was refused for another reason\nexpected: {refusal:?}\n  actual: {actual:?}",
                C::NAME
            );
        }
        outcome
    }

    /// Expects a refusal and looks at it.
    ///
    /// # Panics
    /// When the command was accepted, or the closure panics.
    #[track_caller]
    pub fn with_refusal(mut self, look: impl FnOnce(&C::Refusal)) -> Self {
        match &self.answer {
            Err(refusal) => look(refusal),
            Ok(reply) => panic!(
                "{} was accepted and should be refused\nevents: {:#?}\n reply: {}",
                C::NAME,
                self.emitted(),
                show(reply)
            ),
        }
        self.expects_refusal = true;
        self
    }

    /// Looks at the state after the command, usually to assert something about it.
    ///
    /// # Panics
    /// When the closure does.
    pub fn with_state(mut self, look: impl FnOnce(&A)) -> Self {
        self.given = self.given.with_state(look);
        self
    }

    /// Sets the time that decisions see, from here on.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.given = self.given.at(now);
        self
    }

    /// Sets the id of the next command.
    pub fn as_command(mut self, id: CommandId) -> Self {
        self.given = self.given.as_command(id);
        self
    }

    /// Sets what the caller sends along, from here on.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.given = self.given.with_metadata(metadata);
        self
    }

    /// Goes on with the next command, on the state after this one.
    ///
    /// # Panics
    /// As [`Given::when`], and when this command was refused without the test having said so.
    #[track_caller]
    #[must_use = "say what should happen: `.then(...)`, `.replies(...)`, `.refused(...)` or `.emits_nothing()`"]
    pub fn when<D: Command>(self, command: D) -> Outcome<A, D>
    where
        A: Handle<D>,
    {
        if let (Err(refusal), false) = (&self.answer, self.expects_refusal) {
            panic!(
                "{} was refused and the test goes on; say `.refused(...)`\n  actual: {refusal:?}",
                C::NAME
            );
        }
        self.given.when(command)
    }

    fn emitted(&self) -> &[A::Event] {
        self.given.history.after(self.before)
    }
}
