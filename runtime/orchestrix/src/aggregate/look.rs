//! A read: a look at the state, and how it is believed.
//!
//! A local one looks at what is in memory whoever owns the shard, or at a copy that is loaded for one look.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use orchestrix_core::{Aggregate, CommandId, Epoch, StreamId, Version};

use super::call::Answer;
use super::directory::Local;
use super::gate::Withheld;
use super::instance::Instance;
use super::job::{Deliver, Envelope, Job, Ran, Route, Typed};
use super::recovery::{self, Purpose};
use crate::error::NotAttempted;
use crate::node::{Consistency, Needs, Seen, guarded_view};

/// A look at the state.
pub(crate) struct ReadJob<F, R> {
    pub(crate) envelope: Envelope<Result<Seen<R>, NotAttempted>>,
    pub(crate) view: F,
    pub(crate) needs: Needs,
}

impl<A: Aggregate, F, R> Deliver for Typed<A, ReadJob<F, R>>
where
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    fn deliver(self: Box<Self>, local: &Rc<Local>) {
        match self.0.needs.consistency {
            Consistency::Leased | Consistency::Confirmed => local.deliver::<A>(self),
            Consistency::Local => local.look::<A, F, R>(self),
        }
    }

    fn refuse(self: Box<Self>, why: NotAttempted) {
        self.0.envelope.answer.give(Err(why));
    }
}

impl<A: Aggregate, F, R> Job<A> for Typed<A, ReadJob<F, R>>
where
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    fn route(&self) -> &Route {
        &self.0.envelope.route
    }

    fn command_id(&self) -> Option<CommandId> {
        None
    }

    fn run(self: Box<Self>, instance: &mut Instance<A>) -> Ran<A> {
        let Needs { consistency, min_version } = self.0.needs;
        if consistency == Consistency::Local && instance.head() < min_version {
            // The caller knows of more than is here, so somebody else has answered for it: the store tells.
            look_at_copy(instance.local(), self);
            return Ran::Answered;
        }
        let Some((answer, seen)) = (*self).see(instance.state(), instance.head(), instance.epoch()) else {
            return Ran::Answered;
        };
        instance.hold(move |end| answer.give(believed(end, consistency).map(|()| seen)))
    }
}

impl<A: Aggregate, F, R> Typed<A, ReadJob<F, R>>
where
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    /// Looks at a state that nobody else has.
    fn look_at(self, state: &A, version: Version, epoch: Epoch) {
        if let Some((answer, seen)) = self.see(state, version, epoch) {
            answer.give(Ok(seen));
        }
    }

    /// Takes what is to be seen of a state; nothing when the caller has gone, or its view panicked.
    fn see(self, state: &A, version: Version, epoch: Epoch) -> Option<(SeenAnswer<R>, Seen<R>)> {
        let ReadJob { envelope: Envelope { route, answer }, view, .. } = self.0;
        if let Err(why) = answer.start() {
            answer.give(Err(why));
            return None;
        }
        match guarded_view(state, view) {
            Ok(value) => Some((answer, Seen { value, version, shard: route.shard, epoch })),
            Err(why) => {
                answer.give(Err(why));
                None
            }
        }
    }
}

/// The way back to a reader.
type SeenAnswer<R> = Answer<Result<Seen<R>, NotAttempted>>;

/// Says whether a read is answered with what it saw, by how sure it must be: what may vanish is never shown.
fn believed(end: Result<(), Withheld>, consistency: Consistency) -> Result<(), NotAttempted> {
    match (end, consistency) {
        (Ok(()), _)
        // The store is asked next, and knows better than the clock.
        | (Err(Withheld::Lapsed(_)), Consistency::Confirmed | Consistency::Local)
        | (Err(Withheld::NotOurs(_)), Consistency::Local) => Ok(()),
        (Err(why), _) => Err(why.into()),
    }
}

/// Makes a job that brings an aggregate into memory and asks for nothing else.
pub(crate) fn wake<A: Aggregate>(envelope: Envelope<Result<Seen<()>, NotAttempted>>) -> Box<dyn Deliver> {
    let job = ReadJob { envelope, view: |_: &A| (), needs: Needs::default() };
    Box::new(Typed::<A, _>(job, PhantomData))
}

impl Local {
    /// Hands a local read to an aggregate as any other job where the node owns the shard. Elsewhere it is looked at
    /// by an aggregate that is still here, or at a copy.
    fn look<A, F, R>(self: &Rc<Self>, job: Box<Typed<A, ReadJob<F, R>>>)
    where
        A: Aggregate,
        F: FnOnce(&A) -> R + Send + 'static,
        R: Send + 'static,
    {
        if self.is_stopping() {
            job.refuse(NotAttempted::ShuttingDown);
        } else if self.shared.ownership.open_term(job.route().shard).is_some() {
            self.deliver::<A>(job);
        } else if let Some(seat) = self.running::<A>(job.route()) {
            self.put(&seat, job);
        } else {
            look_at_copy(self, job);
        }
    }
}

/// Loads a copy of an aggregate, looks at it, and forgets it. It is counted among the work in flight by the job's permit,
/// and among the loads, so both bounds hold.
fn look_at_copy<A, F, R>(local: &Rc<Local>, job: Box<Typed<A, ReadJob<F, R>>>)
where
    A: Aggregate,
    F: FnOnce(&A) -> R + Send + 'static,
    R: Send + 'static,
{
    let shared = Arc::clone(&local.shared);
    actix_rt::spawn(async move {
        let route = job.route().clone();
        let telemetry = Arc::clone(shared.telemetry.of(route.type_index));
        let stream = StreamId::new(A::TYPE.as_str(), Arc::clone(&route.id));
        let load = recovery::recover::<A>(Arc::clone(&shared), stream.clone(), telemetry, Purpose::Look);
        match load.await {
            Ok(copy) => job.look_at(&copy.state, copy.version, Epoch::ZERO),
            Err(why) => {
                let not_owner = || shared.ownership.not_owner(route.shard);
                job.refuse(why.ending.to_not_attempted(&stream, not_owner));
            }
        }
    });
}
