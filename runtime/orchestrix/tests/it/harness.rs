//! What the stories share: nodes over a store that can be broken, callers who keep what they were told, and the
//! comparison of that with the log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use orchestrix::core::store::{EventStore, RecordedEvent, StreamRange};
use orchestrix::core::{AggregateId, CommandId, Event, ShardCount, StreamId, Version};
use orchestrix::store::Memory;
use orchestrix::{Consistency, Done, Node, NotAttempted, Orchestrix, SendError, Settings};
use orchestrix_testkit::{FaultControl, Faulty};

use crate::counter::{AddRefusal, Counter, CounterEvent, CounterId, counter};
use crate::tampered::Tampered;

/// How many shards the logs of the stories have: few, so that aggregates share them.
pub const SHARDS: u32 = 8;

/// Where the writer's lanes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// One on each arbiter.
    OnArbiters,
    /// One for all arbiters, on the runtime of the caller.
    Apart,
}

impl Lanes {
    pub const ALL: [Self; 2] = [Self::OnArbiters, Self::Apart];
}

/// A node over a store that can be broken, and the log behind it that cannot.
pub struct Stage {
    pub node: Node,
    pub faults: FaultControl,
    pub log: Memory,
}

pub fn empty_log() -> Memory {
    Memory::with_shards(ShardCount::new(SHARDS).expect("in range"))
}

pub async fn stage(lanes: Lanes, settings: Settings) -> Stage {
    stage_on(empty_log(), lanes, settings).await
}

pub async fn stage_on(log: Memory, lanes: Lanes, settings: Settings) -> Stage {
    let (broken, faults) = Faulty::new(Arc::new(log.clone()));
    let store: Arc<dyn EventStore> = match lanes {
        Lanes::OnArbiters => broken,
        Lanes::Apart => Tampered::over(broken).with_lanes(1).shared(),
    };
    let settings = Settings { arbiters: 2, ..settings };
    Stage { node: start(store, settings).await, faults, log }
}

pub async fn start(store: Arc<dyn EventStore>, settings: Settings) -> Node {
    let builder = Orchestrix::builder().store(store).aggregate::<Counter>().settings(settings);
    builder.metrics(false).start().await.expect("the node starts")
}

impl Stage {
    /// Returns when every arbiter has looked at all work that was sent before: actors take turns in the order in
    /// which work reached them, and these come last.
    pub async fn barrier(&self) {
        for name in Self::barriers() {
            let barrier = self.node.of::<Counter>(name);
            barrier.read(Consistency::Local, |_| ()).await.expect("the barrier answers");
        }
    }

    /// Returns when nothing is under way any more, also nothing whose caller has gone.
    pub async fn all_settled(&self) {
        let settled = async || self.node.residency().in_flight == 0;
        eventually("everything under way is settled", settled).await;
    }

    /// One aggregate on each of the two arbiters.
    fn barriers() -> [CounterId; 2] {
        [0, 1].map(|arbiter| on_arbiter(arbiter, 2, "barrier"))
    }

    pub async fn total(&self, name: &str) -> Result<(u64, Version), NotAttempted> {
        let view = |state: &Counter| state.total;
        self.node.of::<Counter>(counter(name)).read_versioned(Consistency::Leased, view).await
    }
}

pub fn shard_of(id: &CounterId) -> u32 {
    ShardCount::new(SHARDS).expect("in range").shard_of("counter", &id.as_key()).get()
}

/// Finds a counter whose arbiter is this one of so many.
pub fn on_arbiter(arbiter: u32, arbiters: u32, prefix: &str) -> CounterId {
    let mut ids = (0..).map(|number| counter(&format!("{prefix}-{number}")));
    ids.find(|id| shard_of(id) % arbiters == arbiter).expect("some id falls there")
}

/// Finds another counter in the same shard.
pub fn neighbour(of: &CounterId, prefix: &str) -> CounterId {
    let mut ids = (0..).map(|number| counter(&format!("{prefix}-{number}")));
    ids.find(|id| id != of && shard_of(id) == shard_of(of)).expect("some id falls there")
}

/// Chance from a seed: SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }
}

