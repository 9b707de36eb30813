//! The composition root: builds a node, hands out addresses, shuts it down.
//!
//! | file | what |
//! |---|---|
//! | `builder` | describes a node and starts it |
//! | `address` | the address of one aggregate: what may be asked of it, and the way to its arbiter |
//! | `sending` | a command on its way, here or elsewhere |
//! | `saving` | events on their way |
//! | `membership` | how a node joins its cluster |
//! | `again` | work in the form that reaches other nodes |
//! | `router` | takes work to the node that owns its shard |
//! | `reading` | how sure a read must be, and what it saw |
//! | `history` | an aggregate's past: events, states at a version or a time |
//! | `remote` | work that came from another node |
//! | `replica` | a second place to read the past from |
//! | `running` | what runs while a node runs, and how it stops |

mod address;
mod again;
mod builder;
mod history;
#[cfg(feature = "cluster")]
mod membership;
mod reading;
mod remote;
mod replica;
#[cfg(feature = "cluster")]
mod router;
#[cfg(not(feature = "cluster"))]
#[path = "router/absent.rs"]
mod router;
mod running;
mod saving;
mod sending;

use std::any::TypeId;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use orchestrix_core::store::{QuarantineRecord, ReadError, WriteError};
use orchestrix_core::{Aggregate, AggregateId, Clock, EventStore, Incarnation, StreamId};

pub use address::{AggregateRef, Done};
pub use builder::{Builder, IntoStore, Orchestrix};
pub(crate) use history::failed as history_error;
pub use history::{HistoryEvent, PastState};
#[cfg(feature = "cluster")]
use membership::join;
pub(crate) use reading::Needs;
pub use reading::{Consistency, Reading, Seen};
pub(crate) use replica::Past;
pub use replica::Replica;
use running::Running;
pub use saving::Saving;
pub use sending::{Receipt, Reply, Sending};

use crate::aggregate::{Inbox, panic_words};
pub use crate::cluster::Shards;
use crate::error::NotAttempted;
use crate::settings::Settings;
pub use crate::writer::ShardState;

/// A running node. Cheap to clone; every clone is the same node.
///
/// A node that is dropped without [`shutdown`](Node::shutdown) loses nothing that was answered, but takes no
/// snapshots and does not wait for work under way.
#[derive(Clone)]
pub struct Node {
    running: Arc<Running>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("status", &self.status()).field("residency", &self.residency()).finish()
    }
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeStatus {
    /// It takes commands.
    Running,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It does not hold its shards now: its lease has ended, or another run took over. It answers nothing, and holds
    /// them again by itself once the store answers and the other run has gone.
    Suspended,
    /// It lost its shards to another owner at a store without leases, or its writer failed; it answers nothing until
    /// it is started again.
    Fenced,
    /// It has stopped.
    Stopped,
}

/// What is resident and under way. The first two are as of the last maintenance, at most 100 ms ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Aggregates in memory.
    pub aggregates: u64,
    /// Their weight in bytes, by the same measure as `residency_bytes_max`.
    pub bytes: u64,
    /// Commands and reads accepted and not yet answered.
    pub in_flight: u64,
}

/// How a node stands in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The run of the node.
    pub incarnation: Incarnation,
    /// Where it listens for other nodes.
    pub address: SocketAddr,
    /// Shards that it takes work for.
    pub shards_owned: usize,
}

#[cfg(not(feature = "cluster"))]
async fn join(node: Node, _: crate::cluster::ClusterOptions) -> Result<Node, crate::error::StartError> {
    node.shutdown().await;
    let reason = "this build is without the feature `cluster`".to_owned();
    Err(crate::error::StartError::Join { reason })
}

/// Runs a view on a state. A view is the caller's code: when it panics, it fails alone.
pub(crate) fn guarded_view<A, R>(state: &A, view: impl FnOnce(&A) -> R) -> Result<R, NotAttempted> {
    catch_unwind(AssertUnwindSafe(|| view(state)))
        .map_err(|panic| NotAttempted::unavailable(format!("the view panicked: {}", panic_words(&*panic))))
}

/// How many reads `load_many` has under way at once.
const LOAD_MANY_AT_ONCE: usize = 256;

