//! The same on PostgreSQL, while two nodes take turns: the one that serves is cut off from the database, the other one
//! takes over when the lease has ended, and what the first one had sent arrives late or never.
//!
//! Callers ask whichever node they believe to serve, and now and then the other one: an answer from it must be as true.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrix::core::{CommandId, EventStore, SnapshotPolicy};
use orchestrix::{AggregateRef, Consistency, Node, NodeStatus, NotAttempted, SendError, Settings};
use orchestrix_testkit::proxy::Proxy;
use orchestrix_testkit::{FaultControl, Faulty};
use tokio::task::JoinSet;

use super::play::Sent;
use super::{Answer, COUNTERS, Noted, Seen, name, read, verdict};
use crate::counter::{Add, AddRefusal, Counter, Peek};
use crate::harness::{Dice, eventually, fresh_seed, in_time, start};
use crate::store_postgres::place::Place;

const CALLERS: u64 = 12;

/// The shortest lease that is allowed.
const LEASE: Duration = Duration::from_secs(1);

/// How long a caller who heard nothing good waits.
const PAUSE: Duration = Duration::from_millis(2);

/// How many takeovers there are; `FAULTS=full` asks for all of them.
fn takeovers() -> usize {
    match std::env::var("FAULTS").as_deref() {
        Ok("full") => 50,
        Ok("usual") | Err(std::env::VarError::NotPresent) => 6,
        other => panic!("FAULTS is {other:?}; it may be `usual` or `full`"),
    }
}

/// A node and its way to the database.
struct Side {
    proxy: Proxy,
    node: Node,
    seen: FaultControl,
}

/// Two nodes and their callers.
struct Turns {
    sides: [Side; 2],
    /// The side that is believed to serve.
    serving: AtomicUsize,
    /// The order of invocations and answers.
    time: AtomicU64,
    sent: Mutex<Vec<Sent>>,
    ended: AtomicBool,
    /// Answers that the other side gave, by whether they told anything.
    told_elsewhere: AtomicU64,
    silent_elsewhere: AtomicU64,
    commands_fenced: AtomicU64,
}

fn settings(name: &str) -> Settings {
    Settings {
        node_name: Some(name.to_owned()),
        lease: LEASE,
        claim_wait_max: Duration::from_mins(1),
        arbiters: 2,
        command_timeout: Duration::from_millis(250),
        dedup_commands_max: 100_000,
        snapshots: SnapshotPolicy::every(50),
        shutdown_timeout: Duration::from_secs(20),
        ..Settings::default()
    }
}

async fn side(place: &Place, name: &str) -> Side {
    let (proxy, options) = place.through_proxy().await;
    let store = options.connect().await.expect("the database opens through the proxy");
    let (counted, seen) = Faulty::new(Arc::new(store));
    Side { proxy, node: start(counted, settings(name)).await, seen }
}

impl Turns {
    /// Starts both nodes. The second one gets the shards only when the first one is cut off, so that is the first turn.
    async fn begin(place: &Place) -> Arc<Self> {
        let first = side(place, "ada").await;
        first.proxy.stall();
        let second = side(place, "bob").await;
        first.proxy.resume();
        Arc::new(Self {
            sides: [first, second],
            serving: AtomicUsize::new(1),
            time: AtomicU64::new(0),
            sent: Mutex::default(),
            ended: AtomicBool::new(false),
            told_elsewhere: AtomicU64::new(0),
            silent_elsewhere: AtomicU64::new(0),
            commands_fenced: AtomicU64::new(0),
        })
    }

