//! Nodes that cannot reach the store for longer than their lease, and come back: what they say meanwhile is never stale,
//! and they go on as other runs.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use orchestrix::core::{CommandId, EventStore, Version};
use orchestrix::{Consistency, Node, SendError};
use orchestrix_testkit::{FaultControl, Faulty};

use super::place::Shared;
use super::{LEASE, balanced, member_on, owned};
use crate::counter::{Add, Counter, CounterId, counter};
use crate::harness::{CounterLog, Dice, Told, eventually, fresh_seed};

const CALLERS: u64 = 12;
const COUNTERS: u64 = 24;

/// How long a caller tries one command. It is beyond what any of the cuts takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a read may take: it is given up soon where nobody may answer it, so that there are many.
const READ_WITHIN: Duration = Duration::from_millis(100);

/// What everybody knows to be durable, by counter: a strong read that begins later sees no less.
#[derive(Default)]
struct Known(Mutex<HashMap<u64, Version>>);

impl Known {
    fn of(&self, counter: u64) -> Version {
        self.0.lock().expect("no panic").get(&counter).copied().unwrap_or(Version::ZERO)
    }

    fn learn(&self, counter: u64, version: Version) {
        let mut known = self.0.lock().expect("no panic");
        let before = known.entry(counter).or_insert(version);
        *before = version.max(*before);
    }
}

struct Story {
    nodes: [Node; 2],
    known: Known,
    over: AtomicBool,
    strong_reads: AtomicU64,
    retried: AtomicU64,
}

impl Story {
    async fn call(self: Arc<Self>, mut dice: Dice) -> Vec<(CounterId, Told)> {
        let mut told = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            let number = dice.roll(COUNTERS);
            if dice.roll(2) == 0 {
                self.read(number, &mut dice).await;
            } else {
                told.push((name(number), self.add(number, &mut dice).await));
            }
        }
        told
    }

    /// Sends a command, with its id, to one node after the other until it is done.
    async fn add(&self, number: u64, dice: &mut Dice) -> Told {
        let mut told = Told { id: CommandId::fresh(), amount: 1 + dice.roll(9), answers: Vec::new() };
        let give_up = Instant::now() + PATIENCE;
        while !told.is_done() && Instant::now() < give_up {
            let node = &self.nodes[dice.roll(2) as usize];
            let sent = node.of::<Counter>(name(number)).send(Add::new(told.amount)).id(told.id);
            let answer = sent.within(Duration::from_secs(3)).receipt().await;
            match &answer {
                Ok(done) => self.known.learn(number, done.version),
                Err(SendError::Refused(refusal)) => panic!("there is no limit: {refusal}"),
                Err(_) => drop(self.retried.fetch_add(1, Ordering::Relaxed)),
            }
            told.answers.push(answer);
        }
        told
    }

    async fn read(&self, number: u64, dice: &mut Dice) {
        let (node, known) = (&self.nodes[dice.roll(2) as usize], self.known.of(number));
        let consistency = if dice.roll(2) == 0 { Consistency::Leased } else { Consistency::Confirmed };
        let reading = node.of::<Counter>(name(number)).reading(|state| state.total).consistency(consistency);
        if let Ok(seen) = reading.within(READ_WITHIN).await {
            assert!(
                seen.version >= known,
                "a stale {consistency:?} read: {seen:?}, and {known} was answered before"
            );
            self.strong_reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn name(number: u64) -> CounterId {
    counter(&format!("cut-{number}"))
}

async fn breakable(shared: &Shared) -> (Node, FaultControl) {
    let (store, faults) = Faulty::new(shared.open().await);
    let store: Arc<dyn EventStore> = store;
    (member_on(store).await, faults)
}

async fn nodes_that_are_cut_off_say_nothing_stale_and_come_back(shared: Shared) {
    let ((one, first), (two, second)) = (breakable(&shared).await, breakable(&shared).await);
    balanced(&[&one, &two]).await;
    let story = Arc::new(Story {
        nodes: [one, two],
        known: Known::default(),
        over: AtomicBool::new(false),
        strong_reads: AtomicU64::new(0),
        retried: AtomicU64::new(0),
    });
    let seed = fresh_seed("nodes that are cut off");
    let callers: Vec<_> =
        (0..CALLERS).map(|number| tokio::spawn(Arc::clone(&story).call(Dice(seed ^ number)))).collect();
    let mut taken_over = 0;
    for (node, faults) in [(0, &first), (1, &second), (0, &first)] {
        let other = &story.nodes[1 - node];
        let before = story.nodes[node].cluster().expect("it is in a cluster").incarnation;
        let all = owned(other) + owned(&story.nodes[node]);
        faults.take_down();
        eventually("the other one takes over", async || owned(other) == all).await;
        taken_over += 1;
        tokio::time::sleep(LEASE).await;
        faults.heal();
        let is_back = async || {
            let now = story.nodes[node].cluster().expect("it is in a cluster");
            now.incarnation != before && now.shards_owned > 0
        };
        eventually("it comes back as another run", is_back).await;
        balanced(&[&story.nodes[0], &story.nodes[1]]).await;
    }
    story.over.store(true, Ordering::Relaxed);
    let mut told: HashMap<CounterId, Vec<Told>> = HashMap::new();
    for caller in callers {
        for (id, one) in caller.await.expect("no caller panics") {
            assert!(one.is_done(), "it was never done: {one:?}");
            told.entry(id).or_default().push(one);
        }
    }
    let log = shared.open().await;
    for (id, told) in &told {
        CounterLog::read(&*log, id).await.check(told);
    }
    let (reads, retried) =
        (story.strong_reads.load(Ordering::Relaxed), story.retried.load(Ordering::Relaxed));
    println!("{taken_over} takeovers, {reads} strong reads, {retried} answers that asked for a retry");
    assert!(taken_over == 3 && reads >= 20 && retried >= 1, "too little was hit");
    for node in &story.nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_cut_off_say_nothing_stale_and_come_back_in_memory() {
    nodes_that_are_cut_off_say_nothing_stale_and_come_back(Shared::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_are_cut_off_say_nothing_stale_and_come_back_on_postgres() {
    nodes_that_are_cut_off_say_nothing_stale_and_come_back(Shared::postgres()).await;
}
