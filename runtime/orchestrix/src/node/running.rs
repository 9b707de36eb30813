//! What runs while a node runs, and how it stops.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use orchestrix_core::ShardId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::NodeStatus;
use super::remote::RemoteTypes;
use super::router::Router;
use crate::aggregate::{InFlight, Inbox, Shared};
use crate::cluster::Shards;

/// How often residency is maintained and the gauges are set.
const MAINTENANCE_PAUSE: Duration = Duration::from_millis(100);

/// How often a shutdown looks whether the work in flight has ended.
const DRAIN_PAUSE: Duration = Duration::from_millis(1);

/// The threads and tasks of a node.
#[derive(Default)]
pub(super) struct Tasks {
    /// Those that run outside of the arbiters.
    pub(super) lanes: Vec<AbortHandle>,
    pub(super) snapshotter: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// At stores with leases.
    pub(super) keeper: Option<Keeping>,
    pub(super) arbiters: Vec<thread::JoinHandle<()>>,
}

/// What keeps the lease of a node: how to end it, and when it has ended.
pub(super) type Keeping = (oneshot::Sender<()>, JoinHandle<()>);

const RUNNING: u8 = 0;
const DRAINING: u8 = 1;
const STOPPED: u8 = 2;
/// It gives its shards away, and goes on with them until each has gone.
const LEAVING: u8 = 3;

/// A node's insides, as its addresses see them.
pub(crate) struct Running {
    pub(crate) shared: Arc<Shared>,
    pub(crate) in_flight: Arc<InFlight>,
    types: HashMap<TypeId, usize>,
    /// What it does for other nodes.
    pub(super) remote: RemoteTypes,
    inboxes: Vec<mpsc::Sender<Inbox>>,
    /// In a cluster.
    pub(super) router: OnceLock<Arc<Router>>,
    /// Tells when the node has left its cluster.
    left: OnceLock<watch::Receiver<bool>>,
    status: AtomicU8,
    tasks: Mutex<Option<Tasks>>,
    stopped: watch::Sender<bool>,
}

impl Running {
    pub(super) fn start(
        shared: Arc<Shared>,
        inboxes: Vec<mpsc::Sender<Inbox>>,
        types: HashMap<TypeId, usize>,
        remote: RemoteTypes,
        tasks: Tasks,
    ) -> Arc<Self> {
        let running = Arc::new(Self {
            in_flight: Arc::clone(&shared.in_flight),
            shared,
            types,
            remote,
            inboxes,
            router: OnceLock::new(),
            left: OnceLock::new(),
            status: AtomicU8::new(RUNNING),
            tasks: Mutex::new(Some(tasks)),
            stopped: watch::Sender::new(false),
        });
        tokio::spawn(maintain(Arc::downgrade(&running)));
        running
    }

    /// Returns the inbox of the arbiter that carries a shard.
    pub(crate) fn arbiter(&self, shard: ShardId) -> &mpsc::Sender<Inbox> {
        &self.inboxes[shard.get() as usize % self.inboxes.len()]
    }

    /// Returns the handle by which the node's shards are moved.
    pub(super) fn shards(&self) -> Shards {
        Shards::new(&self.shared, &self.inboxes)
    }

    /// Returns the place at which a type was registered.
    pub(crate) fn type_index(&self, type_id: TypeId) -> Option<usize> {
        self.types.get(&type_id).copied()
    }

    pub(crate) fn status(&self) -> NodeStatus {
        match self.status.load(Ordering::Acquire) {
            RUNNING | LEAVING => self.shared.standing.status(),
            DRAINING => NodeStatus::Draining,
            _ => NodeStatus::Stopped,
        }
    }

    /// Returns the status as people see it: a node that gives its shards away is draining, though it still takes work.
    pub(super) fn shown_status(&self) -> NodeStatus {
        match (self.status.load(Ordering::Acquire), self.status()) {
            (LEAVING, NodeStatus::Running) => NodeStatus::Draining,
            (_, status) => status,
        }
    }

    /// Takes the node into a cluster: by what way work goes to others, and what keeps its membership.
    #[cfg(feature = "cluster")]
    pub(super) fn enter_cluster(&self, router: Arc<Router>, left: watch::Receiver<bool>, keeper: Keeping) {
        // Once, by the start of the node.
        let _ = (self.router.set(router), self.left.set(left));
        if let Some(tasks) = &mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) {
            tasks.keeper = Some(keeper);
        }
    }
}

/// Keeps residency and gauges up to date until the node is dropped or stopped.
async fn maintain(node: std::sync::Weak<Running>) {
    loop {
        tokio::time::sleep(MAINTENANCE_PAUSE).await;
        let Some(running) = node.upgrade() else { return };
        if running.status() == NodeStatus::Stopped {
            return;
        }
        running.shared.residents.maintain();
        set_gauges(&running);
        for inbox in &running.inboxes {
            // A full inbox has the arbiter look by itself.
            let _ = inbox.try_send(Inbox::Look);
        }
    }
}

