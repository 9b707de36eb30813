//! Decides what a batch would store: a pure function of the batch and of what the writer knows.
//!
//! What the writer knows ([`Ledger`]) was read under one generation of ownership, and each write compares that
//! generation inside its transaction. So a decision made here holds when it is carried out, or nothing is stored.

use std::collections::HashMap;
use std::sync::Arc;

use orchestrix_core::store::{Batch, Commit, CommitOutcome};
use orchestrix_core::{Epoch, Incarnation, Seq, ShardCount, ShardId, StreamId, Version};

use super::place::{SEQ_MAX, position};
use crate::store::recent::Recent;

/// How many streams the writer remembers the version of: about 16 MiB with ids of twenty bytes.
const STREAMS_MAX: usize = 131_072;

/// What the writer knows of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardState {
    pub(super) epoch: Epoch,
    pub(super) owner: Option<Incarnation>,
    pub(super) head: Seq,
}

/// The end of a stream: its number in the table of streams, once it has one, and its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) number: Option<i64>,
    pub(super) version: Version,
}

/// What the writer knows without asking the database, all of it read under one generation of ownership.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) generation: i64,
    pub(super) shards: Vec<ShardState>,
    pub(super) stream_number_next: i64,
    heads: Recent<StreamId, Head>,
}

impl Ledger {
    pub(super) fn new(generation: i64, shards: Vec<ShardState>, stream_number_next: i64) -> Self {
        Self { generation, shards, stream_number_next, heads: Recent::new(STREAMS_MAX) }
    }

    /// Returns where each shard ends.
    pub(super) fn heads(&self) -> Vec<Seq> {
        self.shards.iter().map(|shard| shard.head).collect()
    }

    /// Tells whether the owner holds the shard at this epoch.
    pub(super) fn is_held(&self, shard: ShardId, epoch: Epoch, owner: Incarnation) -> bool {
        let state = self.shards.get(shard.get() as usize);
        state.is_some_and(|state| state.epoch == epoch && state.owner == Some(owner))
    }

    /// Takes in what a plan stored, once it is stored.
    pub(super) fn take_in(&mut self, plan: Plan, streams: Vec<Slot>) {
        for (state, head) in self.shards.iter_mut().zip(plan.shard_heads) {
            state.head = head;
        }
        self.stream_number_next = plan.stream_number_next;
        for (slot, head) in streams.into_iter().zip(plan.stream_heads) {
            self.heads.put(slot.stream, head);
        }
    }
}

/// One stream of a batch, and its end where the writer knows it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) stream: StreamId,
    pub(super) head: Option<Head>,
}

/// The streams of a batch, each once.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) streams: Vec<Slot>,
    /// The place in `streams` for each commit.
    of_commit: Vec<usize>,
}

impl Slots {
    /// Collects the streams of a batch and fills in what the ledger remembers.
    pub(super) fn gather(commits: &[Commit], ledger: &mut Ledger) -> Self {
        let mut slots = Self { streams: Vec::new(), of_commit: Vec::with_capacity(commits.len()) };
        let mut seen: HashMap<&StreamId, usize> = HashMap::with_capacity(commits.len());
        for commit in commits {
            let at = *seen.entry(&commit.stream).or_insert_with(|| {
                let head = ledger.heads.get(&commit.stream);
                slots.streams.push(Slot { stream: commit.stream.clone(), head });
                slots.streams.len() - 1
            });
            slots.of_commit.push(at);
        }
        slots
    }
}

/// One commit that is to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its place in the batch.
    pub(super) commit: usize,
    /// The number of its stream.
    pub(super) stream: i64,
    /// The row of its first event; the others follow.
    pub(super) position: i64,
}

/// What a batch would store and what would be answered.
#[derive(Debug)]
pub(super) struct Plan {
    /// The answer for each commit, those of `placed` being right only once they are stored.
    pub(super) outcomes: Vec<CommitOutcome>,
    /// What is to be stored, in the order of the rows.
    pub(super) placed: Vec<Placed>,
    /// Streams that get their first event, with their new numbers.
    pub(super) new_streams: Vec<(i64, StreamId)>,
    /// How many events are to be stored.
    pub(super) events: usize,
    stream_heads: Vec<Head>,
    shard_heads: Vec<Seq>,
    stream_number_next: i64,
}

