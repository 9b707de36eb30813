//! Who is resident on one arbiter, and how work reaches them.
//!
//! Everything here runs on the arbiter's own thread. That makes activation single-flight without a lock, and lets an
//! actor leave safely: it leaves only when its handle counts nothing unanswered, and nothing can arrive in between.
//!
//! Work is decided where it arrives, on the actor's instance, not in a later turn of the actor: a mailbox would be a
//! second queue behind the inbox, and cost more than the decision. What takes time (reading events, ending) is the
//! actor's: it gets a message, and work that arrives meanwhile is parked by the instance in its order.

mod leaving;
pub(crate) mod warm;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, AsyncContext};
use orchestrix_core::{Aggregate, Epoch, ShardId, StreamId};

use super::actor::{AggregateActor, Follow, Leave};
use super::census::Census;
use super::instance::{Instance, Place};
use super::job::{Job, Route};
use super::lifecycle::Next;
use super::recovery::guarded;
use super::shared::{RETRY_AFTER, Shared};
use crate::error::NotAttempted;
use crate::hash::IdHash;
use crate::telemetry::TypeTelemetry;
use crate::writer::{Loss, Settlement};

/// A use of an aggregate is noted by the residency this often at most: recency need not be finer than that, and each
/// note costs as much as a tenth of a command.
const TOUCH_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The place of a resident aggregate: which arbiter, which entry there, and which tenant of that entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) arbiter: u16,
    index: u32,
    generation: u32,
}

impl Slot {
    /// Makes a slot that no directory has handed out, for tests of what only carries slots around.
    #[cfg(test)]
    pub(crate) fn fake(arbiter: u16, index: u32) -> Self {
        Self { arbiter, index, generation: 0 }
    }
}

/// A resident aggregate of some type.
trait Resident {
    fn settle(&self, settlement: Settlement);
    fn leave(&self);
    fn fence(&self);
    fn stream(&self) -> StreamId;
    fn touched(&self) -> Instant;
}

/// A resident aggregate of a known type. Shared by the directory, which puts work to it and settles its commits in
/// place, and by its actor. All are on one thread, and none holds a borrow across an `.await`.
pub(crate) struct Seat<A: Aggregate> {
    addr: Addr<AggregateActor<A>>,
    pub(crate) instance: RefCell<Instance<A>>,
}

impl<A: Aggregate> Seat<A> {
    /// Hands to the actor what takes time.
    fn follow(&self, next: Next, instance: &Instance<A>) {
        match next {
            Next::Stay if instance.wants_to_leave() => post(&self.addr, Leave),
            Next::Stay => {}
            next => post(&self.addr, Follow(next)),
        }
    }
}

impl<A: Aggregate> Resident for Seat<A> {
    fn settle(&self, settlement: Settlement) {
        let mut instance = self.instance.borrow_mut();
        let next = guarded(|| instance.on_settled(&settlement));
        let next = next.unwrap_or_else(|words| instance.on_broken(words));
        self.follow(next, &instance);
    }

    fn leave(&self) {
        post(&self.addr, Leave);
    }

    fn fence(&self) {
        let mut instance = self.instance.borrow_mut();
        let next = instance.on_fenced();
        self.follow(next, &instance);
    }

    fn stream(&self) -> StreamId {
        self.instance.borrow().stream().clone()
    }

    fn touched(&self) -> Instant {
        self.instance.borrow().touched()
    }
}

/// Puts a message into an actor's mailbox.
#[expect(
    clippy::disallowed_methods,
    reason = "what arrives is bounded by `depth` and by the commits in flight"
)]
fn post<T, M>(addr: &Addr<T>, message: M)
where
    T: Actor + actix::Handler<M>,
    T::Context: ToEnvelope<T, M>,
    M: actix::Message<Result = ()> + Send + 'static,
{
    addr.do_send(message);
}

/// The resident aggregates of one type on one arbiter.
pub(crate) struct Table<A: Aggregate> {
    telemetry: Arc<TypeTelemetry>,
    by_id: HashMap<Arc<str>, Rc<Seat<A>>, IdHash>,
}

