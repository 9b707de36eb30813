//! What the load is made of: a small aggregate, its command, and who sends what to whom.
//!
//! The aggregate counts its commands. Its state is two numbers, so what a resident aggregate costs is the runtime's
//! share and not the scenario's; its events carry a filler, so that a stored payload has the size that was asked for.
//! After every command the count equals the version: a reply that says otherwise shows a command that was applied
//! twice or to the wrong state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use orchestrix_core::prelude::*;
use uuid::Uuid;

aggregate_id!(
    /// Names a counter.
    pub(crate) struct CounterId, "counter id"
);

/// The state: how many commands it took and the sum of their amounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counter {
    /// Commands so far; equals the aggregate's version.
    pub(crate) count: u64,
    /// Sum of the amounts, wrapping around.
    pub(crate) sum: u64,
}

/// What happens to a counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Event)]
pub(crate) enum CounterEvent {
    /// An amount was added.
    #[event("loadtest.added")]
    Added {
        /// How much.
        amount: u64,
        /// Takes up space.
        filler: Arc<str>,
    },
}

/// Adds an amount; replies with the count after it.
#[derive(Clone, Debug, Serialize, Deserialize, Command)]
#[command("loadtest.add", reply = u64, refusal = Never)]
pub(crate) struct Add {
    /// How much.
    pub(crate) amount: u64,
    /// Takes up space, in the event as well.
    pub(crate) filler: Arc<str>,
}

impl Aggregate for Counter {
    const TYPE: AggregateType = aggregate_type!("loadtest.counter");
    type Id = CounterId;
    type Event = CounterEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Add>();
    }

    fn apply(&mut self, event: &CounterEvent) {
        let CounterEvent::Added { amount, .. } = event;
        self.count += 1;
        self.sum = self.sum.wrapping_add(*amount);
    }
}

impl Handle<Add> for Counter {
    fn handle(&self, command: &Add, _: &Context) -> Decision<Self, Add> {
        let filler = Arc::clone(&command.filler);
        emit(CounterEvent::Added { amount: command.amount, filler }).reply(self.count + 1)
    }
}

/// The smallest payload that can be asked for, in bytes: an event with an empty filler.
pub(crate) const PAYLOAD_BYTES_MIN: usize = 32;

/// Returns a filler with which the event's JSON takes `payload_bytes` bytes, for amounts of one digit.
pub(crate) fn filler(payload_bytes: usize) -> Arc<str> {
    let empty = CounterEvent::Added { amount: 0, filler: "".into() };
    let taken = orchestrix_core::Event::encode(&empty).map_or(0, |payload| payload.bytes.len());
    "x".repeat(payload_bytes.saturating_sub(taken)).into()
}

/// Returns the id of the counter with this number.
pub(crate) fn counter_id(number: usize) -> CounterId {
    CounterId::from_key(&format!("c-{number:07}")).expect("a short text of letters and digits is an id")
}

/// Returns the ids of the first `count` counters.
pub(crate) fn counter_ids(count: usize) -> Arc<[CounterId]> {
    (0..count).map(counter_id).collect()
}

/// A small generator of pseudo-random numbers (SplitMix64, Steele et al. 2014): the same seed gives the same load.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Makes the generator of one caller.
    pub(crate) fn new(seed: u64, caller: usize) -> Self {
        let mut random = Self(seed ^ (caller as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        random.next();
        random
    }

    /// Returns the next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`, by multiplication (Lemire): no division on the path of a command.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Says yes with this probability, 0 to 1.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < share
    }
}

/// Which aggregate an operation goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// How many aggregates there are.
    pub(crate) aggregates: usize,
    /// The share of operations that goes to the first of them, 0 to 1; the others are equally likely.
    pub(crate) hot: f64,
}

impl Spread {
    /// Picks an aggregate.
    pub(crate) fn pick(&self, random: &mut Random) -> usize {
        if random.chance(self.hot) { 0 } else { random.below(self.aggregates) }
    }
}

/// What keeps the command ids of one run apart from those of all others on the same database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunTag {
    /// Differs from process to process, most likely.
    process: [u8; 2],
    /// Differs from run to run within a process.
    run: u8,
    /// The wall-clock time at which the run began.
    began: Timestamp,
}

