//! Another node: its lanes, and the way of one call.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use orchestrix_core::Incarnation;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::lane::Lane;
use super::outbox::GaveUp;
use super::{LANES, Local};
use crate::cluster::wire::{Call, Hello, Outcome};
use crate::error::NotAttempted;

/// A run of another node. Cheap to clone; its connections are made and kept by the transport that it came from.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
}

struct Inner {
    incarnation: Incarnation,
    address: Box<str>,
    lanes: Vec<Arc<Lane>>,
    stop: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.inner.incarnation, self.inner.address)
    }
}

/// How much is on its way to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Calls that wait for being written.
    pub queued: usize,
    /// Calls that were written and wait for their answers.
    pub written: usize,
}

impl Peer {
    pub(super) fn new(
        local: &Arc<Local>,
        incarnation: Incarnation,
        address: &str,
        stop: &CancellationToken,
    ) -> Self {
        let stop = stop.child_token();
        let lane = |_| Lane::start(Arc::clone(local), incarnation, address.into(), stop.clone());
        let lanes = (0..LANES).map(lane).collect();
        Self { inner: Arc::new(Inner { incarnation, address: address.into(), lanes, stop }) }
    }

    /// Returns which run it is.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// Returns where it is reached.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Returns what it said about itself, while there is a connection.
    pub fn hello(&self) -> Option<Arc<Hello>> {
        self.inner.lanes.iter().find_map(|lane| lane.hello())
    }

    /// Returns how much is on its way.
    pub fn depth(&self) -> Depth {
        let add = |sum: Depth, (queued, written)| Depth {
            queued: sum.queued + queued,
            written: sum.written + written,
        };
        self.inner.lanes.iter().map(|lane| lane.depth()).fold(Depth::default(), add)
    }

    pub(super) fn close(&self) {
        self.inner.stop.cancel();
    }

    /// Asks the peer, and waits for what becomes of it.
    ///
    /// While there is no connection the call waits for one, unless the last attempt to connect was refused. A call that
    /// was written and whose connection broke is *unknown*; one that was not written is *not attempted* for certain.
    ///
    /// # Cancel safety
    /// A dropped call that was not written is never sent. Otherwise the peer is told that nobody waits, and may be in
    /// the middle of it.
    pub async fn call(&self, call: Call) -> Outcome {
        let deadline = Instant::now() + call.within;
        let lane = call.shard().map_or(0, |shard| shard.get() as usize % LANES);
        match self.inner.lanes[lane].submit(&call, deadline) {
            Ok((id, answer)) => {
                let waiting = Waiting { lane: &self.inner.lanes[lane], id, answer, is_over: false };
                waiting.outcome(deadline).await
            }
            Err(why) => Outcome::not_attempted(why),
        }
    }
}

/// A caller that waits. Dropped, it takes the call back or tells the peer.
struct Waiting<'a> {
    lane: &'a Lane,
    id: u64,
    answer: oneshot::Receiver<Outcome>,
    is_over: bool,
}

impl Waiting<'_> {
    async fn outcome(mut self, deadline: Instant) -> Outcome {
        let timer = pin!(tokio::time::sleep_until(deadline.into()));
        tokio::select! {
            biased;
            answer = &mut self.answer => {
                self.is_over = true;
                answer.unwrap_or_else(|_| ended())
            }
            () = timer => self.too_late().await,
        }
    }

    async fn too_late(&mut self) -> Outcome {
        self.is_over = true;
        match self.lane.give_up(self.id) {
            GaveUp::NotSent => Outcome::not_attempted(NotAttempted::DeadlineExceeded),
            GaveUp::Sent => Outcome::unknown("no answer of the other node came before the deadline"),
            // It is on its way to this very caller.
            GaveUp::Answered => (&mut self.answer).await.unwrap_or_else(|_| ended()),
        }
    }
}

/// A lane answers everybody before it ends. One that was cut off by the end of the runtime tells nobody.
fn ended() -> Outcome {
    Outcome::unknown("this node stopped before the answer came")
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.lane.give_up(self.id);
        }
    }
}
