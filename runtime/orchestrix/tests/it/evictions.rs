//! Counters that leave memory while callers are at work on them: no command is lost or doubled, no read goes back, and
//! there are never two actors of one counter.
//!
//! Nothing fails in these stories, so every command must be done. A second actor of a counter would decide at versions
//! that the first one has used: one of its commands would meet a conflict, or its reads would miss what was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrix::core::{CommandId, SnapshotPolicy};
use orchestrix::store::Memory;
use orchestrix::{AggregateRef, Consistency, Node, Settings};
use tokio::task::JoinSet;

use crate::counter::{Add, Counter, CounterId, counter};
use crate::harness::{CounterLog, Dice, empty_log, fresh_seed, in_time, start};
use crate::linearizable::history::{Call, Facts, Heard, judge};
use crate::tampered::Tampered;

/// Several times what fits into the least memory that a node can be given.
const COUNTERS: u64 = 1_500;
/// Those that one call in three goes to.
const HOT: u64 = 6;
const CALLERS: u64 = 12;
/// Callers go on until so many counters have left memory and come back.
const RETURNS_MIN: u64 = 1_500;

/// How counters leave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressure {
    /// There is room for a third of them.
    Bytes,
    /// A hundredth of a second without a call is enough to be sent away.
    Idle,
    /// Callers send them away, mostly with calls under way.
    Callers,
}

impl Pressure {
    fn settings(self) -> Settings {
        let settings = Settings { arbiters: 2, snapshots: SnapshotPolicy::every(9), ..Settings::default() };
        match self {
            Self::Bytes => Settings { residency_bytes_max: 1 << 20, ..settings },
            Self::Idle => Settings { residency_idle_max: Duration::from_millis(10), ..settings },
            Self::Callers => settings,
        }
    }
}

/// A node, and what is counted about it.
struct Crowd {
    pressure: Pressure,
    node: Node,
    log: Memory,
    time: AtomicU64,
    loads: Arc<AtomicU64>,
    /// Times a counter was sent away right after commands for it, with calls under way at the node.
    sent_away_busy: AtomicU64,
}

/// A call to a counter.
struct Noted {
    counter: u64,
    call: Call,
}

fn name(number: u64) -> CounterId {
    counter(&format!("crowd-{number}"))
}

impl Crowd {
    async fn gather(pressure: Pressure) -> Arc<Self> {
        let (log, loads) = (empty_log(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&loads);
        let store = Tampered::over(Arc::new(log.clone())).on_load(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let node = start(store.shared(), pressure.settings()).await;
        let (time, sent_away_busy) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { pressure, node, log, time, loads, sent_away_busy })
    }

    fn moment(&self) -> u64 {
        self.time.fetch_add(1, Ordering::SeqCst)
    }

    /// Returns how many activations at least were of counters that had been in memory before.
    fn returns(&self) -> u64 {
        self.loads.load(Ordering::SeqCst).saturating_sub(COUNTERS)
    }

    async fn send_away(&self, number: u64) {
        self.node.passivate::<Counter>(&name(number)).await;
        self.sent_away_busy.fetch_add(u64::from(self.node.residency().in_flight > 0), Ordering::SeqCst);
    }
}

async fn caller(crowd: Arc<Crowd>, mut dice: Dice) -> Vec<Noted> {
    let mut noted = Vec::new();
    while crowd.returns() < RETURNS_MIN {
        let number = if dice.roll(3) == 0 { dice.roll(HOT) } else { dice.roll(COUNTERS) };
        let commands = 1 + dice.roll(3);
        let calls = burst(&crowd, number, commands, &mut dice).await;
        noted.extend(calls.into_iter().map(|call| Noted { counter: number, call }));
    }
    noted
}

/// Sends a few commands and a read without waiting in between, then hears the answers.
async fn burst(crowd: &Crowd, number: u64, commands: u64, dice: &mut Dice) -> Vec<Call> {
    let to = crowd.node.of::<Counter>(name(number));
    let mut under_way = Vec::new();
    for _ in 0..commands {
        let (id, invoked) = (CommandId::fresh(), crowd.moment());
        under_way.push((id, invoked, to.send(Add::new(1)).id(id).receipt()));
    }
    if crowd.pressure == Pressure::Callers && dice.roll(2) == 0 {
        crowd.send_away(number).await;
    }
    let mut calls = vec![look(crowd, &to).await];
    for (id, invoked, receipt) in under_way {
        let done = receipt.await.unwrap_or_else(|error| panic!("{id} was not done: {error}"));
        assert_eq!(done.reply, done.version.get(), "each command adds one");
        let heard = Heard::Done { id, version: done.version.get(), duplicate: done.duplicate };
        calls.push(Call { invoked, returned: crowd.moment(), heard });
    }
    calls
}

async fn look(crowd: &Crowd, of: &AggregateRef<Counter>) -> Call {
    let invoked = crowd.moment();
    let seen = of.read_versioned(Consistency::Leased, |state| state.total).await;
    let (total, version) = seen.unwrap_or_else(|error| panic!("{of:?} was not read: {error}"));
    assert_eq!(total, version.get(), "each command adds one");
    Call { invoked, returned: crowd.moment(), heard: Heard::Saw { version: total } }
}

async fn verdict(crowd: &Crowd, noted: Vec<Noted>) -> Facts {
    let mut calls: Vec<Vec<Call>> = (0..COUNTERS).map(|_| Vec::new()).collect();
    for one in noted {
        calls[one.counter as usize].push(one.call);
    }
    let mut sum = Facts::default();
    for (number, calls) in (0..).zip(calls) {
        let log = CounterLog::read(&crowd.log, &name(number)).await;
        let ids: Vec<_> = log.events.iter().map(|event| event.command_id).collect();
        match judge(&calls, &ids) {
            Ok(facts) => sum += facts,
            Err(violation) => panic!("{}: {violation:?} among {} calls", name(number), calls.len()),
        }
    }
    sum
}

async fn press(pressure: Pressure) {
    let seed = fresh_seed("evictions");
    let crowd = Crowd::gather(pressure).await;
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(caller(Arc::clone(&crowd), Dice(seed.wrapping_mul(31).wrapping_add(number))));
    }
    let noted = in_time("the callers", callers.join_all()).await.into_iter().flatten().collect();
    let facts = verdict(&crowd, noted).await;
    crowd.node.shutdown().await;
    let busy = crowd.sent_away_busy.load(Ordering::SeqCst);
    println!("{pressure:?}: {facts:?}, {} came back, {busy} were sent away busy", crowd.returns());
    assert_eq!((facts.repeats, facts.unheard), (0, 0), "every command was new and was heard of");
    assert!(facts.overlaps as u64 > RETURNS_MIN / 2, "too few calls met each other: {facts:?}");
    if pressure == Pressure::Callers {
        assert!(busy > RETURNS_MIN / 4, "too few were sent away with calls under way: {busy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_that_do_not_fit_lose_nothing() {
    press(Pressure::Bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_that_were_idle_for_a_moment_lose_nothing() {
    press(Pressure::Idle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counters_that_are_sent_away_at_work_lose_nothing() {
    press(Pressure::Callers).await;
}
