//! The ledger where many tasks share it, and the order in which they append to a shard.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrix_core::store::{Commit, CommitOutcome};
use orchestrix_core::{Incarnation, Seq, ShardCount, ShardId, StreamId};
use tokio::sync::Notify;

use super::append::unavailable;
use super::key::StreamKey;
use super::ledger::{Ledger, Ownership};
use super::moment::Moment;

/// What the store knows, shared.
#[derive(Debug)]
pub(super) struct Book {
    ledger: Mutex<Ledger>,
    released: Notify,
    pub(super) shard_count: ShardCount,
    stream_seed: u64,
}

/// Shards that are held for an append; let go of when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    book: Arc<Book>,
    shards: Vec<ShardId>,
}

impl Book {
    pub(super) fn new(shard_count: ShardCount, stream_seed: u64) -> Arc<Self> {
        let ledger = Mutex::new(Ledger::new(shard_count));
        Arc::new(Self { ledger, released: Notify::new(), shard_count, stream_seed })
    }

    /// Returns the ledger. Nobody waits for anything while holding it.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the key of a stream.
    pub(super) fn key(&self, stream: &StreamId) -> StreamKey {
        StreamKey::of(stream, self.stream_seed)
    }

    /// Takes note of what a run owns.
    pub(super) fn install(&self, owner: Incarnation, ownership: &Ownership) {
        let lost = self.ledger().install(owner, ownership);
        report(&lost);
    }

    /// Takes note of last seqs that were read while the shards were held.
    pub(super) fn learn_heads(&self, owner: Incarnation, heads: &[(ShardId, Seq)]) {
        let lost = self.ledger().learn_heads(owner, heads);
        report(&lost);
    }

    /// Holds the shards of a batch, as soon as no other append does.
    pub(super) async fn hold(self: &Arc<Self>, commits: &[Commit]) -> Hold {
        let shards = self.distinct_shards(commits);
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // From here on no release is missed.
            released.as_mut().enable();
            if self.ledger().try_hold(&shards) {
                return Hold { book: Arc::clone(self), shards };
            }
            released.await;
        }
    }

    fn distinct_shards(&self, commits: &[Commit]) -> Vec<ShardId> {
        let count = self.shard_count.get();
        let mut seen = vec![false; count as usize];
        let shards = commits.iter().map(|commit| commit.shard).filter(|shard| shard.get() < count);
        shards.filter(|shard| !std::mem::replace(&mut seen[shard.get() as usize], true)).collect()
    }

    /// Returns the answer for a commit that cannot be stored whatever the log holds.
    pub(super) fn refusal(&self, commit: &Commit) -> Option<CommitOutcome> {
        let Commit { stream, shard, recorded_at, .. } = commit;
        let home = self.shard_count.shard_of_stream(stream);
        if *shard != home {
            return Some(unavailable(format!("{stream} belongs to shard {home} and not to {shard}")));
        }
        if commit.events.is_empty() {
            return Some(unavailable(format!("a commit to {stream} has no events")));
        }
        if Moment::exact(*recorded_at).is_none() {
            return Some(unavailable(format!("{recorded_at} is no time that PostgreSQL can keep")));
        }
        None
    }
}

/// A database that goes back behind what it acknowledged is not one that this store can mend; a person must know.
fn report(lost: &[ShardId]) {
    if let Some(first) = lost.first() {
        tracing::error!(
            shards = lost.len(),
            %first,
            "the database has lost events that it had acknowledged: it is behind what this node has stored"
        );
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.book.ledger().release(&self.shards);
        self.book.released.notify_waiters();
    }
}
