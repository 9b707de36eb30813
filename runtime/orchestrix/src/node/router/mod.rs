//! Takes work to the node that owns its shard, wherever that is, and follows the shard until the deadline.
//!
//! A shard is here, at a peer, or on its way. Work that reaches a node that does not own its shard was certainly not
//! attempted, so it is sent again: to the owner that the other node names, or after a pause to whoever the view names by
//! then. Work of which nobody knows is sent again with the same id, which tells the truth; it stays *unknown* if the
//! deadline comes first.

mod warm;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use orchestrix_core::store::{BoxFuture, ClusterView};
use orchestrix_core::{Incarnation, ShardId, StreamId};
use tokio::sync::{mpsc, watch};

use super::{Node, running::Running};
use crate::cluster::transport::{PeerLost, Serve, Transport};
use crate::cluster::wire::{Call, Denial, DoneOutcome, Hello, Notice, Outcome, Request, Task, Work};
use crate::cluster::{Input, Moved, Neighbours, Route, Routes, Shards};
use crate::error::NotAttempted;
use crate::telemetry::{ClusterMetrics, RemoteOutcome};
use warm::WarmLists;

/// The pauses between two attempts, from the first to the longest. A hand-over takes some tens of milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// How much longer than a lease work looks for its owner: after a crash the shards are served again within a lease and
/// two seconds.
const BEYOND_LEASE: Duration = Duration::from_secs(4);

/// How long a notice may take. It is a hint, and stale after that.
const NOTICE_WITHIN: Duration = Duration::from_secs(1);

/// A node as a member of its cluster.
pub(crate) struct Router {
    running: OnceLock<Weak<Running>>,
    transport: OnceLock<Transport>,
    shards: Shards,
    routes: RwLock<Routes>,
    /// Counts what may make a second attempt worth it: views, hints, shards that were opened.
    changed: watch::Sender<u64>,
    inputs: mpsc::Sender<Input>,
    warm: Mutex<WarmLists>,
    known: Mutex<Vec<(Incarnation, String)>>,
    patience: Duration,
    metrics: Arc<ClusterMetrics>,
}

