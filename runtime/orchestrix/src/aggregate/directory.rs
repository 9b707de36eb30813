//! Who is resident on one arbiter, and how work reaches them.
//!
//! Everything here runs on the arbiter's own thread. That makes activation single-flight without a lock, and lets an
//! actor leave safely: it leaves only when its handle counts nothing unanswered, and nothing can arrive in between.
//!
//! Work is decided where it arrives, on the actor's instance, not in a later turn of the actor: a mailbox would be a
//! second queue behind the inbox, and cost more than the decision. What takes time (reading events, ending) is the
//! actor's: it gets a message, and work that arrives meanwhile is parked by the instance in its order.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, AsyncContext};
use orchestrix_core::{Aggregate, StreamId};
use tokio::sync::oneshot;

use super::actor::{AggregateActor, Follow, Leave};
use super::instance::{Instance, Place};
use super::job::Job;
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

#[derive(Default)]
struct Entry {
    generation: u32,
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
    /// Set while it takes no work: what is answered instead.
    closed: RefCell<Option<NotAttempted>>,
    /// Whoever waits for the last aggregate to go.
    drained: RefCell<Option<oneshot::Sender<()>>>,
}

impl Local {
    pub(crate) fn new(shared: Arc<Shared>, index: u16, tables: Vec<Box<dyn Any>>) -> Rc<Self> {
        // A tenth of the idle time, so that what is in use is never taken for idle.
        let touch_pause = TOUCH_PAUSE_MAX.min(shared.settings.residency_idle_max / 10);
        Rc::new(Self {
            shared,
            touch_pause,
            index,
            tables: RefCell::new(tables),
            entries: RefCell::default(),
            free: RefCell::default(),
            now: Cell::new(Instant::now()),
            closed: RefCell::default(),
            drained: RefCell::default(),
        })
    }

    /// Takes note of the time, once per round of the inbox.
    pub(crate) fn tick(&self) {
        self.now.set(Instant::now());
    }

    /// Hands a job to the actor of its aggregate, which is started if it is not resident.
    pub(crate) fn deliver<A: Aggregate>(self: &Rc<Self>, job: Box<dyn Job<A>>) {
        if let Some(why) = &*self.closed.borrow() {
            job.refuse(why.clone());
            return;
        }
        let seat = self.resident::<A>(&*job);
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

    fn resident<A: Aggregate>(self: &Rc<Self>, job: &dyn Job<A>) -> Rc<Seat<A>> {
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
            let place = Place { slot, type_index: route.type_index, shard: route.shard };
            let stream = StreamId::new(A::TYPE.as_str(), Arc::clone(&route.id));
            let telemetry = Arc::clone(&table.telemetry);
            let instance = Instance::new(stream, place, Rc::clone(self), telemetry, self.now.get());
            let seat = Rc::new(Seat { addr: context.address(), instance: RefCell::new(instance) });
            started = Some(Rc::clone(&seat));
            AggregateActor::new(seat)
        });
        let seat = started.expect("create calls its closure");
        self.entries.borrow_mut()[slot.index as usize].resident = Some(Rc::clone(&seat) as _);
        table.by_id.insert(Arc::clone(&route.id), Rc::clone(&seat));
        seat
    }

    fn take_slot(&self) -> Slot {
        let mut entries = self.entries.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            entries.push(Entry::default());
            entries.len() as u32 - 1
        });
        Slot { arbiter: self.index, index, generation: entries[index as usize].generation }
    }

    /// Forgets an aggregate that ends. The caller has checked that nothing is unanswered. Once is enough: a second
    /// call for the same tenant of the slot does nothing.
    pub(crate) fn remove<A: Aggregate>(&self, instance: &Instance<A>) {
        let Place { slot, type_index, .. } = instance.place();
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
        self.report_drained();
    }

    /// Tells aggregates what became of their commits.
    pub(crate) fn settle(&self, settlements: Vec<Settlement>) {
        for settlement in settlements {
            if let Some(resident) = self.at(settlement.slot) {
                resident.settle(settlement);
            }
        }
    }

    /// Sends those out of memory that the residency has given up.
    pub(crate) fn passivate_evicted(&self) {
        for slot in self.shared.residents.take_evicted(self.index) {
            if let Some(resident) = self.at(slot) {
                resident.leave();
            }
        }
    }

    /// Sends one aggregate out of memory, if it is resident.
    pub(crate) fn passivate(&self, type_index: usize, find: &dyn Fn(&dyn Any) -> Option<Slot>) {
        let slot = find(&*self.tables.borrow()[type_index]);
        if let Some(resident) = slot.and_then(|slot| self.at(slot)) {
            resident.leave();
        }
    }

    /// Sends everybody out of memory and says so when the last one has gone.
    pub(crate) fn drain(&self, drained: oneshot::Sender<()>) {
        self.close(NotAttempted::ShuttingDown, drained, |resident| resident.leave());
    }

    /// Sends everybody out of memory at once, since the shards are lost, and says so when the last one has gone.
    pub(crate) fn fence(&self, gone: oneshot::Sender<()>) {
        let why = NotAttempted::unavailable("this node lost its shards to another owner");
        self.close(why, gone, |resident| resident.fence());
    }

    /// Takes work again, unless the node is stopping.
    pub(crate) fn reopen(&self) {
        let mut closed = self.closed.borrow_mut();
        if *closed != Some(NotAttempted::ShuttingDown) {
            *closed = None;
        }
    }

    fn close(&self, why: NotAttempted, gone: oneshot::Sender<()>, go: impl Fn(&dyn Resident)) {
        *self.closed.borrow_mut() = Some(why);
        *self.drained.borrow_mut() = Some(gone);
        for entry in &*self.entries.borrow() {
            if let Some(resident) = &entry.resident {
                go(&**resident);
            }
        }
        self.report_drained();
    }

    /// A commit was lost: a shard with another owner means that this node is out.
    pub(crate) fn on_loss(&self, loss: &Loss, stream: &StreamId) {
        if *loss == Loss::Fenced && self.shared.standing.depose() {
            tracing::error!(%stream, "a shard has another owner; this node stops answering");
        }
    }

    fn at(&self, slot: Slot) -> Option<Rc<dyn Resident>> {
        let entries = self.entries.borrow();
        let entry = entries.get(slot.index as usize)?;
        if entry.generation == slot.generation { entry.resident.clone() } else { None }
    }

    fn report_drained(&self) {
        let is_empty = self.entries.borrow().len() == self.free.borrow().len();
        if is_empty && let Some(drained) = self.drained.borrow_mut().take() {
            // Whoever asked may have stopped waiting.
            let _ = drained.send(());
        }
    }
}

/// Finds an aggregate of a known type in its table.
pub(crate) fn find<A: Aggregate>(table: &dyn Any, id: &str) -> Option<Slot> {
    Some(table.downcast_ref::<Table<A>>()?.by_id.get(id)?.instance.borrow().slot())
}
