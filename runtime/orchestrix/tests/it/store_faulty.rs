//! The faulty store does what each fault says, counts it, and breaks no obligation.

use std::sync::Arc;
use std::time::Duration;

use orchestrix::store::Memory;
use orchestrix_core::store::{
    Batch, ClaimError, Commit, CommitOutcome, EventStore, NewEvent, ReadError, StreamRange,
};
use orchestrix_core::{Codec, CommandId, Incarnation, ShardCount, ShardId, StreamId, Timestamp, Version};
use orchestrix_testkit::{Fault, FaultControl, FaultCounts, Faulty, Operation};

use crate::store_postgres::members::node;

const ALL_SHARDS: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];

/// A faulty store over memory, with an owner of both its shards.
struct Setup {
    store: Arc<dyn EventStore>,
    control: FaultControl,
    owner: Incarnation,
}

impl Setup {
    async fn new() -> Self {
        let memory = Memory::with_shards(ShardCount::new(2).expect("in range"));
        let (store, control) = Faulty::new(Arc::new(memory));
        let setup = Self { store, control, owner: Incarnation::fresh() };
        setup.claim().await;
        setup
    }

    async fn claim(&self) -> u64 {
        self.store.claim(&ALL_SHARDS, self.owner).await.expect("claims")[0].epoch.get()
    }

    async fn append(&self, id: &str, expected: u64, epoch: u64) -> CommitOutcome {
        let stream = StreamId::new("thing", id);
        let shard = self.store.info().shard_count.shard_of_stream(&stream);
        let event = NewEvent {
            event_type: "thing.happened".into(),
            schema_version: 1,
            codec: Codec::Json,
            payload: b"{}".to_vec(),
        };
        let commit = Commit {
            stream,
            shard,
            epoch: orchestrix_core::Epoch::new(epoch),
            expected: Version::new(expected),
            command_id: CommandId::fresh(),
            recorded_at: Timestamp::from_micros(0),
            headers: None,
            receipt: None,
            events: vec![event],
        };
        self.store.append(Batch { owner: self.owner, commits: vec![commit] }).await.remove(0)
    }

    async fn stored(&self, id: &str) -> usize {
        let range = StreamRange::from(Version::new(1), 100);
        self.store.read_stream(&StreamId::new("thing", id), range).await.expect("reads").len()
    }

    fn hit(&self) -> FaultCounts {
        self.control.faults_hit()
    }
}

fn is_unknown(outcome: &CommitOutcome) -> bool {
    matches!(outcome, CommitOutcome::Unknown { .. })
}

#[tokio::test]
async fn what_fails_before_is_not_stored() {
    let setup = Setup::new().await;
    setup.control.on_append(2, Fault::FailBefore);
    assert!(setup.append("a", 0, 1).await.is_committed());
    assert!(matches!(setup.append("a", 1, 1).await, CommitOutcome::Unavailable { .. }));
    assert!(setup.append("a", 1, 1).await.is_committed());
    assert_eq!((setup.stored("a").await, setup.hit().failed_before, setup.control.appends()), (2, 1, 3));
}

#[tokio::test]
async fn a_lost_acknowledgement_is_stored_and_a_drop_is_not() {
    let setup = Setup::new().await;
    setup.control.script([Some(Fault::LoseAck), Some(Fault::Drop), None]);
    assert!(is_unknown(&setup.append("lost", 0, 1).await));
    assert!(is_unknown(&setup.append("dropped", 0, 1).await));
    assert!(setup.append("fine", 0, 1).await.is_committed());
    assert_eq!((setup.stored("lost").await, setup.stored("dropped").await), (1, 0));
    assert_eq!((setup.hit().acks_lost, setup.hit().dropped, setup.hit().appends()), (1, 1, 2));
}

#[tokio::test]
async fn an_injected_conflict_stores_nothing() {
    let setup = Setup::new().await;
    setup.control.on_next_append(Fault::Conflict);
    assert_eq!(setup.append("a", 0, 1).await, CommitOutcome::Conflict { actual: None });
    assert_eq!((setup.stored("a").await, setup.hit().conflicts), (0, 1));
}

