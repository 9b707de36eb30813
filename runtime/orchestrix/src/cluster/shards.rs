//! The shards of a running node, moved one by one: opened under a claim, sealed to be given away, fenced when lost.
//!
//! | call | new work | what is under way | returns when |
//! |---|---|---|---|
//! | [`open`](Shards::open) | is taken | | at once |
//! | [`seal`](Shards::seal) | is answered `NotOwner` | is finished and answered | no aggregate of the shards is in memory |
//! | [`fence`](Shards::fence) | is answered `NotOwner` | is answered `NotOwner`, or as the store says | the same |
//!
//! A shard is released to another node only after [`seal`](Shards::seal) has returned, and opened again only after
//! [`seal`](Shards::seal) or [`fence`](Shards::fence) has. Whoever breaks the second rule is answered by nobody of the
//! earlier term: an aggregate speaks only in the term in which it was loaded.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use orchestrix_core::store::Claim;
use orchestrix_core::{Epoch, Incarnation, ShardId, StreamId};
use tokio::sync::{mpsc, oneshot};

use crate::aggregate::{Envelope, Inbox, Route, Shared, ToSave, Waiting, Wake, open_call};
use crate::error::NotAttempted;
use crate::node::Seen;
use crate::writer::ShardState;

/// How long a seal waits for the last snapshots. Without them the next owner replays events, which may take it longer
/// than this for a large aggregate, and a store that needs longer for them is in trouble.
const SNAPSHOTS_WAIT_MAX: Duration = Duration::from_millis(500);

/// The shards of a node, as whoever holds them for it moves them. Cheap to clone; it keeps no node alive.
///
/// Nobody needs this in a service: the node holds its shards by itself. Tests and tools do.
#[derive(Clone)]
pub struct Shards {
    /// Weak, so that a node that is dropped without a shutdown comes apart.
    shared: Weak<Shared>,
    inboxes: Arc<[mpsc::WeakSender<Inbox>]>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shards").field("arbiters", &self.inboxes.len()).finish_non_exhaustive()
    }
}

impl Shards {
    pub(crate) fn new(shared: &Arc<Shared>, inboxes: &[mpsc::Sender<Inbox>]) -> Self {
        let inboxes = inboxes.iter().map(mpsc::Sender::downgrade).collect();
        Self { shared: Arc::downgrade(shared), inboxes }
    }

    /// Returns the run of the node that claims its shards; `None` when the node is gone.
    pub fn owner(&self) -> Option<Incarnation> {
        Some(self.shared.upgrade()?.ownership.owner())
    }

    /// Returns what a shard is at this node; `None` when the node is gone.
    ///
    /// # Panics
    /// When the log has no such shard.
    pub fn state(&self, shard: ShardId) -> Option<ShardState> {
        Some(self.shared.upgrade()?.ownership.state(shard))
    }

    /// Takes work for shards that the node has claimed, from now on and under the epochs of the claims.
    ///
    /// # Panics
    /// When the log has no such shard.
    pub fn open(&self, claims: &[Claim]) {
        let Some(shared) = self.shared.upgrade() else { return };
        for claim in claims {
            shared.ownership.open(*claim);
        }
    }

    /// Takes no new work for shards, finishes what is under way, and sends their aggregates out of memory with the
    /// snapshots that pay. Returns when the last one has gone and its snapshot is saved, as far as the store takes it.
    ///
    /// It takes as long as the store takes to answer for what is under way. A shard that is lost meanwhile is fenced
    /// like any other, and this returns too.
    ///
    /// # Panics
    /// When the log has no such shard.
    ///
    /// # Cancel safety
    /// A dropped call leaves the shards sealing; call it again to wait for their end.
    pub async fn seal(&self, shards: &[ShardId]) {
        let Some(shared) = self.shared.upgrade() else { return };
        for shard in shards {
            shared.ownership.seal(*shard);
        }
        self.send_away(shards, Inbox::Seal).await;
        let (word, saved) = oneshot::channel();
        let waiting = async {
            // A snapshotter that is gone saves nothing any more.
            let _ = shared.snapshots.send(ToSave::Word(word)).await;
            let _ = saved.await;
        };
        if tokio::time::timeout(SNAPSHOTS_WAIT_MAX, waiting).await.is_err() {
            tracing::warn!(
                "shards are sealed before their last snapshots are saved, since the store is slow"
            );
        }
    }

