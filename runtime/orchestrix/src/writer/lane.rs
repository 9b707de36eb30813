//! A lane: takes what has queued up, appends it in one go, and tells everybody in it while the next batch is on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use orchestrix_core::store::{Batch, CommitOutcome};
use orchestrix_core::{CommandId, Epoch, EventStore, ShardId, StreamId, Version};
use tokio::sync::mpsc;

use super::batch::{self, BatchLimits, Weighed};
use super::{Append, Fate, Loss, Ownership, Pending, Settlement, resolve};
use crate::aggregate::{Inbox, Slot, guarded};
use crate::telemetry::{EventNames, Telemetry};

/// What one append may carry.
pub(crate) type Limits = BatchLimits;

/// The appends that one lane takes from its queue at once. The queue itself is bounded by the commands in flight.
const DRAIN_MAX: usize = 4_096;

impl Weighed for Append {
    fn size(&self) -> (usize, usize) {
        (self.commit.events.len(), self.commit.weight_bytes())
    }
}

/// What is left of a commit while the store has it.
pub(super) struct Waiting {
    pub(super) stream: StreamId,
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) expected: Version,
    pub(super) last: Version,
    pub(super) command_id: CommandId,
    names: EventNames,
    slot: Slot,
}

/// One writer lane. A stream always goes through the same one, and one batch is under way at a time.
pub(crate) struct Lane<T> {
    pub(crate) queue: mpsc::Receiver<Append>,
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) ownership: Arc<Ownership>,
    pub(crate) limits: Limits,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tell: T,
}

impl Lane<()> {
    /// Says whom the lane tells.
    pub(crate) fn telling<T: Tell>(self, tell: T) -> Lane<T> {
        let Self { queue, store, ownership, limits, telemetry, tell: () } = self;
        Lane { queue, store, ownership, limits, telemetry, tell }
    }
}

/// How a lane tells aggregates what became of their commits.
pub(crate) trait Tell {
    /// Tells them, in order.
    async fn tell(&self, settlements: Vec<Settlement>);
}

/// A lane that serves several arbiters, from outside of them. The senders are weak, so that a node that is dropped
/// without a shutdown comes apart.
pub(crate) struct TellArbiters(pub(crate) Vec<mpsc::WeakSender<Inbox>>);

impl Tell for TellArbiters {
    async fn tell(&self, settlements: Vec<Settlement>) {
        let mut parts: Vec<Vec<Settlement>> = self.0.iter().map(|_| Vec::new()).collect();
        for settlement in settlements {
            parts[settlement.slot.arbiter as usize].push(settlement);
        }
        for (arbiter, part) in self.0.iter().zip(parts) {
            // An arbiter that is gone has no aggregate left that could want to know.
            if !part.is_empty()
                && let Some(arbiter) = arbiter.upgrade()
            {
                let _ = arbiter.send(Inbox::Settled(part)).await;
            }
        }
    }
}

/// One batch on its way and back. Its room is used again for a later one: allocating it afresh cost a tenth of a
/// command.
#[derive(Default)]
struct Round {
    waiting: Vec<Waiting>,
    /// Apart from the rest, since an answer need not be shareable between threads.
    pending: Vec<Box<dyn Pending>>,
    /// What became of each, once the store has said so.
    fates: Vec<Fate>,
}

impl<T: Tell> Lane<T> {
    /// Runs until every sender is gone and the queue is empty.
    ///
    /// While a batch is at the store, those in the batch before it hear what became of theirs: the store does not wait
    /// for that, and nobody is answered before the store has answered for them.
    pub(crate) async fn run(mut self) {
        let mut queued = VecDeque::new();
        let (mut round, mut before) = (Round::default(), Round::default());
        loop {
            self.gather(&mut queued);
            if queued.is_empty() {
                self.tell(&mut before).await;
                let mut incoming = Vec::new();
                if self.queue.recv_many(&mut incoming, DRAIN_MAX).await == 0 {
                    return;
                }
                queued.extend(incoming);
                self.gather(&mut queued);
            }
            let count = batch::next(&queued, self.limits);
            tokio::join!(self.append(queued.drain(..count), &mut round), self.tell(&mut before));
            std::mem::swap(&mut round, &mut before);
        }
    }

    /// Takes what has queued up.
    fn gather(&mut self, queued: &mut VecDeque<Append>) {
        while queued.len() < DRAIN_MAX
            && let Ok(append) = self.queue.try_recv()
        {
            queued.push_back(append);
        }
    }

    async fn append(&self, batch: impl ExactSizeIterator<Item = Append>, round: &mut Round) {
        let started = Instant::now();
        let mut commits = Vec::with_capacity(batch.len());
        for mut append in batch {
            append.commit.epoch = self.ownership.epoch(append.commit.shard);
            round.waiting.push(Waiting {
                stream: append.commit.stream.clone(),
                shard: append.commit.shard,
                epoch: append.commit.epoch,
                expected: append.commit.expected,
                last: append.commit.last_version(),
                command_id: append.commit.command_id,
                names: self.telemetry.names(&append.commit.events),
                slot: append.slot,
            });
            round.pending.push(append.pending);
            commits.push(append.commit);
        }
        let waiting = &round.waiting;
        let mut outcomes = self.store.append(Batch { owner: self.ownership.owner(), commits }).await;
        // A store that answers for too few leaves the rest unknown; that is resolved like any other doubt.
        outcomes.resize(
            waiting.len(),
            CommitOutcome::Unknown { reason: "the store gave no answer for it".into() },
        );
        round.fates =
            resolve::fates(&*self.store, &self.ownership, waiting, &outcomes, &self.telemetry).await;
        self.count(waiting, &round.fates, started);
    }

    fn count(&self, waiting: &[Waiting], fates: &[Fate], started: Instant) {
        let events = waiting.iter().map(|one| one.last.get() - one.expected.get()).sum();
        self.telemetry.appended(waiting.len(), events, started);
        for (one, fate) in waiting.iter().zip(fates) {
            match fate {
                Fate::Durable(_) => self.telemetry.stored(&one.stream, one.expected, one.last, &one.names),
                Fate::Lost(loss) => self.telemetry.error(loss.kind()),
            }
        }
    }

    /// Answers the callers, then tells the aggregates.
    async fn tell(&self, round: &mut Round) {
        let Round { waiting, pending, fates } = round;
        if waiting.is_empty() {
            return;
        }
        let mut settlements = Vec::with_capacity(waiting.len());
        for ((waiting, pending), fate) in waiting.drain(..).zip(pending.drain(..)).zip(fates.drain(..)) {
            note(&mut settlements, waiting.slot, waiting.last, &fate);
            // What is dropped on the way is the user's: a `Drop` that panics must not take the lane with it.
            if let Err(words) = guarded(|| pending.settle(&fate)) {
                tracing::error!(stream = %waiting.stream, %words, "an answer panicked when it was given");
            }
        }
        self.tell.tell(settlements).await;
    }
}

/// Adds a fate to the last settlement if that is the same aggregate's, so that a hot one hears once per batch.
fn note(settlements: &mut Vec<Settlement>, slot: Slot, last: Version, fate: &Fate) {
    if settlements.last().is_none_or(|settlement| settlement.slot != slot) {
        settlements.push(Settlement { slot, answered: 0, durable: None, loss: None });
    }
    let settlement = settlements.last_mut().expect("one was just pushed");
    settlement.answered += 1;
    match fate {
        Fate::Durable(_) => settlement.durable = Some(last),
        Fate::Lost(loss) => {
            settlement.loss.get_or_insert_with(|| Loss::clone(loss));
        }
    }
}
