//! Shards move under load: callers send to all of them and send again what was not taken, while one shard after the
//! other is sealed or fenced, changes hands, and is opened again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use orchestrix::core::store::EventStore;
use orchestrix::core::{CommandId, Incarnation, ShardId, Version};
use orchestrix::{NotAttempted, SendError};
use tokio::task::JoinSet;

use super::{Stage, shard};
use crate::counter::{Add, Counter, CounterId, counter};
use crate::harness::{AddAnswer, CounterLog, Dice, Lanes, SHARDS, Told, fresh_seed, in_time};

const CALLERS: u64 = 8;
const COUNTERS: u64 = 32;
const MOVES: u64 = 60;

/// What a move does with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    Seal,
    Fence,
}

/// What the callers share.
struct Load {
    stage: Stage,
    ended: AtomicBool,
    answers: AtomicU64,
    not_owner: AtomicU64,
}

fn name(number: u64) -> CounterId {
    counter(&format!("moving-{number}"))
}

impl Load {
    async fn caller(self: Arc<Self>, mut dice: Dice) -> Vec<(CounterId, Told)> {
        let mut told = Vec::new();
        while !self.ended.load(Ordering::Acquire) {
            let name = name(dice.roll(COUNTERS));
            let one = Told { id: CommandId::fresh(), amount: 1, answers: Vec::new() };
            told.push((name.clone(), self.until_done(&name, one).await));
        }
        told
    }

    /// Sends a command until it is done, always with its id.
    async fn until_done(&self, name: &CounterId, mut one: Told) -> Told {
        while !one.is_done() {
            let to = self.stage.node.of::<Counter>(name.clone());
            let answer = to.send(Add::new(1)).id(one.id).receipt().await;
            self.answers.fetch_add(1, Ordering::Relaxed);
            let is_not_owner = is_not_owner(&answer, shard(name));
            self.not_owner.fetch_add(u64::from(is_not_owner), Ordering::Relaxed);
            one.answers.push(answer);
            tokio::task::yield_now().await;
        }
        one
    }

    /// Gives a shard away and takes it back.
    async fn change_hands(&self, shard: ShardId, how: Move) {
        match how {
            Move::Seal => self.stage.shards.seal(&[shard]).await,
            Move::Fence => self.stage.shards.fence(&[shard]).await,
        }
        let log: &dyn EventStore = &self.stage.log;
        let left = log.heads().await.expect("read")[shard.get() as usize];
        let elsewhere = log.claim(&[shard], Incarnation::fresh()).await.expect("claimed")[0];
        assert_eq!(elsewhere.head, left, "nothing was appended after the shard was {how:?}d");
        self.stage.claim_and_open(shard).await;
    }

    async fn answers(&self, more: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        while self.answers.load(Ordering::Relaxed) < before + more {
            tokio::task::yield_now().await;
        }
    }
}

fn is_not_owner(answer: &AddAnswer, of: ShardId) -> bool {
    match answer {
        Ok(_) => false,
        Err(SendError::NotAttempted(NotAttempted::NotOwner { shard, .. })) => {
            assert_eq!(*shard, of, "it is told of the shard that it is in");
            true
        }
        Err(other) => panic!("a command that is not taken hears who does not own its shard, not {other}"),
    }
}

async fn shards_move_under_load(how: Move, lanes: Lanes) {
    let seed = fresh_seed("shards");
    let load = Arc::new(Load {
        stage: Stage::begin(lanes).await,
        ended: AtomicBool::new(false),
        answers: AtomicU64::new(0),
        not_owner: AtomicU64::new(0),
    });
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(Arc::clone(&load).caller(Dice(seed.wrapping_mul(31).wrapping_add(number))));
    }
    let mut dice = Dice(seed);
    for _ in 0..MOVES {
        in_time("some answers", load.answers(CALLERS)).await;
        let shard = ShardId::new(dice.roll(u64::from(SHARDS)) as u32);
        in_time("a move", load.change_hands(shard, how)).await;
    }
    load.ended.store(true, Ordering::Release);
    let told: Vec<_> = in_time("the callers", callers.join_all()).await.into_iter().flatten().collect();
    for number in 0..COUNTERS {
        let log = CounterLog::read(&load.stage.log, &name(number)).await;
        log.check(told.iter().filter(|(of, _)| *of == name(number)).map(|(_, one)| one));
        let (mut epoch, total) = (orchestrix::core::Epoch::ZERO, log.total());
        for event in &log.events {
            assert!(event.epoch >= epoch, "epochs never fall along a stream");
            epoch = event.epoch;
        }
        let told_now = load.stage.total(&name(number)).await;
        assert_eq!(told_now, Ok((total, Version::new(log.events.len() as u64))));
    }
    let not_owner = load.not_owner.load(Ordering::Relaxed);
    println!("{how:?}, {lanes:?}: {} commands, {not_owner} times not taken", told.len());
    assert!(not_owner >= MOVES / 2, "too little was met to prove anything: {not_owner}");
    load.stage.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_done_once_while_their_shards_are_sealed_and_opened() {
    for lanes in Lanes::ALL {
        shards_move_under_load(Move::Seal, lanes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_done_once_while_their_shards_are_fenced_and_opened() {
    for lanes in Lanes::ALL {
        shards_move_under_load(Move::Fence, lanes).await;
    }
}
