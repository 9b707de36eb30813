//! The address of one aggregate: send, read, save.

use std::any::TypeId;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use orchestrix_core::codec::bincode;
use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, Command, CommandId, Epoch, Handle, Metadata, ShardId, Version, check_key};
use tokio::sync::mpsc;

use super::again::{Again, may_be_elsewhere, work_for};
use super::running::Running;
use super::{Consistency, NodeStatus, Reading};
use crate::aggregate::{
    CommandAnswer, CommandJob, Deliver, Envelope, Inbox, RETRY_AFTER, Route, SaveJob, Typed, Unanswered,
    Waiting, events_fingerprint, open_call,
};
use crate::cluster::wire::{Task, typed};
use crate::error::{NotAttempted, SaveError, SendError, Unknown};
use crate::telemetry::CommandOutcome;

/// The address of one aggregate. Cheap to make and to clone; it keeps nothing resident.
pub struct AggregateRef<A: Aggregate> {
    running: Arc<Running>,
    id: Arc<str>,
    shard: ShardId,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate> Clone for AggregateRef<A> {
    fn clone(&self) -> Self {
        Self {
            running: Arc::clone(&self.running),
            id: Arc::clone(&self.id),
            shard: self.shard,
            aggregate: PhantomData,
        }
    }
}

impl<A: Aggregate> std::fmt::Debug for AggregateRef<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", A::TYPE, self.id)
    }
}

/// What a command did, besides its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done<R> {
    /// The reply.
    pub reply: R,
    /// The version of the aggregate after the command.
    pub version: Version,
    /// The shard of the aggregate.
    pub shard: ShardId,
    /// The epoch under which it was answered.
    pub epoch: Epoch,
    /// The command's id.
    pub command_id: CommandId,
    /// Whether this is the repeated answer to an earlier command with the same id.
    pub duplicate: bool,
}

impl<A: Aggregate> AggregateRef<A> {
    pub(super) fn new(running: Arc<Running>, id: Arc<str>) -> Self {
        let shard = running.shared.shards.shard_of(A::TYPE.as_str(), &id);
        Self { running, id, shard, aggregate: PhantomData }
    }

    pub(super) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    /// Returns the aggregate's stream.
    pub fn stream(&self) -> orchestrix_core::StreamId {
        orchestrix_core::StreamId::new(A::TYPE.as_str(), Arc::clone(&self.id))
    }

    /// Prepares a command; `.await` sends it and returns the reply once the events are durable.
    ///
    /// Commands of one caller to one aggregate are handled in the order in which they were sent.
    #[must_use = "a command is sent by `.await`"]
    pub fn send<C: Command>(&self, command: C) -> Sending<A, C>
    where
        A: Handle<C>,
    {
        Sending { to: self.clone(), command, call: Call::default() }
    }

