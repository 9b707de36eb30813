//! Work on its way to an aggregate and its answer on the way back.
//!
//! A job is one allocation that travels: made by the caller, delivered on the aggregate's arbiter, run by the actor.
//! Its [`Answer`] leads back to the caller, and tells for certain whether work that timed out was looked at.

use std::any::type_name;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use orchestrix_core::codec::json;
use orchestrix_core::{
    Aggregate, Command, CommandId, Context, DecodeError, Event, Handle, Metadata, ShardId, Timestamp, Version,
};

use super::call::Answer;
use super::dedup::Verdict;
use super::directory::Local;
use super::draft::Draft;
use super::gate::Withheld;
use super::instance::Instance;
use super::recovery::{guarded, panic_words};
use crate::error::{NotAttempted, SaveError, SendError, Unknown};
use crate::node::Done;
use crate::telemetry::traces;
use crate::writer::{Fate, Pending};

/// Where a job goes.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) type_index: usize,
    pub(crate) id: Arc<str>,
    pub(crate) shard: ShardId,
}

/// A job that does not say its types yet: what an arbiter's inbox carries.
pub(crate) trait Deliver: Send {
    /// Hands the job to the actor of its aggregate.
    fn deliver(self: Box<Self>, local: &Rc<Local>);

    /// Answers it without having looked at it.
    fn refuse(self: Box<Self>, why: NotAttempted);
}

/// A job for an aggregate of a known type.
pub(crate) trait Job<A: Aggregate>: Deliver {
    /// Returns where it goes.
    fn route(&self) -> &Route;

    /// Returns the command that it carries, if it is one.
    fn command_id(&self) -> Option<CommandId>;

    /// Looks at the state and answers, now or later.
    fn run(self: Box<Self>, instance: &mut Instance<A>) -> Ran<A>;
}

/// What became of a job that ran.
pub(crate) enum Ran<A: Aggregate> {
    /// It is answered, or its caller has gone.
    Answered,
    /// Its answer waits in the gate.
    Held,
    /// Its events are on their way to the store.
    Appended,
    /// User code panicked. The job may be run once more on a rebuilt state.
    Panicked(Box<dyn Job<A>>, Arc<str>),
}

/// The part that every job has.
pub(crate) struct Envelope<T> {
    pub(crate) route: Route,
    pub(crate) answer: Answer<T>,
}

/// A command.
pub(crate) struct CommandJob<C: Command> {
    pub(crate) envelope: Envelope<CommandAnswer<C>>,
    pub(crate) command: C,
    pub(crate) command_id: CommandId,
    /// The runtime made the id for this very call.
    pub(crate) fresh: bool,
    pub(crate) fingerprint: u64,
    pub(crate) metadata: Metadata,
    /// What is answered once the events are durable. The job itself waits for that, in the lane.
    pub(crate) promised: Option<Promised<C::Reply>>,
}

/// A reply that waits for its events.
pub(crate) struct Promised<R> {
    reply: R,
    version: Version,
}

/// What a command's caller gets.
pub(crate) type CommandAnswer<C> = Result<Done<<C as Command>::Reply>, SendError<<C as Command>::Refusal>>;

/// A command job that also knows its aggregate.
pub(crate) struct Typed<A, J>(pub(crate) J, pub(crate) PhantomData<fn() -> A>);

impl<A: Handle<C>, C: Command> Deliver for Typed<A, CommandJob<C>> {
    fn deliver(self: Box<Self>, local: &Rc<Local>) {
        local.deliver::<A>(self);
    }

    fn refuse(self: Box<Self>, why: NotAttempted) {
        self.0.envelope.answer.give(Err(why.into()));
    }
}

impl<A: Handle<C>, C: Command> Job<A> for Typed<A, CommandJob<C>> {
    fn route(&self) -> &Route {
        &self.0.envelope.route
    }

    fn command_id(&self) -> Option<CommandId> {
        Some(self.0.command_id)
    }

    fn run(self: Box<Self>, instance: &mut Instance<A>) -> Ran<A> {
        let span = instance.span(C::NAME, self.0.command_id);
        if let Some(traceparent) = &self.0.metadata.traceparent {
            traces::adopt(&span, traceparent);
        }
        let _entered = span.entered();
        if let Err(why) = self.0.envelope.answer.start() {
            self.refuse(why);
            return Ran::Answered;
        }
        let now = instance.now();
        match instance.remembered(self.0.command_id, self.0.fingerprint, self.0.fresh, now) {
            Verdict::New => self.decide(instance, now),
            Verdict::Repeat(entry) => {
                let (reply, version) = (decode_reply::<C>(&entry.reply), entry.version);
                Self::repeat(*self, instance, reply, version)
            }
            Verdict::Reused => {
                let why = NotAttempted::IdReused {
                    command_id: self.0.command_id,
                    stream: instance.stream().clone(),
                };
                instance.hold_refusal(self, why)
            }
            Verdict::Expired => {
                let why = NotAttempted::IdExpired {
                    command_id: self.0.command_id,
                    stream: instance.stream().clone(),
                };
                instance.hold_refusal(self, why)
            }
        }
    }
}

