//! The threads that carry actors: one actix system each, with an inbox through which everything arrives.
//!
//! Callers live on other threads, so a job crosses threads once, in a queue that the arbiter empties in rounds.

use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::directory::{Local, Slot};
use super::job::Deliver;
use super::shared::Shared;
use crate::writer::Settlement;

/// The messages that one round takes from the inbox before the actors run.
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
    /// Ends the thread.
    Stop,
    /// Sends everybody out of memory, and answers when they have gone.
    Drain(oneshot::Sender<()>),
}

/// Makes the empty tables of an arbiter, one per registered type.
pub(crate) type MakeTables = Arc<dyn Fn() -> Vec<Box<dyn Any>> + Send + Sync>;

/// One arbiter thread.
pub(crate) struct Arbiter;

impl Arbiter {
    /// Starts the thread. It ends when every sender of its inbox is gone.
    pub(crate) fn start(
        index: u16,
        shared: Arc<Shared>,
        make_tables: MakeTables,
        inbox: mpsc::Receiver<Inbox>,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(format!("orchestrix-{index}")).spawn(move || {
            actix_rt::System::new().block_on(async move {
                serve(Local::new(shared, index, make_tables()), inbox).await;
            });
        })
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
                Inbox::Stop => return,
            }
        }
        local.passivate_evicted();
        // The actors run before the next round, however full the inbox is.
        tokio::task::yield_now().await;
    }
}