impl Router {
    pub(super) fn new(
        me: Incarnation,
        shards: Shards,
        inputs: mpsc::Sender<Input>,
        lease: Duration,
        metrics: Arc<ClusterMetrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            running: OnceLock::new(),
            transport: OnceLock::new(),
            shards,
            routes: RwLock::new(Routes::new(me)),
            changed: watch::Sender::new(0),
            inputs,
            warm: Mutex::default(),
            known: Mutex::default(),
            patience: lease + BEYOND_LEASE,
            metrics,
        })
    }

    /// Ties the router to its node and to its connections, once both are there.
    pub(super) fn connect(&self, running: &Arc<Running>, transport: Transport) {
        // Both are set once, by the start of the node.
        let _ = self.running.set(Arc::downgrade(running));
        let _ = self.transport.set(transport);
    }

    /// Returns where this node listens for others.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.transport.get().map(Transport::address)
    }

    /// Asks the membership to give everything away and to leave.
    pub(super) async fn drain(&self) {
        // A membership that has ended has nothing to give away.
        let _ = self.inputs.send(Input::Drain).await;
    }

    /// Ends the connections, after calls of others have had some time.
    pub(super) async fn shutdown(&self, patience: Duration) {
        if let Some(transport) = self.transport.get() {
            transport.shutdown(patience).await;
        }
    }

    /// Tells whether the node has seen who else is there.
    pub(super) fn has_view(&self) -> bool {
        *self.changed.borrow() > 0
    }

    fn node(&self) -> Option<Node> {
        Some(Node { running: self.running.get()?.upgrade()? })
    }

    fn changed(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes work to its owner and returns what became of it.
    ///
    /// # Cancel safety
    /// A dropped call leaves open whether the work is done.
    pub(super) async fn carry(&self, mut work: Work, deadline: Instant) -> Outcome {
        let (mut changes, mut pause) = (self.changed.subscribe(), PAUSE_MIN);
        let give_up = deadline.min(Instant::now() + self.patience);
        let mut doubt: Option<Box<str>> = None;
        loop {
            changes.borrow_and_update();
            let why = match self.attempt(&work, deadline).await {
                Outcome::Moved { owner, epoch, address } => {
                    let moved = Moved { shard: work.shard, owner, epoch, address: Some(address.into()) };
                    if self.learn(moved) && Instant::now() < give_up {
                        continue;
                    }
                    Denial::NotOwner { shard: work.shard, owner: Some(owner), epoch }
                }
                Outcome::NotAttempted(why) if may_pass(&why) => why,
                Outcome::NotAttempted(why) if doubt.is_none() => return Outcome::NotAttempted(why),
                Outcome::NotAttempted(_) => return Outcome::Unknown { reason: doubt.unwrap_or_default() },
                Outcome::Unknown { reason } => {
                    // Somebody may have decided about it by now, so its id is no fresh one any more.
                    work.task.is_repeated();
                    doubt.get_or_insert(reason);
                    Denial::DeadlineExceeded
                }
                known @ (Outcome::Done(_) | Outcome::Refused { .. } | Outcome::Conflict { .. }) => {
                    return known;
                }
            };
            let until = if doubt.is_some() { deadline } else { give_up };
            if Instant::now() + pause >= until {
                return doubt.map_or(Outcome::NotAttempted(why), |reason| Outcome::Unknown { reason });
            }
            tokio::select! {
                // The sender lives as long as the router.
                _ = changes.changed() => {}
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    async fn attempt(&self, work: &Work, deadline: Instant) -> Outcome {
        let within = deadline.saturating_duration_since(Instant::now());
        let Some(node) = self.node() else { return Outcome::not_attempted(NotAttempted::ShuttingDown) };
        if node.running.shared.ownership.open_term(work.shard).is_some() {
            return node.answer(within, work.clone()).await;
        }
        let route = self.routes().route(work.shard, 0);
        match (route, self.transport.get()) {
            (Route::Peer { run, address, epoch }, Some(transport)) => {
                let peer = transport.peer(run, &address);
                let work = Work { epoch: Some(epoch), ..work.clone() };
                let outcome = peer.call(Call { within, hops: 0, request: Request::Work(work) }).await;
                self.metrics.remote_command(kind_of(&outcome));
                outcome
            }
            (Route::Peer { .. } | Route::Own | Route::Unknown, _) => {
                Outcome::not_attempted(node.running.shared.ownership.not_owner(work.shard))
            }
        }
    }

    fn routes(&self) -> std::sync::RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, moved: Moved) -> bool {
        let is_news = self.routes.write().unwrap_or_else(PoisonError::into_inner).on_moved(moved);
        if is_news {
            self.changed();
        }
        is_news
    }

    fn warm_lists(&self) -> MutexGuard<'_, WarmLists> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_notice(&self, notice: Notice) {
        match notice {
            Notice::Warm { streams } => self.keep_warm(streams),
            Notice::Leaving | Notice::Released { .. } => self.tell(Input::Look),
            Notice::Moved { owner, address, shards } => {
                for (shard, epoch) in shards {
                    self.learn(Moved { shard, owner, epoch, address: Some(address.to_string()) });
                }
            }
        }
    }

    /// Keeps aggregates until their shards are opened here.
    fn keep_warm(&self, streams: Vec<StreamId>) {
        let Some(node) = self.node() else { return };
        let mut lists = self.warm_lists();
        for stream in streams {
            let shard = node.running.shared.shards.shard_of_stream(&stream);
            lists.keep(shard, stream);
        }
    }

    /// Lets the membership hear a hint; one that finds the queue full is lost, as hints may be.
    fn tell(&self, hint: Input) {
        let _ = self.inputs.try_send(hint);
    }

    /// Sends a notice to a run that the view has, and does not wait for it.
    fn notify(&self, to: Incarnation, notice: Notice) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let address = known.iter().find(|(run, _)| *run == to).map(|(_, address)| address.clone());
        drop(known);
        if let (Some(address), Some(transport)) = (address, self.transport.get()) {
            let peer = transport.peer(to, &address);
            tokio::spawn(async move {
                let call = Call { within: NOTICE_WITHIN, hops: 0, request: Request::Notice(notice) };
                if let Outcome::NotAttempted(why) = peer.call(call).await {
                    tracing::debug!(?why, %to, "a notice did not arrive");
                }
            });
        }
    }
}

fn kind_of(outcome: &Outcome) -> RemoteOutcome {
    match outcome {
        Outcome::Done(_) => RemoteOutcome::Done,
        Outcome::Refused { .. } | Outcome::Conflict { .. } => RemoteOutcome::Refused,
        Outcome::Moved { .. } => RemoteOutcome::Moved,
        Outcome::NotAttempted(_) => RemoteOutcome::Failed,
        Outcome::Unknown { .. } => RemoteOutcome::Unknown,
    }
}

