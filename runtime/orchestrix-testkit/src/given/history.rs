//! The events of one test and the state that they lead to, with the checks that belong to both.

use std::fmt::Debug;

use orchestrix_core::Aggregate;

use super::check::{event_survives, through_snapshot};
use super::same::{difference, same};

/// At how many places a history is looked at; a shorter one is looked at after every event.
const PLACES_MAX: usize = 32;

/// Events in order and the state after the last of them.
pub(super) struct History<A: Aggregate> {
    events: Vec<A::Event>,
    state: A,
    /// The state after the same events as they come back from their stored form.
    replayed: A,
}

impl<A: Aggregate> Default for History<A> {
    fn default() -> Self {
        Self { events: Vec::new(), state: A::default(), replayed: A::default() }
    }
}

impl<A: Aggregate> History<A> {
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn state(&self) -> &A {
        &self.state
    }

    /// Returns the events after the first `count`.
    pub(super) fn after(&self, count: usize) -> &[A::Event] {
        &self.events[count..]
    }
}

impl<A: Aggregate> History<A>
where
    A::Event: PartialEq + Debug,
{
    /// Applies events and checks what must hold after them.
    pub(super) fn extend(&mut self, events: Vec<A::Event>) -> Result<(), String> {
        let count = events.len();
        for (at, event) in (1..).zip(events) {
            let stored = event_survives(&event)?;
            self.state.apply(&event);
            self.replayed.apply(&stored);
            self.events.push(event);
            if is_sampled(at, count) && !same(&self.state, &self.replayed) {
                return Err(format!(
                    "{} events lead to another state after they were stored and read back; the last is {:?}\n{}",
                    self.len(),
                    self.events.last(),
                    difference(&self.state, &self.replayed)
                ));
            }
        }
        self.check_snapshots()
    }

    /// Cuts the history at many places and checks that the snapshot there plus the tail is the full replay.
    fn check_snapshots(&self) -> Result<(), String> {
        let (events, mut state) = (&self.events, A::default());
        for at in 0..=events.len() {
            if is_sampled(at, events.len()) {
                self.check_snapshot_at(at, &state)?;
            }
            if let Some(event) = events.get(at) {
                state.apply(event);
            }
        }
        Ok(())
    }

    fn check_snapshot_at(&self, at: usize, state: &A) -> Result<(), String> {
        let mut restored = through_snapshot(state)?;
        self.events[at..].iter().for_each(|event| restored.apply(event));
        if same(&self.state, &restored) {
            return Ok(());
        }
        Err(format!(
            "a snapshot after event {at} of {} plus the events after it is not the full replay: `apply` reads \
             something that the snapshot does not carry\n{}",
            self.events.len(),
            difference(&self.state, &restored)
        ))
    }
}

/// Tells whether this is one of the places at which a history of so many events is looked at; the end always is.
fn is_sampled(at: usize, events: usize) -> bool {
    at == events || at.is_multiple_of(events.div_ceil(PLACES_MAX))
}
