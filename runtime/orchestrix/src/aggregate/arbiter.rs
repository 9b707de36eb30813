//! The threads that carry actors: one actix system each, with an inbox through which everything arrives.
//!
//! Callers live on other threads, so a job crosses threads once, in a queue that the arbiter empties in rounds.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use orchestrix_core::{ShardId, StreamId};
use tokio::sync::{mpsc, oneshot};

use super::directory::{Local, Slot};
use super::job::Deliver;
use super::shared::Shared;
use crate::writer::{Lane, Settlement, Tell};

/// The messages that one round takes from the inbox before lanes, loads and endings have their turn.
const ROUND_MAX: usize = 256;

/// Finds a resident aggregate in the table of its type.
pub(crate) type Find = Box<dyn Fn(&dyn Any) -> Option<Slot> + Send>;

/// What an arbiter can be told.
pub(crate) enum Inbox {
    /// Work for an aggregate.
    Deliver(Box<dyn Deliver>),
    /// What became of commits.
    Settled(Vec<Settlement>),
    /// Sends one aggregate out of memory.
    Passivate {
        /// Its type's place in the registration.
        type_index: usize,
        /// Finds it.
        find: Find,
    },
    /// Nothing but a reason to look at what the residency has given up.
    Look,
    /// Sends the aggregates of shards out of memory that take no more work, each when it has finished what it has, and
    /// answers when they have gone.
    Seal(Arc<[ShardId]>, oneshot::Sender<()>),
    /// Sends the aggregates of shards out of memory at once, because the shards are lost, and answers when they have
    /// gone.
    Fence(Arc<[ShardId]>, oneshot::Sender<()>),
    /// Asks for the aggregates of a shard that are in memory, the ones that were used last first.
    Warm(ShardId, oneshot::Sender<Vec<StreamId>>),
    /// Ends the thread.
    Stop,
    /// Takes no more work, sends everybody out of memory, and answers when they have gone.
    Drain(oneshot::Sender<()>),
}

/// Makes the empty tables of an arbiter, one per registered type.
pub(crate) type MakeTables = Arc<dyn Fn() -> Vec<Box<dyn Any>> + Send + Sync>;

/// One arbiter before it starts.
pub(crate) struct Arbiter {
    pub(crate) index: u16,
    pub(crate) shared: Arc<Shared>,
    pub(crate) make_tables: MakeTables,
    pub(crate) inbox: mpsc::Receiver<Inbox>,
    /// The lane of its shards, when the store carries a lane for every arbiter: a commit then meets no other thread
    /// on its way to the store and back.
    pub(crate) lane: Option<Lane<()>>,
}

impl Arbiter {
    /// Starts the thread. It ends when every sender of its inbox is gone.
    pub(crate) fn start(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("orchestrix-{}", self.index)).spawn(move || {
            actix_rt::System::new().block_on(async move {
                let local = Local::new(Arc::clone(&self.shared), self.index, (self.make_tables)());
                if let Some(lane) = self.lane {
                    let lane = lane.telling(TellHere(Rc::clone(&local)));
                    let lane = actix_rt::spawn(lane.run());
                    actix_rt::spawn(watch_lane(self.shared, lane));
                }
                serve(local, self.inbox).await;
            });
        })
    }
}

/// A lane that runs on the arbiter whose aggregates it serves.
struct TellHere(Rc<Local>);

impl Tell for TellHere {
    async fn tell(&self, settlements: Vec<Settlement>) {
        self.0.settle(settlements);
    }
}

/// Waits for a lane to end. A lane that ends by a panic leaves nothing that could make events durable, so the node
/// stops answering.
pub(crate) async fn watch_lane(shared: Arc<Shared>, lane: tokio::task::JoinHandle<()>) {
    if lane.await.is_err_and(|error| error.is_panic()) && shared.standing.become_broken() {
        tracing::error!("a writer lane has panicked; this node stops answering and must be started again");
    }
}

async fn serve(local: Rc<Local>, mut inbox: mpsc::Receiver<Inbox>) {
    let mut round = Vec::with_capacity(ROUND_MAX);
    while inbox.recv_many(&mut round, ROUND_MAX).await > 0 {
        local.tick();
        for message in round.drain(..) {
            match message {
                Inbox::Deliver(job) => job.deliver(&local),
                Inbox::Settled(settlements) => local.settle(settlements),
                Inbox::Passivate { type_index, find } => local.passivate(type_index, &*find),
                Inbox::Look => {}
                Inbox::Drain(drained) => local.drain(drained),
                Inbox::Seal(shards, sealed) => local.seal(&shards, sealed),
                Inbox::Fence(shards, gone) => local.fence(&shards, gone),
                Inbox::Warm(shard, list) => {
                    // Whoever asked may have stopped waiting.
                    let _ = list.send(local.warm_list(shard));
                }
                Inbox::Stop => return,
            }
        }
        local.passivate_evicted();
        // Lanes, loads and endings come before the next round, however full the inbox is.
        tokio::task::yield_now().await;
    }
}
