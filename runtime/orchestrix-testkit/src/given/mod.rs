//! Given these events, when this command comes, then those events and that reply: tests of an aggregate's decisions.
//!
//! A test reads like a sentence and needs no runtime, no store and no clock. On the way each step checks what every
//! aggregate must keep and nobody likes to write a test for:
//!
//! * every given and every emitted event, the command, the reply and the refusal survive their codec;
//! * the state survives its snapshot, and a snapshot at any place plus the events after it is the full replay
//!   (at every place of a short history, at 32 places of a long one);
//! * asked twice about one command, on the live state and on a restored one, the handler decides the same.
//!
//! A failure panics at the line of the test that asked, with what was expected and what was found.

mod check;
mod history;
mod outcome;
mod same;

use std::fmt::Debug;

use orchestrix_core::{
    Aggregate, Command, CommandId, Context, Handle, Metadata, StreamId, Timestamp, Version,
};

use history::History;
pub use outcome::Outcome;

/// The time that a decision sees unless the test says otherwise: the first moment of 2026.
const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

/// Starts a test from the events that have happened to an aggregate; none for a new one.
///
/// ```
/// # use orchestrix_core::prelude::*;
/// # aggregate_id!(pub struct LampId, "lamp id");
/// # #[derive(Default, Serialize, Deserialize)] struct Lamp { on: bool }
/// # #[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
/// # enum LampEvent { #[event("lamp.lit")] Lit { by: String } }
/// # impl Aggregate for Lamp {
/// #     const TYPE: AggregateType = aggregate_type!("lamp");
/// #     type Id = LampId;
/// #     type Event = LampEvent;
/// #     fn apply(&mut self, _: &LampEvent) { self.on = true; }
/// # }
/// # #[derive(Command, Serialize, Deserialize)]
/// # #[command("lamp.light", reply = bool, refusal = Never)]
/// # struct Light { by: String }
/// # impl Handle<Light> for Lamp {
/// #     fn handle(&self, command: &Light, _: &Context) -> Decision<Self, Light> {
/// #         if self.on { return nothing().reply(false) }
/// #         emit(LampEvent::Lit { by: command.by.clone() }).reply(true)
/// #     }
/// # }
/// use orchestrix_testkit::given;
///
/// given::<Lamp>([])
///     .when(Light { by: "Ada".into() })
///     .then([LampEvent::Lit { by: "Ada".into() }])
///     .replies(true)
///     .when(Light { by: "Bob".into() })
///     .emits_nothing()
///     .replies(false);
/// ```
///
/// # Panics
/// When an event does not survive its codec, or a snapshot plus the events after it is not the full replay.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A>
where
    A::Event: PartialEq + Debug,
{
    let mut history = History::default();
    hold(history.extend(events.into_iter().collect()));
    Given {
        history,
        id: "a-1".to_owned(),
        now: NOW,
        command_id: None,
        metadata: Metadata::default(),
        steps: 0,
    }
}

/// An aggregate with a history, ready for a command.
pub struct Given<A: Aggregate> {
    history: History<A>,
    id: String,
    now: Timestamp,
    /// For the next command only.
    command_id: Option<CommandId>,
    metadata: Metadata,
    /// How many commands there were, modulo 256, so that each gets an id of its own.
    steps: u8,
}

impl<A: Aggregate> Given<A>
where
    A::Event: PartialEq + Debug,
{
    /// Sets the aggregate's id, as [`Context::id`] gives it; `a-1` unless set.
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the time that decisions see, from here on; the first moment of 2026 unless set.
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Sets the id of the next command; without it, one is made from the time and the step, the same in each run.
    pub fn as_command(mut self, id: CommandId) -> Self {
        self.command_id = Some(id);
        self
    }

    /// Sets what the caller sends along, from here on.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// Looks at the state, usually to assert something about it.
    ///
    /// # Panics
    /// When the closure does.
    pub fn with_state(self, look: impl FnOnce(&A)) -> Self {
        look(self.history.state());
        self
    }

    /// Lets the aggregate decide about a command and applies what it emits.
    ///
    /// # Panics
    /// When the command, its answer or an emitted event does not survive its codec, when the aggregate lists commands
    /// and not this one, when the handler decides differently the second time, or when a snapshot plus the events after it is not the full replay.
    #[track_caller]
    #[must_use = "say what should happen: `.then(...)`, `.replies(...)`, `.refused(...)` or `.emits_nothing()`"]
    pub fn when<C: Command>(mut self, command: C) -> Outcome<A, C>
    where
        A: Handle<C>,
    {
        let context = self.next_context();
        hold(check::command_is_listed::<A, C>());
        let again = hold(check::command_survives(&command));
        let (events, answer) = hold(check::decide(self.history.state(), &command, &again, &context));
        let before = self.history.len();
        hold(self.history.extend(events));
        Outcome::new(self, before, answer)
    }

    fn next_context(&mut self) -> Context {
        self.steps = self.steps.wrapping_add(1);
        Context {
            command_id: self.command_id.take().unwrap_or_else(|| command_id(self.now, self.steps)),
            stream: StreamId::new(A::TYPE.as_str(), self.id.as_str()),
            version: Version::new(self.history.len() as u64),
            now: self.now,
            metadata: self.metadata.clone(),
        }
    }
}

/// Makes an id of version 7 that is the same in each run of a test.
fn command_id(now: Timestamp, step: u8) -> CommandId {
    let millis = u64::try_from(now.as_micros() / 1_000).unwrap_or_default();
    CommandId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &[step; 10]).into_uuid())
}

/// Panics at the caller's line when a check did not hold.
#[track_caller]
fn hold<T>(checked: Result<T, String>) -> T {
    match checked {
        Ok(value) => value,
        Err(message) => panic!("{message}"),
    }
}