    /// Reads the state: by default everything that was answered before is in it, and nothing that may vanish.
    /// [`reading`](Self::reading) has more to choose from.
    ///
    /// `view` runs on the aggregate's own thread: keep it short, and return what is needed of the state.
    ///
    /// # Errors
    /// [`NotAttempted`]; in doubt the read has simply not happened.
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn read<R: Send + 'static>(
        &self,
        consistency: Consistency,
        view: impl FnOnce(&A) -> R + Send + 'static,
    ) -> Result<R, NotAttempted> {
        Ok(self.reading(view).consistency(consistency).start().finish().await?.value)
    }

    /// Like [`read`](Self::read), with the version of the state that was seen; 0 when the aggregate has no events.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    ///
    /// # Cancel safety
    /// A dropped call changes nothing.
    pub async fn read_versioned<R: Send + 'static>(
        &self,
        consistency: Consistency,
        view: impl FnOnce(&A) -> R + Send + 'static,
    ) -> Result<(R, Version), NotAttempted> {
        let seen = self.reading(view).consistency(consistency).start().finish().await?;
        Ok((seen.value, seen.version))
    }

    /// Prepares a read; `.await` does it and returns what `view` makes of the state, with version and epoch.
    ///
    /// `view` runs on the aggregate's own thread: keep it short, and return what is needed of the state.
    pub fn reading<F, R>(&self, view: F) -> Reading<A, F, R>
    where
        F: FnOnce(&A) -> R + Send + 'static,
        R: Send + 'static,
    {
        Reading::new(self.clone(), view)
    }

    /// Prepares to store events directly, if the aggregate is at the version expected; `.await` does it.
    ///
    /// It goes through the owner like a command: fenced, in order, applied to the state before the answer.
    #[must_use = "events are saved by `.await`"]
    pub fn save(&self, expected: Version, events: Vec<A::Event>) -> Saving<A> {
        Saving { to: self.clone(), expected, events, call: Call::default() }
    }

    pub(super) fn type_index(&self) -> Option<usize> {
        self.running.type_index(TypeId::of::<A>())
    }

    /// Puts a job into the inbox of the aggregate's arbiter.
    fn submit<J, T>(&self, deadline: Instant, make: impl FnOnce(Envelope<T>) -> J) -> Submitted<T>
    where
        Typed<A, J>: Deliver + 'static,
    {
        let admit = |running: &Running| match running.status() {
            NodeStatus::Running => Ok(()),
            NodeStatus::Suspended | NodeStatus::Fenced => Ok(running.shared.standing.check()?),
            NodeStatus::Draining | NodeStatus::Stopped => Err(NotAttempted::ShuttingDown),
        };
        self.submit_if(admit, deadline, make)
    }

    /// Puts a job into the inbox of the aggregate's arbiter, if the node takes it.
    pub(super) fn submit_if<J, T>(
        &self,
        admit: impl FnOnce(&Running) -> Result<(), NotAttempted>,
        deadline: Instant,
        make: impl FnOnce(Envelope<T>) -> J,
    ) -> Submitted<T>
    where
        Typed<A, J>: Deliver + 'static,
    {
        let running = &self.running;
        check_key("aggregate id", &self.id)
            .map_err(|error| NotAttempted::InvalidId { problem: error.to_string().into() })?;
        let type_index = self
            .type_index()
            .ok_or(NotAttempted::NotRegistered { aggregate_type: A::TYPE.as_str().into() })?;
        admit(running)?;
        let permit = running.in_flight.enter()?;
        let (waiting, answer) = open_call(deadline, permit);
        let route = Route { type_index, id: Arc::clone(&self.id), shard: self.shard };
        let envelope = Envelope { route, answer };
        let job: Box<dyn Deliver> = Box::new(Typed::<A, J>(make(envelope), PhantomData));
        match running.arbiter(self.shard).try_send(Inbox::Deliver(job)) {
            Ok(()) => Ok(Sent { waiting, timer: None }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(NotAttempted::ShuttingDown),
            Err(mpsc::error::TrySendError::Full(_)) => {
                let limit = running.arbiter(self.shard).max_capacity();
                Err(NotAttempted::Overloaded {
                    what: "an arbiter's inbox".into(),
                    limit,
                    retry_after: RETRY_AFTER,
                })
            }
        }
    }
}

pub(super) type Submitted<T> = Result<Sent<T>, NotAttempted>;

/// Work that is on its way, and its caller's timer.
pub(super) struct Sent<T> {
    waiting: Waiting<T>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

/// No answer came.
pub(super) enum NoAnswer {
    NotAttempted(NotAttempted),
    Unknown(&'static str),
}

impl<T> Sent<T> {
    pub(super) async fn answer(mut self) -> Result<T, NoAnswer> {
        poll_fn(|context| self.poll_answer(context)).await
    }

    /// Looks for the answer first; the timer is set only for work that is not answered at once.
    fn poll_answer(&mut self, context: &mut task::Context<'_>) -> Poll<Result<T, NoAnswer>> {
        if let Poll::Ready(answer) = self.waiting.poll(context) {
            return Poll::Ready(match answer {
                Ok(answer) => Ok(answer),
                Err(Unanswered) if self.waiting.abandon() => {
                    Err(NoAnswer::NotAttempted(NotAttempted::ShuttingDown))
                }
                Err(Unanswered) => Err(NoAnswer::Unknown("the node stopped while it was under way")),
            });
        }
        let deadline = self.waiting.deadline();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(if self.waiting.abandon() {
            NoAnswer::NotAttempted(NotAttempted::DeadlineExceeded)
        } else {
            NoAnswer::Unknown("no answer came before the deadline")
        }))
    }
}

/// What may be set on a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    id: Option<CommandId>,
    /// The id was made for this very call, though by another node.
    is_fresh: bool,
    /// Another node sent it here, and follows the shard itself.
    is_sent_on: bool,
    within: Option<Duration>,
    metadata: Metadata,
}

impl Call {
    pub(super) fn sent_on(id: CommandId, is_fresh: bool, within: Duration, metadata: Metadata) -> Self {
        Self { id: Some(id), is_fresh, is_sent_on: true, within: Some(within), metadata }
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh || self.id.is_none()
    }
}

/// A command on its way: set what it needs, then `.await` it.
pub struct Sending<A: Aggregate, C: Command> {
    to: AggregateRef<A>,
    command: C,
    pub(super) call: Call,
}