impl Plan {
    /// Decides about each commit in turn, each on top of those before it.
    pub(super) fn make(batch: &Batch, slots: &Slots, ledger: &Ledger) -> Self {
        let mut plan = Self {
            outcomes: Vec::with_capacity(batch.commits.len()),
            placed: Vec::with_capacity(batch.commits.len()),
            new_streams: Vec::new(),
            events: 0,
            stream_heads: slots.streams.iter().map(|slot| slot.head.unwrap_or_default()).collect(),
            shard_heads: ledger.shards.iter().map(|shard| shard.head).collect(),
            stream_number_next: ledger.stream_number_next,
        };
        for (at, commit) in batch.commits.iter().enumerate() {
            let outcome = match refusal(commit, batch.owner, ledger) {
                Some(refused) => refused,
                None => plan.place(at, commit, slots.of_commit[at]),
            };
            plan.outcomes.push(outcome);
        }
        plan.placed.sort_unstable_by_key(|placed| placed.position);
        plan
    }

    /// Answers what is to be stored with something else, since it was not.
    pub(super) fn answer_placed(mut self, outcome: &CommitOutcome) -> Vec<CommitOutcome> {
        for placed in &self.placed {
            self.outcomes[placed.commit] = outcome.clone();
        }
        self.outcomes
    }

    /// Gives a commit its place, if it fits the stream's version.
    fn place(&mut self, at: usize, commit: &Commit, slot: usize) -> CommitOutcome {
        let head = self.stream_heads[slot];
        if commit.expected != head.version {
            return CommitOutcome::Conflict { actual: Some(head.version) };
        }
        let stream = head.number.unwrap_or_else(|| self.number_stream(&commit.stream));
        self.stream_heads[slot] = Head { number: Some(stream), version: commit.last_version() };
        let shard_head = &mut self.shard_heads[commit.shard.get() as usize];
        let first_seq = shard_head.next();
        *shard_head = shard_head.plus(commit.events.len() as u64);
        self.events += commit.events.len();
        self.placed.push(Placed { commit: at, stream, position: position(commit.shard, first_seq) });
        CommitOutcome::Committed { first_seq }
    }

    fn number_stream(&mut self, stream: &StreamId) -> i64 {
        let number = self.stream_number_next;
        self.stream_number_next += 1;
        self.new_streams.push((number, stream.clone()));
        number
    }
}

/// Returns the answer for a commit that cannot be stored whatever its stream holds.
fn refusal(commit: &Commit, owner: Incarnation, ledger: &Ledger) -> Option<CommitOutcome> {
    let count = ShardCount::new(ledger.shards.len() as u32).expect("a log has 1 to 4,096 shards");
    let home = count.shard_of_stream(&commit.stream);
    let Commit { stream, shard, .. } = commit;
    if commit.shard != home {
        return Some(unavailable(format!("{stream} belongs to shard {home} and not to {shard}")));
    }
    if !ledger.is_held(commit.shard, commit.epoch, owner) {
        return Some(CommitOutcome::Fenced);
    }
    if commit.events.is_empty() {
        return Some(unavailable(format!("a commit to {stream} has no events")));
    }
    let head = ledger.shards[commit.shard.get() as usize].head;
    if head.get() + commit.events.len() as u64 > SEQ_MAX {
        return Some(unavailable(format!("shard {shard} is full: it holds {head} events")));
    }
    None
}