/// A seed that is new in each run, printed so that a failure can be run again; `STORY_SEED` sets it.
pub fn fresh_seed(story: &str) -> u64 {
    let given = std::env::var("STORY_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| CommandId::fresh().as_uuid().as_u128() as u64);
    println!("{story}: STORY_SEED={seed}");
    seed
}

/// What the caller of an `Add` heard.
pub type AddAnswer = Result<Done<u64>, SendError<AddRefusal>>;

/// Everything that was heard about one command id.
#[derive(Debug)]
pub struct Told {
    pub id: CommandId,
    pub amount: u64,
    pub answers: Vec<AddAnswer>,
}

impl Told {
    pub fn is_done(&self) -> bool {
        self.answers.iter().any(Result::is_ok)
    }

    pub fn is_in_doubt(&self) -> bool {
        !self.is_done() && self.answers.iter().any(|answer| matches!(answer, Err(SendError::Unknown(_))))
    }
}

/// One counter's stream as it stands in the log.
#[derive(Debug)]
pub struct CounterLog {
    pub events: Vec<RecordedEvent>,
    /// The total by version, from 0.
    pub totals: Vec<u64>,
    places: HashMap<CommandId, usize>,
}

impl CounterLog {
    /// Reads a stream whose commands store one event each.
    ///
    /// # Panics
    /// When a version is missing, or a command stands in the log twice.
    pub async fn read(log: &dyn EventStore, id: &CounterId) -> Self {
        let stream = stream(id);
        let range = StreamRange::from(Version::new(1), usize::MAX);
        let events = log.read_stream(&stream, range).await.expect("the log can be read");
        let (mut totals, mut places) = (vec![0], HashMap::new());
        for (place, event) in (1..).zip(&events) {
            assert_eq!(event.version.get(), place as u64, "{stream} has a hole");
            assert_eq!(
                places.insert(event.command_id, place),
                None,
                "{} took effect twice",
                event.command_id
            );
            totals.push(totals[place - 1] + amount_of(event));
        }
        Self { events, totals, places }
    }

    pub fn version(&self) -> Version {
        Version::new(self.events.len() as u64)
    }

    pub fn total(&self) -> u64 {
        *self.totals.last().expect("there is one for version 0")
    }

    pub fn place_of(&self, id: CommandId) -> Option<Version> {
        self.places.get(&id).map(|place| Version::new(*place as u64))
    }

    /// Compares what callers heard with the log.
    ///
    /// # Panics
    /// When somebody heard what is not so.
    pub fn check<'a>(&self, told: impl IntoIterator<Item = &'a Told>) {
        let mut known = HashSet::new();
        for one in told {
            known.insert(one.id);
            let place = self.place_of(one.id);
            for done in one.answers.iter().flatten() {
                assert_eq!(place, Some(done.version), "done at another place: {one:?}");
                self.check_done(done, one.amount);
            }
            if !one.is_done() && !one.is_in_doubt() {
                assert_eq!(place, None, "refused or not attempted, and in the log all the same: {one:?}");
            }
        }
        for event in &self.events {
            assert!(known.contains(&event.command_id), "nobody sent {}", event.command_id);
        }
    }

    /// Compares one success with the log.
    ///
    /// # Panics
    /// When the log has another total or another amount at that version.
    pub fn check_done(&self, done: &Done<u64>, amount: u64) {
        let version = done.version.get() as usize;
        let stored = self.totals.get(version);
        assert_eq!(stored, Some(&done.reply), "the reply is another than the log's: {done:?}");
        let stored = self.totals[version] - self.totals[version - 1];
        assert_eq!(stored, amount, "the body is another than the log's: {done:?}");
    }

    /// Checks what a read saw.
    ///
    /// # Panics
    /// When no such state is in the log.
    pub fn check_seen(&self, (total, version): (u64, Version)) {
        let stored = self.totals.get(version.get() as usize);
        assert_eq!(stored, Some(&total), "a read saw {total} at version {version}; the log has {stored:?}");
    }

    /// Checks a total that came without a version.
    ///
    /// # Panics
    /// When the counter never had it.
    pub fn check_total(&self, total: u64) {
        assert!(self.totals.contains(&total), "a total of {total} was seen, which the log never had");
    }
}

pub fn stream(id: &CounterId) -> StreamId {
    StreamId::new("counter", id.to_shared())
}

fn amount_of(event: &RecordedEvent) -> u64 {
    let mut amount = 0;
    CounterEvent::decode(event.raw()).expect("a counter's event").for_each(|event| {
        amount += match event {
            CounterEvent::Added { amount } | CounterEvent::Cursed { amount } => amount,
        };
    });
    amount
}

/// Waits until something is so. The limit is far beyond what a slow machine needs: it turns a hang into a failure.
///
/// # Panics
/// When it does not become so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let patience = Duration::from_mins(1);
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(patience, waiting).await.is_ok(), "this never came about: {what}");
}

/// Turns a hang into a failure.
///
/// # Panics
/// When the future does not end.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_mins(1), future).await;
    ended.unwrap_or_else(|_| panic!("this came to no end: {what}"))
}
