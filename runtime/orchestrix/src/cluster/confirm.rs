//! Asks the store whether shards are still owned, for many reads with one question.
//!
//! One question is under way at a time. Reads that come meanwhile share the next one, not the one under way: the store
//! may have answered that before they looked at their states.

use std::sync::Arc;

use orchestrix_core::{Epoch, EventStore, ShardId};
use tokio::sync::{mpsc, oneshot};

use crate::aggregate::RETRY_AFTER;
use crate::error::NotAttempted;
use crate::writer::Ownership;

/// The reads that wait at most for the next question; one more hears `Overloaded`. As many as one aggregate may have
/// under way by default.
pub(crate) const QUEUE_MAX: usize = 8_192;

/// One read that waits.
pub(crate) struct Asked {
    claim: (ShardId, Epoch),
    answer: oneshot::Sender<Result<bool, NotAttempted>>,
}

/// The way to whoever asks.
pub(crate) struct Confirms(mpsc::Sender<Asked>);

impl Confirms {
    /// Makes the way and the one at its end.
    pub(crate) fn new(store: Arc<dyn EventStore>, ownership: Arc<Ownership>) -> (Self, Confirmer) {
        let (sender, queue) = mpsc::channel(QUEUE_MAX);
        (Self(sender), Confirmer { queue, store, ownership })
    }

    /// Tells whether this run of the node still owns a shard at an epoch, by asking the store from now on.
    pub(crate) async fn confirm(&self, shard: ShardId, epoch: Epoch) -> Result<bool, NotAttempted> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(Asked { claim: (shard, epoch), answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let (what, limit) = ("the reads that wait to be confirmed".into(), QUEUE_MAX);
                NotAttempted::Overloaded { what, limit, retry_after: RETRY_AFTER }
            }
            mpsc::error::TrySendError::Closed(_) => NotAttempted::ShuttingDown,
        })?;
        answered.await.unwrap_or(Err(NotAttempted::ShuttingDown))
    }
}

/// The task that asks.
pub(crate) struct Confirmer {
    queue: mpsc::Receiver<Asked>,
    store: Arc<dyn EventStore>,
    ownership: Arc<Ownership>,
}

impl Confirmer {
    /// Runs until the node is gone.
    pub(crate) async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.queue.recv_many(&mut waiting, QUEUE_MAX).await > 0 {
            self.ask(std::mem::take(&mut waiting)).await;
        }
    }

    async fn ask(&self, waiting: Vec<Asked>) {
        let mut claims: Vec<_> = waiting.iter().map(|asked| asked.claim).collect();
        claims.sort_unstable();
        claims.dedup();
        let answers = self.store.confirm(self.ownership.owner(), &claims).await;
        for Asked { claim, answer } in waiting {
            let place = claims.binary_search(&claim).expect("every claim is among those asked for");
            let told = match &answers {
                // A store that answers for too few confirms nothing of the rest.
                Ok(held) => Ok(held.get(place).copied().unwrap_or(false)),
                Err(error) => Err(NotAttempted::unavailable(error.to_string())),
            };
            // Whoever asked may have stopped waiting.
            let _ = answer.send(told);
        }
    }
}