/// Answers that a commit was not attempted, or did certainly not happen.
pub(super) fn unavailable(reason: impl Into<Arc<str>>) -> CommitOutcome {
    CommitOutcome::Unavailable { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::store::NewEvent;
    use orchestrix_core::{Codec, CommandId, Timestamp};

    use super::*;

    fn ledger(owner: Incarnation) -> Ledger {
        let shard = ShardState { epoch: Epoch::new(3), owner: Some(owner), head: Seq::new(10) };
        Ledger::new(7, vec![shard], 50)
    }

    fn commit(id: &str, expected: u64, events: usize) -> Commit {
        let event = NewEvent {
            event_type: "noted".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: b"{}".to_vec(),
        };
        Commit {
            stream: StreamId::new("note", id),
            shard: ShardId::new(0),
            epoch: Epoch::new(3),
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(1),
            headers: None,
            receipt: None,
            events: vec![event; events],
        }
    }

    fn plan(ledger: &mut Ledger, batch: &Batch) -> (Plan, Slots) {
        let slots = Slots::gather(&batch.commits, ledger);
        (Plan::make(batch, &slots, ledger), slots)
    }

    fn seqs(plan: &Plan) -> Vec<Option<u64>> {
        let seq = |outcome: &CommitOutcome| match outcome {
            CommitOutcome::Committed { first_seq } => Some(first_seq.get()),
            _ => None,
        };
        plan.outcomes.iter().map(seq).collect()
    }

    #[test]
    fn commits_build_on_each_other() {
        let owner = Incarnation::fresh();
        let batch = Batch { owner, commits: vec![commit("a", 0, 2), commit("b", 0, 1), commit("a", 2, 1)] };
        let (plan, _) = plan(&mut ledger(owner), &batch);
        assert_eq!(seqs(&plan), [Some(11), Some(13), Some(14)]);
        assert_eq!(plan.new_streams.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [50, 51]);
        assert_eq!(plan.events, 4);
    }

    #[test]
    fn a_conflict_takes_no_seq_and_fails_only_what_builds_on_it() {
        let owner = Incarnation::fresh();
        let commits = vec![commit("a", 1, 1), commit("a", 2, 1), commit("b", 0, 1), commit("a", 0, 1)];
        let (plan, _) = plan(&mut ledger(owner), &Batch { owner, commits });
        assert_eq!(seqs(&plan), [None, None, Some(11), Some(12)]);
        assert_eq!(plan.outcomes[0], CommitOutcome::Conflict { actual: Some(Version::ZERO) });
    }

    #[test]
    fn epoch_and_incarnation_must_both_match() {
        let owner = Incarnation::fresh();
        let mut late = commit("a", 0, 1);
        late.epoch = Epoch::new(2);
        let (of_late, _) = plan(&mut ledger(owner), &Batch { owner, commits: vec![late] });
        assert_eq!(of_late.outcomes, [CommitOutcome::Fenced]);
        let stranger = Batch { owner: Incarnation::fresh(), commits: vec![commit("a", 0, 1)] };
        assert_eq!(plan(&mut ledger(owner), &stranger).0.outcomes, [CommitOutcome::Fenced]);
    }

    #[test]
    fn the_ledger_goes_on_where_a_plan_ended() {
        let owner = Incarnation::fresh();
        let mut ledger = ledger(owner);
        let first = Batch { owner, commits: vec![commit("a", 0, 3)] };
        let (stored, slots) = plan(&mut ledger, &first);
        ledger.take_in(stored, slots.streams);
        let second = Batch { owner, commits: vec![commit("a", 3, 1), commit("b", 0, 1)] };
        let (next, _) = plan(&mut ledger, &second);
        assert_eq!(seqs(&next), [Some(14), Some(15)]);
        assert_eq!(next.new_streams.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [51]);
    }

    #[test]
    fn a_stream_in_another_shard_is_not_attempted() {
        let owner = Incarnation::fresh();
        let state = ShardState { epoch: Epoch::new(3), owner: Some(owner), head: Seq::ZERO };
        let mut ledger = Ledger::new(7, vec![state; 16], 1);
        let count = ShardCount::new(16).expect("in range");
        let mut misplaced = commit("a", 0, 1);
        let home = count.shard_of_stream(&misplaced.stream).get();
        misplaced.shard = ShardId::new((home + 1) % 16);
        let (plan, _) = plan(&mut ledger, &Batch { owner, commits: vec![misplaced] });
        assert!(matches!(plan.outcomes[0], CommitOutcome::Unavailable { .. }));
    }
}