impl RunTag {
    /// Makes the tag of a run that begins now.
    pub(crate) fn fresh(now: Timestamp) -> Self {
        static RUNS: AtomicU8 = AtomicU8::new(0);
        let random = Uuid::now_v7().into_bytes();
        Self { process: [random[14], random[15]], run: RUNS.fetch_add(1, Ordering::Relaxed), began: now }
    }
}

/// Makes command ids: UUIDs of version 7 without the lock that a shared generator takes.
///
/// The caller's number and its own counter make them unique in a run, the tag makes them unique among runs.
#[derive(Clone, Debug)]
pub(crate) struct CommandIds {
    base_millis: u64,
    random: [u8; 10],
    made: u32,
}

impl CommandIds {
    /// Prepares the ids of one caller of a run.
    pub(crate) fn new(tag: RunTag, caller: usize) -> Self {
        let caller = (caller as u32).to_be_bytes();
        // The version takes four bits of byte 0, the variant two bits of byte 2: only the process's tag loses by that.
        let random = [tag.process[0], tag.run, tag.process[1], caller[1], caller[2], caller[3], 0, 0, 0, 0];
        Self { base_millis: (tag.began.as_micros() / 1_000) as u64, random, made: 0 }
    }

    /// Returns the next id, made `elapsed` after the run began.
    pub(crate) fn next(&mut self, elapsed: Duration) -> CommandId {
        self.made = self.made.wrapping_add(1);
        self.random[6..].copy_from_slice(&self.made.to_be_bytes());
        let millis = self.base_millis + elapsed.as_millis() as u64;
        CommandId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &self.random).into_uuid())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_for() {
        for bytes in [PAYLOAD_BYTES_MIN, 200, 4_096] {
            let event = CounterEvent::Added { amount: 7, filler: filler(bytes) };
            let payload = orchestrix_core::Event::encode(&event).expect("encodes");
            assert_eq!(payload.bytes.len(), bytes);
        }
    }

    #[test]
    fn the_count_is_the_version() {
        let mut counter = Counter::default();
        for amount in 1..=3 {
            counter.apply(&CounterEvent::Added { amount, filler: "".into() });
        }
        assert_eq!(counter, Counter { count: 3, sum: 6 });
    }

    #[test]
    fn command_ids_of_all_callers_and_runs_differ_and_tell_their_age() {
        let began = Timestamp::from_micros(1_700_000_000_000_000);
        let mut seen = HashSet::new();
        for tag in [RunTag::fresh(began), RunTag::fresh(began)] {
            for caller in 0..300 {
                let mut ids = CommandIds::new(tag, caller);
                for _ in 0..100 {
                    let id = ids.next(Duration::from_millis(2_500));
                    assert_eq!(id.made_at(), Some(began.plus(Duration::from_millis(2_500))));
                    assert!(seen.insert(id), "{id} was made twice");
                }
            }
        }
    }

    #[test]
    fn a_seed_repeats_its_load_and_callers_differ() {
        let draw = |seed, caller| {
            let mut random = Random::new(seed, caller);
            [random.next(), random.next(), random.next()]
        };
        assert_eq!(draw(1, 5), draw(1, 5));
        assert_ne!(draw(1, 5), draw(1, 6));
        assert_ne!(draw(1, 5), draw(2, 5));
    }

    #[test]
    fn the_hot_share_goes_to_the_first_aggregate() {
        let mut random = Random::new(7, 0);
        let spread = Spread { aggregates: 1_000, hot: 0.5 };
        let hot = (0..10_000).filter(|_| spread.pick(&mut random) == 0).count();
        assert!((4_700..5_300).contains(&hot), "{hot} of 10,000 went to the hot one");
        let all = Spread { aggregates: 10, hot: 1.0 };
        assert!((0..1_000).all(|_| all.pick(&mut random) == 0));
        let even = Spread { aggregates: 10, hot: 0.0 };
        let picked: HashSet<usize> = (0..1_000).map(|_| even.pick(&mut random)).collect();
        assert_eq!(picked, (0..10).collect());
    }
}