impl Node {
    /// Addresses one aggregate. A type that was not registered is reported when something is sent.
    pub fn of<A: Aggregate>(&self, id: A::Id) -> AggregateRef<A> {
        AggregateRef::new(Arc::clone(&self.running), id.to_shared())
    }

    /// Reads many aggregates and returns what `view` makes of each, in the order of the ids.
    ///
    /// Each is read through its owner, up to 256 at once; one that fails does not fail the others.
    ///
    /// # Cancel safety
    /// A dropped call may leave some aggregates activated; nothing is changed.
    pub async fn load_many<A: Aggregate, R: Send + 'static>(
        &self,
        ids: impl IntoIterator<Item = A::Id>,
        view: impl Fn(&A) -> R + Clone + Send + 'static,
    ) -> Vec<Result<R, NotAttempted>> {
        let mut ids = ids.into_iter();
        let mut answers = Vec::new();
        loop {
            let round: Vec<_> = ids
                .by_ref()
                .take(LOAD_MANY_AT_ONCE)
                .map(|id| self.of::<A>(id).reading(view.clone()).start())
                .collect();
            if round.is_empty() {
                return answers;
            }
            for reading in round {
                answers.push(reading.finish().await.map(|seen| seen.value));
            }
        }
    }

    /// Returns the state of the node.
    pub fn status(&self) -> NodeStatus {
        self.running.shown_status()
    }

    /// Returns how the node stands in its cluster; `None` when it is in none.
    pub fn cluster(&self) -> Option<ClusterInfo> {
        let address = self.running.router.get()?.address()?;
        let shared = &self.running.shared;
        let is_owned = |shard| shared.ownership.open_term(shard).is_some();
        let shards_owned = shared.shards.all().filter(|shard| is_owned(*shard)).count();
        Some(ClusterInfo { incarnation: shared.ownership.owner(), address, shards_owned })
    }

    /// Returns what is resident and under way now.
    pub fn residency(&self) -> Residency {
        let (aggregates, bytes) = self.running.shared.residents.totals();
        Residency { aggregates, bytes, in_flight: self.running.in_flight.now() as u64 }
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.running.shared.store
    }

    /// Returns the node's clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.running.shared.clock
    }

    /// Returns the settings that the node runs with.
    pub fn settings(&self) -> &Settings {
        &self.running.shared.settings
    }

    /// Lists quarantined aggregates, the longest-standing first.
    ///
    /// # Errors
    /// [`ReadError`] when the store does not answer.
    pub async fn quarantined(&self, limit: usize) -> Result<Vec<QuarantineRecord>, ReadError> {
        self.store().quarantined(limit).await
    }

    /// Releases an aggregate from quarantine, so that the next command loads it again; `false` when it was not
    /// quarantined.
    ///
    /// # Errors
    /// [`WriteError`] when the store does not answer; call it again.
    pub async fn release(&self, stream: &StreamId) -> Result<bool, WriteError> {
        self.store().release(stream).await
    }

    /// Sends one aggregate out of memory as soon as it has nothing to do. Its next use loads it again.
    ///
    /// Nobody needs this in a service; tests and tools do.
    pub async fn passivate<A: Aggregate>(&self, id: &A::Id) {
        let Some(type_index) = self.running.type_index(TypeId::of::<A>()) else { return };
        let id = id.to_shared();
        let shard = self.running.shared.shards.shard_of(A::TYPE.as_str(), &id);
        let find = Box::new(move |table: &dyn std::any::Any| crate::aggregate::find::<A>(table, &id));
        // A node that is stopping has no residents to send away.
        let _ = self.running.arbiter(shard).send(Inbox::Passivate { type_index, find }).await;
    }

    /// Returns the handle by which single shards are opened, sealed and fenced.
    ///
    /// Nobody needs this in a service, whose node holds its shards by itself; tests and tools do.
    pub fn shards(&self) -> Shards {
        self.running.shards()
    }

    /// Stops taking work, finishes what is under way, takes the snapshots that pay, and closes the store.
    ///
    /// It waits up to `shutdown_timeout` for work under way; callers whose work is not finished by then hear
    /// *unknown*. A second call waits for the first.
    ///
    /// # Cancel safety
    /// A dropped call goes on in the background.
    pub async fn shutdown(&self) {
        running::shutdown(Arc::clone(&self.running)).await;
    }
}