impl<A: Aggregate> Table<A> {
    /// Makes an empty table, without its type.
    pub(crate) fn boxed(telemetry: Arc<TypeTelemetry>) -> Box<dyn Any> {
        Box::new(Self { telemetry, by_id: HashMap::default() })
    }
}

struct Entry {
    generation: u32,
    /// In the room that the layout leaves, so that shards cost no aggregate any memory.
    shard: ShardId,
    resident: Option<Rc<dyn Resident>>,
}

/// What one arbiter knows.
pub(crate) struct Local {
    pub(crate) shared: Arc<Shared>,
    index: u16,
    tables: RefCell<Vec<Box<dyn Any>>>,
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<u32>>,
    now: Cell<Instant>,
    touch_pause: Duration,
    /// The node stops: no work is taken for any shard.
    stopping: Cell<bool>,
    census: RefCell<Census>,
}

impl Local {
    pub(crate) fn new(shared: Arc<Shared>, index: u16, tables: Vec<Box<dyn Any>>) -> Rc<Self> {
        // A tenth of the idle time, so that what is in use is never taken for idle.
        let touch_pause = TOUCH_PAUSE_MAX.min(shared.settings.residency_idle_max / 10);
        let census = RefCell::new(Census::new(shared.shards));
        Rc::new(Self {
            shared,
            touch_pause,
            index,
            tables: RefCell::new(tables),
            entries: RefCell::default(),
            free: RefCell::default(),
            now: Cell::new(Instant::now()),
            stopping: Cell::new(false),
            census,
        })
    }

    /// Takes note of the time, once per round of the inbox.
    pub(crate) fn tick(&self) {
        self.now.set(Instant::now());
    }

    /// Hands a job to the actor of its aggregate, which is started if it is not resident.
    pub(crate) fn deliver<A: Aggregate>(self: &Rc<Self>, job: Box<dyn Job<A>>) {
        if self.stopping.get() {
            job.refuse(NotAttempted::ShuttingDown);
            return;
        }
        let shard = job.route().shard;
        let Some(term) = self.shared.ownership.open_term(shard) else {
            job.refuse(self.shared.ownership.not_owner(shard));
            return;
        };
        let seat = self.resident::<A>(&*job, term);
        if seat.instance.borrow().place().term != term {
            // Its shard was lost and owned again before it had gone: it has no part in what comes now.
            seat.fence();
            job.refuse(self.shared.ownership.not_owner(shard));
            return;
        }
        self.put(&seat, job);
    }

    /// Tells whether the node stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Finds an aggregate that is resident and has a state, whoever owns its shard.
    pub(super) fn running<A: Aggregate>(&self, route: &Route) -> Option<Rc<Seat<A>>> {
        let tables = self.tables.borrow();
        let seat = tables[route.type_index].downcast_ref::<Table<A>>()?.by_id.get(&route.id)?;
        seat.instance.borrow().is_running().then(|| Rc::clone(seat))
    }

    /// Puts a job to an aggregate that is resident.
    pub(super) fn put<A: Aggregate>(&self, seat: &Seat<A>, job: Box<dyn Job<A>>) {
        let mut instance = seat.instance.borrow_mut();
        let limit = self.shared.settings.mailbox_commands_max;
        if instance.depth() as usize >= limit {
            let what = "the aggregate's mailbox".into();
            job.refuse(NotAttempted::Overloaded { what, limit, retry_after: RETRY_AFTER });
            return;
        }
        if instance.arrived(self.now.get(), self.touch_pause) {
            self.shared.residents.touch(instance.slot());
        }
        // User code has its own guard; what still panics must not take the arbiter with it.
        let next = guarded(|| instance.on_job(job)).unwrap_or_else(|words| {
            instance.answered(1);
            instance.on_broken(words)
        });
        seat.follow(next, &instance);
    }

