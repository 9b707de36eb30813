//! The address of one aggregate: send, read, save.

use std::any::TypeId;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::{Duration, Instant};

use orchestrix_core::{Aggregate, Command, CommandId, Epoch, Handle, Metadata, ShardId, Version, check_key};
use tokio::sync::mpsc;

use super::again::{Again, work_for};
use super::running::Running;
use super::{Consistency, NodeStatus, Reading, Saving, Sending};
use crate::aggregate::{Deliver, Envelope, Inbox, RETRY_AFTER, Route, Typed, Unanswered, Waiting, open_call};
use crate::cluster::wire::Task;
use crate::error::NotAttempted;

/// The address of one aggregate. Cheap to make and to clone; it keeps nothing resident.
pub struct AggregateRef<A: Aggregate> {
    pub(super) running: Arc<Running>,
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
    /// Commands of one caller to one aggregate are handled in the order in which they were sent, at the node that owns the
    /// aggregate. In a cluster other nodes send a command on when it is first polled, and again after a move; whoever needs
    /// the order awaits one before sending the next.
    #[must_use = "a command is sent by `.await`"]
    pub fn send<C: Command>(&self, command: C) -> Sending<A, C>
    where
        A: Handle<C>,
    {
        Sending::new(self.clone(), command)
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
        Saving::new(self.clone(), expected, events)
    }

    pub(super) fn type_index(&self) -> Option<usize> {
        self.running.type_index(TypeId::of::<A>())
    }

    /// Puts a job into the inbox of the aggregate's arbiter.
    pub(super) fn submit<J, T>(&self, deadline: Instant, make: impl FnOnce(Envelope<T>) -> J) -> Submitted<T>
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
    pub(super) fn poll_answer(&mut self, context: &mut task::Context<'_>) -> Poll<Result<T, NoAnswer>> {
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
    pub(super) id: Option<CommandId>,
    /// The id was made for this very call, though by another node.
    is_fresh: bool,
    /// Another node sent it here, and follows the shard itself.
    pub(super) is_sent_on: bool,
    pub(super) within: Option<Duration>,
    pub(super) metadata: Metadata,
}

impl Call {
    pub(super) fn sent_on(id: CommandId, is_fresh: bool, within: Duration, metadata: Metadata) -> Self {
        Self { id: Some(id), is_fresh, is_sent_on: true, within: Some(within), metadata }
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh || self.id.is_none()
    }
}

impl<A: Aggregate> AggregateRef<A> {
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