impl<A: Handle<C>, C: Command> Sending<A, C> {
    /// Sets the command's id, so that a retry with the same id has no second effect. Without one a fresh one is made.
    #[must_use]
    pub fn id(mut self, id: CommandId) -> Self {
        self.call.id = Some(id);
        self
    }

    /// Sets how long the answer may take. Default: the node's `command_timeout`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.call.within = Some(limit);
        self
    }

    /// Sets what travels with the command and is stored with its events.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.call.metadata = metadata;
        self
    }

    /// Sends it and returns the reply with version, epoch and id.
    ///
    /// # Errors
    /// [`SendError`]: refused by the aggregate, not attempted, or unknown.
    ///
    /// # Cancel safety
    /// A dropped future takes the command back if the aggregate has not looked at it; otherwise it is carried out.
    /// In doubt, send it again with the same id.
    pub fn receipt(self) -> Receipt<C> {
        let started = Instant::now();
        let Self { to, command, call } = self;
        let command_id = call.id.unwrap_or_else(CommandId::fresh);
        let deadline = started + call.within.unwrap_or(to.running.shared.settings.command_timeout);
        let task = || typed::command_task(&command, command_id, call.is_fresh(), call.metadata.clone());
        let again = to.again(call.is_sent_on, deadline, || task().map(Task::Command));
        let (way, again) = match again.transpose() {
            Err(why) => (Way::Here(Err(why)), None),
            Ok(Some(again)) if !to.is_here() => (Way::There(again.command::<C>(command_id)), None),
            Ok(again) => (Way::Here(to.send_here(command, command_id, call, deadline)), again),
        };
        let type_index = to.type_index();
        Receipt { way, again, command_id, running: to.running, type_index, started }
    }
}

impl<A: Aggregate> AggregateRef<A> {
    fn send_here<C: Command>(
        &self,
        command: C,
        command_id: CommandId,
        call: Call,
        deadline: Instant,
    ) -> Submitted<CommandAnswer<C>>
    where
        A: Handle<C>,
    {
        let fingerprint = bincode::fingerprint(C::NAME, &command)?;
        let (fresh, metadata) = (call.is_fresh(), call.metadata);
        self.submit(deadline, |envelope| CommandJob {
            envelope,
            command,
            command_id,
            fresh,
            fingerprint,
            metadata,
            promised: None,
        })
    }

    /// Tells whether the node owns the aggregate's shard now and takes work for it.
    pub(super) fn is_here(&self) -> bool {
        self.running.shared.ownership.open_term(self.shard).is_some()
    }

    /// Keeps work in the form that reaches other nodes, where there may be some.
    pub(super) fn again(
        &self,
        is_sent_on: bool,
        deadline: Instant,
        task: impl FnOnce() -> Result<Task, NotAttempted>,
    ) -> Option<Result<Again, NotAttempted>> {
        let router = Arc::clone(self.running.router.get().filter(|_| !is_sent_on)?);
        let in_flight = Arc::clone(&self.running.in_flight);
        let to_again =
            |task| Again { router, in_flight, work: work_for::<A>(&self.id, self.shard, task), deadline };
        Some(task().map(to_again))
    }
}

