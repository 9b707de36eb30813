//! Single shards of a node are opened, sealed, fenced and lost, while the others go on.

mod load;
mod reads;
mod warm;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use orchestrix::core::store::{Claim, EventStore};
use orchestrix::core::{CommandId, Epoch, Incarnation, ShardId, Version};
use orchestrix::store::Memory;
use orchestrix::{Consistency, Node, NodeStatus, NotAttempted, SendError, Settings, ShardState, Shards};
use orchestrix_testkit::{Fault, FaultControl, Faulty, Operation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::counter::{Add, AddRefusal, Counter, CounterId};
use crate::harness::{
    AddAnswer, CounterLog, Lanes, Told, empty_log, eventually, in_time, on_arbiter, shard_of, start,
};
use crate::tampered::{ALL, Tampered, Waits};

/// How long a story looks at something that must not happen.
const A_WHILE: Duration = Duration::from_millis(100);

/// A node that holds its shards under a lease, on a log that others may claim from.
struct Stage {
    node: Node,
    shards: Shards,
    faults: FaultControl,
    log: Memory,
    waits: Waits,
    /// How many reads with a consistency of their own have looked at a state.
    looked: Arc<AtomicU64>,
}

/// Two counters whose shards are on different arbiters: one that the story is about, and its witness.
struct Pair {
    moved: CounterId,
    kept: CounterId,
}

impl Stage {
    async fn begin(lanes: Lanes) -> Self {
        let log = empty_log();
        let (broken, faults) = Faulty::new(Arc::new(log.clone()));
        let mut store = Tampered::over(broken).with_leases();
        if lanes == Lanes::Apart {
            store = store.with_lanes(1);
        }
        let waits = store.waits.clone();
        let node = start(store.shared(), Settings { arbiters: 2, ..Settings::default() }).await;
        let stage = Self { shards: node.shards(), node, faults, log, waits, looked: Arc::default() };
        stage.barrier().await;
        stage
    }

    /// Returns when the arbiter of the counter that moves has looked at everything that was sent before.
    async fn barrier(&self) {
        let beside = |name: &CounterId| shard_of(name) != shard_of(&Self::pair().moved);
        let mut names = (0..).map(|number| on_arbiter(0, 2, &format!("beside-{number}")));
        let name = names.find(beside).expect("some id falls there");
        self.node.of::<Counter>(name).read(Consistency::Leased, |_| ()).await.expect("it answers");
    }

    fn pair() -> Pair {
        Pair { moved: on_arbiter(0, 2, "moved"), kept: on_arbiter(1, 2, "kept") }
    }

    async fn add(&self, name: &CounterId) -> AddAnswer {
        self.node.of::<Counter>(name.clone()).send(Add::new(1)).receipt().await
    }

    fn adding(&self, name: &CounterId, id: CommandId) -> JoinHandle<AddAnswer> {
        let sending = self.node.of::<Counter>(name.clone()).send(Add::new(1)).id(id);
        tokio::spawn(async move { sending.receipt().await })
    }

    fn reading(&self, name: &CounterId) -> JoinHandle<Result<(u64, Version), NotAttempted>> {
        let of = self.node.of::<Counter>(name.clone());
        tokio::spawn(async move { of.read_versioned(Consistency::Leased, |state| state.total).await })
    }

    async fn total(&self, name: &CounterId) -> Result<(u64, Version), NotAttempted> {
        self.reading(name).await.expect("no panic")
    }

    /// Holds the next append, puts an addition into it, and reads on top of that.
    async fn hold_work(&self, name: &CounterId) -> (Told, JoinHandle<AddAnswer>, JoinHandle<Seen>) {
        self.faults.on_next_append(Fault::Hold);
        let id = CommandId::fresh();
        let adding = self.adding(name, id);
        in_time("the append", self.faults.wait_for_held(1)).await;
        let before = self.node.residency().in_flight;
        let reading = self.reading(name);
        self.is_sent(before + 1).await;
        (Told { id, amount: 1, answers: Vec::new() }, adding, reading)
    }

    /// Returns when so many calls are under way and looked at.
    async fn is_sent(&self, calls: u64) {
        eventually("all is sent", async || self.node.residency().in_flight == calls).await;
        self.barrier().await;
    }

    fn sealing(&self, shard: ShardId) -> JoinHandle<()> {
        let shards = self.shards.clone();
        tokio::spawn(async move { shards.seal(&[shard]).await })
    }

    fn fencing(&self, shard: ShardId) -> JoinHandle<()> {
        let shards = self.shards.clone();
        tokio::spawn(async move { shards.fence(&[shard]).await })
    }

    async fn becomes_closed_to_work(&self, shard: ShardId) {
        let is_closed = async || !matches!(self.shards.state(shard), Some(ShardState::Open { .. }));
        eventually("the shard takes no more work", is_closed).await;
    }

    /// Claims a shard as this node, which opens it.
    async fn claim_and_open(&self, shard: ShardId) -> Claim {
        let owner = self.shards.owner().expect("the node runs");
        let claims = self.log.claim(&[shard], owner).await.expect("claimed");
        self.shards.open(&claims);
        claims[0]
    }

    /// Lets another node do one addition, on the same log.
    async fn elsewhere(&self, name: &CounterId) {
        let store = Tampered::over(Arc::new(self.log.clone())).claiming_only(shard(name)).shared();
        let other = start(store, Settings { arbiters: 1, ..Settings::default() }).await;
        other.of::<Counter>(name.clone()).send(Add::new(10)).await.expect("the other node serves");
        other.shutdown().await;
    }
}

type Seen = Result<(u64, Version), NotAttempted>;

fn shard(name: &CounterId) -> ShardId {
    ShardId::new(shard_of(name))
}

fn is_not_owner(answer: &AddAnswer, of: ShardId) -> bool {
    matches!(answer, Err(SendError::NotAttempted(NotAttempted::NotOwner { shard, .. })) if *shard == of)
}

/// Lets calls of a kind hang until this is dropped.
async fn hang(calls: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    Arc::clone(calls).acquire_many_owned(ALL).await.expect("open")
}

async fn is_pending<T>(task: &mut JoinHandle<T>) -> bool {
    tokio::time::timeout(A_WHILE, task).await.is_err()
}

#[tokio::test]
async fn a_sealed_shard_finishes_what_it_has_while_the_others_go_on() {
    for lanes in Lanes::ALL {
        let (stage, Pair { moved, kept }) = (Stage::begin(lanes).await, Stage::pair());
        stage.add(&moved).await.expect("done");
        let (mut told, adding, reading) = stage.hold_work(&moved).await;
        let mut sealing = stage.sealing(shard(&moved));
        stage.becomes_closed_to_work(shard(&moved)).await;
        let late = CommandId::fresh();
        let refused = in_time("a late command", stage.adding(&moved, late)).await.expect("no panic");
        assert!(is_not_owner(&refused, shard(&moved)), "{refused:?}");
        assert!(is_pending(&mut sealing).await, "an append is still under way");
        if lanes == Lanes::OnArbiters {
            in_time("another shard", stage.add(&kept)).await.expect("the other shard goes on");
        }
        stage.faults.release_held();
        told.answers.push(in_time("the command in flight", adding).await.expect("no panic"));
        assert!(told.is_done(), "what was in flight is done: {told:?}");
        let seen = in_time("the read in flight", reading).await.expect("no panic");
        assert_eq!(seen, Ok((2, Version::new(2))), "and what was decided before the seal is answered");
        in_time("the seal", sealing).await.expect("no panic");
        stage.add(&kept).await.expect("the other shard goes on");
        let log = CounterLog::read(&stage.log, &moved).await;
        assert_eq!((log.version().get(), log.place_of(late)), (2, None), "what came late had no effect");
        stage.node.shutdown().await;
    }
}

#[tokio::test]
async fn what_a_sealed_shard_did_not_take_is_done_by_its_next_owner_with_the_same_id() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&moved).await.expect("done");
    in_time("the seal", stage.sealing(shard(&moved))).await.expect("no panic");
    let id = CommandId::fresh();
    let refused = stage.adding(&moved, id).await.expect("no panic");
    assert!(is_not_owner(&refused, shard(&moved)), "{refused:?}");
    stage.elsewhere(&moved).await;
    stage.claim_and_open(shard(&moved)).await;
    let done = stage.adding(&moved, id).await.expect("no panic").expect("done");
    assert_eq!(
        (done.reply, done.version.get(), done.duplicate),
        (12, 3, false),
        "what was done elsewhere is seen"
    );
    let Some(ShardState::Open { term }) = stage.shards.state(shard(&moved)) else { panic!("it is open") };
    assert_eq!(done.epoch, term);
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_closed_shard_tells_its_owner_as_far_as_it_is_known() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let (of, owner) = (shard(&moved), Incarnation::fresh());
    stage.shards.fence(&[of]).await;
    stage.shards.hint(of, Some(owner), Epoch::new(7));
    let heard = stage.add(&moved).await.expect_err("it is closed");
    let expected = NotAttempted::NotOwner { shard: of, owner: Some(owner), epoch: Epoch::new(7) };
    assert!(matches!(&heard, SendError::NotAttempted(why) if *why == expected), "{heard:?}");
    assert_eq!(stage.total(&moved).await, Err(expected), "a read hears the same");
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_fenced_shard_says_nothing_more_while_the_others_go_on() {
    let (stage, Pair { moved, kept }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let (mut told, adding, reading) = stage.hold_work(&moved).await;
    let repeating = stage.adding(&moved, told.id);
    stage.is_sent(3).await;
    let mut fencing = stage.fencing(shard(&moved));
    let seen = in_time("the read in flight", reading).await.expect("no panic");
    assert!(matches!(seen, Err(NotAttempted::NotOwner { .. })), "it is answered at once: {seen:?}");
    let repeated = in_time("the repeat in flight", repeating).await.expect("no panic");
    assert!(
        matches!(repeated, Err(SendError::Unknown(_))),
        "the first attempt may yet be stored: {repeated:?}"
    );
    assert!(is_pending(&mut fencing).await, "the append is still under way");
    in_time("another shard", stage.add(&kept)).await.expect("the other shard goes on");
    stage.faults.release_held();
    // Nobody else claimed the shard, so the store took it.
    told.answers.push(in_time("the command in flight", adding).await.expect("no panic"));
    in_time("the fence", fencing).await.expect("no panic");
    CounterLog::read(&stage.log, &moved).await.check(&[told]);
    stage.node.shutdown().await;
}

/// A seal or a fence comes while an aggregate of the shard is being loaded.
async fn while_it_loads(close: fn(&Stage, ShardId) -> JoinHandle<()>) -> AddAnswer {
    let (stage, Pair { moved, kept }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&kept).await.expect("done");
    let all = hang(&stage.waits.loads).await;
    let adding = stage.adding(&moved, CommandId::fresh());
    stage.is_sent(1).await;
    let mut closing = close(&stage, shard(&moved));
    stage.becomes_closed_to_work(shard(&moved)).await;
    assert!(is_pending(&mut closing).await, "the load is still under way");
    stage.add(&kept).await.expect("the other shard goes on");
    drop(all);
    in_time("the aggregate leaves", closing).await.expect("no panic");
    let heard = in_time("the command", adding).await.expect("no panic");
    let stored = CounterLog::read(&stage.log, &moved).await.version().get();
    assert_eq!(stored, u64::from(heard.is_ok()));
    // Whatever the load had read has no part in what comes now.
    stage.elsewhere(&moved).await;
    stage.claim_and_open(shard(&moved)).await;
    assert_eq!(stage.total(&moved).await, Ok((10 + stored, Version::new(1 + stored))));
    stage.node.shutdown().await;
    heard
}

#[tokio::test]
async fn what_waits_for_a_load_is_done_before_its_shard_is_sealed() {
    let heard = while_it_loads(Stage::sealing).await;
    assert!(heard.is_ok(), "{heard:?}");
}

#[tokio::test]
async fn a_load_that_comes_back_after_its_shard_was_fenced_is_not_used() {
    let heard = while_it_loads(Stage::fencing).await;
    assert!(matches!(heard, Err(SendError::NotAttempted(NotAttempted::NotOwner { .. }))), "{heard:?}");
}

#[tokio::test]
async fn an_aggregate_of_an_earlier_term_never_answers_in_a_later_one() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let of = shard(&moved);
    let Some(ShardState::Open { term }) = stage.shards.state(of) else { panic!("it is open") };
    let (_, adding, reading) = stage.hold_work(&moved).await;
    let repeated = stage.node.of::<Counter>(moved.clone()).send(Add { amount: 1, limit: 0 });
    let refusal = tokio::spawn(async move { repeated.receipt().await });
    stage.is_sent(3).await;
    // The shard was lost and owned again before the aggregate heard of it.
    let log: &dyn EventStore = &stage.log;
    let head = log.heads().await.expect("read")[of.get() as usize];
    stage.shards.open(&[Claim { shard: of, epoch: term.next(), head }]);
    stage.faults.release_held();
    in_time("the command", adding)
        .await
        .expect("no panic")
        .expect("the store took it in the term that it was in");
    let seen = in_time("the read", reading).await.expect("no panic");
    assert!(matches!(seen, Err(NotAttempted::NotOwner { .. })), "it rests on belief: {seen:?}");
    let refused: Result<_, SendError<AddRefusal>> = in_time("the refusal", refusal).await.expect("no panic");
    assert!(matches!(refused, Err(SendError::NotAttempted(NotAttempted::NotOwner { .. }))), "{refused:?}");
    let next = stage.total(&moved).await;
    assert!(matches!(next, Err(NotAttempted::NotOwner { .. })), "nor does it take anything new: {next:?}");
    eventually("it has gone", async || stage.total(&moved).await == Ok((1, Version::new(1)))).await;
    stage.node.shutdown().await;
}

