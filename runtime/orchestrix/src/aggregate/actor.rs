//! The actix shell around an instance: it turns messages into inputs and carries out what the instance asks for.
//!
//! An actor that reads its events lets its mailbox wait (`Context::wait`), so work that arrives meanwhile keeps its
//! order without a second queue.

use std::sync::Arc;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use orchestrix_core::Aggregate;

use super::instance::Instance;
use super::job::Job;
use super::lifecycle::Next;
use super::recovery;
use crate::writer::Settlement;

/// A job for the aggregate.
pub(crate) struct Work<A: Aggregate>(pub(crate) Box<dyn Job<A>>);

impl<A: Aggregate> Message for Work<A> {
    type Result = ();
}

impl Message for Settlement {
    type Result = ();
}

/// Asks the aggregate to leave memory when it has nothing to do.
pub(crate) struct Leave;

impl Message for Leave {
    type Result = ();
}

/// One resident aggregate as an actor.
pub(crate) struct AggregateActor<A: Aggregate> {
    instance: Box<Instance<A>>,
}

impl<A: Aggregate> AggregateActor<A> {
    pub(crate) fn new(instance: Instance<A>) -> Self {
        Self { instance: Box::new(instance) }
    }

    fn follow(&mut self, next: Next, context: &mut Context<Self>) {
        match next {
            Next::Stay => {
                if self.instance.leave_if_idle() == Next::End {
                    self.end(context);
                }
            }
            Next::Load => self.load(context),
            Next::End => self.end(context),
        }
    }

    fn load(&mut self, context: &mut Context<Self>) {
        let instance = &self.instance;
        let recovered = recovery::recover::<A>(
            Arc::clone(&instance.local().shared),
            instance.stream().clone(),
            Arc::clone(instance.telemetry()),
        );
        context.wait(recovered.into_actor(self).map(|recovered, actor, context| {
            let next = actor.instance.on_recovered(recovered);
            actor.follow(next, context);
        }));
    }

    /// Answers what is left; stores a quarantine before anybody can load the aggregate again; then goes.
    fn end(&mut self, context: &mut Context<Self>) {
        self.instance.refuse_all();
        if let Some(record) = self.instance.take_quarantine() {
            let store = Arc::clone(&self.instance.local().shared.store);
            let written = recovery::write_quarantine(store, record).into_actor(self);
            context.wait(written.map(|(), actor, context| actor.end(context)));
            return;
        }
        if self.instance.handle().depth() == 0 {
            self.instance.on_gone();
            self.instance.local().remove(self.instance.handle());
            context.stop();
        }
    }
}

impl<A: Aggregate> Actor for AggregateActor<A> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.load(context);
    }
}

impl<A: Aggregate> Handler<Work<A>> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, work: Work<A>, context: &mut Self::Context) {
        let next = self.instance.on_job(work.0);
        self.follow(next, context);
    }
}

impl<A: Aggregate> Handler<Settlement> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, settlement: Settlement, context: &mut Self::Context) {
        let next = self.instance.on_settled(&settlement);
        self.follow(next, context);
    }
}

impl<A: Aggregate> Handler<Leave> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, _: Leave, context: &mut Self::Context) {
        let next = self.instance.on_passivate();
        self.follow(next, context);
    }
}