/// Which way a command went.
enum Way<C: Command> {
    Here(Submitted<CommandAnswer<C>>),
    There(BoxFuture<'static, CommandAnswer<C>>),
    Over,
}

/// A command under way: its reply with version, epoch and id. See [`Sending::receipt`].
#[must_use = "await it to hear what became of the command"]
pub struct Receipt<C: Command> {
    way: Way<C>,
    /// What is sent on if the shard turns out to be elsewhere.
    again: Option<Again>,
    command_id: CommandId,
    running: Arc<Running>,
    type_index: Option<usize>,
    started: Instant,
}

impl<C: Command> Future for Receipt<C> {
    type Output = CommandAnswer<C>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        loop {
            let result = match &mut self.way {
                Way::Here(Ok(sent)) => {
                    let answer = ready!(sent.poll_answer(context));
                    self.said(answer)
                }
                Way::Here(Err(why)) => Err(why.clone().into()),
                Way::There(carried) => ready!(carried.as_mut().poll(context)),
                Way::Over => panic!("a future is not polled after its end"),
            };
            self.way = Way::Over;
            match (&result, self.again.take()) {
                (Err(SendError::NotAttempted(why)), Some(again)) if may_be_elsewhere(why) => {
                    self.way = Way::There(again.command::<C>(self.command_id));
                }
                _ => {
                    self.count(&result);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<C: Command> Receipt<C> {
    fn said(&self, answer: Result<CommandAnswer<C>, NoAnswer>) -> CommandAnswer<C> {
        match answer {
            Ok(answer) => answer,
            Err(NoAnswer::NotAttempted(why)) => Err(why.into()),
            Err(NoAnswer::Unknown(reason)) => {
                Err(Unknown { command_id: self.command_id, reason: reason.into() }.into())
            }
        }
    }

    fn count(&self, result: &CommandAnswer<C>) {
        let telemetry = &self.running.shared.telemetry;
        if let Some(type_index) = self.type_index {
            telemetry.of(type_index).metrics.command(outcome(result), self.started.elapsed());
        }
        if let Err(SendError::NotAttempted(why)) = result {
            telemetry.error(why.kind());
        }
    }
}

/// A command under way: its reply. Made by `.await` on a [`Sending`].
#[must_use = "await it to hear what became of the command"]
pub struct Reply<C: Command>(Receipt<C>);

impl<C: Command> Future for Reply<C> {
    type Output = Result<C::Reply, SendError<C::Refusal>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result.map(|done| done.reply))
    }
}

fn outcome<R, F>(result: &Result<Done<R>, SendError<F>>) -> CommandOutcome {
    match result {
        Ok(done) if done.duplicate => CommandOutcome::Duplicate,
        Ok(_) => CommandOutcome::Done,
        Err(SendError::Refused(_)) => CommandOutcome::Refused,
        Err(SendError::Unknown(_)) => CommandOutcome::Unknown,
        Err(SendError::NotAttempted(NotAttempted::Overloaded { .. })) => CommandOutcome::Overloaded,
        Err(SendError::NotAttempted(_)) => CommandOutcome::Failed,
    }
}

impl<A: Handle<C>, C: Command> IntoFuture for Sending<A, C> {
    type Output = Result<C::Reply, SendError<C::Refusal>>;
    type IntoFuture = Reply<C>;

    fn into_future(self) -> Self::IntoFuture {
        Reply(self.receipt())
    }
}

/// Events on their way: set what they need, then `.await`.
pub struct Saving<A: Aggregate> {
    to: AggregateRef<A>,
    expected: Version,
    events: Vec<A::Event>,
    pub(super) call: Call,
}

impl<A: Aggregate> Saving<A> {
    /// Sets the command id under which the events are saved, so that a retry has no second effect.
    #[must_use]
    pub fn id(mut self, id: CommandId) -> Self {
        self.call.id = Some(id);
        self
    }

    /// Sets how long the answer may take. Default: the node's `command_timeout`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.call.within = Some(limit);
        self
    }

    /// Sets what is stored with the events.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.call.metadata = metadata;
        self
    }

    async fn answer(self) -> Result<Done<()>, SaveError> {
        let Self { to, expected, events, call } = self;
        let command_id = call.id.unwrap_or_else(CommandId::fresh);
        if events.is_empty() {
            return Err(NotAttempted::Unencodable {
                reason: "no events were given; give at least one".into(),
            }
            .into());
        }
        let deadline = Instant::now() + call.within.unwrap_or(to.running.shared.settings.command_timeout);
        let again = {
            let task =
                || typed::save_task(expected, &events, command_id, call.is_fresh(), call.metadata.clone());
            to.again(call.is_sent_on, deadline, || task().map(Task::Save)).transpose()?
        };
        if !to.is_here()
            && let Some(again) = again
        {
            return again.save(command_id).await;
        }
        match (to.save_here(expected, events, command_id, call, deadline).await, again) {
            (Err(SaveError::NotAttempted(why)), Some(again)) if may_be_elsewhere(&why) => {
                again.save(command_id).await
            }
            (answer, _) => answer,
        }
    }
}

impl<A: Aggregate> AggregateRef<A> {
    async fn save_here(
        &self,
        expected: Version,
        events: Vec<A::Event>,
        command_id: CommandId,
        call: Call,
        deadline: Instant,
    ) -> Result<Done<()>, SaveError> {
        let fingerprint = events_fingerprint(&events).map_err(NotAttempted::from)?;
        let (fresh, metadata) = (call.is_fresh(), call.metadata);
        let make =
            |envelope| SaveJob { envelope, expected, events, command_id, fresh, fingerprint, metadata };
        match self.submit(deadline, make)?.answer().await {
            Ok(answer) => answer,
            Err(NoAnswer::NotAttempted(why)) => Err(why.into()),
            Err(NoAnswer::Unknown(reason)) => Err(Unknown { command_id, reason: reason.into() }.into()),
        }
    }
}

impl<A: Aggregate> IntoFuture for Saving<A> {
    type Output = Result<Done<()>, SaveError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answer())
    }
}