#[tokio::test]
async fn a_late_commit_is_stored_unless_a_claim_comes_first() {
    let setup = Setup::new().await;
    let late = Some(Fault::CommitLate { after: None });
    setup.control.script([late, late]);
    assert!(is_unknown(&setup.append("before", 0, 1).await));
    assert_eq!(setup.stored("before").await, 0, "not yet");
    assert!(setup.control.release_late().await[0].is_committed());
    assert_eq!(setup.stored("before").await, 1);

    assert!(is_unknown(&setup.append("after", 0, 1).await));
    setup.claim().await;
    assert_eq!(setup.control.release_late().await, [CommitOutcome::Fenced]);
    assert_eq!(setup.stored("after").await, 0);
    let hit = setup.hit();
    assert_eq!((hit.put_off, hit.late_commits_stored, hit.late_commits_refused), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn delays_pass_by_the_clock_of_the_runtime() {
    let setup = Setup::new().await;
    let hour = Duration::from_hours(1);
    setup.control.script([Some(Fault::Delay(hour)), Some(Fault::CommitLate { after: Some(hour) })]);
    let started = tokio::time::Instant::now();
    assert!(setup.append("slow", 0, 1).await.is_committed());
    assert_eq!(started.elapsed(), hour);
    assert!(is_unknown(&setup.append("late", 0, 1).await));
    assert_eq!(setup.stored("late").await, 0);
    tokio::time::sleep(hour + Duration::from_secs(1)).await;
    assert_eq!(setup.stored("late").await, 1);
    assert_eq!((setup.hit().delayed, setup.hit().late_commits_stored), (1, 1));
}

#[tokio::test]
async fn a_held_append_goes_on_when_it_is_released() {
    let setup = Arc::new(Setup::new().await);
    setup.control.on_next_append(Fault::Hold);
    let held = tokio::spawn({
        let setup = Arc::clone(&setup);
        async move { setup.append("a", 0, 1).await }
    });
    setup.control.wait_for_held(1).await;
    assert_eq!(setup.stored("a").await, 0);
    setup.control.release_held();
    assert!(held.await.expect("no panic").is_committed());
    assert_eq!((setup.stored("a").await, setup.hit().held), (1, 1));
}

#[tokio::test]
async fn calls_fail_before_or_after_as_often_as_asked() {
    let setup = Setup::new().await;
    let stream = StreamId::new("thing", "a");
    setup.control.fail(Operation::Load, 1);
    assert!(matches!(setup.store.load(&stream, 1).await, Err(ReadError::Unavailable { .. })));
    setup.store.load(&stream, 1).await.expect("only one was to fail");

    setup.control.fail(Operation::Claim, 1);
    assert!(matches!(setup.store.claim(&ALL_SHARDS, setup.owner).await, Err(ClaimError::Unavailable { .. })));
    setup.control.fail_after(Operation::Claim, 1);
    assert!(setup.store.claim(&ALL_SHARDS, setup.owner).await.is_err());
    assert_eq!(setup.claim().await, 3, "the second of the failed claims took effect");
    assert_eq!(setup.hit().calls_failed, 3);
}

#[tokio::test]
async fn a_store_that_is_down_fails_everything_until_it_is_healed() {
    let setup = Setup::new().await;
    setup.control.take_down();
    assert!(matches!(setup.append("a", 0, 1).await, CommitOutcome::Unavailable { .. }));
    assert!(setup.store.ping().await.is_err());
    assert!(setup.store.stats().await.is_err());
    setup.control.heal();
    setup.store.ping().await.expect("it is back");
    assert!(setup.append("a", 0, 1).await.is_committed());
    assert_eq!((setup.hit().failed_before, setup.hit().calls_failed), (1, 2));
}

#[tokio::test]
async fn chance_hits_its_share_and_unknown_outcomes_are_settled_by_a_claim() {
    let setup = Setup::new().await;
    setup.control.randomly(42, 0.5, &[Fault::LoseAck, Fault::Drop, Fault::FailBefore]);
    let mut acknowledged = 0;
    let mut stored = 0;
    for number in 0..200 {
        acknowledged += usize::from(setup.append(&format!("a-{number}"), 0, 1).await.is_committed());
    }
    setup.claim().await;
    for number in 0..200 {
        stored += setup.stored(&format!("a-{number}")).await;
    }
    let hit = setup.hit();
    assert!((60..140).contains(&hit.appends()), "about half of 200: {hit:?}");
    assert!(hit.acks_lost > 10 && hit.dropped > 10 && hit.failed_before > 10, "each kind hit: {hit:?}");
    assert_eq!(acknowledged as u64, 200 - hit.appends());
    assert_eq!(stored as u64, 200 - hit.dropped - hit.failed_before);
}

/// What nodes ask about each other can fail, lose its answer, be slow, and be held, each by its kind.
#[tokio::test]
async fn calls_about_the_cluster_are_broken_by_their_kind() {
    let memory = Memory::with_shards(ShardCount::new(2).expect("in range")).shared();
    let (store, control) = Faulty::new(Arc::new(memory));
    let run = Incarnation::fresh();
    store.join(node("one", run), Duration::from_hours(1)).await.expect("joins");
    let claims = store.claim(&ALL_SHARDS, run).await.expect("claims");
    let given = [(claims[0].shard, claims[0].epoch)];
    control.fail(Operation::View, 1);
    control.fail(Operation::Plan, 2);
    control.fail_after(Operation::Release, 1);
    assert!(store.view().await.is_err());
    assert!(store.set_targets(run, 0, Vec::new()).await.is_err() && store.drain(run).await.is_err());
    assert!(store.release_shards(run, &given).await.is_err());
    let view = store.view().await.expect("reads");
    assert!(view.shards[0].owner.is_none() && view.members.iter().all(|member| !member.draining));
    control.delay(Operation::Plan, Duration::from_millis(1), 1);
    assert!(store.drain(run).await.expect("is marked"));
    control.hold(Operation::View, 1);
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.view().await }
    });
    control.wait_for_held(1).await;
    assert!(!held.is_finished());
    control.release_held();
    let view = held.await.expect("ends").expect("reads");
    assert!(view.members[0].draining, "it was carried out when it was let go");
    assert_eq!((control.faults_hit().calls_failed, control.faults_hit().calls_late), (4, 2));
}