/// Tells whether a second attempt may end otherwise, for a reason that the caller has nothing to do with.
fn may_pass(why: &Denial) -> bool {
    matches!(why, Denial::NotOwner { .. } | Denial::Unavailable { .. } | Denial::ShuttingDown)
}

impl Neighbours for Router {
    fn on_view(&self, view: &ClusterView) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).on_view(view);
        let address_of = |member: &orchestrix_core::store::Member| {
            Some((member.incarnation(), member.node.address.clone()?))
        };
        let members: Vec<_> = view.members.iter().filter_map(address_of).collect();
        let former = std::mem::replace(
            &mut *self.known.lock().unwrap_or_else(PoisonError::into_inner),
            members.clone(),
        );
        if let Some(transport) = self.transport.get() {
            for (run, _) in former.iter().filter(|(run, _)| members.iter().all(|(other, _)| other != run)) {
                transport.forget(*run);
            }
            // Connections are made before they are needed.
            let others = members.iter().filter(|(run, _)| Some(*run) != self.shards.owner());
            let is_connected =
                |(run, address): &&(Incarnation, String)| transport.peer(*run, address).hello().is_some();
            self.metrics.set_peers_connected(others.filter(is_connected).count());
        }
        for row in view.shards.iter().filter(|row| row.owner != self.shards.owner()) {
            self.shards.hint(row.shard, row.owner, row.epoch);
        }
        self.changed();
    }

    fn on_run(&self, run: Incarnation) {
        self.routes.write().unwrap_or_else(PoisonError::into_inner).become_run(run);
        if let Some(transport) = self.transport.get() {
            transport.become_run(run);
        }
    }

    fn on_open(&self, opened: &[ShardId]) {
        self.changed();
        let streams = self.warm_lists().take(opened);
        if !streams.is_empty() {
            let shards = self.shards.clone();
            tokio::spawn(async move {
                let activated = shards.pre_activate(&streams).await;
                tracing::debug!(
                    activated,
                    of = streams.len(),
                    "aggregates came into memory with their shards"
                );
            });
        }
    }

    fn hint(&self, runs: &[Incarnation]) {
        for run in runs {
            self.notify(*run, Notice::Released { shards: Vec::new() });
        }
    }

    fn warm(&self, to: Incarnation, streams: Vec<StreamId>) {
        if !streams.is_empty() {
            self.notify(to, Notice::Warm { streams });
        }
    }
}

/// What other nodes ask of this one.
pub(super) struct Desk(pub(super) Weak<Router>);

impl Serve for Desk {
    fn serve(&self, _: &Arc<Hello>, call: Call) -> BoxFuture<'static, Outcome> {
        let Some(router) = self.0.upgrade() else { return over() };
        let Call { within, request, .. } = call;
        match request {
            Request::Notice(notice) => {
                router.on_notice(notice);
                Box::pin(std::future::ready(Outcome::Done(DoneOutcome::default())))
            }
            Request::Work(work) => {
                let (Some(node), shard) = (router.node(), work.shard) else { return over() };
                let answer = node.answer(within, work);
                Box::pin(async move {
                    match answer.await {
                        Outcome::NotAttempted(Denial::NotOwner { .. }) => router.moved(shard),
                        outcome => outcome,
                    }
                })
            }
        }
    }

    fn peer_lost(&self, lost: PeerLost) {
        if let Some(router) = self.0.upgrade() {
            router.tell(Input::PeerLost(lost.incarnation));
        }
    }
}

fn over() -> BoxFuture<'static, Outcome> {
    Box::pin(std::future::ready(Outcome::not_attempted(NotAttempted::ShuttingDown)))
}

impl Router {
    /// Says of a shard that is not here where it is, if that is known.
    fn moved(&self, shard: ShardId) -> Outcome {
        match self.routes().moved(shard) {
            Some(Moved { owner, epoch, address: Some(address), .. }) => {
                Outcome::Moved { owner, epoch, address: address.into() }
            }
            Some(_) | None => match self.node() {
                Some(node) => Outcome::not_attempted(node.running.shared.ownership.not_owner(shard)),
                None => Outcome::not_attempted(NotAttempted::ShuttingDown),
            },
        }
    }
}

impl Task {
    /// Takes note that it may have been decided about already.
    fn is_repeated(&mut self) {
        match self {
            Self::Command(task) => task.fresh = false,
            Self::Save(task) => task.fresh = false,
            Self::Read(_) => {}
        }
    }
}