    fn resident<A: Aggregate>(self: &Rc<Self>, job: &dyn Job<A>, term: Epoch) -> Rc<Seat<A>> {
        let route = job.route();
        let mut tables = self.tables.borrow_mut();
        let table =
            tables[route.type_index].downcast_mut::<Table<A>>().expect("a table keeps its type's index");
        if let Some(seat) = table.by_id.get(&route.id) {
            return Rc::clone(seat);
        }
        let slot = self.take_slot();
        let mut started = None;
        AggregateActor::create(|context| {
            let place = Place { slot, type_index: route.type_index, shard: route.shard, term };
            let stream = StreamId::new(A::TYPE.as_str(), Arc::clone(&route.id));
            let telemetry = Arc::clone(&table.telemetry);
            let instance = Instance::new(stream, place, Rc::clone(self), telemetry, self.now.get());
            let seat = Rc::new(Seat { addr: context.address(), instance: RefCell::new(instance) });
            started = Some(Rc::clone(&seat));
            AggregateActor::new(seat)
        });
        let seat = started.expect("create calls its closure");
        let entry = &mut self.entries.borrow_mut()[slot.index as usize];
        (entry.shard, entry.resident) = (route.shard, Some(Rc::clone(&seat) as _));
        self.census.borrow_mut().came(route.shard);
        table.by_id.insert(Arc::clone(&route.id), Rc::clone(&seat));
        seat
    }

    fn take_slot(&self) -> Slot {
        let mut entries = self.entries.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            entries.push(Entry { generation: 0, shard: ShardId::default(), resident: None });
            entries.len() as u32 - 1
        });
        Slot { arbiter: self.index, index, generation: entries[index as usize].generation }
    }

    /// Forgets an aggregate that ends. The caller has checked that nothing is unanswered. Once is enough: a second
    /// call for the same tenant of the slot does nothing.
    pub(crate) fn remove<A: Aggregate>(&self, instance: &Instance<A>) {
        let Place { slot, type_index, shard, .. } = instance.place();
        let mut entries = self.entries.borrow_mut();
        let entry = &mut entries[slot.index as usize];
        if entry.generation != slot.generation {
            return;
        }
        entry.resident = None;
        entry.generation = entry.generation.wrapping_add(1);
        drop(entries);
        if let Some(table) = self.tables.borrow_mut()[type_index].downcast_mut::<Table<A>>() {
            table.by_id.remove(&instance.stream().id);
        }
        self.free.borrow_mut().push(slot.index);
        self.shared.residents.forget(slot);
        self.census.borrow_mut().went(shard);
    }

    /// Tells aggregates what became of their commits.
    pub(crate) fn settle(&self, settlements: Vec<Settlement>) {
        for settlement in settlements {
            if let Some(resident) = self.at(settlement.slot) {
                resident.settle(settlement);
            }
        }
    }

    /// A commit was lost. A shard with another owner is lost where leases are; elsewhere the whole node is out.
    pub(crate) fn on_loss(&self, loss: &Loss, stream: &StreamId, place: Place) {
        if *loss != Loss::Fenced {
            return;
        }
        let Place { shard, term, .. } = place;
        let standing = &self.shared.standing;
        if !standing.has_leases() {
            if standing.depose() {
                tracing::error!(%stream, "a shard has another owner; this node stops answering");
            }
        } else if self.shared.ownership.lose(shard, term) {
            standing.ask();
            tracing::error!(%stream, %shard, "the shard has another owner; this node stops answering for it");
        }
    }

    fn at(&self, slot: Slot) -> Option<Rc<dyn Resident>> {
        let entries = self.entries.borrow();
        let entry = entries.get(slot.index as usize)?;
        if entry.generation == slot.generation { entry.resident.clone() } else { None }
    }
}

/// Finds an aggregate of a known type in its table.
pub(crate) fn find<A: Aggregate>(table: &dyn Any, id: &str) -> Option<Slot> {
    Some(table.downcast_ref::<Table<A>>()?.by_id.get(id)?.instance.borrow().slot())
}
