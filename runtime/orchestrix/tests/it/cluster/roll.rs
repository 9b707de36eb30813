//! A rolling restart while callers send: nothing fails, nothing is lost or doubled.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use orchestrix::Node;
use orchestrix::core::CommandId;

use super::place::Shared;
use super::{balanced, member_on, owned};
use crate::counter::{Add, Counter, CounterId, counter};
use crate::harness::{CounterLog, Dice, Told, fresh_seed};

const CALLERS: u64 = 8;
const COUNTERS: u64 = 40;
const ROUNDS: usize = 2;

/// The nodes that a load balancer knows now.
type Ready = Arc<Mutex<Vec<Node>>>;

struct Caller {
    ready: Ready,
    dice: Dice,
    over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
}

impl Caller {
    async fn run(mut self) -> Vec<(CounterId, Told)> {
        let mut told = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let id = counter(&format!("rolled-{}", self.dice.roll(COUNTERS)));
            let node = {
                let ready = self.ready.lock().expect("no panic");
                ready[self.dice.roll(ready.len() as u64) as usize].clone()
            };
            let (command_id, amount) = (CommandId::fresh(), 1 + self.dice.roll(9));
            let answer = node.of::<Counter>(id.clone()).send(Add::new(amount)).id(command_id).receipt().await;
            self.sent.fetch_add(1, Ordering::Relaxed);
            told.push((id, Told { id: command_id, amount, answers: vec![answer] }));
        }
        told
    }
}

/// Takes each node out of the load balancer, stops it, and puts a new one in its place.
async fn roll(shared: &Shared, ready: &Ready) -> usize {
    let mut moved = 0;
    for _ in 0..3 {
        let leaving = ready.lock().expect("no panic").remove(0);
        let had = owned(&leaving);
        leaving.shutdown().await;
        moved += had;
        let coming = member_on(shared.open().await).await;
        let all: Vec<_> = {
            let mut ready = ready.lock().expect("no panic");
            ready.push(coming);
            ready.clone()
        };
        balanced(&all.iter().collect::<Vec<_>>()).await;
    }
    moved
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_command_in_memory() {
    a_rolling_restart_fails_no_command(Shared::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_command_on_postgres() {
    a_rolling_restart_fails_no_command(Shared::postgres()).await;
}

async fn a_rolling_restart_fails_no_command(shared: Shared) {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(member_on(shared.open().await).await);
    }
    balanced(&nodes.iter().collect::<Vec<_>>()).await;
    let (ready, over, sent) = (Arc::new(Mutex::new(nodes)), Arc::new(AtomicBool::new(false)), Arc::default());
    let seed = fresh_seed("a rolling restart");
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (ready, over, sent) = (Arc::clone(&ready), Arc::clone(&over), Arc::clone(&sent));
            tokio::spawn(Caller { ready, dice: Dice(seed ^ number), over, sent }.run())
        })
        .collect();
    let mut moved = 0;
    for _ in 0..ROUNDS {
        moved += roll(&shared, &ready).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut told: HashMap<CounterId, Vec<Told>> = HashMap::new();
    for caller in callers {
        for (id, one) in caller.await.expect("no caller panics") {
            assert!(one.is_done(), "a command failed in a planned move: {one:?}");
            told.entry(id).or_default().push(one);
        }
    }
    let log = shared.open().await;
    for (id, told) in &told {
        CounterLog::read(&*log, id).await.check(told);
    }
    let sent: u64 = sent.load(Ordering::Relaxed);
    println!("{moved} shards moved under {sent} commands");
    assert!(moved >= 12 && sent >= 100, "too little happened: {moved} moves under {sent} commands");
    let last = ready.lock().expect("no panic").clone();
    for node in last {
        node.shutdown().await;
    }
}
