//! The aggregate: a state that only its events change, and the decisions that make them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::command::{Command, CommandId};
use crate::event::Event;
use crate::metadata::Metadata;
use crate::snapshot::SnapshotPolicy;
use crate::stream::{AggregateId, AggregateType, StreamId};
use crate::version::Version;

/// A consistency boundary: its state is the fold of its events, and one owner decides about it at a time.
///
/// The state must serialize, for snapshots. Raise [`SNAPSHOT_VERSION`](Aggregate::SNAPSHOT_VERSION) when the meaning
/// of its fields changes; a change of shape in its default value is noticed without that.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    note = "implement `Aggregate`: its type name, its id, its event, and `apply`"
)]
pub trait Aggregate: Default + Serialize + DeserializeOwned + Send + 'static {
    /// The name in the log, made by [`aggregate_type!`](crate::aggregate_type). It never changes.
    const TYPE: AggregateType;
    /// Raised by hand when older snapshots must not be read any more; they are replaced by replay.
    const SNAPSHOT_VERSION: u32 = 1;
    /// The type of its ids.
    type Id: AggregateId;
    /// The type of its events.
    type Event: Event;

    /// Changes the state by one event. Total: every event that was ever stored must pass. No I/O, no clock, no chance.
    fn apply(&mut self, event: &Self::Event);

    /// Says when this kind of aggregate takes a snapshot; `None` leaves it to the node's setting.
    fn snapshot_policy() -> Option<SnapshotPolicy> {
        None
    }

    /// Lists the commands that it takes from other nodes; one that is not listed is done by its own node only.
    ///
    /// ```
    /// # use orchestrix_core::prelude::*;
    /// # aggregate_id!(pub struct LampId, "lamp id");
    /// # #[derive(Event)]
    /// # pub enum LampEvent { #[event("lamp.lit")] Lit }
    /// # #[derive(Command, Serialize, Deserialize)]
    /// # #[command("lamp.light")]
    /// # pub struct Light;
    /// # #[derive(Default, Serialize, Deserialize)]
    /// # pub struct Lamp { lit: bool }
    /// impl Aggregate for Lamp {
    ///     fn commands(list: &mut impl CommandList<Self>) {
    ///         list.add::<Light>();
    ///     }
    ///     // and its type, its id, its event, and `apply`
    /// #   const TYPE: AggregateType = aggregate_type!("lamp");
    /// #   type Id = LampId;
    /// #   type Event = LampEvent;
    /// #   fn apply(&mut self, _: &LampEvent) { self.lit = true; }
    /// }
    /// # impl Handle<Light> for Lamp {
    /// #     fn handle(&self, _: &Light, _: &Context) -> Decision<Self, Light> { emit(LampEvent::Lit).done() }
    /// # }
    /// ```
    fn commands(list: &mut impl CommandList<Self>) {
        let _ = list;
    }
}

/// Takes in the commands that an aggregate lists in [`Aggregate::commands`], with their types.
pub trait CommandList<A: Aggregate> {
    /// Adds a command. It compiles only if the aggregate handles it.
    fn add<C: Command>(&mut self) -> &mut Self
    where
        A: Handle<C>;
}

/// An aggregate that handles a command.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle the command `{C}`",
    label = "this aggregate has no answer to it",
    note = "write `impl Handle<{C}> for {Self}`, or send the command to the aggregate that handles it"
)]
pub trait Handle<C: Command>: Aggregate {
    /// Decides about a command against the current state. Pure: it may be asked twice about one command.
    ///
    /// # Errors
    /// The command's own refusal. A refused command stores nothing and never takes effect later.
    fn handle(&self, command: &C, context: &Context) -> Decision<Self, C>;
}

/// What a handler may know besides the state.
#[derive(Clone, Debug)]
pub struct Context {
    /// The command's identity.
    pub command_id: CommandId,
    /// The stream of the aggregate that decides.
    pub stream: StreamId,
    /// The version of the state that the decision is made on.
    pub version: Version,
    /// The time to record, read once for the whole decision.
    pub now: Timestamp,
    /// What the caller sent along.
    pub metadata: Metadata,
}

impl Context {
    /// Returns the id of the aggregate that decides, as text.
    pub fn id(&self) -> &str {
        &self.stream.id
    }
}

/// What a handler returns: events with a reply, or a refusal. `?` works on refusals.
pub type Decision<A, C> =
    Result<Accepted<<A as Aggregate>::Event, <C as Command>::Reply>, <C as Command>::Refusal>;

/// Events and the reply to give once they are durable. Made by [`emit`], [`emit_all`] or [`nothing`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a decision does nothing until the handler returns it"]
pub struct Accepted<E, R> {
    events: Vec<E>,
    reply: R,
}

impl<E, R> Accepted<E, R> {
    /// Takes the decision apart.
    pub fn into_parts(self) -> (Vec<E>, R) {
        (self.events, self.reply)
    }
}

/// Events that still lack their reply: end it with [`reply`](Emission::reply) or [`done`](Emission::done).
#[derive(Clone, Debug)]
#[must_use = "end with `.reply(...)` or `.done()`"]
pub struct Emission<E> {
    events: Vec<E>,
}

impl<E> Emission<E> {
    /// Adds one more event.
    pub fn and(mut self, event: E) -> Self {
        self.events.push(event);
        self
    }

    /// Accepts the command with this reply.
    ///
    /// # Errors
    /// Never; the type is that of a [`Decision`] so that it can be a handler's last line.
    pub fn reply<R, F>(self, reply: R) -> Result<Accepted<E, R>, F> {
        Ok(Accepted { events: self.events, reply })
    }

    /// Accepts a command whose reply is `()`.
    ///
    /// # Errors
    /// Never; see [`reply`](Emission::reply).
    pub fn done<F>(self) -> Result<Accepted<E, ()>, F> {
        self.reply(())
    }
}

/// Accepts a command by one event.
///
/// ```
/// use orchestrix_core::{emit, Accepted, Never};
/// let decision: Result<Accepted<&str, u8>, Never> = emit("opened").and("welcomed").reply(2);
/// assert_eq!(decision.unwrap().into_parts(), (vec!["opened", "welcomed"], 2));
/// ```
pub fn emit<E>(event: E) -> Emission<E> {
    Emission { events: vec![event] }
}

/// Accepts a command by several events, stored together or not at all.
pub fn emit_all<E>(events: impl IntoIterator<Item = E>) -> Emission<E> {
    Emission { events: events.into_iter().collect() }
}

/// Accepts a command that changes nothing. A retry of it is decided again, since nothing was stored.
pub fn nothing<E>() -> Emission<E> {
    Emission { events: Vec::new() }
}
