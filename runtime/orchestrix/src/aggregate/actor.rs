//! The actix shell around an instance: it carries out what the instance asks for and what takes time.
//!
//! Work does not come through here: the directory puts it to the instance in place. While the actor reads its events
//! its mailbox waits (`Context::wait`), and the instance parks the work that arrives.

use std::rc::Rc;
use std::sync::Arc;

use actix::fut::{ActorFutureExt, WrapFuture};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use orchestrix_core::Aggregate;

use super::directory::Seat;
use super::lifecycle::Next;
use super::recovery::{self, Purpose};

/// What the aggregate has to do after work that it looked at, or after commits that were settled.
pub(crate) struct Follow(pub(crate) Next);

impl Message for Follow {
    type Result = ();
}

/// Asks the aggregate to leave memory when it has nothing to do.
pub(crate) struct Leave;

impl Message for Leave {
    type Result = ();
}

/// One resident aggregate as an actor.
pub(crate) struct AggregateActor<A: Aggregate> {
    seat: Rc<Seat<A>>,
}

impl<A: Aggregate> AggregateActor<A> {
    pub(crate) fn new(seat: Rc<Seat<A>>) -> Self {
        Self { seat }
    }

    fn follow(&mut self, next: Next, context: &mut Context<Self>) {
        match next {
            Next::Stay => {
                let next = self.seat.instance.borrow_mut().leave_if_idle();
                if next == Next::End {
                    self.end(context);
                }
            }
            Next::Load => self.load(context),
            Next::End => self.end(context),
        }
    }

    fn load(&mut self, context: &mut Context<Self>) {
        let recovered = {
            let instance = self.seat.instance.borrow();
            let (shared, telemetry) =
                (Arc::clone(&instance.local().shared), Arc::clone(instance.telemetry()));
            recovery::recover::<A>(shared, instance.stream().clone(), telemetry, Purpose::Decide)
        };
        context.wait(recovered.into_actor(self).map(|recovered, actor, context| {
            let next = actor.seat.instance.borrow_mut().on_recovered(recovered);
            actor.follow(next, context);
        }));
    }

    /// Stores a quarantine first, so that whoever hears of it can list it and release it; then answers what is left,
    /// and goes.
    fn end(&mut self, context: &mut Context<Self>) {
        let mut instance = self.seat.instance.borrow_mut();
        if let Some(record) = instance.take_quarantine() {
            let store = Arc::clone(&instance.local().shared.store);
            drop(instance);
            let written = recovery::write_quarantine(store, record).into_actor(self);
            context.wait(written.map(|(), actor, context| actor.end(context)));
            return;
        }
        instance.refuse_all();
        if instance.depth() == 0 {
            instance.on_gone();
            instance.local().remove(&*instance);
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

impl<A: Aggregate> Handler<Follow> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, Follow(next): Follow, context: &mut Self::Context) {
        self.follow(next, context);
    }
}

impl<A: Aggregate> Handler<Leave> for AggregateActor<A> {
    type Result = ();

    fn handle(&mut self, _: Leave, context: &mut Self::Context) {
        let next = self.seat.instance.borrow_mut().on_passivate();
        self.follow(next, context);
    }
}
