//! Who can be asked at the moment, and who owns what: the load balancer of the test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::{Answer, Ask};
use super::line::Line;
use crate::driver::Ack;
use crate::scenario::Random;

/// How long a node may take to tell what it owns before it counts as one that owns nothing.
const OWNED_MAX: Duration = Duration::from_secs(5);

/// Nobody is known to own it.
const NOBODY: u32 = u32::MAX;

/// Which node a command is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Any of them, as behind a load balancer.
    Any,
    /// The owner of the shard, where it is known.
    Owner,
    /// Any other than the owner.
    Wrong,
}

/// The nodes, as clients see them.
pub(super) struct Fleet {
    /// By node; none while it is down.
    lines: Vec<Mutex<Option<Arc<Line>>>>,
    /// By shard: the node that said last that it owns it.
    owners: Vec<AtomicU32>,
    /// What connections that have ended promised too late for their callers.
    late: Mutex<Vec<Ack>>,
}

impl Fleet {
    /// Makes places for nodes, none of which can be asked yet.
    pub(super) fn new(nodes: usize, shards: u32) -> Self {
        Self {
            lines: (0..nodes).map(|_| Mutex::default()).collect(),
            owners: (0..shards).map(|_| AtomicU32::new(NOBODY)).collect(),
            late: Mutex::default(),
        }
    }

    /// Returns how many nodes there are, up or down.
    pub(super) fn nodes(&self) -> usize {
        self.lines.len()
    }

    /// Returns how many shards there are.
    pub(super) fn shards(&self) -> u32 {
        self.owners.len() as u32
    }

    /// Puts a node's connection in, or takes it away, and ends the one that was there.
    pub(super) fn set(&self, node: usize, line: Option<Arc<Line>>) {
        let former = std::mem::replace(&mut *self.lock(node), line);
        if let Some(former) = former {
            self.late.lock().unwrap_or_else(PoisonError::into_inner).append(&mut former.close());
        }
    }

    /// Returns a node's connection; `None` while it is down.
    pub(super) fn line(&self, node: usize) -> Option<Arc<Line>> {
        self.lock(node).clone()
    }

    /// Ends all connections and returns the promises that came too late for their callers.
    pub(super) fn close(&self) -> Vec<Ack> {
        (0..self.nodes()).for_each(|node| self.set(node, None));
        std::mem::take(&mut self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Chooses a node for a command to a shard; `None` when none is ready.
    pub(super) fn choose(&self, way: Way, shard: u32, random: &mut Random) -> Option<Arc<Line>> {
        let owner = self.owners[shard as usize].load(Ordering::Relaxed) as usize;
        let preferred = match way {
            Way::Owner => self.ready(owner),
            Way::Any | Way::Wrong => None,
        };
        let first = random.below(self.nodes());
        let others = (0..self.nodes()).map(|step| (first + step) % self.nodes());
        let mut others = others.filter(|node| way != Way::Wrong || *node != owner || self.nodes() == 1);
        preferred.or_else(|| others.find_map(|node| self.ready(node)))
    }

    /// Asks a node what it owns; nothing when it does not say.
    pub(super) async fn owned_by(&self, node: usize) -> Vec<u32> {
        let Some(line) = self.line(node) else { return Vec::new() };
        match tokio::time::timeout(OWNED_MAX, line.ask(Ask::Owned)).await {
            Ok(Ok(Answer::Owned(shards))) => shards,
            _ => Vec::new(),
        }
    }

    /// Asks all nodes what they own, and remembers it for [`choose`](Self::choose). Returns how many shards have an owner.
    pub(super) async fn learn_owners(&self) -> usize {
        let mut owned = 0;
        for node in 0..self.nodes() {
            for shard in self.owned_by(node).await {
                self.owners[shard as usize].store(node as u32, Ordering::Relaxed);
                owned += 1;
            }
        }
        owned
    }

    fn ready(&self, node: usize) -> Option<Arc<Line>> {
        let line = self.lines.get(node)?.lock().unwrap_or_else(PoisonError::into_inner);
        line.as_ref().filter(|line| line.is_ready()).map(Arc::clone)
    }

    fn lock(&self, node: usize) -> std::sync::MutexGuard<'_, Option<Arc<Line>>> {
        self.lines[node].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
