//! How sure a read is: under the lease, confirmed by the store, or whatever the node has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orchestrix::core::store::EventStore;
use orchestrix::core::{CommandId, Epoch, Incarnation, Version};
use orchestrix::{Consistency, NotAttempted, Seen, ShardState};
use tokio::task::JoinHandle;

use super::{A_WHILE, Pair, Stage, hang, is_pending, shard};
use crate::counter::{Counter, CounterId};
use crate::harness::{Lanes, eventually, in_time};

type Read = Result<Seen<u64>, NotAttempted>;

impl Stage {
    fn looking(&self, name: &CounterId, consistency: Consistency, min_version: u64) -> JoinHandle<Read> {
        let looked = Arc::clone(&self.looked);
        let read = self.node.of::<Counter>(name.clone()).reading(move |state: &Counter| {
            looked.fetch_add(1, Ordering::SeqCst);
            state.total
        });
        let read = read.consistency(consistency).min_version(Version::new(min_version));
        tokio::spawn(async move { read.await })
    }

    /// Returns when so many reads have looked, and whatever they do next has begun.
    async fn have_looked(&self, reads: u64) {
        eventually("the reads have looked", async || self.looked.load(Ordering::SeqCst) == reads).await;
        tokio::time::sleep(A_WHILE).await;
    }

    async fn look(&self, name: &CounterId, consistency: Consistency, min_version: u64) -> Read {
        in_time("a read", self.looking(name, consistency, min_version)).await.expect("no panic")
    }
}

fn told(read: Read) -> Result<(u64, u64, u64), NotAttempted> {
    read.map(|seen| (seen.value, seen.version.get(), seen.epoch.get()))
}

fn is_not_owner(read: &Read) -> bool {
    matches!(read, Err(NotAttempted::NotOwner { .. }))
}

#[tokio::test]
async fn a_read_tells_the_version_and_the_epoch_that_it_saw() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let done = stage.add(&moved).await.expect("done");
    for consistency in [Consistency::Leased, Consistency::Confirmed, Consistency::Local] {
        let seen = stage.look(&moved, consistency, done.version.get()).await.expect("read");
        assert_eq!((seen.version, seen.epoch, seen.shard), (done.version, done.epoch, done.shard));
    }
    stage.shards.fence(&[shard(&moved)]).await;
    let claim = stage.claim_and_open(shard(&moved)).await;
    assert_eq!(stage.look(&moved, Consistency::Leased, 0).await.expect("read").epoch, claim.epoch);
    assert!(claim.epoch > done.epoch);
    stage.node.shutdown().await;
}

#[tokio::test]
async fn only_local_reads_are_answered_for_a_shard_that_the_node_does_not_own() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&moved).await.expect("done");
    in_time("the seal", stage.sealing(shard(&moved))).await.expect("no panic");
    stage.elsewhere(&moved).await;
    for closed in [false, true] {
        assert!(is_not_owner(&stage.look(&moved, Consistency::Leased, 0).await));
        assert!(is_not_owner(&stage.look(&moved, Consistency::Confirmed, 0).await));
        let local = told(stage.look(&moved, Consistency::Local, 0).await);
        assert_eq!(local, Ok((11, 2, Epoch::ZERO.get())), "the store is asked, closed: {closed}");
        stage.shards.fence(&[shard(&moved)]).await;
    }
    let found = stage.shards.state(shard(&moved));
    assert!(matches!(found, Some(ShardState::Closed { .. })), "nothing was claimed for a look: {found:?}");
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_local_read_is_not_older_than_its_caller_knows() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let term = stage.add(&moved).await.expect("done").epoch.get();
    // Behind the back of this node, which believes to own the shard.
    stage.elsewhere(&moved).await;
    assert_eq!(told(stage.look(&moved, Consistency::Local, 0).await), Ok((1, 1, term)), "it may be stale");
    assert_eq!(told(stage.look(&moved, Consistency::Local, 1).await), Ok((1, 1, term)));
    assert_eq!(told(stage.look(&moved, Consistency::Local, 2).await), Ok((11, 2, 0)), "the store knows more");
    let behind = NotAttempted::Behind { version: Version::new(2), wanted: Version::new(3) };
    assert_eq!(stage.look(&moved, Consistency::Local, 3).await, Err(behind));
    assert!(
        is_not_owner(&stage.look(&moved, Consistency::Confirmed, 0).await),
        "the store does not confirm it"
    );
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_local_read_does_not_show_what_may_vanish() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    let (_, adding, _) = stage.hold_work(&moved).await;
    let mut looking = stage.looking(&moved, Consistency::Local, 0);
    assert!(is_pending(&mut looking).await, "what it would show is not stored yet");
    let fencing = stage.fencing(shard(&moved));
    let seen = in_time("the read", looking).await.expect("no panic");
    assert!(is_not_owner(&seen), "nobody knows what becomes of it: {seen:?}");
    stage.faults.release_held();
    in_time("the command", adding).await.expect("no panic").expect("it was stored before anybody claimed");
    in_time("the fence", fencing).await.expect("no panic");
    assert_eq!(told(stage.look(&moved, Consistency::Local, 1).await), Ok((1, 1, 0)));
    stage.node.shutdown().await;
}