fn set_gauges(running: &Running) {
    let (aggregates, bytes) = running.shared.residents.totals();
    let metrics = &running.shared.telemetry.metrics;
    metrics.resident_aggregates.set(aggregates as f64);
    metrics.resident_bytes.set(bytes as f64);
    metrics.in_flight.set(running.in_flight.now() as f64);
    let waiting: usize = running.shared.lanes.iter().map(|lane| lane.max_capacity() - lane.capacity()).sum();
    metrics.writer_queue.set(waiting as f64);
}

/// Stops a node; a second caller waits for the first.
pub(super) async fn shutdown(running: Arc<Running>) {
    let mut stopped = running.stopped.subscribe();
    let tasks = running.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tasks) = tasks {
        running.status.store(LEAVING, Ordering::Release);
        // In a task of its own, so that a caller who gives up does not leave half a node behind.
        tokio::spawn(async move { stop(&running, tasks).await });
    }
    // The sender lives in the node that this call holds on to.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn stop(running: &Running, tasks: Tasks) {
    let deadline = Instant::now() + running.shared.settings.shutdown_timeout;
    leave_cluster(running, deadline).await;
    running.status.store(DRAINING, Ordering::Release);
    while running.in_flight.now() > 0 && Instant::now() < deadline {
        tokio::time::sleep(DRAIN_PAUSE).await;
    }
    let left = running.in_flight.now();
    if left > 0 {
        tracing::warn!(left, "the shutdown does not wait any longer for work under way");
    }
    let last = deadline.max(Instant::now() + Duration::from_secs(1));
    let drained = tokio::time::timeout_at(last.into(), passivate_all(&running.inboxes)).await;
    if drained.is_err() {
        tracing::warn!("some aggregates were still busy when the node stopped");
    }
    finish(running, tasks, last).await;
    running.status.store(STOPPED, Ordering::Release);
    running.stopped.send_replace(true);
    tracing::info!("the node has stopped");
}

/// Gives all shards to the other nodes, and goes on with each until it has gone.
async fn leave_cluster(running: &Running, deadline: Instant) {
    let (Some(router), Some(left)) = (running.router.get(), running.left.get()) else { return };
    router.drain().await;
    let mut left = left.clone();
    let has_left = left.wait_for(|left| *left);
    match tokio::time::timeout_at(deadline.into(), has_left).await {
        Ok(Ok(_)) => tracing::info!("this node has given its shards away and left the cluster"),
        // A broken node has left before, and gave nothing away in order.
        Ok(Err(_)) => tracing::warn!("this node had left the cluster already; others take its shards over"),
        Err(_) => {
            tracing::warn!("this node could not give all its shards away in time; others take them over");
        }
    }
}

async fn passivate_all(inboxes: &[mpsc::Sender<Inbox>]) {
    let mut waiting = Vec::new();
    for inbox in inboxes {
        let (drained, wait) = oneshot::channel();
        if inbox.send(Inbox::Drain(drained)).await.is_ok() {
            waiting.push(wait);
        }
    }
    for wait in waiting {
        // An arbiter that is gone has nobody left.
        let _ = wait.await;
    }
}

/// Lets the snapshots that were taken reach the store, closes it, and ends threads and tasks. The lanes are idle by
/// now, or stuck at a store that does not answer.
async fn finish(running: &Running, tasks: Tasks, deadline: Instant) {
    if let Some((stop, snapshotter)) = tasks.snapshotter {
        // A snapshotter that is gone needs no word; one that is stuck is left behind: snapshots are disposable.
        let _ = stop.send(());
        let _ = tokio::time::timeout_at(deadline.into(), snapshotter).await;
    }
    for lane in &tasks.lanes {
        lane.abort();
    }
    if let Some(router) = running.router.get() {
        router.shutdown(deadline.saturating_duration_since(Instant::now())).await;
    }
    if let Some((stop, keeper)) = tasks.keeper {
        // Until now it renewed the lease, so that what was under way could be finished. One that is stuck at the store
        // is left behind: closing the store ends it.
        let _ = stop.send(());
        let _ = tokio::time::timeout_at(deadline.into(), keeper).await;
        if let Err(error) = running.shared.store.leave(running.shared.ownership.owner()).await {
            tracing::warn!(%error, "the lease of this node could not be given back; it ends by itself");
        }
    }
    running.shared.past.close().await;
    running.shared.store.close().await;
    for inbox in &running.inboxes {
        // An arbiter that is gone has stopped already.
        let _ = inbox.send(Inbox::Stop).await;
    }
    let joined = tokio::task::spawn_blocking(move || {
        tasks.arbiters.into_iter().filter_map(|arbiter| arbiter.join().err()).count()
    });
    match tokio::time::timeout_at(deadline.into(), joined).await {
        Ok(Ok(0)) => {}
        Ok(Ok(panicked)) => tracing::error!(panicked, "arbiter threads had panicked"),
        Ok(Err(_)) | Err(_) => tracing::warn!("an arbiter thread did not end in time"),
    }
}
