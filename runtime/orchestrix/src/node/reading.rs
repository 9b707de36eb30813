//! Reads: how sure they must be, what they must have seen, and what they saw.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use orchestrix_core::store::BoxFuture;
use orchestrix_core::{Aggregate, Epoch, ShardId, Version};
use serde::{Deserialize, Serialize};

use super::NodeStatus;
use super::address::{AggregateRef, NoAnswer, Submitted};
use super::again::may_be_elsewhere;
use super::running::Running;
use crate::aggregate::ReadJob;
use crate::cluster::Silence;
use crate::cluster::wire::{ReadTask, Task};
use crate::error::NotAttempted;

/// How sure a read must be that no other node has taken over. On a node with a store of its own all are strong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// While this node owns the shard under a lease that has not ended: no extra round trip. It rests on clocks that
    /// drift apart by less than the margin of the lease.
    #[default]
    Leased,
    /// Asks the store, after the state was read, whether this node still owns the shard: no clock is believed, and a
    /// node whose lease has ended may answer. Reads that wait at once share one question.
    Confirmed,
    /// Whatever this node has, also while it is suspended; and where it does not own the shard, what the store has now,
    /// loaded for this one read. **It may be stale**: another node may have answered for later commands. It never shows
    /// what may yet vanish, and `min_version` keeps it from showing what is older than its caller knows.
    Local,
}

/// What a read saw, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<R> {
    /// What the view returned.
    pub value: R,
    /// The version of the state; 0 when the aggregate has no events.
    pub version: Version,
    /// The shard of the aggregate.
    pub shard: ShardId,
    /// The epoch under which this node owned the shard; zero when the read was [`Consistency::Local`] and the node did
    /// not own it.
    pub epoch: Epoch,
}

/// A read on its way: set what it needs, then `.await` it.
///
/// ```
/// # use orchestrix::core::prelude::*;
/// # use orchestrix::{Consistency, Orchestrix, store::Memory};
/// # use orchestrix::core::Version;
/// # aggregate_id!(pub struct CounterId, "counter id");
/// # #[derive(Clone, Debug, Event)]
/// # pub enum Counted { #[event("counted")] One {} }
/// # #[derive(Clone, Debug, Default, Serialize, Deserialize)]
/// # pub struct Counter { total: u64 }
/// # impl Aggregate for Counter {
/// #     const TYPE: AggregateType = aggregate_type!("counter");
/// #     type Id = CounterId;
/// #     type Event = Counted;
/// #     fn apply(&mut self, _: &Counted) { self.total += 1; }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Orchestrix::builder().store(Memory::new()).aggregate::<Counter>().start().await?;
/// let counter = node.of::<Counter>("clicks".parse()?);
/// let saved = counter.save(Version::ZERO, vec![Counted::One {}]).await?;
/// // What was just written is seen, whichever copy answers.
/// let read = counter.reading(|counter| counter.total).consistency(Consistency::Local);
/// let seen = read.min_version(saved.version).await?;
/// assert_eq!((seen.value, seen.version), (1, saved.version));
/// # node.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a read is sent by `.await`"]
pub struct Reading<A: Aggregate, F, R> {
    of: AggregateRef<A>,
    view: F,
    needs: Needs,
    within: Option<Duration>,
    /// Another node sent it here, and follows the shard itself.
    is_sent_on: bool,
    returns: PhantomData<fn() -> R>,
}

/// What a read needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) consistency: Consistency,
    /// Zero when the caller knows of none.
    pub(crate) min_version: Version,
}

impl<A, F, R> Reading<A, F, R>
where
    A: Aggregate,
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    pub(super) fn new(of: AggregateRef<A>, view: F) -> Self {
        Self { of, view, needs: Needs::default(), within: None, is_sent_on: false, returns: PhantomData }
    }

    /// Sets how sure the read must be. Default: [`Consistency::Leased`].
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.needs.consistency = consistency;
        self
    }

    /// Sets the version that the state must have reached, for instance the one that a command was just answered with.
    ///
    /// A [`Local`](Consistency::Local) read of an older state looks at the store instead. Strong reads see what was
    /// answered anyway. A state that has not reached the version is [`NotAttempted::Behind`].
    pub fn min_version(mut self, version: Version) -> Self {
        self.needs.min_version = version;
        self
    }

    /// Sets how long the answer may take. Default: the node's `command_timeout`.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// Says that another node sent it here, and follows the shard itself.
    pub(super) fn sent_on(mut self) -> Self {
        self.is_sent_on = true;
        self
    }

    /// Sends it.
    pub(super) fn start(self) -> UnderWay<R> {
        let Self { of, view, needs, within, is_sent_on, .. } = self;
        let running = Arc::clone(of.running());
        let deadline = Instant::now() + within.unwrap_or(running.shared.settings.command_timeout);
        let type_index = of.type_index();
        // What a local read wants is this node's own copy.
        let stays = is_sent_on || needs.consistency == Consistency::Local;
        let fingerprint = running.remote.fingerprint(A::TYPE.as_str());
        let task = ReadTask { consistency: needs.consistency, min_version: needs.min_version, fingerprint };
        let again = of.again(stays, deadline, || Ok(Task::Read(task))).and_then(Result::ok);
        let Some(again) = again else {
            let sent = submit(&of, deadline, needs, view);
            return UnderWay { running, type_index, needs, deadline, sent, elsewhere: None };
        };
        // The view runs once: here, or where the state is fetched to.
        let view = Arc::new(Mutex::new(Some(view)));
        let sent = if of.is_here() {
            let view = Arc::clone(&view);
            submit(&of, deadline, needs, move |state: &A| take(&view).expect("it is taken once")(state))
        } else {
            Err(running.shared.ownership.not_owner(again.work.shard))
        };
        let elsewhere = move |why| -> BoxFuture<'static, Result<Seen<R>, NotAttempted>> {
            Box::pin(async move {
                let view = take(&view).ok_or(why)?;
                again.read(of, fingerprint, view).await
            })
        };
        UnderWay { running, type_index, needs, deadline, sent, elsewhere: Some(Box::new(elsewhere)) }
    }
}