#[tokio::test]
async fn reads_that_wait_to_be_confirmed_share_one_question() {
    const READS: u64 = 100;
    let (stage, Pair { moved, kept }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&moved).await.expect("done");
    stage.add(&kept).await.expect("done");
    let asked = || stage.waits.asked.load(Ordering::SeqCst);
    let all = hang(&stage.waits.confirms).await;
    let first = stage.looking(&moved, Consistency::Confirmed, 0);
    eventually("the first question is under way", async || asked() == 1).await;
    let more: Vec<_> = (0..READS)
        .map(|number| stage.looking(if number % 2 == 0 { &moved } else { &kept }, Consistency::Confirmed, 0))
        .collect();
    stage.have_looked(1 + READS).await;
    drop(all);
    for read in std::iter::once(first).chain(more) {
        assert_eq!(in_time("a read", read).await.expect("no panic").expect("confirmed").value, 1);
    }
    assert!((2..10).contains(&asked()), "{} questions for {READS} reads", asked());
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_read_is_confirmed_by_a_question_that_was_asked_after_it() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.add(&moved).await.expect("done");
    let all = hang(&stage.waits.confirms).await;
    let early = stage.looking(&moved, Consistency::Confirmed, 0);
    eventually("the store was asked", async || stage.waits.asked.load(Ordering::SeqCst) == 1).await;
    stage.have_looked(1).await;
    stage.log.claim(&[shard(&moved)], Incarnation::fresh()).await.expect("another run claims the shard");
    let late = stage.looking(&moved, Consistency::Confirmed, 0);
    stage.have_looked(2).await;
    drop(all);
    assert!(in_time("the early read", early).await.expect("no panic").is_ok(), "it was so when it was asked");
    let late = in_time("the late read", late).await.expect("no panic");
    assert!(is_not_owner(&late), "an answer from before it does not confirm it: {late:?}");
    stage.node.shutdown().await;
}

#[tokio::test]
async fn a_question_that_fails_confirms_nothing() {
    let (stage, Pair { moved, .. }) = (Stage::begin(Lanes::OnArbiters).await, Stage::pair());
    stage.adding(&moved, CommandId::fresh()).await.expect("no panic").expect("done");
    stage.faults.fail(orchestrix_testkit::Operation::Confirm, 1);
    let read = stage.look(&moved, Consistency::Confirmed, 0).await;
    assert!(matches!(read, Err(NotAttempted::Unavailable { .. })), "{read:?}");
    assert_eq!(stage.faults.faults_hit().calls_failed, 1);
    assert!(stage.look(&moved, Consistency::Confirmed, 0).await.is_ok());
    stage.node.shutdown().await;
}