impl<A: Handle<C>, C: Command> Typed<A, CommandJob<C>> {
    /// Answers a retry with the first reply, once that is durable.
    fn repeat(
        self,
        instance: &mut Instance<A>,
        reply: Result<C::Reply, DecodeError>,
        version: Version,
    ) -> Ran<A> {
        let CommandJob { envelope, command_id, .. } = self.0;
        let (shard, epoch) = (envelope.route.shard, instance.epoch());
        let done = match reply {
            Ok(reply) => Ok(Done { reply, version, shard, epoch, command_id, duplicate: true }),
            Err(error) => Err(NotAttempted::Unencodable { reason: error.to_string().into() }.into()),
        };
        instance.hold_until(version, move |end| {
            envelope.answer.give(end.map_err(|why| not_repeated(command_id, why)).and(done));
        })
    }

    fn decide(mut self: Box<Self>, instance: &mut Instance<A>, now: Timestamp) -> Ran<A> {
        let context = instance.context(self.0.command_id, std::mem::take(&mut self.0.metadata), now);
        let decision = catch_unwind(AssertUnwindSafe(|| instance.state().handle(&self.0.command, &context)));
        let decision = match decision {
            Ok(decision) => decision,
            Err(panic) => return self.panicked(context, panic_words(&*panic)),
        };
        let (events, reply) = match decision {
            Ok(accepted) => accepted.into_parts(),
            Err(refusal) => {
                let answer = self.0.envelope.answer;
                return instance.hold(move |end| {
                    let refused = end
                        .map_or_else(|why| NotAttempted::from(why).into(), |()| SendError::Refused(refusal));
                    answer.give(Err(refused));
                });
            }
        };
        if events.is_empty() {
            self.answer_without_events(instance, reply)
        } else {
            self.append(instance, context, events, reply)
        }
    }

    fn answer_without_events(self, instance: &mut Instance<A>, reply: C::Reply) -> Ran<A> {
        let CommandJob { envelope, command_id, .. } = self.0;
        let (version, shard, epoch) = (instance.head(), envelope.route.shard, instance.epoch());
        let done = Done { reply, version, shard, epoch, command_id, duplicate: false };
        instance.hold(move |end| {
            envelope.answer.give(end.map(|()| done).map_err(|why| NotAttempted::from(why).into()));
        })
    }

    fn append(
        mut self: Box<Self>,
        instance: &mut Instance<A>,
        context: Context,
        events: Vec<A::Event>,
        reply: C::Reply,
    ) -> Ran<A> {
        let draft = match Draft::new(&context, events, self.0.fingerprint, &reply) {
            Ok(draft) => draft,
            Err(error) => {
                self.refuse(error.into());
                return Ran::Answered;
            }
        };
        // Applied first: an event that the aggregate cannot apply must never reach the log.
        if let Err(words) = instance.apply(&draft) {
            return self.panicked(context, words);
        }
        let version = instance.head().plus(draft.events.len() as u64);
        self.0.promised = Some(Promised { reply, version });
        instance.append(draft, self);
        Ran::Appended
    }

    fn panicked(mut self: Box<Self>, context: Context, words: Arc<str>) -> Ran<A> {
        tracing::error!(command = C::NAME, aggregate = type_name::<A>(), %words, "the aggregate's code panicked");
        self.0.metadata = context.metadata;
        Ran::Panicked(self, words)
    }
}

/// Says why a retry does not get the first reply. The first attempt may well have been done: then this one does not know.
fn not_repeated<E: From<NotAttempted> + From<Unknown>>(command_id: CommandId, why: Withheld) -> E {
    match why {
        Withheld::Lost(why) => why.into(),
        Withheld::Undecided(why) | Withheld::NotOurs(why) | Withheld::Lapsed(why) => {
            Unknown { command_id, reason: why.to_string().into() }.into()
        }
    }
}

/// Reads a remembered reply. A decoder that panics is one that fails.
fn decode_reply<C: Command>(reply: &[u8]) -> Result<C::Reply, DecodeError> {
    guarded(|| json::decode(C::NAME, reply)).unwrap_or_else(|words| {
        Err(DecodeError::Malformed {
            what: C::NAME.to_owned(),
            reason: format!("the decoder panicked: {words}"),
        })
    })
}

impl<A: Handle<C>, C: Command> Pending for Typed<A, CommandJob<C>> {
    fn settle(self: Box<Self>, fate: &Fate) {
        let CommandJob { envelope, command_id, promised, .. } = self.0;
        let Promised { reply, version } = promised.expect("a job is queued with what it promises");
        let shard = envelope.route.shard;
        envelope.answer.give(match fate {
            Fate::Durable(epoch) => {
                Ok(Done { reply, version, shard, epoch: *epoch, command_id, duplicate: false })
            }
            Fate::Lost(loss) => Err(loss.to_not_attempted(shard).into()),
        });
    }
}