fn take<F>(view: &Mutex<Option<F>>) -> Option<F> {
    view.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn submit<A, F, R>(of: &AggregateRef<A>, deadline: Instant, needs: Needs, view: F) -> Answered<R>
where
    A: Aggregate,
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    let admit = |running: &Running| admit(running, needs.consistency);
    of.submit_if(admit, deadline, |envelope| ReadJob { envelope, view, needs })
}

/// A read that was sent to an aggregate of this node.
type Answered<R> = Submitted<Result<Seen<R>, NotAttempted>>;

/// What is done when this node has not answered, for a reason.
type Elsewhere<R> = Box<dyn FnOnce(NotAttempted) -> BoxFuture<'static, Result<Seen<R>, NotAttempted>> + Send>;

/// Says whether a node takes a read now. Whether it owns the shard is looked at where the aggregate is.
fn admit(running: &Running, consistency: Consistency) -> Result<(), NotAttempted> {
    let standing = &running.shared.standing;
    match (running.status(), consistency) {
        (NodeStatus::Draining | NodeStatus::Stopped, _) => Err(NotAttempted::ShuttingDown),
        (NodeStatus::Running, _) | (NodeStatus::Suspended | NodeStatus::Fenced, Consistency::Local) => Ok(()),
        (NodeStatus::Suspended | NodeStatus::Fenced, Consistency::Leased) => Ok(standing.check()?),
        (NodeStatus::Suspended | NodeStatus::Fenced, Consistency::Confirmed) => match standing.check() {
            Ok(()) | Err(Silence::Lapsed) => Ok(()),
            Err(lost @ Silence::Lost) => Err(lost.into()),
        },
    }
}

impl<A, F, R> IntoFuture for Reading<A, F, R>
where
    A: Aggregate,
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    type Output = Result<Seen<R>, NotAttempted>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start().finish())
    }
}

/// A read that was sent.
pub(super) struct UnderWay<R> {
    running: Arc<Running>,
    type_index: Option<usize>,
    needs: Needs,
    deadline: Instant,
    sent: Answered<R>,
    elsewhere: Option<Elsewhere<R>>,
}

impl<R> UnderWay<R> {
    pub(super) async fn finish(mut self) -> Result<Seen<R>, NotAttempted> {
        let shared = Arc::clone(&self.running.shared);
        let elsewhere = self.elsewhere.take();
        let result = match (self.answer().await, elsewhere) {
            (Err(why), Some(elsewhere)) if may_be_elsewhere(&why) => elsewhere(why).await,
            (answer, _) => answer,
        };
        match &result {
            Ok(_) => {}
            Err(why) => shared.telemetry.error(why.kind()),
        }
        result
    }

    async fn answer(self) -> Result<Seen<R>, NotAttempted> {
        let seen = match self.sent?.answer().await {
            Ok(seen) => seen?,
            Err(NoAnswer::NotAttempted(why)) => return Err(why),
            Err(NoAnswer::Unknown(reason)) => return Err(NotAttempted::unavailable(reason)),
        };
        let shared = &self.running.shared;
        // Looked at first, asked after: what was true when it was asked was true when it was looked at.
        if self.needs.consistency == Consistency::Confirmed {
            let asking = shared.confirms.confirm(seen.shard, seen.epoch);
            let answered = tokio::time::timeout_at(self.deadline.into(), asking).await;
            let late =
                |_| NotAttempted::unavailable("the store did not confirm the read before the deadline");
            if !answered.map_err(late)?? {
                return Err(shared.ownership.not_owner(seen.shard));
            }
        }
        if seen.version < self.needs.min_version {
            return Err(NotAttempted::Behind { version: seen.version, wanted: self.needs.min_version });
        }
        if let Some(type_index) = self.type_index {
            shared.telemetry.of(type_index).metrics.reads.increment(1);
        }
        Ok(seen)
    }
}