    /// Says nothing more for shards, from before this returns for the first time, and sends their aggregates out of
    /// memory at once: somebody else owns the shards, or may. Returns when the last aggregate has gone.
    ///
    /// # Panics
    /// When the log has no such shard.
    ///
    /// # Cancel safety
    /// A dropped call leaves the shards closed; call it again to wait until the aggregates have gone.
    pub async fn fence(&self, shards: &[ShardId]) {
        let Some(shared) = self.shared.upgrade() else { return };
        for shard in shards {
            shared.ownership.close(*shard);
        }
        drop(shared);
        self.send_away(shards, Inbox::Fence).await;
    }

    /// Takes note of who owns a shard that this node does not own; work for it is then answered with that. What is
    /// older than what the node knows changes nothing.
    ///
    /// # Panics
    /// When the log has no such shard.
    pub fn hint(&self, shard: ShardId, owner: Option<Incarnation>, epoch: Epoch) {
        if let Some(shared) = self.shared.upgrade() {
            shared.ownership.hint(shard, owner, epoch);
        }
    }

    /// Returns the aggregates of a shard that are in memory, up to 256, the ones that were used last first: what its next
    /// owner should [pre-activate](Shards::pre_activate).
    ///
    /// # Cancel safety
    /// It only looks.
    pub async fn warm_list(&self, shard: ShardId) -> Vec<StreamId> {
        let Some(inbox) = self.arbiter(shard).upgrade() else { return Vec::new() };
        let (list, listed) = oneshot::channel();
        // A node that stops hands nothing over.
        let _ = inbox.send(Inbox::Warm(shard, list)).await;
        listed.await.unwrap_or_default()
    }

    /// Brings aggregates into memory before there is work for them, and returns how many are there now. It takes half of
    /// the node's loads at most, so that work that comes for others is not kept waiting. Those that this node does not
    /// own, does not know, or has no room for are passed over.
    ///
    /// # Cancel safety
    /// A dropped call activates no more than it has begun to.
    pub async fn pre_activate(&self, streams: &[StreamId]) -> usize {
        let loads = self.shared.upgrade().map_or(1, |shared| shared.settings.loads_in_flight_max);
        let mut activated = 0;
        for wave in streams.chunks((loads / 2).max(1)) {
            let waking: Vec<_> = wave.iter().filter_map(|stream| self.wake(stream)).collect();
            for waiting in waking {
                activated += usize::from(matches!(poll_fn(|context| waiting.poll(context)).await, Ok(Ok(_))));
            }
        }
        activated
    }

    /// Puts a job into an aggregate's arbiter that asks for nothing.
    fn wake(&self, stream: &StreamId) -> Option<Waiting<Result<Seen<()>, NotAttempted>>> {
        let node = self.shared.upgrade()?;
        let of_type = |(name, _): &(&str, Wake)| *name == &*stream.aggregate_type;
        let type_index = node.kinds.iter().position(of_type)?;
        let (_, wake) = node.kinds[type_index];
        let shard = node.shards.shard_of_stream(stream);
        let permit = node.in_flight.enter().ok()?;
        let (waiting, answer) = open_call(Instant::now() + node.settings.command_timeout, permit);
        let route = Route { type_index, id: Arc::clone(&stream.id), shard };
        let job = wake(Envelope { route, answer });
        self.arbiter(shard).upgrade()?.try_send(Inbox::Deliver(job)).ok()?;
        Some(waiting)
    }

    fn arbiter(&self, shard: ShardId) -> &mpsc::WeakSender<Inbox> {
        &self.inboxes[shard.get() as usize % self.inboxes.len()]
    }

    /// Tells each arbiter which of its shards must be empty, and waits until they are.
    async fn send_away(
        &self,
        shards: &[ShardId],
        message: impl Fn(Arc<[ShardId]>, oneshot::Sender<()>) -> Inbox,
    ) {
        let mut waiting = Vec::new();
        for (index, inbox) in self.inboxes.iter().enumerate() {
            let of_arbiter = |shard: &&ShardId| shard.get() as usize % self.inboxes.len() == index;
            let own: Arc<[ShardId]> = shards.iter().filter(of_arbiter).copied().collect();
            let (gone, wait) = oneshot::channel();
            if !own.is_empty()
                && let Some(inbox) = inbox.upgrade()
                && inbox.send(message(own, gone)).await.is_ok()
            {
                waiting.push(wait);
            }
        }
        for wait in waiting {
            // An arbiter that is gone has nobody left.
            let _ = wait.await;
        }
    }

    /// Tells whether the node is gone: no arbiter can be reached any more.
    pub(super) fn is_gone(&self) -> bool {
        self.inboxes.iter().all(|inbox| inbox.upgrade().is_none())
    }
}