/// Events that were decided elsewhere.
pub(crate) struct SaveJob<E> {
    pub(crate) envelope: Envelope<Result<Done<()>, SaveError>>,
    pub(crate) expected: Version,
    pub(crate) events: Vec<E>,
    pub(crate) command_id: CommandId,
    pub(crate) fresh: bool,
    pub(crate) fingerprint: u64,
    pub(crate) metadata: Metadata,
}

impl<A: Aggregate> Deliver for Typed<A, SaveJob<A::Event>> {
    fn deliver(self: Box<Self>, local: &Rc<Local>) {
        local.deliver::<A>(self);
    }

    fn refuse(self: Box<Self>, why: NotAttempted) {
        self.0.envelope.answer.give(Err(why.into()));
    }
}

impl<A: Aggregate> Job<A> for Typed<A, SaveJob<A::Event>> {
    fn route(&self) -> &Route {
        &self.0.envelope.route
    }

    fn command_id(&self) -> Option<CommandId> {
        Some(self.0.command_id)
    }

    fn run(self: Box<Self>, instance: &mut Instance<A>) -> Ran<A> {
        if let Err(why) = self.0.envelope.answer.start() {
            self.refuse(why);
            return Ran::Answered;
        }
        let (command_id, stream) = (self.0.command_id, instance.stream().clone());
        let now = instance.now();
        match instance.remembered(command_id, self.0.fingerprint, self.0.fresh, now) {
            Verdict::New => self.save(instance, now),
            Verdict::Repeat(entry) => {
                let version = entry.version;
                let (answer, shard) = (self.0.envelope.answer, self.0.envelope.route.shard);
                let done =
                    Done { reply: (), version, shard, epoch: instance.epoch(), command_id, duplicate: true };
                instance.hold_until(version, move |end| {
                    answer.give(end.map(|()| done).map_err(|why| not_repeated(command_id, why)));
                })
            }
            Verdict::Reused => instance.hold_refusal(self, NotAttempted::IdReused { command_id, stream }),
            Verdict::Expired => instance.hold_refusal(self, NotAttempted::IdExpired { command_id, stream }),
        }
    }
}

impl<A: Aggregate> Typed<A, SaveJob<A::Event>> {
    fn save(mut self: Box<Self>, instance: &mut Instance<A>, now: Timestamp) -> Ran<A> {
        let (stream, expected, actual) = (instance.stream().clone(), self.0.expected, instance.head());
        if expected != actual {
            let answer = self.0.envelope.answer;
            return instance.hold(move |end| {
                let conflict = SaveError::Conflict { stream, expected, actual };
                answer.give(Err(end.map_or_else(|why| NotAttempted::from(why).into(), |()| conflict)));
            });
        }
        let context = instance.context(self.0.command_id, std::mem::take(&mut self.0.metadata), now);
        let draft = match Draft::new(&context, std::mem::take(&mut self.0.events), self.0.fingerprint, &()) {
            Ok(draft) => draft,
            Err(error) => {
                self.refuse(error.into());
                return Ran::Answered;
            }
        };
        if let Err(words) = instance.apply(&draft) {
            self.0.events = draft.events;
            self.0.metadata = context.metadata;
            return Ran::Panicked(self, words);
        }
        let version = actual.plus(draft.events.len() as u64);
        let (answer, shard, command_id) =
            (self.0.envelope.answer, self.0.envelope.route.shard, self.0.command_id);
        instance.append(draft, Box::new(PendingSave { answer, version, shard, command_id }));
        Ran::Appended
    }
}

/// The answer of a save.
struct PendingSave {
    answer: Answer<Result<Done<()>, SaveError>>,
    version: Version,
    shard: ShardId,
    command_id: CommandId,
}

impl Pending for PendingSave {
    fn settle(self: Box<Self>, fate: &Fate) {
        let Self { answer, version, shard, command_id } = *self;
        answer.give(match fate {
            Fate::Durable(epoch) => {
                Ok(Done { reply: (), version, shard, epoch: *epoch, command_id, duplicate: false })
            }
            Fate::Lost(loss) => Err(loss.to_not_attempted(shard).into()),
        });
    }
}

/// Returns the fingerprint of events that are saved directly: their stored forms, one after the other.
pub(crate) fn events_fingerprint<E: Event>(events: &[E]) -> Result<u64, orchestrix_core::EncodeError> {
    let mut stored = Vec::new();
    for event in events {
        stored.push((event.event_type(), event.schema_version(), event.encode()?.bytes));
    }
    orchestrix_core::codec::bincode::fingerprint("save", &stored)
}
