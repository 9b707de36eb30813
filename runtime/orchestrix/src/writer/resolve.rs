//! What became of a commit whose outcome the store did not know.
//!
//! A plain read cannot tell: the append may still be in flight and take effect after the read. A new claim of the
//! shard can: when it returns, no append of an older epoch takes effect any more, and what a read then finds is final.
//! So the lane claims the shards in doubt again, reads the places in doubt, and goes on only when it knows.

use std::collections::BTreeSet;
use std::time::Duration;

use orchestrix_core::store::{ClaimError, CommitOutcome, ReadError, StreamRange};
use orchestrix_core::{EventStore, ShardId};

use super::lane::Waiting;
use super::{Fate, Loss, Ownership};
use crate::telemetry::Telemetry;

/// The first and the longest pause between two attempts to reach the store.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Turns outcomes into fates. It returns only when every commit's fate is certain; callers whose deadline passes
/// meanwhile hear *unknown* from their own timer.
pub(super) async fn fates(
    store: &dyn EventStore,
    ownership: &Ownership,
    waiting: &[Waiting],
    outcomes: &[CommitOutcome],
    telemetry: &Telemetry,
) -> Vec<Fate> {
    let doubtful: BTreeSet<ShardId> = waiting
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, CommitOutcome::Unknown { .. }))
        .map(|(commit, _)| commit.shard)
        .collect();
    let mut loss = not_stored();
    if !doubtful.is_empty() {
        telemetry.error("unknown");
        tracing::warn!(
            shards = doubtful.len(),
            "the outcome of an append is unknown; claiming its shards again"
        );
        // Another holder's claim has ended our appends just as our own would have: a read is final either way.
        if !claim(store, ownership, &doubtful.into_iter().collect::<Vec<_>>()).await {
            loss = Loss::Fenced;
        }
    }
    let mut fates = Vec::with_capacity(waiting.len());
    for (commit, outcome) in waiting.iter().zip(outcomes) {
        fates.push(match Fate::from_outcome(outcome, commit.epoch) {
            Some(fate) => fate,
            None => look_up(store, commit, &loss).await,
        });
    }
    fates
}

/// Claims until the store answers; `false` when another owner holds one of the shards.
async fn claim(store: &dyn EventStore, ownership: &Ownership, shards: &[ShardId]) -> bool {
    let mut pause = PAUSE_MIN;
    loop {
        match store.claim(shards, ownership.owner()).await {
            Ok(claims) => {
                for claim in claims {
                    ownership.claimed(claim);
                }
                return true;
            }
            Err(ClaimError::Held { shard, holder }) => {
                tracing::error!(%shard, %holder, "another owner holds the shard of an append in doubt");
                return false;
            }
            Err(error) => tracing::warn!(%error, "cannot claim the shards of an append in doubt yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Reads the place in doubt until the store answers.
async fn look_up(store: &dyn EventStore, commit: &Waiting, loss: &Loss) -> Fate {
    let place = StreamRange::from(commit.expected.next(), 1);
    let mut pause = PAUSE_MIN;
    loop {
        match store.read_stream(&commit.stream, place).await {
            Ok(events) => {
                let ours = events.first().is_some_and(|event| {
                    event.version == commit.expected.next()
                        && event.command_id == commit.command_id
                        && event.epoch == commit.epoch
                });
                tracing::warn!(stream = %commit.stream, stored = ours, "the outcome of an append is known now");
                return if ours { Fate::Durable(commit.epoch) } else { Fate::Lost(loss.clone()) };
            }
            Err(error @ ReadError::Corrupt { .. }) => {
                tracing::error!(%error, stream = %commit.stream, "the place of an append in doubt is unreadable");
            }
            Err(error) => tracing::warn!(%error, "cannot read the place of an append in doubt yet"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn not_stored() -> Loss {
    Loss::Unavailable("the store failed during the append; it is certain now that nothing was stored".into())
}