#[tokio::test]
async fn an_append_that_is_fenced_closes_its_shard_and_not_the_node() {
    let (stage, Pair { moved, kept }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&moved).await.expect("done");
    stage.add(&kept).await.expect("done");
    stage.faults.fail(Operation::Claim, u64::MAX);
    stage.log.claim(&[shard(&moved)], Incarnation::fresh()).await.expect("another run claims one shard");
    let fenced = stage.add(&moved).await;
    assert!(is_not_owner(&fenced, shard(&moved)), "{fenced:?}");
    eventually("the node tries to claim", async || stage.faults.faults_hit().calls_failed > 0).await;
    for _ in 0..20 {
        let heard = stage.total(&moved).await;
        assert!(matches!(heard, Err(NotAttempted::NotOwner { .. })), "it would rest on belief: {heard:?}");
        stage.add(&kept).await.expect("the other shard goes on");
    }
    assert_eq!(stage.node.status(), NodeStatus::Running);
    let owner = stage.shards.owner();
    stage.faults.heal();
    eventually("the shard is claimed again", async || stage.add(&moved).await.is_ok()).await;
    assert_eq!(stage.shards.owner(), owner, "by the same run");
    let log = CounterLog::read(&stage.log, &moved).await;
    assert_eq!(log.version().get(), 2, "what was fenced is not in the log");
    stage.node.shutdown().await;
}