    fn moment(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    async fn timed<T>(&self, call: impl Future<Output = T>) -> (u64, u64, T) {
        let invoked = self.moment();
        let answer = call.await;
        (invoked, self.moment(), answer)
    }

    /// One caller: makes calls one after the other until the turns are over.
    async fn caller(self: Arc<Self>, mut dice: Dice) -> Vec<Noted> {
        let mut noted = Vec::new();
        while !self.ended.load(Ordering::Acquire) {
            let serving = self.serving.load(Ordering::Acquire);
            let other = dice.roll(6) == 0;
            let node = &self.sides[if other { 1 - serving } else { serving }].node;
            let one = self.one_call(node, &mut dice).await;
            let is_told = is_told(&one.answer);
            if other {
                let count = if is_told { &self.told_elsewhere } else { &self.silent_elsewhere };
                count.fetch_add(1, Ordering::Relaxed);
            }
            if !is_told {
                tokio::time::sleep(PAUSE).await;
            }
            noted.push(one);
        }
        noted
    }

    async fn one_call(&self, node: &Node, dice: &mut Dice) -> Noted {
        let number = dice.roll(COUNTERS);
        if dice.roll(20) == 0 {
            node.passivate::<Counter>(&name(number)).await;
        }
        let to = node.of::<Counter>(name(number));
        match dice.roll(10) {
            0..=3 => self.add_new(node, number, dice).await,
            4 | 5 => self.add_again(node, number, dice).await,
            6 => self.look(number, read(to, Consistency::Leased)).await,
            7 => self.look(number, read(to, Consistency::Confirmed)).await,
            8 => self.look(number, refusal(to)).await,
            _ => self.look(number, peek(to)).await,
        }
    }

    async fn add_new(&self, node: &Node, number: u64, dice: &mut Dice) -> Noted {
        let sent = (number, CommandId::fresh(), 1 + dice.roll(9));
        self.sent.lock().expect("nothing panics under this lock").push(sent);
        self.add(node, sent).await
    }

    /// Sends a command that somebody has sent, perhaps to the other node, and perhaps without an answer.
    async fn add_again(&self, node: &Node, number: u64, dice: &mut Dice) -> Noted {
        let back = if dice.roll(12) == 0 { dice.roll(500) } else { dice.roll(12) } as usize;
        let earlier = {
            let sent = self.sent.lock().expect("nothing panics under this lock");
            sent.len().checked_sub(1 + back).map(|place| sent[place])
        };
        match earlier {
            Some(earlier) => self.add(node, earlier).await,
            None => self.add_new(node, number, dice).await,
        }
    }

    async fn add(&self, node: &Node, (counter, id, amount): Sent) -> Noted {
        let to = node.of::<Counter>(name(counter));
        let send = async { to.send(Add::new(amount)).id(id).receipt().await };
        let (invoked, returned, heard) = self.timed(send).await;
        if let Err(SendError::NotAttempted(NotAttempted::NotOwner { .. })) = &heard {
            self.commands_fenced.fetch_add(1, Ordering::Relaxed);
        }
        Noted { counter, invoked, returned, answer: Answer::Add { id, amount, heard: Some(heard) } }
    }

    async fn look(&self, counter: u64, seen: impl Future<Output = Seen>) -> Noted {
        let (invoked, returned, seen) = self.timed(seen).await;
        let answer = seen.map_or(Answer::Unseen, |(total, version)| Answer::Saw { total, version });
        Noted { counter, invoked, returned, answer }
    }

    /// Cuts the node that serves off from the database while it has work there, until the other one has taken over: in
    /// silence, so that what it sent arrives late, or so that it hears of it.
    async fn take_turns(&self, is_silent: bool, dice: &mut Dice) {
        let old = self.serving.load(Ordering::Acquire);
        let (from, to) = (&self.sides[old], &self.sides[1 - old]);
        tokio::time::sleep(Duration::from_millis(300 + dice.roll(500))).await;
        eventually("an append is under way", async || from.seen.appends_seen().under_way > 0).await;
        from.proxy.stall();
        if !is_silent {
            from.proxy.refuse(true);
            from.proxy.cut_all();
        }
        eventually("the other node serves", async || to.node.status() == NodeStatus::Running).await;
        self.serving.store(1 - old, Ordering::Release);
        tokio::time::sleep(Duration::from_millis(dice.roll(200))).await;
        // What is still on its way arrives now.
        from.proxy.refuse(false);
        from.proxy.resume();
    }

    async fn ask_again(&self) -> Vec<Noted> {
        let node = &self.sides[self.serving.load(Ordering::Acquire)].node;
        let sent = self.sent.lock().expect("nothing panics under this lock").clone();
        let mut noted = Vec::with_capacity(sent.len());
        for command in sent {
            let one = self.add(node, command).await;
            assert!(is_told(&one.answer), "a healthy node does it");
            noted.push(one);
        }
        noted
    }
}

/// Looks by a command that is refused. Nobody knows of one that waits for what a takeover has met: it saw nothing.
async fn refusal(of: AggregateRef<Counter>) -> Seen {
    match of.send(Add { amount: 1, limit: 0 }).await {
        Err(SendError::Refused(AddRefusal::OverLimit { total, .. })) => Ok((total, None)),
        Err(SendError::NotAttempted(why)) => Err(why),
        Err(SendError::Unknown(_)) => Err(NotAttempted::DeadlineExceeded),
        Ok(done) => panic!("it is over the limit, and yet done: {done}"),
    }
}

/// Looks by a command that stores nothing.
async fn peek(of: AggregateRef<Counter>) -> Seen {
    match of.send(Peek {}).receipt().await {
        Ok(done) => Ok((done.reply, Some(done.version))),
        Err(SendError::NotAttempted(why)) => Err(why),
        Err(SendError::Unknown(_)) => Err(NotAttempted::DeadlineExceeded),
        Err(SendError::Refused(never)) => match never {},
    }
}

fn is_told(answer: &Answer) -> bool {
    matches!(answer, Answer::Saw { .. } | Answer::Add { heard: Some(Ok(_)), .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_takes_over_calls_look_as_if_they_happened_one_at_a_time() {
    let (place, seed, takeovers) = (Place::new(), fresh_seed("turns"), takeovers());
    let turns = Turns::begin(&place).await;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        let dice = Dice(seed.wrapping_mul(31).wrapping_add(number));
        callers.spawn(Arc::clone(&turns).caller(dice));
    }
    let mut dice = Dice(seed);
    for turn in 0..takeovers {
        turns.take_turns(turn % 2 == 0, &mut dice).await;
    }
    turns.ended.store(true, Ordering::Release);
    let mut noted: Vec<_> = in_time("the callers", callers.join_all()).await.into_iter().flatten().collect();
    noted.extend(turns.ask_again().await);
    let facts = verdict(&place.open().await as &dyn EventStore, &noted).await;
    let fenced: u64 = turns.sides.iter().map(|side| side.seen.appends_seen().fenced).sum();
    let doubtful: u64 = turns.sides.iter().map(|side| side.seen.appends_seen().doubtful).sum();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{takeovers} takeovers, each from a node with an append under way: {facts:?}; {fenced} commits met the fence, \
         {doubtful} appends were in doubt, {} commands were told so; the node that does not serve told {} and kept \
         silent {} times",
        count(&turns.commands_fenced),
        count(&turns.told_elsewhere),
        count(&turns.silent_elsewhere)
    );
    for side in &turns.sides {
        side.node.shutdown().await;
    }
    let floor = takeovers as u64;
    for (what, met, floor) in [
        ("calls that overlapped", facts.overlaps as u64, 50 * floor),
        ("repeats answered", facts.repeats as u64, 10 * floor),
        ("looks", facts.looks as u64, 10 * floor),
        ("commits that met the fence", fenced, floor),
        ("appends in doubt", doubtful, floor / 3),
        ("times the other node kept silent", count(&turns.silent_elsewhere), 10 * floor),
    ] {
        assert!(met >= floor, "too little was met to prove anything: {met} {what}");
    }
}
